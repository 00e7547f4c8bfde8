//! A job as the plots and tables see it: who did what, how deep, and what came of it.
//!
//! Makes one shape of our jobs and plain fio's. What was not measured is `None` here, also where the file has a 0 in its
//! place: a counted run has no time, and fio counts no notifications.
use crate::page::model::{Document, Drv, Figures, Instructions, Job, Spread};
use serde_json::{Map, Value};

/// Whose driver it was; decides colour and marker, the same all over the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Ours,
    Blockd,
    Raw,
    VirtioDrivers,
    VirtioDriver,
    Blkio,
    Linux,
    Other,
}

/// One job.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) who: Who,
    /// The driver as it is shown.
    pub(crate) peer: String,
    /// Back-end and device.
    pub(crate) place: String,
    pub(crate) rw: String,
    pub(crate) bs: String,
    pub(crate) mode: String,
    pub(crate) depth: u64,
    pub(crate) batch: u64,
    /// What else tells jobs of one driver apart, by name.
    pub(crate) variant: Vec<(&'static str, String)>,
    /// Instructions were counted, time was not.
    pub(crate) counted: bool,
    /// The run was for its data, not for its speed.
    pub(crate) verifies: bool,
    /// fio's error number.
    pub(crate) error: i64,
    pub(crate) cores: Option<String>,
    pub(crate) samples: usize,
    pub(crate) figures: Figures,
    pub(crate) spread: Option<Spread>,
    /// Percent and nanoseconds, of the direction with the most I/Os.
    pub(crate) percentiles: Vec<(f64, f64)>,
}

/// Every job of the document.
pub(crate) fn all(document: &Document) -> Vec<Measured> {
    document.jobs.iter().map(|job| Measured::of(job, &document.global)).collect()
}

impl Measured {
    fn of(job: &Job, global: &Map<String, Value>) -> Self {
        let none = Drv::default();
        let drv = job.drv.as_ref().unwrap_or(&none);
        let option = |key: &str| {
            let value = job.options.get(key).or_else(|| global.get(key));
            value.map(super::flat::text).filter(|text| !text.is_empty())
        };
        let number = |key: &str| option(key).and_then(|text| text.parse().ok());
        let depth = number("iodepth").unwrap_or(1);
        let (who, peer) = peer(drv, option("ioengine"));
        let counted = option("icount").as_deref() == Some("on");
        let instructions = drv.instructions_per_io.or_else(|| drv.median.as_ref()?.instructions_per_io);
        let mut figures = drv.median.clone().unwrap_or_else(|| plain(job));
        let counted = counted || (instructions.is_some() && figures.iops.is_none_or(|iops| iops <= 0.0));
        figures.instructions_per_io = instructions;
        figures.guest_instructions_per_io = figures.guest_instructions_per_io.or(drv.guest_instructions_per_io);
        figures.cpu_ns_per_io = figures.cpu_ns_per_io.or(drv.cpu_ns_per_io);
        if counted {
            // Virtual time is no time.
            figures = Figures {
                iops: None,
                bytes_per_second: None,
                p50_ns: None,
                p99_ns: None,
                cpu_ns_per_io: None,
                ..figures
            };
        }
        Self {
            name: job.name.clone(),
            who,
            peer,
            place: place(drv),
            rw: option("rw").unwrap_or_else(|| "read".into()),
            bs: option("bs").unwrap_or_else(|| "4k".into()),
            mode: drv.mode.clone().unwrap_or_default(),
            depth,
            batch: drv.batch.or_else(|| number("iodepth_batch_submit")).unwrap_or(1).min(depth.max(1)),
            variant: variant(drv, option),
            counted,
            verifies: option("verify").is_some_and(|verify| verify != "none" && verify != "0"),
            error: job.error,
            cores: drv.cores.clone(),
            samples: drv.samples.len(),
            spread: drv.iops_spread.filter(|spread| !counted && spread.max > 0.0),
            percentiles: if counted { Vec::new() } else { percentiles(job) },
            figures,
        }
    }

    /// Whether its time is worth a plot.
    pub(crate) fn is_timed(&self) -> bool {
        !self.counted && !self.verifies && self.error == 0 && self.figures.iops.is_some_and(|iops| iops > 0.0)
    }

    /// The figure's instructions, if they were counted.
    pub(crate) fn instructions(&self) -> Option<Instructions> {
        self.figures.instructions_per_io
    }

    /// `random read 4k`.
    pub(crate) fn pattern(&self) -> String {
        let words = match self.rw.as_str() {
            "randread" => "random read",
            "randwrite" => "random write",
            "randrw" => "random read and write",
            "randtrim" => "random trim",
            "rw" | "readwrite" => "read and write",
            other => other,
        };
        format!("{words} {}", self.bs)
    }
}

