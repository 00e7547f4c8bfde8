//! The same driver as a Linux process: over vhost-user, and over devices inside the process.
//!
//! | Part | What it is |
//! |---|---|
//! | [`memory`], [`event`], [`platform`] | memory that is shared, eventfds, waiting: what the driver stands on |
//! | [`vhost_user`] | the transport to another process's device, and the driver's life over it |
//! | [`embedded`], [`rust_vmm`] | devices: one written for speed, one with rings that others wrote |
//! | [`peer`] | the crate virtio-driver, to compare with |
//! | [`ground`], [`seat`], [`clock`] | the process as the ground of a run: threads on cores |
//! | [`cli`], [`mod@bench`], [`peer_run`] | the program `native` |
#![deny(clippy::print_stdout, clippy::print_stderr, reason = "`output` outlives readers that leave")]
pub mod bench;
pub mod cli;
pub mod clock;
pub mod embedded;
pub mod event;
pub mod ground;
pub mod memory;
pub mod output;
pub mod peer;
pub mod peer_run;
pub mod platform;
pub mod rust_vmm;
pub mod seat;
pub mod vhost_user;
