//! An end in time for control messages: a thread that cuts a conversation short.
//!
//! The crate's front-end reads an answer in a loop that takes a time-out of the socket for "try again", so a time-out of
//! the socket bounds nothing. What ends the loop is the end of the stream: when the time is over, this thread shuts the
//! socket's reading side down, and the front-end sees it end. Only if that does not help, because the front-end hangs in
//! sending, the writing side goes too.
//!
//! The difference matters: with one side shut the socket still tells when the back-end closes its end, which is the
//! proof that it let go of the memory. With both sides shut by ourselves it tells nothing any more ([`Outcome::Severed`]).
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a bounded conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// In time.
    InTime,
    /// Cut short; the socket still tells when the back-end closes.
    CutShort,
    /// Cut off; nothing more can be learned from the socket.
    Severed,
}

/// Where the conversation stands.
#[derive(Clone, Copy)]
enum Stage {
    /// There is none.
    Idle,
    /// It ends by itself before this moment, or is cut short.
    Running(Instant),
    /// It was cut short, and is cut off at this moment.
    CutShort(Instant),
    Severed,
    /// The connection is over.
    Over,
}

struct Shared {
    stage: Mutex<Stage>,
    change: Condvar,
}

impl Shared {
    /// No panic can leave a half-written stage, so a poisoned lock is as good as any.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) -> Stage {
        let before = std::mem::replace(&mut *self.stage(), stage);
        self.change.notify_one();
        before
    }
}

/// Bounds the conversations on one socket.
pub(super) struct Guard {
    shared: Arc<Shared>,
    bound: Duration,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// A guard over `socket` that gives each conversation `bound`.
    pub(super) fn new(socket: Arc<UnixStream>, bound: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { stage: Mutex::new(Stage::Idle), change: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("vhost-user guard".into());
        let thread = Some(thread.spawn(move || watch(&theirs, &socket, bound))?);
        Ok(Self { shared, bound, thread })
    }

    /// Runs a conversation; if it takes longer than the bound, its reads and writes fail.
    pub(super) fn bounded<R>(&self, conversation: impl FnOnce() -> R) -> (R, Outcome) {
        self.shared.enter(Stage::Running(Instant::now() + self.bound));
        let result = conversation();
        let outcome = match self.shared.enter(Stage::Idle) {
            Stage::CutShort(_) => Outcome::CutShort,
            Stage::Severed => Outcome::Severed,
            Stage::Idle | Stage::Running(_) | Stage::Over => Outcome::InTime,
        };
        (result, outcome)
    }

    /// What each conversation is given.
    pub(super) fn bound(&self) -> Duration {
        self.bound
    }
}

/// The thread.
fn watch(shared: &Shared, socket: &UnixStream, bound: Duration) {
    let mut stage = shared.stage();
    loop {
        let now = Instant::now();
        let end = match *stage {
            Stage::Over => return,
            Stage::Idle | Stage::Severed => {
                stage = shared.change.wait(stage).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            Stage::Running(end) if end <= now => {
                // Fails only when the other end is closed already, which ends the conversation as well.
                let _ = socket.shutdown(Shutdown::Read);
                *stage = Stage::CutShort(now + bound);
                continue;
            }
            Stage::CutShort(end) if end <= now => {
                let _ = socket.shutdown(Shutdown::Both);
                *stage = Stage::Severed;
                continue;
            }
            Stage::Running(end) | Stage::CutShort(end) => end,
        };
        stage = shared.change.wait_timeout(stage, end - now).unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.enter(Stage::Over);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
