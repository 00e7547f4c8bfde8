//! What `cargo xtask test` does with fio: the distribution's own, unmodified, on our engine, against
//! qemu-storage-daemon with a real file.
//!
//! fio says what it did in its JSON; what is on the disk is looked at on the host, after the daemon closed it. Each
//! check has a daemon, a disk and a folder of its own, which [`Disk`] starts and ends.
use super::{Fio, option};
use crate::fail::{self, Failure, Skip, last};
use crate::image;
use crate::process::{Captured, Guarded, capture};
use crate::setup;
use crate::stop;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// For one run of fio.
const LIMIT: Duration = Duration::from_mins(2);
/// For the daemon to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of every disk, in bytes.
const BYTES: u64 = 64 << 20;
/// What is written and verified, and how many requests of 4 KiB that is.
const PART: &str = "--size=16m";
const REQUESTS: u64 = 4096;

/// What all checks are made with.
pub(crate) struct Bench {
    fio: Fio,
    daemon: PathBuf,
    native: PathBuf,
}

/// A check, and its name.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench) -> Result<()>,
}

/// All checks.
pub(crate) const ALL: [Check; 9] = [
    Check { name: "fio: random writes over interrupts, verified, and on the host's disk", run: interrupts },
    Check { name: "fio: polled, mixed sizes, with flushes, verified, and on the host's disk", run: polled },
    Check { name: "fio: a byte that changed on the host is found", run: corruption },
    Check {
        name: "fio: jobs share a connection with a queue each, as threads whether they are asked for or not",
        run: company,
    },
    Check { name: "fio: a back-end that serves a single connection serves the whole run", run: one_connection },
    Check { name: "fio: trim, and a back-end that dies in the middle", run: trim_and_death },
    Check {
        name: "fio: the same job files make as many requests and bytes in fio and in the bench",
        run: super::amounts::agree,
    },
    Check { name: "fio: ends when it is told to, also while the back-end is stopped", run: stopped },
    Check { name: "fio: what cannot be is one line", run: refusals },
];

impl Bench {
    /// Installs and builds; skipped where fio, its source or the daemon cannot be had.
    pub(crate) fn new(install: bool) -> Result<Self> {
        let skip = |error: anyhow::Error| Skip(fail::line(&error));
        let daemon = setup::storage_daemon(install).map_err(skip)?.path;
        setup::fio(install).map_err(skip)?;
        let fio = Fio::found(install)?;
        Ok(Self { fio: fio.built()?, daemon, native: image::native(None)? })
    }

    /// fio itself.
    pub(super) fn fio_program(&self) -> &Path {
        &self.fio.program
    }

    /// The native bench.
    pub(super) fn native_program(&self) -> &Path {
        &self.native
    }

    /// Runs fio with our engine on `disk`.
    fn fio(&self, disk: &Disk, arguments: &[&str]) -> Result<Ran> {
        self.fio_with(&self.fio.engine, &disk.at("s"), disk, arguments)
    }

    fn fio_with(&self, engine: &Path, socket: &Path, disk: &Disk, arguments: &[&str]) -> Result<Ran> {
        let mut command = Command::new(&self.fio.program);
        command.arg(option(engine)).arg(format!("--filename={}", socket.display()));
        disk.run(command.args(arguments))
    }

    /// Runs fio on the file itself, without us.
    fn on_host(&self, disk: &Disk, arguments: &[&str]) -> Result<Ran> {
        let mut command = Command::new(&self.fio.program);
        command.arg("--ioengine=psync").arg(format!("--filename={}", disk.at("disk").display()));
        disk.run(command.args(arguments))
    }
}

/// What came of an fio.
struct Ran {
    captured: Captured,
    /// Its JSON; null when it wrote none.
    report: Value,
}

impl Ran {
    /// The report, if fio ended well and says so.
    fn well(&self) -> Result<&Value> {
        let failed = self.report["jobs"].as_array().is_none_or(|jobs| jobs.iter().any(|job| job["error"] != 0));
        if self.captured.status.success() && !failed {
            return Ok(&self.report);
        }
        let what = format!("fio did not end well ({})", self.captured.status);
        Err(Failure::new(what, last(&self.captured.lines)).into())
    }

