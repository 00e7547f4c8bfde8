//! A bound that the project set itself, and what was measured against it.
//!
//! Knows which side of the numbers is good; which cells are held against which stands in `musts` and `native_musts`.
use crate::figures::median;
use crate::pingpong::Distance;
use serde::Serialize;

/// A bound, a better one to aim for, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    /// Where the cores were, if the bound is of one distance only.
    pub(crate) cores: Option<Distance>,
    pub(crate) value: Option<f64>,
    /// Lowest and highest of the samples, where there were several.
    pub(crate) spread: Option<(f64, f64)>,
    /// How many samples the value is the median of.
    pub(crate) samples: usize,
    bound: Bound,
}

/// Which side of the numbers is good.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost { must: f64, aim: Option<f64> },
    AtLeast { must: f64, aim: Option<f64> },
}

impl Check {
    pub(crate) fn at_most(what: impl Into<String>, must: f64, aim: Option<f64>, value: Option<f64>) -> Self {
        Self::new(what.into(), Bound::AtMost { must, aim }, value)
    }

    pub(crate) fn at_least(what: impl Into<String>, must: f64, aim: Option<f64>, value: Option<f64>) -> Self {
        Self::new(what.into(), Bound::AtLeast { must, aim }, value)
    }

    fn new(what: String, bound: Bound, value: Option<f64>) -> Self {
        Self { what, cores: None, value, spread: None, samples: value.into_iter().count(), bound }
    }

    /// The median of `values`, all taken with the cores at `distance`; unmeasured if there are none.
    #[must_use]
    pub(crate) fn of(self, values: Vec<f64>, distance: Distance) -> Self {
        Self { cores: Some(distance), ..self.among(values) }
    }

    /// The median of `values`; unmeasured if there are none.
    #[must_use]
    pub(crate) fn among(mut self, values: Vec<f64>) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.samples = values.len();
        self.spread = (values.len() > 1).then_some((low, high));
        self.value = (!values.is_empty()).then(|| median(values));
        self
    }

    /// `None` if it was not measured.
    pub(crate) fn holds(&self) -> Option<bool> {
        self.value.map(|value| match self.bound {
            Bound::AtMost { must, .. } => value <= must,
            Bound::AtLeast { must, .. } => value >= must,
        })
    }

    pub(crate) fn mark(&self) -> &'static str {
        match self.holds() {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "–",
        }
    }

    pub(crate) fn must(&self) -> String {
        match self.bound {
            Bound::AtMost { must, .. } => format!("≤ {}", crate::table::shown(must)),
            Bound::AtLeast { must, .. } => format!("≥ {}", crate::table::shown(must)),
        }
    }

    pub(crate) fn aim(&self) -> String {
        match self.bound {
            Bound::AtMost { aim: Some(aim), .. } => format!("≤ {}", crate::table::shown(aim)),
            Bound::AtLeast { aim: Some(aim), .. } => format!("≥ {}", crate::table::shown(aim)),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_without_samples_neither_passes_nor_fails() {
        let check = Check::at_least("a", 2.0, Some(4.0), None).of(Vec::new(), Distance::Far);
        assert_eq!((check.holds(), check.mark(), check.samples), (None, "–", 0));
    }

    #[test]
    fn the_median_decides_and_the_spread_is_kept() {
        let check = Check::at_least("a", 2.0, None, None).of(vec![1.0, 5.0, 3.0], Distance::Near);
        assert_eq!((check.value, check.holds(), check.spread), (Some(3.0), Some(true), Some((1.0, 5.0))));
        let check = Check::at_most("a", 2.0, None, Some(2.5));
        assert_eq!((check.holds(), check.mark(), check.must()), (Some(false), "FAIL", "≤ 2.000".to_owned()));
    }
}
