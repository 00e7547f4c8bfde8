//! The host's own look at a disk that the guest wrote under `verify`.
//!
//! The guest leaves a table of what every sector must hold (`workload::verify::table`); here the file is read again and
//! checked against it, without the driver, the guest or QEMU. A run under verify starts from zeros. Where each client has
//! a partition, each partition is a disk of its own in all of this: sector 0 is its first, the table is at its end.
use crate::job::Job;
use crate::partitions::Part;
use crate::stop;
use crate::zeros::{self, Holes};
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use workload::params::{SECTOR, Verify};
use workload::verify::table::{Audit, Disk, audit};

/// Faults that are described; the others are counted.
const SHOWN: usize = 5;

/// Whether the job leaves a table behind.
pub(crate) fn wanted(job: &Job) -> bool {
    job.params.verify == Verify::Crc32c && job.writes()
}

/// Makes sure that the job finds zeros. What an earlier run sealed is cleared; any other content is the user's.
pub(crate) fn prepare(job: &Job) -> Result<()> {
    let Some(path) = job.machine.disk.path() else {
        return Ok(());
    };
    let file = open(path, true)?;
    let mut sealed = Vec::new();
    for stretch in stretches(job) {
        let shown = stretch.shown(path);
        if stretch.is_zeros(&file).with_context(|| format!("reading {shown}"))? {
            continue;
        }
        let sound = stretch.audit(&file, |_| ()).is_ok_and(|found| found.faults == 0);
        if !sound || !path.is_file() {
            let new = format!("truncate -s {} NAME", job.machine.disk.bytes());
            bail!("{shown} holds data and verify starts from zeros: use a new file ({new}) or clear this one");
        }
        sealed.push(stretch);
    }
    // Nothing is cleared before it is known that nothing is the user's.
    sealed.iter().try_for_each(|stretch| stretch.clear(&file))
}

/// Before a run that left the disk in the middle is repeated: zeros again, as [`prepare`] had found or made them.
pub(crate) fn restart(job: &Job) -> Result<()> {
    match job.machine.disk.path() {
        Some(path) if wanted(job) && path.is_file() => {
            let file = open(path, true)?;
            stretches(job).iter().try_for_each(|stretch| stretch.clear(&file))
        }
        Some(path) if wanted(job) => bail!("{} is no longer all zeros: clear it and run again", path.display()),
        _ => Ok(()),
    }
}

/// Reads everything again that the job could write, and checks every sector.
pub(crate) fn check(job: &Job) -> Result<Audit> {
    let Some(path) = job.machine.disk.path() else {
        bail!("the null disk keeps nothing that could be checked: give --disk=FILE");
    };
    let file = open(path, false)?;
    let mut sum = Audit::default();
    for stretch in stretches(job) {
        let found = stretch.check(path, &file)?;
        // A trim leaves zeros, and no trace of the write before it.
        if found.written == 0 && !job.params.rw.trims() {
            bail!("{}: nothing was written", stretch.shown(path));
        }
        sum.written += found.written;
        sum.zeros += found.zeros;
        sum.unknown += found.unknown;
    }
    Ok(sum)
}

/// A part of the disk that is verified by itself.
struct Stretch {
    /// The partition's; empty for the whole disk.
    name: String,
    first: u64,
    sectors: u64,
}

/// The whole disk, or the partitions of the job's clients.
fn stretches(job: &Job) -> Vec<Stretch> {
    let whole = || Stretch { name: String::new(), first: 0, sectors: job.machine.disk.bytes() / u64::from(SECTOR) };
    let of = |part: &Part| Stretch { name: part.name.clone(), first: part.first, sectors: part.sectors };
    if job.parts.is_empty() { vec![whole()] } else { job.parts.iter().map(of).collect() }
}

impl Stretch {
    fn shown(&self, path: &Path) -> String {
        let of = if self.name.is_empty() { "" } else { ", partition " };
        format!("{}{of}{}", path.display(), self.name)
    }

    fn check(&self, path: &Path, file: &File) -> Result<Audit> {
        let shown = self.shown(path);
        let mut faults = Vec::new();
        let found = self.audit(file, |fault| {
            if faults.len() < SHOWN {
                faults.push(fault);
            }
        });
        let found = found.with_context(|| format!("checking {shown}"))?;
        if found.faults > 0 {
            bail!("{shown}: {} sectors are not as written: {}", found.faults, faults.join("; "));
        }
        Ok(found)
    }

