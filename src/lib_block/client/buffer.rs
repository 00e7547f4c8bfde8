//! Memory that a request may name: where it is for the server, who touches it when, which way data flows.
//!
//! It refuses to know what the memory holds and who registered it. A buffer in flight is owned by its tag; the
//! contract of [`SharedBuffer`] makes that sound, and the direction is in the type.
//!
//! ```
//! use drv_virtio_block::lib_block::client::SharedBuffer;
//! use drv_virtio_block::lib_block::client::buffer::Part;
//! use drv_virtio_block::lib_block::entry::{Data, MemoryId, Piece};
//! struct Page;
//! // SAFETY: for this example; nothing is submitted.
//! unsafe impl SharedBuffer for Page {
//!     fn data(&self) -> Data {
//!         Data::One(Piece { memory: MemoryId(1), offset: 8192, len: 4096 })
//!     }
//! }
//! let Some(half) = Part::new(Page, 2048, 2048) else { panic!("inside") };
//! assert_eq!(half.data(), Data::One(Piece { memory: MemoryId(1), offset: 10240, len: 2048 }));
//! assert!(Part::new(Page, 4096, 1).is_none());
//! ```
use crate::lib_block::entry::{Data, Piece};

/// Memory of the session that can be handed to the server for the duration of a request.
///
/// # Safety
/// From the moment the value is moved into a request that is submitted until it is moved out of the completion (or
/// dropped by whoever took it out), nobody but the server and its device accesses the memory behind
/// [`SharedBuffer::data`] in a way that conflicts with them: the memory that each session to whose client the value can
/// be submitted knows under that number. `data` says the same every time, and neither it nor moving the value touches
/// that memory. A value that is leaked keeps its memory from ever being reused. The list of
/// [`Data::List`] is part of that memory: it is written before the request is submitted.
pub unsafe trait SharedBuffer {
    /// Where it is: one or two pieces, or a list of three to [`MAX_PIECES`](crate::lib_block::MAX_PIECES) that stands
    /// in registered memory itself. Never [`Data::None`].
    fn data(&self) -> Data;
}

/// A buffer that the server may read: data to be written to the medium.
///
/// # Safety
/// As [`SharedBuffer`]; the memory is initialised.
pub unsafe trait ServerReadable: SharedBuffer {}

/// A buffer that the server may write: data read from the medium lands there.
///
/// # Safety
/// As [`SharedBuffer`]; the memory is initialised, nobody reads it while the server owns it, and any bytes are valid
/// content. (What a device leaves out holds what was there before.)
pub unsafe trait ServerWritable: SharedBuffer {}

/// Bytes side by side of a buffer, for a request that needs no more of it; the buffer goes along.
#[derive(Debug)]
pub struct Part<B> {
    buffer: B,
    data: Data,
}

impl<B: SharedBuffer> Part<B> {
    /// All of the buffer.
    pub fn whole(buffer: B) -> Self {
        Self { data: buffer.data(), buffer }
    }

    /// `len` bytes of `buffer` from `offset` on; `None` (and the buffer is dropped, nobody has it) if they are not
    /// inside, none at all, or the buffer is a list, which is not cut.
    pub fn new(buffer: B, offset: u32, len: u32) -> Option<Self> {
        Some(Self { data: cut(buffer.data(), offset, len)?, buffer })
    }

    /// Names other bytes of the buffer, as [`Part::new`]; false: nothing was changed.
    pub fn set(&mut self, offset: u32, len: u32) -> bool {
        match cut(self.buffer.data(), offset, len) {
            Some(data) => {
                self.data = data;
                true
            }
            None => false,
        }
    }

    /// The buffer.
    pub fn into_buffer(self) -> B {
        self.buffer
    }
}

fn cut(data: Data, offset: u32, len: u32) -> Option<Data> {
    let end = offset.checked_add(len)?;
    let part =
        |piece: Piece, from: u32, to: u32| Piece { offset: piece.offset + u64::from(from), len: to - from, ..piece };
    match data {
        _ if len == 0 => None,
        Data::One(piece) => (end <= piece.len).then(|| Data::One(part(piece, offset, end))),
        Data::Two([one, _]) if end <= one.len => Some(Data::One(part(one, offset, end))),
        Data::Two([one, two]) if end - one.len <= two.len => Some(if offset >= one.len {
            Data::One(part(two, offset - one.len, end - one.len))
        } else {
            Data::Two([part(one, offset, one.len), part(two, 0, end - one.len)])
        }),
        _ => None,
    }
}

// SAFETY: names bytes of the buffer that it owns, the same until `set`, which needs it exclusively and so is not
// called while the tag owns it; the rest is the buffer's own promise.
unsafe impl<B: SharedBuffer> SharedBuffer for Part<B> {
    #[inline(always)]
    fn data(&self) -> Data {
        self.data
    }
}

// SAFETY: the bytes are the buffer's.
unsafe impl<B: ServerReadable> ServerReadable for Part<B> {}

// SAFETY: the bytes are the buffer's.
unsafe impl<B: ServerWritable> ServerWritable for Part<B> {}
