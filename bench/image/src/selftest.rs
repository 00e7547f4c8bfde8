//! `scenario=selftest`: the nucleus checks itself, without a driver.
//!
//! Each check prints what it saw and whether it held; the run succeeds if all did.

mod kills;
mod routines;

use crate::apic::{self, Command};
use crate::cpu::{self, CpuId, PerCpu};
use crate::exit::Exit;
use crate::irq::{self, Capability, Doorbell, NEVER, Target};
use crate::pci::BlockFunction;
use crate::time::now_ns;
use crate::{Machine, memory, msix, println, time, watchdog};
use alloc::vec::Vec;

/// Bound on each check.
const CHECK_NS: u64 = 20_000_000_000;
const TIMER_NS: u64 = 3_000_000;
/// How late a timer may wake a halted processor: an emulator's thread has to be scheduled.
const LATENESS_NS: u64 = 200_000_000;
const DMA_LEN: usize = 8 << 20;

type Check = fn(&Machine) -> bool;

const CHECKS: [(&str, Check); 10] = [
    ("clock", clock_advances),
    ("routines", |_| routines::agree_with_byte_loops()),
    ("memory", memory_is_zeroed_and_aligned),
    ("devices", devices_are_described),
    ("processors", every_processor_starts),
    ("jobs", every_processor_runs_jobs),
    ("doorbells", doorbells_wake_every_processor),
    ("capabilities", capabilities_deliver_once_per_acknowledgement),
    ("timer", timer_wakes_a_waiting_processor),
    ("kills", |_| kills::leave_processors_usable()),
];

/// Runs every check.
pub fn run(machine: &Machine) -> Exit {
    let mut all = true;
    for (name, check) in CHECKS {
        watchdog::arm(CHECK_NS);
        let held = check(machine);
        println!("selftest: {name}: {}", if held { "ok" } else { "FAILED" });
        all &= held;
    }
    if all { Exit::Success } else { Exit::Failure }
}

fn clock_advances(_: &Machine) -> bool {
    let first = now_ns();
    let second = now_ns();
    println!("clock: {} MHz, {} ns between two readings", time::tsc_frequency() / 1_000_000, second - first);
    second >= first && time::tsc_frequency() > 100_000_000
}

fn memory_is_zeroed_and_aligned(machine: &Machine) -> bool {
    for region in &machine.regions {
        println!("memory: {:#x}, {} KiB", region.base(), region.len() / 1024);
    }
    let Some(region) = memory::dma(DMA_LEN) else {
        return false;
    };
    // SAFETY: the region is `len` zeroed bytes that only this function has.
    let bytes = unsafe { core::slice::from_raw_parts(region.as_ptr(), region.len()) };
    println!(
        "memory: {} KiB at {:#x}, {} KiB left",
        DMA_LEN / 1024,
        region.device_address(),
        memory::free_len() / 1024
    );
    region.device_address().is_multiple_of(4096) && bytes.len() == DMA_LEN && bytes.iter().all(|byte| *byte == 0)
}

fn devices_are_described(machine: &Machine) -> bool {
    let functions = machine.pci.functions();
    let mut held = !functions.is_empty();
    for function in functions {
        println!("pci: {} {:04x}:{:04x}", function.address, function.id.0, function.id.1);
        if !function.is_virtio_block() {
            continue;
        }
        match machine.pci.block_function(function) {
            Ok(block) => held &= describe(&block),
            Err(refusal) => {
                println!("pci: {} {refusal}", function.address);
                held = false;
            }
        }
    }
    held
}

fn describe(block: &BlockFunction) -> bool {
    println!("pci: {} is virtio block device {:#x}", block.address, block.device_id);
    for window in &block.windows {
        println!(
            "pci:   {:?}: BAR {} at {:#x}+{:#x}, {} bytes of {}, multiplier {}",
            window.kind,
            window.bar,
            window.bar_base,
            window.offset,
            window.len,
            window.bar_len,
            window.notify_multiplier
        );
    }
    let Some(interrupts) = &block.msix else {
        return true;
    };
    let (table, pending) = (&interrupts.table, &interrupts.pending);
    println!(
        "pci:   MSI-X: {} entries in BAR {} at {:#x}, pending bits in BAR {} at {:#x}, {} bytes",
        interrupts.entries,
        table.bar,
        table.address(),
        pending.bar,
        pending.address(),
        pending.len
    );
    // Routing twice must fail, and dropping a capability must free its entry.
    let route = || msix::route(interrupts, 0, Target::One(CpuId::BOOT));
    let first = route();
    let second = route();
    let held = first.is_ok() && second.is_err();
    drop(first);
    held && route().is_ok() && msix::route(interrupts, interrupts.entries, Target::Everyone).is_err()
}

