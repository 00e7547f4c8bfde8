//! A client as a job sees it: a drive whose requests go through a session's rings.
//!
//! The job's buffers stay what they are, memory by its device address; here they are named as the session knows them.
//! With a front end of its own a drive steps it (the client, the front end and the driver then take turns on one
//! processor); otherwise the front end runs elsewhere and its doorbell is rung when it asks.
use crate::buffers::{Page, Scattered};
use crate::drive::{Drive, Outcome, Work};
use crate::failure::{Ended, Failure, Other};
use crate::ground::Ground;
use crate::rig::DoorbellOf;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};
use drv_virtio_block::dma::Buffer;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{
    Client, Replay, Request, Resumed, ServerReadable, ServerWritable, SharedBuffer, Standing, Why,
};
use drv_virtio_block::lib_block::entry::{self, Data, MemoryId};
use drv_virtio_block::lib_block::front_end::{FrontEnd, Notify};
use drv_virtio_block::platform::Nanos;
use drv_virtio_block::queue::{Statistics, Violation, Wake};
use drv_virtio_block::transport::Doorbell;
use workload::pattern::Op;

/// Requests of a client that can be unanswered, and entries of its rings.
pub(crate) const CREDIT: u16 = workload::params::MAX_CREDIT;
/// Bytes of a list of pieces.
pub(crate) const LIST: usize = 256;

/// A front end as the runs have it.
pub(crate) type Front<G> = FrontOf<DoorbellOf<G>, <G as Ground>::Wake>;
/// The same, by what its ground lends.
pub(crate) type FrontOf<D, W> = FrontEnd<'static, D, Bells<W>>;
/// A client as the runs have it.
pub(crate) type DriveOf<G, B> = ClientDrive<DoorbellOf<G>, <G as Ground>::Wake, B>;

/// The doorbells of a front end's clients: the session's number on its queue is the client's in the list.
#[derive(Clone)]
pub(crate) struct Bells<W: 'static>(pub(crate) &'static W);

impl<W: Wake> Notify for Bells<W> {
    fn ring(&self, session: u16) {
        self.0.wake(session as u8);
    }
}

/// Nobody asks for the time here: no request of a job has a deadline.
pub(crate) fn timeless() -> Nanos {
    Nanos(0)
}

/// How a session knows a job's memory.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    /// The job's buffers.
    pub(crate) memory: MemoryId,
    /// Where they begin for the device.
    pub(crate) base: u64,
    /// Where lists of pieces are, one for each of the job's places.
    pub(crate) lists: u64,
    /// The memory that the lists are.
    pub(crate) list_memory: MemoryId,
}

/// Memory by the session's name for it.
pub(crate) struct Named(Data);

// SAFETY: the memory is the job's buffer, which the job lends to one request at a time (`buffers`); the list is the
// place's own, written before the request that it is for.
unsafe impl SharedBuffer for Named {
    #[inline(always)]
    fn data(&self) -> Data {
        self.0
    }
}
// SAFETY: initialised memory.
unsafe impl ServerReadable for Named {}
// SAFETY: bytes.
unsafe impl ServerWritable for Named {}

/// A buffer that a session can name.
pub(crate) trait Name: Copy {
    /// The client's buffer.
    type As: ServerReadable + ServerWritable + Send + 'static;

    /// Whether trims of jobs with such buffers may have to make their blocks read as zeros. Where none has to, reads and
    /// writes do not pay for telling two kinds of trims apart.
    const ZEROING: bool;

    /// Its name, in the place `token`.
    fn name(&self, names: &Names, token: u64) -> Self::As;
}

/// One piece, which is all that plain jobs have.
pub(crate) struct NamedPage(entry::Piece);

// SAFETY: as for `Named`.
unsafe impl SharedBuffer for NamedPage {
    #[inline(always)]
    fn data(&self) -> Data {
        Data::One(self.0)
    }
}
// SAFETY: initialised memory.
unsafe impl ServerReadable for NamedPage {}
// SAFETY: bytes.
unsafe impl ServerWritable for NamedPage {}

impl Name for Page {
    type As = NamedPage;

    const ZEROING: bool = false;

    #[inline(always)]
    fn name(&self, names: &Names, _: u64) -> NamedPage {
        let segment = self.segment();
        let offset = segment.address().0 - names.base;
        NamedPage(entry::Piece { memory: names.memory, offset, len: segment.len() })
    }
}

impl Name for Scattered {
    type As = Named;

    const ZEROING: bool = true;

