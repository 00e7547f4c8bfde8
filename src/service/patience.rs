//! Waiting: asleep until something comes, or awake until a call is over; and what becomes of a device that never answers.
//!
//! A queue is *silent* from when requests are there until one is answered. One that is silent for as long as the
//! envelope's patience goes is taken for lost, and with it the device: it is reset. A request that the device forgot
//! while it answers others is not noticed, unless a call waits for it.
use super::{Device, Service};
use crate::device::ConfigChange;
use crate::lib_block::front_end::{FrontEnd, Notify};
use crate::platform::{Badges, Nanos, Platform};
use crate::transport::{QueueId, Transport};

/// How often the configuration is looked at where nothing tells of changes.
const LOOK: Nanos = Nanos::from_millis(1_000);

impl<T: Transport, P: Platform, N: Notify + Clone> Service<'_, T, P, N> {
    /// Sleeps until an interrupt, one of `others` (doorbells, control), or `until`; not at all if there is something to
    /// do. Serves the configuration, and resets a device that has been silent for too long. What fired of `others`. To be
    /// followed by [`Service::pass`], which posts what came of it.
    pub fn wait(&mut self, others: Badges, until: Option<Nanos>) -> Badges {
        let Device::Running(running) = &self.device else {
            let fired = self.platform.wait(others, until);
            self.platform.acknowledge(fired);
            return fired;
        };
        let vectors = running.vectors().clone();
        let mut busy = false;
        for front in &mut self.fronts {
            busy |= front.arm();
        }
        let now = self.platform.now();
        let patient = self.lose_patience(now);
        let polled = (0..vectors.queues()).any(|queue| vectors.queue(QueueId(queue)).is_none());
        // What is armed in vain has no interrupt coming, and what is polled none to wait for.
        let end = if busy || (polled && patient.is_some()) {
            Some(now)
        } else {
            let deadlines = self.fronts.iter().filter_map(FrontEnd::next_deadline);
            // A deadline has passed one nanosecond later.
            let deadlines = deadlines.map(|deadline| deadline.after(Nanos(1)));
            deadlines.chain(patient).chain(until).min()
        };
        let fired = self.platform.wait(vectors.badges() | others, end);
        self.platform.acknowledge(fired);
        for (queue, front) in (0..).map(QueueId).zip(&mut self.fronts) {
            if vectors.queue_in(queue, fired) {
                front.woken();
            }
        }
        if vectors.configuration_in(fired) || (vectors.configuration().is_none() && self.is_look_due()) {
            self.look_at_configuration();
        }
        self.watch();
        fired.and(others)
    }

    /// Notes which queues are silent; when the first of them will have been for too long.
    fn lose_patience(&mut self, now: Nanos) -> Option<Nanos> {
        let mut first: Option<Nanos> = None;
        for (front, silence) in self.fronts.iter().zip(&mut self.silence) {
            let waits = front.queue().is_some_and(|queue| queue.in_flight() > 0);
            *silence = waits.then(|| silence.unwrap_or(now));
            let end = silence.map(|since| since.after(self.envelope.patience));
            first = first.into_iter().chain(end).min();
        }
        first
    }

    /// Ends what waits beyond its deadline, and resets a device that is silent for too long.
    fn watch(&mut self) {
        let clock = || self.platform.now();
        self.fronts.iter_mut().for_each(|front| front.expire(&clock));
        let now = self.platform.now();
        let is_over = |service: &mut Self| service.lose_patience(now).is_some_and(|end| end <= now);
        if self.is_serving() && is_over(self) {
            // What came meanwhile counts.
            self.pass();
            if self.is_serving() && is_over(self) {
                let _ = self.recover();
            }
        }
    }

    fn is_look_due(&self) -> bool {
        self.platform.now() >= self.looked.after(LOOK)
    }

    /// Looks at what the device says of itself: counts a change of the capacity, resets a device that asks for it or
    /// says what cannot be.
    pub fn look_at_configuration(&mut self) {
        self.looked = self.platform.now();
        let Device::Running(running) = &mut self.device else { return };
        match running.service_configuration() {
            Ok(ConfigChange { needs_reset: false, .. }) => {
                let capacity = running.geometry().capacity();
                self.note_capacity(capacity);
            }
            // How that goes is in the state.
            Ok(_) | Err(_) => drop(self.recover()),
        }
    }

    /// Counts a change.
    pub(super) fn note_capacity(&mut self, sectors: u64) {
        if self.capacity.replace(sectors).is_some_and(|before| before != sectors) {
            self.generation = self.generation.wrapping_add(1);
            self.fronts.iter_mut().for_each(|front| front.describe(self.generation));
        }
    }

    /// Serves everybody until `done` says what came of it; a device that stays silent is reset meanwhile. `None`: it does
    /// not serve any more.
    pub(super) fn serve_until<R>(&mut self, mut done: impl FnMut(&mut Self) -> Option<R>) -> Option<R> {
        loop {
            self.pass();
            if let Some(outcome) = done(self) {
                return Some(outcome);
            }
            if !self.is_serving() {
                return None;
            }
            if self.is_look_due() {
                self.look_at_configuration();
            }
            self.watch();
            self.platform.relax();
        }
    }

    /// As [`Service::serve_until`], for what somebody waits for who asked: if it takes longer than patience goes the
    /// device is reset, even if it answers others.
    pub(super) fn serve_patiently<R>(&mut self, mut done: impl FnMut(&mut Self) -> Option<R>) -> Option<R> {
        let mut end = self.platform.now().after(self.envelope.patience);
        self.serve_until(|service| {
            let outcome = done(service);
            if outcome.is_none() && service.platform.now() >= end {
                let _ = service.recover();
                end = service.platform.now().after(service.envelope.patience);
            }
            outcome
        })
    }
}
