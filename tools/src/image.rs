//! Builds the image that QEMU boots, and the native bench.
use crate::fail::{Failure, last};
use crate::process::capture;
use crate::root::root;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A cold build on a slow machine.
const LIMIT: Duration = Duration::from_mins(20);

/// Something that is built.
struct Product {
    package: &'static str,
    what: &'static str,
    /// What is built of the package.
    target: &'static str,
    arguments: &'static [&'static str],
}

/// Alone: beside the tools, features of shared dependencies would unify and bring std into the image.
const IMAGE: Product = Product {
    package: "image",
    what: "the image",
    target: "image",
    arguments: &["--release", "--features=freestanding"],
};
const NATIVE: Product =
    Product { package: "native", what: "the native bench", target: "native", arguments: &["--release"] };
/// Files on a partition, over the whole storage path; as it is built for tests, because nothing of it is measured.
const FILES: Product =
    Product { package: "native", what: "the example of files", target: "files", arguments: &["--example=files"] };

/// Counts what a guest executes.
const PLUGIN: Product =
    Product { package: "count-plugin", what: "the plugin for QEMU", target: "count_plugin", arguments: &["--release"] };

/// The cargo that started us, or the one on the search path, in the checkout's root.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?);
    Ok(command)
}

/// Builds the image and answers its path.
pub(crate) fn build() -> Result<PathBuf> {
    IMAGE.build()
}

/// The image that `--image` names, or a fresh build.
pub(crate) fn given_or_built(given: Option<&Path>) -> Result<PathBuf> {
    IMAGE.given_or_built(given)
}

/// The native bench that `--native` names, or a fresh build.
pub(crate) fn native(given: Option<&Path>) -> Result<PathBuf> {
    NATIVE.given_or_built(given)
}

/// Builds the example that keeps files on a partition.
pub(crate) fn files() -> Result<PathBuf> {
    FILES.build()
}

/// Builds the plugin for QEMU, for a version of its interface.
pub(crate) fn plugin(version: &str) -> Result<PathBuf> {
    PLUGIN.build_with(Some(("COUNT_PLUGIN_API", version)))
}

impl Product {
    fn given_or_built(&self, given: Option<&Path>) -> Result<PathBuf> {
        match given {
            // It may run elsewhere.
            Some(path) if path.is_file() => Ok(path.canonicalize()?),
            Some(path) => bail!("--{}={}: no such file: leave it out to build one", self.package, path.display()),
            None => self.build(),
        }
    }

    fn build(&self) -> Result<PathBuf> {
        self.build_with(None)
    }

    fn build_with(&self, variable: Option<(&str, &str)>) -> Result<PathBuf> {
        let what = self.what;
        let spinner = indicatif::ProgressBar::new_spinner().with_message(format!("building {what}"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        let package = format!("--package={}", self.package);
        let mut arguments = vec!["build", &package];
        arguments.extend(self.arguments);
        let mut command = cargo()?;
        command.args(&arguments).arg("--message-format=json-render-diagnostics").envs(variable);
        let mut path = None;
        let built = capture(&mut command, LIMIT, |line| path = executable(line, self.target).or(path.take()))?;
        spinner.finish_and_clear();
        if !built.status.success() {
            let words: Vec<String> = built.lines.into_iter().filter(|line| !line.starts_with('{')).collect();
            let what = format!("{what} does not build: see cargo {}", arguments.join(" "));
            return Err(Failure::new(what, last(&words)).into());
        }
        match path {
            Some(path) => Ok(path),
            None => bail!("cargo built {what} but did not say where"),
        }
    }
}

/// The executable, or the library to be loaded, in one of cargo's messages, if it is the one of `target`.
fn executable(line: &str, target: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == target;
    let made = || message["executable"].as_str().or_else(|| message["filenames"][0].as_str());
    ours.then(|| made().map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_the_message_of_its_target_only() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"native"},"executable":"/a/native"}"#;
        assert_eq!(executable(line, "native"), Some(PathBuf::from("/a/native")));
        assert_eq!(executable(line, "image"), None);
        assert_eq!(executable(&line.replace("\"/a/native\"", "null"), "native"), None);
    }
}
