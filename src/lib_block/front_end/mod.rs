//! The front end: drains its clients' rings onto one queue, fairly, and posts what comes back.
//!
//! ```text
//! ring -> session (look, copy, admit) -> schedule (whose turn, how much) -> queue
//! ring <- session (post)              <- completion, by tag              <-
//! ```
//! One front end has one queue and the sessions whose affinity maps there; several run side by side and share nothing.
//! [`FrontEnd::serve`] never waits: it takes completions, gives every session its turns, and rings at most one doorbell
//! per client. [`FrontEnd::arm`] is the other half, before its thread sleeps. It knows no registers, no GPT and no
//! capability's origin; who may open sessions is decided by who holds its endpoint.
//!
//! What a client may not do is answered with its [`Status`], counted, and touches nobody else. A client whose indices
//! cannot be loses its session. A client that does not take its answers fills its own ring and is not served; one that
//! disappears leaves requests that the device still has, and its memory stays in use until they came back
//! ([`FrontEnd::close`]). Requests of one session that read into the same memory at once are the client's affair.
//!
//! A FLUSH goes to the device when it is its turn: it covers every write that was answered before, on every queue
//! (the medium has one cache), and waits for none.
mod control;
mod flight;
mod lent;
mod limits;
mod plain;
mod registry;
mod schedule;
mod session;

pub use lent::Lent;
pub use limits::MAX_BYTES;
pub use registry::{Access, Grant, MAX_MEMORIES};
pub use schedule::QUANTUM;
pub use session::SessionStatistics;

use super::ring::armed_before_last_look;
use super::{MAX_CREDIT, Status};
use crate::arena::{Arena, ArenaExhausted};
use crate::dma::{DeviceAddress, Segment};
use crate::lib_block::entry::Flags;
use crate::platform::Nanos;
use crate::queue::OwnedQueue;
use crate::request::Completion;
use crate::transport::Doorbell;
use flight::{Flight, Word};
use lent::List;
use limits::Limits;
use plain::Ready;
use schedule::Turn;
use session::{Life, Session};

/// Requests that are taken from one step to the next at a time.
const SCRATCH: usize = 32;

/// Most sessions of one front end.
pub const MAX_SESSIONS: u16 = 32;

/// Rings a client's doorbell.
pub trait Notify {
    /// The client of the session with this number ([`SessionId`](super::message::SessionId), lower 16 bits: the queue's
    /// number and the session's on it) is to look at its ring.
    fn ring(&self, session: u16);
}

/// How a front end is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The queue's number, which session numbers contain.
    pub queue: u8,
    /// Sessions, at most [`MAX_SESSIONS`].
    pub sessions: u16,
    /// Largest credit of a session: a power of two up to [`MAX_CREDIT`].
    pub credit: u16,
    /// Bytes that a round adds to a session of weight 1.
    pub quantum: u64,
    /// Most requests of one session that the device has; 0: any number. With fewer than all slots, one that asks for small
    /// requests may not get its share of bytes: those that ask for large ones fill the rest.
    pub cap_requests: u32,
    /// Most bytes of one session of weight 1 that the device has; one request is always let through.
    pub cap_bytes: u64,
}

impl Default for Options {
    /// Queue 0, 8 sessions with a credit of up to 256, a quantum of 128 KiB, a cap of 4 MiB.
    fn default() -> Self {
        Self { queue: 0, sessions: 8, credit: 256, quantum: QUANTUM, cap_requests: 0, cap_bytes: 4 << 20 }
    }
}

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that the device answered.
    pub completed: usize,
    /// Doorbells rung at clients.
    pub doorbells: u32,
}

/// Counts of a front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontStatistics {
    /// Entries and calls answered with success, of sessions that are or were last open.
    pub answered: u64,
    /// Answered with anything else.
    pub refused: u64,
    /// Sessions ended for what their client did.
    pub ended: u64,
    /// Rounds of the scheduler.
    pub rounds: u64,
    /// Doorbells rung at clients.
    pub doorbells: u64,
}

/// See the module's text.
pub struct FrontEnd<'m, D: Doorbell, N> {
    queue: Option<OwnedQueue<'m, Lent<'m>, D>>,
    sessions: &'m mut [Session<'m>],
    /// Requests between admission and queue.
    scratch: &'m mut [Ready],
    /// Tokens of requests that the device answered well, between queue and sessions.
    answered: &'m mut [u64],
    /// Whose turn is next.
    next: usize,
    /// That one's turn was cut short: it goes on with what it has.
    resumed: bool,
    /// Sessions that wait for their client's word.
    attaching: u16,
    notify: N,
    options: Options,
    epoch: u32,
    generation: u32,
    identity: [u8; 20],
    counted: FrontStatistics,
    /// What the driver's own request came to.
    own: Option<Status>,
}

