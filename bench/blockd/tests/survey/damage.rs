//! Each damage by itself: to one copy (the other serves), to both, and to what a sound table says.
use crate::disk::{Disk, as_published, field};
use blockd::refused::{Fault, Refused, Wrong};
use blockd::survey;
use blockd::survey::Side;
use std::ops::Range;

const BLOCKS: [usize; 2] = [512, 4096];

/// Damages one copy, the other, and both.
fn costs(damage: impl Fn(&mut Disk, u64), fault: impl Fn(Side) -> Fault<&'static str>) {
    for block in BLOCKS {
        let sound = survey(&mut Disk::partitioned(block)).unwrap();
        for side in [Side::Primary, Side::Backup] {
            let mut disk = Disk::partitioned(block);
            let before = as_published(&survey(&mut disk).unwrap());
            let lba = if side == Side::Primary { 1 } else { disk.last() };
            damage(&mut disk, lba);
            let published = survey(&mut disk).unwrap();
            assert_eq!(published.degraded, Some(side));
            assert_eq!(as_published(&published), before);
            assert_eq!(published.whole, sound.whole);
        }
        let mut disk = Disk::partitioned(block);
        damage(&mut disk, 1);
        let last = disk.last();
        damage(&mut disk, last);
        let (primary, backup) = (fault(Side::Primary), fault(Side::Backup));
        let refused = survey(&mut disk).unwrap_err();
        assert_eq!(refused, Refused::NoGoodCopy { primary, backup });
        assert_eq!(refused.to_string().lines().count(), 1);
    }
}

/// A field with a value that its checksum vouches for.
fn field_costs(field: &Range<usize>, value: u64, fault: &Fault<&'static str>) {
    costs(|disk, lba| disk.set(lba, field.clone(), value), |_| fault.clone());
}

#[test]
fn a_header_that_is_not_what_was_summed() {
    costs(|disk, lba| disk.header(lba)[60] ^= 1, |_| Fault::HeaderCrc);
}

#[test]
fn a_header_that_is_gone() {
    costs(|disk, lba| disk.header(lba).fill(0), |_| Fault::Signature);
}

#[test]
fn a_header_that_cannot_be_read() {
    costs(|disk, lba| disk.bad.push(lba), |_| Fault::Read("medium error"));
}

#[test]
fn entries_that_cannot_be_read() {
    let damage = |disk: &mut Disk, lba| {
        let entries = disk.number(lba, field::ENTRIES_LBA);
        disk.bad.push(entries);
    };
    costs(damage, |_| Fault::Read("medium error"));
}

#[test]
fn entries_that_are_not_what_was_summed() {
    costs(|disk, lba| disk.entries(lba)[40] ^= 1, |_| Fault::EntriesCrc);
    costs(|disk, lba| *disk.entries(lba).last_mut().unwrap() ^= 0x80, |_| Fault::EntriesCrc);
}

#[test]
fn a_header_of_another_kind() {
    field_costs(&field::REVISION, 0x0002_0000, &Fault::Revision);
    field_costs(&field::RESERVED, 1, &Fault::Reserved);
    for size in [0, 91, 4097, u64::from(u32::MAX)] {
        field_costs(&field::HEADER_SIZE, size, &Fault::HeaderSize(size as u32));
    }
}

#[test]
fn a_longer_header_is_summed_whole() {
    let mut disk = Disk::partitioned(512);
    for lba in [1, disk.last()] {
        disk.header(lba)[400] = 7;
        disk.set(lba, field::HEADER_SIZE, 512);
    }
    assert_eq!(survey(&mut disk).unwrap().degraded, None);
    disk.header(1)[400] = 8;
    assert_eq!(survey(&mut disk).unwrap().degraded, Some(Side::Primary));
}

#[test]
fn a_header_that_names_other_places() {
    for lba in [0, 2, 700, u64::MAX] {
        field_costs(&field::MY_LBA, lba, &Fault::MyLba(lba));
        field_costs(&field::ALTERNATE_LBA, lba, &Fault::AlternateLba(lba));
    }
}

#[test]
fn a_primary_alternate_that_is_nonsense_leaves_the_backup() {
    let mut disk = Disk::partitioned(512);
    disk.set(1, field::ALTERNATE_LBA, 0xDEAD_BEEF_DEAD_BEEF);
    assert_eq!(survey(&mut disk).unwrap().degraded, Some(Side::Primary));
}

#[test]
fn entries_of_absurd_sizes() {
    for size in [0, 1, 64, 127, 129, 384, 1024, 1 << 31, u64::from(u32::MAX)] {
        field_costs(&field::ENTRY_SIZE, size, &Fault::EntrySize(size as u32));
    }
}

#[test]
fn absurd_numbers_of_entries() {
    for count in [0, 1025, 1 << 25, u64::from(u32::MAX)] {
        field_costs(&field::ENTRIES, count, &Fault::EntryCount(count as u32));
    }
    // Not absurd by itself, but more than there is room for.
    field_costs(&field::ENTRIES, 1024, &Fault::EntriesPlace);
}

