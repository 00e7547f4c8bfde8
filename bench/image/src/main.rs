//! A freestanding image that QEMU boots: just enough of a machine to run the driver the way `EriX` would.
//!
//! It plays three parts. *deviced* ([`pci`]) finds virtio block functions and describes their windows; *irqd* ([`irq`],
//! [`msix`]) turns their interrupts into capabilities; the third, *blockd* or a bench, runs on processors ([`cpu`]) that
//! halt whenever they wait. The rest is nucleus: boot, memory, time, serial line, and ways to end ([`mod@exit`]).
//!
//! Reading order: [`boot`], this file, [`cpu`], [`vectors`], [`irq`], [`pci`]. Memory is mapped one to one, so a physical
//! address, a device's address and a pointer are the same number. Everything is one address space in ring 0: this is a
//! test bench, and isolation is not among its subjects.
//!
//! The kernel command line says what to do: a workload ([`runner`]), `scenario=operations` (every operation and a reset),
//! `scenario=selftest` (the nucleus itself), `scenario=hang` (to be ended by the watchdog); `icount=on` says that time
//! is virtual (see [`watchdog`]).
#![no_std]
#![no_main]
// Nothing of a binary is reachable from outside; `pub` marks what a module offers to the others.
#![allow(unreachable_pub)]

extern crate alloc;

mod acpi;
mod apic;
mod boot;
mod command_line;
mod cpu;
mod descriptors;
mod exit;
mod fault;
mod heap;
mod irq;
mod memory;
mod msix;
mod paging;
mod pci;
mod runner;
mod selftest;
mod serial;
mod start_info;
mod symbols;
mod time;
mod timer;
mod vectors;
mod watchdog;

use acpi::Platform;
use command_line::CommandLine;
use exit::{Exit, exit};
use pci::Pci;
use start_info::StartInfo;
use workload::report::{Line, Note};

/// The bound on everything that happens before a scenario sets its own.
const STARTUP_NS: u64 = 10_000_000_000;

/// The machine, as a scenario finds it: one processor, interrupts on, watchdog armed.
pub struct Machine {
    /// What to do.
    pub command_line: CommandLine,
    /// Usable memory, as the hypervisor stated it.
    pub regions: arrayvec::ArrayVec<memory::Region, { memory::MAX_REGIONS }>,
    /// Every processor's APIC id.
    pub apic_ids: arrayvec::ArrayVec<u8, { cpu::MAX_CPUS }>,
    /// The buses.
    pub pci: Pci,
}

impl Machine {
    /// Starts the other processors; returns how many run then.
    pub fn start_processors(&self) -> usize {
        cpu::start_all(&self.apic_ids, &self.regions)
    }
}

/// Where the boot code leads: on the boot stack, interrupts off, with the address of the hypervisor's start info.
extern "C" fn image_main(start_info: u64) -> ! {
    cpu::adopt(cpu::CpuId::BOOT);
    descriptors::install(cpu::CpuId::BOOT, cpu::stack::boot_interruption_stacks());
    serial::init();
    // SAFETY: the argument is what the PVH entry received, and nothing has been written outside the image yet.
    let machine = bring_up(unsafe { StartInfo::read(start_info) });
    if machine.command_line.value("icount") == Some("on") {
        watchdog::disable();
    }
    watchdog::arm(STARTUP_NS);
    exit(run(&machine))
}

fn bring_up(start_info: StartInfo) -> Machine {
    if let Err(why) = memory::init(&start_info.regions) {
        refuse(why);
    }
    paging::guard(0);
    cpu::stack::guard_boot_stacks();
    let command_line = CommandLine::new(start_info.command_line);
    // SAFETY: the hypervisor's root pointer; the tables lie outside the memory that `memory` hands out.
    let platform = unsafe { Platform::discover(start_info.rsdp) };
    cpu::startup::complete_boot_processor();
    if let Err(why) = time::init(platform.hpet) {
        refuse(why);
    }
    timer::calibrate();
    x86_64::instructions::interrupts::enable();
    // SAFETY: the firmware's word, taken over once.
    let pci = unsafe { Pci::new(platform.configuration_space) };
    Machine { command_line, regions: start_info.regions, apic_ids: platform.apic_ids, pci }
}

/// Ends the run on a machine that the image cannot work on, with a result line that says why. It allocates nothing.
fn refuse(why: &str) -> ! {
    struct Serial;
    impl core::fmt::Write for Serial {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            serial::write(format_args!("{text}"));
            Ok(())
        }
    }
    let line = Line::Failed(Note::new(format_args!("{why}")));
    if line.encode(&mut Serial).is_err() {
        println!("image: {why}");
    }
    exit(Exit::Failure)
}

fn run(machine: &Machine) -> Exit {
    match machine.command_line.value("scenario") {
        Some("selftest") => selftest::run(machine),
        Some("none" | "operations" | "flush" | "blockd" | "restart") | None => runner::run(machine),
        Some("hang") => {
            println!("image: hanging, as asked");
            irq::halt_until(irq::NEVER, || false);
            Exit::Failure
        }
        other => {
            println!("image: unknown scenario {other:?}; the command line is {:?}", machine.command_line.text());
            Exit::Failure
        }
    }
}
