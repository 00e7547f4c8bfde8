//! Random numbers: the published sequence, and no bias that matters.
use workload::random::{Random, scale};

#[test]
fn the_sequence_is_the_published_one() {
    let mut random = Random::new(1_234_567);
    let expected = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
    assert_eq!(core::array::from_fn(|_| random.next()), expected);
}

#[test]
fn every_number_below_a_bound_is_as_frequent_as_any_other() {
    let mut random = Random::new(1);
    let mut counts = [0u32; 7];
    for _ in 0..70_000 {
        counts[random.below(7) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
}

#[test]
fn a_bound_is_never_reached() {
    let mut random = Random::new(2);
    assert!((0..1000).all(|_| random.below(1) == 0));
    assert_eq!(random.below(0), 0);
    assert_eq!(scale(u64::MAX, u64::MAX).0, u64::MAX - 1);
    assert_eq!(scale(u64::MAX, 3).0, 2);
}

#[test]
fn what_a_choice_leaves_over_is_independent_of_it() {
    let mut random = Random::new(3);
    let mut counts = [[0u32; 4]; 3];
    for _ in 0..120_000 {
        let (first, rest) = scale(random.next(), 3);
        counts[first as usize][scale(rest, 4).0 as usize] += 1;
    }
    assert!(counts.as_flattened().iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
}

#[test]
fn jobs_with_a_common_seed_draw_different_numbers() {
    let mut firsts: Vec<u64> =
        (0..64).flat_map(|job| (0..64).map(move |seed| Random::for_job(seed, job).next())).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 64 * 64);
}
