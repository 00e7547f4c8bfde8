//! The job in fio's words, as lean as fio can be, and fio's JSON as a report.
//!
//! Registered file and buffers and no timing but what the latencies need: what is left out is fio's own work, not the
//! driver's. Knows fio; nothing of guests.
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use workload::params::{Mode, Params};
use workload::report::{Direction, PERCENTILES, Report, VERSION};

/// fio's arguments with commas between them: none of the values has one.
pub(super) fn arguments(params: &Params) -> String {
    let jobs = u64::from(params.numjobs);
    let mut text = format!(
        "--name={},--filename=/dev/vda,--direct=1,--ioengine=io_uring,--registerfiles=1,--fixedbufs=1,\
         --norandommap={},--randseed={},--rw={},--iodepth={},--iodepth_batch_submit={},\
         --iodepth_batch_complete_min={},--iodepth_batch_complete_max={},--numjobs={jobs},--group_reporting=1,\
         --disable_slat=1,--disable_lat=1,--disable_bw_measurement=1,--percentile_list={},--exec_prerun=/begin,\
         --exec_postrun=/end,--eta=never,--output-format=json",
        params.name,
        u8::from(params.norandommap),
        params.randseed,
        params.rw,
        params.iodepth,
        params.iodepth_batch_submit,
        params.iodepth_batch_complete_min,
        params.iodepth_batch_complete_max,
        percentiles(),
    );
    let mut add = |key: &str, value: &dyn std::fmt::Display| {
        let _ = write!(text, ",--{key}={value}");
    };
    match params.bssplit.as_slice() {
        [one] => add("bs", &one.bytes),
        _ => add("bssplit", &split(params)),
    }
    if params.mode == Mode::Polled {
        add("hipri", &1);
    }
    if params.rw.is_mixed() {
        add("rwmixread", &params.rwmixread);
    }
    if params.rate_iops > 0 {
        add("rate_iops", &params.rate_iops);
    }
    amounts(params, add);
    text
}

/// How much fio does, in its own amounts: those of each job.
fn amounts(params: &Params, mut add: impl FnMut(&str, &dyn std::fmt::Display)) {
    let jobs = u64::from(params.numjobs);
    if params.size > 0 {
        add("size", &(params.size / jobs));
    }
    let apart = if params.shares_disk() { params.offset_increment } else { params.size / jobs };
    if apart > 0 {
        add("offset_increment", &apart);
    }
    if params.offset > 0 {
        add("offset", &params.offset);
    }
    if params.runtime_ms > 0 {
        add("runtime", &format!("{}ms", params.runtime_ms));
        if params.loops == 0 {
            add("time_based", &1);
        }
    }
    if params.loops > 0 {
        add("loops", &params.loops);
        if params.io_size > 0 {
            add("io_size", &(params.io_size / jobs));
        }
    }
    if params.number_ios > 0 {
        // fio makes that many in each of its loops.
        let ios = params.number_ios.div_ceil(jobs).div_ceil(params.loops.max(1).into());
        add("number_ios", &ios);
        if params.loops == 0 && params.runtime_ms == 0 {
            // Otherwise fio ends when it has been over its part of the disk once.
            add("io_size", &(ios * u64::from(params.largest_block())));
        }
    }
}

fn split(params: &Params) -> String {
    let share = |weight: u32| f64::from(weight) / 1000.0;
    let parts: Vec<_> = params.bssplit.iter().map(|one| format!("{}/{}", one.bytes, share(one.weight))).collect();
    parts.join(":")
}

fn percentiles() -> String {
    let all: Vec<_> = PERCENTILES.iter().map(|thousandths| (f64::from(*thousandths) / 1000.0).to_string()).collect();
    all.join(":")
}

/// The report that fio's JSON amounts to.
pub(super) fn report(json: &str) -> Result<Report> {
    // What fio has to say besides comes first.
    let start = json.find('{').context("fio's result has no JSON")?;
    let result: Value = serde_json::from_str(&json[start..]).context("fio's result is damaged")?;
    let jobs = result["jobs"].as_array().context("fio's result has no jobs")?;
    ensure!(jobs.len() == 1, "fio's result has {} jobs instead of one group", jobs.len());
    let job = &jobs[0];
    let error = number(job, "error")?;
    ensure!(error == 0, "fio's job ended in error {error}");
    let ways = ["read", "write", "trim"].map(|name| direction(&job[name]).context(name.to_owned()));
    let [read, write, trim] = ways;
    let (read, write, trim) = (read?, write?, trim?);
    let milliseconds = ["read", "write", "trim"].map(|name| job[name]["runtime"].as_u64().unwrap_or(0));
    let done = read.ios + write.ios + trim.ios;
    Ok(Report {
        version: VERSION,
        read,
        write,
        trim,
        runtime_ns: milliseconds.into_iter().max().unwrap_or(0) * 1_000_000,
        submitted: done,
        completed: done,
        ..Report::default()
    })
}

