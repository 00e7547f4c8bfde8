//! Several queues: who is served by which, and that one does not wait for another.
use crate::fake::{Config, Lie};
use crate::rig::{Ground, PATIENCE, Peer, Private, Sleep, Tested, driver, envelope, open, opening, read, write};
use drv_virtio_block::device::queue_for;
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::message::Opening;
use drv_virtio_block::platform::{Badge, Badges, Platform};
use drv_virtio_block::service::Envelope;

fn four() -> Config {
    Config { num_queues: 4, vectors: 5, ..Config::default() }
}

fn started<'m>(ground: &'m Ground, private: &'m mut Private, queues: u16) -> Tested<'m> {
    let mut service = ground.service(private, Envelope { queues, ..envelope() });
    service.start().expect("it comes up");
    service
}

/// A client whose affinity is its seat.
fn seated<'m>(service: &mut Tested<'m>, ground: &'m Ground, seat: usize) -> Peer<'m> {
    Peer::new(service, ground, seat, Opening { affinity: seat as u32, ..opening(256 * seat as u64, 256) })
}

#[test]
fn a_session_is_on_the_queue_that_its_affinity_maps_to() {
    for queues in 1..=4 {
        let ground = Ground::new(four());
        let mut private = Private::new();
        let mut service = ground.service(&mut private, Envelope { queues, sessions: 8, ..envelope() });
        service.start().expect("it comes up");
        assert_eq!(driver(&mut service).queues, queues);
        for (seat, affinity) in [0, 1, 3, 6, 8, u32::MAX].into_iter().enumerate() {
            let opened = open(&mut service, &ground, seat, Opening { affinity, ..opening(0, 64) });
            assert_eq!(opened.queue, queue_for(affinity, queues).0, "{affinity} of {queues}");
            assert_eq!(opened.session.0 >> 8 & 0xff, u32::from(opened.queue));
        }
    }
}

#[test]
fn there_are_as_many_queues_as_the_device_has() {
    let ground = Ground::new(Config { num_queues: 2, vectors: 3, ..Config::default() });
    let mut private = Private::new();
    let mut service = started(&ground, &mut private, 9);
    assert_eq!(driver(&mut service).queues, 2);
    ground.device.assert_no_faults();
}

#[test]
fn each_request_goes_to_its_own_queue() {
    let ground = Ground::new(four());
    let mut private = Private::new();
    let mut service = started(&ground, &mut private, 4);
    let mut peers: Vec<_> = (0..4).map(|seat| seated(&mut service, &ground, seat)).collect();
    let before: Vec<_> = (0..4).map(|queue| ground.device.counts(queue).published).collect();
    for (seat, peer) in peers.iter_mut().enumerate() {
        let entries: Vec<_> =
            (0..=seat as u16).map(|tag| write(tag, 8 * u64::from(tag), 8 * seat + tag as usize)).collect();
        peer.submit(&entries);
    }
    service.pass();
    for queue in 0..4 {
        let published = ground.device.counts(queue).published - before[usize::from(queue)];
        assert_eq!(published, u64::from(queue) + 1);
    }
    // Those of the last queue first, and of the first never.
    for queue in (1..4).rev() {
        ground.device.process_all(queue);
        service.pass();
        assert_eq!(peers[usize::from(queue)].answers().len(), usize::from(queue) + 1);
    }
    assert_eq!(peers[0].answers(), []);
    ground.device.assert_no_faults();
}

#[test]
fn an_interrupt_wakes_for_its_queue() {
    let ground = Ground::new(four());
    let mut private = Private::new();
    let mut service = started(&ground, &mut private, 4);
    let mut peers: Vec<_> = (0..4).map(|seat| seated(&mut service, &ground, seat)).collect();
    for round in 0..8_u16 {
        let queue = round % 4;
        peers[usize::from(queue)].submit(&[read(0, 0, usize::from(queue))]);
        service.pass();
        let device = ground.device.clone();
        ground.desk.while_asleep(move || device.process_all(queue));
        service.wait(Badges::NONE, None);
        let fired = ground.desk.sleeps().pop().unwrap().fired;
        assert_eq!(fired, Badge::new(queue as u8 + 1).unwrap().alone());
        service.pass();
        assert_eq!(peers[usize::from(queue)].answers(), [(0, Status::Ok)]);
        let counted = service.fronts()[usize::from(queue)].queue().unwrap().statistics().interrupts;
        assert_eq!(counted, u64::from(round / 4) + 1);
    }
    assert!(ground.desk.unacknowledged().is_empty());
}

