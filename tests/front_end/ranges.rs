//! DISCARD and WRITE ZEROES above the device's limits: in parts, one at a time, others in between.
use crate::fake::wire::block;
use crate::fake::{Config, RangeLimits, Taken};
use crate::rig::{Rig, World, barrier, pattern, range};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Flags, Operation, Submission};

fn limited(max_sectors: u32, alignment: u32) -> Config {
    let limits = RangeLimits { max_sectors, max_segments: 1, alignment };
    Config { discard: limits, write_zeroes: limits, ..Config::default() }
}

/// The range of a chain: its one data segment is the range itself.
fn range_of(rig: &Rig<'_>, taken: &Taken) -> (u64, u32, u32) {
    let data = crate::oracle::segments(rig.memory, &rig.addresses, taken.head);
    let bytes = rig.memory.bytes(data[0].address, 16);
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    (u64::from_le_bytes(bytes[..8].try_into().unwrap()), half(8), half(12))
}

/// The parts that reach the device, one pass after the other; panics when two are there at once.
fn parts(rig: &mut Rig<'_>) -> Vec<(u64, u32, u32)> {
    let mut parts = Vec::new();
    loop {
        rig.serve();
        let taken = rig.device.take(0, 99);
        assert!(taken.len() <= 1, "one part at a time");
        let Some(one) = taken.first() else { return parts };
        parts.push(range_of(rig, one));
        rig.device.complete(0, &taken);
    }
}

/// First sector and sectors of each.
type Parts = &'static [(u64, u32)];

#[test]
fn a_range_above_the_limit_goes_in_parts_that_end_at_the_alignment() {
    let cases: &[(_, u32, u32, Parts)] = &[
        (Operation::Discard, 16, 8, &[(3, 13), (16, 16), (32, 11)]),
        (Operation::WriteZeroes, 16, 8, &[(3, 16), (19, 16), (35, 8)]),
        (Operation::Discard, 16, 1, &[(3, 16), (19, 16), (35, 8)]),
        (Operation::Discard, 100, 8, &[(3, 40)]),
        // An alignment that no part reaches: as much as is allowed.
        (Operation::Discard, 16, 64, &[(3, 16), (19, 16), (35, 8)]),
    ];
    for (operation, most, alignment, expected) in cases {
        let mut world = World::new(limited(*most, *alignment));
        let mut rig = world.usual();
        let mut client = rig.client(0, 16);
        rig.device.put_disk(0, &pattern(1, 50 * 512));
        client.submit(&[range(*operation, 5, 3, 40)]);
        let parts: Vec<_> = parts(&mut rig).iter().map(|(sector, sectors, _)| (*sector, *sectors)).collect();
        assert_eq!(parts, *expected, "{operation:?} {most} {alignment}");
        assert_eq!(client.ends(), [(5, Status::Ok)]);
        let disk = rig.device.disk(0, 50);
        assert!(disk[..3 * 512] == pattern(1, 50 * 512)[..3 * 512]);
        assert!(disk[43 * 512..] == pattern(1, 50 * 512)[43 * 512..]);
        rig.device.assert_no_faults();
    }
}

#[test]
fn every_part_may_unmap_as_the_request_said() {
    for flags in [Flags(0), Flags::UNMAP] {
        let mut world = World::new(limited(16, 1));
        let mut rig = world.usual();
        let mut client = rig.client(0, 16);
        client.submit(&[Submission { flags, ..range(Operation::WriteZeroes, 5, 0, 40) }]);
        let unmaps: Vec<_> = parts(&mut rig).iter().map(|(_, _, unmap)| *unmap).collect();
        assert_eq!(unmaps, [u32::from(flags == Flags::UNMAP); 3]);
    }
}

#[test]
fn parts_are_whole_blocks() {
    let mut world = World::new(Config { blk_size: 4096, ..limited(20, 1) });
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[range(Operation::Discard, 5, 1, 5)]);
    let parts: Vec<_> = parts(&mut rig).iter().map(|(sector, sectors, _)| (*sector, *sectors)).collect();
    assert_eq!(parts, [(8, 16), (24, 16), (40, 8)]);
    assert_eq!(client.ends(), [(5, Status::Ok)]);
    rig.device.assert_no_faults();
}

#[test]
fn others_are_served_between_the_parts() {
    let mut world = World::new(limited(16, 1));
    let mut rig = world.usual();
    let (mut client, mut other) = (rig.client(0, 16), rig.client(1, 16));
    client.submit(&[range(Operation::Discard, 5, 0, 160)]);
    rig.serve();
    for part in 0..10 {
        other.submit(&[other.read(0, 1000, 1, 0)]);
        client.submit(&[client.read(1, 500, 1, 0)]);
        rig.serve();
        let taken = rig.device.take(0, 99);
        assert_eq!(taken.iter().filter(|one| one.kind == block::DISCARD).count(), 1, "part {part}");
        rig.device.complete(0, &taken);
        rig.serve();
        assert_eq!(other.ends(), [(0, Status::Ok)]);
        assert_eq!(client.ends().first(), Some(&if part == 9 { (5, Status::Ok) } else { (1, Status::Ok) }));
    }
    rig.settle();
    assert_eq!(client.take(), []);
    rig.device.assert_no_faults();
}

#[test]
fn the_first_part_that_fails_ends_the_request() {
    let mut world = World::new(limited(16, 1));
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[range(Operation::Discard, 5, 0, 160)]);
    for _ in 0..2 {
        rig.serve();
        assert_eq!(rig.device.process_all(0), 1);
    }
    rig.device.inject(0, crate::fake::Lie::Status(block::IOERR));
    rig.settle();
    assert_eq!(client.ends(), [(5, Status::IoError)]);
    assert_eq!(rig.device.counts(0).taken, 3);
    assert_eq!(rig.ask(&client.read(5, 0, 1, 0), &mut client).status, Status::Ok, "the tag is free again");
}

#[test]
fn only_the_first_part_of_a_barrier_waits() {
    let mut world = World::new(limited(16, 1));
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[barrier(range(Operation::Discard, 5, 0, 48)), client.read(6, 500, 1, 0)]);
    rig.serve();
    let taken = rig.device.take(0, 99);
    assert_eq!(taken.iter().map(|one| one.kind).collect::<Vec<_>>(), [block::DISCARD, block::IN]);
    rig.device.complete(0, &taken[..1]);
    rig.serve();
    let part: Vec<_> = rig.device.take(0, 99).iter().map(|one| one.kind).collect();
    assert_eq!(part, [block::DISCARD], "the read came later, and is not waited for");
    rig.device.complete_all(0, crate::fake::Order::AsTaken);
    rig.settle();
    assert_eq!(client.ends(), [(6, Status::Ok), (5, Status::Ok)]);
}

#[test]
fn parts_that_are_between_two_turns_end_with_the_session() {
    let mut world = World::new(limited(16, 1));
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[range(Operation::Discard, 5, 0, 160)]);
    rig.serve();
    rig.front.close(client.id).unwrap();
    rig.serve();
    assert!(rig.front.is_open(client.id), "the device has the first part");
    assert_eq!(rig.device.process_all(0), 1);
    rig.serve();
    assert_eq!(client.ends(), [(5, Status::Gone)], "only a part of it was done");
    assert!(!rig.front.is_open(client.id));
    assert_eq!(rig.device.counts(0).taken, 1);
}
