//! A built checkout that is moved or copied with its build folder works on itself, and a tool without any says so.
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tool::{BOOT, Ran, Stub, done, finish};

/// What a checkout is known by, at `root`, with this tool in its build folder.
fn checkout(root: &Path) -> PathBuf {
    let ours = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is"));
    for file in ["Cargo.toml", "tools/src/root.rs", "bench/image/Cargo.toml"] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::copy(here.join("..").join(file), root.join(file)).unwrap();
    }
    let copy = root.join("target/debug/xtask");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(ours, &copy).unwrap();
    copy
}

/// A bench without `--output`, by the tool at `program`, in `folder`; `package` is what cargo says that it runs.
fn bench(program: &Path, folder: &Path, package: Option<&Path>) -> Ran {
    let stub = Stub::new(&format!("echo '{BOOT}'\necho '{}'\nexit 33", done(0)));
    let mut command = Command::new(program);
    command.args(["bench", "--rw=randread", "--number_ios=1000", "--accel=tcg", &stub.qemu(), &stub.image()]);
    command.current_dir(folder).env_remove("CARGO_MANIFEST_DIR");
    if let Some(package) = package {
        command.env("CARGO_MANIFEST_DIR", package);
    }
    finish(command)
}

#[test]
fn results_go_where_the_checkout_is_now_however_the_tool_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let [built, moved, other] = ["built", "moved", "other"].map(|name| folder.path().join(name));
    checkout(&built);
    fs::rename(&built, &moved).unwrap();
    let program = moved.join("target/debug/xtask");
    let elsewhere = tempfile::tempdir().unwrap();
    checkout(&other);
    // As cargo starts it; by its path, inside and from elsewhere; as it lies in a build folder that several share.
    for (at, folder, package, expected) in [
        (&program, moved.as_path(), Some(moved.join("tools")), &moved),
        (&program, moved.as_path(), None, &moved),
        (&program, elsewhere.path(), None, &moved),
        (&program, elsewhere.path(), Some(elsewhere.path().join("tools")), &moved),
        (&program, other.as_path(), Some(other.join("tools")), &other),
    ] {
        let results = expected.join("bench/out/latest.json");
        let ran = bench(at, folder, package.as_deref());
        assert!(ran.ok, "{}", ran.error);
        assert!(ran.output.contains(&format!("results: {}", results.display())), "{}", ran.output);
        fs::remove_file(results).unwrap();
        assert!(!built.exists(), "something was written where the checkout was");
    }
}

#[test]
fn outside_of_a_checkout_what_needs_one_is_one_line_and_the_rest_works() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).unwrap();
    let ran = bench(&program, folder.path(), None);
    assert!(!ran.ok);
    assert!(ran.error.starts_with("error: there is no checkout of drv-virtio-block"), "{}", ran.error);
    assert_eq!(ran.error.lines().count(), 1, "{}", ran.error);
    let stub = Stub::new(&format!("echo '{BOOT}'\necho '{}'\nexit 33", done(0)));
    let output = folder.path().join("out.json");
    let mut command = Command::new(&program);
    command.args(["bench", "--rw=randread", "--number_ios=1000", "--accel=tcg", &stub.qemu(), &stub.image()]);
    command.arg(format!("--output={}", output.display()));
    let ran = finish({
        command.current_dir(folder.path()).env_remove("CARGO_MANIFEST_DIR");
        command
    });
    assert!(ran.ok && output.exists(), "{}", ran.error);
}
