//! The Virtual I/O Device specification 1.3 as numbers: feature bits, status bits, wire formats. Nothing here acts.
//!
//! All wire integers are little-endian. Sizes and offsets are asserted at compile time; the section that fixes each
//! group is named where it stands. What the driver does not implement has no constant here unless it must be
//! recognised in order to be refused.
//!
//! ```
//! use drv_virtio_block::spec::{Features, feature};
//! let offered = Features(feature::VERSION_1 | feature::EVENT_IDX);
//! assert!(offered.has(feature::EVENT_IDX) && !offered.has(feature::MQ));
//! ```
use core::fmt;
use core::mem::{offset_of, size_of};

/// Feature bits (5.2.3 Block Device Feature bits, 6 Reserved Feature Bits), as masks.
pub mod feature {
    /// `VIRTIO_BLK_F_SIZE_MAX`: `size_max` bounds a single segment.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// `VIRTIO_BLK_F_SEG_MAX`: `seg_max` bounds the segments of a request.
    pub const SEG_MAX: u64 = 1 << 2;
    /// `VIRTIO_BLK_F_RO`: the medium is read-only.
    pub const RO: u64 = 1 << 5;
    /// `VIRTIO_BLK_F_BLK_SIZE`: `blk_size` is the logical block size.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// `VIRTIO_BLK_F_FLUSH`: the FLUSH command exists.
    pub const FLUSH: u64 = 1 << 9;
    /// `VIRTIO_BLK_F_TOPOLOGY`: alignment hints.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// `VIRTIO_BLK_F_CONFIG_WCE`: `writeback` can be read and written.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// `VIRTIO_BLK_F_MQ`: more than one queue.
    pub const MQ: u64 = 1 << 12;
    /// `VIRTIO_BLK_F_DISCARD`: the DISCARD command exists.
    pub const DISCARD: u64 = 1 << 13;
    /// `VIRTIO_BLK_F_WRITE_ZEROES`: the WRITE ZEROES command exists.
    pub const WRITE_ZEROES: u64 = 1 << 14;
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `VIRTIO_F_EVENT_IDX`.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// `VIRTIO_F_VERSION_1`: required.
    pub const VERSION_1: u64 = 1 << 32;
    /// `VIRTIO_F_ACCESS_PLATFORM`: device addresses come from the platform, as this driver's always do.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// `VIRTIO_F_ORDER_PLATFORM`: memory ordering between driver and a hardware device needs platform barriers.
    /// Recognised so that a device that insists on it is refused instead of being driven with the wrong barriers.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
}

/// A set of feature bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Everything that this driver implements; nothing else is ever accepted.
    pub const IMPLEMENTED: Self = Self(
        feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::RO
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::CONFIG_WCE
            | feature::MQ
            | feature::DISCARD
            | feature::WRITE_ZEROES
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX
            | feature::VERSION_1
            | feature::ACCESS_PLATFORM,
    );

    /// Whether every bit of `mask` is in the set.
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }

    /// The bits that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The set without the bits of `mask`.
    #[must_use]
    pub const fn without(self, mask: u64) -> Self {
        Self(self.0 & !mask)
    }
}

/// Names of the bits from 0 on; the empty ones are unnamed by the specification.
#[rustfmt::skip]
const NAMES: [&str; 42] = [
    "BARRIER", "SIZE_MAX", "SEG_MAX", "", "GEOMETRY", "RO", "BLK_SIZE", "SCSI", "", "FLUSH", "TOPOLOGY", "CONFIG_WCE",
    "MQ", "DISCARD", "WRITE_ZEROES", "LIFETIME", "SECURE_ERASE", "ZONED", "", "", "", "", "", "", "NOTIFY_ON_EMPTY", "",
    "", "ANY_LAYOUT", "INDIRECT_DESC", "EVENT_IDX", "", "", "VERSION_1", "ACCESS_PLATFORM", "RING_PACKED", "IN_ORDER",
    "ORDER_PLATFORM", "SR_IOV", "NOTIFICATION_DATA", "NOTIF_CONFIG_DATA", "RING_RESET", "ADMIN_VQ",
];

/// The names of the bits, as the specification has them; `bit 42` for one that has none.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for bit in (0..64).filter(|bit| self.has(1 << bit)) {
            f.write_str(between)?;
            match NAMES.get(bit) {
                Some(&"") | None => write!(f, "bit {bit}")?,
                Some(name) => f.write_str(name)?,
            }
            between = ", ";
        }
        f.write_str(if between.is_empty() { "none" } else { "" })
    }
}

/// Device status bits (2.1 Device Status Field).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u8 = 8;
    /// The device met an error that only a reset mends.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The driver has given up on the device.
    pub const FAILED: u8 = 128;
}

