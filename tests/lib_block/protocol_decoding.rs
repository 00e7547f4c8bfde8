//! Decoding: what is said comes back, what cannot be is refused with its class, and every bit means something.
use crate::protocol_values::{self as values, laid, words};
use drv_virtio_block::lib_block::entry::{Completion, Data, Flags, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::message::{
    Answer, BYTES, Body, Call, Capability, Extent, Given, MAX_EXTENTS, Rights, SessionId,
};
use drv_virtio_block::lib_block::{MAX_PIECES, Status};
use proptest::prelude::*;
use std::ops::Range;

/// What becomes of the bits of a message if one of them is flipped.
struct Bits {
    /// Fields that may have any value: another bit is another value.
    free: Vec<Range<usize>>,
    /// Fields that may not have any value: whatever becomes of a flip is another value or an error.
    some: Vec<Range<usize>>,
}

/// Flips every bit of `bytes` in turn.
fn every_flip<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    bits: &Bits,
    decode: impl Fn(&[u8]) -> Result<T, Status>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let value = decode(bytes).unwrap();
    let within = |ranges: &[Range<usize>], bit| ranges.iter().any(|range| range.contains(&bit));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode(&flipped) {
            Ok(other) => {
                assert!(within(&bits.free, bit) || within(&bits.some, bit), "bit {bit} of {value:?} is reserved");
                assert_ne!(other, value, "bit {bit}");
                assert_eq!(encode(&other), flipped, "bit {bit} of {value:?}");
            }
            Err(_) => assert!(!within(&bits.free, bit), "bit {bit} of {value:?} is free"),
        }
    }
}

/// Bits of bytes.
fn bytes(range: Range<usize>) -> Range<usize> {
    range.start * 8..range.end * 8
}

fn bits_of_call(call: &Call) -> Bits {
    let (mut free, mut some) = (vec![bytes(8..16)], vec![bytes(2..4)]);
    if values::is_about_a_session(&call.body) {
        free.push(bytes(4..8));
    }
    match call.body {
        Body::Read { .. } => free.push(bytes(16..28)),
        Body::Write { .. } => free.extend([bytes(16..28), 28 * 8..28 * 8 + 1]),
        Body::Unregister { .. } => free.push(bytes(16..20)),
        Body::Stop { .. } => free.push(16 * 8..16 * 8 + 1),
        Body::Open(opening) => {
            free.extend([bytes(16..22), 22 * 8..22 * 8 + 4, bytes(24..28)]);
            some.extend([28 * 8..28 * 8 + 3, bytes(32..32 + 16 * opening.capability.extents().len())]);
        }
        _ => {}
    }
    Bits { free, some }
}

fn bits_of_answer(answer: &Answer) -> Bits {
    let mut free = vec![bytes(8..16)];
    match answer.result {
        Ok(Given::Info(_)) => free.push(bytes(16..72)),
        Ok(Given::Moved(_) | Given::Registered(_)) => free.push(bytes(16..20)),
        Ok(Given::Opened(_)) => free.push(bytes(16..80)),
        Ok(Given::Driver(_)) => free.extend([bytes(16..20), 20 * 8..20 * 8 + 1, bytes(24..52)]),
        Ok(Given::Nothing) | Err(_) => {}
    }
    Bits { free, some: vec![bytes(2..4), 4 * 8..4 * 8 + 4] }
}