fn every_processor_starts(machine: &Machine) -> bool {
    let running = machine.start_processors();
    println!("processors: {running} of {}", machine.apic_ids.len());
    running == machine.apic_ids.len()
}

fn every_processor_runs_jobs(_: &Machine) -> bool {
    cpu::online().all(|cpu| (0..100_u64).all(|n| cpu::run_on(cpu, move || (cpu::current(), n)) == (cpu, n)))
}

/// Each processor waits for a doorbell of its own, which the boot processor rings; the boot processor rings its own.
fn doorbells_wake_every_processor(_: &Machine) -> bool {
    let doorbells: Result<Vec<_>, _> = cpu::online().map(Doorbell::new).collect();
    let Ok(doorbells) = doorbells else {
        return false;
    };
    let pairs = || cpu::online().zip(&doorbells);
    let waiters: Vec<_> = pairs()
        .filter(|(cpu, _)| *cpu != CpuId::BOOT)
        .map(|(cpu, doorbell)| {
            let badge = doorbell.badge();
            (cpu::start(cpu, move || irq::wait(badge, NEVER)), badge)
        })
        .collect();
    // Give the waiters time to halt, so that the wake-up is what ends their wait.
    irq::halt_until(now_ns() + TIMER_NS, || false);
    doorbells.iter().for_each(Doorbell::ring);
    let own = doorbells[0].badge();
    irq::wait(own, NEVER) == own && waiters.into_iter().all(|(waiter, badge)| waiter.join() == badge)
}

/// Stands in for the device with interprocessor interrupts of the capability's vector, which take the same way from the
/// interrupt entry on.
fn capabilities_deliver_once_per_acknowledgement(machine: &Machine) -> bool {
    let function = machine.pci.functions().into_iter().find(|function| function.is_virtio_block());
    let Some(interrupts) = function.and_then(|function| machine.pci.block_function(function).ok()?.msix) else {
        println!("capabilities: no device with MSI-X, nothing to route");
        return true;
    };
    cpu::online().all(|cpu| match msix::route(&interrupts, 0, Target::One(cpu)) {
        Ok(capability) => delivers_once_per_acknowledgement(capability, cpu),
        Err(error) => {
            println!("capabilities: {cpu}: {error:?}");
            false
        }
    })
}

fn delivers_once_per_acknowledgement(capability: Capability, cpu: CpuId) -> bool {
    let (vector, index) = (capability.vector(), capability.index());
    capability.mask();
    let (delivered, capability) = cpu::run_on(cpu, move || {
        let raise = || apic::send(PerCpu::current().apic_id(), Command::Fixed(vector));
        raise();
        let first = capability.wait(NEVER);
        raise();
        let withheld = !capability.wait(now_ns() + TIMER_NS);
        capability.acknowledge();
        (first && withheld && capability.wait(NEVER), capability)
    });
    capability.unmask();
    let (total, here) = (capability.arrivals(), capability.arrivals_on(cpu));
    println!("capabilities: entry {index}, vector {vector:#x}: {here} of {total} arrivals on {cpu}");
    delivered && total == 2 && here == 2
}

fn timer_wakes_a_waiting_processor(_: &Machine) -> bool {
    cpu::online().all(|cpu| {
        let (raised, late) = cpu::run_on(cpu, || {
            let deadline = now_ns() + TIMER_NS;
            let raised = irq::wait(u64::MAX, deadline);
            (raised, now_ns().checked_sub(deadline))
        });
        println!("timer: {cpu} woke {late:?} ns after its deadline");
        raised == 0 && late.is_some_and(|late| late < LATENESS_NS)
    })
}
