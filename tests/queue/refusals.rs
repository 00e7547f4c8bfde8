//! Requests that are refused, each for its reason, handed back whole, and none of them seen by the device.
use crate::fake::Config;
use crate::fake::wire::features;
use crate::rig::{Live, Owned, World, pattern};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Operation, Refusal, Refused, Request};

const CAPACITY: u64 = 2048;

fn options() -> QueueOptions {
    QueueOptions { size: 64, ..QueueOptions::default() }
}

/// Submits and expects `why`; the request comes back with its token and buffer.
#[track_caller]
fn refused(live: &mut Live<'_, Owned<'_>>, request: Request<crate::rig::Buf>, why: Refusal) {
    let (operation, request) = (request.operation(), request.with_token(0x1234));
    let had = request_bytes(&request);
    let Refused { why: found, request } = live.queue.submit(request).expect_err("a refusal");
    assert_eq!((found, request.token(), request.operation()), (why, 0x1234, operation));
    assert_eq!(request_bytes(&request), had, "handed back intact");
    drop(request);
    assert_eq!(live.device.poll_available(0), 0, "nothing reaches the device");
}

fn request_bytes(request: &Request<crate::rig::Buf>) -> (u64, Operation) {
    (request.token(), request.operation())
}

#[test]
fn sectors_beyond_the_capacity_are_refused_for_every_operation() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    for lba in [CAPACITY, CAPACITY - 1, u64::MAX, u64::MAX - 1, u64::MAX >> 9, 1 << 55, (1 << 55) - 1] {
        refused(&mut live, Request::read(Lba(lba), heap.whole(1024)), Refusal::OutOfRange);
        refused(&mut live, Request::write(Lba(lba), heap.cut(&[512, 512])), Refusal::OutOfRange);
        refused(&mut live, Request::write_durably(Lba(lba), heap.whole(1024)), Refusal::OutOfRange);
        refused(&mut live, Request::discard(Lba(lba), 2), Refusal::OutOfRange);
        refused(&mut live, Request::write_zeroes(Lba(lba), 2, true), Refusal::OutOfRange);
    }
    refused(&mut live, Request::discard(Lba(1), u32::MAX), Refusal::OutOfRange);
    refused(&mut live, Request::read(Lba(CAPACITY - 2), heap.cut(&[512; 3])), Refusal::OutOfRange);
    for lba in [0, CAPACITY - 2] {
        assert_eq!(live.ask(Request::read(Lba(lba), heap.whole(1024))).result, Ok(()), "the last sectors are inside");
        assert_eq!(live.ask(Request::discard(Lba(lba), 2)).result, Ok(()));
    }
    live.device.assert_no_faults();
}

#[test]
fn a_request_larger_than_the_medium_is_refused() {
    let mut world = World::new(Config { capacity_sectors: 3, ..Config::default() });
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    refused(&mut live, Request::read(Lba(0), heap.whole(4 * 512)), Refusal::OutOfRange);
    assert_eq!(live.ask(Request::read(Lba(0), heap.whole(3 * 512))).result, Ok(()));
    live.device.assert_no_faults();
}

#[test]
fn lengths_and_addresses_off_the_block_are_refused() {
    for block in [512_u32, 4096] {
        let mut world = World::new(Config { blk_size: block, ..Config::default() });
        let mut live = world.owned(&options());
        let heap = live.heap.clone();
        for len in [1, 511, 513, block - 1, block + 1, block / 2].into_iter().filter(|len| len % block != 0) {
            refused(&mut live, Request::read(Lba(0), heap.whole(len)), Refusal::Unaligned);
            if len > 1 {
                refused(&mut live, Request::write(Lba(0), heap.cut(&[len / 2, len - len / 2])), Refusal::Unaligned);
            }
        }
        if block == 4096 {
            for lba in [1, 4, 7, 9] {
                refused(&mut live, Request::read(Lba(lba), heap.whole(4096)), Refusal::Unaligned);
                refused(&mut live, Request::discard(Lba(lba), 8), Refusal::Unaligned);
                refused(&mut live, Request::write_zeroes(Lba(lba), 8, false), Refusal::Unaligned);
            }
            refused(&mut live, Request::discard(Lba(8), 9), Refusal::Unaligned);
        }
        assert_eq!(live.ask(Request::read(Lba(8), heap.whole(block))).result, Ok(()));
        assert_eq!(live.ask(Request::discard(Lba(8), block / 512)).result, Ok(()));
        live.device.assert_no_faults();
    }
}

