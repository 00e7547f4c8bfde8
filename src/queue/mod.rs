//! One queue's life: claim, stage, publish, reap, re-arm. The only composer of slot and ring.
//!
//! [`Prepared`] lays a queue out in memory; it becomes an [`OwnedQueue`] (one owner, `&mut`, no locked instruction) or
//! a [`SharedQueue`] (many submitters, nobody waits). Both stage and settle requests with the same code (`core.rs`);
//! they differ in who may publish and who may drain. Requests above the device's limits are cut in `oversize.rs`.
//! It knows no registers but its doorbell, no clients, and no other queue.
//!
//! Invariants (states as numbered in `request.rs`):
//! - a buffer in state 2 to 4 is owned by its slot; it leaves through a completion, or through [`Prepared`] after a
//!   reset whose proof ([`Quiesced`](crate::device::Quiesced)) covers this device, and in no other way;
//! - a slot enters state 3 before the index that offers its head is stored;
//! - every used entry is checked (head of a slot in state 3, length, status) before anything is taken from a slot; one
//!   that fails the check breaks the queue: nothing more is believed until the reset.
//!
//! ```no_run
//! # use drv_virtio_block::{arena::Arena, dma::*, geometry::Geometry, queue::*, request::*, transport::*};
//! # fn f<'m, B: DeviceWritable + 'm>(
//! #     mut dma: DmaRegion<'m>, mut arena: Arena<'m>, disk: &'m Geometry, bell: impl Doorbell, page: B,
//! # ) {
//! let prepared = Prepared::new(&QueueOptions::default(), disk, &mut dma, &mut arena).unwrap();
//! // ... the device learns prepared.addresses() and is started ...
//! let mut queue = prepared.owned(bell);
//! let mut batch = queue.batch();
//! assert!(batch.push(Request::read(Lba(0), page)).is_ok());
//! batch.publish();
//! queue.reap(32, |completion| assert!(completion.result.is_ok()));
//! # }
//! ```
mod core;
#[cfg(all(test, not(loom)))]
mod lines;
mod oversize;
mod owned;
mod prepared;
mod shared;
mod shared_batch;
mod statistics;
mod submitter;
mod tables;
#[cfg(all(test, not(loom)))]
mod tests;

pub use self::core::Violation;
pub use crate::slot::{MAX_SLOTS, MAX_SUBMITTERS};
pub use owned::{Batch, OwnedQueue};
pub use prepared::{Chaining, PrepareError, Prepared, QueueOptions};
pub use shared::{SharedQueue, Wake};
pub use shared_batch::SharedBatch;
pub use statistics::Statistics;
pub use submitter::Submitter;
