//! A device from opening to closing: its memory, its queues, the session that holds it.
//!
//! Rings and buffers are in one memory, which the back-end maps: rings in front, then the pages that callers get. What
//! queues borrow lives in a [`Ground`] on the heap, which goes with the device. It refuses to know requests, and C.
//!
//! Closing stops the device, or waits until a back-end that is gone let go of the memory. If neither happens in time, and
//! wherever opening fails, the connection and the memory go all the same: a back-end reaches the memory through a mapping
//! of its own, of a file that nobody else uses afterwards. What it still stores goes there, and nowhere into this process.
use crate::pages::{Kept, Pages};
use crate::queue::{Common, Lent, vblk_queue};
use crate::types::{
    VBLK_ABI, VBLK_BUSY, VBLK_CACHE_AS_IT_IS, VBLK_CACHE_OFF, VBLK_CACHE_ON, VBLK_DEVICE, VBLK_GONE, VBLK_INTERRUPT,
    VBLK_INVALID, VBLK_NOT_SHARED, VBLK_OK, VBLK_POLLED, VBLK_SYSTEM, vblk_info, vblk_options,
};
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::Wishes;
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::platform::Badges;
use drv_virtio_block::queue::{Chaining, Prepared, QueueOptions};
use drv_virtio_block::transport::{MAX_QUEUES, QueueId};
use native::memory::{PAGE, SharedMemory};
use native::vhost_user::{ConnectError, Connection, Options, Session, SessionError};
use nix::unistd::{SysconfVar, sysconf};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Shared memory for one queue's rings, and private memory for its tables.
const RINGS: usize = 1 << 20;
const PRIVATE: usize = 512 << 10;
/// Most descriptors that every back-end of the field takes.
const MAX_RING: u16 = 1024;
/// How long a back-end may take to be there: one that just served somebody else needs a moment.
const COMING: Duration = Duration::from_secs(1);

/// Why a device could not be opened: a code, and one line.
pub(crate) type Refused = (i32, String);

/// What queues borrow.
struct Ground {
    memory: SharedMemory,
    private: Vec<MaybeUninit<u8>>,
    place: Option<Geometry>,
}

/// An open device; C has a pointer to it.
#[allow(non_camel_case_types, reason = "C's name")]
pub struct vblk_device {
    queues: Box<[vblk_queue]>,
    common: Arc<Common>,
    info: vblk_info,
    session: ManuallyDrop<Session<'static>>,
    ground: NonNull<Ground>,
}

impl vblk_device {
    /// Connects to the back-end that listens at `path` and brings its device up.
    pub(crate) fn open(path: &Path, options: &vblk_options) -> Result<Box<Self>, Refused> {
        let ring = check(options)?;
        let polled = options.mode == VBLK_POLLED;
        let queues = options.queues as usize;
        let no_memory = |why| (VBLK_SYSTEM, format!("no {} bytes of memory for buffers: {why}", options.memory));
        let memory = SharedMemory::new(queues * RINGS + options.memory as usize).map_err(no_memory)?;
        let private = vec![MaybeUninit::uninit(); queues * PRIVATE];
        let ground = NonNull::from(Box::leak(Box::new(Ground { memory, private, place: None })));
        // SAFETY: a box of our own. It is freed below if nothing came of it, or by `close` once nothing borrows it.
        let opened = Self::bring_up(path, options, ring, polled, ground, unsafe { &mut *ground.as_ptr() });
        if opened.is_err() {
            // SAFETY: the box from above; what borrowed it ended with `bring_up`. See the module's text for a back-end
            // that may still have the memory.
            drop(unsafe { Box::from_raw(ground.as_ptr()) });
        }
        opened
    }

