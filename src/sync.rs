//! The one door to atomics: loom's under `--cfg loom`, counted ones in this crate's own tests, core's otherwise.
//!
//! Everything that costs a locked instruction or a full fence on the I/O path goes through [`full_fence`] or a `Word`
//! method, so that the tests can count them per I/O. Protocols here use full fences and never SeqCst *accesses*: loom
//! treats those as acquire/release, and a fence says which two accesses it orders.
#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Counts of what the I/O path spent; only this crate's tests see them.
#[cfg(all(test, not(loom)))]
pub(crate) mod spent {
    std::thread_local!(static COUNT: core::cell::Cell<u64> = const { core::cell::Cell::new(0) });

    pub(crate) fn one() {
        COUNT.with(|c| c.set(c.get() + 1));
    }

    /// What this thread spent since the last call.
    pub(crate) fn take() -> u64 {
        COUNT.with(core::cell::Cell::take)
    }
}

#[inline(always)]
fn count() {
    #[cfg(all(test, not(loom)))]
    spent::one();
}

/// A full fence: orders every earlier load and store before every later one, against the partner's own full fence.
#[inline(always)]
pub(crate) fn full_fence() {
    count();
    #[cfg(not(all(test, loom)))]
    core::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(all(test, loom))]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// A fence of `order` that costs no instruction on x86 and is not counted.
#[inline(always)]
pub(crate) fn light_fence(order: Ordering) {
    debug_assert!(!matches!(order, Ordering::SeqCst));
    #[cfg(not(all(test, loom)))]
    core::sync::atomic::fence(order);
    #[cfg(all(test, loom))]
    loom::sync::atomic::fence(order);
}

/// A flag whose read-modify-writes are counted.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new(value: bool) -> Self {
        Self(AtomicBool::new(value))
    }

    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    #[inline(always)]
    pub(crate) fn store(&self, value: bool, order: Ordering) {
        self.0.store(value, order);
    }

    /// Sets the flag if it is not set, and says whether that was so; leaves it untouched otherwise. Counted.
    #[inline(always)]
    pub(crate) fn raise(&self, order: Ordering) -> bool {
        count();
        self.0.compare_exchange(false, true, order, Ordering::Relaxed).is_ok()
    }

    /// Counted.
    #[inline(always)]
    pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
        count();
        self.0.swap(value, order)
    }
}

/// 64 bits whose read-modify-writes are counted.
pub(crate) struct Word(AtomicU64);

impl Word {
    pub(crate) fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    #[inline(always)]
    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    /// Counted.
    #[inline(always)]
    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        count();
        self.0.swap(value, order)
    }

    /// Counted.
    #[inline(always)]
    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        count();
        self.0.fetch_or(bits, order)
    }

    /// Counted.
    #[inline(always)]
    pub(crate) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        count();
        self.0.fetch_and(bits, order)
    }

    /// Counted.
    #[inline(always)]
    pub(crate) fn compare_exchange(&self, old: u64, new: u64, ok: Ordering, fail: Ordering) -> Result<u64, u64> {
        count();
        self.0.compare_exchange(old, new, ok, fail)
    }
}

/// A counter that one thread at a time adds to and anyone reads: two plain moves, no locked instruction. Nothing is
/// ordered by a counter, so loom does not see them.
#[derive(Default)]
pub(crate) struct Tally(core::sync::atomic::AtomicU64);

impl Tally {
    /// Adds; the caller is this counter's only writer at the time (the queue's owner, or the holder of the gate that
    /// guards it), so that nothing is lost between the load and the store.
    #[inline(always)]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Interior memory whose exclusive use is argued by a protocol; loom checks the argument.
pub(crate) struct Guarded<T>(
    #[cfg(not(all(test, loom)))] core::cell::UnsafeCell<T>,
    #[cfg(all(test, loom))] loom::cell::UnsafeCell<T>,
);

// SAFETY: the content is reached through `with` alone, whose contract is exclusive and ordered access; what may then
// cross threads is the content, hence `T: Send`.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        #[cfg(not(all(test, loom)))]
        return Self(core::cell::UnsafeCell::new(value));
        #[cfg(all(test, loom))]
        return Self(loom::cell::UnsafeCell::new(value));
    }

    /// The content, for as long as `f` runs.
    ///
    /// # Safety
    /// Nobody else touches the content meanwhile, and whoever did so before happens-before this call.
    #[inline(always)]
    pub(crate) unsafe fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(not(all(test, loom)))]
        {
            // SAFETY: exclusive for the duration by this function's contract; the pointer is the cell's own.
            f(unsafe { &mut *self.0.get() })
        }
        #[cfg(all(test, loom))]
        self.0.with_mut(|p| {
            // SAFETY: as above; loom fails the model if another thread's access is not ordered.
            f(unsafe { &mut *p })
        })
    }
}
