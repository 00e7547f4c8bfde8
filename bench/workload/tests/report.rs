//! Result lines: that they come back whole or not at all, and that jobs add up.
use arrayvec::{ArrayString, ArrayVec};
use proptest::prelude::*;
use workload::failures::{Blame, Failures, First};
use workload::pattern::Op;
use workload::report::{Boot, Direction, Flow, Instructions, Line, Note, PERCENTILES, PREFIX, Report, Tally, VERSION};

fn encode(line: &Line) -> String {
    let mut text = String::new();
    line.encode(&mut text).unwrap();
    text
}

fn decode(text: &str) -> Result<Line, String> {
    let json = Line::json(text.trim_end_matches('\n')).ok_or("no result line")?;
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn any_direction() -> impl Strategy<Value = Direction> {
    (any::<[u64; 5]>(), prop_oneof![Just(0), Just(17)], any::<[u64; 17]>()).prop_map(
        |(numbers, length, percentiles)| Direction {
            ios: numbers[0],
            bytes: numbers[1],
            clat_min_ns: numbers[2],
            clat_max_ns: numbers[3],
            clat_mean_ns: numbers[4],
            percentiles_ns: percentiles[..length].iter().copied().collect(),
        },
    )
}

prop_compose! {
    fn any_first()(
        (blame, op) in (prop::sample::select(Blame::ALL.as_slice()), prop::sample::select([Op::Read, Op::Write, Op::Trim].as_slice())),
        (lba, bytes) in any::<(u64, u32)>(),
        why in any_text::<80>(),
    ) -> First {
        First { blame, op, lba, bytes, why }
    }
}

prop_compose! {
    fn any_report()(
        directions in [any_direction(), any_direction(), any_direction()],
        numbers in any::<[u64; 13]>(),
        first in prop::option::of(any_first()),
        atomics in any::<Option<u64>>(),
        instructions in any::<Option<(u64, u64)>>(),
    ) -> Report {
        let [read, write, trim] = directions;
        let failures = Failures { caller: numbers[1], gone: numbers[2], first, ..Failures::default() };
        let [runtime_ns, errors, verify_errors, notifications, interrupts, interrupts_home, rest @ ..] = numbers;
        let [submitted, completed, violations, length_anomalies, full, client_doorbells, front_doorbells] = rest;
        let instructions =
            instructions.map(|(submit_milli, complete_milli)| Instructions { submit_milli, complete_milli });
        Report {
            version: VERSION, read, write, trim, runtime_ns, errors, failures, verify_errors, interrupts, interrupts_home,
            notifications: instructions.as_ref().map_or(Some(notifications), |_| None),
            submitted, completed, violations, length_anomalies, full, client_doorbells, front_doorbells, atomics, instructions,
        }
    }
}

fn any_text<const N: usize>() -> impl Strategy<Value = ArrayString<N>> {
    prop::collection::vec(prop_oneof![any::<char>(), prop::char::range('\0', '\u{7f}')], 0..=N / 4)
        .prop_map(|characters| characters.iter().collect::<String>().as_str().try_into().unwrap())
}

prop_compose! {
    fn any_boot()(
        numbers in any::<(u64, u16, u16, u16, u16, u64)>(),
        rung in any_text::<24>(),
        flags in any::<[bool; 2]>(),
    ) -> Boot {
        let (capacity, queues, queue_size, slots, vectors, features) = numbers;
        let [read_only, writeback] = flags;
        Boot { version: VERSION, capacity, queues, queue_size, slots, vectors, rung, features, read_only, writeback }
    }
}

fn any_line() -> impl Strategy<Value = Line> {
    prop_oneof![
        any_report().prop_map(Line::Done),
        any_boot().prop_map(Line::Boot),
        any_text().prop_map(|text| Line::Note(Note { text })),
        any_text().prop_map(|text| Line::Failed(Note { text })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_line_comes_back_as_it_was_and_stays_one_line(line in any_line()) {
        let text = encode(&line);
        prop_assert!(text.starts_with(PREFIX) && text.ends_with('\n'));
        prop_assert!(!text.trim_end_matches('\n').contains(|c: char| c < ' '));
        prop_assert_eq!(decode(&text), Ok(line));
    }

    #[test]
    fn a_truncated_line_is_refused(line in any_line()) {
        let text = encode(&line);
        let text = text.trim_end_matches('\n');
        for (end, _) in text.char_indices() {
            prop_assert!(decode(&text[..end]).is_err(), "{}", &text[..end]);
        }
    }
}

#[test]
fn the_lines_read_as_documented() {
    let note = Line::Note(Note::new(format_args!("queue \"{}\"\n", 3)));
    assert_eq!(encode(&note), "@drv {\"note\":{\"text\":\"queue \\\"3\\\"\\n\"}}\n");
    let done = encode(&Line::Done(Report { completed: u64::MAX, ..Report::default() }));
    assert!(done.starts_with("@drv {\"done\":{\"version\":0,\"read\":{\"ios\":0,"));
    assert!(done.contains("\"completed\":18446744073709551615,"));
    assert!(done.contains("\"atomics\":null,\"instructions\":null"));
}

#[test]
fn the_longest_lines_fit() {
    let text = ArrayString::from(&"\u{1}".repeat(256)).unwrap();
    let note = Line::Note(Note { text });
    assert_eq!(decode(&encode(&note)), Ok(note));
    let direction = Direction {
        ios: u64::MAX,
        bytes: u64::MAX,
        clat_min_ns: u64::MAX,
        clat_max_ns: u64::MAX,
        clat_mean_ns: u64::MAX,
        percentiles_ns: ArrayVec::from([u64::MAX; 17]),
    };
    let report = Report {
        read: direction.clone(),
        write: direction.clone(),
        trim: direction,
        failures: Failures {
            caller: u64::MAX,
            device: u64::MAX,
            medium: u64::MAX,
            gone: u64::MAX,
            first: Some(First {
                blame: Blame::Caller,
                op: Op::Write,
                lba: u64::MAX,
                bytes: u32::MAX,
                why: ArrayString::from(&"\u{1}".repeat(80)).unwrap(),
            }),
            at_ns: 0,
        },
        instructions: Some(Instructions { submit_milli: u64::MAX, complete_milli: u64::MAX }),
        ..Report::default()
    };
    assert_eq!(decode(&encode(&Line::Done(report.clone()))), Ok(Line::Done(report)));
}

#[test]
fn human_text_is_no_result() {
    for text in ["", "@drv", "booting", " @drv {}", "[@drv {}]"] {
        assert_eq!(Line::json(text), None, "{text}");
    }
}

#[test]
fn a_failing_port_is_an_error() {
    let mut port = ArrayString::<16>::new();
    assert!(Line::Note(Note::new(format_args!("too long for it"))).encode(&mut port).is_err());
}

#[test]
fn a_note_keeps_what_fits_without_cutting_a_character() {
    let note = Note::new(format_args!("{}{}", "x".repeat(255), "é and more"));
    assert_eq!(note.text.as_str(), "x".repeat(255));
}

#[test]
fn jobs_add_up_in_the_report() {
    let (mut first, mut second) = (Tally::new(), Tally::default());
    first.record(Op::Read, 4096, 100);
    first.record(Op::Write, 512, 7);
    let failed = |blame, lba| move || First::new(blame, Op::Read, lba, 512, format_args!("{} {lba}", blame.word()));
    first.failures.add(Blame::Medium, 90, failed(Blame::Medium, 7));
    second.record(Op::Read, 8192, 200);
    second.count(Op::Trim, 65_536);
    second.failures.add(Blame::Gone, 80, failed(Blame::Gone, 8));
    second.failures.add(Blame::Medium, 85, failed(Blame::Medium, 9));
    second.verify_errors = 3;
    first.merge(&second);
    let report = Report::new(&first, 99);
    assert_eq!((report.version, report.runtime_ns, report.errors, report.verify_errors), (VERSION, 99, 3, 3));
    assert_eq!((report.failures.medium, report.failures.gone, report.failures.caller), (2, 1, 0));
    assert_eq!(
        report.failures.to_string(),
        "3 requests that ended in an error: medium 2, gone 1; the first: read of 512 bytes at sector 8: gone 8",
        "the first of all jobs is the one that failed first"
    );
    assert_eq!((report.read.ios, report.read.bytes), (2, 12_288));
    assert_eq!((report.read.clat_min_ns, report.read.clat_max_ns, report.read.clat_mean_ns), (100, 200, 150));
    assert_eq!((report.write.ios, report.write.bytes, report.write.clat_mean_ns), (1, 512, 7));
    assert_eq!((report.trim.ios, report.trim.bytes, report.trim.clat_max_ns), (1, 65_536, 0));
}

#[test]
fn percentiles_are_absent_where_nothing_was_measured() {
    let mut flow = Flow::new();
    flow.ios = 5;
    assert!(Direction::new(&flow).percentiles_ns.is_empty());
    flow.latency.record(9);
    assert_eq!(Direction::new(&flow).percentiles_ns[..], [9; PERCENTILES.len()]);
}
