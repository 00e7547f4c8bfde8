//! Access patterns: where I/Os fall, how they are shared out, and what stays inside.
use std::collections::HashSet;

use proptest::prelude::*;
use workload::params::{Params, Rw};
use workload::pattern::{Io, Op, Pattern, PatternError, Region, Step, due_ns, share};
use workload::verify::table::Layout;

const DISK: u64 = 1 << 21;

fn pattern(text: &str, job: u16, capacity: u64) -> Result<Pattern, PatternError> {
    Pattern::new(&Params::parse(text).unwrap(), job, capacity)
}

fn stream(text: &str) -> Vec<Io> {
    pattern(text, 0, DISK).unwrap().take(20_000).collect()
}

fn places(text: &str, op: Op) -> Vec<u64> {
    stream(text).iter().filter(|io| io.op == op).map(|io| io.lba).collect()
}

proptest! {
    #[test]
    fn every_io_lies_in_its_jobs_region_and_has_one_of_the_sizes(
        rw in prop::sample::select(Rw::ALL),
        sectors in prop::collection::vec(1u32..=256, 1..=4),
        jobs in 1u16..=5,
        capacity in 1300u64..100_000,
        verify in any::<bool>(),
        size in prop::sample::select(&[0u64, 1280, 1290]),
    ) {
        let sizes: Vec<_> = sectors.iter().map(|sectors| (sectors * 512).to_string()).collect();
        let verify = if verify { "crc32c" } else { "none" };
        let text = format!("runtime=1 rw={rw} bssplit={} numjobs={jobs} verify={verify} size={}", sizes.join(":"), size * 512);
        let params = Params::parse(&text).unwrap();
        let largest = u64::from(*sectors.iter().max().unwrap());
        let smallest = u64::from(*sectors.iter().min().unwrap());
        let mut end = 0;
        for job in 0..jobs {
            let stream = Pattern::new(&params, job, capacity).unwrap();
            let region = stream.region();
            prop_assert_eq!(region, Region::new(&params, job, capacity).unwrap());
            prop_assert_eq!((region.first, region.sectors % largest), (end, 0));
            end += region.sectors;
            for io in stream.take(500) {
                prop_assert!(io.lba >= region.first && io.lba + u64::from(io.sectors()) <= end);
                prop_assert!(sectors.contains(&io.sectors()));
                prop_assert!(!rw.is_random() || (io.lba - region.first).is_multiple_of(smallest));
            }
        }
        let usable = match (verify, size) {
            ("crc32c", size) => Layout::new(capacity, size).unwrap().covered,
            (_, 0) => capacity,
            (_, size) => size,
        };
        prop_assert!(end <= usable && usable - end < largest * u64::from(jobs));
    }

    #[test]
    fn shares_sum_to_the_whole_and_differ_by_at_most_one(total in any::<u64>(), jobs in 1u16..=300) {
        let shares: Vec<_> = (0..jobs).map(|job| share(total, jobs, job)).collect();
        prop_assert_eq!(shares.iter().map(|share| u128::from(*share)).sum::<u128>(), u128::from(total));
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        prop_assert_eq!(share(total, jobs, jobs), 0);
    }

    #[test]
    fn ios_are_due_at_exact_fractions_of_a_second(rate in 1u64..=1_000_000_000, n in 0u64..1 << 50) {
        let exact = u128::from(n) * 1_000_000_000 / u128::from(rate);
        prop_assert_eq!(due_ns(rate, n), u64::try_from(exact).unwrap_or(u64::MAX));
    }
}

#[test]
fn without_a_rate_everything_is_due_at_once() {
    assert_eq!(due_ns(0, u64::MAX), 0);
}

#[test]
fn number_ios_is_the_length_of_all_jobs_streams_together() {
    let length = |job| pattern("number_ios=1000 numjobs=3", job, DISK).unwrap().count();
    assert_eq!([length(0), length(1), length(2)], [334, 333, 333]);
    assert_eq!(stream("runtime=1").len(), 20_000);
}

