//! Jobs on processors: who runs where, what interrupts whom, and the forwarder where interrupts are shared.
//!
//! A job has a processor to itself and, with a vector per queue, its interrupts come there. When several jobs depend on
//! one interrupt (fewer vectors than queues, or many submitters on one queue) the boot processor plays irqd: it takes
//! the interrupt and rings the doorbell of every job. Nobody polls for an interrupt.
use super::job::{Done, Waiter};
use super::rig::Rig;
use crate::cpu::job::Job;
use crate::cpu::{self, CpuId};
use crate::irq::{self, Doorbell, NEVER};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use drv_virtio_block::queue::Wake;
use workload::params::{Mode, Params, Submit};
use workload::report::Tally;

/// Who runs where.
pub struct Crew {
    /// The processor of each job.
    pub places: Vec<CpuId>,
    /// Several jobs hang on one interrupt.
    pub forwarded: bool,
    /// Queues are used through the many-submitters path, as asked.
    shared: bool,
    /// A queue must not be shared, as asked.
    exclusive: bool,
    /// Queues wished for.
    pub queues: u16,
    /// Badge bits that the forwarder took.
    taken: AtomicU64,
}

impl Crew {
    /// A place for every job on `cpus` processors.
    pub fn new(params: &Params, cpus: usize) -> Result<Self, String> {
        let jobs = if params.icount { 1 } else { usize::from(params.numjobs) };
        let queues = if params.queues == 0 { params.numjobs } else { params.queues };
        let shared = params.submit == Submit::Shared || usize::from(queues) < jobs;
        // The configuration has a vector of its own while there are enough.
        let enough = usize::from(params.vectors) > usize::from(queues);
        let forwarded = params.mode == Mode::Interrupt && jobs > 1 && (shared || !enough);
        let first = usize::from(forwarded);
        if first + jobs > cpus {
            return Err(format!("{jobs} jobs need {} vcpus here, there are {cpus}", first + jobs));
        }
        let places = cpu::online().skip(first).take(jobs).collect();
        let exclusive = params.submit == Submit::Owner;
        Ok(Self { places, forwarded, shared, exclusive, queues, taken: AtomicU64::new(0) })
    }

    /// Whether queues are shared, now that it is known how many there are.
    pub fn shares<M>(&self, rig: &Rig<M>) -> Result<bool, String> {
        let (jobs, queues) = (self.places.len(), usize::from(rig.device.reached().queues));
        if self.exclusive && queues < jobs {
            return Err(format!("{jobs} jobs cannot own {queues} queues: lower numjobs or drop submit=owner"));
        }
        Ok(self.shared || queues < jobs)
    }

    /// Badge bits that the forwarder took, whatever came of them.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn note(&self, taken: u64) {
        self.taken.fetch_or(taken, Ordering::Relaxed);
    }

    /// The processor that the interrupt of queue `queue` goes to.
    pub fn target(&self, queue: usize) -> CpuId {
        if self.forwarded { CpuId::BOOT } else { self.places[queue % self.places.len()] }
    }
}

/// Waits for the badge bits that concern one job.
pub struct Bell {
    /// On the job's processor.
    pub bits: u64,
}

impl Waiter for Bell {
    fn wait(&mut self) {
        let taken = irq::wait(self.bits, NEVER);
        irq::acknowledge(taken);
    }
}

/// Rings a job's doorbell: how a drainer wakes another submitter, and how the forwarder passes an interrupt on.
#[derive(Clone, Copy)]
pub struct Bells(pub &'static [&'static Doorbell]);

impl Bells {
    /// Those bells alone.
    pub fn some(bells: Vec<&'static Doorbell>) -> Self {
        Self(bells.leak())
    }

    /// The badge bit of a job's bell.
    pub fn bit(self, job: usize) -> u64 {
        self.0.get(job).map_or(0, |bell| bell.badge())
    }
}

impl Wake for Bells {
    fn wake(&self, submitter: u8) {
        if let Some(bell) = self.0.get(usize::from(submitter)) {
            bell.ring();
        }
    }
}

/// One doorbell per job.
pub fn bells(crew: &Crew) -> Result<Bells, String> {
    let bell = |cpu: &CpuId| Doorbell::new(*cpu).map(|bell| &*Box::leak(Box::new(bell)));
    let bells: Result<Vec<_>, _> = crew.places.iter().map(bell).collect();
    bells.map(Bells::some).map_err(|e| format!("no doorbell left: {e:?}"))
}

/// What comes back from a job.
pub struct Returned<D> {
    pub drive: D,
    pub tally: Box<Tally>,
    pub done: Done,
    /// The job's part of the ledger, if it kept one.
    pub words: Vec<u32>,
    pub first_fault: Option<String>,
}

/// Runs one closure per job, each on its processor, and forwards interrupts meanwhile where that is needed.
pub fn run<D: Send + 'static>(
    crew: &Crew,
    bells: Bells,
    interrupts: u64,
    jobs: Vec<Box<dyn FnOnce() -> D + Send>>,
) -> Vec<D> {
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    LEFT.store(jobs.len(), Ordering::SeqCst);
    let finished = Doorbell::new(CpuId::BOOT).expect("a badge bit for the end");
    let finished: &'static Doorbell = Box::leak(Box::new(finished));
    let mut started: Vec<_> = jobs
        .into_iter()
        .zip(&crew.places)
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
            let taken = irq::wait(interrupts | finished.badge(), NEVER);
            irq::acknowledge(taken);
            crew.note(taken);
            bells.0.iter().for_each(|bell| bell.ring());
        }
    }
    started.reverse();
    started.into_iter().map(Job::join).collect()
}
