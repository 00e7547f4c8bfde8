//! Memory, device, platform: what outlives a driver. A driver in it is a [`Ground::service`].
mod desk;
mod fuse;
mod peer;
mod port;
#[allow(dead_code, reason = "its clock goes on by itself; the desk's does not")]
#[path = "../../queue/rig/transport.rs"]
mod transport;

pub(crate) use desk::{Desk, Sleep};
pub(crate) use fuse::{Fuse, Killed};
pub(crate) use peer::{Peer, read, write};
pub(crate) use port::{Bells, Port};

use crate::fake::{Config, FakeDevice, HostMemory};
use drv_virtio_block::arena::Arena;
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::MemoryId;
use drv_virtio_block::lib_block::front_end::{Access, Grant};
use drv_virtio_block::lib_block::message::{
    Answer, Body, Call, Capability, Driver, Extent, Given, Opened, Opening, Rights, SessionId,
};
use drv_virtio_block::lib_block::ring::{self, ClientEnd, ClientRings, ServerRings};
use drv_virtio_block::lib_block::{self};
use drv_virtio_block::platform::{Badge, Nanos};
use drv_virtio_block::service::{Beside, Envelope, Hardware, Service};
use drv_virtio_block::transport::Transport;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of memory for the queues.
const DMA: usize = 128 << 10;
/// Places for rings.
const SEATS: usize = 8;
/// Entries of a client's rings.
pub(crate) const CREDIT: u16 = 8;
/// Bytes of a piece of data memory.
pub(crate) const PAGE: usize = 4096;
/// Pieces of it.
const PAGES: usize = 96;
/// The number of what clients have registered after a restart: all data memory.
pub(crate) const ALL: MemoryId = MemoryId(1 << 16);
/// How long a device may take here.
pub(crate) const PATIENCE: Nanos = Nanos::from_millis(100);

/// See the module's text.
pub(crate) struct Ground {
    pub(crate) device: FakeDevice,
    pub(crate) desk: Desk,
    pub(crate) bells: Bells,
    pub(crate) fuse: Fuse,
    /// Works on, whatever it knows, until its status reads 0.
    pub(crate) wild: Rc<std::cell::Cell<bool>>,
    memory: Arc<HostMemory>,
}

/// A driver's private memory.
pub(crate) struct Private {
    bytes: Vec<MaybeUninit<u8>>,
    facts: Option<Geometry>,
}

impl Private {
    pub(crate) fn new() -> Self {
        Self::of(256 << 10)
    }

    pub(crate) fn for_good() -> &'static mut Self {
        Box::leak(Box::new(Self::new()))
    }

    pub(crate) fn of(bytes: usize) -> Self {
        Self { bytes: vec![MaybeUninit::uninit(); bytes], facts: None }
    }
}

pub(crate) type Tested<'m> = Service<'m, Port, &'m Desk, Bells>;

/// One queue of 64, 4 sessions.
pub(crate) fn envelope() -> Envelope {
    Envelope { queue_size: 64, sessions: 4, credit: 16, patience: PATIENCE, ..Envelope::default() }
}

const fn seat_bytes() -> usize {
    ring::bytes(CREDIT).next_multiple_of(PAGE)
}

impl Ground {
    pub(crate) fn new(config: Config) -> Self {
        let memory = HostMemory::new(DMA + SEATS * seat_bytes() + PAGES * PAGE);
        let device = FakeDevice::new(Arc::clone(&memory), config);
        let fuse = Fuse::default();
        let desk = Desk::new(&fuse);
        let line = desk.line();
        device.on_interrupt(move |vector| line.interrupt(vector));
        let ground = Self { device, desk, bells: Bells::new(&fuse), fuse, wild: Rc::default(), memory };
        ground.serve_while_relaxing();
        ground
    }

