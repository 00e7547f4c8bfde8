//! Memory, buffers and queues: the ground that a test stands on.
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::Wishes;
use drv_virtio_block::dma::{Buffer, DeviceReadable, DeviceWritable, Segment};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::platform::Nanos;
use drv_virtio_block::queue::{OwnedQueue, Prepared, QueueOptions};
use drv_virtio_block::request::{Completion, Error, Request};
use drv_virtio_block::transport::QueueId;
use native::event::Kick;
use native::memory::{Piece, SharedMemory};
use native::platform::LinuxPlatform;
use native::vhost_user::{Connection, Options, Session, SessionError, VhostUser};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

/// Bytes of a block: what most requests of the tests carry.
pub const BLOCK: u32 = 4096;

/// A buffer of one segment. It is a test's own, as long as no request has it.
#[derive(Debug)]
pub struct Block<'m> {
    piece: Piece<'m>,
    segments: [Segment; 1],
}

// SAFETY: the segment is the piece's memory, which has no other handle and lives for 'm; the list never changes.
unsafe impl Buffer for Block<'_> {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
// SAFETY: as above; shared memory is zeroed, so initialised.
unsafe impl DeviceReadable for Block<'_> {}
// SAFETY: as above; bytes have no invalid values, and who has the block has it alone.
unsafe impl DeviceWritable for Block<'_> {}

impl<'m> Block<'m> {
    /// A block of `len` bytes.
    pub fn new(memory: &'m SharedMemory, len: u32) -> Self {
        let piece = memory.take(len as usize).expect("the memory is large enough");
        let segments = [Segment::new(piece.device_address(), len)];
        Self { piece, segments }
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the piece's own initialised bytes; `&mut self` and its not being in a request make it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.piece.base().as_ptr(), self.piece.len()) }
    }
}

/// A queue of the tests.
pub type Queue<'g> = OwnedQueue<'g, Block<'g>, Kick>;

/// Memory, and places for what queues borrow; all of it outlives what is laid out in it.
pub struct Ground {
    /// For rings and buffers.
    pub memory: SharedMemory,
    private: Vec<MaybeUninit<u8>>,
    place: Option<Geometry>,
}

impl Ground {
    /// 1 MiB of memory.
    pub fn new() -> Self {
        Self::of(1 << 20)
    }

    /// So many bytes of memory, a quarter of them for rings.
    pub fn of(bytes: usize) -> Self {
        let memory = SharedMemory::new(bytes).expect("there is memory");
        Self { memory, private: vec![MaybeUninit::uninit(); 1 << 18], place: None }
    }

    /// 4 MiB for good.
    pub fn leaked() -> &'static mut Self {
        Box::leak(Box::new(Self::of(4 << 20)))
    }

    /// Connects.
    pub fn connect(&self, path: &Path, options: Options) -> (Connection, VhostUser) {
        Connection::open(path, &self.memory, options).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Brings a device up over a connection.
    pub fn start<'g>(
        &'g mut self,
        connection: &Connection,
        transport: VhostUser,
        platform: &LinuxPlatform,
        wishes: &Wishes,
    ) -> Result<Rig<'g>, SessionError> {
        let Self { memory, private, place } = self;
        let memory: &'g SharedMemory = memory;
        let mut region = memory.take(memory.len() / 4).expect("the memory is large enough").into_region();
        let mut arena = Arena::new(private);
        let lay_out = |_, size, geometry| {
            let options = QueueOptions { size, ..QueueOptions::default() };
            Prepared::new(&options, geometry, &mut region, &mut arena)
        };
        let (mut session, prepared) = Session::start(connection, transport, platform, wishes, place, lay_out)?;
        let mut queues = Vec::new();
        for (n, prepared) in prepared.into_iter().enumerate() {
            queues.push(prepared.owned(session.doorbell(QueueId(n as u16))?));
        }
        Ok(Rig { memory, session, queues })
    }
}

/// A running device with its queues.
pub struct Rig<'g> {
    pub memory: &'g SharedMemory,
    pub session: Session<'g>,
    pub queues: Vec<Queue<'g>>,
}

/// Wishes of the tests: small queues, and a reset within `patience`.
pub fn wishes(queues: u16, mode: CompletionMode, patience: Duration) -> Wishes {
    let patience = Nanos::from_millis(patience.as_millis() as u64);
    Wishes { queues, mode, queue_size: 64, patience, ..Wishes::default() }
}

/// Submits one request and polls until it is over.
pub fn one<'g>(queue: &mut Queue<'g>, request: Request<Block<'g>>) -> (Result<(), Error>, Option<Block<'g>>) {
    queue.submit(request).unwrap_or_else(|refused| panic!("{}", refused.why));
    let mut over: Option<Completion<Block<'g>>> = None;
    while over.is_none() {
        queue.reap(1, |completion| over = Some(completion));
        assert_eq!(queue.broken(), None);
        std::thread::yield_now();
    }
    let over = over.expect("the loop ended");
    (over.result, over.buffer)
}
