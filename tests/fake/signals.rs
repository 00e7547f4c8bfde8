//! Doorbells and interrupts: counted, awaited, and kept apart from the device's lock.
use super::FakeDevice;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Callback = Arc<dyn Fn(u16) + Send + Sync>;

/// What passes between the two sides besides memory.
pub(super) struct Signals {
    /// Copies of register state, for a doorbell that does not take the device's lock.
    hears: AtomicBool,
    enabled: AtomicU64,
    doorbells: Mutex<Doorbells>,
    rung: Condvar,
    interrupts: Mutex<Interrupts>,
    arrived: Condvar,
    callback: Mutex<Option<Callback>>,
}

/// Doorbells per queue, and calls to look without one.
struct Doorbells {
    counts: Vec<u64>,
    nudges: u64,
}

impl Doorbells {
    fn all(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.nudges
    }
}

#[derive(Default)]
struct Interrupts {
    sent: HashMap<u16, u64>,
    taken: HashMap<u16, u64>,
    list: Vec<u16>,
}

impl Interrupts {
    fn waiting(&self, vector: u16) -> bool {
        self.sent.get(&vector).copied().unwrap_or(0) > self.taken.get(&vector).copied().unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    pub(super) fn new(queues: usize) -> Self {
        Self {
            hears: AtomicBool::new(false),
            enabled: AtomicU64::new(0),
            doorbells: Mutex::new(Doorbells { counts: vec![0; queues], nudges: 0 }),
            rung: Condvar::new(),
            interrupts: Mutex::default(),
            arrived: Condvar::new(),
            callback: Mutex::default(),
        }
    }

    pub(super) fn mirror(&self, hears: bool, enabled: u64) {
        self.hears.store(hears, Ordering::Relaxed);
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    pub(super) fn enabled(&self, queue: u16) -> bool {
        queue < 64 && self.enabled.load(Ordering::Relaxed) >> queue & 1 == 1
    }

    pub(super) fn ring(&self, queue: u16) {
        lock(&self.doorbells).counts[usize::from(queue)] += 1;
        self.rung.notify_all();
    }

    pub(super) fn doorbells(&self, queue: u16) -> u64 {
        lock(&self.doorbells).counts[usize::from(queue)]
    }

    /// Doorbells of all queues, and nudges.
    pub(super) fn all_doorbells(&self) -> u64 {
        lock(&self.doorbells).all()
    }

    /// Sleeps until there were more than `seen` doorbells and nudges; false when the time is up.
    pub(super) fn await_doorbell(&self, seen: u64, patience: Duration) -> bool {
        let quiet = |bells: &mut Doorbells| bells.all() == seen;
        let waited = self.rung.wait_timeout_while(lock(&self.doorbells), patience, quiet);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Wakes whoever waits for a doorbell, for good, without one.
    pub(super) fn nudge(&self) {
        lock(&self.doorbells).nudges += 1;
        self.rung.notify_all();
    }

    /// Counts and lists interrupts, wakes waiters, calls back; the device's lock is not held.
    pub(super) fn deliver(&self, vectors: &[u16]) {
        if vectors.is_empty() {
            return;
        }
        let mut interrupts = lock(&self.interrupts);
        for vector in vectors {
            *interrupts.sent.entry(*vector).or_default() += 1;
            interrupts.list.push(*vector);
        }
        drop(interrupts);
        self.arrived.notify_all();
        let callback = lock(&self.callback).clone();
        if let Some(callback) = callback {
            for vector in vectors {
                callback(*vector);
            }
        }
    }
}

/// Interrupts, as the test or the driver's platform sees them.
impl FakeDevice {
    /// Interrupts sent on `vector` since power-on.
    pub(crate) fn interrupts_sent(&self, vector: u16) -> u64 {
        lock(&self.shared.signals.interrupts).sent.get(&vector).copied().unwrap_or(0)
    }

    /// The vectors of all interrupts since the last call, oldest first.
    pub(crate) fn take_interrupts(&self) -> Vec<u16> {
        std::mem::take(&mut lock(&self.shared.signals.interrupts).list)
    }

    /// Calls `callback` with the vector of each interrupt from now on, on the thread that made the device send it and
    /// without the device's lock.
    pub(crate) fn on_interrupt(&self, callback: impl Fn(u16) + Send + Sync + 'static) {
        *lock(&self.shared.signals.callback) = Some(Arc::new(callback));
    }

    /// Sleeps until an interrupt comes on `vector` that no earlier call has answered to; several that came meanwhile
    /// count as one. False when the time is up.
    pub(crate) fn wait_interrupt(&self, vector: u16, patience: Duration) -> bool {
        let signals = &self.shared.signals;
        let until = Instant::now() + patience;
        let mut interrupts = lock(&signals.interrupts);
        while !interrupts.waiting(vector) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            interrupts = signals.arrived.wait_timeout(interrupts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let sent = interrupts.sent.get(&vector).copied().unwrap_or(0);
        interrupts.taken.insert(vector, sent);
        true
    }
}
