//! The minimal device from the outside: this repository's driver over its transport, and rings written by hand.
//!
//! | Module | What |
//! |---|---|
//! | `rig` | memory, buffers, bring-up |
//! | `counts` | notifications, interrupts and batches against what the event indices say, across the wrap |
//! | `data` | what was written is read back, in every size, form and framing |
//! | `by_hand` | chains that this repository's driver never makes: odd framing, bad requests, no sense at all |
//! | `threads` | the device's own threads, spinning and sleeping; many submitters |
//! | `resets` | letting go, starting again over the same memory |
mod rig;

mod by_hand;
mod counts;
mod data;
mod resets;
mod threads;
