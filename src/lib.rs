//! An interrupt-driven multi-queue virtio-blk driver, and the storage path in front of it: `no_std`, no allocation, no
//! lock on the I/O path.
//!
//! A request passes few rooms, always in one direction, and comes back the same way:
//! ```text
//! caller -> queue -+ slot   claim, fill
//!                  + ring   stage, publish
//!                  + transport::Doorbell, if the device asks
//!
//! interrupt -> platform -> queue -+ ring   take used
//!                                 + slot   settle, release -> completion -> caller
//! ```
//! `ring`, `slot` and `transport` never import one another; `queue` alone composes slot and ring, `device` brings the
//! registers up and knows neither.
//!
//! Where the caller is another process, [`lib_block`] stands before that, and `service` around all of it:
//! ```text
//! client -> tag, entry -> ring -> front end -+ session   admit: rights, extent, memory, tag
//!                                            + schedule  whose turn, how much -> queue
//!
//! queue -> front end -> session -> ring -> client's tag -> completion
//! ```
//! A front end has one queue and the sessions on it; the service has the device, its front ends, and the calls that
//! open sessions, start and stop.
//!
//! **Features.** `driver` (by default): everything. Without it there is [`lib_block`] without its front end: the
//! protocol and the client library, which need no dependency.
#![cfg_attr(
    feature = "driver",
    doc = "
Reading order: [`request`] (what can be asked, and the states of a request), [`queue`] (its two kinds), then the
private `slot`, `ring::split`, `ring::chain`, `gate` and `barrier`; for bring-up [`startup`], [`transport`],
[`device`], [`interrupt`]; for clients [`lib_block`], its `entry`, `message`, `ring`, `client` and `front_end`, then
`service`. Facts of the specification are in [`spec`], memory in [`dma`] and [`arena`].

What the caller brings: a [`transport`] (PCI is here), a [`platform::Platform`] (clock, waiting, interrupts), one
region of DMA memory, private memory, and a processor.
"
)]
#![cfg_attr(not(test), no_std)]

#[cfg(feature = "driver")]
pub mod arena;
#[cfg(feature = "driver")]
mod barrier;
#[cfg(feature = "driver")]
pub mod device;
#[cfg(feature = "driver")]
pub mod dma;
#[cfg(feature = "driver")]
mod gate;
#[cfg(feature = "driver")]
pub mod geometry;
#[cfg(feature = "driver")]
pub mod interrupt;
pub mod lib_block;
#[cfg(feature = "driver")]
mod memory;
#[cfg(all(test, loom))]
mod models;
#[cfg(feature = "driver")]
pub mod platform;
#[cfg(feature = "driver")]
pub mod queue;
#[cfg(feature = "driver")]
pub mod request;
#[cfg(feature = "driver")]
pub mod ring;
#[cfg(feature = "driver")]
pub mod service;
#[cfg(feature = "driver")]
mod slot;
#[cfg(feature = "driver")]
pub mod spec;
#[cfg(feature = "driver")]
pub mod startup;
#[cfg_attr(not(feature = "driver"), allow(dead_code, unused_imports, reason = "the rings need a few of them"))]
mod sync;
#[cfg(feature = "driver")]
pub mod transport;
