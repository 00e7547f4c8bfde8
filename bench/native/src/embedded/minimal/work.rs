//! Who works on which queue, and when they let go.
//!
//! Each queue has a gate. A thread of the device holds its queues' gates for as long as nothing changes and looks at one
//! word on every pass; whatever changes (a queue, start, halt, stop) moves that word. It knows nothing of rings.
//!
//! Invariant: a queue is touched by the holder of its gate only, and only while the device runs; so once every gate was
//! entered after a halt and found or left empty, nobody touches the driver's memory.
use super::{Device, Notify, Queue};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

/// An eventfd to be kicked with.
pub(super) fn kick() -> io::Result<OwnedFd> {
    let made = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    Ok(made.into())
}

/// The gates of a device's queues.
pub(super) struct Gates {
    queues: Box<[Mutex<Option<Queue>>]>,
    running: AtomicBool,
    /// Moves with every change; on a line that is otherwise only read.
    epoch: AtomicU32,
    changing: Mutex<()>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gates {
    pub(super) fn new(queues: usize) -> Self {
        Self {
            queues: (0..queues).map(|_| Mutex::new(None)).collect(),
            running: AtomicBool::new(false),
            epoch: AtomicU32::new(0),
            changing: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// A gate without a queue is never held for long.
    pub(super) fn put(&self, index: usize, queue: Queue) {
        *lock(&self.queues[index]) = Some(queue);
    }

    pub(super) fn run(&self, running: bool) {
        self.running.store(running, Ordering::Release);
    }

    /// Enters every gate that is not held and takes its queue away; true: that was all of them. Entering a gate is what
    /// makes visible what its last holder stored.
    pub(super) fn take_all(&self) -> bool {
        let mut all = true;
        for gate in &self.queues {
            match gate.try_lock() {
                Ok(mut queue) => drop(queue.take()),
                Err(TryLockError::Poisoned(gate)) => drop(gate.into_inner().take()),
                Err(TryLockError::WouldBlock) => all = false,
            }
        }
        all
    }

    fn enter(&self, index: usize) -> Option<QueueGuard<'_>> {
        let gate = lock(self.queues.get(index)?);
        (gate.is_some() && self.running.load(Ordering::Acquire)).then_some(QueueGuard(gate))
    }

    fn change(&self) {
        let _changing = lock(&self.changing);
        self.epoch.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
    }

    fn wait_for_change(&self, epoch: u32, stop: &AtomicBool) {
        let mut changing = lock(&self.changing);
        while self.epoch.load(Ordering::Acquire) == epoch && !stop.load(Ordering::Acquire) {
            changing = self.changed.wait(changing).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A queue that its holder may step as long as it likes; a reset waits for it.
pub struct QueueGuard<'d>(MutexGuard<'d, Option<Queue>>);

impl Deref for QueueGuard<'_> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        self.0.as_ref().expect("a guard is made for a queue that is there, and holds its gate")
    }
}

impl DerefMut for QueueGuard<'_> {
    fn deref_mut(&mut self) -> &mut Queue {
        self.0.as_mut().expect("a guard is made for a queue that is there, and holds its gate")
    }
}

/// A thread that works on queues until it is dropped.
pub struct Worker {
    device: Device,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.device.nudge();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries out what is available on one queue.
#[inline(never)]
fn embedded_device_step_locked(device: &Device, index: usize) -> usize {
    device.shared.gates.enter(index).map_or(0, |mut queue| queue.step())
}

/// Binds the calling thread to a core.
fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

impl Device {
    /// Carries out what is available on queue `index` in the calling thread; 0 if it does not run.
    pub fn step(&self, index: usize) -> usize {
        embedded_device_step_locked(self, index)
    }

    /// Takes hold of queue `index` for the calling thread; `None` if it does not run. Waits while another thread holds
    /// it.
    pub fn queue(&self, index: usize) -> Option<QueueGuard<'_>> {
        self.shared.gates.enter(index)
    }

    /// Has whoever works on queues look at what changed: to be called after the `stop` of [`Device::run`] was set.
    pub fn nudge(&self) {
        self.shared.gates.change();
        for kick in &self.shared.kicks {
            super::signal(kick);
        }
    }

    /// Works on `queues` in the calling thread until `stop` is set, through resets and restarts. It spins, or sleeps
    /// between kicks, as the device's options say; it sleeps while there is no queue to work on.
    pub fn run(&self, queues: &[usize], stop: &AtomicBool) {
        let gates = &self.shared.gates;
        while !stop.load(Ordering::Acquire) {
            let epoch = gates.epoch.load(Ordering::Acquire);
            let held: Vec<_> = queues.iter().filter_map(|index| gates.enter(*index)).collect();
            let stay = || gates.epoch.load(Ordering::Relaxed) == epoch && !stop.load(Ordering::Relaxed);
            match (held.is_empty(), self.options().notify) {
                (true, _) => gates.wait_for_change(epoch, stop),
                (false, Notify::Never) => spin(held, stay),
                (false, Notify::WhenIdle) => self.serve(queues, held, stay),
            }
        }
    }

    /// Works until there is nothing to do, asks to be kicked, sleeps.
    fn serve(&self, queues: &[usize], mut held: Vec<QueueGuard<'_>>, stay: impl Fn() -> bool) {
        let kicks: Vec<_> = queues.iter().filter_map(|index| self.shared.kicks.get(*index)).collect();
        let mut fds: Vec<_> = kicks.iter().map(|kick| PollFd::new(kick.as_fd(), PollFlags::POLLIN)).collect();
        while stay() {
            while held.iter_mut().map(|queue| queue.step()).sum::<usize>() > 0 {}
            let mut more = false;
            for queue in &mut held {
                more |= queue.arm();
            }
            // A change that comes after this look kicks too, and a kick stays until it is taken.
            if !more && stay() {
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            for kick in &kicks {
                let _ = nix::unistd::read(kick, &mut [0; 8]);
            }
            for queue in &mut held {
                queue.disarm();
            }
        }
    }

    /// A thread that works on `queues` ([`Device::run`]), bound to `core` if there is one, until the handle is dropped.
    ///
    /// # Errors
    /// When the thread cannot be made or bound.
    pub fn spawn(&self, queues: Vec<usize>, core: Option<usize>) -> io::Result<Worker> {
        let (device, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let (inside, stopped) = (device.clone(), stop.clone());
        let (report, bound) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("embedded-device".into()).spawn(move || {
            let outcome = core.map_or(Ok(()), pin);
            let good = outcome.is_ok();
            let _ = report.send(outcome);
            if good {
                inside.run(&queues, &stopped);
            }
        })?;
        let worker = Worker { device, stop, thread: Some(thread) };
        bound.recv().map_err(io::Error::other)??;
        Ok(worker)
    }
}

/// Steps the queues in turn for as long as nothing changes.
fn spin(mut held: Vec<QueueGuard<'_>>, stay: impl Fn() -> bool) {
    if let [queue] = &mut held[..] {
        let queue: &mut Queue = queue;
        while stay() {
            queue.step();
        }
        return;
    }
    while stay() {
        for queue in &mut held {
            queue.step();
        }
    }
}
