//! The plots of a document, as figures: a caption, the plot, its legend.
//!
//! Every plot shows medians with the reach of their samples where there are several, and every value that is drawn also
//! stands in a table. Knows which figure answers which question; [`panels`] chooses the jobs and [`draw`] draws.
//!
//! [`draw`]: super::draw
use crate::page::draw::{self, Key, Mark, Point, Row, Words};
use crate::page::measured::{Measured, Who};
use crate::page::model::Ratio;
use crate::page::number;
use crate::page::panels::{self, Panel, Series};
use crate::page::scale;
use anyhow::Result;
use maud::{Markup, html};

/// IOPS over depth, a panel for each pattern, mode and batch.
pub(crate) fn iops(id: &str, jobs: &[Measured]) -> Result<Vec<Markup>> {
    let panels = panels::over_depth(jobs);
    let mut figures = Vec::new();
    let all = panels.iter().flat_map(|panel| &panel.series).flat_map(|one| &one.jobs);
    // One scale for all of them, so that panels can be compared.
    let Some(y) = scale::log("I/Os per second", all.flat_map(|job| reached(job)), number::tick) else {
        return remaining(id, jobs, &panels);
    };
    for (index, panel) in panels.iter().enumerate() {
        let jobs = panel.series.iter().flat_map(|one| &one.jobs);
        let Some(x) = scale::depths(jobs.map(|job| job.depth)) else { continue };
        let series =
            panel.series.iter().map(|one| (key(one), one.jobs.iter().filter_map(|job| over_depth(job)).collect()));
        let words = Words {
            id: format!("{id}-iops-{index}"),
            title: format!("I/Os per second over depth: {}", panel.title),
            description: told(panel, |job| format!("depth {}: {}", job.depth, iops_of(job))),
        };
        let plot = draw::lines(&words, &x, &y, &series.collect::<Vec<_>>())?;
        figures.push(figure(&panel.title, &plot, Some(&legend(&panel.series, false)?)));
    }
    figures.extend(remaining(id, jobs, &panels)?);
    Ok(figures)
}

/// The jobs that are alone at their depth.
fn remaining(id: &str, jobs: &[Measured], shown: &[Panel<'_>]) -> Result<Vec<Markup>> {
    let mut figures = Vec::new();
    for (index, panel) in panels::left_over(jobs, shown).iter().enumerate() {
        let all = panel.series.iter().flat_map(|one| reached(one.jobs[0]));
        let Some(x) = scale::log("I/Os per second", all, number::tick) else { continue };
        let row = |one: &Series<'_>| {
            let job = one.jobs[0];
            let reach = job.spread.map(|spread| range(spread.min.log10(), spread.max.log10(), key(one)));
            let dot = job.figures.iops.map(|iops| Mark::Dot { at: iops.log10(), key: key(one) });
            Row { label: one.label.clone(), value: iops_of(job), marks: reach.into_iter().chain(dot).collect() }
        };
        let words = Words {
            id: format!("{id}-iops-more-{index}"),
            title: format!("I/Os per second: {}", panel.title),
            description: told(panel, iops_of),
        };
        let rows: Vec<Row> = panel.series.iter().map(row).collect();
        figures.push(figure(&panel.title, &draw::rows(&words, &x, &rows, None)?, None));
    }
    Ok(figures)
}

/// Latency over percentile, a panel for each pattern, depth and batch.
pub(crate) fn latency(id: &str, jobs: &[Measured]) -> Result<Vec<Markup>> {
    let mut panels = panels::at_depth(jobs);
    panels.retain(|panel| panel.series.iter().any(|one| !tail(one.jobs[0]).is_empty()));
    let mut figures = Vec::new();
    for (index, panel) in panels.iter().enumerate() {
        let points: Vec<Vec<Point>> = panel.series.iter().map(|one| tail(one.jobs[0])).collect();
        let all = points.iter().flatten().map(|point| 10_f64.powf(point.y));
        let Some(y) = scale::log("latency", all, number::tick_time) else { continue };
        let series: Vec<_> = panel.series.iter().map(key).zip(points).collect();
        let words = Words {
            id: format!("{id}-latency-{index}"),
            title: format!("Latency over percentile: {}", panel.title),
            description: told(panel, |job| {
                let shown = |ns| number::or_none(ns, number::time);
                format!("median {}, 99th percentile {}", shown(job.figures.p50_ns), shown(job.figures.p99_ns))
            }),
        };
        let plot = draw::lines(&words, &scale::percentiles(), &y, &series)?;
        figures.push(figure(&panel.title, &plot, Some(&legend(&panel.series, false)?)));
    }
    Ok(figures)
}

