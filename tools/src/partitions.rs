//! Disks with a GPT, by a partitioner that knows nothing of blockd: made, read, and spoiled on purpose.
//!
//! Everything is laid out and signed by the crate `gpt`; only damage that no partitioner would do is done by hand.
//! Sectors are of 512 bytes. Refuses to know who works on the partitions.
mod repair;

use anyhow::{Context, Result, bail, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::mbr::ProtectiveMBR;
use gpt::partition::{Partition, file_read_partitions};
use gpt::{GptConfig, partition_types};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use workload::params::SECTOR;

const BLOCK: LogicalBlockSize = LogicalBlockSize::Lb512;
/// Partitions begin and end on multiples of so many sectors: 1 MiB.
const ALIGNED: u64 = (1 << 20) / SECTOR as u64;
/// Entries of a table, as every partitioner makes it; the crate takes no other size of an entry.
const ENTRIES: u16 = 128;
const ENTRY_BYTES: u32 = 128;
/// Where a header has its CRC, and an entry its last sector.
const HEADER_CRC: u64 = 16;
const ENTRY_LAST: u64 = 40;
/// Attribute bit 60: not to be written.
const READ_ONLY: u64 = 1 << 60;

/// A partition, in sectors of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) first: u64,
    pub(crate) sectors: u64,
    /// Its number in the table, which partitioners take.
    pub(crate) number: u32,
    pub(crate) read_only: bool,
}

/// A partition table that agrees with itself: both headers, both arrays of entries, and what they describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    mbr: Vec<u8>,
    headers: [Header; 2],
    entries: BTreeMap<u32, Partition>,
}

/// A new file of `bytes`, zeros but for its table: `parts` partitions of equal size, named p1 and so on.
pub(crate) fn make(path: &Path, bytes: u64, parts: u16) -> Result<Vec<Part>> {
    let what = || format!("making the partitions of {}", path.display());
    let (sectors, sector) = (bytes / u64::from(SECTOR), u64::from(SECTOR));
    ensure!(bytes.is_multiple_of(sector), "{bytes} bytes is not a multiple of {SECTOR}: round the disk's size");
    ensure!((1..=ENTRIES).contains(&parts), "{parts} partitions do not fit a table: give 1 to {ENTRIES}");
    // The last sectors hold the second table: 32 of entries, one header.
    let usable = sectors.saturating_sub(33);
    let each = usable.saturating_sub(ALIGNED) / u64::from(parts) / ALIGNED * ALIGNED;
    ensure!(each > 0, "{bytes} bytes are too few for {parts} partitions of 1 MiB: give {} MiB", u64::from(parts) + 2);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).with_context(what)?;
    file.set_len(bytes).with_context(what)?;
    let protective = ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
    protective.overwrite_lba0(&mut file).with_context(what)?;
    let config = GptConfig::new().writable(true).logical_block_size(BLOCK);
    let mut disk = config.create_from_device(file, None).with_context(what)?;
    for id in 1..=parts {
        let first = ALIGNED + u64::from(id - 1) * each;
        let named = format!("p{id}");
        disk.add_partition_at(&named, id.into(), first, each, partition_types::LINUX_FS, 0).with_context(what)?;
    }
    disk.write().with_context(what)?;
    Ok(read(path)?.parts())
}

/// The table on the disk at `path`, unless any part of it is damaged or describes what cannot be; the error says why,
/// and what helps.
pub(crate) fn read(path: &Path) -> Result<Table> {
    let shown = path.display();
    let mut file = File::open(path).with_context(|| format!("opening {shown}"))?;
    let sectors = file.seek(SeekFrom::End(0)).with_context(|| format!("reading {shown}"))? / u64::from(SECTOR);
    let table = match Table::of(&mut file) {
        Ok(table) => table,
        Err(error) => match repair::advice(&file, path, sectors) {
            Some(advice) => bail!("{shown}: {advice}"),
            None => return Err(error.context(format!("{shown} has no sound partition table"))),
        },
    };
    match table.fault() {
        Some(fault) => bail!("{shown}: {fault}: correct the entries, which leaves the data alone (gdisk {shown})"),
        None => Ok(table),
    }
}

