//! The other peer: libblkio itself (the crate blkio) over its driver `virtio-blk-vhost-user`, as its users see it.
//!
//! A queue takes requests one by one and shows them to the device at once; `do_io` then rings the doorbell and hands
//! completions over. A [`BlkioQueue`] calls it without room for completions after a batch ([`BlkioQueue::flush_batch`]),
//! and without waiting for any when it reaps: polling and sleeping are the job's, as with every driver here. A queue that
//! is polled is one of libblkio's poll queues, any other sleeps on its completion eventfd.
//!
//! libblkio hides its doorbells: how many were rung nobody knows. What finds no room waits inside of it.
use super::{Backing, Local, Memory};
use crate::embedded::minimal::Device;
use crate::event::Event;
use blkio::{Blkio, BlkioStartOutcome, Blkioq, Completion, MemoryRegion, ReqFlags};
use drv_virtio_block::spec::SECTOR;
use runner::fits::Disk;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// Completions taken in one call at most.
const MOST: usize = 128;

/// What queues to set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many.
    pub queues: u16,
    /// Descriptors of each, a power of two; a request takes three.
    pub queue_size: u16,
    /// As poll queues.
    pub polled: bool,
}

/// One queue.
pub struct BlkioQueue {
    queue: Blkioq,
    completions: Box<[MaybeUninit<Completion>; MOST]>,
    slots: u16,
    /// Interrupts were asked for, and nothing was reaped since.
    armed: bool,
    /// Holds the ring memory that `queue` points into; declared last, dropped last.
    backing: Arc<Backing<Blkio>>,
}

