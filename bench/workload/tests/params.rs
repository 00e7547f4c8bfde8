//! Parameters: what is understood, what is refused, and that printing loses nothing.
use arrayvec::ArrayVec;
use proptest::prelude::*;
use workload::params::{
    Amounts, Driver, Front, Indirect, KEYS, Layout, MAX_SPLIT, Mode, ParamError, Params, Rw, Split, Submit, Verify,
    Via, WHOLE, parse_size, parse_time_ms,
};

fn any_split() -> impl Strategy<Value = Vec<Split>> {
    prop::collection::vec((1u32..=8192, 1u32..=1000), 1..=MAX_SPLIT).prop_map(|entries| {
        let sum: u32 = entries.iter().map(|(_, share)| share).sum();
        let mut splits: Vec<Split> = entries
            .iter()
            .map(|(sectors, share)| Split {
                bytes: sectors * 512,
                weight: (share * (WHOLE - MAX_SPLIT as u32) / sum).max(1),
            })
            .collect();
        let rest = WHOLE - splits.iter().map(|split| split.weight).sum::<u32>();
        splits[0].weight += rest;
        splits
    })
}

prop_compose! {
    fn any_words()(
        name in "[A-Za-z0-9._-]{1,48}",
        scenario in "[A-Za-z0-9._-]{1,32}",
        driver in prop::sample::select(Driver::ALL),
        mode in prop::sample::select(Mode::ALL),
        rw in prop::sample::select(Rw::ALL),
        verify in prop::sample::select(Verify::ALL),
        indirect in prop::sample::select(Indirect::ALL),
        layout in prop::sample::select(Layout::ALL),
        splits in any_split(),
    ) -> Params {
        let layout = if driver == Driver::Raw { layout } else { Layout::Line };
        let mut params = Params { driver, mode, rw, verify, indirect, layout, ..Params::default() };
        params.name = name.as_str().try_into().unwrap();
        params.scenario = scenario.as_str().try_into().unwrap();
        params.bssplit = splits.into_iter().collect();
        params
    }
}

prop_compose! {
    fn any_params()(
        words in any_words(),
        iodepth in 1u16..=1024,
        batches in (1u16..=128, 0u16..=1024, 1u16..),
        numjobs in 1u16..,
        size in prop_oneof![Just(0), (1u64 << 50)..(1 << 53)],
        end in (any::<bool>(), any::<u32>()),
        rwmixread in 0u8..100,
        rate_iops in 0u64..=1_000_000_000,
        randseed in any::<u64>(),
        queues in (any::<u16>(), any::<u16>(), 0u32..=15),
        switches in any::<[bool; 3]>(),
    ) -> Params {
        let numbered = end.0 || switches[1];
        let fio = words.verify == Verify::None && switches[0];
        Params {
            iodepth,
            iodepth_batch_submit: batches.0.min(iodepth),
            iodepth_batch_complete_min: batches.1.min(iodepth).min(batches.2),
            iodepth_batch_complete_max: batches.2,
            numjobs: if switches[1] { 1 } else { numjobs },
            size: size / 512 * 512,
            amounts: if fio { Amounts::Fio } else { Amounts::Total },
            io_size: rate_iops,
            loops: iodepth.into(),
            offset: if fio { 512 * rate_iops } else { 0 },
            offset_increment: if fio { size / 512 * 512 } else { 0 },
            norandommap: switches[2],
            runtime_ms: if numbered { 0 } else { u64::from(end.1) + 1 },
            number_ios: if numbered { u64::from(end.1) + 1 } else { 0 },
            rwmixread,
            rate_iops: if switches[1] { 0 } else { rate_iops },
            randseed,
            queues: queues.0,
            vectors: queues.1,
            queue_size: 1 << queues.2,
            event_idx: switches[0],
            icount: switches[1],
            submit: if switches[2] && words.driver == Driver::Ours { Submit::Shared } else { Submit::Auto },
            ..words
        }
    }
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_same_parameters(params in any_params()) {
        prop_assert_eq!(params.validate(), Ok(()));
        prop_assert_eq!(Params::parse(&params.to_string()), Ok(params));
    }

    #[test]
    fn any_text_is_either_refused_in_one_line_or_survives_a_round_trip(
        text in "((name|rw|bs|bssplit|size|runtime|iodepth|zz)=[0-9a-z/:.%\u{7}\u{b}é-]{0,12} ?){0,4}"
    ) {
        match Params::parse(&text) {
            Ok(params) => prop_assert_eq!(Params::parse(&params.to_string()), Ok(params)),
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
        }
    }
}

