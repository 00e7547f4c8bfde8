//! The peer: the crate virtio-driver (libblkio's), driven as libblkio drives it, for measurements side by side.
//!
//! A [`PeerQueue`] pushes a batch, then asks once whether to notify, and hands completions out by token. It adds nothing
//! of its own on the way, so that nothing is charged to the peer that is not the peer's: forwarding is inlined, and the
//! ring, its memory and its transport are the crate's. The crate's transport trait cannot be implemented outside of it
//! (its methods name private types), so the minimal device is reached through the crate's own vhost-user transport too:
//! `control.rs` answers the set-up messages, and from then on there is only memory between the two. In that transport a
//! device address is the driver's virtual address, which is what the minimal device takes.
//!
//! It refuses to know what is measured. Invariant: ring memory outlives every queue, and a device of this process has
//! let go of it before it is unmapped.
pub mod blkio;
mod control;
mod queue;
#[cfg(test)]
mod tests;

pub use queue::PeerQueue;

use crate::embedded::minimal::{Device, Notify};
use control::Control;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vhost::vhost_user::BackendReqHandler;
use virtio_driver::{VhostUser, VirtioBlkConfig, VirtioBlkQueue, VirtioBlkReqBuf, VirtioBlkTransport};

type Transport = VhostUser<VirtioBlkConfig, VirtioBlkReqBuf>;

/// What queues to set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many.
    pub queues: usize,
    /// Descriptors of each, a power of two; a request takes three.
    pub queue_size: u16,
    /// Features to accept if they are offered; VERSION_1 must be among them.
    pub features: u64,
}

/// Memory that buffers lie in, as the far side gets it.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'m> {
    /// Its first byte.
    pub base: *mut u8,
    /// Its length in bytes.
    pub len: usize,
    /// The file that it is a mapping of.
    pub file: BorrowedFd<'m>,
    /// Where in the file it begins, in bytes.
    pub offset: i64,
}

/// What queues live on; the last of them takes it down.
struct Backing<T> {
    /// Holds the ring memory.
    transport: ManuallyDrop<T>,
    /// The device of this process that knows that memory.
    local: Option<Local>,
}

impl<T> Drop for Backing<T> {
    fn drop(&mut self) {
        // Otherwise whoever holds the queue may still write there: the memory stays mapped for good.
        if self.local.as_ref().is_none_or(Local::lets_go) {
            // SAFETY: dropped once, here; nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.transport) };
        }
    }
}

/// A device of this process, at the far end of a control connection.
struct Local {
    device: Device,
    control: Arc<Mutex<Control>>,
}

impl Local {
    /// Listens, for one driver, in front of a device that nobody else drives, and connects it: `connect` gets the path.
    fn connect<T>(device: &Device, connect: impl FnOnce(&str) -> io::Result<T>) -> io::Result<(T, Self)> {
        if device.options().notify != Notify::Never || device.is_driven() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the device sleeps, or is driven already"));
        }
        let control = Arc::new(Mutex::new(Control::new(device.clone())));
        let directory = Directory::new()?;
        let path = directory.0.join("control");
        let listener = UnixListener::bind(&path)?;
        // The connection waits in the listener's queue until it is accepted, but a driver wants answers while it connects.
        let server = control.clone();
        std::thread::Builder::new().name("peer-control".into()).spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                let mut handler = BackendReqHandler::from_stream(stream, server);
                // Until the transport is dropped, which closes the connection.
                while handler.handle_request().is_ok() {}
            }
        })?;
        let connected = connect(path.to_str().ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok((connected, Self { device: device.clone(), control }))
    }

    /// Has the device forget the driver's memory; false: it may still write there.
    fn lets_go(&self) -> bool {
        self.device.halt();
        let mut patience = 1_000_000;
        while !self.device.try_quiesce() {
            std::thread::yield_now();
            patience -= 1;
            if patience == 0 {
                return false;
            }
        }
        self.control.lock().unwrap_or_else(PoisonError::into_inner).forget_regions();
        true
    }
}

/// Queues to the vhost-user back-end that listens at `path`.
///
/// # Errors
/// When it cannot be reached, or lacks what the crate needs.
///
/// # Safety
/// The memory stays mapped at its place until the queues are gone.
pub unsafe fn over_vhost_user(path: &str, setup: &Setup, memory: &[Memory<'_>]) -> io::Result<Vec<PeerQueue>> {
    set_up(Box::new(Transport::new(path, setup.features)?), None, setup, memory)
}

/// Queues to a minimal device of this process that spins or is stepped, and that nobody else drives.
///
/// # Errors
/// When the device sleeps (its doorbells are not the crate's), is driven already, or lacks what was asked for.
///
/// # Safety
/// The memory stays mapped, and is the driver's to name, until the queues are gone.
pub unsafe fn over_minimal(device: &Device, setup: &Setup, memory: &[Memory<'_>]) -> io::Result<Vec<PeerQueue>> {
    let (transport, local) = Local::connect(device, |path| Transport::new(path, setup.features))?;
    set_up(Box::new(transport), Some(local), setup, memory)
}

/// A directory for a socket, gone when it is dropped.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("peer-{}-{number}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn set_up(
    transport: Box<Transport>,
    local: Option<Local>,
    setup: &Setup,
    memory: &[Memory<'_>],
) -> io::Result<Vec<PeerQueue>> {
    // From here on an error takes the device down before the memory goes.
    let mut backing = Backing { transport: ManuallyDrop::new(transport), local };
    let transport: &mut VirtioBlkTransport = &mut **backing.transport;
    for Memory { base, len, file, offset } in memory {
        transport.map_mem_region(base.expose_provenance(), *len, file.as_raw_fd(), *offset)?;
    }
    let queues = VirtioBlkQueue::setup_queues(transport, setup.queues, setup.queue_size)?;
    let ends: Vec<_> =
        (0..setup.queues).map(|n| (transport.get_submission_notifier(n), transport.get_completion_fd(n))).collect();
    let backing = Arc::new(backing);
    let slots = setup.queue_size / 3;
    let all = queues.into_iter().zip(ends);
    Ok(all.map(|(queue, (notifier, done))| PeerQueue::new(queue, notifier, done, slots, backing.clone())).collect())
}
