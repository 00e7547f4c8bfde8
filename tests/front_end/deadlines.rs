//! Requests that are late.
use crate::fake::wire::block;
use crate::fake::{Config, Lie, RangeLimits};
use crate::rig::{World, barrier, range};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Completion, Operation, Submission};
use drv_virtio_block::platform::Nanos;

fn due(deadline: u64, wish: Submission) -> Submission {
    Submission { deadline, ..wish }
}

/// Tag, end, and whether late.
fn ends(done: &[Completion]) -> Vec<(u16, Status, bool)> {
    done.iter().map(|done| (done.tag, done.status, done.late)).collect()
}

#[test]
fn what_is_late_before_it_begins_never_does() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    rig.now.set(100);
    client.submit(&[due(99, client.write(0, 0, 1, 0)), due(100, client.write(1, 8, 1, 0)), client.write(2, 9, 1, 0)]);
    rig.serve();
    assert_eq!(ends(&client.take()), [(0, Status::TimedOut, false)]);
    let sectors: Vec<_> = rig.device.take(0, 99).iter().map(|one| one.sector).collect();
    assert_eq!(sectors, [8, 9], "due now is not late");
}

#[test]
fn what_waits_is_late_when_somebody_looks() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0), barrier(client.read(1, 1, 1, 512))]);
    client.submit(&[
        due(50, client.read(2, 2, 1, 1024)),
        due(60, client.read(3, 3, 1, 1536)),
        client.read(4, 4, 1, 2048),
    ]);
    rig.serve();
    rig.front.expire(&|| Nanos(50));
    rig.serve();
    assert_eq!(client.take(), []);
    rig.front.expire(&|| Nanos(51));
    rig.serve();
    assert_eq!(ends(&client.take()), [(2, Status::TimedOut, false)]);
    // Later than both others, which were never looked at again.
    rig.now.set(70);
    rig.settle();
    let done = [(0, Status::Ok, false), (3, Status::TimedOut, false), (1, Status::Ok, false), (4, Status::Ok, false)];
    let mut found = ends(&client.take());
    found.sort_by_key(|(tag, ..)| *tag);
    let mut expected = done.to_vec();
    expected.sort_by_key(|(tag, ..)| *tag);
    assert_eq!(found, expected);
    rig.front.expire(&|| panic!("nothing has a deadline any more"));
    assert_eq!(rig.ask(&client.read(2, 0, 1, 0), &mut client).status, Status::Ok, "the tag is free again");
}

#[test]
fn the_clock_is_not_asked_without_a_deadline() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0), barrier(client.read(1, 1, 1, 512)), client.read(2, 1, 1, 1024)]);
    for _ in 0..6 {
        rig.front.serve(&|| panic!("nobody has a deadline"));
        rig.device.process_all(0);
    }
    assert_eq!(client.ends().len(), 3);
}

#[test]
fn a_request_that_the_device_has_ends_as_it_ends_and_is_late_or_not() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let all = [10, 20, 30].map(|deadline| due(deadline, client.read((deadline / 10) as u16, 0, 1, deadline * 512)));
    client.submit(&all);
    client.submit(&[client.read(9, 0, 1, 0)]);
    rig.serve();
    rig.device.inject(0, Lie::Status(block::IOERR));
    rig.device.process_all(0);
    rig.now.set(25);
    rig.front.expire(&|| Nanos(25));
    rig.serve();
    let expected = [(1, Status::IoError, true), (2, Status::Ok, true), (3, Status::Ok, false), (9, Status::Ok, false)];
    assert_eq!(ends(&client.take()), expected);
}

#[test]
fn a_reset_ends_what_is_late_as_timed_out_and_the_rest_as_reset() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[due(10, client.read(0, 0, 1, 0)), due(90, client.read(1, 1, 1, 512)), client.read(2, 2, 1, 1024)]);
    rig.serve();
    rig.now.set(50);
    rig.reset();
    rig.serve();
    let mut done = ends(&client.take());
    done.sort_by_key(|(tag, ..)| *tag);
    assert_eq!(done, [(0, Status::TimedOut, true), (1, Status::Reset, false), (2, Status::Reset, false)]);
    assert_eq!(rig.ask(&client.read(0, 0, 1, 0), &mut client).status, Status::Ok);
}

#[test]
fn parts_stop_at_the_deadline() {
    let limits = RangeLimits { max_sectors: 16, max_segments: 1, alignment: 1 };
    let mut world = World::new(Config { discard: limits, ..Config::default() });
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[due(10, range(Operation::Discard, 1, 0, 160))]);
    for now in [5, 8, 12] {
        rig.now.set(now);
        rig.serve();
        rig.device.process_all(0);
    }
    rig.settle();
    assert_eq!(ends(&client.take()), [(1, Status::TimedOut, false)]);
    assert_eq!(rig.device.counts(0).taken, 2);
}
