//! What the native back-ends come to, with scripts in the places of the native bench, qemu-storage-daemon and valgrind.
mod tool;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tool::{BOOT, Ran, done, finish, start, tool};

/// A folder with stand-ins, first on the search path.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// `run` is what the native bench does; its arguments are in the file `told`.
    fn new(run: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder for the stubs") };
        let told = bench.path("told");
        bench.script(
            "native",
            &format!("echo \"$*\" >> {}\necho $$ > {}\n{run}", told.display(), bench.path("pid").display()),
        );
        // Alive until it is asked to end, its socket at the path that the bench is told.
        bench.daemon("echo $$ > $0.pid; echo up > $pidfile; trap 'exit 0' TERM; while :; do sleep 0.01; done");
        bench
    }

    /// A bench that does as it should.
    fn good() -> Self {
        Self::new(&format!("echo '{BOOT}'; echo '{}'", done(0)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the stub is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the stub is executable");
    }

    /// A qemu-storage-daemon that does this once it knows where its pidfile goes.
    fn daemon(&self, text: &str) {
        let version = "[ \"$1\" = --version ] && { echo 'qemu-storage-daemon version 7.2.0 (stub)'; exit 0; }";
        let pidfile = "echo \"$*\" > $0.told; for pidfile; do :; done";
        self.script("qemu-storage-daemon", &format!("{version}\n{pidfile}\n{text}"));
    }

    fn bench(&self, arguments: &[&str]) -> Command {
        let native = format!("--native={}", self.path("native").display());
        let output = format!("--output={}", self.path("out.json").display());
        let mut all = vec!["bench", "--no-setup", &native, &output];
        all.extend(arguments);
        let mut command = tool(&all);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut paths = vec![self.folder.path().to_owned()];
        paths.extend(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(paths).expect("a search path"));
        // What a killed tool leaves goes with the test.
        command.env("TMPDIR", self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.bench(arguments))
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.path("told")).unwrap_or_default()
    }

    fn job(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.path("out.json")).expect("results were written");
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        document["jobs"][0].clone()
    }

    /// Fails unless the run is refused with a first line that contains every word and nothing is left.
    fn fails(&self, arguments: &[&str], words: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert!(!ran.ok, "it succeeded: {}", ran.output);
        let first = ran.error.lines().next().unwrap_or_default();
        for word in words {
            assert!(first.contains(word), "`{word}` is not in: {}", ran.error);
        }
        assert!(ran.error.lines().skip(1).all(|line| line.starts_with("  | ")), "{}", ran.error);
        assert_eq!(ran.output, "", "something was presented as a result");
        assert!(!self.path("out.json").exists(), "a result was written");
        assert!(!self.is_running("pid") && !self.is_running("qemu-storage-daemon.pid"), "a process was left");
        ran
    }

    /// Whether the process whose id is in the file `name` is still there.
    fn is_running(&self, name: &str) -> bool {
        let id = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        let id: Option<u32> = id.trim().parse().ok();
        let stat = id.and_then(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).ok());
        stat.is_some_and(|stat| !stat.contains(") Z "))
    }
}

/// Waits until `holds`, a few seconds at most.
fn soon(holds: impl Fn() -> bool) -> bool {
    (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        holds()
    })
}

#[test]
fn an_embedded_run_is_told_the_job_and_is_shown_as_such() {
    let bench = Bench::good();
    let ran = bench.run(&["--backend=embedded", "--mode=polled", "--iodepth=4", "--number_ios=1000"]);
    assert!(ran.ok, "{}", ran.error);
    assert!(ran.output.contains("embedded"), "{}", ran.output);
    let told = bench.told();
    assert!(told.starts_with("run --device=minimal --device-queues=1 "), "{told}");
    let (_, params) = told.trim().split_once(" -- ").expect("parameters");
    let params = workload::params::Params::parse(params).expect("the bench reads what it is told");
    assert_eq!((params.iodepth, params.number_ios), (4, 1000));
    let drv = &bench.job()["drv"];
    assert_eq!((&drv["backend"], &drv["device"]), (&"embedded".into(), &"minimal".into()));
    assert!(drv["accel"].is_null());
}