#[test]
fn segments_inside_a_sector_are_fine_when_together_they_are_whole_blocks() {
    let mut world = World::new(Config { blk_size: 4096, ..Config::default() });
    let mut live = world.owned(&options());
    let data = pattern(1, 4096);
    let buffer = live.heap.cut(&[1, 4000, 95]);
    buffer.set(&data);
    assert_eq!(live.ask(Request::write(Lba(8), buffer)).result, Ok(()));
    assert_eq!(live.device.disk(8, 8), data);
    live.device.assert_no_faults();
}

#[test]
fn requests_for_nothing_are_refused() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    for lens in [&[][..], &[0], &[0, 512], &[512, 0], &[0, 0]] {
        refused(&mut live, Request::read(Lba(0), heap.cut(lens)), Refusal::Empty);
        refused(&mut live, Request::write(Lba(0), heap.cut(lens)), Refusal::Empty);
    }
    refused(&mut live, Request::discard(Lba(0), 0), Refusal::Empty);
    refused(&mut live, Request::write_zeroes(Lba(0), 0, false), Refusal::Empty);
}

#[test]
fn a_read_only_medium_is_read_and_flushed_and_never_changed() {
    let mut world = World::new(Config::default().with(features::RO));
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    refused(&mut live, Request::write(Lba(0), heap.whole(512)), Refusal::ReadOnly);
    refused(&mut live, Request::write_durably(Lba(0), heap.whole(512)), Refusal::ReadOnly);
    refused(&mut live, Request::write(Lba(0), heap.cut(&[256, 256])), Refusal::ReadOnly);
    refused(&mut live, Request::discard(Lba(0), 8), Refusal::ReadOnly);
    refused(&mut live, Request::write_zeroes(Lba(0), 8, true), Refusal::ReadOnly);
    assert_eq!(live.ask(Request::read(Lba(0), heap.whole(512))).result, Ok(()));
    assert_eq!(live.ask(Request::flush()).result, Ok(()));
    assert_eq!(live.ask(Request::get_id(heap.whole(20))).result, Ok(()));
    live.device.assert_no_faults();
}

#[test]
fn operations_that_the_device_did_not_offer_are_refused() {
    let mut world = World::new(Config::default().without(features::DISCARD | features::WRITE_ZEROES));
    let mut live = world.owned(&options());
    refused(&mut live, Request::discard(Lba(0), 8), Refusal::Unsupported);
    refused(&mut live, Request::write_zeroes(Lba(0), 8, false), Refusal::Unsupported);
}

#[test]
fn the_identity_into_a_bad_buffer_is_refused() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    for lens in [&[][..], &[19], &[20, 20], &[0], &[1]] {
        refused(&mut live, Request::get_id(heap.cut(lens)), Refusal::BadBuffer);
    }
}

#[test]
fn a_full_queue_pushes_back_and_takes_the_same_request_later() {
    for (chaining, size) in [(Chaining::Direct, 64), (Chaining::Indirect, 64), (Chaining::Direct, 4)] {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&QueueOptions { size, chaining, ..options() });
        let slots = u64::from(live.queue.slots());
        for token in 0..slots {
            live.queue.submit(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
        }
        let data = pattern(9, 512);
        let request = Request::write(Lba(500), live.heap.holding(&data)).with_token(99);
        let refused = live.queue.submit(request).expect_err("full");
        assert_eq!((refused.why, live.queue.statistics().full), (Refusal::Full, 1));
        assert_eq!(live.device.poll_available(0), slots as u16);
        let taken = live.device.take(0, 1);
        live.device.complete(0, &taken);
        assert_eq!(live.reap().len(), 1);
        live.queue.submit(refused.request).expect("one slot is free");
        assert_eq!(live.finish().len() as u64, slots);
        assert_eq!(live.device.disk(500, 1), data, "the very same request");
        assert_eq!(live.heap.lent(), 0);
        live.device.assert_no_faults();
    }
}

#[test]
fn a_refused_request_costs_no_slot() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let heap = live.heap.clone();
    for _ in 0..200 {
        refused(&mut live, Request::read(Lba(CAPACITY), heap.whole(512)), Refusal::OutOfRange);
        refused(&mut live, Request::discard(Lba(0), 0), Refusal::Empty);
    }
    for _ in 0..live.queue.slots() {
        live.queue.submit(Request::read(Lba(0), heap.whole(512))).expect("all slots are there");
    }
    assert_eq!(live.queue.statistics().full, 0, "a refusal is not back-pressure");
}
