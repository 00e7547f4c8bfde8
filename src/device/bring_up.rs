//! From reset to `DRIVER_OK`: the states before the device runs.
#![forbid(unsafe_code)]
use super::error::BringUpError;
use super::negotiation::Terms;
use super::{Failed, Link, Reached, Running, Unsettled, Wishes};
use crate::dma::DeviceAddress;
use crate::geometry::Geometry;
use crate::interrupt::{InterruptGrant, VectorPlan};
use crate::platform::{Nanos, Platform};
use crate::spec::status;
use crate::transport::{MAX_QUEUES, QueueId, RingAddresses, Transport};

/// A device of which nothing is assumed: never touched, failed, left behind by a predecessor, or reset.
///
/// The whole way, for a caller that has laid out its rings:
/// ```
/// use drv_virtio_block::device::{BringUpError, Offline, Running, Wishes};
/// use drv_virtio_block::geometry::Geometry;
/// use drv_virtio_block::interrupt::InterruptGrant;
/// use drv_virtio_block::platform::Platform;
/// use drv_virtio_block::transport::{QueueId, RingAddresses, Transport};
///
/// fn bring_up<'g, T: Transport>(
///     platform: &impl Platform,
///     transport: T,
///     grants: &[InterruptGrant],
///     place: &'g mut Option<Geometry>,
///     rings: impl Fn(QueueId, u16) -> RingAddresses,
/// ) -> Result<Running<'g, T>, BringUpError> {
///     let wishes = Wishes { queues: 4, ..Wishes::default() };
///     let mut device = Offline::new(transport).negotiate(platform, &wishes, grants, place)?;
///     for (queue, size) in device.queues() {
///         device = device.program(queue, &rings(queue, size))?;
///     }
///     Ok(device.start()?)
/// }
/// ```
#[derive(Debug)]
pub struct Offline<T> {
    transport: T,
}

impl<T: Transport> Offline<T> {
    /// Takes a device over, in whatever state it is. Nothing is read or written yet.
    pub fn new(transport: T) -> Self {
        Self { transport }
    }

    /// Gives the transport back.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Resets the device and leaves it so: for a driver that only wants a predecessor's device to be quiet.
    ///
    /// # Errors
    /// When it does not answer within `patience`; whatever memory it knows must not be reused then.
    pub fn quiesce(self, platform: &impl Platform, patience: Nanos) -> Result<Self, Failed<Self>> {
        let mut link = Link { transport: self.transport, status: 0, patience };
        let outcome = link.reset(platform);
        let device = Self { transport: link.transport };
        match outcome {
            Ok(()) => Ok(device),
            Err(why) => Err(Failed { why, device }),
        }
    }

    /// Resets the device, agrees on features, reads and checks the configuration, finds out which queues there are and
    /// maps vectors to them. The facts go into `place`, from where they are lent to the queues for as long as this
    /// device is driven. `grants` are the interrupt capabilities, the first for configuration changes.
    ///
    /// # Errors
    /// [`Failed`] with the first thing that went wrong; `place` is as it was then.
    pub fn negotiate<'g>(
        self,
        platform: &impl Platform,
        wishes: &Wishes,
        grants: &[InterruptGrant],
        place: &'g mut Option<Geometry>,
    ) -> Result<Negotiated<'g, T>, Failed<Self>> {
        let mut link = Link { transport: self.transport, status: 0, patience: wishes.patience };
        match link.negotiate(platform, wishes, grants) {
            Ok((geometry, terms)) => Ok(Negotiated::new(link, place.insert(geometry), terms)),
            Err(why) => {
                link.give_up();
                Err(Failed { why, device: Self { transport: link.transport } })
            }
        }
    }
}

/// A device that agreed on features, with its queues known and none of them programmed yet, or some.
///
/// A doorbell before `DRIVER_OK` does not compile:
/// ```compile_fail,E0599
/// use drv_virtio_block::{device::Negotiated, transport::{QueueId, Transport}};
/// fn too_early<T: Transport>(device: &mut Negotiated<'_, T>) {
///     device.doorbell(QueueId(0));
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Negotiated<'g, T> {
    pub(super) link: Link<T>,
    pub(super) geometry: &'g Geometry,
    pub(super) terms: Terms,
    /// By queue: the descriptors that it was programmed with.
    programmed: [Option<DeviceAddress>; MAX_QUEUES as usize],
}

