//! Results as JSON in fio's schema, with an object `drv` in each job and one `environment` at the top.
//!
//! Fields that fio's plotting tools read are always there. What was not counted is null; what cannot be known here
//! (a standard deviation of single latencies, fio's latency histogram) is 0 or empty.
use crate::check::Check;
use crate::environment::Environment;
use crate::figures::{Cell, Figures, ios};
use crate::machine::Accel;
use crate::pingpong::Distance;
use crate::run::Outcome;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use workload::failures::Blame;
use workload::params::{Amounts, Params, Via};
use workload::report::{Direction, PERCENTILES, Report};

/// The whole file.
pub(crate) fn document(environment: &Environment, cells: &[Cell], checks: &[Check]) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let jobs: Vec<Value> = cells
        .iter()
        .enumerate()
        .filter_map(|(index, cell)| Some(job(environment.accel, index, cell, cell.typical()?)))
        .collect();
    let mut document = json!({
        "fio version": format!("drv-virtio-block-{}", env!("CARGO_PKG_VERSION")),
        "timestamp": now.as_secs(),
        "timestamp_ms": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        "global options": {},
        "jobs": jobs,
        "environment": environment,
    });
    if !checks.is_empty() {
        let all: Vec<Value> = checks.iter().map(check).collect();
        document["checks"] = Value::Array(all);
    }
    document
}

fn check(check: &Check) -> Value {
    json!({
        "what": check.what, "cores": check.cores, "value": check.value, "holds": check.holds(),
        "spread": check.spread.map(|(low, high)| json!({"min": low, "max": high})), "samples": check.samples,
        "must": check.must(), "aim": check.aim(),
    })
}

fn job(accel: Option<Accel>, index: usize, cell: &Cell, typical: &Outcome) -> Value {
    let params = &cell.job.params;
    let report = &typical.report;
    let seconds = report.runtime_ns as f64 / 1e9;
    let whole = typical.elapsed.max(0.001);
    let deviation = deviation(cell);
    let way = |way: &Direction| direction(way, seconds, if way.ios > 0 { deviation } else { 0.0 });
    json!({
        "jobname": params.name.as_str(),
        "groupid": index,
        "error": if report.errors > 0 { nix::errno::Errno::EIO as i32 } else { 0 },
        "eta": 0,
        "elapsed": typical.elapsed.ceil(),
        "job options": options(params),
        "read": way(&report.read),
        "write": way(&report.write),
        "trim": way(&report.trim),
        "job_runtime": report.runtime_ns / 1_000_000,
        "usr_cpu": typical.cpu.0 / whole * 100.0,
        "sys_cpu": typical.cpu.1 / whole * 100.0,
        "latency_ns": {},
        "latency_us": {},
        "latency_ms": {},
        "drv": drv(accel, cell, typical),
    })
}

/// The job's options under fio's names, as text, as fio has them.
fn options(params: &Params) -> Map<String, Value> {
    let text = params.to_string();
    let pairs = text.split(' ').filter_map(|word| word.split_once('='));
    let mut options: Map<String, Value> = pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect();
    if let (1, Some(size)) = (params.bssplit.len(), options.shift_remove("bssplit")) {
        options.insert("bs".into(), size);
    } else {
        let largest = params.largest_block();
        options.insert("bs".into(), json!(largest.to_string()));
        options.insert("bssplit".into(), json!(text_of(&text, "bssplit")));
    }
    // Plots are drawn over it: the submitters, whatever they are called here.
    options.insert("numjobs".into(), json!(params.jobs().to_string()));
    if let Some(Value::String(runtime)) = options.shift_remove("runtime_ms") {
        options.insert("runtime".into(), json!(format!("{runtime}ms")));
    }
    if params.amounts == Amounts::Fio {
        // As they were given: those of each job.
        for (key, total) in [("size", params.size), ("io_size", params.io_size), ("number_ios", params.number_ios)] {
            options.insert(key.into(), json!(params.per_job(total).to_string()));
        }
        let time_based = params.loops == 0 && params.runtime_ms > 0;
        options.insert("time_based".into(), json!(u8::from(time_based).to_string()));
    }
    options
}

