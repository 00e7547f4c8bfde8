//! What `via=blockd` adds to a job: what its settings exclude, and the partitions that its clients work on.
//!
//! Knows words and the disk's table; that the parameters agree with one another is `workload`'s to check.
use crate::disk::Disk;
use crate::fail;
use crate::job::Job;
use crate::partitions::{self, Part};
use crate::zeros;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use workload::params::{Front, Mode, Params, SECTOR, Via};

/// Settings of the front end, which nobody has without it.
const OURS: [&str; 3] = ["clients", "front", "partitions"];

/// `via=blockd clients=N queues=N`.
pub(crate) fn who(params: &Params) -> String {
    format!("via=blockd clients={} queues={}", params.clients, params.queues_wished())
}

/// For people: `via blockd, 2 clients`; nothing without blockd.
pub(crate) fn label(params: &Params) -> Option<String> {
    let stepped = if params.is_stepped() { ", stepped" } else { "" };
    let clients = if params.clients == 1 { "client" } else { "clients" };
    (params.via == Via::Blockd).then(|| format!("via blockd, {} {clients}{stepped}", params.clients))
}

/// Refuses what was said without effect, or against itself. `said` tells which keys were given, `keeps` whether the
/// disk keeps data.
pub(crate) fn contradictions(params: &Params, keeps: bool, said: impl Fn(&str) -> bool) -> Result<()> {
    if params.via == Via::Driver {
        for key in OURS {
            ensure!(!said(key), "{key} is for via=blockd: add that, or leave {key} out");
        }
        return Ok(());
    }
    ensure!(!said("numjobs"), "the jobs of via=blockd are its clients: give clients=N instead of numjobs");
    if params.icount && params.front == Front::Own {
        bail!("icount runs on one vCPU and steps the front end: leave front=own out");
    }
    if params.front == Front::Stepped && params.mode == Mode::Interrupt && !params.icount {
        bail!("front=stepped looks after all of them in turn, and nobody waits for interrupts: use mode=polled");
    }
    ensure!(
        !params.partitions || keeps,
        "partitions=on needs a disk with a partition table: give --disk=FILE (sgdisk makes one)"
    );
    Ok(())
}

/// The partition of each client, unless a client would have none or one that is shorter than its share of `size`; no
/// partitions if nobody asked for any, or if the disk is out of sight.
pub(crate) fn partitions(params: &Params, disk: &Disk) -> Result<Vec<Part>> {
    let (true, Some(path)) = (params.partitions, disk.path()) else {
        return Ok(Vec::new());
    };
    let (parts, clients) = (partitions::read(path)?.parts(), usize::from(params.clients));
    let Some(used) = parts.get(..clients) else {
        let there = parts.len();
        bail!("{}: clients={clients} and {there} partitions: lower clients or add partitions", path.display());
    };
    if let Some(kept) = used.iter().find(|part| part.read_only && params.rw.changes()) {
        let (name, number, rw, shown) = (&kept.name, kept.number, params.rw, path.display());
        bail!(
            "{shown}: partition {name} is read-only (attribute bit 60) and rw={rw} changes it: use rw=randread, or \
             clear the bit if it may be changed (sgdisk -A {number}:clear:60 {shown})"
        );
    }
    let share = params.size / u64::from(SECTOR) / u64::from(params.clients);
    if let Some(short) = used.iter().find(|part| part.sectors < share) {
        let (name, [has, share]) = (&short.name, [short.sectors, share].map(|sectors| sectors * u64::from(SECTOR)));
        bail!("size={} gives each client {share} bytes and partition {name} has {has}: lower size", params.size);
    }
    Ok(used.to_vec())
}

/// What a run must leave alone: everything on the disk but its clients' partitions, the table above all.
pub(crate) struct Frame {
    path: PathBuf,
    /// In bytes.
    kept: Vec<Range<u64>>,
    digest: u64,
}

impl Frame {
    /// Of a job whose clients have partitions.
    pub(crate) fn of(job: &Job) -> Result<Option<Self>> {
        match job.machine.disk.path() {
            Some(path) if !job.parts.is_empty() => Self::around(path, &job.parts).map(Some),
            _ => Ok(None),
        }
    }