#[test]
fn queues_that_share_a_vector_are_both_looked_at() {
    for vectors in [1, 2, 3] {
        let ground = Ground::new(Config { vectors, ..four() });
        let mut private = Private::new();
        let mut service = started(&ground, &mut private, 4);
        let mut peers: Vec<_> = (0..4).map(|seat| seated(&mut service, &ground, seat)).collect();
        for _ in 0..3 {
            for (seat, peer) in peers.iter_mut().enumerate() {
                peer.submit(&[read(0, 0, seat)]);
            }
            service.pass();
            for queue in [2, 0, 3, 1] {
                let device = ground.device.clone();
                ground.desk.while_asleep(move || device.process_all(queue));
                service.wait(Badges::NONE, None);
                service.pass();
                assert_eq!(peers[usize::from(queue)].answers(), [(0, Status::Ok)], "{vectors} vectors");
            }
            assert!(ground.desk.unacknowledged().is_empty());
        }
        assert!(ground.desk.sleeps().iter().all(|sleep| !sleep.fired.is_empty() || sleep.is_look()));
        ground.device.assert_no_faults();
    }
}

#[test]
fn a_queue_that_is_silent_is_noticed_though_another_answers() {
    let ground = Ground::new(four());
    let mut private = Private::new();
    let mut service = started(&ground, &mut private, 4);
    let mut silent = seated(&mut service, &ground, 2);
    let mut busy = seated(&mut service, &ground, 1);
    silent.submit(&[write(0, 0, 2)]);
    service.pass();
    let begin = ground.desk.now();
    let mut turns = 0;
    while service.resets() == 0 {
        turns += 1;
        busy.submit(&[write(0, 0, 1)]);
        service.pass();
        ground.device.process_all(1);
        service.wait(Badges::NONE, Some(ground.desk.now()));
        service.pass();
        assert_eq!(busy.answers(), [(0, Status::Ok)]);
        ground.desk.pass_time(drv_virtio_block::platform::Nanos(PATIENCE.0 / 10));
        assert!(turns < 20, "it is never noticed");
    }
    assert!(ground.desk.now().0 - begin.0 >= PATIENCE.0);
    assert_eq!(silent.answers(), [(0, Status::Reset)]);
    ground.device.assert_no_faults();
}

#[test]
fn a_queue_that_is_broken_resets_all_and_none_is_forgotten() {
    let ground = Ground::new(four());
    let mut private = Private::new();
    let mut service = started(&ground, &mut private, 4);
    let mut peers: Vec<_> = (0..4).map(|seat| seated(&mut service, &ground, seat)).collect();
    for round in 0..6_u16 {
        for (seat, peer) in peers.iter_mut().enumerate() {
            peer.submit(&[read(0, 0, 2 * seat), write(1, 8, 2 * seat + 1)]);
        }
        service.pass();
        let liar = round % 4;
        ground.device.inject(liar, Lie::IdOutOfRange);
        let taken = ground.device.take(liar, 1);
        ground.device.complete(liar, &taken);
        service.pass();
        for peer in &mut peers {
            assert_eq!(peer.answers(), [(0, Status::Reset), (1, Status::Reset)]);
            peer.submit(&[write(7, 0, 20 + peer.seat)]);
        }
        service.pass();
        for (queue, peer) in (0..).zip(&mut peers) {
            ground.device.process_all(queue);
            service.pass();
            assert_eq!(peer.answers(), [(7, Status::Ok)]);
        }
        assert_eq!(service.resets(), u64::from(round) + 1);
    }
    ground.device.assert_no_faults();
}

#[test]
fn polled_queues_are_looked_at_and_nobody_sleeps_on_them() {
    let ground = Ground::new(four());
    let mut private = Private::new();
    let polled = Envelope { queues: 4, mode: CompletionMode::Polled, ..envelope() };
    let mut service = ground.service(&mut private, polled);
    service.start().expect("it comes up");
    let mut peers: Vec<_> = (0..4).map(|seat| seated(&mut service, &ground, seat)).collect();
    assert_eq!(service.wait(Badges::NONE, Some(ground.desk.now().after(PATIENCE))), Badges::NONE);
    assert!(!ground.desk.sleeps()[0].is_look(), "nothing is in flight");
    for (seat, peer) in peers.iter_mut().enumerate() {
        peer.submit(&[read(0, 0, seat)]);
        service.pass();
        service.wait(Badges::NONE, None);
        assert!(ground.desk.sleeps().iter().all(Sleep::is_look));
        ground.device.process_all(seat as u16);
        service.pass();
        assert_eq!(peer.answers(), [(0, Status::Ok)]);
    }
    assert!((1..5).all(|vector| ground.device.interrupts_sent(vector) == 0));
}