    /// Holds a failed run against the one line that was expected of the engine.
    fn refused(&self, words: &str) -> Result<()> {
        let lines = &self.captured.lines;
        let ours: Vec<_> = lines.iter().filter(|line| line.contains(words)).collect();
        if !self.captured.status.success() && ours.len() == 1 {
            return Ok(());
        }
        let what = format!("`{words}` was to be said once, and fio to fail ({})", self.captured.status);
        Err(Failure::new(what, last(lines)).into())
    }
}

/// Fails unless `job` did as many requests of a kind as were asked for.
fn did(job: &Value, kind: &str, requests: u64) -> Result<()> {
    let ios = &job[kind]["total_ios"];
    ensure!(*ios == json!(requests), "fio counts {ios} {kind} requests, {requests} were asked for");
    Ok(())
}

/// A disk in a file, a daemon that serves it, and a folder around them.
struct Disk {
    daemon: Option<Guarded>,
    /// Flushes fail.
    flushless: bool,
    folder: tempfile::TempDir,
}

impl Disk {
    /// A disk of zeros, served by qemu-storage-daemon.
    fn new(bench: &Bench, queues: u16) -> Result<Self> {
        let mut disk = Self::bare()?;
        disk.serve(bench, queues)?;
        Ok(disk)
    }

