//! Everything that can be refused: one line on standard error that says what to do, a status other than 0.
mod tool;

use tool::{Stub, run};

/// Fails unless the tool refuses with one line that contains every word.
fn refuses(arguments: &[&str], words: &[&str]) {
    let ran = run(arguments);
    assert!(!ran.ok, "{arguments:?} succeeded");
    assert_eq!(ran.error.lines().count(), 1, "not one line: {}", ran.error);
    assert!(ran.error.starts_with("error: "), "{}", ran.error);
    for word in words {
        assert!(ran.error.contains(word), "`{word}` is not in: {}", ran.error);
    }
    assert_eq!(ran.output, "", "something was presented as a result");
}

#[test]
fn an_unknown_option_is_refused() {
    refuses(&["bench", "--iodpeth=3"], &["--iodpeth", "--help"]);
    refuses(&["bench", "--output-format=xml"], &["xml", "normal", "json"]);
    refuses(&["brew"], &["brew"]);
}

#[test]
fn what_comes_later_is_refused_by_name() {
    for option in ["--ring=packed", "--mode=adaptive"] {
        let pair = option.trim_start_matches('-');
        refuses(&["bench", option], &[pair, "not supported yet: comes with"]);
    }
}

#[test]
fn a_value_that_an_option_does_not_take_is_refused_with_those_that_it_does() {
    refuses(&["bench", "--rw=sideways"], &["--rw", "sideways", "randread"]);
    refuses(&["bench", "--driver=yours"], &["--driver", "ours, raw, virtio-drivers"]);
    refuses(&["bench", "--bs=4q"], &["--bs", "4q"]);
    refuses(&["bench", "--vcpus=0"], &["--vcpus", "1 to"]);
    refuses(&["bench", "--queue-size=100"], &["queue-size is out of range"]);
    refuses(&["bench", "--queue-size=2048"], &["queue-size=2048", "1024"]);
    refuses(&["bench", "--ring=round"], &["--ring", "split"]);
    refuses(&["bench", "--backend=cloud"], &["--backend", "qemu or vhost-user or embedded"]);
    refuses(&["bench", "--device=fast"], &["--device", "minimal or rust-vmm or deviating"]);
    refuses(&["bench", "--backend=embedded", "--stepped=maybe"], &["--stepped", "on or off"]);
    refuses(&["bench", "--passes=0"], &["--passes"]);
    refuses(&["bench", "--via=lib-block"], &["--via", "driver or blockd"]);
    refuses(&["bench", "--via=blockd", "--clients=17"], &["clients", "1 to 16"]);
    refuses(&["bench", "--via=blockd", "--front=back"], &["--front", "own or stepped"]);
    refuses(&["bench", "--via=blockd", "--partitions=3"], &["--partitions", "on or off"]);
}

#[test]
fn contradictions_of_blockd_are_refused() {
    refuses(&["bench", "--clients=2"], &["clients", "via=blockd"]);
    refuses(&["bench", "--front=own"], &["front", "via=blockd"]);
    refuses(&["bench", "--partitions=on"], &["partitions", "via=blockd"]);
    let blockd = |options: &[&str], words: &[&str]| {
        let all: Vec<&str> = ["bench", "--via=blockd"].iter().chain(options).copied().collect();
        refuses(&all, words);
    };
    blockd(&["--numjobs=1"], &["clients=N", "numjobs"]);
    blockd(&["--driver=raw"], &["driver=ours"]);
    blockd(&["--submit=shared"], &["leave submit out"]);
    blockd(&["--icount", "--front=own"], &["leave front=own out"]);
    blockd(&["--front=stepped", "--mode=interrupt"], &["front=stepped", "mode=polled"]);
    blockd(&["--icount", "--vcpus=2"], &["icount", "vcpus=2"]);
    blockd(&["--clients=2", "--vcpus=2"], &["clients=2", "at least 3"]);
    blockd(&["--partitions=on"], &["--disk=FILE"]);
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.raw");
    std::fs::File::create(&plain).unwrap().set_len(1 << 20).unwrap();
    blockd(&["--partitions=on", &format!("--disk={}", plain.display())], &["plain.raw", "it has no partition table"]);
}