#[test]
fn qemu_storage_daemon_is_started_before_and_ended_after_the_run() {
    // The bench fails unless the daemon lives while it runs.
    let bench = Bench::good();
    let daemon = bench.path("qemu-storage-daemon.pid");
    let run = format!("kill -0 $(cat {}) || exit 1\necho '{BOOT}'; echo '{}'", daemon.display(), done(0));
    let told = bench.path("told");
    bench.script("native", &format!("echo \"$*\" >> {}\n{run}", told.display()));
    let ran = bench.run(&["--backend=vhost-user", "--queues=2", "--number_ios=1000"]);
    assert!(ran.ok, "{}", ran.error);
    assert!(!bench.is_running("qemu-storage-daemon.pid"), "the daemon was left");
    let export = std::fs::read_to_string(bench.path("qemu-storage-daemon.told")).unwrap();
    for part in ["\"num-queues\":2", "\"type\":\"vhost-user-blk\"", "\"iothread\":\"io0\"", "null-co"] {
        assert!(export.contains(part), "{part} in {export}");
    }
    let told = bench.told();
    let socket = told.split(' ').find_map(|word| word.strip_prefix("--socket=")).expect("a socket");
    assert!(export.contains(socket), "{socket} in {export}");
    assert!(!Path::new(socket).parent().unwrap().exists(), "its folder was left");
    assert_eq!(bench.job()["drv"]["device"], "qemu-storage-daemon");
}

#[test]
fn a_daemon_that_does_not_start_is_an_error_in_its_own_words() {
    let bench = Bench::good();
    bench.daemon("echo 'qemu-storage-daemon: no such export' >&2; exit 1");
    bench.fails(
        &["--backend=vhost-user", "--runtime=1"],
        &["qemu-storage-daemon did not start", "exit status: 1", "no such export"],
    );
    assert_eq!(bench.told(), "", "the bench was started");
}

#[test]
fn a_daemon_that_dies_in_the_middle_is_named_with_its_words() {
    let bench = Bench::new(&format!("echo '{BOOT}'; echo 'error: the back-end is gone' >&2; exit 1"));
    bench.daemon("echo up > $pidfile; echo 'assertion failed' >&2; kill -ABRT $$");
    bench.fails(
        &["--backend=vhost-user", "--runtime=1"],
        &["qemu-storage-daemon ended (signal: 6", "assertion failed", "the back-end is gone"],
    );
}

#[test]
fn a_daemon_that_dies_after_the_work_is_an_error_too() {
    let bench = Bench::good();
    bench.daemon(
        "echo $$ > $0.pid; echo up > $pidfile; while [ -d /proc/self ]; do [ -e $0.die ] && exit 9; sleep 0.01; done",
    );
    let (die, pid) = (bench.path("qemu-storage-daemon.die"), bench.path("qemu-storage-daemon.pid"));
    // The bench ends once the daemon is gone.
    let gone = format!(
        "while kill -0 $(cat {pid}) 2>/dev/null && ! grep -q zombie /proc/$(cat {pid})/status; do sleep 0.01; done",
        pid = pid.display()
    );
    let run = format!("touch {}\n{gone}\necho '{BOOT}'; echo '{}'", die.display(), done(0));
    bench.script("native", &run);
    bench.fails(&["--backend=vhost-user", "--number_ios=1000"], &["qemu-storage-daemon ended (exit status: 9)"]);
}

