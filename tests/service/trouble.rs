//! Devices that break their queue, ask for a reset, or fall silent: reset, answered, and on with the same sessions.
use crate::fake::{Config, Lie, ResetBehaviour};
use crate::rig::{Ground, PATIENCE, Peer, Private, Tested, driver, opening, pattern, read, write};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Operation, Submission};
use drv_virtio_block::platform::{Badges, Platform};

/// Two writes and a read that work.
#[track_caller]
fn works(service: &mut Tested<'_>, ground: &Ground, peer: &mut Peer<'_>, seed: u64) {
    ground.put(0, &pattern(seed, 4096));
    peer.submit(&[write(5, 64, 0)]);
    service.pass();
    ground.device.process_all(0);
    service.pass();
    assert_eq!(peer.answers(), [(5, Status::Ok)]);
    peer.submit(&[read(5, 64, 1)]);
    service.pass();
    ground.device.process_all(0);
    service.pass();
    let done = peer.reap();
    assert_eq!((done.len(), done[0].status, done[0].bytes, done[0].epoch), (1, Status::Ok, 4096, 1));
    assert_eq!(ground.bytes(1, 4096), pattern(seed, 4096));
}

#[test]
fn a_device_that_breaks_its_queue_is_reset_and_the_sessions_go_on() {
    let lies = [
        Lie::IdOutOfRange,
        Lie::IdNotInFlight,
        Lie::IdTwice,
        Lie::IdOfDataDescriptor,
        Lie::UsedId(u32::MAX),
        Lie::IndexAhead(100),
        Lie::IndexBack(3),
    ];
    for lie in lies {
        let ground = Ground::new(Config::default());
        let mut private = Private::new();
        let mut service = ground.started(&mut private);
        let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
        let mut other = Peer::new(&mut service, &ground, 1, opening(512, 512));
        for round in 1..4 {
            peer.submit(&[write(0, 0, 2), read(1, 8, 3)]);
            other.submit(&[read(3, 8, 4)]);
            service.pass();
            let taken = ground.device.take(0, 3);
            ground.device.inject(0, lie);
            ground.device.complete(0, &taken[..1]);
            service.pass();
            let mut answers = peer.answers();
            answers.extend(other.answers());
            assert_eq!(answers.len(), 3, "{lie:?}: {answers:?}");
            assert!(answers.iter().filter(|(_, status)| *status == Status::Reset).count() >= 2, "{lie:?}: {answers:?}");
            assert_eq!(service.resets(), round, "{lie:?}");
            works(&mut service, &ground, &mut peer, round);
        }
        assert_eq!(driver(&mut service).sessions, 2);
        ground.device.assert_no_faults();
    }
}

#[test]
fn answers_of_a_reset_are_posted_with_it() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    peer.submit(&[write(0, 0, 2)]);
    service.pass();
    ground.bells.take();
    let announced = peer.end.announcement();
    assert!(!peer.end.arm(1, announced));
    ground.device.inject(0, Lie::IdOutOfRange);
    ground.device.process_all(0);
    service.pass();
    assert_eq!(ground.bells.take(), [peer.opened.session.0 as u16], "rung, since the client sleeps");
    assert_eq!(peer.answers(), [(0, Status::Reset)]);
}

#[test]
fn a_device_that_asks_for_a_reset_gets_one() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    peer.submit(&[write(0, 0, 2), read(1, 8, 3)]);
    service.pass();
    let taken = ground.device.take(0, 2);
    ground.device.complete(0, &taken[1..]);
    ground.device.need_reset();
    service.wait(Badges::NONE, None);
    service.pass();
    assert_eq!(peer.answers(), [(0, Status::Reset), (1, Status::Reset)], "what it last said is not trusted");
    assert_eq!(service.resets(), 1);
    works(&mut service, &ground, &mut peer, 1);
    ground.device.assert_no_faults();
}

#[test]
fn a_silent_device_is_reset_when_patience_ends_and_not_before() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    for round in 1..4 {
        peer.submit(&[write(0, 0, 2), read(1, 8, 3)]);
        service.pass();
        let begin = ground.desk.now();
        while service.resets() < round {
            assert!(ground.desk.now().0 <= begin.0 + PATIENCE.0, "it takes longer");
            service.wait(Badges::NONE, None);
            service.pass();
        }
        assert_eq!(ground.desk.now().0, begin.0 + PATIENCE.0);
        assert_eq!(peer.answers(), [(0, Status::Reset), (1, Status::Reset)]);
        works(&mut service, &ground, &mut peer, round);
        // Idle for as long as it likes.
        ground.desk.pass_time(PATIENCE);
        ground.desk.pass_time(PATIENCE);
        service.wait(Badges::NONE, Some(ground.desk.now()));
        assert_eq!(service.resets(), round);
    }
    ground.device.assert_no_faults();
}

