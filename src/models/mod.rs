//! Models: the real gates, sets, rings and queues under every interleaving that loom finds.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p drv-virtio-block --lib models`. Two or three threads, two
//! slots, a bound on preemptions; the threads are submitters and the device, which plays by the specification on the
//! words that the driver uses ([`disk`]). What loom checks besides the assertions: that exclusive access to whatever is
//! [`crate::sync::Guarded`] (slot contents, ring shadows, cut requests, and here the buffers' bytes) is ordered.
//!
//! A model that cannot fail says nothing, so each names the changes to the code that make it fail ("Fails without").
//! What loom does not model: a total order of SeqCst accesses (there are none) and orders that full fences leave to
//! each other (its fences synchronise, which is more than the language promises).
mod disk;
mod front_end;
mod gate;
mod lib_block;
mod owned;
mod pci;
mod shared;
mod slots;

use loom::model::Builder;

/// Runs `model` in every interleaving with at most `preemptions` of them.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(preemptions));
    builder.max_branches = 20_000;
    builder.check(model);
}