    fn bring_up(
        path: &Path,
        options: &vblk_options,
        ring: (u16, Chaining),
        polled: bool,
        owned: NonNull<Ground>,
        ground: &'static mut Ground,
    ) -> Result<Box<Self>, Refused> {
        let Ground { memory, private, place } = ground;
        let memory: &'static SharedMemory = memory;
        let count = options.queues as u16;
        let vectors = if polled { 0 } else { count + 1 };
        let connecting = Options { vectors, queue_size: ring.0, ..Options::default() };
        let opened = Connection::open_within(path, memory, connecting, COMING).map_err(|why| not_connected(&why));
        let (connection, transport) = opened?;
        let platform = connection.platform().map_err(|why| not_connected(&why.into()))?;
        let rings = memory.take(options.queues as usize * RINGS);
        let buffers = memory.take(memory.left());
        let (Some(rings), Some(buffers)) = (rings, buffers) else {
            return Err((VBLK_SYSTEM, "no memory for the rings".to_owned()));
        };
        let (mut region, mut arena) = (rings.into_region(), Arena::new(private));
        let mode = if polled { CompletionMode::Polled } else { CompletionMode::Interrupt };
        let write_back = (options.cache != VBLK_CACHE_AS_IT_IS).then_some(options.cache == VBLK_CACHE_ON);
        let wishes = Wishes { queues: count, queue_size: ring.0, mode, write_back, ..Wishes::default() };
        let lay_out = |_, size, geometry| {
            let options = QueueOptions { size, chaining: ring.1, ..QueueOptions::default() };
            Prepared::<Lent>::new(&options, geometry, &mut region, &mut arena)
        };
        let (mut session, prepared) =
            Session::start(&connection, transport, &platform, &wishes, place, lay_out).map_err(not_started)?;
        let found = prepared.len();
        let slots = prepared.iter().map(Prepared::slots).min().unwrap_or(0);
        let pages = Pages::new(buffers.base(), buffers.len());
        let (watch, gone) = (Arc::clone(connection.watch()), AtomicBool::new(false));
        let refused = if found < usize::from(count) {
            Some(format!(
                "the device has {found} queues, {count} were asked for: start the back-end with num-queues={count}"
            ))
        } else if u32::from(slots) < options.depth {
            Some(format!("the device's queues hold {slots} requests, {} were asked for", options.depth))
        } else {
            None
        };
        if let Some(why) = refused {
            // Whether it stops or not, the connection ends here and the memory with it.
            let _ = session.stop(&platform);
            return Err((VBLK_INVALID, why));
        }
        let Some(running) = session.running() else { return Err(not_started(SessionError::OutOfStep)) };
        let info = facts(running.geometry(), count, slots, polled);
        // A power of two; pieces begin at pages, whatever the blocks.
        let odd = PAGE.min(info.block_size as usize) - 1;
        let common = Arc::new(Common { pages, platform, watch, polled, odd, gone });
        let plan = running.vectors().clone();
        let queues = prepared.into_iter().zip(0..).map(|(prepared, number)| {
            let own = plan.queue(QueueId(number)).map_or(Badges::NONE, |grant| grant.badge.alone());
            let bell = session.doorbell(QueueId(number))?;
            Ok(vblk_queue::new(Arc::clone(&common), prepared.owned(bell), own))
        });
        let queues = queues.collect::<Result<_, SessionError>>().map_err(not_started)?;
        Ok(Box::new(Self { queues, common, info, session: ManuallyDrop::new(session), ground: owned }))
    }

    /// The facts.
    pub(crate) fn info(&self) -> vblk_info {
        self.info
    }

    /// A queue.
    pub(crate) fn queue(&self, number: u32) -> Option<&vblk_queue> {
        self.queues.get(number as usize)
    }

    /// Memory for buffers.
    pub(crate) fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.common.pages.take(bytes)
    }

    /// Takes memory back.
    pub(crate) fn give_back(&self, memory: NonNull<u8>) -> i32 {
        let in_use = |piece| self.queues.iter().any(|queue| queue.holds(piece));
        match self.common.pages.give_back(memory, in_use) {
            Ok(()) => VBLK_OK,
            Err(Kept::NoPiece) => VBLK_NOT_SHARED,
            Err(Kept::InUse) => VBLK_BUSY,
        }
    }

    /// Stops the device and ends what there is of it; `VBLK_BUSY`: it is as it was.
    ///
    /// # Safety
    /// Unless it answers `VBLK_BUSY`, nothing of the device is used any more; it is dropped, and that is all.
    pub(crate) unsafe fn close(&mut self) -> i32 {
        let mut entered: Vec<_> = self.queues.iter().map_while(vblk_queue::enter).collect();
        if entered.len() < self.queues.len() {
            return VBLK_BUSY;
        }
        let code = if self.session.stop(&self.common.platform).is_ok() { VBLK_OK } else { VBLK_GONE };
        let proof = self.session.proof();
        for inner in &mut entered {
            inner.end(proof.as_ref());
        }
        drop(entered);
        // SAFETY: once, here; by the contract nobody uses the session again.
        unsafe { ManuallyDrop::drop(&mut self.session) };
        // SAFETY: the box that `open` leaked; the queues, which borrowed from it, and the session ended above. See the
        // module's text for a back-end that may still have the memory.
        drop(unsafe { Box::from_raw(self.ground.as_ptr()) });
        code
    }
}