#[test]
fn answers_keep_a_slow_device_from_being_reset() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let entries: Vec<_> = (0..8).map(|tag| write(tag, 8 * u64::from(tag), tag.into())).collect();
    peer.submit(&entries);
    service.pass();
    let taken = ground.device.take(0, 8);
    for one in &taken {
        service.wait(Badges::NONE, Some(ground.desk.now().after(drv_virtio_block::platform::Nanos(PATIENCE.0 - 1))));
        ground.device.complete(0, std::slice::from_ref(one));
        service.pass();
    }
    assert_eq!((peer.answers().len(), service.resets()), (8, 0));
    // And what came just before its end counts.
    peer.submit(&[write(0, 0, 2)]);
    service.pass();
    let device = ground.device.clone();
    service.wait(Badges::NONE, Some(ground.desk.now()));
    ground.desk.pass_time(PATIENCE);
    device.process_all(0);
    service.wait(Badges::NONE, Some(ground.desk.now()));
    assert_eq!((service.resets(), peer.answers()), (0, vec![(0, Status::Ok)]));
}

#[test]
fn a_request_beyond_its_deadline_that_was_reset_timed_out() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let soon = ground.desk.now().0 + PATIENCE.0 / 2;
    peer.submit(&[Submission { deadline: soon, ..write(0, 0, 2) }, write(1, 8, 3)]);
    service.pass();
    while service.resets() == 0 {
        service.wait(Badges::NONE, None);
    }
    let mut done = peer.reap();
    done.sort_by_key(|answer| answer.tag);
    assert_eq!((done[0].status, done[0].late), (Status::TimedOut, true));
    assert_eq!((done[1].status, done[1].late), (Status::Reset, false));
}

#[test]
fn what_waits_is_not_lost_in_a_reset() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    ground.put(2, &pattern(9, 4096));
    let held = Submission { flags: drv_virtio_block::lib_block::entry::Flags::PRE_BARRIER, ..write(1, 8, 2) };
    peer.submit(&[write(0, 0, 3), held, Submission { tag: 2, ..Submission::new(Operation::Flush, 0) }]);
    service.pass();
    ground.device.inject(0, Lie::IdOutOfRange);
    ground.device.process_all(0);
    service.pass();
    assert_eq!(peer.answers(), [(0, Status::Reset)], "the barrier's request was not with the device");
    for _ in 0..3 {
        service.pass();
        ground.device.process_all(0);
    }
    service.pass();
    assert_eq!(peer.answers(), [(1, Status::Ok), (2, Status::Ok)]);
    assert_eq!(ground.device.disk(8, 8), pattern(9, 4096));
}

#[test]
fn nothing_of_a_device_that_does_not_answer_the_reset_is_touched_again() {
    for broken in [false, true] {
        let ground = Ground::new(Config::default());
        let mut private = Private::new();
        let mut service = ground.started(&mut private);
        let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
        peer.submit(&[read(0, 0, 0), read(1, 8, 1)]);
        service.pass();
        ground.device.on_reset(ResetBehaviour::Never);
        if broken {
            ground.device.inject(0, Lie::IdOutOfRange);
            let taken = ground.device.take(0, 1);
            ground.device.complete(0, &taken);
        }
        while service.is_serving() {
            service.wait(Badges::NONE, None);
            service.pass();
        }
        let counts = ground.device.counts(0);
        peer.submit(&[read(2, 16, 2)]);
        let spent = ground.desk.now();
        for _ in 0..5 {
            service.pass();
            service.wait(Badges::NONE, Some(ground.desk.now()));
        }
        assert_eq!(ground.desk.now(), spent, "nobody waits for it any more");
        assert_eq!(peer.answers(), []);
        assert_eq!(ground.device.counts(0).published, counts.published);
        // Overlaps with what the device still has would be found here.
        ground.device.on_reset(ResetBehaviour::AfterReads(2));
        assert_eq!(service.start(), Ok(()));
        service.pass();
        ground.device.process_all(0);
        service.pass();
        assert_eq!(peer.answers(), [(0, Status::Reset), (1, Status::Reset), (2, Status::Ok)]);
        ground.device.assert_no_faults();
    }
}
