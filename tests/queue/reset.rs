//! After a reset: every request comes back once, the queue works again, and without a proof nothing moves.
use crate::fake::{Config, Lie, Order, ResetBehaviour};
use crate::rig::{Clock, Live, Owned, World, grants, outcomes, pattern, restart};
use drv_virtio_block::device::{BringUpError, Wishes};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Completion, Error, Gone, Lba, Request};
use drv_virtio_block::transport::QueueId;

const RESET: Result<(), Error> = Err(Error::Gone(Gone::Reset));

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 64, chaining, large_tables: 1, ..QueueOptions::default() }
}

/// Requests of every kind, so that slots, tables and parents are in use: tokens 0 to 7.
fn every_kind(live: &mut Live<'_, Owned<'_>>) {
    let heap = live.heap.clone();
    let requests = [
        Request::read(Lba(0), heap.whole(512)),
        Request::write(Lba(1), heap.cut(&[100, 412])),
        Request::write_durably(Lba(2), heap.whole(512)),
        Request::flush(),
        Request::discard(Lba(40), 2),
        Request::read(Lba(8), heap.cut(&[64; 8])),
        Request::write(Lba(16), heap.cut(&[512; 8])),
        Request::get_id(heap.whole(20)),
    ];
    for (token, request) in (0..).zip(requests) {
        live.queue.submit(request.with_token(token)).expect("room for eight");
    }
}

/// Resets, reclaims, starts again and does some work; returns what the reset gave back.
fn recover(live: Live<'_, Owned<'_>>) -> Vec<Completion<crate::rig::Buf>> {
    let Live { device, heap, running, queue } = live;
    let mut back = Vec::new();
    let slots = queue.slots();
    let stopped = running.reset(&Clock::default()).expect("an answer to the reset");
    let prepared = queue.reclaim(&stopped.proof(), |done| back.push(done)).expect("the proof is this device's");
    let running = restart(stopped, &prepared, &device);
    let mut live = Live { device, heap, running, queue: prepared }.own();
    let data = pattern(3, 1024);
    for round in 0..3 {
        for token in 0..u64::from(slots) {
            let request = Request::write(Lba(100 + 2 * token), live.heap.holding(&data));
            live.queue.submit(request.with_token(token)).expect("every slot is there again");
        }
        assert!(live.queue.submit(Request::flush()).is_err());
        let expected: Vec<_> = (0..u64::from(slots)).map(|token| (token, Ok(()))).collect();
        assert_eq!(outcomes(&live.finish()), expected, "round {round}");
    }
    for _ in 0..3 {
        assert_eq!(live.ask(Request::read(Lba(100), live.heap.cut(&[512; 2]))).buffer.unwrap().bytes(), data);
        assert_eq!(live.ask(Request::read(Lba(100), live.heap.cut(&[512; 8]))).result, Ok(()), "parents too");
    }
    assert_eq!(live.queue.broken(), None);
    assert_eq!(live.queue.statistics().violations, 0, "a new life");
    live.device.assert_no_faults();
    back
}

#[test]
fn every_request_in_flight_comes_back_once_and_the_queue_works_again() {
    for chaining in [Chaining::Direct, Chaining::Indirect] {
        // How far the device got before the reset: nothing taken, taken, some completed, all completed and not reaped.
        for progress in 0..4 {
            let mut world = World::new(Config::default());
            let mut live = world.owned(&options(chaining));
            every_kind(&mut live);
            if progress > 0 {
                let taken = live.device.take(0, 99);
                let most = [0, 0, taken.len() / 2, taken.len()][progress];
                live.device.complete(0, &taken[..most]);
            }
            let heap = live.heap.clone();
            let back = recover(live);
            assert_eq!(outcomes(&back), (0..8).map(|token| (token, RESET)).collect::<Vec<_>>(), "{progress}");
            assert!(back.iter().all(|done| done.buffer.is_some() != [3, 4].contains(&done.token)));
            assert_eq!(heap.lent(), 6);
            drop(back);
            assert_eq!(heap.lent(), 0);
        }
    }
}

