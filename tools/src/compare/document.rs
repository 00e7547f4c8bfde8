//! The results as JSON: fio's schema as `bench` writes it, each job with its side's label, and an object `comparison`
//! with what only a comparison knows: the peers and what became of them, ratios, and what was not measured and why.
use super::plan::{Entry, Extent, Fate, Kind};
use super::side::{LINUX, OURS, Peer};
use crate::check::Check;
use crate::cpu;
use crate::environment::Environment;
use crate::figures::{Cell, Figures, median, ratios_alike};
use crate::json;
use clap::ValueEnum;
use serde_json::{Value, json};

/// Of the object `comparison`.
const VERSION: u32 = 1;

/// The whole file.
pub(crate) fn of(environment: &Environment, entries: &[Entry], checks: &[Check], extent: Extent) -> Value {
    let measured: Vec<&Entry> = entries.iter().filter(|entry| entry.is_measured()).collect();
    let cells: Vec<Cell> = measured.iter().map(|entry| entry.cell.clone()).collect();
    let mut document = json::document(environment, &cells, checks);
    if let Some(jobs) = document["jobs"].as_array_mut() {
        for (job, entry) in jobs.iter_mut().zip(&measured) {
            job["drv"]["peer"] = json!(entry.side.label);
            job["drv"]["work"] = json!(entry.work);
            // The whole guest was counted by a job of its own, which waits for interrupts.
            let guest = entry.guest.as_ref().filter(|guest| guest.why_not.is_none());
            job["drv"]["guest_job"] = json!(guest.map(|guest| guest.job.params.to_string()));
        }
    }
    let ratios: Vec<Value> = pairs(&measured).into_iter().map(ratio).collect();
    document["comparison"] = json!({
        "version": VERSION,
        "quick": extent.quick,
        "peers": peers(entries),
        "ratios": ratios,
        "missing": missing(entries),
        "baseline": null,
        "notes": notes(&cells),
    });
    document
}

/// Two sides of one work, and ratios of their samples.
pub(crate) struct Pair<'a> {
    pub(crate) ours: &'a Entry,
    pub(crate) theirs: &'a Entry,
    pub(crate) figure: &'static str,
    pub(crate) values: Vec<f64>,
}

/// Ours against every other side of the same work; and what stands in front of ours against Linux, which is the nearer
/// comparison.
pub(crate) fn pairs<'a>(measured: &[&'a Entry]) -> Vec<Pair<'a>> {
    let ours = |theirs: &&'a Entry| {
        let theirs = *theirs;
        let sides = measured.iter().filter(move |entry| entry.work == theirs.work && entry.side != theirs.side);
        sides.filter(move |entry| entry.side == &OURS || (entry.side.peer.is_none() && theirs.side == &LINUX))
    };
    measured.iter().flat_map(|theirs| ours(theirs).filter_map(|ours| pair(ours, theirs))).collect()
}

/// Sample by sample, of the distance at which most of ours were taken; nothing if there is none.
fn pair<'a>(ours: &'a Entry, theirs: &'a Entry) -> Option<Pair<'a>> {
    let (figure, of): (_, fn(&Figures) -> f64) = match theirs.kind {
        Kind::Counted => ("instructions_per_io", |one| one.instructions_per_io.map_or(f64::NAN, |all| all.total)),
        Kind::Timed => ("iops", |one| one.iops),
    };
    let values = ratios_alike(&ours.cell, &theirs.cell, of);
    (!values.is_empty()).then_some(Pair { ours, theirs, figure, values })
}

fn ratio(pair: Pair<'_>) -> Value {
    let Pair { ours, theirs, figure, values } = pair;
    let whose = if ours.side == &OURS { String::new() } else { format!("{} / ", ours.side.label) };
    json!({
        "what": format!("{}: {whose}{}", theirs.work, theirs.side.label),
        "figure": figure,
        "ours": ours.name(),
        "theirs": theirs.name(),
        "min": values.iter().copied().fold(f64::INFINITY, f64::min),
        "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "samples": values.len(),
        "median": median(values),
    })
}

fn peers(entries: &[Entry]) -> Vec<Value> {
    let of = |peer: &Peer| {
        let (state, why) = state(entries, *peer);
        json!({"name": peer.name(), "title": peer.title(), "state": state, "why": why})
    };
    Peer::value_variants().iter().map(of).collect()
}

/// What became of a peer, and why: one failed run says more than others that went well.
pub(crate) fn state(entries: &[Entry], peer: Peer) -> (&'static str, Option<&str>) {
    let mut state = ("left out", Some("not asked for"));
    for entry in entries.iter().filter(|entry| entry.side.peer == Some(peer)) {
        match &entry.fate {
            Fate::Failed(why) => return ("failed", Some(why)),
            Fate::Open => state = ("measured", None),
            Fate::LeftOut(why) if state.0 == "left out" => state.1 = Some(why),
            Fate::LeftOut(_) => (),
        }
    }
    state
}

