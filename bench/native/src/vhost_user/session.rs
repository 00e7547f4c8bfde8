//! The driver's life over a back-end that may die: up, lost, up again over the same queue memory.
//!
//! ```text
//! start -> running -- stop (back-end lost, or wished) --> stopped -- reclaim, resume --> running
//! ```
//! [`Session::stop`] ends when the back-end let go of the memory; against [`Session::proof`] any queue gives its requests
//! back; [`Session::resume`] reconnects if need be and starts the same memory. [`Session::park`] and [`Parked::resume`]
//! are these steps for queues with one owner, with what was in flight failed or replayed as [`OnLoss`] says.
//!
//! What a replay cannot bring back: a write that was answered and not flushed may have been in the dead back-end's cache.
//! With a write-back cache a loss is a power loss, also when every request in flight is replayed; whoever cares keeps
//! writes until a FLUSH that was submitted after them is answered, and fails a FLUSH that was in flight instead of
//! replaying it (the new back-end would answer for the old one's cache).
//!
//! It refuses to know what requests mean, and who waits for them.
use super::connection::Connection;
use super::error::{ConnectError, ControlError};
use super::transport::VhostUser;
use crate::event::Kick;
use drv_virtio_block::device::{
    BringUpError, Failed, Negotiated, Offline, Quiesced, Running, Stopped, Unsettled, Wishes,
};
use drv_virtio_block::dma::Buffer;
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::platform::Platform;
use drv_virtio_block::queue::{OwnedQueue, PrepareError, Prepared};
use drv_virtio_block::request::{Completion, Refused, Request};
use drv_virtio_block::transport::{QueueId, RingAddresses, TransportError};
use std::fmt;
use std::time::Duration;

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// No back-end could be connected to.
    Connect(ConnectError),
    /// The device could not be brought up or reset; and why the back-end was lost, if it was.
    Device(BringUpError, Option<ControlError>),
    /// A queue could not be laid out.
    Prepare(PrepareError),
    /// The back-end that came back is another device: other features, limits or queues. Start anew, with new queues.
    Changed,
    /// The step does not fit: the device is not stopped, or not running.
    OutOfStep,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => why.fmt(f),
            Self::Device(BringUpError::Transport(TransportError::Gone), Some(why)) => why.fmt(f),
            Self::Device(why, Some(lost)) => write!(f, "{why} ({lost})"),
            Self::Device(why, None) => why.fmt(f),
            Self::Prepare(why) => why.fmt(f),
            Self::Changed => f.write_str(
                "the back-end that came back is another device; start it with the options it had, or start anew",
            ),
            Self::OutOfStep => f.write_str("the device is not in the state for this step"),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<ConnectError> for SessionError {
    fn from(why: ConnectError) -> Self {
        Self::Connect(why)
    }
}

