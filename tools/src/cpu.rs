//! Processor time: what a run took, and what others took from it meanwhile.
//!
//! Two pinned threads that spin are the only ones that should run. Whatever else runs makes results poor, and is told.
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Ticks per second of /proc/stat, a constant of the interface.
const TICKS: f64 = 100.0;
/// Others take more than this share: a result is poor.
pub(crate) const POOR: f64 = 0.05;

/// Processor time so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time of this process' children that ended, seconds.
    children: (f64, f64),
    /// Of this process itself.
    own: f64,
    /// Of all processes, or lost to other virtual machines; on all cores.
    machine: f64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
        let times =
            |who| getrusage(who).map_or((0.0, 0.0), |used| (seconds(used.user_time()), seconds(used.system_time())));
        let own = times(UsageWho::RUSAGE_SELF);
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Self { children: times(UsageWho::RUSAGE_CHILDREN), own: own.0 + own.1, machine: busy(&stat) }
    }

    /// The children's user and system time since `before`.
    pub(crate) fn children_since(&self, before: &Self) -> (f64, f64) {
        (self.children.0 - before.children.0, self.children.1 - before.children.1)
    }

    /// The share of all `cores` that went to others during the `seconds` since `before`.
    pub(crate) fn others_since(&self, before: &Self, cores: usize, seconds: f64) -> f64 {
        let (user, system) = self.children_since(before);
        let ours = user + system + self.own - before.own;
        let all = seconds * cores.max(1) as f64;
        if all > 0.0 { ((self.machine - before.machine - ours) / all).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Processor time of the process `id` so far, its threads' that ended included, seconds; `None` if it is gone.
pub(crate) fn of(id: u32) -> Option<f64> {
    used(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// User and system time: the 14th and 15th field, counted behind the name, which may have blanks and brackets in it.
fn used(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

/// Seconds that were not idle: user, nice, system, irq, softirq and steal of the first line.
fn busy(stat: &str) -> f64 {
    let fields = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&field| ticks.get(field)).sum::<f64>() / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_time_is_nobodys() {
        let stat = "cpu  100 200 300 9000 8000 10 20 70 5 5\ncpu0 1 1 1 1\n";
        assert!((busy(stat) - 7.0).abs() < 1e-9);
        assert!(busy("").abs() < 1e-9);
    }

    #[test]
    fn a_process_time_is_found_behind_whatever_its_name_is() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 200 0 0 150 50 9 9 20 0 3 0 1 1 1";
        assert_eq!(used(stat), Some(2.0));
        assert_eq!(used("7 (a"), None);
        assert!(of(std::process::id()).is_some());
    }

    #[test]
    fn what_neither_we_nor_our_children_took_is_the_others() {
        let before = Usage::default();
        let after = Usage { children: (0.8, 0.2), own: 0.1, machine: 1.5 };
        assert!((after.others_since(&before, 2, 1.0) - 0.2).abs() < 1e-9);
        let alone = Usage { machine: 1.0, ..after };
        assert!(alone.others_since(&before, 2, 1.0).abs() < 1e-9);
    }
}