#[test]
fn under_verify_number_ios_counts_the_writes_of_a_mix() {
    let mixed = stream("number_ios=1000 rw=randrw rwmixread=75 verify=crc32c");
    assert_eq!(mixed.iter().filter(|io| io.op == Op::Write).count(), 1000);
    assert!((3_500..4_500).contains(&mixed.len()));
    assert_eq!(mixed.last().unwrap().op, Op::Write);
    assert_eq!(stream("number_ios=1000 rw=randread verify=crc32c").len(), 1000);
    assert_eq!(stream("number_ios=1000 rw=randrw rwmixread=75").len(), 1000);
}

#[test]
fn each_rw_does_what_it_says() {
    for (rw, op) in [("read", Op::Read), ("write", Op::Write), ("trim", Op::Trim)] {
        for prefix in ["", "rand"] {
            let stream = stream(&format!("number_ios=500 rw={prefix}{rw}"));
            assert!(stream.iter().all(|io| io.op == op), "{prefix}{rw}");
            let follow = stream.windows(2).filter(|pair| pair[1].lba == pair[0].lba + 8).count();
            assert_eq!(follow, if prefix.is_empty() { 499 } else { 0 }, "{prefix}{rw}");
        }
    }
}

#[test]
fn a_mix_has_the_share_of_reads_that_it_was_given() {
    for rw in ["rw", "randrw"] {
        for percent in [0u32, 30, 100] {
            let stream = stream(&format!("runtime=1 rw={rw} rwmixread={percent}"));
            let reads = stream.iter().filter(|io| io.op == Op::Read).count() as u32;
            assert!(reads.abs_diff(percent * 200) < 300, "{rw} {percent}: {reads}");
            assert!(percent % 100 != 0 || reads == percent * 200);
        }
    }
}

#[test]
fn block_sizes_have_the_shares_that_they_were_given() {
    let stream = stream("runtime=1 rw=randrw rwmixread=50 bssplit=512/20:4k/50:64k/29.5:128k/0.5");
    for (bytes, expected) in [(512, 4_000), (4096, 10_000), (65_536, 5_900), (131_072, 100)] {
        let found = stream.iter().filter(|io| io.bytes == bytes).count() as u32;
        assert!(found.abs_diff(expected) < 300 && found > 50, "{bytes}: {found}");
        let reads = stream.iter().filter(|io| io.bytes == bytes && io.op == Op::Read).count() as u32;
        assert!(reads.abs_diff(expected / 2) < 200, "size and direction depend on one another: {reads} of {found}");
    }
}

#[test]
fn random_ios_reach_every_place_and_no_other() {
    let found: HashSet<u64> = places("runtime=1 size=64k bs=4k", Op::Read).into_iter().collect();
    assert_eq!(found, (0..16).map(|place| place * 8).collect());
    let found: HashSet<(u64, u32)> =
        stream("runtime=1 size=8k bssplit=1k/50:4k/50").iter().map(|io| (io.lba, io.bytes)).collect();
    let small = (0..8).map(|place| (place * 2, 1024));
    let large = (0..=4).map(|place| (place * 2, 4096));
    assert_eq!(found, small.chain(large).collect());
}

#[test]
fn a_sequential_stream_wraps_around_before_an_io_that_does_not_fit() {
    assert_eq!(places("number_ios=5 rw=read size=10k bs=3k", Op::Read), [0, 6, 12, 0, 6]);
    let second = pattern("number_ios=6 rw=write size=16k numjobs=2", 1, DISK).unwrap();
    assert_eq!(second.map(|io| io.lba).collect::<Vec<_>>(), [16, 24, 16]);
}

#[test]
fn reads_and_writes_of_a_sequential_mix_each_follow_on() {
    let text = "runtime=1 rw=rw size=1g";
    for op in [Op::Read, Op::Write] {
        let found = places(text, op);
        assert!(found.iter().zip(0..).all(|(lba, n)| *lba == n * 8), "{op:?}");
    }
}

