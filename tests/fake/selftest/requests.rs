//! What requests do, what the device refuses, and what survives a power cut.
use super::hand_ring::{ALL, HandRing, NEXT, WRITE};
use crate::fake::wire::{block, features};
use crate::fake::{Config, DriverFault, RangeLimits, RequestFault};

const OK: u8 = block::OK;
const IOERR: u8 = block::IOERR;
const UNSUPP: u8 = block::UNSUPP;

/// The one fault of the last request.
fn fault(ring: &HandRing) -> RequestFault {
    match ring.device.take_faults().as_slice() {
        [DriverFault::Request { queue: 0, head: 0, why }] => *why,
        other => panic!("not one request fault: {other:?}"),
    }
}

/// Puts a DISCARD or WRITE ZEROES segment into slot 0's data.
fn put_range(ring: &HandRing, sector: u64, sectors: u32, flags: u32) {
    ring.memory.put(ring.data(0), &sector.to_le_bytes());
    ring.memory.put(ring.data(0) + 8, &sectors.to_le_bytes());
    ring.memory.put(ring.data(0) + 12, &flags.to_le_bytes());
}

#[test]
fn what_is_written_is_read_back() {
    let mut ring = HandRing::plain();
    let data: Vec<u8> = (0..1024_u32).map(|at| (at % 251) as u8).collect();
    ring.write(7, &data);
    assert_eq!(ring.device.disk(7, 2), data);
    ring.memory.put(ring.data(0), &[0; 1024]);
    assert_eq!(ring.run(block::IN, 7, 1024), OK);
    assert_eq!(ring.memory.bytes(ring.data(0), 1024), data);
    ring.device.assert_no_faults();
}

#[test]
fn framing_is_by_bytes_not_by_descriptors() {
    let mut ring = HandRing::plain();
    ring.device.put_disk(3, &[0x77; 512]);
    ring.write_header(0, block::IN, 3);
    // The header in two pieces, and the status behind the data in one.
    ring.describe(ring.part(0), 0, (ring.header(0), 6), NEXT, 1);
    ring.describe(ring.part(0), 1, (ring.header(0) + 6, 10), NEXT, 2);
    ring.describe(ring.part(0), 2, (ring.data(0), 513), WRITE, 0);
    ring.offer(0);
    ring.publish();
    ring.device.process_all(0);
    assert_eq!(ring.reap(), [(0, 513)]);
    assert_eq!(ring.memory.bytes(ring.data(0), 512), [0x77; 512]);
    assert_eq!(ring.memory.bytes(ring.data(0) + 512, 1), [OK]);
    ring.device.assert_no_faults();
}

#[test]
fn get_id_returns_twenty_bytes() {
    let mut ring = HandRing::plain();
    assert_eq!(ring.run(block::GET_ID, 0, 20), OK);
    assert_eq!(ring.memory.bytes(ring.data(0), 20), b"fake-disk-0123456789");
    assert_eq!(ring.run(block::GET_ID, 0, 24), IOERR);
    assert_eq!(fault(&ring), RequestFault::DataLength(24));
}

#[test]
fn zeroed_sectors_read_as_zeros_and_discarded_ones_as_anything() {
    let mut ring = HandRing::plain();
    ring.write(0, &[9; 2048]);
    put_range(&ring, 1, 1, block::UNMAP);
    assert_eq!(ring.run(block::WRITE_ZEROES, 0, 16), OK);
    put_range(&ring, 2, 1, 0);
    assert_eq!(ring.run(block::DISCARD, 0, 16), OK);
    let disk = ring.device.disk(0, 4);
    assert_eq!(disk[512..1024], [0; 512]);
    assert!(disk[1024] != 0 && disk[1024] != 9);
    assert_eq!((disk[0], disk[1536]), (9, 9));
    ring.device.assert_no_faults();
}

