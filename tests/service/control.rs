//! START, STOP, READ DRIVER, and devices that do not come up.
use crate::fake::wire::{block, features, status};
use crate::fake::{Config, Lie, ResetBehaviour};
use crate::rig::{Ground, PATIENCE, Peer, Private, driver, envelope, opening, pattern, read, status_of, tell, write};
use drv_virtio_block::device::BringUpError;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::message::{Body, Driver, Given};
use drv_virtio_block::lib_block::ring::Stage;
use drv_virtio_block::platform::Nanos;
use drv_virtio_block::queue::PrepareError;
use drv_virtio_block::service::{Envelope, ServiceError};

const NOTHING: Result<Given, Status> = Ok(Given::Nothing);

#[test]
fn nothing_is_touched_before_start() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    assert_eq!(service.pass(), 0);
    assert!(!service.is_serving());
    assert_eq!(driver(&mut service), Driver { epoch: 1, ..Driver::default() });
    assert_eq!(tell(&mut service, Body::Stop { flush: true }), Err(Status::Busy));
    assert_eq!(ground.device.resets(), 0);
}

#[test]
fn start_serves_and_a_second_start_is_refused() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    assert_eq!(tell(&mut service, Body::Start), NOTHING);
    assert!(service.is_serving());
    assert_eq!(driver(&mut service), Driver { epoch: 1, serving: true, queues: 1, ..Driver::default() });
    let resets = ground.device.resets();
    assert_eq!(tell(&mut service, Body::Start), Err(Status::Busy));
    assert!(service.is_serving());
    assert_eq!(ground.device.resets(), resets);
    ground.device.assert_no_faults();
}

#[test]
fn what_was_done_is_counted() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    peer.submit(&[write(0, 0, 0), write(1, 8, 1), read(2, 1020, 2)]);
    service.pass();
    ground.device.process_all(0);
    service.pass();
    assert_eq!(peer.answers(), [(0, Status::Ok), (1, Status::Ok), (2, Status::OutOfRange)]);
    let expected = Driver { epoch: 1, serving: true, queues: 1, sessions: 1, answered: 2, refused: 1, ended: 0 };
    assert_eq!(driver(&mut service), expected);
}

/// What the device did with the driver's last FLUSH, seen at its reset.
#[test]
fn stop_flushes_before_the_reset_if_asked_and_only_then() {
    for flush in [true, false] {
        let ground = Ground::new(Config::default());
        let mut private = Private::new();
        let mut service = ground.started(&mut private);
        let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
        ground.put(0, &pattern(1, 4096));
        peer.submit(&[write(0, 16, 0)]);
        service.pass();
        ground.device.process_all(0);
        service.pass();
        assert_eq!(peer.answers(), [(0, Status::Ok)]);
        assert_eq!(ground.device.unstable_sectors(), 8);
        let (resets, taken) = (ground.device.resets(), ground.device.counts(0).taken);
        assert_eq!(tell(&mut service, Body::Stop { flush }), NOTHING);
        assert_eq!(ground.device.resets(), resets + 1);
        assert_eq!(ground.device.unstable_sectors(), if flush { 0 } else { 8 });
        assert_eq!(ground.device.counts(0).taken, taken + u64::from(flush));
        assert_eq!(status_of(&ground), 0);
        assert_eq!(peer.end.announcement().stage, Stage::Stopped);
        assert!(!driver(&mut service).serving && driver(&mut service).sessions == 0);
        if flush {
            ground.device.power_cut();
            assert_eq!(ground.device.disk(16, 8), pattern(1, 4096));
        }
    }
}

#[test]
fn a_flush_that_fails_is_not_kept_quiet() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    ground.device.inject(0, Lie::Status(block::IOERR));
    assert_eq!(service.stop(true), Err(ServiceError::Flush(Status::IoError)));
    assert!(!service.is_serving());
    assert_eq!(status_of(&ground), 0, "it was reset all the same");
    assert_eq!(tell(&mut service, Body::Start), NOTHING);
    ground.device.inject(0, Lie::Never);
    assert_eq!(tell(&mut service, Body::Stop { flush: true }), Err(Status::IoError));
    assert_eq!((service.is_serving(), status_of(&ground)), (false, 0));
}

