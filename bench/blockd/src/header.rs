//! A header of the table: whether one copy can be believed.
//!
//! It refuses to know what the entries say. Invariants: the checksum is taken over the bytes as they stand on the disk
//! and before anything but the length is believed; every number that becomes an address or a loop bound is held here,
//! and a header that passes describes entries that lie inside the disk, clear of the headers and of the usable blocks.
//! UEFI 2.10, section 5.3.2.
use crate::refused::Fault;
use crate::survey::Side;
use gpt_disk_types::crc::Crc;
use gpt_disk_types::{Crc32, GptHeader, GptHeaderRevision, Guid};

/// Entries in a table at most: eight times what partitioners write.
pub const MAX_ENTRIES: u32 = 1024;
/// Bytes in an entry at most: no entry ever straddles two blocks.
pub const MAX_ENTRY: u32 = 512;

pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&Crc32::ALGORITHM);

const FIELDS: usize = size_of::<GptHeader>();
const CRC_FIELD: core::ops::Range<usize> = 16..20;

/// What a header says that is the same in both copies. Equal facts mean the same table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) disk: Guid,
    pub(crate) first_usable: u64,
    pub(crate) last_usable: u64,
    pub(crate) entries: u32,
    pub(crate) entry_size: u32,
    pub(crate) entries_crc: u32,
}

impl Facts {
    /// Bytes that all entries take. Both factors are bounded, so it cannot overflow.
    pub(crate) fn entries_bytes(&self) -> usize {
        (self.entries * self.entry_size) as usize
    }
}

/// Whether a block begins as a header does, however broken the rest.
pub(crate) fn is_signed(block: &[u8]) -> bool {
    fields(block).is_signature_valid()
}

/// Holds the header of one side in `block` against a disk of `blocks`; tells also where its entries begin.
pub(crate) fn check<E>(block: &[u8], side: Side, blocks: u64) -> Result<(Facts, u64), Fault<E>> {
    let header = fields(block);
    if !header.is_signature_valid() {
        return Err(Fault::Signature);
    }
    let length = header.header_size.to_u32();
    if !(FIELDS..=block.len()).contains(&(length as usize)) {
        return Err(Fault::HeaderSize(length));
    }
    if checksum(&block[..length as usize]) != header.header_crc32.0.to_u32() {
        return Err(Fault::HeaderCrc);
    }
    if { header.revision } != GptHeaderRevision::VERSION_1_0 {
        return Err(Fault::Revision);
    }
    if header.reserved.to_u32() != 0 {
        return Err(Fault::Reserved);
    }
    let (mine, other) = side.places(blocks);
    if header.my_lba.to_u64() != mine {
        return Err(Fault::MyLba(header.my_lba.to_u64()));
    }
    if header.alternate_lba.to_u64() != other {
        return Err(Fault::AlternateLba(header.alternate_lba.to_u64()));
    }
    let facts = Facts {
        disk: header.disk_guid,
        first_usable: header.first_usable_lba.to_u64(),
        last_usable: header.last_usable_lba.to_u64(),
        entries: header.number_of_partition_entries.to_u32(),
        entry_size: header.size_of_partition_entry.to_u32(),
        entries_crc: header.partition_entry_array_crc32.0.to_u32(),
    };
    let lba = header.partition_entry_lba.to_u64();
    bounds(&facts, lba, side, block.len(), blocks)?;
    Ok((facts, lba))
}

/// What the header says about sizes and places.
fn bounds<E>(facts: &Facts, lba: u64, side: Side, block_size: usize, blocks: u64) -> Result<(), Fault<E>> {
    if !facts.entry_size.is_power_of_two() || !(128..=MAX_ENTRY).contains(&facts.entry_size) {
        return Err(Fault::EntrySize(facts.entry_size));
    }
    if !(1..=MAX_ENTRIES).contains(&facts.entries) {
        return Err(Fault::EntryCount(facts.entries));
    }
    let last = blocks - 1;
    if facts.first_usable <= 1 || facts.first_usable > facts.last_usable || facts.last_usable >= last {
        return Err(Fault::Usable);
    }
    let (after, before) = match side {
        Side::Primary => (1, facts.first_usable),
        Side::Backup => (facts.last_usable, last),
    };
    let length = facts.entries_bytes().div_ceil(block_size) as u64;
    match lba.checked_add(length) {
        Some(end) if lba > after && end <= before => Ok(()),
        _ => Err(Fault::EntriesPlace),
    }
}

/// The checksum covers the whole header, with its own field as zeros; a later header may be longer than the fields.
fn checksum(header: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&header[..CRC_FIELD.start]);
    digest.update(&[0; CRC_FIELD.end - CRC_FIELD.start]);
    digest.update(&header[CRC_FIELD.end..]);
    digest.finalize()
}

fn fields(block: &[u8]) -> GptHeader {
    bytemuck::pod_read_unaligned(&block[..FIELDS])
}
