//! After a run: the generation of every sector, stored at the end of the disk, so that anyone can check the disk alone.
//!
//! Sectors that agree with themselves prove little: a lost write leaves an older one that is sound too. Replaying the
//! seeded pattern would not tell either, since completions decide which random I/Os were drawn anew. So the run's last
//! writes are the ledger itself and a seal. In 512-byte sectors, all numbers little-endian:
//!
//! | Where | Content |
//! |---|---|
//! | 0..covered | data; the workload stays here |
//! | covered..table | zeros |
//! | table..capacity-1 | one `u32` per covered sector, zeros to the end: 0 = must read as zeros, `0x7fffffff` = unknown, else the generation |
//! | capacity-1 | the seal: `DRVTABLE` (0..8), capacity (8..16), covered (16..24), table (24..32), CRC32C of all table sectors (32..36), zeros, CRC32C of bytes 0..508 (508..512) |
//!
//! The disk starts as zeros. Writer: [`Layout::encode_table`], then [`Layout::encode_seal`], a flush before and after
//! the seal. Checker: [`audit`].
//!
//! ```
//! use workload::verify::{fill, table::{Disk, Layout, audit}};
//!
//! let layout = Layout::new(64, 8).unwrap();
//! let mut disk = vec![[0u8; 512]; 64];
//! fill(&mut disk[3], 3, 1);
//! let generations = [0, 0, 0, 1, 0, 0, 0, 0];
//! layout.encode_table(&generations, 0, disk[62..63].as_flattened_mut()).unwrap();
//! layout.encode_seal(&generations, &mut disk[63]).unwrap();
//!
//! let mut read = |lba, data: &mut [u8]| -> Result<(), std::io::Error> {
//!     data.copy_from_slice(&disk.as_flattened()[lba as usize * 512..][..data.len()]);
//!     Ok(())
//! };
//! let mut disk = Disk { read: &mut read, zeros: &mut |_| 0 };
//! let found = audit(64, &mut disk, &mut |fault| panic!("{fault}")).unwrap();
//! assert_eq!((found.written, found.zeros, found.faults), (1, 61, 0));
//! ```
use core::fmt;

use super::ledger::{BUSY, UNKNOWN, expected};
use super::{CRC_AT, CRC32C, Expected, Fault, SECTOR, check_sector, crc32c, get_u32, get_u64, seal_crc};

/// What the seal begins with.
const MAGIC: [u8; 8] = *b"DRVTABLE";
/// Table entries in a sector.
const PER_SECTOR: u64 = SECTOR as u64 / 4;
/// Sectors read at a time; divides [`PER_SECTOR`].
const STRIDE: usize = 32;

/// Where everything is on a disk under verification, in 512-byte sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Sectors of the disk.
    pub capacity: u64,
    /// Sectors from 0 on that the workload may use and the table covers.
    pub covered: u64,
    /// First sector of the table.
    pub table: u64,
    /// Sectors of the table.
    pub table_sectors: u64,
}

/// `size` exceeds what the disk has to offer, or the disk has nothing to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// Sectors asked for.
    pub asked: u64,
    /// The most there may be.
    pub most: u64,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, most } = self;
        write!(f, "size is {asked} sectors of 512 bytes, the disk offers {most}: lower size or enlarge the disk")
    }
}

impl core::error::Error for LayoutError {}

/// Why the table or the seal cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The I/O on this sector never came back.
    InFlight {
        /// The sector.
        lba: u64,
    },
    /// More words than the layout covers, or no whole sectors of the table to encode into.
    Length,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight { lba } => write!(f, "sector {lba} is still in flight: reap every completion first"),
            Self::Length => f.write_str("table or buffer does not fit the layout: use its covered and table_sectors"),
        }
    }
}

impl core::error::Error for SealError {}

