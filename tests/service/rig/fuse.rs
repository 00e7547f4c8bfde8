//! What ends a life: a count of steps that the driver takes where others can see it, at whose end the thread unwinds.
//!
//! A kill abandons the stack. Unwinding runs destructors besides, and of those on the driver's stack one has an effect:
//! a batch that was begun is published. Where that differs it is a kill a moment later. The service itself is forgotten
//! by the test, and nothing of it is dropped.
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a killed driver unwinds with.
pub(crate) struct Killed;

/// Steps left, and steps taken.
#[derive(Clone)]
pub(crate) struct Fuse(Arc<[AtomicU64; 2]>);

impl Default for Fuse {
    fn default() -> Self {
        Self(Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(0)]))
    }
}

impl Fuse {
    /// Lets `steps` pass, and the next one not. Counts anew.
    pub(crate) fn set(&self, steps: u64) {
        self.0[0].store(steps, Ordering::Relaxed);
        self.0[1].store(0, Ordering::Relaxed);
    }

    /// Steps taken since it was set.
    pub(crate) fn burnt(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }

    /// A step begins.
    pub(crate) fn tick(&self) {
        if std::thread::panicking() {
            return;
        }
        self.0[1].fetch_add(1, Ordering::Relaxed);
        match self.0[0].load(Ordering::Relaxed) {
            u64::MAX => {}
            0 => {
                self.0[0].store(u64::MAX, Ordering::Relaxed);
                // Not a panic that anybody is told of.
                resume_unwind(Box::new(Killed));
            }
            left => self.0[0].store(left - 1, Ordering::Relaxed),
        }
    }
}
