//! Result classes: how every call, request and decoding ends.
//!
//! The first five are those of every EriX service; the others are results of I/O. The values are the wire's.
//!
//! ```
//! use drv_virtio_block::lib_block::Status;
//! assert_eq!(Status::from_wire(7), Some(Status::OutOfRange));
//! assert_eq!(Status::from_wire(12), None);
//! assert!(Status::Ok.is_ok());
//! ```
use core::fmt;

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// All of it was done.
    Ok = 0,
    /// The session has not the right.
    Denied = 1,
    /// Malformed, misaligned, zero blocks, or more than the limits.
    InvalidArgument = 2,
    /// No such session, memory or tag.
    NotFound = 3,
    /// In use: a tag that is unanswered, memory that a request names, a session that is open.
    Busy = 4,
    /// The medium failed, or the device answered against the specification.
    IoError = 5,
    /// An unknown version or operation, or one that the device does not offer.
    Unsupported = 6,
    /// Blocks outside of the session's extents or of the medium, or bytes outside of registered memory.
    OutOfRange = 7,
    /// A change of a read-only medium.
    ReadOnly = 8,
    /// The device was reset while it had the request: whether it was done is not known.
    Reset = 9,
    /// The deadline passed before the device had the request; or while it had it, and it was reset.
    TimedOut = 10,
    /// Withdrawn before the device had it, or the session or the driver ended.
    Gone = 11,
}

impl Status {
    /// Every status, in the order of the wire.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Denied,
        Self::InvalidArgument,
        Self::NotFound,
        Self::Busy,
        Self::IoError,
        Self::Unsupported,
        Self::OutOfRange,
        Self::ReadOnly,
        Self::Reset,
        Self::TimedOut,
        Self::Gone,
    ];

    /// The status of a number off the wire; `None` if there is none.
    #[inline]
    pub fn from_wire(value: u16) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// Whether all of it was done.
    #[inline]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "done",
            Self::Denied => "the session has not the right",
            Self::InvalidArgument => "malformed, misaligned, empty, or above the limits",
            Self::NotFound => "no such session, memory or tag",
            Self::Busy => "in use",
            Self::IoError => "input/output error",
            Self::Unsupported => "unknown version or operation, or not offered by the device",
            Self::OutOfRange => "outside of the extents, the medium or the memory",
            Self::ReadOnly => "the medium is read-only",
            Self::Reset => "the device was reset while it had the request",
            Self::TimedOut => "the deadline passed",
            Self::Gone => "withdrawn, or the session or the driver ended",
        })
    }
}

impl core::error::Error for Status {}
