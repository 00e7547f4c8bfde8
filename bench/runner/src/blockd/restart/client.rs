//! Clients: what each has for all lives of the driver, and its job, which is any verified job but for its end.
use super::OVER;
use super::life::{Facts, Member};
use crate::blockd::drive::{CREDIT, ClientDrive, LIST, Names, Resumptions};
use crate::blockd::publish::{self, Published};
use crate::buffers::{Places, Scattered};
use crate::content::Verified;
use crate::crew::Crew;
use crate::ground::{Ground, Host, Piece};
use crate::job::Content;
use crate::rig::DoorbellOf;
use crate::runs::{self, Returned, Setting};
use crate::seal;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use drv_virtio_block::lib_block::client::{Client, Replay};
use drv_virtio_block::lib_block::entry::MemoryId;
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::{Extent, Opening};
use drv_virtio_block::platform::Badges;
use drv_virtio_block::queue::Wake;
use drv_virtio_block::transport::Doorbell;
use workload::params::Params;
use workload::pattern::{Io, Op, Pattern, Region, Step};
use workload::random::Random;
use workload::verify::ledger::Ledger;

/// What stands in a buffer before something is read into it.
const STAMP: u8 = 0xa5;
/// The numbers of a client's buffers and lists, in every life.
const BUFFERS: MemoryId = MemoryId(1 << 16);
const LISTS: MemoryId = MemoryId(1 << 16 | 1);

/// Clients, and what blockd keeps of them.
pub(super) struct Enlisted<G: Ground> {
    pub(super) members: Vec<Member>,
    pub(super) openings: Vec<Opening>,
    pub(super) parts: Vec<PartOf<G>>,
    /// Memory of the first one, for the table that is sealed once it is done.
    pub(super) spare: Piece,
}

/// What a client comes back with.
pub(super) type Back<D, W> = Returned<ClientDrive<D, W, Scattered>>;

/// What a client's job needs.
pub(super) struct Part<D: Doorbell, W: Wake + 'static, H> {
    number: u16,
    drive: ClientDrive<D, W, Scattered>,
    places: Places,
    host: H,
}

/// [`Part`], by its ground.
pub(super) type PartOf<G> = Part<DoorbellOf<G>, <G as Ground>::Wake, <G as Ground>::Host>;

/// Gives every client rings, memory, and the whole disk.
pub(super) fn enlist<G: Ground>(ground: &G, params: &Params, crew: Crew, facts: &Facts) -> Result<Enlisted<G>, String> {
    let shift = facts.block_size.trailing_zeros() - 9;
    let extent = Extent { first: 0, blocks: facts.sectors >> shift };
    let whole = Published { extent, read_only: facts.read_only };
    let (mut members, mut openings, mut parts, mut spare) = (Vec::new(), Vec::new(), Vec::new(), None);
    for number in 0..params.clients {
        // Every life takes the server's end up anew.
        let (at, (client_rings, _)) = publish::rings_for_lives(ground, CREDIT)?;
        let lists = ground.dma(usize::from(CREDIT) * LIST).ok_or("no memory for lists")?;
        let buffers = runs::job_memory(ground, params)?;
        let known = [(BUFFERS, &buffers, Access::ReadWrite), (LISTS, &lists, Access::Read)];
        let memories = known.map(|(id, memory, access)| (id, publish::words(memory), access));
        members.push(Member { rings: at, memories });
        openings.push(publish::opening(&whole, CREDIT, number.into())?);
        let names = Names { memory: BUFFERS, base: buffers.address(), lists: lists.address(), list_memory: LISTS };
        let drive = ClientDrive {
            client: Box::new(Client::new(client_rings, facts.block_size).ok_or("the client does not fit its rings")?),
            names,
            server: Box::leak(Box::new(ground.wake(vec![crew.jobs - 1]))),
            front: None,
            replay: Replay::Unanswered,
            resumed: Resumptions::default(),
        };
        let places = Places::new(buffers, runs::place_bytes(params));
        parts.push(Part { number, drive, places, host: ground.host(number, Badges::NONE) });
        spare = spare.or(Some(buffers));
    }
    debug_assert!(seal::BYTES <= spare.map_or(0, |memory| memory.len()));
    Ok(Enlisted { members, openings, parts, spare: spare.ok_or("there is no client")? })
}

impl<D: Doorbell, W: Wake, H: Host> Part<D, W, H> {
    /// Reads, writes and verifies until everything is over.
    pub(super) fn work(self, params: &Params, setting: &Setting) -> Result<Box<Back<D, W>>, String> {
        let Self { number, mut drive, places, host } = self;
        let endless = Params { number_ios: 0, loops: 0, runtime_ms: 0, ..params.clone() };
        let pattern = Pattern::new(&endless, number, setting.capacity).map_err(|e| e.to_string())?;
        let Region { first, sectors } = pattern.region();
        let mut words = vec![0; sectors as usize];
        let random = Random::for_job(params.randseed ^ 1, number);
        let ledger = Ledger::new(&mut words, first);
        let inner = Verified::new(places, ledger, random, setting.grain);
        let mut content = Stamped(inner);
        let (tally, done) = runs::drive_job(&mut drive, &endless, setting.mode, host, pattern, &mut content)?;
        let first_fault = content.0.first_fault.take();
        Ok(Box::new(Returned { drive, tally, done, words, first_fault }))
    }
}

/// Verified blocks until everything is over, in buffers that hold nothing useful before they are handed out.
struct Stamped<'l>(Verified<'l>);

impl Content<Scattered> for Stamped<'_> {
    fn next(&mut self, pattern: &mut Pattern) -> Step {
        if OVER.load(Ordering::Relaxed) { Step::End } else { self.0.next(pattern) }
    }

    fn buffer(&mut self, place: usize, io: &Io) -> Scattered {
        if io.op == Op::Read {
            self.0.places.data(place, io.bytes).fill(STAMP);
        }
        self.0.buffer(place, io)
    }

    fn end(&mut self, place: usize, io: &Io, success: bool) -> bool {
        self.0.end(place, io, success)
    }
}