/// Queues to the vhost-user back-end that listens at `path`.
///
/// # Errors
/// When it cannot be reached, or lacks what libblkio needs.
///
/// # Safety
/// The memory stays mapped at its place until the queues are gone.
pub unsafe fn over_vhost_user(path: &str, setup: Setup, memory: &[Memory<'_>]) -> io::Result<Vec<BlkioQueue>> {
    set_up(connect(path)?, None, setup, memory)
}

/// Queues to a minimal device of this process that spins or is stepped, and that nobody else drives.
///
/// # Errors
/// When the device sleeps, is driven already, or lacks what was asked for.
///
/// # Safety
/// The memory stays mapped, and is the driver's to name, until the queues are gone.
pub unsafe fn over_minimal(device: &Device, setup: Setup, memory: &[Memory<'_>]) -> io::Result<Vec<BlkioQueue>> {
    let (blkio, local) = Local::connect(device, connect)?;
    set_up(blkio, Some(local), setup, memory)
}

fn connect(path: &str) -> io::Result<Blkio> {
    let mut blkio = Blkio::new("virtio-blk-vhost-user").map_err(io::Error::other)?;
    blkio.set_str("path", path).and_then(|()| blkio.connect()).map_err(io::Error::other)?;
    Ok(blkio)
}

fn set_up(blkio: Blkio, local: Option<Local>, setup: Setup, memory: &[Memory<'_>]) -> io::Result<Vec<BlkioQueue>> {
    // From here on an error takes the device down before the memory goes.
    let mut backing = Backing { transport: ManuallyDrop::new(blkio), local };
    let queues = start(&mut backing.transport, setup, memory).map_err(io::Error::other)?;
    let backing = Arc::new(backing);
    let queue = |queue| BlkioQueue {
        queue,
        completions: Box::new([const { MaybeUninit::uninit() }; MOST]),
        slots: setup.queue_size / 3,
        armed: false,
        backing: backing.clone(),
    };
    Ok(queues.into_iter().map(queue).collect())
}

fn start(blkio: &mut Blkio, setup: Setup, memory: &[Memory<'_>]) -> blkio::Result<Vec<Blkioq>> {
    let count = i32::from(setup.queues);
    let (plain, polled) = if setup.polled { (0, count) } else { (count, 0) };
    blkio.set_i32("queue-size", setup.queue_size.into())?;
    blkio.set_i32("num-queues", plain)?;
    blkio.set_i32("num-poll-queues", polled)?;
    let BlkioStartOutcome { mut queues, poll_queues } = blkio.start()?;
    queues.extend(poll_queues);
    for Memory { base, len, file, offset } in memory {
        blkio.map_mem_region(&MemoryRegion {
            addr: base.expose_provenance(),
            iova: 0,
            len: *len,
            fd: file.as_raw_fd(),
            fd_offset: *offset,
            flags: 0,
        })?;
    }
    Ok(queues)
}

impl BlkioQueue {
    /// What is known of the disk, and its capacity in sectors of 512 bytes. A disk that is read-only was refused when
    /// the device was started.
    ///
    /// # Errors
    /// When the device does not tell it.
    pub fn disk(&self) -> io::Result<(Disk, u64)> {
        let device = &self.backing.transport;
        let told = || Ok::<_, blkio::Error>((device.get_i32("request-alignment")?, device.get_u64("capacity")?));
        let (alignment, bytes) = told().map_err(io::Error::other)?;
        Ok((Disk { block_size: alignment.cast_unsigned(), ..Disk::UNKNOWN }, bytes / SECTOR))
    }

    /// How many reads and writes of one buffer the ring has room for; more wait inside.
    pub fn slots(&self) -> u16 {
        self.slots
    }

    /// Hands a read of `len` bytes from byte `offset` on over; the device is told by [`BlkioQueue::flush_batch`].
    ///
    /// # Safety
    /// The buffer lies in memory that was handed to the set-up, and is the device's until the token comes back.
    #[inline(always)]
    pub unsafe fn read(&mut self, offset: u64, buffer: *mut u8, len: usize, token: u64) {
        self.queue.read(offset, buffer, len, token as usize, ReqFlags::empty());
    }

    /// Hands a write over, as [`BlkioQueue::read`].
    ///
    /// # Safety
    /// As [`BlkioQueue::read`]; the buffer is initialised and does not change meanwhile.
    #[inline(always)]
    pub unsafe fn write(&mut self, offset: u64, buffer: *const u8, len: usize, token: u64) {
        self.queue.write(offset, buffer, len, token as usize, ReqFlags::empty());
    }

    /// Hands a flush over.
    pub fn flush(&mut self, token: u64) {
        self.queue.flush(token as usize, ReqFlags::empty());
    }

    /// After a batch: rings the doorbell if the device asks for it.
    ///
    /// # Errors
    /// When the doorbell cannot be rung.
    #[inline(always)]
    pub fn flush_batch(&mut self) -> io::Result<()> {
        self.queue.do_io(&mut [], 0, None, None).map(drop).map_err(io::Error::other)
    }

    /// Hands completions to `sink` as token and 0 or a negative error number, up to `max` or as many as one call takes; returns how many.
    #[inline(always)]
    pub fn reap(&mut self, max: usize, mut sink: impl FnMut(u64, i32)) -> usize {
        let room = &mut self.completions[..max.min(MOST)];
        // An error is the doorbell's, which shows soon enough; completions stay inside then.
        let handed = self.queue.do_io(room, 0, None, None).unwrap_or(0);
        for completion in &room[..handed] {
            // SAFETY: the call said that it wrote so many; it is plain data.
            let completion = unsafe { completion.assume_init_ref() };
            sink(completion.user_data as u64, completion.ret);
        }
        if handed > 0 && self.armed {
            // Nobody will sleep: what is reaped next does not pay for interrupts.
            self.disarm();
        }
        handed
    }

    /// Asks for an interrupt; true: look again first.
    pub fn arm(&mut self) -> bool {
        if self.armed {
            return false;
        }
        self.queue.set_completion_fd_enabled(true);
        self.armed = true;
        true
    }

    /// Asks for no more interrupts.
    pub fn disarm(&mut self) {
        self.queue.set_completion_fd_enabled(false);
        self.armed = false;
    }

    /// What is raised with an interrupt; never, for a queue that is polled.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn interrupt(&self) -> io::Result<Event> {
        let Some(file) = self.queue.get_completion_fd() else { return Event::new() };
        // SAFETY: open for as long as the queue lives.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        Event::adopt(file.try_clone_to_owned()?)
    }
}
