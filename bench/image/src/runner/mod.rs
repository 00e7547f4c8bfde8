//! The image as the ground of a run: its processors, its interrupts, its memory, and the first block device.
//!
//! What a run does is the crate `runner`'s; here is deviced's part ([`handover`]), irqd's ([`fleet`]) and the driver's
//! platform; and the driver to compare with ([`peer`]).
mod fleet;
mod handover;
mod peer;
mod platform;

use crate::cpu;
use crate::exit::Exit;
use crate::irq::{self, Capability};
use crate::pci::BlockFunction;
use crate::{Machine, memory, println, serial, watchdog};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::NonNull;
use drv_virtio_block::interrupt::VectorPlan;
use drv_virtio_block::platform::Badges;
use drv_virtio_block::startup::Authority;
use drv_virtio_block::transport::QueueId;
use drv_virtio_block::transport::pci::PciTransport;
use fleet::{Bell, Bells, Fleet};
use handover::Property;
use platform::Nucleus;
use runner::crew::Crew;
use runner::ground::{Beginning, Ground, Handed, Piece};
use workload::params::{Driver, Params};
use workload::report::{Line, Note};

/// Runs what the command line says; the exit status says whether there is a result.
pub fn run(machine: &Machine) -> Exit {
    let params = Params::parse(machine.command_line.text());
    let done = match params {
        Ok(params) => {
            let mut image = Image { machine, fleet: Fleet::default(), property: None };
            match params.driver {
                Driver::VirtioDrivers => peer::run(&mut image, &params),
                _ => runner::run(&mut image, &params),
            }
        }
        Err(why) => {
            say(&Line::Failed(Note::new(format_args!("{why}"))));
            false
        }
    };
    if done { Exit::Success } else { Exit::Failure }
}

/// The machine, its processors with their jobs, and what is the driver's once it was handed over.
struct Image<'m> {
    machine: &'m Machine,
    fleet: Fleet,
    property: Option<Property>,
}

