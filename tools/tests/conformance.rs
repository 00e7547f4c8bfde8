//! The conformance steps of `test`, with a script in the native bench's place.
mod tool;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tool::{Ran, finish, tool};

/// A native bench that does this, alone in its folder.
fn bench(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("native");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs the steps that match `only` with `path` as the search path.
fn steps(native: &Path, only: &str, path: &Path) -> Ran {
    let (native, only) = (format!("--native={}", native.display()), format!("--only={only}"));
    let mut command = tool(&["test", "--quick", "--no-setup", &native, &only]);
    command.env("PATH", path);
    finish(command)
}

#[test]
fn a_device_that_is_not_there_is_skipped_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let native = bench(folder.path(), "exit 1");
    let ran = steps(&native, "one request at a time by interrupt on qemu-storage-daemon", folder.path());
    assert!(ran.ok, "{}{}", ran.output, ran.error);
    let step = ran.output.lines().find(|line| line.starts_with("skipped conformance: one request")).expect("a step");
    assert!(step.contains("qemu-storage-daemon is not on the search path"), "{step}");
    assert!(
        ran.output
            .lines()
            .any(|line| line.contains("one request at a time by interrupt  ") && line.contains("skipped"))
    );
    assert!(ran.output.ends_with("1 passed, 0 failed, 1 skipped\n"), "{}", ran.output);
}

#[test]
fn a_scenario_that_fails_is_in_the_table_and_in_the_count() {
    let folder = tempfile::tempdir().unwrap();
    let text = "case $1 in serve) echo ready; exec /bin/sleep 60;; esac; echo 'no such request' >&2; exit 1";
    let native = bench(folder.path(), text);
    let ran = steps(&native, "one request at a time by interrupt on rust-vmm", folder.path());
    assert!(!ran.ok);
    let step = ran.output.lines().find(|line| line.starts_with("FAILED  conformance: one request")).expect("a step");
    assert!(step.contains("no such request"), "{step}");
    let row = ran.output.lines().find(|line| line.starts_with("│ one request")).expect("a row of the table");
    assert!(row.contains("FAILED"), "{row}");
    assert!(ran.output.ends_with("1 passed, 1 failed, 0 skipped\n"), "{}", ran.output);
}