#[test]
fn the_rust_vmm_device_is_served_by_the_bench_itself() {
    let bench = Bench::new(&format!(
        "case \"$1\" in serve) echo ready; trap 'exit 0' TERM; while :; do sleep 0.01; done;; esac\necho '{BOOT}'; echo '{}'",
        done(0)
    ));
    let ran = bench.run(&["--backend=vhost-user", "--device=rust-vmm", "--number_ios=1000"]);
    assert!(ran.ok, "{}", ran.error);
    let told = bench.told();
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with("serve --socket=") && lines[0].ends_with("--queues=1"), "{told}");
    assert!(lines[1].starts_with("run --socket="), "{told}");
    let bench = Bench::new("case \"$1\" in serve) echo 'error: no queues' >&2; exit 2;; esac");
    bench.fails(
        &["--backend=vhost-user", "--device=rust-vmm", "--runtime=1"],
        &["the rust-vmm device did not start", "exit status: 2", "no queues"],
    );
}

#[test]
fn a_bench_that_fails_is_an_error_in_its_own_words() {
    let failed = r#"@drv {"failed":{"text":"the device offers no VERSION_1"}}"#;
    let bench = Bench::new(&format!("echo '{failed}'; exit 1"));
    bench.fails(&["--backend=embedded", "--runtime=1"], &["the native bench reported: the device offers no VERSION_1"]);
    let bench = Bench::new(&format!("echo '{BOOT}'; kill -SEGV $$"));
    let ran = bench.fails(&["--backend=embedded", "--runtime=1"], &["the native bench ended (signal: 11"]);
    assert!(!ran.error.contains("repeated"), "a fault of our own was excused: {}", ran.error);
    let bench = Bench::new(&format!("echo '{BOOT}'; echo '{}'; exit 1", done(0)));
    bench.fails(&["--backend=embedded", "--number_ios=1000"], &["exit status: 1"]);
}

#[test]
fn instructions_are_counted_in_both_halves_and_twice_each() {
    let bench = Bench::good();
    // 70 instructions an I/O to submit and 30 to complete, and 1000 for start and end.
    bench.script(
        "valgrind",
        "for word; do case \"$word\" in\n--toggle-collect=*submit*) each=70;;\n--toggle-collect=*complete*) each=30;;\n\
         --callgrind-out-file=*) out=${word#*=};;\nnumber_ios=*) ios=${word#*=};;\nesac; done\n\
         echo \"summary: $((1000 + each * ios))\" > $out\n\
         while [ \"${1#--}\" != \"$1\" ]; do shift; done\nexec \"$@\"",
    );
    let ran = bench.run(&["--backend=embedded", "--icount", "--iodepth=32", "--iodepth_batch_submit=32"]);
    assert!(ran.ok, "{}", ran.error);
    let counted = bench.job()["drv"]["instructions_per_io"].clone();
    assert_eq!(counted, serde_json::json!({"submit": 70.0, "complete": 30.0, "total": 100.0}));
    let told = bench.told();
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(told.lines().all(|line| line.contains(" --stepped ") && line.contains(" icount=on")), "{told}");
}

#[test]
fn counts_without_results_are_an_error() {
    let bench = Bench::good();
    bench.script("valgrind", "while [ \"${1#--}\" != \"$1\" ]; do shift; done\nexec \"$@\"");
    bench.fails(&["--backend=embedded", "--icount"], &["callgrind left no results"]);
}

#[test]
fn interrupting_the_tool_ends_the_bench_and_its_back_end() {
    for signal in ["INT", "TERM", "KILL"] {
        let bench = Bench::new(&format!("echo '{BOOT}'; sleep 60"));
        let mut running = start(bench.bench(&["--backend=vhost-user", "--runtime=1"]));
        assert!(soon(|| bench.is_running("pid")), "the bench never ran");
        let sent = Command::new("kill").args(["-s", signal, &running.id().to_string()]).status().unwrap();
        assert!(sent.success());
        running.wait().unwrap();
        let gone = || !bench.is_running("pid") && !bench.is_running("qemu-storage-daemon.pid");
        assert!(soon(gone), "something outlived the tool after {signal}");
    }
}
