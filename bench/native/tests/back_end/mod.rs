//! Back-ends to test against, a real one and a scripted one, and the memory and queues that every test needs.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(missing_docs, unreachable_pub, reason = "a helper of tests, which nothing else can reach")]
pub mod ground;
pub mod qsd;
pub mod script;

use std::sync::mpsc;
use std::time::Duration;

/// Runs a test that must come to an end: one that hangs fails instead. The limit is far above anything that is measured.
pub fn ends<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = send.send(test());
    });
    match receive.recv_timeout(Duration::from_mins(2)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(why) => std::panic::resume_unwind(why),
            Ok(()) => unreachable!("a test that ends answers"),
        },
    }
}
