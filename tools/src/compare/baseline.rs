//! A stored run against this one: what became worse or better beyond noise, and by which test.
//!
//! Counts are held against counts: they do not depend on the day, so any change beyond a rounding is one. Times are
//! only compared on the same machine, and as far as possible as ratios to a reference that was measured beside them,
//! pass by pass (the bare ring, else a peer), because a machine is faster today than yesterday. Whether two sets of
//! samples differ is Mann and Whitney's U test, two-sided. Knows the documents only; refuses to know how they came
//! about.
use super::rank;
use crate::figures::median;
use crate::results;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// Two counts that are this far apart, as a share, are equal: they are printed with fewer digits.
const ROUNDING: f64 = 0.002;
/// Of a whole guest, whose interrupts cover now more and now fewer completions.
const TICKING: f64 = 0.2;
/// Two medians that are this far apart, as a share, make no difference to anybody.
const SMALL: f64 = 0.03;
/// Chance of seeing such samples although nothing changed. Some twenty works are judged at once, uncorrected: now and
/// then one is named by chance.
const CHANCE: f64 = 0.01;
/// With fewer samples on either side no difference could be less likely than [`CHANCE`].
const FEWEST: usize = 5;
/// What a work's times are divided by, the first that both runs have.
const REFERENCES: [&str; 5] = ["bare ring", "virtio-drivers, event_idx=off", "Linux", "virtio-driver", "blkio"];
/// What makes two machines the same.
const MACHINE: [&str; 6] = ["machine", "cores", "kernel", "qemu", "storage_daemon", "accel"];
/// Options in which two runs of a job may differ.
const EXTENT: [&str; 2] = ["runtime", "number_ios"];

/// A stored run.
pub(crate) struct Baseline {
    file: String,
    document: Value,
}

/// What was compared, and how it came out.
struct Finding {
    what: String,
    before: f64,
    now: f64,
    verdict: &'static str,
    test: String,
}

impl Baseline {
    /// The run stored at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let document = results::read(path)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = jobs(&document).any(|job| job["drv"]["driver"] == "ours");
        ensure!(
            ours,
            "--baseline={}: has no job of this driver: give what `cargo xtask compare` wrote",
            path.display()
        );
        Ok(Self { file, document })
    }

    /// What changed from it to `now`.
    pub(crate) fn against(&self, now: &Value) -> Value {
        let differs = |key: &&&str| self.document["environment"][**key] != now["environment"][**key];
        let others: Vec<&str> = MACHINE.iter().filter(differs).copied().collect();
        let same = others.is_empty();
        let mut warnings = Vec::new();
        if !same {
            warnings
                .push(format!("another machine ({} differ): counts are compared, times are not", others.join(", ")));
        }
        if differs(&&"rustc") {
            warnings.push("another compiler: counts may differ without a change of the sources".to_owned());
        }
        let mut findings = Vec::new();
        for job in jobs(now).filter(|job| job["drv"]["driver"] == "ours") {
            let Some(before) = named(&self.document, &job["jobname"]) else { continue };
            if same_work(before, job) {
                findings.extend(counts(before, job));
                if same {
                    findings.extend(times((&self.document, before), (now, job)));
                }
            } else {
                warnings
                    .push(format!("{} had other options: not compared", job["jobname"].as_str().unwrap_or_default()));
            }
        }
        if findings.is_empty() {
            warnings.push("nothing that can be compared is in both runs".to_owned());
        }
        json!({
            "file": self.file,
            "same_machine": same,
            "warnings": warnings,
            "findings": findings.iter().map(Finding::shown).collect::<Vec<_>>(),
        })
    }
}

impl Finding {
    fn shown(&self) -> Value {
        let Self { what, before, now, verdict, test } = self;
        json!({"what": what, "before": before, "now": now, "verdict": verdict, "test": test})
    }
}

