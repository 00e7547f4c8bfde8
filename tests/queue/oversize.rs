//! Requests above what one chain carries: cut in a window, whole or not at all, and never in the way for good.
use crate::fake::wire::{block, features};
use crate::fake::{Config, Lie, Order};
use crate::rig::{Buf, Heap, Room, World, outcomes, pattern};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Error, Lba, Refusal, Request};

fn options(size: u16) -> QueueOptions {
    QueueOptions { size, ..QueueOptions::default() }
}

fn big() -> Room {
    Room { places: 30, place: 320 << 10, ..Room::default() }
}

/// `count` segments of one sector that hold `data`.
fn sectors(heap: &Heap, data: &[u8]) -> Buf {
    let buffer = heap.cut(&vec![512; data.len() / 512]);
    buffer.set(data);
    buffer
}

#[test]
fn a_request_larger_than_the_queue_makes_progress_and_is_whole() {
    for (size, chaining) in [(4, Chaining::Direct), (2, Chaining::Indirect), (16, Chaining::Indirect)] {
        let mut world = World::with(Config::default(), big());
        let mut live = world.owned(&QueueOptions { chaining, ..options(size) });
        let data = pattern(1, 600 * 512);
        let mut rounds = 0;
        live.queue.submit(Request::write(Lba(5), sectors(&live.heap, &data)).with_token(4)).unwrap();
        let mut done = Vec::new();
        while done.is_empty() {
            let most = live.device.poll_available(0);
            assert!(most > 0 && most <= live.queue.slots(), "never idle, never more than the queue has");
            live.device.process(0, 1, Order::AsTaken);
            done = live.reap();
            rounds += 1;
            assert!(rounds < 1000, "it ends");
        }
        assert_eq!(outcomes(&done), [(4, Ok(()))]);
        assert!(rounds > 5 && live.device.disk(5, 600) == data, "size {size}");
        live.queue.submit(Request::read(Lba(5), live.heap.cut(&[512; 600]))).unwrap();
        let done = live.finish();
        assert!(done[0].buffer.as_ref().unwrap().bytes() == data);
        live.device.assert_no_faults();
    }
}

#[test]
fn a_segment_above_size_max_is_cut_inside_and_a_limit_of_zero_is_none() {
    for (size_max, chains) in [(4096_u32, 3_usize), (0, 1)] {
        let config = Config { size_max, seg_max: 2, ..Config::default() }.with(features::SIZE_MAX);
        let mut world = World::with(config, big());
        let mut live = world.owned(&options(64));
        let data = pattern(2, 20 << 10);
        live.queue.submit(Request::write(Lba(0), live.heap.holding(&data))).unwrap();
        let taken = live.device.take(0, 99);
        assert_eq!(taken.len(), chains, "size_max {size_max}");
        live.device.complete_all(0, Order::Reversed);
        assert_eq!(outcomes(&live.finish()), [(0, Ok(()))]);
        assert_eq!(live.device.disk(0, 40), data);
        live.device.assert_no_faults();
    }
}

#[test]
fn seg_max_of_zero_or_without_its_feature_means_one() {
    for config in [Config { seg_max: 0, ..Config::default() }, Config::default().without(features::SEG_MAX)] {
        let mut world = World::with(config, big());
        let mut live = world.owned(&options(64));
        live.queue.submit(Request::read(Lba(0), live.heap.cut(&[512, 512]))).unwrap();
        let segments: Vec<usize> = live.device.take(0, 99).iter().map(|one| one.segments).collect();
        assert_eq!(segments, [1, 1]);
        live.device.complete_all(0, Order::AsTaken);
        assert_eq!(outcomes(&live.finish()), [(0, Ok(()))]);
    }
}

#[test]
fn a_large_table_takes_what_a_slots_own_does_not_and_is_used_again() {
    for chaining in [Chaining::Direct, Chaining::Indirect] {
        let mut world = World::with(Config::default(), big());
        let mut live = world.owned(&QueueOptions { large_tables: 1, large_segments: 30, chaining, ..options(64) });
        let data = pattern(3, 30 * 512);
        for round in 0..5 {
            live.queue.submit(Request::write(Lba(0), sectors(&live.heap, &data))).unwrap();
            live.queue.submit(Request::write(Lba(100), sectors(&live.heap, &data))).unwrap();
            let chains: Vec<usize> = live.device.take(0, 99).iter().map(|one| one.segments).collect();
            assert_eq!(chains, [30, 6, 6, 6, 6, 6], "round {round}: the pool's one table, then cut");
            live.device.complete_all(0, Order::Shuffled(round));
            assert_eq!(live.finish().len(), 2);
            assert_eq!((live.device.disk(0, 30), live.device.disk(100, 30)), (data.clone(), data.clone()));
        }
        live.device.assert_no_faults();
    }
}

#[test]
fn a_request_that_only_a_large_table_can_carry_waits_for_one() {
    let mut world = World::with(Config::default(), big());
    let mut live = world.owned(&QueueOptions { large_tables: 1, ..options(64) });
    // Six segments of 50 bytes hold no sector: this cannot be cut.
    let crumbs = |heap: &Heap| heap.cut(&[[50; 10].as_slice(), &[12]].concat());
    live.queue.submit(Request::read(Lba(0), crumbs(&live.heap)).with_token(1)).unwrap();
    let refused = live.queue.submit(Request::read(Lba(1), crumbs(&live.heap)).with_token(2)).unwrap_err();
    assert_eq!(refused.why, Refusal::Full);
    assert_eq!(outcomes(&live.finish()), [(1, Ok(()))]);
    live.queue.submit(refused.request).expect("the table is back");
    assert_eq!(outcomes(&live.finish()), [(2, Ok(()))]);
    live.device.assert_no_faults();
}