#[test]
fn entries_out_of_place() {
    for lba in [0, 1, 500, 2047, 2048, u64::MAX] {
        field_costs(&field::ENTRIES_LBA, lba, &Fault::EntriesPlace);
    }
}

#[test]
fn usable_blocks_where_none_can_be() {
    for first in [0, 1, 2047, u64::MAX] {
        field_costs(&field::FIRST_USABLE, first, &Fault::Usable);
    }
    for last in [0, 2047, 2048, u64::MAX] {
        field_costs(&field::LAST_USABLE, last, &Fault::Usable);
    }
}

#[test]
fn partitions_that_contradict_the_table_publish_nothing() {
    for block in BLOCKS {
        let sound = survey(&mut Disk::partitioned(block)).unwrap();
        let first = sound.partitions[0].extent;
        let usable = Disk::partitioned(block).number(1, field::LAST_USABLE);
        let cases = [
            (first.first + first.blocks - 1, 900, Wrong::Overlap { first: 1, second: 2 }),
            (first.first, first.first, Wrong::Overlap { first: 1, second: 2 }),
            (901, 900, Wrong::Reversed(2)),
            (900, usable + 1, Wrong::Outside(2)),
            (900, 2047, Wrong::Outside(2)),
            (900, u64::MAX, Wrong::Outside(2)),
            (1 << 40, 1 << 41, Wrong::Outside(2)),
            (1, 1, Wrong::Outside(2)),
            (0, u64::MAX, Wrong::Outside(2)),
        ];
        for (from, to, wrong) in cases {
            let mut disk = Disk::partitioned(block);
            disk.place(2, from, to);
            assert_eq!(survey(&mut disk).unwrap_err(), Refused::Table(wrong), "{from} to {to}");
            // Just as closed when only one copy is left to say it.
            disk.header(1).fill(0);
            assert_eq!(survey(&mut disk).unwrap_err(), Refused::Table(wrong), "{from} to {to}, backup");
        }
    }
}

#[test]
fn two_partitions_of_one_name_publish_nothing() {
    let mut disk = Disk::partitioned(512);
    for number in [1, 3] {
        disk.change(number, |entry| entry[16..32].fill(9));
    }
    let refused = survey(&mut disk).unwrap_err();
    assert_eq!(refused, Refused::Table(Wrong::SameGuid { first: 1, second: 3 }));
}

#[test]
fn sound_copies_that_differ_publish_nothing() {
    let mut disk = Disk::partitioned(512);
    disk.entries(1)[32] ^= 1;
    disk.sign_entries(1);
    assert_eq!(survey(&mut disk).unwrap_err(), Refused::CopiesDiffer);
}

#[test]
fn a_table_without_protection_publishes_nothing() {
    for lba in [1, 2047] {
        let mut disk = Disk::partitioned(512);
        disk.header(0).fill(0);
        assert_eq!(survey(&mut disk).unwrap_err(), Refused::Unprotected);
        disk.header(2048 - lba).fill(0);
        assert_eq!(survey(&mut disk).unwrap_err(), Refused::Unprotected, "header at {lba} left");
        disk.bad.push(lba);
        assert_eq!(survey(&mut disk).unwrap_err(), Refused::Media("medium error"));
    }
}

#[test]
fn protection_without_a_table_publishes_nothing() {
    let mut disk = Disk::partitioned(512);
    disk.bytes[512..].fill(0);
    let none = || Fault::Signature;
    assert_eq!(survey(&mut disk).unwrap_err(), Refused::NoGoodCopy { primary: none(), backup: none() });
    disk.bytes.truncate(3 * 512);
    disk.bytes[458..462].copy_from_slice(&2u32.to_le_bytes());
    assert_eq!(survey(&mut disk).unwrap_err(), Refused::NoRoom);
}

type Spoil = fn(&mut [u8]);

/// The size of a protective record's only partition, in its first slot.
fn size(record: &mut [u8], blocks: u32) {
    record[458..462].copy_from_slice(&blocks.to_le_bytes());
}

#[test]
fn a_record_that_names_other_partitions_beside_the_protective_one_publishes_nothing() {
    let spoil: [Spoil; 4] = [
        |record| record[466] = 0x0C,
        |record| record[466] = 0xEE,
        |record| record[498] = 0x83,
        |record| (record[450], record[466]) = (0x07, 0xEE),
    ];
    for spoil in spoil {
        let mut disk = Disk::partitioned(512);
        spoil(disk.header(0));
        assert_eq!(survey(&mut disk).unwrap_err(), Refused::Mbr("it names other partitions"));
    }
    let mut disk = Disk::partitioned(512);
    disk.bad.push(0);
    assert_eq!(survey(&mut disk).unwrap_err(), Refused::Media("medium error"));
}

