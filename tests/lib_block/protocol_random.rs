//! A fast generator for the fuzzing, and how much of it is done.
use std::cell::Cell;
use std::fmt;

/// Inputs of each fuzz test: LIB_BLOCK_INPUTS, or what a second allows.
pub(crate) fn inputs() -> u64 {
    std::env::var("LIB_BLOCK_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

/// xorshift64*: the same numbers from the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Spread, and never 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (((self.word() >> 32) * end as u64) >> 32) as usize
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// A number that somebody might forget to check: an end of a range, a power of two, one beside those.
    pub(crate) fn edge(&mut self) -> u64 {
        let near = self.below(3) as u64;
        let base = match self.below(4) {
            0 => 0,
            1 => u64::from(u32::MAX),
            2 => 1 << self.below(64),
            _ => self.word(),
        };
        base.wrapping_add(near).wrapping_sub(1)
    }
}

/// Says on a panic which input it was.
pub(crate) struct Told<T: fmt::Debug + Copy>(pub(crate) Cell<Option<T>>);

impl<T: fmt::Debug + Copy> Told<T> {
    pub(crate) fn new() -> Self {
        Self(Cell::new(None))
    }

    pub(crate) fn now(&self, input: T) {
        self.0.set(Some(input));
    }
}

impl<T: fmt::Debug + Copy> Drop for Told<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at {:?}", self.0.get());
        }
    }
}
