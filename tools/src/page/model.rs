//! A result file as the page reads it: our document, a comparison, or plain fio's.
//!
//! What a writer may leave out has a default here; a field of another type is an error that names its place. Knows the
//! fields; refuses to know how they are shown.
use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The whole file.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    #[serde(rename = "fio version")]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) timestamp: Option<i64>,
    #[serde(default, rename = "global options", deserialize_with = "or_default")]
    pub(crate) global: Map<String, Value>,
    pub(crate) jobs: Vec<Job>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) environment: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) checks: Vec<Check>,
    pub(crate) comparison: Option<Comparison>,
}

/// One job, as fio has it, with what ours adds.
#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    #[serde(rename = "jobname")]
    pub(crate) name: String,
    #[serde(default, rename = "job options", deserialize_with = "or_default")]
    pub(crate) options: Map<String, Value>,
    #[serde(default)]
    pub(crate) error: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) read: Direction,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) write: Direction,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) trim: Direction,
    pub(crate) drv: Option<Drv>,
}

/// Reads, writes or trims of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Direction {
    pub(crate) iops: f64,
    pub(crate) bw_bytes: f64,
    pub(crate) total_ios: u64,
    pub(crate) clat_ns: Latency,
}

/// Completion latencies.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Latency {
    #[serde(deserialize_with = "or_default")]
    pub(crate) percentile: Map<String, Value>,
}

/// What ours adds to a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Drv {
    pub(crate) driver: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) front: Option<String>,
    pub(crate) stepped: Option<bool>,
    pub(crate) queues: Option<u64>,
    pub(crate) batch: Option<u64>,
    pub(crate) cores: Option<String>,
    pub(crate) instructions_per_io: Option<Instructions>,
    pub(crate) guest_instructions_per_io: Option<f64>,
    pub(crate) cpu_ns_per_io: Option<f64>,
    pub(crate) median: Option<Figures>,
    pub(crate) iops_spread: Option<Spread>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) samples: Vec<Figures>,
}

/// Medians, or one sample.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    pub(crate) iops: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) notifications_per_io: Option<f64>,
    pub(crate) interrupts_per_io: Option<f64>,
    pub(crate) instructions_per_io: Option<Instructions>,
    pub(crate) pingpong_ns: Option<f64>,
    pub(crate) guest_instructions_per_io: Option<f64>,
    pub(crate) cpu_ns_per_io: Option<f64>,
}

/// Instructions per I/O; a peer whose halves cannot be told apart has a total only.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Instructions {
    pub(crate) submit: Option<f64>,
    pub(crate) complete: Option<f64>,
    pub(crate) total: f64,
}

/// Lowest and highest of several samples.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// A bound and what was measured against it.
#[derive(Debug, Deserialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) cores: Option<String>,
    pub(crate) value: Option<f64>,
    pub(crate) spread: Option<Spread>,
    pub(crate) samples: Option<u64>,
    pub(crate) must: Option<String>,
    pub(crate) aim: Option<String>,
    pub(crate) holds: Option<bool>,
}

/// What a comparison adds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Comparison {
    pub(crate) quick: bool,
    pub(crate) peers: Vec<Peer>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) notes: Vec<String>,
}

/// Somebody else's driver, or ours on another way.
#[derive(Debug, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) title: Option<String>,
    pub(crate) state: String,
    pub(crate) why: Option<String>,
}

/// One job's figure divided by another's, sample by sample.
#[derive(Debug, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) what: String,
    pub(crate) figure: Option<String>,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) median: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) samples: Option<u64>,
}

/// What was not measured, and why.
#[derive(Debug, Deserialize)]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// A comparison with stored results.
#[derive(Debug, Deserialize)]
pub(crate) struct Baseline {
    pub(crate) file: String,
    pub(crate) same_machine: Option<bool>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) findings: Vec<Finding>,
}

/// One figure before and now.
#[derive(Debug, Deserialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) before: Option<f64>,
    pub(crate) now: Option<f64>,
    pub(crate) verdict: String,
    pub(crate) test: Option<String>,
}

/// The document in `value`, which is called `name` where it is not one.
pub(crate) fn read(name: &str, value: &Value) -> Result<Document> {
    let advice = || format!("{name} has a field that is not what fio or this version writes: measure again");
    serde_path_to_error::deserialize(value).with_context(advice)
}

/// `null` is as good as left out.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_of_another_type_is_named_with_its_place() {
        let job = json!({"jobname": "a", "drv": {"median": {"iops": "many"}}});
        let error = read("x.json", &json!({"fio version": "fio-3", "jobs": [job]})).unwrap_err();
        let line = crate::fail::line(&error);
        assert!(line.starts_with("x.json has a field") && line.contains("jobs[0].drv.median.iops"), "{line}");
    }

    #[test]
    fn what_is_null_or_left_out_has_a_default() {
        let document = json!({
            "fio version": "fio-3", "checks": null, "environment": null,
            "jobs": [{"jobname": "a", "read": null, "drv": {"samples": null, "instructions_per_io": {"total": 4}}}],
        });
        let document = read("x.json", &document).unwrap();
        assert!(document.checks.is_empty() && document.comparison.is_none());
        let drv = document.jobs[0].drv.as_ref().unwrap();
        assert_eq!(drv.instructions_per_io.map(|counted| (counted.total, counted.submit)), Some((4.0, None)));
    }
}
