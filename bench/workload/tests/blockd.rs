//! Parameters of `via=blockd`: what is understood, what is refused, and who works where on the disk.
use proptest::prelude::*;
use workload::params::{Front, MAX_CLIENTS, ParamError, Params, Via};
use workload::pattern::{Pattern, Region};
use workload::verify::table::Layout;

fn parse(text: &str) -> Params {
    Params::parse(&format!("runtime=1 {text}")).unwrap()
}

prop_compose! {
    fn any_blockd()(
        clients in 1..=MAX_CLIENTS,
        front in prop::sample::select(Front::ALL),
        queues in any::<u16>(),
        kills in 1u16..,
        switches in any::<[bool; 3]>(),
    ) -> Params {
        let [partitions, icount, restart] = switches;
        let mut params = Params { via: Via::Blockd, clients, front, queues, partitions, icount, ..Params::default() };
        params.number_ios = 1;
        if params.is_stepped() {
            (params.clients, params.queues) = (1, queues % 2);
        }
        if restart {
            params.scenario = "restart".try_into().unwrap();
            params.kills = kills;
        }
        params
    }
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_same_parameters(params in any_blockd()) {
        prop_assert_eq!(params.validate(), Ok(()));
        prop_assert_eq!(Params::parse(&params.to_string()), Ok(params));
    }
}

#[test]
fn clients_are_the_jobs_and_one_front_end_serves_them_unless_more_queues_are_asked_for() {
    let of = |text: &str| {
        let params = parse(text);
        (params.jobs(), params.queues_wished(), params.seats())
    };
    assert_eq!(of("numjobs=3"), (3, 3, 3));
    assert_eq!(of("numjobs=3 queues=2"), (3, 2, 3));
    assert_eq!(of("via=blockd"), (1, 1, 2));
    assert_eq!(of("via=blockd clients=3"), (3, 1, 4));
    assert_eq!(of("via=blockd clients=3 queues=2"), (3, 2, 5));
    assert_eq!(of("via=blockd front=stepped"), (1, 1, 1));
}

#[test]
fn counting_steps_the_front_end_and_nothing_steps_the_driver_alone() {
    assert!(!parse("via=blockd").is_stepped());
    assert!(parse("via=blockd front=stepped").is_stepped());
    assert!(Params::parse("number_ios=1 icount=on via=blockd front=own").unwrap().is_stepped());
    assert!(!Params::parse("number_ios=1 icount=on").unwrap().is_stepped());
}

#[test]
fn what_is_out_of_range_is_named() {
    for (text, name) in [("clients=0", "clients"), ("clients=17", "clients"), ("scenario=restart kills=0", "kills")] {
        let refused = Params::parse(&format!("runtime=1 via=blockd {text}"));
        assert!(matches!(refused, Err(ParamError::OutOfRange { key }) if key == name), "{text}");
    }
    assert_eq!(parse("via=blockd clients=16").clients, MAX_CLIENTS);
}

#[test]
fn contradictions_are_refused_with_advice() {
    let wrong = [
        ("clients=2", "add via=blockd, or give numjobs=N"),
        ("front=stepped", "front is for via=blockd"),
        ("partitions=on", "partitions is for via=blockd"),
        ("via=blockd numjobs=2", "give clients=N instead of numjobs"),
        ("via=blockd driver=raw", "driver=ours"),
        ("via=blockd driver=virtio-driver", "driver=ours"),
        ("via=blockd submit=shared", "leave submit out"),
        ("via=blockd submit=mutex", "leave submit out"),
        ("scenario=blockd", "add via=blockd"),
        ("scenario=restart", "add via=blockd"),
        ("via=blockd kills=6", "scenario=restart"),
        ("kills=6 scenario=flush", "scenario=restart"),
        ("via=blockd clients=4 size=8k", "size is too small"),
        ("via=blockd iodepth=257", "lower iodepth"),
        ("via=blockd front=stepped clients=2", "leave clients and queues out"),
        ("via=blockd front=stepped queues=2", "leave clients and queues out"),
    ];
    for (text, advice) in wrong {
        let error = Params::parse(&format!("runtime=1 {text}")).unwrap_err();
        assert!(matches!(error, ParamError::Contradiction { .. }), "{text}: {error}");
        assert!(error.to_string().contains(advice), "{text}: {error}");
    }
    let right = [
        "via=driver clients=1 front=own partitions=off kills=5",
        "via=blockd numjobs=1 submit=owner queues=1 clients=4",
        "via=blockd clients=4 size=16k",
        "via=blockd scenario=blockd",
        "via=blockd iodepth=256",
        "via=blockd front=stepped clients=1 queues=1",
        "via=blockd scenario=restart kills=100",
        "via=blockd scenario=operations",
    ];
    for text in right {
        parse(text);
    }
}

#[test]
fn without_partitions_clients_share_the_disk_as_jobs_do() {
    for text in ["", "size=1m", "verify=crc32c rw=randwrite", "bssplit=512/50:16k/50"] {
        let (clients, jobs) = (parse(&format!("via=blockd clients=4 {text}")), parse(&format!("numjobs=4 {text}")));
        for job in 0..4 {
            assert_eq!(Region::new(&clients, job, 1 << 20), Region::new(&jobs, job, 1 << 20), "{text}");
        }
        assert!(Region::new(&clients, 4, 1 << 20).is_err());
    }
}

#[test]
fn each_client_works_from_the_start_of_its_own_partition() {
    const SECTORS: u64 = 1 << 16;
    let whole = parse("via=blockd partitions=on clients=4");
    let part = parse("via=blockd partitions=on clients=4 size=4m");
    let sealed = parse("via=blockd partitions=on clients=4 verify=crc32c rw=randwrite bs=512");
    for job in 0..4 {
        assert_eq!(Region::new(&whole, job, SECTORS), Ok(Region { first: 0, sectors: SECTORS }));
        assert_eq!(Region::new(&part, job, SECTORS), Ok(Region { first: 0, sectors: (1 << 20) / 512 }));
        // Each partition has a table of its own at its end.
        let covered = Layout::new(SECTORS, 0).unwrap().covered;
        assert_eq!(Region::new(&sealed, job, SECTORS), Ok(Region { first: 0, sectors: covered }));
    }
    assert!(Region::new(&part, 3, 2047).is_err(), "a share that its partition does not hold");
    assert!(Region::new(&whole, 4, SECTORS).is_err(), "a client that there is not");
}

#[test]
fn a_number_of_ios_is_that_of_all_clients() {
    for switch in ["on", "off"] {
        let text = format!("number_ios=10 via=blockd clients=3 partitions={switch}");
        let params = Params::parse(&text).unwrap();
        let ios: usize = (0..3).map(|client| Pattern::new(&params, client, 1 << 20).unwrap().count()).sum();
        assert_eq!(ios, 10, "{text}");
    }
}
