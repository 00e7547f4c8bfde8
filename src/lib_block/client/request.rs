//! The client's words: what can be asked ([`Request`]), what comes back ([`Completion`]), and why not ([`Refused`]).
//!
//! A request takes its buffer by value and the completion gives it back; in between its tag owns it. Addresses and
//! lengths are logical blocks of the session. It knows neither rings nor servers.
//!
//! ```
//! use drv_virtio_block::lib_block::client::Request;
//! use drv_virtio_block::lib_block::client::buffer::{ServerReadable, SharedBuffer};
//! # use drv_virtio_block::lib_block::entry::{Data, MemoryId, Piece};
//! # struct Page;
//! # unsafe impl SharedBuffer for Page {
//! #     fn data(&self) -> Data { Data::One(Piece { memory: MemoryId(1), offset: 0, len: 4096 }) }
//! # }
//! # unsafe impl ServerReadable for Page {}
//! let request = Request::write(8, 1, Page).durably().with_token(42).with_deadline(1_000_000);
//! assert_eq!(request.token(), 42);
//! ```
use super::buffer::{ServerReadable, ServerWritable};
use crate::lib_block::Status;
use crate::lib_block::entry::{Flags, Operation};
use core::fmt;

/// One request, with the buffer that it owns.
#[derive(Debug)]
#[must_use = "a request does nothing until it is submitted"]
pub struct Request<B> {
    pub(super) operation: Operation,
    pub(super) flags: Flags,
    pub(super) blocks: u32,
    /// Blocks that are moved to or from the buffer.
    pub(super) moved: u32,
    pub(super) lba: u64,
    pub(super) deadline: u64,
    pub(super) token: u64,
    pub(super) buffer: Option<B>,
}

impl<B> Request<B> {
    #[inline(always)]
    pub(super) const fn new(operation: Operation, lba: u64, blocks: u32, moved: u32, buffer: Option<B>) -> Self {
        Self { operation, flags: Flags(0), blocks, moved, lba, deadline: 0, token: 0, buffer }
    }

    /// Makes everything durable that was written and answered before this is submitted.
    #[inline(always)]
    pub const fn flush() -> Self {
        Self::new(Operation::Flush, 0, 0, 0, None)
    }

    /// Says that `blocks` from `lba` on hold nothing of value.
    #[inline(always)]
    pub const fn discard(lba: u64, blocks: u32) -> Self {
        Self::new(Operation::Discard, lba, blocks, 0, None)
    }

    /// Makes `blocks` from `lba` on read as zeros; with `unmap` the device may deallocate them.
    #[inline(always)]
    pub const fn write_zeroes(lba: u64, blocks: u32, unmap: bool) -> Self {
        let request = Self::new(Operation::WriteZeroes, lba, blocks, 0, None);
        if unmap { request.with(Flags::UNMAP) } else { request }
    }

    #[inline(always)]
    const fn with(mut self, flag: Flags) -> Self {
        self.flags = self.flags.with(flag);
        self
    }

    /// Begins once every earlier request of the session was answered.
    #[inline(always)]
    pub const fn after_all_before(self) -> Self {
        self.with(Flags::PRE_BARRIER)
    }

    /// A number of the caller's that comes back in the completion.
    #[inline(always)]
    pub const fn with_token(mut self, token: u64) -> Self {
        self.token = token;
        self
    }

    /// When it is of no use any more, in nanoseconds on the platform's clock; 0: never.
    #[inline(always)]
    pub const fn with_deadline(mut self, nanoseconds: u64) -> Self {
        self.deadline = nanoseconds;
        self
    }

    /// The caller's number.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// What is asked.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Gives the buffer back without submitting.
    pub fn into_buffer(self) -> Option<B> {
        self.buffer
    }
}

impl<B: ServerWritable> Request<B> {
    /// Reads `blocks` from `lba` on into `buffer`, which has as many bytes.
    #[inline(always)]
    pub const fn read(lba: u64, blocks: u32, buffer: B) -> Self {
        Self::new(Operation::Read, lba, blocks, blocks, Some(buffer))
    }
}

impl<B: ServerReadable> Request<B> {
    /// Writes `buffer`, which has `blocks`, from `lba` on.
    #[inline(always)]
    pub const fn write(lba: u64, blocks: u32, buffer: B) -> Self {
        Self::new(Operation::Write, lba, blocks, blocks, Some(buffer))
    }

    /// A write that is answered once durable (force unit access). Without a meaning for anything but writes, and the
    /// server refuses it with them.
    #[inline(always)]
    pub const fn durably(self) -> Self {
        self.with(Flags::FUA)
    }
}

/// Names one request for as long as it is unanswered; afterwards nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub(super) number: u16,
    /// Whose it is: clients of a program are counted. 0 is nobody.
    pub(super) client: u32,
    /// Which of the tag's uses: requests of this client are counted.
    pub(super) sequence: u64,
}

impl Tag {
    /// The tag on the wire.
    pub const fn number(self) -> u16 {
        self.number
    }
}

/// A request's end, with the buffer that it owned.
#[derive(Debug)]
#[must_use = "a completion carries the buffer and the result"]
pub struct Completion<B> {
    /// The caller's number.
    pub token: u64,
    /// Which request it was.
    pub tag: Tag,
    /// How it ended.
    pub status: Status,
    /// Bytes moved: with [`Status::Ok`] all of them.
    pub bytes: u32,
    /// The device had it beyond its deadline.
    pub late: bool,
    /// The buffer, the caller's again.
    pub buffer: Option<B>,
}

/// Why a request was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All of the session's credit is in use: back-pressure. Reap and submit again.
    Full,
    /// No server serves the session now. See [`Client::resume`](super::Client::resume).
    Restarting,
    /// The server stopped or ended the session.
    Ended,
    /// The server said what cannot be; it is not believed any more.
    Broken,
    /// There is no such request to be withdrawn: it was answered, or is another client's.
    NotFound,
}

/// A request that was not accepted, handed back whole. `?` turns it into its reason alone, [`Why`], where the request is
/// not wanted back.
pub struct Refused<B> {
    /// Why.
    pub why: Why,
    /// The request, with its buffer.
    pub request: Request<B>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no credit, reap completions and submit again",
            Self::Restarting => "no server serves the session now",
            Self::Ended => "the session ended",
            Self::Broken => "the server contradicted itself",
            Self::NotFound => "the request was answered",
        })
    }
}

impl core::error::Error for Why {}

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

impl<B> From<Refused<B>> for Why {
    fn from(refused: Refused<B>) -> Self {
        refused.why
    }
}
