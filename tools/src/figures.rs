//! What a run came to, in the figures that the table shows, and medians of several runs.
//!
//! Samples taken with near cores and with far cores are never mixed: a cell's figures are the medians of the larger
//! group. Knows reports; refuses to know where they are shown.
use crate::job::Job;
use crate::pingpong::Distance;
use crate::run::Outcome;
use serde::Serialize;
use workload::report::{Direction, PERCENTILES, Report};

/// One run, or the medians of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) iops: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    /// Nothing where the driver does not let its doorbells be seen.
    pub(crate) notifications_per_io: Option<f64>,
    pub(crate) interrupts_per_io: f64,
    /// 0 without blockd.
    #[serde(skip)]
    pub(crate) doorbells_per_io: Doorbells,
    pub(crate) instructions_per_io: Option<Counted>,
    /// Of the whole guest: driver, whatever stands around it, and the load.
    pub(crate) guest_instructions_per_io: Option<f64>,
    /// Processor time of driver, device and load.
    pub(crate) cpu_ns_per_io: Option<f64>,
    pub(crate) pingpong_ns: Option<f64>,
}

/// Instructions per I/O.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Counted {
    pub(crate) submit: f64,
    pub(crate) complete: f64,
    pub(crate) total: f64,
}

/// Doorbells between clients and front ends, per I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Doorbells {
    /// Rung by clients.
    pub(crate) clients: f64,
    /// Rung by front ends.
    pub(crate) front_ends: f64,
}

/// A job and its samples, in the order in which they were taken.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) job: Job,
    pub(crate) samples: Vec<Outcome>,
}

impl Figures {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let report = &outcome.report;
        let seconds = report.runtime_ns as f64 / 1e9;
        let per_second = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
        let done = ios(report);
        let per_io = |amount: u64| amount as f64 / done.max(1) as f64;
        let busiest = busiest(report);
        Self {
            iops: per_second(done),
            bytes_per_second: per_second(directions(report).map(|way| way.bytes).iter().sum()),
            p50_ns: percentile(busiest, 50_000),
            p99_ns: percentile(busiest, 99_000),
            notifications_per_io: report.notifications.map(per_io),
            interrupts_per_io: per_io(report.interrupts),
            doorbells_per_io: Doorbells {
                clients: per_io(report.client_doorbells),
                front_ends: per_io(report.front_doorbells),
            },
            instructions_per_io: counted(report),
            guest_instructions_per_io: outcome.guest_instructions,
            cpu_ns_per_io: outcome.busy.filter(|_| done > 0).map(|seconds| seconds * 1e9 / done as f64),
            pingpong_ns: outcome.pingpong_ns,
        }
    }

    /// Medians, figure by figure.
    fn median(all: &[Self]) -> Self {
        let pick = |figure: fn(&Self) -> f64| median(all.iter().map(figure).collect());
        let instructions: Vec<_> = all.iter().filter_map(|one| one.instructions_per_io).collect();
        let count = |figure: fn(&Counted) -> f64| median(instructions.iter().map(figure).collect());
        let known = |figure: fn(&Self) -> Option<f64>| {
            let values: Vec<f64> = all.iter().filter_map(figure).collect();
            (!values.is_empty()).then(|| median(values))
        };
        Self {
            iops: pick(|one| one.iops),
            bytes_per_second: pick(|one| one.bytes_per_second),
            p50_ns: pick(|one| one.p50_ns),
            p99_ns: pick(|one| one.p99_ns),
            notifications_per_io: known(|one| one.notifications_per_io),
            interrupts_per_io: pick(|one| one.interrupts_per_io),
            doorbells_per_io: Doorbells {
                clients: pick(|one| one.doorbells_per_io.clients),
                front_ends: pick(|one| one.doorbells_per_io.front_ends),
            },
            instructions_per_io: (!instructions.is_empty()).then(|| Counted {
                submit: count(|one| one.submit),
                complete: count(|one| one.complete),
                total: count(|one| one.total),
            }),
            guest_instructions_per_io: known(|one| one.guest_instructions_per_io),
            cpu_ns_per_io: known(|one| one.cpu_ns_per_io),
            pingpong_ns: known(|one| one.pingpong_ns),
        }
    }
}

impl Cell {
    /// Where the cores were in most samples; near and far alike often: far, the harder case.
    pub(crate) fn distance(&self) -> Option<Distance> {
        let count = |wanted| self.samples.iter().filter(|one| one.distance() == Some(wanted)).count();
        let (near, far) = (count(Distance::Near), count(Distance::Far));
        match (near, far) {
            (0, 0) => None,
            _ if near > far => Some(Distance::Near),
            _ => Some(Distance::Far),
        }
    }

