//! How long to wait for a driver that may have lost a doorbell: until nothing has moved for a while.
//!
//! It knows counters and a clock that is asked seldom, because it is asked in the middle of polling.

/// How many looks there are to one at the clock.
const LOOKS: u32 = 1 << 12;
/// Nothing takes a null device so long, on however busy a host.
const LIMIT_NS: u64 = 10_000_000_000;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Patience {
    looks: u32,
    /// What had moved at the last change, and when that was seen.
    seen: Option<(u64, u64)>,
}

impl Patience {
    /// Whether it has run out. `moved` is anything that grows when something is submitted or completed.
    #[inline(always)]
    pub fn is_out(&mut self, moved: u64, now_ns: impl FnOnce() -> u64) -> bool {
        self.looks = self.looks.wrapping_add(1);
        self.looks.is_multiple_of(LOOKS) && self.is_out_now(moved, now_ns())
    }

    #[cold]
    fn is_out_now(&mut self, moved: u64, now_ns: u64) -> bool {
        match self.seen {
            Some((before, since)) if before == moved => now_ns.saturating_sub(since) >= LIMIT_NS,
            _ => {
                self.seen = Some((moved, now_ns));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of `moments` (what moved, nanoseconds) at which patience has run out, looking often in between.
    fn runs_out(moments: &[(u64, u64)]) -> Option<usize> {
        let mut patience = Patience::default();
        moments.iter().position(|(moved, now)| (0..LOOKS).any(|_| patience.is_out(*moved, || *now)))
    }

    #[test]
    fn patience_runs_out_when_nothing_has_moved_for_long() {
        assert_eq!(runs_out(&[(7, 5), (7, LIMIT_NS + 4), (7, LIMIT_NS + 5)]), Some(2));
    }

    #[test]
    fn whatever_moves_renews_patience_and_a_long_pause_before_takes_none() {
        let long = LIMIT_NS * 3;
        assert_eq!(runs_out(&[(1, 5), (2, long), (3, long * 2), (3, long * 2 + LIMIT_NS - 1)]), None);
    }
}
