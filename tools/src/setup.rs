//! Installs what is missing: QEMU, its storage daemon, valgrind, dosfstools, fio, Chromium, a linker.
//!
//! With apt, as root or through `sudo -n`; anywhere else, or without the right to, the exact command is the error.
//! Knows package names; refuses to know what the packages are for.
use crate::fail::{Failure, last};
use crate::process::{Captured, capture};
use crate::qemu::{self, Qemu};
use crate::say::note;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest time for one command of the package manager.
const LIMIT: Duration = Duration::from_mins(15);
/// How long somebody else's lock on the package lists is waited for.
const LOCK: Duration = Duration::from_mins(2);

/// Something that is needed: a program, and the packages that bring it on Debian and Ubuntu, Fedora, Arch.
pub(crate) struct Need {
    program: &'static str,
    apt: &'static [&'static str],
    dnf: &'static str,
    pacman: &'static str,
}

/// Emulates the machine.
const QEMU: Need = Need {
    program: qemu::PROGRAM,
    apt: &["qemu-system-x86", "seabios"],
    dnf: "qemu-system-x86-core",
    pacman: "qemu-system-x86",
};
/// Links what is built.
pub(crate) const LINKER: Need = Need { program: "cc", apt: &["gcc", "libc6-dev"], dnf: "gcc", pacman: "gcc" };
/// The vhost-user back-end. Debian 12 and Ubuntu 22.04 have it in the first package, Ubuntu 24.04 in the second.
const STORAGE: Need = Need {
    program: "qemu-storage-daemon",
    apt: &["qemu-system-common", "qemu-utils"],
    dnf: "qemu-img",
    pacman: "qemu-base",
};
/// Counts instructions natively.
const VALGRIND: Need = Need { program: "valgrind", apt: &["valgrind"], dnf: "valgrind", pacman: "valgrind" };
/// Makes and checks FAT file systems; `fsck.fat` comes along.
const DOSFSTOOLS: Need = Need { program: "mkfs.fat", apt: &["dosfstools"], dnf: "dosfstools", pacman: "dosfstools" };
/// Drives the driver through our engine, and Linux' own in a guest.
const FIO: Need = Need { program: "fio", apt: &["fio"], dnf: "fio", pacman: "fio" };
/// Runs fio-plot, in an environment of its own.
const PYTHON: Need = Need { program: "python3", apt: &["python3", "python3-venv"], dnf: "python3", pacman: "python" };
/// Reads the pages that are tested.
const CHROMIUM: Need =
    Need { program: "chromium", apt: &["chromium", "fonts-dejavu-core"], dnf: "chromium", pacman: "chromium" };

const EVERYTHING: [&Need; 7] = [&QEMU, &LINKER, &STORAGE, &VALGRIND, &DOSFSTOOLS, &FIO, &CHROMIUM];

/// The QEMU to use: the one named, or the one on the search path, installed first if `install` says so.
pub(crate) fn qemu(named: Option<&Path>, install: bool) -> Result<Qemu> {
    match named {
        Some(path) => Qemu::at(path, QEMU.program),
        None => Qemu::at(&program(&QEMU, install, " or give --qemu=PATH")?, QEMU.program),
    }
}

/// qemu-storage-daemon, likewise.
pub(crate) fn storage_daemon(install: bool) -> Result<Qemu> {
    let path = program(&STORAGE, install, ", give --socket=PATH, or use --backend=embedded")?;
    Qemu::at(&path, STORAGE.program)
}

/// valgrind, likewise.
pub(crate) fn valgrind(install: bool) -> Result<PathBuf> {
    program(&VALGRIND, install, ", or leave --icount out")
}

/// Refreshes the package lists; whether that succeeded.
pub(crate) fn update() -> bool {
    Apt::find().and_then(|apt| apt.run(&["update"]).ok()).is_some_and(|ran| ran.status.success())
}

/// mkfs.fat and fsck.fat, likewise.
pub(crate) fn dosfstools(install: bool) -> Result<(PathBuf, PathBuf)> {
    let mkfs = program(&DOSFSTOOLS, install, "")?;
    match qemu::find("fsck.fat") {
        Some(fsck) => Ok((mkfs, fsck)),
        None => bail!("{} is there and fsck.fat is not: install dosfstools anew, both are in it", mkfs.display()),
    }
}

/// The browser, likewise.
pub(crate) fn chromium(install: bool) -> Result<PathBuf> {
    program(&CHROMIUM, install, "")
}

/// fio, likewise.
pub(crate) fn fio(install: bool) -> Result<PathBuf> {
    program(&FIO, install, "")
}

/// A Python that can make environments. Debian has what that takes in a package of its own, without a program.
pub(crate) fn python(install: bool) -> Result<PathBuf> {
    let python = program(&PYTHON, install, "")?;
    let mut can = Command::new(&python);
    can.args(["-c", "import ensurepip, venv"]);
    if capture(&mut can, LIMIT, |_| ())?.status.success() {
        return Ok(python);
    }
    if install && let Some(apt) = Apt::find() {
        apt.install(PYTHON.apt)?;
        if capture(&mut can, LIMIT, |_| ())?.status.success() {
            return Ok(python);
        }
    }
    bail!("{} cannot make environments: run `{}`", python.display(), by_hand(&[&PYTHON]))
}

