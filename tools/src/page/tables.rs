//! Tables: each with a caption, headings with their scope, and a box of its own to scroll in.
use crate::page::flat;
use crate::page::measured::Measured;
use crate::page::model::{Baseline, Check, Comparison, Spread};
use crate::page::number::{self, NONE};
use maud::{Markup, PreEscaped, html};
use serde_json::{Map, Value};

/// A table's box: it scrolls, so that the page never has to, also by keyboard.
fn boxed(caption: &str, class: &str, inside: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table class=(class) { caption { (caption) } (inside) }
        }
    }
}

/// A table of rows of words and numbers; `words` columns from the left are words.
fn table(caption: &str, headings: &[&str], words: usize, rows: &[Vec<String>]) -> Markup {
    let class = |column: usize| if column < words { "w" } else { "n" };
    boxed(
        caption,
        "",
        &html! {
            thead { tr { @for (column, heading) in headings.iter().enumerate() { th scope="col" class=(class(column)) { (heading) } } } }
            tbody {
                @for row in rows {
                    tr {
                        @for (column, cell) in row.iter().enumerate() {
                            @if column == 0 { th scope="row" { (cell) } } @else { td class=(class(column)) data-label=(headings.get(column).unwrap_or(&"")) { (cell) } }
                        }
                    }
                }
            }
        },
    )
}

/// Every bound with what was measured against it.
pub(crate) fn checks(checks: &[Check]) -> Markup {
    boxed(
        "Bounds that the project set itself, and what was measured",
        "checks",
        &html! {
            thead {
                tr {
                    th scope="col" { "What" }
                    th.n scope="col" { "Measured" }
                    th scope="col" { "Verdict" }
                    th.n scope="col" { "Must" }
                    th.n scope="col" { "Aim" }
                    th.n scope="col" { "Lowest to highest" }
                    th.n scope="col" { "Samples" }
                    th scope="col" { "Cores" }
                }
            }
            tbody {
                @for check in checks {
                    @let verdict = Verdict::of(check);
                    tr {
                        th scope="row" { (check.what) }
                        td.n data-label="Measured" { strong { (number::or_none(check.value, crate::table::shown)) } }
                        td data-label="Verdict" { span.verdict.(verdict.class()) { (verdict.words()) } }
                        td.n data-label="Must" { (or_dash(check.must.as_deref())) }
                        td.n data-label="Aim" { (or_dash(check.aim.as_deref())) }
                        td.n data-label="Lowest to highest" { (spread(check.spread, crate::table::shown)) }
                        td.n data-label="Samples" { (check.samples.map_or_else(|| NONE.into(), |samples| samples.to_string())) }
                        td data-label="Cores" { (or_dash(check.cores.as_deref())) }
                    }
                }
            }
        },
    )
}

/// What came of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Missed,
    Must,
    /// Better than it must be.
    Aim,
    Unmeasured,
}

impl Verdict {
    pub(crate) fn of(check: &Check) -> Self {
        match check.holds {
            Some(true) if reaches(check) => Self::Aim,
            Some(true) => Self::Must,
            Some(false) => Self::Missed,
            None => Self::Unmeasured,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Must => "must",
            Self::Aim => "aim",
            Self::Unmeasured => "none",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Missed => "✗ missed",
            Self::Must => "✓ holds",
            Self::Aim => "✓ holds, aim reached",
            Self::Unmeasured => "– not measured",
        }
    }
}

/// Whether the measured value, at the aim's own precision, is at least as good as the aim.
fn reaches(check: &Check) -> bool {
    let aim = check.aim.as_deref().and_then(|aim| aim.split_once(' '));
    let (Some((sign, bound)), Some(value)) = (aim, check.value) else {
        return false;
    };
    let decimals = bound.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let shown: Option<f64> = format!("{value:.decimals$}").parse().ok();
    match (sign, shown, bound.parse::<f64>()) {
        ("≤", Some(shown), Ok(bound)) => shown <= bound,
        ("≥", Some(shown), Ok(bound)) => shown >= bound,
        _ => false,
    }
}

