//! blockd: reads the disk's partition table through the driver's calls, publishes devices, and opens their sessions.
//!
//! It holds the only way to open sessions. What a client gets is rings, and a capability to its device's blocks; blockd
//! moves no data of theirs.
use super::drive::{Bells, CREDIT, ClientDrive, DriveOf, Front, LIST, Name, Names, Resumptions, timeless};
use crate::ground::{Ground, Host, Piece};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use drv_virtio_block::device::queue_for;
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{Client, Replay, Resumed};
use drv_virtio_block::lib_block::front_end::{Access, Grant};
use drv_virtio_block::lib_block::message::{Body, Capability, Extent, Given, Info, Opening, Rights, SessionId};
use drv_virtio_block::lib_block::ring::{self, ClientEnd, ClientRings, Rings, ServerRings};
use drv_virtio_block::platform::Badges;
use workload::params::Params;
use workload::report::{Line, Note};

/// What a client may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    /// Its blocks.
    pub(crate) extent: Extent,
    /// It must not be changed.
    pub(crate) read_only: bool,
}

/// Both ends of rings in memory of their own.
pub(crate) type Ends = (ClientRings<'static>, ServerRings<'static>);

/// Rings in memory of their own.
pub(crate) fn rings<G: Ground>(ground: &G, entries: u16) -> Result<Ends, String> {
    Ok(rings_for_lives(ground, entries)?.1)
}

/// As [`rings`], and their address, for servers that serve them in their turn.
pub(crate) fn rings_for_lives<G: Ground>(ground: &G, entries: u16) -> Result<(u64, Ends), String> {
    let memory = ground.dma(ring::bytes(entries)).ok_or("no memory for a client's rings")?;
    let base = NonNull::new(memory.address() as *mut u8).ok_or("memory at 0")?;
    // SAFETY: zeroed, page-aligned, never given back; both sides access it through `Rings` alone, and nobody did before.
    let rings = unsafe { Rings::new(base, entries) }.ok_or("rings of an impossible size")?;
    Ok((memory.address(), rings.split()))
}

/// All of `memory`, which lives for good, as words.
pub(crate) fn words(memory: &Piece) -> &'static [AtomicU64] {
    // SAFETY: aligned to pages, initialised, never given back; whoever writes words of it meanwhile (lists) does so as
    // atomics.
    unsafe { core::slice::from_raw_parts(memory.address() as *const AtomicU64, memory.len() / 8) }
}

/// A grant of all of `memory`, which lives for good.
pub(crate) fn grant(memory: &Piece, access: Access) -> Grant<'static> {
    grant_of(words(memory), access)
}

/// A grant of what [`words`] said.
pub(crate) fn grant_of(words: &'static [AtomicU64], access: Access) -> Grant<'static> {
    let address = DeviceAddress(words.as_ptr().addr() as u64);
    // SAFETY: the ground maps it for the device, one to one and for good; the job that has it keeps what a request uses
    // apart (`buffers`).
    unsafe { Grant::new(address, size_of_val(words) as u64, access, Some(words)) }
}

/// What a session over `extent` asks for.
pub(crate) fn opening(published: &Published, credit: u16, affinity: u32) -> Result<Opening, String> {
    let rights = if published.read_only { Rights::READ.with(Rights::FLUSH) } else { Rights::ALL };
    let capability = Capability::new(rights, &[published.extent]).ok_or("an empty device was published")?;
    Ok(Opening { version: drv_virtio_block::lib_block::VERSION, credit, weight: 1, affinity, capability })
}

/// A session of blockd's own, used with calls, one at a time.
pub(crate) struct Raw<'f, G: Ground> {
    front: &'f mut Front<G>,
    session: SessionId,
    info: Info,
    page: Piece,
    /// For a device that is stepped.
    host: G::Host,
}

