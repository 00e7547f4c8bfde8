//! Ring entries: 64 bytes to submit a request, 16 to complete it.
//!
//! An entry is eight (or two) little-endian words of 64 bits, so that both sides move it with plain word accesses. It
//! knows neither sessions nor devices: what a piece of memory is, and whether blocks may be touched, is decided by who
//! takes the entry.
//!
//! | Word | Submission |
//! |---|---|
//! | 0 | operation (8 bits), flags (8), pieces (16), tag (16), zero (16) |
//! | 1 | first block; CANCEL: the tag to withdraw; FLUSH: zero |
//! | 2 | blocks (32), zero (32) |
//! | 3, 4 | piece 0, or where the list is: memory (32) and length (32); offset (64) |
//! | 5, 6 | piece 1, likewise; zero unless there are two |
//! | 7 | deadline in nanoseconds on the platform's clock; 0: none |
//!
//! | Word | Completion |
//! |---|---|
//! | 0 | tag (16), status (16), bytes (32) |
//! | 1 | epoch (32), flags (16), zero (16) |
//!
//! One or two pieces stand in the entry; three to [`MAX_PIECES`] in a list of 16-byte pieces in registered memory.
//!
//! ```
//! use drv_virtio_block::lib_block::entry::{Data, MemoryId, Operation, Piece, Submission};
//! let data = Data::One(Piece { memory: MemoryId(3), offset: 8192, len: 4096 });
//! let read = Submission { tag: 7, blocks: 8, data, ..Submission::new(Operation::Read, 1000) };
//! assert_eq!(Submission::decode(&read.encode()), Ok(read));
//! ```
use super::{MAX_PIECES, Status};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Blocks into memory.
    Read = 1,
    /// Memory onto blocks.
    Write = 2,
    /// Makes everything durable that was answered before.
    Flush = 3,
    /// The blocks hold nothing of value.
    Discard = 4,
    /// The blocks read as zeros.
    WriteZeroes = 5,
    /// Withdraws another request of the session.
    Cancel = 6,
}

impl Operation {
    /// The operation of a number off the wire.
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Read,
            2 => Self::Write,
            3 => Self::Flush,
            4 => Self::Discard,
            5 => Self::WriteZeroes,
            6 => Self::Cancel,
            _ => return None,
        })
    }

    /// Whether it names blocks.
    pub const fn has_blocks(self) -> bool {
        !matches!(self, Self::Flush | Self::Cancel)
    }

    /// Whether it moves data.
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// What a request asks for besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// WRITE: answered once durable.
    pub const FUA: Self = Self(1);
    /// Begins once every earlier request of the session was answered.
    pub const PRE_BARRIER: Self = Self(2);
    /// WRITE ZEROES: the device may deallocate.
    pub const UNMAP: Self = Self(4);

    /// Whether all of `other` is asked for.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What may be asked for with `operation`.
    const fn allowed(operation: Operation) -> Self {
        match operation {
            Operation::Write => Self::FUA.with(Self::PRE_BARRIER),
            Operation::WriteZeroes => Self::UNMAP.with(Self::PRE_BARRIER),
            Operation::Cancel => Self(0),
            _ => Self::PRE_BARRIER,
        }
    }
}

/// Registered memory, by the number that registration gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryId(pub u32);

/// Bytes of registered memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Which memory.
    pub memory: MemoryId,
    /// From here on.
    pub offset: u64,
    /// So many bytes, at least 1.
    pub len: u32,
}

impl Piece {
    /// The piece in two words: as in an entry, and as in a list.
    #[inline]
    pub const fn encode(self) -> [u64; 2] {
        [self.memory.0 as u64 | (self.len as u64) << 32, self.offset]
    }

    /// The piece of two words; any words are a piece.
    #[inline]
    pub const fn decode([place, offset]: [u64; 2]) -> Self {
        Self { memory: MemoryId(place as u32), len: (place >> 32) as u32, offset }
    }
}

/// Where a request's data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// Nowhere.
    #[default]
    None,
    /// In one piece.
    One(Piece),
    /// In two.
    Two([Piece; 2]),
    /// In as many pieces as a list has that takes this much memory, 16 bytes each: three to [`MAX_PIECES`].
    List(Piece),
}

/// Bytes of a piece in a list.
pub const PIECE_BYTES: u32 = 16;

/// A request, as an entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// What is asked.
    pub operation: Operation,
    /// And what besides.
    pub flags: Flags,
    /// The client's name for it, below the credit; not that of another unanswered request.
    pub tag: u16,
    /// First logical block; CANCEL: the tag to withdraw.
    pub lba: u64,
    /// Logical blocks.
    pub blocks: u32,
    /// Memory.
    pub data: Data,
    /// When it is of no use any more, in nanoseconds on the platform's clock; 0: never.
    pub deadline: u64,
}