/// Who took part, and who did not.
pub(crate) fn peers(comparison: &Comparison) -> Markup {
    let rows = comparison.peers.iter().map(|peer| {
        let title = peer.title.as_deref().unwrap_or(&peer.name);
        vec![title.to_owned(), peer.name.clone(), peer.state.clone(), peer.why.clone().unwrap_or_default()]
    });
    table("Peers", &["Peer", "Name", "State", "Why"], 4, &rows.collect::<Vec<_>>())
}

/// Ratios against the peers.
pub(crate) fn ratios(comparison: &Comparison) -> Markup {
    let rows = comparison.ratios.iter().map(|ratio| {
        let shown = |value| number::or_none(value, crate::table::shown);
        vec![
            ratio.what.clone(),
            ratio.figure.clone().unwrap_or_else(|| NONE.into()),
            ratio.ours.clone(),
            ratio.theirs.clone(),
            shown(ratio.median),
            shown(ratio.min),
            shown(ratio.max),
            ratio.samples.map_or_else(|| NONE.into(), |samples| samples.to_string()),
        ]
    });
    let headings = ["What", "Figure", "Ours", "Theirs", "Median ratio", "Lowest", "Highest", "Samples"];
    table("Ours divided by theirs, pairs of samples", &headings, 4, &rows.collect::<Vec<_>>())
}

/// Before and now.
pub(crate) fn baseline(baseline: &Baseline) -> Markup {
    let rows = baseline.findings.iter().map(|finding| {
        let shown = |value| number::or_none(value, number::short);
        let test = finding.test.clone().unwrap_or_default();
        vec![finding.what.clone(), finding.verdict.clone(), test, shown(finding.before), shown(finding.now)]
    });
    let caption = format!("Compared with {}", baseline.file);
    table(&caption, &["What", "Verdict", "Test", "Before", "Now"], 3, &rows.collect::<Vec<_>>())
}

/// The figures of every job that one reads first.
pub(crate) fn jobs(jobs: &[Measured]) -> Markup {
    let rows = jobs.iter().map(|job| {
        let figures = &job.figures;
        let counted = job.instructions();
        let shown = |value: Option<f64>, shown: fn(f64) -> String| number::or_none(value, shown);
        vec![
            job.name.clone(),
            job.peer.clone(),
            or_dash(Some(&job.place)).to_owned(),
            job.pattern(),
            or_dash(Some(&job.mode)).to_owned(),
            job.depth.to_string(),
            job.batch.to_string(),
            shown(figures.iops, whole),
            spread(job.spread, number::short),
            shown(figures.bytes_per_second.map(|bytes| bytes / f64::from(1 << 20)), whole),
            shown(figures.p50_ns.map(|ns| ns / 1e3), micros),
            shown(figures.p99_ns.map(|ns| ns / 1e3), micros),
            shown(figures.notifications_per_io, number::per_io),
            shown(figures.interrupts_per_io, number::per_io),
            shown(counted.and_then(|counted| counted.submit), tenths),
            shown(counted.and_then(|counted| counted.complete), tenths),
            shown(counted.map(|counted| counted.total), tenths),
            shown(figures.guest_instructions_per_io, whole),
            shown(figures.cpu_ns_per_io, whole),
            or_dash(job.cores.as_deref()).to_owned(),
            shown(figures.pingpong_ns, whole),
            job.samples.to_string(),
        ]
    });
    let headings = [
        "Job",
        "Driver",
        "Device",
        "Pattern",
        "Mode",
        "Depth",
        "Batch",
        "IOPS",
        "Lowest to highest",
        "MiB/s",
        "p50 µs",
        "p99 µs",
        "Notif./IO",
        "Intr./IO",
        "Instr. submit",
        "complete",
        "total",
        "Whole guest",
        "CPU ns/IO",
        "Cores",
        "Ping-pong ns",
        "Samples",
    ];
    table("Every job: medians of its samples", &headings, 5, &rows.collect::<Vec<_>>())
}