impl Table {
    fn of(file: &mut File) -> Result<Self> {
        let mbr = ProtectiveMBR::from_disk(file, BLOCK)?.to_bytes().to_vec();
        // The crate takes these two numbers on trust.
        common(&read_header_from_arbitrary_device(file, BLOCK)?)?;
        let disk = GptConfig::new().only_valid_headers(true).logical_block_size(BLOCK).open_from_device(&mut *file)?;
        let headers = [disk.primary_header()?.clone(), disk.backup_header()?.clone()];
        let entries = disk.partitions().clone();
        common(&headers[1])?;
        let second = file_read_partitions(file, &headers[1], BLOCK)?;
        ensure!(second == entries, "the two tables differ");
        Ok(Self { mbr, headers, entries })
    }

    /// What the entries say that cannot be.
    fn fault(&self) -> Option<String> {
        let header = &self.headers[0];
        let mut used: Vec<_> = self.used().collect();
        used.sort_by_key(|entry| entry.first_lba);
        let outside = |entry: &&&Partition| {
            entry.first_lba < header.first_usable
                || entry.last_lba > header.last_usable
                || entry.last_lba < entry.first_lba
        };
        if let Some(entry) = used.iter().find(outside) {
            return Some(format!("partition {} is not where partitions may be", entry.name));
        }
        let overlap = used.windows(2).find(|pair| pair[1].first_lba <= pair[0].last_lba)?;
        Some(format!("partitions {} and {} overlap", overlap[0].name, overlap[1].name))
    }

    fn used(&self) -> impl Iterator<Item = &Partition> {
        self.entries.values().filter(|entry| entry.is_used())
    }

    /// The partitions, in the order of their entries.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let part = |(number, entry): (&u32, &Partition)| Part {
            name: entry.name.clone(),
            first: entry.first_lba,
            sectors: entry.last_lba + 1 - entry.first_lba,
            number: *number,
            read_only: entry.flags & READ_ONLY != 0,
        };
        self.entries.iter().filter(|(_, entry)| entry.is_used()).map(part).collect()
    }
}

/// Refuses a header that the crate would stumble over.
fn common(header: &Header) -> Result<()> {
    let (entries, bytes) = (header.num_parts, header.part_size);
    ensure!(
        bytes == ENTRY_BYTES && entries <= 8 * u32::from(ENTRIES),
        "the table has {entries} entries of {bytes} bytes, which is not supported here"
    );
    Ok(())
}

/// Ways to damage a table. What is described wrongly is signed all the same: only its sense can give it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The CRC of the primary header.
    PrimaryHeader,
    /// The CRC of the backup header.
    BackupHeader,
    /// Both.
    BothHeaders,
    /// An entry of the primary table, so that it is not what its CRC is of.
    PrimaryEntries,
    /// The same of either table.
    BothEntries,
    /// The second partition begins on the first one's last sector.
    Overlap,
    /// The last partition ends behind the disk.
    BeyondEnd,
    /// The last partition ends inside the backup table.
    IntoTable,
}

impl Which {
    pub(crate) const ALL: [Self; 8] = [
        Self::PrimaryHeader,
        Self::BackupHeader,
        Self::BothHeaders,
        Self::PrimaryEntries,
        Self::BothEntries,
        Self::Overlap,
        Self::BeyondEnd,
        Self::IntoTable,
    ];

    /// One of the two tables is still sound.
    pub(crate) fn leaves_a_copy(self) -> bool {
        matches!(self, Self::PrimaryHeader | Self::BackupHeader | Self::PrimaryEntries)
    }
}

/// Marks the partition of that number as read-only.
#[cfg(test)]
pub(crate) fn protect(path: &Path, number: usize) -> Result<()> {
    rewrite(path, |parts, _| parts[number - 1].flags |= READ_ONLY)
}

