//! How long I/Os took: a histogram of nanoseconds, exact below 256 and within 1/128 up to 137 seconds.
//!
//! Each power of two is cut into 128 equal buckets (`HdrHistogram`'s idea; fio has 64), so that a bucket is less
//! than 1/128 of its values wide. Counts are 64-bit: at 20 million I/Os per second a 32-bit bucket overflows within
//! four minutes. Recording is a handful of instructions; totals are summed when asked for.
//!
//! It refuses to know units and clocks: a value is a number. One job writes it; jobs are merged afterwards.
//!
//! Invariants: minimum, maximum and mean are those of the recorded values, not of buckets; a percentile lies in the
//! bucket of the value that it stands for, at most 1/128 above it, and never above the maximum.
//!
//! ```
//! use workload::histogram::Histogram;
//!
//! let mut latency = Histogram::new();
//! for ns in [70_000, 80_000, 90_000, 1_000_000] {
//!     latency.record(ns);
//! }
//! assert_eq!((latency.count(), latency.min(), latency.max(), latency.mean()), (4, 70_000, 1_000_000, 310_000));
//! assert!((80_000..80_000 + 80_000 / 128).contains(&latency.percentile(50_000)));
//! ```

/// log2 of the buckets per power of two.
const BITS: u32 = 7;
const SUB: usize = 1 << BITS;
/// Values of this many bits have buckets of their own; longer ones count as the largest.
const WIDTH: u32 = 37;
const BUCKETS: usize = (WIDTH - BITS + 1) as usize * SUB;
/// The largest value told from larger ones: 2^37 - 1, in nanoseconds 137 seconds.
pub const LIMIT: u64 = (1 << WIDTH) - 1;
/// 100 percent in thousandths of a percent.
const WHOLE: u64 = 100_000;

/// A histogram of 31,768 bytes: place it in static memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
    /// The complement of the minimum, so that a new histogram is all zeros and costs an image no bytes.
    low: u64,
    max: u64,
}

impl Histogram {
    /// Nothing recorded.
    #[allow(clippy::large_stack_arrays, reason = "const, for statics")]
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], sum: 0, low: 0, max: 0 }
    }

    /// Records a value. Those above [`LIMIT`] fall into the last bucket; minimum, maximum and mean still see them. The
    /// sum saturates at 2^64: at nanoseconds, after 584 years of summed latency.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Records the same value `times` times, at least once.
    #[inline]
    pub fn record_many(&mut self, value: u64, times: u64) {
        self.counts[bucket(value.min(LIMIT))] += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
        self.low = self.low.max(!value);
        self.max = self.max.max(value);
    }

    /// Adds what another histogram recorded.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.low = self.low.max(other.low);
        self.max = self.max.max(other.max);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.sum, self.low, self.max) = (0, 0, 0);
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least value, 0 if there is none.
    pub const fn min(&self) -> u64 {
        if !self.low > self.max { 0 } else { !self.low }
    }

    /// The greatest value, 0 if there is none.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean, rounded down, 0 if there is none.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count()).unwrap_or(0)
    }

    /// The value that `milli_percent` thousandths of a percent of all values do not exceed (99.9 percent is 99,900): the
    /// largest of its bucket, but not above the maximum. 0 if there is none.
    pub fn percentile(&self, milli_percent: u32) -> u64 {
        let [value] = self.percentiles(&[milli_percent]);
        value
    }

    /// Several percentiles in one pass; they must ascend, see [`Histogram::percentile`].
    pub fn percentiles<const N: usize>(&self, ascending: &[u32; N]) -> [u64; N] {
        let total = u128::from(self.count());
        let mut found = [0; N];
        let mut seen = 0;
        let mut buckets = self.counts.iter().zip(0..);
        let mut reached = 0;
        for (value, milli_percent) in found.iter_mut().zip(ascending) {
            // At least one value, at most all: ranks count from 1.
            let rank = (total * u128::from(*milli_percent)).div_ceil(u128::from(WHOLE)).clamp(1, total.max(1)) as u64;
            while seen < rank {
                let Some((count, index)) = buckets.next() else {
                    break;
                };
                seen += count;
                reached = top(index);
            }
            *value = reached.clamp(self.min(), self.max);
        }
        found
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket of a value up to [`LIMIT`].
#[inline]
const fn bucket(value: u64) -> usize {
    // Values of up to BITS + 1 bits are their own bucket; each further bit doubles the width and adds SUB buckets.
    let shift = (value | SUB as u64).ilog2() - BITS;
    (shift as usize) * SUB + (value >> shift) as usize
}

/// The largest value of a bucket; the last one is open.
const fn top(index: usize) -> u64 {
    if index == BUCKETS - 1 {
        return u64::MAX;
    }
    let shift = (index / SUB).saturating_sub(1) as u32;
    let value = (index - shift as usize * SUB) as u64;
    ((value + 1) << shift) - 1
}
