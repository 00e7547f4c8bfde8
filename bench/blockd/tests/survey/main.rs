//! Disks that an independent partitioner made: what is published, and what each damage costs.
mod damage;
mod disk;
mod hostile;

use blockd::refused::Refused;
use blockd::survey::MAX_PARTITIONS;
use blockd::{Extent, survey};
use disk::{Disk, as_gpt_reads, as_published};

#[test]
fn a_partitioned_disk_is_published_as_the_partitioner_reads_it() {
    for block in [512, 4096] {
        let mut disk = Disk::partitioned(block);
        let published = survey(&mut disk).unwrap();
        assert_eq!(published.block_size as usize, block);
        assert_eq!(published.whole, Extent { first: 0, blocks: 2048 });
        assert_eq!(published.degraded, None);
        assert!(published.disk.is_some());
        assert_eq!(as_published(&published), as_gpt_reads(&disk));
        assert_eq!(published.partitions.len(), 3);
        let numbers: Vec<u32> = published.partitions.iter().map(|partition| partition.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }
}

#[test]
fn names_are_printable_and_bit_60_means_read_only() {
    let published = survey(&mut Disk::partitioned(512)).unwrap();
    let names: Vec<&str> = published.partitions.iter().map(|partition| partition.name.as_str()).collect();
    // A character outside of UCS-2 takes two units that are no characters.
    assert_eq!(names, ["EFI system", "größe \u{fffd}[0m ∞ \u{fffd}\u{fffd}", &"x".repeat(36)]);
    let read_only: Vec<bool> = published.partitions.iter().map(|partition| partition.read_only).collect();
    assert_eq!(read_only, [false, true, false]);
}

#[test]
fn the_longest_name_fits() {
    let mut disk = Disk::partitioned(512);
    disk.change(1, |entry| entry[56..128].fill(0xE5));
    assert_eq!(survey(&mut disk).unwrap().partitions[0].name.len(), 108);
}

#[test]
fn a_blank_disk_is_published_whole() {
    for blocks in [1, 2, 3, 4, 2048] {
        let published = survey(&mut Disk::blank(512, blocks)).unwrap();
        assert_eq!(published.whole.blocks, blocks as u64);
        assert!(published.partitions.is_empty() && published.disk.is_none() && published.degraded.is_none());
    }
}

#[test]
fn a_disk_with_an_older_table_is_published_whole() {
    let mut disk = Disk::blank(512, 2048);
    disk.bytes[450] = 0x0C;
    disk.bytes[454] = 1;
    disk.bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert!(survey(&mut disk).unwrap().partitions.is_empty());
}

#[test]
fn disks_of_another_shape_are_refused() {
    for (block, blocks) in [(0, 8), (256, 8), (520, 8), (8192, 8)] {
        let mut disk = Disk { bytes: Vec::new(), block, bad: Vec::new() };
        disk.bytes.resize(block * blocks, 0);
        disk.block = block.max(1);
        assert!(matches!(survey(&mut disk), Err(Refused::Shape { .. })));
    }
    assert!(matches!(survey(&mut Disk::blank(512, 0)), Err(Refused::Shape { .. })));
}

#[test]
fn as_many_partitions_as_are_published_and_one_more() {
    let mut disk = Disk::partitioned(512);
    for number in 4..=MAX_PARTITIONS {
        copy_entry(&mut disk, number);
    }
    assert_eq!(survey(&mut disk).unwrap().partitions.len(), MAX_PARTITIONS);
    copy_entry(&mut disk, MAX_PARTITIONS + 1);
    assert_eq!(survey(&mut disk).unwrap_err().to_string(), "more than 32 partitions");
}

#[test]
fn requests_are_bounded_by_their_extent() {
    let extent = Extent { first: 40, blocks: 10 };
    assert_eq!(extent.translate(0, 10), Some(40));
    assert_eq!(extent.translate(9, 1), Some(49));
    for (lba, blocks) in [(0, 0), (10, 0), (10, 1), (0, 11), (9, 2), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(extent.translate(lba, blocks), None, "{lba} {blocks}");
    }
}

fn copy_entry(disk: &mut Disk, number: usize) {
    disk.change(number, |entry| {
        entry[..32].fill(number as u8);
        let at = 1000 + number as u64;
        entry[32..40].copy_from_slice(&at.to_le_bytes());
        entry[40..48].copy_from_slice(&at.to_le_bytes());
    });
}
