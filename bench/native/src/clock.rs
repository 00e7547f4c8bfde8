//! A clock that costs one instruction: the time-stamp counter, scaled once against the monotonic clock.
//!
//! Where the counter does not run at one rate on every core (the processor says so) the monotonic clock itself is read.
//! Knows nothing of deadlines.
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is held against the monotonic clock.
const CALIBRATION: Duration = Duration::from_millis(10);

/// The process's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Counter at the start, and nanoseconds per tick as 32.32 fixed point; `None`: there is no such counter.
    counter: Option<(u64, u64)>,
}

impl Clock {
    /// The clock, calibrated when it is first asked for.
    pub fn get() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(Self::calibrate)
    }

    fn calibrate() -> Self {
        let (start, first) = (Instant::now(), ticks());
        if !is_invariant() {
            return Self { start, counter: None };
        }
        while start.elapsed() < CALIBRATION {
            std::hint::spin_loop();
        }
        let (ns, passed) = (start.elapsed().as_nanos(), u128::from(ticks() - first));
        Self { start, counter: Some((first, ((ns << 32) / passed.max(1)) as u64)) }
    }

    /// Nanoseconds since the process first asked.
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        match self.counter {
            Some((first, scale)) => ((u128::from(ticks().wrapping_sub(first)) * u128::from(scale)) >> 32) as u64,
            None => self.start.elapsed().as_nanos() as u64,
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: `rdtsc` is unprivileged under Linux and touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "x86_64")]
fn is_invariant() -> bool {
    const LEAF: u32 = 0x8000_0007;
    let most = std::arch::x86_64::__cpuid(0x8000_0000).eax;
    most >= LEAF && std::arch::x86_64::__cpuid(LEAF).edx & 1 << 8 != 0
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn ticks() -> u64 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn is_invariant() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_monotonic_clock() {
        let clock = Clock::get();
        let (before, start) = (clock.now_ns(), Instant::now());
        while start.elapsed() < Duration::from_millis(20) {}
        let (ours, theirs) = ((clock.now_ns() - before) as f64, start.elapsed().as_nanos() as f64);
        // Whatever preempts the thread falls between both pairs of readings, or between two readings of one pair.
        assert!((ours / theirs - 1.0).abs() < 0.5, "{ours} ns against {theirs} ns");
    }
}
