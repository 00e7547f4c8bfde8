//! DMA memory that another process, or a device inside this one, can share: one memfd, mapped once, cut from the front.
//!
//! The device address of a byte is the address at which this process sees it. A back-end is told so (its
//! `guest_phys_addr` and `userspace_addr` are that number), a device inside the process needs no translation at all.
//! The size of the memfd is sealed: no other process can shrink it under the mapping. The pages are zeroed and present
//! from the start, so that no measurement meets a page fault here.
//!
//! It refuses to know what the memory holds, and who else maps it. What a dead back-end may still have mapped are these
//! pages and nothing else of this process: its stray stores reach buffers and rings, never the heap.
//!
//! Invariants: each byte is handed out once; pieces start at pages; memory is unmapped and the memfd closed on drop.
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces start at multiples of this many bytes.
pub const PAGE: usize = 4096;

/// Memory that a device may touch. See the module's text.
pub struct SharedMemory {
    base: NonNull<u8>,
    len: NonZeroUsize,
    /// Bytes handed out so far.
    taken: AtomicUsize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to the value alone; handing pieces out is one atomic step, and a piece's bytes are reached
// through the piece only.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// `bytes` of memory, rounded up to pages, at least one.
    ///
    /// # Errors
    /// When the system has no memory, address space or file descriptor left for it.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(bytes.max(1).next_multiple_of(PAGE)).ok_or(io::ErrorKind::OutOfMemory)?;
        let file = memfd_create(c"virtio-dma", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&file, i64::try_from(len.get()).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing; its file has `len` bytes for good
        // (sealed above), so that no access within it can fault.
        let base = unsafe { mmap(None, len, access, flags | MapFlags::MAP_POPULATE, &file, 0) }?;
        Ok(Self { base: base.cast(), len, taken: AtomicUsize::new(0), file })
    }

    /// Cuts `len` bytes off, at least one, starting at a page; `None` when that many are not left.
    pub fn take(&self, len: usize) -> Option<Piece<'_>> {
        let bytes = len.max(1).checked_next_multiple_of(PAGE)?;
        let cut = |taken: usize| taken.checked_add(bytes).filter(|end| *end <= self.len.get());
        // Relaxed: the counter orders nothing but itself; whoever gets a piece gets bytes that nobody had before.
        let offset = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).ok()?;
        // SAFETY: `offset` is inside the mapping, as the update above checked.
        let base = unsafe { self.base.add(offset) };
        Some(Piece { base, len, memory: PhantomData })
    }

    /// Its first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length in bytes, a multiple of [`PAGE`].
    #[allow(clippy::len_without_is_empty, reason = "there is always a page")]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// Bytes that are left to be taken.
    pub fn left(&self) -> usize {
        self.len.get() - self.taken.load(Ordering::Relaxed)
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, of that length, unmapped once; pieces borrow the value, so none is left.
        // A device that still has the memfd keeps pages of its own, which nobody here looks at.
        let _ = unsafe { munmap(self.base.cast(), self.len.get()) };
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("base", &self.base).field("len", &self.len).finish_non_exhaustive()
    }
}

/// A piece of a [`SharedMemory`]: the only handle to its bytes on this side.
#[derive(Debug)]
pub struct Piece<'m> {
    base: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: like `&mut [u8]`: moving a piece moves the authority over its bytes.
unsafe impl Send for Piece<'_> {}

impl<'m> Piece<'m> {
    /// Its first byte for this process.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its first byte for the device: the same number.
    pub fn device_address(&self) -> DeviceAddress {
        DeviceAddress(self.base.as_ptr().addr() as u64)
    }

    /// Its length in bytes, as it was asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The region that queues are laid out in.
    pub fn into_region(self) -> DmaRegion<'m> {
        // SAFETY: the bytes are zeroed or hold what was stored, live for 'm, and have no other handle: each is handed out
        // once, and the piece is consumed. A back-end that is told of the memory finds them at their device address as
        // long as it runs, since it maps the memfd itself; the end of 'm takes nothing from it. Addresses end below the
        // end of the address space.
        unsafe { DmaRegion::new(self.base, self.device_address(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeroed_apart_and_at_pages() {
        let memory = SharedMemory::new(3 * PAGE).unwrap();
        let (a, b) = (memory.take(1).unwrap(), memory.take(PAGE + 1).unwrap());
        assert_eq!(b.device_address().0 - a.device_address().0, PAGE as u64);
        assert_eq!(a.device_address().0 % PAGE as u64, 0);
        assert_eq!((memory.left(), b.len()), (0, PAGE + 1));
        assert!(memory.take(1).is_none());
        // SAFETY: the piece's own bytes, which nobody else accesses.
        let bytes = unsafe { std::slice::from_raw_parts(b.base().as_ptr(), b.len()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_size_is_sealed() {
        let memory = SharedMemory::new(PAGE).unwrap();
        assert!(nix::unistd::ftruncate(memory.as_fd(), 0).is_err());
        assert!(nix::unistd::ftruncate(memory.as_fd(), 2 * 4096).is_err());
    }

    #[test]
    fn an_absurd_length_is_refused_and_takes_nothing() {
        let memory = SharedMemory::new(PAGE).unwrap();
        assert!(memory.take(usize::MAX).is_none());
        assert_eq!(memory.left(), PAGE);
    }
}
