//! The block device's configuration space and its generation.
//!
//! Fields that the device does not offer read as garbage, so that a driver which reads them is found out twice.
//! Specification: 2.5 Device Configuration Space, 4.1.3.1, 5.2.4, 5.2.5.
use super::wire::features;
use super::{Config, DriverFault, FakeDevice, Inner};
use std::collections::VecDeque;

/// Offset, width and feature of every field that this device can have.
const FIELDS: [(u32, u32, u64); 20] = [
    (CAPACITY, 4, 0),
    (CAPACITY + 4, 4, 0),
    (8, 4, features::SIZE_MAX),
    (12, 4, features::SEG_MAX),
    (16, 2, features::GEOMETRY),
    (18, 1, features::GEOMETRY),
    (19, 1, features::GEOMETRY),
    (20, 4, features::BLK_SIZE),
    (24, 1, features::TOPOLOGY),
    (25, 1, features::TOPOLOGY),
    (26, 2, features::TOPOLOGY),
    (28, 4, features::TOPOLOGY),
    (WRITEBACK, 1, features::CONFIG_WCE),
    (34, 2, features::MQ),
    (36, 4, features::DISCARD),
    (40, 4, features::DISCARD),
    (44, 4, features::DISCARD),
    (48, 4, features::WRITE_ZEROES),
    (52, 4, features::WRITE_ZEROES),
    (MAY_UNMAP, 1, features::WRITE_ZEROES),
];
const CAPACITY: u32 = 0;
const WRITEBACK: u32 = 32;
const MAY_UNMAP: u32 = 56;
const GARBAGE: u8 = 0xee;

/// The changeable part of the configuration space, and what the driver has looked at.
pub(super) struct Space {
    capacity: u64,
    writeback: bool,
    generation: u8,
    /// The generation was read since the last step of initialisation or change.
    looked: bool,
    /// `capacity` was read and the generation not since.
    unclosed: bool,
    /// Halves of the present capacity that the driver has read.
    halves: u8,
    /// The capacity that the driver last read wholly.
    known: u64,
    /// Capacities to change to, one after each read of a half.
    tears: VecDeque<u64>,
}

impl Space {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            capacity: config.capacity_sectors,
            writeback: config.writeback,
            generation: 0,
            looked: false,
            unclosed: false,
            halves: 0,
            known: 0,
            tears: VecDeque::new(),
        }
    }

    pub(super) fn reset(&mut self, config: &Config) {
        *self = Self {
            capacity: self.capacity,
            generation: self.generation,
            tears: std::mem::take(&mut self.tears),
            ..Self::new(config)
        };
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The largest capacity that a driver may go by: the present one, or the one that it last read.
    pub(super) fn believable_capacity(&self) -> u64 {
        self.capacity.max(self.known)
    }

    pub(super) fn writeback(&self) -> bool {
        self.writeback
    }

    pub(super) fn set_writeback(&mut self, writeback: bool) {
        self.writeback = writeback;
    }

    pub(super) fn take_unclosed(&mut self) -> bool {
        std::mem::take(&mut self.unclosed)
    }

    /// A step of initialisation: a look at the generation before it does not cover reads after it.
    pub(super) fn next_step(&mut self) {
        self.looked = false;
    }

    fn change(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.generation = self.generation.wrapping_add(1);
        self.halves = 0;
    }

    fn read_generation(&mut self) -> u8 {
        self.looked = true;
        self.unclosed = false;
        self.generation
    }

    /// Notes the read of one half of `capacity`; true if the generation had been read.
    fn read_half(&mut self, offset: u32) -> bool {
        self.unclosed = true;
        self.halves |= if offset == CAPACITY { 1 } else { 2 };
        if self.halves == 3 {
            self.known = self.capacity;
        }
        self.looked
    }

    /// The bytes of the whole space.
    fn image(&self, config: &Config) -> [u8; 60] {
        let mut image = [0; 60];
        let mut put = |offset: usize, value: &[u8]| image[offset..offset + value.len()].copy_from_slice(value);
        put(0, &self.capacity.to_le_bytes());
        put(8, &config.size_max.to_le_bytes());
        put(12, &config.seg_max.to_le_bytes());
        put(20, &config.blk_size.to_le_bytes());
        put(24, &[config.topology.physical_block_exp, config.topology.alignment_offset]);
        put(26, &config.topology.min_io_size.to_le_bytes());
        put(28, &config.topology.opt_io_size.to_le_bytes());
        put(WRITEBACK as usize, &[u8::from(self.writeback)]);
        put(34, &config.num_queues.to_le_bytes());
        put(36, &config.discard.max_sectors.to_le_bytes());
        put(40, &config.discard.max_segments.to_le_bytes());
        put(44, &config.discard.alignment.to_le_bytes());
        put(48, &config.write_zeroes.max_sectors.to_le_bytes());
        put(52, &config.write_zeroes.max_segments.to_le_bytes());
        put(MAY_UNMAP as usize, &[u8::from(config.may_unmap)]);
        for (offset, width, feature) in FIELDS {
            if config.features & feature != feature {
                image[offset as usize..(offset + width) as usize].fill(GARBAGE);
            }
        }
        image
    }
}

