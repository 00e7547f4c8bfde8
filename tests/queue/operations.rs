//! Every operation on its way through one queue: what reaches the device, and what comes back.
use crate::fake::wire::block;
use crate::fake::{Config, Order};
use crate::rig::{FRESH, World, outcomes, pattern};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Completion, DeviceFault, Error, Lba, Request};

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 64, chaining, ..QueueOptions::default() }
}

/// Kind, sector, data bytes and data segments of what the device takes next.
fn taken(device: &crate::fake::FakeDevice) -> Vec<(u32, u64, u64, usize)> {
    device.take(0, usize::MAX).iter().map(|one| (one.kind, one.sector, one.data_len, one.segments)).collect()
}

#[test]
fn what_was_written_is_on_the_disk_and_is_read_back() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        let data = pattern(1, 4096);
        let written = live.ask(Request::write(Lba(8), live.heap.holding(&data)).with_token(7));
        assert_eq!((written.token, written.result), (7, Ok(())));
        assert_eq!(written.buffer.unwrap().bytes(), data, "a write leaves its buffer alone");
        assert_eq!(live.device.disk(8, 8), data);
        let read = live.ask(Request::read(Lba(8), live.heap.whole(4096)).with_token(8));
        assert_eq!((read.token, read.result), (8, Ok(())));
        assert_eq!(read.buffer.unwrap().bytes(), data);
        live.device.assert_no_faults();
    }
}

#[test]
fn segments_are_filled_in_order_whatever_their_number_and_place() {
    for (chaining, large_tables) in [BOTH[0], BOTH[1]].into_iter().flat_map(|form| [(form, 0), (form, 2)]) {
        for count in 1..=9_u32 {
            let mut world = World::new(Config::default());
            let mut live = world.owned(&QueueOptions { large_tables, ..options(chaining) });
            let mut lens = vec![100; count as usize];
            lens[0] += 1024 - 100 * count;
            let data = pattern(count.into(), 1024);
            live.device.put_disk(3, &data);
            let read = live.ask(Request::read(Lba(3), live.heap.cut(&lens)));
            assert_eq!(read.buffer.unwrap().bytes(), data, "{count} segments, {chaining:?}");
            let buffer = live.heap.cut(&lens);
            buffer.set(&data);
            let written = live.ask(Request::write(Lba(40), buffer));
            assert_eq!((written.result, live.device.disk(40, 2)), (Ok(()), data));
            live.device.assert_no_faults();
        }
    }
}

#[test]
fn one_segment_takes_three_descriptors_and_no_table_in_the_direct_form() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::read(Lba(0), live.heap.whole(512))).unwrap();
    live.queue.submit(Request::read(Lba(8), live.heap.cut(&[256, 256]))).unwrap();
    let shape: Vec<_> =
        live.device.take(0, 9).iter().map(|one| (one.descriptors, one.segments, one.indirect)).collect();
    assert_eq!(shape, [(3, 1, false), (5, 2, true)]);
}

#[test]
fn a_flush_reaches_a_device_with_a_write_cache() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        live.queue.submit(Request::flush().with_token(3)).unwrap();
        assert_eq!(taken(&live.device), [(block::FLUSH, 0, 0, 0)]);
        assert!(live.reap().is_empty(), "no answer before the device's");
        live.device.complete_all(0, Order::AsTaken);
        let done = live.reap();
        assert_eq!(outcomes(&done), [(3, Ok(()))]);
        assert!(done[0].buffer.is_none());
        live.device.assert_no_faults();
    }
}

#[test]
fn a_flush_under_write_through_is_answered_without_the_device() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::flush().with_token(3)).unwrap();
    assert_eq!(live.device.poll_available(0), 0);
    assert!(live.queue.arm(1), "the answer waits: nobody is to sleep on it");
    assert_eq!(outcomes(&live.reap()), [(3, Ok(()))]);
    assert!(live.reap().is_empty(), "once");
    assert_eq!(live.queue.statistics().submitted, 0);
}

#[test]
fn flushes_answered_without_the_device_hold_slots_until_they_are_reaped() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options(Chaining::Direct));
    let slots = live.queue.slots();
    for round in 0..3 {
        for token in 0..u64::from(slots) {
            live.queue.submit(Request::flush().with_token(token)).expect("as many as slots");
        }
        assert!(live.queue.submit(Request::flush()).is_err(), "round {round}");
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        assert_eq!(live.queue.reap(5, |done| first.push(done)), 5, "no more than were asked for");
        assert_eq!(live.queue.reap(usize::MAX, |done| rest.push(done)), usize::from(slots) - 5);
        first.extend(rest);
        let tokens: Vec<u64> = outcomes(&first).into_iter().map(|(token, _)| token).collect();
        assert_eq!(tokens, (0..u64::from(slots)).collect::<Vec<_>>(), "each once");
    }
}

#[test]
fn reads_go_on_beside_flushes_that_the_device_never_sees() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options(Chaining::Direct));
    for token in 0..8 {
        let request = if token % 2 == 0 { Request::flush() } else { Request::read(Lba(0), live.heap.whole(512)) };
        live.queue.submit(request.with_token(token)).unwrap();
    }
    assert_eq!(outcomes(&live.finish()), (0..8).map(|token| (token, Ok(()))).collect::<Vec<_>>());
    assert_eq!(live.heap.lent(), 0);
}

#[test]
fn discarded_sectors_are_those_and_no_others() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        live.device.put_disk(0, &vec![7; 512 * 40]);
        assert_eq!(live.ask(Request::discard(Lba(8), 16).with_token(1)).result, Ok(()));
        let disk = live.device.disk(0, 40);
        assert!(disk[..512 * 8].iter().chain(&disk[512 * 24..]).all(|byte| *byte == 7));
        assert!(disk[512 * 8..512 * 24].iter().all(|byte| *byte == 0xd1), "what the fake leaves behind");
        live.device.assert_no_faults();
    }
}

