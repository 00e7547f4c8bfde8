//! The same job files through fio, on its own engine, and through the bench: as many requests and as many bytes.
//!
//! Each file states what fio makes of it, so that neither side is right by being the only one. fio works on a plain
//! file, the bench on the same file behind the device inside the native bench.
use super::steps::Bench;
use crate::disk::Disk;
use crate::fail::{Failure, last};
use crate::jobfile::{self, Setting};
use crate::native::Native;
use crate::process::capture;
use crate::run::Bed;
use crate::work;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// For one run of fio.
const LIMIT: Duration = Duration::from_mins(1);
/// Of the disk.
const BYTES: u64 = 4 << 20;
const K: u64 = 1024;

/// What a section's jobs do together: requests, where fio does not draw their sizes, and bytes.
type Amount = (Option<u64>, u64);

/// Sections and what they come to.
const FILES: [(&str, Amount); 18] = [
    ("rw=write\nbs=64k\nsize=1m", (Some(16), 1024 * K)),
    ("rw=write\nbs=64k\nsize=1m\nruntime=30", (Some(16), 1024 * K)),
    ("rw=read\nsize=1m\nnumber_ios=100\nnumjobs=2\nruntime=30", (Some(200), 800 * K)),
    ("rw=read\nsize=1m\nnumber_ios=1000", (Some(256), 1024 * K)),
    ("rw=read\nsize=1m\nnumber_ios=10\nloops=3", (Some(30), 120 * K)),
    ("rw=read\nsize=1m\nloops=3", (Some(768), 3072 * K)),
    ("rw=randread\nsize=1m\nio_size=2m", (Some(512), 2048 * K)),
    ("rw=read\nsize=1m\nio_size=512k\nloops=3", (Some(384), 1536 * K)),
    ("rw=read\nsize=1m\nio_size=10k", (Some(3), 12 * K)),
    ("rw=read\nnumjobs=2\nthread", (Some(2048), 8192 * K)),
    ("rw=read\noffset=1m\noffset_increment=1m\nnumjobs=2\nthread", (Some(1280), 5120 * K)),
    ("rw=randrw\nrwmixwrite=30\nsize=10%\nrandrepeat=0\ngroup_reporting", (Some(102), 408 * K)),
    ("rw=read\nbs=3k\nsize=10k", (Some(4), 12 * K)),
    ("rw=randread\nsize=10k\ndirect=0\ninvalidate=0", (Some(2), 8 * K)),
    ("rw=randread\nbssplit=4k/50:8k/50\nsize=1m", (None, 1024 * K)),
    ("rw=randread\nbsrange=4k-16k\nsize=1m", (None, 1024 * K)),
    ("rw=write\nbs=4k,8k\nsize=0x100000 ; hexadecimal", (Some(128), 1024 * K)),
    ("readwrite=read\nblocksize=4k\nsize=1mib", (Some(245), 980 * K)),
];

/// Each of [`FILES`] on both sides, in one file; and that `time_based` goes on.
pub(super) fn agree(bench: &Bench) -> Result<()> {
    let folder = tempfile::tempdir().context("making a folder for the job file")?;
    let (disk, file) = (folder.path().join("disk"), folder.path().join("a.fio"));
    Disk::create(&disk, BYTES)?;
    let global = format!("[global]\nioengine=psync\nfilename={}\ngroup_reporting\n", disk.display());
    let sections = FILES.iter().enumerate().map(|(at, (words, _))| format!("[n{at}]\nstonewall\n{words}\n"));
    let repeated = "[repeated]\nstonewall\nrw=read\nsize=64k\nruntime=300ms\ntime_based\n";
    std::fs::write(&file, global + &sections.collect::<String>() + repeated).context("writing the job file")?;
    let (theirs, ours) = (by_fio(bench, &file)?, by_us(bench, &file, &disk)?);
    ensure!(theirs.len() == FILES.len() + 1, "fio reports {} sections", theirs.len());
    for (((words, stated), theirs), ours) in FILES.iter().zip(&theirs).zip(&ours) {
        let words = words.replace('\n', " ");
        let holds = |found: &(u64, u64)| stated.1 == found.1 && stated.0.is_none_or(|ios| ios == found.0);
        ensure!(holds(theirs), "{words}: {stated:?} were stated, fio makes {theirs:?}");
        ensure!(holds(ours), "{words}: fio makes {theirs:?}, the bench {ours:?}");
    }
    for (who, found) in [("fio", theirs.last()), ("the bench", ours.last())] {
        let again = found.is_some_and(|(_, bytes)| *bytes > 64 * K);
        ensure!(again, "time_based: {who} made {found:?}, which is no more than one pass");
    }
    Ok(())
}

/// Requests and bytes of each section.
fn by_fio(bench: &Bench, file: &Path) -> Result<Vec<(u64, u64)>> {
    let mut command = Command::new(bench.fio_program());
    let ran = capture(command.arg("--output-format=json").arg(file), LIMIT, |_| ())?;
    let text = ran.lines.join("\n");
    let report: Option<Value> = text.find('{').and_then(|start| serde_json::from_str(&text[start..]).ok());
    let Some(report) = report.filter(|_| ran.status.success()) else {
        return Err(Failure::new(format!("fio did not end well ({})", ran.status), last(&ran.lines)).into());
    };
    let sum = |job: &Value, key: &str| ["read", "write"].iter().filter_map(|way| job[*way][key].as_u64()).sum();
    let jobs = report["jobs"].as_array().context("fio reports no jobs")?;
    Ok(jobs.iter().map(|job| (sum(job, "total_ios"), sum(job, "io_bytes"))).collect())
}

fn by_us(bench: &Bench, file: &Path, disk: &Path) -> Result<Vec<(u64, u64)>> {
    let native = Native { program: bench.native_program().to_owned(), storage: None, valgrind: None };
    let bed = Bed { native: Some(native), ..Bed::default() };
    let given = [("disk", disk.display().to_string()), ("backend", "embedded".into())];
    let given = given.map(|(key, value)| Setting { key: key.into(), value, origin: format!("--{key}") });
    let mut sums = Vec::new();
    for section in jobfile::read(file)? {
        let job = work::job(&section, &given, false, &mut Vec::new())?;
        let report = bed.watched(&job, &mut |_, _| Ok(()))?.report;
        sums.push((report.read.ios + report.write.ios, report.read.bytes + report.write.bytes));
    }
    Ok(sums)
}
