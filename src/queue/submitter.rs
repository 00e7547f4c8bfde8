//! One thread's way into a shared queue: claim, stage, and the drainer's section.
//!
//! A submitter is one thread's (`&mut`); what it shares with others goes through the gate, the turn and the sets of
//! [`SharedQueue`]. `mine` says which slots it claimed and has not given back, so that it finds its parked completions
//! with one locked instruction per word and never looks at another submitter's slot. Free ones among them are in its
//! stash: in the steady state it claims and releases without a locked instruction.
//!
//! A request of its own that it drains is handed over directly; another submitter's is parked and that one woken after
//! the turn is over.
use super::core::{Settled, Violation};
use super::oversize::Next;
use super::shared::{SharedQueue, Wake};
use super::shared_batch::SharedBatch;
use crate::dma::Buffer;
use crate::request::{Completion, Error, Gone, Refused, Request, Ticket};
use crate::ring::split::{Consumer, UsedEntry};
use crate::slot::{Answer, FreeList, MAX_WORDS, Record, State};
use crate::sync::Ordering;
use crate::transport::Doorbell;
use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;

/// Most requests of one publication.
pub(super) const MOST_STAGED: usize = 64;

/// One thread's way into a [`SharedQueue`]. Aligned, so that submitters side by side share no line.
pub struct Submitter<'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    _line: CachePadded<()>,
    pub(super) queue: &'q SharedQueue<'m, B, D, W>,
    pub(super) number: u8,
    /// The bitmap word to claim from next. Submitters begin at different ones: neighbours share lines.
    near: usize,
    /// Free slots at hand, `stashed` of them; more than `room` only while a batch fills them.
    stash: FreeList,
    stashed: u32,
    room: u32,
    /// Filled by the present batch and not yet published.
    pub(super) staged: ArrayVec<u16, MOST_STAGED>,
    /// How many slots `mine` has.
    claimed: u32,
    /// The slots that this submitter claimed and has not given back.
    mine: [u64; MAX_WORDS],
}

impl<'q, 'm, B: Buffer, D: Doorbell, W: Wake> Submitter<'q, 'm, B, D, W> {
    pub(super) fn new(queue: &'q SharedQueue<'m, B, D, W>, number: u8, room: u32) -> Self {
        let near = usize::from(number) % queue.core().free.len();
        let (stash, staged) = (FreeList::EMPTY, ArrayVec::new());
        let aligned = CachePadded::new(());
        Self { _line: aligned, queue, number, near, stash, stashed: 0, room, staged, claimed: 0, mine: [0; MAX_WORDS] }
    }

    /// Its number, which [`Wake::wake`] names.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The queue that it submits to.
    pub fn queue(&self) -> &'q SharedQueue<'m, B, D, W> {
        self.queue
    }

