//! One run: a job on whatever its back-end needs, to a report that accounts for every request, or to an error.
//!
//! Timed runs are bracketed by ping-pong samples; a run during which the cores moved is discarded and repeated. There
//! is no partial result: a process that dies, a panic, a missing report or an unaccounted request are errors. Knows
//! when runs are repeated, not what the lines mean (`heard`) nor how anything is started (`running`).
use crate::blockd::Frame;
use crate::callgrind::{self, Count};
use crate::cpu::Usage;
use crate::fail;
use crate::guest_count::Plugin;
use crate::heard::{self, Heard};
use crate::job::Job;
use crate::linux::{self, Guest};
use crate::native::{Native, Process};
use crate::pin::{self, Pins};
use crate::pingpong::{self, Distance};
use crate::running::Running;
use crate::say::note;
use crate::stop;
use crate::verify;
use crate::vm::Hypervisor;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use workload::params::Driver;
use workload::report::{Boot, Line, Report};

/// How often a run is repeated because its cores moved.
const RETRIES: u32 = 3;
/// Cores moved when the samples before and after differ by more than this factor.
const MOVED: f64 = 2.0;

/// How often a run is repeated because QEMU itself crashed.
const CRASHES: u32 = 2;

/// What every run shares: what the jobs at hand need, and no more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bed {
    pub(crate) qemu: Option<Hypervisor>,
    pub(crate) native: Option<Native>,
    pub(crate) linux: Option<Guest>,
    /// What counts the instructions of a guest, if that is wanted.
    pub(crate) plugin: Option<Plugin>,
    /// Longest time for one run; from the job's length if not given.
    pub(crate) timeout: Option<Duration>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) boot: Boot,
    pub(crate) report: Report,
    /// Remarks of the image or the native bench.
    pub(crate) notes: Vec<String>,
    pub(crate) pins: Pins,
    /// Nanoseconds per round trip, where timed on two cores.
    pub(crate) pingpong_ns: Option<f64>,
    /// Runs discarded before this one.
    pub(crate) retries: u32,
    /// The cores did not move during this run.
    pub(crate) steady: bool,
    /// The processes' life, seconds, and the processor time they took (user, system).
    pub(crate) elapsed: f64,
    pub(crate) cpu: (f64, f64),
    /// The share of the processors that others took meanwhile.
    pub(crate) others: f64,
    /// Processor time of driver and device between the set-up's end and the report, seconds.
    pub(crate) busy: Option<f64>,
    /// Instructions of the whole guest per I/O, where they were counted.
    pub(crate) guest_instructions: Option<f64>,
}

impl Outcome {
    pub(crate) fn distance(&self) -> Option<Distance> {
        self.pingpong_ns.map(Distance::of)
    }
}

/// What a run said, and what was seen of it from outside.
pub(crate) struct Told {
    pub(crate) boot: Boot,
    pub(crate) report: Report,
    pub(crate) notes: Vec<String>,
    pub(crate) busy: Option<f64>,
    pub(crate) guest_instructions: Option<f64>,
}

/// Says what a run noted, on standard error; not again when the same job runs again.
fn tell_once(note: &str) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(note.to_owned()) {
        note!("note: {note}");
    }
}

/// Sees each result line as it comes, with what runs at hand.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&mut Running, &Line) -> Result<()>;

impl Bed {
    /// Runs `job`; a timed run whose cores moved is repeated a few times.
    pub(crate) fn run(&self, job: &Job) -> Result<Outcome> {
        let _limit = stop::within(self.timeout);
        let mut retries = 0;
        loop {
            let before = distance(job);
            let mut outcome = self.watched(job, &mut |_, _| Ok(()))?;
            outcome.retries += retries;
            outcome.notes.iter().for_each(|note| tell_once(&format!("{}: {note}", job.params.name)));
            let (Some(before), Some(after)) = (before, distance(job)) else {
                return Ok(outcome);
            };
            outcome.pingpong_ns = Some(f64::midpoint(before, after));
            outcome.steady = before.max(after) <= MOVED * before.min(after);
            if outcome.steady || retries == RETRIES {
                if !outcome.steady {
                    note!(
                        "note: {}: the cores moved ({before:.0} to {after:.0} ns) in each of {} runs; the last one stands",
                        job.params.name,
                        retries + 1
                    );
                }
                return Ok(outcome);
            }
            retries += 1;
            stop::renew();
        }
    }

    /// Runs `job` once; `watch` may act on the machine meanwhile. A QEMU that crashes by itself (7.2 was seen to, under
    /// TCG with two vCPUs, in `memory_region_dispatch_write`) says nothing of the driver: the run is repeated from its
    /// start, and counted.
    pub(crate) fn watched(&self, job: &Job, watch: Watch<'_>) -> Result<Outcome> {
        let _limit = stop::within(self.timeout);
        let name = &job.params.name;
        for crashes in 0..=CRASHES {
            match self.attempt(job, watch) {
                Err(error) if fail::is_crash(&error) && crashes < CRASHES => {
                    note!("note: {name}: {}; repeated", fail::line(&error));
                    stop::renew();
                    verify::restart(job)?;
                }
                Ok(outcome) => return Ok(Outcome { retries: crashes, ..outcome }),
                Err(error) => return Err(error.context(format!("job {name}"))),
            }
        }
        bail!("job {name}: QEMU crashed again and again");
    }

    /// Runs a scenario that only succeeds or does not, without a report.
    pub(crate) fn succeeds(&self, job: &Job) -> Result<()> {
        let ran = || {
            let frame = Frame::of(job)?;
            let mut running = Running::start(self, job)?;
            let (heard, status) = self.listen(&mut running, job, &mut |_, _| Ok(()))?;
            if heard.failed.is_none() && running.succeeded(status) {
                return frame.map_or(Ok(()), |frame| frame.holds());
            }
            Err(unfinished(&mut running, job, status, heard.failed))
        };
        ran().with_context(|| format!("scenario {}", job.params.scenario))
    }

