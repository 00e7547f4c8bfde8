//! Event index arithmetic, and the device's wish for doorbells.
//!
//! Interrupts are decided with the wrapping formula that devices use; what *should* be notified is found by counting
//! every index of a range, so that the two, and the driver's own formula, can be held against each other.
//! Specification: 2.7.7 and 2.7.10, notification suppression in both directions.

/// When the device asks for doorbells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotifyPolicy {
    /// For the entry after the last one taken, always. Without EVENT_IDX: for every publish.
    Always,
    /// As `Always`, but while the device processes a queue it asks for none; then it re-enables, fences, looks again.
    SuppressWhileBusy,
    /// For every `n`-th entry after the last one taken (`n` from 1). Without EVENT_IDX the same as `Always`.
    EveryNth(u16),
    /// Never: the device polls.
    Never,
}

/// Whether an index that went from `old` to `new` passed over entry `event`.
pub(super) fn crosses(event: u16, old: u16, new: u16) -> bool {
    // How far `event` lies behind the newest entry, against how many entries are new.
    new.wrapping_sub(1).wrapping_sub(event) < new.wrapping_sub(old)
}

/// The same, by looking at each entry. More than one is impossible in less than 65536 entries.
pub(super) fn crossings_by_counting(event: u16, old: u16, new: u16) -> u64 {
    let mut entry = old;
    let mut crossings = 0;
    while entry != new {
        crossings += u64::from(entry == event);
        entry = entry.wrapping_add(1);
    }
    crossings
}

/// The device's wish for doorbells on one queue, as it stands in the used ring.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) policy: NotifyPolicy,
    /// EVENT_IDX was negotiated.
    pub(super) event_idx: bool,
    /// `avail_event` (with EVENT_IDX).
    pub(super) event: u16,
    /// `used.flags` says no (without EVENT_IDX).
    pub(super) suppressed: bool,
    /// Bits that the device sets in `used.flags` on top, to see whether a driver minds.
    pub(super) noise: u16,
    /// How many different wishes for a doorbell there were.
    pub(super) asked: u64,
    /// The entry that was asked for last.
    standing: Option<u16>,
    /// How many doorbells the driver owed so far.
    pub(super) owed: u64,
    /// The same when the queue was reset last.
    pub(super) owed_before_reset: u64,
}

impl Wish {
    pub(super) fn new(policy: NotifyPolicy) -> Self {
        Self {
            policy,
            event_idx: false,
            event: 0,
            suppressed: false,
            noise: 0,
            asked: 0,
            standing: None,
            owed: 0,
            owed_before_reset: 0,
        }
    }

    /// The wish of a device after reset; what was counted stays.
    pub(super) fn reset(&self) -> Self {
        let Self { policy, noise, asked, owed, .. } = *self;
        Self { noise, asked, owed, owed_before_reset: owed, ..Self::new(policy) }
    }

    /// Notes that the driver published the entries from `old` to `new` while this wish stood.
    pub(super) fn note_published(&mut self, old: u16, new: u16) {
        self.owed += if self.event_idx {
            crossings_by_counting(self.event, old, new)
        } else {
            u64::from(old != new && !self.suppressed)
        };
    }

    /// Asks by the policy; `next` is the entry that the device takes next. Without `quiet` this is a wish.
    pub(super) fn ask(&mut self, next: u16, quiet: bool) {
        let quiet = quiet || self.policy == NotifyPolicy::Never;
        let ahead = match self.policy {
            NotifyPolicy::EveryNth(n) => n.max(1) - 1,
            _ => 0,
        };
        // Half way round: neither in what a driver may publish next nor in what one that races is publishing now.
        let event = if quiet { next.wrapping_add(0x8000) } else { next.wrapping_add(ahead) };
        if !quiet && self.standing != Some(event) {
            self.asked += 1;
            self.standing = Some(event);
        }
        self.event = event;
        self.suppressed = quiet;
    }
}
