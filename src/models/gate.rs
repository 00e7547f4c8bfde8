//! The gate alone: a word that is left at it is never lost, and what it guards is touched by one thread at a time.
use super::explore;
use crate::gate::Gate;
use crate::sync::{AtomicU32, Guarded, Ordering};
use loom::thread;
use std::sync::Arc;

/// Letters that any thread may carry away for all: the pattern of publishing and of draining.
struct Post {
    gate: Gate,
    /// What a thread leaves for the holder. Relaxed: the gate alone makes it visible.
    left: [AtomicU32; 3],
    carried: Guarded<u32>,
}

impl Post {
    fn new() -> Arc<Self> {
        Arc::new(Self { gate: Gate::new(), left: Default::default(), carried: Guarded::new(0) })
    }

    fn send(&self, who: usize) {
        if self.gate.enter() {
            return self.carry(1 << who);
        }
        self.left[who].store(1, Ordering::Relaxed);
        if self.gate.insist() {
            self.carry(0);
        }
    }

    fn carry(&self, mut own: u32) {
        loop {
            // SAFETY: this thread holds the gate; loom fails the model if the gate does not order the holders.
            unsafe { self.carried.with(|carried| *carried |= own | self.collect()) };
            if !(self.gate.leave() && self.gate.enter()) {
                return;
            }
            own = 0;
        }
    }

    fn collect(&self) -> u32 {
        if !self.gate.answer() {
            return 0;
        }
        (0..3).filter(|who| self.left[*who].load(Ordering::Relaxed) == 1).map(|who| 1 << who).sum()
    }

    fn carried(&self) -> u32 {
        // SAFETY: every other thread is joined.
        unsafe { self.carried.with(|carried| *carried) }
    }
}

/// Fails without: the fence in `leave`, the fence in `insist`, the release and the acquire of `leave` and `enter`, those
/// of `insist` and `answer`.
#[test]
fn a_word_left_at_the_gate_is_seen_by_the_holder_or_its_author_enters() {
    explore(6, || {
        let post = Post::new();
        let other = post.clone();
        let second = thread::spawn(move || other.send(1));
        post.send(0);
        second.join().unwrap();
        assert_eq!(post.carried(), 0b11);
    });
}

/// Fails without: the read-modify-write in `insist` (of two words the holder would see the last one's author only), the
/// one in `answer`.
#[test]
fn of_two_words_left_at_the_gate_neither_is_lost() {
    explore(3, || {
        let post = Post::new();
        let threads = [1, 2].map(|who| {
            let post = post.clone();
            thread::spawn(move || post.send(who))
        });
        post.send(0);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(post.carried(), 0b111);
    });
}
