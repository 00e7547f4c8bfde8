//! The heap: small blocks from a list of free ones, everything else from talc.
//!
//! A small block costs the same few instructions whatever was taken and given back before, in whatever order. So the
//! count of a driver that allocates on its I/O path (the peer does) is of the driver, and not of the order in which the
//! device answered; and no kernel's heap would be cheaper to it. The driver of this project allocates nothing there.
//!
//! Invariants: a block on the list is [`SMALL`] bytes, aligned to as many, and nobody's; it never goes back to memory.
use crate::cpu::lock::{Mutex, RawLock};
use crate::memory;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use talc::{TalcLock, source::Manual};

/// Bytes of a small block.
const SMALL: usize = 64;
/// Bytes that are cut into small blocks at once.
const CHUNK: usize = 4096;

#[global_allocator]
static HEAP: Heap = Heap { small: Mutex::new(List(None)), large: TalcLock::new(Manual) };

struct Heap {
    small: Mutex<List>,
    large: TalcLock<RawLock, Manual>,
}

/// Free blocks; each begins with where the next one is.
struct List(Option<NonNull<Free>>);

struct Free {
    next: Option<NonNull<Self>>,
}

// SAFETY: the blocks are plain memory with one owner, the list.
unsafe impl Send for List {}

/// Gives the heap the memory for what is not small. Call it once, before anything allocates.
///
/// # Safety
/// The memory is nobody else's, for good.
pub unsafe fn init(memory: *mut u8, len: usize) {
    // SAFETY: by contract.
    let claimed = unsafe { HEAP.large.lock().claim(memory, len) };
    assert!(claimed.is_some(), "the heap was refused");
}

impl List {
    fn push(&mut self, block: NonNull<u8>) {
        let block = block.cast::<Free>();
        // SAFETY: a block is large and aligned enough, and is the list's now.
        unsafe { block.write(Free { next: self.0 }) };
        self.0 = Some(block);
    }

    fn pop(&mut self) -> Option<NonNull<u8>> {
        let block = self.0?;
        // SAFETY: a block on the list, written by `push`.
        self.0 = unsafe { block.read() }.next;
        Some(block.cast())
    }

    /// Cuts more memory up; nothing happens when there is none.
    #[cold]
    fn refill(&mut self) {
        let Some(chunk) = memory::dma(CHUNK) else { return };
        let block = |at: usize| NonNull::new(chunk.as_ptr().wrapping_add(at));
        (0..CHUNK).step_by(SMALL).filter_map(block).for_each(|block| self.push(block));
    }
}

/// Whether a block of the list serves.
const fn is_small(size: usize, align: usize) -> bool {
    size <= SMALL && align <= SMALL
}

// SAFETY: what is small comes from the list and goes back there, by its layout alone, and is at least as large and as
// aligned; the rest is talc's. A block is with one owner: taking it unlinks it.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_small(layout.size(), layout.align()) {
            // SAFETY: by contract.
            return unsafe { self.large.alloc(layout) };
        }
        let mut list = self.small.lock();
        let block = list.pop().or_else(|| {
            list.refill();
            list.pop()
        });
        block.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match NonNull::new(at) {
            Some(block) if is_small(layout.size(), layout.align()) => self.small.lock().push(block),
            // SAFETY: by contract; what is not small came from there.
            _ => unsafe { self.large.dealloc(at, layout) },
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (old, new) = (is_small(layout.size(), layout.align()), is_small(size, layout.align()));
        match (old, new) {
            (true, true) => at,
            // SAFETY: by contract; what is not small came from there.
            (false, false) => unsafe { self.large.realloc(at, layout, size) },
            _ => {
                // SAFETY: by contract, the size rounded up to the alignment does not overflow.
                let to = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
                if !to.is_null() {
                    // SAFETY: two blocks of at least so many bytes, one new and one the caller's to give back.
                    unsafe {
                        to.copy_from_nonoverlapping(at, layout.size().min(size));
                        self.dealloc(at, layout);
                    }
                }
                to
            }
        }
    }
}
