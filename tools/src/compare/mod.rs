//! `cargo xtask compare`: the same work by ours and by its peers, interleaved in one run.
//!
//! [`side`] who, [`plan`] what, [`rounds`] measures it, [`musts`] what must hold, [`document`] the JSON, [`baseline`]
//! what changed since a stored run. Counts come first: they are equal in every run; then ratios of one run. A peer that
//! cannot be had or fails is named, with its reason, in every result; the command then ends with an error after the
//! others' results were written.
mod baseline;
mod document;
mod musts;
mod plan;
mod rank;
mod rounds;
mod side;

pub(crate) use side::Peer;

use crate::bench;
use crate::cli::{Compare, Format};
use crate::environment::Environment;
use crate::figures::{self, Cell, median};
use crate::json;
use crate::say::{note, say};
use crate::table;
use crate::{cpu, page};
use anyhow::{Result, bail};
use baseline::Baseline;
use clap::ValueEnum;
use plan::{Entry, Extent, Fate};
use serde_json::Value;

/// Runs the command.
pub(crate) fn run(args: &Compare) -> Result<()> {
    let output = bench::output(args.output.as_deref(), "compare.json")?;
    let baseline = args.baseline.as_deref().map(Baseline::read).transpose()?;
    let extent = if args.quick { Extent::QUICK } else { Extent::FULL }.with_passes(args.passes);
    let peers = if args.peers.is_empty() { Peer::value_variants() } else { &args.peers };
    let mut entries = plan::entries(extent, peers)?;
    let bed = rounds::prepare(args, &mut entries)?;
    let environment = Environment::of(&bed);
    rounds::run(&bed, &mut entries, extent)?;
    let checks = musts::checks(&entries);
    let mut document = document::of(&environment, &entries, &checks, extent);
    if let Some(baseline) = &baseline {
        document["comparison"]["baseline"] = baseline.against(&document);
    }
    json::write(&output, &document)?;
    if args.means.output_format == Format::Json && args.output.is_none() {
        say!("{}", serde_json::to_string_pretty(&document)?);
    }
    if args.means.output_format == Format::Normal {
        show(&environment, &entries, &document);
        say!("\n{}", table::checks(&checks));
        say!("results: {}", output.display());
    }
    // After everything else is shown: nothing is lost if it cannot be written.
    if let Some(page) = bench::page(&output) {
        page::write(&page, &[(name(&output), document)])?;
        if args.means.output_format == Format::Normal {
            say!("page:    {}", page.display());
        }
    }
    fates(&entries)
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn show(environment: &Environment, entries: &[Entry], document: &Value) {
    let cells: Vec<Cell> = entries.iter().filter(|entry| entry.is_measured()).map(|entry| entry.cell.clone()).collect();
    if let Some(share) = figures::others(&cells).filter(|share| *share > cpu::POOR) {
        note!("note: others took {:.0} % of the processors: measure again when the host is idle", share * 100.0);
    }
    say!("{}\n", environment.line());
    say!("{}\n", table::cells(&cells));
    say!("{}", ratios(entries));
    for peer in Peer::value_variants() {
        if let (state, Some(why)) = document::state(entries, *peer) {
            say!("{}: {state}: {why}", peer.name());
        }
    }
    for line in baseline::lines(&document["comparison"]["baseline"]) {
        say!("{line}");
    }
}

/// Ours against everybody else, work by work.
fn ratios(entries: &[Entry]) -> String {
    let measured: Vec<&Entry> = entries.iter().filter(|entry| entry.is_measured()).collect();
    let rows = document::pairs(&measured).into_iter().map(|pair| {
        let low = pair.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = pair.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = if pair.values.len() > 1 { format!("{low:.2} to {high:.2}") } else { String::new() };
        let what = format!("{} / {}", pair.ours.side.label, pair.theirs.side.label);
        let figure = pair.figure.replace('_', " ");
        [pair.theirs.work.clone(), what, figure, format!("{:.3}", median(pair.values)), spread]
    });
    table::plain(["work", "ratio", "of", "median", "spread"], rows)
}

/// An error if a run failed, now that everything else is written.
fn fates(entries: &[Entry]) -> Result<()> {
    let runs = entries.iter().filter(|entry| matches!(entry.fate, Fate::Failed(_)));
    let runs = runs.map(|entry| (entry.name(), entry.why_not().unwrap_or_default()));
    let guests = entries.iter().filter_map(|entry| entry.guest.as_ref());
    let guests = guests.filter_map(|guest| Some((guest.job.params.name.as_str(), guest.why_not.as_deref()?)));
    let failed: Vec<_> = runs.chain(guests).collect();
    match failed.first() {
        None => Ok(()),
        Some((name, why)) => {
            bail!(
                "{} of {} failed, the first: {name}: {why}: the others' results are written",
                failed.len(),
                entries.len()
            )
        }
    }
}
