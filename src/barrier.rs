//! The ordering rules between driver and device, each once and by name. Every fence of the ring and of the PCI registers
//! is one of these.
//!
//! The device's half of each pair is stated by the specification; our devices (QEMU, qemu-storage-daemon, rust-vmm,
//! the fake device of the tests) implement it. The rules between the driver's own threads stand in `gate.rs`.
use crate::sync::{Ordering, full_fence, light_fence};

/// Descriptors and available entries become visible before the index that offers them (2.7.13.3.1 Driver
/// requirements: updating idx).
///
/// Here: store entries, **this**, store `avail.idx`. Device: load `avail.idx`, acquire, load entries.
#[inline(always)]
pub(crate) fn entries_before_index() {
    light_fence(Ordering::Release);
}

/// Used entries, status bytes and data are read no earlier than the index that covers them (2.7.14 Receiving used
/// buffers).
///
/// Here: load `used.idx`, **this**, load entries, status, data. Device: store those, release, store `used.idx`.
#[inline(always)]
pub(crate) fn index_before_used_entries() {
    light_fence(Ordering::Acquire);
}

/// The new available index is visible before the device's wish for notifications is read (2.7.13.4.1 Driver
/// requirements: notifying the device). Without the full fence both sides may miss each other and the request sleeps.
///
/// Here: store `avail.idx`, **this**, load `avail_event` or `used.flags`. Device: store `avail_event`, full fence, load
/// `avail.idx`, sleep if nothing is new.
#[inline(always)]
pub(crate) fn index_before_device_event() {
    full_fence();
}

/// The wish for an interrupt is visible before the last look at the used index (2.7.7.1, 2.7.14). Without the full
/// fence a completion may fall between the look and the wish.
///
/// Here: store `used_event` or `avail.flags`, **this**, load `used.idx`. Device: store `used.idx`, full fence, load
/// `used_event`, interrupt on a crossing.
#[inline(always)]
pub(crate) fn event_before_last_look() {
    full_fence();
}

/// What was stored before is in memory when the device sees a register change: the ring's areas when it sees DRIVER_OK
/// (3.1.1), say.
///
/// Here: store memory, **this**, store the register. Device: see the register change, then load memory.
///
/// On x86 it is no instruction, where stores are weaker it is their store barrier: `models/pci.rs` fails without it.
#[inline(always)]
pub(crate) fn memory_before_register() {
    light_fence(Ordering::Release);
}

/// What a register's value allows to be read from memory is read after the register: buffers once the status reads 0
/// (2.4, 4.1.4.3.1).
///
/// Here: load the register, **this**, load memory. Device: store memory, then change the register.
#[inline(always)]
pub(crate) fn register_before_memory() {
    light_fence(Ordering::Acquire);
}

/// Everything that the thread stored before is in memory when the device sees its doorbell
/// ([`Doorbell::ring`](crate::transport::Doorbell::ring) promises it): the published index above all.
///
/// Here: store memory, **this**, store the doorbell's register. Device: see the doorbell, then load memory.
#[inline(always)]
pub(crate) fn memory_before_doorbell() {
    light_fence(Ordering::Release);
}

/// What a slot's claimer stored is seen by the drainer of an answer to a chain that the device was never told of.
///
/// Here: load the slot's state, which says that it is in flight, **this**, load what the claimer put there. Partner:
/// `Record::set_in_flight`, whose store is a release.
#[inline(always)]
pub(crate) fn state_before_content() {
    light_fence(Ordering::Acquire);
}
