//! A queue with one owner: `&mut` is the lock, so there is no other. No locked instruction and one full fence per
//! published batch.
//!
//! A [`Batch`] stages requests and publishes them with one index store and one doorbell decision; dropping it publishes
//! too, so that no request is forgotten. [`OwnedQueue::reap`] drains what the device has used; [`OwnedQueue::arm`] asks
//! for an interrupt and looks again. The usual loop: reap; if nothing came, `arm`; if that says nothing is there, wait.
use super::core::{Core, Shape, Violation};
use super::oversize::Next;
use super::prepared::Prepared;
use super::statistics::{CompletionCounters, Statistics, SubmissionCounters};
use crate::barrier;
use crate::device::Quiesced;
use crate::dma::Buffer;
use crate::geometry::Geometry;
use crate::request::{Completion, Refusal, Refused, Request, Ticket};
use crate::ring::chain::Head;
use crate::ring::split::{Consumer, Producer};
use crate::slot::{Answer, State, slots_of};
use crate::transport::Doorbell;

/// A queue, its doorbell, and what its owner knows of both rings.
pub struct OwnedQueue<'m, B, D> {
    prepared: Prepared<'m, B>,
    producer: Producer,
    consumer: Consumer,
    /// The bitmap word to claim from next.
    near: usize,
    /// Something is parked: answered without the device.
    parked: bool,
    broken: Option<Violation>,
    doorbell: D,
    submission: SubmissionCounters,
    completion: CompletionCounters,
}

impl<'m, B: Buffer, D: Doorbell> OwnedQueue<'m, B, D> {
    pub(super) fn new(prepared: Prepared<'m, B>, doorbell: D) -> Self {
        let queue = Self {
            prepared,
            producer: Producer::default(),
            consumer: Consumer::default(),
            near: 0,
            parked: false,
            broken: None,
            doorbell,
            submission: SubmissionCounters::default(),
            completion: CompletionCounters::default(),
        };
        queue.core().ring.never_interrupt(&queue.consumer);
        queue
    }

