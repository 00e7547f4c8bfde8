//! Openings and entries that are refused: each with its class, counted, and nobody else affected.
use crate::fake::wire::features;
use crate::fake::{Config, RangeLimits};
use crate::rig::{Client, Rig, World, flush, opening, pattern, range};
use drv_virtio_block::lib_block::entry::{Data, Flags, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::front_end::{Access, Options};
use drv_virtio_block::lib_block::message::{Capability, Opening, Rights};
use drv_virtio_block::lib_block::{MAX_PIECES, Status};
use drv_virtio_block::queue::QueueOptions;

/// Asks, and holds the answer and the counters against `status`. Beside it another session writes and reads.
#[track_caller]
fn refused(rig: &mut Rig<'_>, client: &mut Client<'_>, other: &mut Client<'_>, words: [u64; 8], status: Status) {
    let tag = (words[0] >> 32) as u16;
    let before = (rig.front.session_statistics(client.id).unwrap(), rig.front.statistics());
    let seed = words.iter().fold(1, |sum: u64, word| sum.wrapping_mul(31).wrapping_add(*word));
    other.put(0, &pattern(seed, 2048));
    other.submit(&[other.write(9, 200, 4, 0)]);
    client.end.stage(words);
    let _ = client.end.publish();
    rig.settle();
    assert_eq!(client.ends(), [(tag, status)]);
    let after = (rig.front.session_statistics(client.id).unwrap(), rig.front.statistics());
    assert_eq!((after.0.done, after.0.failed), (before.0.done, before.0.failed + 1), "counted");
    assert_eq!((after.1.answered, after.1.refused), (before.1.answered + 1, before.1.refused + 1));
    assert_eq!(after.1.ended, 0);
    assert_eq!(other.ends(), [(9, Status::Ok)], "the other session");
    assert!(rig.device.disk(200, 4) == pattern(seed, 2048));
}

#[test]
fn an_opening_that_cannot_be_is_refused_with_its_class() {
    let mut world = World::new(Config::default());
    let mut rig = world.start(&QueueOptions::default(), Options { sessions: 2, credit: 64, ..Options::default() });
    let good = opening(16, Rights::ALL, &[(0, 2048)]);
    let cases = [
        (Opening { version: 0, ..good }, Status::Unsupported),
        (Opening { version: 2, ..good }, Status::Unsupported),
        (Opening { credit: 32, ..good }, Status::InvalidArgument),
        (Opening { credit: 0, ..good }, Status::InvalidArgument),
        (Opening { weight: 0, ..good }, Status::InvalidArgument),
        (Opening { weight: 65, ..good }, Status::InvalidArgument),
        (opening(16, Rights::ALL, &[(0, 2049)]), Status::OutOfRange),
        (opening(16, Rights::ALL, &[(0, 8), (u64::MAX - 9, 9)]), Status::OutOfRange),
        (Opening { capability: Capability::default(), ..good }, Status::OutOfRange),
    ];
    for (opening, status) in cases {
        assert_eq!(rig.front.open(&opening, rig.rings(0, 16), []).unwrap_err(), status, "{opening:?}");
    }
    let large = opening(128, Rights::ALL, &[(0, 2048)]);
    assert_eq!(rig.front.open(&large, rig.rings(0, 128), []).unwrap_err(), Status::InvalidArgument);
    assert_eq!((rig.front.sessions(), rig.rung.take()), (0, vec![]), "nobody was let in or rung");
    let (mut one, two) = (rig.open(0, &good), rig.open(1, &good));
    assert_eq!(rig.front.open(&good, rig.rings(2, 16), []).unwrap_err(), Status::Busy);
    assert_ne!(one.id, two.id);
    assert_eq!(rig.ask(&one.read(0, 0, 1, 0), &mut one).status, Status::Ok);
}

#[test]
fn known_memory_that_cannot_be_registered_takes_the_opening_back() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let good = opening(16, Rights::ALL, &[(0, 2048)]);
    for known in [MemoryId(0), MemoryId(1 << 16 | 16)] {
        let known = [MemoryId(1 << 16), known].map(|id| (id, rig.grant(0, 0, 4096, Access::Read)));
        let refused = rig.front.open(&good, rig.rings(0, 16), known);
        assert_eq!(refused.unwrap_err(), Status::InvalidArgument);
    }
    let twice = [1 << 16, 2 << 16].map(|id| (MemoryId(id), rig.grant(0, 0, 4096, Access::Read)));
    assert_eq!(rig.front.open(&good, rig.rings(0, 16), twice).unwrap_err(), Status::Busy);
    assert_eq!((rig.front.sessions(), rig.rung.take()), (0, vec![]));
    let mut client = rig.open(0, &good);
    assert_eq!(rig.ask(&client.read(0, 0, 1, 0), &mut client).status, Status::Ok);
}

