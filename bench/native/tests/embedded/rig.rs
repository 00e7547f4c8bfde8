//! Memory that driver and device share, buffers in it, and a device brought up over it.
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::{Offline, Running, Stopped, Wishes};
use drv_virtio_block::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, DmaRegion, Segment};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::platform::{Badge, Badges, Nanos, Platform};
use drv_virtio_block::queue::{OwnedQueue, Prepared, QueueOptions};
use drv_virtio_block::request::{Completion, Error, Request};
use drv_virtio_block::spec::Features;
use drv_virtio_block::transport::QueueId;
use native::embedded::minimal::{Device, Options};
use native::embedded::{EmbeddedDoorbell, EmbeddedTransport};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

pub(crate) type Owned = OwnedQueue<'static, Buf, EmbeddedDoorbell>;

/// Bytes for rings and slots, then as many for buffers; given away for good, since a test is short and a device may
/// outlive it.
const HALF: usize = 1 << 22;

#[repr(align(4096))]
struct Page(#[allow(dead_code, reason = "memory for the device")] [MaybeUninit<u8>; 4096]);

/// A buffer in the shared memory, as one or several segments with gaps between them.
#[derive(Debug)]
pub(crate) struct Buf {
    segments: Vec<Segment>,
}

// SAFETY: each buffer is cut off the heap once, which is never freed; its bytes are touched through it only, and not
// while the device has it, since a request owns it then. The memory was initialised with zeros.
unsafe impl Buffer for Buf {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
// SAFETY: as above.
unsafe impl DeviceReadable for Buf {}
// SAFETY: as above.
unsafe impl DeviceWritable for Buf {}

impl Buf {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let of = |s: &Segment| {
            let at = std::ptr::with_exposed_provenance::<u8>(s.address().0 as usize);
            // SAFETY: inside the heap, initialised, and this value's.
            unsafe { std::slice::from_raw_parts(at, s.len() as usize) }
        };
        self.segments.iter().flat_map(|s| of(s).to_vec()).collect()
    }

    pub(crate) fn fill(&self, data: &[u8]) {
        let mut rest = data;
        for s in &self.segments {
            let (now, later) = rest.split_at(s.len() as usize);
            let at = std::ptr::with_exposed_provenance_mut::<u8>(s.address().0 as usize);
            // SAFETY: as in `bytes`.
            unsafe { at.copy_from_nonoverlapping(now.as_ptr(), now.len()) };
            rest = later;
        }
        assert!(rest.is_empty());
    }
}

/// Where buffers are cut from.
pub(crate) struct Heap {
    at: Cell<usize>,
    end: usize,
}

impl Heap {
    pub(crate) fn cut(&self, lens: &[usize]) -> Buf {
        let mut segments = Vec::new();
        for len in lens {
            let at = self.at.get();
            assert!(at + len <= self.end, "the test's heap is too small");
            segments.push(Segment::new(DeviceAddress(at as u64), *len as u32));
            // A gap, so that a device that runs past a segment hits nothing of the next.
            self.at.set((at + len + 8).next_multiple_of(8));
        }
        Buf { segments }
    }

    pub(crate) fn holding(&self, data: &[u8]) -> Buf {
        let buf = self.cut(&[data.len()]);
        buf.fill(data);
        buf
    }
}

/// Bytes that tell tests and places apart.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(31) ^ seed.wrapping_mul(0x9e37_79b9) >> 3 ^ n >> 8) as u8).collect()
}

/// The clock, for resets; nothing waits for interrupts through it.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Platform for Clock {
    fn now(&self) -> Nanos {
        Nanos(self.0.elapsed().as_nanos() as u64)
    }
    fn relax(&self) {
        std::thread::yield_now();
    }
    fn wait(&self, _: Badges, _: Option<Nanos>) -> Badges {
        unreachable!("these tests wait on eventfds")
    }
    fn acknowledge(&self, _: Badges) {}
    fn mask(&self, _: Badges) {}
    fn unmask(&self, _: Badges) {}
}

/// A device, and memory that a driver may use.
pub(crate) struct World {
    pub(crate) device: Device,
    pub(crate) calls: Arc<Vec<EventFd>>,
    pub(crate) heap: Heap,
    pub(crate) base: *mut u8,
    region: Option<DmaRegion<'static>>,
    place: &'static mut Option<Geometry>,
}

