//! Statistics: exact, chain by chain.
use crate::fake::{Config, Lie, Order};
use crate::rig::World;
use drv_virtio_block::queue::{QueueOptions, Statistics};
use drv_virtio_block::request::{Lba, Request};

fn options() -> QueueOptions {
    QueueOptions { size: 64, slots: 8, ..QueueOptions::default() }
}

#[test]
fn a_new_queue_has_counted_nothing() {
    let mut world = World::new(Config::default());
    let live = world.owned(&options());
    assert_eq!(live.queue.statistics(), Statistics::default());
}

#[test]
fn every_counter_counts_what_it_says_and_nothing_else() {
    let mut world = World::new(Config { seg_max: 1, ..Config::default() });
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    let mut expected = Statistics::default();

    // A plain request: one chain, one doorbell.
    assert_eq!(live.ask(Request::read(Lba(0), heap.whole(512))).result, Ok(()));
    expected = Statistics { submitted: 1, completed: 1, notifications: 1, ..expected };
    assert_eq!(live.queue.statistics(), expected);

    // A durable write: two chains. A request in three pieces: three chains in one publish.
    assert_eq!(live.ask(Request::write_durably(Lba(0), heap.whole(512))).result, Ok(()));
    assert_eq!(live.ask(Request::read(Lba(0), heap.cut(&[512; 3]))).result, Ok(()));
    expected = Statistics { submitted: 6, completed: 6, notifications: 4, ..expected };
    assert_eq!(live.queue.statistics(), expected);

    // A refusal is none of these; a full queue is `full`, once per refused request.
    assert!(live.queue.submit(Request::read(Lba(1 << 40), heap.whole(512))).is_err());
    let mut batch = live.queue.batch();
    for _ in 0..8 {
        batch.push(Request::read(Lba(0), heap.whole(512))).unwrap();
    }
    for _ in 0..3 {
        assert!(batch.push(Request::read(Lba(0), heap.whole(512))).is_err());
    }
    assert!(batch.push(Request::flush()).is_err());
    batch.publish();
    expected = Statistics { submitted: 14, notifications: 5, full: 4, ..expected };
    assert_eq!(live.queue.statistics(), expected);

    // Completed counts what was reaped, not what the device has done; errors are completions.
    live.device.inject(0, Lie::Status(1));
    live.device.process(0, usize::MAX, Order::AsTaken);
    assert_eq!(live.queue.statistics(), expected);
    live.queue.reap(3, |_| ());
    expected.completed += 3;
    assert_eq!(live.queue.statistics(), expected);
    live.reap();
    expected.completed += 5;
    assert_eq!(live.queue.statistics(), expected);

    live.queue.note_interrupt();
    live.queue.note_interrupt();
    expected.interrupts = 2;
    assert_eq!(live.queue.statistics(), expected);

    // A violation is counted once and completes nothing; refusals of a broken queue are not `full`.
    live.queue.submit(Request::flush()).unwrap();
    live.device.inject(0, Lie::IdOutOfRange);
    live.device.process_all(0);
    live.reap();
    live.reap();
    assert!(live.queue.submit(Request::flush()).is_err());
    expected = Statistics { submitted: 15, notifications: 6, violations: 1, ..expected };
    assert_eq!(live.queue.statistics(), expected);
}

#[test]
fn requests_answered_without_the_device_are_not_counted() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options());
    for _ in 0..8 {
        live.queue.submit(Request::flush()).unwrap();
    }
    assert!(live.queue.submit(Request::flush()).is_err());
    assert_eq!(live.reap().len(), 8);
    assert_eq!(live.queue.statistics(), Statistics { full: 1, ..Statistics::default() });
}