fn direction(way: &Value) -> Result<Direction> {
    let ios = number(way, "total_ios")?;
    let latency = &way["clat_ns"];
    if ios == 0 {
        return Ok(Direction::default());
    }
    let named = |thousandths: &u32| {
        let name = format!("{}.{:03}000", thousandths / 1000, thousandths % 1000);
        number(&latency["percentile"], &name)
    };
    Ok(Direction {
        ios,
        bytes: number(way, "io_bytes")?,
        clat_min_ns: number(latency, "min")?,
        clat_max_ns: number(latency, "max")?,
        clat_mean_ns: number(latency, "mean")?,
        percentiles_ns: PERCENTILES.iter().map(named).collect::<Result<_>>()?,
    })
}

/// A whole number; fio writes means with a fraction, which is cut.
#[allow(clippy::cast_sign_loss, reason = "negative numbers are no numbers of fio's")]
fn number(object: &Value, name: &str) -> Result<u64> {
    let value = &object[name];
    let whole = value.as_u64().or_else(|| value.as_f64().filter(|value| *value >= 0.0).map(|value| value as u64));
    whole.with_context(|| format!("fio's result has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;
    use serde_json::json;

    fn params(words: &str) -> Params {
        Draft::of(&format!("driver=linux {words}")).unwrap().finish().unwrap().params
    }

    /// As fio writes it, so far as it is read.
    fn result() -> Value {
        let percentile: serde_json::Map<String, Value> =
            PERCENTILES.iter().map(|at| (format!("{}.{:03}000", at / 1000, at % 1000), json!(at))).collect();
        let clat = json!({"min": 10, "max": 99, "mean": 50.7, "percentile": percentile});
        let idle = json!({"total_ios": 0, "io_bytes": 0, "runtime": 0, "clat_ns": {"min": 0, "max": 0, "mean": 0.0}});
        let read = json!({"total_ios": 500, "io_bytes": 2_048_000, "runtime": 250, "clat_ns": clat});
        json!({"jobs": [{"error": 0, "read": read, "write": idle, "trim": idle}]})
    }

    #[test]
    fn a_result_becomes_a_report_with_every_percentile() {
        let report = report(&format!("fio: a remark\n{}", result())).unwrap();
        assert_eq!((report.read.ios, report.runtime_ns, report.read.clat_mean_ns), (500, 250_000_000, 50));
        assert_eq!(report.read.percentiles_ns.as_slice(), PERCENTILES.map(u64::from));
        assert_eq!((report.write.ios, report.completed), (0, 500));
    }

    #[test]
    fn a_damaged_result_is_an_error() {
        let text = result().to_string();
        for cut in [1, text.len() / 2, text.len() - 1] {
            assert!(report(&text[..cut]).is_err(), "cut at {cut}");
        }
        let damaged: [fn(&mut Value); 5] = [
            |result| result["jobs"][0]["error"] = json!(5),
            |result| result["jobs"] = json!([]),
            |result| result["jobs"][0]["read"]["total_ios"] = json!(-1),
            |result| result["jobs"][0]["write"] = json!(null),
            |result| result["jobs"][0]["read"]["clat_ns"]["percentile"] = json!({"50.000000": 7}),
        ];
        for damage in damaged {
            let mut result = result();
            damage(&mut result);
            assert!(report(&result.to_string()).is_err(), "{result}");
        }
    }

    #[test]
    fn fio_is_told_what_the_job_says() {
        let text = arguments(&params("mode=polled rw=randrw rwmixread=70 bssplit=512/20:4k/80 number_ios=300000"));
        for part in ["--hipri=1", "--rwmixread=70", "--bssplit=512/20:4096/80", "--number_ios=300000", "--rw=randrw"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("--io_size=1228800000"), "{text}");
        let text = arguments(&params("mode=interrupt runtime=500ms iodepth=128 iodepth_batch_submit=32"));
        assert!(text.contains("--runtime=500ms") && !text.contains("hipri") && text.contains("--bs=4096"), "{text}");
        assert!(text.contains("--percentile_list=1:5:10:") && text.contains(":99.99"), "{text}");
    }
}
