//! The caller's words: what can be asked ([`Request`]), what comes back ([`Completion`]), and who is to blame ([`Error`]).
//!
//! A request takes its buffer by value and the completion gives it back; in between the slot owns it. It knows nothing
//! of rings or slots. Addresses are sectors of 512 bytes whatever the block size; lengths come from the buffer
//! (read, write) or are given in sectors (discard, write zeroes). The direction is in the type: `read` wants memory
//! that the device may write, `write` memory that it may read.
//!
//! States of a request, used in the invariants of `slot.rs` and `queue/`:
//! 1. *free*: the slot belongs to nobody;
//! 2. *staged*: the slot is claimed and filled, the device does not know it yet;
//! 3. *in flight*: its head is below the published index; buffer and slot memory belong to the device;
//! 4. *parked*: completed and found by another thread; the submitter takes it.
//!
//! Specification: 5.2.6 Device Operation.
//!
//! ```
//! use drv_virtio_block::request::{Lba, Request};
//! # use drv_virtio_block::dma::{Buffer, Segment, DeviceWritable};
//! # struct Page([Segment; 1]);
//! # unsafe impl Buffer for Page { fn segments(&self) -> &[Segment] { &self.0 } }
//! # unsafe impl DeviceWritable for Page {}
//! # let page = Page([Segment::new(drv_virtio_block::dma::DeviceAddress(0), 4096)]);
//! let request = Request::read(Lba(8), page).with_token(42);
//! assert_eq!(request.token(), 42);
//! ```
use crate::dma::{Buffer, DeviceReadable, DeviceWritable};
use core::fmt;

/// A logical address in 512-byte sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lba(pub u64);

/// What is asked; the value is the request type on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// `VIRTIO_BLK_T_IN`.
    Read = 0,
    /// `VIRTIO_BLK_T_OUT`.
    Write = 1,
    /// `VIRTIO_BLK_T_FLUSH`.
    Flush = 4,
    /// `VIRTIO_BLK_T_GET_ID`.
    GetId = 8,
    /// `VIRTIO_BLK_T_DISCARD`.
    Discard = 11,
    /// `VIRTIO_BLK_T_WRITE_ZEROES`.
    WriteZeroes = 13,
}

/// One request, with the buffer that it owns.
#[derive(Debug)]
#[must_use = "a request does nothing until it is submitted"]
pub struct Request<B> {
    pub(crate) operation: Operation,
    /// Write: force unit access. Write zeroes: unmap.
    pub(crate) flag: bool,
    pub(crate) sectors: u32,
    pub(crate) lba: u64,
    pub(crate) token: u64,
    pub(crate) buffer: Option<B>,
}

impl<B: Buffer> Request<B> {
    #[inline(always)]
    fn new(operation: Operation, lba: Lba, sectors: u32, flag: bool, buffer: Option<B>) -> Self {
        Self { operation, flag, sectors, lba: lba.0, token: 0, buffer }
    }

    /// A read or a write of all of `buffer`, without a branch between the two. For buffers that go both
    /// ways, which the caller has to know.
    #[inline(always)]
    pub(crate) fn moving(operation: Operation, lba: Lba, buffer: B, token: u64) -> Self {
        debug_assert!(matches!(operation, Operation::Read | Operation::Write));
        Self::new(operation, lba, 0, false, Some(buffer)).with_token(token)
    }

    /// Makes everything that was written and answered before this request was submitted durable. A device without a
    /// write cache answers without being asked.
    pub fn flush() -> Self {
        Self::new(Operation::Flush, Lba(0), 0, false, None)
    }

    /// Tells the device that `sectors` from `lba` on hold nothing of value.
    pub fn discard(lba: Lba, sectors: u32) -> Self {
        Self::new(Operation::Discard, lba, sectors, false, None)
    }

    /// Makes `sectors` from `lba` on read as zeros; with `unmap` the device may deallocate them.
    pub fn write_zeroes(lba: Lba, sectors: u32, unmap: bool) -> Self {
        Self::new(Operation::WriteZeroes, lba, sectors, unmap, None)
    }

    /// A number of the caller's that comes back in the completion.
    #[inline(always)]
    pub fn with_token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// The caller's number.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What is asked.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Gives the buffer back without submitting.
    pub fn into_buffer(self) -> Option<B> {
        self.buffer
    }
}

impl<B: DeviceWritable> Request<B> {
    /// Reads from `lba` on until `buffer` is full.
    #[inline(always)]
    pub fn read(lba: Lba, buffer: B) -> Self {
        Self::new(Operation::Read, lba, 0, false, Some(buffer))
    }