#[test]
fn every_entry_that_cannot_be_is_answered_with_its_class() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let whole = opening(16, Rights::ALL, &[(0, 2048)]);
    let (mut client, mut other) = (rig.open(0, &whole), rig.open(1, &whole));
    let good = client.read(3, 8, 8, 0);
    let with = |piece: Piece| Submission { data: Data::One(piece), ..good };
    let bent = |word: usize, value: u64| {
        let mut words = good.encode();
        words[word] ^= value;
        words
    };
    let mut flush_of_blocks = flush(3).encode();
    flush_of_blocks[1] = 1;
    let two = Data::Two([client.piece(0, 4096), client.piece(4096, 4096)]);
    let cases = [
        ("an unknown operation", bent(0, 7 ^ 1), Status::Unsupported),
        ("no operation", bent(0, 1), Status::Unsupported),
        ("a flag that is not READ's", bent(0, 1 << 8), Status::InvalidArgument),
        ("an unknown flag", bent(0, 1 << 15), Status::InvalidArgument),
        ("no piece", bent(0, 1 << 16), Status::InvalidArgument),
        ("more pieces than there are", bent(0, 3 << 16), Status::InvalidArgument),
        ("a reserved bit beside the blocks", bent(2, 1 << 32), Status::InvalidArgument),
        ("a second piece that is not counted", bent(5, 1), Status::InvalidArgument),
        ("its offset", bent(6, 1 << 40), Status::InvalidArgument),
        ("a block of a flush", flush_of_blocks, Status::InvalidArgument),
        ("a tag that is the credit", Submission { tag: 16, ..good }.encode(), Status::InvalidArgument),
        ("the tag of calls", Submission { tag: 256, ..good }.encode(), Status::InvalidArgument),
        ("the largest tag", Submission { tag: u16::MAX, ..good }.encode(), Status::InvalidArgument),
        ("no blocks", Submission { blocks: 0, ..good }.encode(), Status::InvalidArgument),
        ("no blocks of a discard", range(Operation::Discard, 3, 8, 0).encode(), Status::InvalidArgument),
        ("more blocks than bytes", Submission { blocks: 9, ..good }.encode(), Status::InvalidArgument),
        ("fewer", Submission { blocks: 7, ..good }.encode(), Status::InvalidArgument),
        ("pieces that are too long", Submission { blocks: 8, data: two, ..good }.encode(), Status::InvalidArgument),
        ("blocks beyond the limit", Submission { blocks: u32::MAX, ..good }.encode(), Status::InvalidArgument),
        ("blocks beyond the medium", Submission { lba: 2041, ..good }.encode(), Status::OutOfRange),
        ("blocks behind it", Submission { lba: 2048, ..good }.encode(), Status::OutOfRange),
        ("a sum above all numbers", Submission { lba: u64::MAX - 3, ..good }.encode(), Status::OutOfRange),
        ("a discard of that", range(Operation::Discard, 3, u64::MAX, u32::MAX).encode(), Status::OutOfRange),
        ("zeroes beyond", range(Operation::WriteZeroes, 3, 2040, 9).encode(), Status::OutOfRange),
        (
            "memory that nobody registered",
            with(Piece { memory: MemoryId(1 << 16 | 1), ..client.piece(0, 4096) }).encode(),
            Status::NotFound,
        ),
        ("memory number 0", with(Piece { memory: MemoryId(0), ..client.piece(0, 4096) }).encode(), Status::NotFound),
        (
            "a place that there is not",
            with(Piece { memory: MemoryId(1 << 16 | 16), ..client.piece(0, 4096) }).encode(),
            Status::NotFound,
        ),
        ("a piece that ends outside", with(client.piece((256 << 10) - 4095, 4096)).encode(), Status::OutOfRange),
        ("one that begins outside", with(client.piece(256 << 10, 4096)).encode(), Status::OutOfRange),
        ("one that ends above all numbers", with(client.piece(u64::MAX - 5, 4096)).encode(), Status::OutOfRange),
        (
            "a list that is outside",
            Submission { data: Data::List(client.piece((256 << 10) - 40, 48)), ..good }.encode(),
            Status::OutOfRange,
        ),
        (
            "a list that is not at a word",
            Submission { data: Data::List(client.piece(4, 48)), ..good }.encode(),
            Status::InvalidArgument,
        ),
    ];
    for (what, words, status) in cases {
        println!("{what}");
        refused(&mut rig, &mut client, &mut other, words, status);
    }
    // A reserved bit beside the tag: the same tag, and not a larger one.
    refused(&mut rig, &mut client, &mut other, bent(0, 1 << 48), Status::InvalidArgument);
    assert_eq!(rig.ask(&good, &mut client).status, Status::Ok, "after all of that");
    rig.device.assert_no_faults();
}

