//! Work for other processors: a closure goes there, its result comes back, both sides halt while they wait.
//!
//! One job at a time per processor, run with interrupts on until it is done or killed ([`super::kill`](mod@super::kill)). The idle loop
//! and the joiner sleep through [`irq::halt_until`]; each side makes its change visible first and then calls
//! [`irq::wake`].

use super::kill::{self, Shelter};
use super::lock::Mutex;
use super::{CpuId, MAX_CPUS, PerCpu, current};
use crate::irq;
use crate::timer::NEVER;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

type Work = Box<dyn FnOnce(&Mailbox) + Send>;

static MAILBOXES: [Mailbox; MAX_CPUS] = [const { Mailbox::new() }; MAX_CPUS];

/// Where a processor finds its next job.
struct Mailbox {
    work: Mutex<Option<Work>>,
    /// From posting to the end; at most one job is under way.
    busy: AtomicBool,
    /// Whom to tell if the job is killed.
    mourner: Mutex<Option<Arc<dyn Mourner>>>,
}

impl Mailbox {
    const fn new() -> Self {
        Self { work: Mutex::new(None), busy: AtomicBool::new(false), mourner: Mutex::new(None) }
    }

    fn of(cpu: CpuId) -> &'static Self {
        &MAILBOXES[cpu.index()]
    }
}

/// [`Outcome`], whatever the result's type.
trait Mourner: Send + Sync {
    fn mourn(&self);
}

const UNDER_WAY: u8 = 0;
const DONE: u8 = 1;
const KILLED: u8 = 2;

/// What both sides of a job share.
struct Outcome<T> {
    value: Mutex<Option<T>>,
    /// Changes once.
    state: AtomicU8,
}

impl<T> Outcome<T> {
    fn complete(&self, value: T) {
        *self.value.lock() = Some(value);
        self.state.store(DONE, Ordering::Release);
    }
}

impl<T: Send> Mourner for Outcome<T> {
    fn mourn(&self) {
        self.state.store(KILLED, Ordering::Release);
    }
}

/// Work under way on another processor. Dropping it leaves the work running.
#[must_use = "a job that nobody joins may still run when the scenario ends"]
pub struct Job<T> {
    outcome: Arc<Outcome<T>>,
    cpu: CpuId,
    /// Its number on that processor.
    number: u64,
}

impl<T> Job<T> {
    /// Whether it is done or killed.
    pub fn is_over(&self) -> bool {
        self.outcome.state.load(Ordering::Acquire) != UNDER_WAY
    }

    /// Halts until the work is done and returns its result. [`crate::watchdog`] bounds the wait.
    ///
    /// # Panics
    /// If the job is killed.
    pub fn join(self) -> T {
        self.outcome().expect("a job that nobody kills leaves its result")
    }

    /// Halts until the work is over and returns its result, or nothing if it was killed.
    pub fn outcome(self) -> Option<T> {
        irq::halt_until(NEVER, || self.is_over());
        self.outcome.value.lock().take()
    }

    /// Kills it and halts until the processor is free; returns the result if it was done first.
    pub fn kill(self) -> Option<T> {
        if !self.is_over() {
            kill::condemn(self.cpu, self.number);
        }
        self.outcome()
    }
}

/// Starts `work` on `cpu`; on the calling processor it runs at once, before `start` returns.
///
/// # Panics
/// If `cpu` still has a job: two threads on one processor cannot wait for each other.
pub fn start<T: Send + 'static>(cpu: CpuId, work: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    let outcome = Arc::new(Outcome { value: Mutex::new(None), state: AtomicU8::new(UNDER_WAY) });
    let joiner = current();
    let number = if cpu == joiner {
        outcome.complete(work());
        0
    } else {
        let mourner = Arc::clone(&outcome);
        let outcome = Arc::clone(&outcome);
        post(cpu, mourner, move |mailbox| {
            let value = work();
            mailbox.mourner.lock().take();
            // Before the joiner knows, so that it can post the next job at once.
            mailbox.busy.store(false, Ordering::Release);
            outcome.complete(value);
            irq::wake(joiner);
        })
    };
    Job { outcome, cpu, number }
}

/// Runs `work` on `cpu` and returns its result; the calling processor halts meanwhile.
pub fn run_on<T: Send + 'static>(cpu: CpuId, work: impl FnOnce() -> T + Send + 'static) -> T {
    start(cpu, work).join()
}

/// Returns the job's number on `cpu`.
fn post(cpu: CpuId, mourner: Arc<dyn Mourner>, work: impl FnOnce(&Mailbox) + Send + 'static) -> u64 {
    // Half a post would leave the processor busy with nothing.
    let _shelter = Shelter::enter();
    let mailbox = Mailbox::of(cpu);
    let was_busy = mailbox.busy.swap(true, Ordering::Acquire);
    assert!(!was_busy, "{cpu} already has a job");
    // Before the work, whose lock makes both visible to the processor.
    let number = PerCpu::of(cpu).job.fetch_add(1, Ordering::Relaxed) + 1;
    *mailbox.mourner.lock() = Some(mourner);
    *mailbox.work.lock() = Some(Box::new(work));
    irq::wake(cpu);
    number
}

/// Ends the calling processor's job, which was killed: the mailbox is free, then `count` counts, then the joiner knows.
pub(super) fn bury(count: impl FnOnce()) {
    let mailbox = Mailbox::of(current());
    let mourner = mailbox.mourner.lock().take();
    mailbox.busy.store(false, Ordering::Release);
    count();
    if let Some(mourner) = mourner {
        mourner.mourn();
    }
}

/// The life of an application processor: halt, work, halt.
pub(super) fn serve() -> ! {
    let mailbox = Mailbox::of(current());
    loop {
        let mut work = None;
        irq::halt_until(NEVER, || {
            work = mailbox.work.lock().take();
            work.is_some()
        });
        if let Some(work) = work {
            work(mailbox);
        }
    }
}