/// A raw table: every cell as it stands in the file.
pub(crate) fn raw(caption: &str, id: &str, table: &flat::Table) -> Markup {
    let number = |cell: Option<&Value>| cell.is_some_and(Value::is_number);
    boxed(
        caption,
        "raw",
        &html! {
            thead { tr { @for column in &table.columns { th scope="col" { (column) } } } }
            tbody id=(id) {
                @for row in &table.rows {
                    tr {
                        @for (column, cell) in table.cells(row).enumerate() {
                            @let shown = cell.map_or_else(String::new, flat::text);
                            @if column == 0 { th scope="row" { (shown) } }
                            @else if number(cell) { td.n { (shown) } }
                            @else { td { (shown) } }
                        }
                    }
                }
            }
        },
    )
}

/// Names and what they stand for.
pub(crate) fn environment(environment: &Map<String, Value>) -> Markup {
    let shown = |value: &Value| match value {
        Value::Array(words) => words.iter().map(flat::text).collect::<Vec<_>>().join(" "),
        Value::Null => "not used".into(),
        other => flat::text(other),
    };
    let rows: Vec<_> = environment.iter().map(|(key, value)| vec![key.replace('_', " "), shown(value)]).collect();
    table("Where this was measured", &["What", ""], 2, &rows)
}

/// What was not measured.
pub(crate) fn missing(all: &[(String, String)]) -> Markup {
    let rows: Vec<_> = all.iter().map(|(what, why)| vec![what.clone(), why.clone()]).collect();
    table("Not measured", &["What", "Why"], 2, &rows)
}

/// Text inside a script element, where the only danger is an end tag.
pub(crate) fn island(id: &str, json: &str) -> Markup {
    // In JSON a `<` only stands inside texts, where it may be written so.
    let text = json.replace('<', "\\u003c");
    html! { script type="application/json" id=(id) { (PreEscaped(text)) } }
}

fn or_dash(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or(NONE)
}

fn spread(spread: Option<Spread>, shown: fn(f64) -> String) -> String {
    spread.map_or_else(|| NONE.into(), |spread| format!("{} to {}", shown(spread.min), shown(spread.max)))
}

fn whole(value: f64) -> String {
    crate::table::thousands(value)
}

fn micros(value: f64) -> String {
    if value < 9.95 { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(value: Option<f64>, holds: Option<bool>, aim: &str) -> Verdict {
        let check = json!({"what": "a", "value": value, "holds": holds, "must": "≤ 0.062", "aim": aim});
        Verdict::of(&serde_json::from_value(check).unwrap())
    }

    #[test]
    fn a_missed_bound_is_never_shown_as_held() {
        assert_eq!(verdict(Some(0.01), Some(false), "≤ 0.031"), Verdict::Missed);
        assert_eq!(verdict(None, None, "≤ 0.031"), Verdict::Unmeasured);
        assert_eq!(verdict(Some(0.05), Some(true), "≤ 0.031"), Verdict::Must);
        assert_eq!(
            verdict(Some(0.031_25), Some(true), "≤ 0.031"),
            Verdict::Aim,
            "the aim is 1/32, shown with three decimals"
        );
        assert_eq!(verdict(Some(9.9), Some(true), "≥ 10"), Verdict::Aim, "shown as 10");
        assert_eq!(verdict(Some(0.99), Some(true), "more"), Verdict::Must, "an aim in words is not judged");
    }

    #[test]
    fn a_document_cannot_end_its_own_element() {
        let held = island("a", &json!({"a": "</script><script>alert(1)"}).to_string()).into_string();
        assert_eq!(held.matches("<script").count(), 1);
        assert_eq!(held.matches("</script").count(), 1);
        let inside = held.split_once('>').and_then(|(_, rest)| rest.strip_suffix("</script>")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(inside).unwrap()["a"], "</script><script>alert(1)");
    }
}
