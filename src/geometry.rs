//! What the device said about itself after negotiation, checked once: the facts that every request is held against.
//!
//! It knows no registers and no queues. All facts but the capacity are fixed until the next reset; the capacity may
//! change while requests run, so it is one atomic that only `device.rs` stores.
//!
//! ```
//! use drv_virtio_block::geometry::Geometry;
//! let mut disk = Geometry::plain(1 << 21);
//! disk.block_size = 4096;
//! assert_eq!(disk.capacity(), 1 << 21);
//! ```
use crate::spec::Features;
use crate::sync::{AtomicU64, Ordering};

/// Alignment hints (feature TOPOLOGY), in the specification's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// log2 of logical blocks in a physical block.
    pub physical_block_exp: u8,
    /// Offset of the first aligned logical block.
    pub alignment_offset: u8,
    /// Suggested minimum I/O size in logical blocks.
    pub min_io_size: u16,
    /// Suggested optimal I/O size in logical blocks.
    pub opt_io_size: u32,
}

/// Limits of DISCARD or WRITE ZEROES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLimits {
    /// Most sectors in one request, at least 1.
    pub max_sectors: u32,
    /// Cuts between requests fall on multiples of this many sectors, at least 1.
    pub alignment: u32,
    /// Whether the unmap flag is allowed (WRITE ZEROES).
    pub may_unmap: bool,
}

/// Whether a logical block can have so many bytes.
pub(crate) const fn is_block_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && bytes >= 512 && bytes <= 1 << 16
}

/// One time that one device is driven: from a reset, or the reading of its facts, to the next reset. No two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Driving(u64);

impl Driving {
    fn next() -> Self {
        static NEXT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
        Self(NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed))
    }
}

/// The device's facts.
#[derive(Debug)]
pub struct Geometry {
    driving: AtomicU64,
    capacity: AtomicU64,
    /// How many places there are for a request of [`Geometry::COMFORT`] sectors: follows the capacity.
    comfortable: AtomicU64,
    /// Negotiated features that can be used.
    pub features: Features,
    /// Logical block size in bytes, a power of two from 512 to 64 KiB.
    pub block_size: u32,
    /// Most data segments in one request, at least 1.
    pub seg_max: u32,
    /// Most bytes in one segment; `u32::MAX` when the device sets no limit.
    pub size_max: u32,
    /// The medium refuses writes.
    pub read_only: bool,
    /// The device has a volatile write cache, so that FLUSH must reach it (5.2.5.2's deduction).
    pub writeback: bool,
    /// Present with DISCARD.
    pub discard: Option<RangeLimits>,
    /// Present with WRITE_ZEROES.
    pub write_zeroes: Option<RangeLimits>,
    /// Present with TOPOLOGY.
    pub topology: Option<Topology>,
}

impl Geometry {
    /// A writable device of `capacity` sectors without any option: the ground that `device.rs` and tests build on.
    pub fn plain(capacity: u64) -> Self {
        Self {
            driving: AtomicU64::new(Driving::next().0),
            capacity: AtomicU64::new(capacity),
            comfortable: AtomicU64::new(Self::comfort_of(capacity)),
            features: Features::default(),
            block_size: 512,
            seg_max: 1,
            size_max: u32::MAX,
            read_only: false,
            writeback: false,
            discard: None,
            write_zeroes: None,
            topology: None,
        }
    }

    /// What the rings that may be programmed now were asked for in.
    pub(crate) fn driving(&self) -> Driving {
        // Relaxed: it changes when the device was reset, which whoever programs it afterwards did or was told.
        Driving(self.driving.load(Ordering::Relaxed))
    }

    /// The device was reset: rings that were programmed before, or were to be, are not to be programmed as they are.
    pub(crate) fn begin_anew(&self) {
        self.driving.store(Driving::next().0, Ordering::Relaxed);
    }

    /// Capacity in sectors.
    #[inline(always)]
    pub fn capacity(&self) -> u64 {
        // Relaxed: a request is held against the capacity before or after a change, and the device checks again.
        self.capacity.load(Ordering::Relaxed)
    }

    /// Requests up to this many sectors are held against one number, [`Geometry::comfortable`].
    pub(crate) const COMFORT: u32 = 2048;

    fn comfort_of(capacity: u64) -> u64 {
        capacity.saturating_add(1).saturating_sub(u64::from(Self::COMFORT))
    }

    /// [`Geometry::COMFORT`] sectors from any place below this lie on the medium. The common case of the range check:
    /// one comparison, whatever the request's length.
    #[inline(always)]
    pub(crate) fn comfortable(&self) -> u64 {
        self.comfortable.load(Ordering::Relaxed)
    }

    /// Notes a changed capacity; returns the old one.
    pub(crate) fn set_capacity(&self, sectors: u64) -> u64 {
        let old = self.capacity();
        self.capacity.store(sectors, Ordering::Relaxed);
        self.comfortable.store(Self::comfort_of(sectors), Ordering::Relaxed);
        old
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_fast_path_follows_a_medium_that_shrinks_and_grows() {
        let comfort = u64::from(Geometry::COMFORT);
        let disk = Geometry::plain(1 << 20);
        for sectors in [1 << 12, 0, 1 << 30, comfort - 1, comfort, u64::MAX, 1] {
            disk.set_capacity(sectors);
            assert_eq!(disk.capacity(), sectors);
            let limit = disk.comfortable();
            assert_eq!(limit > 0, sectors >= comfort, "{sectors}: some place is comfortable");
            // The last place in front of the limit has room for the longest request, and the limit itself has not.
            assert!(limit == 0 || limit - 1 + comfort <= sectors, "{sectors}");
            assert!(limit.checked_add(comfort).is_none_or(|end| end > sectors || sectors == u64::MAX), "{sectors}");
        }
    }
}
