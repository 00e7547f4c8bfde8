//! Why a disk was not published: one reason, one line, and what can be done about it.
//!
//! No advice loses data: it names a repair that keeps what is on the disk, or says that the disk is to be copied before
//! anything is written. `sgdisk -e` writes both copies of a table anew, from the sound one, where they belong.
//!
//! Three kinds: the disk itself ([`Refused`]), one copy of its table ([`Fault`]: the other copy may still serve), and
//! what a table says that its checksums vouch for ([`Wrong`]: no other copy helps, because this one was meant so).
//!
//! ```
//! use blockd::refused::{Fault, Refused, Wrong};
//!
//! let both: Refused<&str> = Refused::NoGoodCopy { primary: Fault::HeaderCrc, backup: Fault::Read("medium error") };
//! assert_eq!(
//!     both.to_string(),
//!     "no good copy of the partition table: primary: wrong checksum of the header; backup: medium error: \
//!      copy the disk before any repair",
//! );
//! assert_eq!(
//!     Refused::<&str>::Table(Wrong::Overlap { first: 1, second: 4 }).to_string(),
//!     "partition 4 overlaps partition 1",
//! );
//! ```
use core::error::Error;
use core::fmt::{self, Debug, Display, Formatter};

/// Nothing of the disk was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused<E> {
    /// Blocks that are no power of two from 512 to 4096 bytes, or a disk without blocks.
    Shape {
        /// Bytes in a logical block.
        block_size: u32,
        /// Logical blocks.
        blocks: u64,
    },
    /// What decides whether there is a table at all could not be read.
    Media(E),
    /// The master boot record announces a GUID partition table, and says something else too.
    Mbr(&'static str),
    /// A GUID partition table without the record that protects it: left over, or laid bare.
    Unprotected,
    /// A protective record on a disk that has no room for a table.
    NoRoom,
    /// A sound primary header was made for a shorter disk, and there is no backup copy at the end of this one.
    Grown {
        /// Logical blocks of the disk.
        blocks: u64,
        /// Those of the disk that the table was made for.
        before: u64,
    },
    /// A sound primary header was made for a longer disk, whose end is missing.
    Shrunk {
        /// Logical blocks of the disk.
        blocks: u64,
        /// Those of the disk that the table was made for.
        before: u64,
    },
    /// Neither copy of the table can be trusted.
    NoGoodCopy {
        /// What is wrong with the primary copy.
        primary: Fault<E>,
        /// What is wrong with the backup copy.
        backup: Fault<E>,
    },
    /// Both copies are sound, and are not copies of each other.
    CopiesDiffer,
    /// The table contradicts itself.
    Table(Wrong),
}

/// What is wrong with one copy of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// A block of it could not be read.
    Read(E),
    /// No header stands there.
    Signature,
    /// A revision other than 1.0.
    Revision,
    /// A header shorter than its fields or longer than its block.
    HeaderSize(u32),
    /// The header does not match its checksum.
    HeaderCrc,
    /// The reserved field is not zero.
    Reserved,
    /// The header names another block as its own.
    MyLba(u64),
    /// The header names a block for the other copy where that cannot be.
    AlternateLba(u64),
    /// Nothing is wrong with the copy but that it was made for a disk of another length.
    OtherDisk {
        /// Logical blocks of that disk.
        blocks: u64,
    },
    /// Entries of a size that is not served.
    EntrySize(u32),
    /// More entries than are served, or none.
    EntryCount(u32),
    /// The usable blocks are none, or reach over the headers.
    Usable,
    /// The entries do not lie between their header and the usable blocks.
    EntriesPlace,
    /// The entries do not match their checksum.
    EntriesCrc,
}

/// How a table contradicts itself. Partitions are counted from 1, by their place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// More partitions than are published.
    TooMany,
    /// A partition ends before it begins.
    Reversed(u32),
    /// A partition reaches out of the usable blocks.
    Outside(u32),
    /// Two partitions share blocks.
    Overlap {
        /// The one that stands earlier in the table.
        first: u32,
        /// The one that stands later.
        second: u32,
    },
    /// Two partitions have the same unique GUID, so that none can be told by it.
    SameGuid {
        /// The one that stands earlier in the table.
        first: u32,
        /// The one that stands later.
        second: u32,
    },
}

impl<E: Display> Display for Refused<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { block_size, blocks } => write!(f, "a disk of {blocks} blocks of {block_size} bytes"),
            Self::Media(error) => write!(f, "the disk cannot be read: {error}"),
            Self::Mbr(what) => write!(
                f,
                "not a protective master boot record: {what}: use the disk whole, or copy it before its tables are joined"
            ),
            Self::Unprotected => f.write_str(
                "a GUID partition table without a protective master boot record: it may be left over: copy the disk \
                 before either is written anew",
            ),
            Self::NoRoom => f.write_str("a disk too small for the partition table that it announces"),
            Self::Grown { blocks, before } => write!(
                f,
                "a disk of {blocks} blocks with a partition table for {before}, as after a copy to a larger disk: move \
                 the backup header to its end, which keeps the data (sgdisk -e)"
            ),
            Self::Shrunk { blocks, before } => write!(
                f,
                "a disk of {blocks} blocks with a partition table for {before}, as after a copy to a smaller disk: \
                 copy it anew to a disk of as many blocks; what lay behind the end is not here"
            ),
            Self::NoGoodCopy { primary, backup } => write!(
                f,
                "no good copy of the partition table: primary: {primary}; backup: {backup}: copy the disk before any repair"
            ),
            Self::CopiesDiffer => f.write_str(
                "the two copies of the partition table differ, and both are sound: copy the disk, then keep the right \
                 one (gdisk, r)",
            ),
            Self::Table(wrong) => Display::fmt(wrong, f),
        }
    }
}

impl<E: Display> Display for Fault<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => Display::fmt(error, f),
            Self::Signature => f.write_str("no header"),
            Self::Revision => f.write_str("unknown revision"),
            Self::HeaderSize(size) => write!(f, "a header of {size} bytes"),
            Self::HeaderCrc => f.write_str("wrong checksum of the header"),
            Self::Reserved => f.write_str("reserved field in use"),
            Self::MyLba(lba) => write!(f, "the header says that it is block {lba}"),
            Self::AlternateLba(lba) => write!(f, "the other copy cannot be at block {lba}"),
            Self::OtherDisk { blocks } => write!(f, "made for a disk of {blocks} blocks"),
            Self::EntrySize(size) => write!(f, "entries of {size} bytes"),
            Self::EntryCount(count) => write!(f, "{count} entries"),
            Self::Usable => f.write_str("usable blocks where none can be"),
            Self::EntriesPlace => f.write_str("entries where none can be"),
            Self::EntriesCrc => f.write_str("wrong checksum of the entries"),
        }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {} partitions", crate::survey::MAX_PARTITIONS),
            Self::Reversed(at) => write!(f, "partition {at} ends before it begins"),
            Self::Outside(at) => write!(f, "partition {at} reaches out of the usable blocks"),
            Self::Overlap { first, second } => write!(f, "partition {second} overlaps partition {first}"),
            Self::SameGuid { first, second } => write!(f, "partition {second} has the GUID of partition {first}"),
        }
    }
}

impl<E: Debug + Display> Error for Refused<E> {}
impl<E: Debug + Display> Error for Fault<E> {}
impl Error for Wrong {}
