//! The histogram against `HdrHistogram` and against the sorted values themselves.
use proptest::prelude::*;
use workload::histogram::{Histogram, LIMIT};
use workload::report::PERCENTILES;

/// Values of every magnitude, not only large ones.
fn values() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec((0u32..37, any::<u64>()).prop_map(|(bits, value)| (value | 1 << 63) >> (63 - bits)), 1..400)
}

fn of(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    for value in values {
        histogram.record(*value);
    }
    histogram
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn percentiles_lie_at_most_a_128th_above_the_true_value(mut values in values()) {
        let histogram = of(&values);
        values.sort_unstable();
        for milli in PERCENTILES.into_iter().chain([0, 1, 100_000]) {
            let rank = (values.len() as u64 * u64::from(milli)).div_ceil(100_000).max(1);
            let exact = values[rank as usize - 1];
            let found = histogram.percentile(milli);
            prop_assert!(found >= exact && found - exact <= exact / 128, "{} for {}", found, exact);
            prop_assert!(found <= *values.last().unwrap());
        }
    }

    #[test]
    fn percentiles_agree_with_hdrhistogram(values in values()) {
        let ours = of(&values);
        let mut theirs = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1 << 40, 3).unwrap();
        for value in &values {
            theirs.record(*value).unwrap();
        }
        prop_assert_eq!(ours.count(), theirs.len());
        for milli in PERCENTILES {
            let (a, b) = (ours.percentile(milli), theirs.value_at_percentile(f64::from(milli) / 1000.0));
            prop_assert!(a.abs_diff(b) <= a.max(b) / 128 + a.max(b) / 1000, "{} and {}", a, b);
        }
    }

    #[test]
    fn minimum_maximum_mean_and_count_are_exact(values in values()) {
        let histogram = of(&values);
        prop_assert_eq!(histogram.count(), values.len() as u64);
        prop_assert_eq!(Some(histogram.min()), values.iter().min().copied());
        prop_assert_eq!(Some(histogram.max()), values.iter().max().copied());
        prop_assert_eq!(histogram.mean(), values.iter().sum::<u64>() / values.len() as u64);
    }

    #[test]
    fn merging_is_recording_both(first in values(), second in values()) {
        let mut merged = of(&first);
        merged.merge(&of(&second));
        prop_assert!(merged == of(&[first, second].concat()));
    }

    #[test]
    fn one_pass_finds_the_same_percentiles(values in values()) {
        let histogram = of(&values);
        prop_assert_eq!(histogram.percentiles(&PERCENTILES), PERCENTILES.map(|milli| histogram.percentile(milli)));
    }
}

#[test]
fn values_below_256_are_exact() {
    let histogram = of(&(0..256).collect::<Vec<_>>());
    for value in 1..=256u32 {
        assert_eq!(histogram.percentile(value * 100_000 / 256), u64::from(value - 1));
    }
}

#[test]
fn every_power_of_two_and_its_neighbours_stay_apart() {
    for bits in 8..37 {
        let value = 1u64 << bits;
        let histogram = of(&[value - 1, value, value * 129 / 128]);
        let [below, at, above] = [33_000, 66_000, 100_000].map(|milli| histogram.percentile(milli));
        assert_eq!((below, above), (value - 1, value * 129 / 128), "2^{bits}");
        assert!((value..value * 129 / 128).contains(&at), "2^{bits}");
    }
}

#[test]
fn nothing_recorded_is_zero_everywhere() {
    let mut histogram = Histogram::new();
    let zeros = |histogram: &Histogram| {
        [histogram.count(), histogram.min(), histogram.max(), histogram.mean(), histogram.percentile(99_000)]
    };
    assert_eq!(zeros(&histogram), [0; 5]);
    histogram.merge(&Histogram::new());
    histogram.record(77);
    histogram.merge(&Histogram::new());
    assert_eq!((histogram.min(), histogram.max()), (77, 77));
    histogram.clear();
    assert_eq!(zeros(&histogram), [0; 5]);
    assert!(histogram == Histogram::default());
}

#[test]
fn values_above_the_limit_keep_the_extremes_right() {
    let histogram = of(&[5, LIMIT + 1, u64::MAX]);
    assert_eq!((histogram.min(), histogram.max(), histogram.count()), (5, u64::MAX, 3));
    assert_eq!(histogram.percentile(100_000), u64::MAX);
    assert_eq!(histogram.percentile(30_000), 5);
    assert_eq!(of(&[LIMIT, LIMIT + 1]).percentile(50_000), LIMIT + 1);
}

#[test]
fn its_size_is_the_documented_one() {
    assert_eq!(size_of::<Histogram>(), 31_768);
}