impl<'g, T: Transport> Negotiated<'g, T> {
    pub(super) fn new(link: Link<T>, geometry: &'g Geometry, terms: Terms) -> Self {
        Self { link, geometry, terms, programmed: [None; MAX_QUEUES as usize] }
    }

    /// The device's facts.
    pub fn geometry(&self) -> &'g Geometry {
        self.geometry
    }

    /// What came of the wishes.
    pub fn reached(&self) -> Reached {
        self.terms.reached
    }

    /// What interrupts for what.
    pub fn vectors(&self) -> &VectorPlan {
        &self.terms.plan
    }

    /// The queues, each with the number of its descriptors: the least of what was wished for and what the device has.
    pub fn queues(&self) -> impl ExactSizeIterator<Item = (QueueId, u16)> + use<T> {
        let sizes = self.terms.sizes.clone();
        sizes.into_iter().enumerate().map(|(n, size)| (QueueId(n as u16), size))
    }

    /// Tells the device where a queue's rings are. Their memory is initialised and belongs to the device from the
    /// start on. `rings.size` may be less than was agreed on, for want of memory.
    ///
    /// # Errors
    /// [`Failed`] with what is wrong with the queue, or when the device cannot be reached. Rings of a queue that was laid
    /// out for another device, that were asked for before the last reset of this one, or that are another queue's
    /// already are [`BringUpError::Rings`].
    pub fn program(mut self, queue: QueueId, rings: &RingAddresses) -> Result<Self, Failed<Unsettled<'g, T>>> {
        match self.try_program(queue, rings) {
            Ok(()) => Ok(self),
            Err(why) => Err(Unsettled::give_up(why, self.link, self.geometry)),
        }
    }

    fn try_program(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), BringUpError> {
        let agreed = self.terms.sizes.get(queue.0 as usize).ok_or(BringUpError::SurplusQueue(queue))?;
        if self.programmed[usize::from(queue.0)].is_some() {
            return Err(BringUpError::SurplusQueue(queue));
        }
        // One queue's ring is one block: its descriptors name it.
        if self.programmed.contains(&Some(rings.descriptors())) {
            return Err(BringUpError::Rings(queue));
        }
        let aligned = rings.descriptors().0.is_multiple_of(16)
            && rings.driver().0.is_multiple_of(2)
            && rings.device().0.is_multiple_of(4);
        if !aligned || !rings.size().is_power_of_two() || rings.size() > *agreed {
            return Err(BringUpError::Rings(queue));
        }
        let told = rings.program_into(&mut self.link.transport, queue, self.geometry.driving());
        told.ok_or(BringUpError::Rings(queue))??;
        self.programmed[usize::from(queue.0)] = Some(rings.descriptors());
        Ok(())
    }

    /// Enables every queue and sets `DRIVER_OK` (step 8): from here on the device runs. What changed between the reading
    /// of the configuration and this moment is looked at again, since a device reports changes only from now on.
    ///
    /// # Errors
    /// [`Failed`] when a queue was not programmed, the device cannot be reached, asks for a reset at once, or changed
    /// its capacity to one that cannot be.
    pub fn start(self) -> Result<Running<'g, T>, Failed<Unsettled<'g, T>>> {
        let mut running = Running { link: self.link, geometry: self.geometry, terms: self.terms };
        match running.go(&self.programmed) {
            Ok(()) => Ok(running),
            Err(why) => Err(Unsettled::give_up(why, running.link, running.geometry)),
        }
    }

    /// Gives up on the device.
    pub fn abandon(mut self) -> Unsettled<'g, T> {
        self.link.give_up();
        Unsettled { link: self.link, geometry: self.geometry }
    }
}

impl<T: Transport> Running<'_, T> {
    fn go(&mut self, programmed: &[Option<DeviceAddress>]) -> Result<(), BringUpError> {
        let queues = self.terms.plan.queues();
        if let Some(missing) = (0..queues).find(|n| programmed[usize::from(*n)].is_none()) {
            return Err(BringUpError::MissingQueue(QueueId(missing)));
        }
        for queue in (0..queues).map(QueueId) {
            self.link.transport.enable_queue(queue)?;
        }
        self.link.raise(status::DRIVER_OK)?;
        if self.service_configuration()?.needs_reset {
            return Err(BringUpError::NeedsReset);
        }
        Ok(())
    }
}
