//! Every operation from the entry to the disk and back.
use crate::fake::wire::block;
use crate::fake::{Config, Lie};
use crate::rig::{Client, Rig, World, flush, opening, pattern, range};
use drv_virtio_block::lib_block::entry::{Completion, Data, Flags, Operation, Piece, Submission};
use drv_virtio_block::lib_block::message::{Info, Rights};
use drv_virtio_block::lib_block::{MAX_PIECES, Status};

/// An answer of the first epoch.
fn answer(tag: u16, status: Status, bytes: u32) -> Completion {
    Completion { tag, status, bytes, epoch: 1, late: false }
}

/// A list in the client's memory, `at` bytes from its beginning, as the data of a request.
pub(crate) fn list(client: &Client<'_>, at: u64, pieces: &[Piece]) -> Data {
    for (place, piece) in pieces.iter().enumerate() {
        let words = piece.encode().map(u64::to_le_bytes).concat();
        client.put(at + 16 * place as u64, &words);
    }
    Data::List(client.piece(at, 16 * pieces.len() as u32))
}

/// A request with data of these pieces, which are as long as blocks of `block` bytes.
fn io(operation: Operation, tag: u16, lba: u64, data: Data, bytes: u32, block: u32) -> Submission {
    Submission { tag, blocks: bytes / block, data, ..Submission::new(operation, lba) }
}

#[test]
fn what_is_written_is_on_the_disk_and_what_is_read_was_there() {
    for block in [512u32, 4096] {
        let mut world = World::new(Config { blk_size: block, ..Config::default() });
        let mut rig = world.usual();
        let mut client = rig.client(0, 16);
        let data = pattern(1, 32 << 10);
        client.put(4096, &data);
        let whole = Data::One(client.piece(4096, 32 << 10));
        let write = io(Operation::Write, 3, 5, whole, 32 << 10, block);
        assert_eq!(rig.ask(&write, &mut client), answer(3, Status::Ok, 32 << 10));
        assert_eq!(rig.device.disk(5 * u64::from(block / 512), 64), data, "blocks of {block}");
        let there = Data::One(client.piece(64 << 10, 32 << 10));
        assert_eq!(rig.ask(&io(Operation::Read, 15, 5, there, 32 << 10, block), &mut client).status, Status::Ok);
        assert_eq!(client.get(64 << 10, 32 << 10), data);
        rig.device.assert_no_faults();
    }
}

#[test]
fn data_in_pieces_is_taken_in_their_order() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    for count in [1, 2, 3, 7, MAX_PIECES] {
        let bytes = 1024 * count as u32;
        let data = pattern(count as u64, bytes as usize);
        // Back to front in memory, at odd places; the first and the last are no multiple of a sector.
        let len = |piece: usize| match piece {
            _ if count == 1 => 1024,
            0 => 1032,
            _ if piece + 1 == count => 1016,
            _ => 1024,
        };
        let place = |piece: usize| 4096 + 2003 * (count - piece) as u64;
        let spread: Vec<Piece> = (0..count).map(|at| client.piece(place(at), len(at))).collect();
        let all = |client: &Client<'_>, pieces: &[Piece]| match pieces {
            [one] => Data::One(*one),
            [one, two] => Data::Two([*one, *two]),
            many => list(client, 0, many),
        };
        let mut rest = data.as_slice();
        for piece in &spread {
            let (now, later) = rest.split_at(piece.len as usize);
            client.put(piece.offset, now);
            rest = later;
        }
        let wish = all(&client, &spread);
        assert_eq!(rig.ask(&io(Operation::Write, 0, 7, wish, bytes, 512), &mut client), answer(0, Status::Ok, bytes));
        assert_eq!(rig.device.disk(7, u64::from(bytes) / 512), data, "{count} pieces");
        let elsewhere: Vec<Piece> = spread.iter().map(|it| Piece { offset: it.offset + (100 << 10), ..*it }).collect();
        let wish = all(&client, &elsewhere);
        assert_eq!(rig.ask(&io(Operation::Read, 0, 7, wish, bytes, 512), &mut client), answer(0, Status::Ok, bytes));
        let read: Vec<u8> = elsewhere.iter().flat_map(|it| client.get(it.offset, it.len as usize)).collect();
        assert_eq!(read, data, "{count} pieces");
    }
    rig.device.assert_no_faults();
}