#[test]
fn contradictions_are_refused() {
    refuses(&["bench", "--icount", "--runtime=5"], &["icount", "number_ios"]);
    refuses(&["bench", "--icount", "--vcpus=2"], &["icount", "vcpus=2"]);
    refuses(&["bench", "--numjobs=4", "--vcpus=2"], &["vcpus=2", "numjobs=4"]);
    refuses(&["bench", "--verify=crc32c", "--rw=randrw"], &["--disk=FILE"]);
    refuses(&["bench", "--iodepth=4", "--iodepth_batch_submit=8"], &["iodepth_batch_submit"]);
    refuses(&["bench", "--submit=owner", "--numjobs=2", "--queues=1"], &["submit=owner"]);
    refuses(&["test", "--quick", "--long"], &["--quick", "--long"]);
}

#[test]
fn what_runs_natively_only_is_refused_under_qemu() {
    refuses(&["bench", "--driver=virtio-driver"], &["driver=virtio-driver", "natively", "backend=vhost-user"]);
    refuses(&["bench", "--driver=blkio"], &["driver=blkio", "natively", "backend=embedded"]);
    refuses(&["bench", "--submit=mutex", "--backend=qemu"], &["submit=mutex", "natively", "backend=embedded"]);
    refuses(&["bench", "--socket=/tmp/s"], &["socket=/tmp/s", "backend=vhost-user"]);
    refuses(&["bench", "--device=rust-vmm"], &["device=rust-vmm", "backend=embedded"]);
    refuses(&["bench", "--stepped=on"], &["stepped", "backend=embedded"]);
    refuses(&["bench", "--rw=read", "--native=/bin/true"], &["--native", "--backend=embedded"]);
}

#[test]
fn what_virtio_drivers_cannot_do_is_refused() {
    let peer = |options: &[&str], words: &[&str]| {
        let all: Vec<&str> = ["bench", "--driver=virtio-drivers"].iter().chain(options).copied().collect();
        refuses(&all, words);
    };
    peer(&["--mode=interrupt"], &["no interrupt vectors", "mode=polled"]);
    peer(&["--verify=crc32c", "--rw=randrw"], &["does not verify", "driver=ours"]);
    peer(&["--rw=randtrim"], &["reads and writes", "rw=randtrim"]);
    peer(&["--numjobs=2"], &["one queue", "numjobs"]);
    peer(&["--queues=2"], &["one queue", "queues"]);
    peer(&["--submit=shared"], &["one submitter", "submit=shared"]);
    peer(&["--submit=mutex"], &["submit=mutex", "natively"]);
    peer(&["--queue-size=16"], &["ring of 16", "leave queue-size out"]);
    peer(&["--iodepth=17"], &["room for 16", "lower iodepth"]);
    peer(&["--iodepth=6", "--indirect=off"], &["room for 5", "indirect=off"]);
    peer(&["--icount", "--iodepth=17", "--iodepth_batch_submit=17"], &["room for 16"]);
    peer(&["--icount", "--iothreads=1"], &["without I/O threads"]);
    peer(&["--via=blockd"], &["driver=ours"]);
    peer(&["--bs=256"], &["--bs", "256 bytes", "multiple of 512"]);
    peer(&["--layout=dense"], &["driver=raw"]);
    for backend in ["--backend=embedded", "--backend=vhost-user"] {
        peer(&[backend], &["driver=virtio-drivers", "backend=qemu"]);
    }
}

#[test]
fn what_is_qemus_is_refused_natively() {
    for backend in ["--backend=embedded", "--backend=vhost-user"] {
        for option in ["--vcpus=2", "--iothreads=2"] {
            let key = option.trim_start_matches('-').split_once('=').unwrap().0;
            refuses(&["bench", backend, option], &[key, "backend=qemu"]);
        }
        for option in ["--accel=tcg", "--qemu=/bin/true", "--image=/bin/true"] {
            let name = option.split_once('=').unwrap().0;
            refuses(&["bench", backend, "--rw=read", option], &[name, "backend=qemu"]);
        }
    }
}

