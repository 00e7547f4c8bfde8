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
use crate::geometry::Geometry;
use crate::lib_block::entry::Flags;
use crate::platform::Nanos;
use crate::queue::{OwnedQueue, Prepared};
use crate::request::Error;
use crate::transport::Doorbell;
use flight::{Flight, Load, Word};
use lent::List;
use limits::Limits;
use plain::Ready;
use schedule::Turn;
use session::{Life, Session};

/// Requests that are taken from one step to the next at a time.
const SCRATCH: usize = 32;

/// Most sessions of one front end.
pub const MAX_SESSIONS: u16 = 32;

/// Most bytes that a round may add to a session of weight 1: the largest credit, of the largest requests. More would not
/// start more.
const MAX_QUANTUM: u64 = MAX_CREDIT as u64 * MAX_BYTES;

/// Rings a client's doorbell.
///
/// A `ring` that panics has rung: the front end does not ring again. Where the panic is caught the front end can be
/// used on; the next pass does what was left.
pub trait Notify {
    /// The client of the session with this number ([`SessionId`](super::message::SessionId), lower 16 bits: the queue's
    /// number and the session's on it) is to look at its ring.
    fn ring(&self, session: u16);
}

/// How a front end is laid out. Whatever is out of bounds counts as the nearest value within.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The queue's number, which session numbers contain.
    pub queue: u8,
    /// Sessions, from 1 to [`MAX_SESSIONS`].
    pub sessions: u16,
    /// Largest credit of a session: a power of two from 2 to [`MAX_CREDIT`].
    pub credit: u16,
    /// Bytes that a round adds to a session of weight 1: from 4 KiB, which the smallest request counts as, to 1 GiB.
    pub quantum: u64,
    /// Most requests of one session that the device has; 0: any number. With fewer than all slots, one that asks for small
    /// requests may not get its share of bytes: those that ask for large ones fill the rest.
    pub cap_requests: u32,
    /// Most bytes of one session of weight 1 that the device has: from [`MAX_BYTES`], so that any one request may start,
    /// to 512 GiB.
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

impl Options {
    /// The options with each within its bounds.
    fn bounded(self) -> Self {
        let requests = if self.cap_requests == 0 { u32::MAX } else { self.cap_requests };
        Self {
            queue: self.queue,
            sessions: self.sessions.clamp(1, MAX_SESSIONS),
            credit: self.credit.clamp(2, MAX_CREDIT).next_power_of_two(),
            quantum: self.quantum.clamp(plain::LEAST, MAX_QUANTUM),
            cap_requests: requests.min(Load::MAX_REQUESTS),
            cap_bytes: self.cap_bytes.clamp(MAX_BYTES, Load::MAX_BYTES),
        }
    }
}

/// See the module's text.
///
/// What the device answered the front end takes from its own queue. A completion that somebody else makes would free
/// memory that the device still has, so there is no way to hand one in:
/// ```compile_fail,E0599
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Notify};
/// use drv_virtio_block::{platform::Nanos, request::Completion};
/// # use drv_virtio_block::transport::Doorbell;
/// fn invent<D: Doorbell, N: Notify>(front: &mut FrontEnd<'_, D, N>) {
///     let done = Completion { token: 0, result: Ok(()), buffer: None };
///     front.give_back(&done, &|| Nanos(0));
/// }
/// ```
/// Nor can the queue be taken away while the device has requests, or requests be begun that no session answers for:
/// ```compile_fail,E0599
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Notify};
/// # use drv_virtio_block::transport::Doorbell;
/// fn take<D: Doorbell, N: Notify>(front: &mut FrontEnd<'_, D, N>) {
///     let queue = front.take_queue();
/// }
/// ```
/// ```compile_fail,E0599
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Notify};
/// use drv_virtio_block::request::Request;
/// # use drv_virtio_block::transport::Doorbell;
/// fn begin<D: Doorbell, N: Notify>(front: &mut FrontEnd<'_, D, N>) {
///     front.begin_own(Request::flush());
/// }
/// ```
/// ```compile_fail,E0616
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Notify};
/// use drv_virtio_block::request::Request;
/// # use drv_virtio_block::transport::Doorbell;
/// fn submit<D: Doorbell, N: Notify>(front: &mut FrontEnd<'_, D, N>) {
///     front.queue.as_mut().map(|queue| queue.submit(Request::flush()));
/// }
/// ```
/// ```compile_fail,E0596
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Notify};
/// # use drv_virtio_block::transport::Doorbell;
/// fn reap<D: Doorbell, N: Notify>(front: &mut FrontEnd<'_, D, N>) {
///     front.queue().map(|queue| queue.reap(1, drop));
/// }
/// ```
pub struct FrontEnd<'m, D: Doorbell, N> {
    queue: Option<OwnedQueue<'m, Lent<'m>, D>>,
    /// The facts of the only device that what the sessions registered is good for.
    geometry: &'m Geometry,
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
    own: Own,
    /// A pass began and did not end: something that it called panicked, and there is more to do.
    unfinished: bool,
}

/// The driver's own requests, of which one at a time counts: the last.
#[derive(Default)]
struct Own {
    /// The number of the last.
    number: u16,
    outcome: Option<Status>,
}

impl Own {
    /// Tokens of these requests: no session's number above the request's.
    const TOKENS: u64 = u64::MAX << 16;

