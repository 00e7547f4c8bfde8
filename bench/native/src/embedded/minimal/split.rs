//! The device's half of a split ring (2.7 Split Virtqueues): indices, entries, event indices.
//!
//! It knows neither requests nor memory regions, and not who is told. Nothing else in the device knows what a ring looks
//! like in memory; a packed ring would be a second type with these methods.
//!
//! Invariants:
//! - the available index is loaded before the entries that it covers, and used entries are stored before the index that
//!   covers them;
//! - indices wrap at 65536 and are masked to the ring only where an entry's place is computed.
use super::memory::{load16, load64, store_word, store16};
use std::sync::atomic::{Ordering, fence};

/// Where a queue's three areas are, as virtual addresses, and how many descriptors it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Descriptors: a power of two up to 32768.
    pub size: u16,
    /// The descriptor table, 16-byte aligned.
    pub descriptors: u64,
    /// The available ring, 2-byte aligned.
    pub available: u64,
    /// The used ring, 4-byte aligned.
    pub used: u64,
}

impl Rings {
    /// The three areas as (address, bytes).
    pub(super) fn areas(&self) -> [(u64, u64); 3] {
        let n = u64::from(self.size);
        [(self.descriptors, 16 * n), (self.available, 6 + 2 * n), (self.used, 6 + 8 * n)]
    }

    /// Whether size and alignments are those of a split ring.
    pub(super) fn are_sound(&self) -> bool {
        let Self { size, descriptors, available, used } = *self;
        let aligned = descriptors.is_multiple_of(16) && available.is_multiple_of(2) && used.is_multiple_of(4);
        aligned && size.is_power_of_two() && size <= 1 << 15
    }
}

/// `VIRTQ_USED_F_NO_NOTIFY` and `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const SUPPRESS: u16 = 1;
/// How far the driver's index may run past the last `avail_event` before it is moved along, see
/// [`SplitRing::never_notify`].
const MOVE_ALONG: u16 = 1 << 14;

/// One split ring, seen from the device.
#[derive(Clone, Copy)]
pub(super) struct SplitRing {
    descriptors: *const u8,
    available: *mut u8,
    used: *mut u8,
    mask: u16,
    event_idx: bool,
}

