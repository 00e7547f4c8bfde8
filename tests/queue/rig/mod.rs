//! The driver brought up on the fake device: memory, device, queues.
//!
//! [`World`] is what outlives a driver (memory, device, facts); [`World::start`] is a driver in it.
mod buffers;
mod many;
mod model;
mod transport;

pub(crate) use buffers::{Buf, FRESH, Heap};
pub(crate) use many::{Shared, Sub, take};
pub(crate) use model::{Model, pattern};
pub(crate) use transport::{Bell, Clock, Wire};

use crate::fake::{Config, FakeDevice, HostMemory};
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::{Offline, Running, Stopped, Wishes};
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::platform::Badge;
use drv_virtio_block::queue::{OwnedQueue, Prepared, QueueOptions};
use drv_virtio_block::request::{Completion, Error};
use drv_virtio_block::spec::Features;
use drv_virtio_block::transport::{QueueId, RingAddresses};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Rounds after which a queue that is not idle never will be.
pub(crate) const PATIENCE: usize = 10_000;

/// How much memory of each kind there is.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) dma: usize,
    pub(crate) private: usize,
    pub(crate) places: usize,
    pub(crate) place: usize,
}

impl Default for Room {
    /// For a few queues of 256 and small buffers.
    fn default() -> Self {
        Self { dma: 256 << 10, private: 128 << 10, places: 300, place: 5 << 10 }
    }
}

/// The device, its memory, and its facts once a driver has learned them.
pub(crate) struct World {
    pub(crate) device: FakeDevice,
    pub(crate) heap: Heap,
    memory: Arc<HostMemory>,
    private: Vec<MaybeUninit<u8>>,
    place: Option<Geometry>,
    dma: usize,
}

/// A queue of one owner.
pub(crate) type Owned<'w> = OwnedQueue<'w, Buf, Bell>;

/// A driver that runs, with queues of some kind.
pub(crate) struct Live<'w, Q> {
    pub(crate) device: FakeDevice,
    pub(crate) heap: Heap,
    pub(crate) running: Running<'w, Wire>,
    pub(crate) queue: Q,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config, Room::default())
    }

    pub(crate) fn with(config: Config, room: Room) -> Self {
        let memory = HostMemory::new(room.dma + room.places * room.place);
        Self {
            device: FakeDevice::new(Arc::clone(&memory), config),
            heap: Heap::new(&memory, room.dma, room.places, room.place),
            memory,
            private: vec![MaybeUninit::uninit(); room.private],
            place: None,
            dma: room.dma,
        }
    }

    /// The memory to lay queues out in.
    fn lend<'w>(memory: &'w HostMemory, dma: usize, private: &'w mut [MaybeUninit<u8>]) -> (DmaRegion<'w>, Arena<'w>) {
        // SAFETY: zeroed memory that the device reaches at these addresses; places of buffers lie behind `dma`, a world
        // lends its memory once (`&mut`), and the device lives as long as the world.
        let region = unsafe { DmaRegion::new(memory.base(), DeviceAddress(memory.device_base()), dma) };
        (region, Arena::new(private))
    }

    /// Brings the device up with the queues that `wishes` ask for, all laid out alike.
    #[track_caller]
    pub(crate) fn start(&mut self, wishes: &Wishes, options: &QueueOptions) -> Live<'_, Vec<Prepared<'_, Buf>>> {
        let Self { device, heap, memory, private, place, dma } = self;
        let (mut region, mut arena) = Self::lend(memory, *dma, private);
        let wishes = Wishes { queue_size: options.size, ..*wishes };
        let offline = Offline::new(Wire(device.clone()));
        let mut driver =
            offline.negotiate(&Clock::default(), &wishes, &grants(device), place).expect("a device to agree with");
        let disk = driver.geometry();
        let mut queues = Vec::new();
        for (queue, size) in driver.queues() {
            let options = QueueOptions { size, ..*options };
            let prepared = Prepared::new(&options, disk, &mut region, &mut arena).expect("room for the queue");
            driver = driver.program(queue, &prepared.addresses()).expect("a ring that fits");
            queues.push(prepared);
        }
        let running = driver.start().expect("a device that starts");
        Live { device: device.clone(), heap: heap.clone(), running, queue: queues }
    }

    /// One queue with these options, for many or for one.
    #[track_caller]
    pub(crate) fn prepared(&mut self, options: &QueueOptions) -> Live<'_, Prepared<'_, Buf>> {
        self.start(&Wishes::default(), options).map(|mut queues| queues.remove(0))
    }

    /// One queue for one owner.
    #[track_caller]
    pub(crate) fn owned(&mut self, options: &QueueOptions) -> Live<'_, Owned<'_>> {
        self.prepared(options).own()
    }

    /// As [`World::owned`], and where its ring is.
    #[track_caller]
    pub(crate) fn owned_with_addresses(&mut self, options: &QueueOptions) -> (Live<'_, Owned<'_>>, RingAddresses) {
        let live = self.prepared(options);
        let addresses = live.queue.addresses();
        (live.own(), addresses)
    }

    /// As [`World::owned`], without these features.
    #[track_caller]
    pub(crate) fn owned_without(&mut self, mask: u64, options: &QueueOptions) -> Live<'_, Owned<'_>> {
        let wishes = Wishes { features: Features::IMPLEMENTED.without(mask), ..Wishes::default() };
        self.start(&wishes, options).map(|mut queues| queues.remove(0)).own()
    }
}

