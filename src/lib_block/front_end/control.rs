//! What is rare: sessions opened and closed, memory registered, calls, and the queue taken away for a reset.
//!
//! None of it waits: closing begins here and is over when [`FrontEnd::is_open`] says so, a call is over when
//! [`FrontEnd::call_outcome`] has it. Whoever serves goes on serving meanwhile.
use super::flight::Place;
use super::session::Life;
use super::{FrontEnd, FrontStatistics, Grant, Lent, Limits, Notify, Session, SessionStatistics, Unanswered};
use crate::device::Quiesced;
use crate::dma::{DmaBlock, Segment};
use crate::geometry::Geometry;
use crate::lib_block::entry::{Data, Flags, MemoryId, Operation, Piece, Submission};
use crate::lib_block::message::{Body, Given, Info, Opened, Opening, SessionId};
use crate::lib_block::ring::{ServerRings, Stage};
use crate::lib_block::{Status, VERSION, ring};
use crate::platform::Nanos;
use crate::queue::{OwnedQueue, Prepared};
use crate::request::Request;
use crate::spec::ID_BYTES;
use crate::transport::Doorbell;
use core::mem;

/// Largest share of one session.
const MAX_WEIGHT: u16 = 64;

impl<'m, D: Doorbell, N: Notify> FrontEnd<'m, D, N> {
    /// Opens a session over `rings`. The client is invited, goes along with the epoch, and is served from there on.
    ///
    /// After a restart the client's requests may be here before anybody could register its memory again: `known` is what
    /// it had, under the numbers that it had. It is not looked at if the opening is refused for another reason. If the
    /// client's doorbell panics there is no session: it ends with the next pass.
    ///
    /// # Errors
    /// [`Status::Unsupported`] for another version, [`Status::InvalidArgument`] for a credit that is not the rings'
    /// size or too large and for a weight out of bounds, [`Status::OutOfRange`] for extents beyond the medium,
    /// [`Status::Busy`] when there is no session left, [`Status::Gone`] without a device.
    pub fn open(
        &mut self,
        opening: &Opening,
        rings: ServerRings<'m>,
        known: impl IntoIterator<Item = (MemoryId, Grant<'m>)>,
    ) -> Result<Opened, Status> {
        if opening.version != VERSION {
            return Err(Status::Unsupported);
        }
        let credit = u32::from(opening.credit);
        let fits = credit == rings.size() && credit <= u32::from(self.options.credit) && ring::is_size(opening.credit);
        if !fits || opening.weight == 0 || opening.weight > MAX_WEIGHT {
            return Err(Status::InvalidArgument);
        }
        let geometry = self.queue.as_ref().ok_or(Status::Gone)?.geometry();
        let limits = Limits::of(geometry);
        let blocks = geometry.capacity() >> limits.sector_shift;
        let beyond = |end: Option<u64>| end.is_none_or(|end| end > blocks);
        if opening.capability.extents().is_empty() || opening.capability.extents().iter().any(|e| beyond(e.end())) {
            return Err(Status::OutOfRange);
        }
        let (epoch, options) = (self.epoch, self.options);
        let info = limits.info(geometry, opening.capability.blocks(), self.generation, epoch, self.identity);
        let session = self.sessions.iter_mut().find(|session| session.life == Life::Vacant).ok_or(Status::Busy)?;
        session.open(opening, rings, limits, &options, epoch);
        for (id, grant) in known {
            if let Err(status) = session.registry.register_as(id, grant) {
                session.give_up();
                return Err(status);
            }
        }
        session.invite();
        self.attaching += 1;
        let session = session.id;
        let invited = Invited { front: self, session };
        invited.front.notify.ring(session.0 as u16);
        mem::forget(invited);
        Ok(Opened { session, credit: opening.credit, queue: u16::from(self.options.queue), info })
    }

    /// Begins to end a session: nothing more is taken, what waits is answered with [`Status::Gone`], what the device
    /// has comes back first. Its memory may be taken away when [`FrontEnd::is_open`] says no.
    ///
    /// # Errors
    /// [`Status::NotFound`].
    pub fn close(&mut self, id: SessionId) -> Result<(), Status> {
        let session = self.session(id)?;
        let attaching = session.life == Life::Attaching;
        session.wind_up(Stage::Ended);
        self.attaching -= u16::from(attaching);
        Ok(())
    }

    /// Whether the session is open, or its requests are not all back.
    pub fn is_open(&self, id: SessionId) -> bool {
        self.find(id).is_some()
    }

    /// Makes memory known to a session.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::Busy`] when the session has [`MAX_MEMORIES`](super::MAX_MEMORIES) already,
    /// [`Status::InvalidArgument`] for none at all.
    pub fn register(&mut self, id: SessionId, grant: Grant<'m>) -> Result<MemoryId, Status> {
        self.session(id)?.registry.register(grant)
    }

    /// Forgets memory; its grant ends with the success.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::Busy`] while an unanswered request names it.
    pub fn unregister(&mut self, id: SessionId, memory: MemoryId) -> Result<(), Status> {
        let session = self.session(id)?;
        let bit = session.registry.bit(memory).ok_or(Status::NotFound)?;
        if session.names(bit) {
            return Err(Status::Busy);
        }
        session.registry.forget(memory)
    }

    /// What the session's device is.
    ///
    /// # Errors
    /// [`Status::NotFound`], [`Status::Gone`] without a device.
    pub fn info(&self, id: SessionId) -> Result<Info, Status> {
        let geometry = self.queue.as_ref().ok_or(Status::Gone)?.geometry();
        let session = self.find(id).ok_or(Status::NotFound)?;
        Ok(session.limits.info(geometry, session.blocks(), self.generation, self.epoch, self.identity))
    }

    /// Begins a READ, WRITE or FLUSH call with the buffer granted beside it, in its turn like the session's others.
    ///
    /// # Errors
    /// What a ring entry would be answered with; [`Status::Busy`] while another call of the session is unanswered, and
    /// while its client does not go along with the epoch; [`Status::Gone`] for a session that is ending;
    /// [`Status::InvalidArgument`] for another call and without a buffer that is large enough.
    pub fn begin_call(&mut self, id: SessionId, body: &Body, grant: Option<Grant<'m>>) -> Result<(), Status> {
        let session = self.session(id)?;
        match session.life {
            Life::Serving => {}
            // It would wait for the client, or for ever.
            Life::Attaching => return Err(Status::Busy),
            Life::Ending | Life::Vacant => return Err(Status::Gone),
        }
        let (operation, lba, blocks, flags) = match *body {
            Body::Read { lba, blocks } => (Operation::Read, lba, blocks, Flags(0)),
            Body::Write { lba, blocks, fua } => {
                (Operation::Write, lba, blocks, if fua { Flags::FUA } else { Flags(0) })
            }
            Body::Flush => (Operation::Flush, 0, 0, Flags(0)),
            _ => return Err(Status::InvalidArgument),
        };
        if operation.has_data() && (blocks == 0 || u64::from(blocks) > session.limits.max_blocks) {
            return Err(Status::InvalidArgument);
        }
        let piece: Option<Segment> = if operation.has_data() {
            let bytes = blocks << session.limits.block_shift;
            let front = grant.and_then(|grant| grant.front(bytes, operation == Operation::Read));
            Some(front.ok_or(Status::InvalidArgument)?)
        } else {
            None
        };
        let data = piece.map_or(Data::None, |piece| Data::One(Piece { len: piece.len(), ..Piece::default() }));
        let wish = Submission { flags, blocks, data, ..Submission::new(operation, lba) };
        session.admit_call(&wish, piece)?;
        // What an earlier call came to, and nobody waited for.
        session.called = None;
        let tag = session.call_tag();
        session.wait(tag);
        Ok(())
    }

    /// What the session's call came to, once.
    pub fn call_outcome(&mut self, id: SessionId) -> Option<Result<Given, Status>> {
        let (status, bytes) = self.session(id).ok()?.called.take()?;
        Some(if status.is_ok() { Ok(Given::Moved(bytes)) } else { Err(status) })
    }

    /// Withdraws the session's call, so that its outcome is nobody's; false: the device has it.
    pub fn withdraw_call(&mut self, id: SessionId) -> bool {
        let Ok(session) = self.session(id) else { return true };
        let tag = session.call_tag();
        let word = session.words[usize::from(tag)];
        if word.is(Place::Waiting) {
            session.withdraw(tag, Status::Gone);
            session.called = None;
        }
        word.is(Place::Reserved) || word.is(Place::Waiting)
    }

    /// When the first of the requests that wait is of no use any more.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let timed = self.sessions.iter().filter(|session| session.timed > 0);
        let flights = timed.flat_map(|session| session.words.iter().zip(session.flights.iter()));
        let waiting = flights.filter(|(word, flight)| word.is(Place::Waiting) && flight.deadline != 0);
        waiting.map(|(_, flight)| Nanos(flight.deadline)).min()
    }

