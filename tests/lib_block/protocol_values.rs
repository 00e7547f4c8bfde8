//! Every value that the protocol can say, as strategies; and the same values as a corpus of bytes for the fuzzing.
use drv_virtio_block::lib_block::entry::{Completion, Data, Flags, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::message::{
    Answer, Body, Call, Capability, Driver, Extent, Given, Info, MAX_EXTENTS, Opened, Opening, Rights, SessionId,
};
use drv_virtio_block::lib_block::{MAX_PIECES, Status};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Numbers with a preference for the ends of their range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![3 => any::<u64>(), 1 => 0..4u64, 1 => (0..4u64).prop_map(|less| u64::MAX - less)]
}

fn number32() -> impl Strategy<Value = u32> {
    number().prop_map(|value| value as u32)
}

fn number16() -> impl Strategy<Value = u16> {
    number().prop_map(|value| value as u16)
}

pub(crate) fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL.to_vec())
}

pub(crate) fn piece() -> impl Strategy<Value = Piece> {
    (number32(), number(), number32()).prop_map(|(memory, offset, len)| Piece { memory: MemoryId(memory), offset, len })
}

fn filled() -> impl Strategy<Value = Piece> {
    piece().prop_map(|piece| Piece { len: piece.len.max(1), ..piece })
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        filled().prop_map(Data::One),
        [filled(), filled()].prop_map(Data::Two),
        (piece(), 3..=MAX_PIECES as u32).prop_map(|(piece, count)| Data::List(Piece { len: count * 16, ..piece })),
    ]
}

fn operation() -> impl Strategy<Value = (Operation, Flags)> {
    use Operation::{Cancel, Discard, Flush, Read, Write, WriteZeroes};
    let barrier = Flags::PRE_BARRIER;
    let all = [
        (Read, barrier),
        (Write, barrier.with(Flags::FUA)),
        (Flush, barrier),
        (Discard, barrier),
        (WriteZeroes, barrier.with(Flags::UNMAP)),
        (Cancel, Flags(0)),
    ];
    (prop::sample::select(all.to_vec()), any::<u8>()).prop_map(|((what, may), chosen)| (what, Flags(may.0 & chosen)))
}

pub(crate) fn submission() -> impl Strategy<Value = Submission> {
    (operation(), number16(), number(), number32(), data(), number()).prop_map(
        |((operation, flags), tag, place, blocks, data, deadline)| {
            let lba = match operation {
                Operation::Flush => 0,
                Operation::Cancel => place & 0xFFFF,
                _ => place,
            };
            let blocks = if operation.has_blocks() { blocks.max(1) } else { 0 };
            let data = if operation.has_data() { data } else { Data::None };
            Submission { operation, flags, tag, lba, blocks, data, deadline }
        },
    )
}

pub(crate) fn completion() -> impl Strategy<Value = Completion> {
    (number16(), status(), number32(), number32(), any::<bool>())
        .prop_map(|(tag, status, bytes, epoch, late)| Completion { tag, status, bytes, epoch, late })
}

fn extent() -> impl Strategy<Value = Extent> {
    // A quarter of all numbers each, so that four are never too many.
    (number(), 1..1u64 << 62).prop_map(|(first, blocks)| Extent { first: first.min(u64::MAX - blocks), blocks })
}

pub(crate) fn capability() -> impl Strategy<Value = Capability> {
    (0..16u16, prop::collection::vec(extent(), 1..=MAX_EXTENTS))
        .prop_map(|(rights, extents)| Capability::new(Rights(rights), &extents).unwrap())
}

fn opening() -> impl Strategy<Value = Opening> {
    (number16(), number16(), number16(), number32(), capability()).prop_map(
        |(version, credit, weight, affinity, capability)| Opening { version, credit, weight, affinity, capability },
    )
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::GetInfo),
        (number(), number32()).prop_map(|(lba, blocks)| Body::Read { lba, blocks }),
        (number(), number32(), any::<bool>()).prop_map(|(lba, blocks, fua)| Body::Write { lba, blocks, fua }),
        Just(Body::Flush),
        opening().prop_map(Body::Open),
        Just(Body::Close),
        Just(Body::Register),
        number32().prop_map(|memory| Body::Unregister { memory: MemoryId(memory) }),
        Just(Body::Start),
        any::<bool>().prop_map(|flush| Body::Stop { flush }),
        Just(Body::ReadDriver),
    ]
}

/// Whether a call is about a session, by the protocol's text.
pub(crate) fn is_about_a_session(body: &Body) -> bool {
    use Body::{Close, Flush, GetInfo, Read, Register, Unregister, Write};
    matches!(body, GetInfo | Read { .. } | Write { .. } | Flush | Close | Register | Unregister { .. })
}

pub(crate) fn call() -> impl Strategy<Value = Call> {
    (number32(), number(), body()).prop_map(|(session, cookie, body)| {
        let session = SessionId(if is_about_a_session(&body) { session } else { 0 });
        Call { session, cookie, body }
    })
}

fn info() -> impl Strategy<Value = Info> {
    let numbers = (number(), number32(), number32(), number16(), number16(), number32(), number32(), number());
    (numbers, any::<[u8; 20]>()).prop_map(|(numbers, identity)| {
        let (blocks, block_size, max_blocks, max_pieces, traits, generation, epoch, features) = numbers;
        Info { blocks, block_size, max_blocks, max_pieces, traits, generation, epoch, features, identity }
    })
}

fn driver() -> impl Strategy<Value = Driver> {
    (number32(), any::<bool>(), number16(), number16(), number(), number(), number()).prop_map(
        |(epoch, serving, queues, sessions, answered, refused, ended)| Driver {
            epoch,
            serving,
            queues,
            sessions,
            answered,
            refused,
            ended,
        },
    )
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        Just(Given::Nothing),
        info().prop_map(Given::Info),
        number32().prop_map(Given::Moved),
        (number32(), number16(), number16(), info()).prop_map(|(session, credit, queue, info)| {
            Given::Opened(Opened { session: SessionId(session), credit, queue, info })
        }),
        number32().prop_map(|memory| Given::Registered(MemoryId(memory))),
        driver().prop_map(Given::Driver),
    ]
}

pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    let result = prop_oneof![
        2 => given().prop_map(Ok),
        1 => status().prop_map(|status| if status.is_ok() { Ok(Given::Nothing) } else { Err(status) }),
    ];
    (number(), result).prop_map(|(cookie, result)| Answer { cookie, result })
}

/// So many values of a strategy, the same ones every time.
pub(crate) fn corpus<T>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Words as they lie in memory.
pub(crate) fn laid(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// And back.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    std::array::from_fn(|word| u64::from_le_bytes(bytes[word * 8..][..8].try_into().unwrap()))
}
