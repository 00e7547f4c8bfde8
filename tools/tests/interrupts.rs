//! Signals, `--timeout` and readers that leave: the tool ends soon, says why in one line or nothing, and leaves nothing.
mod tool;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tool::{BOOT, Stub, done, start, tool};

/// A file of `bytes` bytes, a hole but for one byte of data at each `step`.
fn disk(folder: &Path, bytes: u64, step: u64) -> PathBuf {
    let path = folder.join("disk.raw");
    let file = File::create(&path).expect("a disk");
    file.set_len(bytes).expect("a sparse file");
    for at in (0..bytes).step_by(step as usize).skip(1) {
        file.write_all_at(&[0], at).expect("data");
    }
    path
}

/// A job that writes and is verified, on `disk`.
fn verified(stub: &Stub, disk: &Path, further: &[&str]) -> Child {
    let (output, disk) = (format!("--output={}", stub.results().display()), format!("--disk={}", disk.display()));
    let (qemu, image) = (stub.qemu(), stub.image());
    let arguments = ["bench", "--rw=randrw", "--verify=crc32c", "--accel=tcg", &qemu, &image, &output, &disk];
    start(tool(&[&arguments[..], further].concat()))
}

/// Waits for the end of `child`, much longer than it may take and much shorter than what it was to do.
fn ends(mut child: Child) -> (ExitStatus, String) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            return (status, text);
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("it is still at work");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `holds`, some seconds at most.
fn soon(holds: impl Fn() -> bool) -> bool {
    (0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        holds()
    })
}

fn send(signal: &str, to: u32) {
    assert!(Command::new("kill").args(["-s", signal, &to.to_string()]).status().unwrap().success());
}

#[test]
fn a_huge_sparse_disk_is_looked_through_without_reading_its_holes() {
    let stub = Stub::new(&format!("echo '{BOOT}'\necho '{}'\nexit 33", done(0)));
    // Reading it would take hours.
    let disk = disk(stub.path(), 8 << 40, 1 << 40);
    let (status, error) = ends(verified(&stub, &disk, &["--number_ios=1000"]));
    // The stub writes nothing, so that what is missing is the seal, in the disk's last sector.
    assert!(!status.success() && error.contains("no seal"), "{error}");
}

/// Data every 2 MiB has to be read piece by piece, 20 GiB of it.
#[test]
fn the_time_limit_and_signals_hold_while_a_disk_is_read() {
    let stub = Stub::raw("sleep 60");
    let disk = disk(stub.path(), 40 << 30, 2 << 20);
    let (status, error) = ends(verified(&stub, &disk, &["--runtime=1", "--timeout=1"]));
    assert!(!status.success() && error.contains("it was not over within 1 s"), "{error}");
    assert!(error.lines().count() == 1 && error.contains("raise --timeout"), "{error}");
    let child = verified(&stub, &disk, &["--runtime=1"]);
    let counts = format!("/proc/{}/io", child.id());
    let reads = || {
        let text = std::fs::read_to_string(&counts).unwrap();
        text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap()
    };
    assert!(soon(|| reads() > 64 << 20), "it does not read the disk");
    send("TERM", child.id());
    let (status, error) = ends(child);
    assert_eq!(status.code(), Some(130));
    assert!(error.contains("nothing was left running"), "{error}");
    assert!(stub.pid().is_none(), "QEMU was started");
}

/// The other end of a fifo stands for a device that hangs.
#[test]
fn a_signal_ends_even_a_read_that_never_returns() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("results.json");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let child = start(tool(&["report", fifo.to_str().unwrap()]));
    // Opened once the tool has opened it; then it is in the kernel, where no flag is looked at.
    let writer = File::options().write(true).open(&fifo).unwrap();
    send("TERM", child.id());
    let (status, error) = ends(child);
    assert_eq!(status.code(), Some(130), "{error}");
    assert!(error.starts_with("error: interrupted"), "{error}");
    drop(writer);
}

/// Runs the command with a standard output whose reader has left; how it ended, and what it said on standard error.
fn without_a_reader(mut command: Command) -> (ExitStatus, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    ends(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn output_into_a_pipe_that_nobody_reads_ends_quietly() {
    let stub = Stub::new(&format!("echo '{BOOT}'\necho '{}'\nexit 33", done(0)));
    let measured = stub.bench(&["--number_ios=1000", "--mode=polled", "--event-idx=off"]);
    let (status, error) = without_a_reader(measured);
    assert_eq!((status.code(), error.as_str()), (Some(141), ""), "a table");
    assert!(
        stub.results().exists() && stub.results().with_extension("html").exists(),
        "files are written all the same"
    );
    let (qemu, image) = (stub.qemu(), stub.image());
    let given = ["--mode=polled", "--event-idx=off", "--output-format=json"];
    let json = [&["bench", "--number_ios=1000", "--accel=tcg", &qemu, &image], &given[..]].concat();
    let results = stub.results();
    let page = format!("--output={}", stub.path().join("page.html").display());
    let baseline = format!("--baseline={}", results.display());
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["bench", "--help"],
        &["help", "compare"],
        &json,
        &["report", results.to_str().unwrap(), &page],
        &["test", "--only=no step has this name, and so none runs", &baseline][..2],
    ] {
        let (status, error) = without_a_reader(tool(arguments));
        match arguments {
            // Nothing was printed, and what is wrong is said where somebody reads.
            ["test", ..] => assert!(status.code() == Some(1) && error.starts_with("error: no step"), "{error}"),
            _ => assert_eq!((status.code(), error.as_str()), (Some(141), ""), "{arguments:?}"),
        }
    }
}

#[test]
fn remarks_that_nobody_reads_are_dropped_and_nothing_ends() {
    let stub = Stub::new("echo boot >> $0.boots; kill -SEGV $$");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = stub.bench(&["--number_ios=10"]);
    // Each crash is remarked upon; the error itself, too.
    let status = command.stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let boots = std::fs::read_to_string(stub.path().join("qemu.boots")).unwrap();
    assert_eq!(boots.lines().count(), 3, "it went on");
}

#[test]
fn a_full_disk_under_the_output_is_an_error_and_no_panic() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = tool(&["bench", "--help"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let (status, error) = ends(child);
    assert_eq!(status.code(), Some(1));
    assert!(error.starts_with("error: standard output cannot be written: No space"), "{error}");
    assert_eq!(error.lines().count(), 1);
}
