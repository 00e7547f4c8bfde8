//! Batches: one index store and one doorbell decision each, published when dropped, harmless when forgotten.
use crate::fake::Config;
use crate::fake::wire::features;
use crate::rig::{World, outcomes};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Refusal, Request};

fn options() -> QueueOptions {
    QueueOptions { size: 256, chaining: Chaining::Indirect, ..QueueOptions::default() }
}

#[test]
fn the_device_sees_nothing_of_a_batch_before_it_is_published_and_then_all_of_it() {
    for mask in [0, features::EVENT_IDX] {
        let mut world = World::new(Config::default());
        let mut live = world.owned_without(mask, &options());
        let mut batch = live.queue.batch();
        for token in 0..64 {
            batch.push(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
            assert_eq!(live.device.poll_available(0), 0);
        }
        batch.publish();
        assert_eq!((live.device.poll_available(0), live.device.notifications(0)), (64, 1));
        assert_eq!(live.device.counts(0).publishes, 1, "one store of the index");
        assert_eq!(live.finish().len(), 64);
        live.device.assert_no_faults();
    }
}

#[test]
fn a_dropped_batch_is_published() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let mut batch = live.queue.batch();
    batch.push(Request::flush().with_token(1)).unwrap();
    drop(batch);
    assert_eq!((live.device.poll_available(0), live.device.notifications(0)), (1, 1));
}

#[test]
fn a_batch_that_hits_the_full_queue_publishes_what_it_holds() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&QueueOptions { slots: 3, ..options() });
    let mut batch = live.queue.batch();
    for token in 0..3 {
        batch.push(Request::flush().with_token(token)).unwrap();
    }
    assert_eq!(batch.push(Request::flush()).unwrap_err().why, Refusal::Full);
    assert_eq!(batch.push(Request::discard(Lba(0), 0)).unwrap_err().why, Refusal::Empty, "the caller's fault first");
    batch.publish();
    assert_eq!(outcomes(&live.finish()), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
}

#[test]
fn a_forgotten_batch_is_published_with_the_next_one() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    for token in 0..5 {
        let mut batch = live.queue.batch();
        batch.push(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
        std::mem::forget(batch);
    }
    assert_eq!((live.device.poll_available(0), live.heap.lent()), (0, 5), "not published, not lost");
    assert!(live.reap().is_empty());
    live.queue.batch().publish();
    assert_eq!((live.device.poll_available(0), live.device.notifications(0)), (5, 1));
    assert_eq!(outcomes(&live.finish()), (0..5).map(|token| (token, Ok(()))).collect::<Vec<_>>());
    assert_eq!((live.heap.lent(), live.queue.in_flight()), (0, 0));
    live.device.assert_no_faults();
}

#[test]
fn a_batch_refuses_one_request_and_takes_the_next() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let mut batch = live.queue.batch();
    batch.push(Request::read(Lba(0), live.heap.whole(512)).with_token(1)).unwrap();
    assert!(batch.push(Request::read(Lba(1 << 30), live.heap.whole(512))).is_err());
    batch.push(Request::read(Lba(1), live.heap.whole(512)).with_token(2)).unwrap();
    batch.publish();
    assert_eq!(outcomes(&live.finish()), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn a_batch_mixes_everything_and_is_still_one_decision() {
    let mut world = World::new(Config { seg_max: 2, ..Config::default() });
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    let requests = [
        Request::read(Lba(0), heap.whole(512)),
        Request::write(Lba(8), heap.cut(&[512; 5])),
        Request::flush(),
        Request::discard(Lba(64), 8),
        Request::get_id(heap.whole(20)),
        Request::write_durably(Lba(90), heap.cut(&[12, 500])),
    ];
    let mut batch = live.queue.batch();
    for (token, request) in (0..).zip(requests) {
        batch.push(request.with_token(token)).unwrap();
    }
    batch.publish();
    assert_eq!((live.device.poll_available(0), live.device.notifications(0)), (8, 1), "five segments are three chains");
    assert_eq!(live.finish().len(), 6);
    live.device.assert_no_faults();
}