#[test]
fn contradictions_of_the_native_back_ends_are_refused() {
    let embedded = |options: &[&str], words: &[&str]| {
        let all: Vec<&str> = ["bench", "--backend=embedded"].iter().chain(options).copied().collect();
        refuses(&all, words);
    };
    embedded(&["--socket=/tmp/s"], &["socket=/tmp/s", "backend=vhost-user"]);
    embedded(&["--stepped=on", "--device=rust-vmm"], &["rust-vmm", "thread of its own"]);
    embedded(&["--stepped=on", "--mode=interrupt"], &["stepped", "mode=polled"]);
    embedded(&["--icount", "--stepped=off"], &["stepped=off"]);
    embedded(&["--icount", "--device=rust-vmm"], &["device=minimal"]);
    embedded(&["--icount", "--number_ios=100"], &["number_ios=100", "at least 512"]);
    embedded(&["--rw=randrw", "--verify=crc32c"], &["--disk=FILE"]);
    embedded(&["--rw=randrw", "--verify=crc32c", "--driver=virtio-driver"], &["does not verify"]);
    embedded(&["--driver=virtio-driver", "--submit=shared"], &["many submitters"]);
    embedded(&["--driver=virtio-driver", "--rw=randtrim"], &["direct chains"]);
    embedded(&["--driver=virtio-driver", "--indirect=on"], &["direct chains"]);
    embedded(&["--driver=blkio", "--event-idx=off"], &["driver=blkio", "leave event-idx=off out"]);
    embedded(&["--driver=blkio", "--rw=randrw", "--verify=crc32c"], &["driver=blkio", "does not verify"]);
    embedded(&["--driver=blkio", "--numjobs=2", "--queues=1"], &["driver=blkio", "many submitters"]);
    embedded(&["--layout=dense"], &["layout=dense", "driver=raw"]);
    embedded(&["--driver=virtio-driver", "--submit=mutex"], &["submit=mutex", "ours"]);
    embedded(&["--driver=virtio-driver", "--numjobs=2", "--queues=1"], &["many submitters"]);
    embedded(&["--rw=read", "--passes=3"], &["--passes", "matrix"]);
    embedded(&["--rw=read", "--native=/nonexistent/native"], &["--native=/nonexistent/native", "leave it out"]);
}

#[test]
fn contradictions_of_a_vhost_user_back_end_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (file, socket) = (format!("--disk={}", path.display()), format!("--socket={}", path.display()));
    let vhost_user = |options: &[&str], words: &[&str]| {
        let all: Vec<&str> = ["bench", "--backend=vhost-user"].iter().chain(options).copied().collect();
        refuses(&all, words);
    };
    vhost_user(&["--socket=/nonexistent/s"], &["socket=/nonexistent/s", "no such socket", "leave socket out"]);
    vhost_user(&["--socket=/etc/passwd"], &["socket=/etc/passwd", "is not a socket"]);
    vhost_user(&["--stepped=on"], &["stepped", "backend=embedded"]);
    vhost_user(&["--icount"], &["icount", "backend=embedded"]);
    vhost_user(&["--device=minimal"], &["device=minimal", "backend=embedded"]);
    vhost_user(&["--device=rust-vmm", &socket], &["leave device out"]);
    vhost_user(&[&socket, &file], &["disk of its own", "leave disk out"]);
    vhost_user(&[&socket, "--rw=randrw", "--verify=crc32c"], &["leave socket out"]);
}

#[test]
fn an_unreadable_job_file_is_refused() {
    refuses(&["bench", "/nonexistent/a.fio"], &["/nonexistent/a.fio", "cannot be read"]);
}

#[test]
fn a_job_file_with_an_unknown_key_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.fio");
    std::fs::write(&file, "[global]\nbs=4k\n\n[one]\niodpeth=4\n").unwrap();
    refuses(&["bench", &file.to_string_lossy()], &["a.fio:5", "iodpeth"]);
    std::fs::write(&file, "[one]\nring=packed\n").unwrap();
    refuses(&["bench", &file.to_string_lossy()], &["a.fio:2", "not supported yet"]);
    std::fs::write(&file, "[one]\nvia=blockd\nclients=2\nfront=round\n").unwrap();
    refuses(&["bench", &file.to_string_lossy()], &["a.fio:4", "own or stepped"]);
}

#[test]
fn a_disk_that_cannot_serve_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("odd.raw");
    std::fs::write(&odd, [0; 1000]).unwrap();
    refuses(&["bench", "--disk=/nonexistent/disk.raw"], &["no such file", "truncate"]);
    let odd = format!("--disk={}", odd.display());
    refuses(&["bench", &odd], &["1000 bytes", "multiple of 512"]);
    refuses(&["bench", "--disk=/tmp"], &["neither a file nor a block device"]);
}

#[test]
fn results_that_could_not_be_written_are_refused_before_anything_runs() {
    refuses(&["bench", "--rw=read", "--output=/nonexistent/out.json"], &["--output=/nonexistent/out.json"]);
}

#[test]
fn what_compare_does_not_take_is_refused() {
    refuses(&["compare", "--peers=raw,nobody"], &["nobody", "virtio-drivers", "linux", "blkio"]);
    refuses(&["compare", "--passes=0"], &["--passes"]);
    refuses(&["compare", "--output=/nonexistent/out.json"], &["--output=/nonexistent/out.json"]);
}