/// Damages the sound table on the disk at `path`.
pub(crate) fn spoil(path: &Path, which: Which) -> Result<()> {
    let headers = read(path)?.headers;
    let header_crc = |header: &Header| (header.current_lba, HEADER_CRC);
    let entry = |header: &Header| (header.part_start, ENTRY_LAST);
    let [primary, backup] = &headers;
    let flipped = match which {
        Which::PrimaryHeader => vec![header_crc(primary)],
        Which::BackupHeader => vec![header_crc(backup)],
        Which::BothHeaders => vec![header_crc(primary), header_crc(backup)],
        Which::PrimaryEntries => vec![entry(primary)],
        Which::BothEntries => vec![entry(primary), entry(backup)],
        Which::Overlap => return rewrite(path, |parts, _| parts[1].first_lba = parts[0].last_lba),
        Which::BeyondEnd => return rewrite(path, |parts, header| last(parts).last_lba = header.backup_lba + 1),
        Which::IntoTable => return rewrite(path, |parts, header| last(parts).last_lba = header.last_usable + 1),
    };
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    for (lba, offset) in flipped {
        let (at, mut byte) = (lba * u64::from(SECTOR) + offset, [0]);
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
    }
    Ok(())
}

/// Changes entries of the table and has both copies written and signed anew.
fn rewrite(path: &Path, change: impl Fn(&mut [Partition], &Header)) -> Result<()> {
    let config = GptConfig::new().writable(true).only_valid_headers(true).logical_block_size(BLOCK);
    let mut disk = config.open(path)?;
    let mut parts: Vec<_> = disk.take_partitions().into_values().collect();
    ensure!(parts.len() > 1, "{} has one partition: make two to spoil how they lie", path.display());
    change(&mut parts, disk.primary_header()?);
    disk.update_partitions((1..).zip(parts).collect())?;
    disk.write()?;
    Ok(())
}