/// For the terminal: warnings, then what changed, then how much did not; nothing without a baseline.
pub(crate) fn lines(baseline: &Value) -> Vec<String> {
    let list = |key: &str| baseline[key].as_array().cloned().unwrap_or_default();
    let Some(file) = baseline["file"].as_str() else {
        return Vec::new();
    };
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = list("warnings").iter().map(|one| format!("against {file}: {}", said(one))).collect();
    let findings = list("findings");
    for one in findings.iter().filter(|one| one["verdict"] == "worse" || one["verdict"] == "better") {
        let [before, now] = ["before", "now"].map(|key| crate::table::shown(one[key].as_f64().unwrap_or(f64::NAN)));
        let (verdict, what, test) = (said(&one["verdict"]), said(&one["what"]), said(&one["test"]));
        lines.push(format!("{verdict} than {file}: {what}: {before} before, {now} now ({test})"));
    }
    let number = |verdict| findings.iter().filter(|one| one["verdict"] == verdict).count();
    lines.push(format!(
        "against {file}: {} worse, {} better, {} the same, {} with too few samples to tell",
        number("worse"),
        number("better"),
        number("same"),
        number("open")
    ));
    lines
}

fn jobs(document: &Value) -> impl Iterator<Item = &Value> {
    document["jobs"].as_array().into_iter().flatten()
}

fn named<'a>(document: &'a Value, name: &Value) -> Option<&'a Value> {
    jobs(document).find(|job| job["jobname"] == *name)
}

/// Whether both jobs were to do the same; how long or how often does not matter, nor options that one run does not know.
fn same_work(before: &Value, now: &Value) -> bool {
    // Results from before there were two meanings have the one that is called total.
    let amounts = |job: &Value| job["job options"]["amounts"].as_str().unwrap_or("total").to_owned();
    if amounts(before) != amounts(now) {
        return false;
    }
    let options = before["job options"].as_object().into_iter().flatten();
    options.filter(|(key, _)| !EXTENT.contains(&key.as_str())).all(|(key, value)| {
        let now = &now["job options"][key.as_str()];
        now.is_null() || now == value
    })
}

/// Of a counted job: instructions, and doorbells.
fn counts(before: &Value, now: &Value) -> Vec<Finding> {
    let figure = |key: &str, pointer: &str, tolerance: f64| {
        let [before, now] = [before, now].map(|job| job["drv"].pointer(pointer).and_then(Value::as_f64));
        let (before, now) = before.zip(now)?;
        let apart = (now - before) / before;
        let verdict = match apart {
            apart if apart > tolerance => "worse",
            apart if apart < -tolerance => "better",
            _ => "same",
        };
        let test = format!("counts, equal within {} %", tolerance * 100.0);
        Some(Finding { what: String::from(key), before, now, verdict, test })
    };
    let name = now["jobname"].as_str().unwrap_or_default();
    let all = [
        figure("instructions to submit", "/instructions_per_io/submit", ROUNDING),
        figure("instructions to complete", "/instructions_per_io/complete", ROUNDING),
        figure("instructions of the whole guest", "/guest_instructions_per_io", TICKING),
        figure("notifications", "/notifications_per_io", ROUNDING).filter(|_| now["job options"]["icount"] == "on"),
    ];
    let named = |finding: Finding| Finding { what: format!("{name}: {}", finding.what), ..finding };
    all.into_iter().flatten().map(named).collect()
}

/// Of a timed job: IOPS, relative to a reference of the same run where both runs have one.
fn times(before: (&Value, &Value), now: (&Value, &Value)) -> Option<Finding> {
    let is_timed = |job: &Value| job["job options"]["icount"] != "on" && !iops(job).is_empty();
    if !is_timed(before.1) || !is_timed(now.1) {
        return None;
    }
    let reference = REFERENCES.iter().find_map(|label| {
        let beside = |(document, job)| Some(relative(job, beside(document, job, label)?));
        Some((label, beside(before)?, beside(now)?))
    });
    let (what, then, today) = match reference {
        Some((label, then, today)) => (format!("IOPS against {label}"), then, today),
        None => ("IOPS".to_owned(), iops(before.1), iops(now.1)),
    };
    let (verdict, test) = judge(&then, &today);
    let what = format!("{}: {what}", now.1["jobname"].as_str().unwrap_or_default());
    Some(Finding { what, before: median(then), now: median(today), verdict, test })
}

