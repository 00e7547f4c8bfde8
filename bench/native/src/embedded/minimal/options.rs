//! What a minimal device is to be.
use drv_virtio_block::spec::{ID_BYTES, feature};
use std::io;

/// What becomes of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing: no buffer is touched, reads leave it as it was.
    Null,
    /// Nothing; reads return zeros.
    Zeros,
    /// It is kept in memory.
    Ram,
}

/// When the device wants to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Never: it spins, or is stepped.
    Never,
    /// When it has nothing to do; its thread sleeps then.
    WhenIdle,
}

/// What the device offers. [`Options::default`] is a null device of 1 GiB that spins, with one queue.
#[derive(Clone, Debug)]
pub struct Options {
    /// Features offered; VERSION_1 always is, RO follows `read_only`.
    pub features: u64,
    /// Capacity in sectors of 512 bytes.
    pub sectors: u64,
    /// Queues, 1 to 32.
    pub queues: u16,
    /// Most descriptors of a queue, a power of two.
    pub queue_size: u16,
    /// What becomes of data.
    pub data: Data,
    /// When a doorbell is wanted.
    pub notify: Notify,
    /// `seg_max`.
    pub seg_max: u32,
    /// `size_max`; to be offered with SIZE_MAX.
    pub size_max: u32,
    /// `blk_size`, in bytes. The device itself takes any whole sector.
    pub block_size: u32,
    /// `writeback` after a reset.
    pub writeback: bool,
    /// Refuse whatever changes data.
    pub read_only: bool,
    /// `max_discard_sectors`, one segment a request; 0: the operation is refused.
    pub max_discard_sectors: u32,
    /// `max_write_zeroes_sectors`, as above.
    pub max_write_zeroes_sectors: u32,
    /// What GET_ID answers, padded with NUL.
    pub id: [u8; ID_BYTES as usize],
    /// Features that a driver may leave out by the specification, and without all of which this device refuses the others.
    pub insists_on: u64,
}

impl Default for Options {
    fn default() -> Self {
        let mut id = [0; ID_BYTES as usize];
        id[..8].copy_from_slice(b"embedded");
        Self {
            features: feature::EVENT_IDX
                | feature::INDIRECT_DESC
                | feature::MQ
                | feature::FLUSH
                | feature::CONFIG_WCE
                | feature::DISCARD
                | feature::WRITE_ZEROES
                | feature::BLK_SIZE
                | feature::SEG_MAX,
            sectors: 1 << 21,
            queues: 1,
            queue_size: 1024,
            data: Data::Null,
            notify: Notify::Never,
            seg_max: 126,
            size_max: 0,
            block_size: 512,
            writeback: true,
            read_only: false,
            max_discard_sectors: 1 << 16,
            max_write_zeroes_sectors: 1 << 16,
            id,
            insists_on: 0,
        }
    }
}

impl Options {
    /// Everything offered.
    pub(super) fn offered(&self) -> u64 {
        let read_only = if self.read_only { feature::RO } else { 0 };
        self.features & !feature::RO | feature::VERSION_1 | read_only
    }

    pub(super) fn check(&self) -> io::Result<()> {
        let queues = (1..=32).contains(&self.queues);
        if queues && self.queue_size.is_power_of_two() && self.sectors < 1 << 54 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "no device has these queues or sectors"))
    }
}
