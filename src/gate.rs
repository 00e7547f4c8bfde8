//! One at a time without waiting: whoever finds the gate held goes on with something else.
//!
//! Two kinds, for sections that any of many threads may do on behalf of all. [`Gate`] guards publishing: a thread that
//! cannot enter has made its work visible (staged bits), leaves word and goes; the holder looks before it is gone.
//! [`Turn`] guards draining: a thread that cannot enter leaves nothing behind, since it does not sleep before it was
//! inside and looked ([`crate::queue::Submitter::arm`]). Neither knows what it guards.
//!
//! Invariants:
//! - at most one thread is between an `enter`/`insist` that returned true and the next `leave`, and sees what the one
//!   before it did there;
//! - a thread whose `insist` returned false knows that a `leave` which starts later returns true, to its holder.
//!
//! Why two full fences: the loser stores its mark and then reads `held`; the holder clears `held` and then reads the
//! mark. That is store buffering; with acquire and release alone both may read the old value and the mark is lost
//! (the models fail without either fence). A holder that is preempted delays what was left with it; nobody spins.
use crate::sync::{Flag, Ordering, full_fence};

/// The gate. Two words, meant to sit on a cache line of their own.
pub(crate) struct Gate {
    held: Flag,
    asked: Flag,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { held: Flag::new(false), asked: Flag::new(false) }
    }

    /// Tries to become the holder: one locked instruction, none when it is visibly held.
    #[inline(always)]
    pub(crate) fn enter(&self) -> bool {
        // Acquire: pairs with the release in `leave`; what the last holder did to the guarded state is visible.
        !self.held.load(Ordering::Relaxed) && self.held.raise(Ordering::Acquire)
    }

    /// Leaves word for the holder, then tries once more. False: the holder will see the word.
    pub(crate) fn insist(&self) -> bool {
        // Release: what this thread made visible before is seen by the holder whose `answer` reads this word. A swap,
        // not a store: a store would cut off the word that it overwrites, whose author the holder would not see.
        self.asked.swap(true, Ordering::Release);
        // Partner: the fence in `leave`. Either this thread's look at `held` follows the holder's clearing of it, or
        // the holder's look at `asked` follows the store above.
        full_fence();
        self.enter()
    }

    /// Holder only: takes the words left so far. True: something may be waiting that was not when it entered.
    #[inline(always)]
    pub(crate) fn answer(&self) -> bool {
        // A swap, not a store: it reads the latest word, so that one left between look and store is not overwritten
        // unread. Acquire: pairs with the release in `insist`.
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Acquire)
    }

    /// Holder only: gives the gate back, with a full fence that also orders everything the holder stored before
    /// everything it loads afterwards. True: word was left; the caller tries to `enter` again and, if it cannot,
    /// somebody else has.
    #[inline(always)]
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        // Release: pairs with the acquire in `enter`.
        self.held.store(false, Ordering::Release);
        // Partner: the fence in `insist`.
        full_fence();
        self.asked.load(Ordering::Relaxed)
    }
}

/// A gate at which no word is left: one locked instruction to enter, none to leave.
pub(crate) struct Turn {
    held: Flag,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self { held: Flag::new(false) }
    }

    /// Tries to become the holder: one locked instruction, none when it is visibly held.
    #[inline(always)]
    #[must_use]
    pub(crate) fn enter(&self) -> bool {
        // Acquire: pairs with the release in `leave`.
        !self.held.load(Ordering::Relaxed) && self.held.raise(Ordering::Acquire)
    }

    /// Holder only: gives the turn back.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        // Release: pairs with the acquire in `enter`.
        self.held.store(false, Ordering::Release);
    }
}
