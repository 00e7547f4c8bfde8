//! `setup`, with stubs in the places of apt-get, sudo and QEMU.
mod tool;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use tool::{BOOT, Ran, done, finish, tool};

fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A search path with all that is needed but QEMU and apt-get.
fn bare() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["cc", "valgrind", "qemu-storage-daemon", "mkfs.fat", "chromium", "fio"] {
        script(folder.path(), name, "exit 0");
    }
    for name in ["env", "cp", "chmod", "sh"] {
        let there = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
        let found = there.iter().find(|path| path.exists()).expect("a tool of every system");
        std::os::unix::fs::symlink(found, folder.path().join(name)).unwrap();
    }
    folder
}

fn on(folder: &Path, arguments: &[&str], user: Option<u32>) -> Ran {
    let mut command = tool(arguments);
    command.env("PATH", folder);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    finish(command)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// apt-get that logs what it is told and, on install, brings QEMU.
fn apt(folder: &Path) {
    let (log, place) = (folder.join("log"), folder.join("qemu-system-x86_64"));
    let text = format!(
        "echo \"$DEBIAN_FRONTEND $*\" >> {}\ncase \"$*\" in *install*) printf '#!/bin/sh\\n' > {place}; chmod +x {place};; esac",
        log.display(),
        place = place.display()
    );
    script(folder, "apt-get", &text);
}

#[test]
fn nothing_is_done_if_nothing_is_missing() {
    let folder = bare();
    script(folder.path(), "qemu-system-x86_64", "exit 0");
    script(folder.path(), "apt-get", "echo called >&2; exit 1");
    let ran = on(folder.path(), &["setup"], None);
    assert!(ran.ok, "{}", ran.error);
}

#[test]
fn what_is_missing_is_installed_after_the_lists_were_updated() {
    if !is_root() {
        return; // as another user the next test has the same through sudo
    }
    let folder = bare();
    apt(folder.path());
    let ran = on(folder.path(), &["setup"], None);
    assert!(ran.ok, "{}", ran.error);
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].starts_with("noninteractive") && lines[0].ends_with(" update"), "{log}");
    assert!(lines[1].contains("install --yes --no-install-recommends qemu-system-x86"), "{log}");
}

#[test]
fn without_the_right_to_install_the_exact_command_is_told() {
    let folder = bare();
    apt(folder.path());
    script(folder.path(), "sudo", "exit 1");
    let user = is_root().then_some(65534);
    let tool = folder.path().join("xtask");
    // Another user may not reach the build folder.
    std::fs::copy(env!("CARGO_BIN_EXE_xtask"), &tool).unwrap();
    let mut command = std::process::Command::new(&tool);
    command.arg("setup").env("PATH", folder.path());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let ran = finish(command);
    assert!(!ran.ok);
    assert_eq!(ran.error.lines().count(), 1, "{}", ran.error);
    assert!(ran.error.contains("run `sudo "), "{}", ran.error);
    assert!(!folder.path().join("log").exists(), "apt-get was called");
}

#[test]
fn a_package_that_cannot_be_had_is_an_error_with_what_apt_said() {
    let folder = bare();
    script(folder.path(), "apt-get", "echo 'E: Unable to locate package'; exit 100");
    script(folder.path(), "sudo", "shift; exec \"$@\"");
    let ran = on(folder.path(), &["setup"], None);
    assert!(!ran.ok);
    assert!(ran.error.contains("error: qemu-system-x86_64 could not be installed: run `"), "{}", ran.error);
    assert!(ran.error.contains("  | E: Unable to locate package"), "{}", ran.error);
}

#[test]
fn everything_that_any_back_end_needs_is_installed() {
    if !is_root() {
        return; // see above
    }
    let folder = bare();
    for name in ["valgrind", "qemu-storage-daemon", "mkfs.fat", "chromium", "fio"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let place = folder.path().display();
    let text = format!(
        "echo \"$*\" >> {place}/log\ncase \"$*\" in *install*) for name in qemu-system-x86_64 valgrind \
         qemu-storage-daemon mkfs.fat chromium fio; do printf '#!/bin/sh\\n' > {place}/$name; chmod +x {place}/$name; done;; esac"
    );
    script(folder.path(), "apt-get", &text);
    let ran = on(folder.path(), &["setup"], None);
    assert!(ran.ok, "{}", ran.error);
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    for package in ["qemu-system-x86", "qemu-system-common", "qemu-utils", "valgrind", "dosfstools", "chromium", "fio"]
    {
        assert!(log.lines().last().unwrap().split(' ').any(|word| word == package), "{package} in {log}");
    }
}

#[test]
fn a_named_qemu_that_is_missing_stays_an_error() {
    let folder = bare();
    let ran = on(folder.path(), &["bench", "--rw=read", "--no-setup", "--backend=qemu"], None);
    assert!(!ran.ok);
    assert_eq!(ran.error.lines().count(), 1, "{}", ran.error);
    assert!(ran.error.contains("cargo xtask setup"), "{}", ran.error);
    let ran = on(folder.path(), &["bench", "--rw=read", "--no-setup", "--qemu=/nonexistent/qemu"], None);
    assert!(!ran.ok && ran.error.contains("/nonexistent/qemu"), "{}", ran.error);
}

#[test]
fn bench_without_setup_and_qemu_uses_the_embedded_device_and_says_how_to_get_qemu() {
    let folder = bare();
    apt(folder.path());
    // What an embedded run cannot do is not done in silence: the job asks for two vCPUs.
    let ran = on(folder.path(), &["bench", "--rw=read", "--vcpus=2", "--no-setup"], None);
    assert!(!ran.ok);
    let lines: Vec<_> = ran.error.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.error);
    assert!(lines[0].starts_with("note: the embedded device is used instead of QEMU"), "{}", ran.error);
    assert!(lines[0].contains("cargo xtask setup"), "{}", ran.error);
    assert!(lines[1].starts_with("error: without QEMU: vcpus is for backend=qemu"), "{}", ran.error);
    assert!(!folder.path().join("log").exists(), "apt-get was called");
}

#[test]
fn without_qemu_the_main_job_builds_the_native_bench_and_runs_embedded() {
    let folder = bare();
    let native = folder.path().join("native");
    script(folder.path(), "native", &format!("echo '{BOOT}'; echo '{}'", done(0)));
    let built = r#"{"reason":"compiler-artifact","target":{"name":"native"},"executable":"PATH"}"#;
    let built = built.replace("PATH", &native.to_string_lossy());
    script(folder.path(), "cargo", &format!("echo \"$*\" >&2; echo '{built}'"));
    let output = format!("--output={}", folder.path().join("out.json").display());
    let mut command = tool(&["bench", "--rw=read", "--number_ios=1000", "--no-setup", &output]);
    command.env("PATH", folder.path()).env("CARGO", folder.path().join("cargo"));
    let ran = finish(command);
    assert!(ran.ok, "{}", ran.error);
    assert!(ran.error.starts_with("note: the embedded device is used instead of QEMU"), "{}", ran.error);
    let text = std::fs::read_to_string(folder.path().join("out.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["jobs"][0]["drv"]["backend"], "embedded");
    assert!(json["environment"]["qemu"].is_null());
}
