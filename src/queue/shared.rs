//! A queue with many submitters, none of which ever waits for another.
//!
//! Each [`Submitter`] claims slots with one locked instruction per batch and fills them alone. Whoever finds the publish
//! gate free publishes its batch directly; whoever does not leaves its slots in the staged set and word at the gate,
//! and the holder takes them along. Draining works the same way behind a gate of its own: completions of the drainer's
//! own requests are handed over directly, those of others are parked in their slots and their submitters woken.
//! A holder that is preempted delays what was left with it, and before its doorbell also what was published since; it
//! loses nothing and nobody spins.
//!
//! The doorbell decision of a published range uses the range as the holder knows it and the full fence of
//! [`Gate::leave`]: one fence orders the index before the device's event index *and* the gate before the word left at
//! it. The decision falls after the gate is free, about that holder's own range and no other.
//!
//! Invariants (states as numbered in `request.rs`):
//! - `producer` is touched by the holder of the publish gate alone, `consumer` by that of the reap gate alone;
//! - a slot's record and memory pass claimer → (staged set) → publish holder → device → reap holder → (parked set) →
//!   submitter; each arrow is a release/acquire pair or the ring's own ordering;
//! - `published` is stored before the index that it repeats, so that a drainer never takes an honest device for a liar.
use super::core::{Core, Violation};
use super::prepared::Prepared;
use super::statistics::{BySubmitter, CompletionCounters, Statistics, SubmissionCounters};
use super::submitter::Submitter;
use crate::device::Quiesced;
use crate::dma::Buffer;
use crate::gate::Gate;
use crate::geometry::Geometry;
use crate::request::Completion;
use crate::ring::split::{Consumer, Producer, Published};
use crate::slot::{MAX_SUBMITTERS, State, slots_of};
use crate::sync::{AtomicU32, Guarded, Ordering};
use crate::transport::Doorbell;
use crossbeam_utils::CachePadded;

/// Tells a submitter that a completion of its own waits for it.
pub trait Wake: Send + Sync {
    /// Wakes submitter number `submitter`. Called outside of every gate, at most once per drain and submitter. A wake
    /// that comes before the submitter waits is not lost: its next wait returns at once.
    fn wake(&self, submitter: u8);
}

/// What the publish gate guards.
pub(super) struct Publishing {
    pub(super) gate: Gate,
    pub(super) producer: Guarded<Producer>,
    /// The producer's published index, for the drainer's plausibility check.
    pub(super) published: AtomicU32,
    pub(super) counters: SubmissionCounters,
}

/// What the reap gate guards.
pub(super) struct Reaping {
    pub(super) gate: Gate,
    pub(super) consumer: Guarded<Consumer>,
    /// 0, or 1 + the [`Violation`].
    pub(super) broken: AtomicU32,
    pub(super) counters: CompletionCounters,
}

/// A queue that many threads submit to.
pub struct SharedQueue<'m, B, D, W> {
    prepared: Prepared<'m, B>,
    doorbell: D,
    pub(super) wake: W,
    /// Bit `n`: submitter number `n` is in use. A lock, since nobody is added or leaves on the I/O path.
    submitters: spin::Mutex<u32>,
    /// Counted by each submitter for itself.
    pub(super) by_submitter: [BySubmitter; MAX_SUBMITTERS as usize],
    pub(super) publishing: CachePadded<Publishing>,
    pub(super) reaping: CachePadded<Reaping>,
}

const VIOLATIONS: [Violation; 5] =
    [Violation::UnknownId, Violation::NotInFlight, Violation::TooLong, Violation::NoStatus, Violation::IndexJump];

impl<'m, B: Buffer, D: Doorbell, W: Wake> SharedQueue<'m, B, D, W> {
    pub(super) fn new(prepared: Prepared<'m, B>, doorbell: D, wake: W) -> Self {
        let consumer = Consumer::default();
        prepared.core.ring.never_interrupt(consumer);
        Self {
            prepared,
            doorbell,
            wake,
            submitters: spin::Mutex::new(0),
            by_submitter: core::array::from_fn(|_| BySubmitter::default()),
            publishing: CachePadded::new(Publishing {
                gate: Gate::new(),
                producer: Guarded::new(Producer::default()),
                published: AtomicU32::new(0),
                counters: SubmissionCounters::default(),
            }),
            reaping: CachePadded::new(Reaping {
                gate: Gate::new(),
                consumer: Guarded::new(consumer),
                broken: AtomicU32::new(0),
                counters: CompletionCounters::default(),
            }),
        }
    }