impl Submission {
    /// A request with nothing but an operation and a place.
    pub const fn new(operation: Operation, lba: u64) -> Self {
        Self { operation, flags: Flags(0), tag: 0, lba, blocks: 0, data: Data::None, deadline: 0 }
    }

    /// The entry's words.
    #[inline(always)]
    pub const fn encode(&self) -> [u64; 8] {
        let (pieces, first, second) = match self.data {
            Data::None => (0, [0; 2], [0; 2]),
            Data::One(piece) => (1, piece.encode(), [0; 2]),
            Data::Two([one, two]) => (2, one.encode(), two.encode()),
            Data::List(list) => (list_pieces(list.len), list.encode(), [0; 2]),
        };
        let what = self.operation as u64 | (self.flags.0 as u64) << 8 | pieces << 16 | (self.tag as u64) << 32;
        [what, self.lba, self.blocks as u64, first[0], first[1], second[0], second[1], self.deadline]
    }

    /// The request of an entry's words.
    ///
    /// # Errors
    /// [`Status::Unsupported`] for an unknown operation, [`Status::InvalidArgument`] for anything that does not go with
    /// the operation, or is not zero where it must be.
    pub fn decode(words: &[u64; 8]) -> Result<Self, Status> {
        let [what, lba, blocks, first_place, first_offset, second_place, second_offset, deadline] = *words;
        let operation = Operation::from_wire(what as u8).ok_or(Status::Unsupported)?;
        let flags = Flags((what >> 8) as u8);
        let pieces = (what >> 16) as u16;
        let (first, second) = ([first_place, first_offset], [second_place, second_offset]);
        if what >> 48 != 0 || blocks >> 32 != 0 || flags.0 & !Flags::allowed(operation).0 != 0 {
            return Err(Status::InvalidArgument);
        }
        if (blocks != 0) != operation.has_blocks() || (pieces != 0) != operation.has_data() {
            return Err(Status::InvalidArgument);
        }
        let data = decode_data(pieces, first, second).ok_or(Status::InvalidArgument)?;
        let place_fits = match operation {
            Operation::Flush => lba == 0,
            Operation::Cancel => u16::try_from(lba).is_ok(),
            _ => true,
        };
        if !place_fits {
            return Err(Status::InvalidArgument);
        }
        Ok(Self { operation, flags, tag: tag_of(words), lba, blocks: blocks as u32, data, deadline })
    }
}

/// The tag of an entry's words, which is good for an answer even when the rest is not.
#[inline(always)]
pub const fn tag_of(words: &[u64; 8]) -> u16 {
    (words[0] >> 32) as u16
}

/// How many pieces a list of `len` bytes has; of a list that cannot be a number that nobody accepts, above all not one
/// that makes the list itself the data.
const fn list_pieces(len: u32) -> u64 {
    let pieces = len / PIECE_BYTES;
    if pieces >= 3 && pieces <= MAX_PIECES as u32 { pieces as u64 } else { u16::MAX as u64 }
}

fn decode_data(pieces: u16, first: [u64; 2], second: [u64; 2]) -> Option<Data> {
    let (one, two) = (Piece::decode(first), Piece::decode(second));
    let data = match usize::from(pieces) {
        0 if first == [0; 2] && second == [0; 2] => Data::None,
        1 if one.len > 0 && second == [0; 2] => Data::One(one),
        2 if one.len > 0 && two.len > 0 => Data::Two([one, two]),
        3..=MAX_PIECES if one.len == u32::from(pieces) * PIECE_BYTES && second == [0; 2] => Data::List(one),
        _ => return None,
    };
    Some(data)
}

/// A request's end, as an entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The client's name for the request.
    pub tag: u16,
    /// How it ended.
    pub status: Status,
    /// Bytes moved, or for operations without data 0.
    pub bytes: u32,
    /// The driver's life in which it ended.
    pub epoch: u32,
    /// The device had it beyond its deadline.
    pub late: bool,
}

/// The flag of [`Completion::late`].
const LATE: u64 = 1 << 32;

impl Completion {
    /// The entry's words.
    #[inline(always)]
    pub const fn encode(&self) -> [u64; 2] {
        let late = if self.late { LATE } else { 0 };
        [self.tag as u64 | (self.status as u64) << 16 | (self.bytes as u64) << 32, self.epoch as u64 | late]
    }

    /// The end that an entry's words say.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] for an unknown status or anything that is not zero where it must be.
    #[inline(always)]
    pub fn decode(&[what, when]: &[u64; 2]) -> Result<Self, Status> {
        let status = Status::from_wire((what >> 16) as u16).ok_or(Status::InvalidArgument)?;
        let late = when & LATE != 0;
        if when & !LATE > u64::from(u32::MAX) {
            return Err(Status::InvalidArgument);
        }
        Ok(Self { tag: what as u16, status, bytes: (what >> 32) as u32, epoch: when as u32, late })
    }
}
