//! The master boot record: whether it says that the disk belongs to a GUID partition table.
//!
//! It refuses to know older partition tables: a disk that has one is a disk without partitions to this blockd.
//! Invariant: a record that announces a GUID partition table and names any other partition is an error, never a guess,
//! because whoever follows the other half sees another disk. What else it says of the table decides nothing: tools write
//! sizes of 0, of all ones, of one sector too many and of an earlier disk, other beginnings, any cylinders, a bootable
//! flag, and a slot other than the first. The two copies of the table are checked and say where they are.
//! UEFI 2.10, section 5.2.3.
use gpt_disk_types::MasterBootRecord;

/// Covers the whole disk, and keeps those away who know nothing of GUID partition tables.
const PROTECTIVE: u8 = 0xEE;
const BYTES: usize = size_of::<MasterBootRecord>();

/// Whether `block` protects a GUID partition table; an error tells what else it says.
pub(crate) fn is_protective(block: &[u8]) -> Result<bool, &'static str> {
    let record: MasterBootRecord = bytemuck::pod_read_unaligned(&block[..BYTES]);
    let is_of = |kind: fn(u8) -> bool| record.partitions.iter().filter(|entry| kind(entry.os_indicator)).count();
    if record.signature != [0x55, 0xAA] || is_of(|kind| kind == PROTECTIVE) == 0 {
        return Ok(false);
    }
    if is_of(|kind| kind != 0) == 1 { Ok(true) } else { Err("it names other partitions") }
}