#[test]
fn range_requests_keep_to_their_limits() {
    let limits = RangeLimits { max_sectors: 8, max_segments: 2, alignment: 1 };
    let mut ring = HandRing::live(Config { discard: limits, ..Config::default() }, ALL, 64);
    put_range(&ring, 0, 8, block::UNMAP);
    assert_eq!(ring.run(block::DISCARD, 0, 16), UNSUPP);
    assert_eq!(fault(&ring), RequestFault::RangeFlags(1));
    put_range(&ring, 0, 9, 0);
    assert_eq!(ring.run(block::DISCARD, 0, 16), IOERR);
    assert_eq!(fault(&ring), RequestFault::RangeTooLong(9));
    put_range(&ring, 2044, 5, 0);
    assert_eq!(ring.run(block::DISCARD, 0, 16), IOERR);
    assert_eq!(fault(&ring), RequestFault::BeyondCapacity { sector: 2044, sectors: 5 });
    put_range(&ring, 0, 8, 2);
    assert_eq!(ring.run(block::WRITE_ZEROES, 0, 16), UNSUPP);
    assert_eq!(fault(&ring), RequestFault::RangeFlags(2));
    put_range(&ring, 0, 1, 0);
    assert_eq!(ring.run(block::DISCARD, 0, 24), IOERR);
    assert_eq!(fault(&ring), RequestFault::DataLength(24));
    assert_eq!(ring.run(block::DISCARD, 0, 48), IOERR);
    assert_eq!(fault(&ring), RequestFault::TooManyRanges(3));
}

#[test]
fn transfers_are_whole_sectors_within_the_capacity() {
    let mut ring = HandRing::plain();
    assert_eq!(ring.run(block::IN, 0, 500), IOERR);
    let faults = ring.device.take_faults();
    let request = |why| DriverFault::Request { queue: 0, head: 0, why };
    assert!(faults.contains(&request(RequestFault::DataLength(500))), "{faults:?}");
    assert_eq!(ring.run(block::IN, 2047, 1024), IOERR);
    assert_eq!(fault(&ring), RequestFault::BeyondCapacity { sector: 2047, sectors: 2 });
    assert_eq!(ring.run(block::OUT, u64::MAX, 512), IOERR);
    assert_eq!(fault(&ring), RequestFault::BeyondCapacity { sector: u64::MAX, sectors: 1 });
    assert_eq!(ring.run(block::IN, 0, 0), IOERR);
    assert_eq!(fault(&ring), RequestFault::DataLength(0));
}

#[test]
fn transfers_keep_to_block_size_segment_number_and_segment_size() {
    let config = Config { blk_size: 4096, seg_max: 0, size_max: 4096, ..Config::default() }.with(features::SIZE_MAX);
    let mut ring = HandRing::live(config, ALL, 64);
    assert_eq!(ring.run(block::IN, 8, 4096), OK);
    assert_eq!(ring.run(block::IN, 4, 4096), IOERR);
    assert_eq!(fault(&ring), RequestFault::NotBlockAligned { sector: 4, bytes: 4096 });
    assert_eq!(ring.run(block::IN, 8, 8192), IOERR);
    assert_eq!(fault(&ring), RequestFault::SegmentTooLong(8192));
    ring.write_header(0, block::IN, 0);
    ring.describe(ring.part(0), 1, (ring.data(0), 2048), NEXT | WRITE, 2);
    ring.describe(ring.part(0), 2, (ring.data(0) + 2048, 2048), NEXT | WRITE, 3);
    ring.describe(ring.part(0), 3, (ring.status(0), 1), WRITE, 0);
    ring.offer(0);
    ring.publish();
    ring.device.process_all(0);
    assert_eq!(fault(&ring), RequestFault::TooManySegments(2), "seg_max 0 is 1");
}

#[test]
fn headers_say_what_the_specification_allows() {
    let mut ring = HandRing::plain();
    assert_eq!(ring.run(99, 0, 512), UNSUPP);
    assert_eq!(fault(&ring), RequestFault::UnknownType(99));
    assert_eq!(ring.run(block::FLUSH, 1, 0), IOERR);
    assert_eq!(fault(&ring), RequestFault::SectorNotZero(1));
    assert_eq!(ring.run(block::FLUSH, 0, 512), IOERR);
    assert_eq!(fault(&ring), RequestFault::DataMisplaced { readable: 512, writable: 0 });
    ring.build(0, block::IN, 0, 512);
    ring.memory.put(ring.header(0) + 4, &[1]);
    ring.offer(0);
    ring.publish();
    ring.device.process_all(0);
    assert_eq!(fault(&ring), RequestFault::ReservedNotZero(1));
}

#[test]
fn chains_without_header_or_status_are_no_requests() {
    for (buffer_len, flags, expected) in [(8, WRITE, RequestFault::HeaderShort), (16, 0, RequestFault::StatusMissing)] {
        let mut ring = HandRing::plain();
        ring.describe(ring.part(0), 0, (ring.header(0), buffer_len), NEXT, 1);
        ring.describe(ring.part(0), 1, (ring.status(0), 1), flags, 0);
        ring.offer(0);
        ring.publish();
        ring.device.process_all(0);
        assert_eq!(fault(&ring), expected);
        assert_eq!(ring.reap(), [(0, 0)]);
    }
}

