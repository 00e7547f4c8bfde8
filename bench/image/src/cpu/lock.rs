//! The lock of the nucleus: a spin lock that nobody is killed with.
//!
//! Holding it is a shelter ([`super::kill`](mod@super::kill)), so a job that is abandoned has left every lock behind it unlocked and
//! what it guards whole. The locks of a job's own are its own affair.

use super::kill::{enter, leave};
use talc::lock_api::{self, GuardNoSend, RawMutex};

/// A value behind a spin lock.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;

/// The lock without a value.
pub struct RawLock(spin::Mutex<()>);

// SAFETY: `spin` keeps holders apart; the shelter is entered before it is asked and left after it is free again. Guards
// cannot move to another processor, whose shelter would be left instead.
unsafe impl RawMutex for RawLock {
    const INIT: Self = Self(spin::Mutex::new(()));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        enter();
        RawMutex::lock(&self.0);
    }

    fn try_lock(&self) -> bool {
        enter();
        let locked = RawMutex::try_lock(&self.0);
        if !locked {
            leave();
        }
        locked
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { RawMutex::unlock(&self.0) };
        leave();
    }

    fn is_locked(&self) -> bool {
        RawMutex::is_locked(&self.0)
    }
}
