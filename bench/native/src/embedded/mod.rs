//! Devices inside the process that serve a driver without a socket or a system call on the way.
//!
//! [`minimal`] is the ceiling that drivers are measured against: a split-ring device written for speed, which spins on
//! a core of its own, sleeps until it is kicked, or is stepped by its caller's thread. [`EmbeddedTransport`] is its
//! register file as the driver's transport. A device address is a virtual address of this process, so that nothing is
//! translated.
//!
//! It refuses to know how memory is obtained, who waits on a call eventfd, and which driver is at the other end.
pub mod minimal;
mod transport;

pub use transport::{EmbeddedDoorbell, EmbeddedTransport};
