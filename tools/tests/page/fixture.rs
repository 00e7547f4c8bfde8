//! A comparison's document, made up: every part that a page can show, with names that want to be markup.
use serde_json::{Value, json};

/// A name that would run if it were not escaped.
pub(crate) const HOSTILE: &str = "<script>alert('x')</script> & \"quoted\", =1+1";

struct Timed {
    peer: &'static str,
    driver: &'static str,
    via: &'static str,
    mode: &'static str,
    /// Depth, batch and I/Os per second.
    depths: &'static [(u64, u64, f64)],
    /// Per I/O, at the largest batch.
    interrupts: f64,
}

const TIMED: [Timed; 9] = [
    timed("ours", "ours", "driver", "polled", &[(1, 1, 279e3), (16, 16, 398e3), (128, 32, 447e3)], 0.0),
    timed("ours", "ours", "driver", "interrupt", &[(1, 1, 42e3), (16, 16, 231e3), (128, 32, 540e3)], 0.0078),
    timed("ours via blockd", "ours", "blockd", "polled", &[(128, 32, 323e3)], 0.0),
    timed("ours via blockd", "ours", "blockd", "interrupt", &[(1, 1, 31e3), (128, 32, 262e3)], 0.0093),
    timed("bare ring", "raw", "driver", "polled", &[(1, 1, 301e3), (16, 16, 420e3), (128, 32, 499e3)], 0.0),
    timed("virtio-drivers", "virtio-drivers", "driver", "polled", &[(1, 1, 254e3), (16, 16, 315e3)], 0.0),
    timed("virtio-drivers event_idx=off", "virtio-drivers", "driver", "polled", &[(1, 1, 260e3), (16, 16, 396e3)], 0.0),
    timed("Linux", "linux", "driver", "polled", &[(1, 1, 11e3), (128, 32, 120e3)], 0.0),
    timed("Linux", "linux", "driver", "interrupt", &[(1, 1, 9e3), (16, 16, 48e3), (128, 32, 106e3)], 0.21),
];

const fn timed(
    peer: &'static str,
    driver: &'static str,
    via: &'static str,
    mode: &'static str,
    depths: &'static [(u64, u64, f64)],
    interrupts: f64,
) -> Timed {
    Timed { peer, driver, via, mode, depths, interrupts }
}

