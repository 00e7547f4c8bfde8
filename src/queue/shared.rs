//! A queue with many submitters, none of which ever waits for another.
//!
//! Each [`Submitter`] fills slots of its own stash alone. Whoever finds the publish gate free publishes its batch
//! directly; whoever does not leaves its slots in the staged set and word at the gate, and the holder takes them along.
//! Draining is one thread's turn at a time: completions of the drainer's own requests are handed over directly, those of
//! others are parked in their slots and their submitters woken. Who cannot drain goes on, and looks again before it
//! sleeps.
//! A holder that is preempted delays what was left with it, and before its doorbell also what was published since; it
//! loses nothing and nobody spins.
//!
//! The doorbell decision of a published range uses the range as the holder knows it and the full fence of
//! [`Gate::leave`]: one fence orders the index before the device's event index *and* the gate before the word left at
//! it. The decision falls after the gate is free, about that holder's own range and no other.
//!
//! Invariants (states as numbered in `request.rs`):
//! - `producer` is touched by the holder of the publish gate alone, `consumer` by whose turn it is to drain alone;
//! - a slot's record and memory pass claimer → (staged set) → publish holder → device → reap holder → (parked set) →
//!   submitter; each arrow is a release/acquire pair or the ring's own ordering;
//! - `published` is stored before the index that it repeats, so that a drainer never takes an honest device for a liar.
use super::core::{Core, Violation};
use super::prepared::Prepared;
use super::statistics::{BySubmitter, ColdCounters, Statistics};
use super::submitter::Submitter;
use crate::device::Quiesced;
use crate::dma::Buffer;
use crate::gate::{Gate, Turn};
use crate::geometry::Geometry;
use crate::request::Completion;
use crate::ring::split::{Consumer, Producer, Published};
use crate::slot::{MAX_SUBMITTERS, State, slots_of};
use crate::sync::{AtomicU32, AtomicU64, Guarded, Ordering, Tally};
use crate::transport::Doorbell;
use crossbeam_utils::CachePadded;

/// Tells a submitter that a completion of its own waits for it.
pub trait Wake: Send + Sync {
    /// Wakes submitter number `submitter`. Called outside of every gate, at most once per drain and submitter. A wake
    /// that comes before the submitter waits is not lost: its next wait returns at once.
    ///
    /// If it panics, the others are woken before the panic reaches the caller of [`Submitter::reap`]. As in every drop,
    /// a second panic meanwhile ends the program.
    fn wake(&self, submitter: u8);
}

/// What the publish gate guards.
pub(super) struct Publishing {
    pub(super) gate: Gate,
    pub(super) producer: Guarded<Producer>,
    /// What the producer published, for the drainer's plausibility check and the statistics.
    pub(super) published: AtomicU64,
}

/// What the turn to drain guards.
pub(super) struct Reaping {
    pub(super) turn: Turn,
    pub(super) consumer: Guarded<Consumer>,
    pub(super) completed: Tally,
}

/// The ring's two ends, on one line where lines have 64 bytes or more: a submitter goes through both for each batch, so
/// that one line travels to it instead of two.
pub(super) struct Ends {
    pub(super) publishing: Publishing,
    pub(super) reaping: Reaping,
}
#[cfg(not(test))]
const _: () = assert!(size_of::<Ends>() <= 64);

/// A queue that many threads submit to.
pub struct SharedQueue<'m, B, D, W> {
    prepared: Prepared<'m, B>,
    doorbell: D,
    pub(super) wake: W,
    /// 0, or 1 + the [`Violation`]: the drainer's. Read by all, all the time, and written once.
    pub(super) broken: AtomicU32,
    /// What is rarely counted.
    pub(super) cold: ColdCounters,
    /// Who submits. A lock, since nobody is added or leaves on the I/O path.
    members: CachePadded<spin::Mutex<Members>>,
    /// Counted by each submitter for itself, on a line of its own.
    pub(super) by_submitter: [CachePadded<BySubmitter>; MAX_SUBMITTERS as usize],
    pub(super) ends: CachePadded<Ends>,
}