    fn audit(&self, file: &File, mut report: impl FnMut(String)) -> Result<Audit> {
        let at = |lba: u64| (self.first + lba) * u64::from(SECTOR);
        let mut read = |lba: u64, data: &mut [u8]| -> Result<()> {
            stop::check()?;
            Ok(file.read_exact_at(data, at(lba))?)
        };
        let mut holes = Holes::of(file);
        let mut zeros = |lba: u64| holes.at(at(lba)) / u64::from(SECTOR);
        audit(self.sectors, &mut Disk { read: &mut read, zeros: &mut zeros }, &mut |fault| report(fault.to_string()))
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn bytes(&self) -> Range<u64> {
        self.first * u64::from(SECTOR)..(self.first + self.sectors) * u64::from(SECTOR)
    }

    fn is_zeros(&self, file: &File) -> Result<bool> {
        zeros::each(file, self.bytes(), |_, data| Ok(zeros::is_zeros(data)))
    }

    /// Writes zeros over what is none, so that a sparse file stays one.
    fn clear(&self, file: &File) -> Result<()> {
        let none = vec![0; zeros::PIECE];
        let clear = |at, data: &[u8]| {
            if !zeros::is_zeros(data) {
                file.write_all_at(&none[..data.len()], at)?;
            }
            Ok(true)
        };
        zeros::each(file, self.bytes(), clear).map(drop).context("clearing the disk")
    }
}

fn open(path: &Path, write: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).open(path).with_context(|| format!("opening {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::job::Draft;
    use crate::partitions;
    use workload::verify::fill;
    use workload::verify::table::Layout;

    const SECTORS: u64 = 64;

    fn job(path: &Path, more: &str) -> Job {
        let words = format!("rw=randwrite verify=crc32c number_ios=1 disk={} {more}", path.display());
        Draft::of(&words).unwrap().finish().unwrap()
    }

    /// What a guest leaves on a disk, or a partition from `first` on, that wrote sectors 3 and 4 of it.
    fn seal(file: &File, first: u64, sectors: u64) {
        let layout = Layout::new(sectors, 8).unwrap();
        let words = [0, 0, 0, 1, 1, 0, 0, 0];
        let (mut data, mut table, mut seal) = ([0; 1024], [0; 512], [0; 512]);
        fill(&mut data, 3, 1);
        layout.encode_table(&words, 0, &mut table).unwrap();
        layout.encode_seal(&words, &mut seal).unwrap();
        for (bytes, lba) in [(&data[..], 3), (&table, layout.table), (&seal, layout.seal())] {
            file.write_all_at(bytes, (first + lba) * 512).unwrap();
        }
    }

    /// A disk as a guest leaves it, and a job that runs on it.
    fn sealed() -> (tempfile::TempDir, File, Job) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        Disk::create(&path, SECTORS * 512).unwrap();
        let file = open(&path, true).unwrap();
        seal(&file, 0, SECTORS);
        let job = job(&path, "size=4k");
        (folder, file, job)
    }

    fn all_zeros(file: &File) -> bool {
        let mut data = vec![1; SECTORS as usize * 512];
        file.read_exact_at(&mut data, 0).unwrap();
        data.iter().all(|byte| *byte == 0)
    }

    #[test]
    fn a_disk_as_written_passes_and_a_flipped_bit_does_not() {
        let (_folder, file, job) = sealed();
        assert_eq!(check(&job).unwrap().written, 2);
        file.write_all_at(&[0xff], 3 * 512 + 100).unwrap();
        let error = format!("{:#}", check(&job).unwrap_err());
        assert!(error.contains("1 sectors are not as written: sector 3"), "{error}");
    }

    #[test]
    fn a_file_of_an_earlier_run_is_cleared_and_anybody_elses_data_is_not() {
        let (_folder, file, job) = sealed();
        file.write_all_at(b"precious", 512).unwrap();
        assert!(prepare(&job).is_err(), "sealed, and changed since");
        file.write_all_at(&[0; 8], 512).unwrap();
        prepare(&job).unwrap();
        assert!(all_zeros(&file));
        file.write_all_at(b"precious", 512).unwrap();
        assert!(prepare(&job).unwrap_err().to_string().contains("holds data"));
        let mut kept = [0; 8];
        file.read_exact_at(&mut kept, 512).unwrap();
        assert_eq!(&kept, b"precious");
    }

    #[test]
    fn a_run_that_never_ended_leaves_nothing_to_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        Disk::create(&path, 32768).unwrap();
        assert!(format!("{:#}", check(&job(&path, "")).unwrap_err()).contains("no seal"));
    }

