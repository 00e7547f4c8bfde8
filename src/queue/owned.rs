//! A queue with one owner: `&mut` is the lock, so there is no other. No locked instruction and one full fence per
//! published batch.
//!
//! A [`Batch`] stages requests and publishes them with one index store and one doorbell decision; dropping it publishes
//! too, so that no request is forgotten. [`OwnedQueue::reap`] drains what the device has used; [`OwnedQueue::arm`] asks
//! for an interrupt and looks again. The usual loop: reap; if nothing came, `arm`; if that says nothing is there, wait.
//!
//! Dropping a queue leaks the buffers in flight: the device may still write them. [`OwnedQueue::reclaim`] is the way out.
use super::core::{Core, Settled, Shape, Violation};
use super::oversize::Next;
use super::prepared::Prepared;
use super::statistics::Statistics;
use crate::barrier;
use crate::device::Quiesced;
use crate::dma::{Buffer, Segment};
use crate::geometry::Geometry;
use crate::request::{Completion, Refusal, Refused, Request, Ticket};
use crate::ring::chain::Head;
use crate::ring::split::{Consumer, Producer, UsedEntry};
use crate::slot::{Answer, FreeList, State, slots_of};
use crate::transport::Doorbell;
use core::mem::ManuallyDrop;
use crossbeam_utils::CachePadded;

/// A queue, its doorbell, and what its owner knows of both rings. Aligned, so that queues side by side share no line.
pub struct OwnedQueue<'m, B, D> {
    _line: CachePadded<()>,
    prepared: Prepared<'m, B>,
    producer: Producer,
    consumer: Consumer,
    free: FreeList,
    /// Something is parked (answered without the device), or the queue is broken.
    unusual: bool,
    broken: Option<Violation>,
    doorbell: D,
    /// What the ring's shadows do not count.
    counted: Statistics,
}

