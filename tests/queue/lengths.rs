//! Used lengths as devices in the field report them: 0, the data of a write, one byte more than there is.
//!
//! The status decides. A length says one thing more: that a read is short, if the device reports that it wrote less than
//! the data. A length above what the device may write is counted apart from violations.
use crate::fake::wire::block;
use crate::fake::{Config, Lie, Order};
use crate::rig::{Buf, FRESH, Heap, Room, World, outcomes, pattern, take};
use drv_virtio_block::queue::{Chaining, QueueOptions, Statistics};
use drv_virtio_block::request::{DeviceFault, Error, Lba, Request};

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];
const SHORT: Result<(), Error> = Err(Error::Device(DeviceFault::ShortRead));

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 64, chaining, ..QueueOptions::default() }
}

/// An operation's request, and what its used lengths mean: which say that it is short, and up to which nothing is odd.
struct Row {
    name: &'static str,
    request: fn(&Heap) -> Request<Buf>,
    short: std::ops::Range<u32>,
    writable: u32,
}

/// Every operation, with data of 1024 bytes where it has some.
fn rows() -> [Row; 8] {
    let row = |name, request, short, writable| Row { name, request, short, writable };
    [
        row("read", |heap| Request::read(Lba(0), heap.whole(1024)), 1..1024, 1025),
        row("read in pieces", |heap| Request::read(Lba(0), heap.cut(&[500, 12, 512])), 1..1024, 1025),
        row("identity", |heap| Request::get_id(heap.whole(1024)), 2..20, 21),
        row("write", |heap| Request::write(Lba(0), heap.whole(1024)), 0..0, 1),
        row("write in pieces", |heap| Request::write(Lba(0), heap.cut(&[500, 12, 512])), 0..0, 1),
        row("flush", |_| Request::flush(), 0..0, 1),
        row("discard", |_| Request::discard(Lba(0), 2), 0..0, 1),
        row("write zeroes", |_| Request::write_zeroes(Lba(0), 2, true), 0..0, 1),
    ]
}

/// Around everything that a device could mean: nothing, the status, data, data and status, one more, all ones.
const LENGTHS: [u32; 20] =
    [0, 1, 2, 15, 16, 17, 18, 19, 20, 21, 22, 511, 513, 1022, 1023, 1024, 1025, 1026, 0x8000_0000, u32::MAX];

#[test]
fn every_operation_takes_every_used_length_by_its_status_and_only_a_read_can_be_short() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        let mut odd = 0;
        for row in rows() {
            for len in LENGTHS {
                live.device.inject(0, Lie::UsedLen(len));
                let expected = if row.short.contains(&len) { SHORT } else { Ok(()) };
                assert_eq!(live.ask((row.request)(&live.heap)).result, expected, "{} of {len}", row.name);
                odd += u64::from(len > row.writable);
                for (status, error) in [(block::IOERR, Error::Medium), (9, Error::Device(DeviceFault::BadStatus(9)))] {
                    live.device.inject(0, Lie::Undone { status, len });
                    assert_eq!(live.ask((row.request)(&live.heap)).result, Err(error), "{} of {len}", row.name);
                    odd += u64::from(len > row.writable);
                }
                let Statistics { violations, length_anomalies, .. } = live.queue.statistics();
                assert_eq!((violations, length_anomalies), (0, odd), "{} of {len}", row.name);
            }
        }
        assert_eq!((live.queue.broken(), live.queue.in_flight(), live.heap.lent()), (None, 0, 0));
        live.device.assert_no_faults();
    }
}

#[test]
fn submitters_of_a_shared_queue_see_the_same_whoever_drains_it() {
    for (chaining, own) in BOTH.into_iter().flat_map(|form| [(form, true), (form, false)]) {
        let mut world = World::new(Config::default());
        let (live, _) = world.shared(&options(chaining));
        let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
        let mut odd = 0;
        for row in rows() {
            for len in LENGTHS {
                live.device.inject(0, Lie::UsedLen(len));
                one.submit((row.request)(&live.heap).with_token(4)).unwrap();
                live.device.process_all(0);
                if !own {
                    assert!(take(&mut two).is_empty(), "it drains, and has none itself");
                }
                let expected = if row.short.contains(&len) { SHORT } else { Ok(()) };
                assert_eq!(outcomes(&take(&mut one)), [(4, expected)], "{} of {len}", row.name);
                odd += u64::from(len > row.writable);
            }
        }
        let Statistics { violations, length_anomalies, .. } = live.queue.statistics();
        assert_eq!((violations, length_anomalies, live.queue.broken()), (0, odd, None));
        live.device.assert_no_faults();
    }
}

#[test]
fn a_read_without_a_reported_length_is_whole_and_has_the_data() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    let data = pattern(1, 512);
    live.device.put_disk(3, &data);
    for len in [0, 512, 513, 514] {
        live.device.inject(0, Lie::UsedLen(len));
        let done = live.ask(Request::read(Lba(3), live.heap.whole(512)));
        assert_eq!((done.result, done.buffer.unwrap().bytes()), (Ok(()), data.clone()), "{len}");
    }
    for len in [0, 1] {
        live.device.inject(0, Lie::UsedLen(len));
        let done = live.ask(Request::get_id(live.heap.whole(20)));
        assert_eq!((done.result, done.buffer.unwrap().bytes()), (Ok(()), b"fake-disk-0123456789".to_vec()), "{len}");
    }
}