fn text_of<'a>(text: &'a str, key: &str) -> &'a str {
    let mut pairs = text.split(' ').filter_map(|word| word.split_once('='));
    pairs.find(|(known, _)| *known == key).map_or("", |(_, value)| value)
}

fn direction(way: &Direction, seconds: f64, iops_stddev: f64) -> Value {
    let per_second = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
    let bytes = per_second(way.bytes);
    let mut percentiles = Map::new();
    for (thousandths, ns) in PERCENTILES.iter().zip(&way.percentiles_ns) {
        let name = format!("{}.{:03}000", thousandths / 1000, thousandths % 1000);
        percentiles.insert(name, json!(ns));
    }
    let latency = json!({
        "min": way.clat_min_ns, "max": way.clat_max_ns, "mean": way.clat_mean_ns as f64, "stddev": 0.0, "N": way.ios,
    });
    let mut completion = latency.clone();
    completion["percentile"] = Value::Object(percentiles);
    json!({
        "io_bytes": way.bytes,
        "io_kbytes": way.bytes / 1024,
        "bw_bytes": bytes.round(),
        "bw": (bytes / 1024.0).round(),
        "iops": per_second(way.ios),
        "runtime": if way.ios > 0 { (seconds * 1e3).round() } else { 0.0 },
        "total_ios": way.ios,
        "clat_ns": completion,
        "lat_ns": latency,
        "iops_mean": per_second(way.ios),
        "iops_stddev": iops_stddev,
    })
}

fn drv(accel: Option<Accel>, cell: &Cell, typical: &Outcome) -> Value {
    let (params, report, boot) = (&cell.job.params, &typical.report, &typical.boot);
    let figures = Figures::of(typical);
    let polled = params.mode.word() == "polled" || boot.vectors == 0;
    let backend = &cell.job.backend;
    // Counting is done by the translator; natively nothing accelerates.
    let accel = if params.icount { Some(Accel::Tcg) } else { accel };
    let accel = accel.filter(|_| !backend.is_native());
    let spread = cell.spread();
    let mut drv = json!({
        "driver": params.driver.word(),
        "backend": backend.word(),
        "accel": accel,
        "mode": if polled { "polled" } else { "interrupt" },
        "ring": "split",
        "queues": boot.queues,
        "vectors": boot.vectors,
        "via": params.via.word(),
        "batch": params.iodepth_batch_submit,
        "pingpong_ns": figures.pingpong_ns,
        "notifications_per_io": figures.notifications_per_io,
        "interrupts_per_io": figures.interrupts_per_io,
        "instructions_per_io": figures.instructions_per_io,
        "guest_instructions_per_io": figures.guest_instructions_per_io,
        "cpu_ns_per_io": figures.cpu_ns_per_io,
        "errors": errors(report),
        "verify_errors": report.verify_errors,
        "device_violations": report.violations,
        "length_anomalies": report.length_anomalies,
        "retries": typical.retries,
    });
    drv["device"] = json!(backend.device());
    drv["stepped"] = json!(backend.is_stepped());
    let blockd = (params.via == Via::Blockd).then_some(params);
    drv["clients"] = json!(blockd.map(|params| params.clients));
    drv["front"] = json!(blockd.map(|params| params.front.word()));
    drv["partitions"] = json!(blockd.map(|params| params.partitions));
    drv["doorbells_per_io"] = json!(blockd.map(|_| figures.doorbells_per_io));
    drv["boot"] = json!(boot);
    drv["notes"] = json!(typical.notes);
    drv["atomics_per_io"] = json!(report.atomics.map(|count| count as f64 / ios(report).max(1) as f64));
    drv["interrupts_home"] = json!(report.interrupts_home);
    drv["pins"] = json!(typical.pins);
    drv["cores"] = json!(cell.distance());
    drv["median"] = json!(cell.figures());
    for (name, distance) in [("near", Distance::Near), ("far", Distance::Far)] {
        drv[name] = json!(cell.at(distance).map(|cell| cell.figures()));
    }
    drv["iops_spread"] = json!({"min": spread.0, "max": spread.1});
    drv["samples"] = cell.samples.iter().map(sample).collect();
    drv
}

