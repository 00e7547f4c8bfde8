//! Numbers of the specification that the fake needs, typed from the text and not shared with the driver.

/// Device status bits (2.1).
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 0x01;
    pub(crate) const DRIVER: u8 = 0x02;
    pub(crate) const DRIVER_OK: u8 = 0x04;
    pub(crate) const FEATURES_OK: u8 = 0x08;
    pub(crate) const NEEDS_RESET: u8 = 0x40;
    pub(crate) const FAILED: u8 = 0x80;
}

/// Feature bits (5.2.3, 6), as masks.
pub(crate) mod features {
    pub(crate) const SIZE_MAX: u64 = 1 << 1;
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    pub(crate) const GEOMETRY: u64 = 1 << 4;
    pub(crate) const RO: u64 = 1 << 5;
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    pub(crate) const FLUSH: u64 = 1 << 9;
    pub(crate) const TOPOLOGY: u64 = 1 << 10;
    pub(crate) const CONFIG_WCE: u64 = 1 << 11;
    pub(crate) const MQ: u64 = 1 << 12;
    pub(crate) const DISCARD: u64 = 1 << 13;
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
    pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    pub(crate) const VERSION_1: u64 = 1 << 32;
    pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
    /// Bits that the fake may offer as bait but does not implement; a driver that takes one is refused.
    pub(crate) const RING_PACKED: u64 = 1 << 34;
    pub(crate) const IN_ORDER: u64 = 1 << 35;
    pub(crate) const ORDER_PLATFORM: u64 = 1 << 36;
    pub(crate) const NOTIFICATION_DATA: u64 = 1 << 38;
    pub(crate) const RING_RESET: u64 = 1 << 40;

    /// Everything that the fake does when asked.
    pub(crate) const IMPLEMENTED: u64 = SIZE_MAX
        | SEG_MAX
        | RO
        | BLK_SIZE
        | FLUSH
        | TOPOLOGY
        | CONFIG_WCE
        | MQ
        | DISCARD
        | WRITE_ZEROES
        | INDIRECT_DESC
        | EVENT_IDX
        | VERSION_1
        | ACCESS_PLATFORM;
}

/// Descriptor flags (2.7.5).
pub(crate) mod descriptor {
    pub(crate) const NEXT: u16 = 1;
    pub(crate) const WRITE: u16 = 2;
    pub(crate) const INDIRECT: u16 = 4;
    pub(crate) const BYTES: u64 = 16;
}

/// Request types and status values (5.2.6).
pub(crate) mod block {
    pub(crate) const IN: u32 = 0;
    pub(crate) const OUT: u32 = 1;
    pub(crate) const FLUSH: u32 = 4;
    pub(crate) const GET_ID: u32 = 8;
    pub(crate) const DISCARD: u32 = 11;
    pub(crate) const WRITE_ZEROES: u32 = 13;

    pub(crate) const OK: u8 = 0;
    pub(crate) const IOERR: u8 = 1;
    pub(crate) const UNSUPP: u8 = 2;

    pub(crate) const SECTOR: u64 = 512;
    pub(crate) const HEADER_BYTES: usize = 16;
    pub(crate) const ID_BYTES: usize = 20;
    pub(crate) const RANGE_BYTES: usize = 16;
    /// The only flag of a range: WRITE ZEROES may deallocate.
    pub(crate) const UNMAP: u32 = 1;
}

/// The little-endian word of two bytes at `at`.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian word of four bytes at `at`.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at + 2)) << 16 | u32::from(le16(bytes, at))
}

/// The little-endian word of eight bytes at `at`.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at + 4)) << 32 | u64::from(le32(bytes, at))
}

/// The suppression bit of either side's ring flags (2.7.7, 2.7.10).
pub(crate) const SUPPRESS: u16 = 1;

/// No vector assigned, or none to be had (4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// Stands for the interrupt line in lists of vectors, when the device has no MSI-X.
pub(crate) const INTX: u16 = 0xfffe;

/// ISR status bits (4.1.4.5).
pub(crate) mod isr {
    pub(crate) const QUEUE: u8 = 1;
    pub(crate) const CONFIG: u8 = 2;
}
