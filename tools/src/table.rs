//! The table on the terminal: one row per cell, and below it what must hold.
use crate::blockd;
use crate::check::Check;
use crate::figures::Cell;
use crate::pingpong::Distance;
use crate::shortfall;
use comfy_table::{CellAlignment, Table, presets};

const HEADINGS: [&str; 13] = [
    "job",
    "backend",
    "IOPS",
    "spread",
    "MiB/s",
    "p50 µs",
    "p99 µs",
    "notif/IO",
    "intr/IO",
    "instr/IO",
    "guest/IO",
    "CPU ns/IO",
    "cores",
];

/// All cells, in the order given, and below what was reached and differs from what was asked for.
pub(crate) fn cells(cells: &[Cell]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(HEADINGS);
    for cell in cells {
        // Natively near and far cores make two different results.
        let both = [Distance::Near, Distance::Far].map(|distance| cell.at(distance));
        match both {
            [Some(near), Some(far)] if cell.job.backend.is_native() => {
                table.add_row(row(&near));
                table.add_row(row(&far));
            }
            _ => {
                table.add_row(row(cell));
            }
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.to_string();
    for line in shortfall::of_cells(cells) {
        text.push_str("\nnote: ");
        text.push_str(&line);
    }
    text
}

fn row(cell: &Cell) -> Vec<String> {
    let figures = cell.figures();
    let params = &cell.job.params;
    let name = match blockd::label(params) {
        Some(label) => format!("{} {label}", params.name),
        None => params.name.to_string(),
    };
    let backend = cell.job.backend.word().to_owned();
    let blank = || "–".to_owned();
    let instructions = figures.instructions_per_io.map_or_else(blank, |counted| format!("{:.1}", counted.total));
    let notifications = figures.notifications_per_io.map_or_else(blank, per_io);
    let interrupts = per_io(figures.interrupts_per_io);
    let guest = figures.guest_instructions_per_io.map_or_else(blank, thousands);
    if params.icount {
        // Virtual time is no time.
        let mut row = vec![name, backend];
        row.extend(std::iter::repeat_with(blank).take(5));
        row.extend([notifications, interrupts, instructions, guest, blank(), blank()]);
        return row;
    }
    let (low, high) = cell.spread();
    vec![
        name,
        backend,
        thousands(figures.iops),
        match cell.chosen().len() {
            0 | 1 => blank(),
            _ => format!("±{:.0} %", (high - low) / 2.0 / figures.iops.max(1.0) * 100.0),
        },
        format!("{:.0}", figures.bytes_per_second / f64::from(1 << 20)),
        format!("{:.1}", figures.p50_ns / 1e3),
        format!("{:.1}", figures.p99_ns / 1e3),
        notifications,
        interrupts,
        instructions,
        guest,
        figures.cpu_ns_per_io.map_or_else(blank, thousands),
        match (cell.distance(), figures.pingpong_ns) {
            (Some(distance), Some(ns)) => format!("{} {ns:.0} ns", distance.word()),
            _ => blank(),
        },
    ]
}

/// What must hold, one line each, with a mark.
pub(crate) fn checks(checks: &[Check]) -> String {
    let mut table = Table::new();
    let headings = ["", "what", "cores", "measured", "spread", "samples", "must", "aim"];
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings);
    for check in checks {
        let cores = check.cores.map_or("", Distance::word).to_owned();
        let measured = check.value.map_or_else(|| "not measured".into(), shown);
        let spread = check.spread.map_or_else(String::new, |(low, high)| format!("{} to {}", shown(low), shown(high)));
        let samples = if check.samples == 0 { String::new() } else { check.samples.to_string() };
        let mark = check.mark().to_owned();
        table.add_row([mark, check.what.clone(), cores, measured, spread, samples, check.must(), check.aim()]);
    }
    table.to_string()
}

/// Rows under headings; numbers stand to the right from the third column on.
pub(crate) fn plain<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Three significant decimals for small numbers, none for large ones.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn per_io(value: f64) -> String {
    if value > 0.0 && value < 0.001 { format!("{value:.1e}") } else { format!("{value:.3}") }
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{cell, cell_of};

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(thousands(0.4), "0");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }

    #[test]
    fn a_row_shows_the_median_and_where_the_cores_were() {
        let text = cells(&[cell(&[(1_000, 50.0), (2_000, 50.0), (6_000, 50.0)])]);
        for part in ["2,000", "near 50 ns", "0.250", "0.500"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_row_says_what_is_in_front_of_the_driver() {
        let samples = [(1_000, 50.0)];
        let blockd = cell_of("name=a runtime=1 via=blockd clients=2", &samples);
        let counted = cell_of("name=b icount=on via=blockd", &samples);
        let text = cells(&[blockd, counted, cell(&samples)]);
        assert!(
            text.contains("a via blockd, 2 clients ") && text.contains("b via blockd, 1 client, stepped "),
            "{text}"
        );
        assert_eq!(text.matches("via").count(), 2, "{text}");
    }
}
