//! A running QEMU: started paused, pinned, resumed, listened to, and ended in bounded time whatever happens.
//!
//! The guest's serial lines arrive one by one; QEMU's own complaints are kept for the error. Dropping a [`Vm`] kills
//! it. Knows nothing of what the lines mean.
use crate::guest_count::Plugin;
use crate::machine::{Accel, Machine};
use crate::monitor::{Failed, Monitor};
use crate::pin::{self, Pins};
use crate::program::{Next, PATIENCE, Program, Who};
use crate::qemu::Qemu;
use anyhow::{Context, Result, anyhow};
use qapi::qmp;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

const WHO: Who = Who { name: "QEMU", speaker: "the image", excused: true };

/// QEMU's exit statuses for the image's ways to fail, and what the image's own words begin with.
const REASONS: [(i32, &str, &str); 4] = [
    (35, "the image reported a failure", ""),
    (37, "the image panicked", "panic"),
    (39, "the image ran into a processor fault", "fault"),
    (41, "the image hung and its watchdog ended it", "hang"),
];

/// What machines are made of: QEMU, what it boots, and what executes the guest's instructions.
#[derive(Clone, Debug)]
pub(crate) struct Hypervisor {
    pub(crate) qemu: Qemu,
    pub(crate) image: PathBuf,
    pub(crate) accel: Accel,
}

/// What is booted.
pub(crate) struct Load<'a> {
    /// What errors call it.
    pub(crate) who: Who,
    pub(crate) kernel: &'a Path,
    /// Its command line.
    pub(crate) append: &'a str,
    /// The first file system, if it has one.
    pub(crate) initrd: Option<&'a Path>,
    /// What counts its instructions, if that is wanted.
    pub(crate) plugin: Option<&'a Plugin>,
}

/// A running QEMU.
pub(crate) struct Vm {
    pub(crate) program: Program,
    monitor: Monitor,
}

impl Vm {
    /// Boots the image; `patience` is how long QEMU may take to answer on QMP.
    pub(crate) fn start(
        with: &Hypervisor,
        machine: &Machine,
        append: &str,
        plugin: Option<&Plugin>,
        patience: Duration,
    ) -> Result<Self> {
        let load = Load { who: WHO, kernel: &with.image, initrd: None, append, plugin };
        Self::boot(with, machine, &load, patience)
    }

    /// Starts QEMU with its vCPUs paused.
    pub(crate) fn boot(with: &Hypervisor, machine: &Machine, load: &Load<'_>, patience: Duration) -> Result<Self> {
        machine.check(with.qemu.major, with.accel)?;
        let (ours, theirs) = UnixStream::pair().context("making a socket pair for QMP")?;
        let mut command = Command::new(&with.qemu.path);
        command.args(machine.arguments(with.accel, load.kernel, load.append)).stdin(OwnedFd::from(theirs));
        if let Some(initrd) = load.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(plugin) = load.plugin {
            command.args(plugin.arguments());
        }
        let mut program = Program::start(load.who, &mut command, None)?;
        let Ok(monitor) = Monitor::new(ours, patience.min(PATIENCE)) else {
            let status = program.last_status().map_or("it does not answer".into(), |status| status.to_string());
            return Err(program.failure(&format!("QEMU did not start ({status})")));
        };
        Ok(Self { program, monitor })
    }

    /// Runs one QMP command.
    pub(crate) fn execute<C: qapi::Command>(&mut self, command: &C) -> Result<C::Ok> {
        match self.monitor.execute(command) {
            Ok(answer) => Ok(answer),
            Err(Failed::Refused(why)) => Err(anyhow!("QEMU refused {}: {why}", C::NAME)),
            Err(Failed::Silent) => Err(match self.program.last_status() {
                Some(status) => self.ended(status),
                None => self.program.failure("QEMU does not answer and was ended"),
            }),
        }
    }

    /// The guest's next line; `None` when there are no more. Running out of time is an error with the last output, and
    /// so is a guest that QEMU stopped and nobody continues.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            if let Some(why) = self.monitor.stands_still() {
                self.program.last_status();
                return Err(self.program.failure(&why));
            }
            match self.program.next(deadline)? {
                Next::Line(line) => return Ok(Some(line)),
                Next::Silence => {}
                Next::Ended => return Ok(None),
            }
        }
    }

    /// Ties QEMU's threads to their cores.
    pub(crate) fn pin(&mut self, pins: &Pins) -> Result<()> {
        let main = self.program.id().cast_signed();
        pin::pin(Some(main), pins.main)?;
        let mut done = Vec::new();
        for base in self.execute(&qmp::query_cpus_fast {})?.iter().filter_map(base) {
            let core = pins.vcpus.get(usize::try_from(base.cpu_index)?);
            // One translating thread serves all vCPUs under icount: the first one's core counts.
            if let (Some(&core), false) = (core, done.contains(&base.thread_id)) {
                pin::pin(Some(i32::try_from(base.thread_id)?), core)?;
                done.push(base.thread_id);
            }
        }
        for thread in self.execute(&qmp::query_iothreads {})? {
            let index = thread.id.strip_prefix("io").and_then(|index| index.parse::<usize>().ok());
            if let Some(&core) = index.and_then(|index| pins.iothreads.get(index)) {
                pin::pin(Some(i32::try_from(thread.thread_id)?), core)?;
            }
        }
        Ok(())
    }

    /// Lets the vCPUs run.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.execute(&qmp::cont {}).map(drop)
    }

    /// Changes the disk's size under the guest.
    pub(crate) fn resize(&mut self, bytes: u64) -> Result<()> {
        let command =
            qmp::block_resize { device: None, node_name: Some(crate::disk::NODE.into()), size: i64::try_from(bytes)? };
        self.execute(&command).map(drop)
    }

    /// The error for a QEMU that ended before the image reported its end.
    pub(crate) fn ended(&mut self, status: ExitStatus) -> anyhow::Error {
        let known = REASONS.iter().find(|(known, ..)| Some(*known) == status.code());
        let Some((_, reason, prefix)) = known else {
            let why = self.monitor.shutdown().map(|why| format!("; {why}")).unwrap_or_default();
            return self.program.ended(&format!("{status}{why}"));
        };
        let words = self.program.said(prefix).map(|words| format!(": {words}")).unwrap_or_default();
        self.program.failure(&format!("{reason}{words}"))
    }
}

/// The part of the answer that does not depend on the architecture; other targets never appear here.
fn base(cpu: &qmp::CpuInfoFast) -> Option<&qmp::CpuInfoFastBase> {
    match cpu {
        qmp::CpuInfoFast::x86_64(base) | qmp::CpuInfoFast::i386(base) => Some(base),
        _ => None,
    }
}
