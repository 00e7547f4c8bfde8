//! Calls of sessions that are served: what they give, and that nobody waits for them but who asked.
use crate::fake::wire::features;
use crate::fake::{Config, Lie, Order};
use crate::rig::{ALL, Ground, PATIENCE, Peer, Private, ask, driver, opening, pattern, read, with_memory, word, write};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{MemoryId, Operation, Submission};
use drv_virtio_block::lib_block::front_end::{Access, MAX_MEMORIES};
use drv_virtio_block::lib_block::message::{Body, Extent, Given, Info, Rights};
use drv_virtio_block::lib_block::message::{Capability, Opening};
use drv_virtio_block::lib_block::ring::{ClientEnd, Stage};
use drv_virtio_block::platform::Platform;
use drv_virtio_block::service::Beside;
use drv_virtio_block::spec::Features;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

const READ: Body = Body::Read { lba: 0, blocks: 8 };

#[test]
fn get_info_says_what_the_device_is() {
    let traits = Info::WRITE_CACHE | Info::DISCARD | Info::WRITE_ZEROES;
    let cases = [
        (Config::default(), traits),
        (Config::default().with(features::RO), traits | Info::READ_ONLY),
        (Config { blk_size: 4096, ..Config::default() }, traits),
        (Config { writeback: false, ..Config::default() }, Info::DISCARD | Info::WRITE_ZEROES),
        (Config::default().without(features::DISCARD), Info::WRITE_CACHE | Info::WRITE_ZEROES),
        (Config::default().without(features::WRITE_ZEROES | features::EVENT_IDX), Info::WRITE_CACHE | Info::DISCARD),
        (Config::default().without(features::FLUSH | features::CONFIG_WCE), Info::DISCARD | Info::WRITE_ZEROES),
    ];
    for (config, traits) in cases {
        let (block, offered, id) = (config.blk_size, config.features, config.id);
        let ground = Ground::new(config);
        let mut private = Private::new();
        let mut service = ground.started(&mut private);
        let peer = Peer::new(&mut service, &ground, 0, opening(8, 100));
        let expected = Info {
            blocks: 100,
            block_size: block,
            max_blocks: (1 << 20) / block,
            max_pieces: 16,
            traits,
            generation: 0,
            epoch: 1,
            features: offered & Features::IMPLEMENTED.0,
            identity: id,
        };
        let info = ask(&mut service, peer.opened.session, Body::GetInfo, Beside::default());
        assert_eq!(info, Ok(Given::Info(expected)));
        assert_eq!(peer.opened.info, expected);
        ground.device.assert_no_faults();
    }
}

#[test]
fn a_device_that_does_not_tell_its_name_has_none() {
    for lie in [Lie::Status(1), Lie::Status(2), Lie::UsedLen(10), Lie::Never, Lie::IdOutOfRange] {
        let ground = Ground::new(Config::default());
        ground.soil(0x77);
        let mut private = Private::new();
        let mut service = ground.service(&mut private, crate::rig::envelope());
        ground.device.inject(0, lie);
        assert_eq!(service.start(), Ok(()), "{lie:?}");
        let reset = matches!(lie, Lie::Never | Lie::IdOutOfRange);
        assert_eq!(service.resets(), u64::from(reset), "{lie:?}");
        let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 64));
        assert_eq!(peer.opened.info.identity, [0; 20], "{lie:?}");
        peer.submit(&[write(0, 0, 0)]);
        service.pass();
        ground.device.process_all(0);
        service.pass();
        assert_eq!(peer.answers(), [(0, Status::Ok)]);
        ground.device.assert_no_faults();
    }
}

