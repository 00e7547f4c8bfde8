//! The device after it ran, or failed to: what may be reused, and how it is brought back.
#![forbid(unsafe_code)]
use super::{BringUpError, Failed, Link, Negotiated, Offline, Wishes};
use crate::geometry::Geometry;
use crate::interrupt::InterruptGrant;
use crate::platform::Platform;
use crate::transport::Transport;

/// A device that may know memory of this driver, and may use it: a start that failed, or a reset without an answer.
/// Nothing that was programmed may be reused before [`Unsettled::quiesce`] succeeds.
#[derive(Debug)]
#[must_use = "the device may still write to memory that it knows"]
pub struct Unsettled<'g, T> {
    pub(super) link: Link<T>,
    pub(super) geometry: &'g Geometry,
}

impl<'g, T: Transport> Unsettled<'g, T> {
    pub(super) fn give_up(why: BringUpError, mut link: Link<T>, geometry: &'g Geometry) -> Failed<Self> {
        link.give_up();
        Failed { why, device: Self { link, geometry } }
    }

    /// Resets the device.
    ///
    /// # Errors
    /// When the device does not answer in time or cannot be reached; it can be asked again.
    pub fn quiesce(mut self, platform: &impl Platform) -> Result<Stopped<'g, T>, Failed<Self>> {
        match self.link.reset(platform) {
            Ok(()) => {
                self.geometry.begin_anew();
                Ok(Stopped { link: self.link, geometry: self.geometry })
            }
            Err(why) => Err(Failed { why, device: self }),
        }
    }
}

/// A device that was reset and knows nothing of this driver's memory.
#[derive(Debug)]
#[must_use = "what the device knew can be reclaimed now"]
pub struct Stopped<'g, T> {
    link: Link<T>,
    geometry: &'g Geometry,
}

impl<'g, T: Transport> Stopped<'g, T> {
    /// What a queue asks for before it gives buffers back and has its memory laid out anew. It holds only as long as
    /// the device stays stopped, which the borrow sees to.
    pub fn proof(&self) -> Quiesced<'_> {
        Quiesced::of(self.geometry)
    }

    /// Brings the device up again over the same facts, so that queues that were laid out for it fit as they are. The
    /// capacity may have changed; it is the new one from here on.
    ///
    /// # Errors
    /// [`BringUpError::Changed`] if any other fact is not what it was: [`Stopped::into_offline`] is the way then, and
    /// queues that are laid out anew. Everything else as for [`Offline::negotiate`].
    pub fn negotiate(
        mut self,
        platform: &impl Platform,
        wishes: &Wishes,
        grants: &[InterruptGrant],
    ) -> Result<Negotiated<'g, T>, Failed<Unsettled<'g, T>>> {
        self.link.patience = wishes.patience;
        let outcome = self.link.negotiate(platform, wishes, grants);
        match outcome {
            Ok((now, terms)) if same_facts(&now, self.geometry) => {
                self.geometry.set_capacity(now.capacity());
                Ok(Negotiated::new(self.link, self.geometry, terms))
            }
            Ok(_) => Err(Unsettled::give_up(BringUpError::Changed, self.link, self.geometry)),
            Err(why) => Err(Unsettled::give_up(why, self.link, self.geometry)),
        }
    }

    /// Ends this driving of the device. Buffers are reclaimed before: there is no proof any more.
    pub fn into_offline(self) -> Offline<T> {
        Offline::new(self.link.transport)
    }
}

/// Whether the two say the same of everything that stays fixed while a device is driven.
fn same_facts(a: &Geometry, b: &Geometry) -> bool {
    a.features == b.features
        && (a.block_size, a.seg_max, a.size_max) == (b.block_size, b.seg_max, b.size_max)
        && (a.read_only, a.writeback) == (b.read_only, b.writeback)
        && (a.discard, a.write_zeroes, a.topology) == (b.discard, b.write_zeroes, b.topology)
}

/// Proof that a device lets go of everything it knew: its status read 0 after a reset (2.4), and nothing was told to it
/// since. It is about the one device whose facts are in one [`Geometry`], known by its address, which stays borrowed
/// for as long as that device is driven: neither another device's proof nor an earlier one can be mistaken for it.
#[derive(Debug)]
pub struct Quiesced<'s> {
    geometry: &'s Geometry,
}

impl<'s> Quiesced<'s> {
    /// For whoever saw the status read 0, and tests.
    pub(crate) fn of(geometry: &'s Geometry) -> Self {
        Self { geometry }
    }

    /// Whether the proof is about the device that `geometry` belongs to.
    pub fn covers(&self, geometry: &Geometry) -> bool {
        core::ptr::eq(self.geometry, geometry)
    }
}