#[test]
fn stop_answers_what_the_device_has_and_tells_clients_that_it_stopped() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    peer.submit(&[write(0, 0, 0), read(1, 8, 1)]);
    service.pass();
    assert_eq!(tell(&mut service, Body::Stop { flush: false }), NOTHING);
    assert_eq!(peer.answers(), [(0, Status::Ok), (1, Status::Ok)]);
    assert_eq!(peer.end.announcement().stage, Stage::Stopped);
    assert_eq!(service.resets(), 0);
    ground.device.assert_no_faults();
}

#[test]
fn stop_resets_a_device_that_does_not_give_back_what_it_has() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    ground.desk.while_relaxing(|| ());
    peer.submit(&[write(0, 0, 0)]);
    service.pass();
    assert_eq!(tell(&mut service, Body::Stop { flush: false }), NOTHING);
    assert_eq!(peer.answers(), [(0, Status::Reset)]);
    assert_eq!(peer.end.announcement().stage, Stage::Stopped);
    assert_eq!((service.resets(), service.is_serving(), status_of(&ground)), (1, false, 0));
}

#[test]
fn start_after_stop_serves_new_sessions() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    for round in 0..20 {
        let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
        ground.put(0, &pattern(round, 4096));
        peer.submit(&[write(0, round, 0)]);
        service.pass();
        ground.device.process_all(0);
        service.pass();
        assert_eq!(peer.answers(), [(0, Status::Ok)]);
        assert_eq!(ground.device.disk(round, 8), pattern(round, 4096));
        assert_eq!(tell(&mut service, Body::Stop { flush: round % 2 == 0 }), NOTHING);
        assert_eq!(tell(&mut service, Body::Stop { flush: true }), Err(Status::Busy));
        assert_eq!(tell(&mut service, Body::Start), NOTHING);
    }
    assert_eq!(driver(&mut service).answered, 1, "of the sessions that were last open");
    ground.device.assert_no_faults();
}

#[test]
fn a_device_that_refuses_the_features_can_be_tried_again() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    ground.device.refuse_features(true);
    for _ in 0..3 {
        assert!(matches!(service.start(), Err(ServiceError::BringUp(BringUpError::FeaturesRefused { .. }))));
        assert_eq!(tell(&mut service, Body::Start), Err(Status::IoError));
        assert_eq!(driver(&mut service), Driver { epoch: 1, ..Driver::default() });
        assert_eq!(tell(&mut service, Body::Stop { flush: true }), Err(Status::Busy));
        assert_ne!(status_of(&ground) & status::FAILED, 0, "the device is told that it was given up");
        assert_eq!(service.pass(), 0);
    }
    ground.device.refuse_features(false);
    assert_eq!(tell(&mut service, Body::Start), NOTHING);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    peer.submit(&[write(0, 0, 0)]);
    service.pass();
    ground.device.process_all(0);
    service.pass();
    assert_eq!(peer.answers(), [(0, Status::Ok)]);
    ground.device.assert_no_faults();
}

#[test]
fn a_device_that_never_resets_does_not_come_up_and_is_told_nothing() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    ground.soil(0xff);
    ground.device.on_reset(ResetBehaviour::Never);
    for _ in 0..2 {
        assert_eq!(service.start(), Err(ServiceError::BringUp(BringUpError::ResetTimeout)));
        assert!(!service.is_serving());
    }
    ground.device.on_reset(ResetBehaviour::AfterReads(3));
    assert_eq!(service.start(), Ok(()));
    ground.device.assert_no_faults();
}

#[test]
fn a_device_that_refuses_the_features_after_a_stop_can_be_tried_again() {
    let ground = Ground::new(Config::default().without(features::INDIRECT_DESC));
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    assert_eq!(service.start(), Ok(()));
    assert_eq!(service.stop(false), Ok(()));
    ground.device.resize(4096);
    ground.device.refuse_features(true);
    assert!(service.start().is_err());
    assert_eq!(tell(&mut service, Body::Stop { flush: false }), Err(Status::Busy));
    ground.device.refuse_features(false);
    assert_eq!(service.start(), Ok(()), "the queues that are laid out are used again");
    let opened = Peer::new(&mut service, &ground, 0, opening(0, 4096)).opened;
    assert_eq!(opened.info.generation, 1, "the capacity changed over the stop");
    ground.device.assert_no_faults();
}

