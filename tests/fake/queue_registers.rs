//! The per-queue registers of the common configuration, and what must hold when a queue is enabled.
//!
//! Specification: 2.7 Split Virtqueues (alignment and sizes), 4.1.4.3.2, 4.1.5.1.2, 4.1.5.1.3.
use super::wire::{NO_VECTOR, descriptor, features};
use super::{DriverFault, FakeDevice, Inner};
use std::sync::atomic::Ordering;

/// A part of a split queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Descriptor table.
    Descriptors,
    /// Available ring.
    Driver,
    /// Used ring.
    Device,
}

impl Part {
    const ALL: [Self; 3] = [Self::Descriptors, Self::Driver, Self::Device];

    fn alignment(self) -> u64 {
        match self {
            Self::Descriptors => 16,
            Self::Driver => 2,
            Self::Device => 4,
        }
    }

    fn bytes(self, size: u16) -> u64 {
        let size = u64::from(size);
        match self {
            Self::Descriptors => descriptor::BYTES * size,
            Self::Driver => 6 + 2 * size,
            Self::Device => 6 + 8 * size,
        }
    }
}

/// One queue's registers.
#[derive(Clone)]
pub(super) struct QueueRegisters {
    pub(super) max_size: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) vector_unread: bool,
    pub(super) parts: [u64; 3],
    pub(super) enabled: bool,
}

impl QueueRegisters {
    pub(super) fn new(max_size: u16) -> Self {
        Self { max_size, size: max_size, vector: NO_VECTOR, vector_unread: false, parts: [0; 3], enabled: false }
    }

    /// Address and length of a part.
    pub(super) fn range(&self, part: Part) -> (u64, u64) {
        (self.parts[part as usize], part.bytes(self.size))
    }

    /// Whether `[address, address + len)` touches a part.
    pub(super) fn touches(&self, address: u64, len: u64) -> bool {
        Part::ALL.iter().any(|&part| {
            let (start, bytes) = self.range(part);
            address < start.saturating_add(bytes) && start < address.saturating_add(len)
        })
    }
}

impl Inner {
    /// Checks the time of a write to the queue's registers; `None`: there is no such queue.
    fn queue_set_up(&mut self, queue: u16) -> Option<&mut QueueRegisters> {
        let status = self.registers.status();
        if !self.registers.features_ok() || self.registers.driver_ok() {
            self.fault(DriverFault::QueueSetUpAtWrongTime { queue, status });
        }
        self.check_features_ok_was_read();
        if self.rings.get(usize::from(queue)).is_none_or(|ring| ring.registers.max_size == 0) {
            self.fault(DriverFault::QueueUnavailable(queue));
            return None;
        }
        if self.ring(queue).enabled() {
            self.fault(DriverFault::QueueChangedWhileEnabled(queue));
        }
        Some(&mut self.ring(queue).registers)
    }

    fn resize_queue(&mut self, queue: u16, size: u16) {
        let Some(registers) = self.queue_set_up(queue) else { return };
        if size.is_power_of_two() && size <= registers.max_size {
            registers.size = size;
        } else {
            self.fault(DriverFault::QueueSizeBad { queue, size });
        }
    }

    fn place_queue(&mut self, queue: u16, parts: [u64; 3]) {
        if let Some(registers) = self.queue_set_up(queue) {
            registers.parts = parts;
        }
    }

    fn map_queue_vector(&mut self, queue: u16, vector: u16) {
        let (kept, beyond) = self.registers.map_vector(vector);
        if beyond {
            self.fault(DriverFault::VectorBeyondTable { queue: Some(queue), vector });
        }
        if let Some(registers) = self.queue_set_up(queue) {
            registers.vector = kept;
            registers.vector_unread = vector != NO_VECTOR;
        }
    }

    fn enable_queue(&mut self, queue: u16, value: u16) {
        if value != 1 {
            return self.fault(DriverFault::QueueEnableBad { queue, value });
        }
        if self.rings.get(usize::from(queue)).is_some_and(super::Ring::enabled) {
            return self.fault(DriverFault::QueueEnabledTwice(queue));
        }
        if queue > 0 && !self.registers.negotiated(features::MQ) {
            self.fault(DriverFault::QueueWithoutMq(queue));
        }
        if self.queue_set_up(queue).is_some() && self.check_parts(queue) {
            self.ring(queue).registers.enabled = true;
        }
    }

    /// Whether the device can work with the queue's three parts.
    fn check_parts(&mut self, queue: u16) -> bool {
        let before = self.new_faults.len();
        let registers = self.ring(queue).registers.clone();
        for part in Part::ALL {
            let (address, bytes) = registers.range(part);
            if !address.is_multiple_of(part.alignment()) {
                self.fault(DriverFault::QueuePartMisaligned { queue, part, address });
            }
            if self.memory.locate(address, bytes).is_err() {
                self.fault(DriverFault::QueuePartOutside { queue, part, address });
            }
            let own = Part::ALL.iter().filter(|other| **other != part).any(|other| {
                let (start, len) = registers.range(*other);
                address < start + len && start < address + bytes
            });
            if own || self.rings.iter().any(|ring| ring.enabled() && ring.registers.touches(address, bytes)) {
                self.fault(DriverFault::QueuePartsOverlap { queue, part });
            }
        }
        let sound = self.new_faults.len() == before;
        if sound && self.memory.load16(registers.parts[Part::Device as usize], Ordering::Relaxed) != Ok(0) {
            self.fault(DriverFault::UsedFlagsNotZeroed(queue));
        }
        sound
    }
}

/// The driver's side of the queue registers.
impl FakeDevice {
    /// Reads `num_queues` of the common configuration.
    pub(crate) fn num_queues(&self) -> u16 {
        self.with(|inner| inner.rings.len() as u16)
    }

    /// Reads `queue_size`: the maximum until the driver writes; 0 for a queue that is not available.
    pub(crate) fn queue_size(&self, queue: u16) -> u16 {
        self.with(|inner| inner.rings.get(usize::from(queue)).map_or(0, |ring| ring.registers.size))
    }

    /// Writes `queue_size`.
    pub(crate) fn set_queue_size(&self, queue: u16, size: u16) {
        self.with(|inner| inner.resize_queue(queue, size));
    }

    /// Writes `queue_desc`, `queue_driver` and `queue_device`.
    pub(crate) fn set_queue_parts(&self, queue: u16, descriptors: u64, driver: u64, device: u64) {
        self.with(|inner| inner.place_queue(queue, [descriptors, driver, device]));
    }

    /// Reads `queue_msix_vector`.
    pub(crate) fn queue_vector(&self, queue: u16) -> u16 {
        self.with(|inner| {
            let Some(ring) = inner.rings.get_mut(usize::from(queue)) else { return NO_VECTOR };
            ring.registers.vector_unread = false;
            ring.registers.vector
        })
    }

    /// Writes `queue_msix_vector`.
    pub(crate) fn set_queue_vector(&self, queue: u16, vector: u16) {
        self.with(|inner| inner.map_queue_vector(queue, vector));
    }

    /// Writes `queue_enable`.
    pub(crate) fn set_queue_enable(&self, queue: u16, value: u16) {
        self.with(|inner| inner.enable_queue(queue, value));
    }

    /// Reads `queue_enable`.
    pub(crate) fn queue_enable(&self, queue: u16) -> u16 {
        self.with(|inner| inner.rings.get(usize::from(queue)).map_or(0, |ring| u16::from(ring.enabled())))
    }
}
