//! What `bench` without options measures under QEMU: which cells, how often, in which order.
//!
//! (a) a verified run on a file, checked again by the host; (b) timed cells on a null disk, all of them once per pass, so
//! that whatever drifts drifts under all; cells that are held against one another stand side by side; (c) counted
//! cells, once each, since two counts are equal. Knows words and order; running and showing is `bench`'s.
use crate::check::Check;
use crate::figures::Cell;
use crate::job::{Draft, Job};
use crate::musts;
use anyhow::Result;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Passes over all timed cells.
    pub(crate) passes: usize,
    /// Further passes over the cells that ratios are made of.
    pub(crate) more: usize,
    /// Of one timed run.
    pub(crate) runtime_ms: u64,
    /// Of the verified run.
    pub(crate) verify_ios: u64,
    /// Counts the peers, too.
    pub(crate) count_peers: bool,
    /// No further pass begins after `budget` once there are this many.
    pub(crate) fewest: usize,
    pub(crate) budget: Duration,
}

impl Plan {
    /// Under three minutes on two cores.
    pub(crate) const FULL: Self = Self {
        passes: 5,
        more: 2,
        runtime_ms: 500,
        verify_ios: 20_000,
        count_peers: true,
        fewest: 3,
        budget: Duration::from_secs(140),
    };
    /// Within thirty seconds.
    pub(crate) const QUICK: Self =
        Self { passes: 1, more: 2, runtime_ms: 120, verify_ios: 4_000, count_peers: false, ..Self::FULL };

    /// The same with as many passes as somebody asked for, whatever they take.
    #[must_use]
    pub(crate) fn with_passes(self, passes: Option<u16>) -> Self {
        match passes {
            Some(passes) => Self { passes: passes.into(), more: 0, fewest: passes.into(), ..self },
            None => self,
        }
    }
}

/// All that is measured, and what must hold.
pub(crate) struct Matrix {
    pub(crate) plan: Plan,
    pub(crate) verified: Job,
    pub(crate) timed: Vec<Timed>,
    pub(crate) counted: Vec<Cell>,
    pub(crate) checks: fn(&[Cell]) -> Vec<Check>,
}

/// What is measured under QEMU, its verified run on the file `disk`.
pub(crate) fn qemu(cores: usize, plan: Plan, disk: &str) -> Result<Matrix> {
    Ok(Matrix {
        plan,
        verified: verified(disk, plan)?,
        timed: timed(cores, plan)?,
        counted: counted(plan)?,
        checks: musts::checks,
    })
}

/// A timed cell, and whether a ratio is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) cell: Cell,
    pub(crate) compared: bool,
}

const DEPTHS: [u16; 3] = [1, 32, 128];
const BATCH: u16 = 32;

/// What the verified run does, everywhere.
pub(crate) const VERIFIED: &str = "name=verify rw=randrw verify=crc32c bssplit=512/20:4k/70:16k/8:128k/1.9:1m/0.1 \
     mode=interrupt numjobs=4 queues=4 vectors=5 iodepth=32 iodepth_batch_submit=8";

/// The verified run: several queues, all block sizes, on the file `disk`.
fn verified(disk: &str, plan: Plan) -> Result<Job> {
    let mut draft = Draft::of(VERIFIED)?;
    draft.set("number_ios", &plan.verify_ios.to_string())?;
    draft.set("disk", disk)?;
    draft.finish()
}

/// The timed cells, in the order of measuring and of the table.
fn timed(cores: usize, plan: Plan) -> Result<Vec<Timed>> {
    let several = cores.clamp(2, 4);
    let mut cells = Vec::new();
    for rw in ["randread", "randwrite"] {
        for depth in DEPTHS {
            let batch = depth.min(BATCH);
            let work = format!("rw={rw} bs=4k iodepth={depth} iodepth_batch_submit={batch}");
            let compared = rw == "randread" && depth > 1;
            let mut add = |name: &str, words: &str, compared| -> Result<()> {
                cells.push(timed_cell(&format!("{rw}-{name}-{depth}"), &format!("{work} {words}"), compared, plan)?);
                Ok(())
            };
            add("polled", "mode=polled queues=1", compared)?;
            if compared {
                add("raw", "mode=polled queues=1 driver=raw", true)?;
            }
            if compared && depth == BATCH {
                add("stepped", "mode=polled queues=1 via=blockd front=stepped", true)?;
                add("polled-own", "mode=polled queues=1 via=blockd", false)?;
            }
            add("interrupt", "mode=interrupt queues=1", compared && depth > BATCH)?;
            if compared && depth > BATCH {
                add("interrupt-own", "mode=interrupt queues=1 via=blockd", false)?;
            }
            let many = format!("mode=interrupt queues={several} numjobs={several}");
            add(&format!("interrupt-{several}q"), &many, false)?;
        }
    }
    let one_by_one = "rw=randread bs=4k iodepth=128 mode=polled queues=1";
    for switch in ["on", "off"] {
        let words = format!("{one_by_one} event_idx={switch}");
        cells.push(timed_cell(&format!("randread-event_idx-{switch}-128"), &words, true, plan)?);
    }
    Ok(cells)
}