    /// As [`Ground::new`], for tests whose clients work while the driver does.
    pub(crate) fn for_good(config: Config) -> &'static Self {
        Box::leak(Box::new(Self::new(config)))
    }

    /// The device does all that it knows whenever the driver waits for it.
    pub(crate) fn serve_while_relaxing(&self) {
        let device = self.device.clone();
        self.desk.while_relaxing(move || {
            for queue in 0..device.num_queues() {
                device.process_all(queue);
            }
        });
    }

    /// A vector for the configuration and one for each queue, as far as the device has them.
    pub(crate) fn grants(&self) -> impl Iterator<Item = InterruptGrant> {
        let most = self.device.vectors().min(self.device.num_queues() + 1) as u8;
        (0..most).map(|n| InterruptGrant { badge: Badge::new(n).unwrap(), vector: n.into() })
    }

    pub(crate) fn hardware<'m>(&self, private: &'m mut Private) -> Hardware<'m, Port> {
        // SAFETY: initialised memory that the device reaches at these addresses, and that lives as long as it; rings of
        // clients and data lie behind `DMA`. An earlier driver over it was forgotten, and does nothing any more.
        let dma = unsafe { DmaRegion::new(self.memory.base(), DeviceAddress(self.memory.device_base()), DMA) };
        Hardware {
            transport: Port::new(&self.device, &self.fuse, &self.wild),
            interrupts: self.grants().collect(),
            dma,
            arena: Arena::new(&mut private.bytes),
            facts: &mut private.facts,
        }
    }

    pub(crate) fn service<'m>(&'m self, private: &'m mut Private, envelope: Envelope) -> Tested<'m> {
        Service::new(self.hardware(private), envelope, &self.desk, self.bells.clone())
    }

    #[track_caller]
    pub(crate) fn started<'m>(&'m self, private: &'m mut Private) -> Tested<'m> {
        let mut service = self.service(private, envelope());
        service.start().expect("a device that comes up");
        service
    }

    /// Overwrites the memory of the queues, as an earlier driver would have left it.
    pub(crate) fn soil(&self, byte: u8) {
        self.memory.put(self.memory.device_base(), &vec![byte; DMA]);
    }

    fn seat_address(seat: usize) -> usize {
        assert!(seat < SEATS);
        DMA + seat * seat_bytes()
    }

    fn ring_base(&self, seat: usize) -> NonNull<u8> {
        // SAFETY: inside the memory.
        unsafe { self.memory.base().add(Self::seat_address(seat)) }
    }

    /// The client's end of rings number `seat`.
    pub(crate) fn client_rings(&self, seat: usize) -> ClientRings<'_> {
        // SAFETY: inside the memory, page-aligned, initialised, and accessed through rings of it only. The tests' requests
        // name memory that nobody has a reference to.
        unsafe { ClientRings::new(self.ring_base(seat), CREDIT) }.expect("rings at a page")
    }

    /// The client's end in use: what is staged names memory that nobody has a reference to.
    pub(crate) fn client_end(&self, seat: usize) -> ClientEnd<'_> {
        // SAFETY: see above.
        unsafe { ClientEnd::new(self.client_rings(seat)) }
    }

    /// The server's end of rings number `seat`.
    pub(crate) fn rings(&self, seat: usize) -> ServerRings<'_> {
        // SAFETY: as above; an earlier service over them is over.
        unsafe { ServerRings::new(self.ring_base(seat), CREDIT) }.expect("rings at a page")
    }

    /// The first words of rings, as they stand.
    pub(crate) fn ring_words(&self, seat: usize, count: usize) -> Vec<u64> {
        let bytes = self.memory.bytes(self.ring_address(seat, 0), 8 * count);
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
    }

    /// Where a word of rings is for the device.
    pub(crate) fn ring_address(&self, seat: usize, word: usize) -> u64 {
        self.memory.device_base() + (Self::seat_address(seat) + 8 * word) as u64
    }

    fn page(&self, page: usize) -> u64 {
        assert!(page < PAGES);
        self.memory.device_base() + (DMA + SEATS * seat_bytes() + page * PAGE) as u64
    }

    pub(crate) fn put(&self, page: usize, data: &[u8]) {
        self.memory.put(self.page(page), data);
    }

    pub(crate) fn bytes(&self, page: usize, len: usize) -> Vec<u8> {
        self.memory.bytes(self.page(page), len)
    }

    /// `pages` of data memory from `first` on.
    pub(crate) fn grant(&self, first: usize, pages: usize, access: Access) -> Grant<'_> {
        assert!(first + pages <= PAGES);
        let address = DeviceAddress(self.page(first));
        // SAFETY: memory of the device, initialised, that lives as long as it.
        unsafe { Grant::new(address, (pages * PAGE) as u64, access, None) }
    }

    /// All data memory.
    pub(crate) fn all(&self) -> Grant<'_> {
        self.grant(0, PAGES, Access::ReadWrite)
    }
}