/// Peer, driver, via, batch, submit and complete, their sum; whole guest.
type Counted = (&'static str, &'static str, &'static str, u64, Option<(f64, f64)>, f64, Option<f64>);

const COUNTED: [Counted; 7] = [
    ("ours", "ours", "driver", 32, Some((61.35, 38.0)), 99.35, Some(99.35)),
    ("ours via blockd", "ours", "blockd", 32, Some((229.283, 111.552)), 340.835, Some(340.835)),
    ("bare ring", "raw", "driver", 32, Some((41.031, 7.75)), 48.781, Some(48.781)),
    ("Linux", "linux", "driver", 32, None, 728.0, Some(5050.0)),
    ("ours", "ours", "driver", 16, Some((64.2, 40.5)), 104.7, Some(104.7)),
    ("virtio-drivers", "virtio-drivers", "driver", 16, Some((322.0, 141.0)), 463.0, Some(463.0)),
    ("virtio-drivers event_idx=off", "virtio-drivers", "driver", 16, Some((310.0, 137.5)), 447.5, None),
];

/// The document.
pub(crate) fn comparison() -> Value {
    let mut jobs: Vec<Value> = TIMED.iter().flat_map(of_time).collect();
    jobs.extend(COUNTED.iter().map(of_count));
    jobs[0]["jobname"] = json!(HOSTILE);
    let theirs = |peer: &str, mode: &str, depth: u64| name(peer, mode, depth);
    json!({
        "fio version": format!("drv-virtio-block-{}", env!("CARGO_PKG_VERSION")),
        "timestamp": 1_795_392_000_u64, "timestamp_ms": 1_795_392_000_000_u64,
        "global options": {},
        "jobs": jobs,
        "environment": {
            "machine": "Example(R) Processor @ 2.50GHz", "cores": 2, "kernel": "Linux 6.1", "qemu": "7.2.22",
            "accel": "tcg", "storage_daemon": null, "rustc": "rustc 1.95.0", "commit": "0123456789ab",
            "options": ["compare", "--passes=7"],
        },
        "checks": [
            check("instructions per I/O against virtio-drivers, batch 16", Some(0.234), "≤ 0.333", "≤ 0.200"),
            check("instructions per I/O against Linux, driver code only", Some(0.136), "≤ 0.200", "≤ 0.125"),
            check("interrupt-driven IOPS, depth 128, against Linux interrupt-driven", Some(5.09), "≥ 5.000", "≥ 10.0"),
            check("IOPS, depth 128, against Linux polled", Some(4.5), "≥ 5.000", "≥ 8.000"),
            check("polled IOPS, depth 16, against virtio-drivers event_idx=off", Some(1.005), "≥ 0.970", ""),
            check("polled IOPS, depth 16, against virtio-drivers", None, "≥ 2.000", "≥ 2.800"),
        ],
        "comparison": {
            "version": 1, "quick": false,
            "peers": [
                {"name": "virtio-drivers", "title": "virtio-drivers 0.13", "state": "measured", "why": null},
                {"name": "linux", "title": "Linux 6.1, fio with io_uring", "state": "measured", "why": null},
                {"name": "blkio", "title": "libblkio 1.2", "state": "left out", "why": "its package is not installed"},
                {"name": "virtio-driver", "title": "virtio-driver 0.6", "state": "failed", "why": "exit status 101 <in the middle>"},
            ],
            "ratios": [
                ratio("Linux, interrupt-driven, depth 128", &theirs("Linux", "interrupt", 128), 5.09, 4.2, 6.3),
                ratio("Linux, polled, depth 128", &theirs("Linux", "polled", 128), 4.5, 3.9, 4.9),
                ratio("virtio-drivers, polled, depth 16", &theirs("virtio-drivers", "polled", 16), 1.26, 1.1, 1.5),
                ratio("virtio-drivers event_idx=off, polled, depth 16", "virtio-drivers event_idx=off-polled-16", 1.005, 0.93, 1.08),
            ],
            "missing": [{"what": "Linux with KVM", "why": "this machine cannot run a guest under KVM"}],
            "baseline": {
                "file": "old.json", "same_machine": false, "warnings": ["another processor: counts only"],
                "findings": [
                    {"what": "count-ours-32: instructions", "before": 97.0, "now": 99.35, "verdict": "worse", "test": "exact"},
                    {"what": "randread-polled-128: IOPS", "before": 440e3, "now": 447e3, "verdict": "same", "test": "Mann-Whitney, p = 0.41"},
                ],
            },
            "notes": ["fio's own 728 instructions are of driver code; the rest is the kernel's."],
        },
    })
}

fn name(peer: &str, mode: &str, depth: u64) -> String {
    format!("{peer}-{mode}-{depth}")
}

fn of_time(timed: &Timed) -> Vec<Value> {
    let job = |&(depth, batch, iops): &(u64, u64, f64)| {
        let median = depth as f64 / iops * 1e9;
        let percents = [1.0, 50.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];
        let steps = [0.8, 1.0, 1.08, 1.15, 1.4, 1.7, 4.0, 9.0, 30.0];
        let percentile: serde_json::Map<String, Value> = percents
            .iter()
            .zip(steps)
            .map(|(percent, step)| (format!("{percent:.6}"), json!((median * step).round())))
            .collect();
        let samples: Vec<Value> =
            [0.97, 1.0, 1.06, 0.91, 1.01].iter().map(|by| figures(timed, batch, iops * by, median / by)).collect();
        json!({
            "jobname": name(timed.peer, timed.mode, depth), "groupid": 0, "error": 0, "elapsed": 1,
            "job options": {"rw": "randread", "bs": "4k", "iodepth": depth.to_string(), "numjobs": "1", "icount": "off"},
            "read": {"iops": iops, "bw_bytes": iops * 4096.0, "total_ios": 100_000, "clat_ns": {"N": 100_000, "percentile": percentile}},
            "write": {"iops": 0.0, "total_ios": 0, "clat_ns": {"percentile": {}}},
            "drv": {
                "driver": timed.driver, "peer": timed.peer, "backend": "qemu", "device": "virtio-blk-pci",
                "accel": "tcg", "mode": timed.mode, "via": timed.via, "queues": 1, "batch": batch, "cores": "far",
                "cpu_ns_per_io": if depth == 128 { json!(1e9 / iops) } else { Value::Null },
                "guest_instructions_per_io": null, "instructions_per_io": null,
                "median": figures(timed, batch, iops, median),
                "iops_spread": {"min": iops * 0.91, "max": iops * 1.06}, "samples": samples,
            },
        })
    };
    timed.depths.iter().map(job).collect()
}

fn figures(timed: &Timed, batch: u64, iops: f64, median: f64) -> Value {
    json!({
        "iops": iops, "bytes_per_second": iops * 4096.0, "p50_ns": median.round(), "p99_ns": (median * 1.4).round(),
        "notifications_per_io": 1.0 / batch as f64,
        "interrupts_per_io": if batch == 1 && timed.mode == "interrupt" { 0.998 } else { timed.interrupts },
        "instructions_per_io": null, "pingpong_ns": 224.245,
    })
}

fn of_count(&(peer, driver, via, batch, halves, total, guest): &Counted) -> Value {
    let instructions = json!({"submit": halves.map(|all| all.0), "complete": halves.map(|all| all.1), "total": total});
    let figures = json!({"iops": 0.0, "p50_ns": 0.0, "p99_ns": 0.0, "notifications_per_io": 1.0 / batch as f64,
        "interrupts_per_io": 0.0, "instructions_per_io": instructions, "pingpong_ns": null});
    json!({
        "jobname": format!("count-{peer}-{batch}"), "error": 0,
        "job options": {"rw": "randread", "bs": "4k", "iodepth": batch.to_string(), "icount": "on"},
        "read": {"iops": 0.0, "total_ios": 0, "clat_ns": {"percentile": {}}},
        "drv": {
            "driver": driver, "peer": peer, "backend": "qemu", "device": "virtio-blk-pci", "mode": "polled", "via": via,
            "queues": 1, "batch": batch, "instructions_per_io": instructions, "guest_instructions_per_io": guest,
            "cpu_ns_per_io": null, "median": figures, "iops_spread": {"min": 0.0, "max": 0.0}, "samples": [figures],
        },
    })
}

fn check(what: &str, value: Option<f64>, must: &str, aim: &str) -> Value {
    let holds = value.map(|value| {
        let (sign, bound) = must.split_once(' ').unwrap();
        let bound: f64 = bound.parse().unwrap();
        if sign == "≤" { value <= bound } else { value >= bound }
    });
    let spread = value.map(|value| json!({"min": value * 0.9, "max": value * 1.1}));
    json!({"what": what, "cores": null, "value": value, "holds": holds, "spread": spread,
        "samples": if value.is_some() { 7 } else { 0 }, "must": must, "aim": aim})
}

fn ratio(what: &str, theirs: &str, median: f64, min: f64, max: f64) -> Value {
    json!({"what": what, "figure": "iops", "ours": "ours-polled-128", "theirs": theirs,
        "median": median, "min": min, "max": max, "samples": 7})
}