impl<'f, G: Ground> Raw<'f, G> {
    /// Opens it.
    pub(crate) fn open(ground: &G, front: &'f mut Front<G>, opening: &Opening) -> Result<Self, String> {
        let (client, server) = rings(ground, opening.credit)?;
        let page = ground.dma(1 << 16).ok_or("no memory for calls")?;
        let opened = front.open(opening, server, []).map_err(|why| why.to_string())?;
        // SAFETY: nothing is staged.
        unsafe { ClientEnd::new(client) }.acknowledge(opened.info.epoch);
        front.serve(&timeless);
        Ok(Self { front, session: opened.session, info: opened.info, page, host: ground.host(0, Badges(0)) })
    }

    /// Ends it; its number, which is nobody's now.
    pub(crate) fn close(self) -> Result<SessionId, String> {
        self.front.close(self.session).map_err(|why| why.to_string())?;
        while self.front.is_open(self.session) {
            self.front.serve(&timeless);
        }
        Ok(self.session)
    }

    /// What its device is.
    pub(crate) fn info(&self) -> Result<Info, String> {
        self.front.info(self.session).map_err(|why| why.to_string())
    }

    /// The first `blocks` of its page.
    pub(crate) fn bytes(&mut self, blocks: u32) -> &mut [u8] {
        let len = (blocks * self.info.block_size) as usize;
        assert!(len <= self.page.len(), "more than a page of calls");
        // SAFETY: inside the page, which is this value's; `&mut self` lends it once, and every call that had it is
        // answered, but for those that nobody waited for, whose data nobody looks at.
        unsafe { core::slice::from_raw_parts_mut(self.page.address() as *mut u8, len) }
    }

    /// Begins a call with the first `blocks` of its page.
    pub(crate) fn begin(&mut self, body: &Body, access: Access, blocks: u32) -> Result<(), Status> {
        let page = words(&self.page);
        let asked = (blocks * self.info.block_size) as usize / 8;
        let granted = grant_of(&page[..asked.min(page.len())], access);
        self.front.begin_call(self.session, body, Some(granted))
    }

    /// Serves until the call is answered.
    pub(crate) fn outcome(&mut self) -> Result<Given, Status> {
        loop {
            self.host.step();
            self.front.serve(&timeless);
            if let Some(outcome) = self.front.call_outcome(self.session) {
                return outcome;
            }
        }
    }

    /// One call, with all of its page.
    pub(crate) fn call(&mut self, body: &Body) -> Result<Given, Status> {
        self.front.begin_call(self.session, body, Some(grant(&self.page, Access::ReadWrite)))?;
        self.outcome()
    }
}

impl<G: Ground> blockd::Media for Raw<'_, G> {
    type Error = Status;

    fn block_size(&self) -> u32 {
        self.info.block_size
    }

    fn blocks(&self) -> u64 {
        self.info.blocks
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Status> {
        let most = self.page.len() / self.info.block_size as usize * self.info.block_size as usize;
        for (at, part) in (0..).zip(into.chunks_mut(most)) {
            let blocks = part.len() as u32 / self.info.block_size;
            self.call(&Body::Read { lba: lba + at * (most as u64 / u64::from(self.info.block_size)), blocks })?;
            part.copy_from_slice(self.bytes(blocks));
        }
        Ok(())
    }
}

