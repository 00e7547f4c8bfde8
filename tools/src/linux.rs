//! Linux' own virtio_blk doing the same work: in a guest made of the distribution's packages, driven by fio.
//!
//! The machine is the image's (same QEMU options, disk, I/O thread and cores); only what boots differs. Where to read:
//! [`packages`] makes the guest, [`initramfs`] its archive, [`fio`] the job in fio's words and fio's result as a
//! report, [`session`] what the guest says, [`count`] what its instructions are divided into. Refuses what the guest
//! cannot do instead of doing something else.
mod count;
mod fio;
mod initramfs;
mod packages;
mod session;

use crate::job::Job;
use crate::machine::Machine;
use crate::program::Who;
use crate::run::{Bed, Told, Watch};
use crate::running::Running;
use crate::vm::{Load, Vm};
use anyhow::{Context, Result, bail, ensure};
pub(crate) use packages::guest;
use session::{Disk, Said, Session, Symbol};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workload::params::{Mode, Params, Rw, Submit, Verify};
use workload::report::{Boot, Line, VERSION};

const WHO: Who = Who { name: "QEMU", speaker: "the Linux guest", excused: true };
/// Memory without the archive, which is there twice: as it was loaded, and unpacked.
const MIB: u64 = 512;
/// Booting on a slow host, counted instructions included.
const BOOT: Duration = Duration::from_mins(2);
/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Leanest and steady: no mitigations, no randomised addresses or stacks, the clock that costs no device access.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 tsc=reliable clocksource=tsc mitigations=off nokaslr \
                      randomize_kstack_offset=off";

/// What the machine boots.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    kernel: PathBuf,
    initrd: PathBuf,
}

/// What a run of the guest came to.
struct Ran {
    told: Told,
    symbols: Vec<Symbol>,
}

/// What Linux, fio or this guest cannot do. `said` tells which keys were given.
pub(crate) fn contradictions(params: &Params, said: impl Fn(&str) -> bool) -> Result<()> {
    ensure!(params.verify == Verify::None, "driver=linux does not verify: use driver=ours");
    ensure!(params.scenario.as_str() == "none", "driver=linux has no scenarios: leave scenario out");
    ensure!(params.submit == Submit::Auto, "driver=linux chooses how to submit: leave submit={} out", params.submit);
    for key in ["queues", "vectors"] {
        ensure!(!said(key), "driver=linux takes a queue and a vector for each job: leave {key} out");
    }
    let trims = matches!(params.rw, Rw::Trim | Rw::RandTrim);
    ensure!(!trims, "fio's io_uring engine does not trim: leave rw={} out", params.rw);
    if params.mode == Mode::Polled {
        ensure!(params.numjobs == 1, "driver=linux polls one queue: leave numjobs={} out", params.numjobs);
    }
    if params.icount {
        let waits = "counts the whole guest, and one that polls executes instructions while it waits";
        ensure!(params.mode == Mode::Interrupt, "icount with driver=linux {waits}: use mode=interrupt");
    }
    Ok(())
}

/// The job's machine, as Linux needs it. Polling takes a queue besides the one with an interrupt, and that a second
/// processor is possible, which it is on every machine here.
pub(crate) fn machine(params: &Params, machine: &mut Machine) {
    let device = &mut machine.device;
    device.queues = params.numjobs + poll_queues(params);
    device.vectors = device.queues + 1;
    machine.memory_mib += MIB;
    // Counted by what QEMU translates, in real time.
    machine.icount = false;
}

fn poll_queues(params: &Params) -> u16 {
    u16::from(params.mode == Mode::Polled)
}

/// Runs the job once.
pub(crate) fn run(bed: &Bed, job: &Job, watch: Watch<'_>) -> Result<Told> {
    if job.params.icount {
        return count::count(bed, job);
    }
    once(bed, job, watch).map(|ran| ran.told)
}

/// One boot; with the modules' functions if it is counted.
fn once(bed: &Bed, job: &Job, watch: Watch<'_>) -> Result<Ran> {
    let mut running = start(bed, job)?;
    let limit = bed.timeout.unwrap_or_else(|| longest(job));
    let heard = listen(&mut running, job, Instant::now() + limit, watch)?;
    let status = running.end()?;
    match heard {
        // It restarts, and QEMU ends instead.
        Heard { told: Some(told), session, .. } if status.success() => Ok(Ran { told, symbols: session.symbols }),
        Heard { failed: Some(why), .. } => Err(running.failure(&format!("the Linux guest reported: {why}"))),
        _ => Err(ended(&mut running, status)),
    }
}