fn peer(drv: &Drv, engine: Option<String>) -> (Who, String) {
    let via_blockd = drv.via.as_deref() == Some("blockd");
    let (who, name) = match drv.driver.as_deref() {
        Some("ours") if via_blockd => (Who::Blockd, "ours via blockd".into()),
        Some("ours") => (Who::Ours, "ours".into()),
        Some("raw") => (Who::Raw, "bare ring".into()),
        Some("virtio-drivers") => (Who::VirtioDrivers, "virtio-drivers".into()),
        Some("virtio-driver") => (Who::VirtioDriver, "virtio-driver".into()),
        Some("blkio") => (Who::Blkio, "blkio".into()),
        Some("linux") => (Who::Linux, "Linux".into()),
        Some(other) => (Who::Other, other.to_owned()),
        None => (Who::Other, engine.map_or_else(|| "fio".into(), |engine| format!("fio, {engine}"))),
    };
    (who, drv.peer.clone().unwrap_or(name))
}

fn place(drv: &Drv) -> String {
    let mut words: Vec<&str> = drv.backend.iter().chain(&drv.device).map(String::as_str).collect();
    words.dedup();
    if drv.stepped == Some(true) {
        words.push("stepped by the submitters");
    }
    words.join(", ")
}

/// What differs between jobs of one driver besides mode, depth and batch.
fn variant(drv: &Drv, option: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let count = |count: Option<String>, one: &str, many: &str| match count.as_deref() {
        None | Some("1") => one.to_owned(),
        Some(count) => format!("{count} {many}"),
    };
    let named = |key: &'static str| (key, option(key).map_or_else(String::new, |value| format!("{key}={value}")));
    vec![
        ("queues", count(drv.queues.map(|queues| queues.to_string()), "1 queue", "queues")),
        ("numjobs", count(option("numjobs"), "1 job", "jobs")),
        named("submit"),
        named("event_idx"),
        named("indirect"),
        named("layout"),
        ("front", drv.front.as_ref().map_or_else(String::new, |front| format!("front={front}"))),
    ]
}

/// Of plain fio, which has one sample and no medians.
fn plain(job: &Job) -> Figures {
    let ways = [&job.read, &job.write, &job.trim];
    let at = |wanted: f64| {
        let all = percentiles(job);
        all.iter().find(|(percent, _)| (percent - wanted).abs() < 1e-6).map(|&(_, ns)| ns)
    };
    Figures {
        iops: Some(ways.iter().map(|way| way.iops).sum()),
        bytes_per_second: Some(ways.iter().map(|way| way.bw_bytes).sum()),
        p50_ns: at(50.0),
        p99_ns: at(99.0),
        ..Figures::default()
    }
}

fn percentiles(job: &Job) -> Vec<(f64, f64)> {
    let busiest = [&job.trim, &job.write, &job.read].into_iter().max_by_key(|way| way.total_ios);
    let all = busiest.iter().flat_map(|way| &way.clat_ns.percentile);
    all.filter_map(|(percent, ns)| Some((percent.parse().ok()?, ns.as_f64()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(job: &Value) -> Measured {
        let document = json!({"fio version": "fio-3.33", "global options": {"rw": "randread"}, "jobs": [job]});
        all(&super::super::model::read("x", &document).unwrap()).remove(0)
    }

    #[test]
    fn a_counted_run_has_no_time() {
        let job = json!({"jobname": "a", "job options": {"icount": "on", "iodepth": "32"}, "drv": {
            "driver": "ours", "batch": 32, "instructions_per_io": {"submit": 61.0, "complete": 38.0, "total": 99.0},
            "median": {"iops": 0.0, "p50_ns": 0.0}, "iops_spread": {"min": 0.0, "max": 0.0},
        }});
        let job = one(&job);
        assert!(job.counted && !job.is_timed() && job.spread.is_none());
        assert_eq!((job.figures.iops, job.figures.p50_ns), (None, None));
        assert_eq!(job.instructions().map(|counted| counted.total), Some(99.0));
    }

    #[test]
    fn plain_fio_is_shown_as_far_as_it_goes() {
        let percentile = json!({"50.000000": 7, "99.000000": 9});
        let job = json!({"jobname": "a", "job options": {"iodepth": "8", "ioengine": "io_uring"},
            "read": {"iops": 5.0, "total_ios": 10, "clat_ns": {"percentile": percentile}}});
        let job = one(&job);
        assert_eq!((job.peer.as_str(), job.who, job.depth), ("fio, io_uring", Who::Other, 8));
        assert_eq!((job.figures.iops, job.figures.p50_ns, job.figures.p99_ns), (Some(5.0), Some(7.0), Some(9.0)));
        assert_eq!(job.figures.notifications_per_io, None);
        assert_eq!(job.pattern(), "random read 4k", "global options count");
    }

    #[test]
    fn a_peers_own_label_is_shown_and_blockd_is_told_from_the_driver() {
        let drv = |drv: Value| one(&json!({"jobname": "a", "drv": drv}));
        assert_eq!(drv(json!({"driver": "ours", "via": "blockd"})).who, Who::Blockd);
        let best = drv(json!({"driver": "virtio-drivers", "peer": "virtio-drivers event_idx=off"}));
        assert_eq!((best.who, best.peer.as_str()), (Who::VirtioDrivers, "virtio-drivers event_idx=off"));
    }
}