// SAFETY: plain addresses; what is behind them is shared with the driver by the ring's rules, whatever thread asks.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// # Safety
    /// The areas of `rings` are sound ([`Rings::are_sound`]), mapped and initialised for as long as the value is used,
    /// and shared with nobody but one driver that keeps to the rules of a split ring.
    pub(super) unsafe fn new(rings: &Rings, event_idx: bool) -> Self {
        let at = |address: u64| std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        Self {
            descriptors: at(rings.descriptors),
            available: at(rings.available),
            used: at(rings.used),
            mask: rings.size - 1,
            event_idx,
        }
    }

    /// The descriptor table.
    #[inline(always)]
    pub(super) fn table(&self) -> *const u8 {
        self.descriptors
    }

    /// Descriptors.
    #[inline(always)]
    pub(super) fn size(&self) -> u32 {
        u32::from(self.mask) + 1
    }

    /// How many chains are available behind the first `next`.
    ///
    /// The fence's partner is the driver's release between storing entries and storing `avail.idx` (2.7.13.3).
    #[inline(always)]
    pub(super) fn look(&self, next: u16) -> u16 {
        // SAFETY: `avail.idx`, at byte 2 of the area.
        let index = unsafe { load16(self.available.add(2)) };
        fence(Ordering::Acquire);
        index.wrapping_sub(next)
    }

    /// The head of available chain number `at`; only after [`Self::look`] covered it.
    #[inline(always)]
    pub(super) fn head(&self, at: u16) -> u16 {
        // SAFETY: the masked entry lies in the area, whose entries begin at byte 4.
        unsafe { load16(self.available.add(4 + 2 * usize::from(at & self.mask))) }
    }

    /// Stores used entry number `at`. The driver does not know of it before [`Self::publish`].
    #[inline(always)]
    pub(super) fn give_back(&self, at: u16, head: u16, len: u32) {
        // SAFETY: as in `head`; entries are 8 bytes.
        unsafe {
            store_word(self.used.add(4 + 8 * usize::from(at & self.mask)), u64::from(head) | u64::from(len) << 32);
        }
    }

    /// Hands every stored entry over: one index store for all of them.
    ///
    /// The fence's partner is the driver's acquire between loading `used.idx` and reading entries, status and data
    /// (2.7.14).
    #[inline(always)]
    pub(super) fn publish(&self, index: u16) {
        fence(Ordering::Release);
        // SAFETY: `used.idx`, at byte 2 of the area.
        unsafe { store16(self.used.add(2), index) }
    }

    /// Whether the driver wants to hear that the used index went from `old` to `new`.
    ///
    /// The full fence's partner is the driver's between storing `used_event` (or `avail.flags`) and its last look at
    /// `used.idx`: without it both may miss each other and the driver sleeps for ever (2.7.7.2).
    #[inline(always)]
    pub(super) fn wants_interrupt(&self, old: u16, new: u16) -> bool {
        fence(Ordering::SeqCst);
        if self.event_idx {
            // SAFETY: `used_event` follows the entries of the available ring.
            let event = unsafe { load16(self.available.add(4 + 2 * self.size() as usize)) };
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            // SAFETY: `avail.flags`, at the front of the area.
            unsafe { load16(self.available) & SUPPRESS == 0 }
        }
    }

    /// `avail_event`, behind the entries of the used ring.
    fn set_avail_event(&self, index: u16) {
        // SAFETY: inside the used area, see `Rings::areas`.
        unsafe { store16(self.used.add(4 + 8 * self.size() as usize), index) }
    }

    fn set_flags(&self, flags: u16) {
        // SAFETY: `used.flags`, at the front of the area.
        unsafe { store16(self.used, flags) }
    }

    /// Asks for no notification at all: to be said once before the driver offers anything, `next` being 0.
    /// Returns the wish, to be kept for [`Self::stay_unnotified`].
    pub(super) fn never_notify(&self, next: u16) -> u16 {
        let wish = next.wrapping_sub(1);
        if self.event_idx {
            self.set_avail_event(wish);
        } else {
            self.set_flags(SUPPRESS);
        }
        wish
    }

    /// Moves the wish along before the driver's index comes round to it.
    ///
    /// The wish is the entry before the first one, so it is met again after 65535 entries. The device moves it once
    /// it has seen [`MOVE_ALONG`] entries since; the driver is at most one ring (32768) ahead of what the device has
    /// seen at its previous look, so 65535 is never reached, and the line that holds the wish travels once in 16384
    /// entries instead of once a batch.
    #[inline(always)]
    pub(super) fn stay_unnotified(&self, wish: u16, next: u16) -> u16 {
        if self.event_idx && next.wrapping_sub(wish) >= MOVE_ALONG { self.move_along(next) } else { wish }
    }

    #[cold]
    fn move_along(&self, next: u16) -> u16 {
        self.never_notify(next)
    }

    /// Asks for a notification with the next chain, and looks again: true when one is there already.
    ///
    /// The full fence's partner is the driver's between storing `avail.idx` and reading the wish (2.7.13.4.1).
    pub(super) fn arm(&self, next: u16) -> bool {
        if self.event_idx {
            self.set_avail_event(next);
        } else {
            self.set_flags(0);
        }
        fence(Ordering::SeqCst);
        self.look(next) != 0
    }

    /// Takes the wish for a notification back, as far as that costs nothing: with EVENT_IDX it was met already.
    pub(super) fn disarm(&self) {
        if !self.event_idx {
            self.set_flags(SUPPRESS);
        }
    }
}

/// A descriptor: its address, and length, flags and next in one word.
///
/// # Safety
/// `index` lies in the table.
#[inline(always)]
pub(super) unsafe fn descriptor(table: *const u8, index: u32) -> (u64, u64) {
    // SAFETY: the caller's; a table is 16-byte aligned (the ring's), or checked to be 8-byte aligned (indirect).
    unsafe { (load64(table.add(16 * index as usize)), load64(table.add(16 * index as usize + 8))) }
}