    #[inline(always)]
    fn core(&self) -> &Core<'m, B> {
        &self.prepared.core
    }

    /// Begins a batch. What is pushed becomes visible to the device with [`Batch::publish`] or when the batch is
    /// dropped.
    #[inline(always)]
    pub fn batch(&mut self) -> Batch<'_, 'm, B, D> {
        Batch { queue: self }
    }

    /// Submits one request.
    ///
    /// # Errors
    /// As [`Batch::push`].
    #[inline]
    pub fn submit(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let mut batch = self.batch();
        let ticket = batch.push(request)?;
        batch.publish();
        Ok(ticket)
    }

    #[inline(always)]
    fn stage(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let Some(data) = self.core().plain(&request) else { return self.stage_any(request) };
        let Some(slot) = self.claim() else { return self.full(request) };
        let head = self.core().stage_plain(slot, request, data, State::IN_FLIGHT, 0);
        Ok(self.offer(slot, head))
    }

    /// A free slot, unless the queue is broken.
    #[inline(always)]
    fn claim(&mut self) -> Option<u16> {
        // A broken queue has given its free slots away (`break_with`), so that this needs no second test.
        self.prepared.core.free.take_alone(&mut self.near)
    }

    #[inline(always)]
    fn offer(&mut self, slot: u16, head: Head) -> Ticket {
        self.prepared.core.ring.offer(&mut self.producer, head.id);
        self.core().ticket(slot)
    }

    #[cold]
    fn full(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let why = if self.broken.is_some() { Refusal::Broken } else { Refusal::Full };
        self.submission.full.add(u64::from(self.broken.is_none()));
        Err(Refused { why, request })
    }

    /// Whatever is not plain: refusals, other operations, several segments, oversize.
    #[cold]
    fn stage_any(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let shape = match self.core().shape(&request) {
            Ok(shape) => shape,
            Err(why) => return Err(Refused { why, request }),
        };
        let Some(slot) = self.claim() else { return self.full(request) };
        let staged = match shape {
            Shape::Oversize => Err(request),
            Shape::Chain => self.core().stage(slot, request, State::IN_FLIGHT, 0),
            Shape::Done => return Ok(self.park_done(slot, &request)),
        };
        match staged {
            Ok(head) => Ok(self.offer(slot, head)),
            Err(request) => self.stage_oversize(slot, request),
        }
    }

    /// A request that is over before it began: it waits in its slot for the next reap.
    fn park_done(&mut self, slot: u16, request: &Request<B>) -> Ticket {
        let core = self.core();
        core.park(slot, request.token, None, Answer::OK, 0);
        core.parked.put_alone(usize::from(slot) / 64, 1 << (slot % 64));
        self.parked = true;
        self.core().ticket(slot)
    }

    fn stage_oversize(&mut self, slot: u16, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let parent = match self.core().open_parent(request) {
            Ok(parent) => parent,
            Err(request) => {
                self.core().free.put_alone(usize::from(slot) / 64, 1 << (slot % 64));
                return self.full(request);
            }
        };
        let mut next = Some(slot);
        while let Some(slot) = next {
            // SAFETY: none of the parent's chains is published before this `&mut` borrow ends.
            let Some(head) = (unsafe { self.core().stage_child(parent, slot, State::IN_FLIGHT, 0) }) else {
                self.core().free.put_alone(usize::from(slot) / 64, 1 << (slot % 64));
                break;
            };
            self.offer(slot, head);
            next = self.claim();
        }
        Ok(self.core().ticket(slot))
    }

    /// Publishes what was staged and rings the doorbell if the device asked for it.
    #[inline(always)]
    fn publish(&mut self) {
        let count = self.producer.unpublished();
        if count == 0 {
            return;
        }
        self.submission.submitted.add(u64::from(count));
        let range = self.prepared.core.ring.publish(&mut self.producer);
        barrier::index_before_device_event();
        if self.core().ring.device_wants(range) {
            self.submission.notifications.add(1);
            self.doorbell.ring();
        }
    }

    /// Hands up to `max` completions to `sink`, oldest answer first, and returns how many.
    #[inline]
    pub fn reap(&mut self, max: usize, mut sink: impl FnMut(Completion<B>)) -> usize {
        let mut handed = if self.parked { self.reap_parked(max, &mut sink) } else { 0 };
        let ready = self.ready();
        let mut freed = Freed { word: self.near, bits: 0 };
        for _ in 0..ready.min(max - handed) {
            let entry = self.prepared.core.ring.take(&mut self.consumer);
            let (slot, state, answer) = match self.core().settle(entry) {
                Ok(settled) => settled,
                Err(violation) => {
                    self.break_with(violation);
                    break;
                }
            };
            handed += self.finish(slot, state, answer, &mut freed, &mut sink);
        }
        freed.put(self.core());
        self.publish();
        handed
    }

    /// Used entries that may be taken now: none when the queue is broken, or breaks here.
    #[inline(always)]
    fn ready(&mut self) -> usize {
        if self.consumer.known() == 0 {
            let outstanding = self.consumer.outstanding(&self.producer);
            let ready = self.prepared.core.ring.look(&mut self.consumer);
            if ready > outstanding {
                self.break_with(Violation::IndexJump);
                return 0;
            }
        }
        if self.broken.is_some() { 0 } else { usize::from(self.consumer.known()) }
    }

    /// Completes one settled slot; returns how many completions that handed out, 0 or 1.
    #[inline(always)]
    fn finish(
        &mut self,
        slot: u16,
        state: State,
        answer: Answer,
        freed: &mut Freed,
        sink: &mut impl FnMut(Completion<B>),
    ) -> usize {
        self.completion.completed.add(1);
        let (token, buffer, answer) = if state.has(State::SPECIAL) {
            match self.follow(slot, state, answer) {
                Next::Finished(token, buffer, answer) => (token, buffer, answer),
                Next::Staged(head) => {
                    self.offer(slot, head);
                    return 0;
                }
                Next::Released => {
                    freed.add(self.core(), slot, state);
                    return 0;
                }
            }
        } else {
            // SAFETY: the device gave the slot's chain back, as `settle` checked, and `state` is what it says.
            let (token, buffer) = unsafe { self.core().empty(slot, state) };
            (token, buffer, answer)
        };
        freed.add(self.core(), slot, state);
        sink(Completion { token, result: answer.result(), buffer });
        1
    }

    #[cold]
    fn follow(&mut self, slot: u16, state: State, answer: Answer) -> Next<B> {
        // SAFETY: settled by this queue's only owner.
        unsafe { self.core().follow(slot, state, answer, State::IN_FLIGHT) }
    }

    #[cold]
    fn reap_parked(&mut self, max: usize, sink: &mut impl FnMut(Completion<B>)) -> usize {
        let core = &self.prepared.core;
        let mut handed = 0;
        for w in 0..core.parked.len() {
            for slot in slots_of(w, core.parked.peek(w)) {
                if handed == max {
                    return handed;
                }
                core.parked.take_of(w, 1 << (slot % 64));
                // SAFETY: a parked slot is its submitter's, and this is the only one.
                if let Some(completion) = unsafe { core.collect(slot) } {
                    sink(completion);
                    handed += 1;
                }
                core.free.put_alone(w, 1 << (slot % 64));
            }
        }
        self.parked = false;
        handed
    }

    /// Asks for an interrupt once `want` more requests (at least 1, at most those in flight) are done, and looks again.
    /// True: something can be reaped now, and no interrupt may come for it.
    pub fn arm(&mut self, want: u16) -> bool {
        let outstanding = self.consumer.outstanding(&self.producer);
        if self.parked || self.consumer.known() > 0 || self.broken.is_some() {
            return true;
        }
        let ready = self.prepared.core.ring.arm(&mut self.consumer, want.clamp(1, outstanding.max(1)));
        ready || self.consumer.known() > outstanding
    }

    /// Asks for no more interrupts (EVENT_IDX: one that was asked for may still come).
    pub fn disarm(&mut self) {
        self.core().ring.disarm();
    }

    /// Notes an interrupt for the statistics.
    pub fn note_interrupt(&mut self) {
        self.completion.interrupts.add(1);
    }

    /// Nothing more is believed; free slots are given away, so that every claim fails.
    #[cold]
    fn break_with(&mut self, violation: Violation) {
        self.completion.violations.add(1);
        self.broken = Some(violation);
        for w in 0..self.core().free.len() {
            self.core().free.reset(w, 0);
        }
    }

    /// What broke the queue; it stays so until the device is reset.
    pub fn broken(&self) -> Option<Violation> {
        self.broken
    }

    /// Requests (chains) that the device has.
    pub fn in_flight(&self) -> u16 {
        self.consumer.outstanding(&self.producer)
    }

    /// How many requests can be in flight.
    pub fn slots(&self) -> u16 {
        self.prepared.slots()
    }

    /// The device's facts.
    pub fn geometry(&self) -> &'m Geometry {
        self.core().geometry
    }

    /// The counters.
    pub fn statistics(&self) -> Statistics {
        Statistics::read(&self.submission, &self.completion)
    }

    /// After a reset: hands back every request that had not completed, with [`crate::request::Gone::Reset`], and the
    /// queue as new. `None`: the proof is of another device's reset; the memory stays with the device for good.
    pub fn reclaim(self, proof: &Quiesced, sink: impl FnMut(Completion<B>)) -> Option<Prepared<'m, B>> {
        self.prepared.reclaim(proof, sink)
    }
}

