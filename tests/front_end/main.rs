//! The front end from the outside: raw ring entries on one side, the fake device on the other, in one thread.
//!
//! | Module | What |
//! |---|---|
//! | `rig` | the fake device, a front end over it, clients that say what the test wants |
//! | `operations`, `ranges` | what can be asked; DISCARD and WRITE ZEROES in parts |
//! | `refusals`, `memories` | entries and openings that are refused; registered memory and lists in it |
//! | `endings` | clients whose indices cannot be, that do not reap, that disappear |
//! | `calls` | the synchronous calls |
//! | `cancels`, `deadlines` | requests that are withdrawn, and those that are late |
//! | `order` | barriers and flushes, as the device sees them |
//! | `fairness` | who gets how much, over every window |
//! | `doorbells` | who is rung, and when nobody is |
//! | `restart` | a new life over the same rings, and a reset within one |
//! | `panics` | doorbells and clocks that panic, and a caller that goes on |
//! | `options` | options out of bounds |
//! | `other_device`, `resize` | what is another device's; a medium that shrinks and grows |
//! | `fuzz`, `hostile`, `oracle` | a hostile client beside an honest one; what may reach the device |
#[path = "../fake/mod.rs"]
mod fake;

#[path = "../queue/rig/transport.rs"]
mod transport;

#[path = "../lib_block/protocol_random.rs"]
mod random;

mod rig;

mod calls;
mod cancels;
mod deadlines;
mod doorbells;
mod endings;
mod fairness;
mod fuzz;
mod hostile;
mod memories;
mod operations;
mod options;
mod oracle;
mod order;
mod other_device;
mod panics;
mod ranges;
mod refusals;
mod resize;
mod restart;
