//! A new life over the same rings, and a reset within one.
use crate::fake::{Config, Order};
use crate::rig::{Rig, World, barrier, flush, opening, pattern, range};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Data, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::Rights;
use drv_virtio_block::lib_block::ring::{Announcement, Stage};

#[test]
fn a_new_life_over_the_same_rings_answers_what_is_asked_in_it_and_nothing_else() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    rig.device.put_disk(0, &pattern(1, 8192));
    for life in 2..6u32 {
        let lost: Vec<_> = (0..8).map(|tag| client.read(tag, tag.into(), 1, 4096 + 512 * u64::from(tag))).collect();
        client.submit(&lost);
        rig.serve();
        // Some are answered and not taken by the client, some answered by the device alone, some not at all.
        let taken = rig.device.take(0, 99);
        rig.device.complete(0, &taken[..3]);
        rig.serve();
        rig.device.complete(0, &taken[3..5]);
        client.submit(&[flush(9)]);
        rig.restart();
        let known = [(client.all, rig.grant(0, 0, 256 << 10, Access::ReadWrite))];
        let again = opening(16, Rights::ALL, &[(0, 2048)]);
        client.id = rig.front.open(&again, rig.rings(0, 16), known).unwrap().session;
        assert_eq!(client.end.announcement(), Announcement { epoch: life, stage: Stage::Serving });
        rig.sleep();
        // The completions that are left are of the old life, all three.
        let old = client.take();
        assert!(
            old.len() == 3 && old.iter().all(|done| done.epoch == life - 1 && done.status == Status::Ok),
            "{old:?}"
        );
        rig.settle();
        assert_eq!(rig.device.poll_available(0), 0, "nothing begins before the client says from where");
        // What was lost is asked again, under the same tags and the same memory, before the word that goes along.
        client.end.acknowledge(life);
        client.submit(&lost);
        rig.settle();
        let new = client.take();
        assert_eq!(new.len(), 8, "{new:?}");
        assert!(new.iter().all(|done| done.epoch == life && done.status == Status::Ok));
        assert_eq!(client.get(4096, 4096), pattern(1, 8192)[..4096]);
    }
    rig.device.assert_no_faults();
}

#[test]
fn a_client_that_goes_along_with_an_old_life_is_waited_for() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    rig.restart();
    let again = opening(16, Rights::ALL, &[(0, 2048)]);
    client.id = rig.front.open(&again, rig.rings(0, 16), []).unwrap().session;
    client.end.acknowledge(1);
    client.submit(&[flush(0)]);
    rig.sleep();
    client.end.acknowledge(3);
    client.submit(&[flush(1)]);
    rig.sleep();
    assert_eq!(rig.device.poll_available(0), 0);
    client.end.acknowledge(2);
    client.submit(&[flush(2)]);
    rig.settle();
    assert_eq!(client.ends(), [(2, Status::Ok)]);
}

#[test]
fn memory_is_known_under_its_old_number_and_new_memory_gets_another() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    rig.restart();
    let old = MemoryId(7 << 16 | 3);
    let known = [(old, rig.grant(0, 8192, 4096, Access::Read))];
    let again = opening(16, Rights::ALL, &[(0, 2048)]);
    client.id = rig.front.open(&again, rig.rings(0, 16), known).unwrap().session;
    client.end.acknowledge(2);
    let data = Data::One(Piece { memory: old, offset: 0, len: 512 });
    let wish = |operation| Submission { tag: 1, blocks: 1, data, ..Submission::new(operation, 5) };
    client.put(8192, &pattern(2, 512));
    assert_eq!(rig.ask(&wish(Operation::Write), &mut client).status, Status::Ok);
    assert_eq!(rig.device.disk(5, 1), pattern(2, 512));
    assert_eq!(rig.ask(&wish(Operation::Read), &mut client).status, Status::Denied);
    assert_eq!(rig.ask(&client.read(1, 0, 1, 0), &mut client).status, Status::NotFound, "nobody told of that");
    let register = |rig: &mut Rig<'_>| {
        let grant = rig.grant(0, 0, 4096, Access::ReadWrite);
        rig.front.register(client.id, grant)
    };
    let new: Vec<_> = (0..15).map(|_| register(&mut rig).unwrap()).collect();
    assert!(!new.contains(&old));
    assert_eq!(rig.front.unregister(client.id, old), Ok(()));
    assert_ne!(register(&mut rig), Ok(old));
}

