//! The fake device's registers and doorbells, and the clients' doorbells, each access a step of the fuse.
use super::Fuse;
use super::transport::{Bell, Wire};
use crate::fake::{FakeDevice, Order};
use drv_virtio_block::lib_block::front_end::Notify;
use drv_virtio_block::spec::Features;
use drv_virtio_block::transport::{Doorbell, QueueId, RingAddresses, Transport, TransportError};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The registers.
pub(crate) struct Port {
    wire: Wire,
    fuse: Fuse,
    wild: Rc<Cell<bool>>,
}

impl Port {
    pub(super) fn new(device: &FakeDevice, fuse: &Fuse, wild: &Rc<Cell<bool>>) -> Self {
        Self { wire: Wire(device.clone()), fuse: fuse.clone(), wild: Rc::clone(wild) }
    }

    /// A device that is being reset works on until it is.
    fn work_on(&self) {
        if self.wild.get() {
            let device = &self.wire.0;
            for queue in 0..device.num_queues() {
                device.process(queue, 3, Order::Reversed);
                device.complete_all(queue, Order::Reversed);
            }
        }
    }
}

/// A queue's doorbell.
pub(crate) struct Ringer(Bell, Fuse);

impl Doorbell for Ringer {
    fn ring(&self) {
        self.1.tick();
        self.0.ring();
    }
}

// SAFETY: as for the wire: the fake forgets every queue and chain in the moment in which its status becomes 0.
unsafe impl Transport for Port {
    type Doorbell = Ringer;

    fn status(&self) -> Result<u8, TransportError> {
        self.fuse.tick();
        self.work_on();
        self.wire.status()
    }

    fn set_status(&mut self, status: u8) -> Result<(), TransportError> {
        self.fuse.tick();
        if status == 0 {
            self.work_on();
        }
        self.wire.set_status(status)
    }

    fn device_features(&mut self) -> Result<Features, TransportError> {
        self.fuse.tick();
        self.wire.device_features()
    }

    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError> {
        self.fuse.tick();
        self.wire.set_driver_features(accepted)
    }

    fn num_queues(&self) -> Result<u16, TransportError> {
        self.wire.num_queues()
    }

    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError> {
        self.wire.queue_max_size(queue)
    }

    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError> {
        self.fuse.tick();
        self.wire.set_queue_vector(queue, vector)
    }

    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError> {
        self.fuse.tick();
        self.wire.set_config_vector(vector)
    }

    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        self.fuse.tick();
        // SAFETY: handed on to the caller: the device is the one behind the wire.
        unsafe { self.wire.program_queue(queue, rings) }
    }

    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError> {
        self.fuse.tick();
        self.wire.enable_queue(queue)
    }

    fn doorbell(&mut self, queue: QueueId) -> Result<Ringer, TransportError> {
        Ok(Ringer(self.wire.doorbell(queue)?, self.fuse.clone()))
    }

    fn config_generation(&self) -> Result<u32, TransportError> {
        self.fuse.tick();
        self.wire.config_generation()
    }

    fn config_u8(&self, offset: u32) -> Result<u8, TransportError> {
        self.wire.config_u8(offset)
    }

    fn config_u16(&self, offset: u32) -> Result<u16, TransportError> {
        self.wire.config_u16(offset)
    }

    fn config_u32(&self, offset: u32) -> Result<u32, TransportError> {
        self.wire.config_u32(offset)
    }

    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        self.wire.set_config_u8(offset, value)
    }

    fn take_interrupt_status(&mut self) -> Result<u8, TransportError> {
        self.wire.take_interrupt_status()
    }
}

/// The clients' doorbells: who was rung.
#[derive(Clone)]
pub(crate) struct Bells(Rc<RefCell<Vec<u16>>>, Fuse);

impl Bells {
    pub(super) fn new(fuse: &Fuse) -> Self {
        Self(Rc::default(), fuse.clone())
    }

    /// Who was rung since the last call, by session.
    pub(crate) fn take(&self) -> Vec<u16> {
        self.0.take()
    }
}

impl Notify for Bells {
    fn ring(&self, session: u16) {
        self.1.tick();
        self.0.borrow_mut().push(session);
    }
}
