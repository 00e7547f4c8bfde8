//! The clock: the time-stamp counter, scaled once against the HPET.
//!
//! Reading it is one `rdtsc`, a multiplication and a shift. Nanoseconds count from [`init`]. Under `-icount` the counter
//! advances by one per guest instruction, so [`tsc`] differences are instruction counts there. Knows no deadlines and
//! no interrupts; see [`crate::timer`] for those.

use core::arch::x86_64::_rdtsc;
use core::hint;
use core::sync::atomic::{AtomicU64, Ordering};

const HPET_PERIOD: u64 = 0x04;
const HPET_CONFIGURATION: u64 = 0x10;
const HPET_COUNTER: u64 = 0xf0;
const HPET_ENABLE: u32 = 1;
const FEMTOSECONDS_PER_NS: u64 = 1_000_000;

/// How long the counter is measured against the HPET: 17 ms at 1 GHz, 6 ms at 3 GHz.
const CALIBRATION_TICKS: u64 = 1 << 24;
/// Readings of which the tightest is taken, at either end.
const READINGS: usize = 16;

/// Both written once, in [`init`], before other processors run.
static BEGIN: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per tick, 32.32 fixed point.
static SCALE: AtomicU64 = AtomicU64::new(0);

/// The raw time-stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: `rdtsc` is unprivileged here and touches no memory.
    unsafe { _rdtsc() }
}

/// Nanoseconds since [`init`].
#[inline(always)]
pub fn now_ns() -> u64 {
    ticks_to_ns(tsc().wrapping_sub(BEGIN.load(Ordering::Relaxed)))
}

/// Converts a difference of [`tsc`] values.
#[inline(always)]
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// The counter's frequency in Hz, as calibrated; under `-icount` about 1e9.
pub fn tsc_frequency() -> u64 {
    ((1_000_000_000_u128 << 32) / u128::from(SCALE.load(Ordering::Relaxed)).max(1)) as u64
}

/// Burns time until the clock shows `deadline`.
pub fn spin_until(deadline: u64) {
    while now_ns() < deadline {
        burn();
    }
}

/// Passes a few hundred instructions. Neither `pause` nor the counter is read in a tight loop, because both leave the
/// emulator's fast path (the counter under `-icount`).
fn burn() {
    for turn in 0..100 {
        hint::black_box(turn);
    }
}

/// Calibrates the clock against the HPET at this physical address. Call it once, on the boot processor.
pub fn init(hpet: u64) {
    let hpet = Hpet(hpet);
    hpet.start();
    let period = u64::from(hpet.read(HPET_PERIOD));
    assert!(period != 0, "the HPET states no period");
    let first = hpet.reading();
    while tsc() - first.tsc < CALIBRATION_TICKS {
        burn();
    }
    let last = hpet.reading();
    let elapsed = u64::from(last.counter.wrapping_sub(first.counter)) * period / FEMTOSECONDS_PER_NS;
    SCALE.store((elapsed << 32) / (last.tsc - first.tsc), Ordering::Relaxed);
    BEGIN.store(tsc(), Ordering::Relaxed);
}

struct Hpet(u64);

/// The two counters at about the same time.
struct Reading {
    tsc: u64,
    counter: u32,
    width: u64,
}

impl Hpet {
    fn start(&self) {
        let configuration = self.read(HPET_CONFIGURATION) | HPET_ENABLE;
        // SAFETY: the ACPI tables name this page as the HPET's, mapped and ours alone; starting its counter raises nothing.
        unsafe { ((self.0 + HPET_CONFIGURATION) as *mut u32).write_volatile(configuration) };
    }

    /// The low half is enough: the calibration is far shorter than its wrap.
    fn read(&self, register: u64) -> u32 {
        // SAFETY: as in `start`; reads have no side effect.
        unsafe { ((self.0 + register) as *const u32).read_volatile() }
    }

    /// The tightest of several attempts to read both counters at once; a preempted attempt is wide and loses.
    fn reading(&self) -> Reading {
        (0..READINGS)
            .map(|_| {
                let before = tsc();
                let counter = self.read(HPET_COUNTER);
                let width = tsc() - before;
                Reading { tsc: before + width / 2, counter, width }
            })
            .min_by_key(|reading| reading.width)
            .expect("READINGS is not zero")
    }
}