/// `blocks` of the medium from `first` on, and every right.
pub(crate) fn opening(first: u64, blocks: u64) -> Opening {
    let capability = Capability::new(Rights::ALL, &[Extent { first, blocks }]).expect("a capability");
    Opening { version: lib_block::VERSION, credit: CREDIT, weight: 1, affinity: 0, capability }
}

/// A call, through its bytes, and its answer.
#[track_caller]
pub(crate) fn ask<'m>(
    service: &mut Tested<'m>,
    session: SessionId,
    body: Body,
    beside: Beside<'m>,
) -> Result<Given, Status> {
    let call = Call { session, cookie: 0x5eed_0000_0000_0001, body };
    let answer = Answer::decode(&service.handle(&call.encode(), beside)).expect("an answer");
    assert_eq!(answer.cookie, call.cookie);
    answer.result
}

/// A call about no session, with nothing beside it.
#[track_caller]
pub(crate) fn tell(service: &mut Tested<'_>, body: Body) -> Result<Given, Status> {
    ask(service, SessionId(0), body, Beside::default())
}

#[track_caller]
pub(crate) fn driver(service: &mut Tested<'_>) -> Driver {
    match tell(service, Body::ReadDriver) {
        Ok(Given::Driver(driver)) => driver,
        other => panic!("the driver: {other:?}"),
    }
}

/// Opens a session over rings `seat`, with all data memory known as [`ALL`].
#[track_caller]
pub(crate) fn open<'m>(service: &mut Tested<'m>, ground: &'m Ground, seat: usize, opening: Opening) -> Opened {
    let known = [(ALL, ground.all())].into_iter().collect();
    let beside = Beside { rings: Some(ground.rings(seat)), memory: None, known };
    match ask(service, SessionId(0), Body::Open(opening), beside) {
        Ok(Given::Opened(opened)) => opened,
        other => panic!("a session: {other:?}"),
    }
}

/// A call with memory beside it.
#[track_caller]
pub(crate) fn with_memory<'m>(
    service: &mut Tested<'m>,
    session: SessionId,
    body: Body,
    memory: Grant<'m>,
) -> Result<Given, Status> {
    ask(service, session, body, Beside { memory: Some(memory), ..Beside::default() })
}

/// The words of the rings' header that tests look at.
pub(crate) mod word {
    pub(crate) const SUBMISSION_TAIL: usize = 16;
    pub(crate) const COMPLETION_HEAD: usize = 17;
    pub(crate) const COMPLETION_TAIL: usize = 24;
    /// Where completion entries begin, 2 words each.
    pub(crate) const COMPLETIONS: usize = 32 + 8 * super::CREDIT as usize;
    /// How many there are.
    pub(crate) const END: usize = COMPLETIONS + 2 * super::CREDIT as usize;
}

/// Bytes that differ from those of every other seed, at every place.
pub(crate) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let word =
        |at: u64| (seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
    (0..bytes.div_ceil(8) as u64).flat_map(word).take(bytes).collect()
}

/// The transport, for a test that looks at a register.
pub(crate) fn status_of(ground: &Ground) -> u8 {
    transport::Wire(ground.device.clone()).status().expect("a status")
}
