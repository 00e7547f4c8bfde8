//! The way to a back-end: connect, and connect again when it died and came back.
//!
//! A [`Connection`] is the owner's handle beside the transport that the driver took: it has what the platform waits for
//! (call eventfds, the hang-up of the socket), knows why a back-end was lost, and puts the next one in its place. It
//! refuses to know queues and requests.
use super::control::Control;
use super::error::{ConnectError, ControlError};
use super::line::Line;
use super::transport::{Share, VhostUser, lock};
use crate::event::Event;
use crate::memory::SharedMemory;
use crate::platform::{LinuxPlatform, Source, Watch};
use drv_virtio_block::interrupt::{InterruptGrant, MAX_INTERRUPTS};
use drv_virtio_block::platform::Badge;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a back-end is connected to.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long each message of the control path may take. An orderly reset may take half of it, then the connection is
    /// hung up.
    pub patience: Duration,
    /// Call eventfds, at most [`MAX_INTERRUPTS`]: one for the configuration, which never fires, and one for each queue
    /// that is to interrupt on its own. 0: nothing interrupts.
    pub vectors: u16,
    /// Descriptors of a queue, a power of two: back-ends cannot be asked (qemu-storage-daemon takes up to 1024).
    pub queue_size: u16,
}

impl Default for Options {
    /// 5 seconds, one queue that interrupts, queues of up to 1024.
    fn default() -> Self {
        Self { patience: Duration::from_secs(5), vectors: 2, queue_size: 1024 }
    }
}

/// Longer waits are cut to this, which every clock can add: a day.
const LONGEST: Duration = Duration::from_hours(24);
/// Pause between two attempts to connect to a back-end that is not there yet.
const PAUSE: Duration = Duration::from_millis(5);

/// The owner's handle. See the module's text. Clones are handles of the same connection.
#[derive(Clone)]
pub struct Connection {
    line: Arc<Mutex<Line>>,
    watch: Arc<Watch>,
    calls: Arc<[Arc<Event>]>,
    path: Arc<PathBuf>,
    options: Options,
}

impl Connection {
    /// What [`Connection::platform`] raises when the back-end closed its end.
    pub const HANG_UP: Badge = match Badge::new(Badge::COUNT - 1) {
        Some(badge) => badge,
        None => panic!(),
    };

    /// Connects to the back-end that listens at `path`. It will be told of `memory`, in which queues and buffers are,
    /// when the first queue is programmed.
    ///
    /// # Errors
    /// [`ConnectError`] says what to do; nothing is left open then.
    pub fn open(path: &Path, memory: &SharedMemory, options: Options) -> Result<(Self, VhostUser), ConnectError> {
        let options = Options { patience: options.patience.min(LONGEST), ..options };
        let control = Control::open(path, options.patience)?;
        let watch = Arc::new(Watch::new(control.as_fd())?);
        let count = usize::from(options.vectors).min(MAX_INTERRUPTS);
        let calls = (0..count).map(|_| Event::new().map(Arc::new)).collect::<io::Result<Arc<[_]>>>()?;
        let file = memory.as_fd().try_clone_to_owned()?;
        let address = memory.base().as_ptr().expose_provenance() as u64;
        let share = Share { file, address, len: memory.len() as u64 };
        let line = Line::new(control, share, Arc::clone(&calls), options.patience);
        let line = Arc::new(Mutex::new(line));
        let transport = VhostUser { line: Arc::clone(&line), queue_size: options.queue_size };
        Ok((Self { line, watch, calls, path: Arc::new(path.to_owned()), options }, transport))
    }

    /// As [`Connection::open`], for a back-end that may still be starting: tries until one answers, or `bound` is over.
    ///
    /// # Errors
    /// The last attempt's, if that is one that more time could have helped; else at once.
    pub fn open_within(
        path: &Path,
        memory: &SharedMemory,
        options: Options,
        bound: Duration,
    ) -> Result<(Self, VhostUser), ConnectError> {
        within(bound, || Self::open(path, memory, options))
    }

    /// Connects to the next back-end at the same path, in the place of one that is gone. The device must have been reset
    /// ([`Running::reset`](drv_virtio_block::device::Running::reset) succeeded, which for a back-end that is gone means
    /// that it let go of the memory), and is brought up again afterwards.
    ///
    /// # Errors
    /// [`ConnectError::NotReset`], or as [`Connection::open`]; it can be tried again.
    pub fn reconnect(&self) -> Result<(), ConnectError> {
        let mut line = lock(&self.line);
        line.replace(|| {
            let control = Control::open(&self.path, self.options.patience)?;
            self.watch.exchange(control.as_fd())?;
            Ok(control)
        })
    }

    /// As [`Connection::reconnect`], until one answers, or `bound` is over.
    ///
    /// # Errors
    /// As [`Connection::open_within`].
    pub fn reconnect_within(&self, bound: Duration) -> Result<(), ConnectError> {
        within(bound, || self.reconnect())
    }

    /// Ends the connection from this side: the back-end counts as lost from here on, and closes its end when it has
    /// finished what is in flight. The way to another back-end when the present one is not wanted.
    pub fn hang_up(&self) {
        lock(&self.line).hang_up();
    }

    /// Why the back-end is lost; `None`: it is there.
    pub fn lost(&self) -> Option<ControlError> {
        lock(&self.line).lost()
    }

    /// The interrupt capabilities, the configuration's first: vector `n` raises badge `n`.
    pub fn grants(&self) -> Vec<InterruptGrant> {
        let grant = |vector| Some(InterruptGrant { badge: Badge::new(vector as u8)?, vector });
        (0..self.calls.len() as u16).filter_map(grant).collect()
    }

    /// The call eventfd of each vector.
    pub fn calls(&self) -> &[Arc<Event>] {
        &self.calls
    }

    /// The socket's hang-up; it stays valid over reconnects.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// What a platform of this connection waits for: its grants' badges and [`Connection::HANG_UP`].
    pub fn sources(&self) -> impl Iterator<Item = (Badge, Source)> {
        let calls = self.grants().into_iter().zip(self.calls.iter());
        let interrupts = calls.map(|(grant, call)| (grant.badge, Source::Interrupt(Arc::clone(call))));
        interrupts.chain([(Self::HANG_UP, Source::HangUp(Arc::clone(&self.watch)))])
    }

    /// A platform that waits for [`Connection::sources`].
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn platform(&self) -> io::Result<LinuxPlatform> {
        LinuxPlatform::new(self.sources())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Tries until it works, fails in a way that time does not mend, or `bound` is over.
fn within<T>(bound: Duration, mut attempt: impl FnMut() -> Result<T, ConnectError>) -> Result<T, ConnectError> {
    let end = Instant::now() + bound.min(LONGEST);
    loop {
        match attempt() {
            Err(why) if why.may_pass() && Instant::now() < end => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}
