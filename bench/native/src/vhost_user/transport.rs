//! The back-end as the driver's registers.
//!
//! | Register | vhost-user |
//! |---|---|
//! | device status | kept here; 0 by the reset that `line.rs` describes |
//! | features | GET_FEATURES, SET_FEATURES; the protocol's own bits are neither shown nor asked for |
//! | number of queues | GET_QUEUE_NUM with the protocol feature MQ, else 1 |
//! | queue size | not asked for by the protocol: [`Options::queue_size`](super::Options::queue_size) |
//! | queue addresses | SET_MEM_TABLE once, SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ADDR |
//! | queue vector | the call eventfd of that number: SET_VRING_CALL |
//! | queue enable | SET_VRING_CALL, SET_VRING_KICK, SET_VRING_ENABLE |
//! | configuration space | GET_CONFIG, all of it in one message; SET_CONFIG |
//! | configuration generation | counts changed contents: reading it reads the whole space, fields come from that copy |
//! | configuration vector | accepted, and never fires: the protocol has no such eventfd |
//!
//! The configuration vector is accepted because the driver's ladder gives the first vector to the configuration, and a
//! device that refuses it is taken for one without vectors; queues would be left without theirs.
//!
//! It knows no rings and no order of steps, as every transport.
use super::line::Line;
use crate::event::Kick;
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::spec::{Features, feature};
use drv_virtio_block::transport::{QueueId, RingAddresses, Transport, TransportError};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vhost::vhost_user::VhostUserVirtioFeatures as Virtio;

/// Memory as a back-end is told of it.
pub(super) struct Share {
    pub(super) file: OwnedFd,
    /// Of its first byte, in this process and for the device.
    pub(super) address: u64,
    /// In bytes.
    pub(super) len: u64,
}

impl Share {
    /// Whether a queue's areas lie in the memory (2.7: 16 bytes a descriptor; 2 and 8 bytes an entry, and 6 more).
    pub(super) fn holds(&self, rings: &RingAddresses) -> bool {
        let size = u64::from(rings.size());
        let areas = [(rings.descriptors(), 16 * size), (rings.driver(), 2 * size + 6), (rings.device(), 8 * size + 6)];
        let inside = |(start, len): (DeviceAddress, u64)| {
            start.0.checked_sub(self.address).is_some_and(|offset| offset <= self.len && len <= self.len - offset)
        };
        areas.into_iter().all(inside) && rings.driver().0.is_multiple_of(2) && rings.device().0.is_multiple_of(4)
    }
}

/// Bits that are the protocol's and not the device's; and ACCESS_PLATFORM, with which a back-end would ask for address
/// translations, which this transport does not answer: the whole memory is told in one table.
const HIDDEN: u64 = Virtio::PROTOCOL_FEATURES.bits() | Virtio::LOG_ALL.bits() | feature::ACCESS_PLATFORM;

/// The registers of a device behind a vhost-user socket.
///
/// Dropping it does not reset the device: [`Running::reset`](drv_virtio_block::device::Running::reset) does.
pub struct VhostUser {
    pub(super) line: Arc<Mutex<Line>>,
    /// Of every queue, in descriptors.
    pub(super) queue_size: u16,
}

/// No step of the line leaves it half-done when it panics, so a poisoned lock is as good as any.
pub(super) fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VhostUser {
    fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.line)
    }
}

// SAFETY:
// - after `set_status(0)` the status is 0 only when every started queue was stopped with nothing in flight, or when the back-end has closed its end of the connection, or never was told of memory (`line.rs`, `Control::let_go`);
//   the used index is read with acquire, and a closed end through a system call, so that earlier stores are visible;
// - a back-end is told of the shared memory as a whole, which is the region that queues and buffers are in, and of
//   queue addresses as `program_queue` was given them; it can reach nothing else of this process.
unsafe impl Transport for VhostUser {
    type Doorbell = Kick;

    fn status(&self) -> Result<u8, TransportError> {
        self.line().status()
    }

    fn set_status(&mut self, status: u8) -> Result<(), TransportError> {
        self.line().set_status(status)
    }

    fn device_features(&mut self) -> Result<Features, TransportError> {
        Ok(Features(self.line().features()?).without(HIDDEN))
    }

    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError> {
        self.line().set_features(accepted.0 | Virtio::PROTOCOL_FEATURES.bits())
    }

    fn num_queues(&self) -> Result<u16, TransportError> {
        self.line().num_queues()
    }

    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError> {
        let exists = queue.0 < self.line().num_queues()?;
        Ok(if exists { self.queue_size } else { 0 })
    }

    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError> {
        self.line().set_queue_vector(queue, vector)
    }

    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError> {
        Ok(self.line().vector(vector))
    }

    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        self.line().program_queue(queue, rings)
    }

    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError> {
        self.line().enable_queue(queue)
    }

    fn doorbell(&mut self, queue: QueueId) -> Result<Kick, TransportError> {
        Ok(Kick::new(self.line().kick(queue)?))
    }

    fn config_generation(&self) -> Result<u32, TransportError> {
        self.line().config_generation()
    }

    fn config_u8(&self, offset: u32) -> Result<u8, TransportError> {
        Ok(u8::from_le_bytes(self.line().config(offset)?))
    }

    fn config_u16(&self, offset: u32) -> Result<u16, TransportError> {
        Ok(u16::from_le_bytes(self.line().config(offset)?))
    }

    fn config_u32(&self, offset: u32) -> Result<u32, TransportError> {
        Ok(u32::from_le_bytes(self.line().config(offset)?))
    }

    fn config_u64(&self, offset: u32) -> Result<u64, TransportError> {
        Ok(u64::from_le_bytes(self.line().config(offset)?))
    }

    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        self.line().set_config_u8(offset, value)
    }

    fn take_interrupt_status(&mut self) -> Result<u8, TransportError> {
        // Interrupts are eventfds, each with one meaning.
        Ok(0)
    }
}

impl fmt::Debug for VhostUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUser").field("queue_size", &self.queue_size).finish_non_exhaustive()
    }
}