    /// Everything on the disk at `path` but `parts`.
    pub(crate) fn around(path: &Path, parts: &[Part]) -> Result<Self> {
        let mut file = File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        let bytes = |part: &Part| [part.first, part.first + part.sectors].map(|lba| lba * u64::from(SECTOR));
        let mut inner: Vec<_> = parts.iter().map(bytes).collect();
        inner.sort_unstable();
        let ends = std::iter::once(0).chain(inner.iter().map(|[_, end]| *end));
        let starts = inner.iter().map(|[start, _]| *start).chain(std::iter::once(end));
        let kept: Vec<_> = ends.zip(starts).map(|(from, to)| from..to).collect();
        Ok(Self { path: path.to_owned(), digest: digest(&file, &kept)?, kept })
    }

    /// An error if anything of it changed.
    pub(crate) fn holds(&self) -> Result<()> {
        let shown = self.path.display();
        let now = digest(&File::open(&self.path)?, &self.kept).with_context(|| format!("reading {shown} again"))?;
        if now == self.digest {
            return Ok(());
        }
        match partitions::read(&self.path) {
            Ok(_) => bail!("{shown}: the run wrote outside of its clients' partitions"),
            Err(error) => bail!("the run wrote outside of its clients' partitions ({})", fail::line(&error)),
        }
    }
}