    fn attempt(&self, job: &Job, watch: Watch<'_>) -> Result<Outcome> {
        let frame = Frame::of(job)?;
        let start = Instant::now();
        let before = Usage::now();
        let mut told = if job.params.driver == Driver::Linux {
            linux::run(self, job, watch)?
        } else if job.params.icount && job.backend.is_native() {
            self.counted(job)?
        } else {
            self.reported(Running::start(self, job)?, job, watch)?
        };
        if told.report.length_anomalies > 0 {
            let note = "the device reports more bytes than it may write (see drv.length_anomalies); its status decided";
            told.notes.push(note.to_owned());
        }
        let (now, elapsed) = (Usage::now(), start.elapsed().as_secs_f64());
        frame.map_or(Ok(()), |frame| frame.holds())?;
        let outcome = Outcome {
            boot: told.boot,
            report: told.report,
            notes: told.notes,
            pins: job.pins()?,
            pingpong_ns: None,
            retries: 0,
            steady: true,
            elapsed,
            cpu: now.children_since(&before),
            others: now.others_since(&before, pin::cores()?.len(), elapsed),
            // Under icount, time is virtual.
            busy: told.busy.filter(|_| !job.params.icount),
            guest_instructions: told.guest_instructions,
        };
        heard::sound(job, outcome)
    }

    /// To the report of what runs.
    fn reported(&self, mut running: Running, job: &Job, watch: Watch<'_>) -> Result<Told> {
        let (heard, status) = self.listen(&mut running, job, watch)?;
        match (heard.boot, heard.report) {
            (Some(boot), Some(report)) if running.succeeded(status) => {
                let Heard { notes, busy, .. } = heard;
                Ok(Told { boot, report, notes, busy, guest_instructions: None })
            }
            (Some(_), Some(_)) => Err(unfinished(&mut running, job, status, None)),
            _ => Err(unfinished(&mut running, job, status, heard.failed)),
        }
    }

    /// The native bench under callgrind, often enough for both halves.
    fn counted(&self, job: &Job) -> Result<Told> {
        let native = self.native.as_ref().context("the native bench was not built")?;
        let mut last = None;
        let instructions = callgrind::count(job, |job: &Job, count: &Count<'_>| {
            let running = Running::Native(Box::new(Process::start(native, job, Some(count))?));
            last = Some(self.reported(running, job, &mut |_, _| Ok(()))?);
            Ok(())
        })?;
        let mut told = last.context("nothing was counted")?;
        told.report.instructions = Some(instructions);
        // Time under callgrind is not the driver's.
        told.busy = None;
        Ok(told)
    }

    /// To the end of what runs.
    fn listen(&self, running: &mut Running, job: &Job, watch: Watch<'_>) -> Result<(Heard, ExitStatus)> {
        let deadline = Instant::now() + self.timeout.unwrap_or_else(|| longest(job));
        let mut heard = Heard::default();
        let mut before = None;
        while !heard.ended {
            let Some(text) = running.next_line(deadline)? else {
                break;
            };
            let Some(line) = heard::read(&text) else {
                continue;
            };
            let speaker = heard::speaker(job);
            let line = line.map_err(|error| {
                running.failure(&format!("{speaker} printed a result line that cannot be read ({error})"))
            })?;
            match line {
                Line::Boot(_) => before = running.cpu(),
                Line::Done(_) => heard.busy = running.cpu().zip(before).map(|(now, before)| now - before),
                _ => (),
            }
            watch(running, &line)?;
            heard.take(job, line)?;
        }
        let status = running.end()?;
        Ok((heard, status))
    }
}

/// The ping-pong between the first job's core and the device's, or, if the jobs step the device, the second job's; of
/// jobs that are timed on two cores.
fn distance(job: &Job) -> Option<f64> {
    let pins = job.pins().ok()?;
    let here = *pins.vcpus.first()?;
    let there = *pins.iothreads.first().or_else(|| pins.vcpus.get(1))?;
    let timed = job.params.runtime_ms > 0 && !job.params.icount;
    (timed && here != there).then(|| pingpong::sample(here, there).ok())?
}

/// The error for a run without a report.
fn unfinished(running: &mut Running, job: &Job, status: ExitStatus, failed: Option<String>) -> anyhow::Error {
    match failed {
        Some(text) => running.failure(&format!("{} reported: {text}", heard::speaker(job))),
        None => running.ended(status),
    }
}

/// What a job takes on a slow host: twice its runtime, or 500 I/Os per second if that is sooner; at most an hour, which is
/// the runner's own bound.
pub(crate) fn taking(job: &Job) -> Duration {
    let (timed, ios) = (2 * job.params.runtime_ms, job.most_ios().saturating_mul(2));
    let milliseconds = if timed == 0 { ios } else { timed };
    Duration::from_millis(milliseconds).min(Duration::from_hours(1) + Duration::from_millis(timed))
}

/// Room for a slow host: boot, two seconds for each vCPU, twice the runtime, 500 I/Os and two restarts per second.
fn longest(job: &Job) -> Duration {
    let params = &job.params;
    if params.icount {
        // As many batches as are counted, whatever `number_ios` says.
        return Duration::from_mins(1);
    }
    let restarts = Duration::from_millis(500) * u32::from(params.kills);
    let vcpus = Duration::from_secs(2) * u32::from(job.machine.vcpus);
    Duration::from_secs(30) + taking(job) + restarts + vcpus
}