fn start(bed: &Bed, job: &Job) -> Result<Running> {
    let with = bed.qemu.as_ref().context("QEMU was not set up")?;
    let guest = bed.linux.as_ref().context("the Linux guest was not made")?;
    let archive = guest.initrd.metadata().with_context(|| format!("reading {}", guest.initrd.display()))?.len();
    let mut machine = job.machine.clone();
    machine.memory_mib += 2 * archive.div_ceil(1 << 20);
    let symbols = if bed.plugin.is_some() { "on" } else { "off" };
    let init = format!("{} {symbols} {}", poll_queues(&job.params), fio::arguments(&job.params));
    let append = format!("{KERNEL} -- {init}");
    let plugin = bed.plugin.as_ref();
    let load = Load { who: WHO, kernel: &guest.kernel, initrd: Some(&guest.initrd), append: &append, plugin };
    let mut vm = Vm::boot(with, &machine, &load, bed.timeout.unwrap_or(ANSWER))?;
    vm.pin(&job.pins()?)?;
    vm.resume()?;
    Ok(Running::Vm(Box::new(vm)))
}

/// What was heard to the end.
#[derive(Default)]
struct Heard {
    told: Option<Told>,
    failed: Option<String>,
    session: Session,
}

fn listen(running: &mut Running, job: &Job, deadline: Instant, watch: Watch<'_>) -> Result<Heard> {
    let (mut heard, mut disk) = (Heard::default(), None);
    // Interrupts and processor time when the first job began, and when the last one ended.
    let (mut begin, mut end) = (None, None);
    while let Some(line) = running.next_line(deadline)? {
        let said = heard.session.take(&line).map_err(|error| running.failure(&crate::fail::line(&error)))?;
        match said {
            Some(Said::Disk(seen)) => {
                let boot = boot(job, &seen)?;
                watch(running, &Line::Boot(boot.clone()))?;
                disk = Some((seen, boot));
            }
            Some(Said::Begin(interrupts)) => begin = begin.or(Some((interrupts, running.cpu()))),
            Some(Said::End(interrupts)) => end = Some((interrupts, running.cpu())),
            Some(Said::Failed(why)) => {
                heard.failed = Some(why);
                break;
            }
            Some(Said::Done) => {
                let (Some((seen, boot)), Some(begin), Some(end)) = (disk.take(), begin, end) else {
                    return Err(running.failure("the Linux guest reported its end before it began"));
                };
                let mut report = fio::report(&heard.session.json())?;
                // Nobody sees them but the plugin.
                report.notifications = None;
                report.interrupts = end.0.saturating_sub(begin.0);
                watch(running, &Line::Done(report.clone()))?;
                let notes = notes(&heard.session, &seen);
                let busy = end.1.zip(begin.1).map(|(end, begin)| end - begin);
                heard.told = Some(Told { boot, report, notes, busy, guest_instructions: None });
                break;
            }
            Some(Said::Other) | None => (),
        }
    }
    Ok(heard)
}

/// The disk in the words of the image.
fn boot(job: &Job, disk: &Disk) -> Result<Boot> {
    if disk.read_only && job.writes() {
        bail!("the disk is read-only and rw={} writes: use rw=randread, or a disk that is writable", job.params.rw);
    }
    let polled = job.params.mode == Mode::Polled;
    ensure!(disk.polls == polled, "Linux {} this disk", if polled { "does not poll" } else { "polls" });
    Ok(Boot {
        version: VERSION,
        capacity: disk.sectors,
        queues: job.params.numjobs,
        queue_size: job.machine.device.queue_size,
        slots: disk.requests,
        vectors: disk.vectors,
        rung: "vector-per-queue".try_into().unwrap_or_default(),
        features: disk.features,
        read_only: disk.read_only,
        writeback: disk.writeback,
    })
}

fn notes(session: &Session, disk: &Disk) -> Vec<String> {
    let Session { kernel, fio, clock, .. } = session;
    let polls = if disk.polls { ", a queue that is polled" } else { "" };
    vec![format!("Linux {kernel}, {fio} (io_uring), clock {clock}{polls}")]
}

/// The error for a guest that ended before it reported its end.
fn ended(running: &mut Running, status: std::process::ExitStatus) -> anyhow::Error {
    if let Running::Vm(vm) = running
        && let Some(panic) = vm.program.said_within("Kernel panic")
    {
        return vm.program.failure(&format!("the Linux guest panicked: {panic}"));
    }
    running.ended(status)
}

fn longest(job: &Job) -> Duration {
    BOOT + crate::run::taking(job)
}
