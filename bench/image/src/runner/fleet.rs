//! Jobs on processors: who runs where, what interrupts whom, and the forwarder where interrupts are shared.
//!
//! A job has a processor to itself and, with a vector per queue, its interrupts come there. When several jobs depend on
//! one interrupt (fewer vectors than queues, or many submitters on one queue) the boot processor plays irqd: it takes
//! the interrupt and rings the doorbell of every job. Nobody polls for an interrupt.
use crate::cpu::job::Job;
use crate::cpu::{self, CpuId};
use crate::irq::{self, Doorbell, NEVER};
use crate::time;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
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
    /// Interrupts go to the forwarder alone.
    forwarded: bool,
    /// Badge bits that the forwarder took, whatever came of them.
    taken: u64,
}

impl Fleet {
    /// A place for every job on `cpus` processors.
    pub fn new(crew: Crew, cpus: usize) -> Result<Self, String> {
        let jobs = usize::from(crew.jobs);
        let first = usize::from(crew.forwarded || crew.apart);
        if first + jobs > cpus {
            return Err(format!("{jobs} jobs need {} vcpus here, there are {cpus}", first + jobs));
        }
        let places: Vec<CpuId> = cpu::online().skip(first).take(jobs).collect();
        let bell = |cpu: &CpuId| Doorbell::new(*cpu).map(|bell| &*Box::leak(Box::new(bell)));
        let bells: Result<Vec<_>, _> = places.iter().map(bell).collect();
        Ok(Self {
            bells: bells.map_err(|e| format!("no doorbell left: {e:?}"))?,
            places,
            forwarded: crew.forwarded,
            taken: 0,
        })
    }

    /// Badge bits that the forwarder took.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The processor that the interrupt of queue `queue` goes to.
    pub fn target(&self, crew: Crew, queue: usize) -> CpuId {
        if crew.forwarded { CpuId::BOOT } else { self.places[crew.server(queue)] }
    }

    /// The doorbells of `jobs`.
    pub fn bells(&self, jobs: &[u16]) -> Bells {
        let own: Vec<_> = jobs.iter().filter_map(|job| self.bells.get(usize::from(*job)).copied()).collect();
        Bells(own.leak())
    }

    /// What job `job` waits for: its doorbell, which the forwarder rings as well, and what its queue interrupts with
    /// where there is no forwarder.
    pub fn bell(&self, job: u16, own: Badges) -> Bell {
        let bell = self.bells.get(usize::from(job)).map_or(0, |bell| bell.badge());
        Bell { bits: if self.forwarded { bell } else { own.0 | bell } }
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

    /// Runs one closure per job, each on its processor, and forwards interrupts meanwhile where that is needed.
    pub fn run<R: Send + 'static>(
        &mut self,
        crew: Crew,
        interrupts: Badges,
        jobs: Vec<Box<dyn FnOnce() -> R + Send>>,
    ) -> Vec<R> {
        static LEFT: AtomicUsize = AtomicUsize::new(0);
        LEFT.store(jobs.len(), Ordering::SeqCst);
        let finished = Doorbell::new(CpuId::BOOT).expect("a badge bit for the end");
        let finished: &'static Doorbell = Box::leak(Box::new(finished));
        let mut started: Vec<_> = jobs
            .into_iter()
            .zip(&self.places)
            .rev()
            .map(|(job, cpu)| {
                cpu::start(*cpu, move || {
                    let returned = job();
                    LEFT.fetch_sub(1, Ordering::SeqCst);
                    finished.ring();
                    returned
                })
            })
            .collect();
        if crew.forwarded {
            while LEFT.load(Ordering::SeqCst) > 0 {
                let taken = irq::wait(interrupts.0 | finished.badge(), NEVER);
                irq::acknowledge(taken);
                self.taken |= taken;
                self.bells.iter().for_each(|bell| bell.ring());
            }
        }
        started.reverse();
        started.into_iter().map(Job::join).collect()
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