#[test]
fn a_request_in_its_second_life_comes_back_once() {
    // A durable write whose FLUSH is out, and a cut request whose first chains are back.
    for chaining in [Chaining::Direct, Chaining::Indirect] {
        let mut world = World::new(Config { seg_max: 1, ..Config::default() });
        let mut live = world.owned(&QueueOptions { slots: 4, ..options(chaining) });
        live.queue.submit(Request::write_durably(Lba(0), live.heap.whole(512)).with_token(1)).unwrap();
        live.queue.submit(Request::read(Lba(8), live.heap.cut(&[512; 9])).with_token(2)).unwrap();
        live.device.process(0, usize::MAX, Order::AsTaken);
        assert!(live.reap().is_empty());
        assert!(live.queue.in_flight() > 0);
        assert_eq!(outcomes(&recover(live)), [(1, RESET), (2, RESET)]);
    }
}

#[test]
fn a_broken_queue_gives_everything_back_and_works_again() {
    for lie in [Lie::IdOutOfRange, Lie::IdTwice, Lie::IndexAhead(500), Lie::StatusUnwritten] {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(Chaining::Direct));
        every_kind(&mut live);
        let taken = live.device.take(0, 1);
        live.device.inject(0, lie);
        live.device.complete(0, &taken);
        let mut seen = outcomes(&live.reap());
        assert!(live.queue.broken().is_some(), "{lie:?}");
        seen.extend(outcomes(&recover(live)));
        let mut tokens: Vec<u64> = seen.iter().map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..8).collect::<Vec<_>>(), "{lie:?}: each exactly once, before or after");
    }
}

#[test]
fn a_completion_parked_without_the_device_comes_back_once() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::flush().with_token(7)).unwrap();
    assert_eq!(outcomes(&recover(live)), [(7, RESET)]);
}

#[test]
fn an_idle_queue_gives_nothing_back() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    for lba in 0..50 {
        assert_eq!(live.ask(Request::read(Lba(lba), live.heap.whole(512))).result, Ok(()));
    }
    assert!(recover(live).is_empty());
}

#[test]
fn requests_staged_in_a_forgotten_batch_come_back_too() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    let mut batch = live.queue.batch();
    batch.push(Request::read(Lba(0), live.heap.whole(512)).with_token(5)).unwrap();
    std::mem::forget(batch);
    assert_eq!(outcomes(&recover(live)), [(5, RESET)]);
}

#[test]
fn a_lost_request_is_recovered_by_a_reset_that_takes_its_time() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::write(Lba(0), live.heap.whole(512)).with_token(3)).unwrap();
    live.device.inject(0, Lie::Never);
    live.device.process_all(0);
    live.device.on_reset(ResetBehaviour::AfterReads(100));
    assert_eq!(outcomes(&recover(live)), [(3, RESET)]);
}

#[test]
fn the_proof_of_another_device_gives_nothing_back() {
    let mut other = World::new(Config::default());
    let stranger = other.owned(&options(Chaining::Direct));
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    every_kind(&mut live);
    let lent = live.heap.lent();
    let stopped = stranger.running.reset(&Clock::default()).unwrap();
    let kept = live.queue.reclaim(&stopped.proof(), |_| panic!("the device still has it"));
    assert!(kept.is_none());
    assert_eq!(live.heap.lent(), lent, "buffers stay the device's for good");
    live.device.process_all(0);
    live.device.assert_no_faults();
}