/// Sectors are 512 bytes whatever `blk_size` says (5.2.6 Device Operation).
pub const SECTOR: u64 = 512;
/// log2 of [`SECTOR`].
pub const SECTOR_SHIFT: u32 = 9;
/// `VIRTIO_MSI_NO_VECTOR` (4.1.5.1.2 MSI-X Vector Configuration).
pub const NO_VECTOR: u16 = 0xffff;
/// Bytes that GET_ID returns (5.2.6): ASCII, NUL-padded, not terminated when full.
pub const ID_BYTES: u32 = 20;

/// Completion status values that a device writes (5.2.6).
pub mod request_status {
    /// `VIRTIO_BLK_S_OK`.
    pub const OK: u8 = 0;
    /// `VIRTIO_BLK_S_IOERR`.
    pub const IOERR: u8 = 1;
    /// `VIRTIO_BLK_S_UNSUPP`.
    pub const UNSUPP: u8 = 2;
    /// No device returns this: what the driver writes before submission, so that an unwritten status is seen.
    pub const POISON: u8 = 0xff;
}

/// Descriptor flags (2.7.5 The Virtqueue Descriptor Table).
pub mod descriptor_flag {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes this buffer.
    pub const WRITE: u16 = 2;
    /// The buffer holds a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// `VIRTQ_USED_F_NO_NOTIFY` and `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6, 2.7.8): the one suppression bit of either side's
/// flags, when EVENT_IDX was not negotiated.
pub const SUPPRESS: u16 = 1;

/// A descriptor as the device reads it (2.7.5).
#[repr(C)]
pub struct WireDescriptor {
    /// Device address of the buffer.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// See [`descriptor_flag`].
    pub flags: u16,
    /// Where the chain goes on.
    pub next: u16,
}
const _: () = assert!(size_of::<WireDescriptor>() == 16 && offset_of!(WireDescriptor, next) == 14);

/// A request's header as the device reads it (5.2.6).
#[repr(C)]
pub struct WireHeader {
    /// The request type.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// First sector; 0 for everything but read and write.
    pub sector: u64,
}
const _: () = assert!(size_of::<WireHeader>() == 16 && offset_of!(WireHeader, sector) == 8);

/// The payload of DISCARD and WRITE ZEROES: one segment (5.2.6).
#[repr(C)]
pub struct WireRange {
    /// First sector.
    pub sector: u64,
    /// How many sectors.
    pub num_sectors: u32,
    /// Bit 0: unmap (WRITE ZEROES only).
    pub flags: u32,
}
const _: () = assert!(size_of::<WireRange>() == 16 && offset_of!(WireRange, flags) == 12);

/// Offsets in the block device's configuration space (5.2.4 Device configuration layout).
pub mod config {
    /// `capacity`, u64, in sectors.
    pub const CAPACITY: u32 = 0;
    /// `size_max`, u32, with SIZE_MAX.
    pub const SIZE_MAX: u32 = 8;
    /// `seg_max`, u32, with SEG_MAX.
    pub const SEG_MAX: u32 = 12;
    /// `blk_size`, u32, with BLK_SIZE.
    pub const BLK_SIZE: u32 = 20;
    /// `physical_block_exp`, u8, with TOPOLOGY.
    pub const PHYSICAL_BLOCK_EXP: u32 = 24;
    /// `alignment_offset`, u8, with TOPOLOGY.
    pub const ALIGNMENT_OFFSET: u32 = 25;
    /// `min_io_size`, u16 in logical blocks, with TOPOLOGY.
    pub const MIN_IO_SIZE: u32 = 26;
    /// `opt_io_size`, u32 in logical blocks, with TOPOLOGY.
    pub const OPT_IO_SIZE: u32 = 28;
    /// `writeback`, u8, with CONFIG_WCE.
    pub const WRITEBACK: u32 = 32;
    /// `num_queues`, u16, with MQ.
    pub const NUM_QUEUES: u32 = 34;
    /// `max_discard_sectors`, u32, with DISCARD.
    pub const MAX_DISCARD_SECTORS: u32 = 36;
    /// `max_discard_seg`, u32, with DISCARD.
    pub const MAX_DISCARD_SEG: u32 = 40;
    /// `discard_sector_alignment`, u32, with DISCARD.
    pub const DISCARD_SECTOR_ALIGNMENT: u32 = 44;
    /// `max_write_zeroes_sectors`, u32, with WRITE_ZEROES.
    pub const MAX_WRITE_ZEROES_SECTORS: u32 = 48;
    /// `max_write_zeroes_seg`, u32, with WRITE_ZEROES.
    pub const MAX_WRITE_ZEROES_SEG: u32 = 52;
    /// `write_zeroes_may_unmap`, u8, with WRITE_ZEROES.
    pub const WRITE_ZEROES_MAY_UNMAP: u32 = 56;
    /// Bytes up to and including everything above.
    pub const LEN: u32 = 60;
}