/// Where the device stands.
#[allow(clippy::large_enum_variant, reason = "one a session")]
enum State<'g> {
    Running(Running<'g, VhostUser>),
    Stopped(Stopped<'g, VhostUser>),
    Unsettled(Unsettled<'g, VhostUser>),
    /// Only while a step is taken, or after one that panicked.
    Between,
}

/// A device over one connection and those that follow it.
pub struct Session<'g> {
    connection: Connection,
    wishes: Wishes,
    grants: Vec<InterruptGrant>,
    state: State<'g>,
}

impl<'g> Session<'g> {
    /// Brings the device up. `place` is where its facts go; `lay_out` lays each queue out, of at most so many descriptors,
    /// in memory that the connection was opened with. Returns the queues in the order of their numbers.
    ///
    /// # Errors
    /// The first thing that went wrong. The device was told to stop then; should it not have answered, the memory must
    /// not be used again.
    pub fn start<B: Buffer>(
        connection: &Connection,
        transport: VhostUser,
        platform: &impl Platform,
        wishes: &Wishes,
        place: &'g mut Option<Geometry>,
        mut lay_out: impl FnMut(QueueId, u16, &'g Geometry) -> Result<Prepared<'g, B>, PrepareError>,
    ) -> Result<(Self, Vec<Prepared<'g, B>>), SessionError> {
        let grants = connection.grants();
        let device = match Offline::new(transport).negotiate(platform, wishes, &grants, place) {
            Ok(device) => device,
            Err(failed) => return Err(SessionError::Device(failed.why, connection.lost())),
        };
        let geometry = device.geometry();
        let prepared: Result<Vec<_>, _> = device.queues().map(|(id, size)| lay_out(id, size, geometry)).collect();
        let prepared = prepared.map_err(SessionError::Prepare)?;
        let mut session = Self { connection: connection.clone(), wishes: *wishes, grants, state: State::Between };
        session.run(device, &addresses(&prepared)).inspect_err(|_| {
            let _ = session.stop(platform);
        })?;
        Ok((session, prepared))
    }

    /// Programs every queue and starts.
    fn run(&mut self, device: Negotiated<'g, VhostUser>, rings: &[RingAddresses]) -> Result<(), SessionError> {
        if device.queues().len() != rings.len() {
            self.state = State::Unsettled(device.abandon());
            return Err(SessionError::Changed);
        }
        let mut queues = device.queues().zip(rings);
        let programmed = queues.try_fold(device, |device, ((id, _), rings)| device.program(id, rings));
        match programmed.and_then(Negotiated::start) {
            Ok(running) => {
                self.state = State::Running(running);
                Ok(())
            }
            Err(failed) => Err(self.unsettled(failed)),
        }
    }

    fn unsettled(&mut self, failed: Failed<Unsettled<'g, VhostUser>>) -> SessionError {
        self.state = State::Unsettled(failed.device);
        match failed.why {
            BringUpError::Changed => SessionError::Changed,
            why => SessionError::Device(why, self.connection.lost()),
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The device while it runs.
    pub fn running(&mut self) -> Option<&mut Running<'g, VhostUser>> {
        if let State::Running(running) = &mut self.state { Some(running) } else { None }
    }

    /// The doorbell of a queue.
    ///
    /// # Errors
    /// When the device does not run, or has no such queue.
    pub fn doorbell(&mut self, queue: QueueId) -> Result<Kick, SessionError> {
        let running = self.running().ok_or(SessionError::OutOfStep)?;
        running.doorbell(queue).map_err(|why| SessionError::Device(why.into(), self.connection.lost()))
    }

    /// Stops the device, or waits until a back-end that is gone has let go of the memory.
    ///
    /// # Errors
    /// When neither happens in time; it can be asked again, and nothing that the device knows is to be used before.
    pub fn stop(&mut self, platform: &impl Platform) -> Result<(), SessionError> {
        let stopped = match std::mem::replace(&mut self.state, State::Between) {
            State::Running(running) => running.reset(platform),
            State::Unsettled(device) => device.quiesce(platform),
            State::Stopped(stopped) => Ok(stopped),
            State::Between => return Err(SessionError::OutOfStep),
        };
        match stopped {
            Ok(stopped) => {
                self.state = State::Stopped(stopped);
                Ok(())
            }
            Err(failed) => Err(self.unsettled(failed)),
        }
    }

    /// What queues are reclaimed against, while the device is stopped.
    pub fn proof(&self) -> Option<Quiesced<'_>> {
        if let State::Stopped(stopped) = &self.state { Some(stopped.proof()) } else { None }
    }

    /// Starts the stopped device again over the same queues, with a new connection if the old one is lost: for that a
    /// back-end may take `bound` to come back.
    ///
    /// # Errors
    /// [`SessionError::Connect`] when none came, [`SessionError::Changed`] when another one did. The device can be
    /// stopped and resumed again.
    pub fn resume(
        &mut self,
        platform: &impl Platform,
        rings: &[RingAddresses],
        bound: Duration,
    ) -> Result<(), SessionError> {
        if !matches!(self.state, State::Stopped(_)) {
            return Err(SessionError::OutOfStep);
        }
        if self.connection.lost().is_some() {
            self.connection.reconnect_within(bound)?;
        }
        let State::Stopped(stopped) = std::mem::replace(&mut self.state, State::Between) else {
            return Err(SessionError::OutOfStep);
        };
        match stopped.negotiate(platform, &self.wishes, &self.grants) {
            Ok(device) => self.run(device, rings),
            Err(failed) => Err(self.unsettled(failed)),
        }
    }

    /// Stops the device and takes the queues out of service. Requests that were answered before complete as usual; what
    /// was in flight fails or is kept for [`Parked::resume`], as `on_loss` says. `sink` gets all completions.
    ///
    /// # Errors
    /// As [`Session::stop`]; `queues` are as they were, else empty.
    pub fn park<B: Buffer>(
        &mut self,
        platform: &impl Platform,
        queues: &mut Vec<OwnedQueue<'g, B, Kick>>,
        mut on_loss: OnLoss<'_, B>,
        mut sink: impl FnMut(QueueId, Completion<B>),
    ) -> Result<Parked<'g, B>, SessionError> {
        self.stop(platform)?;
        let proof = self.proof().ok_or(SessionError::OutOfStep)?;
        let mut parked = Parked { queues: Vec::new(), requests: Vec::new() };
        for (id, mut queue) in queues.drain(..).enumerate().map(|(n, queue)| (QueueId(n as u16), queue)) {
            queue.reap(usize::MAX, |completion| sink(id, completion));
            let prepared = queue.reclaim(&proof, |lost| match on_loss.decide(lost) {
                Ok(request) => parked.requests.push((id, request)),
                Err(completion) => sink(id, completion),
            });
            // The proof is of this session's device; a queue of another one stays that device's, out of use.
            parked.queues.push(prepared.ok_or(SessionError::OutOfStep)?);
        }
        Ok(parked)
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Running(_) => "running",
            State::Stopped(_) => "stopped",
            State::Unsettled(_) | State::Between => "unsettled",
        };
        f.debug_struct("Session").field("connection", &self.connection).field("state", &state).finish_non_exhaustive()
    }
}

