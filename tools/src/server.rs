//! A vhost-user back-end of our own: started in a folder of its own, awaited until it takes connections, stopped.
//!
//! qemu-storage-daemon, or the native bench serving its rust-vmm device. All of its threads stay on one core, away from
//! the job's. Dropping a [`Back`] kills it and removes its socket. Knows nothing of jobs but their disk and queues.
use crate::backend::Server;
use crate::disk::{Disk, NODE};
use crate::job::Job;
use crate::native::Native;
use crate::program::{PATIENCE, Program, Who};
use crate::stop;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DAEMON: Who = Who { name: "qemu-storage-daemon", speaker: "qemu-storage-daemon", excused: false };
const SERVING: Who = Who { name: "the rust-vmm device", speaker: "the rust-vmm device", excused: false };

/// How long one may take to end when asked to.
const ENDING: Duration = Duration::from_secs(5);

/// A running back-end.
pub(crate) struct Back {
    who: Who,
    program: Program,
    socket: PathBuf,
    /// Holds the socket.
    _folder: tempfile::TempDir,
}

impl Back {
    /// Starts what `server` asks for, if it is ours to start; answers it and the socket to connect to.
    pub(crate) fn start(native: &Native, server: &Server, job: &Job) -> Result<(Option<Self>, PathBuf)> {
        let folder = tempfile::tempdir().context("making a folder for the back-end's socket")?;
        let socket = folder.path().join("s");
        let core = job.pins()?.iothreads.first().copied();
        let (who, mut command) = match server {
            Server::Theirs(path) => return Ok((None, path.clone())),
            Server::StorageDaemon => (DAEMON, daemon(native, job, folder.path(), &socket)?),
            Server::RustVmm { volatile: false } => (SERVING, serving(native, job, &socket, None)),
            Server::RustVmm { volatile: true } => (SERVING, serving(native, job, &socket, Some("--volatile-cache"))),
            Server::Deviating => (SERVING, serving(native, job, &socket, Some("--deviating"))),
        };
        command.stdin(Stdio::null());
        let program = Program::start(who, &mut command, core)?;
        let mut back = Self { who, program, socket: socket.clone(), _folder: folder };
        match server {
            Server::RustVmm { .. } | Server::Deviating => back.announced()?,
            _ => back.has_written(&pidfile(&back.socket))?,
        }
        Ok((Some(back), socket))
    }

    /// Waits until it says that it is ready.
    fn announced(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.program.next_line(deadline)? {
            if line.trim() == "ready" {
                return Ok(());
            }
        }
        let status = self.program.end()?;
        Err(self.program.failure(&format!("{} did not start ({status})", self.who.name)))
    }

    /// Waits for the file that is written once everything listens.
    fn has_written(&mut self, file: &Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::metadata(file).is_ok_and(|meta| meta.len() > 0) {
            stop::check()?;
            if let Some(status) = self.program.poll() {
                self.program.drain();
                return Err(self.program.failure(&format!("{} did not start ({status})", self.who.name)));
            }
            if Instant::now() >= deadline {
                self.program.last_status();
                return Err(self.program.failure(&format!("{} does not get ready", self.who.name)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The process id, for whoever wants to see it die.
    pub(crate) fn id(&self) -> u32 {
        self.program.id()
    }

    /// How it ended, in its own words, if it does within `patience` though nobody asked it to.
    pub(crate) fn death(&mut self, patience: Duration) -> Option<String> {
        let status = self.program.ends_within(patience)?;
        self.program.drain();
        let words = self.program.complaint().map(|words| format!(": {words}")).unwrap_or_default();
        Some(format!("{} ended ({status}){words}", self.who.name))
    }

    /// Asks it to end. One that had ended before is an error.
    pub(crate) fn stop(mut self) -> Result<()> {
        if let Some(death) = self.death(Duration::ZERO) {
            bail!("{death} before the run did");
        }
        self.program.stop(ENDING).map(drop)
    }
}

/// Written by qemu-storage-daemon when its exports listen, as its manual says.
fn pidfile(socket: &Path) -> PathBuf {
    socket.with_file_name("pid")
}

fn daemon(native: &Native, job: &Job, folder: &Path, socket: &Path) -> Result<Command> {
    let Some(storage) = &native.storage else {
        bail!("there is no qemu-storage-daemon here");
    };
    let disk = &job.machine.disk;
    let device = &job.machine.device;
    let export = json!({
        "type": "vhost-user-blk", "id": "e0", "node-name": NODE, "iothread": "io0",
        "addr": {"type": "unix", "path": socket.to_string_lossy()},
        "num-queues": device.queues, "writable": !disk.is_read_only(), "logical-block-size": device.block_size,
    });
    let mut blockdev = disk.blockdev();
    if matches!(disk, Disk::Null { .. }) {
        // Filling the buffers would be most of what is measured.
        blockdev["read-zeroes"] = false.into();
    }
    let mut command = Command::new(&storage.path);
    command
        .current_dir(folder)
        .args(["--object", "iothread,id=io0", "--blockdev", &blockdev.to_string()])
        .args(["--export", &export.to_string(), "--pidfile"])
        .arg(pidfile(socket));
    Ok(command)
}

fn serving(native: &Native, job: &Job, socket: &Path, more: Option<&str>) -> Command {
    let mut command = Command::new(&native.program);
    command.arg("serve").arg(crate::native::option("socket", socket));
    command.args(crate::native::disk(job)).arg(format!("--queues={}", job.machine.device.queues));
    command.args(more);
    command
}
