//! Virtqueues as bytes and index arithmetic. A ring touches memory only: no register, no doorbell, no block request.
//!
//! `split` is the split virtqueue; a packed one comes beside it. Whether the device is to be notified is *decided*
//! here and *done* elsewhere.
//!
//! ```
//! use drv_virtio_block::ring::crossed;
//! // The other side asked to hear of index 5; moving from 4 to 6 passes it, moving from 6 to 8 does not.
//! assert!(crossed(5, 4, 6) && !crossed(5, 6, 8));
//! ```
pub(crate) mod chain;
pub(crate) mod split;

/// Whether an index that moved from `old` to `new` passed `event`, so that the other side wants to hear of it (2.7.10
/// and 2.7.7.1, the same rule in both directions). All three wrap at 2^16, so only differences are compared.
#[inline(always)]
pub const fn crossed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::crossed;

    #[test]
    fn a_crossing_is_what_enumeration_says_at_every_offset_around_the_wrap() {
        for base in [0u16, 7, 0x7ffe, 0xfff0] {
            for moved in 0..40u16 {
                for event in 0..60u16 {
                    let (old, event) = (base, base.wrapping_add(event).wrapping_sub(20));
                    let new = old.wrapping_add(moved);
                    let passed = (0..moved).any(|step| old.wrapping_add(step) == event);
                    assert_eq!(crossed(event, old, new), passed, "event {event} old {old} new {new}");
                }
            }
        }
    }
}