/// A vector for the configuration and one for each queue, as far as the device has them.
pub(crate) fn grants(device: &FakeDevice) -> Vec<InterruptGrant> {
    let most = device.vectors().min(device.num_queues() + 1) as u8;
    (0..most).map(|n| InterruptGrant { badge: Badge::new(n).unwrap(), vector: n.into() }).collect()
}

impl<'w, Q> Live<'w, Q> {
    /// The same driver with another kind of queue.
    pub(crate) fn map<R>(self, f: impl FnOnce(Q) -> R) -> Live<'w, R> {
        Live { device: self.device, heap: self.heap, running: self.running, queue: f(self.queue) }
    }
}

impl<'w> Live<'w, Prepared<'w, Buf>> {
    pub(crate) fn own(mut self) -> Live<'w, Owned<'w>> {
        let bell = self.running.doorbell(QueueId(0)).expect("a doorbell");
        self.map(|prepared| prepared.owned(bell))
    }
}

/// Brings a stopped device up again with a queue that was reclaimed.
#[track_caller]
pub(crate) fn restart<'w>(
    stopped: Stopped<'w, Wire>,
    queue: &Prepared<'w, Buf>,
    device: &FakeDevice,
) -> Running<'w, Wire> {
    let wishes = Wishes { queue_size: queue.addresses().size(), ..Wishes::default() };
    let driver = stopped.negotiate(&Clock::default(), &wishes, &grants(device)).expect("the same device");
    driver.program(QueueId(0), &queue.addresses()).expect("the ring fits as before").start().expect("it starts")
}

impl Live<'_, Owned<'_>> {
    /// Everything that can be reaped now.
    pub(crate) fn reap(&mut self) -> Vec<Completion<Buf>> {
        let mut done = Vec::new();
        while self.queue.reap(usize::MAX, |completion| done.push(completion)) > 0 {}
        done
    }

    /// Lets the device do all that it knows, over and over, and reaps until the queue is idle.
    pub(crate) fn finish(&mut self) -> Vec<Completion<Buf>> {
        let mut done = self.reap();
        for _ in 0..PATIENCE {
            if self.device.process_all(0) == 0 {
                return done;
            }
            done.extend(self.reap());
        }
        panic!("the queue never comes to rest");
    }

    /// Submits one request, lets the device do it, and returns its completion.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: drv_virtio_block::request::Request<Buf>) -> Completion<Buf> {
        self.queue.submit(request).expect("a request that is taken");
        let mut done = self.finish();
        assert_eq!(done.len(), 1, "one answer: {done:?}");
        done.remove(0)
    }
}

/// Token and result of completions, by token.
pub(crate) fn outcomes(done: &[Completion<Buf>]) -> Vec<(u64, Result<(), Error>)> {
    let mut list: Vec<_> = done.iter().map(|completion| (completion.token, completion.result)).collect();
    list.sort_by_key(|(token, _)| *token);
    list
}