impl<'m, B: Buffer, D: Doorbell> OwnedQueue<'m, B, D> {
    pub(super) fn new(prepared: Prepared<'m, B>, doorbell: D) -> Self {
        let queue = Self {
            producer: Producer::default(),
            consumer: Consumer::default(),
            free: FreeList::of(prepared.core.records),
            unusual: false,
            broken: None,
            doorbell,
            counted: Statistics::default(),
            _line: CachePadded::new(()),
            prepared,
        };
        queue.core().ring.never_interrupt(queue.consumer);
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
        let comfortable = self.geometry().comfortable();
        Batch { queue: self, comfortable }
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
    fn stage(&mut self, request: Request<B>, comfortable: u64) -> Result<Ticket, Refused<B>> {
        if request.buffer.is_none() {
            return self.stage_bare(request);
        }
        let Some(data) = self.core().plain(&request, comfortable) else { return self.stage_any(request) };
        let Some(slot) = self.free.pop(self.prepared.core.records) else {
            return Err(Refused { why: self.full(), request });
        };
        let (head, ticket) = self.core().stage_plain(slot, request, data, State::IN_FLIGHT, 0);
        self.offer(head);
        Ok(ticket)
    }

    fn claim(&mut self) -> Option<u16> {
        self.free.pop(self.prepared.core.records).map(|(slot, _)| slot as u16)
    }

    /// Gives a slot that was claimed and not used back.
    fn unclaim(&mut self, slot: u16) {
        self.free.push(slot.into(), self.prepared.core.record(slot));
    }

    #[inline(always)]
    fn offer(&mut self, head: Head) {
        self.prepared.core.ring.offer(&mut self.producer, head.id);
    }

    /// Why there is no slot.
    #[cold]
    fn full(&mut self) -> Refusal {
        if self.broken.is_some() {
            return Refusal::Broken;
        }
        self.counted.full += 1;
        Refusal::Full
    }

    /// A request without a buffer. A way of its own, so that on the plain one nothing is kept at hand for it.
    #[cold]
    #[inline(never)]
    fn stage_bare(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        self.stage_any(request)
    }

    /// Whatever is not plain: refusals, other operations, several segments, oversize.
    #[cold]
    fn stage_any(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let shape = match self.core().shape(&request) {
            Ok(shape) => shape,
            Err(why) => return Err(Refused { why, request }),
        };
        let Some(slot) = self.claim() else { return Err(Refused { why: self.full(), request }) };
        let staged = match shape {
            Shape::Oversize => Err(request),
            Shape::Chain => match self.core().stage(slot, request, State::IN_FLIGHT, 0) {
                Err(request) if !self.core().can_cut(&request) => {
                    self.unclaim(slot);
                    return Err(Refused { why: self.full(), request });
                }
                staged => staged,
            },
            Shape::Done => return Ok(self.park_done(slot, &request)),
        };
        match staged {
            Ok(head) => {
                self.offer(head);
                Ok(self.core().ticket(slot))
            }
            Err(request) => self.stage_oversize(slot, request),
        }
    }

    /// A request that is over before it began: it waits in its slot for the next reap.
    fn park_done(&mut self, slot: u16, request: &Request<B>) -> Ticket {
        let core = self.core();
        core.park(slot, request.token, None, Answer::OK, 0);
        core.parked.put(usize::from(slot) / 64, 1 << (slot % 64));
        self.unusual = true;
        self.core().ticket(slot)
    }

    fn stage_oversize(&mut self, slot: u16, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let parent = match self.core().open_parent(request) {
            Ok(parent) => parent,
            Err(request) => {
                self.unclaim(slot);
                return Err(Refused { why: self.full(), request });
            }
        };
        let mut next = Some(slot);
        while let Some(slot) = next {
            // SAFETY: none of the parent's chains is published before this `&mut` borrow ends.
            let Some(head) = (unsafe { self.core().stage_child(parent, slot, State::IN_FLIGHT, 0) }) else {
                self.unclaim(slot);
                break;
            };
            self.offer(head);
            next = self.claim();
        }
        Ok(self.core().ticket(slot))
    }

    /// Publishes what was staged and rings the doorbell if the device asked for it.
    #[inline(always)]
    fn publish(&mut self) {
        if self.producer.next() == self.producer.published() {
            return;
        }
        let range = self.prepared.core.ring.publish(&mut self.producer);
        barrier::index_before_device_event();
        if self.core().ring.device_wants(range) {
            self.counted.notifications += 1;
            self.doorbell.ring();
        }
    }

    /// Hands up to `max` completions to `sink`, oldest answer first, and returns how many.
    ///
    /// A `sink` that panics has got the completion that it was called with. The queue counts that one as handed out and
    /// can be used on: the next call begins with the answer behind it.
    #[inline]
    pub fn reap(&mut self, max: usize, mut sink: impl FnMut(Completion<B>)) -> usize {
        if self.unusual {
            return self.reap_unusual(max, &mut sink);
        }
        let core = &self.prepared.core;
        let ready = core.ring.look(&mut self.consumer);
        if ready > self.consumer.outstanding(&self.producer) {
            return self.break_with(Violation::IndexJump);
        }
        let count = usize::from(ready).min(max);
        let mut drain = Taken { list: self.free, count: 0, consumer: &mut self.consumer, free: &mut self.free };
        while drain.count < count {
            let entry = core.ring.ahead(*drain.consumer, drain.count);
            drain.count += 1;
            let Some((record, released)) = core.settle_plain(entry, State::released_if_plain_alone) else {
                let handed = drain.count - 1;
                drop(drain);
                return self.reap_rest(max, handed, entry, &mut sink);
            };
            // SAFETY: the device gave the slot's chain back, as `settle_plain` checked; its state says that both exist.
            let (token, buffer) = unsafe { record.take_whole() };
            record.set_state(released);
            drain.list.push(entry.id, record);
            sink(Completion { token, result: Ok(()), buffer: Some(buffer) });
        }
        count
    }

    /// As [`OwnedQueue::reap`], for buffers that nobody wants back: writes the tokens of requests that ended well and in
    /// the common way to `tokens`, and stops at the first other. How many there were; there may be more.
    #[inline(always)]
    pub(crate) fn reap_common(&mut self, tokens: &mut [u64]) -> usize {
        const { assert!(!core::mem::needs_drop::<B>(), "a buffer that nobody wants back has nothing to be dropped") };
        let core = &self.prepared.core;
        let ready = core.ring.look(&mut self.consumer);
        if self.unusual || ready > self.consumer.outstanding(&self.producer) {
            return 0;
        }
        let count = usize::from(ready).min(tokens.len());
        let mut free = self.free;
        let mut taken = 0;
        for place in &mut tokens[..count] {
            let entry = core.ring.ahead(self.consumer, taken);
            let Some((record, released)) = core.settle_plain(entry, State::released_if_plain_alone) else { break };
            // SAFETY: the device gave the slot's chain back, as `settle_plain` checked; its state says that both exist.
            let (name, _) = unsafe { record.take_whole() };
            record.set_state(released);
            free.push(entry.id, record);
            *place = name;
            taken += 1;
        }
        self.consumer.advance(taken);
        self.free = free;
        taken
    }

    /// Goes on from an entry that is not plain, one answer at a time.
    #[cold]
    fn reap_rest(
        &mut self,
        max: usize,
        mut handed: usize,
        mut entry: UsedEntry,
        sink: &mut impl FnMut(Completion<B>),
    ) -> usize {
        loop {
            handed += self.reap_special(entry, sink);
            // A violation leaves nothing that is believed.
            if handed == max || self.consumer.known() == 0 {
                return handed;
            }
            entry = self.prepared.core.ring.take(&mut self.consumer);
        }
    }

    /// As [`OwnedQueue::reap`], for a queue that is broken or has something parked: that comes first, alone.
    #[cold]
    fn reap_unusual(&mut self, max: usize, sink: &mut impl FnMut(Completion<B>)) -> usize {
        let handed = self.reap_parked(max, sink);
        self.unusual = self.broken.is_some() || handed == max;
        handed
    }

    /// One answer that is not the common one; returns how many completions it handed out, 0 or 1. What goes out again is
    /// published at once: rare, and nothing to be forgotten.
    #[cold]
    fn reap_special(&mut self, entry: UsedEntry, sink: &mut impl FnMut(Completion<B>)) -> usize {
        match self.core().settle(entry) {
            Ok(Settled { slot, state, answer, odd_length }) => {
                self.counted.length_anomalies += u64::from(odd_length);
                let handed = self.finish(slot, state, answer, sink);
                self.publish();
                handed
            }
            Err(violation) => {
                // What is not believed was not taken.
                self.consumer.retreat();
                self.break_with(violation)
            }
        }
    }

    /// Completes one settled slot; returns how many completions that handed out, 0 or 1.
    fn finish(&mut self, slot: u16, state: State, answer: Answer, sink: &mut impl FnMut(Completion<B>)) -> usize {
        // SAFETY: settled by this queue's only owner.
        let next = unsafe { self.core().follow(slot, state, answer, State::IN_FLIGHT) };
        if let Next::Staged(head) = next {
            self.offer(head);
            return 0;
        }
        self.core().record(slot).set_state(state.released());
        self.unclaim(slot);
        let Next::Finished(token, buffer, answer) = next else { return 0 };
        sink(Completion { token, result: answer.result(), buffer });
        1
    }

    /// Hands out what was answered without the device.
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
                let completion = unsafe { core.collect(slot) };
                // Before the sink is called, which may panic.
                if self.broken.is_none() {
                    self.free.push(slot.into(), core.record(slot));
                }
                if let Some(completion) = completion {
                    handed += 1;
                    sink(completion);
                }
            }
        }
        handed
    }

    /// Asks for an interrupt once `want` more requests (at least 1, at most those in flight) are done, and looks again.
    /// True: something can be reaped now, and no interrupt may come for it; or the queue is broken
    /// ([`OwnedQueue::broken`]), and none will.
    pub fn arm(&mut self, want: u16) -> bool {
        let outstanding = self.consumer.outstanding(&self.producer);
        if self.unusual || self.consumer.known() > 0 {
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
        self.counted.interrupts += 1;
    }

    /// Nothing more is believed; free slots are forgotten, so that every claim fails. Returns 0: the completions that
    /// this hands out.
    #[cold]
    fn break_with(&mut self, violation: Violation) -> usize {
        self.counted.violations += 1;
        self.broken = Some(violation);
        self.unusual = true;
        self.consumer.forget();
        self.free = FreeList::EMPTY;
        0
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
        Statistics { submitted: self.producer.published(), completed: self.consumer.taken(), ..self.counted }
    }

    /// After a reset: hands back every request that had not completed, with [`crate::request::Gone::Reset`], and the
    /// queue as new. `None`: the proof is of another device's reset; the memory stays with the device for good.
    ///
    /// If `sink` panics, the buffers of the requests that it has not seen are dropped, since the device has let go of
    /// them; the queue itself is lost with its memory.
    pub fn reclaim(self, proof: &Quiesced, sink: impl FnMut(Completion<B>)) -> Option<Prepared<'m, B>> {
        self.prepared.reclaim(proof, sink)
    }
}

