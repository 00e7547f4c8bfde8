//! Sleep: armed before, not at all if there is something to do, ended by whatever there is to do, acknowledged.
use crate::fake::Config;
use crate::rig::{Desk, Ground, PATIENCE, Peer, Private, Tested, ask, envelope, open, opening, read, write};
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Flags, Operation, Submission};
use drv_virtio_block::lib_block::message::{Body, Given, Info};
use drv_virtio_block::platform::{Badges, Nanos, Platform};
use drv_virtio_block::service::{Beside, Envelope};

const CONFIGURATION: Badges = Badges(1);
const QUEUE: Badges = Badges(2);

fn info(service: &mut Tested<'_>, peer: &Peer<'_>) -> Info {
    match ask(service, peer.opened.session, Body::GetInfo, Beside::default()) {
        Ok(Given::Info(info)) => info,
        other => panic!("information: {other:?}"),
    }
}

#[test]
fn an_idle_driver_sleeps_until_it_is_told_to() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let (bell, until) = (Desk::other(0), ground.desk.now().after(Nanos(12_345)));
    assert_eq!(service.wait(bell.into(), Some(until)), Badges::NONE);
    let sleep = ground.desk.sleeps()[0];
    assert_eq!((sleep.set, sleep.until), (CONFIGURATION | QUEUE | bell.into(), Some(until)));
    ground.desk.raise(bell);
    assert_eq!(service.wait(bell.into(), None), bell.into());
    assert_eq!(service.wait(Badges::NONE, Some(Nanos(0))), Badges::NONE, "taken once");
}

#[test]
fn interrupts_are_acknowledged_and_are_nobody_elses_business() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    for _ in 0..5 {
        peer.submit(&[read(0, 0, 0)]);
        service.pass();
        let device = ground.device.clone();
        ground.desk.while_asleep(move || device.process_all(0));
        assert_eq!(service.wait(Desk::other(3).into(), None), Badges::NONE);
        assert_eq!(ground.desk.sleeps()[0].fired, QUEUE);
        assert!(ground.desk.unacknowledged().is_empty());
        assert_eq!(service.pass(), 1);
        assert_eq!(peer.answers(), [(0, Status::Ok)]);
    }
}

#[test]
fn what_came_before_the_sleep_ends_it_before_it_begins() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    // An answer that came since the last pass.
    peer.submit(&[read(0, 0, 0)]);
    service.pass();
    ground.device.process_all(0);
    service.wait(Badges::NONE, None);
    assert!(ground.desk.sleeps()[0].is_look());
    assert_eq!(service.pass(), 1);
    assert_eq!(peer.answers(), [(0, Status::Ok)]);
    // An entry.
    peer.submit(&[read(1, 0, 0)]);
    service.wait(Badges::NONE, None);
    assert!(ground.desk.sleeps()[0].is_look());
    service.pass();
    assert_eq!(ground.device.process_all(0), 1);
    service.pass();
    // A client that goes along.
    open(&mut service, &ground, 1, opening(0, 64));
    let mut end = ground.client_end(1);
    service.pass();
    end.acknowledge(end.announcement().epoch);
    service.wait(Badges::NONE, None);
    assert!(ground.desk.sleeps()[0].is_look());
}

#[test]
fn clients_are_asked_for_their_doorbell_before_a_sleep_only() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let rings = |peer: &mut Peer<'_>, tag: u16| {
        peer.end.stage(read(tag, 0, 0).encode());
        peer.end.publish()
    };
    assert!(!rings(&mut peer, 0), "it looks anyway");
    service.pass();
    ground.device.process_all(0);
    service.pass();
    service.wait(Badges::NONE, Some(ground.desk.now()));
    assert!(rings(&mut peer, 1), "it may be asleep");
    assert!(!rings(&mut peer, 2), "once is enough");
}

#[test]
fn patience_ends_a_sleep_and_what_is_asked_for_earlier_does_earlier() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    peer.submit(&[read(0, 0, 0)]);
    service.pass();
    let now = ground.desk.now();
    service.wait(Badges::NONE, Some(now.after(Nanos(10))));
    service.wait(Badges::NONE, Some(now.after(Nanos(2 * PATIENCE.0))));
    let untils: Vec<_> = ground.desk.sleeps().iter().map(|sleep| sleep.until.unwrap()).collect();
    assert_eq!(untils, [now.after(Nanos(10)), now.after(PATIENCE)], "counted from when it was silent first");
    assert_eq!(service.resets(), 1);
}

