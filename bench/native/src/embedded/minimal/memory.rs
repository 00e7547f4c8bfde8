//! The only dereference of the driver's memory, and the regions that it may name.
//!
//! Ring words are single relaxed atomics; headers, status bytes and payload have no alignment by the specification and
//! belong to one side at a time, handed over by the ring's indices, so these are plain unaligned accesses.
//!
//! Invariant: an address is dereferenced only after [`Reach`] found it inside a region.
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// # Safety
/// `at` is 2-byte aligned and inside memory shared with the driver.
#[inline(always)]
#[allow(clippy::cast_ptr_alignment, reason = "aligned by contract")]
pub(super) unsafe fn load16(at: *const u8) -> u16 {
    // SAFETY: the caller's; only accessed atomically.
    u16::from_le(unsafe { AtomicU16::from_ptr(at.cast_mut().cast()) }.load(Relaxed))
}

/// # Safety
/// As [`load16`].
#[inline(always)]
#[allow(clippy::cast_ptr_alignment, reason = "aligned by contract")]
pub(super) unsafe fn store16(at: *mut u8, value: u16) {
    // SAFETY: the caller's.
    unsafe { AtomicU16::from_ptr(at.cast()) }.store(value.to_le(), Relaxed);
}

/// # Safety
/// As [`load16`], 8-byte aligned.
#[inline(always)]
#[allow(clippy::cast_ptr_alignment, reason = "aligned by contract")]
pub(super) unsafe fn load64(at: *const u8) -> u64 {
    // SAFETY: the caller's.
    u64::from_le(unsafe { AtomicU64::from_ptr(at.cast_mut().cast()) }.load(Relaxed))
}

/// Stores a word that may be unaligned (used entries are 4-byte aligned) and that nobody reads before an index says so.
///
/// # Safety
/// The 8 bytes are inside memory that is this side's now.
#[inline(always)]
pub(super) unsafe fn store_word(at: *mut u8, value: u64) {
    // SAFETY: the caller's.
    unsafe { at.cast::<u64>().write_unaligned(value.to_le()) }
}

/// The pointer behind an address.
#[inline(always)]
pub(super) fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// One contiguous piece of the driver's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Region {
    base: u64,
    len: u64,
}

impl Region {
    #[inline(always)]
    fn holds(self, address: u64, len: u64) -> bool {
        let offset = address.wrapping_sub(self.base);
        offset <= self.len && len <= self.len - offset
    }
}

/// The regions that the driver may name, shared by the queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Regions(Arc<RwLock<Vec<Region>>>);

impl Regions {
    /// # Safety
    /// The memory stays mapped, readable and writable until no [`Reach`] of these regions is in use any more.
    pub(super) unsafe fn add(&self, base: *mut u8, len: usize) {
        let region = Region { base: base.expose_provenance() as u64, len: len as u64 };
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(region);
    }

    pub(super) fn remove(&self, base: *mut u8, len: usize) {
        let region = Region { base: base.addr() as u64, len: len as u64 };
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != region);
    }

    fn find(&self, address: u64, len: u64) -> Option<Region> {
        let regions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        regions.iter().copied().find(|region| region.holds(address, len))
    }

    /// Whether all of it lies in one region.
    pub(super) fn hold(&self, address: u64, len: u64) -> bool {
        self.find(address, len).is_some()
    }
}

/// One queue's view of the regions: the one that was hit last is at hand.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    last: Region,
    regions: Regions,
}

impl Reach {
    pub(super) fn new(regions: Regions) -> Self {
        Self { last: Region::default(), regions }
    }

    /// Whether `len` bytes from `address` on are memory that the driver may name.
    #[inline(always)]
    pub(super) fn covers(&mut self, address: u64, len: u64) -> bool {
        self.last.holds(address, len) || self.look_up(address, len)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, address: u64, len: u64) -> bool {
        let found = self.regions.find(address, len);
        self.last = found.unwrap_or(self.last);
        found.is_some()
    }
}

/// Has a line fetched for writing, without touching it; any address will do.
#[inline(always)]
pub(super) fn prefetch_to_write(address: u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: it never faults and changes no state that the program sees.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
