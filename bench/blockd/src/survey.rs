//! A disk, read and published: the whole of it, and each of its partitions, as extents.
//!
//! It refuses to know who may use a device, and to repair anything: a damaged copy is reported and left as it is.
//! Invariants: what is published lies inside the disk; published partitions share no block; everything published comes
//! from bytes whose checksum was right; whatever leaves a doubt publishes nothing.
//!
//! | The disk has | Published |
//! |---|---|
//! | no protective record and no header | the whole disk |
//! | a protective record and two sound, equal copies | the whole disk and its partitions |
//! | a protective record and one sound copy | the same, marked as degraded |
//! | anything else | nothing: [`Refused`] says why |
//!
//! Specification: UEFI 2.10, section 5.
use crate::entries::{self, Found};
use crate::header::{self, Facts};
use crate::mbr;
use crate::media::{Media, Reader};
use crate::refused::{Fault, Refused};
use arrayvec::{ArrayString, ArrayVec};

pub use crate::header::{MAX_ENTRIES, MAX_ENTRY};
pub use gpt_disk_types::Guid;

/// Partitions published at most. A disk with more is refused: what is left out would look like free space.
pub const MAX_PARTITIONS: usize = 32;
/// Blocks that a disk needs for two headers with something between them.
const SMALLEST: u64 = 4;

/// A partition's name: 36 UCS-2 characters, three bytes each at most.
pub type Name = ArrayString<108>;

/// A run of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub first: u64,
    /// How many blocks; never 0 in what is published.
    pub blocks: u64,
}

impl Extent {
    /// Where a request for `blocks` from `lba` on, counted inside this extent, begins on the disk; none if any part of
    /// it lies outside, or if there is nothing to it.
    pub fn translate(self, lba: u64, blocks: u64) -> Option<u64> {
        let inside = blocks > 0 && lba.checked_add(blocks)? <= self.blocks;
        if inside { self.first.checked_add(lba) } else { None }
    }

    /// Whether two extents share a block.
    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.first.saturating_add(other.blocks) && other.first < self.first.saturating_add(self.blocks)
    }
}

/// One partition of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, from 1: what partitioners call its number.
    pub number: u32,
    /// Its name; what cannot be printed is replaced.
    pub name: Name,
    /// The type GUID.
    pub kind: Guid,
    /// The unique GUID.
    pub unique: Guid,
    /// Its blocks.
    pub extent: Extent,
    /// Whether it is not to be written (attribute bit 60).
    pub read_only: bool,
}

/// Which copy of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At the beginning of the disk.
    Primary,
    /// At its end.
    Backup,
}

impl Side {
    /// Where this side's header is on a disk of `blocks`, and where the other's.
    pub(crate) fn places(self, blocks: u64) -> (u64, u64) {
        match self {
            Self::Primary => (1, blocks - 1),
            Self::Backup => (blocks - 1, 1),
        }
    }
}

/// What a disk offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Bytes in a logical block.
    pub block_size: u32,
    /// The whole disk.
    pub whole: Extent,
    /// The disk's GUID, if it has a table.
    pub disk: Option<Guid>,
    /// Its partitions, in the order of the table.
    pub partitions: ArrayVec<Partition, MAX_PARTITIONS>,
    /// The copy of the table that cannot be believed; whoever may write the disk should restore it from the other.
    pub degraded: Option<Side>,
}

/// Reads a disk's partition table and publishes what it says.
///
/// ```
/// # struct Disk(Vec<u8>);
/// # impl blockd::Media for Disk {
/// #     type Error = core::convert::Infallible;
/// #     fn block_size(&self) -> u32 { 512 }
/// #     fn blocks(&self) -> u64 { self.0.len() as u64 / 512 }
/// #     fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Self::Error> {
/// #         into.copy_from_slice(&self.0[lba as usize * 512..][..into.len()]);
/// #         Ok(())
/// #     }
/// # }
/// # let mut disk = Disk(vec![0; 1 << 20]);
/// let published = blockd::survey(&mut disk)?;
/// assert_eq!(published.whole.blocks, 2048);
/// for partition in &published.partitions {
///     println!("{} {} {:?}", partition.number, partition.name, partition.extent);
/// }
/// # Ok::<(), blockd::Refused<core::convert::Infallible>>(())
/// ```
///
/// # Errors
/// Nothing is published; the reason is told.
pub fn survey<M: Media>(media: &mut M) -> Result<Published, Refused<M::Error>> {
    let mut reader = Reader::new(media)?;
    let blocks = reader.blocks();
    let protective = mbr::is_protective(reader.block(0).map_err(Refused::Media)?).map_err(Refused::Mbr)?;
    let mut published = Published {
        block_size: reader.block_size() as u32,
        whole: Extent { first: 0, blocks },
        disk: None,
        partitions: ArrayVec::new(),
        degraded: None,
    };
    if blocks < SMALLEST {
        return if protective { Err(Refused::NoRoom) } else { Ok(published) };
    }
    if !protective {
        for side in [Side::Primary, Side::Backup] {
            if header::is_signed(reader.block(side.places(blocks).0).map_err(Refused::Media)?) {
                return Err(Refused::Unprotected);
            }
        }
        return Ok(published);
    }
    let mut found = Found::default();
    let primary = copy(&mut reader, Side::Primary, Some(&mut found));
    if primary.is_err() {
        found = Found::default();
    }
    let backup = copy(&mut reader, Side::Backup, primary.is_err().then_some(&mut found));
    let (facts, degraded) = match (primary, backup) {
        (Ok(primary), Ok(backup)) if primary == backup => (primary, None),
        (Ok(_), Ok(_)) => return Err(Refused::CopiesDiffer),
        (Ok(facts), Err(_)) => (facts, Some(Side::Backup)),
        (Err(_), Ok(facts)) => (facts, Some(Side::Primary)),
        (Err(Fault::OtherDisk { blocks: before }), Err(_)) if before < blocks => {
            return Err(Refused::Grown { blocks, before });
        }
        (Err(Fault::OtherDisk { blocks: before }), Err(_)) => return Err(Refused::Shrunk { blocks, before }),
        (Err(primary), Err(backup)) => return Err(Refused::NoGoodCopy { primary, backup }),
    };
    if let Some(wrong) = found.wrong {
        return Err(Refused::Table(wrong));
    }
    published.disk = Some(facts.disk);
    published.partitions = found.partitions;
    published.degraded = degraded;
    Ok(published)
}

/// Reads one copy of the table; its entries are kept in `found` if there is one.
fn copy<M: Media>(reader: &mut Reader<'_, M>, side: Side, found: Option<&mut Found>) -> Result<Facts, Fault<M::Error>> {
    let blocks = reader.blocks();
    let header = reader.block(side.places(blocks).0).map_err(Fault::Read)?;
    match header::check(header, side, blocks) {
        Ok((facts, lba)) => entries::read(reader, &facts, lba, found).map(|()| facts),
        // A primary copy whose only fault is where the other one is was made for a disk of another length.
        Err(Fault::AlternateLba(last)) if side == Side::Primary => {
            let before = last.checked_add(1).filter(|before| *before >= SMALLEST);
            let other = before.and_then(|before| Some((before, header::check::<M::Error>(header, side, before).ok()?)));
            match other {
                Some((before, (facts, lba))) if entries::are_inside(&facts, lba, reader) => {
                    entries::read(reader, &facts, lba, None)?;
                    Err(Fault::OtherDisk { blocks: before })
                }
                _ => Err(Fault::AlternateLba(last)),
            }
        }
        Err(fault) => Err(fault),
    }
}