#[test]
fn a_stream_depends_on_its_seed_and_job_alone() {
    let stream = |seed: u32, job| -> Vec<Io> {
        let text = format!("number_ios=2000 rw=randrw bssplit=512:4k randseed={seed} numjobs=2");
        let pattern = pattern(&text, job, DISK).unwrap();
        let base = pattern.region().first;
        pattern.map(|io| Io { lba: io.lba - base, ..io }).collect()
    };
    assert_eq!(stream(1, 0), stream(1, 0));
    assert_ne!(stream(1, 0), stream(2, 0));
    assert_ne!(stream(1, 0), stream(1, 1));
}

#[test]
fn a_refused_random_io_is_drawn_anew_without_using_up_the_share() {
    let mut pattern = pattern("number_ios=100 rw=randwrite bssplit=512:4k", 0, DISK).unwrap();
    let mut admitted = 0;
    loop {
        let mut offered: Vec<Io> = Vec::new();
        let step = pattern.next_free(|io| {
            offered.push(*io);
            offered.len() == 3
        });
        match step {
            Step::Io(io) => {
                assert_eq!(offered.last(), Some(&io));
                assert!(offered.iter().all(|other| other.bytes == io.bytes));
                assert!(offered[0].lba != offered[1].lba || offered[1].lba != offered[2].lba);
                admitted += 1;
            }
            Step::Wait => panic!("gave up too early"),
            Step::End => break,
        }
    }
    assert_eq!(admitted, 100);
}

#[test]
fn an_io_that_had_to_wait_is_offered_again_first() {
    for rw in ["write", "randwrite"] {
        let mut pattern = pattern(&format!("number_ios=2 rw={rw}"), 0, DISK).unwrap();
        let mut refused = Vec::new();
        let step = pattern.next_free(|io| {
            refused.push(*io);
            false
        });
        assert_eq!(step, Step::Wait);
        assert_eq!(refused.len(), if rw == "write" { 1 } else { 8 });
        assert_eq!(pattern.next_free(|_| true), Step::Io(*refused.last().unwrap()));
        assert!(matches!(pattern.next_free(|_| true), Step::Io(_)));
        assert_eq!(pattern.next_free(|_| true), Step::End);
    }
}

#[test]
fn a_disk_that_does_not_hold_the_work_is_refused() {
    let refused = |text: &str, job, capacity| pattern(text, job, capacity).map(|_| ()).unwrap_err();
    assert!(matches!(refused("runtime=1 size=1m", 0, 2047), PatternError::Size(_)));
    assert!(matches!(refused("runtime=1 size=1m verify=crc32c", 0, 2048), PatternError::Size(_)));
    assert!(pattern("runtime=1 size=1m verify=crc32c", 0, 2048 + 16 + 1).is_ok());
    assert!(matches!(
        refused("runtime=1 bs=64k numjobs=2", 0, 255),
        PatternError::TooSmall { usable: 255, needed: 256 }
    ));
    assert!(pattern("runtime=1 bs=64k numjobs=2", 1, 256).is_ok());
    assert!(matches!(refused("runtime=1 numjobs=2", 2, DISK), PatternError::NoSuchJob { job: 2, jobs: 2 }));
    assert!(matches!(refused("runtime=1 verify=crc32c", 0, 2), PatternError::Size(_)));
}

/// I/Os and bytes of `job` in fio's amounts, on a disk of 1 GiB.
fn amount(text: &str, job: u16) -> (u64, u64) {
    let ios = pattern(&format!("amounts=fio {text}"), job, DISK).unwrap().take(1_000_000);
    ios.fold((0, 0), |(ios, bytes), io| (ios + 1, bytes + u64::from(io.bytes)))
}