    fn name(&self, names: &Names, token: u64) -> Named {
        let piece = |segment: &drv_virtio_block::dma::Segment| entry::Piece {
            memory: names.memory,
            offset: segment.address().0 - names.base,
            len: segment.len(),
        };
        Named(match self.segments() {
            [one] => Data::One(piece(one)),
            [one, two] => Data::Two([piece(one), piece(two)]),
            many => {
                let offset = token * LIST as u64;
                for (at, word) in (0..).zip(many.iter().flat_map(|segment| piece(segment).encode())) {
                    let place = (names.lists + offset + at * 8) as *mut u64;
                    // SAFETY: inside the list of this place (`MOST_SEGMENTS` pieces of 16 bytes), in memory that lives
                    // for good; the server reads it as atomics.
                    unsafe { AtomicU64::from_ptr(place) }.store(word.to_le(), Ordering::Relaxed);
                }
                let len = many.len() as u32 * entry::PIECE_BYTES;
                Data::List(entry::Piece { memory: names.list_memory, offset, len })
            }
        })
    }
}

/// See the module's text.
pub(crate) struct ClientDrive<D: Doorbell, W: Wake + 'static, B: Name> {
    pub(crate) client: Box<Client<'static, B::As, { CREDIT as usize }>>,
    pub(crate) names: Names,
    /// Where the front end's doorbell is.
    pub(crate) server: &'static W,
    /// The front end, if it is stepped by this drive.
    pub(crate) front: Option<Box<FrontOf<D, W>>>,
    /// What becomes of requests that a driver took along.
    pub(crate) replay: Replay,
    /// What it came to.
    pub(crate) resumed: Resumptions,
}

/// Drivers that a client went along with, and what the ones before took along.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resumptions {
    pub(crate) lives: u64,
    pub(crate) lost: u64,
    pub(crate) replayed: u64,
}

impl<D: Doorbell, W: Wake, B: Name> ClientDrive<D, W, B> {
    #[inline(always)]
    fn publish(&mut self) {
        if self.client.publish() {
            self.server.wake(0);
        }
        self.step();
    }

    #[inline(always)]
    fn step(&mut self) {
        if let Some(front) = &mut self.front {
            front.serve(&timeless);
        }
    }

    /// Goes along with a server that says something new; lost requests end as failed unless they are asked again.
    #[cold]
    fn resume(&mut self, done: &mut impl FnMut(u64, Ended)) -> usize {
        let mut ended = 0;
        let resumed = self.client.resume(self.replay, |completion| {
            ended += 1;
            done(completion.token, ended_with(completion.status));
        });
        if let Resumed::Attached { lost, replayed } = resumed {
            self.resumed.lives += 1;
            self.resumed.lost += u64::from(lost);
            self.resumed.replayed += u64::from(replayed);
            self.server.wake(0);
        }
        ended
    }
}

/// What a status says of its request.
#[inline(always)]
fn ended_with(status: Status) -> Ended {
    if status.is_ok() { Ok(()) } else { Err(Failure::Session(status)) }
}

/// What a refusal by the client says of its request.
#[cold]
#[inline(never)]
fn refusal(why: Why) -> Failure {
    Failure::Other(match why {
        Why::Full | Why::Restarting => Other::NoRoom,
        Why::Ended => Other::Ended,
        Why::Broken => Other::Contradicted,
        Why::NotFound => Other::Answered,
    })
}

impl<D: Doorbell, W: Wake, B: Name> Drive<B> for ClientDrive<D, W, B> {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<B>]) -> Outcome {
        for (at, one) in work.iter().enumerate() {
            let (lba, blocks) = (one.lba, one.sectors);
            let request = match one.op {
                Op::Read => Request::read(lba, blocks, one.buffer.name(&self.names, one.token)),
                Op::Write => Request::write(lba, blocks, one.buffer.name(&self.names, one.token)),
                Op::Trim if B::ZEROING && one.zeroing => Request::write_zeroes(lba, blocks, true),
                Op::Trim => Request::discard(lba, blocks),
            };
            if let Err(refused) = self.client.submit(request.with_token(one.token)) {
                self.publish();
                return match refused.why {
                    Why::Full | Why::Restarting => Outcome { taken: at, refused: None },
                    why => Outcome { taken: at + 1, refused: Some((one.token, refusal(why))) },
                };
            }
        }
        self.publish();
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        self.step();
        let taken = self.client.reap(max as u32, |completion| done(completion.token, ended_with(completion.status)));
        if taken == 0 && self.client.standing() != Standing::Serving {
            return self.resume(&mut done);
        }
        taken as usize
    }

    fn arm(&mut self, want: u16) -> bool {
        self.client.arm(want.into())
    }

    fn broken(&self) -> Option<Violation> {
        matches!(self.client.standing(), Standing::Broken(_)).then_some(Violation::IndexJump)
    }

    fn statistics(&self) -> Statistics {
        let queue = self.front.as_ref().and_then(|front| front.queue());
        queue.map_or_else(Statistics::default, drv_virtio_block::queue::OwnedQueue::statistics)
    }

    fn flush(&mut self) -> Ended {
        self.client.submit(Request::flush()).map_err(|refused| refusal(refused.why))?;
        self.publish();
        loop {
            self.step();
            let mut answer = None;
            self.client.reap(1, |completion| answer = Some(ended_with(completion.status)));
            if let Some(ended) = answer {
                return ended;
            }
        }
    }
}