/// Of the sectors in `ranges` that are not zeros, and their places. A hole is what zeros are.
fn digest(file: &File, ranges: &[Range<u64>]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for range in ranges {
        zeros::each(file, range.clone(), |at, data| {
            let sectors = data.chunks(SECTOR as usize).zip((at..).step_by(SECTOR as usize));
            for (sector, place) in sectors.filter(|(sector, _)| !zeros::is_zeros(sector)) {
                hasher.write_u64(place);
                hasher.write(sector);
            }
            Ok(true)
        })?;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;
    use std::os::unix::fs::FileExt;

    fn error(words: &str) -> String {
        Draft::of(words).and_then(Draft::finish).unwrap_err().to_string()
    }

    #[test]
    fn what_has_no_effect_is_refused_even_if_it_is_the_default() {
        for setting in ["clients=1", "front=own", "partitions=off"] {
            let key = setting.split_once('=').unwrap().0;
            assert!(error(setting).starts_with(&format!("{key} is for via=blockd")), "{}", error(setting));
            assert!(error(&format!("via=driver {setting}")).starts_with(key));
            Draft::of(&format!("via=blockd {setting}")).unwrap().finish().unwrap();
        }
        assert!(error("via=blockd numjobs=1").contains("give clients=N"));
        assert!(error("via=blockd numjobs=2").contains("give clients=N"));
    }

    #[test]
    fn counting_steps_and_the_opposite_is_refused() {
        assert!(error("via=blockd icount=on front=own").contains("leave front=own out"));
        let job = Draft::of("via=blockd icount=on front=stepped").unwrap().finish().unwrap();
        assert!(job.params.is_stepped());
    }

    #[test]
    fn too_few_vcpus_name_clients_and_front_ends() {
        let error = error("via=blockd clients=2 vcpus=2");
        assert!(error.contains("via=blockd clients=2 queues=1") && error.ends_with("give at least 3"), "{error}");
    }

    #[test]
    fn every_client_needs_a_partition_that_holds_its_share() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        partitions::make(&path, 16 << 20, 2).unwrap();
        let words = format!("via=blockd partitions=on disk={}", path.display());
        let job = |more: &str| Draft::of(&format!("{words} {more}")).unwrap().finish();
        for good in ["clients=1", "clients=2", "clients=2 size=14m", "clients=1 size=7m"] {
            job(good).unwrap();
        }
        let parts = |more: &str| job(more).unwrap().parts.into_iter().map(|part| part.name).collect::<Vec<_>>();
        assert_eq!(parts("clients=1"), ["p1"]);
        assert_eq!(parts("clients=2"), ["p1", "p2"]);
        assert!(Draft::of("via=blockd").unwrap().finish().unwrap().parts.is_empty());
        let error = |more: &str| job(more).unwrap_err().to_string();
        assert!(error("clients=3").contains("clients=3 and 2 partitions: lower clients"));
        assert!(
            error("clients=1 size=8m").contains("8388608 bytes and partition p1 has 7340032"),
            "{}",
            error("clients=1 size=8m")
        );
        assert!(error("clients=2 size=15m").contains("lower size"));
    }

    #[test]
    fn a_read_only_partition_is_named_before_anything_starts_by_every_job_that_would_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        partitions::make(&path, 16 << 20, 3).unwrap();
        partitions::protect(&path, 2).unwrap();
        let words = format!("via=blockd partitions=on disk={}", path.display());
        let job = |more: &str| Draft::of(&format!("{words} {more}")).unwrap().finish();
        for rw in ["write", "randwrite", "rw", "randrw", "trim", "randtrim"] {
            for verify in ["none", "crc32c"] {
                let error = job(&format!("clients=2 rw={rw} verify={verify}")).unwrap_err().to_string();
                let parts = ["partition p2 is read-only", &format!("rw={rw} "), "sgdisk -A 2:clear:60"];
                assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            }
            job(&format!("clients=1 rw={rw}")).expect("the first partition may be changed");
        }
        for rw in ["read", "randread"] {
            job(&format!("clients=2 rw={rw}")).expect("a read-only partition is read");
        }
    }

    #[test]
    fn a_disk_without_a_table_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let error = |disk: &str| error(&format!("via=blockd partitions=on disk={disk}"));
        assert!(error(&file.path().to_string_lossy()).contains("sgdisk"));
        assert!(error("null").contains("--disk=FILE"));
    }

    #[test]
    fn what_is_written_outside_of_the_clients_partitions_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let parts = partitions::make(&path, 8 << 20, 3).unwrap();
        let words = format!("via=blockd partitions=on clients=2 disk={}", path.display());
        let job = Draft::of(&words).unwrap().finish().unwrap();
        let frame = Frame::of(&job).unwrap().unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let flip = |lba: u64, byte: u64| {
            let mut old = [0];
            file.read_exact_at(&mut old, lba * 512 + byte).unwrap();
            file.write_all_at(&[old[0] ^ 0xff], lba * 512 + byte).unwrap();
        };
        for part in &parts[..2] {
            flip(part.first, 0);
            flip(part.first + part.sectors - 1, 511);
        }
        frame.holds().unwrap();
        // Entries may stand in any order.
        let reversed: Vec<_> = parts[..2].iter().rev().cloned().collect();
        assert_eq!(Frame::around(&path, &reversed).unwrap().kept, frame.kept);
        // The MBR, the table, the gap, the third partition, the backup table.
        for (lba, byte) in [(0, 0), (1, 20), (2047, 511), (parts[2].first, 0), (16383, 16)] {
            flip(lba, byte);
            assert!(frame.holds().unwrap_err().to_string().contains("outside"), "sector {lba}");
            flip(lba, byte);
            frame.holds().unwrap();
        }
    }

    #[test]
    fn holes_around_partitions_are_not_read_and_are_what_zeros_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        // Reading 4 TiB would take hours.
        file.set_len(4 << 40).unwrap();
        file.write_all_at(b"table", 512).unwrap();
        let part = Part { number: 1, name: "p1".into(), first: 2048, sectors: 2048, read_only: false };
        let frame = Frame::around(&path, std::slice::from_ref(&part)).unwrap();
        file.write_all_at(&[0; 5000], 3 << 40).unwrap();
        file.write_all_at(b"client", 2048 * 512).unwrap();
        frame.holds().unwrap();
        for place in [0, 2048 * 512 - 1, 4096 * 512, (3 << 40) + 4999, (4 << 40) - 1] {
            let mut old = [0];
            file.read_exact_at(&mut old, place).unwrap();
            file.write_all_at(&[1], place).unwrap();
            assert!(frame.holds().unwrap_err().to_string().contains("outside"), "byte {place}");
            file.write_all_at(&old, place).unwrap();
            frame.holds().unwrap();
        }
    }

    #[test]
    fn without_partitions_there_is_nothing_to_leave_alone_and_around_none_is_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [0; 4096]).unwrap();
        let job = Draft::of(&format!("via=blockd disk={}", path.display())).unwrap().finish().unwrap();
        assert!(Frame::of(&job).unwrap().is_none());
        let all = Frame::around(&path, &[]).unwrap();
        std::fs::write(&path, [[0; 4095].as_slice(), &[1]].concat()).unwrap();
        assert!(all.holds().is_err());
    }

    #[test]
    fn rows_say_who_is_in_front() {
        let label = |words: &str| label(&Draft::of(words).unwrap().finish().unwrap().params);
        assert_eq!(label("numjobs=2"), None);
        assert_eq!(label("via=blockd").unwrap(), "via blockd, 1 client");
        assert_eq!(label("via=blockd clients=2").unwrap(), "via blockd, 2 clients");
        assert_eq!(label("via=blockd front=stepped").unwrap(), "via blockd, 1 client, stepped");
    }
}
