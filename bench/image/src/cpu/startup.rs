//! Brings the application processors up, one after the other, and leaves each halting in its idle loop.

use super::stack::{interruption_stacks, main_stack};
use super::trampoline::{self, Handover};
use super::{CpuId, MAX_CPUS, ONLINE, adopt, count, job, record_apic_id, record_main_stack};
use crate::apic::{self, Command};
use crate::memory::Region;
use crate::time::now_ns;
use crate::{descriptors, irq, println, watchdog};
use core::sync::atomic::Ordering;
use x86_64::instructions::interrupts;

/// From INIT to the first start-up command.
const INIT_NS: u64 = 10_000_000;
/// From the first start-up command to the second.
const RETRY_NS: u64 = 1_000_000;
/// From the second to the third, and from the third to giving up, on a host that runs the machine when it should.
const ARRIVAL_NS: u64 = 2_000_000_000;
/// What is left to the run after the last processor arrived, or did not, until the watchdog is armed anew.
const MARGIN_NS: u64 = 20_000_000_000;
/// Longest that a processor is waited for, however slow the host is.
const LONGEST_NS: u64 = 30_000_000_000;

/// Starts every processor of the firmware's table; returns how many run then, the boot processor included.
///
/// A processor that does not arrive is reported and left out, together with those after it (it might arrive yet, and
/// has its number). Called again, it starts nothing.
///
/// Patience is in proportion to the host's slowness, which shows in how late a wait of known length ends, and to the
/// number of processors, which compete for the host's.
pub fn start_all(apic_ids: &[u8], regions: &[Region]) -> usize {
    if count() > 1 {
        return count();
    }
    let page = trampoline::PAGE..trampoline::PAGE + 0x1000;
    assert!(regions.iter().any(|region| region.contains(&page)), "no conventional memory for the trampoline");
    let boot = apic::id();
    let others = || apic_ids.iter().copied().filter(|id| *id != boot).take(MAX_CPUS - 1);
    trampoline::place();
    for apic_id in others() {
        apic::send(apic_id, Command::Init);
    }
    let before = now_ns();
    irq::halt_until(before + INIT_NS, || false);
    let slowness = ((now_ns() - before) / INIT_NS).max(1) + others().count() as u64 / 8;
    let patience = ARRIVAL_NS.saturating_mul(slowness).min(LONGEST_NS);
    for (index, apic_id) in (count()..).zip(others()) {
        if !start_one(index, apic_id, patience) {
            println!("startup: the processor with APIC id {apic_id} does not answer");
            break;
        }
    }
    count()
}

/// A start-up command reaches a processor that waits for one, and no other, so repeating it is safe.
fn start_one(index: usize, apic_id: u8, patience: u64) -> bool {
    watchdog::arm(2 * patience + MARGIN_NS);
    let cpu = CpuId::numbered(index);
    record_apic_id(cpu, apic_id);
    let stack = main_stack();
    record_main_stack(cpu, stack);
    trampoline::hand_over(Handover { stack, cpu: index as u64, entry: arrive as *const () as u64 });
    [RETRY_NS, patience, patience].into_iter().any(|patience| {
        apic::send(apic_id, Command::Startup((trampoline::PAGE >> 12) as u8));
        irq::halt_until(now_ns() + patience, || count() > index)
    })
}

/// Where the trampoline leads.
extern "C" fn arrive(index: u64) -> ! {
    let cpu = CpuId::numbered(index as usize);
    adopt(cpu);
    descriptors::install(cpu, interruption_stacks());
    apic::init();
    interrupts::enable();
    // Release: whoever sees the number sees the processor's tables and block.
    ONLINE.store(index as u32 + 1, Ordering::Release);
    irq::wake(CpuId::BOOT);
    job::serve()
}

/// The boot processor's own part: its APIC id, its controller, interrupts on.
pub fn complete_boot_processor() {
    apic::silence_legacy_devices();
    apic::init();
    record_apic_id(CpuId::BOOT, apic::id());
}