    /// Begins a batch of about `want` requests: slots are claimed for so many at a time.
    #[inline(always)]
    pub fn batch(&mut self, want: u32) -> SharedBatch<'_, 'q, 'm, B, D, W> {
        SharedBatch::new(self, want)
    }

    /// Submits one request.
    ///
    /// # Errors
    /// As [`SharedBatch::push`].
    #[inline]
    pub fn submit(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        self.batch(1).push(request)
    }

    /// Publishes what is staged.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        let staged = Published(&mut self.staged);
        self.queue.publish(self.number, staged.0);
    }

    /// A free slot, with its record; when the stash is empty, about `want` are claimed.
    #[inline(always)]
    pub(super) fn claim(&mut self, want: u32) -> Option<(usize, &'m Record<B>)> {
        let records = self.queue.core().records;
        let found = match self.stash.pop(records) {
            None => self.refill(want).then(|| self.stash.pop(records))?,
            found => found,
        };
        self.stashed -= u32::from(found.is_some());
        found
    }

    /// Claims up to `want` slots for the stash, with one locked instruction; false: none is free, or the queue is broken.
    #[inline(never)]
    fn refill(&mut self, want: u32) -> bool {
        let core = self.queue.core();
        if self.queue.broken().is_some() {
            return false;
        }
        let Some((word, mut bits)) = core.free.take(want.clamp(1, 64), &mut self.near) else { return false };
        self.mine[word] |= bits;
        self.claimed += bits.count_ones();
        // From the highest down, so that the lowest is used first.
        while bits != 0 {
            let bit = 63 - bits.leading_zeros() as u16;
            bits &= !(1 << bit);
            self.unclaim((word * 64) as u16 + bit);
        }
        true
    }

    #[inline(always)]
    fn stash(&mut self, slot: u32, record: &Record<B>) {
        self.stash.push(slot, record);
        self.stashed += 1;
    }

    /// Takes a slot back that was claimed and not used.
    pub(super) fn unclaim(&mut self, slot: u16) {
        self.stash(slot.into(), self.queue.core().record(slot));
    }

    /// How many free slots it may keep.
    #[inline(always)]
    pub(super) fn room(&self) -> u32 {
        self.room
    }

    /// Gives slots back until the stash has at most `room`.
    #[inline(always)]
    pub(super) fn trim(&mut self, room: u32) {
        if self.stashed > room {
            self.trim_to(room);
        }
    }

    #[cold]
    fn trim_to(&mut self, room: u32) {
        let mut returned = Drained::default();
        while self.stashed > room {
            let Some((slot, _)) = self.stash.pop(self.queue.core().records) else { return };
            self.stashed -= 1;
            self.give_back(&mut returned, slot as u16);
        }
        self.flush(&mut returned);
    }

    /// Hands completions of this submitter's requests to `sink` and returns how many. What others parked for it comes
    /// first and alone; if there is nothing, it drains the used ring for all submitters, unless nothing is seen there or
    /// another thread is draining: then it returns, and [`Submitter::arm`] sees to it that nothing is missed.
    ///
    /// A `sink` that panics has got the completion that it was called with. Everything else that was drained until then
    /// is in its place, its submitters are woken, and the queue can be used on.
    #[inline]
    pub fn reap(&mut self, mut sink: impl FnMut(Completion<B>)) -> usize {
        let handed = self.collect(&mut sink);
        if handed > 0 || !self.queue.may_have_answers() || !self.queue.ends.reaping.turn.enter() {
            return handed;
        }
        self.drain(&mut sink)
    }

    /// Takes what others parked for this submitter: one locked instruction per word that has something.
    #[inline(always)]
    fn collect(&mut self, sink: &mut impl FnMut(Completion<B>)) -> usize {
        let parked = &self.queue.core().parked;
        let mut handed = 0;
        for w in 0..parked.len() {
            if parked.peek(w) & self.mine[w] != 0 {
                handed += self.collect_word(w, sink);
            }
        }
        handed
    }

    fn collect_word(&mut self, w: usize, sink: &mut impl FnMut(Completion<B>)) -> usize {
        let core = self.queue.core();
        let bits = core.parked.take_of(w, self.mine[w]);
        let mut collecting = Collecting { submitter: self, w, bits, returned: Drained::default() };
        let mut handed = 0;
        while collecting.bits != 0 {
            let slot = (w * 64) as u16 + collecting.bits.trailing_zeros() as u16;
            collecting.bits &= collecting.bits - 1;
            // SAFETY: the slot is parked, and its bit was just taken by its submitter.
            let completion = unsafe { core.collect(slot) };
            collecting.submitter.release(&mut collecting.returned, slot.into(), core.record(slot));
            if let Some(completion) = completion {
                handed += 1;
                sink(completion);
            }
        }
        handed
    }

    /// A slot of this submitter's is free: into the stash, or on its way back to the free set.
    #[inline(always)]
    fn release(&mut self, drained: &mut Drained, slot: u32, record: &Record<B>) {
        if self.stashed < self.room {
            self.stash(slot, record);
        } else {
            self.give_back(drained, slot as u16);
        }
    }

    #[inline(always)]
    fn give_back(&mut self, drained: &mut Drained, slot: u16) {
        self.reach(drained, usize::from(slot) / 64);
        drained.freed |= 1 << (slot % 64);
    }

    /// The drainer's section: at most one ring long. It is this thread's turn to drain, which ends here. Returns how many
    /// completions of its own were handed out.
    fn drain(&mut self, sink: &mut impl FnMut(Completion<B>)) -> usize {
        let queue = self.queue;
        let was_broken = queue.broken().is_some();
        let mut section = Section { submitter: self, taken: 0, drained: Drained::default(), was_broken };
        let (consumer, ready) = section.submitter.ready();
        while section.taken < ready {
            let entry = queue.core().ring.ahead(consumer, section.taken);
            // Counted before the sink is called, which may panic.
            section.taken += 1;
            if let Err(violation) = section.submitter.settle(entry, &mut section.drained, sink) {
                // What is not believed was not taken.
                section.taken -= 1;
                queue.break_with(violation);
                break;
            }
        }
        section.drained.handed
    }

    /// Completes one used entry.
    #[inline(always)]
    fn settle(
        &mut self,
        entry: UsedEntry,
        drained: &mut Drained,
        sink: &mut impl FnMut(Completion<B>),
    ) -> Result<(), Violation> {
        let core = self.queue.core();
        let Some((record, state)) = core.settle_plain(entry, State::if_plain) else {
            let Settled { slot, state, answer, odd_length } = core.settle(entry)?;
            self.queue.cold.length_anomalies.add(odd_length.into());
            self.finish(slot, state, answer, drained, sink);
            return Ok(());
        };
        if let Some(released) = state.released_if_owned(self.number) {
            // SAFETY: the device gave the slot's chain back, as `settle_plain` checked; its state says that both exist.
            let (token, buffer) = unsafe { record.take_whole() };
            record.set_state(released);
            self.release(drained, entry.id, record);
            drained.handed += 1;
            sink(Completion { token, result: Ok(()), buffer: Some(buffer) });
        } else {
            record.set_word(Answer::OK.0);
            record.set_state(state.moved_to(State::PARKED));
            self.park(drained, entry.id as u16, state);
        }
        Ok(())
    }

    /// Used entries that may be taken now. It is the caller's turn to drain.
    #[inline(always)]
    fn ready(&self) -> (Consumer, usize) {
        let queue = self.queue;
        // SAFETY: by this function's condition.
        let (consumer, ready, outstanding) = unsafe {
            queue.ends.reaping.consumer.with(|consumer| {
                let ready = queue.core().ring.look(consumer);
                // After the look: `published` is stored before the index whose answer was just seen.
                (*consumer, ready, consumer.behind(queue.ends.publishing.published.load(Ordering::Relaxed)))
            })
        };
        if ready > outstanding && queue.broken().is_none() {
            queue.break_with(Violation::IndexJump);
        }
        (consumer, if queue.broken.load(Ordering::Relaxed) == 0 { ready.into() } else { 0 })
    }

    /// The next slots are of this word.
    #[inline(always)]
    fn reach(&mut self, drained: &mut Drained, word: usize) {
        if word != drained.word {
            self.flush(drained);
            drained.word = word;
        }
    }

    /// Completes one settled slot that is another submitter's, or was not answered in the common way.
    fn finish(
        &mut self,
        slot: u16,
        state: State,
        answer: Answer,
        drained: &mut Drained,
        sink: &mut impl FnMut(Completion<B>),
    ) {
        if state.has(State::SPECIAL) {
            return self.finish_special(slot, state, answer, drained, sink);
        }
        let core = self.queue.core();
        core.restore(slot, state);
        if state.owner() == self.number {
            // SAFETY: the device gave the slot's chain back, as `settle` checked, and `state` is what it says.
            let (token, buffer) = unsafe { core.empty(slot, state) };
            core.record(slot).set_state(state.released());
            self.release(drained, slot.into(), core.record(slot));
            drained.handed += 1;
            sink(Completion { token, result: answer.result(), buffer });
        } else {
            core.record(slot).set_word(answer.0);
            core.record(slot).set_state(state.moved_to(State::PARKED));
            self.park(drained, slot, state);
        }
    }

    #[cold]
    fn finish_special(
        &mut self,
        slot: u16,
        state: State,
        answer: Answer,
        drained: &mut Drained,
        sink: &mut impl FnMut(Completion<B>),
    ) {
        let core = self.queue.core();
        // SAFETY: settled by this thread, whose turn it is to drain.
        match unsafe { core.follow(slot, state, answer, State::STAGED) } {
            Next::Staged(_) => self.queue.publish(self.number, &[slot]),
            Next::Released if state.owner() == self.number => {
                core.record(slot).set_state(state.released());
                self.release(drained, slot.into(), core.record(slot));
            }
            // The slot counts as its submitter's until that one takes it, so it goes through the parked set as well.
            Next::Released => {
                core.park_empty(slot, State::owned_by(state.owner()));
                self.park(drained, slot, state);
            }
            Next::Finished(token, buffer, answer) if state.owner() == self.number => {
                core.record(slot).set_state(state.released());
                self.release(drained, slot.into(), core.record(slot));
                drained.handed += 1;
                sink(Completion { token, result: answer.result(), buffer });
            }
            Next::Finished(token, buffer, answer) => {
                core.park(slot, token, buffer, answer, State::owned_by(state.owner()));
                self.park(drained, slot, state);
            }
        }
    }

    /// Another submitter's slot is done: its bit goes into the parked set, and its submitter is to be woken.
    #[inline(always)]
    fn park(&mut self, drained: &mut Drained, slot: u16, state: State) {
        self.reach(drained, usize::from(slot) / 64);
        drained.parked |= 1 << (slot % 64);
        drained.woken |= 1 << state.owner();
    }

    /// Puts the collected slots of one word where they belong.
    #[inline(always)]
    fn flush(&mut self, drained: &mut Drained) {
        let freed = core::mem::take(&mut drained.freed);
        if freed != 0 {
            self.mine[drained.word] &= !freed;
            self.claimed -= freed.count_ones();
            self.queue.core().free.put(drained.word, freed);
        }
        if drained.parked != 0 {
            self.queue.core().parked.put(drained.word, core::mem::take(&mut drained.parked));
        }
    }

    /// Asks for an interrupt at the next completion of anybody's, and looks again. True: something can be reaped now,
    /// somebody else is draining, or the queue is broken: reap, look at [`SharedQueue::broken`] and ask again before
    /// waiting. (There is one event index and many submitters: one that wished for a later completion would move
    /// another's wish away.) Without EVENT_IDX the wish lasts: every later completion interrupts.
    ///
    /// A submitter that may sleep now and has nothing in the queue empties its stash: others may need the slots.
    pub fn arm(&mut self) -> bool {
        let queue = self.queue;
        if queue.broken().is_some() || !queue.ends.reaping.turn.enter() {
            return true;
        }
        // SAFETY: it is this thread's turn to drain.
        let ready = unsafe { queue.ends.reaping.consumer.with(|consumer| queue.core().ring.arm(consumer, 1)) };
        // In turn, where nobody else can be parking something for this submitter.
        let parked = (0..queue.core().parked.len()).any(|w| queue.core().parked.peek(w) & self.mine[w] != 0);
        queue.ends.reaping.turn.leave();
        if !ready && !parked && self.claimed == self.stashed {
            self.trim(0);
        }
        ready || parked
    }

    /// Withdraws a request that the device does not know yet; `None` when it does, or when the ticket is not of this
    /// submitter's present requests.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<Completion<B>> {
        let core = self.queue.core();
        let (word, bit) = (usize::from(ticket.slot) / 64, 1 << (ticket.slot % 64));
        // Not mine: perhaps no slot of this queue at all.
        if self.mine.get(word)? & bit == 0 || core.ticket(ticket.slot) != ticket {
            return None;
        }
        // One of these is set during the whole life of a durable write or a cut request, so that it is found whenever a
        // drainer stages the next chain: the device knows such a request although its slot is staged.
        let state = core.record(ticket.slot).state();
        let known = state.has(State::CHILD | State::FLUSH_FOLLOWS | State::FLUSHES);
        if known || core.staged.take_of(word, bit) == 0 {
            return None;
        }
        core.restore(ticket.slot, state);
        // SAFETY: its bit was taken out of the staged set, so no publisher will see it: the slot is this thread's.
        let (token, buffer) = unsafe { core.empty(ticket.slot, state) };
        core.record(ticket.slot).set_state(state.released());
        self.unclaim(ticket.slot);
        self.trim(self.room);
        Some(Completion { token, result: Err(Error::Gone(Gone::Cancelled)), buffer })
    }

    /// Notes an interrupt for the statistics; the caller is the one thread that waits for this queue's interrupts.
    pub fn note_interrupt(&self) {
        self.queue.cold.interrupts.add(1);
    }
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for Submitter<'_, '_, B, D, W> {
    /// A submitter that leaves requests behind keeps its number: they are parked for it until the queue is reclaimed.
    fn drop(&mut self) {
        self.trim(0);
        if self.claimed == 0 {
            self.queue.leave(self.number, self.room);
        }
    }
}

