//! What the C functions take and give. Layouts are C's; changing one changes [`VBLK_ABI`].
use drv_virtio_block::request::{Error, Refusal};
use std::ffi::{CStr, c_void};

/// The version of these functions and structures, for `vblk_options.abi`.
pub const VBLK_ABI: u32 = 2;

/// Done.
pub const VBLK_OK: i32 = 0;
/// Blame: caller. NULL, or a number without sense.
pub const VBLK_INVALID: i32 = -1;
/// Blame: caller, mildly. There is no room for more requests: reap, and submit the rest again.
pub const VBLK_FULL: i32 = -2;
/// Blame: caller. Another thread is in this queue, or the memory belongs to a request that is not over.
pub const VBLK_BUSY: i32 = -3;
/// Blame: caller. The buffer is not inside one piece of memory from `vblk_alloc`.
pub const VBLK_NOT_SHARED: i32 = -4;
/// Blame: caller. Beyond the capacity.
pub const VBLK_RANGE: i32 = -5;
/// Blame: caller. A place or a length is not a multiple of the block size, or a buffer does not begin at one; see
/// `vblk_info.block_size`.
pub const VBLK_UNALIGNED: i32 = -6;
/// Blame: caller. A change of a read-only medium.
pub const VBLK_READ_ONLY: i32 = -7;
/// Blame: caller. The device does not offer this operation; see `vblk_info`.
pub const VBLK_UNSUPPORTED: i32 = -8;
/// Blame: caller. No data.
pub const VBLK_EMPTY: i32 = -9;
/// Blame: device. It answered against the specification; close it.
pub const VBLK_DEVICE: i32 = -20;
/// Blame: medium. It failed to read or write.
pub const VBLK_MEDIUM: i32 = -30;
/// Gone: the back-end is lost, or cannot be had. Requests that were not over have no answer.
pub const VBLK_GONE: i32 = -40;
/// The system has no memory or file descriptor left.
pub const VBLK_SYSTEM: i32 = -50;

/// Fills the buffer from the medium.
pub const VBLK_READ: u32 = 0;
/// Stores the buffer on the medium.
pub const VBLK_WRITE: u32 = 1;
/// Makes what was written and answered before durable; takes neither place nor buffer.
pub const VBLK_FLUSH: u32 = 2;
/// The range holds nothing of value any more; takes no buffer.
pub const VBLK_DISCARD: u32 = 3;
/// The range reads as zeros from here on; takes no buffer.
pub const VBLK_WRITE_ZEROES: u32 = 4;

/// A `VBLK_WRITE` that is answered only when it is durable.
pub const VBLK_FUA: u32 = 1;
/// A `VBLK_WRITE_ZEROES` that may give the space back.
pub const VBLK_UNMAP: u32 = 2;

/// The device interrupts: who waits sleeps.
pub const VBLK_INTERRUPT: u32 = 0;
/// Nothing interrupts: who waits looks again and again, and keeps a processor busy.
pub const VBLK_POLLED: u32 = 1;

/// The device's write cache is as the device has it. One that says that it has none is not asked to flush.
pub const VBLK_CACHE_AS_IT_IS: u32 = 0;
/// The device is asked for a write cache: writes are durable after a `VBLK_FLUSH`, which reaches the device.
pub const VBLK_CACHE_ON: u32 = 1;
/// The device is asked to do without: a completed write is durable.
pub const VBLK_CACHE_OFF: u32 = 2;

/// How a device is to be opened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vblk_options {
    /// `VBLK_ABI`.
    pub abi: u32,
    /// Queues, from 1: one for each thread that does I/O.
    pub queues: u32,
    /// Requests in flight per queue, 1 to 1024. Up to 340 each has descriptors of its own, which is fastest.
    pub depth: u32,
    /// `VBLK_INTERRUPT` or `VBLK_POLLED`.
    pub mode: u32,
    /// Bytes of memory for buffers, for all queues together; at most half of the machine's.
    pub memory: u64,
    /// `VBLK_CACHE_AS_IT_IS`, `VBLK_CACHE_ON` or `VBLK_CACHE_OFF`; a device that leaves no choice has its way, which
    /// `vblk_info.write_cache` tells.
    pub cache: u32,
}

