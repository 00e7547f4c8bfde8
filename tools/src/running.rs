//! What runs a job: a machine or the native bench, listened to alike.
use crate::cpu;
use crate::job::Job;
use crate::native::Process;
use crate::run::Bed;
use crate::vm::Vm;
use anyhow::{Context, Result, bail};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// QEMU's exit status when the image says that all went well.
const SUCCESS: i32 = 33;
/// How long QEMU may take to answer, unless the bed says less.
const ANSWER: Duration = Duration::from_secs(20);

/// What runs a job.
pub(crate) enum Running {
    Vm(Box<Vm>),
    Native(Box<Process>),
}

impl Running {
    /// Starts what the job's back-end needs, every thread on its core.
    pub(crate) fn start(bed: &Bed, job: &Job) -> Result<Self> {
        if job.backend.is_native() {
            let native = bed.native.as_ref().context("the native bench was not built")?;
            return Ok(Self::Native(Box::new(Process::start(native, job, None)?)));
        }
        let with = bed.qemu.as_ref().context("QEMU was not set up")?;
        let patience = bed.timeout.unwrap_or(ANSWER);
        let mut vm = Vm::start(with, &job.machine, &job.params.to_string(), bed.plugin.as_ref(), patience)?;
        vm.pin(&job.pins()?)?;
        vm.resume()?;
        Ok(Self::Vm(Box::new(vm)))
    }

    /// The next line of output; `None` when there are no more. Running out of time is an error with the last output.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> Result<Option<String>> {
        match self {
            Self::Vm(vm) => vm.next_line(deadline),
            Self::Native(process) => process.program.next_line(deadline),
        }
    }

    /// Waits for it to end by itself, and ends what was started for it.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        match self {
            Self::Vm(vm) => vm.program.end(),
            Self::Native(process) => process.end(),
        }
    }

    /// Whether this status says that all went well.
    pub(crate) fn succeeded(&self, status: ExitStatus) -> bool {
        match self {
            Self::Vm(_) => status.code() == Some(SUCCESS),
            Self::Native(_) => status.success(),
        }
    }

    /// An error with its last words.
    pub(crate) fn failure(&mut self, what: &str) -> anyhow::Error {
        match self {
            Self::Vm(vm) => vm.program.failure(what),
            Self::Native(process) => process.failure(what),
        }
    }

    /// The error for one that ended before it reported its end.
    pub(crate) fn ended(&mut self, status: ExitStatus) -> anyhow::Error {
        match self {
            Self::Vm(vm) => vm.ended(status),
            Self::Native(process) => process.ended(status),
        }
    }

    /// The process id of the driver's process, for whoever wants to see it die.
    pub(crate) fn id(&self) -> u32 {
        match self {
            Self::Vm(vm) => vm.program.id(),
            Self::Native(process) => process.program.id(),
        }
    }

    /// The process id of the device's process; QEMU is both.
    pub(crate) fn device_id(&self) -> Option<u32> {
        match self {
            Self::Vm(vm) => Some(vm.program.id()),
            Self::Native(process) => process.back_id(),
        }
    }

    /// Processor time of driver and device so far, seconds.
    pub(crate) fn cpu(&self) -> Option<f64> {
        let device = self.device_id().filter(|&id| id != self.id());
        Some(cpu::of(self.id())? + device.map_or(Some(0.0), cpu::of)?)
    }

    /// Changes the disk's size under the driver.
    pub(crate) fn resize(&mut self, bytes: u64) -> Result<()> {
        match self {
            Self::Vm(vm) => vm.resize(bytes),
            Self::Native(_) => bail!("only QEMU's disk is resized"),
        }
    }
}
