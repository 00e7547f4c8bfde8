//! The driver's endpoint and what is seen of it from outside: words that outlive it, in whatever state it left them.
//!
//! One call at a time. What comes with a call (rings, memory) is named by its client's number: blockd keeps it for every
//! life. Nothing here is trusted by the next life but what blockd itself wrote.
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use drv_virtio_block::lib_block::message::{Answer, BYTES, Body, Call, Given, SessionId};

/// Words of a message.
const WORDS: usize = BYTES / 8;
/// The number of no client.
const NOBODY: u64 = u64::MAX;

/// What a life is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing yet.
    Begun,
    /// The device's reset and bring-up.
    Starting,
    /// Another call: opening sessions.
    Answering,
    /// A pass over the queues.
    Passing,
    /// Arming, asleep or looking at what woke it.
    Waiting,
}

impl Phase {
    /// In words.
    pub(super) const NAMES: [&str; 5] = ["begun", "starting", "answering", "passing", "waiting"];
}

/// A message in memory that both sides have.
struct Message([AtomicU64; WORDS]);

impl Message {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Relaxed: the count that follows releases it.
    fn store(&self, bytes: &[u8; BYTES]) {
        for (word, bytes) in self.0.iter().zip(bytes.chunks_exact(8)) {
            word.store(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), Ordering::Relaxed);
        }
    }

    /// Relaxed: the count that came before acquired it.
    fn load(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(&self.0) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        bytes
    }
}

/// See the module's text.
pub(super) struct Port {
    call: Message,
    beside: AtomicU64,
    answer: Message,
    /// Calls so far; blockd counts.
    asked: AtomicU64,
    /// Calls that were answered; the driver counts.
    answered: AtomicU64,
    dismissed: AtomicBool,
    phase: AtomicU64,
    completed: AtomicU64,
}

impl Port {
    pub(super) const fn new() -> Self {
        Self {
            call: Message::new(),
            beside: AtomicU64::new(NOBODY),
            answer: Message::new(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            dismissed: AtomicBool::new(false),
            phase: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        }
    }

    /// blockd's: as it was, once nobody is on the other side.
    pub(super) fn clear(&self) {
        self.answered.store(self.asked.load(Ordering::Relaxed), Ordering::Relaxed);
        self.dismissed.store(false, Ordering::Relaxed);
        self.phase.store(Phase::Begun as u64, Ordering::Relaxed);
        self.completed.store(0, Ordering::Relaxed);
    }

    /// blockd's: asks, with what client `beside` has. The bell is the caller's to ring.
    pub(super) fn ask(&self, body: Body, beside: Option<u16>) {
        let cookie = self.asked.load(Ordering::Relaxed) + 1;
        self.call.store(&Call { session: SessionId::default(), cookie, body }.encode());
        self.beside.store(beside.map_or(NOBODY, u64::from), Ordering::Relaxed);
        // Release: pairs with the acquire in `serve`; the call comes before its count.
        self.asked.store(cookie, Ordering::Release);
    }

    /// blockd's: what was answered, if it was.
    pub(super) fn answer(&self) -> Option<Result<Given, String>> {
        let cookie = self.asked.load(Ordering::Relaxed);
        // Acquire: pairs with the release in `serve`.
        if self.answered.load(Ordering::Acquire) != cookie {
            return None;
        }
        Some(match Answer::decode(&self.answer.load()) {
            Ok(Answer { cookie: of, result: Ok(given) }) if of == cookie => Ok(given),
            Ok(Answer { result: Err(why), .. }) => Err(format!("a call was answered: {why}")),
            other => Err(format!("a call was answered with {other:?}")),
        })
    }

    /// blockd's: asks the driver to return. The bell is the caller's to ring.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
    }

    /// The driver's: whether it is to return.
    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// The driver's: answers the call, if there is one.
    pub(super) fn serve(&self, handle: impl FnOnce(&[u8; BYTES], Option<usize>) -> [u8; BYTES]) {
        // Acquire: pairs with the release in `ask`.
        let asked = self.asked.load(Ordering::Acquire);
        if asked == self.answered.load(Ordering::Relaxed) {
            return;
        }
        let call = self.call.load();
        let starts = Call::decode(&call).is_ok_and(|call| call.body == Body::Start);
        self.enter(if starts { Phase::Starting } else { Phase::Answering });
        let beside = usize::try_from(self.beside.load(Ordering::Relaxed)).ok();
        self.answer.store(&handle(&call, beside));
        // Release: pairs with the acquire in `answer`.
        self.answered.store(asked, Ordering::Release);
    }

    /// The driver's: says what it is at.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u64, Ordering::Relaxed);
    }

    /// What it is at, or was when it died.
    pub(super) fn phase(&self) -> usize {
        self.phase.load(Ordering::Relaxed) as usize
    }

    /// The driver's: counts requests that the device answered.
    pub(super) fn count(&self, completed: usize) {
        let before = self.completed.load(Ordering::Relaxed);
        self.completed.store(before + completed as u64, Ordering::Relaxed);
    }

    /// How many requests were answered in this life.
    pub(super) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }
}
