//! Where results were taken: machine, versions, commit, options.
use crate::machine::Accel;
use crate::pin;
use crate::process::{Captured, capture};
use crate::root::root;
use crate::run::Bed;
use serde::Serialize;
use std::process::Command;
use std::time::Duration;

/// For one question; git may look at every file.
const LIMIT: Duration = Duration::from_secs(30);

/// Part of every result file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    /// The processor's name.
    pub(crate) machine: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// QEMU's version, where it was used.
    pub(crate) qemu: Option<String>,
    pub(crate) accel: Option<Accel>,
    /// qemu-storage-daemon's version, where it was used.
    pub(crate) storage_daemon: Option<String>,
    pub(crate) rustc: String,
    /// With `-dirty` if files differed from it.
    pub(crate) commit: String,
    /// The command line.
    pub(crate) options: Vec<String>,
}

impl Environment {
    pub(crate) fn of(bed: &Bed) -> Self {
        Self {
            machine: processor(),
            cores: pin::cores().map_or(0, |cores| cores.len()),
            kernel: told("uname", &["-sr"]),
            qemu: bed.qemu.as_ref().map(|with| with.qemu.version.clone()),
            accel: bed.qemu.as_ref().map(|with| with.accel),
            storage_daemon: bed.native.as_ref().and_then(|native| Some(native.storage.as_ref()?.version.clone())),
            rustc: rustc(),
            commit: told("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            options: std::env::args().skip(1).collect(),
        }
    }

    /// One line for the terminal.
    pub(crate) fn line(&self) -> String {
        let mut parts = vec![self.machine.clone(), format!("{} cores", self.cores), self.kernel.clone()];
        parts.extend(self.qemu.as_ref().map(|version| format!("QEMU {version}")));
        parts.extend(self.accel.map(|accel| accel.word().to_owned()));
        parts.extend(self.storage_daemon.as_ref().map(|version| format!("qemu-storage-daemon {version}")));
        parts.extend([self.rustc.clone(), format!("commit {}", self.commit)]);
        parts.join(", ")
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            machine: "test".into(),
            cores: 2,
            kernel: "Linux".into(),
            qemu: Some("7.2".into()),
            accel: Some(Accel::Tcg),
            storage_daemon: None,
            rustc: rustc(),
            commit: "none".into(),
            options: Vec::new(),
        }
    }
}

/// The compiler's version line, which instruction counts are stored under.
pub(crate) fn rustc() -> String {
    told(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()), &["--version"])
}

fn told(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    if let Ok(root) = root() {
        command.current_dir(root);
    }
    // What it says besides stands before the answer.
    match capture(&mut command, LIMIT, |_| ()) {
        Ok(Captured { status, mut lines }) if status.success() => lines.pop().unwrap_or_default().trim().to_owned(),
        _ => "unknown".into(),
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().to_owned())
}