/// Instructions per I/O in the driver, split where the halves were counted, and in the whole guest.
pub(crate) fn instructions(id: &str, jobs: &[Measured]) -> Result<Vec<Markup>> {
    let mut figures = Vec::new();
    let series = by_batch(jobs, |job| job.instructions().is_some());
    let row = |one: &Series<'_>| {
        let job = one.jobs[0];
        let counted = job.instructions()?;
        let (bars, value) = match (counted.submit, counted.complete) {
            (Some(submit), Some(complete)) => (
                vec![bar(0.0, submit, key_of(one, 0)), bar(submit, submit + complete, key_of(one, HALF))],
                format!("{submit:.0} + {complete:.0} = {:.0}", counted.total),
            ),
            _ => (vec![bar(0.0, counted.total, key_of(one, WHOLE))], format!("{:.0}, not split", counted.total)),
        };
        Some(Row { label: one.label.clone(), value, marks: bars })
    };
    let rows: Vec<Row> = series.iter().filter_map(row).collect();
    let totals = series.iter().filter_map(|one| Some(one.jobs[0].instructions()?.total));
    if let Some(x) = scale::linear("instructions per I/O", totals) {
        let title = "In the driver: submit and complete";
        let words = words_of(format!("{id}-instructions"), title, &rows);
        let key = |style| draw::swatch(Key(series[0].who, style), true);
        let legend = html! {
            ul.legend {
                li { (key(0)?) "submit: batch handed over, to doorbell decision" }
                li { (key(HALF)?) "complete: used index read, to buffers handed back" }
            }
        };
        figures.push(figure(title, &draw::rows(&words, &x, &rows, None)?, Some(&legend)));
    }
    let title = "In the whole guest: every layer from the caller to the device and back";
    figures.extend(bars(&format!("{id}-guest"), title, jobs, |job| job.figures.guest_instructions_per_io)?);
    Ok(figures)
}

/// Processor time per I/O.
pub(crate) fn processor(id: &str, jobs: &[Measured]) -> Result<Vec<Markup>> {
    let title = "Processor time per I/O, nanoseconds";
    Ok(bars(&format!("{id}-cpu"), title, jobs, |job| job.figures.cpu_ns_per_io)?.into_iter().collect())
}

/// Notifications and interrupts per I/O, a panel for each pattern and mode.
pub(crate) fn signals(id: &str, jobs: &[Measured]) -> Result<Vec<Markup>> {
    let mut figures = Vec::new();
    for (index, panel) in panels::left_over(jobs, &[]).iter().enumerate() {
        let row = |one: &Series<'_>| {
            let figures = &one.jobs[0].figures;
            let (notifications, interrupts) = (figures.notifications_per_io, figures.interrupts_per_io);
            let shown = |value| number::or_none(value, number::per_io);
            notifications.or(interrupts)?;
            let marks = [(notifications, SENT), (interrupts, HEARD)];
            let marks = marks.into_iter().filter_map(|(at, key)| Some(Mark::Dot { at: at?, key })).collect();
            let value = format!("{} / {}", shown(notifications), shown(interrupts));
            Some(Row { label: one.label.clone(), value, marks })
        };
        let rows: Vec<Row> = panel.series.iter().filter_map(row).collect();
        let figures_of = panel.series.iter().map(|one| &one.jobs[0].figures);
        let all = figures_of.flat_map(|figures| [figures.notifications_per_io, figures.interrupts_per_io]).flatten();
        let Some(x) = scale::linear("per I/O", all) else { continue };
        let words = words_of(
            format!("{id}-signals-{index}"),
            &format!("Notifications and interrupts per I/O: {}", panel.title),
            &rows,
        );
        let legend = html! {
            ul.legend {
                li { (draw::swatch(SENT, false)?) "notifications: doorbells rung by the driver" }
                li { (draw::swatch(HEARD, false)?) "interrupts" }
            }
        };
        figures.push(figure(&panel.title, &draw::rows(&words, &x, &rows, None)?, Some(&legend)));
    }
    Ok(figures)
}

/// Ratios against the peers, with the reach of their samples, around 1: a figure for each place and mode, counts apart.
pub(crate) fn ratios(id: &str, ratios: &[Ratio], jobs: &[Measured]) -> Result<Vec<Markup>> {
    let all = ratios.iter().flat_map(|ratio| [ratio.median, ratio.min, ratio.max]).flatten();
    let Some(x) = scale::log("ours divided by theirs; the line is 1", all.chain([1.0]), number::tick) else {
        return Ok(Vec::new());
    };
    let theirs = |ratio: &Ratio| jobs.iter().find(|job| job.name == ratio.theirs);
    let mut groups: Vec<(String, Vec<Row>)> = Vec::new();
    for ratio in ratios {
        let title = kind_of(theirs(ratio));
        let row = ratio_row(ratio, theirs(ratio).map_or(Who::Other, |job| job.who));
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((title, vec![row])),
        }
    }
    let mut figures = Vec::new();
    for (index, (title, rows)) in groups.iter().enumerate() {
        let words = words_of(format!("{id}-ratios-{index}"), title, rows);
        figures.push(figure(title, &draw::rows(&words, &x, rows, Some(0.0))?, None));
    }
    Ok(figures)
}

/// What a ratio is of, and which side of 1 is good.
fn kind_of(theirs: Option<&Measured>) -> String {
    match theirs {
        Some(job) if job.counted => format!("Instructions per I/O, {}: less is better", job.place),
        Some(job) => format!("I/Os per second, {}, {}: more is better", job.place, job.mode),
        None => "Others".into(),
    }
}

