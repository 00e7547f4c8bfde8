//! Golden bytes: each message as it lies in memory, written by hand from the tables. Another implementation has only
//! those to go by.
use crate::protocol_values::laid;
use drv_virtio_block::lib_block::entry::{
    Completion, Data, Flags, MemoryId, Operation, PIECE_BYTES, Piece, Submission, tag_of,
};
use drv_virtio_block::lib_block::message::{
    Answer, BYTES, Body, Call, Capability, Driver, Extent, Given, Info, MAX_EXTENTS, Opened, Opening, Rights, SessionId,
};
use drv_virtio_block::lib_block::{MAX_CREDIT, MAX_PIECES, Status, VERSION, ring};

/// Bytes written as hexadecimal, zeros to the end of a message.
fn message(text: &str) -> [u8; BYTES] {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    }
    bytes
}

fn is_call(call: Call, text: &str) {
    assert_eq!(call.encode(), message(text), "{call:?}");
    assert_eq!(Call::decode(&message(text)), Ok(call));
}

fn is_answer(answer: Answer, text: &str) {
    assert_eq!(answer.encode(), message(text), "{answer:?}");
    assert_eq!(Answer::decode(&message(text)), Ok(answer));
}

#[test]
fn sizes_and_limits_are_those_of_version_1() {
    assert_eq!((VERSION, BYTES, PIECE_BYTES), (1, 128, 16));
    assert_eq!((MAX_CREDIT, MAX_PIECES, MAX_EXTENTS), (1024, 16, 4));
    assert_eq!(size_of_val(&Submission::new(Operation::Flush, 0).encode()), 64);
    assert_eq!(size_of::<[u64; 2]>(), 16);
    assert_eq!(ring::bytes(2), 4 * 64 + 2 * 64 + 2 * 16);
    assert_eq!(ring::bytes(1024), 4 * 64 + 1024 * 80);
}

#[test]
fn a_ring_has_a_power_of_two_of_entries_from_2_to_1024() {
    let sizes: Vec<u16> = (0..=u16::MAX).filter(|entries| ring::is_size(*entries)).collect();
    assert_eq!(sizes, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]);
}

#[test]
fn every_status_has_its_number() {
    use Status::{Busy, Denied, Gone, InvalidArgument, IoError, NotFound, Ok, OutOfRange};
    use Status::{ReadOnly, Reset, TimedOut, Unsupported};
    let table = [
        (0, Ok),
        (1, Denied),
        (2, InvalidArgument),
        (3, NotFound),
        (4, Busy),
        (5, IoError),
        (6, Unsupported),
        (7, OutOfRange),
        (8, ReadOnly),
        (9, Reset),
        (10, TimedOut),
        (11, Gone),
    ];
    for (number, status) in table {
        assert_eq!((status as u16, Status::from_wire(number)), (number, Some(status)));
        assert_eq!(status.is_ok(), number == 0);
    }
    assert!((12..=u16::MAX).all(|number| Status::from_wire(number).is_none()));
}

#[test]
fn a_submission_of_two_pieces_lies_as_the_table_says() {
    let one = Piece { memory: MemoryId(0x1122_3344), offset: 0x0102_0304_0506_0708, len: 0x5566_7788 };
    let two = Piece { memory: MemoryId(0x99AA_BBCC), offset: 0x1112_1314_1516_1718, len: 0xDDEE_FF01 };
    let write = Submission {
        operation: Operation::Write,
        flags: Flags::FUA.with(Flags::PRE_BARRIER),
        tag: 0xBEEF,
        lba: 0x2122_2324_2526_2728,
        blocks: 0x3132_3334,
        data: Data::Two([one, two]),
        deadline: 0x4142_4344_4546_4748,
    };
    #[rustfmt::skip]
    let bytes = [
        2, 3, 2, 0, 0xEF, 0xBE, 0, 0,
        0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        0x34, 0x33, 0x32, 0x31, 0, 0, 0, 0,
        0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55,
        8, 7, 6, 5, 4, 3, 2, 1,
        0xCC, 0xBB, 0xAA, 0x99, 0x01, 0xFF, 0xEE, 0xDD,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41,
    ];
    assert_eq!(laid(&write.encode()), bytes);
    assert_eq!(Submission::decode(&write.encode()), Ok(write));
    assert_eq!(tag_of(&write.encode()), 0xBEEF);
}

#[test]
fn operations_flags_and_pieces_have_their_bits() {
    use Operation::{Cancel, Discard, Flush, Read, Write, WriteZeroes};
    let numbers = [(1, Read), (2, Write), (3, Flush), (4, Discard), (5, WriteZeroes), (6, Cancel)];
    for (number, operation) in numbers {
        assert_eq!(Submission::new(operation, 0).encode()[0], number);
        assert_eq!(Operation::from_wire(number as u8), Some(operation));
    }
    assert!((0..=u8::MAX).filter(|number| !(1..=6).contains(number)).all(|n| Operation::from_wire(n).is_none()));
    assert_eq!((Flags::FUA, Flags::PRE_BARRIER, Flags::UNMAP), (Flags(1), Flags(2), Flags(4)));
    let piece = Piece { memory: MemoryId(1), offset: 2, len: 3 };
    let list = Piece { memory: MemoryId(7), offset: 4096, len: 80 };
    let shapes = [(Data::One(piece), 1, [1 | 3 << 32, 2]), (Data::List(list), 5, [7 | 80 << 32, 4096])];
    for (data, pieces, words) in shapes {
        let encoded = Submission { blocks: 9, data, ..Submission::new(Read, 8) }.encode();
        assert_eq!(encoded, [1 | pieces << 16, 8, 9, words[0], words[1], 0, 0, 0]);
    }
}

