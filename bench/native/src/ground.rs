//! A Linux process as the ground of a run: pinned threads, eventfds, one shared memory, and any transport.
//!
//! Badge number and vector number of an interrupt are the same: the place of its eventfd in the list that the transport
//! was made with. When several jobs hang on one interrupt the main thread takes it and rings everybody's bell.
use crate::clock::Clock;
use crate::event::Event;
use crate::memory::SharedMemory;
use crate::output;
use crate::platform::{LinuxPlatform, Source, Watch};
use crate::seat::{Bells, Line, Seat, Step, take_any};
use drv_virtio_block::interrupt::{InterruptGrant, VectorPlan};
use drv_virtio_block::platform::{Badge, Badges};
use drv_virtio_block::transport::{QueueId, Transport};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use runner::crew::Crew;
use runner::ground::{Ground, Handed, Piece};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use workload::params::{Mode, Params};
use workload::report::{Line as Said, Note};

/// Pins the calling thread to `core`.
///
/// # Errors
/// When the process may not run there.
pub fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(|e| format!("core {core}: {e}"))
}

/// What a process has for a run, besides the transport.
pub struct Means {
    /// Memory that the device knows.
    pub memory: &'static SharedMemory,
    /// The eventfds that the transport raises, by vector.
    pub calls: Vec<Arc<Event>>,
    /// The back-end's socket, if there is one.
    pub watch: Option<Arc<Watch>>,
    /// A device that is stepped.
    pub stepper: Option<&'static dyn Step>,
    /// The cores of the jobs; none: wherever the scheduler likes.
    pub cores: Vec<usize>,
}

/// See the module's text.
pub struct Process<T> {
    transport: Option<T>,
    memory: &'static SharedMemory,
    lines: Vec<Arc<Line>>,
    watch: Option<Arc<Watch>>,
    stepper: Option<&'static dyn Step>,
    cores: Vec<usize>,
    bells: Vec<Arc<Line>>,
    /// An interrupt that several jobs wait for is taken by the caller's thread, which rings the bell of every job.
    forwarded: bool,
    /// Nobody waits for a bell.
    polled: bool,
    deadline: Arc<AtomicU64>,
}

impl<T> Process<T> {
    /// A process that has `transport` to hand over (a peer brings its own, and has none).
    pub fn new(transport: Option<T>, means: Means) -> Self {
        let Means { memory, calls, watch, stepper, cores } = means;
        let lines = calls.into_iter().map(|event| Arc::new(Line::new(event))).collect();
        let deadline = Arc::new(AtomicU64::new(u64::MAX));
        let watched = Arc::clone(&deadline);
        std::thread::spawn(move || watch_over(&watched));
        Self {
            transport,
            memory,
            lines,
            watch,
            stepper,
            cores,
            bells: Vec::new(),
            forwarded: false,
            polled: false,
            deadline,
        }
    }

    /// Interrupts taken on the lines of all vectors.
    fn taken(&self, vector: u16) -> u64 {
        self.lines.get(usize::from(vector)).map_or(0, |line| line.taken.load(Ordering::Relaxed))
    }
}

/// Ends the process, with a result line that says so, if a bound is passed.
fn watch_over(deadline: &AtomicU64) {
    loop {
        std::thread::sleep(Duration::from_millis(50));
        if Clock::get().now_ns() > deadline.load(Ordering::Relaxed) {
            say(&Said::Failed(Note::new(format_args!("the run is not over in time: the device does not answer"))));
            std::process::exit(1);
        }
    }
}

/// Prints a result line.
pub fn say(line: &Said) {
    let mut text = String::new();
    if line.encode(&mut text).is_ok() {
        output::line(format_args!("{}", text.trim_end()));
    } else {
        output::line(format_args!("native: a result line does not fit"));
    }
}

impl<T: Transport<Doorbell: 'static> + Send + 'static> Ground for Process<T> {
    type Transport = T;
    type Platform = LinuxPlatform;
    type Host = Seat;
    type Wake = Bells;

    fn seats(&mut self, crew: Crew) -> Result<(), String> {
        let bell = |_| Event::new().map(|event| Arc::new(Line::new(Arc::new(event))));
        let bells: Result<Vec<_>, _> = (0..crew.jobs).map(bell).collect();
        self.bells = bells.map_err(|e| format!("no eventfd left: {e}"))?;
        if self.cores.is_empty() || self.cores.len() >= crew.jobs.into() {
            return Ok(());
        }
        Err(format!("{} jobs need as many cores, {} were given: lower numjobs", crew.jobs, self.cores.len()))
    }