    /// Sets what GET INFO says beside the device's facts.
    pub fn describe(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Sets the device's own name.
    pub fn identify(&mut self, identity: [u8; 20]) {
        self.identity = identity;
    }

    /// Begins a request of the driver's own. False: the queue has no slot, or there is none.
    fn begin(&mut self, request: Request<Lent<'m>>) -> bool {
        let Self { queue: Some(queue), own, .. } = self else { return false };
        queue.submit(request.with_token(own.begin())).is_ok()
    }

    /// Begins a FLUSH of the driver's own: it covers what was answered before. False: the queue has no slot, or there is
    /// none. [`FrontEnd::own_outcome`] says what came of it, unless another was begun meanwhile.
    pub fn begin_flush(&mut self) -> bool {
        self.begin(Request::flush())
    }

    /// As [`FrontEnd::begin_flush`]: asks the device for its own name, to be written at the beginning of `block`, whose
    /// memory is not used otherwise from here on.
    pub(crate) fn begin_identity(&mut self, block: &DmaBlock<'m>) -> bool {
        let name = Segment::new(block.device_address(), ID_BYTES);
        block.len() >= ID_BYTES as usize && self.begin(Request::get_id(Lent::one(name)))
    }

    /// What the driver's own request came to, once.
    pub fn own_outcome(&mut self) -> Option<Status> {
        self.own.outcome.take()
    }

    /// Begins to end every session, in order: their clients are told that the driver stopped once they have every
    /// answer.
    pub fn wind_up(&mut self) {
        self.attaching = 0;
        for session in &mut *self.sessions {
            session.wind_up(Stage::Stopped);
        }
    }

    /// Whether some session is open, or not all back.
    pub fn is_busy(&self) -> bool {
        self.sessions.iter().any(|session| session.life != Life::Vacant)
    }

    /// Sessions that are open, or not all back.
    pub fn sessions(&self) -> u16 {
        self.sessions.iter().filter(|session| session.life != Life::Vacant).count() as u16
    }

    /// Takes everything back from a device that was reset, and answers it with [`Status::Reset`] (or
    /// [`Status::TimedOut`]); the queue as new, for [`FrontEnd::resume`]. Without a queue nothing begins, and what comes
    /// in waits. `None`, with nothing changed: the proof is of another device's reset, or there is no queue. `clock` is
    /// asked first.
    pub fn reclaim(&mut self, proof: &Quiesced<'_>, clock: &impl Fn() -> Nanos) -> Option<Prepared<'m, Lent<'m>>> {
        if !proof.covers(self.geometry) {
            return None;
        }
        let now = clock();
        let queue = self.queue.take()?;
        let Self { sessions, own, .. } = self;
        queue.reclaim(proof, |completion| {
            let tokens = &[completion.token];
            Unanswered { sessions, own, tokens, result: completion.result }.answer_first(&|| now);
        })
    }

    /// Goes on over a queue of the same device, which knows it.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] when it was laid out for another device, which could not reach the sessions' memory;
    /// [`Status::Busy`] when there is a queue. The queue is lost then.
    pub fn resume(&mut self, queue: Prepared<'m, Lent<'m>>, doorbell: D) -> Result<(), Status> {
        if self.queue.is_some() {
            return Err(Status::Busy);
        }
        if !queue.is_for(self.geometry) {
            return Err(Status::InvalidArgument);
        }
        self.queue = Some(queue.owned(doorbell));
        Ok(())
    }

    /// Whether the device broke the queue.
    pub fn is_broken(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.broken().is_some())
    }