fn parse(text: &str) -> Result<Params, ParamError> {
    Params::parse(&format!("runtime=1 {text}"))
}

fn splits(text: &str) -> Option<Vec<(u32, u32)>> {
    let params = parse(&format!("bssplit={text}")).ok()?;
    Some(params.bssplit.iter().map(|split| (split.bytes, split.weight)).collect())
}

#[test]
fn the_default_is_a_4k_random_read_at_depth_one() {
    let params = parse("").unwrap();
    assert_eq!((params.rw, params.iodepth, params.numjobs), (Rw::RandRead, 1, 1));
    assert_eq!(params.bssplit[..], [Split { bytes: 4096, weight: WHOLE }]);
    assert_eq!(Params { runtime_ms: 1000, ..Params::default() }, params);
}

#[test]
fn printed_pairs_are_canonical() {
    let params = Params::parse("runtime=2m size=1024k bssplit=4k/12.50:512/:1m/80").unwrap();
    assert_eq!(
        params.to_string(),
        "name=bench scenario=none driver=ours mode=interrupt submit=auto rw=randread \
         bssplit=4k/12.5:512/7.5:1m/80 iodepth=1 iodepth_batch_submit=1 iodepth_batch_complete_min=1 \
         iodepth_batch_complete_max=64 numjobs=1 amounts=total size=1m io_size=0 loops=0 offset=0 offset_increment=0 \
         norandommap=on runtime_ms=120000 number_ios=0 rwmixread=50 rate_iops=0 \
         verify=none randseed=137 queues=0 vectors=16 queue_size=0 event_idx=on indirect=auto layout=line icount=off \
         via=driver clients=1 front=own partitions=off kills=5"
    );
    assert!(Params::parse("bs=512 number_ios=1").unwrap().to_string().contains(" bssplit=512 "));
}

#[test]
fn every_key_sets_the_field_that_it_prints() {
    let other = Params::parse(
        "name=n scenario=s driver=raw mode=polled submit=owner rw=trim bs=512 iodepth=9 iodepth_batch=2 \
         iodepth_batch_complete=3 iodepth_batch_complete_max=4 numjobs=5 amounts=fio size=1m io_size=3m loops=2 offset=4k \
         offset_increment=8k norandommap=off runtime=6 rwmixread=7 rate_iops=8 randseed=9 queues=10 vectors=11 queue_size=16 event_idx=off indirect=on layout=dense",
    )
    .unwrap();
    let blockd = Params { via: Via::Blockd, clients: 13, front: Front::Stepped, partitions: true, kills: 14, ..other };
    // These exclude one another, which printing does not mind.
    let other = Params { number_ios: 12, icount: true, verify: Verify::Crc32c, ..blockd };
    let (theirs, ours) = (other.to_string(), Params::default().to_string());
    let mut built = Params::default();
    for ((pair, default), (key, _)) in theirs.split(' ').zip(ours.split(' ')).zip(KEYS) {
        assert_ne!(pair, default);
        let (printed, value) = pair.split_once('=').unwrap();
        assert_eq!(printed, key);
        built.set(key, value).unwrap();
        assert!(built.to_string().contains(pair), "{key}");
    }
    assert_eq!(built, other);
}

#[test]
fn other_names_that_fio_has_mean_the_same_key() {
    let theirs = "readwrite=readwrite blocksize=8k runtime=2 iodepth=8 iodepth_batch=4 iodepth_batch_complete=2";
    let ours = "rw=rw bssplit=8k runtime_ms=2000 iodepth=8 iodepth_batch_submit=4 iodepth_batch_complete_min=2";
    assert_eq!(Params::parse(theirs).unwrap(), Params::parse(ours).unwrap());
}

