//! Disks in memory, partitioned by the crate `gpt`, and what it takes to spoil one on purpose.
use blockd::survey::Guid;
use blockd::{Media, Published};
use crc::{CRC_32_ISO_HDLC, Crc};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BASIC, EFI, LINUX_FS};
use std::io::Cursor;
use std::ops::Range;

pub(crate) const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
pub(crate) const READ_ONLY: u64 = 1 << 60;

/// Where a header keeps its fields (UEFI 2.10, table 5.5).
pub(crate) mod field {
    use std::ops::Range;
    pub(crate) const REVISION: Range<usize> = 8..12;
    pub(crate) const HEADER_SIZE: Range<usize> = 12..16;
    pub(crate) const HEADER_CRC: Range<usize> = 16..20;
    pub(crate) const RESERVED: Range<usize> = 20..24;
    pub(crate) const MY_LBA: Range<usize> = 24..32;
    pub(crate) const ALTERNATE_LBA: Range<usize> = 32..40;
    pub(crate) const FIRST_USABLE: Range<usize> = 40..48;
    pub(crate) const LAST_USABLE: Range<usize> = 48..56;
    pub(crate) const ENTRIES_LBA: Range<usize> = 72..80;
    pub(crate) const ENTRIES: Range<usize> = 80..84;
    pub(crate) const ENTRY_SIZE: Range<usize> = 84..88;
    pub(crate) const ENTRIES_CRC: Range<usize> = 88..92;
}

/// A disk in memory; blocks named as bad cannot be read.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) block: usize,
    pub(crate) bad: Vec<u64>,
}

impl Media for Disk {
    type Error = &'static str;

    fn block_size(&self) -> u32 {
        self.block as u32
    }
    fn blocks(&self) -> u64 {
        (self.bytes.len() / self.block) as u64
    }
    fn read(&mut self, lba: u64, blocks_of_data: &mut [u8]) -> Result<(), Self::Error> {
        assert!(blocks_of_data.len().is_multiple_of(self.block), "whole blocks");
        if self.bad.contains(&lba) {
            return Err("medium error");
        }
        let at = lba as usize * self.block;
        blocks_of_data.copy_from_slice(&self.bytes[at..at + blocks_of_data.len()]);
        Ok(())
    }
}

impl Disk {
    pub(crate) fn blank(block: usize, blocks: usize) -> Self {
        Self { bytes: vec![0; block * blocks], block, bad: Vec::new() }
    }

    /// Three partitions, one of them read-only.
    pub(crate) fn partitioned(block: usize) -> Self {
        let mut disk = Self::blank(block, 2048);
        let size = LogicalBlockSize::try_from(block as u64).unwrap();
        let mut device = Cursor::new(&mut disk.bytes);
        ProtectiveMBR::with_lb_size(2047).overwrite_lba0(&mut device).unwrap();
        let mut table =
            gpt::GptConfig::new().writable(true).logical_block_size(size).create_from_device(device, None).unwrap();
        let bytes = |blocks: u64| blocks * block as u64;
        table.add_partition("EFI system", bytes(64), EFI, 0, None).unwrap();
        table.add_partition("größe \u{1b}[0m ∞ 𝕏", bytes(100), BASIC, READ_ONLY, Some(64)).unwrap();
        table.add_partition("x".repeat(36).as_str(), bytes(1), LINUX_FS, 0, None).unwrap();
        table.write().unwrap();
        disk
    }

    pub(crate) fn last(&self) -> u64 {
        self.blocks() - 1
    }

    pub(crate) fn header(&mut self, lba: u64) -> &mut [u8] {
        let at = lba as usize * self.block;
        &mut self.bytes[at..at + self.block]
    }

    pub(crate) fn number(&mut self, lba: u64, field: Range<usize>) -> u64 {
        let mut bytes = [0; 8];
        bytes[..field.len()].copy_from_slice(&self.header(lba)[field]);
        u64::from_le_bytes(bytes)
    }

    /// Writes a field of a header and makes the header's checksum right again.
    pub(crate) fn set(&mut self, lba: u64, field: Range<usize>, value: u64) {
        let length = field.len();
        self.header(lba)[field].copy_from_slice(&value.to_le_bytes()[..length]);
        self.sign(lba);
    }

    pub(crate) fn sign(&mut self, lba: u64) {
        let header = self.header(lba);
        header[field::HEADER_CRC].fill(0);
        let size = u32::from_le_bytes(header[field::HEADER_SIZE].try_into().unwrap()) as usize;
        let crc = CRC.checksum(&header[..size.min(header.len())]);
        header[field::HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn entries(&mut self, lba: u64) -> &mut [u8] {
        let at = self.number(lba, field::ENTRIES_LBA) as usize * self.block;
        let length = (self.number(lba, field::ENTRIES) * self.number(lba, field::ENTRY_SIZE)) as usize;
        &mut self.bytes[at..at + length]
    }

    /// Changes an entry, counted from 1, in both copies, and makes all checksums right again.
    pub(crate) fn change(&mut self, number: usize, change: impl Fn(&mut [u8])) {
        for lba in [1, self.last()] {
            change(&mut self.entries(lba)[(number - 1) * 128..number * 128]);
            self.sign_entries(lba);
        }
    }

    pub(crate) fn sign_entries(&mut self, lba: u64) {
        let crc = CRC.checksum(self.entries(lba));
        self.set(lba, field::ENTRIES_CRC, crc.into());
    }

    /// Places an entry, counted from 1, in both copies.
    pub(crate) fn place(&mut self, number: usize, first: u64, last: u64) {
        self.change(number, |entry| {
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        });
    }
}

/// What the independent partitioner reads from the same disk.
pub(crate) fn as_gpt_reads(disk: &Disk) -> Vec<(u64, u64, String, String)> {
    let size = LogicalBlockSize::try_from(disk.block as u64).unwrap();
    let device = Cursor::new(disk.bytes.clone());
    let table = gpt::GptConfig::new().logical_block_size(size).open_from_device(device).unwrap();
    let used = table.partitions().values().filter(|partition| partition.is_used());
    used.map(|partition| {
        let kind = partition.part_type_guid.guid.to_string();
        (partition.first_lba, partition.last_lba, kind, partition.part_guid.to_string())
    })
    .collect()
}

pub(crate) fn as_published(published: &Published) -> Vec<(u64, u64, String, String)> {
    let text = |guid: Guid| guid.to_string();
    let partitions = published.partitions.iter();
    partitions
        .map(|partition| {
            let extent = partition.extent;
            (extent.first, extent.first + extent.blocks - 1, text(partition.kind), text(partition.unique))
        })
        .collect()
}
