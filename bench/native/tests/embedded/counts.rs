//! Who is told what, how often: exact numbers, across the wrap of the indices.
use crate::rig::{Live, Owned, World, signals, world};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Request};
use drv_virtio_block::spec::feature;
use native::embedded::minimal::{Counters, Notify, Options};

fn options() -> QueueOptions {
    QueueOptions { size: 256, chaining: Chaining::Indirect, ..QueueOptions::default() }
}

fn sleeping() -> World {
    world(Options { notify: Notify::WhenIdle, ..Options::default() })
}

/// Publishes one batch of flushes.
fn publish(live: &mut Live<Owned>, count: u64) {
    let mut batch = live.queue().batch();
    for _ in 0..count {
        batch.push(Request::flush()).unwrap();
    }
    batch.publish();
}

fn reap(live: &mut Live<Owned>) -> usize {
    live.queue().reap(usize::MAX, |completion| assert_eq!(completion.result, Ok(())))
}

/// Sizes from 1 to 64 in an order without a pattern.
fn sizes(total: u64) -> Vec<u64> {
    let (mut sizes, mut sum, mut size) = (Vec::new(), 0, 1);
    while sum < total {
        size = size * 37 % 67 % 64 + 1;
        sizes.push(size);
        sum += size;
    }
    sizes
}

#[test]
fn a_device_that_never_sleeps_is_never_notified_across_the_wrap() {
    for without in [0, feature::EVENT_IDX] {
        let mut live = world(Options::default()).owned(&options(), without);
        let sizes = sizes(200_000);
        for size in &sizes {
            publish(&mut live, *size);
            assert_eq!(live.device.step(0) as u64, *size);
            assert_eq!(reap(&mut live) as u64, *size);
        }
        let (used, batches) = (sizes.iter().sum(), sizes.len() as u64);
        let expected = Counters { used, batches, interrupts: live.device.counters(0).interrupts, notifications: 0 };
        assert_eq!(live.device.counters(0), expected);
        assert_eq!(live.queue().statistics().notifications, 0);
        // A polled queue without EVENT_IDX asks for none; with it the wish left behind is passed once in 65536 chains.
        assert!(expected.interrupts <= if without == 0 { 4 } else { 0 });
    }
}

#[test]
fn a_device_that_is_behind_by_a_whole_ring_is_not_notified_either() {
    // The largest ring, full before every step: the driver is as far ahead of the device as it can be.
    for size in [1024, 32768] {
        let world = world(Options { queue_size: 32768, ..Options::default() });
        let mut live = world.owned(&QueueOptions { size, ..options() }, 0);
        let slots = u64::from(live.queue().slots());
        for _ in 0..200_000 / slots {
            for _ in 0..slots / 64 {
                publish(&mut live, 64);
            }
            live.device.step(0);
            reap(&mut live);
        }
        assert_eq!(live.device.counters(0).notifications, 0, "size {size}");
    }
}

#[test]
fn a_device_that_armed_is_notified_by_the_first_publish_and_by_no_other() {
    for without in [0, feature::EVENT_IDX] {
        let mut live = sleeping().owned(&options(), without);
        let mut expected = 0;
        for size in sizes(140_000) {
            assert!(!live.device.queue(0).unwrap().arm(), "nothing is there");
            publish(&mut live, size);
            expected += 1;
            live.device.queue(0).unwrap().disarm();
            publish(&mut live, 3);
            assert_eq!(live.device.counters(0).notifications, expected, "without {without:#x}");
            assert_eq!(live.device.step(0) as u64, size + 3);
            reap(&mut live);
        }
        assert_eq!(live.queue().statistics().notifications, expected);
    }
}

#[test]
fn arming_looks_again() {
    let mut live = sleeping().owned(&options(), 0);
    assert!(!live.device.queue(0).unwrap().arm());
    publish(&mut live, 1);
    assert!(live.device.queue(0).unwrap().arm(), "one is there already");
}

#[test]
fn interrupts_are_the_crossings_across_the_wrap() {
    let mut live = world(Options::default()).owned(&options(), 0);
    let mut armed = 0;
    for (n, size) in (0..).zip(sizes(140_000)) {
        let (first, want) = (size / 2, n % size + 1);
        publish(&mut live, first.max(1));
        // Armed before, so that the wish falls into the first step, into the second, or ends one.
        if first.max(1) >= want {
            assert!(!live.queue().arm(want as u16));
        }
        live.device.step(0);
        if first > 0 && want > first {
            // Two steps of one wish: only the second passes it.
            publish(&mut live, size - first);
            assert!(live.queue().arm(1), "the first ones are there");
            reap(&mut live);
            assert!(!live.queue().arm((want - first) as u16));
            assert_eq!(live.device.counters(0).interrupts, armed, "early at {n}");
            live.device.step(0);
        }
        armed += 1;
        assert_eq!(live.device.counters(0).interrupts, armed, "at {n}, {want} of {size}");
        assert_eq!(signals(&live.calls[1]), 1);
        reap(&mut live);
        live.device.step(0);
        reap(&mut live);
    }
    assert_eq!(signals(&live.calls[0]), 0, "nothing happened to the configuration");
}

#[test]
fn without_event_idx_the_flag_decides() {
    let mut live = world(Options::default()).owned(&options(), feature::EVENT_IDX);
    for round in 1..=100 {
        publish(&mut live, 5);
        live.device.step(0);
        reap(&mut live);
        assert!(!live.queue().arm(1));
        publish(&mut live, 5);
        live.device.step(0);
        assert_eq!(signals(&live.calls[1]), 1, "armed, round {round}");
        live.queue().disarm();
        reap(&mut live);
    }
    assert_eq!(live.device.counters(0).interrupts, 100);
}

#[test]
fn a_queue_without_a_vector_is_never_interrupted() {
    use drv_virtio_block::device::Wishes;
    use drv_virtio_block::interrupt::CompletionMode;
    let wishes = Wishes { mode: CompletionMode::Polled, ..Wishes::default() };
    let mut live = world(Options::default()).start(&wishes, &options()).own();
    for _ in 0..2000 {
        publish(&mut live, 50);
        live.queue().arm(1);
        live.device.step(0);
        reap(&mut live);
    }
    assert_eq!(live.device.counters(0).interrupts, 0);
    assert_eq!(signals(&live.calls[1]), 0);
}

#[test]
fn null_data_leaves_buffers_alone_and_zeros_do_not() {
    use native::embedded::minimal::Data;
    for (data, expected) in [(Data::Null, 7), (Data::Zeros, 0)] {
        let mut live = world(Options { data, ..Options::default() }).owned(&options(), 0);
        for cut in [&[4096][..], &[512, 1024]] {
            let len = cut.iter().sum();
            let buf = live.heap.cut(cut);
            buf.fill(&vec![7; len]);
            let done = live.ask(Request::read(Lba(0), buf));
            assert_eq!((done.result, done.buffer.unwrap().bytes()), (Ok(()), vec![expected; len]));
        }
    }
}