/// The job of `label` that does the same work as `job`.
fn beside<'a>(document: &'a Value, job: &Value, label: &str) -> Option<&'a Value> {
    let work = job["drv"]["work"].as_str()?;
    jobs(document).find(|other| other["drv"]["work"] == work && other["drv"]["peer"] == label)
}

fn samples(job: &Value) -> impl Iterator<Item = &Value> {
    job["drv"]["samples"].as_array().into_iter().flatten()
}

fn iops(job: &Value) -> Vec<f64> {
    samples(job).filter_map(|sample| sample["iops"].as_f64()).filter(|iops| *iops > 0.0).collect()
}

/// Pass by pass, where the cores were equally far apart in both.
fn relative(ours: &Value, theirs: &Value) -> Vec<f64> {
    let alike = samples(ours).zip(samples(theirs)).filter(|(ours, theirs)| ours["cores"] == theirs["cores"]);
    let ratios = alike.filter_map(|(ours, theirs)| Some(ours["iops"].as_f64()? / theirs["iops"].as_f64()?));
    ratios.filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect()
}

/// Whether more is better than before, and by which test.
fn judge(before: &[f64], now: &[f64]) -> (&'static str, String) {
    if before.len().min(now.len()) < FEWEST {
        return ("open", format!("fewer than {FEWEST} samples"));
    }
    let chance = rank::chance(before, now);
    let apart = median(now.to_vec()) / median(before.to_vec()) - 1.0;
    let test = format!("Mann-Whitney, {} and {} samples, p = {chance:.4}", before.len(), now.len());
    let verdict = match apart {
        _ if chance >= CHANCE => "same",
        apart if apart <= -SMALL => "worse",
        apart if apart >= SMALL => "better",
        _ => "same",
    };
    (verdict, test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(peer: &str, iops: &[f64]) -> Value {
        let samples: Vec<Value> = iops.iter().map(|iops| json!({"iops": iops})).collect();
        let driver = if peer == "ours" { "ours" } else { "raw" };
        json!({"jobname": format!("polled-128-{driver}"), "job options": {},
            "drv": {"driver": driver, "peer": peer, "work": "polled-128", "samples": samples}})
    }

    fn counted(submit: f64) -> Value {
        json!({"jobname": "count-16-ours", "job options": {"icount": "on"}, "drv": {"driver": "ours", "peer": "ours",
            "work": "count-16", "instructions_per_io": {"submit": submit, "complete": 38.0}, "samples": []}})
    }

    fn document(machine: &str, jobs: &[Value]) -> Value {
        json!({"environment": {"machine": machine, "cores": 2, "qemu": "7.2", "accel": "tcg", "rustc": "1"}, "jobs": jobs})
    }

    fn against(before: Value, now: &Value) -> Value {
        Baseline { file: "stored.json".into(), document: before }.against(now)
    }

    const STEADY: [f64; 5] = [100.0, 101.0, 99.0, 100.5, 99.5];

    #[test]
    fn a_regression_beyond_noise_is_named_with_its_test() {
        let slow: Vec<f64> = STEADY.map(|iops| iops * 0.9).to_vec();
        let found = against(document("a", &[timed("ours", &STEADY)]), &document("a", &[timed("ours", &slow)]));
        let one = &found["findings"][0];
        assert_eq!((&one["verdict"], &one["what"]), (&json!("worse"), &json!("polled-128-ours: IOPS")));
        assert!(one["test"].as_str().unwrap().starts_with("Mann-Whitney, 5 and 5 samples, p = 0.0"), "{one}");
        assert!(lines(&found)[0].starts_with("worse than stored.json: polled-128-ours"), "{:?}", lines(&found));
        let back = against(document("a", &[timed("ours", &slow)]), &document("a", &[timed("ours", &STEADY)]));
        assert_eq!(back["findings"][0]["verdict"], "better");
    }

    #[test]
    fn noise_is_no_regression() {
        let wild = [80.0, 120.0, 99.0, 100.5, 90.0];
        let shifted = STEADY.map(|iops| iops * 0.98);
        for now in [wild, shifted] {
            let found = against(document("a", &[timed("ours", &STEADY)]), &document("a", &[timed("ours", &now)]));
            assert_eq!(found["findings"][0]["verdict"], "same", "{now:?}");
        }
    }

    #[test]
    fn a_slower_day_is_no_regression_if_the_reference_is_slower_too() {
        let half = STEADY.map(|iops| iops / 2.0);
        let before = document("a", &[timed("ours", &STEADY), timed("bare ring", &STEADY)]);
        let slow = document("a", &[timed("ours", &half), timed("bare ring", &half)]);
        let one = against(before.clone(), &slow)["findings"][0].clone();
        assert_eq!(
            (&one["verdict"], &one["what"]),
            (&json!("same"), &json!("polled-128-ours: IOPS against bare ring"))
        );
        let worse = document("a", &[timed("ours", &half), timed("bare ring", &STEADY)]);
        assert_eq!(against(before, &worse)["findings"][0]["verdict"], "worse");
    }

    #[test]
    fn one_instruction_more_is_named_whatever_the_machine() {
        let before = document("a", &[counted(61.0), timed("ours", &STEADY)]);
        let now = document("b", &[counted(62.0), timed("ours", &STEADY.map(|iops| iops / 2.0))]);
        let found = against(before, &now);
        assert_eq!(found["same_machine"], false);
        assert!(found["warnings"][0].as_str().unwrap().contains("machine differ"), "{found}");
        let verdicts: Vec<_> = found["findings"].as_array().unwrap().iter().map(|one| one["verdict"].clone()).collect();
        assert_eq!(verdicts, ["worse", "same"], "counts to submit and to complete, and no times");
    }

    #[test]
    fn a_job_with_other_options_is_not_compared_and_one_that_ran_longer_is() {
        let job = |depth: &str, runtime: &str| {
            let mut job = timed("ours", &STEADY);
            job["job options"] = json!({"iodepth": depth, "runtime": runtime});
            document("a", &[job])
        };
        let found = against(job("32", "1s"), &job("128", "1s"));
        assert_eq!(found["findings"], json!([]));
        assert!(found["warnings"][0].as_str().unwrap().contains("other options"), "{found}");
        assert_eq!(against(job("128", "5s"), &job("128", "1s"))["findings"][0]["verdict"], "same");
    }

    #[test]
    fn too_few_samples_tell_nothing() {
        let found = against(document("a", &[timed("ours", &[100.0; 5])]), &document("a", &[timed("ours", &[50.0; 4])]));
        assert_eq!(found["findings"][0]["verdict"], "open");
        assert!(lines(&found)[0].contains("1 with too few samples"));
    }

    #[test]
    fn runs_without_a_common_job_say_so() {
        let found = against(document("a", &[counted(1.0)]), &document("a", &[timed("ours", &STEADY)]));
        assert!(found["warnings"][0].as_str().unwrap().contains("nothing that can be compared"), "{found}");
    }

    #[test]
    fn without_a_baseline_nothing_is_said() {
        assert!(lines(&Value::Null).is_empty());
    }

    #[test]
    fn amounts_of_two_meanings_are_not_the_same_work() {
        let job = |amounts: Value| json!({"job options": {"rw": "read", "size": "1048576", "amounts": amounts}});
        let (before, total, fio) = (job(Value::Null), job(json!("total")), job(json!("fio")));
        let stored = json!({"job options": {"rw": "read", "size": "1048576"}});
        assert!(same_work(&stored, &total), "what was stored before there were two meanings has the first");
        assert!(!same_work(&stored, &fio) && !same_work(&before, &fio));
        assert!(!same_work(&total, &fio) && !same_work(&fio, &total));
        assert!(same_work(&fio, &fio));
    }
}
