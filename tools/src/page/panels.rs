//! Which jobs share a plot: the same work on the same device, told apart by driver and by what differs between them.
//!
//! A panel never mixes patterns, devices or batch sizes; a depth below the batch joins the series of the larger batch,
//! because no more than the depth can be handed over at once. Refuses to know how a panel is drawn.
use crate::page::measured::{Measured, Who};
use std::collections::BTreeMap;

/// More series than this cannot be told apart.
const MOST: usize = 8;

/// A plot's worth of series.
#[derive(Debug)]
pub(crate) struct Panel<'a> {
    pub(crate) title: String,
    pub(crate) series: Vec<Series<'a>>,
}

/// Jobs that differ in depth only.
#[derive(Clone, Debug)]
pub(crate) struct Series<'a> {
    pub(crate) label: String,
    pub(crate) who: Who,
    /// Its place among those of the same colour: decides the dash.
    pub(crate) style: usize,
    pub(crate) jobs: Vec<&'a Measured>,
}

/// Panels over depth, of series with at least two depths.
pub(crate) fn over_depth(jobs: &[Measured]) -> Vec<Panel<'_>> {
    let mut panels = Vec::new();
    for (facet, members) in facets(jobs, |job| (pattern_key(job), job.mode.clone(), 0)) {
        let mut batches: Vec<u64> = members.iter().map(|job| job.batch).collect();
        batches.sort_unstable();
        batches.dedup();
        for batch in batches {
            let mut series = of_batch(&members, batch);
            series.retain(|series| series.jobs.iter().any(|job| job.depth != series.jobs[0].depth));
            let (pattern, mode, _) = &facet;
            let title = join(&[&pattern.1, mode, &batch_words(batch), &pattern.0]);
            panels.extend(cut(&title, series));
        }
    }
    panels
}

/// Panels of what [`over_depth`] has no line for, by mode.
pub(crate) fn left_over<'a>(jobs: &'a [Measured], shown: &[Panel<'_>]) -> Vec<Panel<'a>> {
    let drawn: Vec<&Measured> =
        shown.iter().flat_map(|panel| &panel.series).flat_map(|one| &one.jobs).copied().collect();
    let mut panels = Vec::new();
    for ((pattern, mode, _), members) in facets(jobs, |job| (pattern_key(job), job.mode.clone(), 0)) {
        // What is told apart is told apart from the drawn ones, too.
        let mut series = singly(members.into_iter());
        series.retain(|one| !drawn.iter().any(|known| std::ptr::eq(*known, one.jobs[0])));
        if !series.is_empty() {
            panels.push(Panel { title: join(&[&pattern.1, &mode, &pattern.0]), series });
        }
    }
    panels
}

/// Panels at one depth and batch each, of series of a single job.
pub(crate) fn at_depth(jobs: &[Measured]) -> Vec<Panel<'_>> {
    let mut panels = Vec::new();
    for ((pattern, _, depth), members) in facets(jobs, |job| (pattern_key(job), format!("{:6}", job.batch), job.depth))
    {
        let series = members.iter().map(|job| alone(job)).collect();
        let title = join(&[&pattern.1, &format!("depth {depth}"), &batch_words(members[0].batch), &pattern.0]);
        panels.extend(cut(&title, series));
    }
    panels
}

/// Each job as a series of its own, labelled with its depth and batch.
pub(crate) fn singly<'a>(jobs: impl Iterator<Item = &'a Measured>) -> Vec<Series<'a>> {
    let mut series: Vec<_> = jobs.map(alone).collect();
    label(&mut series, true);
    series
}

type Key = ((String, String), String, u64);

fn facets(jobs: &[Measured], key: impl Fn(&Measured) -> Key) -> Vec<(Key, Vec<&Measured>)> {
    let mut facets: Vec<(Key, Vec<&Measured>)> = Vec::new();
    for job in jobs.iter().filter(|job| job.is_timed()) {
        let key = key(job);
        match facets.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push(job),
            None => facets.push((key, vec![job])),
        }
    }
    facets
}

fn pattern_key(job: &Measured) -> (String, String) {
    (job.place.clone(), job.pattern())
}

fn batch_words(batch: u64) -> String {
    if batch == 1 { "one at a time".into() } else { format!("batches of {batch}") }
}

fn join(words: &[&str]) -> String {
    words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" · ")
}

fn alone(job: &Measured) -> Series<'_> {
    Series { label: job.peer.clone(), who: job.who, style: 0, jobs: vec![job] }
}

/// The series of `batch`, and what joins them below it.
fn of_batch<'a>(members: &[&'a Measured], batch: u64) -> Vec<Series<'a>> {
    let mut series: Vec<Series<'_>> = Vec::new();
    let same = |a: &Measured, b: &Measured| a.peer == b.peer && a.variant == b.variant;
    for &job in members.iter().filter(|job| job.batch == batch) {
        let fits = |known: &&mut Series<'_>| {
            same(known.jobs[0], job) && known.jobs.iter().all(|other| other.depth != job.depth)
        };
        match series.iter_mut().find(fits) {
            Some(known) => known.jobs.push(job),
            None => series.push(alone(job)),
        }
    }
    for &job in members.iter().filter(|job| job.batch < batch && job.batch == job.depth) {
        if let Some(known) = series.iter_mut().find(|known| same(known.jobs[0], job)) {
            known.jobs.push(job);
        }
    }
    for one in &mut series {
        one.jobs.sort_by_key(|job| job.depth);
    }
    series
}

/// Labelled, in panels of at most [`MOST`] series.
fn cut<'a>(title: &str, mut series: Vec<Series<'a>>) -> Vec<Panel<'a>> {
    label(&mut series, false);
    let parts = series.len().div_ceil(MOST);
    let title = |part: usize| match part {
        0 => title.to_owned(),
        _ => format!("{title} ({} of {parts})", part + 1),
    };
    series.chunks(MOST).enumerate().map(|(part, series)| Panel { title: title(part), series: series.into() }).collect()
}

/// Says of each series what tells it from its driver's others, `deep` with its depth and batch, and gives those of one colour different styles.
fn label(series: &mut [Series<'_>], deep: bool) {
    let heads: Vec<&Measured> = series.iter().map(|one| one.jobs[0]).collect();
    let mut styles: BTreeMap<Who, usize> = BTreeMap::new();
    for (index, one) in series.iter_mut().enumerate() {
        let head = heads[index];
        let rivals: Vec<_> = heads.iter().filter(|other| other.peer == head.peer).collect();
        let differs = |pick: &dyn Fn(&Measured) -> String| rivals.iter().any(|other| pick(other) != pick(head));
        let mut words = vec![head.peer.clone()];
        if differs(&|job| job.mode.clone()) {
            words.push(head.mode.clone());
        }
        for (at, (_, shown)) in head.variant.iter().enumerate() {
            let differs = differs(&|job| job.variant.get(at).map(|(_, shown)| shown.clone()).unwrap_or_default());
            if differs && !shown.is_empty() && !head.peer.contains(shown.as_str()) {
                words.push(shown.clone());
            }
        }
        if deep {
            words.push(format!("depth {}, batch {}", head.depth, head.batch));
        }
        one.label = words.join(", ");
        let style = styles.entry(one.who).or_default();
        one.style = *style;
        *style += 1;
    }
    let labels: Vec<String> = series.iter().map(|one| one.label.clone()).collect();
    for one in series.iter_mut() {
        if labels.iter().filter(|label| **label == one.label).count() > 1 {
            one.label = format!("{} ({})", one.label, one.jobs[0].name);
        }
    }
}