#[test]
fn read_write_and_flush_move_what_they_say() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let peer = Peer::new(&mut service, &ground, 0, opening(100, 1000));
    let id = peer.opened.session;
    ground.put(4, &pattern(4, 8192));
    let write = Body::Write { lba: 10, blocks: 16, fua: false };
    let granted = ground.grant(4, 2, Access::Read);
    assert_eq!(with_memory(&mut service, id, write, granted), Ok(Given::Moved(8192)));
    assert_eq!(ground.device.disk(110, 16), pattern(4, 8192), "through the session's extent");
    assert_eq!(ground.device.unstable_sectors(), 16);
    assert_eq!(ask(&mut service, id, Body::Flush, Beside::default()), Ok(Given::Moved(0)));
    assert_eq!(ground.device.unstable_sectors(), 0);
    let read = Body::Read { lba: 12, blocks: 8 };
    let granted = ground.grant(9, 2, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, id, read, granted), Ok(Given::Moved(4096)), "of a larger grant");
    assert_eq!(ground.bytes(9, 4096), pattern(4, 8192)[1024..1024 + 4096]);
    assert_eq!(ground.bytes(10, 4096), [0; 4096]);
    let durably = Body::Write { lba: 0, blocks: 8, fua: true };
    assert_eq!(with_memory(&mut service, id, durably, ground.grant(5, 1, Access::Read)), Ok(Given::Moved(4096)));
    assert_eq!(ground.device.unstable_sectors(), 0);
    ground.device.assert_no_faults();
}

#[test]
fn a_capability_to_several_extents_is_numbered_through() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let extents = [Extent { first: 64, blocks: 16 }, Extent { first: 8, blocks: 8 }];
    let capability = Capability::new(Rights::ALL, &extents).unwrap();
    let peer = Peer::new(&mut service, &ground, 0, Opening { capability, ..opening(0, 1) });
    let id = peer.opened.session;
    ground.put(0, &pattern(1, 4096));
    let grant = || ground.grant(0, 1, Access::Read);
    let at = |lba| Body::Write { lba, blocks: 8, fua: false };
    assert_eq!(with_memory(&mut service, id, at(16), grant()), Ok(Given::Moved(4096)));
    assert_eq!(ground.device.disk(8, 8), pattern(1, 4096));
    assert_eq!(with_memory(&mut service, id, at(12), grant()), Err(Status::OutOfRange), "across two of them");
    assert_eq!(with_memory(&mut service, id, at(24), grant()), Err(Status::OutOfRange));
}

#[test]
fn memory_is_registered_and_forgotten_when_nothing_names_it() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    let id = peer.opened.session;
    let mut ids = Vec::new();
    for _ in 1..MAX_MEMORIES {
        let Ok(Given::Registered(memory)) = with_memory(&mut service, id, Body::Register, ground.all()) else {
            panic!("room for {MAX_MEMORIES}")
        };
        assert!(memory != ALL && !ids.contains(&memory));
        ids.push(memory);
    }
    assert_eq!(with_memory(&mut service, id, Body::Register, ground.all()), Err(Status::Busy));
    peer.submit(&[read(0, 0, 0)]);
    service.pass();
    let mut forget = |memory| ask(&mut service, id, Body::Unregister { memory }, Beside::default());
    assert_eq!(forget(ALL), Err(Status::Busy), "the device has it");
    assert_eq!(forget(ids[3]), Ok(Given::Nothing));
    assert_eq!(forget(ids[3]), Err(Status::NotFound));
    assert_eq!(forget(MemoryId(0)), Err(Status::NotFound));
    ground.device.process_all(0);
    service.pass();
    let mut forget = |memory| ask(&mut service, id, Body::Unregister { memory }, Beside::default());
    assert_eq!(forget(ALL), Ok(Given::Nothing));
    assert_eq!(peer.answers(), [(0, Status::Ok)]);
    peer.submit(&[read(1, 0, 0)]);
    service.pass();
    assert_eq!(peer.answers(), [(1, Status::NotFound)]);
}

#[test]
fn close_ends_the_session_once_the_device_gave_everything_back() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    let id = peer.opened.session;
    peer.submit(&[write(0, 0, 0), read(1, 8, 1)]);
    service.pass();
    assert_eq!(ask(&mut service, id, Body::Close, Beside::default()), Ok(Given::Nothing));
    assert_eq!(peer.answers(), [(0, Status::Ok), (1, Status::Ok)]);
    assert_eq!(peer.end.announcement().stage, Stage::Ended);
    assert_eq!(ask(&mut service, id, Body::Close, Beside::default()), Err(Status::NotFound));
    assert_eq!(ask(&mut service, id, Body::GetInfo, Beside::default()), Err(Status::NotFound));
    assert_eq!(driver(&mut service).sessions, 0);
    let again = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    assert_ne!(again.opened.session, id, "numbers are not used again at once");
}