#[test]
fn zeroes_are_written_with_and_without_leave_to_unmap() {
    for (chaining, unmap) in BOTH.into_iter().flat_map(|form| [(form, false), (form, true)]) {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        live.device.put_disk(0, &vec![7; 512 * 40]);
        assert_eq!(live.ask(Request::write_zeroes(Lba(8), 16, unmap)).result, Ok(()));
        let disk = live.device.disk(0, 40);
        assert!(disk[..512 * 8].iter().chain(&disk[512 * 24..]).all(|byte| *byte == 7));
        assert!(disk[512 * 8..512 * 24].iter().all(|byte| *byte == 0));
        live.device.assert_no_faults();
    }
}

#[test]
fn a_range_on_the_wire_says_where_how_long_and_whether_to_unmap() {
    let mut world = World::new(Config::default());
    let memory = std::sync::Arc::clone(world.device.memory());
    let (mut live, rings) = world.owned_with_addresses(&options(Chaining::Direct));
    let slots = u64::from(live.queue.slots());
    let requests = [
        (Request::discard(Lba(0x123), 7), 0),
        (Request::write_zeroes(Lba(0x123), 7, false), 0),
        (Request::write_zeroes(Lba(0x123), 7, true), 1),
    ];
    for (request, flags) in requests {
        live.queue.submit(request).unwrap();
        let head = u64::from(live.device.take(0, 1)[0].head);
        // The second descriptor of the chain leads to the payload: sector, number, flags (5.2.6).
        let descriptor = memory.bytes(rings.descriptors().0 + 16 * (slots + head), 16);
        let payload = memory.bytes(u64::from_le_bytes(descriptor[..8].try_into().unwrap()), 16);
        assert_eq!(payload, [0x23, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, flags, 0, 0, 0]);
        live.device.complete_all(0, Order::AsTaken);
        assert_eq!(live.reap().len(), 1);
    }
}

#[test]
fn the_identity_is_the_devices_and_fills_twenty_bytes() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        for len in [20, 21, 512] {
            let Completion { result, buffer, .. } = live.ask(Request::get_id(live.heap.whole(len)));
            let bytes = buffer.unwrap().bytes();
            assert_eq!((result, &bytes[..20]), (Ok(()), &b"fake-disk-0123456789"[..]));
            assert!(bytes[20..].iter().all(|byte| *byte == FRESH), "no byte beyond");
        }
        live.device.assert_no_faults();
    }
}

#[test]
fn a_slot_forgets_the_kind_of_its_last_request() {
    // One slot: header, chain form and length of each request replace those of the one before.
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&QueueOptions { slots: 1, large_tables: 1, ..options(chaining) });
        assert_eq!(live.queue.slots(), 1);
        let data = pattern(5, 2048);
        for round in 0..3 {
            let many = live.heap.cut(&[512, 100, 412, 500, 12, 256, 256]);
            many.set(&data);
            assert_eq!(live.ask(Request::write_durably(Lba(4), many)).result, Ok(()), "round {round}");
            assert_eq!(live.ask(Request::discard(Lba(64), 8)).result, Ok(()));
            assert_eq!(live.ask(Request::read(Lba(4), live.heap.cut(&[2000, 48]))).buffer.unwrap().bytes(), data);
            assert_eq!(live.ask(Request::flush()).result, Ok(()));
            assert_eq!(live.ask(Request::read(Lba(4), live.heap.whole(2048))).buffer.unwrap().bytes(), data);
            assert_eq!(live.ask(Request::write_zeroes(Lba(4), 1, true)).result, Ok(()));
            assert_eq!(live.ask(Request::get_id(live.heap.whole(20))).result, Ok(()));
            assert_eq!(live.ask(Request::read(Lba(4), live.heap.whole(512))).buffer.unwrap().bytes(), [0; 512]);
        }
        live.device.assert_no_faults();
    }
}

#[test]
fn a_medium_that_shrank_answers_an_error_of_the_medium() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.device.resize(16);
    let done = live.ask(Request::read(Lba(16), live.heap.whole(512)));
    assert_eq!(done.result, Err(Error::Medium), "the driver has not heard of it yet");
    assert_eq!(live.running.service_configuration().unwrap().capacity, Some((2048, 16)));
    assert!(live.queue.submit(Request::read(Lba(16), live.heap.whole(512))).is_err(), "now it has");
    assert_eq!(live.ask(Request::read(Lba(15), live.heap.whole(512))).result, Ok(()));
    live.device.assert_no_faults();
}

#[test]
fn a_device_that_refuses_what_it_offered_is_blamed() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.device.inject(0, crate::fake::Lie::Status(block::UNSUPP));
    let done = live.ask(Request::discard(Lba(0), 8));
    assert_eq!(done.result, Err(Error::Device(DeviceFault::Unsupported)));
    assert_eq!(live.queue.broken(), None, "an answer like another");
}

#[test]
fn answers_in_any_order_find_their_requests() {
    for (chaining, order) in BOTH.into_iter().flat_map(|form| [(form, Order::Reversed), (form, Order::Shuffled(5))]) {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        for lba in 0..20 {
            live.device.put_disk(lba, &pattern(lba, 512));
            live.queue.submit(Request::read(Lba(lba), live.heap.whole(512)).with_token(lba)).unwrap();
        }
        live.device.process(0, usize::MAX, order);
        let done = live.reap();
        assert_eq!(done.len(), 20);
        for one in done {
            assert_eq!(one.buffer.unwrap().bytes(), pattern(one.token, 512), "token {}", one.token);
        }
    }
}