    #[test]
    fn what_a_lost_write_left_a_hole_is_a_fault_and_the_rest_of_a_huge_disk_is_not_read() {
        // Data of 1 GiB of a disk of 64 GiB: all but a few pages of it is a hole.
        const LARGE: u64 = 1 << 27;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        Disk::create(&path, LARGE * 512).unwrap();
        let file = open(&path, true).unwrap();
        let layout = Layout::new(LARGE, 1 << 21).unwrap();
        let mut words = vec![0; 1 << 21];
        (words[3], words[2_000_000], words[2_000_001]) = (1, 1, 2);
        let mut sector = [0; 512];
        for (lba, generation) in [(3, 1), (2_000_000, 1)] {
            fill(&mut sector, lba, generation);
            file.write_all_at(&sector, lba * 512).unwrap();
        }
        for index in [3 / 128, 2_000_000 / 128] {
            layout.encode_table(&words, index, &mut sector).unwrap();
            file.write_all_at(&sector, (layout.table + index) * 512).unwrap();
        }
        layout.encode_seal(&words, &mut sector).unwrap();
        file.write_all_at(&sector, layout.seal() * 512).unwrap();
        let job = job(&path, "size=1g");
        let error = format!("{:#}", check(&job).unwrap_err());
        assert!(error.contains("1 sectors are not as written: sector 2000001"), "{error}");
        fill(&mut sector, 2_000_001, 2);
        file.write_all_at(&sector, 2_000_001 * 512).unwrap();
        assert_eq!(check(&job).unwrap(), Audit { written: 3, zeros: layout.table - 3, unknown: 0, faults: 0 });
        file.write_all_at(&[1], (1 << 21) * 512).unwrap();
        let error = format!("{:#}", check(&job).unwrap_err());
        assert!(error.contains("sector 2097152"), "between data and table nothing is written: {error}");
        prepare(&job).unwrap_err();
    }

    #[test]
    fn a_repeated_run_finds_zeros() {
        let (_folder, file, job) = sealed();
        file.write_all_at(b"half", 5 * 512).unwrap();
        restart(&job).unwrap();
        assert!(all_zeros(&file));
    }

    /// A disk of three partitions, two of them sealed, and a job whose two clients have these.
    fn parted() -> (tempfile::TempDir, File, Job) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let parts = partitions::make(&path, 8 << 20, 3).unwrap();
        let file = open(&path, true).unwrap();
        for part in &parts[..2] {
            seal(&file, part.first, part.sectors);
        }
        let job = job(&path, "via=blockd partitions=on clients=2 size=8k");
        (folder, file, job)
    }

    #[test]
    fn each_partition_is_checked_by_itself_and_named() {
        let (_folder, file, job) = parted();
        assert_eq!(check(&job).unwrap().written, 4);
        let third = job.parts[1].first + 3;
        file.write_all_at(&[0xff], third * 512 + 100).unwrap();
        let error = format!("{:#}", check(&job).unwrap_err());
        assert!(error.contains("partition p2: 1 sectors are not as written: sector 3"), "{error}");
        seal(&file, job.parts[1].first, job.parts[1].sectors);
        file.write_all_at(&[0xff], (job.parts[0].first + job.parts[0].sectors) * 512 - 512).unwrap();
        let error = format!("{:#}", check(&job).unwrap_err());
        assert!(error.contains("partition p1") && error.contains("no seal"), "{error}");
    }

    #[test]
    fn clearing_partitions_leaves_the_table_and_the_others_alone() {
        let (_folder, file, job) = parted();
        let path = job.machine.disk.path().unwrap();
        let table = partitions::read(path).unwrap();
        let theirs = table.parts()[2].first * 512;
        file.write_all_at(b"precious", theirs).unwrap();
        file.write_all_at(b"precious", job.parts[1].first * 512).unwrap();
        assert!(prepare(&job).unwrap_err().to_string().contains("partition p2 holds data"));
        assert!(!stretches(&job)[0].is_zeros(&file).unwrap(), "p1 was cleared although p2 is the user's");
        seal(&file, job.parts[1].first, job.parts[1].sectors);
        file.write_all_at(&[0; 8], job.parts[1].first * 512).unwrap();
        prepare(&job).unwrap();
        assert!(stretches(&job).iter().all(|stretch| stretch.is_zeros(&file).unwrap()));
        let mut kept = [0; 8];
        file.read_exact_at(&mut kept, theirs).unwrap();
        assert_eq!(&kept, b"precious");
        assert_eq!(partitions::read(path).unwrap(), table);
    }
}
