//! One run: a job on a QEMU of its own, to a report that accounts for every request, or to an error.
//!
//! Timed runs are bracketed by ping-pong samples; a run during which the cores moved is discarded and repeated. There
//! is no partial result: QEMU dying, a panic, a missing report or an unaccounted request are errors. Knows what the
//! image says (`workload::report`), not what is done with it.
use crate::fail;
use crate::figures::ios;
use crate::job::Job;
use crate::machine::Accel;
use crate::pin::{self, Pins};
use crate::pingpong::{self, Distance};
use crate::qemu::Qemu;
use crate::verify;
use crate::vm::Vm;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use workload::report::{Boot, Line, PREFIX, Report, VERSION};

/// How often a run is repeated because its cores moved.
const RETRIES: u32 = 3;
/// Cores moved when the samples before and after differ by more than this factor.
const MOVED: f64 = 2.0;

/// How often a run is repeated because QEMU itself crashed.
const CRASHES: u32 = 2;

/// QEMU's exit status when the image says that all went well.
const SUCCESS: i32 = 33;

/// What every run shares.
#[derive(Clone, Debug)]
pub(crate) struct Bed {
    pub(crate) qemu: Qemu,
    pub(crate) image: PathBuf,
    pub(crate) accel: Accel,
    /// Longest time for one run; from the job's length if not given.
    pub(crate) timeout: Option<Duration>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) boot: Boot,
    pub(crate) report: Report,
    /// Remarks of the image.
    pub(crate) notes: Vec<String>,
    pub(crate) pins: Pins,
    /// Nanoseconds per round trip, where timed on two cores.
    pub(crate) pingpong_ns: Option<f64>,
    /// Runs discarded before this one.
    pub(crate) retries: u32,
    /// The cores did not move during this run.
    pub(crate) steady: bool,
    /// QEMU's life, seconds, and the processor time it took (user, system).
    pub(crate) elapsed: f64,
    pub(crate) cpu: (f64, f64),
}

impl Outcome {
    pub(crate) fn distance(&self) -> Option<Distance> {
        self.pingpong_ns.map(Distance::of)
    }
}

/// Sees each result line as it comes, with the machine at hand.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&mut Vm, &Line) -> Result<()>;

impl Bed {
    /// Runs `job`; a timed run whose cores moved is repeated a few times.
    pub(crate) fn run(&self, job: &Job) -> Result<Outcome> {
        let mut retries = 0;
        loop {
            let before = distance(job);
            let mut outcome = self.watched(job, &mut |_, _| Ok(()))?;
            outcome.retries += retries;
            let (Some(before), Some(after)) = (before, distance(job)) else {
                return Ok(outcome);
            };
            outcome.pingpong_ns = Some(f64::midpoint(before, after));
            outcome.steady = before.max(after) <= MOVED * before.min(after);
            if outcome.steady || retries == RETRIES {
                if !outcome.steady {
                    eprintln!(
                        "note: {}: the cores moved ({before:.0} to {after:.0} ns) in each of {} runs; the last one stands",
                        job.params.name,
                        retries + 1
                    );
                }
                return Ok(outcome);
            }
            retries += 1;
        }
    }

