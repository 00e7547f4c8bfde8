//! Guest memory as the device sees it: bytes at device addresses, which differ from the driver's pointers.
//!
//! It refuses to know what the bytes mean. Every access is checked against the bounds and is atomic in the width that
//! the device would use (index words 16 bits, used elements 32 bits, copies 64 or 8 bits), so that a driver on another
//! thread races with it as it would with hardware. An access outside is an error value, never an access.
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Where guest memory starts for the device unless the test says otherwise.
const DEVICE_BASE: u64 = 0x4_0000_0000;
const PAGE: usize = 4096;

/// An address range that is not (wholly) in guest memory, or an index word that is not aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) address: u64,
    pub(crate) len: u64,
}

/// Page-aligned, zeroed memory that driver and device share.
pub(crate) struct HostMemory {
    base: NonNull<u8>,
    layout: Layout,
    device_base: u64,
}

// SAFETY: the allocation lives until drop, and this type touches it through atomics only.
unsafe impl Send for HostMemory {}
// SAFETY: as above; no method hands out a reference into it.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `len` zeroed bytes, whole pages, at the usual device address.
    pub(crate) fn new(len: usize) -> Arc<Self> {
        Self::at(DEVICE_BASE, len)
    }

    /// `len` zeroed bytes that the device finds at `device_base`.
    pub(crate) fn at(device_base: u64, len: usize) -> Arc<Self> {
        assert!(len > 0 && device_base.checked_add(len as u64).is_some());
        let layout = Layout::from_size_align(len.next_multiple_of(PAGE), PAGE).expect("a length that memory can have");
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Arc::new(Self { base, layout, device_base })
    }

    /// The driver's pointer to the first byte. It is valid as long as this value lives.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The device's address of the first byte.
    pub(crate) fn device_base(&self) -> u64 {
        self.device_base
    }

    /// Bytes, a multiple of the page size.
    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    /// The driver's pointer to `len` bytes at a device address.
    pub(crate) fn locate(&self, address: u64, len: u64) -> Result<NonNull<u8>, Outside> {
        let outside = Outside { address, len };
        let offset = address.checked_sub(self.device_base).ok_or(outside)?;
        let end = offset.checked_add(len).ok_or(outside)?;
        if end > self.len() as u64 {
            return Err(outside);
        }
        // SAFETY: the offset is inside the allocation, or one past its end for an empty range.
        Ok(unsafe { self.base.add(offset as usize) })
    }

    fn aligned(&self, address: u64, width: u64) -> Result<NonNull<u8>, Outside> {
        if !address.is_multiple_of(width) {
            return Err(Outside { address, len: width });
        }
        self.locate(address, width)
    }

    #[allow(clippy::cast_ptr_alignment, reason = "the alignment is checked or computed first")]
    fn word16(&self, address: u64) -> Result<&AtomicU16, Outside> {
        let at = self.aligned(address, 2)?.as_ptr().cast::<u16>();
        // SAFETY: inside the allocation and aligned, since both bases are; shared as an atomic for as long as `self`.
        Ok(unsafe { AtomicU16::from_ptr(at) })
    }

    /// Reads a little-endian index word.
    pub(crate) fn load16(&self, address: u64, order: Ordering) -> Result<u16, Outside> {
        Ok(u16::from_le(self.word16(address)?.load(order)))
    }

    /// Writes a little-endian index word.
    pub(crate) fn store16(&self, address: u64, value: u16, order: Ordering) -> Result<(), Outside> {
        self.word16(address)?.store(value.to_le(), order);
        Ok(())
    }

    /// Writes a little-endian 32-bit word, relaxed: an index that is stored later covers it.
    #[allow(clippy::cast_ptr_alignment, reason = "the alignment is checked or computed first")]
    pub(crate) fn store32(&self, address: u64, value: u32) -> Result<(), Outside> {
        let at = self.aligned(address, 4)?.as_ptr().cast::<u32>();
        // SAFETY: as in `word16`.
        unsafe { AtomicU32::from_ptr(at) }.store(value.to_le(), Ordering::Relaxed);
        Ok(())
    }

    /// Copies out of guest memory.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Outside> {
        let from = self.locate(address, into.len() as u64)?;
        let (bytes, words) = split(from, into.len());
        let (first, rest) = into.split_at_mut(bytes);
        for (at, byte) in first.iter_mut().enumerate() {
            *byte = byte_at(from, at).load(Ordering::Relaxed);
        }
        let mut chunks = rest.chunks_exact_mut(8);
        for (at, chunk) in chunks.by_ref().enumerate() {
            chunk.copy_from_slice(&word_at(from, bytes + 8 * at).load(Ordering::Relaxed).to_ne_bytes());
        }
        for (at, byte) in chunks.into_remainder().iter_mut().enumerate() {
            *byte = byte_at(from, bytes + 8 * words + at).load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies into guest memory.
    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Result<(), Outside> {
        let to = self.locate(address, data.len() as u64)?;
        let (bytes, words) = split(to, data.len());
        let (first, rest) = data.split_at(bytes);
        for (at, byte) in first.iter().enumerate() {
            byte_at(to, at).store(*byte, Ordering::Relaxed);
        }
        let chunks = rest.chunks_exact(8);
        for (at, byte) in chunks.remainder().iter().enumerate() {
            byte_at(to, bytes + 8 * words + at).store(*byte, Ordering::Relaxed);
        }
        for (at, chunk) in chunks.enumerate() {
            let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight"));
            word_at(to, bytes + 8 * at).store(word, Ordering::Relaxed);
        }
        Ok(())
    }

    /// For tests: `len` bytes at a device address.
    #[track_caller]
    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes).expect("the test reads guest memory");
        bytes
    }

    /// For tests: puts `data` at a device address.
    #[track_caller]
    pub(crate) fn put(&self, address: u64, data: &[u8]) {
        self.write(address, data).expect("the test writes guest memory");
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `at`, freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// How many single bytes come before the first aligned word, and how many words follow.
fn split(at: NonNull<u8>, len: usize) -> (usize, usize) {
    let bytes = at.as_ptr().addr().wrapping_neg() % 8;
    let bytes = bytes.min(len);
    (bytes, (len - bytes) / 8)
}

/// The byte `offset` behind `at`; callers stay inside a range that [`HostMemory::locate`] granted.
fn byte_at<'m>(at: NonNull<u8>, offset: usize) -> &'m AtomicU8 {
    // SAFETY: inside the located range, which lives while the memory is borrowed by `read` or `write`.
    unsafe { AtomicU8::from_ptr(at.as_ptr().add(offset)) }
}

/// The word `offset` behind `at`; callers stay inside the located range and pass aligned places (see [`split`]).
#[allow(clippy::cast_ptr_alignment, reason = "the alignment is checked or computed first")]
fn word_at<'m>(at: NonNull<u8>, offset: usize) -> &'m AtomicU64 {
    // SAFETY: as in `byte_at`, and aligned by `split`.
    unsafe { AtomicU64::from_ptr(at.as_ptr().add(offset).cast::<u64>()) }
}
