//! Random numbers for access patterns: seeded, reproducible, a dozen instructions each.
//!
//! `SplitMix64` (Steele, Lea and Flood, 2014): one word of state, period 2^64, passes `BigCrush`. A pattern's cost is part of
//! what the guest counts per I/O, and one word to load and store beats generators with longer states. Not for secrets.
//!
//! Invariant: the sequence depends on the seed alone, on every machine.

/// A generator; `Copy` so that a pattern can be replayed.
///
/// ```
/// use workload::random::Random;
///
/// let mut dice = Random::new(7);
/// assert!((0..100).all(|_| dice.below(6) < 6));
/// assert_eq!(Random::new(7).next(), Random::new(7).next());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

/// The odd step between two states, 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The generator with this seed; every seed is good.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The generator of one of several jobs with a common seed: it starts at a scattered place of the period, so that
    /// two jobs' sequences do not meet within 2^40 numbers but with a chance of about 2^-23.
    pub const fn for_job(seed: u64, job: u16) -> Self {
        Self { state: mix(seed ^ mix(STEP.wrapping_mul(job as u64 + 1))) }
    }

    /// The next 64 bits.
    #[inline]
    #[allow(
        clippy::should_implement_trait,
        reason = "it never ends, so an iterator's Option would be noise on the hot path"
    )]
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// The next number below `bound`, or 0 if `bound` is 0; each with a chance that is off by at most `bound` / 2^64.
    #[inline]
    pub const fn below(&mut self, bound: u64) -> u64 {
        scale(self.next(), bound).0
    }
}

/// Splits 64 uniform bits into a number below `bound` and what is left of the randomness: 64 bits that are uniform
/// again but for the log2(`bound`) bits spent, so that one draw serves several small choices.
#[inline]
pub const fn scale(bits: u64, bound: u64) -> (u64, u64) {
    let wide = bits as u128 * bound as u128;
    ((wide >> 64) as u64, wide as u64)
}

/// The output function: a bijection in which every bit depends on every other.
#[inline]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