    /// The cell of the samples that were taken at `distance`, if there are any.
    pub(crate) fn at(&self, distance: Distance) -> Option<Self> {
        let samples: Vec<_> = self.samples.iter().filter(|one| one.distance() == Some(distance)).cloned().collect();
        (!samples.is_empty()).then(|| Self { job: self.job.clone(), samples })
    }

    /// The samples that the figures are of.
    pub(crate) fn chosen(&self) -> Vec<&Outcome> {
        let distance = self.distance();
        self.samples.iter().filter(|one| one.distance() == distance).collect()
    }

    /// Medians of the chosen samples.
    pub(crate) fn figures(&self) -> Figures {
        let all: Vec<_> = self.chosen().into_iter().map(Figures::of).collect();
        Figures::median(&all)
    }

    /// The chosen sample whose IOPS are the median.
    pub(crate) fn typical(&self) -> Option<&Outcome> {
        let mut chosen = self.chosen();
        chosen.sort_by(|a, b| Figures::of(a).iops.total_cmp(&Figures::of(b).iops));
        chosen.get(chosen.len().saturating_sub(1) / 2).copied()
    }

    /// Lowest and highest IOPS of the chosen samples.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let all = self.chosen().into_iter().map(|one| Figures::of(one).iops);
        all.fold((f64::INFINITY, 0.0), |(low, high), iops| (iops.min(low), iops.max(high)))
    }
}

/// Ratios of `ours` to `theirs`, sample by sample where the cores were equally far apart in both.
pub(crate) fn ratios(ours: &Cell, theirs: &Cell, figure: fn(&Figures) -> f64) -> Vec<f64> {
    ratios_where(ours, theirs, |_| true, figure)
}

/// Likewise, where the cores were at `distance`.
pub(crate) fn ratios_at(ours: &Cell, theirs: &Cell, distance: Distance, figure: fn(&Figures) -> f64) -> Vec<f64> {
    ratios_where(ours, theirs, |found| found == Some(distance), figure)
}

/// Likewise, where the cores were as in most samples of `ours`.
pub(crate) fn ratios_alike(ours: &Cell, theirs: &Cell, figure: fn(&Figures) -> f64) -> Vec<f64> {
    let distance = ours.distance();
    ratios_where(ours, theirs, |found| found == distance, figure)
}

fn ratios_where(
    ours: &Cell,
    theirs: &Cell,
    wanted: impl Fn(Option<Distance>) -> bool,
    figure: fn(&Figures) -> f64,
) -> Vec<f64> {
    let pairs = ours.samples.iter().zip(&theirs.samples);
    pairs
        .filter(|(a, b)| a.distance() == b.distance() && wanted(a.distance()))
        .map(|(a, b)| figure(&Figures::of(a)) / figure(&Figures::of(b)))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

/// The share of the processors that others took during the timed runs, if there were any.
pub(crate) fn others(cells: &[Cell]) -> Option<f64> {
    let timed = cells.iter().filter(|cell| cell.job.params.runtime_ms > 0).flat_map(|cell| &cell.samples);
    let all: Vec<f64> = timed.map(|one| one.others).collect();
    (!all.is_empty()).then(|| median(all))
}

/// The middle value; of an even number, the mean of the two in the middle; 0 of none.
pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => all[middle],
        _ => f64::midpoint(all[middle - 1], all[middle]),
    }
}

/// All I/Os of a report. Counted runs report no directions: every request is an I/O there.
pub(crate) fn ios(report: &Report) -> u64 {
    match directions(report).iter().map(|way| way.ios).sum() {
        0 if report.instructions.is_some() => report.submitted,
        ios => ios,
    }
}

fn directions(report: &Report) -> [&Direction; 3] {
    [&report.read, &report.write, &report.trim]
}

/// The direction with the most I/Os speaks for the latency.
fn busiest(report: &Report) -> &Direction {
    let mut all = directions(report);
    all.sort_by_key(|way| std::cmp::Reverse(way.ios));
    all[0]
}

fn percentile(way: &Direction, thousandths: u32) -> f64 {
    let index = PERCENTILES.iter().position(|&known| known == thousandths);
    index.and_then(|index| way.percentiles_ns.get(index)).map_or(0.0, |&ns| ns as f64)
}

