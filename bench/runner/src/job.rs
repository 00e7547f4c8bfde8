//! One job's loop: keeps `iodepth` requests in flight, submits in batches, takes completions polled or by interrupt.
//!
//! fio's meaning of the batch sizes: a batch is submitted when that many requests have room; completions are awaited
//! until the next batch has room, or at least `iodepth_batch_complete_min` came. Latency is from the submission of the
//! batch to the moment its completion was taken, both read once per batch. It knows neither drivers nor devices:
//! [`Drive`] and [`Host`] do, and [`Content`] fills and checks data.
use crate::drive::{Drive, Work};
use crate::failure::Failure;
use crate::ground::Host;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use workload::failures::First;
use workload::params::{Mode, Params};
use workload::pattern::{Io, Op, Pattern, Step, due_ns};
use workload::report::Tally;

/// What is in the buffers.
pub trait Content<B> {
    /// A trim makes its sectors read as zeros.
    const ZEROING: bool = false;
    /// The next I/O that may be in flight beside those that are.
    fn next(&mut self, pattern: &mut Pattern) -> Step;
    /// The buffer of an I/O in `place`, filled if it writes.
    fn buffer(&mut self, place: usize, io: &Io) -> B;
    /// Ends an I/O; false if what was read is not what had been written.
    fn end(&mut self, place: usize, io: &Io, success: bool) -> bool;
}

/// What a job does, apart from its driver.
pub struct Plan {
    /// Requests in flight at most.
    pub depth: usize,
    /// Requests handed over at once.
    pub batch: usize,
    /// Completions to wait for at least.
    pub complete_min: usize,
    /// Completions to take at most in one go.
    pub complete_max: usize,
    /// How completions are noticed.
    pub mode: Mode,
    /// Requests per second, or 0.
    pub rate: u64,
    /// Submits until then.
    pub runtime_ns: u64,
}

impl Plan {
    /// What the parameters ask for, in the completion mode that was reached.
    pub fn new(params: &Params, mode: Mode) -> Self {
        Self {
            depth: params.iodepth.into(),
            batch: params.iodepth_batch_submit.into(),
            complete_min: params.iodepth_batch_complete_min.into(),
            complete_max: params.iodepth_batch_complete_max.into(),
            mode,
            rate: params.rate_iops,
            runtime_ns: if params.runtime_ms == 0 { u64::MAX } else { params.runtime_ms * 1_000_000 },
        }
    }
}

/// A job while it runs.
pub struct Job<'j, B, D, C, H> {
    /// What it does.
    pub plan: Plan,
    /// Which I/O comes next.
    pub pattern: Pattern,
    /// Its driver.
    pub drive: &'j mut D,
    /// Its data.
    pub content: &'j mut C,
    /// Its clock and bell.
    pub host: &'j mut H,
    /// What it counts.
    pub tally: &'j mut Tally,
    flights: Flights<B>,
}

/// Places in and out of flight.
struct Flights<B> {
    /// Places with nobody.
    free: Vec<u16>,
    /// By place: the I/O that is or was in flight.
    table: Vec<Flight>,
    /// Work of the batch being made.
    work: Vec<Work<B>>,
}

/// One I/O in flight.
#[derive(Clone, Copy)]
struct Flight {
    io: Io,
    /// When it was submitted; [`NOBODY`]: it is not in flight.
    submitted: u64,
}

/// No moment of the clock.
const NOBODY: u64 = u64::MAX;

impl<B> Flights<B> {
    /// Ends the flight in `place`; `None` if there is none.
    #[inline(always)]
    fn land(&mut self, place: usize) -> Option<Flight> {
        let flight = self.table.get_mut(place)?;
        let landed = *flight;
        flight.submitted = NOBODY;
        self.free.push(place as u16);
        (landed.submitted != NOBODY).then_some(landed)
    }
}

/// Completions in a row that were submitted together, to be recorded in one step.
struct Streak {
    op: Op,
    submitted: u64,
    ios: u64,
    bytes: u64,
}

impl Streak {
    const NONE: Self = Self { op: Op::Read, submitted: NOBODY, ios: 0, bytes: 0 };

    /// Adds one; one that does not belong to the others ends their streak.
    #[inline(always)]
    fn add(&mut self, flight: &Flight, tally: &mut Tally, now: impl FnOnce() -> u64) {
        if flight.submitted != self.submitted || flight.io.op != self.op {
            self.end(tally, now);
            (self.op, self.submitted) = (flight.io.op, flight.submitted);
        }
        self.ios += 1;
        self.bytes += u64::from(flight.io.bytes);
    }

    #[inline(always)]
    fn end(&mut self, tally: &mut Tally, now: impl FnOnce() -> u64) {
        if self.ios > 0 {
            tally.record_many(self.op, self.ios, self.bytes, now() - self.submitted);
            (self.ios, self.bytes) = (0, 0);
        }
    }
}

/// What a job did besides its tally.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// When it began, on the clock of its host.
    pub started: u64,
    /// When its last completion had come.
    pub ended: u64,
}

impl<'j, B, D: Drive<B>, C: Content<B>, H: Host> Job<'j, B, D, C, H> {
    /// A job at its beginning.
    pub fn new(
        plan: Plan,
        pattern: Pattern,
        drive: &'j mut D,
        content: &'j mut C,
        host: &'j mut H,
        tally: &'j mut Tally,
    ) -> Self {
        let free = (0..plan.depth as u16).rev().collect();
        let nobody = Flight { io: Io { op: Op::Read, lba: 0, bytes: 0 }, submitted: NOBODY };
        let flights = Flights { free, table: vec![nobody; plan.depth], work: Vec::with_capacity(plan.batch) };
        Self { plan, pattern, drive, content, host, tally, flights }
    }

