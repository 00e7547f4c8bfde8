//! The minimal device's registers as the driver's transport.
//!
//! It holds what the driver wrote and the configuration space; queues go to the device when they are enabled, and are
//! worked on from `DRIVER_OK` on. It knows the order of steps as little as every transport does. A reset is asked for
//! with `set_status(0)` and done when no thread holds a queue any more: reading the status is what finds out, so that
//! the driver's own patience bounds the wait. One driver at a time: a second transport sees a device that is driven.
//!
//! Specification: 2.1 Device Status Field, 2.2 Feature Bits, 2.5 Device Configuration Space, 5.2.4.
use super::minimal::{Device, Options, Rings};
use drv_virtio_block::spec::{Features, NO_VECTOR, config, feature, status};
use drv_virtio_block::transport::{Doorbell, QueueId, RingAddresses, Transport, TransportError};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the driver wrote, and the configuration space.
#[derive(Debug)]
struct Registers {
    status: u8,
    /// A reset was asked for and is not done.
    resetting: bool,
    accepted: Features,
    config: [u8; config::LEN as usize],
    queues: Vec<QueueRegisters>,
}

#[derive(Clone, Debug)]
struct QueueRegisters {
    vector: u16,
    rings: Option<RingAddresses>,
}

impl Registers {
    fn new(options: &Options) -> Self {
        let fresh = QueueRegisters { vector: NO_VECTOR, rings: None };
        Self {
            status: 0,
            resetting: false,
            accepted: Features::default(),
            config: configuration(options),
            queues: vec![fresh; options.queues.into()],
        }
    }
}