#[test]
fn short_memory_is_an_error_and_not_the_end() {
    // Too little for the queue's records, then for the sessions, in steps between nothing and enough.
    for kib in (0..64).step_by(2) {
        let ground = Ground::new(Config::default());
        let mut private = Private::of(kib << 10);
        let mut service = ground.service(&mut private, envelope());
        let outcome = service.start();
        assert_eq!(service.is_serving(), outcome.is_ok(), "{kib} KiB");
        let short = matches!(outcome, Err(ServiceError::Arena(_) | ServiceError::Prepare(PrepareError::Private(_))));
        assert!(outcome.is_ok() || short, "{kib} KiB: {outcome:?}");
        if outcome.is_err() {
            assert_eq!(tell(&mut service, Body::Start), Err(Status::InvalidArgument));
            assert_eq!(tell(&mut service, Body::Stop { flush: false }), Err(Status::Busy));
            assert_eq!(status_of(&ground) & status::DRIVER_OK, 0, "a device that nobody serves does not run");
        }
        assert_eq!(service.pass(), 0);
        ground.device.assert_no_faults();
    }
    let ground = Ground::new(Config { max_queue_size: 1, ..Config::default() });
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    assert!(matches!(service.start(), Err(ServiceError::Prepare(PrepareError::Size(1)))));
    assert_eq!(tell(&mut service, Body::Start), Err(Status::InvalidArgument));
}

#[test]
fn an_envelope_out_of_bounds_counts_as_the_nearest_that_can_be() {
    let usual = envelope();
    let odd = [
        Envelope { epoch: 0, ..usual },
        Envelope { epoch: u32::MAX, ..usual },
        Envelope { queues: 0, ..usual },
        Envelope { queues: u16::MAX, ..usual },
        Envelope { sessions: 0, ..usual },
        Envelope { sessions: u16::MAX, credit: 8, ..usual },
        Envelope { credit: 0, ..usual },
        Envelope { credit: 9, ..usual },
        Envelope { credit: u16::MAX, sessions: 1, ..usual },
        Envelope { patience: Nanos(u64::MAX), ..usual },
    ];
    for envelope in odd {
        let ground = Ground::new(Config::default());
        let mut private = Private::of(2 << 20);
        let mut service = ground.service(&mut private, envelope);
        assert_eq!(service.start(), Ok(()), "{envelope:?}");
        assert_eq!(driver(&mut service).epoch, envelope.epoch.max(1));
        assert_eq!(service.stop(true), Ok(()), "{envelope:?}");
        ground.device.assert_no_faults();
    }
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut hasty = ground.service(&mut private, Envelope { patience: Nanos(0), ..usual });
    let _ = hasty.start();
    let mut sizeless = ground.service(Private::for_good(), Envelope { queue_size: 0, ..usual });
    assert!(matches!(sizeless.start(), Err(ServiceError::BringUp(_))));
}

#[test]
fn a_device_that_changed_is_not_driven_on() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    peer.submit(&[write(0, 0, 0)]);
    service.pass();
    ground.device.refuse_features(true);
    assert!(service.recover().is_err());
    assert!(!service.is_serving());
    assert_eq!(peer.answers(), [(0, Status::Reset)], "it was reset: what it had is answered");
    peer.submit(&[write(1, 0, 0)]);
    assert_eq!(service.pass(), 0);
    ground.device.refuse_features(false);
    assert_eq!(service.start(), Ok(()));
    service.pass();
    ground.device.process_all(0);
    service.pass();
    assert_eq!(peer.answers(), [(1, Status::Ok)], "the same session goes on");
    ground.device.assert_no_faults();
}

#[test]
fn recovery_is_refused_where_nothing_runs() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.service(&mut private, envelope());
    assert_eq!(service.recover(), Err(ServiceError::State));
    assert_eq!(service.start(), Ok(()));
    assert_eq!(service.stop(false), Ok(()));
    assert_eq!(service.recover(), Err(ServiceError::State));
    assert_eq!(service.resets(), 0);
    assert_eq!(service.start(), Ok(()));
    assert_eq!(service.recover(), Ok(()));
    assert_eq!(service.resets(), 1);
}

#[test]
fn errors_say_what_they_are() {
    let size = ServiceError::Prepare(PrepareError::Size(1)).to_string();
    assert!(size.contains("queue size 1"), "{size}");
    let flush = ServiceError::Flush(Status::IoError).to_string();
    assert!(flush.contains("durable") && flush.contains("input/output"), "{flush}");
    let long = ServiceError::BringUp(BringUpError::ResetTimeout).to_string();
    assert!(long.contains("reset"), "{long}");
    assert!(PATIENCE < Envelope::default().patience);
}
