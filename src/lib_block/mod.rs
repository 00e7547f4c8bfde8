//! lib-block: what the driver, blockd and its clients say to one another.
//!
//! ```text
//! client  -- submission entries -->  front end -- requests --> queue        (shared-memory rings, one per client and queue)
//!         <-- completion entries --            <-- completions --
//! blockd  -- 128-byte message, a capability beside it -->  front end        (calls: open, register, get info, read ...)
//! ```
//! Bulk data never passes through here: a request names memory that was registered once. Three layers, each of which
//! knows only those above it in this list:
//! 1. [`status`], [`entry`], [`message`]: bytes and their meaning; fixed sizes, little-endian, versioned. Decoding looks
//!    at everything first, and the same bytes give the same result.
//! 2. [`ring`]: two index pairs and two entry tables in memory that both sides map; neither believes the other.
//! 3. [`client`] on one side, `front_end` on the other (feature `driver`).
//!
//! Everything but the front end builds without the feature `driver`, for a client that has no driver in it.
//!
//! Words: a *session* is one client on one queue with its extents and rights; its *credit* is how many of its requests
//! may be unanswered; a *tag* names one of them; the *epoch* counts the driver's lives. Addresses and lengths on the
//! medium are in logical blocks (unlike the driver's own, which are sectors).
pub mod client;
pub mod entry;
#[cfg(feature = "driver")]
pub mod front_end;
pub mod message;
pub mod ring;
pub mod status;
mod wire;

pub use status::Status;

/// Version of messages, entries and ring layout; a session is opened with it.
pub const VERSION: u16 = 1;

/// Most requests of a session that can be unanswered, and so the largest ring.
pub const MAX_CREDIT: u16 = 1024;

/// Most pieces of memory that a list may name.
pub const MAX_PIECES: usize = 16;
