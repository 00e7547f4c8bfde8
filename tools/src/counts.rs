//! Scenarios about instructions per I/O, by whatever counts them on the lab's device.
use crate::icount;
use crate::lab::Lab;
use anyhow::{Result, ensure};

/// One at a time.
pub(crate) const BATCH_1: &str = "iodepth=1";
/// In batches.
pub(crate) const BATCH_32: &str = "iodepth=32 iodepth_batch_submit=32";

/// Counting is no measuring: nothing varies.
pub(crate) fn are_equal(lab: &Lab) -> Result<()> {
    for words in [BATCH_1, BATCH_32] {
        let (first, second) = (lab.count(words)?, lab.count(words)?);
        ensure!(first == second, "{words}: {first:?}, then {second:?}");
    }
    Ok(())
}

/// Counts of `jobs` (name, words, at most) against the bounds, and against what is stored for this compiler.
pub(crate) fn are_bounded(lab: &Lab, record: bool, jobs: [(&str, &str, f64); 2]) -> Result<()> {
    let path = icount::path();
    let rustc = crate::environment::rustc();
    let stored = icount::load(&path)?;
    for (job, words, must) in jobs {
        let count = lab.count(words)?;
        if record {
            icount::record(&path, &rustc, job, count)?;
        } else {
            icount::compare(&stored, &rustc, job, count, must)?;
        }
    }
    Ok(())
}