/// What tools make of a protective record, and machines that look at it.
const ODD_RECORDS: [(&str, Spoil); 13] = [
    ("no size", |record| size(record, 0)),
    ("one sector too many", |record| size(record, 2048)),
    ("a size of all ones on a small disk", |record| size(record, u32::MAX)),
    ("the size of a larger disk", |record| size(record, 1 << 20)),
    ("the size of a smaller disk", |record| size(record, 512)),
    ("a size of one", |record| size(record, 1)),
    ("no beginning", |record| record[454..458].fill(0)),
    ("another beginning", |record| record[454] = 63),
    ("no cylinders", |record| (record[447..450].fill(0), record[451..454].fill(0)).0),
    ("cylinders of all ones", |record| (record[447..450].fill(0xFF), record[451..454].fill(0xFF)).0),
    ("a bootable flag", |record| record[446] = 0x80),
    ("boot code and a signature of the disk", |record| record[..446].fill(0x5A)),
    ("another slot, and a bootable one of no type", |record| {
        record.copy_within(446..462, 462);
        record[446..462].fill(0);
        (record[446], record[458]) = (0x80, 1);
    }),
];

#[test]
fn whatever_a_protective_record_says_of_its_place_two_sound_copies_decide() {
    for block in BLOCKS {
        let mut plain = Disk::partitioned(block);
        let sound = survey(&mut plain).unwrap();
        for (what, spoil) in ODD_RECORDS {
            let mut disk = plain.clone();
            spoil(disk.header(0));
            assert_eq!(survey(&mut disk).unwrap(), sound, "{what}");
            // One copy serves as well as it does behind any other record.
            disk.header(1).fill(0);
            assert_eq!(survey(&mut disk).unwrap().degraded, Some(Side::Primary), "{what}");
            let last = disk.last();
            disk.header(last).fill(0);
            assert!(matches!(survey(&mut disk), Err(Refused::NoGoodCopy { .. })), "{what}");
        }
    }
}

#[test]
fn a_disk_that_was_copied_to_a_larger_one_is_told_to_move_its_backup_header() {
    for block in BLOCKS {
        for more in [1, 7, 2048] {
            let mut disk = Disk::partitioned(block);
            disk.bytes.resize((2048 + more) * block, 0);
            let refused = survey(&mut disk).unwrap_err();
            assert_eq!(refused, Refused::Grown { blocks: 2048 + more as u64, before: 2048 });
            let text = refused.to_string();
            assert!(text.contains("larger disk") && text.contains("sgdisk -e"), "{text}");
            // Anything may stand at the new end, but a table of its own.
            disk.bytes[(2047 + more) * block..].fill(0xA5);
            assert_eq!(survey(&mut disk).unwrap_err(), refused);
        }
    }
}

#[test]
fn a_disk_that_was_copied_to_a_smaller_one_is_not_told_to_write_anything() {
    for block in BLOCKS {
        for less in [1, 33, 1024, 2000] {
            let mut disk = Disk::partitioned(block);
            disk.bytes.truncate((2048 - less) * block);
            let refused = survey(&mut disk).unwrap_err();
            assert_eq!(refused, Refused::Shrunk { blocks: 2048 - less as u64, before: 2048 });
            let text = refused.to_string();
            assert!(text.contains("smaller disk") && !text.contains("sgdisk"), "{text}");
        }
    }
}

#[test]
fn a_disk_that_ends_inside_of_its_table_is_not_read_beyond_its_end() {
    for block in BLOCKS {
        let mut disk = Disk::partitioned(block);
        disk.bytes.truncate(5 * block);
        let Err(Refused::NoGoodCopy { primary, .. }) = survey(&mut disk) else { panic!("entries behind the end") };
        assert_eq!(primary, Fault::AlternateLba(2047));
    }
}

#[test]
fn advice_fits_a_line_of_the_report_and_never_says_to_partition_anew() {
    let long = || Fault::<&str>::AlternateLba(u64::MAX);
    let all = [
        Refused::Shape { block_size: u32::MAX, blocks: u64::MAX },
        Refused::Media("medium error"),
        Refused::Mbr("it names other partitions"),
        Refused::Unprotected,
        Refused::NoRoom,
        Refused::Grown { blocks: u64::MAX, before: u64::MAX },
        Refused::Shrunk { blocks: u64::MAX, before: u64::MAX },
        Refused::NoGoodCopy { primary: long(), backup: long() },
        Refused::CopiesDiffer,
        Refused::Table(Wrong::SameGuid { first: u32::MAX, second: u32::MAX }),
    ];
    for refused in all {
        let text = format!("blockd publishes nothing: {refused}");
        assert!(text.len() <= 256 && !text.contains('\n'), "{} bytes: {text}", text.len());
        assert!(!text.contains("anew (") && !text.contains("zap") && !text.contains("partition the disk"), "{text}");
    }
}