    /// Reads the device's identity, [`crate::spec::ID_BYTES`] bytes, into `buffer`.
    pub fn get_id(buffer: B) -> Self {
        Self::new(Operation::GetId, Lba(0), 0, false, Some(buffer))
    }
}

impl<B: DeviceReadable> Request<B> {
    /// Writes `buffer` from `lba` on.
    #[inline(always)]
    pub fn write(lba: Lba, buffer: B) -> Self {
        Self::new(Operation::Write, lba, 0, false, Some(buffer))
    }

    /// Writes `buffer` and completes only when it is durable (force unit access).
    pub fn write_durably(lba: Lba, buffer: B) -> Self {
        Self::new(Operation::Write, lba, 0, true, Some(buffer))
    }
}

/// Names one submitted request for as long as it has not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) slot: u16,
    pub(crate) generation: u32,
}

/// A request's end, with the buffer that it owned.
#[derive(Debug)]
#[must_use = "a completion carries the buffer and the result"]
pub struct Completion<B> {
    /// The caller's number.
    pub token: u64,
    /// All of it was done, or why not; nothing is said of parts.
    pub result: Result<(), Error>,
    /// The buffer, the caller's again.
    pub buffer: Option<B>,
}

/// Why a request failed; each variant says who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The caller asked for something that cannot be.
    Caller(Refusal),
    /// The device answered against the specification or its own offer.
    Device(DeviceFault),
    /// The medium failed: the device reported `VIRTIO_BLK_S_IOERR`.
    Medium,
    /// The request never reached an answer.
    Gone(Gone),
}

/// What a caller asked wrongly; found before the device is involved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No slot is free: back-pressure, not an error of the request. Reap and submit again.
    Full,
    /// The queue is broken and waits for a reset.
    Broken,
    /// Sectors beyond the medium's capacity.
    OutOfRange,
    /// Not a multiple of the logical block size, in address or length, or segments that cannot be cut at sectors.
    Unaligned,
    /// No data, or no sectors.
    Empty,
    /// A change of a read-only medium.
    ReadOnly,
    /// The device did not offer the operation.
    Unsupported,
    /// GET_ID into less than 20 bytes or more than one segment.
    BadBuffer,
}

/// What a device did wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// It answered `VIRTIO_BLK_S_UNSUPP` to an operation that it had offered.
    Unsupported,
    /// A status value that the specification does not know.
    BadStatus(u8),
    /// It answered OK to a read and said that it wrote fewer bytes than were asked for. (A length of 0 says nothing: some
    /// devices report none.) What is in the buffer is not to be taken for data.
    ShortRead,
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The device was reset while the request was in flight.
    Reset,
    /// It was withdrawn before the device knew it.
    Cancelled,
}

/// A request that was not accepted, handed back whole. `?` turns it into its reason alone, [`Refusal`] or [`Error`],
/// where the request is not wanted back.
pub struct Refused<B> {
    /// Why.
    pub why: Refusal,
    /// The request, with its buffer.
    pub request: Request<B>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(why) => write!(f, "caller: {why}"),
            Self::Device(fault) => write!(f, "device: {fault}"),
            Self::Medium => f.write_str("medium: input/output error"),
            Self::Gone(why) => write!(f, "gone: {why}"),
        }
    }
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("refused an operation that it offers"),
            Self::BadStatus(status) => write!(f, "unknown status {status:#04x}"),
            Self::ShortRead => f.write_str("answered OK to a read that it cut short"),
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "the device was reset",
            Self::Cancelled => "withdrawn before submission",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no free slot, reap completions and submit again",
            Self::Broken => "the queue is broken, reset the device",
            Self::OutOfRange => "beyond the capacity",
            Self::Unaligned => "not a multiple of the block size, or segments that cannot be cut at sectors",
            Self::Empty => "no data",
            Self::ReadOnly => "the medium is read-only",
            Self::Unsupported => "the device does not offer this operation",
            Self::BadBuffer => "the identity needs one segment of at least 20 bytes",
        })
    }
}

/// Shows the reason and leaves the buffer out, so that a buffer need not be [`Debug`](fmt::Debug).
impl<B> fmt::Debug for Refused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for Refused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<B> core::error::Error for Refused<B> {}

impl<B> From<Refused<B>> for Refusal {
    fn from(refused: Refused<B>) -> Self {
        refused.why
    }
}

impl<B> From<Refused<B>> for Error {
    fn from(refused: Refused<B>) -> Self {
        Self::Caller(refused.why)
    }
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        Self::Caller(why)
    }
}

impl core::error::Error for Error {}
impl core::error::Error for Refusal {}
impl core::error::Error for DeviceFault {}
impl core::error::Error for Gone {}
