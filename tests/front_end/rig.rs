//! The fake device, a front end over it, and clients that say what the test wants.
//!
//! [`World`] is what outlives a driver: memory, device, rings. [`Rig`] is a driver in it, [`Client`] a client's hands on
//! its rings and its memory. Time is [`Rig::now`].
use crate::fake::{Config, FakeDevice, HostMemory};
use crate::transport::{Bell, Clock, Wire};
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::{Offline, Quiesced, Running, Stopped, Wishes};
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::lib_block::entry::{Completion, Data, Flags, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::front_end::{Access, FrontEnd, Grant, Lent, Notify, Options, Served};
use drv_virtio_block::lib_block::message::{Capability, Extent, Opening, Rights, SessionId};
use drv_virtio_block::lib_block::ring::{ClientEnd, ClientRings, ServerRings};
use drv_virtio_block::lib_block::{Status, VERSION};
use drv_virtio_block::platform::{Badge, Nanos};
use drv_virtio_block::queue::{Prepared, QueueOptions};
use drv_virtio_block::transport::{QueueId, RingAddresses};
use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Rounds after which what did not happen never will.
pub(crate) const PATIENCE: usize = 10_000;
/// Queues of every life lie here.
const DMA: usize = 512 << 10;
/// Room for the rings of one client.
const RINGS: usize = 21 * 4096;

pub(crate) type Front<'w> = FrontEnd<'w, Bell, Rung>;

/// Which clients were rung since the last look.
#[derive(Clone, Default)]
pub(crate) struct Rung(Rc<RefCell<Vec<u16>>>, Rc<Cell<bool>>);

impl Notify for Rung {
    fn ring(&self, session: u16) {
        self.0.borrow_mut().push(session);
        if self.1.replace(false) {
            // A panic that nobody is told of.
            std::panic::resume_unwind(Box::new(Panicked));
        }
    }
}

/// What a doorbell or a clock of a test unwinds with.
pub(crate) struct Panicked;

impl Rung {
    /// The next client that is rung panics.
    pub(crate) fn panic_next(&self) {
        self.1.set(true);
    }

    pub(crate) fn take(&self) -> Vec<u16> {
        self.0.take()
    }
}

/// Memory and device.
pub(crate) struct World {
    pub(crate) device: FakeDevice,
    memory: Arc<HostMemory>,
    private: Box<[MaybeUninit<u8>]>,
    place: Option<Geometry>,
    data: usize,
}

impl World {
    /// A device of this kind, and room for four clients with 256 KiB each.
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config, 4, 256 << 10)
    }

    /// Room for `clients` with `data` bytes each.
    pub(crate) fn with(config: Config, clients: usize, data: usize) -> Self {
        let memory = HostMemory::new(DMA + clients * (RINGS + data));
        let private = Box::new_uninit_slice(8 << 20);
        Self { device: FakeDevice::new(Arc::clone(&memory), config), memory, private, place: None, data }
    }

    /// Brings the device up with one queue, and a front end over it.
    #[track_caller]
    pub(crate) fn start(&mut self, queue: &QueueOptions, options: Options) -> Rig<'_> {
        let Self { device, memory, private, place, data } = self;
        let memory: &HostMemory = memory;
        // SAFETY: zeroed memory that the device reaches at these addresses; what clients have lies behind `DMA`, a world
        // lends its memory once (`&mut`), and the device lives as long as the world.
        let mut region = unsafe { DmaRegion::new(memory.base(), DeviceAddress(memory.device_base()), DMA) };
        let mut arena = Arena::new(private);
        let wishes = Wishes { queue_size: queue.size, ..Wishes::default() };
        let offline = Offline::new(Wire(device.clone()));
        let driver = offline.negotiate(&Clock::default(), &wishes, &grants(device), place).expect("a device");
        let prepared = Prepared::new(queue, driver.geometry(), &mut region, &mut arena).expect("room for the queue");
        let addresses = prepared.addresses();
        let mut running = driver.program(QueueId(0), &addresses).expect("a ring").start().expect("a start");
        let doorbell = running.doorbell(QueueId(0)).expect("a doorbell");
        let rung = Rung::default();
        let front =
            FrontEnd::new(prepared, doorbell, rung.clone(), &mut arena, options, 1).expect("room for the sessions");
        Rig {
            device: device.clone(),
            memory,
            running: Some(running),
            stopped: None,
            front,
            rung,
            now: Cell::new(1),
            region,
            arena,
            queue: *queue,
            options,
            addresses,
            epoch: 1,
            data: *data,
        }
    }

    /// As [`World::start`], laid out as usual.
    #[track_caller]
    pub(crate) fn usual(&mut self) -> Rig<'_> {
        self.start(&QueueOptions::default(), Options::default())
    }
}

