//! Files on a partition, over the whole storage path: made and checked by programs that others wrote.
//!
//! The `gpt` crate makes the partitions and mkfs.fat the file system; the native bench's example writes through client
//! library, front end, driver and device; then fsck.fat looks at the partition, its files are read and compared without
//! the driver, and everything around the partition must be as it was.
use crate::blockd::Frame;
use crate::fail::{self, Failure, Skip, last};
use crate::image;
use crate::partitions::{self, Part};
use crate::process::capture;
use crate::setup;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use workload::params::SECTOR;

/// Room for three partitions that hold a FAT16.
const BYTES: u64 = 64 << 20;
/// For one program of it.
const LIMIT: Duration = Duration::from_mins(2);

/// The step; skipped where dosfstools cannot be had.
pub(crate) fn on_a_partition(install: bool) -> Result<()> {
    let (mkfs, fsck) = setup::dosfstools(install).map_err(|error| Skip(fail::line(&error)))?;
    let example = image::files()?;
    let folder = tempfile::tempdir().context("making a folder for the disk")?;
    let (disk, copy) = (folder.path().join("disk.raw"), folder.path().join("partition.raw"));
    let parts = partitions::make(&disk, BYTES, 3)?;
    let part = &parts[1];
    File::create(&copy)?.set_len(part.sectors * u64::from(SECTOR))?;
    run(Command::new(mkfs).arg(&copy))?;
    copy_in(&copy, &disk, part).context("copying the file system into its partition")?;
    let around = Frame::around(&disk, std::slice::from_ref(part))?;
    // The second time the files are there already.
    for _ in 0..2 {
        run(Command::new(&example).arg(&disk).arg("--partition=2"))?;
        around.holds()?;
        copy_out(&disk, part, &copy).context("copying the file system out of its partition")?;
        run(Command::new(&fsck).arg("-n").arg(&copy))?;
        run(Command::new(&example).arg("--compare").arg(&copy))?;
    }
    Ok(())
}

/// Fails unless the command succeeds, with what it said.
fn run(command: &mut Command) -> Result<()> {
    let ran = capture(command, LIMIT, |_| ())?;
    if ran.status.success() {
        return Ok(());
    }
    let name = Path::new(command.get_program()).file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let why = ran.lines.last().map_or_else(String::new, |line| format!(": {line}"));
    Err(Failure::new(format!("{name} failed ({}){why}", ran.status), last(&ran.lines)).into())
}

fn copy_in(image: &Path, disk: &Path, part: &Part) -> io::Result<()> {
    let mut disk = File::options().write(true).open(disk)?;
    disk.seek(SeekFrom::Start(part.first * u64::from(SECTOR)))?;
    io::copy(&mut File::open(image)?, &mut disk).map(drop)
}

fn copy_out(disk: &Path, part: &Part, image: &Path) -> io::Result<()> {
    let mut disk = File::open(disk)?;
    disk.seek(SeekFrom::Start(part.first * u64::from(SECTOR)))?;
    io::copy(&mut disk.take(part.sectors * u64::from(SECTOR)), &mut File::create(image)?).map(drop)
}