/// The feature that an access of exactly one field needs; `None` if it is not exactly one field.
fn field(offset: u32, width: u32) -> Option<u64> {
    FIELDS.into_iter().find(|field| (field.0, field.1) == (offset, width)).map(|field| field.2)
}

impl Inner {
    fn read_space(&mut self, offset: u32, width: u32) -> u64 {
        let inside = offset.checked_add(width).is_some_and(|end| end <= self.config.space_len.min(60));
        let Some(feature) = field(offset, width).filter(|_| inside) else {
            self.fault(DriverFault::ConfigAccess { offset, width });
            return u64::MAX >> (64 - 8 * width.clamp(1, 8));
        };
        self.check_field(offset, feature);
        if offset < 8 && !self.registers.space.read_half(offset) {
            self.fault(DriverFault::CapacityWithoutGeneration);
        }
        let image = self.registers.space.image(&self.config);
        let mut bytes = [0; 8];
        bytes[..width as usize].copy_from_slice(&image[offset as usize..(offset + width) as usize]);
        if offset < 8
            && let Some(capacity) = self.registers.space.tears.pop_front()
        {
            self.registers.space.change(capacity);
            self.raise_config();
        }
        u64::from_le_bytes(bytes)
    }

    /// Optional fields: offered is enough until FEATURES_OK, then they must have been negotiated.
    fn check_field(&mut self, offset: u32, feature: u64) {
        let negotiating = !self.registers.features_ok();
        if offset == WRITEBACK && negotiating {
            self.fault(DriverFault::WritebackTooEarly);
        }
        let exists = if negotiating { self.registers.offered(feature) } else { self.registers.negotiated(feature) };
        if !exists {
            self.fault(DriverFault::ConfigNotNegotiated { offset });
        }
    }

    fn write_space(&mut self, offset: u32, width: u32, value: u64) {
        let writable = (offset, width) == (WRITEBACK, 1) && value <= 1;
        if writable && self.registers.negotiated(features::CONFIG_WCE) {
            self.registers.space.set_writeback(value == 1);
        } else {
            self.fault(DriverFault::ConfigWrite { offset, value });
        }
    }

    /// Whether a write that completes now needs a FLUSH to be stable (5.2.6.2).
    pub(super) fn writes_are_volatile(&self) -> bool {
        let registers = &self.registers;
        let cached = if registers.negotiated(features::CONFIG_WCE) {
            registers.space.writeback()
        } else {
            self.config.writeback
        };
        cached && registers.negotiated(features::FLUSH)
    }
}

/// The driver's side of the configuration space.
impl FakeDevice {
    /// Reads `config_generation`.
    pub(crate) fn config_generation(&self) -> u8 {
        self.with(|inner| inner.registers.space.read_generation())
    }

    /// Reads `width` bytes (1, 2 or 4) at `offset`; `capacity` is read as two halves.
    pub(crate) fn read_config(&self, offset: u32, width: u32) -> u64 {
        self.with(|inner| inner.read_space(offset, width))
    }

    /// Writes `width` bytes at `offset`.
    pub(crate) fn write_config(&self, offset: u32, width: u32, value: u64) {
        self.with(|inner| inner.write_space(offset, width, value));
    }

    /// Bytes of configuration space, as the transport tells.
    pub(crate) fn config_len(&self) -> u32 {
        self.with(|inner| inner.config.space_len)
    }
}

/// The test's side.
impl FakeDevice {
    /// Changes the capacity, as an operator would while requests run: generation, configuration interrupt.
    pub(crate) fn resize(&self, sectors: u64) {
        self.with(|inner| {
            inner.registers.space.change(sectors);
            inner.registers.space.next_step();
            inner.raise_config();
        });
    }

    /// The capacity becomes the next of `capacities` right after each read of one of its halves, so that a driver
    /// that does not compare generations puts together a capacity that never was.
    pub(crate) fn tear_capacity(&self, capacities: &[u64]) {
        self.with(|inner| inner.registers.space.tears = capacities.iter().copied().collect());
    }

    /// The cache mode as the device has it.
    pub(crate) fn writeback(&self) -> bool {
        self.with(|inner| inner.registers.space.writeback())
    }
}