#[test]
fn a_baseline_that_is_none_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stored.json");
    let given = format!("--baseline={}", file.display());
    refuses(&["compare", &given], &["stored.json", "cannot be read"]);
    let version = env!("CARGO_PKG_VERSION");
    let ours = format!(r#"{{"fio version": "drv-virtio-block-{version}", "jobs": []}}"#);
    let fios = r#"{"fio version": "fio-3.33", "jobs": [{"jobname": "a"}]}"#;
    let other = ours.replace(version, "9.9.9");
    let cases = [
        ("{", "cut off"),
        ("IOPS: many", "not JSON"),
        ("{}", "not fio's JSON"),
        (fios, "no job of this driver"),
        (&ours, "no job of this driver"),
        (&other, "9.9.9"),
    ];
    for (text, word) in cases {
        std::fs::write(&file, text).unwrap();
        refuses(&["compare", &given], &["stored.json", word]);
    }
}

#[test]
fn a_missing_or_false_qemu_is_refused() {
    refuses(&["bench", "--rw=read", "--qemu=/nonexistent/qemu"], &["/nonexistent/qemu", "qemu-system-x86_64"]);
    refuses(&["bench", "--rw=read", "--qemu=/bin/echo"], &["is not QEMU's", "qemu-system-x86_64"]);
}

#[test]
fn several_io_threads_are_refused_on_an_old_qemu() {
    let stub = Stub::new("exit 0");
    refuses(&["bench", "--iothreads=2", &stub.qemu(), &stub.image()], &["iothreads=2", "QEMU 9"]);
}

#[test]
fn a_missing_image_is_refused() {
    let stub = Stub::new("exit 0");
    refuses(&["bench", "--rw=read", &stub.qemu(), "--image=/nonexistent/image"], &["/nonexistent/image"]);
}

#[test]
fn a_filter_that_names_no_step_is_refused() {
    refuses(&["test", "--only=nonsense"], &["nonsense"]);
}

#[test]
fn a_file_that_is_no_result_is_refused_and_the_page_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let whole = format!(r#"{{"fio version": "drv-virtio-block-{}", "jobs": []}}"#, env!("CARGO_PKG_VERSION"));
    std::fs::write(path("good.json"), &whole).unwrap();
    std::fs::write(path("page.html"), "a page").unwrap();
    let output = format!("--output={}", path("page.html"));
    for (name, text, words) in [
        ("cut.json", &whole[..30], ["cut.json", "cut off after 30 bytes"]),
        ("text.json", "iops 7", ["text.json", "not JSON"]),
        ("other.json", "{}", ["other.json", "not fio's JSON"]),
        ("old.json", r#"{"fio version": "drv-virtio-block-0.0.1", "jobs": []}"#, ["old.json", "measure again"]),
        (
            "odd.json",
            r#"{"fio version": "fio-3.33", "jobs": [{"jobname": "a", "read": 7}]}"#,
            ["odd.json", "jobs[0].read"],
        ),
    ] {
        std::fs::write(path(name), text).unwrap();
        refuses(&["report", &path("good.json"), &path(name), &output], &words);
    }
    refuses(&["report", &path("none.json"), &output], &["none.json", "cannot be read"]);
    refuses(
        &["report", &path("good.json"), &format!("--output={}", path("good.json"))],
        &["would replace", "--output"],
    );
    refuses(&["report", &path("good.json"), "--output=/none/such.html"], &["--output", "not a folder"]);
    refuses(&["report"], &["FILE.json"]);
    assert_eq!(std::fs::read_to_string(path("page.html")).unwrap(), "a page");
    assert_eq!(std::fs::read_to_string(path("good.json")).unwrap(), whole);
    let ran = run(&["report", &path("good.json")]);
    assert!(ran.ok && ran.output.contains("good.html"), "{}{}", ran.output, ran.error);
    assert!(std::fs::read_to_string(path("good.html")).unwrap().contains("good.json"));
}

#[test]
fn bench_does_not_write_its_json_where_its_page_goes() {
    refuses(&["bench", "--output=results.html"], &["--output=results.html", ".html"]);
}

#[test]
fn what_would_change_a_measurement_is_refused_by_name_in_a_job_file_and_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.fio");
    let cases = [
        ("fsync=8", "flush"),
        ("fdatasync=1", "flush"),
        ("end_fsync=1", "flush"),
        ("sync=1", "flush"),
        ("ramp_time=2", "measured"),
        ("thinktime=5", "pause"),
        ("rate=1m", "rate_iops"),
        ("filesize=1g", "give size"),
        ("random_distribution=zipf:1.2", "evenly"),
        ("zonemode=zbd", "zones"),
        ("ioengine=cpuio", "no engine for a disk"),
        ("rw=randread:8", "rw=randread"),
        ("rw=trimwrite", "rw=trim"),
        ("filename=/dev/sdx", "not this run's disk"),
        ("verify=md5", "crc32c"),
        ("bs=4KiB", "kib 1000"),
        ("bs=512-64k", "such as 4096"),
        ("bsrange=512-64k", "bssplit"),
        ("size=1.5g", "1536m"),
        ("size=10%", "not known"),
        ("runtime=soon", "seconds"),
        ("read_iolog=x", "recorded"),
        ("time_based=1", "runtime=5"),
    ];
    for (line, word) in cases {
        let key = line.split_once('=').unwrap().0;
        std::fs::write(&file, format!("[global]\niodepth=2\n[one]\n{line}\n")).unwrap();
        refuses(&["bench", &file.to_string_lossy()], &["a.fio:4", key, word]);
        refuses(&["bench", &format!("--{line}")], &[&format!("--{key}"), word]);
    }
}