#[test]
fn segments_that_cannot_be_cut_at_blocks_are_refused() {
    let mut world = World::with(Config { seg_max: 2, ..Config::default() }, big());
    let mut live = world.owned(&options(64));
    let refused = live.queue.submit(Request::read(Lba(0), live.heap.cut(&[200, 200, 112]))).unwrap_err();
    assert_eq!(refused.why, Refusal::Unaligned);
    let late = [[512; 9].as_slice(), &[200, 200, 112]].concat();
    let refused = live.queue.submit(Request::read(Lba(0), live.heap.cut(&late))).unwrap_err();
    assert_eq!(refused.why, Refusal::Unaligned, "found out before the first chain goes out");
    assert_eq!(live.device.poll_available(0), 0);
}

#[test]
fn the_first_error_ends_a_cut_request_and_is_its_result() {
    for at in 0..4 {
        let mut world = World::with(Config { seg_max: 1, ..Config::default() }, big());
        let mut live = world.owned(&options(4));
        assert_eq!(live.queue.slots(), 1);
        let data = pattern(6, 8 * 512);
        live.queue.submit(Request::write_durably(Lba(0), sectors(&live.heap, &data)).with_token(5)).unwrap();
        for _ in 0..at {
            live.device.process_all(0);
            assert!(live.reap().is_empty());
        }
        live.device.inject(0, Lie::Status(block::IOERR));
        let done = live.finish();
        assert_eq!(outcomes(&done), [(5, Err(Error::Medium))]);
        assert_eq!(done[0].buffer.as_ref().unwrap().bytes(), data);
        assert_eq!(live.device.counts(0).taken, at + 1, "nothing follows, no flush either");
        assert_eq!(live.ask(Request::read(Lba(0), live.heap.whole(512))).result, Ok(()));
    }
}

#[test]
fn a_cut_request_ends_only_when_all_its_chains_are_back() {
    let mut world = World::with(Config { seg_max: 1, ..Config::default() }, big());
    let mut live = world.owned(&options(64));
    live.queue.submit(Request::read(Lba(0), live.heap.cut(&[512; 5]))).unwrap();
    let taken = live.device.take(0, 99);
    assert_eq!(taken.len(), 5);
    live.device.inject(0, Lie::Status(block::IOERR));
    live.device.complete(0, &taken[2..3]);
    assert!(live.reap().is_empty(), "the device still writes into the buffer");
    assert_eq!(live.heap.lent(), 1);
    live.device.complete(0, &taken[..2]);
    live.device.complete(0, &taken[3..]);
    assert_eq!(outcomes(&live.reap()), [(0, Err(Error::Medium))], "the first error, whatever came after");
}

#[test]
fn cut_requests_without_a_parent_are_pushed_back_and_taken_later() {
    for parents in [1, 2] {
        let mut world = World::with(Config { seg_max: 1, ..Config::default() }, big());
        let mut live = world.owned(&QueueOptions { parents, ..options(64) });
        for token in 0..u64::from(parents) {
            live.queue.submit(Request::read(Lba(0), live.heap.cut(&[512; 3])).with_token(token)).unwrap();
        }
        let refused = live.queue.submit(Request::read(Lba(9), live.heap.cut(&[512; 3])).with_token(77)).unwrap_err();
        assert_eq!((refused.why, live.queue.statistics().full), (Refusal::Full, 1));
        live.queue.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(50)).expect("a plain one fits");
        assert_eq!(live.finish().len(), usize::from(parents) + 1);
        live.queue.submit(refused.request).expect("a parent is free");
        assert_eq!(outcomes(&live.finish()), [(77, Ok(()))]);
        live.device.assert_no_faults();
    }
}

#[test]
fn a_cut_request_leaves_its_slots_behind() {
    let mut world = World::with(Config { seg_max: 1, ..Config::default() }, big());
    let mut live = world.owned(&options(64));
    for _ in 0..10 {
        assert_eq!(live.ask(Request::read(Lba(0), live.heap.cut(&[512; 33]))).result, Ok(()));
    }
    for _ in 0..live.queue.slots() {
        live.queue.submit(Request::read(Lba(0), live.heap.whole(512))).expect("every slot is free again");
    }
}

#[test]
fn several_cut_requests_beside_plain_ones_end_each_with_its_own_data() {
    let mut world = World::with(Config { seg_max: 2, ..Config::default() }, big());
    let mut live = world.owned(&options(256));
    for lba in 0..2000 {
        live.device.put_disk(lba, &pattern(lba, 512));
    }
    let mut expected = Vec::new();
    for token in 0..4_u64 {
        let count = if token == 3 { 1 } else { 30 + token as usize };
        live.queue.submit(Request::read(Lba(token * 100), live.heap.cut(&vec![512; count])).with_token(token)).unwrap();
        expected.push(live.device.disk(token * 100, count as u64));
    }
    let mut done = Vec::new();
    for seed in 0..1000 {
        live.device.process(0, 3, Order::Shuffled(seed));
        done.extend(live.reap());
    }
    assert_eq!(done.len(), 4);
    for one in done {
        assert!(one.buffer.unwrap().bytes() == expected[one.token as usize], "token {}", one.token);
    }
    live.device.assert_no_faults();
}
