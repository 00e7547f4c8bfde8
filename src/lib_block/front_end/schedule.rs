//! One session's turn: what it may start now, by bytes.
//!
//! Deficit round robin: each round adds a quantum to every session that has something to do; a request starts when the
//! session's deficit covers its cost. A request counts as its bytes, at least [`LEAST`](super::plain::LEAST); one without data (FLUSH, a part
//! of DISCARD or WRITE ZEROES) as a whole quantum, since nobody knows what it costs. A cap on what one session has with
//! the device, in bytes by its weight (and in requests, if asked for), bounds what another's request can meet in front
//! of it. It is no share: whoever is held back by it leaves its rounds to the others.
//!
//! The common entry goes from the ring to the queue directly, as long as nothing of its session waits. Whatever cannot
//! start is taken into the backlog, so that it can be withdrawn and times out while it waits.
use super::flight::{Load, Place};
use super::lent::Lent;
use super::plain::{Common, End, Ready, launch, weight};
use super::session::Session;
use crate::lib_block::Status;
use crate::lib_block::entry::{Flags, Operation};
use crate::lib_block::ring::IndexJump;
use crate::platform::Nanos;
use crate::queue::Batch;
use crate::request::{DeviceFault, Error, Gone, Lba, Refusal, Request};
use crate::transport::Doorbell;

/// Bytes that weight 1 adds to a session's deficit each round.
pub const QUANTUM: u64 = 128 << 10;

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is left to start.
    Idle,
    /// The share of this round is spent.
    Spent,
    /// Something has to come back first.
    Blocked,
    /// The queue has no slot.
    Full,
}

impl<'m> Session<'m> {
    /// Starts what may be started.
    ///
    /// # Errors
    /// When the client's indices cannot be.
    #[inline(always)]
    pub(super) fn turn<D: Doorbell>(
        &mut self,
        batch: &mut Batch<'_, 'm, Lent<'m>, D>,
        base: u64,
        scratch: &mut [Ready],
        clock: &impl Fn() -> Nanos,
    ) -> Result<Turn, IndexJump> {
        let unanswered = self.load.requests() + self.waiting;
        let mut ready = self.end.as_mut().map_or(Ok(0), |end| end.look(unanswered))?;
        let mut turn = if self.waiting > 0 { self.run_backlog(batch, base, clock) } else { Turn::Idle };
        let mut taken = 0;
        while taken < ready && turn == Turn::Idle {
            let (at, why) = self.start_common((taken, ready), batch, base, scratch);
            taken = at;
            turn = match why {
                End::Out if at == ready => Turn::Idle,
                End::Out | End::Capped => Turn::Blocked,
                End::Budget => Turn::Spent,
                End::Refused(Refusal::Full | Refusal::Broken) => Turn::Full,
                End::Special | End::Refused(_) => {
                    let Some(words) = self.end.as_ref().map(|end| end.peek(at)) else { break };
                    self.take(&words);
                    // Before the clock is asked, which may panic: what was taken is not read again.
                    self.consume(at + 1);
                    (taken, ready) = (0, ready - (at + 1));
                    self.run_backlog(batch, base, clock)
                }
            };
        }
        self.consume(taken);
        // A spent share is followed by another round at once.
        if taken < ready && turn != Turn::Spent {
            self.take_in(ready - taken);
        }
        Ok(turn)
    }

