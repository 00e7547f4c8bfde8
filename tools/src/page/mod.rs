//! The page: one HTML file that shows result files, without a network or anything beside it.
//!
//! Where to read: [`model`] what a file holds, [`measured`] a job in one shape; [`panels`] which jobs share a plot,
//! [`scale`] its axes, [`draw`] its SVG, [`figures`] which plots there are; [`flat`] and [`tables`] every number;
//! [`words`] what is said about them. Invariants: every text of a file is escaped; a section without data is left out;
//! no number of a file is missing from the tables; a page is written whole or not at all.
mod draw;
mod figures;
mod flat;
mod measured;
mod model;
mod number;
mod panels;
mod scale;
mod tables;
mod words;

use crate::json;
use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use measured::Measured;
use model::Document;
use serde_json::Value;
use std::path::Path;

/// The reader's browser is told to load nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// Replaces `path` by the page of `documents`, each with the name that it is shown under.
pub(crate) fn write(path: &Path, documents: &[(String, Value)]) -> Result<()> {
    let page = page(documents)?;
    json::replace(path, &page)
}

/// The page of `documents`.
fn page(documents: &[(String, Value)]) -> Result<String> {
    let sections: Vec<Section> = documents
        .iter()
        .enumerate()
        .map(|(index, (name, value))| section(&format!("d{index}"), name, value))
        .collect::<Result<_>>()?;
    let names: Vec<&str> = documents.iter().map(|(name, _)| name.as_str()).collect();
    let compared = sections.iter().any(|section| section.compared);
    let title = if compared { "Side by side with the peers" } else { "Results" };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                link rel="icon" href="data:,";
                title { (title) ": " (names.join(", ")) " – drv-virtio-block" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                a.skip href="#main" { "Skip to the figures" }
                header {
                    p.project { "drv-virtio-block" }
                    h1 { (title) }
                    @if sections.len() > 1 {
                        nav aria-label="Files" { ul { @for section in &sections { li { a href=(format!("#{}", section.id)) { (section.name) } } } } }
                    }
                }
                main id="main" { @for section in &sections { (section.shown) } }
                footer { p { "Medians unless said otherwise. An empty figure (" (number::NONE) ") was not measured." } }
                script { (PreEscaped(include_str!("script.js"))) }
            }
        }
    };
    Ok(page.into_string())
}

/// One file's part of the page.
struct Section {
    id: String,
    name: String,
    compared: bool,
    shown: Markup,
}