impl Ground for Image<'_> {
    type Transport = PciTransport<'static>;
    type Platform = Nucleus;
    type Host = Bell;
    type Wake = Bells;

    fn seats(&mut self, crew: Crew) -> Result<(), String> {
        // Under `-icount` there is one processor, and the others are not looked for.
        let cpus =
            if self.machine.command_line.value("icount") == Some("on") { 1 } else { self.machine.start_processors() };
        self.fleet = Fleet::new(crew, cpus, self.machine.apic_ids.len())?;
        Ok(())
    }

    fn hand_over(
        &mut self,
        params: &Params,
        crew: Crew,
        dma_len: usize,
    ) -> Result<Handed<PciTransport<'static>>, String> {
        let function = self.function()?;
        let property = Property::new(function, params.vectors, self.fleet.target(crew, &[]), dma_len)?;
        // SAFETY: the first authority over memory that was just taken; the device was never told of it.
        let authority = unsafe { property.hand_over() }?;
        self.property = Some(property);
        Ok(handed(authority))
    }

    unsafe fn hand_over_again(&self) -> Result<Handed<PciTransport<'static>>, String> {
        let property = self.property.as_ref().ok_or("nothing was handed over")?;
        // SAFETY: the caller's word.
        unsafe { property.hand_over() }.map(handed)
    }

    fn lead_interrupts(&mut self, crew: Crew, plan: &VectorPlan) {
        for grant in plan.grants() {
            let jobs = crew.waiting(*grant, plan);
            if let Some(interrupt) = self.interrupts().iter().find(|i| i.index() == grant.vector) {
                interrupt.lead_to(self.fleet.target(crew, &jobs));
            }
        }
    }

    fn dma(&self, bytes: usize) -> Option<Piece> {
        let memory = memory::dma(bytes)?;
        let base = NonNull::new(memory.as_ptr())?;
        // SAFETY: fresh, zeroed, page-aligned, mapped one to one for processors and device, and never given back; nobody
        // else has it.
        Some(unsafe { Piece::new(base, memory.len()) })
    }

    fn platform(&self) -> Nucleus {
        Nucleus { interrupts: self.interrupts() }
    }

    fn wake(&self, jobs: Vec<u16>) -> Bells {
        self.fleet.bells(&jobs)
    }

    fn host(&self, job: u16, own: Badges) -> Bell {
        self.fleet.bell(job, own)
    }

    fn run<R: Send + 'static>(&mut self, _: &VectorPlan, jobs: Vec<Box<dyn FnOnce() -> R + Send>>) -> Vec<R> {
        self.fleet.run(jobs)
    }

    fn begin<R: Send + 'static>(&self, job: u16, work: Box<dyn FnOnce() -> R + Send>) -> Beginning<R> {
        Ok(Box::new(self.fleet.begin(job, work)?))
    }

    unsafe fn begin_mortal<R: Send + 'static>(&self, job: u16, work: Box<dyn FnOnce() -> R + Send>) -> Beginning<R> {
        // SAFETY: the caller's word; the closure around it owns `work` and lends nothing.
        Ok(Box::new(self.fleet.begin(job, move || unsafe { cpu::killable(work) })?))
    }

    fn doorbell(&self, job: u16) -> Result<Badges, String> {
        Ok(self.fleet.doorbell(job))
    }

    fn take_configuration(&mut self, plan: &VectorPlan) -> Badges {
        let Some(grant) = plan.configuration() else { return Badges(0) };
        let taken = irq::take(grant.badge.alone().0);
        irq::acknowledge(taken);
        // Where queues have the same vector, a job may have taken it.
        let arrived = self.interrupts().iter().any(|i| i.index() == grant.vector && i.arrivals() > 0);
        if arrived { grant.badge.alone() } else { Badges(0) }
    }

    fn interrupts(&self, crew: Crew, plan: &VectorPlan, queues: u16) -> (u64, u64) {
        let mut seen = 0;
        let mut sums = (0, 0);
        for at in 0..queues {
            let Some(grant) = plan.queue(QueueId(at)) else { continue };
            let interrupt = self.interrupts().iter().find(|i| i.index() == grant.vector);
            // A shared vector is counted once.
            if let Some(interrupt) = interrupt.filter(|i| seen & i.badge() == 0) {
                seen |= interrupt.badge();
                let all = interrupt.arrivals();
                sums.0 += all;
                sums.1 += interrupt.arrivals_on(self.fleet.home(crew, at.into())).min(all);
            }
        }
        sums
    }

    fn bound(&self, ns: u64) {
        watchdog::arm(ns);
    }

    fn say(&self, line: &Line) {
        say(line);
    }

    fn remark(&self, text: &str) {
        println!("image: {text}");
    }
}

impl Image<'_> {
    /// The first block device, prepared.
    fn function(&self) -> Result<BlockFunction, String> {
        let functions = self.machine.pci.functions();
        if functions.is_empty() {
            let looked = "where the ACPI table MCFG says, or at port 0xcf8";
            return Err(alloc::format!("the machine has no PCI bus {looked}: use -M q35 or -M pc"));
        }
        let function = functions
            .into_iter()
            .find(|f| f.is_virtio_block())
            .ok_or("there is no virtio block device on any PCI bus")?;
        let address = function.address;
        self.machine.pci.block_function(function).map_err(|why| alloc::format!("the block device at {address} {why}"))
    }

    fn interrupts(&self) -> &'static [Capability] {
        self.property.as_ref().map_or(&[], |property| property.interrupts)
    }
}

/// An authority as a run takes it.
fn handed(authority: Authority<'static>) -> Handed<PciTransport<'static>> {
    let grants = authority.interrupts.to_vec();
    Handed { transport: PciTransport::new(authority.windows), grants, dma: authority.dma }
}

/// Prints a result line.
fn say(line: &Line) {
    let mut text = String::new();
    match line.encode(&mut text) {
        Ok(()) => serial::write(format_args!("{text}")),
        Err(_) => println!("image: a result line does not fit"),
    }
}
