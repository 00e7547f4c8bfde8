//! Where the guest's files come from: kernel and busybox out of the distribution's packages, unpacked and never
//! installed; fio and its libraries from here.
//!
//! What was made lies in the build folder, under a name that depends on all of its versions, complete or not at all.
use super::Guest;
use super::initramfs::{Archive, in_order};
use crate::fail::{self, Failure, Skip, last};
use crate::process::capture;
use crate::qemu::find;
use crate::root::root;
use crate::say::note;
use crate::setup;
use crate::stop;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Always depends on the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";
/// What the disk needs; what these need comes along.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// For one command.
const LIMIT: Duration = Duration::from_mins(5);
const INIT: &str = include_str!("init.sh");
const MARK: &str = include_str!("mark.sh");
/// Part of the name of what is made: changed with what is done to the files.
const FORMAT: u32 = 1;

/// A package in one version.
struct Package {
    name: String,
    version: String,
}

/// The guest, made first if there is none of these versions.
pub(crate) fn guest(install: bool) -> Result<Guest> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if find(program).is_none() {
            return Err(
                Skip(format!("driver=linux boots Debian's {KERNEL} and {program} is not here: leave it out")).into()
            );
        }
    }
    let fio = setup::fio(install)?;
    let libraries = libraries(&fio)?;
    let (kernel, busybox) = packages(install).map_err(|error| unavailable(&error))?;
    let versions = versions(&[&kernel, &busybox], &fio, &libraries)?;
    let mut hasher = DefaultHasher::new();
    versions.hash(&mut hasher);
    let parent = target()?.join("linux-guest");
    let folder = parent.join(format!("{:016x}", hasher.finish()));
    if !folder.exists() {
        std::fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
        let made = tempfile::Builder::new().prefix("making").tempdir_in(&parent)?;
        note!("making the Linux guest of {} {} and fio", kernel.name, kernel.version);
        make(made.path(), &[&kernel, &busybox], &fio, &libraries, install)?;
        std::fs::write(made.path().join("versions"), &versions)?;
        // Somebody else may have been faster; theirs is the same.
        if std::fs::rename(made.path(), &folder).is_ok() {
            let _gone = made.keep();
        }
    }
    Ok(Guest { kernel: folder.join("vmlinuz"), initrd: folder.join("initrd") })
}

/// What cannot be had from here is no fault of this program's.
fn unavailable(error: &anyhow::Error) -> anyhow::Error {
    Skip(fail::line(error)).into()
}

/// Cargo's build folder.
fn target() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Ok(root()?.join(named.unwrap_or_else(|| "target".into())))
}

/// The packages in the versions that would be installed today.
fn packages(install: bool) -> Result<(Package, Package)> {
    let known = || -> Result<(Package, Package)> {
        let newest = field(KERNEL, "Depends")?;
        let name = newest.split([',', '|', ' ']).find(|name| name.starts_with("linux-image-"));
        let name = name.with_context(|| format!("{KERNEL} names no kernel"))?;
        Ok((Package::newest(name)?, Package::newest(BUSYBOX)?))
    };
    known().or_else(|error| if install && setup::update() { known() } else { Err(error) })
}

impl Package {
    fn newest(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), version: field(name, "Version")? })
    }

    /// Downloads and unpacks it.
    fn unpack(&self, into: &Path, install: bool) -> Result<()> {
        let Self { name, version } = self;
        let folder = tempfile::tempdir().context("making a folder for packages")?;
        let get = || {
            let mut command = Command::new("apt-get");
            command.args(["download", &format!("{name}={version}")]).current_dir(folder.path());
            ran(&mut command, &format!("the package {name} {version} cannot be downloaded: is there a network?"))
        };
        get()
            .or_else(|error| if install && setup::update() { get() } else { Err(error) })
            .map_err(|error| unavailable(&error))?;
        let file = std::fs::read_dir(folder.path())?.flatten().map(|entry| entry.path()).next();
        let file = file.with_context(|| format!("apt-get downloaded no {name}"))?;
        let what = format!("the package {name} {version} cannot be unpacked");
        ran(Command::new("dpkg-deb").arg("--extract").arg(file).arg(into), &what).map(drop)
    }
}

