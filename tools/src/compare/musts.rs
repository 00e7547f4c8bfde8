//! What must hold against the peers: bounds that the project set itself.
//!
//! Every bound names the two entries that it is made of; where one of them has no result, the bound is unmeasured,
//! never passed.
use super::plan::{self, Entry};
use super::side::{BEST, DEFAULT, LINUX, OURS, Side};
use crate::check::Check;
use crate::figures::{Cell, ratios_alike};

/// Ours against the peers, counts first.
pub(crate) fn checks(entries: &[Entry]) -> Vec<Check> {
    let count = |work: &str, side| instructions(entries, work, side);
    let (batch16, deep) = (plan::count(16), plan::count(128));
    let theirs = count(&batch16, &DEFAULT).zip(count(&batch16, &BEST)).map(|(default, best)| default.min(best));
    let of = |ours: Option<f64>, theirs: Option<f64>| ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
    vec![
        Check::at_most(
            "instructions per I/O against virtio-drivers, batch 16, the better of its two configurations",
            1.0 / 3.0,
            Some(0.2),
            of(count(&batch16, &OURS), theirs),
        ),
        Check::at_most(
            "instructions per I/O against Linux' driver code alone, batch 32",
            0.2,
            Some(0.125),
            of(count(&deep, &OURS), count(&deep, &LINUX)),
        ),
        iops(entries, "interrupt-driven IOPS, depth 128", &plan::timed("interrupt", 128), &LINUX, 5.0, Some(10.0)),
        iops(entries, "polled IOPS, depth 128", &plan::timed("polled", 128), &LINUX, 5.0, Some(8.0)),
        iops(entries, ONE_BY_ONE, &plan::one_by_one(16), &DEFAULT, 2.0, Some(2.8)),
        iops(entries, BATCHED, &plan::timed("polled", 16), &DEFAULT, 2.0, Some(2.8)),
        iops(entries, ONE_BY_ONE, &plan::one_by_one(16), &BEST, 0.97, None),
        iops(entries, BATCHED, &plan::timed("polled", 16), &BEST, 0.97, None),
    ]
}

/// Both are shown, because the peer rings for every request whatever the batch is.
const ONE_BY_ONE: &str = "polled IOPS, depth 16, one at a time";
const BATCHED: &str = "polled IOPS, depth 16, batch 16";

fn iops(entries: &[Entry], what: &str, work: &str, theirs: &Side, must: f64, aim: Option<f64>) -> Check {
    let pair = measured(entries, work, &OURS).zip(measured(entries, work, theirs));
    let values = pair.map_or_else(Vec::new, |(ours, theirs)| ratios_alike(ours, theirs, |one| one.iops));
    Check::at_least(format!("{what}, against {}", theirs.label), must, aim, None).among(values)
}

/// The cell of one side of a work, if it has a result.
fn measured<'a>(entries: &'a [Entry], work: &str, side: &Side) -> Option<&'a Cell> {
    let found = entries.iter().find(|entry| entry.work == work && entry.side == side && entry.is_measured());
    found.map(|entry| &entry.cell)
}

fn instructions(entries: &[Entry], work: &str, side: &Side) -> Option<f64> {
    Some(measured(entries, work, side)?.figures().instructions_per_io?.total)
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Extent, Fate, entries};
    use super::super::side::Peer;
    use super::*;
    use crate::figures::tests::outcome;
    use clap::ValueEnum;
    use workload::report::Instructions;

    fn all() -> Vec<Entry> {
        let mut all = entries(Extent::QUICK, Peer::value_variants()).unwrap();
        for entry in &mut all {
            let mut sample = outcome(1_000, Some(50.0));
            sample.report.instructions = Some(Instructions { submit_milli: 50_000, complete_milli: 50_000 });
            entry.cell.samples.push(sample);
        }
        all
    }

    #[test]
    fn every_bound_finds_its_entries_even_in_the_quick_form() {
        for check in checks(&all()) {
            assert!(check.holds().is_some(), "{} is not measured", check.what);
        }
    }

    #[test]
    fn a_peer_that_failed_leaves_its_bounds_unmeasured_and_the_others_as_they_are() {
        let mut all = all();
        for entry in all.iter_mut().filter(|entry| entry.side == &LINUX) {
            entry.fate = Fate::Failed("it hung".into());
        }
        for check in checks(&all) {
            assert_eq!(check.holds().is_none(), check.what.contains("Linux"), "{}", check.what);
        }
    }

    #[test]
    fn the_better_of_the_peers_two_configurations_counts() {
        let mut all = all();
        let best = all.iter_mut().find(|entry| entry.work == "count-16" && entry.side == &BEST).unwrap();
        best.cell.samples[0].report.instructions = Some(Instructions { submit_milli: 10_000, complete_milli: 10_000 });
        assert_eq!(checks(&all)[0].value, Some(5.0));
    }
}