/// The configuration space of such a device (5.2.4).
pub(super) fn configuration(options: &Options) -> [u8; config::LEN as usize] {
    let mut space = [0; config::LEN as usize];
    let mut put = |offset: u32, bytes: &[u8]| space[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    put(config::CAPACITY, &options.sectors.to_le_bytes());
    put(config::SIZE_MAX, &options.size_max.to_le_bytes());
    put(config::SEG_MAX, &options.seg_max.to_le_bytes());
    put(config::BLK_SIZE, &options.block_size.to_le_bytes());
    put(config::WRITEBACK, &[options.writeback.into()]);
    put(config::NUM_QUEUES, &options.queues.to_le_bytes());
    put(config::MAX_DISCARD_SECTORS, &options.max_discard_sectors.to_le_bytes());
    put(config::MAX_DISCARD_SEG, &1_u32.to_le_bytes());
    put(config::DISCARD_SECTOR_ALIGNMENT, &1_u32.to_le_bytes());
    put(config::MAX_WRITE_ZEROES_SECTORS, &options.max_write_zeroes_sectors.to_le_bytes());
    put(config::MAX_WRITE_ZEROES_SEG, &1_u32.to_le_bytes());
    put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
    space
}

/// A driver's access to a minimal device.
#[derive(Debug)]
pub struct EmbeddedTransport {
    device: Device,
    registers: Mutex<Registers>,
}

impl EmbeddedTransport {
    pub(super) fn new(device: Device) -> Self {
        let mut registers = Registers::new(device.options());
        // Left behind by a predecessor: not 0 before it was reset.
        registers.status = if device.is_driven() { status::ACKNOWLEDGE } else { 0 };
        Self { device, registers: Mutex::new(registers) }
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vector is an index into the device's call eventfds.
    fn take_vector(&self, vector: u16) -> u16 {
        if self.device.call(vector).is_some() { vector } else { NO_VECTOR }
    }

    fn field<const N: usize>(&self, offset: u32) -> Result<[u8; N], TransportError> {
        let at = offset as usize;
        let bytes = self.registers().config.get(at..at.saturating_add(N)).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or(TransportError::NoSuchField { offset })
    }

    fn index(&self, queue: QueueId) -> Result<usize, TransportError> {
        let index = usize::from(queue.0);
        if index < self.registers().queues.len() { Ok(index) } else { Err(TransportError::Protocol) }
    }
}

/// Notifies one queue of a minimal device.
#[derive(Debug)]
pub struct EmbeddedDoorbell {
    device: Device,
    queue: usize,
}

impl Doorbell for EmbeddedDoorbell {
    /// Counted; a device whose thread sleeps is woken through an eventfd, and a system call orders all that came before.
    /// One that spins or is stepped sees stores in the order of the ring's own barriers.
    fn ring(&self) {
        self.device.ring(self.queue);
    }
}

// SAFETY: the status reads 0 after a reset only once `try_quiesce` took every queue out of its gate, so that nothing
// acts on what was programmed, and entering the gates made visible what was stored; addresses go to `Device::install` as
// they came.
unsafe impl Transport for EmbeddedTransport {
    type Doorbell = EmbeddedDoorbell;

    fn status(&self) -> Result<u8, TransportError> {
        let mut registers = self.registers();
        if registers.resetting && self.device.try_quiesce() {
            *registers = Registers::new(self.device.options());
        }
        let broken = if self.device.is_broken() { status::DEVICE_NEEDS_RESET } else { 0 };
        Ok(registers.status | broken)
    }

    fn set_status(&mut self, status: u8) -> Result<(), TransportError> {
        let mut registers = self.registers();
        if status == 0 {
            // What reads back until the reset is done must not be 0.
            registers.status |= status::ACKNOWLEDGE;
            registers.resetting = true;
            drop(registers);
            self.device.halt();
            return Ok(());
        }
        if registers.resetting {
            return Ok(());
        }
        let offered = Features(self.device.offered_features());
        let needed = feature::VERSION_1 | self.device.options().insists_on;
        let agreed = offered.has(registers.accepted.0) && registers.accepted.has(needed);
        registers.status = if agreed { status } else { status & !status::FEATURES_OK };
        let runs = registers.status & status::DRIVER_OK != 0;
        drop(registers);
        if runs {
            self.device.start();
        }
        Ok(())
    }

    fn device_features(&mut self) -> Result<Features, TransportError> {
        Ok(Features(self.device.offered_features()))
    }

    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError> {
        self.registers().accepted = accepted;
        Ok(())
    }

    fn num_queues(&self) -> Result<u16, TransportError> {
        Ok(self.device.options().queues)
    }

    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError> {
        let options = self.device.options();
        Ok(if queue.0 < options.queues { options.queue_size } else { 0 })
    }

    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError> {
        let index = self.index(queue)?;
        let taken = self.take_vector(vector);
        self.registers().queues[index].vector = taken;
        Ok(taken)
    }

    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError> {
        // The configuration never changes by itself, so that nothing is ever sent there.
        Ok(self.take_vector(vector))
    }

    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        let index = self.index(queue)?;
        self.registers().queues[index].rings = Some(*rings);
        Ok(())
    }

    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError> {
        let index = self.index(queue)?;
        let registers = self.registers();
        let QueueRegisters { vector, rings } = registers.queues[index].clone();
        let event_idx = registers.accepted.has(feature::EVENT_IDX);
        let resetting = registers.resetting;
        drop(registers);
        let at = rings.filter(|_| !resetting).ok_or(TransportError::Protocol)?;
        let rings =
            Rings { size: at.size(), descriptors: at.descriptors().0, available: at.driver().0, used: at.device().0 };
        let call = self.device.call(vector);
        // SAFETY: what `RingAddresses` promises is what is asked for here; the proof that it waits for is a status of 0.
        unsafe { self.device.install(index, &rings, event_idx, call) }.map_err(|_| TransportError::Protocol)
    }

    fn doorbell(&mut self, queue: QueueId) -> Result<EmbeddedDoorbell, TransportError> {
        let queue = self.index(queue)?;
        Ok(EmbeddedDoorbell { device: self.device.clone(), queue })
    }

    fn config_generation(&self) -> Result<u32, TransportError> {
        Ok(0)
    }

    fn config_u8(&self, offset: u32) -> Result<u8, TransportError> {
        self.field(offset).map(u8::from_le_bytes)
    }

    fn config_u16(&self, offset: u32) -> Result<u16, TransportError> {
        self.field(offset).map(u16::from_le_bytes)
    }

    fn config_u32(&self, offset: u32) -> Result<u32, TransportError> {
        self.field(offset).map(u32::from_le_bytes)
    }

    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        let writable = offset == config::WRITEBACK && self.device.offered_features() & feature::CONFIG_WCE != 0;
        let mut registers = self.registers();
        let field = registers.config.get_mut(offset as usize).ok_or(TransportError::NoSuchField { offset })?;
        if writable {
            *field = value & 1;
        }
        Ok(())
    }

    fn take_interrupt_status(&mut self) -> Result<u8, TransportError> {
        Ok(0)
    }
}
