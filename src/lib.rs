//! An interrupt-driven multi-queue virtio-blk driver.
#![no_std]
