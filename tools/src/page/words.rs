//! What the page says in words: what was measured, what was not and why, and what the numbers do not say.
use crate::page::measured::{Measured, Who};
use crate::page::model::Document;
use crate::page::tables::Verdict;
use std::fmt::Write;

/// How many bounds hold, in one sentence.
pub(crate) fn tally(document: &Document) -> Option<String> {
    let verdicts: Vec<Verdict> = document.checks.iter().map(Verdict::of).collect();
    let count = |wanted: &[Verdict]| verdicts.iter().filter(|verdict| wanted.contains(verdict)).count();
    let (held, missed) = (count(&[Verdict::Must, Verdict::Aim]), count(&[Verdict::Missed]));
    let mut words = match held + missed {
        0 => "None of the bounds was measured".to_owned(),
        judged if missed == 0 => format!("All {judged} bounds that were measured hold"),
        judged => format!("{held} of the {judged} bounds that were measured hold, {missed} missed"),
    };
    let (aims, unmeasured) = (count(&[Verdict::Aim]), count(&[Verdict::Unmeasured]));
    write!(words, "; {aims} reached the aim").ok()?;
    if unmeasured > 0 {
        write!(words, "; {unmeasured} not measured").ok()?;
    }
    (!verdicts.is_empty()).then(|| words + ".")
}

/// What was not measured, each with its reason.
pub(crate) fn missing(document: &Document, jobs: &[Measured]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if let Some(comparison) = &document.comparison {
        let absent = comparison.peers.iter().filter(|peer| peer.state != "measured");
        all.extend(absent.map(|peer| {
            let why = peer.why.clone().unwrap_or_else(|| "no reason was stored".into());
            (peer.title.clone().unwrap_or_else(|| peer.name.clone()), format!("{}: {why}", peer.state))
        }));
        all.extend(comparison.missing.iter().map(|missing| (missing.what.clone(), missing.why.clone())));
    }
    all.extend(document.checks.iter().filter(|check| check.value.is_none()).map(|check| match &check.cores {
        Some(cores) => (format!("{}, cores {cores}", check.what), format!("no pair of samples had its cores {cores}")),
        None => (check.what.clone(), "one of its sides has no result".into()),
    }));
    let failed = jobs.iter().filter(|job| job.error != 0);
    all.extend(failed.map(|job| (job.name.clone(), format!("the job ended with error {}", job.error))));
    if jobs.iter().any(|job| job.counted) && jobs.iter().any(Measured::is_timed) {
        let why = "counting slows a run down, so that each is done in runs of its own";
        all.push(("instructions in timed jobs, time in counted jobs".into(), why.into()));
    }
    all
}

/// What the numbers do not say.
pub(crate) fn caveats(document: &Document, jobs: &[Measured]) -> Vec<String> {
    let is = |key: &str, value: &str| document.environment.get(key).and_then(|text| text.as_str()) == Some(value);
    let any = |who: Who| jobs.iter().any(|job| job.who == who);
    let mut all: Vec<&str> = Vec::new();
    if any(Who::Linux) {
        all.push(
            "Linux includes a block layer and system calls, and ours does not: its whole-guest figures are of more work.",
        );
        all.push(if any(Who::Blockd) {
            "“Ours via blockd” has a client library, a protocol between domains and a front end in its path, and is the \
             nearer comparison."
        } else {
            "The nearer comparison is ours via blockd (--via=blockd), which was not measured here."
        });
    }
    if is("accel", "tcg") {
        all.push(
            "Under emulation (TCG) instructions, notifications and interrupts cost other multiples of what they cost on \
             hardware: I/Os per second rank designs on one machine and promise nothing for another.",
        );
    }
    if jobs.iter().any(Measured::is_timed) {
        all.push(
            "Polled I/Os per second near the device's limit hardly tell drivers apart; instructions, notifications and \
             interrupts per I/O do.",
        );
        all.push(
            "Unless the options name a disk, the device has no medium behind it: these are figures of the path to a \
             disk, not of one.",
        );
    }
    if jobs.iter().any(|job| job.samples > 1) {
        all.push(
            "A median of a few samples moves from run to run: the lowest and the highest sample stand beside it. \
             Percentiles of latency are those of one sample, the one with the median of I/Os per second.",
        );
    }
    if jobs.iter().any(|job| job.cores.is_some()) {
        all.push(
            "The cores' distance is measured by a cache line's round trip before and after each run; samples taken near \
             and far are not mixed.",
        );
    }
    if jobs.iter().any(|job| job.instructions().is_some()) {
        all.push("Instructions are not cycles: a count says what is executed, not what it waits for.");
    }
    if document.comparison.as_ref().is_some_and(|comparison| comparison.quick) {
        all.push("This was a quick run, with fewer and shorter samples than the stored figures have.");
    }
    all.into_iter().map(str::to_owned).collect()
}