fn timed_cell(name: &str, words: &str, compared: bool, plan: Plan) -> Result<Timed> {
    let mut draft = Draft::of(words)?;
    draft.named(name)?;
    draft.runtime_unless_said(plan.runtime_ms);
    let job = draft.finish()?;
    let cell = Cell { job, samples: Vec::new() };
    Ok(Timed { cell, compared })
}

/// The counted cells.
fn counted(plan: Plan) -> Result<Vec<Cell>> {
    let words = [
        ("count-1", "iodepth=1 queues=1"),
        ("count-32", "iodepth=32 iodepth_batch_submit=32 queues=1"),
        ("count-32-4q", "iodepth=32 iodepth_batch_submit=32 queues=4"),
        ("count-blockd-1", "iodepth=1 queues=1 via=blockd"),
        ("count-blockd-32", "iodepth=32 iodepth_batch_submit=32 queues=1 via=blockd"),
        ("count-raw-1", "iodepth=1 queues=1 driver=raw"),
        ("count-raw-32", "iodepth=32 iodepth_batch_submit=32 queues=1 driver=raw"),
    ];
    words
        .into_iter()
        .filter(|(name, _)| plan.count_peers || !name.contains("raw"))
        .map(|(name, words)| {
            let mut draft = Draft::of("icount=on rw=randread bs=4k")?;
            draft.add(words)?;
            draft.named(name)?;
            Ok(Cell { job: draft.finish()?, samples: Vec::new() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::outcome;

    #[test]
    fn every_check_finds_its_cells_in_the_matrix() {
        let mut cells: Vec<Cell> = timed(2, Plan::QUICK).unwrap().into_iter().map(|timed| timed.cell).collect();
        cells.extend(counted(Plan::QUICK).unwrap());
        for cell in &mut cells {
            let mut sample = outcome(1_000, Some(50.0));
            sample.boot.queues = 2;
            sample.report.instructions = Some(workload::report::Instructions { submit_milli: 1, complete_milli: 1 });
            cell.samples.push(sample);
        }
        for check in musts::checks(&cells) {
            assert!(check.holds().is_some(), "{} is not measured", check.what);
        }
    }

    #[test]
    fn passes_that_were_asked_for_are_made_and_no_others() {
        let plan = Plan::FULL.with_passes(Some(9));
        assert_eq!((plan.passes, plan.more, plan.fewest), (9, 0, 9));
        assert_eq!(Plan::FULL.with_passes(None).passes, Plan::FULL.passes);
    }

    #[test]
    fn the_issue_cells_are_all_there() {
        let names: Vec<String> =
            timed(2, Plan::QUICK).unwrap().iter().map(|timed| timed.cell.job.params.name.to_string()).collect();
        for rw in ["randread", "randwrite"] {
            for depth in DEPTHS {
                for kind in ["polled", "interrupt", "interrupt-2q"] {
                    assert!(names.contains(&format!("{rw}-{kind}-{depth}")), "{rw} {kind} {depth}");
                }
            }
        }
    }

    #[test]
    fn the_verified_run_uses_several_queues_and_every_block_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        crate::disk::Disk::create(&path, 64 << 20).unwrap();
        let job = verified(&path.to_string_lossy(), Plan::QUICK).unwrap();
        assert_eq!((job.params.numjobs, job.machine.device.queues), (4, 4));
        assert_eq!(job.params.bssplit.len(), 5);
    }
}
