//! Runs the tool, with a stub in QEMU's place.
#![allow(dead_code, reason = "each test binary uses its part")]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How the tool ended, and what it said.
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) status: Option<i32>,
    pub(crate) output: String,
    pub(crate) error: String,
}

/// The tool with these arguments, not started yet.
pub(crate) fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the tool to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    finish(tool(arguments))
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command) -> Ran {
    let output = command.output().expect("the command starts");
    Ran {
        ok: output.status.success(),
        status: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A script that answers QMP like QEMU 7.2 and then does as it is told in the guest's place. Its process id is in a
/// file, so that a test can see it die.
pub(crate) struct Stub {
    folder: tempfile::TempDir,
}

const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":7},"package":""},"capabilities":[]}}"#;

impl Stub {
    /// `guest` is what the shell runs once the vCPUs are resumed; its output is the serial port.
    pub(crate) fn new(guest: &str) -> Self {
        let qmp = format!(
            "echo '{GREETING}' >&0\nwhile read -r line; do case \"$line\" in\n*query-*) echo '{{\"return\":[]}}' >&0;;\n\
             *cont*) echo '{{\"return\":{{}}}}' >&0; break;;\n*) echo '{{\"return\":{{}}}}' >&0;;\nesac; done\n"
        );
        Self::raw(&format!("{qmp}{guest}"))
    }

    /// A stub that does not even speak QMP.
    pub(crate) fn raw(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the stub");
        let pid = folder.path().join("pid");
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo 'QEMU emulator version 7.2.0 (stub)'; exit 0; }}\n\
             echo $$ > {}\n{script}\n",
            pid.display()
        );
        let path = folder.path().join("qemu");
        std::fs::write(&path, text).expect("the stub is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the stub is executable");
        std::fs::write(folder.path().join("image"), "not booted by a stub").expect("the image is written");
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn qemu(&self) -> String {
        format!("--qemu={}", self.path().join("qemu").display())
    }

    pub(crate) fn image(&self) -> String {
        format!("--image={}", self.path().join("image").display())
    }

    /// Where the results of [`Stub::bench`] would be.
    pub(crate) fn results(&self) -> PathBuf {
        self.path().join("out.json")
    }

    /// `bench` with this stub, and the further arguments.
    pub(crate) fn bench(&self, further: &[&str]) -> Command {
        let output = format!("--output={}", self.results().display());
        let (qemu, image) = (self.qemu(), self.image());
        let mut arguments = vec!["bench", "--rw=randread", "--accel=tcg", &qemu, &image, &output];
        arguments.extend(further);
        tool(&arguments)
    }

    /// The stub's process, once it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.path().join("pid")).ok()?.trim().parse().ok()
    }

    /// Whether a process of this stub is still there.
    pub(crate) fn is_running(&self) -> bool {
        let stat = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stat.is_some_and(|stat| !stat.contains(") Z "))
    }
}

/// Starts the command with its output collected.
pub(crate) fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
}

/// A device that came up.
pub(crate) const BOOT: &str = r#"@drv {"boot":{"version":1,"capacity":2097152,"queues":1,"queue_size":1024,"slots":256,"vectors":1,"rung":"single","features":0,"read_only":false,"writeback":true}}"#;
const NOTHING: &str = r#"{"ios":0,"bytes":0,"clat_min_ns":0,"clat_max_ns":0,"clat_mean_ns":0,"percentiles_ns":[]}"#;
const READS: &str = r#"{"ios":1000,"bytes":4096000,"clat_min_ns":1,"clat_max_ns":9,"clat_mean_ns":5,"percentiles_ns":[1,1,1,1,1,1,5,5,5,5,5,5,9,9,9,9,9]}"#;

/// A report of 1000 reads with this many errors.
pub(crate) fn done(errors: u32) -> String {
    format!(
        r#"@drv {{"done":{{"version":1,"read":{READS},"write":{NOTHING},"trim":{NOTHING},"runtime_ns":1000000,"errors":{errors},"verify_errors":0,"notifications":1,"interrupts":0,"interrupts_home":0,"submitted":1000,"completed":1000,"violations":0,"full":0,"atomics":null,"instructions":null}}}}"#
    )
}