    /// The token of another request. What becomes of an earlier one is nobody's any more.
    fn begin(&mut self) -> u64 {
        (self.number, self.outcome) = (self.number.wrapping_add(1), None);
        Self::TOKENS | u64::from(self.number)
    }

    fn settle(&mut self, number: u16, result: Result<(), Error>) {
        if number == self.number {
            self.outcome = Some(if result.is_ok() { Status::Ok } else { Status::IoError });
        }
    }
}

impl<'m, D: Doorbell, N: Notify> FrontEnd<'m, D, N> {
    /// A front end without sessions over `queue`, which the device knows, and its doorbell; its tables in `arena`, in
    /// the driver's life `epoch`, of which there are those from 1 on.
    ///
    /// # Errors
    /// When the arena is too small.
    pub fn new(
        queue: Prepared<'m, Lent<'m>>,
        doorbell: D,
        notify: N,
        arena: &mut Arena<'m>,
        options: Options,
        epoch: u32,
    ) -> Result<Self, ArenaExhausted> {
        let options = options.bounded();
        let Options { sessions, credit, .. } = options;
        let queue = queue.owned(doorbell);
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
            geometry: queue.geometry(),
            queue: Some(queue),
            sessions,
            scratch: arena.place(SCRATCH, |_| Ready::NONE)?,
            answered: arena.place(SCRATCH, |_| 0)?,
            next: 0,
            resumed: false,
            attaching: 0,
            notify,
            options,
            epoch: epoch.max(1),
            generation: 0,
            identity: [0; 20],
            counted: FrontStatistics::default(),
            own: Own::default(),
            unfinished: false,
        })
    }

    /// One pass: completions, turns, answers. `clock` is asked only if some request has a deadline.
    ///
    /// Doorbells and `clock` may panic. Whoever catches that can go on: every request is answered once, and
    /// [`FrontEnd::arm`] says that there is more to do.
    #[inline]
    pub fn serve(&mut self, clock: &impl Fn() -> Nanos) -> Served {
        self.unfinished = true;
        if self.attaching > 0 {
            self.attach();
        }
        let completed = self.reap(clock);
        self.schedule(clock);
        let doorbells = self.post();
        self.unfinished = false;
        Served { completed, doorbells }
    }

    /// Takes what the device answered.
    #[inline(never)]
    fn reap(&mut self, clock: &impl Fn() -> Nanos) -> usize {
        let Self { queue: Some(queue), sessions, own, answered, .. } = self else { return 0 };
        let mut all = 0;
        loop {
            let common = queue.reap_common(answered);
            Unanswered { sessions, own, tokens: &answered[..common], result: Ok(()) }.answer_all(clock);
            all += common;
            if common < answered.len() {
                // The last, or one that is not common.
                let mut other = None;
                queue.reap(1, |completion| other = Some((completion.token, completion.result)));
                let Some((token, result)) = other else { return all };
                Unanswered { sessions, own, tokens: &[token], result }.answer_first(clock);
                all += 1;
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
                session.counted.doorbells += 1;
                self.counted.doorbells += 1;
                doorbells += 1;
                self.notify.ring(session.id.0 as u16);
            }
            let id = session.id.0 as u16;
            if session.life == Life::Ending && session.vacate() {
                self.notify.ring(id);
            }
        }
        doorbells
    }

    /// Asks for an interrupt and for the clients' doorbells, and looks again. True: there is something to do, and
    /// nothing may come for it.
    ///
    /// The interrupt is asked for when as many answers are there as the most eager client waits for; with requests
    /// waiting, when one is.
    pub fn arm(&mut self) -> bool {
        if self.unfinished {
            return true;
        }
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

/// Answers that the queue handed out and no client was told of yet, all with one result.
///
/// The drop tells of those that are left. That is so when a clock panics: the queue has them no more, so that nobody
/// else could.
struct Unanswered<'f, 'm> {
    sessions: &'f mut [Session<'m>],
    own: &'f mut Own,
    tokens: &'f [u64],
    result: Result<(), Error>,
}

impl Unanswered<'_, '_> {
    /// Answers requests that the device did well. Neighbours are mostly of one session, which is looked up once.
    #[inline(never)]
    fn answer_all(mut self, clock: &impl Fn() -> Nanos) {
        while let Some(first) = self.tokens.first() {
            let number = first >> 16;
            let count = match self.sessions.get_mut(number as usize) {
                Some(session) => session.answer_common(number, self.tokens),
                None => 0,
            };
            self.tokens = &self.tokens[count..];
            // Whoever it was that is not common.
            if self.tokens.first().is_some_and(|token| count == 0 || token >> 16 == number) {
                self.answer_first(clock);
            }
        }
    }

    /// Answers the first, whatever it is.
    #[cold]
    fn answer_first(&mut self, clock: &impl Fn() -> Nanos) {
        let Some((token, rest)) = self.tokens.split_first() else { return };
        match self.sessions.get_mut((token >> 16) as usize) {
            // Our own token: the tag has a flight.
            Some(session) => session.finish(*token as u16, self.result, clock),
            None => self.own.settle(*token as u16, self.result),
        }
        self.tokens = rest;
    }

    #[cold]
    fn answer_rest(&mut self) {
        while !self.tokens.is_empty() {
            // Nothing is late at the origin of time.
            self.answer_first(&|| Nanos(0));
        }
    }
}

impl Drop for Unanswered<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.tokens.is_empty() {
            self.answer_rest();
        }
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
