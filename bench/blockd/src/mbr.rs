//! The master boot record: whether it says that the disk belongs to a GUID partition table.
//!
//! It refuses to know older partition tables: a disk that has one is a disk without partitions to this blockd.
//! Invariant: a record that announces a GUID partition table and anything besides is an error, never a guess, because
//! whoever follows the other half sees another disk. UEFI 2.10, section 5.2.3.
use gpt_disk_types::MasterBootRecord;

/// Covers the whole disk, and keeps those away who know nothing of GUID partition tables.
const PROTECTIVE: u8 = 0xEE;
const BYTES: usize = size_of::<MasterBootRecord>();

/// Whether `block` protects a GUID partition table on a disk of `blocks`; an error tells what else it says.
pub(crate) fn is_protective(block: &[u8], blocks: u64) -> Result<bool, &'static str> {
    let record: MasterBootRecord = bytemuck::pod_read_unaligned(&block[..BYTES]);
    let Some(protective) = record.partitions.iter().find(|partition| partition.os_indicator == PROTECTIVE) else {
        return Ok(false);
    };
    if record.signature != [0x55, 0xAA] {
        return Ok(false);
    }
    if record.partitions.iter().filter(|partition| partition.os_indicator != 0).count() != 1 {
        return Err("it names other partitions");
    }
    if protective.starting_lba.to_u32() != 1 {
        return Err("it does not begin at block 1");
    }
    let size = protective.size_in_lba.to_u32();
    // All ones: the disk is larger than the field. Less than the disk is seen in the field, and protects what it can.
    if size == 0 || (size != u32::MAX && u64::from(size) >= blocks) {
        return Err("it does not end within the disk");
    }
    Ok(true)
}
