//! The disk's file behind the device on rust-vmm's rings, the driver on it, and a front end on the driver's only queue.
//!
//! It knows no blocks and no partitions. The device is reached over a socket, as one in another process would be.
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::Wishes;
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::lib_block::front_end::{self, FrontEnd, Lent, Notify};
use drv_virtio_block::platform::{Badges, Nanos, Platform};
use drv_virtio_block::queue::{Prepared, QueueOptions};
use drv_virtio_block::transport::QueueId;
use native::event::Kick;
use native::memory::{Piece, SharedMemory};
use native::output;
use native::platform::LinuxPlatform;
use native::rust_vmm::{Medium, Options, Server, Stop};
use native::vhost_user::{self, Connection, Session};
use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::thread::JoinHandle;

/// Memory that the device knows: rings of the queue and of two sessions, and their buffers.
const MEMORY: usize = 4 << 20;
/// Of it, for the queue.
const QUEUE: usize = 1 << 20;
/// The driver's and the front end's own memory.
const PRIVATE: usize = 1 << 20;
/// Requests of a client that can be unanswered: it waits for each.
pub(crate) const CREDIT: u16 = 4;

/// Client and front end are one thread: there is nobody to wake.
pub(crate) struct Nobody;

impl Notify for Nobody {
    fn ring(&self, _: u16) {}
}

type Front = FrontEnd<'static, Kick, Nobody>;

/// A running device, the driver on it, and the front end.
pub(crate) struct Device {
    pub(crate) front: RefCell<Front>,
    session: Session<'static>,
    platform: LinuxPlatform,
    /// The queue's interrupt, and the back-end's end.
    badges: Badges,
    memory: &'static SharedMemory,
    back_end: (Stop, JoinHandle<io::Result<()>>),
    _folder: tempfile::TempDir,
}

impl Device {
    /// Serves the file at `path` and brings the driver up.
    pub(crate) fn start(path: &Path) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("socket");
        let medium = Medium::file(path, false).map_err(|error| format!("{}: {error}", path.display()))?;
        let server = Server::bind(&socket, medium, Options::default())?;
        let stop = Stop::new()?;
        let told = stop.clone();
        let thread = std::thread::spawn(move || server.run(&told));
        // What the device may touch lives for good.
        let memory: &'static SharedMemory = Box::leak(Box::new(SharedMemory::new(MEMORY)?));
        let (connection, transport) = Connection::open(&socket, memory, vhost_user::Options::default())?;
        let platform = connection.platform()?;
        let mut arena = Arena::new(vec![MaybeUninit::uninit(); PRIVATE].leak());
        let mut region = memory.take(QUEUE).ok_or("no memory for the queue")?.into_region();
        let wishes = Wishes { queues: 1, mode: CompletionMode::Interrupt, ..Wishes::default() };
        let lay_out = |_, size, geometry| {
            let options = QueueOptions { size, ..QueueOptions::default() };
            Prepared::<Lent<'static>>::new(&options, geometry, &mut region, &mut arena)
        };
        let place = Box::leak(Box::new(None));
        let (mut session, prepared) = Session::start(&connection, transport, &platform, &wishes, place, lay_out)?;
        let prepared = prepared.into_iter().next().ok_or("the device has no queue")?;
        let doorbell = session.doorbell(QueueId(0))?;
        let options = front_end::Options { sessions: 2, credit: CREDIT, ..front_end::Options::default() };
        let front = FrontEnd::new(prepared, doorbell, Nobody, &mut arena, options, 1)
            .map_err(|why| format!("{} bytes are lacking for the front end", why.wanted))?;
        let interrupts = connection.grants().into_iter().map(|grant| grant.badge);
        let badges = interrupts.chain([Connection::HANG_UP]).collect();
        let front = RefCell::new(front);
        Ok(Self { front, session, platform, badges, memory, back_end: (stop, thread), _folder: folder })
    }

    /// Memory that the device knows; never given back.
    pub(crate) fn memory(&self, bytes: usize) -> Option<Piece<'static>> {
        self.memory.take(bytes)
    }

    /// One pass of the front end.
    pub(crate) fn serve(&self) {
        // No request here has a deadline.
        self.front.borrow_mut().serve(&|| Nanos(0));
    }

    /// Sleeps until the device answered, unless it has by now.
    pub(crate) fn wait(&self) {
        let mut front = self.front.borrow_mut();
        if front.arm() {
            return;
        }
        let taken = self.platform.wait(self.badges, None);
        self.platform.acknowledge(taken);
        front.woken();
        if taken.has(Connection::HANG_UP) {
            output::complain(format_args!(
                "files: the device is gone: run it again, and check the file system first (fsck.fat)"
            ));
            std::process::exit(1);
        }
    }

    /// Resets the device, and ends its threads.
    pub(crate) fn stop(mut self) -> Result<(), Box<dyn Error>> {
        let reset = self.session.stop(&self.platform);
        let (stop, thread) = self.back_end;
        stop.stop();
        let served = thread.join().map_err(|_| "the device's thread panicked")?;
        reset?;
        Ok(served?)
    }
}
