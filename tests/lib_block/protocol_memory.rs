//! Memory that two sides map as rings, with canaries around it and its words by their places.
use drv_virtio_block::lib_block::ring::{self, ClientEnd, Rings, ServerEnd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The words of the header, as the ring's table has them.
pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 8;
pub(crate) const SUBMISSION_TAIL: usize = 16;
pub(crate) const COMPLETION_HEAD: usize = 17;
pub(crate) const COMPLETION_EVENT: usize = 18;
pub(crate) const COMPLETION_TAIL: usize = 24;
pub(crate) const SUBMISSION_EVENT: usize = 25;
/// Where the submission entries begin, 8 words each.
pub(crate) const SUBMISSIONS: usize = 32;

const CANARY: u64 = 0xC0DE_CAFE_F00D_BEEF;

#[repr(C, align(64))]
struct Line([AtomicU64; 8]);

/// See the module's text.
pub(crate) struct Memory {
    /// One more than there is to map on either side.
    lines: Box<[Line]>,
    entries: u16,
}

impl Memory {
    /// Zeroed memory for rings of `entries`.
    pub(crate) fn new(entries: u16) -> Self {
        let words = ring::bytes(entries) / 8;
        let line = |line: usize| {
            Line(std::array::from_fn(|word| {
                let inside = (8..8 + words).contains(&(line * 8 + word));
                AtomicU64::new(if inside { 0 } else { CANARY })
            }))
        };
        Self { lines: (0..words.div_ceil(8) + 2).map(line).collect(), entries }
    }

    /// Where it begins.
    pub(crate) fn rings_base(&self) -> NonNull<u8> {
        NonNull::from(&self.lines[1..]).cast()
    }

    fn rings(&self) -> Rings<'_> {
        let base = self.rings_base();
        // SAFETY: as many bytes as `ring::bytes` says, all of them atomics that nobody accesses otherwise. The tests know
        // which of the ends that they make is over; none gives memory to anybody.
        unsafe { Rings::new(base, self.entries) }.unwrap()
    }

    /// The client's end.
    pub(crate) fn client(&self) -> ClientEnd<'_> {
        // SAFETY: no entry is acted upon.
        unsafe { ClientEnd::new(self.rings().split().0) }
    }

    /// The server's end.
    pub(crate) fn server(&self) -> ServerEnd<'_> {
        ServerEnd::new(self.rings().split().1)
    }

    pub(crate) fn size(&self) -> u32 {
        u32::from(self.entries)
    }

    /// Words that are mapped.
    pub(crate) fn len(&self) -> usize {
        ring::bytes(self.entries) / 8
    }

    /// Where the completion entries begin, 2 words each.
    pub(crate) fn completions(&self) -> usize {
        SUBMISSIONS + usize::from(self.entries) * 8
    }

    pub(crate) fn get(&self, word: usize) -> u64 {
        self.lines[1 + word / 8].0[word % 8].load(Ordering::Relaxed)
    }

    /// An index.
    pub(crate) fn index(&self, word: usize) -> u32 {
        self.get(word) as u32
    }

    pub(crate) fn set(&self, word: usize, value: u64) {
        assert!(word < self.len());
        self.lines[1 + word / 8].0[word % 8].store(value, Ordering::Relaxed);
    }

    /// The submission entry at a ring index.
    pub(crate) fn submission(&self, at: u32) -> [u64; 8] {
        let first = SUBMISSIONS + (at % self.size()) as usize * 8;
        std::array::from_fn(|word| self.get(first + word))
    }

    /// The completion entry at a ring index.
    pub(crate) fn completion(&self, at: u32) -> [u64; 2] {
        let first = self.completions() + (at % self.size()) as usize * 2;
        std::array::from_fn(|word| self.get(first + word))
    }

    /// Every word.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        (0..self.len()).map(|word| self.get(word))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let words = self.lines.iter().flat_map(|line| &line.0).enumerate();
        for (word, value) in words.filter(|(word, _)| !(8..8 + self.len()).contains(word)) {
            let untouched = value.load(Ordering::Relaxed) == CANARY;
            assert!(untouched || std::thread::panicking(), "word {word} is outside of the rings, and was written");
        }
    }
}
