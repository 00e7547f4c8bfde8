//! Instructions per I/O as a regression test, against numbers stored per compiler version.
//!
//! Counts depend on the compiler alone, so each version has its own; a version without numbers is held to the bounds
//! only. Knows the file; running the counts is the scenarios'.
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How much a count may grow before the test fails.
const TOLERANCE: f64 = 1.05;

/// Instructions per I/O of one job.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) submit: f64,
    pub(crate) complete: f64,
}

/// Compiler version, then job, to count.
pub(crate) type Stored = BTreeMap<String, BTreeMap<String, Count>>;

/// Where the numbers are.
pub(crate) fn path() -> Result<PathBuf> {
    Ok(crate::root::root()?.join("bench/results/icount.json"))
}

/// The stored numbers; none if there is no file.
pub(crate) fn load(path: &Path) -> Result<Stored> {
    if !path.exists() {
        return Ok(Stored::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged: restore it from the repository", path.display()))
}

/// Stores `count` under `rustc` and `job`.
pub(crate) fn record(path: &Path, rustc: &str, job: &str, count: Count) -> Result<()> {
    let mut stored = load(path)?;
    stored.entry(rustc.to_owned()).or_default().insert(job.to_owned(), count);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    crate::json::write(path, &serde_json::to_value(stored)?)
}

/// Holds `count` to `must`, and to what is stored for this compiler.
pub(crate) fn compare(stored: &Stored, rustc: &str, job: &str, count: Count, must: f64) -> Result<()> {
    let total = count.submit + count.complete;
    if total > must {
        bail!("{job}: {total:.1} instructions per I/O, at most {must} are allowed");
    }
    let Some(before) = stored.get(rustc).and_then(|jobs| jobs.get(job)) else {
        return Ok(());
    };
    for (part, now, then) in [("submit", count.submit, before.submit), ("complete", count.complete, before.complete)] {
        if now > then * TOLERANCE {
            bail!(
                "{job}: {part} grew from {then:.1} to {now:.1} instructions per I/O: make it cheaper, or store the new \
                 number with cargo xtask test --only=counts --record and say why"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Count = Count { submit: 40.0, complete: 30.0 };

    #[test]
    fn growth_beyond_the_tolerance_fails_and_another_compiler_is_held_to_the_bound_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/icount.json");
        record(&path, "rustc 1", "batch-32", COUNT).unwrap();
        let stored = load(&path).unwrap();
        let slightly = Count { submit: 41.9, ..COUNT };
        let more = Count { submit: 42.1, ..COUNT };
        assert!(compare(&stored, "rustc 1", "batch-32", slightly, 130.0).is_ok());
        assert!(compare(&stored, "rustc 1", "batch-32", more, 130.0).is_err());
        assert!(compare(&stored, "rustc 2", "batch-32", more, 130.0).is_ok());
        assert!(compare(&stored, "rustc 2", "batch-32", more, 70.0).is_err());
    }

    #[test]
    fn recording_keeps_the_other_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("icount.json");
        record(&path, "rustc 1", "batch-1", COUNT).unwrap();
        record(&path, "rustc 2", "batch-1", COUNT).unwrap();
        record(&path, "rustc 2", "batch-32", COUNT).unwrap();
        let stored = load(&path).unwrap();
        assert_eq!((stored["rustc 1"].len(), stored["rustc 2"].len()), (1, 2));
    }

    #[test]
    fn a_damaged_file_is_an_error_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("icount.json");
        std::fs::write(&path, "{\"rustc").unwrap();
        assert!(load(&path).is_err());
    }
}