    /// Runs `job` once; `watch` may act on the machine meanwhile. A QEMU that crashes by itself (7.2 was seen to, under
    /// TCG with two vCPUs, in `memory_region_dispatch_write`) says nothing of the driver: the run is repeated from its
    /// start, and counted.
    pub(crate) fn watched(&self, job: &Job, watch: Watch<'_>) -> Result<Outcome> {
        let name = &job.params.name;
        for crashes in 0..=CRASHES {
            match self.attempt(job, watch) {
                Err(error) if fail::is_crash(&error) && crashes < CRASHES => {
                    eprintln!("note: {name}: {}; repeated", fail::line(&error));
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
            let (vm, heard, status) = self.drive(job, &mut |_, _| Ok(()))?;
            if heard.failed.is_none() && status.code() == Some(SUCCESS) {
                return Ok(());
            }
            Err(unfinished(&vm, status, heard.failed))
        };
        ran().with_context(|| format!("scenario {}", job.params.scenario))
    }

    fn attempt(&self, job: &Job, watch: Watch<'_>) -> Result<Outcome> {
        let start = Instant::now();
        let used = processor_time();
        let (vm, heard, status) = self.drive(job, watch)?;
        let (Some(boot), Some(report)) = (heard.boot, heard.report) else {
            return Err(unfinished(&vm, status, heard.failed));
        };
        if status.code() != Some(SUCCESS) {
            return Err(unfinished(&vm, status, None));
        }
        account(job, &report)?;
        let now = processor_time();
        Ok(Outcome {
            boot,
            report,
            notes: heard.notes,
            pins: pins(job)?,
            pingpong_ns: None,
            retries: 0,
            steady: true,
            elapsed: start.elapsed().as_secs_f64(),
            cpu: (now.0 - used.0, now.1 - used.1),
        })
    }

    /// From start to end of QEMU, listening.
    fn drive(&self, job: &Job, watch: Watch<'_>) -> Result<(Vm, Heard, ExitStatus)> {
        let deadline = Instant::now() + self.timeout.unwrap_or_else(|| longest(job));
        let append = job.params.to_string();
        let mut vm = Vm::start(self, &job.machine, &append)?;
        vm.pin(&pins(job)?)?;
        vm.resume()?;
        let mut heard = Heard::default();
        while !heard.ended {
            match vm.next_line(deadline)? {
                Some(text) => heard.take(job, &text, &mut vm, watch)?,
                None => break,
            }
        }
        let status = vm.end()?;
        Ok((vm, heard, status))
    }
}

fn pins(job: &Job) -> Result<Pins> {
    let cores = pin::cores()?;
    Ok(pin::plan(&cores, job.machine.vcpus.into(), job.machine.iothreads.into()))
}

/// The ping-pong between the first vCPU's core and the first I/O thread's, if the job is timed on two.
fn distance(job: &Job) -> Option<f64> {
    let pins = pins(job).ok()?;
    let (here, there) = (*pins.vcpus.first()?, *pins.iothreads.first()?);
    let timed = job.params.runtime_ms > 0 && !job.params.icount;
    (timed && here != there).then(|| pingpong::sample(here, there).ok())?
}

/// The result lines so far.
#[derive(Default)]
struct Heard {
    boot: Option<Boot>,
    report: Option<Report>,
    failed: Option<String>,
    notes: Vec<String>,
    ended: bool,
}

impl Heard {
    fn take(&mut self, job: &Job, text: &str, vm: &mut Vm, watch: Watch<'_>) -> Result<()> {
        let Some(json) = text.strip_prefix(PREFIX) else {
            return Ok(());
        };
        let line: Line = serde_json::from_str(json)
            .map_err(|error| vm.failure(&format!("the image printed a result line that cannot be read ({error})")))?;
        watch(vm, &line)?;
        match line {
            Line::Boot(boot) => {
                same_version(boot.version)?;
                fits(job, &boot)?;
                self.boot = Some(boot);
            }
            Line::Note(note) => self.notes.push(note.text.to_string()),
            Line::Done(report) => {
                same_version(report.version)?;
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

fn same_version(version: u32) -> Result<()> {
    if version != VERSION {
        bail!("the image reports in version {version}, this tool reads {VERSION}: rebuild it (cargo xtask image)");
    }
    Ok(())
}

/// The error for a run without a report.
fn unfinished(vm: &Vm, status: ExitStatus, failed: Option<String>) -> anyhow::Error {
    match failed {
        Some(text) => vm.failure(&format!("the image reported: {text}")),
        None => vm.ended(status),
    }
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

/// Every request answered, every block as written, nothing against the specification.
fn account(job: &Job, report: &Report) -> Result<()> {
    let name = &job.params.name;
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
            None => bail!("{name}: the image counted no instructions"),
        };
    }
    let (ios, asked) = (ios(report), job.params.number_ios.max(1));
    if job.params.scenario.as_str() == "none" && ios < asked {
        bail!("{name}: {ios} I/Os were done, {asked} were asked for");
    }
    Ok(())
}

/// Room for a slow host: boot, twice the runtime, and 500 I/Os per second.
fn longest(job: &Job) -> Duration {
    let params = &job.params;
    if params.icount {
        // As many batches as the image counts, whatever `number_ios` says.
        return Duration::from_mins(1);
    }
    Duration::from_secs(30) + Duration::from_millis(2 * params.runtime_ms + 2 * params.number_ios)
}

/// User and system time of children that ended.
fn processor_time() -> (f64, f64) {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or((0.0, 0.0), |usage| {
        let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
        (seconds(usage.user_time()), seconds(usage.system_time()))
    })
}
