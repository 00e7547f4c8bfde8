//! An eventfd, as this driver uses it: a doorbell towards the device, an interrupt from it.
//!
//! A count that is not 0 means "raised". Raising adds one; a count that is full means that the other side has been told
//! and has not looked yet, so the write that would block is not an error. Taking reads the count down to 0. The file is
//! non-blocking from the start: a back-end sets the flag on the call eventfd that it is handed, and the flag belongs to
//! the open file that both sides share, so a reader that counted on blocking would not block. Who waits polls first
//! ([`crate::platform`]), then takes.
//!
//! It refuses to know queues and badges.
use drv_virtio_block::transport::Doorbell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

/// One eventfd.
#[derive(Debug)]
pub struct Event {
    file: EventFd,
}

impl Event {
    /// An event that is not raised.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)? })
    }

    /// An eventfd that somebody else made, non-blocking from here on.
    ///
    /// # Errors
    /// When the file refuses the flag.
    pub(crate) fn adopt(file: OwnedFd) -> io::Result<Self> {
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        // SAFETY: the descriptor is open and ours to close.
        Ok(Self { file: unsafe { EventFd::from_raw_fd(file.into_raw_fd()) } })
    }

    /// An event that counts: each [`Event::take`] takes one raise, not all.
    pub(crate) fn counting() -> io::Result<Self> {
        Ok(Self { file: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)? })
    }

    /// The file, for the message that hands it to a back-end.
    pub(crate) fn file(&self) -> &EventFd {
        &self.file
    }

    /// Raises it. Every store of the calling thread is visible to whoever takes it.
    pub fn raise(&self) {
        // Full (EAGAIN): raised already, and not taken since. Nothing else can fail on an eventfd that is open.
        while interrupted(self.file.write(1)) {}
    }

    /// Takes it; false: it was not raised. Of several takers one gets it.
    pub fn take(&self) -> bool {
        loop {
            match self.file.read() {
                Ok(_) => return true,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// Whether a signal came before the call did anything.
fn interrupted(outcome: io::Result<()>) -> bool {
    outcome.is_err_and(|why| why.kind() == io::ErrorKind::Interrupted)
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the file is open for as long as `self` is borrowed, which the result's lifetime is.
        unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) }
    }
}

/// The doorbell of a queue: its kick eventfd.
#[derive(Clone, Debug)]
pub struct Kick(Arc<Event>);

impl Kick {
    /// A doorbell over `event`.
    pub fn new(event: Arc<Event>) -> Self {
        Self(event)
    }
}

impl Doorbell for Kick {
    #[inline]
    fn ring(&self) {
        // A system call: the kernel's lock around the count orders the caller's stores before the device's wake-up.
        self.0.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_twice_is_taken_once() {
        let event = Event::new().unwrap();
        assert!(!event.take());
        event.raise();
        event.raise();
        assert!(event.take() && !event.take());
    }

    #[test]
    fn ringing_a_full_doorbell_neither_blocks_nor_forgets() {
        let event = Arc::new(Event::new().unwrap());
        event.file.write(u64::MAX - 1).unwrap();
        Kick::new(Arc::clone(&event)).ring();
        assert!(event.take());
    }
}
