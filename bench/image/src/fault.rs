//! The ends that nobody wants: processor exceptions, interrupts without an owner, panics.
//!
//! Each prints what is needed to find the place (addresses are those of the image file, `addr2line -e` takes them) and
//! leaves with a status of its own. Nothing is recovered.

use crate::cpu::kill::Shelter;
use crate::cpu::{self, PerCpu};
use crate::exit::{Exit, exit};
use crate::serial::with_dying_line;
use crate::watchdog;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};
use x86_64::instructions::{hlt, interrupts};
use x86_64::registers::control::Cr2;

const NMI: u64 = 2;
const PAGE_FAULT: u64 = 14;

const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid task state",
    "segment not present",
    "stack segment fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved",
];

const NOBODY: usize = usize::MAX;

/// The processor whose panic ends the run.
static PANICKING: AtomicUsize = AtomicUsize::new(NOBODY);

/// What the entries in [`crate::vectors`] and the processor leave on the stack, lowest address first.
#[repr(C)]
pub struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Prints the exception and ends the run.
pub extern "C" fn report(frame: &Frame) -> ! {
    // Leaving the serial line's lock must not let a kill through; the shelter has no end.
    let _shelter = Shelter::enter();
    if frame.vector == NMI && watchdog::has_bitten() {
        answer_watchdog(frame);
    }
    let name = NAMES.get(frame.vector as usize).unwrap_or(&"interrupt without an owner");
    with_dying_line(|line| {
        let _ = write!(
            line,
            "fault: vector {} ({name}) on {}: rip {:#x}, error code {:#x}, rsp {:#x}, rflags {:#x}",
            frame.vector,
            cpu::current(),
            frame.rip,
            frame.error_code,
            frame.rsp,
            frame.rflags,
        );
        if frame.vector == PAGE_FAULT {
            let _ = write!(line, ", cr2 {:#x}", Cr2::read_raw());
        }
        let _ = writeln!(line);
    });
    exit(Exit::Fault)
}

/// The boot processor ends the run; this one says where it was and steps aside.
fn answer_watchdog(frame: &Frame) -> ! {
    let cpu = PerCpu::current();
    let state = if cpu.is_asleep() { "halted" } else { "running" };
    with_dying_line(|line| {
        let _ = writeln!(line, "hang: {} was {state} at {:#x}", cpu::current(), frame.rip);
    });
    stand_still()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // A job that is killed while it panics would take the panic along; the shelter has no end.
    let _shelter = Shelter::enter();
    let cpu = cpu::current();
    match PANICKING.compare_exchange(NOBODY, cpu.index(), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => with_dying_line(|line| {
            let _ = writeln!(line, "panic on {cpu}: {info}");
        }),
        // Printing the panic panicked: what has been said must do.
        Err(first) if first == cpu.index() => {}
        // Another processor is about to end the run.
        Err(_) => stand_still(),
    }
    exit(Exit::Panic)
}

fn stand_still() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}
