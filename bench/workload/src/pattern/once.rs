//! Every place of a region once, in an order that looks random, from a few words of state instead of a map.
//!
//! A linear congruential generator with a period of the next power of two visits every number below it once; a
//! bijection of those numbers hides its regularity, and what lies beyond the last place is passed over. Fewer than two
//! numbers are drawn for each place on average. The next pass has another order.
use crate::random::Random;

/// The order of one pass after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Once {
    places: u64,
    /// One less than the power of two; the bits that numbers have.
    mask: u64,
    /// Half of those bits, at least one.
    shift: u32,
    state: u64,
    /// Odd, so that the generator has its full period.
    increment: u64,
    /// Places that are left of this pass.
    left: u64,
}

/// A multiplier for a full period of any power of two: one more than a multiple of four (Knuth's MMIX).
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
/// Odd, so that multiplying by it is a bijection.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl Once {
    /// An order of the numbers below `places`; of one place if there is none.
    pub(super) const fn new(places: u64, random: &mut Random) -> Self {
        let places = if places == 0 { 1 } else { places };
        let bits = u64::BITS - (places - 1).leading_zeros();
        let mask = if bits == 0 { 0 } else { u64::MAX >> (u64::BITS - bits) };
        let shift = bits / 2 + 1;
        Self { places, mask, shift, state: random.next(), increment: random.next() | 1, left: places }
    }

    /// The next place.
    pub(super) fn next(&mut self, random: &mut Random) -> u64 {
        if self.left == 0 {
            *self = Self::new(self.places, random);
        }
        self.left -= 1;
        loop {
            self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
            let place = self.hidden(self.state & self.mask);
            if place < self.places {
                return place;
            }
        }
    }

    /// A bijection of the numbers up to the mask.
    const fn hidden(&self, mut number: u64) -> u64 {
        number ^= number >> self.shift;
        number = number.wrapping_mul(MIX) & self.mask;
        number ^ (number >> self.shift)
    }
}
