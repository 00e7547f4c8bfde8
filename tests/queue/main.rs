//! Queues from the outside: requests through the public API against the fake device, over memory that both share.
//!
//! | Module | What |
//! |---|---|
//! | `rig` | the fake device as a transport, buffers with canaries, bring-up and reset |
//! | `operations`, `durability`, `refusals` | what can be asked, and what cannot |
//! | `mixes` | random requests over random queues against a model of the disk |
//! | `oversize`, `ranges` | requests above the device's limits |
//! | `panics` | sinks, wakes and doorbells that panic, and are caught |
//! | `lies`, `reset` | a device that breaks the rules, and what comes back afterwards |
//! | `lengths` | used lengths that devices in the field report, right and wrong |
//! | `notifications`, `interrupts` | doorbells and interrupts against the crossings of event indices |
//! | `batches`, `counters` | one decision per batch; exact statistics |
//! | `shared`, `parking`, `threads` | many submitters, step by step and at once |
//! | `layout`, `budget` | who writes which cache line; how much memory a queue takes |
#[path = "../fake/mod.rs"]
mod fake;

mod rig;

mod batches;
mod budget;
mod counters;
mod durability;
mod interrupts;
mod layout;
mod lengths;
mod lies;
mod mixes;
mod notifications;
mod operations;
mod oversize;
mod panics;
mod parking;
mod ranges;
mod refusals;
mod reset;
mod shared;
mod threads;
