//! What is durable when: FLUSH, force unit access, and a power cut after the answer.
use crate::fake::wire::block;
use crate::fake::{Config, FakeDevice, Lie};
use crate::rig::{World, outcomes, pattern};
use drv_virtio_block::device::Wishes;
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Error, Lba, Request};
use drv_virtio_block::spec::{Features, feature};

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 64, chaining, ..QueueOptions::default() }
}

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];

fn kinds(device: &FakeDevice) -> Vec<u32> {
    device.take(0, usize::MAX).iter().map(|one| one.kind).collect()
}

#[test]
fn a_write_survives_a_power_cut_only_after_a_flush() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    let data = pattern(1, 512);
    assert_eq!(live.ask(Request::write(Lba(0), live.heap.holding(&data))).result, Ok(()));
    live.device.power_cut();
    assert_eq!(live.device.disk(0, 1), [0; 512], "the fake keeps a cache, or the test proves nothing");
    assert_eq!(live.ask(Request::write(Lba(0), live.heap.holding(&data))).result, Ok(()));
    assert_eq!(live.ask(Request::flush()).result, Ok(()));
    live.device.power_cut();
    assert_eq!(live.device.disk(0, 1), data);
}

#[test]
fn a_durable_write_survives_a_power_cut_at_its_completion() {
    for (chaining, lens) in BOTH.into_iter().flat_map(|form| {
        [vec![1024], vec![500, 524], vec![100, 200, 300, 50, 50, 100, 100, 124]].map(|lens| (form, lens))
    }) {
        for large_tables in [0, 1] {
            let mut world = World::new(Config::default());
            let mut live = world.owned(&QueueOptions { large_tables, ..options(chaining) });
            let data = pattern(2, 1024);
            let buffer = live.heap.cut(&lens);
            buffer.set(&data);
            let done = live.ask(Request::write_durably(Lba(6), buffer).with_token(9));
            live.device.power_cut();
            assert_eq!((done.token, done.result, done.buffer.is_some()), (9, Ok(()), true));
            assert_eq!(live.device.disk(6, 2), data, "{chaining:?}, {} segments", lens.len());
            live.device.assert_no_faults();
        }
    }
}

#[test]
fn the_flush_of_a_durable_write_is_sent_only_when_the_write_has_completed() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::write_durably(Lba(0), live.heap.whole(512))).unwrap();
    assert_eq!(kinds(&live.device), [block::OUT]);
    assert_eq!(live.device.poll_available(0), 0);
    live.device.complete_all(0, crate::fake::Order::AsTaken);
    assert!(live.reap().is_empty(), "not durable yet");
    assert_eq!(kinds(&live.device), [block::FLUSH]);
    live.device.complete_all(0, crate::fake::Order::AsTaken);
    assert_eq!(outcomes(&live.reap()), [(0, Ok(()))]);
}

#[test]
fn the_flush_of_a_durable_write_needs_no_free_slot() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        let slots = u64::from(live.queue.slots());
        for token in 0..slots {
            live.queue.submit(Request::write_durably(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
        }
        assert!(live.queue.submit(Request::flush()).is_err(), "the queue is full");
        let first = live.device.take(0, 1);
        live.device.complete(0, &first);
        assert!(live.reap().is_empty());
        assert!(live.queue.submit(Request::flush()).is_err(), "still full: the slot is the flush's");
        assert_eq!(outcomes(&live.finish()), (0..slots).map(|token| (token, Ok(()))).collect::<Vec<_>>());
        live.device.power_cut();
        assert_eq!(live.device.unstable_sectors(), 0);
        let written = live.device.disk(0, slots);
        assert!(written.iter().all(|byte| *byte == crate::rig::FRESH));
        live.device.assert_no_faults();
    }
}

#[test]
fn a_durable_write_whose_write_fails_sends_no_flush_and_fails() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.device.inject(0, Lie::Status(block::IOERR));
    let done = live.ask(Request::write_durably(Lba(0), live.heap.whole(512)));
    assert_eq!(done.result, Err(Error::Medium));
    assert_eq!(live.device.counts(0).taken, 1);
}