/// What others may have left in the staged set while a holder published. It exists while that one rings the doorbell; the
/// drop, which happens only when that panics, publishes what was left: those who left it rely on it.
struct Unpublished<'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    queue: &'q SharedQueue<'m, B, D, W>,
    submitter: u8,
    left: bool,
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for Unpublished<'_, '_, B, D, W> {
    #[cold]
    fn drop(&mut self) {
        if self.left && self.queue.ends.publishing.gate.enter() {
            self.queue.publish_as_holder(self.submitter, &[]);
        }
    }
}

/// The submitters of a queue.
struct Members {
    /// Bit `n`: number `n` is in use.
    numbers: u32,
    /// How many slots may still be promised to stashes.
    room: u32,
}

/// Most free slots that a submitter keeps in its stash.
pub(super) const STASH: u32 = 32;

const VIOLATIONS: [Violation; 4] =
    [Violation::UnknownId, Violation::NotInFlight, Violation::NoStatus, Violation::IndexJump];

impl<'m, B: Buffer, D: Doorbell, W: Wake> SharedQueue<'m, B, D, W> {
    pub(super) fn new(prepared: Prepared<'m, B>, doorbell: D, wake: W) -> Self {
        let consumer = Consumer::default();
        prepared.core.ring.never_interrupt(consumer);
        let slots = u32::from(prepared.slots());
        Self {
            doorbell,
            wake,
            broken: AtomicU32::new(0),
            cold: ColdCounters::default(),
            members: CachePadded::new(spin::Mutex::new(Members { numbers: 0, room: slots - slots.div_ceil(8) })),
            by_submitter: core::array::from_fn(|_| CachePadded::default()),
            ends: CachePadded::new(Ends {
                publishing: Publishing {
                    gate: Gate::new(),
                    producer: Guarded::new(Producer::default()),
                    published: AtomicU64::new(0),
                },
                reaping: Reaping { turn: Turn::new(), consumer: Guarded::new(consumer), completed: Tally::default() },
            }),
            prepared,
        }
    }

    /// A new submitter; `None` when all [`MAX_SUBMITTERS`] are taken. A number is free again once its submitter is
    /// dropped with nothing of its own left in the queue.
    ///
    /// A submitter keeps free slots that it used in a stash: at most 32, and an eighth of all slots, one at least, is in
    /// nobody's stash, so that submitters which are idle leave something for the others, whatever they do. Those that
    /// come when everything is promised have no stash and claim each batch.
    pub fn submitter(&self) -> Option<Submitter<'_, 'm, B, D, W>> {
        let mut members = self.members.lock();
        let number = members.numbers.trailing_ones() as u8;
        if number >= MAX_SUBMITTERS {
            return None;
        }
        members.numbers |= 1 << number;
        let room = members.room.min(STASH);
        members.room -= room;
        Some(Submitter::new(self, number, room))
    }

    /// Takes a submitter's number and the room for its stash back.
    pub(super) fn leave(&self, number: u8, room: u32) {
        let mut members = self.members.lock();
        members.numbers &= !(1 << number);
        members.room += room;
    }

