//! Why a disk's partition table cannot be used, and the repair that keeps the data.
//!
//! No advice loses data. `sgdisk -e` restores a damaged copy of a table from the sound one, and puts the backup copy at
//! the disk's end; wherever that does not help, the disk is to be copied before anything is written. Knows the disk as
//! it stands; changes nothing.
use super::{BLOCK, common};
use anyhow::Result;
use gpt::header::{Header, read_header_from_arbitrary_device};
use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::Path;
use workload::params::SECTOR;

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// A protective record's type, and where a record keeps the types of its four partitions.
const PROTECTIVE: u8 = 0xEE;
const TYPES: [usize; 4] = [450, 466, 482, 498];

/// What stands where one copy of the table should.
enum Copy {
    /// Nothing that looks like one.
    None,
    /// A header or entries that do not match their checksums.
    Damaged,
    Sound(Header),
}

/// Why the table on the disk at `path`, of so many sectors, cannot be used, with what helps; nothing where its shape is
/// another than is supported here, or where nothing is wrong with it.
pub(super) fn advice(file: &File, path: &Path, sectors: u64) -> Option<String> {
    let shown = path.display();
    let copies = [1, sectors.saturating_sub(1)].map(|lba| Copy::read(file, lba));
    let [primary, backup] = [copies[0].as_ref().ok()?, copies[1].as_ref().ok()?];
    Some(match (primary, backup) {
        (Copy::Sound(header), _) if header.backup_lba + 1 < sectors => format!(
            "the disk has {sectors} sectors and its partition table was made for {}, as after a copy to a larger disk: \
             move the backup header to its end, which keeps the data (sgdisk -e {shown})",
            header.backup_lba + 1
        ),
        (Copy::Sound(header), _) if header.backup_lba + 1 > sectors => format!(
            "the disk has {sectors} sectors and its partition table was made for {}, as after a copy to a smaller disk: \
             copy it anew to a disk of as many sectors; what lay behind the end is not here",
            header.backup_lba.saturating_add(1)
        ),
        (Copy::Sound(_), Copy::Sound(_)) if !is_record(file) => "its partition table stands without the master boot \
             record that protects it, and may be left over: copy the disk before either is written anew"
            .to_owned(),
        (Copy::Sound(first), Copy::Sound(second)) if is_same(first, second) => return None,
        (Copy::Sound(_), Copy::Sound(_)) => format!(
            "the two copies of its partition table differ, and both are sound: copy the disk, then keep the right one \
             (gdisk {shown}, r)"
        ),
        (Copy::Sound(_), _) => damaged("backup", path),
        (_, Copy::Sound(_)) => damaged("primary", path),
        (Copy::None, Copy::None) if !is_protected(file) => format!(
            "it has no partition table: make one (sgdisk -n 1:2048:0 {shown}) if nothing that is on it is to be kept"
        ),
        _ => format!(
            "both copies of its partition table are damaged: copy the disk before any repair (gdisk {shown}, r)"
        ),
    })
}

fn damaged(copy: &str, path: &Path) -> String {
    let shown = path.display();
    format!(
        "the {copy} copy of its partition table is damaged: restore it from the other one, which keeps the data \
         (sgdisk -e {shown})"
    )
}

impl Copy {
    /// The copy whose header is at `lba`; an error for one of a shape that is not supported here.
    fn read(file: &File, lba: u64) -> Result<Self> {
        // The crate looks for a header in the second sector of whatever it is given.
        let mut sectors = vec![0; 2 * SECTOR as usize];
        if file.read_exact_at(&mut sectors[SECTOR as usize..], lba * u64::from(SECTOR)).is_err() {
            return Ok(Self::None);
        }
        let is_signed = sectors[SECTOR as usize..].starts_with(b"EFI PART");
        let Ok(header) = read_header_from_arbitrary_device(&mut Cursor::new(sectors), BLOCK) else {
            return Ok(if is_signed { Self::Damaged } else { Self::None });
        };
        common(&header)?;
        let mut entries = vec![0; (header.num_parts * header.part_size) as usize];
        let read = header.part_start.checked_mul(SECTOR.into()).map(|at| file.read_exact_at(&mut entries, at));
        let sound = matches!(read, Some(Ok(()))) && CRC.checksum(&entries) == header.crc32_parts;
        Ok(if sound && header.current_lba == lba { Self::Sound(header) } else { Self::Damaged })
    }
}

/// Whether two headers are of the same table.
fn is_same(first: &Header, second: &Header) -> bool {
    let table = |header: &Header| (header.disk_guid, header.first_usable, header.last_usable, header.crc32_parts);
    table(first) == table(second)
}

fn record(file: &File) -> [u8; SECTOR as usize] {
    let mut record = [0; SECTOR as usize];
    let read = file.read_exact_at(&mut record, 0);
    if read.is_ok() { record } else { [0; SECTOR as usize] }
}

fn is_record(file: &File) -> bool {
    record(file).ends_with(&[0x55, 0xAA])
}

