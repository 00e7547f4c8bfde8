//! What must hold, measured by the default bench: bounds that the project set itself.
//!
//! Each check names the cells that it compares; a cell that was not measured makes the check unmeasured, never passed.
use crate::check::Check;
use crate::figures::{Cell, Figures, ratios};
use workload::params::{Driver, Indirect, Mode, Params, Rw, Via};

/// What is counted with lib-block in front, less what is counted without.
pub(crate) const LIB_BLOCK_ADDS: &str = "instructions per I/O added by lib-block, batch 32";

/// Which cells: whatever is not named is the default matrix's value.
#[derive(Clone, Copy)]
struct Which {
    driver: Driver,
    mode: Mode,
    depth: u16,
    batch: u16,
    queues: u16,
    event_idx: bool,
    icount: bool,
    via: Via,
    stepped: bool,
}

const TIMED: Which = Which {
    driver: Driver::Ours,
    mode: Mode::Polled,
    depth: 32,
    batch: 32,
    queues: 1,
    event_idx: true,
    icount: false,
    via: Via::Driver,
    stepped: false,
};
const COUNTED: Which = Which { icount: true, ..TIMED };

impl Which {
    fn is(self, params: &Params) -> bool {
        params.rw == Rw::RandRead
            && params.driver == self.driver
            && params.mode == self.mode
            && params.iodepth == self.depth
            && params.iodepth_batch_submit == self.batch
            && params.queues == self.queues
            && params.event_idx == self.event_idx
            && params.icount == self.icount
            && params.via == self.via
            && params.is_stepped() == self.stepped
            && params.indirect == Indirect::Auto
    }

    fn of(self, cells: &[Cell]) -> Option<&Cell> {
        cells.iter().find(|cell| self.is(&cell.job.params) && !cell.samples.is_empty())
    }

    fn figure(self, cells: &[Cell], figure: fn(&Figures) -> f64) -> Option<f64> {
        self.of(cells).map(|cell| figure(&cell.figures()))
    }

    fn instructions(self, cells: &[Cell]) -> Option<f64> {
        Some(self.of(cells)?.figures().instructions_per_io?.total)
    }

    /// The ratios of this cell to `other`.
    fn against(self, other: Self, cells: &[Cell], figure: fn(&Figures) -> f64) -> Vec<f64> {
        self.of(cells).zip(other.of(cells)).map_or_else(Vec::new, |(ours, theirs)| ratios(ours, theirs, figure))
    }
}

/// Every bound that the default bench measures.
pub(crate) fn checks(cells: &[Cell]) -> Vec<Check> {
    driver(cells).into_iter().chain(lib_block(cells)).collect()
}

/// What the driver itself is held to.
fn driver(cells: &[Cell]) -> Vec<Check> {
    let raw = |depth| Which { driver: Driver::Raw, depth, ..TIMED };
    let deep = Which { mode: Mode::Interrupt, depth: 128, ..TIMED };
    let single = Which { depth: 1, batch: 1, ..COUNTED };
    let four = Which { queues: 4, ..COUNTED };
    let one_by_one = Which { depth: 128, batch: 1, ..TIMED };
    let unsuppressed = Which { event_idx: false, ..one_by_one };
    let more_queues = four.instructions(cells).zip(COUNTED.instructions(cells)).map(|(four, one)| four / one);
    vec![
        Check::at_most("instructions per I/O, batch 32", 130.0, Some(80.0), COUNTED.instructions(cells)),
        Check::at_most("instructions per I/O, batch 1", 220.0, Some(150.0), single.instructions(cells)),
        Check::at_most("instructions per I/O, 4 queues against 1", 1.02, None, more_queues),
        Check::at_least("polled IOPS, depth 32, against raw polled", 0.85, Some(0.97), None).among(TIMED.against(
            raw(32),
            cells,
            |one| one.iops,
        )),
        Check::at_least("interrupt-driven IOPS, depth 128, against raw polled", 0.6, Some(0.75), None)
            .among(deep.against(raw(128), cells, |one| one.iops)),
        Check::at_most(
            "notifications per I/O, interrupt-driven, depth 128, batch 32",
            1.0 / 32.0,
            None,
            deep.figure(cells, rung),
        ),
        Check::at_most(
            "interrupts per I/O, depth 128, batch 32",
            1.0 / 16.0,
            Some(1.0 / 32.0),
            // None at all is a miscount, not a success: somebody woke the halted vCPU.
            deep.figure(cells, |one| one.interrupts_per_io).filter(|&per_io| per_io > 0.0),
        ),
        Check::at_most("notifications per I/O, depth 128, batch 1, event_idx on against off", 0.5, None, None)
            .among(one_by_one.against(unsuppressed, cells, rung)),
        Check::at_least("completions on their submitter's vCPU, a vector per queue", 1.0, None, at_home(cells)),
    ]
}

/// Notifications per I/O, of drivers that let them be seen.
fn rung(figures: &Figures) -> f64 {
    figures.notifications_per_io.unwrap_or(f64::NAN)
}

/// What lib-block may take of it.
fn lib_block(cells: &[Cell]) -> Vec<Check> {
    let over = |which: Which| Which { via: Via::Blockd, stepped: true, ..which };
    let added = over(COUNTED).instructions(cells).zip(COUNTED.instructions(cells)).map(|(via, driver)| via - driver);
    let deep = Which { via: Via::Blockd, mode: Mode::Interrupt, depth: 128, ..TIMED };
    vec![
        Check::at_most(LIB_BLOCK_ADDS, 200.0, Some(110.0), added),
        Check::at_least("IOPS via blockd, stepped, against via driver, polled, depth 32", 0.7, Some(0.85), None)
            .among(over(TIMED).against(TIMED, cells, |one| one.iops)),
        Check::at_most(
            "doorbells between client and front end per I/O, interrupt-driven, depth 128, batch 32",
            1.0 / 32.0,
            None,
            deep.figure(cells, |one| one.doorbells_per_io.clients + one.doorbells_per_io.front_ends),
        ),
    ]
}

/// The share of interrupts that arrived where the queue's submitter is, over all cells with several queues.
fn at_home(cells: &[Cell]) -> Option<f64> {
    let several = cells
        .iter()
        .flat_map(|cell| &cell.samples)
        .filter(|one| one.boot.queues > 1 && one.boot.rung.as_str() == "vector-per-queue" && one.report.interrupts > 0);
    let (home, all) =
        several.fold((0, 0), |(home, all), one| (home + one.report.interrupts_home, all + one.report.interrupts));
    (all > 0).then(|| home as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::outcome;
    use crate::job::Draft;

    fn cell(words: &str, ios: u64) -> Cell {
        let job = Draft::of(words).unwrap().finish().unwrap();
        Cell { job, samples: vec![outcome(ios, Some(50.0))] }
    }

    #[test]
    fn a_cell_that_was_not_measured_passes_nothing() {
        assert!(checks(&[]).iter().all(|check| check.holds().is_none()));
    }

    #[test]
    fn ours_is_held_against_raw_at_equal_depth() {
        let words = "mode=polled queues=1 iodepth=32 iodepth_batch_submit=32 runtime=1";
        let ours = cell(words, 84);
        let raw = cell(&format!("{words} driver=raw"), 100);
        let all = checks(&[ours, raw]);
        let check = all.iter().find(|check| check.what.starts_with("polled IOPS")).unwrap();
        assert_eq!((check.value, check.mark()), (Some(0.84), "FAIL"));
    }
}
