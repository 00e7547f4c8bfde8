//! The client library: a session's requests over its rings, without the driver, without allocation, without threads.
//!
//! | Module | What |
//! |---|---|
//! | [`buffer`] | what memory a request may name, and who touches it when |
//! | [`request`] | what can be asked, what comes back, why not |
//! | [`session`] | [`Client`]: tags, checks, restart |
//! | [`sync`] | one request at a time, waiting for each |
//! | [`asynchronous`] | futures, for any executor of one thread |
//! | [`pool`] | registered memory cut into pages |
//!
//! It knows no doorbells (the caller rings what [`Client::publish`] asks for), no calls (sessions are opened and memory
//! is registered before), and not what the blocks hold.
//!
//! States of a request: 1. *free*: its tag belongs to nobody; 2. *staged*: the tag holds request and buffer, the
//! server does not know it; 3. *in flight*: published; the buffer belongs to the server; 4. *lost*: unanswered by a
//! server that is gone: the buffer belongs to nobody that runs, and comes back or goes to the next server.
//!
//! Invariants: a buffer leaves its tag once, with a checked completion, or after the server announced that no device
//! touches it any more. What the server writes is never an index unmasked; a contradiction ends belief in it, not the
//! client.
pub mod asynchronous;
pub mod buffer;
mod check;
pub mod pool;
pub mod request;
mod restart;
pub mod session;
pub mod sync;

pub use buffer::{ServerReadable, ServerWritable, SharedBuffer};
pub use request::{Completion, Refused, Request, Tag, Why};
pub use session::{Client, Fault, Replay, Resumed, Standing};