fn ratio_row(ratio: &Ratio, who: Who) -> Row {
    let key = Key(who, 0);
    let reach = ratio.min.zip(ratio.max).filter(|(low, _)| *low > 0.0);
    let reach = reach.map(|(low, high)| range(low.log10(), high.log10(), key));
    let dot = ratio.median.filter(|at| *at > 0.0).map(|at| Mark::Dot { at: at.log10(), key });
    let value = ratio.median.map_or_else(|| "not measured".into(), |at| format!("{} ×", number::three(at)));
    Row { label: ratio.what.clone(), value, marks: reach.into_iter().chain(dot).collect() }
}

/// Styles of bars: the second half of a split one, and one that is not split.
const HALF: usize = 6;
const WHOLE: usize = 7;
/// Not drivers, but two kinds of signal.
const SENT: Key = Key(Who::Ours, 5);
const HEARD: Key = Key(Who::VirtioDrivers, 5);

fn bars(id: &str, title: &str, jobs: &[Measured], pick: fn(&Measured) -> Option<f64>) -> Result<Option<Markup>> {
    let series = by_batch(jobs, |job| pick(job).is_some());
    let row = |one: &Series<'_>| {
        let value = pick(one.jobs[0])?;
        Some(Row {
            label: one.label.clone(),
            value: number::short(value),
            marks: vec![bar(0.0, value, key_of(one, WHOLE))],
        })
    };
    let rows: Vec<Row> = series.iter().filter_map(row).collect();
    let Some(x) = scale::linear("per I/O", series.iter().filter_map(|one| pick(one.jobs[0]))) else {
        return Ok(None);
    };
    Ok(Some(figure(title, &draw::rows(&words_of(id.into(), title, &rows), &x, &rows, None)?, None)))
}

/// Single jobs, larger batches first.
fn by_batch(jobs: &[Measured], wanted: impl Fn(&Measured) -> bool) -> Vec<Series<'_>> {
    let mut series = panels::singly(jobs.iter().filter(|job| wanted(job)));
    series.sort_by_key(|one| std::cmp::Reverse(one.jobs[0].batch));
    series
}

fn key(series: &Series<'_>) -> Key {
    Key(series.who, series.style % 5)
}

fn key_of(series: &Series<'_>, style: usize) -> Key {
    Key(series.who, style)
}

fn bar(from: f64, to: f64, key: Key) -> Mark {
    Mark::Bar { from, to, key }
}

fn range(from: f64, to: f64, key: Key) -> Mark {
    Mark::Range { from, to, key }
}

fn over_depth(job: &Measured) -> Option<Point> {
    let reach = job.spread.filter(|spread| spread.min > 0.0).map(|spread| (spread.min.log10(), spread.max.log10()));
    Some(Point { x: (job.depth as f64).log2(), y: job.figures.iops?.log10(), reach })
}

/// The percentiles from the median on.
fn tail(job: &Measured) -> Vec<Point> {
    let all = job.percentiles.iter().filter(|(percent, ns)| (50.0..99.995).contains(percent) && *ns > 0.0);
    all.map(|(percent, ns)| Point { x: scale::nines(*percent), y: ns.log10(), reach: None }).collect()
}

fn reached(job: &Measured) -> impl Iterator<Item = f64> {
    let spread = job.spread.map(|spread| [spread.min, spread.max]);
    job.figures.iops.into_iter().chain(spread.into_iter().flatten())
}

fn iops_of(job: &Measured) -> String {
    number::or_none(job.figures.iops, number::short)
}

fn told(panel: &Panel<'_>, shown: impl Fn(&Measured) -> String) -> String {
    let of = |one: &Series<'_>| one.jobs.iter().map(|job| shown(job)).collect::<Vec<_>>().join(", ");
    panel.series.iter().map(|one| format!("{}: {}.", one.label, of(one))).collect::<Vec<_>>().join(" ")
}

fn words_of(id: String, title: &str, rows: &[Row]) -> Words {
    let description = rows.iter().map(|row| format!("{}: {}.", row.label, row.value)).collect::<Vec<_>>().join(" ");
    Words { id, title: title.into(), description }
}

fn legend(series: &[Series<'_>], bar: bool) -> Result<Markup> {
    let swatches: Vec<Markup> = series.iter().map(|one| draw::swatch(key(one), bar)).collect::<Result<_>>()?;
    Ok(html! {
        ul.legend {
            @for (one, swatch) in series.iter().zip(&swatches) { li { (swatch) (one.label) } }
        }
    })
}

fn figure(caption: &str, plot: &Markup, legend: Option<&Markup>) -> Markup {
    html! {
        figure {
            figcaption { (begin(caption)) }
            (plot)
            @if let Some(legend) = legend { (legend) }
        }
    }
}

/// With a capital.
fn begin(caption: &str) -> String {
    let mut all = caption.chars();
    all.next().map(|first| first.to_uppercase().chain(all).collect()).unwrap_or_default()
}
