//! Registered memory cut into equal pages, each handed out once: buffers without a line of `unsafe` for the user.
//!
//! It refuses to know sessions and rings; registration happened before. For one thread: a page finds its way home by
//! plain stores. The page that came home last is given out first, while it is warm.
//!
//! A page that is leaked, or in flight when its client is dropped, is never given out again.
//!
//! ```
//! use drv_virtio_block::lib_block::client::pool::Pool;
//! use drv_virtio_block::lib_block::entry::MemoryId;
//! let mut memory = [0u8; 4 * 512];
//! // SAFETY: nobody else uses the memory; registered with nobody, so with whom it is shared does not matter.
//! let pool = unsafe { Pool::<4>::new(core::ptr::NonNull::from(&mut memory[..]), MemoryId(1), 512) }.unwrap();
//! let mut page = pool.take().unwrap();
//! page.as_mut_slice().fill(7);
//! assert_eq!(pool.left(), 3);
//! drop(page);
//! assert_eq!(pool.left(), 4);
//! ```
use super::buffer::{ServerReadable, ServerWritable, SharedBuffer};
use crate::lib_block::entry::{Data, MemoryId, Piece};
use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;
use core::slice;

/// `PAGES` pages, and which of them are at home.
pub struct Pool<const PAGES: usize> {
    base: NonNull<u8>,
    memory: MemoryId,
    page_bytes: u32,
    /// How many of `home`, from the first, are at home.
    left: Cell<u32>,
    home: [Cell<u16>; PAGES],
}

impl<const PAGES: usize> Pool<PAGES> {
    /// A pool of the first `PAGES` times `page_bytes` bytes of memory that the session knows as `memory`; `None` if it
    /// has not as many, they are none, or too many for their numbers.
    ///
    /// # Safety
    /// The bytes are initialised, mapped, and nobody but the pool and the session's server accesses them for as long
    /// as the pool or a page lives, and until the memory was unregistered; the server does for requests with its pages
    /// only. `memory` is those bytes, from its offset 0 on, in every session to whose client a page is submitted.
    pub unsafe fn new(bytes: NonNull<[u8]>, memory: MemoryId, page_bytes: u32) -> Option<Self> {
        let all = (page_bytes as usize).checked_mul(PAGES)?;
        if all == 0 || all > bytes.len() || PAGES > usize::from(u16::MAX) {
            return None;
        }
        let home = core::array::from_fn(|at| Cell::new((PAGES - 1 - at) as u16));
        Some(Self { base: bytes.cast(), memory, page_bytes, left: Cell::new(PAGES as u32), home })
    }

    /// A page, with whatever bytes it was left with; `None` if all are out.
    #[inline]
    pub fn take(&self) -> Option<Page<'_, PAGES>> {
        let left = self.left.get().checked_sub(1)?;
        let index = self.home.get(left as usize)?.get();
        self.left.set(left);
        Some(Page { pool: self, index })
    }

    /// Pages at home.
    pub fn left(&self) -> u32 {
        self.left.get()
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u32 {
        self.page_bytes
    }
}

/// A page: the only way to its bytes. Goes home when it is dropped.
pub struct Page<'p, const PAGES: usize> {
    pool: &'p Pool<PAGES>,
    index: u16,
}

impl<const PAGES: usize> Page<'_, PAGES> {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: indices are below `PAGES`, and as many pages are inside the memory (checked by `Pool::new`).
        unsafe { self.pool.base.add(usize::from(self.index) * self.pool.page_bytes as usize) }
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: inside the memory, initialised; who has the page has it from the pool or from a completion, so that
        // neither the server nor another page has it, and nobody changes it while this one is borrowed.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.pool.page_bytes as usize) }
    }

    /// Its bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and this page is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.pool.page_bytes as usize) }
    }
}

impl<const PAGES: usize> Drop for Page<'_, PAGES> {
    #[inline]
    fn drop(&mut self) {
        let left = self.pool.left.get();
        // There is room: this page is not at home.
        if let Some(place) = self.pool.home.get(left as usize) {
            place.set(self.index);
            self.pool.left.set(left + 1);
        }
    }
}

impl<const PAGES: usize> fmt::Debug for Page<'_, PAGES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its bytes: they may be many.
        f.debug_struct("Page").field("index", &self.index).finish_non_exhaustive()
    }
}

// SAFETY: a page is the only handle to its bytes, gives them only through borrows of itself, and has none while it is
// owned by a request; its place is a sum of constants. One that is leaked never goes home, and the memory outlives the
// registration by the promise of `Pool::new`.
unsafe impl<const PAGES: usize> SharedBuffer for Page<'_, PAGES> {
    #[inline(always)]
    fn data(&self) -> Data {
        let len = self.pool.page_bytes;
        Data::One(Piece { memory: self.pool.memory, offset: u64::from(self.index) * u64::from(len), len })
    }
}

// SAFETY: the memory is initialised.
unsafe impl<const PAGES: usize> ServerReadable for Page<'_, PAGES> {}

// SAFETY: bytes are valid whatever they are; see above for who reads them.
unsafe impl<const PAGES: usize> ServerWritable for Page<'_, PAGES> {}
