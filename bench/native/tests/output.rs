//! What the native bench prints, into pipes whose readers left.
use std::process::{Command, Stdio};

/// Runs the bench with one of its outputs closed; its status and what it said on the other one.
fn closed(arguments: &[&str], error: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_native"));
    command.args(arguments).stdin(Stdio::null());
    if error {
        command.stderr(writer)
    } else {
        command.stdout(writer)
    };
    let ended = command.output().unwrap();
    let said = if error { ended.stdout } else { ended.stderr };
    (ended.status.code(), String::from_utf8_lossy(&said).into_owned())
}

const RUN: [&str; 5] = ["run", "--device=minimal", "--stepped", "--", "number_ios=100"];

#[test]
fn a_run_whose_results_nobody_reads_ends_quietly() {
    assert_eq!(closed(&RUN, false), (Some(141), String::new()));
    let (status, said) = closed(&["--help"], false);
    assert!(status != Some(101) && said.is_empty(), "{status:?}: {said}");
}

#[test]
fn a_complaint_that_nobody_reads_does_not_end_a_run() {
    // A core that is not there is complained about, and the job runs on.
    let mut arguments = RUN.to_vec();
    arguments.insert(1, "--cores=1000");
    let (status, said) = closed(&arguments, true);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("\"done\""), "{said}");
}
