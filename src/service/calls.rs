//! Calls: decoded, sent where they belong, answered.
//!
//! A call that does I/O is answered when it is done; everybody else is served meanwhile. Who may call what is the
//! endpoints' affair: whoever holds this one is blockd, or procd.
use super::error::status_of;
use super::{Front, Service};
use crate::device::queue_for;
use crate::lib_block::Status;
use crate::lib_block::entry::MemoryId;
use crate::lib_block::front_end::{FrontEnd, Grant, MAX_MEMORIES, Notify};
use crate::lib_block::message::{Answer, BYTES, Body, Call, Driver, Given, Opening, SessionId};
use crate::lib_block::ring::ServerRings;
use crate::platform::Platform;
use crate::transport::Transport;
use arrayvec::ArrayVec;

/// The capabilities that came with a call.
#[derive(Default)]
pub struct Beside<'m> {
    /// OPEN: the server's end of the client's rings.
    pub rings: Option<ServerRings<'m>>,
    /// REGISTER, READ, WRITE: memory. What a call does not use, or refuses, is dropped.
    pub memory: Option<Grant<'m>>,
    /// OPEN after a restart: memory that the client had, under the numbers that it had.
    pub known: ArrayVec<(MemoryId, Grant<'m>), MAX_MEMORIES>,
}

impl<'m, T: Transport, P: Platform, N: Notify + Clone> Service<'m, T, P, N> {
    /// Answers a call.
    pub fn handle(&mut self, bytes: &[u8], beside: Beside<'m>) -> [u8; BYTES] {
        let answer = match Call::decode(bytes) {
            Ok(call) => Answer { cookie: call.cookie, result: self.dispatch(call.session, &call.body, beside) },
            Err(status) => Answer { cookie: cookie_of(bytes), result: Err(status) },
        };
        answer.encode()
    }

    fn dispatch(&mut self, id: SessionId, body: &Body, beside: Beside<'m>) -> Result<Given, Status> {
        match body {
            Body::Start => self.start().map(|()| Given::Nothing).map_err(status_of),
            Body::Stop { flush } => self.stop(*flush).map(|()| Given::Nothing).map_err(status_of),
            Body::ReadDriver => Ok(Given::Driver(self.read_driver())),
            Body::Open(opening) => self.open(opening, beside),
            Body::Close => self.close(id),
            Body::Register => {
                let grant = beside.memory.ok_or(Status::InvalidArgument)?;
                self.front(id)?.register(id, grant).map(Given::Registered)
            }
            Body::Unregister { memory } => self.front(id)?.unregister(id, *memory).map(|()| Given::Nothing),
            Body::GetInfo => self.front(id)?.info(id).map(Given::Info),
            Body::Read { .. } | Body::Write { .. } | Body::Flush => self.transfer(id, body, beside.memory),
        }
    }

    fn open(&mut self, opening: &Opening, beside: Beside<'m>) -> Result<Given, Status> {
        if !self.is_serving() {
            return Err(Status::Gone);
        }
        let queue = queue_for(opening.affinity, self.fronts.len() as u16);
        let front = self.fronts.get_mut(usize::from(queue.0)).ok_or(Status::Gone)?;
        let rings = beside.rings.ok_or(Status::InvalidArgument)?;
        front.open(opening, rings, beside.known).map(Given::Opened)
    }

    /// [`Status::Busy`]: the device did not let go of the session's memory.
    fn close(&mut self, id: SessionId) -> Result<Given, Status> {
        self.front(id)?.close(id)?;
        self.serve_patiently(|service| service.front(id).is_ok_and(|front| !front.is_open(id)).then_some(()));
        if self.front(id)?.is_open(id) { Err(Status::Busy) } else { Ok(Given::Nothing) }
    }

    /// READ, WRITE or FLUSH. [`Status::Busy`] without another call of the session: the device did not let go of the
    /// granted buffer, which stays lent until it does, or the driver's process ended.
    fn transfer(&mut self, id: SessionId, body: &Body, memory: Option<Grant<'m>>) -> Result<Given, Status> {
        let front = self.front(id)?;
        if !front.is_open(id) {
            return Err(Status::NotFound);
        }
        if !self.is_serving() {
            return Err(Status::Gone);
        }
        self.front(id)?.begin_call(id, body, memory)?;
        let outcome = self.serve_patiently(|service| {
            let front = service.front(id).ok()?;
            // A session that its client's indices ended gave everything back before it was over.
            front.call_outcome(id).or_else(|| (!front.is_open(id)).then_some(Err(Status::Gone)))
        });
        match outcome {
            Some(outcome) => outcome,
            None if self.front(id)?.withdraw_call(id) => Err(Status::Gone),
            None => Err(Status::Busy),
        }
    }

    /// The front end that a session's number names.
    fn front(&mut self, id: SessionId) -> Result<&mut Front<'m, T, N>, Status> {
        self.fronts.get_mut(usize::from((id.0 >> 8) as u8)).ok_or(Status::NotFound)
    }

    fn read_driver(&self) -> Driver {
        let mut driver = Driver {
            epoch: self.envelope.epoch,
            serving: self.is_serving(),
            queues: self.fronts.len() as u16,
            sessions: self.fronts.iter().map(FrontEnd::sessions).sum(),
            ..Driver::default()
        };
        for front in &self.fronts {
            let counted = front.statistics();
            driver.answered += counted.answered;
            driver.refused += counted.refused;
            driver.ended += counted.ended;
        }
        driver
    }
}

/// The cookie of a message that is no call, so that its sender recognises the answer.
fn cookie_of(bytes: &[u8]) -> u64 {
    let field = bytes.get(8..16).and_then(|field| <[u8; 8]>::try_from(field).ok());
    u64::from_le_bytes(field.unwrap_or([0; 8]))
}
