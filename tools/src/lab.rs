//! What scenarios are run with: helpers that boot, verify and compare, on any device.
use crate::disk::Disk;
use crate::fail;
use crate::icount::Count;
use crate::job::{Draft, Job};
use crate::partitions;
use crate::run::{Bed, Outcome, Watch};
use crate::verify;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// How much a test run includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// At most three minutes.
    Quick,
    Default,
    /// The big numbers.
    Long,
}

impl Size {
    /// One of three.
    pub(crate) fn pick<T>(self, quick: T, default: T, long: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Default => default,
            Self::Long => long,
        }
    }
}

/// What scenarios are run with.
pub(crate) struct Lab {
    pub(crate) bed: Bed,
    pub(crate) size: Size,
    /// The words that name the back-end; none for QEMU.
    pub(crate) place: &'static str,
}

/// A scenario at work.
pub(crate) type Run = Box<dyn Fn(&Lab) -> Result<()>>;

/// Disk of a verified run.
pub(crate) const BYTES: u64 = 64 << 20;
/// All block sizes, mostly small.
pub(crate) const SPLIT: &str = "bssplit=512/20:4k/70:16k/8:128k/1.9:1m/0.1";

/// The run must fail, and its one line must contain `word`.
pub(crate) fn refused(result: Result<Outcome>, word: &str) -> Result<()> {
    let Err(error) = result else {
        bail!("it was not refused");
    };
    let line = fail::line(&error);
    if line.contains(word) { Ok(()) } else { Err(error.context("it was refused, but not for that reason")) }
}

pub(crate) fn protected(mut job: Job) -> Job {
    job.machine.disk = job.machine.disk.protected();
    job
}

impl Lab {
    fn draft(&self, words: &str) -> Result<Draft> {
        Draft::of(&format!("{} {words}", self.place))
    }

    /// Runs a job on the null disk.
    pub(crate) fn boot(&self, words: &str) -> Result<Outcome> {
        let job = self.draft(words)?.finish()?;
        self.bed.watched(&job, &mut |_, _| Ok(()))
    }

    /// Runs a job on a file of zeros, on a machine changed by `change`.
    pub(crate) fn on_file(&self, words: &str, change: fn(Job) -> Job) -> Result<Outcome> {
        self.on_file_watched(words, change, &mut |_, _| Ok(()))
    }

    pub(crate) fn on_file_watched(&self, words: &str, change: fn(Job) -> Job, watch: Watch<'_>) -> Result<Outcome> {
        let (_folder, job) = self.job_on_file(words)?;
        self.bed.watched(&change(job), watch)
    }

    /// Writes and verifies through the driver, then checks the file here.
    pub(crate) fn verified(&self, words: &str) -> Result<Outcome> {
        let (_folder, job) = self.job_on_file(&format!("rw=randrw verify=crc32c {words}"))?;
        self.verified_job(&job)
    }

    /// Likewise, of a job with its file.
    pub(crate) fn verified_job(&self, job: &Job) -> Result<Outcome> {
        let outcome = self.bed.watched(job, &mut |_, _| Ok(()))?;
        verify::check(job)?;
        Ok(outcome)
    }

    /// Runs a scenario of the runner's on a file of zeros; it checks by itself and says so.
    pub(crate) fn succeeds(&self, words: &str) -> Result<()> {
        let (_folder, job) = self.job_on_file(words)?;
        self.bed.succeeds(&job)
    }

    /// A job and a new file of zeros for it.
    pub(crate) fn job_on_file(&self, words: &str) -> Result<(tempfile::TempDir, Job)> {
        let folder = tempfile::tempdir().context("making a folder for the disk")?;
        let path = folder.path().join("disk.raw");
        Disk::create(&path, BYTES)?;
        let job = self.job_on(&path, words)?;
        Ok((folder, job))
    }

    /// A job over blockd whose `clients` have a partition each, and a new file for it.
    pub(crate) fn job_on_partitions(&self, words: &str, clients: u16) -> Result<(tempfile::TempDir, Job)> {
        let folder = tempfile::tempdir().context("making a folder for the disk")?;
        let path = folder.path().join("disk.raw");
        partitions::make(&path, BYTES, clients)?;
        let job = self.job_on(&path, &format!("via=blockd partitions=on clients={clients} {words}"))?;
        Ok((folder, job))
    }

    /// A job on the file that is at `path`.
    pub(crate) fn job_on(&self, path: &Path, words: &str) -> Result<Job> {
        let mut draft = self.draft(words)?;
        draft.set("disk", &path.to_string_lossy())?;
        draft.finish()
    }

    /// Instructions per I/O.
    pub(crate) fn count(&self, words: &str) -> Result<Count> {
        let report = self.boot(&format!("icount=on rw=randread queues=1 {words}"))?.report;
        let counted = report.instructions.context("no instructions were counted")?;
        Ok(Count { submit: counted.submit_milli as f64 / 1000.0, complete: counted.complete_milli as f64 / 1000.0 })
    }
}
