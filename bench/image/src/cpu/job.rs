//! Work for other processors: a closure goes there, its result comes back, both sides halt while they wait.
//!
//! One job at a time per processor, run to completion with interrupts on. The idle loop and the joiner sleep through
//! [`irq::halt_until`]; each side makes its change visible first and then calls [`irq::wake`].

use super::{CpuId, MAX_CPUS, current};
use crate::irq;
use crate::timer::NEVER;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;

type Work = Box<dyn FnOnce(&Mailbox) + Send>;

static MAILBOXES: [Mailbox; MAX_CPUS] = [const { Mailbox::new() }; MAX_CPUS];

/// Where a processor finds its next job.
struct Mailbox {
    work: Mutex<Option<Work>>,
    /// From posting to completion; at most one job is under way.
    busy: AtomicBool,
}

impl Mailbox {
    const fn new() -> Self {
        Self { work: Mutex::new(None), busy: AtomicBool::new(false) }
    }

    fn of(cpu: CpuId) -> &'static Self {
        &MAILBOXES[cpu.index()]
    }
}

/// What both sides of a job share.
struct Outcome<T> {
    value: Mutex<Option<T>>,
    done: AtomicBool,
}

impl<T> Outcome<T> {
    fn complete(&self, value: T) {
        *self.value.lock() = Some(value);
        self.done.store(true, Ordering::Release);
    }
}

/// Work under way on another processor. Dropping it leaves the work running.
#[must_use = "a job that nobody joins may still run when the scenario ends"]
pub struct Job<T> {
    outcome: Arc<Outcome<T>>,
}

impl<T> Job<T> {
    /// Whether the result is there.
    pub fn is_done(&self) -> bool {
        self.outcome.done.load(Ordering::Acquire)
    }

    /// Halts until the work is done and returns its result. [`crate::watchdog`] bounds the wait.
    pub fn join(self) -> T {
        irq::halt_until(NEVER, || self.is_done());
        self.outcome.value.lock().take().expect("a finished job left its result")
    }
}

/// Starts `work` on `cpu`; on the calling processor it runs at once, before `start` returns.
///
/// # Panics
/// If `cpu` still has a job: two threads on one processor cannot wait for each other.
pub fn start<T: Send + 'static>(cpu: CpuId, work: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    let outcome = Arc::new(Outcome { value: Mutex::new(None), done: AtomicBool::new(false) });
    let joiner = current();
    if cpu == joiner {
        outcome.complete(work());
    } else {
        let outcome = Arc::clone(&outcome);
        post(cpu, move |mailbox| {
            let value = work();
            // Before the joiner knows, so that it can post the next job at once.
            mailbox.busy.store(false, Ordering::Release);
            outcome.complete(value);
            irq::wake(joiner);
        });
    }
    Job { outcome }
}

/// Runs `work` on `cpu` and returns its result; the calling processor halts meanwhile.
pub fn run_on<T: Send + 'static>(cpu: CpuId, work: impl FnOnce() -> T + Send + 'static) -> T {
    start(cpu, work).join()
}

fn post(cpu: CpuId, work: impl FnOnce(&Mailbox) + Send + 'static) {
    let mailbox = Mailbox::of(cpu);
    let was_busy = mailbox.busy.swap(true, Ordering::Acquire);
    assert!(!was_busy, "{cpu} already has a job");
    *mailbox.work.lock() = Some(Box::new(work));
    irq::wake(cpu);
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