/// The used entries that one call of [`OwnedQueue::reap`] took, and the free slots, those of the entries included: copies,
/// so that they stay in registers while records are written. The drop stores both, also when the sink panics.
struct Taken<'q> {
    list: FreeList,
    count: usize,
    consumer: &'q mut Consumer,
    free: &'q mut FreeList,
}

impl Drop for Taken<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.consumer.advance(self.count);
        *self.free = self.list;
    }
}

/// Requests on their way to the device together.
#[must_use = "dropping a batch publishes it; say so with `publish`"]
pub struct Batch<'q, 'm, B: Buffer, D: Doorbell> {
    queue: &'q mut OwnedQueue<'m, B, D>,
    /// [`Geometry::comfortable`] when the batch began.
    comfortable: u64,
}

impl<B: Buffer, D: Doorbell> Batch<'_, '_, B, D> {
    /// Stages a request.
    ///
    /// # Errors
    /// Hands the request back with the reason: [`Refusal::Full`] is back-pressure, everything else the caller's error.
    #[inline(always)]
    pub fn push(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        self.queue.stage(request, self.comfortable)
    }

    /// Stages a read or write of one segment (all of `buffer`) that the caller has held against the device's facts: whole
    /// blocks, at most [`Geometry::COMFORT`] sectors and `size_max` bytes, allowed, and begins in front of
    /// [`Batch::comfortable`]. False: there is no slot, and nothing was done.
    #[inline(always)]
    pub(crate) fn push_plain(&mut self, request: Request<B>, data: Segment) -> bool {
        let queue = &mut *self.queue;
        let Some(slot) = queue.free.pop(queue.prepared.core.records) else { return false };
        let (head, _) = queue.core().stage_plain(slot, request, data, State::IN_FLIGHT, 0);
        queue.offer(head);
        true
    }

    /// From any sector in front of this one a request of [`Geometry::COMFORT`] sectors lies on the medium.
    #[inline(always)]
    pub(crate) fn comfortable(&self) -> u64 {
        self.comfortable
    }

    /// Makes everything staged available to the device: one index store, one doorbell decision.
    #[inline(always)]
    pub fn publish(self) {
        // As the drop does, but in place: where a batch can end in two ways the drop is a call.
        ManuallyDrop::new(self).queue.publish();
    }
}

impl<B: Buffer, D: Doorbell> Drop for Batch<'_, '_, B, D> {
    #[inline(always)]
    fn drop(&mut self) {
        self.queue.publish();
    }
}
