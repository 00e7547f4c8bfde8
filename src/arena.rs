//! The driver's private memory: tables that the device must not reach, laid out once at start.
//!
//! Slot records and the bitmaps decide what a device's answer is worth, so they do not live in the DMA region, where a
//! device behind an IOMMU could rewrite them. The owner hands over ordinary memory (a static, a page from its own
//! address space) and [`Arena::place`] cuts typed tables off its front, each at a cache-line boundary, for good.
//!
//! ```
//! # use drv_virtio_block::arena::Arena;
//! # use core::mem::MaybeUninit;
//! let mut memory = [MaybeUninit::uninit(); 4096];
//! let mut arena = Arena::new(&mut memory);
//! let squares = arena.place(8, |i| i * i).unwrap();
//! assert_eq!(squares[3], 9);
//! ```
use core::fmt;
use core::mem::{MaybeUninit, needs_drop};
use crossbeam_utils::CachePadded;

/// Tables start at multiples of this, so that no two share a cache line or a pair of lines that is fetched together: what
/// crossbeam-utils knows of the architecture (128 bytes on x86_64 and aarch64, 256 on s390x), and 64 at least.
pub const LINE: usize = if align_of::<CachePadded<u8>>() > 64 { align_of::<CachePadded<u8>>() } else { 64 };

/// Memory to be cut into tables.
pub struct Arena<'m> {
    rest: &'m mut [MaybeUninit<u8>],
}

/// The arena has fewer than this many bytes for the table asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaExhausted {
    /// Bytes that were needed.
    pub wanted: usize,
}

impl fmt::Display for ArenaExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the private memory has fewer than the {} bytes that the next table needs", self.wanted)
    }
}

impl core::error::Error for ArenaExhausted {}

impl<'m> Arena<'m> {
    /// An arena over `memory`.
    pub fn new(memory: &'m mut [MaybeUninit<u8>]) -> Self {
        Self { rest: memory }
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// A table of `count` values that lives as long as the memory; values are never dropped.
    ///
    /// # Errors
    /// When too little is left; nothing is taken then.
    pub fn place<T>(&mut self, count: usize, mut value: impl FnMut(usize) -> T) -> Result<&'m mut [T], ArenaExhausted> {
        const { assert!(align_of::<T>() <= LINE && (!needs_drop::<T>() || cfg!(loom))) };
        let pad = self.rest.as_ptr().addr().wrapping_neg() % LINE;
        let bytes = count.saturating_mul(size_of::<T>()).saturating_add(pad);
        if bytes > self.rest.len() {
            return Err(ArenaExhausted { wanted: bytes });
        }
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(bytes);
        self.rest = rest;
        let first = taken[pad..].as_mut_ptr().cast::<T>();
        for i in 0..count {
            // SAFETY: `count` values fit between `pad` and `bytes`; `first` is aligned to LINE, hence to T.
            unsafe { first.add(i).write(value(i)) };
        }
        // SAFETY: `count` initialised values; the bytes were split off exclusively for 'm and are handed out once.
        Ok(unsafe { core::slice::from_raw_parts_mut(first, count) })
    }
}
