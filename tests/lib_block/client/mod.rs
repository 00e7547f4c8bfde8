//! The client library against a server that a test plays, entry by entry.
//!
//! | Module | What |
//! |---|---|
//! | `rig` | rings, the played server, counted buffers |
//! | `answers` | tags, credit, cancels, doorbells |
//! | `lies` | a server that contradicts itself |
//! | `restart` | another server, or none |
//! | `blocking` | one request at a time |
//! | `futures`, `dropped` | futures and their wakers; futures that nobody waits for |
//! | `leftovers` | rings that an earlier client and its server left; a server's next life |
//! | `panics` | caller's code that panics, and is caught |
//! | `pages` | the pool |
mod rig;

mod answers;
mod blocking;
mod dropped;
mod futures;
mod leftovers;
mod lies;
mod pages;
mod panics;
mod restart;