/// A device's facts, as they were when it was opened.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vblk_info {
    /// In bytes.
    pub capacity: u64,
    /// Most bytes of one read or write. What is above the device's own limits is cut inside.
    pub max_transfer: u64,
    /// Places and lengths are multiples of this many bytes, and so are the addresses at which buffers begin (of 4096 where
    /// blocks are larger: pieces from `vblk_alloc` begin at pages).
    pub block_size: u32,
    /// Queues in use.
    pub queues: u32,
    /// Requests that fit into a queue.
    pub depth: u32,
    /// `VBLK_INTERRUPT` or `VBLK_POLLED`.
    pub mode: u32,
    /// 1: the medium refuses changes.
    pub read_only: u8,
    /// 1: a completed write is durable only after a `VBLK_FLUSH`.
    pub write_cache: u8,
    /// 1: there is `VBLK_DISCARD`.
    pub discard: u8,
    /// 1: there is `VBLK_WRITE_ZEROES`.
    pub write_zeroes: u8,
    /// 0.
    pub reserved: u32,
}

/// One request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vblk_request {
    /// The caller's; it comes back in the completion.
    pub tag: u64,
    /// Where on the medium, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Read and write: `length` bytes inside one piece from `vblk_alloc`, which nobody else touches until the request is
    /// over. NULL for the others.
    pub buffer: *mut c_void,
    /// `VBLK_READ`, `VBLK_WRITE`, `VBLK_FLUSH`, `VBLK_DISCARD` or `VBLK_WRITE_ZEROES`.
    pub operation: u32,
    /// 0, `VBLK_FUA` or `VBLK_UNMAP`.
    pub flags: u32,
}

/// A request's end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vblk_completion {
    /// The request's.
    pub tag: u64,
    /// `VBLK_OK`, or why not; nothing is said of parts then.
    pub status: i32,
    /// 0.
    pub reserved: u32,
}

/// The code of a request's end.
pub(crate) fn code_of(result: Result<(), Error>) -> i32 {
    match result {
        Ok(()) => VBLK_OK,
        Err(Error::Caller(why)) => refusal(why),
        Err(Error::Device(_)) => VBLK_DEVICE,
        Err(Error::Medium) => VBLK_MEDIUM,
        Err(Error::Gone(_)) => VBLK_GONE,
    }
}

/// The code of a request that was not taken.
pub(crate) fn refusal(why: Refusal) -> i32 {
    match why {
        Refusal::Full => VBLK_FULL,
        Refusal::Broken => VBLK_DEVICE,
        Refusal::OutOfRange => VBLK_RANGE,
        Refusal::Unaligned => VBLK_UNALIGNED,
        Refusal::Empty => VBLK_EMPTY,
        Refusal::ReadOnly => VBLK_READ_ONLY,
        Refusal::Unsupported => VBLK_UNSUPPORTED,
        Refusal::BadBuffer => VBLK_INVALID,
    }
}

/// A code in words.
pub(crate) fn text_of(code: i32) -> &'static CStr {
    match code {
        VBLK_OK => c"done",
        VBLK_INVALID => c"caller: NULL, or a number without sense",
        VBLK_FULL => c"caller: no room, reap completions and submit the rest again",
        VBLK_BUSY => c"caller: in use by another thread, or by a request that is not over",
        VBLK_NOT_SHARED => c"caller: the buffer is not from vblk_alloc",
        VBLK_RANGE => c"caller: beyond the capacity",
        VBLK_UNALIGNED => c"caller: place, length or buffer is not a multiple of the block size",
        VBLK_READ_ONLY => c"caller: the medium is read-only",
        VBLK_UNSUPPORTED => c"caller: the device does not offer this operation",
        VBLK_EMPTY => c"caller: no data",
        VBLK_DEVICE => c"device: it answered against the specification",
        VBLK_MEDIUM => c"medium: input/output error",
        VBLK_GONE => c"gone: the back-end is lost",
        VBLK_SYSTEM => c"system: no memory or file descriptor left",
        _ => c"no such code",
    }
}