fn grants(device: &FakeDevice) -> Vec<InterruptGrant> {
    let most = device.vectors().min(device.num_queues() + 1) as u8;
    (0..most).map(|n| InterruptGrant { badge: Badge::new(n).unwrap(), vector: n.into() }).collect()
}

/// A driver that runs.
pub(crate) struct Rig<'w> {
    pub(crate) device: FakeDevice,
    pub(crate) memory: &'w HostMemory,
    running: Option<Running<'w, Wire>>,
    stopped: Option<Stopped<'w, Wire>>,
    pub(crate) front: Front<'w>,
    pub(crate) rung: Rung,
    /// What the clock says.
    pub(crate) now: Cell<u64>,
    region: DmaRegion<'w>,
    arena: Arena<'w>,
    queue: QueueOptions,
    options: Options,
    /// Where the ring is.
    pub(crate) addresses: RingAddresses,
    pub(crate) epoch: u32,
    data: usize,
}

/// An opening of `extents` with `rights`.
pub(crate) fn opening(credit: u16, rights: Rights, extents: &[(u64, u64)]) -> Opening {
    let extents: Vec<_> = extents.iter().map(|(first, blocks)| Extent { first: *first, blocks: *blocks }).collect();
    let capability = Capability::new(rights, &extents).expect("a capability");
    Opening { version: VERSION, credit, weight: 1, affinity: 0, capability }
}

impl<'w> Rig<'w> {
    /// One pass.
    pub(crate) fn serve(&mut self) -> Served {
        let now = self.now.get();
        self.front.serve(&|| Nanos(now))
    }

    /// Passes until there is nothing to do; panics if that never is.
    #[track_caller]
    pub(crate) fn sleep(&mut self) {
        for _ in 0..4 {
            self.serve();
            if !self.front.arm() {
                return;
            }
        }
        panic!("the front end never sleeps");
    }

