//! The registers of a virtio device behind one small trait, typed by effect, and the doorbell.
//!
//! A register whose reading changes nothing is read through `&self`; whatever selects, writes or acknowledges takes
//! `&mut self`, so that two threads cannot interleave "select a queue" with "read what is selected". The trait knows no
//! rings, slots or requests and keeps no order among the steps: [`crate::device`] does. Every method may fail, since
//! the far side of a transport can vanish between any two of them (a vhost-user back-end that died, a device pulled
//! out of its slot).
//!
//! [`pci`] is the modern PCI transport. A transport that needs more than `core` lives outside this crate.
//!
//! Specification: 2.1 Device Status Field, 2.2 Feature Bits, 2.5 Device Configuration Space, 4 Virtio Transport
//! Options.
//!
//! ```
//! use drv_virtio_block::transport::Doorbell;
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! struct Counting(AtomicU32);
//! impl Doorbell for Counting {
//!     fn ring(&self) {
//!         self.0.fetch_add(1, Ordering::SeqCst);
//!     }
//! }
//! ```
#![deny(unsafe_code)]
use crate::dma::DeviceAddress;
use crate::geometry::Driving;
use crate::spec::Features;
use core::fmt;

// The one transport with registers in memory, and the one module here that touches them.
#[allow(unsafe_code)]
pub mod pci;

/// Most queues that the driver uses. With one interrupt for each and one for configuration, the badge word keeps
/// almost half of its bits for clients and control.
pub const MAX_QUEUES: u16 = 32;

/// A queue's index, as the device counts them: from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u16);

/// Where a queue's three areas are for the device, and how many descriptors it has (2.6 Virtqueues).
///
/// Whoever has one may tell a device to write there, so making one takes a promise ([`RingAddresses::new`]):
/// ```compile_fail,E0451
/// # use drv_virtio_block::{dma::DeviceAddress, transport::RingAddresses};
/// let at = DeviceAddress(0x1000);
/// let anywhere = RingAddresses { size: 4, descriptors: at, driver: at, device: at };
/// ```
///
/// Those of a [`crate::queue::Prepared`] can be copied, but programmed only once, into the device that the queue was
/// laid out for, and before its next reset: after that the queue has to be reclaimed, and asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    size: u16,
    descriptors: DeviceAddress,
    driver: DeviceAddress,
    device: DeviceAddress,
    /// When a queue was asked for them; `None`: whoever made them promised more than that.
    driving: Option<Driving>,
}

#[allow(unsafe_code)]
impl RingAddresses {
    /// The areas of a queue of `size` descriptors: the descriptor table, the available ring (driver area) and the used
    /// ring (device area). Nothing is checked here; [`crate::device::Negotiated::program`] does.
    ///
    /// # Safety
    /// The three areas, each as long as `size` asks for, and what the descriptors lead to are initialised and mapped for
    /// the device that will be told of them. They are that device's, and this one queue's, from its start until a
    /// [`crate::device::Quiesced`] proves that it let go: nobody else uses or frees the memory before, but a driver of
    /// the ring by the ring's rules.
    pub const unsafe fn new(
        size: u16,
        descriptors: DeviceAddress,
        driver: DeviceAddress,
        device: DeviceAddress,
    ) -> Self {
        Self { size, descriptors, driver, device, driving: None }
    }

    /// The same areas, to be programmed only while the device is driven as it is now.
    pub(crate) fn within(self, driving: Driving) -> Self {
        Self { driving: Some(driving), ..self }
    }

    /// Programs them into `queue` of the device behind `transport`, which is driven as `driving` says. `None`: they belong to
    /// another device, or to the time before its last reset, and the device was told nothing.
    pub(crate) fn program_into<T: Transport>(
        &self,
        transport: &mut T,
        queue: QueueId,
        driving: Driving,
    ) -> Option<Result<(), TransportError>> {
        if self.driving.is_some_and(|own| own != driving) {
            return None;
        }
        // SAFETY: rings that a queue was asked for were laid out for the device whose facts have this `driving`, which
        // no other device and no earlier life of this one has, and `device/` keeps a transport and its device's facts
        // together. Whoever made rings without a `driving` promised that they are for the device that is told of them
        // (`RingAddresses::new`).
        Some(unsafe { transport.program_queue(queue, self) })
    }

    /// Descriptors: for a split ring a power of two, at most what the device offered.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Descriptor area: the descriptor table, 16-byte aligned.
    pub const fn descriptors(&self) -> DeviceAddress {
        self.descriptors
    }

    /// Driver area: the available ring, 2-byte aligned.
    pub const fn driver(&self) -> DeviceAddress {
        self.driver
    }

    /// Device area: the used ring, 4-byte aligned.
    pub const fn device(&self) -> DeviceAddress {
        self.device
    }
}

/// Tells the device to look at one queue (2.9 Driver Notifications).
///
/// Obtained from the running device only, and of use until the device is reset.
pub trait Doorbell: Send + Sync {
    /// Notifies the device.
    ///
    /// Every store to ordinary memory that the calling thread made, or that happens before this call, is visible to
    /// the device before it sees the notification: the caller needs no barrier of its own for that.
    fn ring(&self);
}

