//! Completes chains in any order, pushes used entries, and decides about interrupts.
//!
//! Specification: 2.7.7 Used Buffer Notification Suppression, 2.7.8 The Virtqueue Used Ring.
use super::event::{NotifyPolicy, crosses, crossings_by_counting};
use super::execute::Execution;
use super::lie::Answer;
use super::ring::{Flight, QueueCounts, Taken};
use super::wire::{SUPPRESS, features, isr};
use super::{DriverFault, FakeDevice, Inner, Lie};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// An order of completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As taken.
    AsTaken,
    /// Last first.
    Reversed,
    /// By a generator with this seed.
    Shuffled(u64),
}

impl Order {
    /// Puts a list into this order.
    pub(crate) fn arrange<T>(self, list: &mut [T]) {
        match self {
            Self::AsTaken => {}
            Self::Reversed => list.reverse(),
            Self::Shuffled(seed) => {
                let mut state = seed;
                for last in (1..list.len()).rev() {
                    // SplitMix64: every seed, 0 included, gives a full sequence.
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    list.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
                }
            }
        }
    }
}

impl Inner {
    pub(super) fn in_flight(&mut self, queue: u16) -> Vec<Taken> {
        let flights = self.ring(queue).flights.iter();
        flights.filter(|(_, flight)| !flight.lost).map(|(serial, flight)| flight.taken(queue, *serial)).collect()
    }

    /// Executes and pushes `taken` as one batch: one store of the index.
    fn complete(&mut self, queue: u16, taken: &[Taken]) {
        if taken.is_empty() || !self.registers.driver_ok() {
            return;
        }
        // A FLUSH published up to here was sent before these completions could be known.
        self.observe_all();
        let before = self.ring(queue).used;
        let mut told = None;
        for one in taken {
            assert_eq!(one.queue, queue, "completed on the queue that it came from");
            let Some(mut flight) = self.retire(queue, one) else { continue };
            let lie = self.ring(queue).lies.pop_front();
            if lie == Some(Lie::Never) {
                flight.lost = true;
                self.ring(queue).flights.insert(one.serial, flight);
                continue;
            }
            self.answer(queue, one.serial, &flight, lie);
            told = lie.filter(|lie| matches!(lie, Lie::IndexAhead(_) | Lie::IndexBack(_))).or(told);
        }
        self.disk.tick();
        let memory = Arc::clone(&self.memory);
        let ring = self.ring(queue);
        if ring.enabled() {
            ring.publish_used(&memory, told.map_or(ring.used, |lie| lie.index(before, ring.used)));
        }
    }

    /// Takes a chain out of flight; `None` if a reset has forgotten it.
    fn retire(&mut self, queue: u16, one: &Taken) -> Option<Flight> {
        if one.serial < self.first_serial {
            return None;
        }
        let flight = self.ring(queue).flights.remove(&one.serial);
        Some(flight.expect("the test completes each chain once; for more there is Lie::IdTwice"))
    }

    /// Executes one chain and pushes its used entry, or a lie.
    fn answer(&mut self, queue: u16, serial: u64, flight: &Flight, lie: Option<Lie>) {
        self.check_unchanged(queue, flight);
        let how = lie.map_or(Execution::Honest, Lie::execution);
        let len = flight.request.as_ref().map_or(0, |request| self.execute(request, flight.sent, how));
        if let Some(Lie::Scribble(area)) = lie {
            self.scribble(queue, area);
        }
        self.owned.release(serial, &flight.chain.memory());
        let memory = Arc::clone(&self.memory);
        let ring = self.ring(queue);
        for descriptor in &flight.chain.descriptors {
            ring.busy.remove(descriptor);
        }
        let honest = Answer { id: u32::from(flight.head), len: len as u32, twice: false };
        let answer = match lie {
            Some(lie) => lie.bend(honest, ring, flight),
            None => honest,
        };
        ring.retired = Some(flight.head);
        for _ in 0..=u8::from(answer.twice) {
            ring.push_used(&memory, answer.id, answer.len);
        }
    }

    /// A driver leaves descriptors and header alone until the chain is used.
    fn check_unchanged(&mut self, queue: u16, flight: &Flight) {
        let Some(request) = &flight.request else { return };
        if self.rings.iter().any(|ring| !ring.scribbles.is_empty()) {
            return;
        }
        let indirect = self.registers.negotiated(features::INDIRECT_DESC);
        let again = self.rings[usize::from(queue)].walk(&self.memory, indirect).chain(flight.head);
        let same = again.is_ok_and(|chain| {
            let parsed = self.parse(&chain, &mut Vec::new());
            chain == flight.chain
                && parsed.is_some_and(|now| now.header == request.header && now.ranges == request.ranges)
        });
        if !same {
            self.fault(DriverFault::ChangedInFlight { queue, head: flight.head });
        }
    }