    #[inline(always)]
    pub(super) fn core(&self) -> &Core<'m, B> {
        &self.prepared.core
    }

    /// Publishes staged slots, directly or through whoever holds the gate.
    #[inline(always)]
    pub(super) fn publish(&self, submitter: u8, slots: &[u16]) {
        if self.ends.publishing.gate.enter() {
            return self.publish_as_holder(submitter, slots);
        }
        self.leave_staged(slots);
        if self.ends.publishing.gate.insist() {
            self.publish_as_holder(submitter, &[]);
        }
    }

    /// Puts slots into the staged set: one locked instruction for neighbours of one word.
    fn leave_staged(&self, slots: &[u16]) {
        let word = |slot: &u16| usize::from(*slot) / 64;
        for slots in slots.chunk_by(|a, b| word(a) == word(b)) {
            let bits = slots.iter().fold(0, |bits, slot| bits | 1 << (slot % 64));
            self.core().staged.put(word(&slots[0]), bits);
        }
    }

    /// The holder's section, and again while word was left at the gate.
    #[inline(always)]
    fn publish_as_holder(&self, submitter: u8, mut own: &[u16]) {
        loop {
            // SAFETY: this thread holds the publish gate.
            let range = unsafe { self.ends.publishing.producer.with(|producer| self.offer_all(producer, own)) };
            let again = self.ends.publishing.gate.leave();
            // The fence in `leave` is the one between the index and the device's wish.
            if range.is_some_and(|range| self.core().ring.device_wants(range)) {
                self.by_submitter[usize::from(submitter)].notifications.add(1);
                let unpublished = Unpublished { queue: self, submitter, left: again };
                self.doorbell.ring();
                core::mem::forget(unpublished);
            }
            if !(again && self.ends.publishing.gate.enter()) {
                return;
            }
            own = &[];
        }
    }

    /// Offers the holder's own slots and everything staged, and publishes.
    #[inline(always)]
    fn offer_all(&self, producer: &mut Producer, own: &[u16]) -> Option<Published> {
        for slot in own {
            self.offer(producer, *slot);
        }
        if self.ends.publishing.gate.answer() {
            self.offer_staged(producer);
        }
        if producer.next() == producer.published() {
            return None;
        }
        self.ends.publishing.published.store(producer.next(), Ordering::Relaxed);
        Some(self.core().ring.publish(producer))
    }

    /// Offers what others left in the staged set.
    #[cold]
    fn offer_staged(&self, producer: &mut Producer) {
        for w in 0..self.core().staged.len() {
            for slot in slots_of(w, self.core().staged.take_word(w)) {
                self.offer(producer, slot);
            }
        }
    }

    #[inline(always)]
    fn offer(&self, producer: &mut Producer, slot: u16) {
        let record = self.core().record(slot);
        let state = record.state();
        record.set_in_flight(state);
        self.core().ring.offer(producer, self.core().chains.head_of(slot, state.has(State::OTHER_HEAD)));
    }

    /// Whether the device answered something that nobody drained, as far as one can see without taking the turn: who
    /// polls in vain takes no line away from those who work. An old view of the counter only leads to a look that finds
    /// nothing; an old view of the index, to a later one. Who means to sleep takes the turn (`Submitter::arm`).
    #[inline(always)]
    pub(super) fn may_have_answers(&self) -> bool {
        self.core().ring.peek_used() != self.ends.reaping.completed.get() as u16
    }

    /// What broke the queue; it stays so until the device is reset.
    pub fn broken(&self) -> Option<Violation> {
        let broken = self.broken.load(Ordering::Relaxed);
        (broken as usize).checked_sub(1).map(|at| VIOLATIONS[at])
    }

    /// The drainer's.
    #[cold]
    pub(super) fn break_with(&self, violation: Violation) {
        self.cold.violations.add(1);
        let at = VIOLATIONS.iter().position(|v| *v == violation).unwrap_or(0);
        self.broken.store(at as u32 + 1, Ordering::Relaxed);
    }

    /// Everybody, as bits.
    pub(super) fn everybody(&self) -> u64 {
        u64::from(self.members.lock().numbers)
    }

    /// The counters.
    pub fn statistics(&self) -> Statistics {
        let mut read = Statistics {
            submitted: self.ends.publishing.published.load(Ordering::Relaxed),
            completed: self.ends.reaping.completed.get(),
            interrupts: self.cold.interrupts.get(),
            violations: self.cold.violations.get(),
            length_anomalies: self.cold.length_anomalies.get(),
            ..Statistics::default()
        };
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

    /// As [`crate::queue::OwnedQueue::reclaim`].
    pub fn reclaim(self, proof: &Quiesced, sink: impl FnMut(Completion<B>)) -> Option<Prepared<'m, B>> {
        self.prepared.reclaim(proof, sink)
    }
}
