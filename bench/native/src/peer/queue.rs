//! One queue of the peer.
use super::{Backing, Transport};
use runner::fits::Disk;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use virtio_driver::{EventFd, QueueNotifier, VirtioBlkQueue, VirtioBlkTransport};

/// One queue, with its doorbell and its completion eventfd.
pub struct PeerQueue {
    queue: VirtioBlkQueue<'static, u64>,
    notifier: Box<dyn QueueNotifier>,
    done: Arc<EventFd>,
    slots: u16,
    notifications: u64,
    /// Holds the ring memory that `queue` points into; declared last, dropped last.
    backing: Arc<Backing<Box<Transport>>>,
}

impl PeerQueue {
    pub(super) fn new(
        queue: VirtioBlkQueue<'static, u64>,
        notifier: Box<dyn QueueNotifier>,
        done: Arc<EventFd>,
        slots: u16,
        backing: Arc<Backing<Box<Transport>>>,
    ) -> Self {
        Self { queue, notifier, done, slots, notifications: 0, backing }
    }

    /// What is known of the disk, and its capacity in sectors of 512 bytes.
    ///
    /// # Errors
    /// When the device does not tell its configuration.
    pub fn disk(&self) -> io::Result<(Disk, u64)> {
        let transport: &VirtioBlkTransport = &**self.backing.transport;
        let config = transport.get_config().map_err(io::Error::other)?;
        let block_size = u32::from(config.blk_size);
        // A device that does not offer BLK_SIZE may have anything there.
        let block_size = if block_size.is_power_of_two() { block_size.max(512) } else { 512 };
        Ok((Disk { block_size, ..Disk::UNKNOWN }, u64::from(config.capacity)))
    }

    /// How many reads and writes of one buffer fit at once.
    pub fn slots(&self) -> u16 {
        self.slots
    }

    /// Doorbells rung so far.
    pub fn notifications(&self) -> u64 {
        self.notifications
    }

    /// Stages a read of `len` bytes from byte `offset` on; the device sees it at once, and is told by
    /// [`PeerQueue::notify`].
    ///
    /// # Errors
    /// When the ring is full or `offset` is not on a sector.
    ///
    /// # Safety
    /// The buffer lies in memory that was handed to the set-up, and is the device's until the token comes back.
    #[inline(always)]
    pub unsafe fn read(&mut self, offset: u64, buffer: *mut u8, len: usize, token: u64) -> io::Result<()> {
        // SAFETY: the caller's.
        unsafe { self.queue.read_raw(offset, buffer, len, token) }
    }

    /// Stages a write, as [`PeerQueue::read`].
    ///
    /// # Errors
    /// As [`PeerQueue::read`].
    ///
    /// # Safety
    /// As [`PeerQueue::read`]; the buffer is initialised and does not change meanwhile.
    #[inline(always)]
    pub unsafe fn write(&mut self, offset: u64, buffer: *const u8, len: usize, token: u64) -> io::Result<()> {
        // SAFETY: the caller's.
        unsafe { self.queue.write_raw(offset, buffer, len, token) }
    }

    /// Stages a flush.
    ///
    /// # Errors
    /// When the ring is full.
    #[inline(always)]
    pub fn flush(&mut self, token: u64) -> io::Result<()> {
        self.queue.flush(token)
    }

    /// Stages a discard of `len` bytes from byte `offset` on.
    ///
    /// # Errors
    /// When the ring is full, or either is not a multiple of a sector.
    pub fn discard(&mut self, offset: u64, len: u64, token: u64) -> io::Result<()> {
        self.queue.discard(offset, len, token)
    }

    /// Stages a zeroing of `len` bytes from byte `offset` on.
    ///
    /// # Errors
    /// As [`PeerQueue::discard`].
    pub fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool, token: u64) -> io::Result<()> {
        self.queue.write_zeroes(offset, len, unmap, token)
    }

    /// After a batch: rings the doorbell if the device asks for it.
    ///
    /// # Errors
    /// When the doorbell cannot be rung.
    #[inline(always)]
    pub fn notify(&mut self) -> io::Result<()> {
        if self.queue.avail_notif_needed() {
            self.notifications += 1;
            self.notifier.notify()?;
        }
        Ok(())
    }

    /// Hands up to `max` completions to `sink` as token and 0 or a negative error number; returns how many.
    #[inline(always)]
    pub fn reap(&mut self, max: usize, mut sink: impl FnMut(u64, i32)) -> usize {
        let mut handed = 0;
        for completion in self.queue.completions().take(max) {
            sink(completion.context, completion.ret);
            handed += 1;
        }
        handed
    }

    /// Whether something can be reaped.
    #[inline(always)]
    pub fn has_completions(&mut self) -> bool {
        self.queue.completions().has_next()
    }

    /// Asks for interrupts, or for none. After asking, look again before waiting.
    #[inline(always)]
    pub fn enable_interrupts(&mut self, enabled: bool) {
        self.queue.set_used_notif_enabled(enabled);
    }

    /// What becomes readable with an interrupt.
    pub fn interrupt(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// Takes the interrupts that came; may block if there was none and the far side left the eventfd blocking.
    pub fn take_interrupt(&self) {
        // Nothing there is no error.
        let _ = self.done.read();
    }
}