/// Surveys the disk and says what each of `clients` gets: a partition, or the whole.
///
/// # Errors
/// When the disk cannot be read, is malformed, or has not partitions enough: nothing is published then.
pub(crate) fn survey<G: Ground>(ground: &G, front: &mut Front<G>, params: &Params) -> Result<Vec<Published>, String> {
    let geometry = front.geometry().ok_or("there is no device")?;
    let blocks = geometry.capacity() / u64::from(geometry.block_size / 512);
    let whole = Published { extent: Extent { first: 0, blocks }, read_only: true };
    let mut raw = Raw::open(ground, front, &opening(&whole, 2, 0)?)?;
    let found = blockd::survey(&mut raw).map_err(|why| format!("blockd publishes nothing: {why}"));
    raw.close()?;
    let found = found?;
    for partition in &found.partitions {
        let (name, extent) = (&partition.name, partition.extent);
        ground.remark(&format!("blockd: {name}: {} blocks from {} on", extent.blocks, extent.first));
    }
    if let Some(side) = found.degraded {
        let text = format_args!(
            "blockd: the {side:?} copy of the partition table is damaged: the other one is used; sgdisk -e restores it"
        );
        ground.say(&Line::Note(Note::new(text)));
    }
    let read_only = front.geometry().is_some_and(|geometry| geometry.read_only);
    let published = |extent: blockd::Extent, guarded: bool| Published {
        extent: Extent { first: extent.first, blocks: extent.blocks },
        read_only: read_only || guarded,
    };
    let clients = usize::from(params.clients);
    if !params.partitions {
        return Ok((0..clients).map(|_| published(found.whole, false)).collect());
    }
    if found.partitions.len() < clients {
        return Err(format!("{clients} clients need a partition each, the disk has {}", found.partitions.len()));
    }
    if let Some(kept) = found.partitions.iter().take(clients).find(|partition| partition.read_only)
        && params.rw.changes()
    {
        let (name, rw) = (&kept.name, params.rw);
        return Err(format!(
            "partition {name} is read-only (attribute bit 60) and rw={rw} changes it: use rw=randread"
        ));
    }
    let all = found.partitions.iter().map(|partition| published(partition.extent, partition.read_only));
    Ok(all.take(clients).collect())
}

/// What a client needs of the ground.
pub(crate) struct Means {
    /// Its buffers.
    pub(crate) buffers: Piece,
    /// Its place.
    pub(crate) number: u16,
    /// Where it may work.
    pub(crate) published: Published,
}

/// Opens a client's session on its queue and attaches the client.
pub(crate) fn attach<G: Ground, B: Name>(
    ground: &G,
    fronts: &mut [Box<Front<G>>],
    server: &'static G::Wake,
    means: &Means,
) -> Result<DriveOf<G, B>, String> {
    let (client_rings, server_rings) = rings(ground, CREDIT)?;
    let lists = ground.dma(usize::from(CREDIT) * LIST).ok_or("no memory for lists")?;
    let affinity = u32::from(means.number);
    let queue = queue_for(affinity, fronts.len() as u16);
    let front = &mut fronts[usize::from(queue.0)];
    let opened =
        front.open(&opening(&means.published, CREDIT, affinity)?, server_rings, []).map_err(|e| e.to_string())?;
    let mut register =
        |memory: &Piece, access| front.register(opened.session, grant(memory, access)).map_err(|why| why.to_string());
    let memory = register(&means.buffers, Access::ReadWrite)?;
    let list_memory = register(&lists, Access::Read)?;
    let client = Client::new(client_rings, opened.info.block_size).ok_or("the client does not fit its rings")?;
    // A job counts in sectors.
    if opened.info.block_size != 512 {
        return Err(format!("via=blockd works on blocks of 512 bytes here, the disk has {}", opened.info.block_size));
    }
    let names = Names { memory, base: means.buffers.address(), lists: lists.address(), list_memory };
    let mut drive = ClientDrive {
        client: Box::new(client),
        names,
        server,
        front: None,
        replay: Replay::Unanswered,
        resumed: Resumptions::default(),
    };
    match drive.client.resume(Replay::Never, |_| ()) {
        Resumed::Attached { .. } => Ok(drive),
        other => Err(format!("the front end does not serve: {other:?}")),
    }
}

/// The doorbells of the clients on one queue.
pub(crate) fn bells<G: Ground>(ground: &G, clients: u16, queue: u16, queues: u16) -> Bells<G::Wake> {
    let jobs = (0..clients).filter(|client| queue_for(u32::from(*client), queues).0 == queue).collect();
    Bells(Box::leak(Box::new(ground.wake(jobs))))
}