/// Slots of one bitmap word on their way back to the free set: put back a word at a time.
struct Freed {
    word: usize,
    bits: u64,
}

impl Freed {
    #[inline(always)]
    fn add<B>(&mut self, core: &Core<'_, B>, slot: u16, state: State) {
        core.record(slot).set_state(state.released());
        let word = usize::from(slot) / 64;
        if word != self.word {
            self.put(core);
            *self = Self { word, bits: 0 };
        }
        self.bits |= 1 << (slot % 64);
    }

    #[inline(always)]
    fn put<B>(&self, core: &Core<'_, B>) {
        core.free.put_alone(self.word, self.bits);
    }
}

/// Requests on their way to the device together.
#[must_use = "dropping a batch publishes it; say so with `publish`"]
pub struct Batch<'q, 'm, B: Buffer, D: Doorbell> {
    queue: &'q mut OwnedQueue<'m, B, D>,
}

impl<B: Buffer, D: Doorbell> Batch<'_, '_, B, D> {
    /// Stages a request.
    ///
    /// # Errors
    /// Hands the request back with the reason: [`Refusal::Full`] is back-pressure, everything else the caller's error.
    #[inline(always)]
    pub fn push(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        self.queue.stage(request)
    }

    /// Makes everything staged available to the device: one index store, one doorbell decision.
    #[inline(always)]
    pub fn publish(self) {}
}

impl<B: Buffer, D: Doorbell> Drop for Batch<'_, '_, B, D> {
    #[inline(always)]
    fn drop(&mut self) {
        self.queue.publish();
    }
}
