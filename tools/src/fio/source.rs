//! fio's headers, which no package has: from the source package of exactly the fio that is installed.
//!
//! apt fetches it through a copy of its own sources that says `deb-src`, with lists of its own: what the machine has
//! configured stays as it is. fio's configure then writes the one header that is made. Knows apt; refuses to know what
//! the headers are for.
use super::cache;
use crate::fail::{self, Failure, Skip, last};
use crate::process::capture;
use crate::qemu;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For one step: the network may be slow.
const LIMIT: Duration = Duration::from_mins(10);
/// Where the machine's sources are.
const LIST: &str = "/etc/apt/sources.list";
const PARTS: &str = "/etc/apt/sources.list.d";

/// The folder with the headers of the fio at `program`; fetched unless they are there.
pub(super) fn headers(program: &Path, version: &str) -> Result<PathBuf> {
    let folder = cache("fio")?.join(version);
    let headers = folder.join("source");
    if headers.join("config-host.h").is_file() {
        return Ok(headers);
    }
    let package = package(program).map_err(unavailable)?;
    fs::create_dir_all(&folder)?;
    let work = tempfile::tempdir_in(&folder).context("making a folder for fio's source")?;
    let unpacked = unpack(&fetch(&package, work.path()).map_err(unavailable)?, work.path())?;
    let mut configure = Command::new("./configure");
    configure.current_dir(&unpacked);
    succeeds(&mut configure, "fio's configure failed")?;
    if fs::rename(&unpacked, &headers).is_err() && !headers.join("config-host.h").is_file() {
        bail!("{} cannot be written: remove it and try again", headers.display());
    }
    Ok(headers)
}

/// What cannot be had from here is no fault of this program's.
fn unavailable(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Failure>() {
        // With what apt said.
        Ok(failure) => anyhow::Error::from(failure).context(Skip("fio's source package cannot be had".into())),
        Err(error) => Skip(fail::line(&error)).into(),
    }
}

/// The source package that `program` is from, as apt wants it: `name=version`.
fn package(program: &Path) -> Result<String> {
    let advice = "fio's headers are fetched with apt, for the distribution's own fio (apt-get install fio)";
    if qemu::find("apt-get").is_none() || qemu::find("dpkg-query").is_none() {
        bail!("there is no apt here: {advice}");
    }
    let owner = run(Command::new("dpkg-query").arg("--search").arg(program))?;
    let asked =
        run(Command::new("dpkg-query").args(["--show", "--showformat=${source:Package}=${source:Version}\n", "fio"]));
    let ours = owner.iter().any(|line| line.starts_with("fio:"));
    match asked?.into_iter().next().filter(|_| ours) {
        Some(package) => Ok(package),
        None => bail!("{} is not from a package: {advice}", program.display()),
    }
}

/// The lines of a command that need not succeed.
fn run(command: &mut Command) -> Result<Vec<String>> {
    Ok(capture(command, LIMIT, |_| ())?.lines)
}

/// Downloads the source package into `work`; the archive of its original source.
fn fetch(package: &str, work: &Path) -> Result<PathBuf> {
    let (parts, lists) = (work.join("parts"), work.join("lists"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(&parts)?;
    if copy_sources(&parts)? == 0 {
        bail!("apt has no sources to fetch fio's source package from: see {LIST} and {PARTS}");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (key, value) in [
            ("Dir::Etc::SourceList", Path::new("/dev/null")),
            ("Dir::Etc::SourceParts", &parts),
            ("Dir::State::Lists", &lists),
            ("Dir::Cache", work),
            // Its usual user may not write here.
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg(format!("--option={key}={}", value.display()));
        }
        command.args(arguments).current_dir(work);
        command
    };
    // A source among several that does not answer may not be fio's.
    let updated = run(&mut apt(&["update"]))?;
    let ran = capture(&mut apt(&["source", "--download-only", package]), LIMIT, |_| ())?;
    let archive = fs::read_dir(work)?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| is_archive(path));
    match archive {
        Some(archive) if ran.status.success() => Ok(archive),
        _ => {
            let lines = [updated, ran.lines].concat();
            let what = format!("the source package {package} cannot be fetched: see what apt-get says");
            Err(Failure::new(what, last(&lines)).into())
        }
    }
}

/// The original source among what was downloaded; not its signature.
fn is_archive(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.contains(".orig.tar.") && path.extension().is_some_and(|extension| extension != "asc")
}

/// Writes the machine's apt sources to `parts`, each asking for source packages; how many there were.
fn copy_sources(parts: &Path) -> Result<usize> {
    let listed = fs::read_dir(PARTS).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut copied = 0;
    for path in listed.chain([PathBuf::from(LIST)]) {
        let (Ok(text), Some(name)) = (fs::read_to_string(&path), path.file_name()) else { continue };
        let text = match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => of_lines(&text),
            Some("sources") => of_stanzas(&text),
            _ => continue,
        };
        if !text.trim().is_empty() {
            fs::write(parts.join(name), text)?;
            copied += 1;
        }
    }
    Ok(copied)
}

/// `deb …` lines as `deb-src …`; nothing else of the file is of use.
fn of_lines(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    lines.flat_map(|rest| ["deb-src ", rest, "\n"]).collect()
}

/// `Types:` of stanzas, whatever they are, as `deb-src`.
fn of_stanzas(text: &str) -> String {
    let line = |line| if str::starts_with(line, "Types:") { "Types: deb-src" } else { line };
    text.lines().flat_map(|text| [line(text), "\n"]).collect()
}

/// Unpacks the archive; the one folder in it.
fn unpack(archive: &Path, work: &Path) -> Result<PathBuf> {
    let folder = work.join("unpacked");
    fs::create_dir(&folder)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&folder);
    succeeds(&mut tar, "fio's source cannot be unpacked")?;
    let inside = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sources = inside.filter(|path| path.join("ioengines.h").is_file());
    sources.next().context("fio's source package has no ioengines.h: its layout changed")
}

fn succeeds(command: &mut Command, what: &str) -> Result<()> {
    let ran = capture(command, LIMIT, |_| ())?;
    if ran.status.success() { Ok(()) } else { Err(Failure::new(what, last(&ran.lines)).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_both_forms_ask_for_source_packages() {
        let lines = "# deb http://a x\ndeb [arch=amd64] http://a x main\ndeb-src http://a x main\n";
        assert_eq!(of_lines(lines), "deb-src [arch=amd64] http://a x main\n");
        let stanza = "Types: deb deb-src\nURIs: http://a\nSuites: x\n\nTypes: deb\nURIs: http://b\n";
        let made = of_stanzas(stanza);
        assert_eq!(made.matches("Types: deb-src\n").count(), 2);
        assert!(made.contains("URIs: http://a\n") && made.contains("\n\nTypes") && !made.contains("deb\n"));
    }

    #[test]
    fn the_signature_is_not_the_archive() {
        assert!(is_archive(Path::new("/a/fio_3.33.orig.tar.gz")));
        for other in ["/a/fio_3.33.orig.tar.gz.asc", "/a/fio_3.33-3.debian.tar.xz", "/a/fio_3.33-3.dsc"] {
            assert!(!is_archive(Path::new(other)), "{other}");
        }
    }
}
