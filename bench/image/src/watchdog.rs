//! Bounds every run: past the deadline the image says where each processor is and exits with [`Exit::Hang`].
//!
//! The boot processor's timer looks at the deadline, whether that processor halts, works or spins, as long as it takes
//! interrupts. The others are asked through NMI, which they answer even if they do not. One deadline for the whole
//! image; whoever runs a scenario sets it anew for each step.
//!
//! Not under `-icount … sleep=off`: there a halt makes the clock jump to the next timer, so that waiting for a device
//! would meet the deadline at once. The command line's `icount=on` calls [`disable`], and the launcher's own bound on
//! the run has to do.

use crate::apic::{self, Command};
use crate::cpu::{self, CpuId, PerCpu};
use crate::exit::{Exit, exit};
use crate::serial::with_dying_line;
use crate::time::{now_ns, spin_until};
use crate::timer::{self, NEVER};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use x86_64::instructions::interrupts::without_interrupts;

/// Time for the other processors to say where they are.
const LAST_WORDS_NS: u64 = 50_000_000;

static DEADLINE: AtomicU64 = AtomicU64::new(NEVER);
static DISABLED: AtomicBool = AtomicBool::new(false);
static BITTEN: AtomicBool = AtomicBool::new(false);

/// Makes [`arm`] do nothing from now on.
pub fn disable() {
    DISABLED.store(true, Ordering::Relaxed);
}

/// Ends the run unless [`arm`] is called again within `ns`. Only the boot processor may call it.
pub fn arm(ns: u64) {
    assert_eq!(cpu::current(), CpuId::BOOT, "the watchdog lives on the boot processor");
    if DISABLED.load(Ordering::Relaxed) {
        return;
    }
    let deadline = now_ns().saturating_add(ns);
    DEADLINE.store(deadline, Ordering::Relaxed);
    without_interrupts(|| timer::arm(deadline));
}

/// True once the deadline has passed: an NMI is then a question, not a fault.
pub fn has_bitten() -> bool {
    BITTEN.load(Ordering::Acquire)
}

/// Called by the timer interrupt: ends the run if the deadline has passed, otherwise arms the timer for it again.
pub fn look(interrupted_at: u64) {
    if cpu::current() != CpuId::BOOT {
        return;
    }
    let deadline = DEADLINE.load(Ordering::Relaxed);
    if now_ns() >= deadline {
        bite(interrupted_at);
    }
    if deadline != NEVER {
        timer::arm(deadline);
    }
}

fn bite(interrupted_at: u64) -> ! {
    BITTEN.store(true, Ordering::Release);
    with_dying_line(|line| {
        let _ = writeln!(line, "hang: the watchdog's deadline has passed; cpu0 was at {interrupted_at:#x}");
    });
    for cpu in cpu::online().filter(|cpu| *cpu != CpuId::BOOT) {
        apic::send(PerCpu::of(cpu).apic_id(), Command::NonMaskable);
    }
    spin_until(now_ns() + LAST_WORDS_NS);
    exit(Exit::Hang)
}
