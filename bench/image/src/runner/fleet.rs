//! Jobs on processors: who runs where, and which interrupt is raised where.
//!
//! A job has a processor to itself, and an interrupt that it alone waits for is raised there. One that several jobs wait
//! for (fewer vectors than queues, or many submitters on one queue) is raised on every processor, so that each job finds
//! it in its own badge word. This needs no processor that passes interrupts on, so it works on whatever rung of the
//! ladder the device left the driver. Nobody polls for an interrupt.
use crate::cpu::job::Job;
use crate::cpu::{self, CpuId, MAX_CPUS};
use crate::irq::{self, Doorbell, NEVER, Target};
use crate::time;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use drv_virtio_block::platform::Badges;
use drv_virtio_block::queue::Wake;
use runner::crew::Crew;
use runner::ground::{Begun, Host};

/// Who runs where.
#[derive(Default)]
pub struct Fleet {
    /// The processor of each job.
    places: Vec<CpuId>,
    /// The doorbell of each job.
    bells: Vec<&'static Doorbell>,
}

impl Fleet {
    /// A place for every job on `cpus` processors that run, of `all` that the machine has.
    pub fn new(crew: Crew, cpus: usize, all: usize) -> Result<Self, String> {
        let jobs = usize::from(crew.jobs);
        let first = usize::from(crew.apart);
        let needed = first + jobs;
        if needed > all {
            return Err(format!(
                "{jobs} jobs need {needed} vcpus here, the machine has {all} (at most {MAX_CPUS} are used)"
            ));
        }
        if needed > cpus {
            return Err(format!(
                "{jobs} jobs need {needed} vcpus here, {cpus} of {all} started in time: the host is too busy, run again"
            ));
        }
        let places: Vec<CpuId> = cpu::online().skip(first).take(jobs).collect();
        let bell = |cpu: &CpuId| Doorbell::new(*cpu).map(|bell| &*Box::leak(Box::new(bell)));
        let bells: Result<Vec<_>, _> = places.iter().map(bell).collect();
        Ok(Self { bells: bells.map_err(|e| format!("no doorbell left: {e:?}"))?, places })
    }

    /// The processor of the first of the jobs that serve queue `queue`.
    pub fn home(&self, crew: Crew, queue: usize) -> CpuId {
        self.places[crew.server(queue)]
    }

    /// Where an interrupt is raised that `jobs` wait for; the boot processor looks at what no job waits for, unless the
    /// driver stands apart and has everything.
    pub fn target(&self, crew: Crew, jobs: &[u16]) -> Target {
        match jobs {
            _ if crew.apart => Target::One(self.home(crew, 0)),
            [] => Target::One(CpuId::BOOT),
            [job] => Target::One(self.places[usize::from(*job)]),
            _ => Target::Everyone,
        }
    }

    /// The doorbells of `jobs`.
    pub fn bells(&self, jobs: &[u16]) -> Bells {
        let own: Vec<_> = jobs.iter().filter_map(|job| self.bells.get(usize::from(*job)).copied()).collect();
        Bells(own.leak())
    }

    /// What job `job` waits for: its doorbell, and what its queue interrupts with.
    pub fn bell(&self, job: u16, own: Badges) -> Bell {
        Bell { bits: own.0 | self.doorbell(job).0 }
    }

    /// The badge of job `job`'s doorbell.
    pub fn doorbell(&self, job: u16) -> Badges {
        Badges(self.bells.get(usize::from(job)).map_or(0, |bell| bell.badge()))
    }

    /// Begins `work` on the processor of job `job`.
    pub fn begin<R: Send + 'static>(
        &self,
        job: u16,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<Job<R>, String> {
        let cpu = self.places.get(usize::from(job)).ok_or("there is no such job")?;
        Ok(cpu::start(*cpu, work))
    }

    /// Runs one closure per job, each on its processor.
    pub fn run<R: Send + 'static>(&self, jobs: Vec<Box<dyn FnOnce() -> R + Send>>) -> Vec<R> {
        // The first one last: on the boot processor it is over before `start` returns.
        let started: Vec<_> =
            jobs.into_iter().zip(&self.places).rev().map(|(job, cpu)| cpu::start(*cpu, job)).collect();
        started.into_iter().rev().map(Job::join).collect()
    }
}

impl<R> Begun<R> for Job<R> {
    fn is_over(&self) -> bool {
        Self::is_over(self)
    }

    fn outcome(self: Box<Self>) -> Option<R> {
        Self::outcome(*self)
    }

    fn kill(self: Box<Self>) -> Option<R> {
        Self::kill(*self)
    }
}

/// A job's clock, and its way of waiting for the badge bits that concern it.
pub struct Bell {
    /// On the job's processor.
    bits: u64,
}

impl Host for Bell {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        time::now_ns()
    }

    fn wait(&mut self) {
        let taken = irq::wait(self.bits, NEVER);
        irq::acknowledge(taken);
    }

    #[inline(always)]
    fn ticks() -> u64 {
        time::tsc()
    }
}

/// Rings the doorbells of a queue's submitters: how a drainer wakes another.
pub struct Bells(&'static [&'static Doorbell]);

impl Wake for Bells {
    fn wake(&self, submitter: u8) {
        if let Some(bell) = self.0.get(usize::from(submitter)) {
            bell.ring();
        }
    }
}
