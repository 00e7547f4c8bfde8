//! The one-shot timer of each processor: deadlines for waiting and for the watchdog.
//!
//! Writing the timer leaves the emulator's fast path, therefore a timer that already runs and fires early enough is
//! left alone: a wait with a later deadline is woken once too early, looks at the clock and arms again. Invariant:
//! `PerCpu::timer_at` is the time the timer will fire, or [`NEVER`]; only its own processor touches it, with
//! interrupts off.

use crate::cpu::PerCpu;
use crate::time::now_ns;
use crate::{apic, time, watchdog};
use core::sync::atomic::{AtomicU64, Ordering};

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// How long the timer is measured against the clock.
const CALIBRATION_NS: u64 = 2_000_000;

/// Timer ticks per nanosecond, 32.32 fixed point. Written once, before other processors run.
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(0);

/// Measures the timer's rate. Call it once, on the boot processor, with interrupts off.
pub fn calibrate() {
    let begin = now_ns();
    apic::set_timer(u32::MAX);
    time::spin_until(begin + CALIBRATION_NS);
    let ticks = u32::MAX - apic::timer_left();
    let elapsed = now_ns() - begin;
    apic::set_timer(0);
    TICKS_PER_NS.store((u64::from(ticks) << 32) / elapsed, Ordering::Relaxed);
}

/// Makes sure that the timer fires at `deadline` or before. Call with interrupts off.
pub fn arm(deadline: u64) {
    let armed = &PerCpu::current().timer_at;
    if armed.load(Ordering::Relaxed) <= deadline {
        return;
    }
    let wait = deadline.saturating_sub(now_ns());
    let ticks = (u128::from(wait) * u128::from(TICKS_PER_NS.load(Ordering::Relaxed))) >> 32;
    // A longer wait than the counter holds is cut short; whoever waits arms again.
    apic::set_timer(u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
    armed.store(deadline, Ordering::Relaxed);
}

/// The timer interrupt, called by its entry in [`crate::vectors`] with the interrupted instruction's address.
pub extern "C" fn fired(interrupted_at: u64) {
    PerCpu::current().timer_at.store(NEVER, Ordering::Relaxed);
    apic::end_of_interrupt();
    watchdog::look(interrupted_at);
}
