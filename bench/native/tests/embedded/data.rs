//! What was written is read back; what was discarded or zeroed reads as zeros; errors are the medium's.
use crate::rig::{Live, Owned, pattern, world};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Request};
use drv_virtio_block::spec::feature;
use native::embedded::minimal::{Data, Options};

fn ram() -> Options {
    Options { data: Data::Ram, sectors: 4096, ..Options::default() }
}

fn live() -> Live<Owned> {
    world(ram()).owned(&QueueOptions::default(), 0)
}

fn read(live: &mut Live<Owned>, lba: u64, len: usize) -> Vec<u8> {
    let buf = live.heap.cut(&[len]);
    buf.fill(&vec![0xee; len]);
    let done = live.ask(Request::read(Lba(lba), buf));
    assert_eq!(done.result, Ok(()));
    done.buffer.unwrap().bytes()
}

#[test]
fn data_comes_back_from_rings_of_every_size_and_form() {
    for size in [4, 8, 16, 64, 256, 1024] {
        for (chaining, without) in
            [(Chaining::Direct, feature::INDIRECT_DESC), (Chaining::Direct, 0), (Chaining::Indirect, 0)]
        {
            let mut live = world(ram()).owned(&QueueOptions { size, chaining, ..QueueOptions::default() }, without);
            // Three times as many requests as slots, a ring full at a time.
            let slots = u64::from(live.queue().slots());
            for round in 0..3 {
                let base = round * slots;
                for n in base..base + slots {
                    let buf = live.heap.holding(&pattern(n, 512));
                    live.queue().submit(Request::write(Lba(n % 4096), buf).with_token(n)).unwrap();
                }
                assert_eq!(live.device.step(0) as u64, slots);
                let mut tokens = Vec::new();
                live.queue().reap(usize::MAX, |done| tokens.push((done.token, done.result)));
                assert_eq!(tokens, (base..base + slots).map(|n| (n, Ok(()))).collect::<Vec<_>>());
                for n in base..base + slots {
                    assert_eq!(read(&mut live, n % 4096, 512), pattern(n, 512), "{size} {chaining:?} sector {n}");
                }
            }
        }
    }
}