/// Whatever a device says that it wrote: the contract of `DeviceWritable` makes it the caller's own bytes.
#[test]
fn what_a_device_left_out_of_a_read_is_what_the_caller_had_put_there() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    live.device.put_disk(0, &pattern(1, 512));
    for (len, result) in [(0, Ok(())), (1, SHORT), (511, SHORT), (512, Ok(())), (513, Ok(())), (600, Ok(()))] {
        live.device.inject(0, Lie::Undone { status: block::OK, len });
        let done = live.ask(Request::read(Lba(0), live.heap.whole(512)));
        assert_eq!((done.result, done.buffer.unwrap().bytes()), (result, vec![FRESH; 512]), "{len}");
    }
    live.device.inject(0, Lie::LenTooShort);
    let half = live.ask(Request::read(Lba(0), live.heap.whole(512)));
    assert_eq!((half.result, &half.buffer.unwrap().bytes()[256..]), (SHORT, &[FRESH; 256][..]));
}

#[test]
fn a_short_read_fails_and_the_queue_goes_on_with_what_else_is_in_flight() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        for token in 0..3 {
            live.queue.submit(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
        }
        live.device.inject(0, Lie::UsedLen(511));
        live.device.process_all(0);
        assert_eq!(outcomes(&live.reap()), [(0, SHORT), (1, Ok(())), (2, Ok(()))]);
        assert_eq!((live.queue.broken(), live.queue.statistics().violations), (None, 0));
    }
}

#[test]
fn odd_lengths_of_single_chains_do_not_end_a_request_that_was_cut_and_a_short_one_does() {
    for (len, result) in [(0, Ok(())), (1, SHORT), (1023, SHORT), (1024, Ok(())), (1026, Ok(())), (u32::MAX, Ok(()))] {
        let mut world = World::new(Config { seg_max: 2, ..Config::default() });
        let mut live = world.owned(&options(Chaining::Direct));
        let data = pattern(2, 3072);
        live.device.put_disk(0, &data);
        live.device.inject(0, Lie::UsedLen(1025));
        live.device.inject(0, Lie::UsedLen(len));
        let done = live.ask(Request::read(Lba(0), live.heap.cut(&[512; 6])));
        assert_eq!((done.result, done.buffer.unwrap().bytes()), (result, data), "{len}");
        let odd = u64::from(len > 1025);
        assert_eq!((live.queue.broken(), live.queue.statistics().length_anomalies), (None, odd), "{len}");
    }
    let mut world = World::new(Config { seg_max: 2, ..Config::default() });
    let mut live = world.owned(&options(Chaining::Direct));
    let data = pattern(3, 3072);
    let buffer = live.heap.cut(&[512; 6]);
    buffer.set(&data);
    for len in [1024, 1025, 1026] {
        live.device.inject(0, Lie::UsedLen(len));
    }
    assert_eq!(live.ask(Request::write(Lba(0), buffer)).result, Ok(()));
    assert_eq!((live.device.disk(0, 6), live.queue.statistics().length_anomalies), (data, 3));
}

#[test]
fn a_durable_write_that_reports_its_data_is_flushed_all_the_same() {
    for (seg_max, chains) in [(126, 1), (1, 2)] {
        let mut world = World::new(Config { seg_max, ..Config::default() });
        let mut live = world.owned(&options(Chaining::Direct));
        for _ in 0..=chains {
            live.device.inject(0, Lie::UsedLen(513));
        }
        let done = live.ask(Request::write_durably(Lba(0), live.heap.cut(&[512, 512])));
        assert_eq!((done.result, live.device.unstable_sectors()), (Ok(()), 0));
        assert_eq!(live.device.lies_left(0), 0, "{chains} chains and a FLUSH");
        assert_eq!((live.queue.broken(), live.queue.statistics().length_anomalies), (None, chains + 1));
    }
}

/// As many bytes as the medium has, in one place of 4 MiB.
fn all_of_it(heap: &Heap, times: usize) -> Buf {
    heap.repeated(4 << 20, times)
}

#[test]
fn no_chain_carries_two_gibibytes_whatever_the_device_allows() {
    const ALMOST: u64 = 1 << 31;
    for (times, large, chains) in [(511, 1000, 1), (512, 1000, 2), (1200, 3000, 3), (1200, 0, 200)] {
        let config =
            Config { capacity_sectors: 1 << 25, seg_max: u32::MAX, overlap_allowed: true, ..Config::default() };
        let room = Room { places: 1, place: (4 << 20) + 64, ..Room::default() };
        let mut world = World::with(config, Room { dma: 1 << 20, ..room });
        let tables = u16::from(large > 0);
        let options = QueueOptions { large_tables: tables, large_segments: large, ..options(Chaining::Direct) };
        let mut live = world.owned(&options);
        live.queue.submit(Request::write(Lba(8), all_of_it(&live.heap, times)).with_token(1)).unwrap();
        let (mut bytes, mut count, mut done) = (0, 0, Vec::new());
        while done.is_empty() {
            for taken in live.device.take(0, usize::MAX) {
                assert!(taken.data_len + 17 < ALMOST, "{} bytes in a chain", taken.data_len);
                assert_eq!(taken.sector, 8 + bytes / 512);
                bytes += taken.data_len;
                count += 1;
                // Nothing is moved.
                live.device.inject(0, Lie::Undone { status: block::OK, len: 1 });
            }
            live.device.complete_all(0, Order::AsTaken);
            done = live.reap();
        }
        assert_eq!((outcomes(&done), bytes), (vec![(1, Ok(()))], (times as u64) << 22));
        assert!(count >= chains, "{count} chains for {times} segments");
        live.device.assert_no_faults();
    }
}