    /// Starts the common entries of `from..to`, as far as share and cap go; where it came to an end and why.
    #[inline(always)]
    fn start_common<D: Doorbell>(
        &mut self,
        (mut from, to): (u32, u32),
        batch: &mut Batch<'_, 'm, Lent<'m>, D>,
        base: u64,
        scratch: &mut [Ready],
    ) -> (u32, End) {
        let Some(end) = &self.end else { return (to, End::Out) };
        let (requests, bytes) = self.load.room(self.cap);
        let (begin, most, budget) = (from, to.min(from.saturating_add(requests)), self.deficit.min(bytes));
        let (facts, registry, words) = (&self.facts, &self.registry, &mut *self.words);
        let mut common = Common { facts, registry, words, budget };
        let mut why = End::Out;
        while from < most && why == End::Out {
            let admitted;
            (admitted, why) = common.admit(end.run(from, most), scratch);
            let (started, refusal) = launch(&scratch[..admitted], batch, base);
            from += started as u32;
            if let Some(refusal) = refusal {
                common.put_back(&scratch[started..admitted]);
                why = End::Refused(refusal);
            }
        }
        // Whichever of the two was less is what the next entry has not room in.
        if why == End::Budget && bytes < self.deficit {
            why = End::Capped;
        }
        let spent = budget - common.budget;
        self.charge(spent, Load::of(from - begin, spent));
        (from, why)
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        if let Some(end) = &mut self.end {
            end.consume(count);
        }
    }

    /// Takes all entries that are there into the backlog, or answers them.
    ///
    /// # Errors
    /// When the client's indices cannot be.
    pub(super) fn take_in_ready(&mut self) -> Result<(), IndexJump> {
        let unanswered = self.load.requests() + self.waiting;
        let ready = self.end.as_mut().map_or(Ok(0), |end| end.look(unanswered))?;
        self.take_in(ready);
        Ok(())
    }

    /// Takes entries into the backlog, or answers them.
    #[cold]
    fn take_in(&mut self, count: u32) {
        for _ in 0..count {
            let Some(words) = self.end.as_ref().map(|end| end.peek(0)) else { return };
            self.consume(1);
            self.take(&words);
        }
    }

    #[inline(always)]
    fn charge(&mut self, cost: u64, load: Load) {
        self.deficit -= cost;
        self.counted.charged = self.counted.charged.saturating_add(cost);
        self.load.add(load);
    }

    /// What a refusal by the queue comes to.
    #[cold]
    fn not_started(&mut self, tag: u16, why: Refusal) -> Turn {
        let status = match why {
            // Broken: the service resets the device, and goes on.
            Refusal::Full | Refusal::Broken => return Turn::Full,
            Refusal::OutOfRange => Status::OutOfRange,
            Refusal::ReadOnly => Status::ReadOnly,
            Refusal::Unsupported => Status::Unsupported,
            Refusal::Unaligned | Refusal::Empty | Refusal::BadBuffer => Status::InvalidArgument,
        };
        self.answer(tag, status, 0, false);
        Turn::Idle
    }

    /// Starts what waits, first come first, as far as it goes.
    #[cold]
    fn run_backlog<D: Doorbell>(
        &mut self,
        batch: &mut Batch<'_, 'm, Lent<'m>, D>,
        base: u64,
        clock: &impl Fn() -> Nanos,
    ) -> Turn {
        while let Some(tag) = self.backlog.front() {
            if self.is_expired(tag, clock) {
                self.withdraw(tag, Status::TimedOut);
                continue;
            }
            match self.start(tag, batch, base) {
                Turn::Idle => {}
                other => return other,
            }
        }
        Turn::Idle
    }

    fn is_expired(&self, tag: u16, clock: &impl Fn() -> Nanos) -> bool {
        let deadline = self.flights[usize::from(tag)].deadline;
        deadline != 0 && clock().0 > deadline
    }

    /// Answers what waits beyond its deadline.
    #[cold]
    pub(super) fn expire(&mut self, clock: &impl Fn() -> Nanos) {
        let now = clock().0;
        loop {
            let mut expired = None;
            let flights = &self.flights;
            self.backlog.each(|tag| {
                let deadline = flights[usize::from(tag)].deadline;
                if deadline != 0 && now > deadline {
                    expired = Some(tag);
                }
            });
            let Some(tag) = expired else { return };
            self.withdraw(tag, Status::TimedOut);
        }
    }

