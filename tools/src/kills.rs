//! Either side is killed in the middle of I/O; then a clean start on the same file, and its data verified.
use crate::backend::{Backend, Server};
use crate::disk::Disk;
use crate::fail;
use crate::job::Job;
use crate::lab::{BYTES, Lab};
use crate::run::Bed;
use crate::running::Running;
use crate::server::Back;
use crate::stop;
use crate::verify;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use workload::report::Line;

/// What is cut short.
const ENDLESS: &str = "rw=randrw verify=crc32c mode=interrupt numjobs=2 queues=2 iodepth=32 runtime=60 size=16m";
/// What must go well afterwards.
const AFTER: &str = "rw=randrw verify=crc32c mode=interrupt numjobs=2 queues=2 iodepth=32 number_ios=500 size=16m";
/// How long it may take until data reaches the file.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a run may take to notice that one side is gone.
const NOTICE: Duration = Duration::from_secs(30);

fn times(lab: &Lab) -> u32 {
    lab.size.pick(5, 20, 20)
}

/// The device's process is killed; the driver must notice, and the next start find everything in order.
pub(crate) fn device(lab: &Lab) -> Result<()> {
    let (_folder, path) = file()?;
    for round in 1..=times(lab) {
        let told = || format!("round {round}");
        let job = lab.job_on(&path, ENDLESS)?;
        cut(lab, &job, Running::device_id).with_context(told)?;
        let after = lab.job_on(&path, AFTER)?;
        verify::restart(&after)?;
        lab.verified_job(&after).with_context(told)?;
        verify::restart(&after)?;
    }
    Ok(())
}

/// The driver's process is killed; the same back-end must serve the next one.
pub(crate) fn driver(lab: &Lab) -> Result<()> {
    let (_folder, path) = file()?;
    let native = lab.bed.native.as_ref().context("the native bench was not built")?;
    let first = lab.job_on(&path, ENDLESS)?;
    let Backend::VhostUser(server) = &first.backend else {
        bail!("driver and device are one process here");
    };
    let (back, socket) = Back::start(native, server, &first)?;
    let there = |mut job: Job| {
        job.backend = Backend::VhostUser(Server::Theirs(socket.clone()));
        job
    };
    for round in 1..=times(lab) {
        let told = || format!("round {round}");
        cut(lab, &there(first.clone()), |running| Some(running.id())).with_context(told)?;
        // Served only once the back-end has done with what the dead one had asked for; then nobody else writes.
        let look = there(lab.job_on(&path, "rw=randread mode=interrupt queues=2 number_ios=100 size=16m")?);
        lab.bed.watched(&look, &mut |_, _| Ok(())).with_context(told)?;
        let after = there(lab.job_on(&path, AFTER)?);
        verify::restart(&after)?;
        lab.verified_job(&after).with_context(told)?;
        verify::restart(&after)?;
    }
    back.map_or(Ok(()), Back::stop)
}

/// A file of zeros, and the folder that holds it.
fn file() -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir().context("making a folder for the disk")?;
    let path = folder.path().join("disk.raw");
    Disk::create(&path, BYTES)?;
    Ok((folder, path))
}

/// Runs `job` until data reaches its file, kills whom `victim` names, and expects the run to fail for that reason, soon.
fn cut(lab: &Lab, job: &Job, victim: impl Fn(&Running) -> Option<u32>) -> Result<()> {
    let path = job.machine.disk.path().context("there is no file")?;
    let mut killed = None;
    let bed = Bed { timeout: Some(NOTICE), ..lab.bed.clone() };
    let ran = bed.watched(job, &mut |running, line| {
        if matches!(line, Line::Boot(_)) {
            written(path)?;
            let id = victim(running).context("there is no process to kill")?;
            kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL).context("killing a process")?;
            killed = Some(Instant::now());
        }
        Ok(())
    });
    let Err(error) = ran else {
        bail!("the run went on to its end");
    };
    let Some(killed) = killed else {
        return Err(error);
    };
    let line = fail::line(&error);
    ensure!(killed.elapsed() < NOTICE, "it took {:?} to notice: {line}", killed.elapsed());
    ensure!(line.contains("signal: 9"), "the run failed, but not for that reason: {line}");
    Ok(())
}

/// Waits until something was written to the file of zeros at `path`, which takes up no room before.
fn written(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while path.metadata().context("looking at the disk")?.blocks() == 0 {
        stop::check()?;
        ensure!(Instant::now() < deadline, "nothing was written");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