#[test]
fn a_reset_within_a_life_answers_exactly_what_was_in_flight_and_goes_on() {
    let limits = crate::fake::RangeLimits { max_sectors: 16, max_segments: 1, alignment: 1 };
    let mut world = World::new(Config { discard: limits, ..Config::default() });
    let mut rig = world.usual();
    let (mut one, mut two) = (rig.client(0, 16), rig.client(1, 16));
    rig.device.put_disk(0, &pattern(1, 4096));
    one.submit(&[one.read(0, 0, 1, 0), one.write(1, 8, 1, 512), flush(2), range(Operation::Discard, 3, 16, 40)]);
    one.submit(&[barrier(one.read(4, 3, 1, 1024)), one.read(5, 4, 1, 1536)]);
    two.submit(&[two.read(0, 0, 1, 0), two.read(1, 1, 1, 512)]);
    rig.serve();
    let taken = rig.device.take(0, 99);
    assert_eq!(taken.len(), 6);
    // One answer is taken, one is there and believed lost.
    rig.device.complete(0, &taken[..1]);
    rig.serve();
    rig.device.complete(0, &taken[1..2]);
    rig.reset();
    rig.serve();
    let sorted = |mut ends: Vec<(u16, Status)>| {
        ends.sort_by_key(|(tag, _)| *tag);
        ends
    };
    let reset = [(0, Status::Ok), (1, Status::Reset), (2, Status::Reset), (3, Status::Reset)];
    assert_eq!(sorted(one.ends()), reset);
    assert_eq!(sorted(two.ends()), [(0, Status::Reset), (1, Status::Reset)]);
    rig.settle();
    assert_eq!(one.ends(), [(4, Status::Ok), (5, Status::Ok)], "what waited begins over the new queue");
    assert_eq!(one.get(1024, 512), pattern(1, 4096)[3 * 512..4 * 512]);
    for tag in 0..16 {
        assert_eq!(rig.ask(&one.read(tag, 0, 1, 0), &mut one).status, Status::Ok, "every tag is free");
    }
    rig.device.assert_no_faults();
}

#[test]
fn without_a_queue_nothing_begins_and_nothing_is_lost() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let queue = rig.stop();
    client.submit(&[client.read(0, 0, 1, 0)]);
    rig.serve();
    assert!(!rig.front.begin_flush());
    let again = opening(16, Rights::ALL, &[(0, 8)]);
    assert_eq!(rig.front.open(&again, rig.rings(1, 16), []).unwrap_err(), Status::Gone);
    assert_eq!(rig.front.info(client.id).unwrap_err(), Status::Gone);
    rig.go_on(queue);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok)]);
}

#[test]
fn a_device_that_breaks_the_queue_is_reset_and_everybody_goes_on() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut one, mut two) = (rig.client(0, 16), rig.client(1, 16));
    for lie in [crate::fake::Lie::IdOutOfRange, crate::fake::Lie::IndexAhead(99), crate::fake::Lie::StatusUnwritten] {
        one.submit(&[one.read(0, 0, 1, 0), one.read(1, 1, 1, 512)]);
        two.submit(&[two.read(0, 0, 1, 0)]);
        rig.serve();
        rig.device.inject(0, lie);
        rig.device.take(0, 1);
        rig.device.complete_all(0, Order::AsTaken);
        rig.serve();
        assert!(rig.front.is_broken(), "{lie:?}");
        two.submit(&[two.read(1, 1, 1, 512)]);
        rig.serve();
        rig.reset();
        rig.settle();
        assert_eq!(one.ends().len(), 2, "{lie:?}");
        assert_eq!(two.ends(), [(0, Status::Reset), (1, Status::Ok)], "what came meanwhile waited");
    }
}

#[test]
fn the_drivers_own_requests_are_nobody_elses() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0)]);
    assert!(rig.front.begin_flush());
    assert_eq!(rig.front.own_outcome(), None);
    rig.settle();
    assert_eq!((rig.front.own_outcome(), rig.front.own_outcome()), (Some(Status::Ok), None));
    assert_eq!(client.ends(), [(0, Status::Ok)]);
    assert!(rig.front.begin_flush());
    rig.reset();
    assert_eq!(rig.front.own_outcome(), Some(Status::IoError));
}
