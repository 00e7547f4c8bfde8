//! What a sector holds under `verify=crc32c`, so that anyone can tell a lost, torn, misplaced or damaged write.
//!
//! Every 512-byte sector describes itself, whatever the size of the I/O that wrote it: I/Os of different sizes may then
//! overlap, and a checker needs no I/O boundaries. All numbers are little-endian:
//!
//! | Bytes | Content |
//! |---|---|
//! | 0..8 | the sector's own LBA, in 512-byte sectors |
//! | 8..16 | the generation: which write of its job put it there, from 1 |
//! | 16..508 | 64-bit words `i` = 0, 1, ..., the last one cut: `lba * A + generation * B + i * C` modulo 2^64 |
//! | 508..512 | CRC32C (Castagnoli) of bytes 0..508 |
//!
//! `A` = `0x9e3779b97f4a7c15`, `B` = `0xbf58476d1ce4e5b9`, `C` = `0x94d049bb133111eb`. Which generation each sector must
//! hold is the business of [`ledger`] during a run and of [`table`] afterwards, on the disk itself.
//!
//! ```
//! use workload::verify::{Mismatch, check, fill};
//!
//! let mut block = [0; 4096];
//! fill(&mut block, 80, 1);
//! assert!(check(&block, 80, 1).is_ok());
//! assert_eq!(check(&block, 80, 2).unwrap_err().mismatch, Mismatch::Generation { found: 1, expected: 2 });
//! ```
pub mod ledger;
pub mod table;

use core::fmt;

use crc::{CRC_32_ISCSI, Crc, Table};

/// Bytes in a sector.
pub const SECTOR: usize = crate::params::SECTOR as usize;
/// Where a sector's CRC is.
const CRC_AT: usize = SECTOR - 4;

/// By table: emulated processors run the CRC instruction no faster.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// What a sector must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Zeros: never written, or zeroed.
    Zeros,
    /// The content of this generation.
    Generation(u64),
    /// Anything: discarded, or a write failed.
    Unknown,
}

/// How a sector differs from what it must hold: the first of these, from the top, that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It must be zeros and is not.
    NotZero {
        /// The first byte that is not.
        offset: usize,
    },
    /// It names another sector: misplaced, or never written.
    Lba {
        /// The LBA that it names.
        found: u64,
    },
    /// It is of another write: an older one means that a write was lost.
    Generation {
        /// What it holds.
        found: u64,
        /// What it should.
        expected: u64,
    },
    /// Its pattern is damaged.
    Pattern {
        /// The first byte that differs.
        offset: usize,
    },
    /// Only its CRC is damaged.
    Crc {
        /// What it holds.
        found: u32,
        /// What it should.
        expected: u32,
    },
    /// The data ended inside the sector.
    Length {
        /// How many bytes there were, other than 512.
        found: usize,
    },
}

/// A sector that does not hold what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The sector's address.
    pub lba: u64,
    /// What is wrong.
    pub mismatch: Mismatch,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}: ", self.lba)?;
        match self.mismatch {
            Mismatch::NotZero { offset } => {
                write!(f, "byte {offset} is not zero though nothing was written")
            }
            Mismatch::Lba { found } => {
                write!(f, "names itself sector {found}: misplaced or never written")
            }
            Mismatch::Generation { found, expected } => {
                write!(f, "holds write {found} instead of write {expected}")
            }
            Mismatch::Pattern { offset } => write!(f, "byte {offset} of the pattern is damaged"),
            Mismatch::Crc { found, expected } => {
                write!(f, "CRC32C is {found:#010x} instead of {expected:#010x}")
            }
            Mismatch::Length { found } => write!(f, "{found} bytes are not a sector"),
        }
    }
}

impl core::error::Error for Fault {}

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The LBA that it names.
    pub lba: u64,
    /// The generation that it names.
    pub generation: u64,
    /// Its CRC is that of its content.
    pub sound: bool,
}

/// CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// Writes `generation` into whole sectors from `lba` on; a rest shorter than a sector is left alone.
pub fn fill(block: &mut [u8], lba: u64, generation: u64) {
    let (sectors, _) = block.as_chunks_mut::<SECTOR>();
    for (sector, lba) in sectors.iter_mut().zip(lba..) {
        fill_sector(sector, lba, generation);
    }
}

/// Checks that whole sectors from `lba` on hold `generation`.
///
/// # Errors
/// The first sector that does not; a rest shorter than a sector is one.
pub fn check(block: &[u8], lba: u64, generation: u64) -> Result<(), Fault> {
    check_all(block, lba, |_| Expected::Generation(generation))
}

/// Checks whole sectors from `lba` on against what `expected` says of each.
///
/// # Errors
/// As [`check`].
pub fn check_all(block: &[u8], lba: u64, expected: impl Fn(u64) -> Expected) -> Result<(), Fault> {
    let (sectors, rest) = block.as_chunks::<SECTOR>();
    for (sector, lba) in sectors.iter().zip(lba..) {
        check_sector(sector, lba, expected(lba)).map_err(|mismatch| Fault { lba, mismatch })?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(Fault { lba: lba + sectors.len() as u64, mismatch: Mismatch::Length { found: rest.len() } })
}

/// Checks one sector.
///
/// # Errors
/// How it differs.
pub fn check_sector(sector: &[u8; SECTOR], lba: u64, expected: Expected) -> Result<(), Mismatch> {
    match expected {
        Expected::Unknown => Ok(()),
        Expected::Zeros if *sector == [0; SECTOR] => Ok(()),
        Expected::Zeros => Err(Mismatch::NotZero { offset: sector.iter().position(|byte| *byte != 0).unwrap_or(0) }),
        Expected::Generation(generation) => {
            let mut right = [0; SECTOR];
            fill_sector(&mut right, lba, generation);
            if *sector == right { Ok(()) } else { Err(difference(sector, &right)) }
        }
    }
}

/// What the first sector of `block` says of itself; `None` if `block` is shorter than one.
pub fn read_header(block: &[u8]) -> Option<Header> {
    let sector = block.first_chunk::<SECTOR>()?;
    let sound = crc32c(&sector[..CRC_AT]) == get_u32(sector, CRC_AT);
    Some(Header { lba: get_u64(sector, 0), generation: get_u64(sector, 8), sound })
}

fn fill_sector(sector: &mut [u8; SECTOR], lba: u64, generation: u64) {
    sector[..8].copy_from_slice(&lba.to_le_bytes());
    sector[8..16].copy_from_slice(&generation.to_le_bytes());
    let mut word = lba.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(generation.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    let (words, _) = sector[16..].as_chunks_mut::<8>();
    for place in words {
        *place = word.to_le_bytes();
        word = word.wrapping_add(0x94d0_49bb_1331_11eb);
    }
    seal_crc(sector);
}

/// Puts the CRC of a sector's content into its last four bytes.
fn seal_crc(sector: &mut [u8; SECTOR]) {
    let crc = crc32c(&sector[..CRC_AT]);
    sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

fn difference(sector: &[u8; SECTOR], right: &[u8; SECTOR]) -> Mismatch {
    let offset = sector.iter().zip(right).position(|(found, expected)| found != expected).unwrap_or(0);
    match offset {
        0..8 => Mismatch::Lba { found: get_u64(sector, 0) },
        8..16 => Mismatch::Generation { found: get_u64(sector, 8), expected: get_u64(right, 8) },
        16..CRC_AT => Mismatch::Pattern { offset },
        _ => Mismatch::Crc { found: get_u32(sector, CRC_AT), expected: get_u32(right, CRC_AT) },
    }
}

/// The little-endian number at `at`; 0 if it does not lie inside.
fn get_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// As [`get_u64`].
fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
