//! What a run says: the result lines, held against the job.
//!
//! The same lines from the image and from the native bench. A line that cannot be read, another version, a device that
//! cannot do the job, an unaccounted request: errors. Knows nothing of how the speaker is run.
use crate::figures::ios;
use crate::job::Job;
use crate::run::Outcome;
use anyhow::{Result, bail};
use workload::report::{Boot, Line, PREFIX, Report, VERSION};

/// The result lines so far.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) boot: Option<Boot>,
    pub(crate) report: Option<Report>,
    pub(crate) failed: Option<String>,
    /// Remarks.
    pub(crate) notes: Vec<String>,
    /// Processor time that was taken between the set-up's end and the report, seconds.
    pub(crate) busy: Option<f64>,
    /// The speaker said all that it will say.
    pub(crate) ended: bool,
}

/// The result line in `text`, if it is one; the error says why it cannot be read.
pub(crate) fn read(text: &str) -> Option<serde_json::Result<Line>> {
    text.strip_prefix(PREFIX).map(serde_json::from_str)
}

impl Heard {
    /// Takes a line in.
    pub(crate) fn take(&mut self, job: &Job, line: Line) -> Result<()> {
        match line {
            Line::Boot(boot) => {
                same_version(job, boot.version)?;
                fits(job, &boot)?;
                self.boot = Some(boot);
            }
            Line::Note(note) => self.notes.push(note.text.to_string()),
            Line::Done(report) => {
                same_version(job, report.version)?;
                self.report = Some(report);
                self.ended = true;
            }
            Line::Failed(note) => {
                self.failed = Some(note.text.to_string());
                self.ended = true;
            }
        }
        Ok(())
    }
}

/// Who speaks.
pub(crate) fn speaker(job: &Job) -> &'static str {
    if job.backend.is_native() { "the native bench" } else { "the image" }
}

fn same_version(job: &Job, version: u32) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let rebuild = if job.backend.is_native() { "leave --native out" } else { "rebuild it (cargo xtask image)" };
    bail!("{} reports in version {version}, this tool reads {VERSION}: {rebuild}", speaker(job));
}

/// Whether the job can be done on what was reached. With vectors for all of its queues a job gets the queues that it
/// asked for, or the device has fewer.
fn fits(job: &Job, boot: &Boot) -> Result<()> {
    if boot.read_only && job.writes() {
        bail!("the disk is read-only and rw={} writes: use rw=randread, or a disk that is writable", job.params.rw);
    }
    let (asked, has) = (job.params.queues, boot.queues);
    if boot.rung.as_str() == "vector-per-queue" && has < asked {
        bail!("queues={asked} is more than the device has ({has}): lower queues");
    }
    Ok(())
}

/// A run that came to its end, of which something must not be.
#[derive(Debug)]
pub(crate) struct Unsound {
    what: String,
    pub(crate) outcome: Box<Outcome>,
}

impl Unsound {
    /// Whether its result says that requests failed. Other results are not shown: they would look like sound ones.
    pub(crate) fn says_so(&self) -> bool {
        self.outcome.report.errors > 0
    }
}

impl std::fmt::Display for Unsound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Unsound {}

/// The outcome, if it is sound; as part of the error otherwise.
pub(crate) fn sound(job: &Job, outcome: Outcome) -> Result<Outcome> {
    match account(job, &outcome.report, &outcome.notes) {
        Ok(()) => Ok(outcome),
        Err(error) => Err(Unsound { what: error.to_string(), outcome: Box::new(outcome) }.into()),
    }
}

/// Every request answered, every block as written, nothing against the specification.
fn account(job: &Job, report: &Report, notes: &[String]) -> Result<()> {
    let name = &job.params.name;
    if report.failures.total() > 0 {
        let shrunk = notes.iter().find(|note| note.starts_with("capacity changed"));
        let shrunk = shrunk.map(|note| format!("; {note}")).unwrap_or_default();
        bail!("{name}: {}{shrunk}", report.failures);
    }
    let bad = [
        ("requests that ended in an error", report.errors),
        ("blocks that were not as written", report.verify_errors),
        ("violations by the device", report.violations),
        ("requests that did not come back", report.submitted.abs_diff(report.completed)),
    ];
    for (what, count) in bad {
        if count > 0 {
            bail!("{name}: {count} {what}");
        }
    }
    if job.params.icount {
        return match report.instructions {
            Some(_) => Ok(()),
            None => bail!("{name}: {} counted no instructions", speaker(job)),
        };
    }
    let (ios, asked) = (ios(report), job.fewest_ios());
    if job.params.scenario.as_str() == "none" && ios < asked {
        bail!("{name}: {ios} I/Os were done, {asked} were asked for");
    }
    Ok(())
}
