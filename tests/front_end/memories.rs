//! Registered memory: ids, access, what keeps it, and lists in it.
use crate::fake::Config;
use crate::operations::list;
use crate::rig::{Rig, World, pattern};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Data, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::front_end::{Access, MAX_MEMORIES};
use drv_virtio_block::lib_block::message::SessionId;

#[test]
fn memory_that_the_device_may_only_read_is_not_written() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let only = rig.front.register(client.id, rig.grant(0, 4096, 4096, Access::Read)).unwrap();
    let piece = Piece { memory: only, offset: 0, len: 512 };
    for data in [Data::One(piece), Data::Two([client.piece(0, 512), piece]), Data::Two([piece, client.piece(0, 512)])] {
        let blocks = if matches!(data, Data::One(_)) { 1 } else { 2 };
        let wish = |operation| Submission { tag: 1, blocks, data, ..Submission::new(operation, 0) };
        assert_eq!(rig.ask(&wish(Operation::Read), &mut client).status, Status::Denied);
        assert_eq!(rig.ask(&wish(Operation::Write), &mut client).status, Status::Ok);
    }
    let beyond = Data::One(Piece { offset: 4096, ..piece });
    let wish = Submission { tag: 1, blocks: 1, data: beyond, ..Submission::new(Operation::Read, 0) };
    assert_eq!(rig.ask(&wish, &mut client).status, Status::OutOfRange);
    rig.device.assert_no_faults();
}

#[test]
fn an_id_that_was_given_up_names_nothing_although_its_place_is_taken_again() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let stale = client.all;
    rig.front.unregister(client.id, stale).unwrap();
    assert_eq!(rig.ask(&client.read(1, 0, 1, 0), &mut client).status, Status::NotFound);
    let fresh = rig.front.register(client.id, rig.grant(0, 0, 4096, Access::ReadWrite)).unwrap();
    assert_ne!(fresh, stale);
    assert_eq!(fresh.0 & 0xffff, stale.0 & 0xffff, "the same place");
    assert_eq!(rig.ask(&client.read(1, 0, 1, 0), &mut client).status, Status::NotFound);
    assert_eq!(rig.front.unregister(client.id, stale), Err(Status::NotFound));
    client.all = fresh;
    assert_eq!(rig.ask(&client.read(1, 0, 1, 0), &mut client).status, Status::Ok);
}

#[test]
fn places_for_memory_do_not_wear_out() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let client = rig.client(0, 16);
    let mut last = MemoryId(0);
    for cycle in 0..70_000 {
        let grant = rig.grant(0, 0, 4096, Access::ReadWrite);
        let id = rig.front.register(client.id, grant).unwrap_or_else(|why| panic!("{why:?} in cycle {cycle}"));
        assert!(id != last && id.0 >> 16 != 0, "{id:?} in cycle {cycle}");
        last = id;
        rig.front.unregister(client.id, id).unwrap();
    }
}

#[test]
fn sessions_do_not_wear_out() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut last = SessionId(0);
    for cycle in 0..66_000 {
        let client = rig.client(0, 2);
        assert!(client.id != last && client.id.0 >> 16 != 0, "{:?} in cycle {cycle}", client.id);
        last = client.id;
        rig.front.close(client.id).unwrap();
        rig.serve();
        assert!(!rig.front.is_open(last));
    }
}

#[test]
fn a_session_has_so_many_memories_and_no_more() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (client, other) = (rig.client(0, 16), rig.client(1, 16));
    let register = |rig: &mut Rig<'_>| {
        let grant = rig.grant(0, 0, 4096, Access::ReadWrite);
        rig.front.register(client.id, grant)
    };
    let ids: Vec<_> = (1..MAX_MEMORIES).map(|_| register(&mut rig).unwrap()).collect();
    assert_eq!(register(&mut rig), Err(Status::Busy));
    rig.front.unregister(client.id, ids[4]).unwrap();
    let again = register(&mut rig).unwrap();
    assert!(!ids.contains(&again));
    // The number is the session's own.
    assert_eq!(rig.front.unregister(other.id, again), Err(Status::NotFound));
}