/// Vectors: the configuration's, then one per queue.
pub(crate) fn world(options: Options) -> World {
    let pages: Box<[MaybeUninit<Page>]> = Box::new_zeroed_slice(2 * HALF / 4096);
    let base = Box::leak(pages).as_mut_ptr().cast::<u8>();
    let calls: Vec<_> = (0..=options.queues).map(|_| eventfd()).collect();
    let ends: Vec<OwnedFd> = calls.iter().map(|call| fd_of(call).try_clone_to_owned().unwrap()).collect();
    // SAFETY: the memory is given away for good and zeroed; the driver brought up below keeps to the rules.
    let device = unsafe { Device::new(options, &[(base, 2 * HALF)], ends) }.unwrap();
    let at = DeviceAddress(base.expose_provenance() as u64);
    // SAFETY: the first half is the driver's alone, device addresses are virtual ones; it lives for ever.
    let region = unsafe { DmaRegion::new(NonNull::new(base).unwrap(), at, HALF) };
    let heap = Heap { at: Cell::new(base.addr() + HALF), end: base.addr() + 2 * HALF };
    let place = Box::leak(Box::new(None));
    World { device, calls: Arc::new(calls), heap, base, region: Some(region), place }
}

fn eventfd() -> EventFd {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap()
}

fn fd_of(event: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(event)
}

/// Signals since the last look.
pub(crate) fn signals(call: &EventFd) -> u64 {
    call.read().unwrap_or(0)
}

/// Blocks until the eventfd is signalled, and takes the signals.
pub(crate) fn wait(call: &EventFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    while signals(call) == 0 {
        poll(&mut [PollFd::new(fd_of(call), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    }
}

pub(crate) fn grants(queues: u16) -> Vec<InterruptGrant> {
    (0..=queues).map(|n| InterruptGrant { badge: Badge::new(n as u8).unwrap(), vector: n }).collect()
}

/// A device that runs, with its queues laid out.
pub(crate) struct Live<Q> {
    pub(crate) device: Device,
    pub(crate) calls: Arc<Vec<EventFd>>,
    pub(crate) heap: Heap,
    pub(crate) running: Running<'static, EmbeddedTransport>,
    pub(crate) queues: Vec<Q>,
}

impl World {
    pub(crate) fn start(mut self, wishes: &Wishes, options: &QueueOptions) -> Live<Prepared<'static, Buf>> {
        let grants = grants(wishes.queues);
        let offline = Offline::new(self.device.transport());
        let mut negotiated = offline.negotiate(&Clock::new(), wishes, &grants, self.place).unwrap();
        let geometry = negotiated.geometry();
        let region = self.region.as_mut().unwrap();
        let mut queues = Vec::new();
        for (queue, size) in negotiated.queues() {
            let private = Box::leak(Box::new_uninit_slice(1 << 18));
            let options = QueueOptions { size, ..*options };
            let prepared = Prepared::new(&options, geometry, region, &mut Arena::new(private)).unwrap();
            negotiated = negotiated.program(queue, &prepared.addresses()).unwrap();
            queues.push(prepared);
        }
        let running = negotiated.start().unwrap();
        Live { device: self.device, calls: self.calls, heap: self.heap, running, queues }
    }

    /// One owned queue of `options.size`, with everything offered but `without`.
    pub(crate) fn owned(self, options: &QueueOptions, without: u64) -> Live<Owned> {
        let features = Features::IMPLEMENTED.without(without);
        self.start(&Wishes { queue_size: options.size, features, ..Wishes::default() }, options).own()
    }
}

impl Live<Prepared<'static, Buf>> {
    pub(crate) fn own(mut self) -> Live<Owned> {
        let mut own = |(n, queue): (usize, Prepared<'static, Buf>)| {
            queue.owned(self.running.doorbell(QueueId(n as u16)).unwrap())
        };
        let queues = self.queues.into_iter().enumerate().map(&mut own).collect();
        Live { device: self.device, calls: self.calls, heap: self.heap, running: self.running, queues }
    }
}

impl Live<Owned> {
    pub(crate) fn queue(&mut self) -> &mut Owned {
        &mut self.queues[0]
    }

    /// Submits, steps the device, and returns the one completion.
    pub(crate) fn ask(&mut self, request: Request<Buf>) -> Completion<Buf> {
        self.queue().submit(request).expect("a free slot");
        let mut done = Vec::new();
        while done.is_empty() {
            assert!(self.device.step(0) > 0, "the device has nothing to do and nothing came back");
            self.queues[0].reap(1, |completion| done.push(completion));
        }
        done.pop().unwrap()
    }

    pub(crate) fn outcome(&mut self, request: Request<Buf>) -> Result<(), Error> {
        self.ask(request).result
    }

    pub(crate) fn reset(self) -> (Stopped<'static, EmbeddedTransport>, Vec<Owned>, Device, Heap) {
        (self.running.reset(&Clock::new()).unwrap(), self.queues, self.device, self.heap)
    }
}