impl<'m, D: Doorbell, N: Notify> FrontEnd<'m, D, N> {
    /// A front end without sessions over `queue`, its tables in `arena`, in the driver's life `epoch`.
    ///
    /// # Errors
    /// When the arena is too small.
    pub fn new(
        queue: OwnedQueue<'m, Lent<'m>, D>,
        notify: N,
        arena: &mut Arena<'m>,
        options: Options,
        epoch: u32,
    ) -> Result<Self, ArenaExhausted> {
        let credit = options.credit.clamp(2, MAX_CREDIT).next_power_of_two();
        let cap_requests = if options.cap_requests == 0 { u32::MAX } else { options.cap_requests };
        let sessions = options.sessions.clamp(1, MAX_SESSIONS);
        // So that any one request may start.
        let cap_bytes = options.cap_bytes.clamp(MAX_BYTES, 1 << 39);
        let options = Options { sessions, credit, cap_requests, cap_bytes, ..options };
        // The last flight is the calls'.
        let flights = usize::from(credit) + 1;
        let mut tables = arrayvec::ArrayVec::<_, { MAX_SESSIONS as usize }>::new();
        for _ in 0..sessions {
            let words = arena.place(flights, |_| Word::RESERVED)?;
            let own = arena.place(flights, |_| Flight::FREE)?;
            let lists = arena.place(flights, |_| List::new())?;
            let tags = arena.place(4 * usize::from(credit), |_| 0)?;
            tables.push((words, own, &*lists, tags));
        }
        let mut tables = tables.into_iter();
        let sessions = arena.place(usize::from(sessions), |at| {
            let (words, flights, lists, tags) = tables.next().expect("as many as sessions");
            Session::new(options.queue, at, (words, flights), lists, tags)
        })?;
        Ok(Self {
            queue: Some(queue),
            sessions,
            scratch: arena.place(SCRATCH, |_| Ready::NONE)?,
            answered: arena.place(SCRATCH, |_| 0)?,
            next: 0,
            resumed: false,
            attaching: 0,
            notify,
            options,
            epoch,
            generation: 0,
            identity: [0; 20],
            counted: FrontStatistics::default(),
            own: None,
        })
    }

    /// One pass: completions, turns, answers. `clock` is asked only if some request has a deadline.
    #[inline]
    pub fn serve(&mut self, clock: &impl Fn() -> Nanos) -> Served {
        if self.attaching > 0 {
            self.attach();
        }
        let completed = self.reap(clock);
        self.schedule(clock);
        Served { completed, doorbells: self.post() }
    }

    /// Takes what the device answered.
    #[inline(never)]
    fn reap(&mut self, clock: &impl Fn() -> Nanos) -> usize {
        let Self { queue: Some(queue), sessions, own, answered, .. } = self else { return 0 };
        let mut all = 0;
        loop {
            let common = queue.reap_common(answered);
            answer_all(sessions, own, &answered[..common], clock);
            all += common;
            if common < answered.len() {
                // The last, or one that is not common.
                let other = queue.reap(1, |completion| settle(sessions, own, &completion, clock));
                all += other;
                if other == 0 {
                    return all;
                }
            }
        }
    }

    /// Rounds of turns, until everybody is idle, blocked, or the queue is full.
    #[inline(always)]
    fn schedule(&mut self, clock: &impl Fn() -> Nanos) {
        let Self { queue: Some(queue), sessions, next, resumed, counted, scratch, .. } = self else { return };
        let mut batch = queue.batch();
        let count = sessions.len();
        let mut hungry = (1u64 << count).wrapping_sub(1) as u32;
        let mut at = *next;
        while hungry != 0 {
            let session = &mut sessions[at];
            let resumed_here = core::mem::take(resumed);
            if session.life == Life::Serving && hungry & 1 << at != 0 {
                if !resumed_here {
                    session.deficit += session.quantum;
                }
                match session.turn(&mut batch, (at as u64) << 16, scratch, clock) {
                    Ok(Turn::Spent) => {}
                    Ok(Turn::Full) => {
                        *resumed = true;
                        break;
                    }
                    Ok(Turn::Idle) => {
                        session.deficit = 0;
                        hungry &= !(1 << at);
                    }
                    Ok(Turn::Blocked) => {
                        session.deficit = session.deficit.min(session.quantum);
                        hungry &= !(1 << at);
                    }
                    Err(_) => {
                        session.break_off();
                        counted.ended += 1;
                        hungry &= !(1 << at);
                    }
                }
            } else {
                hungry &= !(1 << at);
            }
            at += 1;
            if at == count {
                at = 0;
                counted.rounds += 1;
            }
        }
        *next = at;
        batch.publish();
        if *resumed {
            take_in_all(sessions, counted);
        }
    }

