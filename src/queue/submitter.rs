//! One thread's way into a shared queue: claim, stage, and the drainer's section.
//!
//! A submitter is one thread's (`&mut`); what it shares with others goes through the gates and sets of
//! [`SharedQueue`]. `mine` says which slots it claimed and has not got back, so that it finds its parked completions
//! with one locked instruction per word and never looks at another submitter's slot.
//!
//! A request of its own that it drains is handed over directly; another submitter's is parked and that one woken after
//! the gate is free.
use super::core::Violation;
use super::oversize::Next;
use super::shared::{SharedQueue, Wake};
use super::shared_batch::SharedBatch;
use crate::dma::Buffer;
use crate::request::{Completion, Error, Gone, Refused, Request, Ticket};
use crate::slot::{Answer, MAX_WORDS, State, slots_of};
use crate::sync::Ordering;
use crate::transport::Doorbell;

/// One thread's way into a [`SharedQueue`]. Aligned, so that submitters side by side share no line.
#[repr(align(128))]
pub struct Submitter<'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    pub(super) queue: &'q SharedQueue<'m, B, D, W>,
    pub(super) number: u8,
    /// The bitmap word to claim from next.
    pub(super) near: usize,
    /// The slots that this submitter claimed and has not got back.
    pub(super) mine: [u64; MAX_WORDS],
}

