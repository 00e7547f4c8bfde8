//! Rings in leaked memory, a server that the test plays, and buffers that are counted.
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{
    Client, Completion, Replay, Resumed, ServerReadable, ServerWritable, SharedBuffer,
};
use drv_virtio_block::lib_block::entry::{self, Data, MemoryId, Piece, Submission};
use drv_virtio_block::lib_block::ring::{self, Announcement, ClientRings, ServerEnd, ServerRings, Stage};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a block.
pub(super) const BLOCK: u32 = 512;
/// Credit of most tests.
pub(super) const N: usize = 4;
/// The first server's life.
pub(super) const EPOCH: u32 = 7;
/// Where the server's completion tail is, in words.
pub(super) const COMPLETION_TAIL: usize = 24;

/// The memory of a session's rings, which outlives the test.
#[derive(Clone, Copy)]
pub(super) struct Memory(&'static [AtomicU64]);

impl Memory {
    pub(super) fn new(entries: u16) -> Self {
        // A line more, to begin at one.
        let words = ring::bytes(entries) / 8 + 8;
        let all: &'static [AtomicU64] = (0..words).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak();
        let skip = (all.as_ptr().addr().wrapping_neg() & 63) / 8;
        Self(&all[skip..])
    }

    /// The client's end.
    pub(super) fn rings(self, entries: u16) -> ClientRings<'static> {
        // SAFETY: atomics of as many bytes as rings take, for good, reached as atomics alone. No server of these tests
        // accesses memory that a request names.
        unsafe { ClientRings::new(NonNull::from(self.0).cast(), entries) }.expect("a size, at a line")
    }

    /// The server's end.
    fn server_rings(self, entries: u16) -> ServerRings<'static> {
        // SAFETY: as above; a server that is replaced does nothing any more.
        unsafe { ServerRings::new(NonNull::from(self.0).cast(), entries) }.expect("a size, at a line")
    }

    /// A word scribbled over.
    pub(super) fn scribble(self, word: usize, value: u64) {
        self.0[word].store(value.to_le(), Ordering::Release);
    }
}

/// A buffer that knows how many of its kind live.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) data: Data,
    live: Rc<Cell<u32>>,
}

// SAFETY: names memory that nobody has; the played server does not touch it.
unsafe impl SharedBuffer for Buffer {
    fn data(&self) -> Data {
        self.data
    }
}
// SAFETY: as above.
unsafe impl ServerReadable for Buffer {}
// SAFETY: as above.
unsafe impl ServerWritable for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}

/// Makes buffers and counts those that live.
#[derive(Clone, Default)]
pub(super) struct Buffers(Rc<Cell<u32>>);

impl Buffers {
    pub(super) fn at(&self, offset: u64, blocks: u32) -> Buffer {
        self.with(Data::One(Piece { memory: MemoryId(1), offset, len: blocks * BLOCK }))
    }

    pub(super) fn with(&self, data: Data) -> Buffer {
        self.0.set(self.0.get() + 1);
        Buffer { data, live: self.0.clone() }
    }

    pub(super) fn live(&self) -> u32 {
        self.0.get()
    }
}

/// The server, as the test plays it.
pub(super) struct Server {
    end: ServerEnd<'static>,
    pub(super) memory: Memory,
    pub(super) epoch: u32,
    unanswered: u32,
}

impl Server {
    pub(super) fn new(memory: Memory, entries: u16, epoch: u32) -> Self {
        Self { end: ServerEnd::new(memory.server_rings(entries)), memory, epoch, unanswered: 0 }
    }

    pub(super) fn announce(&mut self, stage: Stage) {
        self.end.announce(Announcement { epoch: self.epoch, stage });
    }

    /// Whether the client goes along.
    pub(super) fn is_acknowledged(&mut self) -> bool {
        self.end.acknowledged(self.epoch)
    }

    /// Everything that the client showed.
    pub(super) fn take(&mut self) -> Vec<Submission> {
        let ready = self.end.look(self.unanswered).expect("the client's indices are good");
        let taken = (0..ready).map(|at| Submission::decode(&self.end.peek(at)).expect("well formed")).collect();
        self.end.consume(ready);
        self.unanswered += ready;
        taken
    }

    /// Answers as an honest server does.
    pub(super) fn answer(&mut self, request: &Submission, status: Status) {
        let bytes = if status.is_ok() && request.operation.has_data() { request.blocks * BLOCK } else { 0 };
        self.say(entry::Completion { tag: request.tag, status, bytes, epoch: self.epoch, late: false });
    }

    pub(super) fn done(&mut self, request: &Submission) {
        self.answer(request, Status::Ok);
    }

    pub(super) fn say(&mut self, completion: entry::Completion) {
        self.raw(completion.encode());
    }

    /// Any words; they are shown at once.
    pub(super) fn raw(&mut self, words: [u64; 2]) -> bool {
        self.end.post(words);
        self.unanswered = self.unanswered.saturating_sub(1);
        self.end.publish()
    }

    pub(super) fn arm(&mut self) {
        self.end.arm();
    }
}

pub(super) type TestClient = Client<'static, Buffer, N>;

/// A client and its server, attached.
pub(super) fn attached() -> (TestClient, Server, Buffers) {
    let memory = Memory::new(N as u16);
    let mut client = Client::new(memory.rings(N as u16), BLOCK).expect("sizes fit");
    let mut server = Server::new(memory, N as u16, EPOCH);
    server.announce(Stage::Serving);
    let resumed = client.resume(Replay::Never, |_| unreachable!("nothing was asked"));
    assert_eq!(resumed, Resumed::Attached { lost: 0, replayed: 0 });
    assert!(server.is_acknowledged());
    (client, server, Buffers::default())
}

/// The next life of a server, announced.
pub(super) fn next_life(server: &Server) -> Server {
    let mut next = Server::new(server.memory, N as u16, server.epoch + 1);
    next.announce(Stage::Serving);
    next
}

/// Everything that can be reaped.
pub(super) fn reap(client: &mut TestClient) -> Vec<Completion<Buffer>> {
    let mut all = Vec::new();
    client.reap(u32::MAX, |done| all.push(done));
    all
}

/// Tokens and ends, in their order.
pub(super) fn ends(all: &[Completion<Buffer>]) -> Vec<(u64, Status)> {
    all.iter().map(|done| (done.token, done.status)).collect()
}

/// A server behind a reference, for those who play it from within a callback.
pub(super) type SharedServer = Rc<RefCell<Server>>;