#[test]
fn passes_end_a_stream_when_they_have_transferred_what_they_should() {
    // As fio counts: whole blocks until the size is reached, in each pass.
    assert_eq!(amount("loops=1 rw=write bs=64k size=1m", 0), (16, 1 << 20));
    assert_eq!(amount("loops=3 rw=write bs=64k size=1m", 0), (48, 3 << 20));
    assert_eq!(amount("loops=1 rw=read bs=4k size=1m io_size=10k", 0), (3, 12_288));
    assert_eq!(amount("loops=2 rw=read bs=4k size=1m io_size=2m", 0), (1024, 4 << 20));
    assert_eq!(
        amount("loops=1 rw=randread bs=4k size=1m numjobs=2", 1),
        (128, 1 << 19),
        "each job has its part of the sum"
    );
    assert_eq!(amount("loops=1 rw=read bs=4k size=1m number_ios=10", 0), (10, 40_960), "whichever is first");
    assert_eq!(amount("loops=1 rw=read bs=4k size=1m number_ios=1000", 0), (256, 1 << 20));
    assert_eq!(amount("loops=1 rw=read bs=1m", 0), (1024, 1 << 30), "without a size the whole disk");
    assert_eq!(amount("loops=0 runtime=1 rw=read bs=4k size=1m", 0).0, 1_000_000, "nothing but time");
}

#[test]
fn blocks_of_several_sizes_come_to_exactly_what_a_pass_transfers() {
    for seed in 1..50 {
        let text = format!("loops=1 rw=randread bssplit=4k/50:16k/30:64k size=1m io_size=1000k randseed={seed}");
        assert_eq!(amount(&text, 0).1, 1000 << 10, "seed {seed}");
    }
}

#[test]
fn without_norandommap_every_block_comes_once_in_a_pass_in_another_order_each_time() {
    for blocks in [1u64, 2, 3, 7, 8, 9, 100, 256, 1000] {
        let text = format!("amounts=fio norandommap=off loops=2 rw=randread bs=4k size={}", blocks * 4096);
        let lbas: Vec<u64> = stream(&text).iter().map(|io| io.lba / 8).collect();
        assert_eq!(lbas.len() as u64, 2 * blocks);
        let (first, second) = lbas.split_at(lbas.len() / 2);
        for pass in [first, second] {
            assert_eq!(pass.iter().copied().collect::<HashSet<_>>(), (0..blocks).collect(), "{blocks} blocks");
        }
        if blocks >= 100 {
            assert_ne!(first, second);
            let follow = first.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
            assert!(follow < first.len() / 4, "{follow} of {blocks} follow one another");
        }
    }
    let repeats = stream("amounts=fio loops=1 rw=randread bs=4k size=1m");
    let found: HashSet<u64> = repeats.iter().map(|io| io.lba).collect();
    assert!(found.len() < repeats.len(), "with it they may repeat");
}

#[test]
fn jobs_share_their_region_unless_something_keeps_them_apart() {
    let region = |text: &str, job| {
        let Region { first, sectors } =
            pattern(&format!("loops=1 bs=4k numjobs=2 {text}"), job, DISK).unwrap().region();
        (first, sectors)
    };
    assert_eq!([region("amounts=fio size=2m", 0), region("amounts=fio size=2m", 1)], [(0, 2048); 2]);
    assert_eq!([region("amounts=fio", 0), region("amounts=fio", 1)], [(0, DISK); 2]);
    assert_eq!(region("amounts=fio offset=1m", 1), (2048, DISK - 2048));
    let apart = "amounts=fio size=2m offset=1m offset_increment=4m";
    assert_eq!([region(apart, 0), region(apart, 1)], [(2048, 2048), (10_240, 2048)]);
    assert_eq!([region("size=2m", 0), region("size=2m", 1)], [(0, 2048), (2048, 2048)]);
    let verified = "amounts=fio size=2m verify=crc32c rw=randrw";
    assert_eq!([region(verified, 0), region(verified, 1)], [(0, 2048), (2048, 2048)]);
    let beyond = |text: &str| pattern(&format!("amounts=fio loops=1 bs=4k {text}"), 0, DISK).unwrap_err();
    assert!(matches!(beyond("offset=1g"), PatternError::TooSmall { .. }));
    assert!(matches!(beyond("size=1m offset=1048064k"), PatternError::Size(_)));
}