    /// A disk of zeros that nobody serves.
    fn bare() -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for the disk")?;
        File::create(folder.path().join("disk"))?.set_len(BYTES)?;
        Ok(Self { daemon: None, flushless: false, folder })
    }

    /// What the daemon serves: the file, behind a node that fails flushes if it is to.
    fn node(&self) -> Value {
        let file = json!({"driver": "file", "filename": self.at("disk").to_string_lossy(), "discard": "unmap"});
        let mut node = if self.flushless {
            let fault = json!([{"event": "none", "iotype": "flush", "errno": 5}]);
            json!({"driver": "blkdebug", "image": file, "inject-error": fault})
        } else {
            file
        };
        node["node-name"] = "disk".into();
        node
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon and waits until it listens.
    fn serve(&mut self, bench: &Bench, queues: u16) -> Result<()> {
        let (socket, ready) = (self.at("s"), self.at("pid"));
        let _ = fs::remove_file(&ready);
        let export = json!({
            "type": "vhost-user-blk", "id": "e0", "node-name": "disk", "writable": true, "num-queues": queues,
            "addr": {"type": "unix", "path": socket.to_string_lossy()},
        });
        let mut command = Command::new(&bench.daemon);
        command
            .args(["--blockdev", &self.node().to_string(), "--export", &export.to_string(), "--pidfile"])
            .arg(&ready);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Guarded::spawn(&mut command).context("cannot start qemu-storage-daemon")?;
        let deadline = Instant::now() + PATIENCE;
        while !fs::metadata(&ready).is_ok_and(|meta| meta.len() > 0) {
            stop::check()?;
            if let Some(status) = daemon.poll()? {
                bail!("qemu-storage-daemon did not start ({status})");
            }
            ensure!(Instant::now() < deadline, "qemu-storage-daemon does not get ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the daemon in order, so that everything is in the file.
    fn close(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        daemon.ask_to_end();
        let ended = daemon.wait_until(Instant::now() + PATIENCE)?;
        ensure!(ended.is_some(), "qemu-storage-daemon did not end when asked to");
        Ok(())
    }

    /// Runs an fio to its end; its report is in the disk's folder.
    fn run(&self, command: &mut Command) -> Result<Ran> {
        let path = self.at("report");
        let _ = fs::remove_file(&path);
        command.args(["--name=job", "--output-format=json"]).arg(format!("--output={}", path.display()));
        let captured = capture(command.current_dir(self.folder.path()), LIMIT, |_| ())?;
        let text = fs::read_to_string(&path).unwrap_or_default();
        // Its own remarks stand before the report.
        let report = text.find('{').and_then(|at| serde_json::from_str(&text[at..]).ok()).unwrap_or(Value::Null);
        Ok(Ran { captured, report })
    }
}

/// Random writes of 4 KiB that fio verifies, in batches.
const WRITES: [&str; 8] = [
    "--rw=randwrite",
    "--bs=4k",
    PART,
    "--verify=crc32c",
    "--iodepth=32",
    "--iodepth_batch_submit=16",
    "--iodepth_batch_complete_min=16",
    "--iodepth_batch_complete_max=32",
];

fn interrupts(bench: &Bench) -> Result<()> {
    let mut disk = Disk::new(bench, 1)?;
    let ran = bench.fio(&disk, &WRITES)?;
    let job = &ran.well()?["jobs"][0];
    did(job, "write", REQUESTS)?;
    did(job, "read", REQUESTS)?;
    // Batches are what the engine is for: of 4096 requests in sixteens none goes alone but the last.
    let single = job["iodepth_submit"]["4"].as_f64().unwrap_or(100.0);
    ensure!(single < 50.0, "{single}% of the batches had fewer than 5 requests, 16 were asked for");
    disk.close()?;
    bench.on_host(&disk, &[&WRITES[..], &["--verify_only"]].concat())?.well().map(drop)
}

fn polled(bench: &Bench) -> Result<()> {
    let sizes = ["--rw=randwrite", "--bsrange=512-64k", PART, "--iodepth=24", "--fsync=16", "--verify=crc32c"];
    let mut disk = Disk::new(bench, 1)?;
    let ran = bench.fio(&disk, &[&sizes[..], &["--hipri", "--write_cache=on", "--iodepth_batch_submit=8"]].concat())?;
    let job = &ran.well()?["jobs"][0];
    for way in ["write", "read"] {
        let bytes = &job[way]["io_bytes"];
        ensure!(*bytes == json!(16 << 20), "fio counts {bytes} bytes of {way}, 16 MiB were asked for");
    }
    let flushes = job["sync"]["total_ios"].as_u64().unwrap_or(0);
    let writes = job["write"]["total_ios"].as_u64().unwrap_or(0);
    ensure!(flushes >= writes / 16 && flushes > 0, "{flushes} flushes for {writes} writes, one in 16 was asked for");
    disk.close()?;
    bench.on_host(&disk, &[&sizes[..], &["--verify_only"]].concat())?.well()?;
    // That they reach the device, fio cannot know unless they fail there.
    disk.flushless = true;
    disk.serve(bench, 1)?;
    bench
        .fio(&disk, &["--write_cache=on", "--rw=write", "--bs=4k", "--size=1m", "--fsync=16"])?
        .refused("a flush failed: medium")
}

fn corruption(bench: &Bench) -> Result<()> {
    let again = [&WRITES[..], &["--verify_only"]].concat();
    let mut disk = Disk::new(bench, 1)?;
    bench.fio(&disk, &WRITES)?.well()?;
    bench.fio(&disk, &again)?.well()?;
    disk.close()?;
    let (file, place) = (File::options().read(true).write(true).open(disk.at("disk"))?, (5 << 20) + 1234);
    let mut byte = [0];
    file.read_exact_at(&mut byte, place)?;
    file.write_all_at(&[!byte[0]], place)?;
    disk.serve(bench, 1)?;
    bench.fio(&disk, &again)?.refused("crc32c: verify failed at file")
}

fn company(bench: &Bench) -> Result<()> {
    let disk = Disk::new(bench, 2)?;
    let jobs = ["--numjobs=2", "--offset_increment=16m", "--group_reporting"];
    let together = [&WRITES[..], &jobs].concat();
    let ran = bench.fio(&disk, &[&together[..], &["--thread=1"]].concat())?;
    let job = &ran.well()?["jobs"][0];
    did(job, "write", 2 * REQUESTS)?;
    did(job, "read", 2 * REQUESTS)?;
    let ran = bench.fio(&disk, &together)?;
    did(&ran.well()?["jobs"][0], "write", 2 * REQUESTS)?;
    let ran = bench.fio(&disk, &[&WRITES[..], &["--numjobs=3", "--thread=1"]].concat())?;
    let said = ran.captured.lines.iter().any(|line| line.contains("start the back-end with num-queues=3"));
    ensure!(!ran.captured.status.success() && said, "three jobs on two queues were not refused");
    Ok(())
}

/// Two jobs at once, and when they are done two others.
fn one_connection(bench: &Bench) -> Result<()> {
    let disk = Disk::bare()?;
    let mut command = Command::new(&bench.native);
    command.arg("serve").arg(format!("--socket={}", disk.at("s").display()));
    command.arg(format!("--disk={}", disk.at("disk").display())).args(["--queues=2", "--once"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Guarded::spawn(&mut command).context("cannot start the device")?;
    let deadline = Instant::now() + PATIENCE;
    while !disk.at("s").exists() {
        stop::check()?;
        ensure!(Instant::now() < deadline, "the device does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    // Before the first name they are everybody's; the last job, which has no more, is named by whoever runs it.
    let first = ["--name=first", "--numjobs=2", "--offset_increment=16m"];
    let second = ["--name=second", "--stonewall", "--offset=32m", "--iodepth=8"];
    let ran = bench.fio(&disk, &[&WRITES[..], &first, &second].concat())?;
    ensure!(ran.report["jobs"].as_array().is_some_and(|jobs| jobs.len() == 4), "four jobs were to run");
    ran.well()?;
    let ended = server.wait_until(Instant::now() + PATIENCE)?;
    ensure!(ended.is_some_and(|status| status.success()), "the device did not end with its one client");
    Ok(())
}

fn trim_and_death(bench: &Bench) -> Result<()> {
    let mut disk = Disk::new(bench, 1)?;
    bench.fio(&disk, &WRITES)?.well()?;
    let ran = bench.fio(&disk, &["--rw=randtrim", "--bs=64k", PART, "--iodepth=8"])?;
    did(&ran.well()?["jobs"][0], "trim", 256)?;
    let Some(daemon) = disk.daemon.as_ref().map(Guarded::id) else { bail!("the daemon is gone") };
    // fio runs this when the job is connected and before its first request.
    let kill = format!("--exec_prerun=kill -9 {daemon}");
    bench
        .fio(&disk, &["--rw=randread", "--bs=4k", PART, "--iodepth=32", &kill])?
        .refused("gone: the back-end is lost")?;
    disk.daemon = None;
    let zeros = fs::read(disk.at("disk"))?.iter().all(|byte| *byte == 0);
    ensure!(zeros, "trimmed blocks hold what was written before");
    Ok(())
}

/// The back-end stands still from before the first request on, and does not go on; a little later fio is interrupted.
/// Whether it ends at all is the test: [`LIMIT`] is far above what it takes.
fn stopped(bench: &Bench) -> Result<()> {
    for signal in ["INT", "TERM"] {
        let disk = Disk::new(bench, 1)?;
        let Some(daemon) = disk.daemon.as_ref().map(Guarded::id) else { bail!("the daemon is gone") };
        let stop = format!("--exec_prerun=kill -STOP {daemon}; (sleep 1; kill -{signal} $PPID) >/dev/null 2>&1 &");
        let ran = bench.fio(&disk, &["--rw=randread", "--bs=4k", PART, "--iodepth=32", &stop])?;
        ran.refused("gone: the back-end is lost")?;
    }
    Ok(())
}

fn refusals(bench: &Bench) -> Result<()> {
    let disk = Disk::new(bench, 1)?;
    let read = ["--rw=read", "--bs=4k", "--size=4m"];
    let nowhere = disk.at("nowhere");
    let engine = &bench.fio.engine;
    bench.fio_with(engine, &nowhere, &disk, &read)?.refused("nowhere: there is no such socket")?;
    bench.fio_with(engine, &disk.at("disk"), &disk, &read)?.refused("disk: there is no such socket")?;
    let other = disk.at("engine.so");
    bench.fio.link("fio-0.1", &other)?;
    bench.fio_with(&other, &disk.at("s"), &disk, &read)?.refused("built for fio-0.1, which this fio is not")?;
    for (odd, words) in [
        ("--mem=malloc", "conflicts with specified IO engine"),
        ("--iodepth=2000", "a depth of 2000: give 1 to 1024"),
        ("--offset=63m", "beyond the device's capacity"),
        ("--bs=1000", "not a multiple of the device's block size"),
    ] {
        bench.fio(&disk, &[&read[..], &[odd]].concat())?.refused(words)?;
    }
    // Nothing of that hurt the daemon.
    bench.fio(&disk, &read)?.well().map(drop)
}
