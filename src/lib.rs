//! An interrupt-driven multi-queue virtio-blk driver: `no_std`, no allocation, no lock on the I/O path.
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
//! Reading order: [`request`] (what can be asked, and the states of a request), [`queue`] (its two kinds), then the
//! private `slot`, `ring::split`, `ring::chain`, `gate` and `barrier`; for bring-up [`startup`], [`transport`],
//! [`device`], [`interrupt`]. Facts of the specification are in [`spec`], memory in [`dma`] and [`arena`].
//!
//! What the caller brings: a [`transport`] (PCI is here), a [`platform::Platform`] (clock, waiting, interrupts), one
//! region of DMA memory, private memory, and a processor.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod arena;
mod barrier;
pub mod device;
pub mod dma;
mod gate;
pub mod geometry;
pub mod interrupt;
mod memory;
#[cfg(all(test, loom))]
mod models;
pub mod platform;
pub mod queue;
pub mod request;
pub mod ring;
mod slot;
pub mod spec;
pub mod startup;
mod sync;
pub mod transport;