impl<'q, 'm, B: Buffer, D: Doorbell, W: Wake> Submitter<'q, 'm, B, D, W> {
    pub(super) fn new(queue: &'q SharedQueue<'m, B, D, W>, number: u8) -> Self {
        Self { queue, number, near: 0, mine: [0; MAX_WORDS] }
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

    /// Hands completions of this submitter's requests to `sink` and returns how many. Drains the used ring for all
    /// submitters when nobody else is at it; otherwise leaves word and takes what was parked. `sink` runs inside of the
    /// drainer's section: it must not panic, or nobody drains again.
    #[inline]
    pub fn reap(&mut self, mut sink: impl FnMut(Completion<B>)) -> usize {
        let reaping = &self.queue.reaping;
        let mut handed = self.collect(&mut sink);
        if reaping.gate.enter() || reaping.gate.insist() {
            loop {
                let (own, woken) = self.drain(&mut sink);
                handed += own;
                let again = reaping.gate.leave();
                for number in slots_of(0, woken) {
                    self.queue.wake.wake(number as u8);
                }
                if !(again && reaping.gate.enter()) {
                    return handed;
                }
            }
        }
        handed + self.collect(&mut sink)
    }

    /// Takes what others parked for this submitter: one locked instruction per word that has something.
    #[inline(always)]
    fn collect(&mut self, sink: &mut impl FnMut(Completion<B>)) -> usize {
        let core = self.queue.core();
        let mut handed = 0;
        for w in 0..core.parked.len() {
            if self.mine[w] == 0 {
                continue;
            }
            let bits = core.parked.take_of(w, self.mine[w]);
            for slot in slots_of(w, bits) {
                // SAFETY: the slot is parked, and its bit was just taken by its submitter.
                if let Some(completion) = unsafe { core.collect(slot) } {
                    sink(completion);
                    handed += 1;
                }
            }
            self.give_back(w, bits);
        }
        handed
    }

    /// Slots of word `w` that this submitter is done with.
    #[inline(always)]
    pub(super) fn give_back(&mut self, w: usize, bits: u64) {
        self.mine[w] &= !bits;
        if bits != 0 {
            self.queue.core().free.put(w, bits);
        }
    }

    /// The reap holder's section: at most one ring long. Returns own completions handed out and whom to wake.
    fn drain(&mut self, sink: &mut impl FnMut(Completion<B>)) -> (usize, u64) {
        let queue = self.queue;
        let mut drained = Drained { word: 0, freed: 0, parked: 0, taken: 0, handed: 0, woken: 0 };
        queue.reaping.gate.answer();
        let was_broken = queue.broken().is_some();
        let owner = State::owned_by(self.number);
        for _ in 0..self.ready() {
            // SAFETY: this thread holds the reap gate.
            let entry = unsafe { queue.reaping.consumer.with(|consumer| queue.core().ring.take(consumer)) };
            drained.taken += 1;
            if let Some((record, released)) = queue.core().settle_plain(entry, owner) {
                // SAFETY: the device gave the slot's chain back, as `settle_plain` checked; its state says that both
                // exist.
                let (token, buffer) = unsafe { record.take_whole() };
                record.set_state(released);
                self.reach(&mut drained, entry.id as usize / 64);
                drained.free(entry.id as u16);
                drained.handed += 1;
                sink(Completion { token, result: Ok(()), buffer: Some(buffer) });
                continue;
            }
            match queue.core().settle(entry) {
                Ok((slot, state, answer)) => self.finish(slot, state, answer, &mut drained, sink),
                Err(violation) => {
                    drained.taken -= 1;
                    queue.break_with(violation);
                    break;
                }
            }
        }
        queue.reaping.counters.completed.add(drained.taken);
        self.flush(&mut drained);
        // Nobody's completion comes any more: whoever sleeps on one is to know.
        if !was_broken && queue.broken().is_some() {
            drained.woken = queue.everybody();
        }
        (drained.handed, drained.woken)
    }

    /// Used entries that may be taken now. The caller holds the reap gate.
    #[inline(always)]
    fn ready(&self) -> u16 {
        let queue = self.queue;
        // SAFETY: by this function's condition.
        let (ready, outstanding) = unsafe {
            queue.reaping.consumer.with(|consumer| {
                let ready = queue.core().ring.look(consumer);
                // After the look: `published` is stored before the index whose answer was just seen.
                (ready, consumer.behind(queue.publishing.published.load(Ordering::Relaxed) as u16))
            })
        };
        if ready > outstanding && queue.broken().is_none() {
            queue.break_with(Violation::IndexJump);
        }
        if queue.reaping.broken.load(Ordering::Relaxed) == 0 { ready } else { 0 }
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
        self.reach(drained, usize::from(slot) / 64);
        if state.has(State::SPECIAL) {
            return self.finish_special(slot, state, answer, drained, sink);
        }
        let core = self.queue.core();
        if state.owner() == self.number {
            // SAFETY: the device gave the slot's chain back, as `settle` checked, and `state` is what it says.
            let (token, buffer) = unsafe { core.empty(slot, state) };
            core.record(slot).set_state(state.released());
            drained.free(slot);
            drained.handed += 1;
            sink(Completion { token, result: answer.result(), buffer });
        } else {
            core.record(slot).set_word(answer.0);
            core.record(slot).set_state(state.moved_to(State::PARKED));
            drained.park(slot, state);
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
        // SAFETY: settled by this thread, which holds the reap gate.
        match unsafe { core.follow(slot, state, answer, State::STAGED) } {
            Next::Staged(_) => self.queue.publish(self.number, usize::from(slot) / 64, 1 << (slot % 64)),
            Next::Released if state.owner() == self.number => {
                core.record(slot).set_state(state.released());
                drained.free(slot);
            }
            // The slot counts as its submitter's until that one takes it, so it goes through the parked set as well.
            Next::Released => {
                core.park_empty(slot, State::owned_by(state.owner()));
                drained.park(slot, state);
            }
            Next::Finished(token, buffer, answer) if state.owner() == self.number => {
                core.record(slot).set_state(state.released());
                drained.free(slot);
                drained.handed += 1;
                sink(Completion { token, result: answer.result(), buffer });
            }
            Next::Finished(token, buffer, answer) => {
                core.park(slot, token, buffer, answer, State::owned_by(state.owner()));
                drained.park(slot, state);
            }
        }
    }

    /// Puts the collected slots of one word where they belong.
    #[inline(always)]
    fn flush(&mut self, drained: &mut Drained) {
        self.give_back(drained.word, core::mem::take(&mut drained.freed));
        if drained.parked != 0 {
            self.queue.core().parked.put(drained.word, core::mem::take(&mut drained.parked));
        }
    }

    /// Asks for an interrupt at the next completion of anybody's, and looks again. True: something can be reaped now,
    /// somebody else is draining, or the queue is broken: reap, look at [`SharedQueue::broken`] and ask again before
    /// waiting. (There is one event index and many submitters: one that wished for a later completion would move
    /// another's wish away.) Without EVENT_IDX the wish lasts: every later completion interrupts.
    pub fn arm(&mut self) -> bool {
        let queue = self.queue;
        if queue.broken().is_some() || !queue.reaping.gate.enter() {
            return true;
        }
        // SAFETY: this thread holds the reap gate.
        let ready = unsafe { queue.reaping.consumer.with(|consumer| queue.core().ring.arm(consumer, 1)) };
        // Under the gate, where nobody else can be parking something for this submitter.
        let parked = (0..queue.core().parked.len()).any(|w| queue.core().parked.peek(w) & self.mine[w] != 0);
        queue.reaping.gate.leave() || ready || parked
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
        if state.has(State::LARGE_TABLE) {
            core.return_table(ticket.slot);
        }
        // SAFETY: its bit was taken out of the staged set, so no publisher will see it: the slot is this thread's.
        let (token, buffer) = unsafe { core.empty(ticket.slot, state) };
        core.record(ticket.slot).set_state(state.released());
        self.give_back(word, bit);
        Some(Completion { token, result: Err(Error::Gone(Gone::Cancelled)), buffer })
    }

    /// Notes an interrupt for the statistics; the caller is the one thread that waits for this queue's interrupts.
    pub fn note_interrupt(&self) {
        self.queue.reaping.counters.interrupts.add(1);
    }
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for Submitter<'_, '_, B, D, W> {
    /// A submitter that leaves requests behind keeps its number: they are parked for it until the queue is reclaimed.
    fn drop(&mut self) {
        if self.mine == [0; MAX_WORDS] {
            self.queue.leave(self.number);
        }
    }
}

/// What a drain collected: slots of one word to be put back or parked, and whom to wake.
struct Drained {
    word: usize,
    freed: u64,
    parked: u64,
    taken: u64,
    handed: usize,
    woken: u64,
}

impl Drained {
    #[inline(always)]
    fn free(&mut self, slot: u16) {
        self.freed |= 1 << (slot % 64);
    }

    #[inline(always)]
    fn park(&mut self, slot: u16, state: State) {
        self.parked |= 1 << (slot % 64);
        self.woken |= 1 << state.owner();
    }
}
