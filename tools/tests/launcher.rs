//! What a QEMU or a guest that misbehaves comes to, with a script in QEMU's place.
mod tool;

use std::process::Command;
use std::time::{Duration, Instant};
use tool::{BOOT, Ran, Stub, done, finish, start};

fn guest(lines: &[&str], end: &str) -> Stub {
    let echoes: Vec<String> = lines.iter().map(|line| format!("echo '{line}'")).collect();
    Stub::new(&format!("{}\n{end}", echoes.join("\n")))
}

/// Fails unless the run is refused with a first line that contains every word, and leaves nothing behind.
fn fails(stub: &Stub, command: Command, words: &[&str]) -> Ran {
    let ran = fails_in_words(stub, command, words);
    assert!(!stub.results().exists(), "a result was written");
    ran
}

/// Fails unless the run is refused with a first line that contains every word.
fn fails_in_words(stub: &Stub, command: Command, words: &[&str]) -> Ran {
    let ran = finish(command);
    assert!(!ran.ok, "it succeeded: {}", ran.output);
    let first = ran.error.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{}", ran.error);
    for word in words {
        assert!(first.contains(word), "`{word}` is not in: {}", ran.error);
    }
    assert!(ran.error.lines().skip(1).all(|line| line.starts_with("  | ")), "{}", ran.error);
    assert_eq!(ran.output, "", "something was presented as a result");
    assert!(!stub.results().with_extension("html").exists(), "a page was written");
    assert!(!stub.is_running(), "a process was left");
    ran
}

#[test]
fn a_run_that_accounts_for_everything_is_written_and_shown() {
    let stub = guest(&["Booting", BOOT, &done(0)], "exit 33");
    let ran = finish(stub.bench(&["--number_ios=1000", "--mode=polled"]));
    assert!(ran.ok, "{}", ran.error);
    assert!(ran.output.contains("1,000,000"), "IOPS are missing:\n{}", ran.output);
    let text = std::fs::read_to_string(stub.results()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["jobs"][0]["read"]["total_ios"], 1000);
    assert_eq!(json["jobs"][0]["drv"]["mode"], "polled");
    assert_eq!(json["jobs"][0]["drv"]["accel"], "tcg");
    assert_eq!(json["environment"]["qemu"], "7.2.0 (stub)");
    let page = std::fs::read_to_string(stub.results().with_extension("html")).unwrap();
    assert!(page.contains("7.2.0 (stub)"), "the page stands beside the results");
}

#[test]
fn json_goes_to_standard_output_if_no_file_takes_it() {
    let stub = guest(&[BOOT, &done(0)], "exit 33");
    let (qemu, image) = (stub.qemu(), stub.image());
    let ran = tool::run(&["bench", "--number_ios=1000", "--accel=tcg", &qemu, &image, "--output-format=json"]);
    assert!(ran.ok, "{}", ran.error);
    let json: serde_json::Value = serde_json::from_str(&ran.output).unwrap();
    assert!(json["jobs"][0]["read"]["iops"].is_number());
}

#[test]
fn a_qemu_that_does_not_start_is_an_error_in_its_own_words() {
    let stub = Stub::raw("echo 'qemu: no such machine' >&2; exit 1");
    fails(&stub, stub.bench(&["--runtime=1"]), &["QEMU did not start", "exit status: 1", "no such machine"]);
}

