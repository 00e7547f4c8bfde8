//! The heap: small blocks from a list of free ones, everything else from talc.
//!
//! A small block costs the same few instructions whatever was taken and given back before, in whatever order. So the
//! count of a driver that allocates on its I/O path (the peer does) is of the driver, and not of the order in which the
//! device answered; and no kernel's heap would be cheaper to it. The driver of this project allocates nothing there.
//!
//! The heap takes more memory when it is used up, so its bound is the machine's memory, which the tool sizes from the
//! job. Beyond that the run ends with a line that names the bound.
//!
//! Invariants: a block on the list is [`SMALL`] bytes, aligned to as many, and nobody's; it never goes back to memory.
use crate::cpu::lock::{Mutex, RawLock};
use crate::memory;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use talc::{TalcLock, source::Manual};
use workload::report::Note;

/// Least bytes that the heap grows by.
const GROWTH: usize = 8 << 20;
/// What talc keeps beside a block in a piece of memory of its own, with room to spare.
const OVERHEAD: usize = 4096;
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

impl Heap {
    /// A large block out of memory that the heap takes for it.
    ///
    /// # Safety
    /// As `GlobalAlloc::alloc`.
    #[cold]
    unsafe fn grow(&self, layout: Layout) -> *mut u8 {
        let wanted = layout.size().saturating_add(layout.align()).saturating_add(OVERHEAD).max(GROWTH);
        let Some(more) = memory::more_heap(wanted) else { exhausted(layout.size()) };
        // SAFETY: a fresh piece that nobody else has and that never comes back.
        unsafe { self.large.lock().claim(more.as_ptr(), more.len()) };
        // SAFETY: by contract. Another processor may have taken what was just added.
        let block = unsafe { self.large.alloc(layout) };
        if block.is_null() { exhausted(layout.size()) } else { block }
    }
}

/// Ends the run: the job needs more memory than the machine has.
#[cold]
fn exhausted(wanted: usize) -> ! {
    let (has, left) = (memory::total_len() >> 20, memory::free_len() >> 20);
    let why = Note::new(format_args!(
        "the job needs more memory than the machine's {has} MiB ({wanted} bytes in one piece, {left} MiB are left): \
         lower size, numjobs, queues, clients or iodepth"
    ));
    crate::refuse(&why.text)
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
            let block = unsafe { self.large.alloc(layout) };
            // SAFETY: by contract.
            return if block.is_null() { unsafe { self.grow(layout) } } else { block };
        }
        let mut list = self.small.lock();
        let block = list.pop().or_else(|| {
            list.refill();
            list.pop()
        });
        block.map_or_else(|| exhausted(layout.size()), NonNull::as_ptr)
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
        if old && new {
            return at;
        }
        if !old && !new {
            // SAFETY: by contract; what is not small came from there.
            let moved = unsafe { self.large.realloc(at, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
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
