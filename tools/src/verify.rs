//! The host's own look at a disk that the guest wrote under `verify`.
//!
//! The guest leaves a table of what every sector must hold (`workload::verify::table`); here the file is read again and
//! checked against it, without the driver, the guest or QEMU. A run under verify starts from zeros.
use crate::disk::Disk;
use crate::job::Job;
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use workload::params::{SECTOR, Verify};
use workload::verify::table::{Audit, audit};

/// What is read at a time when looking for zeros.
const STRIDE: usize = 1 << 20;
/// Faults that are described; the others are counted.
const SHOWN: usize = 5;

/// Whether the job leaves a table behind.
pub(crate) fn wanted(job: &Job) -> bool {
    job.params.verify == Verify::Crc32c && job.writes()
}

/// Makes sure that the disk is all zeros. A file sealed by an earlier run is cleared; any other content is the user's.
pub(crate) fn prepare(disk: &Disk) -> Result<()> {
    let Some(path) = disk.path() else {
        return Ok(());
    };
    let shown = path.display();
    let mut file = open(path, true)?;
    if all_zeros(&mut file).with_context(|| format!("reading {shown}"))? {
        return Ok(());
    }
    let sealed = table_of(disk, &file, |_| ()).is_ok_and(|found| found.faults == 0);
    if !sealed || !path.is_file() {
        bail!(
            "{shown} holds data and verify starts from zeros: use a new file (truncate -s {} NAME) or clear this one",
            disk.bytes()
        );
    }
    clear(&file, disk)
}

/// Before a run that left the disk in the middle is repeated: zeros again, as [`prepare`] had found or made them.
pub(crate) fn restart(job: &Job) -> Result<()> {
    match job.machine.disk.path() {
        Some(path) if wanted(job) && path.is_file() => clear(&open(path, true)?, &job.machine.disk),
        Some(path) if wanted(job) => bail!("{} is no longer all zeros: clear it and run again", path.display()),
        _ => Ok(()),
    }
}

fn clear(file: &File, disk: &Disk) -> Result<()> {
    file.set_len(0).and_then(|()| file.set_len(disk.bytes())).context("clearing the disk")
}

/// Reads the whole disk again and checks every sector.
pub(crate) fn check(disk: &Disk) -> Result<Audit> {
    let Some(path) = disk.path() else {
        bail!("the null disk keeps nothing that could be checked: give --disk=FILE");
    };
    let mut faults = Vec::new();
    let found = table_of(disk, &open(path, false)?, |fault| {
        if faults.len() < SHOWN {
            faults.push(fault);
        }
    })
    .with_context(|| format!("checking {}", path.display()))?;
    if found.faults > 0 {
        bail!("{}: {} sectors are not as written: {}", path.display(), found.faults, faults.join("; "));
    }
    if found.written == 0 {
        bail!("{}: nothing was written", path.display());
    }
    Ok(found)
}

fn table_of(disk: &Disk, file: &File, mut report: impl FnMut(String)) -> Result<Audit> {
    let mut read = |lba: u64, data: &mut [u8]| file.read_exact_at(data, lba * u64::from(SECTOR));
    audit(disk.bytes() / u64::from(SECTOR), &mut read, &mut |fault| report(fault.to_string()))
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn open(path: &Path, write: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).open(path).with_context(|| format!("opening {}", path.display()))
}

fn all_zeros(file: &mut File) -> std::io::Result<bool> {
    let zeros = vec![0; STRIDE];
    let mut data = vec![0; STRIDE];
    loop {
        match file.read(&mut data)? {
            0 => return Ok(true),
            read if data[..read] != zeros[..read] => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use workload::verify::fill;
    use workload::verify::table::Layout;

    const SECTORS: u64 = 64;

    /// A disk as a guest leaves it that wrote sectors 3 and 4.
    fn sealed() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::create(&folder.path().join("disk"), SECTORS * 512).unwrap();
        let layout = Layout::new(SECTORS, 8).unwrap();
        let words = [0, 0, 0, 1, 1, 0, 0, 0];
        let (mut data, mut table, mut seal) = ([0; 1024], [0; 512], [0; 512]);
        fill(&mut data, 3, 1);
        layout.encode_table(&words, 0, &mut table).unwrap();
        layout.encode_seal(&words, &mut seal).unwrap();
        let file = open(disk.path().unwrap(), true).unwrap();
        for (bytes, lba) in [(&data[..], 3), (&table, layout.table), (&seal, layout.seal())] {
            file.write_all_at(bytes, lba * 512).unwrap();
        }
        (folder, disk)
    }

    #[test]
    fn a_disk_as_written_passes_and_a_flipped_bit_does_not() {
        let (_folder, disk) = sealed();
        assert_eq!(check(&disk).unwrap().written, 2);
        let file = open(disk.path().unwrap(), true).unwrap();
        file.write_all_at(&[0xff], 3 * 512 + 100).unwrap();
        let error = format!("{:#}", check(&disk).unwrap_err());
        assert!(error.contains("1 sectors are not as written: sector 3"), "{error}");
    }

    #[test]
    fn a_file_of_an_earlier_run_is_cleared_and_anybody_elses_data_is_not() {
        let (_folder, disk) = sealed();
        let file = open(disk.path().unwrap(), true).unwrap();
        file.write_all_at(b"precious", 512).unwrap();
        assert!(prepare(&disk).is_err(), "sealed, and changed since");
        file.write_all_at(&[0; 8], 512).unwrap();
        prepare(&disk).unwrap();
        assert!(all_zeros(&mut open(disk.path().unwrap(), false).unwrap()).unwrap());
        file.write_all_at(b"precious", 512).unwrap();
        assert!(prepare(&disk).unwrap_err().to_string().contains("holds data"));
        let mut kept = [0; 8];
        file.read_exact_at(&mut kept, 512).unwrap();
        assert_eq!(&kept, b"precious");
    }

    #[test]
    fn a_run_that_never_ended_leaves_nothing_to_check() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::create(&folder.path().join("disk"), 32768).unwrap();
        assert!(format!("{:#}", check(&disk).unwrap_err()).contains("no seal"));
    }
}