fn counted(report: &Report) -> Option<Counted> {
    report.instructions.as_ref().map(|counted| {
        let submit = counted.submit_milli as f64 / 1000.0;
        let complete = counted.complete_milli as f64 / 1000.0;
        Counted { submit, complete, total: submit + complete }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::job::Draft;
    use workload::report::{Boot, VERSION};

    /// An outcome of `ios` reads in one second with cores `pingpong_ns` apart.
    pub(crate) fn outcome(ios: u64, pingpong_ns: Option<f64>) -> Outcome {
        let read = Direction {
            ios,
            bytes: ios * 4096,
            percentiles_ns: (1..=17).map(|n| n * 1000).collect(),
            ..Direction::default()
        };
        let boot = Boot {
            version: VERSION,
            capacity: 8,
            queues: 1,
            queue_size: 256,
            slots: 64,
            vectors: 2,
            rung: "vector-per-queue".try_into().unwrap(),
            features: 0,
            read_only: false,
            writeback: true,
        };
        let report: Report = serde_json::from_value(serde_json::json!({
            "version": VERSION, "read": read, "write": Direction::default(), "trim": Direction::default(),
            "runtime_ns": 1_000_000_000_u64, "errors": 0, "verify_errors": 0, "notifications": ios / 4,
            "interrupts": ios / 2, "interrupts_home": ios / 2, "submitted": ios, "completed": ios,
            "client_doorbells": ios / 8, "front_doorbells": ios / 10,
            "violations": 0, "full": 0, "atomics": null, "instructions": null,
        }))
        .unwrap();
        Outcome {
            boot,
            report,
            notes: Vec::new(),
            pins: crate::pin::Pins::default(),
            pingpong_ns,
            retries: 0,
            steady: true,
            elapsed: 1.5,
            cpu: (1.0, 0.5),
            others: 0.0,
            busy: Some(0.5),
            guest_instructions: None,
        }
    }

    /// A cell with such samples.
    pub(crate) fn cell(samples: &[(u64, f64)]) -> Cell {
        cell_of("runtime=1 iodepth=4", samples)
    }

    /// Likewise, of the job that `words` describe.
    pub(crate) fn cell_of(words: &str, samples: &[(u64, f64)]) -> Cell {
        Cell {
            job: Draft::of(words).unwrap().finish().unwrap(),
            samples: samples.iter().map(|&(ios, ns)| outcome(ios, Some(ns))).collect(),
        }
    }

    #[test]
    fn near_and_far_samples_are_not_mixed() {
        let cell = cell(&[(100, 50.0), (200, 60.0), (300, 55.0), (9_000, 400.0)]);
        assert_eq!(cell.distance(), Some(Distance::Near));
        assert!((cell.figures().iops - 200.0).abs() < 1e-9);
        assert_eq!(cell.spread(), (100.0, 300.0));
    }

    #[test]
    fn ratios_pair_samples_with_equal_distance_only() {
        let ours = cell(&[(100, 50.0), (300, 400.0), (80, 50.0)]);
        let theirs = cell(&[(200, 50.0), (300, 50.0), (100, 60.0)]);
        assert_eq!(ratios(&ours, &theirs, |one| one.iops), [0.5, 0.8]);
        assert_eq!(ratios_at(&ours, &theirs, Distance::Near, |one| one.iops), [0.5, 0.8]);
        assert!(ratios_at(&ours, &theirs, Distance::Far, |one| one.iops).is_empty());
    }

    #[test]
    fn figures_are_per_io_and_percentiles_are_looked_up_by_their_value() {
        let figures = Figures::of(&outcome(1000, None));
        assert_eq!(figures.notifications_per_io, Some(0.25));
        let mut unseen = outcome(1000, None);
        unseen.report.notifications = None;
        assert_eq!(Figures::of(&unseen).notifications_per_io, None, "unknown is not none at all");
        assert!((figures.p50_ns - 7_000.0).abs() < 1e-9, "50 percent is the seventh");
        assert!((figures.p99_ns - 13_000.0).abs() < 1e-9, "99 percent is the thirteenth");
    }

    #[test]
    fn only_timed_runs_tell_what_others_took() {
        let mut timed = cell(&[(100, 50.0), (100, 50.0), (100, 50.0)]);
        for (sample, share) in timed.samples.iter_mut().zip([0.5, 0.1, 0.2]) {
            sample.others = share;
        }
        let counted =
            Cell { job: Draft::of("number_ios=9").unwrap().finish().unwrap(), samples: timed.samples.clone() };
        assert_eq!(others(&[timed, counted.clone()]), Some(0.2));
        assert_eq!(others(&[counted]), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!((median(vec![]) - 0.0).abs() < 1e-9);
    }
}
