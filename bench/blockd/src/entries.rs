//! The entries of the table: read once, summed and kept in the same pass.
//!
//! It refuses to know where a believable header comes from. Invariants: an entry that is kept was part of the bytes
//! whose checksum was compared; kept partitions lie in the usable blocks, are disjoint, and differ in their GUID; what
//! is wrong with an entry counts only once the checksum says that it was meant. UEFI 2.10, section 5.3.3.
use crate::header::{CRC, Facts};
use crate::media::{Media, Reader};
use crate::refused::{Fault, Wrong};
use crate::survey::{Extent, MAX_PARTITIONS, Name, Partition};
use arrayvec::ArrayVec;
use gpt_disk_types::GptPartitionEntry;

const FIELDS: usize = size_of::<GptPartitionEntry>();
/// Bits 48 to 63 belong to the partition type. Basic data and the discoverable Linux types mean read-only by this one;
/// for a type that means something else by it, read-only is the answer that does no harm.
const READ_ONLY: u64 = 1 << 60;

/// What a pass over the entries found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) partitions: ArrayVec<Partition, MAX_PARTITIONS>,
    pub(crate) wrong: Option<Wrong>,
}

/// Whether the entries from `lba` on lie on the disk, as those of its own table do and those of another may not.
pub(crate) fn are_inside<M: Media>(facts: &Facts, lba: u64, reader: &Reader<'_, M>) -> bool {
    lba + facts.entries_bytes().div_ceil(reader.block_size()) as u64 <= reader.blocks()
}

/// Reads the entries from `lba` on and compares their checksum; keeps the used ones in `found` if there is one.
pub(crate) fn read<M: Media>(
    reader: &mut Reader<'_, M>,
    facts: &Facts,
    lba: u64,
    mut found: Option<&mut Found>,
) -> Result<(), Fault<M::Error>> {
    let mut digest = CRC.digest();
    let mut left = facts.entries_bytes();
    let mut number = 0;
    for at in lba.. {
        let length = left.min(reader.block_size());
        let bytes = &reader.block(at).map_err(Fault::Read)?[..length];
        digest.update(bytes);
        for entry in bytes.chunks_exact(facts.entry_size as usize) {
            number += 1;
            let entry: GptPartitionEntry = bytemuck::pod_read_unaligned(&entry[..FIELDS]);
            if let Some(found) = found.as_deref_mut().filter(|_| entry.is_used()) {
                found.keep(number, &entry, facts);
            }
        }
        left -= length;
        if left == 0 {
            break;
        }
    }
    if digest.finalize() == facts.entries_crc { Ok(()) } else { Err(Fault::EntriesCrc) }
}

impl Found {
    fn keep(&mut self, number: u32, entry: &GptPartitionEntry, facts: &Facts) {
        let kept = partition(number, entry, facts).and_then(|partition| {
            self.apart(&partition)?;
            self.partitions.try_push(partition).map_err(|_| Wrong::TooMany)
        });
        if let Err(wrong) = kept {
            self.wrong.get_or_insert(wrong);
        }
    }

    /// Whether a partition has nothing in common with those already kept.
    fn apart(&self, new: &Partition) -> Result<(), Wrong> {
        for old in &self.partitions {
            let (first, second) = (old.number, new.number);
            if old.extent.overlaps(new.extent) {
                return Err(Wrong::Overlap { first, second });
            }
            if old.unique == new.unique {
                return Err(Wrong::SameGuid { first, second });
            }
        }
        Ok(())
    }
}

fn partition(number: u32, entry: &GptPartitionEntry, facts: &Facts) -> Result<Partition, Wrong> {
    let (first, last) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
    if first > last {
        return Err(Wrong::Reversed(number));
    }
    if first < facts.first_usable || last > facts.last_usable {
        return Err(Wrong::Outside(number));
    }
    let mut name = Name::new();
    for char in { entry.name }.chars() {
        // A name ends up in one-line messages. It fits: 36 characters of the basic plane take three bytes at most.
        name.push(if char.is_control() { char::REPLACEMENT_CHARACTER } else { char });
    }
    Ok(Partition {
        number,
        name,
        kind: { entry.partition_type_guid }.0,
        unique: entry.unique_partition_guid,
        extent: Extent { first, blocks: last - first + 1 },
        read_only: { entry.attributes }.0.to_u64() & READ_ONLY != 0,
    })
}