#[test]
fn a_deadline_of_what_waits_ends_a_sleep() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 512));
    let deadline = ground.desk.now().after(Nanos(5_000));
    let held = Submission { flags: Flags::PRE_BARRIER, deadline: deadline.0, ..write(1, 8, 1) };
    let later = Submission { deadline: deadline.0 + 7, ..Submission::new(Operation::Flush, 0) };
    peer.submit(&[read(0, 0, 0), held, Submission { tag: 2, ..later }]);
    service.pass();
    service.wait(Badges::NONE, None);
    assert_eq!(ground.desk.sleeps()[0].until, Some(deadline.after(Nanos(1))));
    service.pass();
    assert_eq!(
        peer.answers(),
        [(1, Status::TimedOut), (2, Status::Ok)][..1],
        "on time, and not with the device's answer"
    );
    ground.device.process_all(0);
    service.pass();
    let rest = peer.answers();
    assert_eq!(rest, [(0, Status::Ok), (2, Status::Ok)]);
}

#[test]
fn a_change_of_the_capacity_is_seen_and_counted() {
    for vectors in [1, 2] {
        let ground = Ground::new(Config { vectors, ..Config::default() });
        let mut private = Private::new();
        let mut service = ground.started(&mut private);
        let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 2048));
        for (generation, sectors) in [(1, 4096), (2, 1024), (3, 2048)] {
            ground.device.resize(sectors);
            service.wait(Badges::NONE, None);
            assert_eq!(ground.desk.sleeps()[0].fired.and(CONFIGURATION), CONFIGURATION);
            assert!(ground.desk.unacknowledged().is_empty());
            assert_eq!(info(&mut service, &peer).generation, generation);
            peer.submit(&[read(0, 2040, 0)]);
            service.pass();
            ground.device.process_all(0);
            service.pass();
            let status = if sectors < 2048 { Status::OutOfRange } else { Status::Ok };
            assert_eq!(peer.answers(), [(0, status)]);
        }
        // The same again is no change.
        ground.device.resize(2048);
        service.wait(Badges::NONE, None);
        assert_eq!(info(&mut service, &peer).generation, 3);
        ground.device.resize(2049);
        assert_eq!(service.recover(), Ok(()));
        assert_eq!(info(&mut service, &peer).generation, 4, "seen by the reset");
        ground.device.assert_no_faults();
    }
}

#[test]
fn without_a_vector_the_configuration_is_looked_at_now_and_then() {
    let ground = Ground::new(Config { vectors: 0, ..Config::default() });
    let mut private = Private::new();
    let polled = Envelope { mode: CompletionMode::Polled, ..envelope() };
    let mut service = ground.service(&mut private, polled);
    assert_eq!(service.start(), Ok(()));
    let peer = Peer::new(&mut service, &ground, 0, opening(0, 64));
    ground.device.resize(4096);
    service.wait(Badges::NONE, Some(ground.desk.now()));
    assert_eq!(info(&mut service, &peer).generation, 0, "not every time");
    service.wait(Badges::NONE, Some(ground.desk.now().after(Nanos::from_millis(1_000))));
    assert_eq!(info(&mut service, &peer).generation, 1);
    ground.device.need_reset();
    service.wait(Badges::NONE, Some(ground.desk.now().after(Nanos::from_millis(1_000))));
    assert_eq!(service.resets(), 1);
}

#[test]
fn a_device_whose_capacity_cannot_be_is_reset() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    ground.device.resize(u64::MAX);
    service.wait(Badges::NONE, None);
    assert!(!service.is_serving(), "and it says so still");
    ground.device.resize(2048);
    assert_eq!(service.start(), Ok(()));
}

#[test]
fn a_stopped_driver_waits_for_others_only() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    assert_eq!(service.stop(false), Ok(()));
    ground.desk.sleeps();
    ground.desk.raise(Desk::other(1));
    assert_eq!(service.wait(Desk::other(1).into(), None), Desk::other(1).into());
    assert_eq!(ground.desk.sleeps()[0].set, Desk::other(1).into());
}

#[test]
fn a_loop_that_waits_and_serves_loses_nothing() {
    // The device, and the client, act at each point where the driver can be overtaken.
    for moment in 0..4 {
        let ground = Ground::for_good(Config::default());
        let mut service = ground.started(Private::for_good());
        let bell = Desk::other(0);
        let mut peer = Peer::new(&mut service, ground, 0, opening(0, 512));
        for round in 0..200_u16 {
            let mut answers = Vec::new();
            peer.end.stage(read(round % 8, 0, 0).encode());
            if peer.end.publish() {
                ground.desk.raise(bell);
            }
            for turn in 0..4 {
                if turn == moment {
                    ground.device.process_all(0);
                }
                service.pass();
                answers.extend(peer.reap());
                if !answers.is_empty() {
                    break;
                }
                ground.desk.while_asleep(|| ground.device.process_all(0));
                service.wait(bell.into(), None);
            }
            answers.extend(peer.reap());
            assert_eq!(answers.len(), 1, "round {round}, moment {moment}");
        }
        assert_eq!(service.resets(), 0);
    }
}
