//! The medium in memory: words that several queues read and write at once.
//!
//! Requests that overlap race as on a real disk: each word is old or new. It knows bytes and offsets, no requests.
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// A disk in memory, all zeros at first.
pub(super) struct Disk {
    words: Box<[AtomicU64]>,
}

/// A place where a piece of a transfer lies: `len` bytes of the driver's memory.
pub(super) struct Piece {
    pub(super) at: *mut u8,
    pub(super) len: usize,
}

impl Disk {
    /// `sectors` sectors of 512 bytes; pages that are never written take no memory.
    pub(super) fn new(sectors: u64) -> Self {
        let zeros = Box::into_raw(vec![0_u64; sectors as usize * 64].into_boxed_slice());
        // SAFETY: an atomic has its integer's size and validity, and on 64-bit targets its alignment; the box is taken
        // apart and put together once.
        Self { words: unsafe { Box::from_raw(zeros as *mut [AtomicU64]) } }
    }

    /// The words from byte `offset` on, if both the offset and the piece keep to words.
    fn whole_words(&self, offset: usize, len: usize) -> Option<&[AtomicU64]> {
        (offset.is_multiple_of(8) && len.is_multiple_of(8)).then(|| &self.words[offset / 8..(offset + len) / 8])
    }

    fn bytes(&self, offset: usize, len: usize) -> &[AtomicU8] {
        assert!(offset + len <= 8 * self.words.len());
        // SAFETY: inside the words (asserted); bytes of atomics, only accessed atomically.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<AtomicU8>().add(offset), len) }
    }

    /// Copies from byte `offset` on into `to`.
    ///
    /// # Safety
    /// The piece is memory that is the device's to write now.
    pub(super) unsafe fn read(&self, offset: usize, to: &Piece) {
        if let Some(words) = self.whole_words(offset, to.len) {
            for (n, word) in words.iter().enumerate() {
                // SAFETY: inside the piece.
                unsafe { to.at.add(8 * n).cast::<u64>().write_unaligned(word.load(Relaxed)) };
            }
        } else {
            for (n, byte) in self.bytes(offset, to.len).iter().enumerate() {
                // SAFETY: inside the piece.
                unsafe { to.at.add(n).write(byte.load(Relaxed)) };
            }
        }
    }

    /// Copies `from` to byte `offset` on.
    ///
    /// # Safety
    /// The piece is initialised memory that is the device's to read now.
    pub(super) unsafe fn write(&self, offset: usize, from: &Piece) {
        if let Some(words) = self.whole_words(offset, from.len) {
            for (n, word) in words.iter().enumerate() {
                // SAFETY: inside the piece.
                word.store(unsafe { from.at.add(8 * n).cast::<u64>().read_unaligned() }, Relaxed);
            }
        } else {
            for (n, byte) in self.bytes(offset, from.len).iter().enumerate() {
                // SAFETY: inside the piece.
                byte.store(unsafe { from.at.add(n).read() }, Relaxed);
            }
        }
    }

    /// Zeroes whole sectors.
    pub(super) fn zero(&self, sector: u64, sectors: u64) {
        for word in &self.words[sector as usize * 64..(sector + sectors) as usize * 64] {
            word.store(0, Relaxed);
        }
    }
}
