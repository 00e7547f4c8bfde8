//! The same driver as a Linux process: over vhost-user, and over devices inside the process.
pub mod embedded;
pub mod event;
pub mod memory;
pub mod platform;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod ground;
pub mod seat;
pub mod vhost_user;
pub mod peer;
pub mod peer_run;
