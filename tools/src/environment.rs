//! Where results were taken: machine, versions, commit, options.
use crate::image;
use crate::machine::Accel;
use crate::pin;
use crate::qemu::Qemu;
use serde::Serialize;
use std::process::Command;

/// Part of every result file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    /// The processor's name.
    pub(crate) machine: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) qemu: String,
    pub(crate) accel: Accel,
    pub(crate) rustc: String,
    /// With `-dirty` if files differed from it.
    pub(crate) commit: String,
    /// The command line.
    pub(crate) options: Vec<String>,
}

impl Environment {
    pub(crate) fn of(qemu: &Qemu, accel: Accel) -> Self {
        Self {
            machine: processor(),
            cores: pin::cores().map_or(0, |cores| cores.len()),
            kernel: told("uname", &["-sr"]),
            qemu: qemu.version.clone(),
            accel,
            rustc: rustc(),
            commit: told("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            options: std::env::args().skip(1).collect(),
        }
    }

    /// One line for the terminal.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} cores, {}, QEMU {}, {}, {}, commit {}",
            self.machine,
            self.cores,
            self.kernel,
            self.qemu,
            self.accel.word(),
            self.rustc,
            self.commit
        )
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            machine: "test".into(),
            cores: 2,
            kernel: "Linux".into(),
            qemu: "7.2".into(),
            accel: Accel::Tcg,
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
    let output = Command::new(program).args(arguments).current_dir(image::root()).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".into(),
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().to_owned())
}