#[test]
fn without_an_answer_to_the_reset_there_is_no_proof() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    every_kind(&mut live);
    let lent = live.heap.lent();
    live.device.on_reset(ResetBehaviour::Never);
    let failed = live.running.reset(&Clock::default()).unwrap_err();
    assert_eq!(failed.why, BringUpError::ResetTimeout);
    // The device may still work: whatever it completes is not refused, and the buffers are not given back.
    live.device.process_all(0);
    assert_eq!(live.heap.lent(), lent);
    // Asked again, it answers.
    live.device.on_reset(ResetBehaviour::AtOnce);
    let stopped = failed.device.quiesce(&Clock::default()).unwrap();
    let mut back = Vec::new();
    assert!(live.queue.reclaim(&stopped.proof(), |done| back.push(done)).is_some());
    assert_eq!(back.len(), 8);
}

#[test]
fn a_device_that_needs_a_reset_is_reset_and_serves_again() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(1)).unwrap();
    live.device.need_reset();
    assert_eq!(live.device.process_all(0), 0);
    assert!(live.running.service_configuration().unwrap().needs_reset);
    assert_eq!(outcomes(&recover(live)), [(1, RESET)]);
}

#[test]
fn queues_of_one_device_are_reclaimed_each_with_its_own_requests() {
    use drv_virtio_block::device::Wishes;
    let mut world = World::new(Config { num_queues: 3, vectors: 4, ..Config::default() });
    let mut live = world.start(&Wishes { queues: 3, ..Wishes::default() }, &options(Chaining::Direct));
    let mut queues = Vec::new();
    for (number, prepared) in (0_u16..).zip(live.queue) {
        let mut queue = prepared.owned(live.running.doorbell(QueueId(number)).unwrap());
        for token in 0..=u64::from(number) {
            let request = Request::read(Lba(token), live.heap.whole(512));
            queue.submit(request.with_token(100 * u64::from(number) + token)).unwrap();
        }
        queues.push(queue);
    }
    live.device.process_all(1);
    let stopped = live.running.reset(&Clock::default()).unwrap();
    for (number, queue) in (0_u64..).zip(queues) {
        let mut back = Vec::new();
        assert!(queue.reclaim(&stopped.proof(), |done| back.push(done)).is_some());
        let expected: Vec<_> = (0..=number).map(|token| (100 * number + token, RESET)).collect();
        assert_eq!(outcomes(&back), expected);
    }
    assert_eq!(live.heap.lent(), 0);
    live.device.assert_no_faults();
}

#[test]
fn rings_are_for_the_device_of_their_queue_and_asked_for_again_after_its_reset() {
    let (mut here, mut there) = (World::new(Config::default()), World::new(Config::default()));
    let foreign = here.prepared(&options(Chaining::Direct)).queue.addresses();
    let Live { device, running, queue, .. } = there.prepared(&options(Chaining::Direct));
    let before = queue.addresses();
    let wishes = Wishes { queue_size: before.size(), ..Wishes::default() };
    let mut stopped = running.reset(&Clock::default()).expect("an answer to the reset");
    for rings in [foreign, before] {
        let driver = stopped.negotiate(&Clock::default(), &wishes, &grants(&device)).expect("the same device");
        let failed = driver.program(QueueId(0), &rings).unwrap_err();
        assert_eq!(failed.why, BringUpError::Rings(QueueId(0)));
        stopped = failed.device.quiesce(&Clock::default()).expect("an answer to the reset");
    }
    let _running = restart(stopped, &queue, &device);
    device.assert_no_faults();
}

#[test]
fn rings_are_one_queues() {
    let mut world = World::new(Config { num_queues: 2, ..Config::default() });
    let wishes = Wishes { queues: 2, queue_size: 64, ..Wishes::default() };
    let Live { device, running, queue: queues, .. } = world.start(&wishes, &options(Chaining::Direct));
    let stopped = running.reset(&Clock::default()).expect("an answer to the reset");
    let rings = queues[0].addresses();
    let driver = stopped.negotiate(&Clock::default(), &wishes, &grants(&device)).expect("the same device");
    let driver = driver.program(QueueId(1), &rings).expect("a ring that fits");
    assert_eq!(driver.program(QueueId(0), &rings).unwrap_err().why, BringUpError::Rings(QueueId(0)));
}