    /// The queue, to look at.
    pub fn queue(&self) -> Option<&OwnedQueue<'m, Lent<'m>, D>> {
        self.queue.as_ref()
    }

    /// The device's facts.
    pub fn geometry(&self) -> Option<&'m Geometry> {
        self.queue.as_ref().map(OwnedQueue::geometry)
    }

    /// The counters.
    pub fn statistics(&self) -> FrontStatistics {
        let mut counted = self.counted;
        for session in &*self.sessions {
            counted.answered += session.counted.done;
            counted.refused += session.counted.failed;
        }
        counted
    }

    /// The counters of one session.
    pub fn session_statistics(&self, id: SessionId) -> Option<SessionStatistics> {
        self.find(id).map(|session| session.counted)
    }

    fn session(&mut self, id: SessionId) -> Result<&mut Session<'m>, Status> {
        let session = self.sessions.get_mut(usize::from(id.0 as u8)).ok_or(Status::NotFound)?;
        if session.id == id && session.life != Life::Vacant { Ok(session) } else { Err(Status::NotFound) }
    }

    fn find(&self, id: SessionId) -> Option<&Session<'m>> {
        let session = self.sessions.get(usize::from(id.0 as u8))?;
        (session.id == id && session.life != Life::Vacant).then_some(session)
    }
}

/// A client that is told of its session. The drop takes the session back: nobody will know its number.
struct Invited<'f, 'm, D: Doorbell, N: Notify> {
    front: &'f mut FrontEnd<'m, D, N>,
    session: SessionId,
}

impl<D: Doorbell, N: Notify> Drop for Invited<'_, '_, D, N> {
    fn drop(&mut self) {
        // It is open: nothing came between.
        let _ = self.front.close(self.session);
    }
}