#[test]
fn a_durable_write_whose_flush_fails_fails() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        live.queue.submit(Request::write_durably(Lba(0), live.heap.whole(512)).with_token(4)).unwrap();
        live.device.process_all(0);
        assert!(live.reap().is_empty());
        live.device.inject(0, Lie::Status(block::IOERR));
        let done = live.finish();
        assert_eq!(outcomes(&done), [(4, Err(Error::Medium))]);
        assert!(done[0].buffer.is_some(), "with its buffer");
        assert_eq!(live.ask(Request::read(Lba(0), live.heap.whole(512))).result, Ok(()), "and the slot is usable");
    }
}

#[test]
fn a_durable_write_under_write_through_is_a_plain_write() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut live = world.owned(&options(Chaining::Direct));
    let data = pattern(3, 512);
    live.queue.submit(Request::write_durably(Lba(0), live.heap.holding(&data))).unwrap();
    assert_eq!(kinds(&live.device), [block::OUT]);
    live.device.complete_all(0, crate::fake::Order::AsTaken);
    assert_eq!(outcomes(&live.reap()), [(0, Ok(()))]);
    assert_eq!(live.device.poll_available(0), 0);
    live.device.power_cut();
    assert_eq!(live.device.disk(0, 1), data);
}

#[test]
fn a_cut_durable_write_ends_in_one_flush_after_its_last_piece() {
    let config = Config { seg_max: 1, ..Config::default() };
    let mut world = World::new(config);
    let mut live = world.owned(&options(Chaining::Direct));
    let data = pattern(4, 3 * 512);
    let buffer = live.heap.cut(&[512, 512, 512]);
    buffer.set(&data);
    live.queue.submit(Request::write_durably(Lba(0), buffer)).unwrap();
    let pieces = live.device.take(0, 9);
    assert_eq!(pieces.len(), 3);
    live.device.complete(0, &pieces[..2]);
    assert!(live.reap().is_empty());
    assert_eq!(live.device.poll_available(0), 0, "no flush beside a piece that is out");
    live.device.complete(0, &pieces[2..]);
    assert!(live.reap().is_empty());
    assert_eq!(kinds(&live.device), [block::FLUSH]);
    live.device.complete_all(0, crate::fake::Order::AsTaken);
    assert_eq!(outcomes(&live.reap()), [(0, Ok(()))]);
    live.device.power_cut();
    assert_eq!(live.device.disk(0, 3), data);
    live.device.assert_no_faults();
}

#[test]
fn the_wished_cache_mode_decides_what_a_flush_does() {
    for (wish, sent) in [(Some(true), 1), (Some(false), 0)] {
        let mut world = World::new(Config::default());
        let wishes = Wishes { write_back: wish, ..Wishes::default() };
        let mut live = world.start(&wishes, &options(Chaining::Direct)).map(|mut all| all.remove(0)).own();
        live.queue.submit(Request::flush()).unwrap();
        assert_eq!(live.device.poll_available(0), sent);
        assert_eq!(live.finish().len(), 1);
        live.device.assert_no_faults();
    }
}

#[test]
fn a_device_with_flush_and_no_choice_of_cache_is_taken_for_write_back() {
    let mut world = World::new(Config { writeback: false, ..Config::default() }.without(feature::CONFIG_WCE));
    let mut live = world.owned(&options(Chaining::Direct));
    live.queue.submit(Request::flush()).unwrap();
    assert_eq!(live.device.poll_available(0), 1, "5.2.5.2: FLUSH alone means a write cache");
}

#[test]
fn without_flush_nothing_is_flushed_and_durable_writes_are_plain() {
    let mut world = World::new(Config::default());
    let wishes =
        Wishes { features: Features::IMPLEMENTED.without(feature::FLUSH | feature::CONFIG_WCE), ..Wishes::default() };
    let mut live = world.start(&wishes, &options(Chaining::Direct)).map(|mut all| all.remove(0)).own();
    assert_eq!(live.ask(Request::write_durably(Lba(0), live.heap.whole(512))).result, Ok(()));
    assert_eq!(live.ask(Request::flush()).result, Ok(()));
    assert_eq!(live.device.counts(0).taken, 1);
    live.device.assert_no_faults();
}