#[test]
fn operations_that_were_not_negotiated_are_unsupported() {
    let without = features::FLUSH | features::DISCARD | features::WRITE_ZEROES | features::CONFIG_WCE;
    let mut ring = HandRing::live(Config::default(), ALL & !without, 64);
    put_range(&ring, 0, 1, 0);
    for (kind, data) in [(block::FLUSH, 0), (block::DISCARD, 16), (block::WRITE_ZEROES, 16)] {
        assert_eq!(ring.run(kind, 0, data), UNSUPP);
        assert_eq!(fault(&ring), RequestFault::NotNegotiated(kind));
    }
}

#[test]
fn a_read_only_medium_refuses_every_change() {
    let mut ring = HandRing::live(Config::default().with(features::RO), ALL, 64);
    put_range(&ring, 0, 1, 0);
    for (kind, data) in [(block::OUT, 512), (block::DISCARD, 16), (block::WRITE_ZEROES, 16)] {
        assert_eq!(ring.run(kind, 0, data), IOERR);
        assert_eq!(fault(&ring), RequestFault::ReadOnly);
    }
    assert_eq!(ring.device.disk(0, 1), [0; 512]);
    assert_eq!(ring.run(block::IN, 0, 512), OK);
}

#[test]
fn a_medium_that_shrank_unnoticed_is_not_the_drivers_fault() {
    let mut ring = HandRing::plain();
    let read_capacity = |ring: &HandRing| {
        ring.device.config_generation();
        let sectors = ring.device.read_config(0, 4) | ring.device.read_config(4, 4) << 32;
        ring.device.config_generation();
        sectors
    };
    assert_eq!(read_capacity(&ring), 2048);
    ring.device.resize(100);
    assert_eq!(ring.run(block::IN, 100, 512), IOERR);
    ring.device.assert_no_faults();
    assert_eq!(read_capacity(&ring), 100);
    assert_eq!(ring.run(block::IN, 100, 512), IOERR);
    assert_eq!(fault(&ring), RequestFault::BeyondCapacity { sector: 100, sectors: 1 });
}

#[test]
fn a_power_cut_loses_what_no_flush_has_covered() {
    let mut ring = HandRing::plain();
    ring.write(0, &[1; 512]);
    assert_eq!(ring.run(block::FLUSH, 0, 0), OK);
    ring.write(0, &[2; 512]);
    ring.write(1, &[2; 512]);
    assert_eq!(ring.device.unstable_sectors(), 2);
    ring.device.power_cut();
    assert_eq!(ring.device.disk(0, 1), [1; 512]);
    assert_eq!(ring.device.disk(1, 1), [0; 512]);
}

#[test]
fn a_flush_covers_only_writes_that_had_completed_when_it_was_sent() {
    let mut ring = HandRing::plain();
    ring.memory.put(ring.data(0), &[5; 512]);
    ring.submit(0, block::OUT, 0, 512);
    ring.submit(1, block::FLUSH, 0, 0);
    let taken = ring.device.take(0, 2);
    // The write completes first, but the flush was sent before that.
    ring.device.complete(0, &taken[..1]);
    ring.device.complete(0, &taken[1..]);
    assert_eq!((ring.answer(0), ring.answer(1)), (OK, OK));
    assert_eq!(ring.device.unstable_sectors(), 1);
    ring.reap();
    ring.submit(1, block::FLUSH, 0, 0);
    ring.device.process_all(0);
    assert_eq!(ring.device.unstable_sectors(), 0);
}

#[test]
fn write_through_is_stable_at_once() {
    let neither = features::FLUSH | features::CONFIG_WCE;
    for (accepted, write_through) in [(ALL & !neither, false), (ALL, true)] {
        let mut ring = HandRing::live(Config::default(), accepted, 64);
        if write_through {
            ring.device.write_config(32, 1, 0);
        }
        ring.write(0, &[3; 512]);
        ring.device.power_cut();
        assert_eq!(ring.device.disk(0, 1), [3; 512]);
    }
}

#[test]
fn data_moves_when_the_request_completes() {
    let mut ring = HandRing::plain();
    ring.memory.put(ring.data(0), &[1; 512]);
    ring.submit(0, block::OUT, 0, 512);
    let taken = ring.device.take(0, 1);
    ring.memory.put(ring.data(0), &[2; 512]);
    ring.device.complete(0, &taken);
    assert_eq!(ring.device.disk(0, 1), [2; 512], "a driver that touches a buffer in flight harms its data");
}