#[test]
fn a_qemu_that_says_nothing_is_ended() {
    let stub = Stub::raw("sleep 60");
    let before = Instant::now();
    fails(&stub, stub.bench(&["--runtime=1", "--timeout=1"]), &["QEMU did not start"]);
    assert!(before.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_guest_that_hangs_is_ended_in_time_with_its_last_words() {
    let stub = guest(&["alive", "last words"], "sleep 60");
    let before = Instant::now();
    let ran = fails(&stub, stub.bench(&["--runtime=1", "--timeout=5"]), &["did not finish within"]);
    assert!(ran.error.contains("  | last words"), "{}", ran.error);
    assert!(before.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_guest_that_prints_for_ever_is_ended_in_time() {
    let stub = Stub::new("while :; do echo noise; done");
    let before = Instant::now();
    fails(&stub, stub.bench(&["--runtime=1", "--timeout=5"]), &["did not finish within"]);
    assert!(before.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_qemu_that_dies_in_the_middle_is_an_error_with_the_last_output() {
    let stub = guest(&[BOOT, "working"], "kill -9 $$");
    let ran = fails(&stub, stub.bench(&["--runtime=1"]), &["QEMU ended", "signal: 9"]);
    assert!(ran.error.contains("  | working"), "{}", ran.error);
}

#[test]
fn a_qemu_that_crashes_by_itself_is_started_again_and_it_is_said_so() {
    let stub = Stub::new("echo boot >> $0.boots; kill -SEGV $$");
    let ran = finish(stub.bench(&["--number_ios=10"]));
    assert!(!ran.ok);
    assert_eq!(ran.error.matches("note: bench: QEMU ended (signal: 11").count(), 2, "{}", ran.error);
    assert!(ran.error.contains("error: job bench: QEMU ended (signal: 11"), "{}", ran.error);
    let boots = std::fs::read_to_string(stub.path().join("qemu.boots")).unwrap();
    assert_eq!(boots.lines().count(), 3);
}

/// An event of QEMU's, told by the stub.
fn event(name: &str, data: &str) -> String {
    format!(r#"echo '{{"event":"{name}","data":{data},"timestamp":{{"seconds":1,"microseconds":2}}}}' >&0"#)
}

const FULL: &str = r#"{"device":"","node-name":"disk","operation":"write","action":"stop","nospace":true,"reason":"No space left on device"}"#;

#[test]
fn a_guest_that_qemu_stops_ends_the_run_with_the_reason_long_before_its_time() {
    for (events, words) in [
        (
            vec![event("BLOCK_IO_ERROR", FULL), event("STOP", "{}")],
            "a write of the disk failed: No space left on device",
        ),
        (vec![event("GUEST_PANICKED", r#"{"action":"pause"}"#), event("STOP", "{}")], "the guest panicked"),
    ] {
        // It would print for an hour, so that it is not silence that gives it away.
        let noise = "while :; do echo noise; sleep 0.01; done";
        let stub = Stub::new(&format!("echo '{BOOT}'\n{}\n{noise}", events.join("\n")));
        fails(
            &stub,
            stub.bench(&["--runtime=3600"]),
            &["QEMU stopped the guest", "nobody continued it within 2 s", words],
        );
    }
}

#[test]
fn a_guest_that_somebody_continues_and_errors_that_the_guest_is_told_of_end_nothing() {
    let reported = FULL.replace("stop", "report");
    let pause = [event("STOP", "{}"), "sleep 0.2".into(), event("RESUME", "{}"), event("BLOCK_IO_ERROR", &reported)];
    // Longer than a guest may stand still.
    let stub = Stub::new(&format!("echo '{BOOT}'\n{}\nsleep 3\necho '{}'\nexit 33", pause.join("\n"), done(0)));
    let ran = finish(stub.bench(&["--number_ios=1000"]));
    assert!(ran.ok, "{}", ran.error);
    assert!(ran.error.contains("note: the guest stood still for"), "{}", ran.error);
}

#[test]
fn a_qemu_that_ends_says_why_the_guest_was_shut_down() {
    let told = event("SHUTDOWN", r#"{"guest":true,"reason":"guest-reset"}"#);
    let stub = Stub::new(&format!("echo '{BOOT}'\n{told}\nexit 0"));
    fails(&stub, stub.bench(&["--runtime=1"]), &["QEMU ended (exit status: 0; the guest was reset"]);
}

#[test]
fn each_way_a_guest_ends_has_its_name() {
    for (status, words) in [
        (37, ["panicked", "panic on cpu0: broken"]),
        (39, ["processor fault", "fault: vector 14"]),
        (41, ["hung", "hang: the deadline"]),
        (35, ["reported a failure", "reported"]),
        (0, ["QEMU ended", "exit status: 0"]),
    ] {
        let lines = [BOOT, "panic on cpu0: broken", "fault: vector 14", "hang: the deadline"];
        let stub = guest(&lines, &format!("exit {status}"));
        fails(&stub, stub.bench(&["--runtime=1"]), &words);
    }
}

#[test]
fn a_failure_that_the_guest_reports_is_the_error() {
    let failed = r#"@drv {"failed":{"text":"no virtio block device"}}"#;
    let stub = guest(&[failed], "exit 35");
    fails(&stub, stub.bench(&["--runtime=1"]), &["the image reported: no virtio block device"]);
}

#[test]
fn a_report_is_not_believed_if_the_guest_then_panics() {
    let stub = guest(&[BOOT, &done(0), "panic on cpu1: too late"], "exit 37");
    fails(&stub, stub.bench(&["--number_ios=1000"]), &["panicked", "too late"]);
}

#[test]
fn unaccounted_requests_are_an_error_and_a_result_file_of_failed_ones_says_so() {
    let stub = guest(&[BOOT, &done(3)], "exit 33");
    fails_in_words(&stub, stub.bench(&["--number_ios=1000"]), &["3 requests that ended in an error"]);
    let result = std::fs::read_to_string(stub.results()).expect("the result that was asked for");
    assert!(result.contains("\"error\": 5") && result.contains("\"total\": 3"), "{result}");
    let stub = guest(&[BOOT, &done(0)], "exit 33");
    fails(&stub, stub.bench(&["--number_ios=5000"]), &["1000 I/Os were done, 5000 were asked for"]);
}

#[test]
fn a_line_that_cannot_be_read_or_is_of_another_version_is_an_error() {
    let stub = guest(&["@drv {\"done\":{}}"], "sleep 60");
    fails(&stub, stub.bench(&["--runtime=1"]), &["cannot be read"]);
    let stub = guest(&[&BOOT.replace("\"version\":1", "\"version\":99")], "sleep 60");
    fails(&stub, stub.bench(&["--runtime=1"]), &["version 99", "cargo xtask image"]);
}

/// Waits until `holds`, a few seconds at most.
fn soon(holds: impl Fn() -> bool) -> bool {
    (0..250).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        holds()
    })
}

#[test]
fn interrupting_the_tool_ends_qemu() {
    for (signal, status) in [("INT", Some(130)), ("TERM", Some(130)), ("KILL", None)] {
        let stub = guest(&[BOOT], "sleep 60");
        let mut running = start(stub.bench(&["--runtime=1"]));
        assert!(soon(|| stub.is_running()), "QEMU's stub never ran");
        let id = running.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        assert!(sent.success());
        assert_eq!(running.wait().unwrap().code(), status, "after {signal}");
        assert!(soon(|| !stub.is_running()), "QEMU outlived the tool after {signal}");
        assert!(!stub.results().exists());
    }
}