fn is_protected(file: &File) -> bool {
    let record = record(file);
    is_record(file) && TYPES.iter().any(|at| record[*at] == PROTECTIVE)
}

#[cfg(test)]
mod tests {
    use super::super::{Which, make, read, spoil};
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;

    const BYTES: u64 = 16 << 20;
    const PRECIOUS: &[u8] = b"precious";

    /// What an advice must name as the cause, and what brings it about.
    type Case<'a, T> = (&'static str, &'a dyn Fn(&T));

    /// A disk with three partitions and something in the last one's last sector.
    fn disk() -> (tempfile::TempDir, PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        make(&path, BYTES, 3).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(PRECIOUS, last_sector(&path)).unwrap();
        (folder, path, file)
    }

    fn last_sector(path: &Path) -> u64 {
        let part = read(path).unwrap().parts().pop().unwrap();
        (part.first + part.sectors - 1) * u64::from(SECTOR)
    }

    fn error(path: &Path) -> String {
        let error = read(path).unwrap_err().to_string();
        assert!(!error.contains('\n') && !error.contains("anew (") && !error.contains("partition the disk"), "{error}");
        error
    }

    /// Runs the command that stands at the end of an advice; whether it is there to be run.
    fn follow(advice: &str) -> bool {
        let command = advice.rsplit_once('(').unwrap().1.trim_end_matches(')');
        let words: Vec<_> = command.split(' ').collect();
        let Ok(output) = Command::new(words[0]).args(&words[1..]).output() else {
            crate::say::note!("skipped: {} is not here", words[0]);
            return false;
        };
        assert!(output.status.success(), "{command}: {output:?}");
        true
    }

    #[test]
    fn the_repair_that_is_named_for_one_damaged_copy_or_a_larger_disk_keeps_partitions_and_data() {
        let grow = |path: &Path| File::options().write(true).open(path).unwrap().set_len(2 * BYTES).unwrap();
        let wipe = |path: &Path| {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(&vec![0; 33 * 512], BYTES - 33 * 512).unwrap();
        };
        let spoiled = |which| move |path: &Path| spoil(path, which).unwrap();
        let cases: [Case<Path>; 5] = [
            ("copy to a larger disk", &grow),
            ("the backup copy", &wipe),
            ("the backup copy", &spoiled(Which::BackupHeader)),
            ("the primary copy", &spoiled(Which::PrimaryHeader)),
            ("the primary copy", &spoiled(Which::PrimaryEntries)),
        ];
        for (cause, change) in cases {
            let (_folder, path, file) = disk();
            let (before, at) = (read(&path).unwrap().parts(), last_sector(&path));
            change(&path);
            let advice = error(&path);
            assert!(advice.contains(cause) && advice.contains("keeps the data (sgdisk -e "), "{advice}");
            if !follow(&advice) {
                return;
            }
            assert_eq!(read(&path).unwrap().parts(), before, "{cause}");
            let mut kept = [0; PRECIOUS.len()];
            file.read_exact_at(&mut kept, at).unwrap();
            assert_eq!(kept, PRECIOUS, "{cause}");
        }
    }

    #[test]
    fn where_no_repair_is_safe_the_advice_is_to_copy_the_disk() {
        let no_record = |file: &File| file.write_all_at(&[0; 512], 0).unwrap();
        let shorter = |file: &File| file.set_len(BYTES - 512 * 40).unwrap();
        let neither =
            |file: &File| file.write_all_at(&[0xff; 512], 512).and_then(|()| file.set_len(BYTES / 2)).unwrap();
        let other = |file: &File| {
            // The backup copy of another disk, as sound as this one's.
            let (_folder, path, _) = disk();
            let tail = std::fs::read(path).unwrap().split_off((BYTES - 33 * 512) as usize);
            file.write_all_at(&tail, BYTES - 33 * 512).unwrap();
        };
        let cases: [Case<File>; 4] = [
            ("without the master boot record", &no_record),
            ("copy to a smaller disk", &shorter),
            ("both copies of its partition table are damaged", &neither),
            ("copies of its partition table differ", &other),
        ];
        for (cause, change) in cases {
            let (_folder, path, file) = disk();
            change(&file);
            let advice = error(&path);
            assert!(advice.contains(cause) && advice.contains("copy ") && !advice.contains("sgdisk"), "{advice}");
        }
    }

    #[test]
    fn a_protective_record_of_any_size_hides_no_partition() {
        for size in [0, 1, 32767, 32768, 1 << 20, u32::MAX] {
            let (_folder, path, file) = disk();
            let parts = read(&path).unwrap().parts();
            file.write_all_at(&size.to_le_bytes(), 458).unwrap();
            assert_eq!(read(&path).unwrap().parts(), parts);
        }
    }

    #[test]
    fn a_disk_without_a_table_gets_one_only_if_nothing_on_it_is_to_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![0; 4 << 20]).unwrap();
        let advice = error(&path);
        assert!(advice.contains("no partition table") && advice.contains("if nothing that is on it"), "{advice}");
    }
}