    /// A new submitter; `None` when all [`MAX_SUBMITTERS`] are taken. A number is free again once its submitter is
    /// dropped with nothing of its own left in the queue.
    pub fn submitter(&self) -> Option<Submitter<'_, 'm, B, D, W>> {
        let mut taken = self.submitters.lock();
        let number = taken.trailing_ones() as u8;
        if number >= MAX_SUBMITTERS {
            return None;
        }
        *taken |= 1 << number;
        Some(Submitter::new(self, number))
    }

    /// Takes a submitter's number back.
    pub(super) fn leave(&self, number: u8) {
        *self.submitters.lock() &= !(1 << number);
    }

    #[inline(always)]
    pub(super) fn core(&self) -> &Core<'m, B> {
        &self.prepared.core
    }

    /// Publishes the staged slots `bits` of word `w`, directly or through whoever holds the gate.
    #[inline(always)]
    pub(super) fn publish(&self, submitter: u8, w: usize, bits: u64) {
        if self.publishing.gate.enter() {
            return self.publish_as_holder(submitter, (w, bits));
        }
        self.core().staged.put(w, bits);
        if self.publishing.gate.insist() {
            self.publish_as_holder(submitter, (0, 0));
        }
    }

    /// The holder's section, and again while word was left at the gate.
    fn publish_as_holder(&self, submitter: u8, mut own: (usize, u64)) {
        loop {
            // SAFETY: this thread holds the publish gate.
            let range = unsafe { self.publishing.producer.with(|producer| self.offer_all(producer, own)) };
            let again = self.publishing.gate.leave();
            // The fence in `leave` is the one between the index and the device's wish.
            if range.is_some_and(|range| self.core().ring.device_wants(range)) {
                self.by_submitter[usize::from(submitter)].notifications.add(1);
                self.doorbell.ring();
            }
            if !(again && self.publishing.gate.enter()) {
                return;
            }
            own = (0, 0);
        }
    }

    /// Offers the holder's own slots and everything staged, and publishes.
    #[inline(always)]
    fn offer_all(&self, producer: &mut Producer, own: (usize, u64)) -> Option<Published> {
        self.offer_word(producer, own.0, own.1);
        if self.publishing.gate.answer() {
            for w in 0..self.core().staged.len() {
                self.offer_word(producer, w, self.core().staged.take_word(w));
            }
        }
        let count = producer.unpublished();
        if count == 0 {
            return None;
        }
        self.publishing.counters.submitted.add(u64::from(count));
        self.publishing.published.store(u32::from(producer.next()), Ordering::Relaxed);
        Some(self.core().ring.publish(producer))
    }

    #[inline(always)]
    fn offer_word(&self, producer: &mut Producer, w: usize, bits: u64) {
        for slot in slots_of(w, bits) {
            let record = self.core().record(slot);
            let state = record.state();
            record.set_in_flight(state);
            self.core().ring.offer(producer, self.core().chains.head_of(slot, state.has(State::OTHER_HEAD)));
        }
    }

    /// What broke the queue; it stays so until the device is reset.
    pub fn broken(&self) -> Option<Violation> {
        let broken = self.reaping.broken.load(Ordering::Relaxed);
        (broken as usize).checked_sub(1).map(|at| VIOLATIONS[at])
    }

    /// The reap holder's.
    #[cold]
    pub(super) fn break_with(&self, violation: Violation) {
        self.reaping.counters.violations.add(1);
        let at = VIOLATIONS.iter().position(|v| *v == violation).unwrap_or(0);
        self.reaping.broken.store(at as u32 + 1, Ordering::Relaxed);
    }

    /// Everybody, as bits.
    pub(super) fn everybody(&self) -> u64 {
        u64::from(*self.submitters.lock())
    }

    /// The counters.
    pub fn statistics(&self) -> Statistics {
        let mut read = Statistics::read(&self.publishing.counters, &self.reaping.counters);
        for own in &self.by_submitter {
            read.notifications += own.notifications.get();
            read.full += own.full.get();
        }
        read
    }

    /// How many requests can be in flight.
    pub fn slots(&self) -> u16 {
        self.prepared.slots()
    }

    /// The device's facts.
    pub fn geometry(&self) -> &'m Geometry {
        self.core().geometry
    }

    /// After a reset: hands back every request that had not completed, with [`crate::request::Gone::Reset`], and the queue as new.
    /// `None`: the proof is of another device's reset; the memory stays with the device for good.
    pub fn reclaim(self, proof: &Quiesced, sink: impl FnMut(Completion<B>)) -> Option<Prepared<'m, B>> {
        self.prepared.reclaim(proof, sink)
    }
}