/// The registers of one virtio device. See the module's text for what `&self` and `&mut self` say.
///
/// # Safety
/// The driver reuses memory on the strength of what a transport says:
/// - after `set_status(0)`, [`Transport::status`] answers `Ok(0)` only once the device, and whoever else acts on what it
///   was told, no longer accesses memory; what they stored before is visible to the caller then. The device has forgotten
///   all addresses by then;
/// - the device is told the addresses that [`Transport::program_queue`] was given, and no others.
///
/// A transport that is at hand can do no harm to memory: without an `unsafe` block nothing but
/// [`crate::device::Negotiated::program`] programs a queue, and that holds the rings against the device.
/// ```compile_fail,E0133
/// # use drv_virtio_block::{queue::Prepared, dma::Buffer, transport::{QueueId, Transport}};
/// fn rings_of_another_device<T: Transport, B: Buffer>(transport: &mut T, queue: &Prepared<'_, B>) {
///     let _ = transport.program_queue(QueueId(0), &queue.addresses());
/// }
/// ```
#[allow(unsafe_code)]
pub unsafe trait Transport {
    /// Notifies one queue.
    type Doorbell: Doorbell;

    /// Reads the device status (2.1): bits of [`crate::spec::status`].
    ///
    /// # Errors
    /// When the device cannot be reached, here and in every method below.
    fn status(&self) -> Result<u8, TransportError>;

    /// Writes the device status; 0 asks for a reset, which is done when the status reads 0.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_status(&mut self, status: u8) -> Result<(), TransportError>;

    /// Reads what the device offers, bits 0 to 63.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn device_features(&mut self) -> Result<Features, TransportError>;

    /// Writes what the driver accepts, bits 0 to 63.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError>;

    /// Reads how many queues the transport has room for; the block device's own `num_queues` may be less.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn num_queues(&self) -> Result<u16, TransportError>;

    /// Reads the largest size of a queue; 0: the queue does not exist. To be read before the queue is programmed.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError>;

    /// Maps a queue's interrupts to `vector` ([`crate::spec::NO_VECTOR`]: to none) and returns what the device reads
    /// back: `vector`, or `NO_VECTOR` if it cannot (4.1.5.1.2).
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError>;

    /// Maps configuration changes to `vector`, as [`Transport::set_queue_vector`] does for a queue.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError>;

    /// Writes a queue's size and the addresses of its areas, and makes sure that its doorbell can be had later.
    ///
    /// # Errors
    /// When the device cannot be reached, or has its doorbell where this driver has no access.
    ///
    /// # Safety
    /// The rings are for the device behind this transport, and for this queue alone: their memory is given back on a proof
    /// of that device's reset only.
    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError>;

    /// Enables a queue: the last of its steps. There is no way to disable it but a reset of the device.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError>;

    /// The doorbell of a queue that was programmed.
    ///
    /// # Errors
    /// When the device cannot be reached, or has its doorbell where this driver has no access.
    fn doorbell(&mut self, queue: QueueId) -> Result<Self::Doorbell, TransportError>;

    /// Reads the configuration generation: two equal readings enclose reads of one state (2.5). How many bits of it
    /// count is the transport's business.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn config_generation(&self) -> Result<u32, TransportError>;

    /// Reads an 8-bit field of the device configuration; `offset` in bytes.
    ///
    /// # Errors
    /// [`TransportError::NoSuchField`] when the configuration space ends before it.
    fn config_u8(&self, offset: u32) -> Result<u8, TransportError>;

    /// Reads a 16-bit field of the device configuration; `offset` in bytes, aligned.
    ///
    /// # Errors
    /// [`TransportError::NoSuchField`] when the configuration space ends before it.
    fn config_u16(&self, offset: u32) -> Result<u16, TransportError>;

    /// Reads a 32-bit field of the device configuration; `offset` in bytes, aligned.
    ///
    /// # Errors
    /// [`TransportError::NoSuchField`] when the configuration space ends before it.
    fn config_u32(&self, offset: u32) -> Result<u32, TransportError>;

    /// Reads a 64-bit field of the device configuration as two 32-bit ones, low part first (4.1.3.1): not atomic, to
    /// be enclosed in two readings of the generation.
    ///
    /// # Errors
    /// [`TransportError::NoSuchField`] when the configuration space ends before it.
    fn config_u64(&self, offset: u32) -> Result<u64, TransportError> {
        let low = self.config_u32(offset)?;
        let high = self.config_u32(offset + 4)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// Writes an 8-bit field of the device configuration (the block device has one such: `writeback`).
    ///
    /// # Errors
    /// [`TransportError::NoSuchField`] when the configuration space ends before it.
    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError>;

    /// Reads the ISR status, which acknowledges what it reports: bit 0 a queue, bit 1 the configuration (4.1.4.5).
    /// With MSI-X it is of no use, and not read on a queue's interrupt.
    ///
    /// # Errors
    /// When the device cannot be reached.
    fn take_interrupt_status(&mut self) -> Result<u8, TransportError>;
}

/// Why a register could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// The device, or what stands for it, is no longer there.
    Gone,
    /// The device configuration space ends before the field at this offset.
    NoSuchField {
        /// Offset of the field in bytes.
        offset: u32,
    },
    /// The queue's notification address lies outside the window that was handed over.
    DoorbellOutside(QueueId),
    /// What is behind the transport answered against the transport's own protocol.
    Protocol,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the device is gone"),
            Self::NoSuchField { offset } => write!(f, "the configuration space has no field at offset {offset}"),
            Self::DoorbellOutside(QueueId(n)) => write!(f, "the doorbell of queue {n} lies outside the notify window"),
            Self::Protocol => f.write_str("the back-end broke the transport's protocol"),
        }
    }
}

impl core::error::Error for TransportError {}
