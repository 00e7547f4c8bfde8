//! What the device offers: the knobs of a test, fixed when the device is made.
use super::wire::features;

/// Everything that differs between devices. `Config { num_queues: 4, ..Config::default() }`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Offered feature bits; bits outside [`features::IMPLEMENTED`] are bait.
    pub(crate) features: u64,
    /// Size of the medium.
    pub(crate) capacity_sectors: u64,
    /// Queues that the device has (in the common configuration, and in `num_queues` with MQ).
    pub(crate) num_queues: u16,
    /// Largest size of a queue: a power of two, or 0 for a queue that is not available.
    pub(crate) max_queue_size: u16,
    /// Entries of the MSI-X table; 0: no MSI-X, the interrupt line is used.
    pub(crate) vectors: u16,
    /// Logical block size.
    pub(crate) blk_size: u32,
    /// Most data segments per request; 0 is taken as 1.
    pub(crate) seg_max: u32,
    /// Most bytes per segment; 0 is no limit.
    pub(crate) size_max: u32,
    /// Alignment hints.
    pub(crate) topology: Topology,
    /// Limits of DISCARD.
    pub(crate) discard: RangeLimits,
    /// Limits of WRITE ZEROES (its alignment is not part of the configuration space).
    pub(crate) write_zeroes: RangeLimits,
    /// `write_zeroes_may_unmap`.
    pub(crate) may_unmap: bool,
    /// The cache mode after reset: true is write-back.
    pub(crate) writeback: bool,
    /// The answer to GET ID.
    pub(crate) id: [u8; 20],
    /// Bytes of configuration space.
    pub(crate) space_len: u32,
    /// Whether memory of one request in flight may overlap another's; true silences that check.
    pub(crate) overlap_allowed: bool,
}

/// Alignment hints, in the specification's units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Topology {
    pub(crate) physical_block_exp: u8,
    pub(crate) alignment_offset: u8,
    pub(crate) min_io_size: u16,
    pub(crate) opt_io_size: u32,
}

/// Limits of DISCARD or WRITE ZEROES.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeLimits {
    /// Most sectors in one segment.
    pub(crate) max_sectors: u32,
    /// Most segments in one request.
    pub(crate) max_segments: u32,
    /// In sectors; a hint.
    pub(crate) alignment: u32,
}

impl Default for Config {
    /// One queue of 256 on a writable disk of 1 MiB with a write cache; all features but `RO`, `SIZE_MAX` and
    /// `ACCESS_PLATFORM`; two vectors.
    fn default() -> Self {
        let ranges = RangeLimits { max_sectors: 1024, max_segments: 1, alignment: 1 };
        Self {
            features: features::IMPLEMENTED & !features::RO & !features::SIZE_MAX & !features::ACCESS_PLATFORM,
            capacity_sectors: 2048,
            num_queues: 1,
            max_queue_size: 256,
            vectors: 2,
            blk_size: 512,
            seg_max: 126,
            size_max: 0,
            topology: Topology::default(),
            discard: ranges,
            write_zeroes: ranges,
            may_unmap: true,
            writeback: true,
            id: *b"fake-disk-0123456789",
            space_len: 60,
            overlap_allowed: false,
        }
    }
}

impl Config {
    /// With these feature bits in addition.
    #[must_use]
    pub(crate) fn with(mut self, mask: u64) -> Self {
        self.features |= mask;
        self
    }

    /// Without these feature bits.
    #[must_use]
    pub(crate) fn without(mut self, mask: u64) -> Self {
        self.features &= !mask;
        self
    }

    /// Refuses what no device may be.
    pub(super) fn assert_sound(&self) {
        assert!(self.max_queue_size == 0 || self.max_queue_size.is_power_of_two(), "queue size: a power of two or 0");
        assert!(self.max_queue_size <= 32768, "queue size: at most 32768");
        assert!(self.num_queues <= 64, "at most 64 queues");
        let wce_without_flush = self.features & features::CONFIG_WCE != 0 && self.features & features::FLUSH == 0;
        assert!(!wce_without_flush, "a device that offers CONFIG_WCE offers FLUSH");
    }
}