#[test]
fn a_request_of_the_largest_size_passes_and_one_block_more_does_not() {
    let mut world = World::with(Config { capacity_sectors: 8192, ..Config::default() }, 1, (1 << 20) + 4096);
    let mut rig = world.usual();
    let mut client = rig.client(0, 4);
    let info = rig.front.info(client.id).unwrap();
    assert_eq!((info.max_blocks, info.blocks), (2048, 8192));
    assert_eq!(rig.ask(&client.write(0, 0, 2048, 0), &mut client), answer(0, Status::Ok, 1 << 20));
    let more = client.write(0, 0, 2049, 0);
    assert_eq!(rig.ask(&more, &mut client), answer(0, Status::InvalidArgument, 0));
    rig.device.assert_no_faults();
}

/// What the device is asked for, one request after the other: type and first sector.
fn seen(rig: &mut Rig<'_>) -> Vec<(u32, u64)> {
    let mut seen = Vec::new();
    loop {
        rig.serve();
        let taken = rig.device.take(0, 99);
        if taken.is_empty() {
            return seen;
        }
        seen.extend(taken.iter().map(|one| (one.kind, one.sector)));
        rig.device.complete(0, &taken);
    }
}

#[test]
fn a_durable_write_is_a_write_and_a_flush_when_there_is_a_cache_and_a_write_when_not() {
    for writeback in [true, false] {
        let mut world = World::new(Config { writeback, ..Config::default() });
        let mut rig = world.usual();
        let mut client = rig.client(0, 16);
        assert_eq!(rig.front.info(client.id).unwrap().is(Info::WRITE_CACHE), writeback);
        client.put(0, &pattern(4, 512));
        let durably = Submission { flags: Flags::FUA, ..client.write(1, 9, 1, 0) };
        client.submit(&[durably]);
        let expected: &[_] = if writeback { &[(block::OUT, 9), (block::FLUSH, 0)] } else { &[(block::OUT, 9)] };
        assert_eq!(seen(&mut rig), expected);
        assert_eq!(client.take(), [answer(1, Status::Ok, 512)]);
        rig.device.power_cut();
        assert_eq!(rig.device.disk(9, 1), pattern(4, 512));
        rig.device.assert_no_faults();
    }
}

#[test]
fn what_was_answered_before_a_flush_survives_a_power_cut() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.put(0, &pattern(5, 4096));
    rig.ask(&client.write(0, 8, 8, 0), &mut client);
    assert!(rig.device.unstable_sectors() > 0);
    client.submit(&[flush(2)]);
    assert_eq!(seen(&mut rig), [(block::FLUSH, 0)]);
    assert_eq!(client.take(), [answer(2, Status::Ok, 0)]);
    rig.device.power_cut();
    assert_eq!(rig.device.disk(8, 8), pattern(5, 4096));
    rig.device.assert_no_faults();
}

#[test]
fn a_flush_without_a_cache_is_answered_without_the_device() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    assert_eq!(rig.ask(&flush(2), &mut client), answer(2, Status::Ok, 0));
    assert_eq!(rig.device.counts(0).taken, 0);
}

#[test]
fn zeroes_are_zeroes_with_and_without_unmap_and_discard_leaves_the_neighbours() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let data = pattern(6, 16 * 512);
    let unmapped = Submission { flags: Flags::UNMAP, ..range(Operation::WriteZeroes, 3, 4, 8) };
    for (wish, kind) in [
        (range(Operation::WriteZeroes, 3, 4, 8), block::WRITE_ZEROES),
        (unmapped, block::WRITE_ZEROES),
        (range(Operation::Discard, 3, 4, 8), block::DISCARD),
    ] {
        rig.device.put_disk(0, &data);
        client.submit(&[wish]);
        assert_eq!(seen(&mut rig).iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [kind]);
        assert_eq!(client.take(), [answer(3, Status::Ok, 0)]);
        let now = rig.device.disk(0, 16);
        assert!(now[..4 * 512] == data[..4 * 512] && now[12 * 512..] == data[12 * 512..], "{kind}");
        assert!(now[4 * 512..12 * 512] != data[4 * 512..12 * 512]);
        assert!(kind == block::DISCARD || now[4 * 512..12 * 512].iter().all(|byte| *byte == 0));
    }
    rig.device.assert_no_faults();
}

