//! `compare` as a test: the command is run as a user runs it, with a QEMU that one of the peers does not survive and a
//! stored run that was better.
//!
//! The results of the others must stay, the failure must stand in its place, and what became worse must be named.
use crate::lab::{Lab, Size};
use crate::process::{OURSELVES, capture};
use crate::results;
use crate::scenarios::Scenario;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

/// For one short comparison.
const LIMIT: Duration = Duration::from_mins(5);
/// What the failing machine says.
const WORDS: &str = "this machine boots no bare ring";

/// The scenarios.
pub(crate) fn all() -> impl Iterator<Item = Scenario> {
    let name = "compare: a peer that fails leaves the others' results, and what became worse is named".to_owned();
    std::iter::once(Scenario { name, size: Size::Default, run: Box::new(a_peer_fails) })
}

fn a_peer_fails(lab: &Lab) -> Result<()> {
    let with = lab.bed.qemu.as_ref().context("there is no QEMU")?;
    let folder = tempfile::tempdir().context("making a folder for the results")?;
    let at = |name: &str| folder.path().join(name);
    let (wrapper, stored, results) = (at("qemu"), at("stored.json"), at("results.json"));
    // The guest's command line is one argument; everything else is QEMU's own business.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *driver=raw*) echo '{WORDS}' >&2; exit 1;; esac\nexec '{}' \"$@\"\n",
        with.qemu.path.display()
    );
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(&stored, better().to_string())?;
    let mut command = Command::new(OURSELVES);
    command.args(["compare", "--quick", "--passes=1", "--peers=raw", "--accel=tcg", "--no-setup"]);
    for (option, path) in
        [("--qemu", &wrapper), ("--image", &with.image), ("--baseline", &stored), ("--output", &results)]
    {
        command.arg(format!("{option}={}", path.display()));
    }
    let ran = capture(&mut command, LIMIT, |_| ())?;
    let last = ran.lines.iter().rev().find(|line| line.starts_with("error: ")).map_or("", String::as_str);
    ensure!(!ran.status.success() && last.contains("count-16-raw") && last.contains(WORDS), "it ended with `{last}`");
    holds(&results::read(&results)?)?;
    let page = std::fs::read_to_string(results.with_extension("html")).context("there is no page")?;
    ensure!(page.contains(WORDS), "the page does not say why a peer has no result");
    let worse =
        ran.lines.iter().any(|line| line.starts_with("worse than stored.json: count-16-ours: instructions to submit"));
    ensure!(worse, "one instruction more was not named");
    Ok(())
}

/// A stored run of another machine whose driver submitted with one instruction.
fn better() -> Value {
    json!({
        "fio version": concat!("drv-virtio-block-", env!("CARGO_PKG_VERSION")),
        "environment": {"machine": "another"},
        "jobs": [{"jobname": "count-16-ours", "job options": {"icount": "on"},
            "drv": {"driver": "ours", "instructions_per_io": {"submit": 1.0, "complete": 1.0, "total": 2.0}}}],
    })
}

/// Ours has its results, and so has the peer where it does not need that machine.
fn holds(document: &Value) -> Result<()> {
    let jobs = document["jobs"].as_array().context("there are no jobs")?;
    let has = |name: &str| jobs.iter().any(|job| job["jobname"] == name);
    for name in ["count-16-ours", "polled-128-ours", "polled-128-blockd", "embedded-polled-128x32-raw"] {
        ensure!(has(name), "{name} has no result");
    }
    ensure!(!has("polled-128-raw"), "a machine that was never booted has a result");
    let comparison = &document["comparison"];
    let missing = comparison["missing"].as_array().context("nothing is missing")?;
    let told = missing
        .iter()
        .any(|one| one["what"] == "polled-128-raw" && one["why"].as_str().is_some_and(|why| why.contains(WORDS)));
    ensure!(told, "polled-128-raw is missing without its reason");
    let raw = comparison["peers"].as_array().and_then(|peers| peers.iter().find(|peer| peer["name"] == "raw"));
    ensure!(raw.is_some_and(|raw| raw["state"] == "failed"), "raw is {raw:?}");
    let baseline = &comparison["baseline"];
    ensure!(baseline["same_machine"] == false, "another machine was taken for this one");
    Ok(())
}
