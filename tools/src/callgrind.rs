//! Instructions per I/O natively: valgrind's callgrind on two fixed counts, whose difference leaves start and end out.
//!
//! One run counts one of the two halves, between entry and exit of a function that the native bench has for it. The
//! device is stepped by the caller outside of both. Knows file and options of callgrind; nothing of rings.
use crate::job::Job;
use crate::native::{self, Native};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;
use workload::report::Instructions;

/// The smaller count, in batches: as many as the runner counts at least.
const FEW: u64 = 256;
/// The larger count, in batches, unless the job says.
pub(crate) const BATCHES: u64 = 5 * FEW;

/// A half of an I/O, by the function that callgrind counts in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Half {
    Submit,
    Complete,
}

impl Half {
    fn function(self) -> &'static str {
        match self {
            Self::Submit => "*counted_submit*",
            Self::Complete => "*counted_complete*",
        }
    }
}

/// One counted run.
pub(crate) struct Count<'a> {
    half: Half,
    out: &'a Path,
}

impl Count<'_> {
    /// The native bench under callgrind, its own arguments left to the caller.
    pub(crate) fn command(&self, native: &Native) -> Result<Command> {
        let Some(valgrind) = &native.valgrind else {
            bail!("there is no valgrind here");
        };
        let mut command = Command::new(valgrind);
        command
            .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
            .arg(format!("--toggle-collect={}", self.half.function()))
            .arg(native::option("callgrind-out-file", self.out))
            .arg(&native.program);
        Ok(command)
    }
}

/// Counts what `run` does on two counts of I/Os, for either half.
pub(crate) fn count(job: &Job, mut run: impl FnMut(&Job, &Count<'_>) -> Result<()>) -> Result<Instructions> {
    let folder = tempfile::tempdir().context("making a folder for callgrind's results")?;
    let (few, many) = counts(job)?;
    let mut half = |half: Half| -> Result<u64> {
        let mut at = |ios: u64| -> Result<u64> {
            let mut job = job.clone();
            job.params.number_ios = ios;
            let out = folder.path().join("out");
            run(&job, &Count { half, out: &out })?;
            total(&out)
        };
        let (few_cost, many_cost) = (at(few)?, at(many)?);
        ensure!(
            few_cost > 0 && many_cost > few_cost,
            "callgrind counted {few_cost} instructions in {} for {few} I/Os and {many_cost} for {many}",
            half.function()
        );
        Ok((many_cost - few_cost) * 1000 / (many - few))
    };
    Ok(Instructions { submit_milli: half(Half::Submit)?, complete_milli: half(Half::Complete)? })
}

/// Two counts of I/Os, in whole batches over all queues; an error if the job has too few for that.
pub(crate) fn counts(job: &Job) -> Result<(u64, u64)> {
    let params = &job.params;
    let round = u64::from(params.iodepth_batch_submit) * u64::from(job.machine.device.queues);
    let few = FEW * round;
    let many = params.number_ios / round * round;
    ensure!(many >= 2 * few, "number_ios={} is too few to count: give at least {}", params.number_ios, 2 * few);
    Ok((few, many))
}

/// All instructions in callgrind's results.
fn total(out: &Path) -> Result<u64> {
    let shown = out.display();
    let text = std::fs::read_to_string(out).with_context(|| format!("callgrind left no results in {shown}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    let count = line.and_then(|counts| counts.split_ascii_whitespace().next()?.parse().ok());
    count.with_context(|| format!("callgrind's results in {shown} have no totals"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;

    fn job() -> Job {
        Draft::of("icount=on backend=embedded iodepth=32 iodepth_batch_submit=32").unwrap().finish().unwrap()
    }

    #[test]
    fn the_difference_of_two_counts_is_per_io() {
        // Start and end cost 5000, an I/O 40 to submit and 25 to complete.
        let counted = count(&job(), |job, count| {
            let each = match count.half {
                Half::Submit => 40,
                Half::Complete => 25,
            };
            let text = format!("version: 1\nevents: Ir\nsummary: {}\n", 5_000 + each * job.params.number_ios);
            Ok(std::fs::write(count.out, text)?)
        });
        assert_eq!(counted.unwrap(), Instructions { submit_milli: 40_000, complete_milli: 25_000 });
    }

    #[test]
    fn a_function_that_never_ran_is_an_error_and_not_zero_instructions() {
        let nothing = count(&job(), |_, count| Ok(std::fs::write(count.out, "events: Ir\ntotals: 0\n")?));
        assert!(nothing.unwrap_err().to_string().contains("counted_submit"));
        let silent = count(&job(), |_, count| Ok(std::fs::write(count.out, "events: Ir\n")?));
        assert!(silent.unwrap_err().to_string().contains("no totals"));
    }

    #[test]
    fn counts_are_whole_batches_and_too_few_are_refused() {
        let (few, many) = counts(&job()).unwrap();
        assert_eq!((few, many), (8_192, 40_960));
        let mut short = job();
        short.params.number_ios = 10_000;
        assert!(counts(&short).unwrap_err().to_string().contains("16384"));
    }
}