#[test]
fn messages_name_what_was_typed_and_no_key_of_the_programs_own() {
    let typed = [
        "--runtime=soon",
        "--runtime=0.0001",
        "--bs=0",
        "--bs=4k:8k",
        "--bssplit=4k/50:8k/60",
        "--queue-size=7",
        "--event-idx=maybe",
        "--iodepth_batch=900",
        "--iodepth_batch_submit=900",
        "--iodepth_batch_complete=9",
        "--iodepth=0",
        "--numjobs=0",
        "--number_ios=x",
        "--size=100",
        "--size=1.5g",
        "--loops=0",
        "--offset=1x",
        "--rwmixwrite=101",
        "--rate_iops=2000000000",
        "--randseed=x",
        "--amounts=total",
        "--runtime_ms=5",
    ];
    let own =
        ["bssplit", "runtime_ms", "queue_size", "event_idx", "iodepth_batch_submit", "iodepth_batch_complete_min"];
    for option in typed {
        let ran = run(&["bench", option]);
        assert!(!ran.ok && ran.error.lines().count() == 1, "{option}: {}", ran.error);
        let name = option.trim_start_matches('-').split_once('=').unwrap().0;
        assert!(ran.error.contains(name), "{option}: {}", ran.error);
        for word in own.iter().filter(|word| **word != name && !name.starts_with(*word)) {
            assert!(
                !ran.error.split(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).any(|w| w == *word),
                "{option}: {}",
                ran.error
            );
        }
    }
}

#[test]
fn noted_keys_are_named_once_and_the_job_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.fio");
    let text = "[global]\nthread\ngroup_reporting\ndirect=1\ninvalidate=1\nioengine=libaio\nrefill_buffers\nnorandommap\n\
                randrepeat=0\nfsync=0\nend_fsync=0\nwrite_lat_log=x\ndirectory=/tmp\n[a b]\nrw=read\nsize=0x100000\n[c]\nstonewall=1\n\
                rw=randrw\nrwmixwrite=30\nbs=4k,4k\nsize=1m\nio_size=200%\niodepth=8\niodepth_batch_submit=0\nruntime=0.5\ntime_based\n\
                [d]\nrw=write\nsize=1m\noffset=1m\noffset_increment=2m\nloops=2\nnumber_ios=10\n";
    std::fs::write(&file, text).unwrap();
    // The stub in QEMU's place is no QEMU, which is found out when everything else was accepted.
    let ran = run(&["bench", &file.to_string_lossy(), "--qemu=/nonexistent/qemu", "--no-setup"]);
    assert!(ran.error.lines().last().unwrap().contains("/nonexistent/qemu"), "{}", ran.error);
    for note in [
        "note: invalidate has no meaning without a page cache",
        "note: direct has no meaning without a page cache",
        "note: thread has no meaning here",
        "note: write_lat_log is not written",
        "note: directory has no meaning",
        "note: ioengine has no meaning here: the driver does the work",
        "note: the job `a b` is called a_b here",
        "note: sections run one after another here; those without stonewall run together in fio",
    ] {
        let count = ran.error.lines().filter(|line| line.starts_with(note)).count();
        assert_eq!(count, 1, "{note}: {}", ran.error);
    }
    assert!(!ran.error.contains("note: fsync") && !ran.error.contains("note: size"), "{}", ran.error);
}
