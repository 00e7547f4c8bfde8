//! Options out of bounds count as the nearest value within.
use crate::fake::{Config, RangeLimits};
use crate::rig::{World, flush, range};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::Operation;
use drv_virtio_block::lib_block::front_end::Options;
use drv_virtio_block::queue::QueueOptions;

#[test]
fn whatever_an_option_says_every_request_is_answered() {
    let usual = Options::default();
    let mut all: Vec<Options> = Vec::new();
    for number in [0, 1, 2, 511, 4096, 1 << 20, 1 << 39, (1 << 39) + 1, 1 << 40, 1 << 63, u64::MAX - 1, u64::MAX] {
        all.push(Options { quantum: number, ..usual });
        all.push(Options { cap_bytes: number, ..usual });
        all.push(Options { cap_bytes: number, quantum: number, cap_requests: number as u32, ..usual });
    }
    for number in [0, 1, 2, 1 << 23, (1 << 24) - 1, 1 << 24, (1 << 24) + 1, 1 << 25, 1 << 31, u32::MAX] {
        all.push(Options { cap_requests: number, ..usual });
    }
    for number in [0, 1, 2, 31, 32, 33, u16::MAX] {
        all.push(Options { sessions: number, credit: 16, ..usual });
    }
    for number in [0, 1, 3, 16, 1023, 1024, 1025, u16::MAX] {
        all.push(Options { credit: number, sessions: 2, ..usual });
    }
    all.extend([0, u8::MAX].map(|queue| Options { queue, ..usual }));
    let limits = RangeLimits { max_sectors: 64, max_segments: 1, alignment: 1 };
    for options in all {
        let config = Config { capacity_sectors: 8192, discard: limits, ..Config::default() };
        let mut world = World::with(config, 1, 1 << 20);
        let mut rig = world.start(&QueueOptions::default(), options);
        // What every front end allows.
        let mut client = rig.client(0, 2);
        for _ in 0..2 {
            client.submit(&[client.read(0, 0, 2048, 0), flush(1)]);
            rig.settle();
            let mut ends = client.ends();
            ends.sort_unstable_by_key(|(tag, _)| *tag);
            assert_eq!(ends, [(0, Status::Ok), (1, Status::Ok)], "{options:?}");
            client.submit(&[client.write(0, 4096, 1, 0), range(Operation::Discard, 1, 0, 200)]);
            rig.settle();
            let mut ends = client.ends();
            ends.sort_unstable_by_key(|(tag, _)| *tag);
            assert_eq!(ends, [(0, Status::Ok), (1, Status::Ok)], "{options:?}");
        }
        rig.device.assert_no_faults();
    }
}

#[test]
fn the_largest_weight_of_the_largest_options_does_not_overflow() {
    let most = Options { quantum: u64::MAX, cap_bytes: u64::MAX, cap_requests: u32::MAX, ..Options::default() };
    let mut world = World::new(Config::default());
    let mut rig = world.start(&QueueOptions::default(), most);
    let rights = drv_virtio_block::lib_block::message::Rights::ALL;
    let opening = crate::rig::opening(16, rights, &[(0, 2048)]);
    let mut client = rig.open(0, &drv_virtio_block::lib_block::message::Opening { weight: 64, ..opening });
    for _ in 0..100 {
        let all: Vec<_> =
            (0..16).map(|tag| if tag % 2 == 0 { flush(tag) } else { client.read(tag, 0, 8, 0) }).collect();
        client.submit(&all);
        rig.settle();
        assert_eq!(client.take().iter().filter(|done| done.status == Status::Ok).count(), 16);
    }
    let charged = rig.front.session_statistics(client.id).expect("a session").charged;
    assert!(charged >= 100 * 8 * 4096, "{charged}");
}
