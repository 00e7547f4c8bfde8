//! Files on a partition, over the whole storage path: a file system that others wrote, on a device that ends where its
//! partition ends.
//!
//! ```text
//! exercise -> client library -> rings -> front end -> driver -> vhost-user -> rust-vmm's rings -> the disk's file
//! ```
//! All of it is in this process: the device has threads of its own ([`device`]), client and front end take turns on the
//! main thread ([`client`]), and requests are waited for by interrupt. The disk is surveyed as blockd does it; the
//! partition that is asked for, or the whole disk if it has none, is exercised: its root directory is listed, files are
//! written, read back and compared, one is deleted. The disk is made and checked by others, before and after:
//!
//! ```text
//! truncate --size=64M disk.img && sgdisk --new=1:2048:+48M disk.img
//! mkfs.fat -F 32 --offset=2048 disk.img 49152
//! cargo run --package native --example files -- disk.img --partition=1
//! dd if=disk.img of=part.img bs=1M skip=1 count=48
//! fsck.fat -n part.img
//! cargo run --package native --example files -- --compare=part.img
//! ```
mod client;
mod compare;
mod device;

use blockd::exercise::exercise;
use blockd::{Extent, Published, survey};
use clap::Parser;
use client::Client;
use device::Device;
use native::output;
use std::error::Error;
use std::fmt::Arguments;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes, reads and compares files on a FAT file system inside a disk image, through the driver.
#[derive(Parser)]
struct Options {
    /// The disk image.
    #[arg(required_unless_present = "compare")]
    disk: Option<PathBuf>,
    /// The partition, by its number; the whole disk without one.
    #[arg(long)]
    partition: Option<u32>,
    /// Only compares what stands in the files of this image, a partition copied out of a disk, without the driver.
    #[arg(long, conflicts_with_all = ["disk", "partition"])]
    compare: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("files: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(image) = &options.compare {
        line(format_args!("{} files compared", compare::compare(image)?));
        return Ok(());
    }
    let path = options.disk.as_ref().ok_or("a disk image is missing")?;
    let device = Device::start(path)?;
    let done = on(&device, options.partition);
    // Also after a failure: nothing of the device's may be left at work.
    let stopped = device.stop();
    done.and(stopped)
}

/// Prints a line, or drops it where nobody reads: what was begun on the disk is ended in order all the same.
fn line(text: Arguments<'_>) {
    let _nobody_reads_it = writeln!(std::io::stdout().lock(), "{text}");
}

fn on(device: &Device, partition: Option<u32>) -> Result<(), Box<dyn Error>> {
    let mut disk = Client::open(device, None, true)?;
    let published = survey(&mut disk)?;
    disk.close()?;
    print(&published);
    let (extent, read_only) = chosen(&published, partition)?;
    let mut client = Client::open(device, Some(extent), read_only)?;
    let done = exercise(&mut client, |entry| {
        line(format_args!("{:>10} {}{}", entry.bytes, entry.name, if entry.directory { "/" } else { "" }));
    });
    client.close()?;
    let report = done?;
    line(format_args!(
        "{} entries found; {} files of {} bytes written and compared; {} deleted",
        report.listed, report.files, report.bytes, report.deleted
    ));
    Ok(())
}

/// What the client gets: its extent, and whether it must be left as it is.
fn chosen(published: &Published, partition: Option<u32>) -> Result<(Extent, bool), Box<dyn Error>> {
    let partitions = &published.partitions;
    match partition {
        None if partitions.is_empty() => Ok((published.whole, false)),
        None => Err("the disk has partitions: --partition=N names the one to use".into()),
        Some(number) => match partitions.iter().find(|partition| partition.number == number) {
            Some(partition) => Ok((partition.extent, partition.read_only)),
            None => Err(format!("there is no partition {number}: give the number of one that is listed").into()),
        },
    }
}

fn print(published: &Published) {
    line(format_args!("{} blocks of {} bytes", published.whole.blocks, published.block_size));
    for partition in &published.partitions {
        let extent = partition.extent;
        let access = if partition.read_only { "read-only" } else { "read and write" };
        line(format_args!(
            "{} {:?}: {} blocks from {}, {access}",
            partition.number, partition.name, extent.blocks, extent.first
        ));
    }
    if let Some(side) = published.degraded {
        line(format_args!("the {side:?} copy of the partition table is damaged"));
    }
}