/// A heading with what stands below it; left out if that is nothing.
type Part = (&'static str, Vec<Markup>);

fn section(id: &str, name: &str, value: &Value) -> Result<Section> {
    let document = model::read(name, value)?;
    let jobs = measured::all(&document);
    let mut parts = parts(id, &document, &jobs).with_context(|| name.to_owned())?;
    parts.push(("Every number", vec![every_number(id, name, value, &jobs)?]));
    parts.retain(|(_, inside)| !inside.is_empty());
    let shown = html! {
        section.document aria-labelledby=(id) {
            h2 id=(id) { (name) }
            p.lead { (lead(&document, &jobs)) }
            nav.contents aria-label=(format!("Contents of {name}")) {
                ul { @for (index, (heading, _)) in parts.iter().enumerate() { li { a href=(format!("#{id}-{index}")) { (heading) } } } }
            }
            @for (index, (heading, inside)) in parts.iter().enumerate() {
                section aria-labelledby=(format!("{id}-{index}")) {
                    h3 id=(format!("{id}-{index}")) { (heading) }
                    @for one in inside { (one) }
                }
            }
        }
    };
    Ok(Section { id: id.into(), name: name.into(), compared: document.comparison.is_some(), shown })
}

fn parts(id: &str, document: &Document, jobs: &[Measured]) -> Result<Vec<Part>> {
    let mut headline = Vec::new();
    if let Some(tally) = words::tally(document) {
        headline.push(html! { p { (tally) } });
        headline.push(tables::checks(&document.checks));
    }
    let missing = words::missing(document, jobs);
    let caveats = words::caveats(document, jobs);
    Ok(vec![
        ("Headline figures", headline),
        ("Against the peers", against_peers(id, document, jobs)?),
        (
            "I/Os per second over depth",
            grid(
                figures::iops(id, jobs)?,
                "Medians; the thin line at a marker reaches from the lowest to the highest sample. The vertical scale is logarithmic and the same in all plots with lines.",
            ),
        ),
        (
            "Latency percentiles",
            grid(
                figures::latency(id, jobs)?,
                "From submission to completion, from the median to the 99.99th percentile; both scales are logarithmic.",
            ),
        ),
        (
            "Instructions per I/O",
            grid(
                figures::instructions(id, jobs)?,
                "Counted, not timed: equal in every run of the same build, but for whole guests, which vary by some percent.",
            ),
        ),
        (
            "Notifications and interrupts per I/O",
            grid(figures::signals(id, jobs)?, "Each row says notifications / interrupts."),
        ),
        ("Processor time per I/O", grid(figures::processor(id, jobs)?, "")),
        (
            "Against the baseline",
            document
                .comparison
                .as_ref()
                .and_then(|comparison| comparison.baseline.as_ref())
                .map(against_baseline)
                .unwrap_or_default(),
        ),
        ("What was not measured", if missing.is_empty() { Vec::new() } else { vec![tables::missing(&missing)] }),
        (
            "What the numbers do not say",
            if caveats.is_empty() {
                Vec::new()
            } else {
                vec![html! { ul.prose { @for one in caveats { li { (one) } } } }]
            },
        ),
        (
            "Environment",
            if document.environment.is_empty() { Vec::new() } else { vec![tables::environment(&document.environment)] },
        ),
    ])
}

fn against_peers(id: &str, document: &Document, jobs: &[Measured]) -> Result<Vec<Markup>> {
    let mut all = Vec::new();
    let Some(comparison) = &document.comparison else {
        return Ok(all);
    };
    if !comparison.ratios.is_empty() {
        all.extend(grid(
            figures::ratios(id, &comparison.ratios, jobs)?,
            "Ours divided by theirs, pass by pass: median and reach of the samples. The scale is logarithmic and the same in all of them.",
        ));
        all.push(tables::ratios(comparison));
    }
    if !comparison.peers.is_empty() {
        all.push(tables::peers(comparison));
    }
    if !comparison.notes.is_empty() {
        all.push(html! { ul.prose { @for note in &comparison.notes { li { (note) } } } });
    }
    Ok(all)
}

fn against_baseline(baseline: &model::Baseline) -> Vec<Markup> {
    let elsewhere = baseline.same_machine == Some(false);
    vec![
        html! {
            @if elsewhere { p.warning { "The baseline was taken on another machine: only counts are compared." } }
            @for warning in &baseline.warnings { p.warning { (warning) } }
        },
        tables::baseline(baseline),
    ]
}

fn grid(figures: Vec<Markup>, note: &str) -> Vec<Markup> {
    if figures.is_empty() {
        return figures;
    }
    vec![html! {
        @if !note.is_empty() { p.note { (note) } }
        div.figures { @for figure in figures { (figure) } }
    }]
}

/// Where and when, in a line or two.
fn lead(document: &Document, jobs: &[Measured]) -> String {
    let text = |key: &str| document.environment.get(key).map(flat::text).filter(|text| !text.is_empty());
    let mut words = vec![format!("{} jobs", jobs.len())];
    words.extend(text("machine"));
    words.extend(text("cores").map(|cores| format!("{cores} cores")));
    words.extend(text("qemu").map(|version| format!("QEMU {version}")));
    words.extend(text("accel").map(|accel| accel.to_uppercase()));
    words.extend(text("commit").map(|commit| format!("commit {commit}")));
    words.push(format!("written by {}", document.version));
    let time = document.timestamp.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    words.extend(time.map(|time| time.strftime("%Y-%m-%d %H:%M UTC").to_string()));
    words.join(" · ")
}

fn every_number(id: &str, name: &str, value: &Value, jobs: &[Measured]) -> Result<Markup> {
    let (of_jobs, of_samples) = (flat::Table::of_jobs(value), flat::Table::of_samples(value));
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let button = |what: &str, part: &str, file: String, kind: &str| {
        html! {
            button type="button" data-from=(format!("{id}-{part}")) data-file=(file) data-kind=(kind) { (what) }
        }
    };
    Ok(html! {
        p.downloads {
            (button("Document as JSON", "json", format!("{stem}.json"), "application/json"))
            (button("Jobs as CSV", "jobs-csv", format!("{stem}-jobs.csv"), "text/csv"))
            @if !of_samples.rows.is_empty() {
                (button("Samples as CSV", "samples-csv", format!("{stem}-samples.csv"), "text/csv"))
            }
        }
        noscript { p.note { "The downloads need scripts; the tables below do not." } }
        @if !jobs.is_empty() { (tables::jobs(jobs)) }
        @if !of_samples.rows.is_empty() {
            details {
                summary { "Every sample (" (of_samples.rows.len()) ")" }
                (tables::raw("Every sample, as it stands in the file", &format!("{id}-samples"), &of_samples))
            }
        }
        details {
            summary { "Every field of every job (" (of_jobs.columns.len()) " columns)" }
            (tables::raw("Every field of every job but its samples, as it stands in the file", &format!("{id}-jobs"), &of_jobs))
        }
        (tables::island(&format!("{id}-json"), &(serde_json::to_string_pretty(value)? + "\n")))
        pre hidden id=(format!("{id}-jobs-csv")) { (of_jobs.csv()?) }
        @if !of_samples.rows.is_empty() { pre hidden id=(format!("{id}-samples-csv")) { (of_samples.csv()?) } }
    })
}

#[cfg(test)]
#[path = "../../tests/page/fixture.rs"]
mod fixture;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(document: Value) -> String {
        page(&[("a.json".into(), document)]).unwrap()
    }

    #[test]
    fn every_text_of_a_file_is_escaped() {
        let mut document = fixture::comparison();
        let mark = "<b>\"'&";
        hostile(&mut document, mark);
        let page = page(&[(mark.into(), document)]).unwrap();
        // The island writes `<` as \u003c, everything else as an entity.
        assert!(page.contains("&lt;b&gt;") && page.contains("\\u003cb>"));
        assert!(
            !page.contains("<b>"),
            "{}",
            page.split("<b>").next().map_or("", |before| &before[before.len().saturating_sub(200)..])
        );
        assert_eq!(page.matches("<script").count(), 2, "the document and the page's own");
    }

    /// Puts `mark` before every text that is shown as it is.
    fn hostile(value: &mut Value, mark: &str) {
        match value {
            Value::String(text) if !text.starts_with("drv-") => *text = format!("{mark}{text}"),
            Value::Array(all) => all.iter_mut().for_each(|one| hostile(one, mark)),
            Value::Object(fields) => fields.values_mut().for_each(|one| hostile(one, mark)),
            _ => {}
        }
    }

    #[test]
    fn a_section_without_data_is_left_out() {
        let headings = |document: Value| -> Vec<String> {
            let page = shown(document);
            let all = page.split("<h3").skip(1).filter_map(|part| part.split_once('>')?.1.split_once('<'));
            all.map(|(heading, _)| heading.to_owned()).collect()
        };
        assert_eq!(headings(fixture::comparison()).len(), 12, "{:?}", headings(fixture::comparison()));
        assert_eq!(headings(json!({"fio version": "fio-3.33", "jobs": []})), ["Every number"]);
    }

    #[test]
    fn a_document_that_cannot_be_shown_leaves_the_page_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        std::fs::write(&path, "old").unwrap();
        let good = ("good.json".to_owned(), fixture::comparison());
        let bad = ("bad.json".to_owned(), json!({"fio version": "fio-3.33", "jobs": [{"jobname": 5}]}));
        assert!(write(&path, &[good.clone(), bad]).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        write(&path, &[good]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("<!DOCTYPE html>"));
    }
}
