//! A C program on the header and the library: what it writes is on the host's disk, and what it does wrong is answered.
#[path = "../../native/tests/back_end/qsd.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "a helper of other tests, of which this one uses a part")]
mod qsd;

use qsd::Qsd;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Where cargo put the library for C: beside the tests.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    test.parent().expect("it is in a folder").to_owned()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compiles the program, as strictly as `compiler` can; `None`, with a word on the test's output, where there is none.
fn compiled(compiler: &str, arguments: &[&str]) -> Option<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let program = folder.path().join("program");
    let mut command = Command::new(compiler);
    command.args(arguments).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-I"]).arg(source("include"));
    command.arg("-o").arg(&program).arg(source("tests/program.c"));
    command.args(["-x", "none", "-L"]).arg(libraries()).arg("-ldrv_virtio_block_c");
    let Ok(output) = command.output() else {
        // Not through `eprintln!`: the test harness hides what a test that passes prints.
        let _ = writeln!(std::io::stderr(), "skipped: {compiler} is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some((folder, program))
}

fn in_c() -> Option<(TempDir, PathBuf)> {
    compiled("cc", &["-std=c99"])
}

fn command(program: &Path, arguments: [&str; 2]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_LIBRARY_PATH", libraries());
    command
}

fn done(output: &Output) {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    assert!(output.status.success() && said.ends_with("done\n"), "{}: {said}", output.status);
}

fn writes(program: &Path, mode: &str) {
    let Some(qsd) = Qsd::file(2) else { return };
    let socket = qsd.path();
    done(&command(program, [socket.to_str().expect("a temporary path is text"), mode]).output().expect("it starts"));
    let disk = std::fs::read(socket.with_file_name("disk")).expect("the disk is there");
    for (block, bytes) in disk.chunks(4096).take(8).enumerate() {
        assert!(bytes.iter().all(|byte| *byte == b'h' - block as u8), "block {block}");
    }
    assert!(disk[8 * 4096..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_c_program_writes_and_reads_and_is_refused_what_is_wrong() {
    let Some((_folder, program)) = in_c() else { return };
    for mode in ["polled", "interrupt"] {
        writes(&program, mode);
    }
}

#[test]
fn the_header_is_good_for_cplusplus() {
    let Some((_folder, program)) = compiled("c++", &["-x", "c++"]) else { return };
    writes(&program, "interrupt");
}

#[test]
fn a_back_end_that_dies_is_gone_for_whoever_waits() {
    let Some((_folder, program)) = in_c() else { return };
    for mode in ["gone", "gone-polled"] {
        let Some(mut qsd) = Qsd::null(2, 0) else { return };
        let socket = qsd.path();
        let mut command = command(&program, [socket.to_str().expect("text"), mode]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("open"));
        qsd.freeze();
        child.stdin.take().expect("a pipe").write_all(b"g").expect("it reads");
        assert_eq!(lines.next().as_deref(), Some("waiting"));
        qsd.kill();
        assert_eq!(lines.next().as_deref(), Some("done"), "{mode}");
        assert!(child.wait().expect("it is our child").success());
    }
}

#[test]
fn what_failed_or_was_closed_keeps_no_memory_even_if_the_back_end_stands_still() {
    let Some((_folder, program)) = in_c() else { return };
    let Some(qsd) = Qsd::null(2, 0) else { return };
    let socket = qsd.path();
    let mut command = command(&program, [socket.to_str().expect("text"), "stuck"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("open"));
    qsd.freeze();
    child.stdin.take().expect("a pipe").write_all(b"g").expect("it reads");
    assert_eq!(lines.next().as_deref(), Some("done"));
    assert!(child.wait().expect("it is our child").success());
}

#[test]
fn without_a_back_end_the_reason_is_one_line() {
    let Some((_folder, program)) = in_c() else { return };
    let output = command(&program, ["/nowhere/socket", "refused"]).output().expect("it starts");
    done(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("/nowhere/socket: no such socket") && said.lines().count() == 2, "{said}");
}