#[test]
fn pieces_of_a_list_are_checked_like_any() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let whole = opening(16, Rights::ALL, &[(0, 2048)]);
    let (mut client, mut other) = (rig.open(0, &whole), rig.open(1, &whole));
    let good = [0, 1, 2].map(|at| client.piece(8192 + 1024 * at, 512));
    let foreign = Piece { memory: MemoryId(9), ..good[0] };
    let cases = [
        (vec![good[0], good[1], foreign], Status::NotFound),
        (vec![good[0], good[1], Piece { offset: 256 << 10, ..good[2] }], Status::OutOfRange),
        (vec![good[0], good[1], Piece { len: 0, ..good[2] }], Status::InvalidArgument),
        (vec![good[0], good[1], Piece { len: 513, ..good[2] }], Status::InvalidArgument),
        (vec![good[0]; MAX_PIECES], Status::InvalidArgument),
        (vec![Piece { len: u32::MAX, ..good[0] }; 3], Status::OutOfRange),
    ];
    for (pieces, status) in cases {
        let data = crate::operations::list(&client, 0, &pieces);
        let wish = Submission { tag: 2, blocks: 3, data, ..Submission::new(Operation::Write, 0) };
        refused(&mut rig, &mut client, &mut other, wish.encode(), status);
    }
    assert_eq!(rig.device.counts(0).taken, 6, "the other's alone");
}

#[test]
fn what_a_session_has_no_right_to_is_denied() {
    let all = [
        (Rights::READ, Operation::Read),
        (Rights::WRITE, Operation::Write),
        (Rights::FLUSH, Operation::Flush),
        (Rights::DISCARD, Operation::Discard),
        (Rights::DISCARD, Operation::WriteZeroes),
    ];
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut other = rig.client(1, 16);
    for (right, operation) in all {
        let others = Rights(Rights::ALL.0 & !right.0);
        let wish = |client: &Client<'_>| match operation {
            Operation::Read | Operation::Write => client.io(operation, 1, 0, 1, 0),
            Operation::Flush => flush(1),
            _ => range(operation, 1, 0, 1),
        };
        let mut client = rig.open(0, &opening(16, others, &[(0, 100)]));
        let words = wish(&client).encode();
        refused(&mut rig, &mut client, &mut other, words, Status::Denied);
        let several = Submission { deadline: 1000, ..wish(&client) }.encode();
        refused(&mut rig, &mut client, &mut other, several, Status::Denied);
        rig.front.close(client.id).unwrap();
        rig.serve();
        let mut client = rig.open(0, &opening(16, right, &[(0, 100)]));
        assert_eq!(rig.ask(&wish(&client), &mut client).status, Status::Ok, "{operation:?}");
        rig.front.close(client.id).unwrap();
        rig.serve();
    }
}

