//! Disks that chance, or somebody who knows the checksums, has changed: never a panic, never a device out of bounds.
use crate::disk::{Disk, field};
use blockd::{Media, Published, survey};
use proptest::prelude::*;
use std::sync::LazyLock;

/// Partitioned once: it is copied for each case.
static SOUND: LazyLock<[Disk; 2]> = LazyLock::new(|| [Disk::partitioned(512), Disk::partitioned(4096)]);

fn sound(block: usize) -> Disk {
    SOUND[usize::from(block > 512)].clone()
}

/// Where a change lands: the blocks that a survey reads, at both ends of the disk.
fn places(block: usize) -> impl Strategy<Value = usize> {
    let ends = 34 * 512;
    let end = 2048 * block;
    prop_oneof![0..block * 2, block * 2..block * 2 + ends, end - ends - block..end - block, end - block..end]
}

fn changes(block: usize, most: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((places(block), 1u8..), 1..=most)
}

fn sizes() -> impl Strategy<Value = usize> {
    // The disk of larger blocks is eight times the copy for the same table.
    prop_oneof![7 => Just(512usize), 1 => Just(4096)]
}

fn holds(published: &Published, disk: &Disk) {
    let blocks = disk.blocks();
    assert_eq!((published.whole.first, published.whole.blocks), (0, blocks));
    for (at, partition) in published.partitions.iter().enumerate() {
        let extent = partition.extent;
        assert!(extent.blocks > 0 && extent.first > 0);
        assert!(extent.first.checked_add(extent.blocks).unwrap() < blocks, "{extent:?} of {blocks}");
        assert!(!partition.name.chars().any(char::is_control));
        for other in &published.partitions[at + 1..] {
            let (one, two) = (extent, other.extent);
            assert!(one.first + one.blocks <= two.first || two.first + two.blocks <= one.first, "{one:?} {two:?}");
        }
    }
}

fn one_line<E: std::fmt::Display>(refused: &E) {
    let text = refused.to_string();
    assert!(!text.is_empty() && text.lines().count() == 1, "{text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_publish_out_of_bounds(
        (block, changes) in sizes().prop_flat_map(|block| (Just(block), changes(block, 8))),
    ) {
        let mut disk = sound(block);
        for (at, flip) in changes {
            disk.bytes[at] ^= flip;
        }
        match survey(&mut disk) {
            Ok(published) => holds(&published, &disk),
            Err(refused) => one_line(&refused),
        }
    }

    #[test]
    fn forged_tables_never_publish_out_of_bounds(
        block in sizes(),
        fields in prop::collection::vec((0usize..9, numbers()), 0..3),
        entries in prop::collection::vec((1usize..=40, extents()), 0..6),
        sides in 0u8..4,
    ) {
        let mut disk = sound(block);
        for (number, (first, last)) in entries {
            disk.change(number, |entry| entry[..32].fill(number as u8));
            disk.place(number, first, last);
        }
        let all = [
            field::HEADER_SIZE, field::MY_LBA, field::ALTERNATE_LBA, field::FIRST_USABLE, field::LAST_USABLE,
            field::ENTRIES_LBA, field::ENTRIES, field::ENTRY_SIZE, field::ENTRIES_CRC,
        ];
        for (field, value) in fields {
            for (side, lba) in [(1, 1), (2, disk.last())] {
                if sides & side != 0 {
                    disk.set(lba, all[field].clone(), value);
                }
            }
        }
        match survey(&mut disk) {
            Ok(published) => holds(&published, &disk),
            Err(refused) => one_line(&refused),
        }
    }
}

/// Numbers near every edge that there is, and any.
fn numbers() -> impl Strategy<Value = u64> {
    let edges = vec![0, 1, 2, 34, 128, 512, 1024, 2014, 2047, 2048, u64::MAX >> 32, 1 << 31, u64::MAX - 1, u64::MAX];
    prop_oneof![prop::sample::select(edges), 30u64..2020, any::<u64>()]
}

/// Places of which many are good, so that the others are seen beside them.
fn extents() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![(numbers(), numbers()), (30u64..2020, 0u64..64).prop_map(|(first, more)| (first, first + more))]
}
