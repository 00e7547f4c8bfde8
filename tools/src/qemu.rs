//! Which QEMU, or which of its tools: path and version.
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The program that is looked for.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// A QEMU that answered.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    pub(crate) path: PathBuf,
    /// As it prints it, for instance `7.2.22 (Debian 1:7.2+dfsg-7)`.
    pub(crate) version: String,
    pub(crate) major: u32,
}

impl Qemu {
    /// The `program` at `path`, asked for its version.
    pub(crate) fn at(path: &Path, program: &str) -> Result<Self> {
        let shown = path.display();
        let mut command = Command::new(path);
        let told = crate::process::capture(command.arg("--version"), Duration::from_secs(20), |_| ())
            .with_context(|| format!("{shown} does not run: give the path of {program}"))?;
        let line = told.lines.first().cloned().unwrap_or_default();
        let version = line.split_once("version ").map(|(_, version)| version.trim().to_owned());
        let major = version.as_ref().and_then(|version| version.split('.').next()?.parse().ok());
        match (version, major) {
            (Some(version), Some(major)) if told.status.success() => Ok(Self { path: path.to_owned(), version, major }),
            _ => bail!("{shown} is not QEMU's (its --version says `{line}`): give the path of {program}"),
        }
    }
}

/// The first `program` on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| executable(candidate))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
