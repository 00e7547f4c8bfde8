//! The service from the outside: the whole driver on the fake device, called with bytes, with clients on rings beside it.
//!
//! | Module | What |
//! |---|---|
//! | `rig` | memory, device, platform, clients by hand; the fuse that ends a life at any of its steps |
//! | `envelope` | the startup envelope's bytes |
//! | `control` | START, STOP, READ DRIVER; devices that do not come up |
//! | `calls`, `refusals` | calls of sessions, and what is refused |
//! | `trouble` | devices that lie, ask for a reset, fall silent, do not answer a reset |
//! | `queues` | several queues and their clients |
//! | `waiting` | sleep, interrupts, deadlines, configuration |
//! | `panics` | what is called out to panics, and the caller goes on |
//! | `lives` | killed at every step, and begun again over the same memory |
#[path = "../fake/mod.rs"]
mod fake;

mod rig;

mod calls;
mod control;
mod envelope;
mod lives;
mod panics;
mod queues;
mod refusals;
mod trouble;
mod waiting;