impl Layout {
    /// The layout of a disk of `capacity` sectors of which the workload uses `size` (0: as many as possible).
    ///
    /// # Errors
    /// `size` and the table do not fit, or nothing does.
    pub const fn new(capacity: u64, size: u64) -> Result<Self, LayoutError> {
        // One sector for the seal; of the rest, one in PER_SECTOR + 1 for the table. Divided first, lest it overflow.
        let rest = capacity.saturating_sub(1);
        let (whole, part) = (rest / (PER_SECTOR + 1), rest % (PER_SECTOR + 1));
        let most = whole * PER_SECTOR + part.saturating_sub(1);
        if most == 0 || size > most {
            return Err(LayoutError { asked: size, most });
        }
        let covered = if size == 0 { most } else { size };
        let table_sectors = covered.div_ceil(PER_SECTOR);
        Ok(Self { capacity, covered, table: capacity - 1 - table_sectors, table_sectors })
    }

    /// The sector of the seal: the disk's last.
    pub const fn seal(&self) -> u64 {
        self.capacity - 1
    }

    /// Encodes whole sectors of the table, from its `index`th on, into `out`; write them from sector
    /// [`Layout::table`] + `index` on. `words` are the ledgers' words from sector 0 on; those missing count as zeros.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn encode_table(&self, words: &[u32], index: u64, out: &mut [u8]) -> Result<(), SealError> {
        let (sectors, rest) = out.as_chunks_mut::<SECTOR>();
        let fits = index.checked_add(sectors.len() as u64).is_some_and(|end| end <= self.table_sectors);
        if !fits || !rest.is_empty() || words.len() as u64 > self.covered {
            return Err(SealError::Length);
        }
        for (sector, index) in sectors.iter_mut().zip(index..) {
            encode_sector(words, index, sector)?;
        }
        Ok(())
    }

    /// Encodes the seal into `out`, 512 bytes.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn encode_seal(&self, words: &[u32], out: &mut [u8]) -> Result<(), SealError> {
        let out: &mut [u8; SECTOR] = out.try_into().map_err(|_| SealError::Length)?;
        let mut digest = CRC32C.digest();
        for index in 0..self.table_sectors {
            self.encode_table(words, index, out)?;
            digest.update(out);
        }
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.capacity.to_le_bytes());
        out[16..24].copy_from_slice(&self.covered.to_le_bytes());
        out[24..32].copy_from_slice(&self.table.to_le_bytes());
        out[32..36].copy_from_slice(&digest.finalize().to_le_bytes());
        seal_crc(out);
        Ok(())
    }
}

/// The `index`th sector of the table.
fn encode_sector(words: &[u32], index: u64, sector: &mut [u8; SECTOR]) -> Result<(), SealError> {
    sector.fill(0);
    let start = index * PER_SECTOR;
    let words = usize::try_from(start).ok().and_then(|start| words.get(start..)).unwrap_or(&[]);
    for ((place, word), lba) in sector.as_chunks_mut::<4>().0.iter_mut().zip(words).zip(start..) {
        if word & BUSY != 0 {
            return Err(SealError::InFlight { lba });
        }
        *place = word.to_le_bytes();
    }
    Ok(())
}

/// The caller's access to the disk: fills a buffer of whole sectors, at most 16 KiB, from a sector on.
pub type Read<'r, E> = dyn FnMut(u64, &mut [u8]) -> Result<(), E> + 'r;

/// The caller's disk.
pub struct Disk<'r, E> {
    /// Reads it.
    pub read: &'r mut Read<'r, E>,
    /// How many sectors from one on are known to be zeros without being read, such as a hole in a file; 0 where that is
    /// not known.
    pub zeros: &'r mut dyn FnMut(u64) -> u64,
}

impl<E> fmt::Debug for Disk<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl<E> Disk<'_, E> {
    fn read(&mut self, lba: u64, data: &mut [u8]) -> Result<(), AuditError<E>> {
        if (self.zeros)(lba) >= (data.len() / SECTOR) as u64 {
            data.fill(0);
            return Ok(());
        }
        (self.read)(lba, data).map_err(AuditError::Read)
    }
}

/// What a disk was found to hold, in sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Sectors that must hold a generation.
    pub written: u64,
    /// Sectors that must be zeros, those between data and table included.
    pub zeros: u64,
    /// Sectors that may hold anything: discarded, or a write failed.
    pub unknown: u64,
    /// Sectors that do not hold what they must.
    pub faults: u64,
}