#[test]
fn segments_of_any_length_are_one_transfer() {
    let cuts: [&[usize]; 6] = [&[4096], &[512; 8], &[1, 511], &[100, 412, 3, 509], &[1024; 3], &[7; 512]];
    for options in [
        QueueOptions::default(),
        QueueOptions { size: 1024, large_tables: 4, large_segments: 600, ..QueueOptions::default() },
    ] {
        let mut live = world(Options { seg_max: 600, ..ram() }).owned(&options, 0);
        for (n, cut) in (0_u64..).zip(cuts) {
            let (lba, len) = (n * 16, cut.iter().sum());
            let out = live.heap.cut(cut);
            let data = pattern(n, len);
            out.fill(&data);
            // Segments that cannot be cut at sectors are refused when there is no table for them.
            let whole = options.large_tables > 0 || cut.len() <= 6 || cut[0] == 512;
            if !whole {
                assert!(live.queue().submit(Request::write(Lba(lba), out)).is_err());
                continue;
            }
            assert_eq!(live.outcome(Request::write(Lba(lba), out)), Ok(()));
            let into = live.heap.cut(cut);
            assert_eq!(live.ask(Request::read(Lba(lba), into)).buffer.unwrap().bytes(), data, "{cut:?}");
            assert_eq!(read(&mut live, lba, len), data);
            assert!(read(&mut live, lba + len as u64 / 512, 512).iter().all(|byte| *byte == 0), "not a byte too far");
        }
    }
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros_and_their_neighbours_do_not() {
    for kind in 0..3 {
        let mut live = live();
        let data = pattern(9, 40 * 512);
        let buf = live.heap.holding(&data);
        assert_eq!(live.outcome(Request::write(Lba(100), buf)), Ok(()));
        let request = match kind {
            0 => Request::discard(Lba(110), 20),
            unmap => Request::write_zeroes(Lba(110), 20, unmap == 2),
        };
        assert_eq!(live.outcome(request), Ok(()));
        let after = read(&mut live, 100, 40 * 512);
        let (before, rest) = after.split_at(10 * 512);
        let (zeroed, behind) = rest.split_at(20 * 512);
        assert!(before == &data[..10 * 512] && behind == &data[30 * 512..]);
        assert!(zeroed.iter().all(|byte| *byte == 0), "kind {kind}");
    }
}

#[test]
fn a_range_longer_than_the_device_takes_arrives_in_pieces() {
    let mut live = world(Options { max_write_zeroes_sectors: 7, ..ram() }).owned(&QueueOptions::default(), 0);
    let buf = live.heap.holding(&pattern(1, 50 * 512));
    assert_eq!(live.outcome(Request::write(Lba(0), buf)), Ok(()));
    assert_eq!(live.outcome(Request::write_zeroes(Lba(0), 50, false)), Ok(()));
    assert!(read(&mut live, 0, 50 * 512).iter().all(|byte| *byte == 0));
    assert_eq!(live.device.counters(0).used, 1 + 8 + 1);
}

#[test]
fn flush_and_identity_are_answered() {
    let mut live = live();
    assert_eq!(live.outcome(Request::flush()), Ok(()));
    assert_eq!(live.device.counters(0).used, 1, "the flush reached the device");
    let buf = live.heap.cut(&[20]);
    let done = live.ask(Request::get_id(buf));
    assert_eq!(done.buffer.unwrap().bytes(), b"embedded\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_write_through_device_is_not_asked_to_flush() {
    let mut live = world(Options { writeback: false, ..ram() }).owned(&QueueOptions::default(), 0);
    live.queue().submit(Request::flush()).unwrap();
    assert_eq!((live.device.step(0), live.queue().reap(9, |done| assert_eq!(done.result, Ok(())))), (0, 1));
}

#[test]
fn the_driver_may_choose_the_cache() {
    use drv_virtio_block::device::{Cache, Wishes};
    for (write_back, cache) in [(Some(false), Cache::WriteThrough), (Some(true), Cache::WriteBack)] {
        let live = world(ram()).start(&Wishes { write_back, ..Wishes::default() }, &QueueOptions::default());
        assert_eq!(live.running.reached().cache, cache);
    }
}

#[test]
fn a_read_only_device_says_so() {
    use drv_virtio_block::request::Refusal;
    for data in [Data::Null, Data::Ram] {
        let mut live = world(Options { read_only: true, data, ..ram() }).owned(&QueueOptions::default(), 0);
        assert_eq!(read(&mut live, 0, 512).len(), 512);
        let refused = live.queues[0].submit(Request::write(Lba(0), live.heap.cut(&[512]))).unwrap_err();
        assert_eq!(refused.why, Refusal::ReadOnly);
    }
}

#[test]
fn several_queues_share_the_medium() {
    use drv_virtio_block::device::Wishes;
    let options = Options { queues: 4, ..ram() };
    let wishes = Wishes { queues: 4, ..Wishes::default() };
    let mut live = world(options).start(&wishes, &QueueOptions::default()).own();
    for n in 0..4 {
        let buf = live.heap.holding(&pattern(n as u64, 512));
        live.queues[n].submit(Request::write(Lba(n as u64), buf)).unwrap();
        assert_eq!((live.device.step((n + 1) % 4), live.device.step(n)), (0, 1), "queue {n} and no other");
        live.queues[n].reap(1, |done| assert_eq!(done.result, Ok(())));
    }
    for n in 0..4 {
        assert_eq!(read(&mut live, n, 512), pattern(n, 512));
    }
}

/// What the device itself says beyond it is tried in `by_hand`: the driver does not ask.
#[test]
fn the_end_of_the_medium_is_the_end() {
    for data in [Data::Null, Data::Ram] {
        let mut live = world(Options { data, ..ram() }).owned(&QueueOptions::default(), 0);
        let last = live.heap.cut(&[512]);
        assert_eq!(live.outcome(Request::read(Lba(4095), last)), Ok(()));
        let beyond = live.heap.cut(&[1024]);
        assert!(live.queue().submit(Request::read(Lba(4095), beyond)).is_err(), "the driver knows");
    }
}
