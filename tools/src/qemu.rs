//! Which QEMU, or which of its tools: path and version.
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
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
    find_on(&std::env::var_os("PATH")?, program)
}

/// Debian keeps what administers a system in `sbin`, and a user's path leaves that out: the `sbin` beside each `bin`
/// comes last.
fn find_on(path: &OsStr, program: &str) -> Option<PathBuf> {
    let folders: Vec<_> = std::env::split_paths(path).collect();
    let beside = folders.iter().filter(|folder| folder.ends_with("bin")).map(|folder| folder.with_file_name("sbin"));
    let candidates = folders.iter().cloned().chain(beside).map(|folder| folder.join(program));
    candidates.into_iter().find(|candidate| executable(candidate))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_owned()
    }

    #[test]
    fn what_a_users_path_leaves_out_is_found_after_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = std::env::join_paths([at("usr/bin"), at("opt/tools")]).unwrap();
        assert_eq!(find_on(&path, "mkfs"), None);
        let beside = program(&at("usr/sbin/mkfs"));
        assert_eq!(find_on(&path, "mkfs"), Some(beside));
        let named = program(&at("opt/tools/mkfs"));
        assert_eq!(find_on(&path, "mkfs"), Some(named));
        program(&at("opt/sbin/fsck"));
        assert_eq!(find_on(&path, "fsck"), None, "beside no bin");
    }
}