/// Holds the options against what can be; the ring's size and the form of its chains.
fn check(options: &vblk_options) -> Result<(u16, Chaining), Refused> {
    let invalid = |why: String| Err((VBLK_INVALID, why));
    if options.abi != VBLK_ABI {
        return invalid(format!(
            "version {} of the interface was asked for, this is {VBLK_ABI}: build anew",
            options.abi
        ));
    }
    if !(1..=u32::from(MAX_QUEUES)).contains(&options.queues) {
        return invalid(format!("{} queues: give 1 to {MAX_QUEUES}", options.queues));
    }
    if !(1..=u32::from(MAX_RING)).contains(&options.depth) {
        return invalid(format!("a depth of {}: give 1 to {MAX_RING}", options.depth));
    }
    if options.mode != VBLK_INTERRUPT && options.mode != VBLK_POLLED {
        return invalid(format!("mode {}: give {VBLK_INTERRUPT} (interrupt) or {VBLK_POLLED} (polled)", options.mode));
    }
    if ![VBLK_CACHE_AS_IT_IS, VBLK_CACHE_ON, VBLK_CACHE_OFF].contains(&options.cache) {
        return invalid(format!("cache {}: give {VBLK_CACHE_AS_IT_IS} to {VBLK_CACHE_OFF}", options.cache));
    }
    let half = half_of_the_machine();
    if options.memory < PAGE as u64 || options.memory > half {
        return invalid(format!("{} bytes of memory for buffers: give {PAGE} to {half}", options.memory));
    }
    // Three descriptors a request, and requests in fours, while that fits; else one descriptor and a table.
    let direct = (options.depth.next_multiple_of(4) * 3).next_power_of_two();
    let indirect = options.depth.next_power_of_two().max(2);
    Ok(match direct {
        ring if ring <= u32::from(MAX_RING) => (ring as u16, Chaining::Direct),
        _ => (indirect as u16, Chaining::Indirect),
    })
}

/// Half of the machine's memory, in bytes; what cannot be asked is taken for 2 GiB.
fn half_of_the_machine() -> u64 {
    let asked = |what| sysconf(what).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let bytes = asked(SysconfVar::_PHYS_PAGES).zip(asked(SysconfVar::PAGE_SIZE));
    bytes.map_or(1 << 31, |(pages, size)| pages.saturating_mul(size) / 2)
}

fn facts(geometry: &Geometry, queues: u16, slots: u16, polled: bool) -> vblk_info {
    vblk_info {
        capacity: geometry.capacity() * 512,
        max_transfer: (1 << 32) - u64::from(geometry.block_size),
        block_size: geometry.block_size,
        queues: queues.into(),
        depth: slots.into(),
        mode: if polled { VBLK_POLLED } else { VBLK_INTERRUPT },
        read_only: geometry.read_only.into(),
        write_cache: geometry.writeback.into(),
        discard: geometry.discard.is_some().into(),
        write_zeroes: geometry.write_zeroes.is_some().into(),
        reserved: 0,
    }
}

/// Why there is no connection: what was given cannot be one, or there is no back-end, or the system has no room.
fn not_connected(why: &ConnectError) -> Refused {
    let code = match why {
        ConnectError::System(_) => VBLK_SYSTEM,
        ConnectError::NotASocket(_) | ConnectError::NoPath | ConnectError::PathTooLong(_) => VBLK_INVALID,
        _ => VBLK_GONE,
    };
    (code, why.to_string())
}

/// Why the device behind a connection did not come up.
fn not_started(why: SessionError) -> Refused {
    match why {
        SessionError::Connect(why) => not_connected(&why),
        SessionError::Prepare(why) => (VBLK_INVALID, why.to_string()),
        SessionError::Device(_, Some(_)) => (VBLK_GONE, why.to_string()),
        why => (VBLK_DEVICE, why.to_string()),
    }
}