    /// Serves, and has the device do everything, until nothing happens any more.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        for _ in 0..PATIENCE {
            let served = self.serve();
            if self.device.process_all(0) == 0 && served.completed == 0 && !self.front.arm() {
                return;
            }
        }
        panic!("it never ends");
    }

    fn ring_base(&self, at: usize) -> NonNull<u8> {
        self.memory.locate(self.memory.device_base() + self.area(at) as u64, RINGS as u64).unwrap()
    }

    /// The server's end of the rings of client `at`.
    pub(crate) fn rings(&self, at: usize, credit: u16) -> ServerRings<'w> {
        // SAFETY: as many bytes as rings of any size take, whole pages of zeroed memory that is accessed by atomics only.
        // Whoever served them before is over.
        unsafe { ServerRings::new(self.ring_base(at), credit) }.expect("rings")
    }

    /// The client's end of the same.
    pub(crate) fn client_end(&self, at: usize, credit: u16) -> ClientEnd<'w> {
        // SAFETY: as above; what is staged names memory that is accessed by atomics only.
        unsafe { ClientEnd::new(ClientRings::new(self.ring_base(at), credit).expect("rings")) }
    }

    /// The words of the rings of client `at`.
    pub(crate) fn words(&self, at: usize) -> &'w [AtomicU64] {
        words(self.memory, self.memory.device_base() + self.area(at) as u64, RINGS)
    }

    fn area(&self, at: usize) -> usize {
        DMA + at * (RINGS + self.data)
    }

    /// Where the data of client `at` is for the device.
    pub(crate) fn data(&self, at: usize) -> u64 {
        self.memory.device_base() + (self.area(at) + RINGS) as u64
    }

    /// A grant of `len` bytes from `offset` on in the data of client `at`.
    pub(crate) fn grant(&self, at: usize, offset: usize, len: usize, access: Access) -> Grant<'w> {
        assert!(offset + len <= self.data);
        let address = self.data(at) + offset as u64;
        let mapped = words(self.memory, address, len);
        // SAFETY: memory that lives as long as the device, initialised, accessed by atomics only.
        unsafe { Grant::new(DeviceAddress(address), len as u64, access, Some(mapped)) }
    }

    /// A client's hands, without a session.
    pub(crate) fn hands(&self, at: usize, credit: u16) -> Client<'w> {
        Client {
            end: self.client_end(at, credit),
            at,
            id: SessionId(0),
            all: MemoryId(0),
            data: self.data(at),
            words: self.words(at),
            memory: self.memory,
        }
    }

    /// A client that asked for this and is served, with all of its data registered.
    #[track_caller]
    pub(crate) fn open(&mut self, at: usize, opening: &Opening) -> Client<'w> {
        let mut client = self.hands(at, opening.credit);
        client.id = self.front.open(opening, self.rings(at, opening.credit), []).expect("a session").session;
        client.end.acknowledge(self.epoch);
        let all = self.grant(at, 0, self.data, Access::ReadWrite);
        client.all = self.front.register(client.id, all).expect("a registration");
        self.serve();
        self.rung.take();
        client
    }

    /// A client with all rights to the whole disk.
    #[track_caller]
    pub(crate) fn client(&mut self, at: usize, credit: u16) -> Client<'w> {
        let geometry = self.front.geometry().expect("a device");
        let blocks = geometry.capacity() * 512 / u64::from(geometry.block_size);
        self.open(at, &opening(credit, Rights::ALL, &[(0, blocks)]))
    }

    /// All that comes of one request.
    #[track_caller]
    pub(crate) fn ask(&mut self, wish: &Submission, client: &mut Client<'w>) -> Completion {
        self.ask_words(wish.encode(), client)
    }

    /// All that comes of one entry.
    #[track_caller]
    pub(crate) fn ask_words(&mut self, words: [u64; 8], client: &mut Client<'w>) -> Completion {
        client.say(words);
        self.settle();
        let mut done = client.take();
        assert_eq!(done.len(), 1, "one answer: {done:?}");
        done.remove(0)
    }

    /// Resets, answers, and goes on with the same queue.
    #[track_caller]
    pub(crate) fn reset(&mut self) {
        let queue = self.stop();
        self.go_on(queue);
    }

    /// Resets the device, and answers what it had.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> Prepared<'w, Lent<'w>> {
        let now = self.now.get();
        self.stop_with(|front, proof| front.reclaim(proof, &|| Nanos(now)).expect("its queue"))
    }

    /// As [`Rig::stop`], the queue taken back by `reclaim`.
    #[track_caller]
    pub(crate) fn stop_with<R>(&mut self, reclaim: impl FnOnce(&mut Front<'w>, &Quiesced<'_>) -> R) -> R {
        let stopped = self.running.take().expect("it runs").reset(&Clock::default()).expect("a reset");
        let queue = reclaim(&mut self.front, &stopped.proof());
        self.stopped = Some(stopped);
        queue
    }

    /// Goes on after [`Rig::stop`].
    #[track_caller]
    pub(crate) fn go_on(&mut self, queue: Prepared<'w, Lent<'w>>) {
        let stopped = self.stopped.take().expect("it was stopped");
        let running = self.bring_up(stopped, &queue);
        let running = self.running.insert(running);
        let doorbell = running.doorbell(QueueId(0)).expect("a doorbell");
        self.front.resume(queue, doorbell).expect("a queue of this device");
    }

    /// Another doorbell of the queue.
    #[track_caller]
    pub(crate) fn doorbell(&mut self) -> Bell {
        self.running.as_mut().expect("it runs").doorbell(QueueId(0)).expect("a doorbell")
    }

    /// That the device was reset, by [`Rig::stop`].
    #[track_caller]
    pub(crate) fn proof(&self) -> Quiesced<'_> {
        self.stopped.as_ref().expect("it was stopped").proof()
    }

    /// Looks at the capacity, as the configuration's interrupt asks for.
    #[track_caller]
    pub(crate) fn look_at_configuration(&mut self) {
        self.running.as_mut().expect("it runs").service_configuration().expect("a configuration that can be");
    }

    fn bring_up(&self, stopped: Stopped<'w, Wire>, queue: &Prepared<'w, Lent<'w>>) -> Running<'w, Wire> {
        let wishes = Wishes { queue_size: self.queue.size, ..Wishes::default() };
        let driver = stopped.negotiate(&Clock::default(), &wishes, &grants(&self.device)).expect("the same device");
        driver.program(QueueId(0), &queue.addresses()).expect("a ring").start().expect("a start")
    }

    /// The driver is no more, and another one begins over the same device: the next epoch, no session.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let stopped = self.running.take().expect("it runs").reset(&Clock::default()).expect("a reset");
        let geometry = self.front.geometry().expect("a device");
        let prepared = Prepared::new(&self.queue, geometry, &mut self.region, &mut self.arena).expect("room");
        self.addresses = prepared.addresses();
        let running = self.running.insert(self.bring_up(stopped, &prepared));
        let doorbell = running.doorbell(QueueId(0)).expect("a doorbell");
        self.epoch += 1;
        let front = FrontEnd::new(prepared, doorbell, self.rung.clone(), &mut self.arena, self.options, self.epoch);
        self.front = front.expect("room for the sessions");
    }
}