#[test]
fn a_ring_client_goes_on_while_a_call_waits() {
    let ground = Ground::for_good(Config::default());
    let mut service = ground.started(Private::for_good());
    let caller = Peer::new(&mut service, ground, 0, opening(0, 512));
    let mut end = Peer::new(&mut service, ground, 1, opening(512, 512)).end;
    let done = Rc::new(Cell::new(0));
    let count = Rc::clone(&done);
    let mut turns = 0;
    // The call's chain is the first; it stays with the device while the others come and go.
    ground.desk.while_relaxing(move || {
        turns += 1;
        ground.device.take(0, usize::MAX);
        let held = ground.device.in_flight(0);
        ground.device.complete(0, &held[1.min(held.len())..]);
        count.set(count.get() + work(&mut end, turns));
        if turns == 60 {
            ground.device.complete_all(0, Order::AsTaken);
        }
    });
    let answer = with_memory(&mut service, caller.opened.session, READ, ground.grant(0, 1, Access::ReadWrite));
    assert_eq!(answer, Ok(Given::Moved(4096)));
    assert!(done.get() >= 50, "{} writes went by", done.get());
    assert_eq!(service.resets(), 0);
}

/// A turn of a client that writes all the time; how many writes were answered.
fn work(end: &mut ClientEnd<'_>, turn: u16) -> u32 {
    let ready = end.look().unwrap();
    end.consume(ready);
    end.stage(write(turn % 8, u64::from(turn % 64), 1).encode());
    let _ = end.publish();
    ready
}

#[test]
fn a_call_to_a_silent_device_ends_with_its_patience_and_a_reset() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    ground.desk.while_relaxing(|| ());
    peer.submit(&[write(0, 0, 1)]);
    let before = ground.desk.now();
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, peer.opened.session, READ, grant()), Err(Status::Reset));
    let took = ground.desk.now().0 - before.0;
    assert!((PATIENCE.0..PATIENCE.0 + 3_000_000).contains(&took), "{took} ns");
    assert_eq!(service.resets(), 1);
    assert_eq!(peer.answers(), [(0, Status::Reset)]);
    ground.serve_while_relaxing();
    assert_eq!(with_memory(&mut service, peer.opened.session, READ, grant()), Ok(Given::Moved(4096)));
    ground.device.assert_no_faults();
}

#[test]
fn a_call_that_the_device_forgot_ends_though_others_are_answered() {
    let ground = Ground::for_good(Config::default());
    let mut service = ground.started(Private::for_good());
    let peer = Peer::new(&mut service, ground, 0, opening(0, 512));
    let mut end = Peer::new(&mut service, ground, 1, opening(512, 512)).end;
    let mut turns = 0;
    ground.device.inject(0, Lie::Never);
    ground.desk.while_relaxing(move || {
        turns += 1;
        ground.device.process_all(0);
        work(&mut end, turns);
    });
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, peer.opened.session, READ, grant()), Err(Status::Reset));
    assert_eq!(service.resets(), 1);
}

#[test]
fn a_session_that_breaks_off_takes_its_call_along() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let (device, memory) = (ground.device.clone(), Arc::clone(ground.device.memory()));
    let tail = ground.ring_address(0, word::SUBMISSION_TAIL);
    let mut turns = 0;
    // The client's index jumps while the device has the call.
    ground.desk.while_relaxing(move || {
        turns += 1;
        if turns == 2 {
            memory.put(tail, &0x7000_0000_u64.to_le_bytes());
        }
        if turns == 5 {
            device.process_all(0);
        }
    });
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, peer.opened.session, READ, grant()), Err(Status::Gone));
    assert_eq!((driver(&mut service).sessions, driver(&mut service).ended), (0, 1));
    assert_eq!(service.resets(), 0);
}

#[test]
fn a_call_waits_for_its_turn_like_a_request() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let barrier = Submission { tag: 2, ..Submission::new(Operation::Flush, 0) };
    peer.submit(&[write(0, 0, 1), barrier]);
    let grant = || ground.grant(0, 1, Access::ReadWrite);
    assert_eq!(with_memory(&mut service, peer.opened.session, READ, grant()), Ok(Given::Moved(4096)));
    assert_eq!(peer.answers(), [(0, Status::Ok), (2, Status::Ok)]);
}