/// Why a disk cannot be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditError<E> {
    /// The caller's read failed.
    Read(E),
    /// The last sector is no seal: the run did not end, or was no run under verify.
    NoSeal,
    /// The seal is sound but describes another disk.
    OtherDisk {
        /// The capacity in sectors that it names.
        capacity: u64,
    },
    /// The table is damaged: its CRC is not the seal's, or an entry is none.
    Table,
}

impl<E: fmt::Display> fmt::Display for AuditError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "reading the disk failed: {error}"),
            Self::NoSeal => f.write_str("the last sector holds no seal: the run did not finish, or ran without verify"),
            Self::OtherDisk { capacity } => {
                write!(f, "the seal is of a disk of {capacity} sectors: check the file that the run used")
            }
            Self::Table => f.write_str("the table of generations is damaged: the disk lost or altered its last writes"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for AuditError<E> {}

/// Checks a whole disk of `capacity` sectors; `report` is told of every faulty one.
///
/// # Errors
/// The disk cannot be checked at all, see [`AuditError`]. Faulty sectors are no error: they are counted.
pub fn audit<E>(capacity: u64, disk: &mut Disk<'_, E>, report: &mut dyn FnMut(Fault)) -> Result<Audit, AuditError<E>> {
    let layout = read_seal(capacity, disk)?;
    let mut found = Audit::default();
    let mut entries = [0; SECTOR];
    let mut data = [0; STRIDE * SECTOR];
    for (index, start) in (0..).zip((0..layout.table).step_by(PER_SECTOR as usize)) {
        let sectors = PER_SECTOR.min(layout.table - start);
        entries.fill(0);
        if index < layout.table_sectors {
            disk.read(layout.table + index, &mut entries)?;
        }
        if entries == [0; SECTOR] && (disk.zeros)(start) >= sectors {
            found.zeros += sectors;
            continue;
        }
        for start in (start..start + sectors).step_by(STRIDE) {
            let data = &mut data[..SECTOR * (layout.table - start).min(STRIDE as u64) as usize];
            disk.read(start, data)?;
            for (sector, lba) in data.as_chunks::<SECTOR>().0.iter().zip(start..) {
                let word = get_u32(&entries, (lba % PER_SECTOR) as usize * 4);
                found.check(sector, lba, expected(word), report);
            }
        }
    }
    Ok(found)
}

impl Audit {
    fn check(&mut self, sector: &[u8; SECTOR], lba: u64, expected: Expected, report: &mut dyn FnMut(Fault)) {
        match expected {
            Expected::Zeros => self.zeros += 1,
            Expected::Generation(_) => self.written += 1,
            Expected::Unknown => self.unknown += 1,
        }
        if let Err(mismatch) = check_sector(sector, lba, expected) {
            self.faults += 1;
            report(Fault { lba, mismatch });
        }
    }
}

/// Reads the seal and the table that it vouches for.
fn read_seal<E>(capacity: u64, disk: &mut Disk<'_, E>) -> Result<Layout, AuditError<E>> {
    let mut sector = [0; SECTOR];
    let last = capacity.checked_sub(1).ok_or(AuditError::NoSeal)?;
    disk.read(last, &mut sector)?;
    if sector[..8] != MAGIC || crc32c(&sector[..CRC_AT]) != get_u32(&sector, CRC_AT) {
        return Err(AuditError::NoSeal);
    }
    let [named, covered, table] = [8, 16, 24].map(|at| get_u64(&sector, at));
    let layout = match Layout::new(capacity, covered) {
        Ok(layout) if (named, covered, table) == (capacity, layout.covered, layout.table) => layout,
        _ => return Err(AuditError::OtherDisk { capacity: named }),
    };
    let crc = get_u32(&sector, 32);
    let mut digest = CRC32C.digest();
    for index in 0..layout.table_sectors {
        disk.read(layout.table + index, &mut sector)?;
        digest.update(&sector);
        if sector.as_chunks::<4>().0.iter().any(|word| u32::from_le_bytes(*word) > UNKNOWN) {
            return Err(AuditError::Table);
        }
    }
    if digest.finalize() == crc { Ok(layout) } else { Err(AuditError::Table) }
}
