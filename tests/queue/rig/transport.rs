//! The fake device as the driver's transport: registers one to one.
use crate::fake::FakeDevice;
use drv_virtio_block::platform::{Badges, Nanos, Platform};
use drv_virtio_block::spec::Features;
use drv_virtio_block::transport::{Doorbell, QueueId, RingAddresses, Transport, TransportError};
use std::cell::Cell;

/// The device's registers.
#[derive(Clone)]
pub(crate) struct Wire(pub(crate) FakeDevice);

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn field(&self, offset: u32, width: u32) -> Result<u64, TransportError> {
        let inside = offset + width <= self.0.config_len();
        if inside { Ok(self.0.read_config(offset, width)) } else { Err(TransportError::NoSuchField { offset }) }
    }
}

/// A queue's doorbell.
#[derive(Clone)]
pub(crate) struct Bell(pub(crate) FakeDevice, pub(crate) u16);

impl Doorbell for Bell {
    fn ring(&self) {
        self.0.notify(self.1);
    }
}

// SAFETY: the fake forgets every queue and chain in the moment in which its status becomes 0, and reaches memory through
// the addresses of the queue registers only.
unsafe impl Transport for Wire {
    type Doorbell = Bell;

    fn status(&self) -> Result<u8, TransportError> {
        Ok(self.0.status())
    }

    fn set_status(&mut self, status: u8) -> Result<(), TransportError> {
        self.0.set_status(status);
        Ok(())
    }

    fn device_features(&mut self) -> Result<Features, TransportError> {
        Ok(Features(self.0.device_features()))
    }

    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError> {
        self.0.set_driver_features(accepted.0);
        Ok(())
    }

    fn num_queues(&self) -> Result<u16, TransportError> {
        Ok(self.0.num_queues())
    }

    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError> {
        Ok(self.0.queue_size(queue.0))
    }

    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError> {
        self.0.set_queue_vector(queue.0, vector);
        Ok(self.0.queue_vector(queue.0))
    }

    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError> {
        self.0.set_config_vector(vector);
        Ok(self.0.config_vector())
    }

    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        self.0.set_queue_size(queue.0, rings.size());
        self.0.set_queue_parts(queue.0, rings.descriptors().0, rings.driver().0, rings.device().0);
        Ok(())
    }

    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError> {
        self.0.set_queue_enable(queue.0, 1);
        Ok(())
    }

    fn doorbell(&mut self, queue: QueueId) -> Result<Bell, TransportError> {
        Ok(Bell(self.0.clone(), queue.0))
    }

    fn config_generation(&self) -> Result<u32, TransportError> {
        Ok(self.0.config_generation().into())
    }

    fn config_u8(&self, offset: u32) -> Result<u8, TransportError> {
        self.field(offset, 1).map(|value| value as u8)
    }

    fn config_u16(&self, offset: u32) -> Result<u16, TransportError> {
        self.field(offset, 2).map(|value| value as u16)
    }

    fn config_u32(&self, offset: u32) -> Result<u32, TransportError> {
        self.field(offset, 4).map(|value| value as u32)
    }

    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        self.0.write_config(offset, 1, value.into());
        Ok(())
    }

    fn take_interrupt_status(&mut self) -> Result<u8, TransportError> {
        Ok(self.0.read_isr())
    }
}

/// A clock that goes on by a millisecond whenever it is looked at; interrupts are watched at the device.
#[derive(Default)]
pub(crate) struct Clock(Cell<u64>);

impl Platform for Clock {
    fn now(&self) -> Nanos {
        self.0.set(self.0.get() + 1);
        Nanos::from_millis(self.0.get())
    }

    fn wait(&self, _: Badges, _: Option<Nanos>) -> Badges {
        Badges::NONE
    }

    fn acknowledge(&self, _: Badges) {}
    fn mask(&self, _: Badges) {}
    fn unmask(&self, _: Badges) {}
}