    /// Shows every client its answers; how many doorbells that took.
    #[inline(always)]
    fn post(&mut self) -> u32 {
        let mut doorbells = 0;
        for session in self.sessions.iter_mut() {
            if session.end.as_mut().is_some_and(super::ring::ServerEnd::publish) {
                self.notify.ring(session.id.0 as u16);
                session.counted.doorbells += 1;
                doorbells += 1;
            }
            let id = session.id.0 as u16;
            if session.life == Life::Ending && session.vacate() {
                self.notify.ring(id);
            }
        }
        self.counted.doorbells += u64::from(doorbells);
        doorbells
    }

    /// Asks for an interrupt and for the clients' doorbells, and looks again. True: there is something to do, and
    /// nothing may come for it.
    ///
    /// The interrupt is asked for when as many answers are there as the most eager client waits for; with requests
    /// waiting, when one is.
    pub fn arm(&mut self) -> bool {
        for session in self.sessions.iter_mut().filter(|session| session.life == Life::Serving) {
            if let Some(end) = &mut session.end {
                end.arm();
            }
        }
        armed_before_last_look();
        let waiting = |session: &Session<'m>| {
            let unanswered = session.load.requests() + session.waiting;
            let ready = session.end.as_ref().is_some_and(|end| end.is_waiting(unanswered));
            session.life == Life::Serving && ready
        };
        if self.sessions.iter().any(waiting) || (self.attaching > 0 && self.attach()) {
            return true;
        }
        let want = self.wanted();
        self.queue.as_mut().is_some_and(|queue| queue.arm(want))
    }

    /// How many answers somebody waits for. A hint of the clients', believed because it is their own loss.
    fn wanted(&self) -> u16 {
        let each =
            self.sessions.iter().filter(|session| session.load.requests() + session.waiting > 0).map(|session| {
                let end = session.end.as_ref().filter(|_| session.waiting == 0 && !session.is_called());
                end.map_or(1, |end| end.wanted().clamp(1, session.load.requests()))
            });
        each.min().unwrap_or(1) as u16
    }

    /// Notes that the queue's interrupt came, and asks for no more of them while there is work.
    pub fn woken(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.note_interrupt();
            queue.disarm();
        }
    }

    /// Answers requests that wait beyond their deadline. To be called now and then; what is started or answered is
    /// looked at anyway.
    pub fn expire(&mut self, clock: &impl Fn() -> Nanos) {
        for session in self.sessions.iter_mut().filter(|session| session.timed > 0) {
            session.expire(clock);
        }
    }

    /// Looks whether clients go along by now; true: some do.
    #[cold]
    fn attach(&mut self) -> bool {
        let epoch = self.epoch;
        let mut came = 0;
        for session in self.sessions.iter_mut().filter(|session| session.life == Life::Attaching) {
            if session.end.as_mut().is_some_and(|end| end.acknowledged(epoch)) {
                session.life = Life::Serving;
                came += 1;
            }
        }
        self.attaching -= came;
        came > 0
    }
}

/// Takes in whatever clients have in their rings while the queue is full: so it can be withdrawn, it times out, and
/// nobody looks for it again before there is room.
#[cold]
fn take_in_all(sessions: &mut [Session<'_>], counted: &mut FrontStatistics) {
    for session in sessions.iter_mut().filter(|session| session.life == Life::Serving) {
        if session.take_in_ready().is_err() {
            session.break_off();
            counted.ended += 1;
        }
    }
}

/// Answers requests that the device did well. Neighbours are mostly of one session, which is looked up once.
#[inline(never)]
fn answer_all(sessions: &mut [Session<'_>], own: &mut Option<Status>, tokens: &[u64], clock: &impl Fn() -> Nanos) {
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        let number = first >> 16;
        let count = match sessions.get_mut(number as usize) {
            Some(session) => session.answer_common(number, rest),
            None => 0,
        };
        rest = &rest[count..];
        // Whoever it was that is not common.
        if let Some((token, after)) = rest.split_first()
            && (count == 0 || token >> 16 == number)
        {
            let completion = Completion { token: *token, result: Ok(()), buffer: None };
            settle(sessions, own, &completion, clock);
            rest = after;
        }
    }
}

/// Takes one completion that is not common to its session.
#[cold]
fn settle(
    sessions: &mut [Session<'_>],
    own: &mut Option<Status>,
    completion: &Completion<Lent<'_>>,
    clock: &impl Fn() -> Nanos,
) {
    match sessions.get_mut((completion.token >> 16) as usize) {
        // Our own token: the tag has a flight.
        Some(session) => session.finish(completion.token as u16, completion, clock),
        None => *own = Some(if completion.result.is_ok() { Status::Ok } else { Status::IoError }),
    }
}

impl Flight {
    const FREE: Self = Self {
        flags: Flags(0),
        pieces: 0,
        sectors: 0,
        sector: 0,
        piece: Segment::new(DeviceAddress(0), 0),
        deadline: 0,
    };
}