/// Where `need` is, installed first if `install` says so.
fn program(need: &Need, install: bool, otherwise: &str) -> Result<PathBuf> {
    if install {
        ensure(&[need])?;
    }
    let name = need.program;
    match qemu::find(name) {
        Some(path) => Ok(path),
        None if install => bail!("{name} was installed but is not on the search path: correct PATH{otherwise}"),
        None => {
            bail!("{name} is not on the search path: run `cargo xtask setup` ({}){otherwise}", by_hand(&[need]))
        }
    }
}

/// Installs everything that is missing.
pub(crate) fn everything() -> Result<()> {
    ensure(&EVERYTHING)
}

/// Installs those of `needs` that are missing.
pub(crate) fn ensure(needs: &[&Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|need| need.program).collect();
    let programs = programs.join(" and ");
    let command = by_hand(&missing);
    let Some(apt) = Apt::find() else {
        bail!("{programs} missing and cannot be installed from here: run `{command}`");
    };
    note!("installing {programs} with apt");
    let packages: Vec<_> = missing.iter().flat_map(|need| need.apt).copied().collect();
    // Lists that could not be refreshed may still do.
    let updated = apt.run(&["update"]);
    let installed = apt.install(&packages)?;
    if !installed.status.success() || !self::missing(needs).is_empty() {
        let mut lines = updated.map(|update| update.lines).unwrap_or_default();
        lines.extend(installed.lines);
        let what = format!("{programs} could not be installed: run `{command}` and look at what it says");
        return Err(Failure::new(what, last(&lines)).into());
    }
    Ok(())
}

fn missing<'a>(needs: &[&'a Need]) -> Vec<&'a Need> {
    needs.iter().filter(|need| qemu::find(need.program).is_none()).copied().collect()
}

/// apt-get with the rights to install.
struct Apt {
    sudo: bool,
}

impl Apt {
    fn find() -> Option<Self> {
        qemu::find("apt-get")?;
        if nix::unistd::geteuid().is_root() {
            return Some(Self { sudo: false });
        }
        let mut may = Command::new(qemu::find("sudo")?);
        let asked = capture(may.args(["-n", "true"]), Duration::from_secs(20), |_| ()).ok()?;
        asked.status.success().then_some(Self { sudo: true })
    }

    /// Installs packages.
    fn install(&self, packages: &[&str]) -> Result<Captured> {
        self.run(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
    }

    /// Runs apt-get, waiting a bounded time for others' locks.
    fn run(&self, arguments: &[&str]) -> Result<Captured> {
        let deadline = Instant::now() + LOCK;
        loop {
            let mut command = Command::new(if self.sudo { "sudo" } else { "env" });
            if self.sudo {
                command.args(["-n", "env"]);
            }
            command
                .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
                .arg(format!("--option=DPkg::Lock::Timeout={}", LOCK.as_secs()))
                .args(arguments);
            let ran = capture(&mut command, LIMIT, |_| ())?;
            let locked = ran.lines.iter().any(|line| line.contains("Could not get lock"));
            if ran.status.success() || !locked || Instant::now() >= deadline {
                return Ok(ran);
            }
            crate::stop::check()?;
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}

/// The command that a person types, for the distribution that this is.
fn by_hand(missing: &[&Need]) -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    command_for(&families(&release), missing)
}

fn command_for(families: &[String], missing: &[&Need]) -> String {
    let is = |name: &str| families.iter().any(|family| family == name);
    let apt: Vec<_> = missing.iter().flat_map(|need| need.apt).copied().collect();
    let join = |pick: fn(&Need) -> &'static str| -> String {
        missing.iter().map(|need| pick(need)).collect::<Vec<_>>().join(" ")
    };
    if is("fedora") || is("rhel") {
        format!("sudo dnf install {}", join(|need| need.dnf))
    } else if is("arch") {
        format!("sudo pacman -S {}", join(|need| need.pacman))
    } else {
        format!("sudo apt-get update && sudo apt-get install --no-install-recommends {}", apt.join(" "))
    }
}

/// `ID` and `ID_LIKE` of an os-release file.
fn families(release: &str) -> Vec<String> {
    release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|names| names.trim_matches('"').split(' '))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(release: &str) -> String {
        command_for(&families(release), &[&QEMU, &LINKER])
    }

    #[test]
    fn each_distribution_is_told_its_own_command() {
        assert!(told("ID=debian\n").ends_with("qemu-system-x86 seabios gcc libc6-dev"));
        assert!(told("NAME=Mint\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n").starts_with("sudo apt-get update"));
        assert_eq!(told("ID=fedora\n"), "sudo dnf install qemu-system-x86-core gcc");
        assert_eq!(told("ID=rocky\nID_LIKE=\"rhel centos fedora\"\n"), told("ID=fedora\n"));
        for (family, manager) in [("debian", "apt-get"), ("fedora", "dnf"), ("arch", "pacman")] {
            let command = command_for(&[family.to_owned()], &[&DOSFSTOOLS]);
            assert!(command.contains(manager) && command.ends_with(" dosfstools"), "{command}");
        }
        assert_eq!(told("ID=manjaro\nID_LIKE=arch\n"), "sudo pacman -S qemu-system-x86 gcc");
    }
}