fn bits_of_submission(submission: &Submission) -> Bits {
    let mut free = vec![bytes(4..6), bytes(56..64)];
    let mut some = vec![bytes(0..1), bytes(2..4)];
    match submission.operation {
        Operation::Write => free.push(8..10),
        Operation::WriteZeroes => free.extend([9..10, 10..11]),
        Operation::Cancel => free.push(bytes(8..10)),
        _ => free.push(9..10),
    }
    if submission.operation.has_blocks() {
        free.push(bytes(8..16));
        some.push(bytes(16..20));
    }
    let pieces: &[usize] = match submission.data {
        Data::None => &[],
        Data::One(_) => &[24],
        Data::Two(_) => &[24, 40],
        Data::List(_) => {
            free.extend([bytes(24..28), bytes(32..40)]);
            &[]
        }
    };
    for &at in pieces {
        free.extend([bytes(at..at + 4), bytes(at + 8..at + 16)]);
        some.push(bytes(at + 4..at + 8));
    }
    Bits { free, some }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_call_comes_back_and_none_of_its_bits_is_ignored(call in values::call()) {
        prop_assert_eq!(Call::decode(&call.encode()), Ok(call));
        every_flip(&call.encode(), &bits_of_call(&call), Call::decode, |call| call.encode().to_vec());
    }

    #[test]
    fn an_answer_comes_back_and_none_of_its_bits_is_ignored(answer in values::answer()) {
        prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        every_flip(&answer.encode(), &bits_of_answer(&answer), Answer::decode, |answer| answer.encode().to_vec());
    }

    #[test]
    fn a_submission_comes_back_and_none_of_its_bits_is_ignored(submission in values::submission()) {
        prop_assert_eq!(Submission::decode(&submission.encode()), Ok(submission));
        let decode = |bytes: &[u8]| Submission::decode(&words(bytes));
        every_flip(&laid(&submission.encode()), &bits_of_submission(&submission), decode, |it| laid(&it.encode()));
    }

    #[test]
    fn a_completion_comes_back_and_none_of_its_bits_is_ignored(completion in values::completion()) {
        prop_assert_eq!(Completion::decode(&completion.encode()), Ok(completion));
        let free = vec![bytes(0..2), bytes(4..12), 12 * 8..12 * 8 + 1];
        let status = 2 * 8..2 * 8 + 4;
        let bits = Bits { free, some: vec![status] };
        every_flip(&laid(&completion.encode()), &bits, |bytes| Completion::decode(&words(bytes)), |it| laid(&it.encode()));
    }

    #[test]
    fn a_piece_comes_back_and_any_words_are_one(piece in values::piece(), words in any::<[u64; 2]>()) {
        prop_assert_eq!(Piece::decode(piece.encode()), piece);
        prop_assert_eq!(Piece::decode(words).encode(), words);
    }

    #[test]
    fn a_capability_has_all_its_blocks(capability in values::capability()) {
        let blocks: u128 = capability.extents().iter().map(|extent| u128::from(extent.blocks)).sum();
        prop_assert_eq!(u128::from(capability.blocks()), blocks);
    }
}

fn some_call() -> Call {
    Call { session: SessionId(2), cookie: 9, body: Body::Read { lba: 64, blocks: 8 } }
}

#[test]
fn a_message_of_another_length_is_malformed() {
    let answer = Answer { cookie: 9, result: Ok(Given::Nothing) };
    let (mut call, mut answer) = (some_call().encode().to_vec(), answer.encode().to_vec());
    call.resize(4 * BYTES, 0);
    answer.resize(4 * BYTES, 0);
    for len in 0..=call.len() {
        let expected = if len == BYTES { None } else { Some(Status::InvalidArgument) };
        assert_eq!(Call::decode(&call[..len]).err(), expected, "{len} bytes");
        assert_eq!(Answer::decode(&answer[..len]).err(), expected, "{len} bytes");
    }
}

#[test]
fn every_other_version_is_unsupported_whatever_else_is_said() {
    for fill in [0, 0xFF] {
        for version in (0..=u16::MAX).filter(|version| *version != 1) {
            let mut bytes = [fill; BYTES];
            bytes[..2].copy_from_slice(&version.to_le_bytes());
            assert_eq!(Call::decode(&bytes), Err(Status::Unsupported), "version {version}");
            assert_eq!(Answer::decode(&bytes), Err(Status::Unsupported), "version {version}");
        }
    }
}

#[test]
fn unknown_operations_are_unsupported() {
    for number in 0..=u16::MAX {
        let known = matches!(number, 1..=4 | 16..=19 | 32..=34);
        let mut bytes = some_call().encode();
        bytes[2..4].copy_from_slice(&number.to_le_bytes());
        assert_eq!(Call::decode(&bytes) == Err(Status::Unsupported), !known, "call {number}");
        let mut bytes = Answer { cookie: 9, result: Ok(Given::Nothing) }.encode();
        bytes[2..4].copy_from_slice(&number.to_le_bytes());
        assert_eq!(Answer::decode(&bytes) == Err(Status::Unsupported), number > 5, "answer {number}");
    }
    for number in 0..=u8::MAX {
        let refused = Submission::decode(&[u64::from(number), 0, 1, 0, 0, 0, 0, 0]) == Err(Status::Unsupported);
        assert_eq!(refused, !(1..=6).contains(&number), "submission {number}");
    }
}