    /// Decides about one interrupt for everything completed since the last decision.
    fn signal(&mut self, queue: u16) -> bool {
        if !self.registers.driver_ok() || !self.ring(queue).enabled() {
            return false;
        }
        let event_idx = self.registers.negotiated(features::EVENT_IDX);
        let memory = Arc::clone(&self.memory);
        let ring = self.ring(queue);
        let (old, new) = (ring.signalled, ring.used);
        // The index was stored before; the driver stores its wish, fences, and looks at the index.
        fence(Ordering::SeqCst);
        let (wanted, due) = if old == new {
            (false, 0)
        } else if !ring.scribbles.is_empty() {
            (true, 1)
        } else if event_idx {
            let event = ring.used_event(&memory);
            (crosses(event, old, new), crossings_by_counting(event, old, new))
        } else {
            let wanted = ring.avail_flags(&memory) & SUPPRESS == 0;
            (wanted, u64::from(wanted))
        };
        assert_eq!(u64::from(wanted), due, "the device's own arithmetic, against counting");
        ring.signalled = new;
        ring.counts.interrupts += u64::from(wanted);
        ring.counts.interrupts_due += due;
        let vector = ring.registers.vector;
        if wanted {
            self.raise(vector, isr::QUEUE);
        }
        wanted
    }

    /// Takes and completes one batch; `None` when nothing is left, and doorbells are asked for again.
    fn process_batch(&mut self, queue: u16, most: usize, order: Order) -> Option<usize> {
        if !self.registers.live() || !self.ring(queue).enabled() {
            return None;
        }
        let suppresses = self.ring(queue).wish.policy == NotifyPolicy::SuppressWhileBusy;
        if suppresses {
            self.wish(queue, true);
        }
        let mut taken = self.take(queue, most);
        if taken.is_empty() {
            return (suppresses && self.rearm(queue)).then_some(0);
        }
        order.arrange(&mut taken);
        self.complete(queue, &taken);
        self.signal(queue);
        Some(taken.len())
    }
}

/// The test's side.
impl FakeDevice {
    /// Executes `taken` and pushes the used entries in this order, with one update of the index, then decides about
    /// one interrupt. Chains that a reset has forgotten are passed over.
    pub(crate) fn complete(&self, queue: u16, taken: &[Taken]) {
        self.with(|inner| {
            inner.complete(queue, taken);
            inner.signal(queue);
        });
    }

    /// As [`Self::complete`] without the decision about an interrupt: the gap in which a driver may re-arm.
    pub(crate) fn complete_quietly(&self, queue: u16, taken: &[Taken]) {
        self.with(|inner| inner.complete(queue, taken));
    }

    /// Decides about one interrupt for everything completed since the last decision; true if one was sent.
    pub(crate) fn signal(&self, queue: u16) -> bool {
        self.with(|inner| inner.signal(queue))
    }

    /// Completes everything in flight as one batch; tells how many.
    pub(crate) fn complete_all(&self, queue: u16, order: Order) -> usize {
        self.with(|inner| {
            let mut taken = inner.in_flight(queue);
            order.arrange(&mut taken);
            inner.complete(queue, &taken);
            inner.signal(queue);
            taken.len()
        })
    }

    /// Takes and completes batches of up to `most` until nothing is published; tells how many. With
    /// [`NotifyPolicy::SuppressWhileBusy`] doorbells are suppressed meanwhile, then re-enabled.
    pub(crate) fn process(&self, queue: u16, most: usize, order: Order) -> usize {
        // The lock is given back after each batch, so that its interrupt is sent before the next.
        std::iter::from_fn(|| self.with(|inner| inner.process_batch(queue, most, order))).sum()
    }

    /// Takes everything and completes it in order.
    pub(crate) fn process_all(&self, queue: u16) -> usize {
        self.process(queue, usize::MAX, Order::AsTaken)
    }

    /// What the queue has seen.
    pub(crate) fn counts(&self, queue: u16) -> QueueCounts {
        self.with(|inner| {
            inner.observe(queue);
            inner.ring(queue).counts
        })
    }
}
