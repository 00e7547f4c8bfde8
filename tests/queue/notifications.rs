//! Doorbells against the crossings of the device's event index: exactly those that were asked for, across the wrap.
use crate::fake::wire::features;
use crate::fake::{Config, FakeDevice, NotifyPolicy, Order};
use crate::rig::{Live, Owned, World};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Request};

const POLICIES: [NotifyPolicy; 5] = [
    NotifyPolicy::Always,
    NotifyPolicy::SuppressWhileBusy,
    NotifyPolicy::EveryNth(7),
    NotifyPolicy::EveryNth(64),
    NotifyPolicy::Never,
];

fn options() -> QueueOptions {
    QueueOptions { size: 256, chaining: Chaining::Indirect, ..QueueOptions::default() }
}

/// Publishes one batch of `count` and holds the doorbells that came against those that were due.
fn publish(live: &mut Live<'_, Owned<'_>>, count: u64) -> u64 {
    let device = live.device.clone();
    let ((), publish) = device.watch_publish(0, || {
        let mut batch = live.queue.batch();
        for _ in 0..count {
            batch.push(Request::flush()).unwrap();
        }
        batch.publish();
    });
    assert_eq!((publish.entries, publish.rung), (count, publish.due));
    publish.rung
}

/// More than 65536 chains in batches of 1 to 64; the device serves some batches late, several at a time.
fn run(live: &mut Live<'_, Owned<'_>>, chains: u64) -> u64 {
    let (mut sent, mut rung, mut size) = (0, 0, 1);
    while sent < chains {
        size = size * 37 % 67 % 64 + 1;
        rung += publish(live, size);
        sent += size;
        if sent % 3 != 0 || live.queue.in_flight() > 180 {
            live.device.process(0, usize::MAX, Order::AsTaken);
            live.reap();
        }
    }
    live.finish();
    assert_eq!(live.queue.statistics().submitted, sent);
    rung
}

fn assert_equal(device: &FakeDevice, live: &Live<'_, Owned<'_>>, rung: u64) {
    assert_eq!(device.notifications(0), rung);
    assert_eq!(device.expected_notifications(0), rung);
    assert_eq!(live.queue.statistics().notifications, rung);
    device.assert_no_faults();
}

#[test]
fn with_event_idx_doorbells_are_the_crossings_across_the_wrap_for_every_policy() {
    for policy in POLICIES {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options());
        live.device.set_notify_policy(0, policy);
        let rung = run(&mut live, 66_000);
        assert_equal(&live.device, &live, rung);
        match policy {
            NotifyPolicy::Never => assert!(rung <= 1, "half way round at most once: {rung}"),
            NotifyPolicy::EveryNth(64) => assert!(rung > 100 && rung < 1200, "{rung}"),
            _ => assert!(rung > 500, "{policy:?}: {rung}"),
        }
    }
}

#[test]
fn without_event_idx_every_publish_is_notified_unless_the_device_suppresses() {
    for policy in [NotifyPolicy::Always, NotifyPolicy::SuppressWhileBusy, NotifyPolicy::Never] {
        let mut world = World::new(Config::default());
        let mut live = world.owned_without(features::EVENT_IDX, &options());
        live.device.set_notify_policy(0, policy);
        let rung = run(&mut live, 66_000);
        assert_equal(&live.device, &live, rung);
        assert_eq!(rung == 0, policy == NotifyPolicy::Never);
    }
}

#[test]
fn a_batch_of_any_size_is_one_decision() {
    for event_idx in [true, false] {
        for size in 1..=64 {
            let mut world = World::new(Config::default());
            let mask = if event_idx { 0 } else { features::EVENT_IDX };
            let mut live = world.owned_without(mask, &options());
            assert_eq!(publish(&mut live, size), 1, "idle device, batch of {size}");
            let silent = publish(&mut live, size);
            assert_eq!(silent, u64::from(!event_idx), "the wish was passed with the first");
        }
    }
}

#[test]
fn every_position_of_the_event_index_in_a_batch_is_noticed() {
    // One crossing in each batch of 16, at its first, second, ... last entry, and then beyond it.
    for ahead in 1..=20_u16 {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options());
        live.device.set_notify_policy(0, NotifyPolicy::EveryNth(ahead));
        for _ in 0..5 {
            let rung = publish(&mut live, 16);
            assert_eq!(rung, u64::from(ahead <= 16), "asked for entry {ahead} of 16");
            live.device.process_all(0);
            live.reap();
        }
    }
}

#[test]
fn a_request_that_follows_from_a_completion_is_notified_like_any_other() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let mut total = 0;
    for _ in 0..1000 {
        live.queue.submit(Request::write_durably(Lba(0), live.heap.whole(512))).unwrap();
        live.device.process_all(0);
        let device = live.device.clone();
        let (handed, follow) = device.watch_publish(0, || live.queue.reap(9, |_| ()));
        assert_eq!((handed, follow.entries, follow.rung, follow.due), (0, 1, 1, 1), "the FLUSH");
        live.device.process_all(0);
        assert_eq!(live.reap().len(), 1);
        total += 2;
    }
    assert_equal(&live.device, &live, total);
}

#[test]
fn nothing_staged_is_nothing_to_notify() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options());
    live.queue.batch().publish();
    assert!(live.queue.submit(Request::read(Lba(1 << 40), live.heap.whole(512))).is_err());
    live.queue.submit(Request::flush()).unwrap();
    assert_eq!(live.device.notifications(0), 0);
}