#[test]
fn memory_in_flight_is_busy_until_the_answer_and_other_memory_is_not() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let ids = [0, 1, 2, 3].map(|at| {
        let grant = rig.grant(0, at << 14, 1 << 14, Access::ReadWrite);
        rig.front.register(client.id, grant).unwrap()
    });
    let piece = |at: usize, offset| Piece { memory: ids[at], offset, len: 512 };
    let pieces = [piece(0, 0), piece(1, 512), piece(0, 1024)];
    let data = list(&client, 3 << 14, &pieces);
    client.submit(&[Submission { tag: 1, blocks: 3, data, ..Submission::new(Operation::Read, 0) }]);
    client.submit(&[Submission {
        tag: 2,
        blocks: 1,
        data: Data::One(piece(2, 0)),
        ..Submission::new(Operation::Write, 9)
    }]);
    rig.serve();
    for id in &ids[..3] {
        assert_eq!(rig.front.unregister(client.id, *id), Err(Status::Busy));
    }
    assert_eq!(rig.front.unregister(client.id, ids[3]), Ok(()), "nothing names it");
    assert_eq!(rig.front.unregister(client.id, client.all), Ok(()), "the list in it was copied");
    rig.device.process_all(0);
    assert_eq!(rig.front.unregister(client.id, ids[1]), Err(Status::Busy), "nobody took the answer yet");
    rig.serve();
    for id in &ids[..3] {
        assert_eq!(rig.front.unregister(client.id, *id), Ok(()));
    }
    rig.device.assert_no_faults();
}

#[test]
fn memory_of_a_request_that_waits_is_busy_too() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(1, 0, 1, 0), crate::rig::barrier(crate::rig::flush(2))]);
    let other = rig.front.register(client.id, rig.grant(0, 0, 4096, Access::ReadWrite)).unwrap();
    let data = Data::One(Piece { memory: other, offset: 0, len: 512 });
    client.submit(&[Submission { tag: 3, blocks: 1, data, ..Submission::new(Operation::Write, 0) }]);
    rig.serve();
    assert_eq!(rig.front.unregister(client.id, other), Err(Status::Busy));
    client.submit(&[crate::rig::cancel(4, 3)]);
    rig.serve();
    assert_eq!(rig.front.unregister(client.id, other), Ok(()));
    rig.settle();
    assert_eq!(client.ends(), [(3, Status::Gone), (4, Status::Ok), (1, Status::Ok), (2, Status::Ok)]);
}

#[test]
fn a_list_that_is_changed_after_the_check_changes_nothing() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let pieces = [0, 1, 2].map(|at| client.piece(8192 + 1024 * at, 512));
    let data = list(&client, 0, &pieces);
    rig.device.put_disk(0, &pattern(1, 1536));
    // Behind a barrier, so that it is checked now and starts later.
    let wish = Submission { tag: 1, blocks: 3, data, ..Submission::new(Operation::Read, 0) };
    client.submit(&[client.read(0, 100, 1, 4096), crate::rig::barrier(wish)]);
    rig.serve();
    let elsewhere = [0, 1, 2].map(|at| Piece { offset: u64::MAX - 4096 * at, ..pieces[0] });
    list(&client, 0, &elsewhere);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok), (1, Status::Ok)]);
    let read: Vec<u8> = pieces.iter().flat_map(|piece| client.get(piece.offset, 512)).collect();
    assert_eq!(read, pattern(1, 1536));
    rig.device.assert_no_faults();
}

#[test]
fn lists_of_many_requests_in_flight_are_each_its_own() {
    let mut world = World::with(Config { capacity_sectors: 4096, ..Config::default() }, 1, 1 << 20);
    let mut rig = world.usual();
    let mut client = rig.client(0, 64);
    for tag in 0..64u16 {
        rig.device.put_disk(u64::from(tag) * 8, &pattern(tag.into(), 2048));
        let pieces = [0, 1, 2, 3].map(|at| client.piece((64 << 10) + u64::from(tag) * 8192 + 1536 * at, 512));
        // One list after the other in the same place: it is read when the entry is taken.
        let data = list(&client, 0, &pieces);
        client.submit(&[Submission { tag, blocks: 4, data, ..Submission::new(Operation::Read, u64::from(tag) * 8) }]);
        rig.serve();
    }
    let mut taken = rig.device.take(0, 99);
    crate::fake::Order::Shuffled(5).arrange(&mut taken);
    rig.device.complete(0, &taken);
    rig.settle();
    assert_eq!(client.take().iter().filter(|done| done.status == Status::Ok).count(), 64);
    for tag in 0..64u64 {
        let read: Vec<u8> = (0..4).flat_map(|at| client.get((64 << 10) + tag * 8192 + 1536 * at, 512)).collect();
        assert_eq!(read, pattern(tag, 2048), "{tag}");
    }
}
