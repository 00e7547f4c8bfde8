//! Builds the image that QEMU boots.
use crate::fail::{Failure, last};
use crate::process::capture;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A cold build on a slow machine.
const LIMIT: Duration = Duration::from_mins(20);

/// Alone: beside the tools, features of shared dependencies would unify and bring std into the image.
const BUILD: [&str; 4] = ["build", "--release", "--package=image", "--features=freestanding"];

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().unwrap_or(tools)
}

/// The cargo that started us, or the one on the search path.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the image and answers its path.
pub(crate) fn build() -> Result<PathBuf> {
    let spinner = indicatif::ProgressBar::new_spinner().with_message("building the image");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut command = cargo();
    command.args(BUILD).arg("--message-format=json-render-diagnostics");
    let mut path = None;
    let built = capture(&mut command, LIMIT, |line| path = executable(line).or(path.take()))?;
    spinner.finish_and_clear();
    if !built.status.success() {
        let words: Vec<String> = built.lines.into_iter().filter(|line| !line.starts_with('{')).collect();
        let what = format!("the image does not build: see cargo {}", BUILD.join(" "));
        return Err(Failure::new(what, last(&words)).into());
    }
    match path {
        Some(path) => Ok(path),
        None => bail!("cargo built the image but did not say where"),
    }
}

/// The image that `--image` names, or a fresh build.
pub(crate) fn given_or_built(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => bail!("--image={}: no such file: leave it out to build one", path.display()),
        None => build(),
    }
}

/// The executable in one of cargo's messages.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let image = message["reason"] == "compiler-artifact" && message["target"]["name"] == "image";
    image.then(|| message["executable"].as_str().map(PathBuf::from))?
}
