//! A vhost-user-blk back-end whose rings are rust-vmm's (`virtio-queue`, `vhost-user-backend`): an independent device to
//! conform to.
//!
//! [`Server::bind`] takes a socket, [`Server::run`] serves one client after the other until it is told to stop; in a
//! thread of a process or as a process of its own. Every queue has a thread. The medium outlives its clients. It refuses
//! to know which driver connects; it believes nothing that a driver says: a bad chain is answered with an error if it
//! has room for an answer, and given back empty if not.
//!
//! Invariants: no client can make it panic, allocate more than a bounded buffer per request, or touch anything but the
//! client's memory and the medium.
//!
//! Specification: 2.7 Split Virtqueues, 5.2 Block Device; vhost-user (QEMU interop).
mod backend;
mod deviation;
mod medium;
mod request;
#[cfg(test)]
mod tests;

pub use medium::Medium;

use backend::Backend;
use drv_virtio_block::spec::{ID_BYTES, feature};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vhost::vhost_user::Listener;
use vhost_user_backend::{ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// What the device offers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Features offered; VERSION_1 always is, RO follows `read_only`.
    pub features: u64,
    /// Queues, 1 to 32; a thread each.
    pub queues: u16,
    /// Most descriptors of a queue, a power of two.
    pub queue_size: u16,
    /// Refuse whatever changes data.
    pub read_only: bool,
    /// `seg_max`.
    pub seg_max: u32,
    /// `blk_size`, in bytes.
    pub block_size: u32,
    /// `writeback` at the start: whether a write may wait for a FLUSH.
    pub writeback: bool,
    /// `max_discard_sectors` and `max_write_zeroes_sectors`, one segment a request.
    pub max_range_sectors: u32,
    /// What GET_ID answers, padded with NUL.
    pub id: [u8; ID_BYTES as usize],
    /// Deviate as devices in the field do: used lengths that are 0, the data, one more, or more than there is, and a
    /// DISCARD whose limits allow no request.
    pub deviating: bool,
}

impl Default for Options {
    fn default() -> Self {
        let mut id = [0; ID_BYTES as usize];
        id[..8].copy_from_slice(b"rust-vmm");
        Self {
            features: feature::EVENT_IDX
                | feature::INDIRECT_DESC
                | feature::MQ
                | feature::FLUSH
                | feature::CONFIG_WCE
                | feature::DISCARD
                | feature::WRITE_ZEROES
                | feature::BLK_SIZE
                | feature::SEG_MAX,
            queues: 1,
            queue_size: 1024,
            read_only: false,
            seg_max: 126,
            block_size: 512,
            writeback: true,
            max_range_sectors: 1 << 16,
            id,
            deviating: false,
        }
    }
}

/// Tells a server to stop; clones tell the same server.
#[derive(Clone)]
pub struct Stop {
    shared: Arc<StopShared>,
}

struct StopShared {
    stopped: AtomicBool,
    wake: EventFd,
    /// The connection that is being served.
    client: Mutex<Option<ShutdownHandle>>,
}

impl Stop {
    /// A stop that nobody said yet.
    ///
    /// # Errors
    /// When there is no eventfd to be had.
    pub fn new() -> io::Result<Self> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        let shared = StopShared { stopped: AtomicBool::new(false), wake, client: Mutex::new(None) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ends [`Server::run`], and the connection that it serves.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        // A full counter is readable already; it is never read, so that it stays so.
        let _ = self.shared.wake.write(1);
        if let Some(client) = &*self.client() {
            client.shutdown();
        }
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<ShutdownHandle>> {
        self.shared.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire)
    }
}

/// A socket with a device behind it. A client can connect from the moment that it exists.
pub struct Server {
    listener: Listener,
    device: Arc<Backend>,
}

impl Server {
    /// Listens at `socket`, in the place of whatever file is there.
    ///
    /// # Errors
    /// When the socket cannot be made, or options and medium make no device.
    pub fn bind(socket: &Path, medium: Medium, options: Options) -> io::Result<Self> {
        let device = Arc::new(Backend::new(medium, options)?);
        let listener = Listener::new(socket, true).map_err(io::Error::other)?;
        Ok(Self { listener, device })
    }

    /// Serves one client after the other until `stop` is said.
    ///
    /// # Errors
    /// When the socket or a thread cannot be had. What a client does wrong ends its connection only.
    pub fn run(mut self, stop: &Stop) -> io::Result<()> {
        while self.serve_next(stop)? {}
        Ok(())
    }

    /// Serves one client, or none if `stop` is said before.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn run_once(mut self, stop: &Stop) -> io::Result<()> {
        self.serve_next(stop).map(drop)
    }

    /// Serves the next client until it is gone; false: there is none, because `stop` was said.
    fn serve_next(&mut self, stop: &Stop) -> io::Result<bool> {
        if !self.wait_for_client(stop)? {
            return Ok(false);
        }
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let made = VhostUserDaemon::new("rust-vmm".into(), self.device.clone(), memory);
        let mut daemon = made.map_err(|e| io::Error::other(e.to_string()))?;
        daemon.start(&mut self.listener).map_err(|e| io::Error::other(e.to_string()))?;
        *stop.client() = daemon.shutdown_handle();
        // Said before the handle was there to be used.
        if stop.is_stopped() {
            daemon.request_shutdown();
        }
        // A client that breaks off or talks nonsense is gone; the next one may come.
        let _ = daemon.wait();
        *stop.client() = None;
        self.device.forget_client();
        Ok(true)
    }

    /// True: a client is there. False: stop.
    fn wait_for_client(&self, stop: &Stop) -> io::Result<bool> {
        // SAFETY: the listener is open for as long as `self` is borrowed.
        let listener = unsafe { BorrowedFd::borrow_raw(self.listener.as_raw_fd()) };
        let mut fds =
            [PollFd::new(listener, PollFlags::POLLIN), PollFd::new(stop.shared.wake.as_fd(), PollFlags::POLLIN)];
        while !stop.is_stopped() {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[0].any() == Some(true) => return Ok(!stop.is_stopped()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
    }
}

/// [`Server::bind`] and [`Server::run`].
///
/// # Errors
/// As theirs.
pub fn serve(socket: &Path, medium: Medium, options: Options, stop: &Stop) -> io::Result<()> {
    Server::bind(socket, medium, options)?.run(stop)
}
