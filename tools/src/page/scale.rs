//! Axes: where a value lies on them, and which ticks they have.
use crate::page::draw::Axis;
use crate::page::number;

/// Every so many decades, and the ticks within one: from the fewest to the most.
const STEPS: [(usize, &[f64]); 5] = [(3, &[1.0]), (2, &[1.0]), (1, &[1.0]), (1, &[1.0, 3.0]), (1, &[1.0, 2.0, 5.0])];
/// As many as fit.
const MOST_TICKS: usize = 8;

/// A logarithmic axis that holds `values` and a little more; positions on it are decimal logarithms.
pub(crate) fn log(name: &str, values: impl Iterator<Item = f64>, shown: fn(f64) -> String) -> Option<Axis> {
    let (low, high) = reach(values.filter(|value| *value > 0.0).map(f64::log10))?;
    let margin = ((high - low) * 0.06).max(0.06);
    let (from, to) = (low - margin, high + margin);
    let inside = |values: Vec<f64>| -> Vec<(f64, String)> {
        let all = values.into_iter().filter(|value| (from..=to).contains(&value.log10()));
        all.map(|value| (value.log10(), shown(value))).collect()
    };
    let decades = |every: usize| (from.floor() as i32..=to.ceil() as i32).step_by(every).map(|at| 10_f64.powi(at));
    let round = |(every, steps): (usize, &[f64])| {
        inside(decades(every).flat_map(|decade| steps.iter().map(move |step| step * decade)).collect())
    };
    let ticks = STEPS.into_iter().map(round).rfind(|ticks| ticks.len() <= MOST_TICKS);
    let ticks = ticks.filter(|ticks| ticks.len() > 2).unwrap_or_else(|| {
        // A part of a decade, where even steps are rounder.
        let (low, high) = (10_f64.powf(from), 10_f64.powf(to));
        let step = step(high - low);
        inside((0..=MOST_TICKS).map(|n| ((low / step).ceil() + n as f64) * step).collect())
    });
    Some(Axis { name: name.into(), from, to, ticks })
}

/// A linear axis from 0.
#[allow(clippy::cast_sign_loss, reason = "neither is below 0")]
pub(crate) fn linear(name: &str, values: impl Iterator<Item = f64>) -> Option<Axis> {
    let (_, high) = reach(values)?;
    let high = if high > 0.0 { high } else { 1.0 };
    let step = step(high);
    let count = (high / step).ceil() as u32;
    let ticks = (0..=count).map(|n| f64::from(n) * step).map(|value| (value, number::tick(value))).collect();
    Some(Axis { name: name.into(), from: 0.0, to: f64::from(count) * step, ticks })
}

/// An axis with a tick at each depth; positions are binary logarithms.
pub(crate) fn depths(depths: impl Iterator<Item = u64>) -> Option<Axis> {
    let mut all: Vec<u64> = depths.filter(|depth| *depth > 0).collect();
    all.sort_unstable();
    all.dedup();
    let (low, high) = ((*all.first()? as f64).log2(), (*all.last()? as f64).log2());
    let ticks = all.iter().map(|depth| ((*depth as f64).log2(), depth.to_string())).collect();
    Some(Axis { name: "requests in flight per queue".into(), from: low - 0.4, to: high + 0.4, ticks })
}

/// Where a percentile lies: 90, 99 and 99.9 are equally far apart.
pub(crate) fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// The axis of [`nines`], from the median on.
pub(crate) fn percentiles() -> Axis {
    let ticks = [50.0, 90.0, 99.0, 99.9, 99.99].map(|percent| (nines(percent), percent.to_string()));
    Axis { name: "percentile".into(), from: nines(50.0) - 0.1, to: 4.1, ticks: ticks.into() }
}

/// The round step that divides `span` into five parts or fewer.
fn step(span: f64) -> f64 {
    let decade = 10_f64.powf((span / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade);
    steps.into_iter().find(|step| span / step <= 5.0).unwrap_or(span)
}

fn reach(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let all: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let low = all.iter().copied().reduce(f64::min)?;
    Some((low, all.iter().copied().reduce(f64::max)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn a_logarithmic_axis_has_a_few_round_ticks_whatever_it_spans() {
        let axis = |low, high| log("", [low, high].into_iter(), number::tick).unwrap();
        assert_eq!(names(&axis(9e3, 1.1e6)), ["10 K", "20 K", "50 K", "100 K", "200 K", "500 K", "1 M"]);
        for (low, high) in [(1.0, 1e9), (400e3, 460e3), (1.0, 1.0), (0.7, 3.2), (3e3, 4e3)] {
            let axis = axis(low, high);
            assert!((2..=10).contains(&axis.ticks.len()), "{low} to {high}: {axis:?}");
            assert!(axis.ticks.iter().all(|(at, _)| (axis.from..=axis.to).contains(at)));
        }
        assert!(log("", [0.0].into_iter(), number::tick).is_none(), "nothing to show");
    }

    #[test]
    fn a_linear_axis_begins_at_nothing_and_ends_at_a_tick() {
        let axis = linear("", [3.0, 437.0].into_iter()).unwrap();
        assert_eq!(names(&axis), ["0", "100", "200", "300", "400", "500"]);
        assert!(linear("", [0.0].into_iter()).is_some());
    }

    #[test]
    fn percentiles_are_as_far_apart_as_their_nines() {
        let step = nines(99.0) - nines(90.0);
        assert!((nines(99.9) - nines(99.0) - step).abs() < 1e-9);
        assert_eq!(names(&percentiles()), ["50", "90", "99", "99.9", "99.99"]);
    }
}
