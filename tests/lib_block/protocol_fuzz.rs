//! Hostile bytes for every decoder: valid messages that were damaged, and noise.
//!
//! Whatever the bytes, decoding does not panic, gives the same twice, and what it accepts encodes to the very same
//! bytes: so there is one way to say each thing, and nothing that is said is ignored.
use crate::protocol_random::{Random, Told, inputs};
use crate::protocol_values::{self as values, laid, words};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::{Completion, Piece, Submission};
use drv_virtio_block::lib_block::message::{Answer, Call};
use std::fmt::Debug;
use std::hint::black_box;

/// Valid messages of each kind to begin with.
const CORPUS: usize = 256;

/// How bytes came about.
fn damage(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    bytes.clone_from(&corpus[random.below(corpus.len())]);
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.word() as u8,
            3 => bytes[at] = 0,
            // A field, aligned, that is at the edge of something.
            4 | 5 => {
                let width = 1 << random.below(4);
                let (at, value) = (at & !(width - 1), random.edge().to_le_bytes());
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            // The end of another message: one thing's name with another's content.
            6 => {
                let other = &corpus[random.below(corpus.len())];
                bytes[at..].copy_from_slice(&other[at..]);
            }
            _ => bytes[at..].fill_with(|| random.word() as u8),
        }
    }
}

/// What came of the inputs.
#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    malformed: u64,
    unsupported: u64,
}

/// Decodes [`inputs`] damaged messages.
fn fuzz<T: PartialEq + Debug>(
    seed: u64,
    corpus: &[Vec<u8>],
    any_length: bool,
    decode: impl Fn(&[u8]) -> Result<T, Status>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Counts {
    let (mut counts, told) = (Counts::default(), Told::new());
    let mut bytes = Vec::new();
    for input in 0..inputs() {
        told.now((seed, input));
        // Each input has its own seed, so that one alone can be tried again.
        let mut random = Random::new(seed << 32 ^ input);
        damage(&mut random, corpus, &mut bytes);
        if any_length && random.one_in(16) {
            bytes.resize(random.below(2 * bytes.len() + 1), 0);
        }
        let decoded = decode(&bytes);
        assert_eq!(decode(black_box(&bytes)), decoded, "the same bytes, another result: {bytes:?}");
        match decoded {
            Ok(value) => {
                assert_eq!(encode(&value), bytes, "{value:?} has another form");
                counts.accepted += 1;
            }
            Err(Status::Unsupported) => counts.unsupported += 1,
            Err(Status::InvalidArgument) => counts.malformed += 1,
            Err(other) => panic!("{other:?} is no class of a decoder: {bytes:?}"),
        }
    }
    // A generator that makes only one kind of input tests little.
    let some = inputs() / 100;
    assert!(counts.accepted > some && (counts.malformed > some || corpus[0].len() == 16), "{counts:?}");
    counts
}

fn corpus_of_words<const N: usize>(all: impl Iterator<Item = [u64; N]>) -> Vec<Vec<u8>> {
    all.map(|words| laid(&words)).collect()
}

#[test]
fn hostile_calls_are_decoded_to_one_thing_or_refused() {
    let corpus: Vec<_> = values::corpus(values::call(), CORPUS).iter().map(|call| call.encode().to_vec()).collect();
    let counts = fuzz(1, &corpus, true, Call::decode, |call| call.encode().to_vec());
    assert!(counts.unsupported > 0);
}

#[test]
fn hostile_answers_are_decoded_to_one_thing_or_refused() {
    let corpus: Vec<_> = values::corpus(values::answer(), CORPUS).iter().map(|it| it.encode().to_vec()).collect();
    let counts = fuzz(2, &corpus, true, Answer::decode, |answer| answer.encode().to_vec());
    assert!(counts.unsupported > 0);
}

#[test]
fn hostile_submissions_are_decoded_to_one_thing_or_refused() {
    let corpus = corpus_of_words(values::corpus(values::submission(), CORPUS).iter().map(Submission::encode));
    let decode = |bytes: &[u8]| Submission::decode(&words(bytes));
    let counts = fuzz(3, &corpus, false, decode, |submission| laid(&submission.encode()));
    assert!(counts.unsupported > 0);
}

#[test]
fn hostile_completions_are_decoded_to_one_thing_or_refused() {
    let corpus = corpus_of_words(values::corpus(values::completion(), CORPUS).iter().map(Completion::encode));
    let decode = |bytes: &[u8]| Completion::decode(&words(bytes));
    let counts = fuzz(4, &corpus, false, decode, |completion| laid(&completion.encode()));
    assert!(counts.malformed > 0 && counts.unsupported == 0, "{counts:?}");
}

#[test]
fn any_list_of_pieces_is_pieces() {
    let corpus = corpus_of_words(values::corpus(values::piece(), CORPUS).iter().map(|piece| piece.encode()));
    let counts = fuzz(5, &corpus, false, |bytes| Ok(Piece::decode(words(bytes))), |it| laid(&it.encode()));
    assert_eq!(counts.accepted, inputs());
}