    fn hand_over(&mut self, params: &Params, crew: Crew, dma_len: usize) -> Result<Handed<T>, String> {
        self.polled = params.mode == Mode::Polled;
        let transport = self.transport.take().ok_or("there is no device")?;
        let vectors = params.vectors.min(crew.queues + 1).min(self.lines.len() as u16);
        let grant = |vector: u16| Some(InterruptGrant { badge: Badge::new(vector as u8)?, vector });
        let dma = self.dma(dma_len).ok_or_else(|| format!("no {dma_len} bytes of memory for the rings"))?;
        Ok(Handed { transport, grants: (0..vectors).filter_map(grant).collect(), dma: dma.into_region() })
    }

    fn lead_interrupts(&mut self, crew: Crew, plan: &VectorPlan) {
        self.forwarded = crew.shares_interrupts(plan);
    }

    fn dma(&self, bytes: usize) -> Option<Piece> {
        let piece = self.memory.take(bytes)?;
        // SAFETY: zeroed pages that live as long as the process, at one address for both sides; the piece is consumed.
        Some(unsafe { Piece::new(piece.base(), piece.len()) })
    }

    fn platform(&self) -> LinuxPlatform {
        let interrupt = |(line, number): (&Arc<Line>, u8)| {
            Badge::new(number).map(|badge| (badge, Source::Interrupt(Arc::clone(&line.event))))
        };
        LinuxPlatform::new(self.lines.iter().zip(0..).filter_map(interrupt)).expect("an eventfd for the platform")
    }

    fn wake(&self, jobs: Vec<u16>) -> Bells {
        let jobs = jobs.into_iter().filter(|_| !self.polled);
        Bells(jobs.filter_map(|job| self.bells.get(usize::from(job)).map(Arc::clone)).collect())
    }

    fn host(&self, job: u16, own: Badges) -> Seat {
        let interrupts = self.lines.iter().enumerate().filter(|(at, _)| !self.forwarded && own.0 >> at & 1 != 0);
        let lines = interrupts.map(|(_, line)| line).chain(self.bells.get(usize::from(job)));
        Seat::new(lines.map(Arc::clone).collect(), self.watch.clone(), self.stepper)
    }

    fn run<R: Send + 'static>(&mut self, plan: &VectorPlan, jobs: Vec<Box<dyn FnOnce() -> R + Send>>) -> Vec<R> {
        let left = Arc::new(AtomicUsize::new(jobs.len()));
        let finished = Arc::new(Line::new(Arc::new(Event::new().expect("an eventfd for the end"))));
        let cores = &self.cores;
        let started: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(number, job)| {
                let core = cores.get(number).copied();
                let (left, finished) = (Arc::clone(&left), Arc::clone(&finished));
                std::thread::spawn(move || {
                    if let Some(why) = core.and_then(|core| pin(core).err()) {
                        output::complain(format_args!("native: {why}"));
                    }
                    let returned = job();
                    left.fetch_sub(1, Ordering::SeqCst);
                    finished.event.raise();
                    returned
                })
            })
            .collect();
        if self.forwarded {
            let interrupts = self.lines.iter().enumerate().filter(|(at, _)| plan.badges().0 >> at & 1 != 0);
            let lines: Vec<&Line> = interrupts.map(|(_, line)| &**line).chain([&*finished]).collect();
            while left.load(Ordering::SeqCst) > 0 {
                take_any(&lines);
                self.bells.iter().for_each(|bell| bell.event.raise());
            }
        }
        started.into_iter().map(|thread| thread.join().expect("a job does not panic")).collect()
    }

    fn take_configuration(&mut self, plan: &VectorPlan) -> Badges {
        let own = plan.configuration().map(|grant| grant.vector);
        let raised = own.and_then(|vector| self.lines.get(usize::from(vector))).is_some_and(|line| line.take());
        plan.configuration().filter(|_| raised).map_or(Badges(0), |grant| grant.badge.alone())
    }

    fn interrupts(&self, _: Crew, plan: &VectorPlan, queues: u16) -> (u64, u64) {
        let mut vectors: Vec<u16> = (0..queues).filter_map(|at| plan.queue(QueueId(at))).map(|g| g.vector).collect();
        vectors.sort_unstable();
        vectors.dedup();
        let all = vectors.into_iter().map(|vector| self.taken(vector)).sum();
        (all, if self.forwarded { 0 } else { all })
    }

    fn bound(&self, ns: u64) {
        self.deadline.store(Clock::get().now_ns().saturating_add(ns), Ordering::Relaxed);
    }

    fn say(&self, line: &Said) {
        say(line);
    }

    fn remark(&self, text: &str) {
        output::line(format_args!("native: {text}"));
    }
}