/// What becomes of requests that were in flight when a back-end died.
pub enum OnLoss<'f, B> {
    /// They fail with [`Gone::Reset`](drv_virtio_block::request::Gone::Reset).
    Fail,
    /// The caller says, by token and buffer, what was asked, and it is asked again; or hands the completion back to let
    /// that one fail.
    Replay(&'f mut dyn FnMut(Completion<B>) -> Result<Request<B>, Completion<B>>),
}

impl<B> OnLoss<'_, B> {
    fn decide(&mut self, lost: Completion<B>) -> Result<Request<B>, Completion<B>> {
        match self {
            Self::Fail => Err(lost),
            Self::Replay(again) => again(lost),
        }
    }
}

impl<B> fmt::Debug for OnLoss<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Fail) { "Fail" } else { "Replay" })
    }
}

/// Queues out of service, and the requests that wait for them to come back.
#[derive(Debug)]
pub struct Parked<'g, B> {
    queues: Vec<Prepared<'g, B>>,
    requests: Vec<(QueueId, Request<B>)>,
}

/// Queues in service again.
pub struct Resumed<'g, B: Buffer> {
    /// The queues, in the order of their numbers; replayed requests are in flight.
    pub queues: Vec<OwnedQueue<'g, B, Kick>>,
    /// Requests that could not be replayed: for want of a slot
    /// ([`Full`](drv_virtio_block::request::Refusal::Full): submit them later), or because they do not fit the device
    /// any more.
    pub refused: Vec<(QueueId, Refused<B>)>,
}

impl<'g, B: Buffer> Parked<'g, B> {
    /// Where the rings are, for a [`Session::resume`] by hand.
    pub fn addresses(&self) -> Vec<RingAddresses> {
        addresses(&self.queues)
    }

    /// Brings the device up again, waiting at most `bound` for a back-end, and replays what is to be replayed.
    ///
    /// # Errors
    /// As [`Session::resume`]; queues and requests stay parked, and it can be tried again after a [`Session::stop`].
    pub fn resume(
        &mut self,
        session: &mut Session<'g>,
        platform: &impl Platform,
        bound: Duration,
    ) -> Result<Resumed<'g, B>, SessionError> {
        session.resume(platform, &self.addresses(), bound)?;
        let ids = (0..self.queues.len() as u16).map(QueueId);
        let bells = ids.map(|id| session.doorbell(id)).collect::<Result<Vec<_>, _>>()?;
        let queues = self.queues.drain(..).zip(bells).map(|(queue, bell)| queue.owned(bell)).collect();
        let mut resumed = Resumed { queues, refused: Vec::new() };
        for (id, request) in self.requests.drain(..) {
            if let Err(refused) = resumed.queues[usize::from(id.0)].submit(request) {
                resumed.refused.push((id, refused));
            }
        }
        Ok(resumed)
    }
}

fn addresses<B: Buffer>(queues: &[Prepared<'_, B>]) -> Vec<RingAddresses> {
    queues.iter().map(Prepared::addresses).collect()
}