/// The slots that are being published. They are handed over before the doorbell is rung: the drop empties the list also
/// when that panics, so that none is published twice.
struct Published<'s>(&'s mut ArrayVec<u16, MOST_STAGED>);

impl Drop for Published<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Parked slots of one word whose bits were taken and that are being collected. When the sink panics, those that are
/// left are parked again.
struct Collecting<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    submitter: &'s mut Submitter<'q, 'm, B, D, W>,
    w: usize,
    bits: u64,
    returned: Drained,
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for Collecting<'_, '_, '_, B, D, W> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.bits != 0 {
            self.submitter.queue.core().parked.put(self.w, self.bits);
        }
        self.submitter.flush(&mut self.returned);
    }
}

/// A turn to drain. The drop ends it, also when the sink or the doorbell panics: what was taken counts as taken, slots
/// go where they belong, the turn is free again, and then the submitters are woken whose completions were parked.
struct Section<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    submitter: &'s mut Submitter<'q, 'm, B, D, W>,
    taken: usize,
    drained: Drained,
    was_broken: bool,
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for Section<'_, '_, '_, B, D, W> {
    #[inline(always)]
    fn drop(&mut self) {
        let queue = self.submitter.queue;
        // SAFETY: it is this thread's turn to drain.
        unsafe { queue.ends.reaping.consumer.with(|consumer| consumer.advance(self.taken)) };
        queue.ends.reaping.completed.add(self.taken as u64);
        self.submitter.flush(&mut self.drained);
        // Nobody's completion comes any more: every submitter that sleeps on one is to know.
        let breaks = !self.was_broken && queue.broken().is_some();
        let woken = if breaks { queue.everybody() } else { self.drained.woken };
        queue.ends.reaping.turn.leave();
        Wakes { wake: &queue.wake, numbers: woken }.run();
    }
}

/// Submitters that are to be woken. When one wake panics, the drop wakes the others.
struct Wakes<'q, W: Wake> {
    wake: &'q W,
    numbers: u64,
}

impl<W: Wake> Wakes<'_, W> {
    #[inline(always)]
    fn run(&mut self) {
        while self.numbers != 0 {
            let number = self.numbers.trailing_zeros();
            self.numbers &= self.numbers - 1;
            self.wake.wake(number as u8);
        }
    }
}

impl<W: Wake> Drop for Wakes<'_, W> {
    #[inline(always)]
    fn drop(&mut self) {
        self.run();
    }
}

/// What a drain collected: slots of one word to be put back or parked, and whom to wake.
#[derive(Default)]
struct Drained {
    word: usize,
    freed: u64,
    parked: u64,
    handed: usize,
    woken: u64,
}