#[test]
fn no_kind_of_entry_gets_around_a_right_that_is_missing() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut other = rig.client(1, 16);
    for rights in [Rights::FLUSH, Rights::READ, Rights::WRITE] {
        // Large enough for block 0 to be decided in one go.
        let mut client = rig.open(0, &opening(16, rights, &[(0, 2048)]));
        let io = client.io(Operation::Read, 1, 0, 1, 0).encode();
        let small = (0..16).flat_map(|low| (0..3).map(move |pieces| low | pieces << 16));
        for low in small.chain([u64::from(u32::MAX), u64::from(u32::MAX) - 1, 1 << 31, 0xffff, 0xffff_0000]) {
            let mine = [(Rights::READ, 1 | 1 << 16), (Rights::WRITE, 2 | 1 << 16)];
            if mine.iter().any(|(right, kind)| rights == *right && low == *kind) {
                continue;
            }
            let mut words = io;
            words[0] = words[0] >> 32 << 32 | low;
            let end = rig.ask_words(words, &mut client);
            assert!(!end.status.is_ok(), "{rights:?}: {low:#x} was done");
        }
        rig.front.close(client.id).unwrap();
        rig.serve();
    }
    assert_eq!(other.ends(), []);
}

#[test]
fn blocks_outside_of_the_extents_are_not_touched_whatever_the_memory() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut other = rig.client(1, 16);
    // One extent is decided in one go, several are walked.
    for extents in [&[(100, 10)][..], &[(100, 4), (300, 6)]] {
        let mut client = rig.open(0, &opening(16, Rights::ALL, extents));
        for (lba, blocks) in [(10, 1), (9, 2), (0, 11), (1948, 1), (u64::MAX, 1), (u64::MAX - 99, 1)] {
            for operation in [Operation::Read, Operation::Write] {
                let words = client.io(operation, 1, lba, blocks, 0).encode();
                refused(&mut rig, &mut client, &mut other, words, Status::OutOfRange);
            }
            let words = range(Operation::Discard, 1, lba, blocks).encode();
            refused(&mut rig, &mut client, &mut other, words, Status::OutOfRange);
        }
        if extents.len() > 1 {
            let across = client.write(1, 3, 2, 0).encode();
            refused(&mut rig, &mut client, &mut other, across, Status::OutOfRange);
        }
        rig.front.close(client.id).unwrap();
        rig.serve();
    }
}

#[test]
fn a_medium_that_is_read_only_refuses_changes_and_one_without_discard_says_so() {
    let mut world = World::new(Config::default().with(features::RO));
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    assert_eq!(rig.ask(&client.write(1, 0, 1, 0), &mut client).status, Status::ReadOnly);
    assert_eq!(rig.ask(&range(Operation::Discard, 1, 0, 1), &mut client).status, Status::ReadOnly);
    assert_eq!(rig.ask(&client.read(1, 0, 1, 0), &mut client).status, Status::Ok);
    let mut world = World::new(Config::default().without(features::DISCARD | features::WRITE_ZEROES));
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    for operation in [Operation::Discard, Operation::WriteZeroes] {
        assert_eq!(rig.ask(&range(operation, 1, 0, 1), &mut client).status, Status::Unsupported);
    }
    let limits = RangeLimits { max_sectors: 1024, max_segments: 1, alignment: 1 };
    let mut world = World::new(Config { may_unmap: false, write_zeroes: limits, ..Config::default() });
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let unmap = Submission { flags: Flags::UNMAP, ..range(Operation::WriteZeroes, 1, 0, 1) };
    rig.ask(&unmap, &mut client);
    rig.device.assert_no_faults();
}

#[test]
fn a_tag_that_is_in_flight_is_busy_and_its_request_unharmed() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let whole = opening(16, Rights::ALL, &[(0, 2048)]);
    let (mut client, mut other) = (rig.open(0, &whole), rig.open(1, &whole));
    rig.device.put_disk(0, &pattern(3, 4096));
    for deadline in [0, 1000] {
        client.submit(&[Submission { deadline, ..client.read(5, 0, 8, 0) }]);
        rig.serve();
        let taken = rig.device.take(0, 99);
        let again =
            [client.write(5, 0, 8, 0), client.read(5, 8, 8, 4096), flush(5), range(Operation::Discard, 5, 0, 1)];
        for again in again {
            refused(&mut rig, &mut client, &mut other, again.encode(), Status::Busy);
        }
        rig.device.complete(0, &taken);
        rig.settle();
        assert_eq!(client.ends(), [(5, Status::Ok)]);
        assert_eq!(client.get(0, 4096), pattern(3, 4096));
    }
}
