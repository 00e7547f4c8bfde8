//! The device's wish for doorbells, and the doorbells that came, held against those that were due.
//!
//! What is due is counted by looking at each published index, while the wish that stood when it was published is known
//! because only the device changes it. With EVENT_IDX that is exact over any number of publishes between two looks, as
//! long as driver and device do not run at the same time: a crossing happens once, whoever publishes it. Without
//! EVENT_IDX it is exact when the test looks after each publish ([`FakeDevice::watch_publish`]).
use super::event::NotifyPolicy;
use super::wire::features;
use super::{DriverFault, FakeDevice, Inner};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// What happened between [`FakeDevice::before_publish`] and [`FakeDevice::after_publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Entries that were published.
    pub(crate) entries: u64,
    /// Doorbells that were due.
    pub(crate) due: u64,
    /// Doorbells that came.
    pub(crate) rung: u64,
}

/// Where things stood before a publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    queue: u16,
    published: u64,
    owed: u64,
    heard: u64,
}

impl Inner {
    /// The device goes live: what the driver has published already is seen, and doorbells are asked for.
    pub(super) fn start_rings(&mut self) {
        let event_idx = self.registers.negotiated(features::EVENT_IDX);
        for queue in 0..self.rings.len() as u16 {
            self.ring(queue).wish.event_idx = event_idx;
            if self.ring(queue).enabled() {
                self.wish(queue, false);
                // No doorbell may come before DRIVER_OK: none is due for what was published by then.
                self.ring(queue).wish.owed = self.ring(queue).wish.owed_before_reset;
            }
        }
    }

    /// Writes the wish for doorbells: by the policy, or (`quiet`) for none.
    pub(super) fn wish(&mut self, queue: u16, quiet: bool) {
        // What was published so far was published under the old wish.
        self.observe(queue);
        let memory = Arc::clone(&self.memory);
        let ring = self.ring(queue);
        ring.wish.ask(ring.next_avail, quiet);
        ring.publish_wish(&memory);
        // The driver stores its index, fences, and looks at the wish.
        fence(Ordering::SeqCst);
    }

    /// Whether something waits for which the driver owed a doorbell under the present wish.
    pub(super) fn doorbell_due(&mut self, queue: u16) -> bool {
        self.observe(queue);
        let ring = self.ring(queue);
        let wish = &ring.wish;
        let asked = if wish.event_idx {
            wish.event.wrapping_sub(ring.next_avail)
        } else {
            u16::from(wish.suppressed) * u16::MAX
        };
        asked < ring.waiting()
    }

    /// Asks for doorbells, fences, looks again; true: something was published meanwhile.
    pub(super) fn rearm(&mut self, queue: u16) -> bool {
        self.wish(queue, false);
        self.observe(queue);
        self.ring(queue).waiting() > 0
    }
}

/// The driver's side.
impl FakeDevice {
    /// A 16-bit doorbell.
    pub(crate) fn notify(&self, queue: u16) {
        if !self.shared.signals.hears() {
            self.shared.faults.extend(vec![DriverFault::NotifiedBeforeDriverOk(queue)]);
        } else if self.shared.signals.enabled(queue) {
            self.shared.signals.ring(queue);
        } else {
            self.shared.faults.extend(vec![DriverFault::NotifiedDisabledQueue(queue)]);
        }
    }

    /// A 32-bit doorbell, which belongs to NOTIFICATION_DATA.
    pub(crate) fn notify_wide(&self, value: u32) {
        self.shared.faults.extend(vec![DriverFault::NotifiedWide(value)]);
    }
}

/// The test's side.
impl FakeDevice {
    /// When the device asks for doorbells on `queue`; from now on.
    pub(crate) fn set_notify_policy(&self, queue: u16, policy: NotifyPolicy) {
        self.with(|inner| {
            inner.observe(queue);
            inner.ring(queue).wish.policy = policy;
            if inner.registers.live() && inner.ring(queue).enabled() {
                inner.wish(queue, false);
            }
        });
    }

    /// Sets bits in `used.flags` from the next wish on: what a driver ignores with EVENT_IDX, and beyond bit 0 without.
    pub(crate) fn set_used_flags_noise(&self, queue: u16, noise: u16) {
        self.with(|inner| inner.ring(queue).wish.noise = noise);
    }

    /// Asks for no doorbells until the next [`Self::rearm`] or (other policies than `SuppressWhileBusy`) `take`.
    pub(crate) fn suppress(&self, queue: u16) {
        self.with(|inner| inner.wish(queue, true));
    }

    /// Asks for doorbells by the policy, fences, looks again; true: something was published and waits to be taken.
    pub(crate) fn rearm(&self, queue: u16) -> bool {
        self.with(|inner| inner.rearm(queue))
    }

    /// Doorbells that came for `queue`.
    pub(crate) fn notifications(&self, queue: u16) -> u64 {
        self.shared.signals.doorbells(queue)
    }

    /// Doorbells that were due for `queue`; see the file's header for when this is exact.
    pub(crate) fn expected_notifications(&self, queue: u16) -> u64 {
        self.with(|inner| {
            inner.observe(queue);
            inner.ring(queue).wish.owed
        })
    }

    /// How many different wishes for a doorbell the device has uttered. With EVENT_IDX, and however driver and device
    /// race, no correct driver rings more often.
    pub(crate) fn notifications_asked(&self, queue: u16) -> u64 {
        self.with(|inner| inner.ring(queue).wish.asked)
    }

    /// Call this before the driver publishes.
    pub(crate) fn before_publish(&self, queue: u16) -> Before {
        let heard = self.notifications(queue);
        self.with(|inner| {
            inner.observe(queue);
            let ring = inner.ring(queue);
            Before { queue, published: ring.counts.published, owed: ring.wish.owed, heard }
        })
    }

    /// Call this after the driver published and rang, or did not.
    pub(crate) fn after_publish(&self, before: Before) -> Publish {
        let after = self.before_publish(before.queue);
        Publish {
            entries: after.published - before.published,
            due: after.owed - before.owed,
            rung: after.heard - before.heard,
        }
    }

    /// Runs `publish` and tells what it published, what was due and what came.
    pub(crate) fn watch_publish<R>(&self, queue: u16, publish: impl FnOnce() -> R) -> (R, Publish) {
        let before = self.before_publish(queue);
        let result = publish();
        (result, self.after_publish(before))
    }
}