#[test]
fn an_error_gives_nothing() {
    for status in Status::ALL.into_iter().filter(|status| !status.is_ok()) {
        for given in values::corpus(values::answer(), 64) {
            let mut bytes = given.encode();
            bytes[4..8].copy_from_slice(&(status as u32).to_le_bytes());
            let nothing = bytes[2..4] == [0; 2];
            assert_eq!(Answer::decode(&bytes).is_err(), !nothing, "{status:?} with {given:?}");
        }
    }
}

#[test]
fn an_entry_asks_only_for_what_goes_with_its_operation() {
    use Operation::{Cancel, Discard, Flush, Read, Write, WriteZeroes};
    let one = Data::One(Piece { memory: MemoryId(1), offset: 0, len: 512 });
    let allowed = [(Read, 2), (Write, 3), (Flush, 2), (Discard, 2), (WriteZeroes, 6), (Cancel, 0)];
    for (operation, may) in allowed {
        let has_data = matches!(operation, Read | Write);
        let has_blocks = !matches!(operation, Flush | Cancel);
        for flags in 0..=u8::MAX {
            let data = if has_data { one } else { Data::None };
            let entry =
                Submission { flags: Flags(flags), blocks: has_blocks.into(), data, ..Submission::new(operation, 0) };
            assert_eq!(Submission::decode(&entry.encode()).is_ok(), flags & !may == 0, "{entry:?}");
        }
        for (blocks, data) in [(0, Data::None), (1, Data::None), (0, one), (1, one)] {
            let entry = Submission { blocks, data, ..Submission::new(operation, 0) };
            let fits = (blocks > 0, data != Data::None) == (has_blocks, has_data);
            let expected = if fits { Ok(entry) } else { Err(Status::InvalidArgument) };
            assert_eq!(Submission::decode(&entry.encode()), expected, "{entry:?}");
        }
    }
}

#[test]
fn a_list_that_cannot_be_is_refused_and_leaves_the_tag_alone() {
    let piece = Piece { memory: MemoryId(1), offset: 0, len: 0 };
    let lens =
        (0..=20 * 16).chain((0..64).map(|less| u32::MAX - less)).chain((0..64).map(|more| (0x1_0000 + more) * 16));
    for len in lens {
        let data = Data::List(Piece { len, ..piece });
        let read = Submission { tag: 0x5A5A, blocks: 1, data, ..Submission::new(Operation::Read, 0) };
        let words = read.encode();
        let sound = len % 16 == 0 && (3..=MAX_PIECES as u32).contains(&(len / 16));
        assert_eq!(Submission::decode(&words), if sound { Ok(read) } else { Err(Status::InvalidArgument) }, "{len}");
        assert_eq!(words[0] >> 32, 0x5A5A, "{len}");
    }
}

#[test]
fn an_entry_has_one_piece_or_two_or_a_list_of_3_to_16() {
    for pieces in 0..=u16::MAX {
        let len = u64::from(pieces) * 16;
        let words = [1 | u64::from(pieces) << 16, 0, 1, len << 32, 0, 0, 0, 0];
        // Of two, the second has no bytes here.
        assert_eq!(Submission::decode(&words).is_ok(), matches!(pieces, 1 | 3..=16), "{pieces}");
    }
}

#[test]
fn a_capability_is_refused_if_its_extents_cannot_be() {
    let new = |extents: &[(u64, u64)]| {
        let extents: Vec<_> = extents.iter().map(|&(first, blocks)| Extent { first, blocks }).collect();
        Capability::new(Rights::READ, &extents)
    };
    assert_eq!(new(&[]), None, "no extent");
    assert_eq!(new(&[(0, 1); MAX_EXTENTS + 1]), None, "too many");
    assert!(new(&[(0, 1); MAX_EXTENTS]).is_some());
    for place in 0..MAX_EXTENTS {
        let mut extents = [(8, 1); MAX_EXTENTS];
        extents[place].1 = 0;
        assert_eq!(new(&extents), None, "an empty one at {place}");
        extents[place] = (u64::MAX, 1);
        assert_eq!(new(&extents), None, "one past the last number at {place}");
        extents[place] = (u64::MAX - 1, 1);
        assert!(new(&extents).is_some(), "one up to the last number at {place}");
    }
    assert!(new(&[(0, u64::MAX)]).is_some());
    assert_eq!(new(&[(0, u64::MAX), (0, 1)]), None, "more blocks than numbers");
    assert!(new(&[(0, 1 << 63), (0, (1 << 63) - 1)]).is_some());
    for right in 0..16 {
        let known = Capability::new(Rights(1 << right), &[Extent { first: 0, blocks: 1 }]).is_some();
        assert_eq!(known, right < 4, "right {right}");
    }
}
