//! The stream of bytes over a volume behaves as bytes do, whatever is asked in whatever order.
use axfatfs::{Read, Seek, SeekFrom, Write};
use blockd::Volume;
use blockd::fat::{Stream, StreamError};
use proptest::prelude::*;

const BLOCKS: usize = 6;

/// A volume that can be told to fail.
struct Memory {
    bytes: Vec<u8>,
    block: usize,
    fails: bool,
}

#[derive(Debug, PartialEq)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

impl Memory {
    fn new(block: usize) -> Self {
        Self { bytes: (0..block * BLOCKS).map(|at| (at % 251) as u8).collect(), block, fails: false }
    }

    fn place(&self, lba: u64, bytes: usize) -> Result<std::ops::Range<usize>, Broken> {
        assert!(bytes > 0 && bytes.is_multiple_of(self.block), "whole blocks");
        let at = lba as usize * self.block;
        if self.fails { Err(Broken) } else { Ok(at..at + bytes) }
    }
}

impl Volume for Memory {
    type Error = Broken;

    fn block_size(&self) -> u32 {
        self.block as u32
    }
    fn blocks(&self) -> u64 {
        BLOCKS as u64
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Broken> {
        let place = self.place(lba, into.len());
        if place.is_err() {
            // A device may have begun to write to the buffer before it failed.
            into.fill(0xDD);
        }
        into.copy_from_slice(&self.bytes[place?]);
        Ok(())
    }
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Broken> {
        let place = self.place(lba, from.len())?;
        self.bytes[place].copy_from_slice(from);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Broken> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Seek(usize),
    Read(usize),
    Write(usize, u8),
    Flush,
}

fn steps(block: usize) -> impl Strategy<Value = Vec<Step>> {
    let end = block * BLOCKS;
    let near = move || prop_oneof![(0..=BLOCKS).prop_map(move |at| at * block), 0..=end];
    let length = move || prop_oneof![Just(block), Just(2 * block), 0..40usize, 0..3 * block];
    let step = prop_oneof![
        3 => near().prop_map(Step::Seek),
        3 => length().prop_map(Step::Read),
        4 => (length(), any::<u8>()).prop_map(|(length, byte)| Step::Write(length, byte)),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_is_bytes(
        (block, steps) in prop::sample::select(vec![512usize, 1024]).prop_flat_map(|block| (Just(block), steps(block))),
    ) {
        let mut model = Memory::new(block).bytes;
        let mut memory = Memory::new(block);
        let mut stream = Stream::new(&mut memory).unwrap();
        let mut at = 0;
        for step in steps {
            let mut bytes = &mut stream;
            match step {
                Step::Seek(to) => {
                    assert_eq!(bytes.seek(SeekFrom::Start(to as u64)), Ok(to as u64));
                    at = to;
                }
                Step::Read(length) => {
                    let mut read = vec![0; length.min(model.len() - at)];
                    bytes.read_exact(&mut read).unwrap();
                    assert_eq!(read, &model[at..at + read.len()]);
                    at += read.len();
                }
                Step::Write(length, byte) => {
                    let written = vec![byte; length.min(model.len() - at)];
                    bytes.write_all(&written).unwrap();
                    model[at..at + written.len()].copy_from_slice(&written);
                    at += written.len();
                }
                Step::Flush => stream.flush().unwrap(),
            }
        }
        stream.flush().unwrap();
        assert!(memory.bytes == model);
    }
}

#[test]
fn positions_stay_on_the_volume() {
    let mut stream = Stream::new(Memory::new(512)).unwrap();
    let end = i64::try_from(512 * BLOCKS).unwrap();
    let mut bytes = &mut stream;
    assert_eq!(bytes.seek(SeekFrom::End(0)), Ok(end.unsigned_abs()));
    assert_eq!(bytes.read(&mut [0; 8]), Ok(0));
    assert_eq!(bytes.write_all(&[0; 8]), Err(StreamError::Full));
    assert_eq!(bytes.read_exact(&mut [0; 8]), Err(StreamError::End));
    for to in [SeekFrom::End(1), SeekFrom::Current(1), SeekFrom::Start(end.unsigned_abs() + 1), SeekFrom::End(-end - 1)]
    {
        assert_eq!(bytes.seek(to), Err(StreamError::Seek));
    }
    assert_eq!(bytes.seek(SeekFrom::Current(-1)), Ok(end.unsigned_abs() - 1));
}

#[test]
fn a_block_that_could_not_be_read_is_not_taken_for_one() {
    let mut memory = Memory::new(512);
    memory.fails = true;
    let mut stream = Stream::new(memory).unwrap();
    for _ in 0..2 {
        assert_eq!((&mut stream).read(&mut [0; 8]), Err(StreamError::Volume(Broken)));
        assert_eq!((&mut stream).write(&[0; 8]), Err(StreamError::Volume(Broken)));
    }
    assert_eq!(stream.flush(), Ok(()));
}