#[allow(clippy::cast_ptr_alignment, reason = "whole pages, or a multiple of 8 from there")]
fn words(memory: &HostMemory, address: u64, len: usize) -> &[AtomicU64] {
    assert!(address.is_multiple_of(8));
    let base = memory.locate(address, len as u64).unwrap();
    // SAFETY: inside the memory, aligned, and accessed by atomics only.
    unsafe { std::slice::from_raw_parts(base.as_ptr().cast(), len / 8) }
}

/// A client's hands on its rings and its memory.
pub(crate) struct Client<'w> {
    pub(crate) end: ClientEnd<'w>,
    pub(crate) at: usize,
    pub(crate) id: SessionId,
    /// All of its data, registered.
    pub(crate) all: MemoryId,
    /// Where that is for the device.
    pub(crate) data: u64,
    /// The words of its rings.
    pub(crate) words: &'w [AtomicU64],
    memory: &'w HostMemory,
}

impl Client<'_> {
    /// Bytes of its data as one piece.
    pub(crate) fn piece(&self, offset: u64, len: u32) -> Piece {
        Piece { memory: self.all, offset, len }
    }

    /// READ or WRITE of blocks of 512 bytes, from or to `offset`.
    pub(crate) fn io(&self, operation: Operation, tag: u16, lba: u64, blocks: u32, offset: u64) -> Submission {
        let data = Data::One(self.piece(offset, blocks * 512));
        Submission { tag, blocks, data, ..Submission::new(operation, lba) }
    }

    pub(crate) fn read(&self, tag: u16, lba: u64, blocks: u32, offset: u64) -> Submission {
        self.io(Operation::Read, tag, lba, blocks, offset)
    }

    pub(crate) fn write(&self, tag: u16, lba: u64, blocks: u32, offset: u64) -> Submission {
        self.io(Operation::Write, tag, lba, blocks, offset)
    }

    /// Shows the server some requests; true: its doorbell is to be rung.
    pub(crate) fn submit(&mut self, wishes: &[Submission]) -> bool {
        for wish in wishes {
            self.end.stage(wish.encode());
        }
        self.end.publish()
    }

    /// Shows the server an entry, whatever it says.
    pub(crate) fn say(&mut self, words: [u64; 8]) {
        self.end.stage(words);
        let _ = self.end.publish();
    }

    /// All answers that are there.
    #[track_caller]
    pub(crate) fn take(&mut self) -> Vec<Completion> {
        let ready = self.end.look().expect("an honest server");
        let decode = |ahead| Completion::decode(&self.end.peek(ahead)).expect("a completion");
        let done = (0..ready).map(decode).collect();
        self.end.consume(ready);
        done
    }

    /// Tags and ends of all answers that are there, in order.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Vec<(u16, Status)> {
        self.take().iter().map(|done| (done.tag, done.status)).collect()
    }

    pub(crate) fn put(&self, offset: u64, data: &[u8]) {
        self.memory.put(self.data + offset, data);
    }

    pub(crate) fn get(&self, offset: u64, len: usize) -> Vec<u8> {
        self.memory.bytes(self.data + offset, len)
    }
}

/// FLUSH.
pub(crate) fn flush(tag: u16) -> Submission {
    Submission { tag, ..Submission::new(Operation::Flush, 0) }
}

/// CANCEL of `target`.
pub(crate) fn cancel(tag: u16, target: u16) -> Submission {
    Submission { tag, ..Submission::new(Operation::Cancel, target.into()) }
}

/// DISCARD or WRITE ZEROES.
pub(crate) fn range(operation: Operation, tag: u16, lba: u64, blocks: u32) -> Submission {
    Submission { tag, blocks, ..Submission::new(operation, lba) }
}

/// The same, behind everything before it.
pub(crate) fn barrier(wish: Submission) -> Submission {
    Submission { flags: wish.flags.with(Flags::PRE_BARRIER), ..wish }
}

/// `bytes` bytes that differ from those of every other seed, at every place.
pub(crate) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let word =
        |at: u64| (seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
    (0..bytes.div_ceil(8) as u64).flat_map(word).take(bytes).collect()
}
