//! Barriers and flushes, as the device sees them.
use crate::fake::wire::block;
use crate::fake::{Config, Taken};
use crate::rig::{Rig, World, barrier, flush, pattern};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::Body;

fn took(rig: &mut Rig<'_>) -> Vec<Taken> {
    rig.serve();
    rig.device.take(0, 99)
}

fn sectors(taken: &[Taken]) -> Vec<u64> {
    taken.iter().map(|one| one.sector).collect()
}

#[test]
fn a_barrier_begins_once_everything_before_it_was_answered() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 10, 1, 0), client.read(1, 11, 1, 512), barrier(client.write(2, 12, 1, 1024))]);
    client.submit(&[client.read(3, 13, 1, 1536), barrier(flush(4)), client.read(5, 14, 1, 2048)]);
    let first = took(&mut rig);
    assert_eq!(sectors(&first), [10, 11], "nothing passes the barrier");
    rig.device.complete(0, &first[1..]);
    assert_eq!(took(&mut rig), [], "not all of them");
    rig.device.complete(0, &first[..1]);
    let second = took(&mut rig);
    assert_eq!(sectors(&second), [12, 13], "and what came behind it runs beside it");
    rig.device.complete(0, &second);
    let third = took(&mut rig);
    assert_eq!((third[0].kind, sectors(&third)), (block::FLUSH, vec![0, 14]));
    rig.device.complete(0, &third);
    rig.serve();
    let tags: Vec<_> = client.ends().iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags, [1, 0, 2, 3, 4, 5]);
    rig.device.assert_no_faults();
}

#[test]
fn a_barrier_of_one_client_is_nothing_to_another() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut client, mut other) = (rig.client(0, 16), rig.client(1, 16));
    other.submit(&[other.read(0, 50, 1, 0)]);
    assert_eq!(sectors(&took(&mut rig)), [50]);
    client.submit(&[barrier(client.write(0, 12, 1, 0))]);
    assert_eq!(sectors(&took(&mut rig)), [12], "it has nothing of its own before it");
    client.submit(&[barrier(client.write(1, 13, 1, 512))]);
    other.submit(&[other.read(1, 51, 1, 512)]);
    assert_eq!(sectors(&took(&mut rig)), [51]);
}

#[test]
fn a_barrier_waits_for_parts_and_durable_writes_to_the_end() {
    let limits = crate::fake::RangeLimits { max_sectors: 16, max_segments: 1, alignment: 1 };
    let mut world = World::new(Config { discard: limits, ..Config::default() });
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let discard = crate::rig::range(drv_virtio_block::lib_block::entry::Operation::Discard, 0, 0, 48);
    let durably = drv_virtio_block::lib_block::entry::Submission {
        flags: drv_virtio_block::lib_block::entry::Flags::FUA,
        ..client.write(1, 100, 1, 0)
    };
    client.submit(&[discard, durably, barrier(client.read(2, 200, 1, 512))]);
    let mut kinds = Vec::new();
    loop {
        let taken = took(&mut rig);
        if taken.is_empty() {
            break;
        }
        kinds.push(taken.iter().map(|one| one.kind).collect::<Vec<_>>());
        rig.device.complete(0, &taken);
    }
    let expected =
        [vec![block::DISCARD, block::OUT], vec![block::FLUSH, block::DISCARD], vec![block::DISCARD], vec![block::IN]];
    assert_eq!(kinds, expected);
}

#[test]
fn a_flush_waits_for_none_and_passes_none() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut client, mut other) = (rig.client(0, 16), rig.client(1, 16));
    client.put(0, &pattern(1, 512));
    client.submit(&[client.write(0, 10, 1, 0)]);
    let answered = took(&mut rig);
    rig.device.complete(0, &answered);
    rig.serve();
    assert_eq!(client.ends(), [(0, Status::Ok)]);
    client.submit(&[client.write(1, 11, 1, 0)]);
    let unanswered = took(&mut rig);
    other.submit(&[flush(0)]);
    client.submit(&[client.write(2, 12, 1, 0)]);
    let later = took(&mut rig);
    assert_eq!(later.iter().filter(|one| one.kind == block::FLUSH).count(), 1, "it is with the device already");
    rig.device.complete(0, &later);
    rig.device.complete(0, &unanswered);
    rig.serve();
    assert_eq!(other.ends(), [(0, Status::Ok)]);
    rig.device.power_cut();
    assert_eq!(rig.device.disk(10, 1), pattern(1, 512), "answered before, by another client");
    rig.device.assert_no_faults();
}

#[test]
fn a_barrier_waits_for_the_call_before_it() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let grant = rig.grant(0, 8192, 512, Access::ReadWrite);
    rig.front.begin_call(client.id, &Body::Read { lba: 70, blocks: 1 }, Some(grant)).unwrap();
    let call = took(&mut rig);
    client.submit(&[barrier(client.read(1, 71, 1, 0))]);
    assert_eq!(took(&mut rig), []);
    rig.device.complete(0, &call);
    assert_eq!(sectors(&took(&mut rig)), [71]);
}
