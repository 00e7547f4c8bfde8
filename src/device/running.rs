//! The device while it runs.
#![forbid(unsafe_code)]
use super::error::ConfigError;
use super::negotiation::Terms;
use super::{Failed, Link, Reached, Stopped, Unsettled, config};
use crate::geometry::Geometry;
use crate::interrupt::VectorPlan;
use crate::platform::Platform;
use crate::spec::status;
use crate::transport::{QueueId, Transport, TransportError};

/// A device that runs: `DRIVER_OK` is set.
///
/// Dropping it does not stop the device. Whoever is done resets it; memory that the device knows is lost otherwise.
#[derive(Debug)]
#[must_use = "the device goes on until it is reset"]
pub struct Running<'g, T> {
    pub(super) link: Link<T>,
    pub(super) geometry: &'g Geometry,
    pub(super) terms: Terms,
}

/// What a look at the configuration found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// Old and new capacity in sectors. Requests are held against the new one already.
    pub capacity: Option<(u64, u64)>,
    /// The device needs a reset: what is in flight is no longer trusted (2.1.1).
    pub needs_reset: bool,
}

impl<'g, T: Transport> Running<'g, T> {
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

    /// The doorbell of a queue. It outlives this value as a thing, but must not be rung once the device was reset: the
    /// queue that holds it ends there.
    ///
    /// # Errors
    /// When there is no such queue, or the device cannot be reached.
    pub fn doorbell(&mut self, queue: QueueId) -> Result<T::Doorbell, TransportError> {
        if queue.0 >= self.terms.plan.queues() {
            return Err(TransportError::DoorbellOutside(queue));
        }
        self.link.transport.doorbell(queue)
    }

    /// Whether the device stopped on its own: it asks for a reset, or has forgotten that it was started.
    ///
    /// # Errors
    /// When the device cannot be reached.
    pub fn needs_reset(&self) -> Result<bool, TransportError> {
        let now = self.link.transport.status()?;
        Ok(now & status::DEVICE_NEEDS_RESET != 0 || now & status::DRIVER_OK == 0)
    }

    /// Looks at what may have changed. To be called when [`VectorPlan::configuration_in`] says so, which on a shared
    /// vector is every time it fires, and now and then if nothing interrupts for the configuration.
    ///
    /// The capacity is read each time, between two equal generations: a device need not change the generation before
    /// the changed value was read (4.1.4.3.1), so that an unchanged one proves nothing. Five register reads; the ISR
    /// status, which could save them, is not to be read with MSI-X (4.1.4.5.2).
    ///
    /// # Errors
    /// When the device cannot be reached, never comes to rest, or says something that cannot be: reset it then.
    pub fn service_configuration(&mut self) -> Result<ConfigChange, ConfigError> {
        if self.needs_reset()? {
            return Ok(ConfigChange { capacity: None, needs_reset: true });
        }
        let new = config::capacity(&self.link.transport)?;
        let old = self.geometry.set_capacity(new);
        Ok(ConfigChange { capacity: (old != new).then_some((old, new)), needs_reset: false })
    }

    /// Stops the device: queues give their buffers back and their memory is the owner's again ([`Stopped::proof`]).
    ///
    /// # Errors
    /// When the device does not answer in time or cannot be reached. It may still write then, so there is no proof and
    /// what it knows stays out of use; it can be asked again.
    pub fn reset(self, platform: &impl Platform) -> Result<Stopped<'g, T>, Failed<Unsettled<'g, T>>> {
        Unsettled { link: self.link, geometry: self.geometry }.quiesce(platform)
    }
}
