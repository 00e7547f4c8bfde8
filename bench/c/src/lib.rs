//! The driver for C programs: a virtio-blk device behind a vhost-user socket, as a few functions.
//!
//! | Part | What it is |
//! |---|---|
//! | [`calls`] | the functions; every pointer and number from C is held against its contract here |
//! | [`types`] | what they take and give: requests, completions, facts, codes that name the blame |
//! | `device` | one connection from opening to closing: memory, queues, the session |
//! | `queue` | one queue: a batch in, completions out, waiting for them |
//! | `pages` | who has which page of the memory that the device shares |
//!
//! `include/drv_virtio_block.h` is generated from the first two; a test fails when it is stale, and
//! `UPDATE_HEADER=1 cargo test -p drv-virtio-block-c` writes it anew. `fio/engine.c` is the fio engine on top.
//!
//! What C may do wrong without harm: pass NULL, numbers without sense, memory that is not shared, a queue to two threads
//! at once, a device to be closed while a thread waits in one of its queues. Each is a code. What it must not do:
//! pass pointers that point to nothing, use a handle while or after it is closed or in a forked child; no function can know.
//!
//! Nothing unwinds into C: the profile aborts on a panic, and every value from outside is looked at so that none comes.
pub mod calls;
mod device;
mod pages;
mod queue;
pub mod types;