#[test]
fn a_completion_lies_as_the_table_says() {
    let completion =
        Completion { tag: 0x0102, status: Status::TimedOut, bytes: 0x0304_0506, epoch: 0x0708_090A, late: true };
    let bytes = [2, 1, 10, 0, 6, 5, 4, 3, 0x0A, 9, 8, 7, 1, 0, 0, 0];
    assert_eq!(laid(&completion.encode()), bytes);
    assert_eq!(Completion::decode(&completion.encode()), Ok(completion));
    let in_time = Completion { late: false, ..completion };
    assert_eq!(laid(&in_time.encode())[8..], [0x0A, 9, 8, 7, 0, 0, 0, 0]);
}

#[test]
fn a_piece_in_a_list_is_memory_length_offset() {
    let piece = Piece { memory: MemoryId(0x0102_0304), offset: 0x1112_1314_1516_1718, len: 0x0506_0708 };
    let bytes = [4, 3, 2, 1, 8, 7, 6, 5, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11];
    assert_eq!(laid(&piece.encode()), bytes);
    assert_eq!(Piece::decode(piece.encode()), piece);
}

#[test]
fn calls_within_a_session_lie_as_the_table_says() {
    let call = |body| Call { session: SessionId(0x0403_0201), cookie: 0x1817_1615_1413_1211, body };
    let lba = 0x2827_2625_2423_2221;
    is_call(call(Body::GetInfo), "0100 0100 01020304 1112131415161718");
    let read = Body::Read { lba, blocks: 0x3433_3231 };
    is_call(call(read), "0100 0200 01020304 1112131415161718 2122232425262728 31323334");
    let write = Body::Write { lba, blocks: 0x3433_3231, fua: true };
    is_call(call(write), "0100 0300 01020304 1112131415161718 2122232425262728 31323334 01000000");
    is_call(call(Body::Flush), "0100 0400 01020304 1112131415161718");
    is_call(call(Body::Close), "0100 1100 01020304 1112131415161718");
    is_call(call(Body::Register), "0100 1200 01020304 1112131415161718");
    let forget = Body::Unregister { memory: MemoryId(0x4443_4241) };
    is_call(call(forget), "0100 1300 01020304 1112131415161718 41424344");
}

#[test]
fn calls_about_no_session_lie_as_the_table_says() {
    let call = |body| Call { session: SessionId(0), cookie: 1, body };
    is_call(call(Body::Start), "0100 2000 00000000 0100000000000000");
    is_call(call(Body::Stop { flush: true }), "0100 2100 00000000 0100000000000000 01000000");
    is_call(call(Body::ReadDriver), "0100 2200 00000000 0100000000000000");
    let extents = [Extent { first: 0x0102, blocks: 0x0304 }, Extent { first: 0x0506, blocks: 0x0708 }];
    let capability = Capability::new(Rights::READ.with(Rights::FLUSH), &extents).unwrap();
    let opening = Opening { version: 1, credit: 0x0200, weight: 3, affinity: 0x0405_0607, capability };
    let text = "0100 1000 00000000 0100000000000000  0100 0002 0300 0900 07060504 02000000
        0201000000000000 0403000000000000 0605000000000000 0807000000000000";
    is_call(call(Body::Open(opening)), text);
    let rights = [Rights::READ, Rights::WRITE, Rights::DISCARD, Rights::FLUSH, Rights::ALL];
    assert_eq!(rights.map(|right| right.0), [1, 2, 4, 8, 15]);
}

#[test]
fn answers_lie_as_the_table_says() {
    let answer = |result| Answer { cookie: 0x1817_1615_1413_1211, result };
    is_answer(answer(Ok(Given::Nothing)), "0100 0000 00000000 1112131415161718");
    is_answer(answer(Err(Status::Gone)), "0100 0000 0b000000 1112131415161718");
    is_answer(answer(Ok(Given::Moved(0x0403_0201))), "0100 0200 00000000 1112131415161718 01020304");
    is_answer(answer(Ok(Given::Registered(MemoryId(7)))), "0100 0400 00000000 1112131415161718 07000000");
    let info = Info {
        blocks: 1,
        block_size: 2,
        max_blocks: 3,
        max_pieces: 4,
        traits: Info::WRITE_CACHE | Info::WRITE_ZEROES,
        generation: 5,
        epoch: 6,
        features: 7,
        identity: *b"abcdefghijklmnopqrst",
    };
    let told = "0100000000000000 02000000 03000000 0400 0a00 05000000 06000000 0700000000000000
        6162636465666768696a6b6c6d6e6f7071727374";
    is_answer(answer(Ok(Given::Info(info))), &format!("0100 0100 00000000 1112131415161718 {told}"));
    let opened = Opened { session: SessionId(0x21), credit: 0x22, queue: 0x23, info };
    let text = format!("0100 0300 00000000 1112131415161718 21000000 2200 2300 {told}");
    is_answer(answer(Ok(Given::Opened(opened))), &text);
    let driver = Driver { epoch: 1, serving: true, queues: 2, sessions: 3, answered: 4, refused: 5, ended: 6 };
    let text = "0100 0500 00000000 1112131415161718 01000000 01000000 0200 0300
        0400000000000000 0500000000000000 0600000000000000";
    is_answer(answer(Ok(Given::Driver(driver))), text);
    let traits = [Info::READ_ONLY, Info::WRITE_CACHE, Info::DISCARD, Info::WRITE_ZEROES];
    assert_eq!(traits, [1, 2, 4, 8]);
}
