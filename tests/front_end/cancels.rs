//! Requests that are withdrawn.
use crate::fake::{Config, Order};
use crate::rig::{World, barrier, cancel, flush};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::Submission;
use drv_virtio_block::lib_block::front_end::Options;
use drv_virtio_block::queue::QueueOptions;

#[test]
fn what_waits_is_withdrawn_at_once_even_behind_a_blocked_head() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0), barrier(client.read(1, 1, 1, 512)), client.read(2, 2, 1, 1024)]);
    client.submit(&[cancel(3, 2)]);
    rig.serve();
    assert_eq!(client.ends(), [(2, Status::Gone), (3, Status::Ok)]);
    client.submit(&[cancel(3, 1), client.read(2, 2, 1, 1024)]);
    rig.serve();
    assert_eq!(client.ends(), [(1, Status::Gone), (3, Status::Ok)], "the head itself");
    rig.serve();
    let sectors: Vec<_> = rig.device.take(0, 99).iter().map(|one| one.sector).collect();
    assert_eq!(sectors, [0, 2], "what was behind it goes on");
    rig.device.complete_all(0, Order::AsTaken);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok), (2, Status::Ok)]);
    rig.device.assert_no_faults();
}

#[test]
fn what_the_device_has_stays_its_own_and_ends_as_it_ends() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0), Submission { deadline: 99, ..client.read(1, 1, 1, 512) }, flush(2)]);
    rig.serve();
    client.submit(&[cancel(4, 0), cancel(5, 1), cancel(6, 2)]);
    rig.serve();
    assert_eq!(client.ends(), [(4, Status::Busy), (5, Status::Busy), (6, Status::Busy)]);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok), (1, Status::Ok), (2, Status::Ok)]);
}

#[test]
fn what_is_not_there_is_not_found_and_a_cancel_is_an_entry_like_any() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0), barrier(flush(1))]);
    rig.serve();
    for target in [2, 15, 16, 256, u16::MAX] {
        client.submit(&[cancel(3, target)]);
        rig.serve();
        assert_eq!(client.ends(), [(3, Status::NotFound)], "{target}");
    }
    let with_blocks = Submission { blocks: 1, ..cancel(3, 1) };
    let with_deadline = Submission { deadline: 1, ..cancel(3, 5) };
    let far = Submission { lba: 1 << 16 | 1, ..cancel(3, 1) };
    let cases = [
        (with_blocks, Status::InvalidArgument),
        (with_deadline, Status::NotFound),
        (far, Status::InvalidArgument),
        (cancel(16, 1), Status::InvalidArgument),
        (cancel(0, 1), Status::Busy),
        (cancel(1, 1), Status::Busy),
    ];
    for (wish, status) in cases {
        client.submit(&[wish]);
        rig.serve();
        assert_eq!(client.ends(), [(wish.tag, status)], "{wish:?}");
    }
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok), (1, Status::Ok)], "nothing of it was withdrawn");
}

#[test]
fn a_withdrawn_request_leaves_its_tag_and_the_backlog_never_fills() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 8);
    // A head that does not go away, so that gaps are left in front of others.
    client.submit(&[client.read(0, 0, 1, 0), barrier(client.read(1, 1, 1, 512))]);
    rig.serve();
    for cycle in 0..5000u64 {
        let tag = 2 + (cycle % 2) as u16;
        client.submit(&[client.read(tag, 100 + cycle % 100, 1, 1024), client.read(tag + 3, 300, 1, 1536)]);
        rig.serve();
        client.submit(&[cancel(tag + 3, tag), cancel(tag, tag + 3)]);
        rig.serve();
        let expected = [(tag + 3, Status::Busy), (tag, Status::Busy)];
        assert_eq!(client.ends(), expected, "cycle {cycle}: tags that are in flight");
        client.submit(&[cancel(7, tag)]);
        rig.serve();
        client.submit(&[cancel(7, tag + 3)]);
        rig.serve();
        let expected = [(tag, Status::Gone), (7, Status::Ok), (tag + 3, Status::Gone), (7, Status::Ok)];
        assert_eq!(client.ends(), expected, "cycle {cycle}");
    }
    assert_eq!(rig.device.poll_available(0), 1);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok), (1, Status::Ok)]);
    let mut other = rig.client(1, 8);
    other.submit(&[other.read(0, 0, 1, 0)]);
    rig.settle();
    assert_eq!(other.ends(), [(0, Status::Ok)]);
}

#[test]
fn the_order_of_the_others_survives_gaps_and_the_closing_of_gaps() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 64);
    client.submit(&[client.read(0, 0, 1, 0), barrier(client.read(1, 1, 1, 0))]);
    rig.serve();
    let mut expected = vec![1];
    // Every second one is withdrawn; in between others come, more than the backlog has places.
    for round in 0..40u16 {
        let kept = 2 + round;
        client.submit(&[client.read(kept, u64::from(kept), 1, 0)]);
        expected.push(u64::from(kept));
        for _ in 0..20 {
            client.submit(&[client.read(60, 999, 1, 0), cancel(61, 60)]);
            rig.serve();
            assert_eq!(client.ends(), [(60, Status::Gone), (61, Status::Ok)]);
        }
    }
    rig.device.process_all(0);
    let mut sectors = Vec::new();
    while sectors.len() < expected.len() {
        rig.serve();
        let taken = rig.device.take(0, 1);
        assert_eq!(taken.len(), 1, "{sectors:?}");
        sectors.push(taken[0].sector);
        rig.device.complete(0, &taken);
    }
    assert_eq!(sectors, expected);
}

#[test]
fn a_cancel_is_heard_although_others_fill_the_queue() {
    let mut world = World::new(Config { overlap_allowed: true, ..Config::default() });
    let mut rig = world.start(&QueueOptions { slots: 8, ..QueueOptions::default() }, Options::default());
    let (mut one, mut two, mut client) = (rig.client(0, 16), rig.client(1, 16), rig.client(2, 16));
    for busy in [&mut one, &mut two] {
        let all: Vec<_> = (0..16).map(|tag| busy.read(tag, 0, 1, 0)).collect();
        busy.submit(&all);
    }
    rig.serve();
    assert_eq!(rig.device.poll_available(0), 8, "full");
    client.submit(&[client.read(0, 500, 1, 0), cancel(1, 0)]);
    rig.serve();
    assert_eq!(client.ends(), [(0, Status::Gone), (1, Status::Ok)]);
    client.submit(&[Submission { deadline: 5, ..client.read(0, 500, 1, 0) }]);
    rig.serve();
    rig.front.expire(&|| drv_virtio_block::platform::Nanos(6));
    rig.serve();
    assert_eq!(client.ends(), [(0, Status::TimedOut)]);
}
