//! Scenarios about instructions per I/O, by whatever counts them on the lab's device.
use crate::icount::{self, Count};
use crate::lab::Lab;
use anyhow::{Result, ensure};

/// One at a time.
pub(crate) const BATCH_1: &str = "iodepth=1";
/// In batches.
pub(crate) const BATCH_32: &str = "iodepth=32 iodepth_batch_submit=32";
/// What lib-block may add one at a time, a pass of every part for a single request: only what is stored bounds it.
pub(crate) const LIB_BLOCK_1: f64 = f64::INFINITY;
/// What it may add in batches. It must not be more than 200, which is missed and shown so by the matrix; this guards
/// against growth.
pub(crate) const LIB_BLOCK_32: f64 = 250.0;

/// Counting is no measuring: nothing varies.
pub(crate) fn are_equal(lab: &Lab) -> Result<()> {
    are_equal_of(lab, &[BATCH_1, BATCH_32])
}

/// Likewise, of these jobs.
pub(crate) fn are_equal_of<W: AsRef<str>>(lab: &Lab, jobs: &[W]) -> Result<()> {
    for words in jobs.iter().map(AsRef::as_ref) {
        let (first, second) = (lab.count(words)?, lab.count(words)?);
        ensure!(first == second, "{words}: {first:?}, then {second:?}");
    }
    Ok(())
}

/// Counts of `jobs` (name, words, at most) against the bounds, and against what is stored for this compiler.
pub(crate) fn are_bounded(lab: &Lab, record: bool, jobs: [(&str, &str, f64); 2]) -> Result<()> {
    hold(record, jobs, |words| lab.count(words))
}

/// What lib-block adds to `jobs`: counted with it in front, less what is counted without it. Held likewise.
pub(crate) fn added_are_bounded(lab: &Lab, record: bool, jobs: [(&str, &str, f64); 2]) -> Result<()> {
    hold(record, jobs, |words| {
        let (with, without) = (lab.count(&format!("{words} via=blockd"))?, lab.count(words)?);
        Ok(Count { submit: with.submit - without.submit, complete: with.complete - without.complete })
    })
}

fn hold(record: bool, jobs: [(&str, &str, f64); 2], count: impl Fn(&str) -> Result<Count>) -> Result<()> {
    let path = icount::path()?;
    let rustc = crate::environment::rustc();
    let stored = icount::load(&path)?;
    for (job, words, must) in jobs {
        let count = count(words)?;
        if record {
            icount::record(&path, &rustc, job, count)?;
        } else {
            icount::compare(&stored, &rustc, job, count, must)?;
        }
    }
    Ok(())
}