    /// Starts the request of `tag`, the first in the backlog; [`Turn::Idle`]: it is out of the backlog.
    fn start<D: Doorbell>(&mut self, tag: u16, batch: &mut Batch<'_, 'm, Lent<'m>, D>, base: u64) -> Turn {
        let flight = self.flights[usize::from(tag)];
        let word = self.words[usize::from(tag)];
        let bytes = u64::from(word.bytes());
        let operation = word.operation();
        let weight = weight(word.bytes());
        let cost = if bytes == 0 { self.quantum } else { weight };
        if cost > self.deficit {
            return Turn::Spent;
        }
        let held_back = self.is_barrier(tag) && self.load.requests() > 0;
        let (requests, room) = self.load.room(self.cap);
        if held_back || requests == 0 || weight > room {
            return Turn::Blocked;
        }
        let lent = match flight.pieces {
            0 | 1 => Lent::one(flight.piece),
            _ => Lent::many(&self.lists[usize::from(tag)]),
        };
        let (lba, mut share) = (Lba(flight.sector), 0);
        let request = match operation {
            Some(Operation::Read) => Request::read(lba, lent),
            Some(Operation::Write) if flight.flags.has(Flags::FUA) => Request::write_durably(lba, lent),
            Some(Operation::Write) => Request::write(lba, lent),
            Some(operation @ (Operation::Discard | Operation::WriteZeroes)) => {
                share = self.limits.share(operation, flight.sector, flight.sectors);
                let unmap = flight.flags.has(Flags::UNMAP);
                if operation == Operation::Discard {
                    Request::discard(lba, share)
                } else {
                    Request::write_zeroes(lba, share, unmap)
                }
            }
            // CANCEL is never admitted.
            Some(Operation::Flush | Operation::Cancel) | None => Request::flush(),
        };
        if let Err(refused) = batch.push(request.with_token(base | u64::from(tag))) {
            if !matches!(refused.why, Refusal::Full | Refusal::Broken) {
                self.backlog.pop();
                self.unwait(tag);
            }
            return self.not_started(tag, refused.why);
        }
        self.backlog.pop();
        self.unwait(tag);
        let started = &mut self.flights[usize::from(tag)];
        started.sector += u64::from(share);
        started.sectors -= u64::from(share);
        self.words[usize::from(tag)] = word.at(Place::DeviceSpecial);
        // What came later is no reason for the other parts to wait.
        started.flags = Flags(started.flags.0 & !Flags::PRE_BARRIER.0);
        self.charge(cost, Load::of(1, weight));
        Turn::Idle
    }

    /// Ends, or goes on with, a request that is not common, or did not end well.
    #[cold]
    pub(super) fn finish(&mut self, tag: u16, result: Result<(), Error>, clock: &impl Fn() -> Nanos) {
        let flight = self.flights[usize::from(tag)];
        let word = self.words[usize::from(tag)];
        let special = word.is(Place::DeviceSpecial);
        // Before anything is changed: the clock may panic.
        let late = special && self.is_expired(tag, clock);
        self.load.remove(Load::of(1, weight(word.bytes())));
        let left = special && flight.sectors > 0 && word.operation().is_some_and(|op| !op.has_data());
        if left && result.is_ok() && self.life == super::session::Life::Serving {
            self.words[usize::from(tag)] = word.at(Place::Waiting);
            self.waiting += 1;
            self.timed += u32::from(flight.deadline != 0);
            self.backlog.push_front(tag);
            return;
        }
        let status = match result {
            Ok(()) if left => Status::Gone,
            Ok(()) => Status::Ok,
            Err(Error::Gone(Gone::Reset)) if late => Status::TimedOut,
            Err(error) => status_of(error),
        };
        let bytes = if status.is_ok() { word.bytes() } else { 0 };
        self.answer(tag, status, bytes, late);
    }
}

/// How the driver's errors are called here.
fn status_of(error: Error) -> Status {
    match error {
        Error::Medium | Error::Device(DeviceFault::BadStatus(_) | DeviceFault::ShortRead) => Status::IoError,
        Error::Device(DeviceFault::Unsupported) => Status::Unsupported,
        Error::Gone(Gone::Reset) => Status::Reset,
        Error::Gone(Gone::Cancelled) | Error::Caller(_) => Status::Gone,
    }
}