#[test]
fn sizes_have_fios_suffixes_in_powers_of_1024() {
    let good = [
        ("0", 0),
        ("512", 512),
        ("4k", 4096),
        ("4K", 4096),
        ("4kb", 4096),
        ("4KiB", 4096),
        ("3m", 3 << 20),
        ("1g", 1 << 30),
        ("2T", 2 << 40),
        ("1p", 1 << 50),
        ("18446744073709551615", u64::MAX),
    ];
    for (text, bytes) in good {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
}

#[test]
fn a_number_that_is_none_or_too_large_is_refused() {
    let bad = [
        "",
        "k",
        "-1",
        "+1",
        "4 k",
        " 4k",
        "4kk",
        "4bk",
        "4i",
        "4x",
        "0x10",
        "1.5k",
        "٣",
        "4é",
        "16777216t",
        "18446744073709551616",
    ];
    for text in bad {
        assert_eq!(parse_size(text), None, "{text}");
        assert_eq!(parse_time_ms(text), None, "{text}");
    }
    assert_eq!(parse_size("5s"), None);
    assert_eq!(parse_time_ms("5us"), None);
    assert_eq!(parse_time_ms("18446744073709552"), None);
}

#[test]
fn times_are_seconds_unless_they_say_otherwise() {
    for (text, ms) in [
        ("5", 5000),
        ("5s", 5000),
        ("500ms", 500),
        ("500MSEC", 500),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
    ] {
        assert_eq!(parse_time_ms(text), Some(ms), "{text}");
    }
}

#[test]
fn block_sizes_without_a_percentage_share_the_remainder() {
    assert_eq!(splits("4k"), Some(vec![(4096, 100_000)]));
    assert_eq!(splits("512/20:4k/80"), Some(vec![(512, 20_000), (4096, 80_000)]));
    assert_eq!(splits("512/20:1k/:2k"), Some(vec![(512, 20_000), (1024, 40_000), (2048, 40_000)]));
    assert_eq!(splits("512:1k:2k/1"), Some(vec![(512, 49_500), (1024, 49_500), (2048, 1_000)]));
    assert_eq!(splits("512:1k:2k"), Some(vec![(512, 33_333), (1024, 33_333), (2048, 33_334)]));
    assert_eq!(splits("128k/1.9:4k/98.1"), Some(vec![(131_072, 1_900), (4096, 98_100)]));
    assert_eq!(splits("128k/0.001:4k"), Some(vec![(131_072, 1), (4096, 99_999)]));
}

#[test]
fn block_sizes_that_do_not_add_up_are_refused() {
    let bad = [
        "",
        ":",
        "4k/100:",
        "512/60:4k/60",
        "512/20:4k/70",
        "4k/90",
        "512/100:4k",
        "4k/0:512",
        "4k/1.2345:512",
        "4k/x",
        "4k/5.:512",
        "4k/-1:512",
        "4k/101",
        "4k/1/2",
        "0",
        "513",
        "4g",
        "4k,8k",
        "/50",
        "512/4294967:4k",
        "1k:1k:1k:1k:1k:1k:1k:1k:1k",
    ];
    for text in bad {
        let refused = Params::default().set("bssplit", text);
        assert!(matches!(refused, Err(ParamError::Malformed { key: "bssplit", .. })), "{text}");
    }
}

#[test]
fn an_unknown_key_is_named() {
    let error = parse("iodpeth=4").unwrap_err();
    assert_eq!(error, ParamError::UnknownKey { key: "iodpeth".try_into().unwrap() });
    let long = parse(&format!("{}=4", "x".repeat(200))).unwrap_err();
    assert_eq!(long.to_string(), format!("unknown key `{}`: correct it or leave it out", "x".repeat(48)));
}

#[test]
fn a_word_without_a_value_is_refused() {
    assert_eq!(parse("icount").unwrap_err().to_string(), "`icount` has no value: write key=value");
}

#[test]
fn a_key_given_twice_is_refused_under_either_name() {
    for text in
        ["rw=read rw=read", "bs=4k bssplit=512/20:4k/80", "runtime_ms=5", "icount=off icount=off", "name=a name=b"]
    {
        assert!(matches!(parse(text), Err(ParamError::Repeated { .. })), "{text}");
    }
}

#[test]
fn a_malformed_value_is_refused_and_changes_nothing() {
    let values = [
        "name=a/b",
        "name=",
        "scenario=",
        "driver=windows",
        "mode=adaptive",
        "submit=yes",
        "rw=randtrimwrite",
        "bs=4q",
        "iodepth=x",
        "iodepth=65536",
        "iodepth_batch_submit=-1",
        "iodepth_batch_complete_min=1k",
        "iodepth_batch_complete_max=",
        "numjobs=70000",
        "size=50%",
        "runtime=1x",
        "runtime_ms=5s",
        "number_ios=many",
        "rwmixread=256",
        "rate_iops=1,2",
        "verify=md5",
        "randseed=0x1",
        "queues=all",
        "vectors=-",
        "queue_size=big",
        "event_idx=1",
        "indirect=yes",
        "icount=true",
        "via=lib-block",
        "clients=two",
        "clients=65536",
        "front=shared",
        "partitions=2",
        "kills=-1",
    ];
    for text in values {
        let (key, value) = text.split_once('=').unwrap();
        let mut params = Params::default();
        let error = params.set(key, value).unwrap_err();
        assert!(matches!(error, ParamError::Malformed { .. }), "{text}");
        assert_eq!(params, Params::default(), "{text}");
    }
}

#[test]
fn a_malformed_value_is_explained() {
    assert_eq!(
        parse("rw=sideways").unwrap_err().to_string(),
        "rw does not take `sideways`: give read, write, randread, randwrite, rw, randrw, trim or randtrim"
    );
}

#[test]
fn a_field_out_of_range_is_named() {
    let wrong = [
        ("iodepth=0", "iodepth"),
        ("iodepth=1025", "iodepth"),
        ("iodepth_batch_submit=0", "iodepth_batch_submit"),
        ("iodepth=1024 iodepth_batch_submit=129", "iodepth_batch_submit"),
        ("iodepth_batch_complete_max=0", "iodepth_batch_complete_max"),
        ("numjobs=0", "numjobs"),
        ("size=5000", "size"),
        ("rwmixread=101", "rwmixread"),
        ("rate_iops=1000000001", "rate_iops"),
        ("queue_size=100", "queue_size"),
        ("queue_size=65535", "queue_size"),
    ];
    for (text, name) in wrong {
        assert!(matches!(parse(text), Err(ParamError::OutOfRange { key }) if key == name), "{text}");
    }
    let right = [
        "iodepth=1024 iodepth_batch_submit=128",
        "iodepth_batch_complete_min=0",
        "rwmixread=100",
        "rwmixread=0",
        "rate_iops=1000000000",
        "queue_size=32768",
        "queue_size=1",
    ];
    for text in right {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn hand_made_parameters_are_checked_too() {
    let good = Params { runtime_ms: 1, ..Params::default() };
    assert_eq!(good.validate(), Ok(()));
    for (bytes, weight) in [(0, WHOLE), (700, WHOLE), (512, WHOLE - 1), (512, WHOLE + 1), (512, 0)] {
        let bssplit = core::iter::once(Split { bytes, weight }).collect();
        let params = Params { bssplit, ..good.clone() };
        assert_eq!(params.validate(), Err(ParamError::OutOfRange { key: "bssplit" }));
    }
    let none = Params { bssplit: ArrayVec::default(), ..good.clone() };
    assert_eq!(none.validate(), Err(ParamError::OutOfRange { key: "bssplit" }));
    let unnamed = Params { name: "a b".try_into().unwrap(), ..good.clone() };
    assert_eq!(unnamed.validate(), Err(ParamError::OutOfRange { key: "name" }));
    let unnamed = Params { scenario: "".try_into().unwrap(), ..good };
    assert_eq!(unnamed.validate(), Err(ParamError::OutOfRange { key: "scenario" }));
}

#[test]
fn contradictions_are_refused_with_advice() {
    let wrong = [
        ("", "nothing says when to stop"),
        ("number_ios=1 offset=4k", "kept apart"),
        ("number_ios=1 amounts=fio verify=crc32c offset_increment=4k", "kept apart"),
        ("runtime=1 iodepth=2 iodepth_batch_submit=3", "iodepth_batch_submit is above iodepth"),
        ("runtime=1 iodepth=2 iodepth_batch_complete_min=3", "wait for ever"),
        ("runtime=1 iodepth=9 iodepth_batch_complete_min=3 iodepth_batch_complete_max=2", "raise the latter"),
        ("runtime=1 size=8k numjobs=3", "size is too small"),
        ("runtime=1 size=8k bssplit=512/50:16k/50", "size is too small"),
        ("number_ios=1 verify=crc32c rw=randrw rwmixread=100", "counts writes"),
        ("runtime=1 icount=on", "fixed batches"),
        ("number_ios=1 icount=on rate_iops=5", "no time"),
        ("number_ios=1 icount=on numjobs=2", "one vCPU"),
        ("runtime=1 submit=owner queues=1 numjobs=2", "a queue for each job"),
        ("runtime=1 driver=raw submit=shared", "many submitters"),
    ];
    for (text, advice) in wrong {
        let error = Params::parse(text).unwrap_err();
        assert!(matches!(error, ParamError::Contradiction { .. }), "{text}");
        assert!(error.to_string().contains(advice), "{text}: {error}");
    }
    let right = [
        "scenario=reset",
        "runtime=1 size=8k numjobs=2",
        "runtime=1 verify=crc32c rw=randrw rwmixread=100",
        "number_ios=1 verify=crc32c rw=randread rwmixread=100",
        "number_ios=1 rw=randrw rwmixread=100",
        "number_ios=1 icount=on",
        "runtime=1 submit=owner queues=2 numjobs=2",
        "runtime=1 submit=owner queues=0 numjobs=2",
        "runtime=1 submit=shared queues=1 numjobs=2",
        "runtime=1 driver=raw submit=owner",
    ];
    for text in right {
        assert!(Params::parse(text).is_ok(), "{text}");
    }
}