fn last(parts: &mut [Partition]) -> &mut Partition {
    let end = parts.len() - 1;
    &mut parts[end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 16 << 20;

    fn disk(parts: u16) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        make(&path, BYTES, parts).unwrap();
        (folder, path)
    }

    #[test]
    fn partitions_are_equal_aligned_named_and_as_large_as_they_can_be() {
        for parts in [1_u16, 2, 3, 7, 14] {
            let (_folder, path) = disk(parts);
            let made = read(&path).unwrap().parts();
            assert_eq!(made.len(), usize::from(parts));
            let names: Vec<_> = (1..=parts).map(|id| format!("p{id}")).collect();
            assert!(made.iter().map(|part| &part.name).eq(&names));
            // The first MiB is in front of them, and the backup table ends in the last one.
            let each = 14 / u64::from(parts) * 2048;
            for (part, index) in made.iter().zip(0..) {
                assert_eq!((part.first, part.sectors), (2048 + index * each, each));
            }
            assert_eq!(std::fs::metadata(&path).unwrap().len(), BYTES);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_does() {
        let folder = tempfile::tempdir().unwrap();
        let error = |bytes: u64, parts: u16| make(&folder.path().join("x"), bytes, parts).unwrap_err().to_string();
        assert!(error(0, 1).contains("give 3 MiB"));
        assert!(error(BYTES, 15).contains("give 17 MiB"));
        make(&folder.path().join("x"), 17 << 20, 15).unwrap();
        make(&folder.path().join("x"), 3 << 20, 1).unwrap();
        assert!(error(BYTES + 1, 1).contains("not a multiple of 512"));
        assert!(error(BYTES, 0).contains("1 to 128") && error(1 << 30, 129).contains("1 to 128"));
    }

    #[test]
    fn every_damage_is_noticed() {
        for which in Which::ALL {
            let (_folder, path) = disk(3);
            spoil(&path, which).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("gdisk") && !error.contains('\n'), "{which:?}: {error}");
            let sense = error.contains("overlap") || error.contains("may be");
            assert_eq!(sense, matches!(which, Which::Overlap | Which::BeyondEnd | Which::IntoTable), "{error}");
        }
    }

    /// The copy whose header is at `lba` and whose entries it names, as a reader finds it that looks at nothing else.
    fn is_sound(path: &Path, lba: u64) -> bool {
        let bytes = std::fs::read(path).unwrap();
        let sector = |lba: u64| &bytes[lba as usize * 512..];
        let header = &sector(lba)[..92];
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let mut signed = header.to_vec();
        signed[16..20].fill(0);
        let entries = &sector(u64::from(number(72)))[..128 * 128];
        crc32(&signed) == number(16) && crc32(entries) == number(88)
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
        })
    }

    #[test]
    fn damage_is_where_it_says_and_nowhere_else() {
        let last = BYTES / 512 - 1;
        for which in Which::ALL {
            let (_folder, path) = disk(3);
            assert!(is_sound(&path, 1) && is_sound(&path, last));
            let before = std::fs::read(&path).unwrap();
            spoil(&path, which).unwrap();
            let sound = (is_sound(&path, 1), is_sound(&path, last));
            let expected = match which {
                Which::PrimaryHeader | Which::PrimaryEntries => (false, true),
                Which::BackupHeader => (true, false),
                Which::BothHeaders | Which::BothEntries => (false, false),
                Which::Overlap | Which::BeyondEnd | Which::IntoTable => (true, true),
            };
            assert_eq!(sound, expected, "{which:?}");
            assert_eq!(which.leaves_a_copy(), sound.0 != sound.1, "{which:?}");
            let after = std::fs::read(&path).unwrap();
            assert_eq!(after.len() as u64, BYTES);
            assert_eq!(
                before[34 * 512..][..(last as usize - 66) * 512],
                after[34 * 512..][..(last as usize - 66) * 512]
            );
        }
    }

    /// First and last sector of every entry of the primary table, without anybody's opinion.
    fn bounds(path: &Path) -> Vec<(u64, u64)> {
        let bytes = std::fs::read(path).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (0..3).map(|entry| 1024 + entry * 128).map(|at| (number(at + 32), number(at + 40))).collect()
    }

    #[test]
    fn wrong_bounds_are_wrong_by_one_sector() {
        let sectors = BYTES / 512;
        let spoiled = |which| {
            let (_folder, path) = disk(3);
            spoil(&path, which).unwrap();
            bounds(&path)
        };
        let overlap = spoiled(Which::Overlap);
        assert_eq!(overlap[1].0, overlap[0].1);
        assert_eq!(spoiled(Which::BeyondEnd)[2].1, sectors);
        assert_eq!(spoiled(Which::IntoTable)[2].1, sectors - 33);
    }

    #[test]
    fn a_table_of_another_shape_is_refused_and_no_panic() {
        for (at, number) in [(80_usize, u32::MAX), (84, 256), (84, 0)] {
            let (_folder, path) = disk(2);
            let mut bytes = std::fs::read(&path).unwrap();
            let header = &mut bytes[512..512 + 92];
            header[at..at + 4].copy_from_slice(&number.to_le_bytes());
            header[16..20].fill(0);
            let crc = crc32(header);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
            assert!(format!("{:#}", read(&path).unwrap_err()).contains("not supported here"));
        }
    }

    #[test]
    fn two_tables_that_differ_are_refused() {
        let (_folder, path) = disk(2);
        let (_other, twin) = disk(2);
        // The twin's backup is sound by itself; its GUIDs are others.
        let (mut bytes, other) = (std::fs::read(&path).unwrap(), std::fs::read(&twin).unwrap());
        let tail = bytes.len() - 33 * 512;
        bytes[tail..].copy_from_slice(&other[tail..]);
        std::fs::write(&path, bytes).unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("copies of its partition table differ"));
    }
}
