//! Numbers as the page shows them: few digits where they are read, all of them in the raw tables.

/// What stands where nothing was measured.
pub(crate) const NONE: &str = "–";

/// Three significant digits and a unit prefix: 267 K, 14.7 M.
pub(crate) fn short(value: f64) -> String {
    let (scaled, prefix) = match value.abs() {
        // 999,500 is 1.00 M already.
        huge if huge >= 999.5e6 => (value / 1e9, " G"),
        large if large >= 999.5e3 => (value / 1e6, " M"),
        middle if middle >= 999.5 => (value / 1e3, " K"),
        _ => (value, ""),
    };
    format!("{}{prefix}", three(scaled))
}

/// Three significant digits.
pub(crate) fn three(value: f64) -> String {
    match value.abs() {
        large if large >= 99.95 => format!("{value:.0}"),
        middle if middle >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A time with its unit.
pub(crate) fn time(ns: f64) -> String {
    match ns.abs() {
        long if long >= 999.5e6 => format!("{} s", three(ns / 1e9)),
        long if long >= 999.5e3 => format!("{} ms", three(ns / 1e6)),
        long if long >= 999.5 => format!("{} µs", three(ns / 1e3)),
        _ => format!("{ns:.0} ns"),
    }
}

/// An amount that is well below one per I/O or a few of them.
pub(crate) fn per_io(value: f64) -> String {
    if value > 0.0 && value < 0.0005 { format!("{value:.1e}") } else { format!("{value:.3}") }
}

/// An axis label of a time.
pub(crate) fn tick_time(ns: f64) -> String {
    let text = time(ns);
    match text.split_once(' ') {
        Some((digits, unit)) if digits.contains('.') => {
            format!("{} {unit}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// An axis label: no more digits than it needs.
pub(crate) fn tick(value: f64) -> String {
    let text = short(value);
    let (digits, prefix) = text.split_once(' ').unwrap_or((&text, ""));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    if prefix.is_empty() { digits.to_owned() } else { format!("{digits} {prefix}") }
}

/// `shown` of what was measured, a dash otherwise.
pub(crate) fn or_none(value: Option<f64>, shown: fn(f64) -> String) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| NONE.into(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_kept_across_the_prefixes() {
        let shown = [0.0, 7.0, 42.31, 999.4, 999.6, 267_137.0, 999_600.0, 14_653_098.0].map(short);
        assert_eq!(shown, ["0.00", "7.00", "42.3", "999", "1.00 K", "267 K", "1.00 M", "14.7 M"]);
        assert_eq!([800.0, 1_800.0, 3_311_980.0].map(time), ["800 ns", "1.80 µs", "3.31 ms"]);
    }

    #[test]
    fn ticks_have_no_idle_digits() {
        assert_eq!([1.0, 0.5, 100.0, 20_000.0, 1e6].map(tick), ["1", "0.5", "100", "20 K", "1 M"]);
        assert_eq!([0.031_25, 0.0, 0.000_01].map(per_io), ["0.031", "0.000", "1.0e-5"]);
    }
}