/// A field of a package's newest version.
fn field(package: &str, name: &str) -> Result<String> {
    let what = format!("the package {package} is not known here: run `apt-get update`, on Debian");
    let lines = ran(Command::new("apt-cache").args(["show", "--no-all-versions", package]), &what)?;
    let value = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.map(str::to_owned).with_context(|| format!("{what} (no {name})"))
}

/// The libraries that `program` loads, by the loader itself.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let lines = ran(Command::new("ldd").arg(program), "the libraries of fio cannot be listed")?;
    lines.iter().filter_map(|line| library(line).transpose()).collect()
}

/// A line of ldd's; `None` for what the kernel provides.
fn library(line: &str) -> Result<Option<PathBuf>> {
    if line.contains("not found") {
        bail!("fio does not start here ({}): install it anew", line.trim());
    }
    let path = line.split_ascii_whitespace().find(|word| word.starts_with('/'));
    Ok(path.map(PathBuf::from))
}

/// What the guest is made of, as text.
fn versions(packages: &[&Package], fio: &Path, libraries: &[PathBuf]) -> Result<String> {
    let mut text = format!("{FORMAT}\n{INIT}{MARK}");
    for Package { name, version } in packages {
        writeln!(text, "{name} {version}")?;
    }
    for file in std::iter::once(fio).chain(libraries.iter().map(PathBuf::as_path)) {
        let meta = file.metadata().with_context(|| file.display().to_string())?;
        writeln!(text, "{} {} {}", file.display(), meta.len(), meta.mtime())?;
    }
    Ok(text)
}

fn make(into: &Path, packages: &[&Package], fio: &Path, libraries: &[PathBuf], install: bool) -> Result<()> {
    let root = into.join("unpacked");
    for package in packages {
        package.unpack(&root, install)?;
    }
    let mut files = Vec::new();
    all_files(&root, &mut files)?;
    let within = |words: &str| {
        let found = files.iter().find(|file| file.to_string_lossy().contains(words));
        found.with_context(|| format!("the packages have no {words}"))
    };
    let out = File::create(into.join("initrd")).context("creating the archive")?;
    let mut archive = Archive::new(BufWriter::new(out))?;
    archive.program("init", INIT.as_bytes())?;
    archive.program("begin", MARK.as_bytes())?;
    archive.link("end", "begin")?;
    archive.program("bin/busybox", &std::fs::read(within("/bin/busybox")?)?)?;
    archive.link("bin/sh", "busybox")?;
    archive.program("usr/bin/fio", &std::fs::read(fio)?)?;
    for library in libraries {
        archive.copy(library)?;
    }
    let modules: Vec<PathBuf> = files.iter().filter_map(|file| plain(file).transpose()).collect::<Result<_>>()?;
    for (index, (name, content)) in in_order(&modules, &MODULES)?.into_iter().enumerate() {
        archive.program(&format!("modules/{index}-{name}.ko"), &content)?;
    }
    archive.finish()?;
    std::fs::rename(within("/boot/vmlinuz-")?, into.join("vmlinuz"))?;
    std::fs::remove_dir_all(root).context("removing the unpacked packages")
}

/// A virtio module as the kernel loads it; Debian 13 packs them.
fn plain(file: &Path) -> Result<Option<PathBuf>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with("virtio") {
        return Ok(None);
    }
    if name.ends_with(".ko.xz") {
        ran(Command::new("xz").arg("--decompress").arg(file), &format!("{name} cannot be unpacked"))?;
        return Ok(Some(file.with_extension("")));
    }
    Ok(name.ends_with(".ko").then(|| file.to_owned()))
}

fn all_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        stop::check()?;
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all_files(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}

/// Runs `command` to its end; `what` is the error if it fails.
fn ran(command: &mut Command, what: &str) -> Result<Vec<String>> {
    let ran = capture(command, LIMIT, |_| ())?;
    if ran.status.success() { Ok(ran.lines) } else { Err(Failure::new(what, last(&ran.lines)).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_both_forms_of_the_loaders_lines() {
        let read = |line: &str| library(line).unwrap().map(|path| path.display().to_string());
        assert_eq!(read("\tlinux-vdso.so.1 (0x00007ffd)"), None);
        assert_eq!(read("\tlibz.so.1 => /lib/libz.so.1 (0x00007f)").as_deref(), Some("/lib/libz.so.1"));
        assert_eq!(read("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(library("\tlibaio.so.1 => not found").is_err());
    }
}