/// What was to be measured and has no result, and what cannot be measured at all.
fn missing(entries: &[Entry]) -> Vec<Value> {
    let of = |entry: &Entry| Some(json!({"what": entry.name(), "side": entry.side.label, "why": entry.why_not()?}));
    let guests = entries.iter().filter_map(|entry| {
        let guest = entry.guest.as_ref()?;
        Some(json!({"what": guest.job.params.name.as_str(), "side": entry.side.label, "why": guest.why_not.as_ref()?}))
    });
    let never = NEVER.iter().map(|(what, why)| json!({"what": what, "why": why}));
    entries.iter().filter_map(of).chain(guests).chain(never).collect()
}

/// What no run of this command measures, and why.
const NEVER: [(&str, &str); 4] = [
    ("virtio-drivers, interrupt-driven", "the crate sets up no interrupt vectors; it is polled"),
    ("virtio-drivers, depth above 16", "its queue has 16 entries, fixed in the crate"),
    ("instructions of drivers over vhost-user", "how often an empty ring is polled depends on the device's time"),
    ("cycles, caches and time on hardware", "TCG translates; the ranks of designs show, not a real machine's figures"),
];

/// How quiet the machine was, and remarks of the runs, each once.
fn notes(cells: &[Cell]) -> Vec<String> {
    let timed: Vec<_> = cells.iter().filter(|cell| !cell.job.params.icount).flat_map(|cell| &cell.samples).collect();
    let poor = timed.iter().filter(|sample| sample.others > cpu::POOR).count();
    let mut notes = Vec::new();
    if poor > 0 {
        let (all, share) = (timed.len(), cpu::POOR * 100.0);
        notes.push(format!(
            "{poor} of {all} timed runs: others took more than {share:.0} % of the processors meanwhile"
        ));
    }
    for note in cells.iter().flat_map(|cell| &cell.samples).flat_map(|sample| &sample.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::plan::entries;
    use super::super::side::RAW;
    use super::*;
    use crate::figures::tests::outcome;

    fn measured() -> Vec<Entry> {
        let mut all = entries(Extent::QUICK, &[Peer::Raw, Peer::Linux]).unwrap();
        for entry in &mut all {
            let ios = if entry.side == &OURS { 3_000 } else { 1_000 };
            entry.cell.samples.extend([outcome(ios, Some(50.0)), outcome(2 * ios, Some(50.0))]);
        }
        all
    }

    fn written(entries: &[Entry]) -> Value {
        of(&Environment::for_tests(), entries, &[], Extent::QUICK)
    }

    #[test]
    fn every_job_says_whose_it_is() {
        let all = measured();
        let document = written(&all);
        let jobs = document["jobs"].as_array().unwrap();
        assert_eq!(jobs.len(), all.len());
        for (job, entry) in jobs.iter().zip(&all) {
            assert_eq!((&job["jobname"], &job["drv"]["peer"]), (&json!(entry.name()), &json!(entry.side.label)));
        }
    }

    #[test]
    fn ratios_are_of_the_same_work_and_pass() {
        let document = written(&measured());
        let ratios = document["comparison"]["ratios"].as_array().unwrap();
        let one = ratios.iter().find(|one| one["theirs"] == "polled-128-linux").unwrap();
        assert_eq!(
            (&one["ours"], &one["median"], &one["samples"]),
            (&json!("polled-128-ours"), &json!(3.0), &json!(2))
        );
        assert!(ratios.iter().all(|one| one["theirs"] != one["ours"]));
    }

    #[test]
    fn a_failed_run_is_in_its_place_and_the_others_results_stay() {
        let mut all = measured();
        let broken = all.iter_mut().find(|entry| entry.side == &LINUX && entry.work == "polled-128").unwrap();
        broken.fate = Fate::Failed("the guest's kernel panicked".into());
        let document = written(&all);
        let jobs = document["jobs"].as_array().unwrap();
        assert_eq!(jobs.len(), all.len() - 1);
        assert!(jobs.iter().all(|job| job["jobname"] != "polled-128-linux"));
        assert!(jobs.iter().any(|job| job["jobname"] == "interrupt-128-linux"));
        let missing = document["comparison"]["missing"].as_array().unwrap();
        assert_eq!(
            (&missing[0]["what"], &missing[0]["why"]),
            (&json!("polled-128-linux"), &json!("the guest's kernel panicked"))
        );
        assert_eq!(state(&all, Peer::Linux), ("failed", Some("the guest's kernel panicked")));
        assert_eq!(state(&all, Peer::Raw), ("measured", None));
        assert_eq!(state(&all, Peer::Blkio), ("left out", Some("not asked for")));
    }

    #[test]
    fn what_could_not_be_had_is_left_out_not_failed() {
        let mut all = measured();
        for entry in all.iter_mut().filter(|entry| entry.side == &RAW) {
            entry.fate = Fate::LeftOut("no floor today".into());
        }
        assert_eq!(state(&all, Peer::Raw), ("left out", Some("no floor today")));
    }
}
