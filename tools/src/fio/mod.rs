//! `cargo xtask fio`: fio's engine on this driver, built for the fio that is installed, and fio run with it.
//!
//! | Part | What it is |
//! |---|---|
//! | this | the command; builds the engine |
//! | [`source`] | fio's headers, from the distribution's source package of exactly that fio |
//! | [`steps`] | what `cargo xtask test` does with it |
//! | [`plot`] | fio-plot, which reads our results |
//!
//! The engine is one file: the driver for C is linked into it. It loads into the fio that it was built for and refuses
//! others. Everything is kept below cargo's target folder, and nothing of fio's is in the repository.
mod amounts;
pub(crate) mod plot;
mod source;
pub(crate) mod steps;

use crate::cli::Fio as Arguments;
use crate::fail::{Failure, last};
use crate::image;
use crate::process::{Guarded, capture};
use crate::root::root;
use crate::say::say;
use crate::setup;
use anyhow::{Context, Result, bail};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The package that has the driver for C, and the engine's source.
const PACKAGE: &str = "drv-virtio-block-c";
/// A cold build on a slow machine.
const LIMIT: Duration = Duration::from_mins(20);
/// How long fio may take to end after a signal, less than the tool itself may.
const ENDING: Duration = Duration::from_secs(5);

/// An fio, and the engine that was built for it.
pub(crate) struct Fio {
    pub(crate) program: PathBuf,
    /// As `fio --version` prints it.
    version: String,
    /// Its headers.
    headers: PathBuf,
    /// The driver for C, to be linked into engines.
    library: PathBuf,
    pub(crate) engine: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Arguments) -> Result<ExitCode> {
    let fio = Fio::new(!args.no_setup)?;
    let engine = option(&fio.engine);
    if args.arguments.is_empty() {
        let program = fio.program.display();
        say!("{}", fio.engine.display());
        say!(
            "{program} {engine} --filename=SOCKET --name=job --rw=randread --bs=4k --iodepth=32 \
             --iodepth_batch_submit=16 --iodepth_batch_complete_min=16 --iodepth_batch_complete_max=32"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = Command::new(&fio.program);
    let mut running = Guarded::spawn(command.arg(engine).args(&args.arguments)).context("cannot start fio")?;
    let status = loop {
        match running.wait_until(Instant::now() + LIMIT) {
            Ok(None) => {}
            Ok(Some(status)) => break status,
            // It reports what it did so far, and ends.
            Err(error) => {
                running.ask_to_end();
                running.ends_by(Instant::now() + ENDING);
                return Err(error);
            }
        }
    };
    // As a shell shows one that a signal ended.
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Fio {
    /// Finds fio, its headers and what the engine is made of, installed first if `install` says so; builds the engine.
    pub(crate) fn new(install: bool) -> Result<Self> {
        let fio = Self::found(install)?;
        fio.built()
    }

    /// fio and its headers; the engine is not built yet.
    fn found(install: bool) -> Result<Self> {
        let program = setup::fio(install)?;
        let told = capture(Command::new(&program).arg("--version"), Duration::from_secs(20), |_| ())?;
        let version = told.lines.first().map(|line| line.trim().to_owned()).unwrap_or_default();
        if !told.status.success() || !is_version(&version) {
            bail!("{} is not fio (its --version says `{version}`): correct PATH", program.display());
        }
        let headers = source::headers(&program, &version)?;
        let engine = headers.with_file_name("drv-virtio-block.so");
        Ok(Self { program, version, headers, library: PathBuf::new(), engine })
    }

    fn built(self) -> Result<Self> {
        let fio = Self { library: library()?, ..self };
        fio.link(&fio.version, &fio.engine)?;
        Ok(fio)
    }

    /// Compiles the engine for an fio of `version` and links it to `path`.
    fn link(&self, version: &str, path: &Path) -> Result<()> {
        let sources = root()?.join("bench/c");
        let made = path.with_extension(format!("{}.so", std::process::id()));
        let mut command = Command::new("cc");
        command
            .args([
                "-O2",
                "-Wall",
                "-Wextra",
                "-Wno-unused-parameter",
                "-D_GNU_SOURCE",
                "-fPIC",
                "-shared",
                "-fvisibility=hidden",
            ])
            .arg(format!("-DBUILT_FOR=\"{version}\""))
            .arg("-include")
            .arg(self.headers.join("config-host.h"))
            .arg("-isystem")
            .arg(&self.headers)
            .arg("-I")
            .arg(sources.join("include"))
            .arg(sources.join("fio/engine.c"))
            .arg(sources.join("fio/sockets.c"))
            .arg(&self.library)
            // Its list of sockets outlives a job's hold on it; names are its own, whatever fio has of the same name.
            .args(["-Wl,-z,nodelete", "-Wl,-Bsymbolic", "-Wl,--exclude-libs,ALL", "-lpthread", "-ldl", "-lm", "-o"])
            .arg(&made);
        let built = capture(&mut command, LIMIT, |_| ())?;
        if !built.status.success() || !built.lines.is_empty() {
            let what = format!("fio's engine does not compile for {version}: see bench/c/fio");
            return Err(Failure::new(what, last(&built.lines)).into());
        }
        std::fs::rename(&made, path).with_context(|| format!("writing {}", path.display()))
    }
}

/// fio's option for an engine.
fn option(engine: &Path) -> String {
    format!("--ioengine=external:{}", engine.display())
}

/// Whether it looks like an fio's version. It becomes a word of C and the name of a folder.
fn is_version(text: &str) -> bool {
    let rest = text.strip_prefix("fio-").unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(plain)
}

/// Builds the driver for C, as an archive.
fn library() -> Result<PathBuf> {
    let package = format!("--package={PACKAGE}");
    let arguments = ["rustc", "--release", &package, "--lib", "--crate-type=staticlib"];
    let mut command = image::cargo()?;
    command.args(arguments).arg("--message-format=json-render-diagnostics");
    let mut path = None;
    let built = capture(&mut command, LIMIT, |line| path = archive(line).or(path.take()))?;
    if !built.status.success() {
        let words: Vec<String> = built.lines.into_iter().filter(|line| !line.starts_with('{')).collect();
        let what = format!("the driver for C does not build: see cargo {}", arguments.join(" "));
        return Err(Failure::new(what, last(&words)).into());
    }
    path.context("cargo built the driver for C but did not say where")
}

/// The archive in one of cargo's messages, if it is the package's.
fn archive(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == PACKAGE.replace('-', "_");
    let files = message["filenames"].as_array().filter(|_| ours)?;
    let mut files = files.iter().filter_map(|file| file.as_str()).map(PathBuf::from);
    files.find(|file| file.extension().is_some_and(|extension| extension == "a"))
}

/// A folder below cargo's target folder, which git does not see.
fn cache(name: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let folder = root()?.join(target).join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_no_path_and_no_c() {
        assert!(is_version("fio-3.33") && is_version("fio-3.36-12-gabc"));
        for odd in ["", "fio-", "fio-x", "3.33", "fio-3/../x", "fio-3.3\"", "gfio-3"] {
            assert!(!is_version(odd), "{odd}");
        }
    }

    #[test]
    fn the_archive_is_found_among_the_files_of_its_own_package() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"drv_virtio_block_c"},"filenames":["/a/l.rlib","/a/l.a"]}"#;
        assert_eq!(archive(line), Some(PathBuf::from("/a/l.a")));
        assert_eq!(archive(&line.replace("_c\"", "\"")), None);
    }
}