#[test]
fn blocks_are_counted_through_the_extents_in_their_order() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.open(0, &opening(16, Rights::ALL, &[(100, 10), (50, 5), (700, 20)]));
    for (lba, sector) in [(0, 100), (9, 109), (10, 50), (14, 54), (15, 700), (34, 719)] {
        client.put(0, &pattern(lba, 512));
        assert_eq!(rig.ask(&client.write(0, lba, 1, 0), &mut client).status, Status::Ok);
        assert_eq!(rig.device.disk(sector, 1), pattern(lba, 512), "block {lba}");
    }
    assert_eq!(rig.front.info(client.id).unwrap().blocks, 35);
}

#[test]
fn answers_say_what_the_device_said() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let lies = [
        (Lie::Status(block::IOERR), Status::IoError),
        (Lie::Status(block::UNSUPP), Status::Unsupported),
        (Lie::Status(7), Status::IoError),
        (Lie::LenTooShort, Status::IoError),
    ];
    for (lie, status) in lies {
        rig.device.inject(0, lie);
        assert_eq!(rig.ask(&client.read(4, 0, 8, 0), &mut client), answer(4, status, 0), "{lie:?}");
    }
    let counted = rig.front.session_statistics(client.id).unwrap();
    assert_eq!((counted.done, counted.failed), (0, 4));
    assert_eq!(rig.ask(&client.read(4, 0, 8, 0), &mut client), answer(4, Status::Ok, 4096));
}

#[test]
fn a_client_is_told_of_a_short_read_and_of_no_other_length() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let data = pattern(7, 4096);
    rig.device.put_disk(0, &data);
    for len in [0, 4096, 4097, 4098, u32::MAX] {
        client.put(0, &[0x5a; 4096]);
        rig.device.inject(0, Lie::UsedLen(len));
        assert_eq!(rig.ask(&client.read(4, 0, 8, 0), &mut client), answer(4, Status::Ok, 4096), "{len}");
        assert_eq!(client.get(0, 4096), data);
    }
    for len in [1, 512, 4095] {
        rig.device.inject(0, Lie::UsedLen(len));
        assert_eq!(rig.ask(&client.read(4, 0, 8, 0), &mut client), answer(4, Status::IoError, 0), "{len}");
    }
    for len in [0, 1, 16, 4096, 4097, u32::MAX] {
        rig.device.inject(0, Lie::UsedLen(len));
        assert_eq!(rig.ask(&client.write(4, 0, 8, 0), &mut client), answer(4, Status::Ok, 4096), "{len}");
        rig.device.inject(0, Lie::UsedLen(len));
        assert_eq!(rig.ask(&flush(5), &mut client), answer(5, Status::Ok, 0), "{len}");
        rig.device.inject(0, Lie::UsedLen(len));
        let discard = range(Operation::Discard, 6, 0, 8);
        assert_eq!(rig.ask(&discard, &mut client), answer(6, Status::Ok, 0), "{len}");
    }
    // Nothing was written, whatever the device says: the client has the bytes that it put there.
    for len in [0, 4097] {
        client.put(0, &[0x5a; 4096]);
        rig.device.inject(0, Lie::Undone { status: block::OK, len });
        assert_eq!(rig.ask(&client.read(4, 0, 8, 0), &mut client).status, Status::Ok);
        assert_eq!(client.get(0, 4096), [0x5a; 4096]);
    }
    rig.device.assert_no_faults();
}

#[test]
fn answers_come_in_the_order_of_the_device_and_each_once() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    for tag in 0..16 {
        rig.device.put_disk(u64::from(tag), &pattern(tag.into(), 512));
        client.submit(&[client.read(tag, tag.into(), 1, u64::from(tag) * 512)]);
    }
    rig.serve();
    let mut taken = rig.device.take(0, 99);
    taken.reverse();
    rig.device.complete(0, &taken);
    rig.serve();
    let tags: Vec<u16> = client.ends().iter().map(|(tag, _)| *tag).collect();
    assert_eq!(tags, (0..16).rev().collect::<Vec<_>>());
    for tag in 0..16 {
        assert_eq!(client.get(tag * 512, 512), pattern(tag, 512));
    }
    rig.device.assert_no_faults();
}
