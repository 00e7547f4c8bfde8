//! An interrupt-driven multi-queue virtio-blk driver.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod arena;
mod barrier;
pub mod device;
pub mod dma;
mod gate;
pub mod geometry;
pub mod interrupt;
mod memory;
pub mod platform;
pub mod queue;
pub mod request;
pub mod ring;
mod slot;
pub mod spec;
pub mod startup;
mod sync;
pub mod transport;