    /// Runs until the pattern or the time ends, and everything submitted has come back.
    ///
    /// # Errors
    /// When the device breaks its queue, or is gone: what was in flight has not come back then.
    pub fn run(mut self) -> Result<Done, String> {
        let started = self.host.now_ns();
        let end = started.saturating_add(self.plan.runtime_ns);
        let (mut more, mut submitted) = (true, 0);
        loop {
            let now = self.host.now_ns();
            more &= now < end;
            let due = more && self.room() >= self.plan.batch && now - started >= due_ns(self.plan.rate, submitted);
            if due && self.flights.work.is_empty() {
                more &= self.make_batch(now) != Made::Last;
                submitted += self.flights.work.len() as u64;
            }
            self.submit();
            self.host.step();
            if self.in_flight() == 0 && !more {
                return Ok(Done { started, ended: self.host.now_ns() });
            }
            self.take(more)?;
        }
    }

    fn room(&self) -> usize {
        self.flights.free.len()
    }

    fn in_flight(&self) -> usize {
        self.plan.depth - self.room()
    }

    /// Prepares up to a batch of work in memory.
    fn make_batch(&mut self, now: u64) -> Made {
        for _ in 0..self.plan.batch {
            let io = match self.content.next(&mut self.pattern) {
                Step::Io(io) => io,
                Step::Wait => return Made::Some,
                Step::End => return Made::Last,
            };
            let place = self.flights.free.pop().expect("room was checked");
            let buffer = self.content.buffer(place.into(), &io);
            self.flights.table[usize::from(place)] = Flight { io, submitted: now };
            let Io { op, lba, .. } = io;
            let zeroing = C::ZEROING;
            self.flights.work.push(Work { op, lba, sectors: io.sectors(), token: place.into(), buffer, zeroing });
        }
        Made::Some
    }

    /// Hands the prepared work over; what finds no room stays and is handed over again after the next completions.
    fn submit(&mut self) {
        while !self.flights.work.is_empty() {
            let outcome = self.drive.submit(&self.flights.work);
            self.flights.work.drain(..outcome.taken);
            let Some((token, why)) = outcome.refused else { return };
            self.refuse(token as usize, why);
        }
    }

    /// A request that the driver refuses for good counts as an error; its place is free again.
    #[cold]
    fn refuse(&mut self, place: usize, why: Failure) {
        let flight = self.flights.land(place).expect("a refusal of what was submitted");
        self.content.end(place, &flight.io, false);
        note(self.tally, &flight.io, why, self.host.now_ns());
    }

    /// Takes completions: those that are there, or, when no batch has room, as many as one needs.
    fn take(&mut self, more: bool) -> Result<(), String> {
        let waiting = self.flights.work.len();
        let lacking = match (waiting, more) {
            (0, true) => self.plan.batch.saturating_sub(self.room()),
            (0, false) => self.in_flight(),
            // One completion makes room for at least one.
            _ => usize::from(self.in_flight() > waiting),
        };
        let want = lacking.max(self.plan.complete_min.min(self.in_flight() - waiting) * usize::from(lacking > 0));
        let mut taken = self.reap();
        while taken < want {
            self.still_there()?;
            if self.plan.mode == Mode::Interrupt && !self.drive.arm((want - taken) as u16) {
                self.host.wait();
                self.drive.woken();
            }
            self.host.step();
            taken += self.reap();
        }
        Ok(())
    }

    /// Whether it makes sense to go on waiting.
    fn still_there(&mut self) -> Result<(), String> {
        if let Some(violation) = self.drive.broken() {
            return Err(format!("the device broke its queue: {violation}"));
        }
        if let Some(why) = self.drive.despairs() {
            return Err(format!("{why} ({} requests in flight)", self.in_flight()));
        }
        if self.host.lost() {
            return Err(format!("the device is gone, with {} requests in flight", self.in_flight()));
        }
        Ok(())
    }

    fn reap(&mut self) -> usize {
        let clock = core::cell::OnceCell::new();
        let Self { drive, content, tally, flights, plan, host, .. } = self;
        let now = || *clock.get_or_init(|| host.now_ns());
        let mut streak = Streak::NONE;
        let taken = drive.reap(plan.complete_max, |token, ended| {
            let place = token as usize;
            let flight = flights.land(place).expect("a completion of what is in flight");
            let success = ended.is_ok();
            let sound = content.end(place, &flight.io, success);
            if !(success & sound) {
                tally.verify_errors += u64::from(!sound);
                if let Err(why) = ended {
                    note(tally, &flight.io, why, now());
                }
            }
            if success {
                streak.add(&flight, tally, now);
            }
        });
        streak.end(tally, now);
        taken
    }
}

/// Counts a request that failed.
#[cold]
fn note(tally: &mut Tally, io: &Io, why: Failure, now: u64) {
    let blame = why.blame();
    tally.failures.add(blame, now, || First::new(blame, io.op, io.lba, io.bytes, format_args!("{why}")));
}

/// What a batch came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Some work; perhaps none, until something completes.
    Some,
    /// The pattern has ended.
    Last,
}
