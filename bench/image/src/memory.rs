//! Memory: what the hypervisor says there is, the heap, and big zeroed pieces for devices and stacks.
//!
//! Regions are handed out from the lowest address upwards and never come back: a run takes what it needs and the
//! machine ends with it. The [`heap`] (for `alloc`) has one such piece, and takes more when it is used up. Invariant: nothing below [`FLOOR`] (firmware, the
//! trampoline) and nothing of the image is ever handed out.

use crate::cpu::lock::Mutex;
use crate::heap;
use arrayvec::ArrayVec;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// The most regions that are remembered; more are ignored.
pub const MAX_REGIONS: usize = 16;

/// Memory below belongs to the firmware, which left the hypervisor's start info there, and to the trampoline.
pub const FLOOR: u64 = 1 << 20;
/// Alignment and granularity of pieces.
const GRAIN: u64 = 4096;
/// What the heap begins with.
const HEAP_LEN: usize = 8 << 20;

/// Usable memory, as the hypervisor states it: first byte to last byte, exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region(Range<u64>);

impl Region {
    /// A region of `len` bytes; `None` if it ends beyond the address space.
    pub fn new(base: u64, len: u64) -> Option<Self> {
        base.checked_add(len).map(|end| Self(base..end))
    }

    /// First byte.
    pub fn base(&self) -> u64 {
        self.0.start
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.0.end - self.0.start
    }

    /// Whether the whole range lies inside.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        self.0.start <= range.start && range.end <= self.0.end
    }
}

static TOTAL: AtomicU64 = AtomicU64::new(0);
static FREE: Mutex<ArrayVec<Range<u64>, MAX_REGIONS>> = Mutex::new(ArrayVec::new_const());

unsafe extern "C" {
    /// First byte after the image, from the linker script.
    static image_end: u8;
}

/// Takes the memory map over and sets the heap up. Call it once, before anything allocates.
///
/// # Errors
/// When there is too little memory even for that.
pub fn init(regions: &[Region]) -> Result<(), &'static str> {
    let floor = FLOOR.max((&raw const image_end) as u64);
    FREE.lock().extend(regions.iter().filter_map(|region| {
        let begin = region.0.start.max(floor).next_multiple_of(GRAIN);
        (begin < region.0.end).then_some(begin..region.0.end)
    }));
    TOTAL.store(regions.iter().map(Region::len).sum(), Ordering::Relaxed);
    let heap = dma(HEAP_LEN).ok_or("the machine has too little memory: give it 256 MiB or more")?;
    // SAFETY: a fresh piece that nobody else has and that never comes back.
    unsafe { heap::init(heap.as_ptr(), heap.len()) };
    Ok(())
}

/// Contiguous, zeroed memory, aligned to 4 KiB, that a device may be given. It lives as long as the machine.
#[derive(Debug)]
pub struct DmaRegion {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the region is plain memory with one owner; sending it sends the right to use it.
unsafe impl Send for DmaRegion {}

impl DmaRegion {
    /// Where the processor finds it.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Where a device finds it; memory is mapped one to one.
    pub fn device_address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Bytes, a multiple of 4096.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Takes `len` bytes, rounded up to pages; `None` if no region has them in one piece.
pub fn dma(len: usize) -> Option<DmaRegion> {
    let len = (len as u64).checked_next_multiple_of(GRAIN).filter(|len| *len != 0)?;
    let region = take(len)?;
    // SAFETY: usable memory by the hypervisor's word, mapped one to one, and just taken from the free list.
    unsafe { region.as_ptr().write_bytes(0, region.len) };
    Some(region)
}

/// Likewise, at least `len` bytes with anything in them: what the heap grows by.
pub fn more_heap(len: usize) -> Option<DmaRegion> {
    take((len as u64).checked_next_multiple_of(GRAIN)?)
}

fn take(len: u64) -> Option<DmaRegion> {
    let mut free = FREE.lock();
    let piece = free.iter_mut().find(|piece| piece.end - piece.start >= len)?;
    let base = piece.start;
    piece.start += len;
    Some(DmaRegion { base: NonNull::new(base as *mut u8)?, len: len as usize })
}

/// Bytes of all regions that the image may use, as far as the hypervisor stated them.
pub fn total_len() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Bytes that [`dma`] can still give, in all pieces together.
pub fn free_len() -> u64 {
    FREE.lock().iter().map(|piece| piece.end - piece.start).sum()
}