/// Requests that ended in an error: how many, by whose fault, and the first of them.
fn errors(report: &Report) -> Value {
    let mut errors = json!({"total": report.errors});
    for blame in Blame::ALL {
        errors[blame.word()] = json!(report.failures.count(blame));
    }
    errors["first"] = json!(report.failures.first);
    errors
}

fn sample(outcome: &Outcome) -> Value {
    let mut sample = json!(Figures::of(outcome));
    sample["cores"] = json!(outcome.distance());
    sample["retries"] = json!(outcome.retries);
    sample["steady"] = json!(outcome.steady);
    sample["others"] = json!((outcome.others * 1e3).round() / 1e3);
    sample
}

/// Of the chosen samples' IOPS.
fn deviation(cell: &Cell) -> f64 {
    let all: Vec<f64> = cell.chosen().into_iter().map(|one| Figures::of(one).iops).collect();
    let count = all.len().max(1) as f64;
    let mean = all.iter().sum::<f64>() / count;
    (all.iter().map(|iops| (iops - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// Replaces `path` in one step, so that it holds whole results or the former ones.
pub(crate) fn write(path: &Path, document: &Value) -> Result<()> {
    replace(path, &(serde_json::to_string_pretty(document)? + "\n"))
}

/// Likewise, by `text`.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let what = || format!("writing {}", path.display());
    if path.exists() && !path.is_file() {
        return std::fs::write(path, text).with_context(what);
    }
    let mut file = tempfile::NamedTempFile::new_in(folder(path)).with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)?;
    readable(file.as_file()).with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}

/// Temporary files are the owner's alone; results are everybody's to read.
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// Fails early if results could not be written there.
pub(crate) fn writable(path: &Path) -> Result<()> {
    if path.exists() && !path.is_file() {
        return Ok(());
    }
    let folder = folder(path);
    tempfile::NamedTempFile::new_in(folder)
        .map(drop)
        .with_context(|| format!("--output={}: {} is not a folder to write into", path.display(), folder.display()))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{cell, cell_of};
    use workload::failures::First;
    use workload::pattern::Op;

    fn written() -> Value {
        let cells = [cell(&[(1_000, 50.0), (3_000, 50.0), (2_000, 50.0)])];
        document(&Environment::for_tests(), &cells, &[])
    }

    #[test]
    fn the_fields_that_fio_plot_reads_are_there() {
        let document = written();
        let job = &document["jobs"][0];
        for key in ["iodepth", "numjobs", "bs", "rw"] {
            assert!(job["job options"][key].is_string(), "{key}");
        }
        assert_eq!(job["job options"]["bs"], "4k");
        for key in ["bw", "iops", "iops_stddev"] {
            assert!(job["read"][key].is_number(), "{key}");
        }
        assert!(job["read"]["lat_ns"]["mean"].is_number() && job["read"]["lat_ns"]["stddev"].is_number());
        for key in ["latency_ms", "latency_us", "latency_ns", "usr_cpu", "sys_cpu", "error", "elapsed"] {
            assert!(!job[key].is_null(), "{key}");
        }
        assert!(document["fio version"].is_string());
        assert_eq!(job["read"]["clat_ns"]["percentile"]["99.950000"], 16_000);
        assert_eq!(job["read"]["clat_ns"]["percentile"]["50.000000"], 7_000);
    }

    #[test]
    fn the_drv_object_keeps_every_sample_and_shows_the_median() {
        let document = written();
        let drv = &document["jobs"][0]["drv"];
        assert_eq!(drv["samples"].as_array().map(Vec::len), Some(3));
        assert_eq!(drv["median"]["iops"], 2_000.0);
        assert_eq!(document["jobs"][0]["read"]["iops"], 2_000.0);
        assert!(drv["instructions_per_io"].is_null());
    }

    #[test]
    fn what_failed_is_told_by_whose_fault_with_the_first_request() {
        let mut cell = cell(&[(1_000, 50.0)]);
        let none = document(&Environment::for_tests(), std::slice::from_ref(&cell), &[]);
        let errors = json!({"total": 0, "caller": 0, "device": 0, "medium": 0, "gone": 0, "first": null});
        assert_eq!((&none["jobs"][0]["error"], &none["jobs"][0]["drv"]["errors"]), (&json!(0), &errors));
        let report = &mut cell.samples[0].report;
        let first = || First::new(Blame::Medium, Op::Write, 24, 4096, format_args!("medium: input/output error"));
        report.failures.add(Blame::Medium, 1, first);
        report.failures.add(Blame::Gone, 2, first);
        report.errors = 2;
        let some = document(&Environment::for_tests(), &[cell], &[]);
        let first = json!({
            "blame": "medium", "op": "write", "lba": 24, "bytes": 4096, "why": "medium: input/output error",
        });
        let errors = json!({"total": 2, "caller": 0, "device": 0, "medium": 1, "gone": 1, "first": first});
        assert_eq!((&some["jobs"][0]["error"], &some["jobs"][0]["drv"]["errors"]), (&json!(5), &errors));
    }

    #[test]
    fn the_options_say_whose_amounts_they_are_and_show_them_as_they_were_given() {
        let typed = |key: &str, value: &str| crate::jobfile::Setting {
            key: key.into(),
            value: value.into(),
            origin: format!("--{key}"),
        };
        let mut draft = crate::job::Draft::new();
        draft.typed(&[typed("size", "1m"), typed("numjobs", "2"), typed("number_ios", "10")]).unwrap();
        let params = draft.finish().unwrap().params;
        assert_eq!((params.size, params.number_ios, params.loops), (2 << 20, 20, 1), "the sums over both jobs");
        let given = options(&params);
        assert_eq!(
            (&given["amounts"], &given["size"], &given["number_ios"]),
            (&json!("fio"), &json!("1048576"), &json!("10"))
        );
        let ours = options(&crate::job::Draft::of("number_ios=20 numjobs=2").unwrap().finish().unwrap().params);
        assert_eq!((&ours["amounts"], &ours["number_ios"]), (&json!("total"), &json!("20")));
    }

    #[test]
    fn what_is_in_front_of_the_driver_is_said() {
        let samples = [(1_000, 50.0)];
        let cells = [cell(&samples), cell_of("runtime=1 via=blockd clients=3", &samples)];
        let document = document(&Environment::for_tests(), &cells, &[]);
        let [plain, blockd] = [0, 1].map(|index| &document["jobs"][index]);
        assert_eq!((&plain["drv"]["via"], &blockd["drv"]["via"]), (&json!("driver"), &json!("blockd")));
        assert_eq!((&blockd["drv"]["clients"], &blockd["drv"]["front"]), (&json!(3), &json!("own")));
        assert!(plain["drv"]["clients"].is_null() && plain["drv"]["front"].is_null());
        assert!(plain["drv"]["doorbells_per_io"].is_null());
        assert_eq!(blockd["drv"]["doorbells_per_io"], json!({"clients": 0.125, "front_ends": 0.1}));
        // fio's plots look for the number of submitters here.
        assert_eq!((&plain["job options"]["numjobs"], &blockd["job options"]["numjobs"]), (&json!("1"), &json!("3")));
    }

    #[test]
    fn results_replace_the_former_ones_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        std::fs::write(&path, "old").unwrap();
        write(&path, &json!({"a": 1})).unwrap();
        let read: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read, json!({"a": 1}));
        assert!(writable(&folder.path().join("missing/out.json")).is_err());
    }
}
