//! The native bench as a process: its arguments, its back-end, its end.
//!
//! It is told the same parameters as the image and prints the same result lines. What the lines mean is `heard`'s.
use crate::backend::{Backend, Inside};
use crate::callgrind::Count;
use crate::disk::Disk;
use crate::job::Job;
use crate::program::{Program, Who};
use crate::qemu::Qemu;
use crate::server::Back;
use anyhow::Result;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

const WHO: Who = Who { name: "the native bench", speaker: "the native bench", excused: false };

/// How long a back-end that closed its socket may take to be gone altogether.
const DYING: Duration = Duration::from_millis(500);

/// What native runs are made of.
#[derive(Clone, Debug)]
pub(crate) struct Native {
    /// The bench itself.
    pub(crate) program: PathBuf,
    /// qemu-storage-daemon, where a job needs it.
    pub(crate) storage: Option<Qemu>,
    /// Where instructions are counted.
    pub(crate) valgrind: Option<PathBuf>,
}

/// A running native bench.
pub(crate) struct Process {
    pub(crate) program: Program,
    back: Option<Back>,
}

impl Process {
    /// Starts the bench on `job`, with its back-end before it; under callgrind if instructions are counted.
    pub(crate) fn start(native: &Native, job: &Job, count: Option<&Count<'_>>) -> Result<Self> {
        let (back, place) = match &job.backend {
            Backend::VhostUser(server) => {
                let (back, socket) = Back::start(native, server, job)?;
                (back, vec![option("socket", &socket)])
            }
            Backend::Embedded(inside) => (None, embedded(*inside, job)?),
            Backend::Qemu => (None, Vec::new()),
        };
        let mut command = match count {
            Some(count) => count.command(native)?,
            None => Command::new(&native.program),
        };
        command.arg("run").args(place).args(threads(job)?).arg("--").args(words(job)).stdin(Stdio::null());
        let program = Program::start(WHO, &mut command, None)?;
        Ok(Self { program, back })
    }

    /// The back-end's process id, if it is ours.
    pub(crate) fn back_id(&self) -> Option<u32> {
        self.back.as_ref().map(Back::id)
    }

    /// Waits for the bench to end, then ends its back-end.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        let status = self.program.end()?;
        match self.back.take() {
            Some(back) if status.success() => back.stop()?,
            // Kept for `failure`: whether it died tells why the bench did.
            back => self.back = back,
        }
        Ok(status)
    }

    /// An error that names the back-end's death, if it died.
    pub(crate) fn failure(&mut self, what: &str) -> anyhow::Error {
        match self.back.as_mut().and_then(|back| back.death(DYING)) {
            Some(death) => self.program.failure(&format!("{death}; {what}")),
            None => self.program.failure(what),
        }
    }

    /// The error for a bench that ended before it reported its end.
    pub(crate) fn ended(&mut self, status: ExitStatus) -> anyhow::Error {
        let how = match status.signal() {
            Some(_) => status.to_string(),
            None => format!("{status} without a result"),
        };
        self.failure(&format!("the native bench ended ({how})"))
    }
}

fn embedded(inside: Inside, job: &Job) -> Result<Vec<OsString>> {
    let device = match inside {
        Inside::Minimal { .. } | Inside::Deviating => "minimal",
        Inside::RustVmm => "rust-vmm",
    };
    let mut arguments = vec![format!("--device={device}").into()];
    arguments.extend((inside == Inside::Deviating).then(|| "--deviating".into()));
    arguments.extend(disk(job));
    arguments.push(format!("--device-queues={}", job.machine.device.queues).into());
    if job.params.queue_size > 0 {
        arguments.push(format!("--max-queue-size={}", job.params.queue_size).into());
    }
    if job.backend.is_stepped() {
        arguments.push("--stepped".into());
    } else if let Some(core) = job.pins()?.iothreads.first() {
        arguments.push(format!("--device-core={core}").into());
    }
    Ok(arguments)
}

/// The disk of a device that the bench embeds or serves. The minimal device without any moves no data.
pub(crate) fn disk(job: &Job) -> Vec<OsString> {
    match &job.machine.disk {
        Disk::File { path, .. } => {
            let mut arguments = vec![option("disk", path)];
            arguments.extend(job.machine.disk.is_read_only().then(|| "--read-only".into()));
            arguments
        }
        Disk::Null { .. } if job.backend.is_minimal() => Vec::new(),
        Disk::Null { bytes } => vec![format!("--disk-bytes={bytes}").into()],
        Disk::Theirs => Vec::new(),
    }
}

fn threads(job: &Job) -> Result<[String; 1]> {
    let cores: Vec<String> = job.pins()?.vcpus.iter().map(ToString::to_string).collect();
    Ok([format!("--cores={}", cores.join(","))])
}

fn words(job: &Job) -> Vec<String> {
    job.params.to_string().split(' ').map(str::to_owned).collect()
}

/// `--name=path`, whatever the path is made of.
pub(crate) fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(format!("--{name}="));
    text.push(path);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;

    fn line(words: &str) -> String {
        let job = Draft::of(&format!("runtime=1 backend=embedded {words}")).unwrap().finish().unwrap();
        let Backend::Embedded(inside) = job.backend else { panic!("not embedded") };
        let words: Vec<_> = embedded(inside, &job).unwrap();
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_minimal_device_has_no_disk_unless_one_is_given() {
        assert!(line("queues=2 numjobs=2").starts_with("--device=minimal --device-queues=2 --device-core="));
        assert_eq!(
            line("stepped=on queue_size=64"),
            "--device=minimal --device-queues=1 --max-queue-size=64 --stepped"
        );
        assert!(line("device=rust-vmm").contains("--disk-bytes=1073741824"));
    }

    #[test]
    fn a_file_that_is_not_written_is_opened_read_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let path = file.path().to_str().unwrap();
        assert!(line(&format!("disk={path} rw=randread")).contains(&format!("--disk={path} --read-only")));
        assert!(!line(&format!("disk={path} rw=randwrite")).contains("--read-only"));
    }
}
