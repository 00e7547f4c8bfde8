//! The clock: the time-stamp counter, scaled once against the HPET, or the PIT where there is none.
//!
//! Reading it is one `rdtsc`, a multiplication and a shift. Nanoseconds count from [`init`]. Under `-icount` the counter
//! advances by one per guest instruction, so [`tsc`] differences are instruction counts there. Knows no deadlines and
//! no interrupts; see [`crate::timer`] for those.

use core::arch::x86_64::_rdtsc;
use core::hint;
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::port::Port;

const HPET_PERIOD: u64 = 0x04;
const HPET_CONFIGURATION: u64 = 0x10;
const HPET_COUNTER: u64 = 0xf0;
const HPET_ENABLE: u32 = 1;
const FEMTOSECONDS_PER_NS: u64 = 1_000_000;

const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
/// Bit 0 lets channel 2 count, bit 1 would let it sound.
const PIT_GATE: u16 = 0x61;
const PIT_HZ: u64 = 1_193_182;

/// How long the counter is measured: 17 ms at 1 GHz, 6 ms at 3 GHz.
const CALIBRATION_TICKS: u64 = 1 << 24;
/// A measurement that took longer (33 ms at 1 GHz) was interrupted by the host, and is repeated: the PIT counts 55 ms.
const LONGEST_TICKS: u64 = 2 * CALIBRATION_TICKS;
/// How often it is repeated.
const ATTEMPTS: usize = 200;
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

/// Calibrates the clock. Call it once, on the boot processor.
///
/// # Errors
/// When the machine has nothing to calibrate it against.
pub fn init(hpet: Option<u64>) -> Result<(), &'static str> {
    let reference = if let Some(hpet) = hpet {
        Reference::Hpet(Hpet::start(hpet))
    } else {
        Pit::start();
        Reference::Pit
    };
    let (elapsed, ticks) = (0..ATTEMPTS)
        .map(|_| reference.measure())
        .find(|(_, ticks)| *ticks <= LONGEST_TICKS)
        .ok_or("the clock cannot be calibrated, because the host lets the machine run too rarely: run again")?;
    if elapsed == 0 {
        return Err("the machine has neither an HPET nor a PIT (8254) to calibrate the clock against: use -M q35");
    }
    SCALE.store((elapsed << 32) / ticks, Ordering::Relaxed);
    BEGIN.store(tsc(), Ordering::Relaxed);
    Ok(())
}

/// What the time-stamp counter is measured against.
enum Reference {
    Hpet(Hpet),
    /// Where the firmware names no HPET (QEMU's `hpet=off`, and microvm).
    Pit,
}

impl Reference {
    /// Nanoseconds and ticks between two readings, at least [`CALIBRATION_TICKS`] apart.
    fn measure(&self) -> (u64, u64) {
        let first = self.reading();
        while tsc() - first.tsc < CALIBRATION_TICKS {
            burn();
        }
        let last = self.reading();
        let elapsed = match self {
            Self::Hpet(hpet) => u64::from(last.counter.wrapping_sub(first.counter)) * hpet.period / FEMTOSECONDS_PER_NS,
            // It counts down, in 16 bits.
            Self::Pit => u64::from(first.counter.wrapping_sub(last.counter) as u16) * 1_000_000_000 / PIT_HZ,
        };
        (elapsed, last.tsc - first.tsc)
    }

    /// The tightest of several attempts to read both counters at once; a preempted attempt is wide and loses.
    fn reading(&self) -> Reading {
        (0..READINGS)
            .map(|_| {
                let before = tsc();
                let counter = match self {
                    Self::Hpet(hpet) => hpet.read(HPET_COUNTER),
                    Self::Pit => Pit::read().into(),
                };
                let width = tsc() - before;
                Reading { tsc: before + width / 2, counter, width }
            })
            .min_by_key(|reading| reading.width)
            .expect("READINGS is not zero")
    }
}

/// The two counters at about the same time.
struct Reading {
    tsc: u64,
    counter: u32,
    width: u64,
}

struct Hpet {
    at: u64,
    /// Femtoseconds of a count.
    period: u64,
}

impl Hpet {
    fn start(at: u64) -> Self {
        let mut hpet = Self { at, period: 0 };
        hpet.period = hpet.read(HPET_PERIOD).into();
        let configuration = hpet.read(HPET_CONFIGURATION) | HPET_ENABLE;
        // SAFETY: the ACPI tables name this page as the HPET's, mapped and ours alone; starting its counter raises nothing.
        unsafe { ((at + HPET_CONFIGURATION) as *mut u32).write_volatile(configuration) };
        hpet
    }

    /// The low half is enough: the calibration is far shorter than its wrap.
    fn read(&self, register: u64) -> u32 {
        // SAFETY: as in `start`; reads have no side effect.
        unsafe { ((self.at + register) as *const u32).read_volatile() }
    }
}

/// Channel 2 of the 8254, which interrupts nobody.
struct Pit;

impl Pit {
    /// Lets the channel count down from its highest value, over and over.
    fn start() {
        const CHANNEL_2_BOTH_BYTES_MODE_0: u8 = 0xb0;
        const GATE_WITHOUT_SPEAKER: u8 = 1;
        // SAFETY: the timer's own ports, and the gate's; nothing else uses this channel.
        unsafe {
            let gate = Port::<u8>::new(PIT_GATE).read() & !3;
            Port::new(PIT_GATE).write(gate | GATE_WITHOUT_SPEAKER);
            Port::new(PIT_COMMAND).write(CHANNEL_2_BOTH_BYTES_MODE_0);
            Port::new(PIT_CHANNEL_2).write(0xff_u8);
            Port::new(PIT_CHANNEL_2).write(0xff_u8);
        }
    }

    fn read() -> u16 {
        const LATCH_CHANNEL_2: u8 = 0x80;
        // SAFETY: as in `start`; a latched count is read in two halves.
        unsafe {
            Port::new(PIT_COMMAND).write(LATCH_CHANNEL_2);
            u16::from_le_bytes([Port::new(PIT_CHANNEL_2).read(), Port::new(PIT_CHANNEL_2).read()])
        }
    }
}
