//! Whether a job can be done on a disk, before anything is asked of it.
//!
//! What the device says of itself decides: its block size, whether it may be changed, and what it offers. Knows neither
//! queues nor drivers.
use alloc::format;
use alloc::string::String;
use drv_virtio_block::geometry::Geometry;
use workload::params::{Params, SECTOR, Verify};

/// What a device says of its disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Bytes in a logical block.
    pub block_size: u32,
    /// It must not be changed.
    pub read_only: bool,
    /// It offers DISCARD.
    pub discards: bool,
    /// It offers WRITE ZEROES and may deallocate what it makes read as zeros.
    pub zeroes_by_unmapping: bool,
}

impl Disk {
    /// Where nothing is known: sectors, anything else offered.
    pub const UNKNOWN: Self = Self { block_size: SECTOR, read_only: false, discards: true, zeroes_by_unmapping: true };
}

impl From<&Geometry> for Disk {
    fn from(geometry: &Geometry) -> Self {
        Self {
            block_size: geometry.block_size,
            read_only: geometry.read_only,
            discards: geometry.discard.is_some(),
            zeroes_by_unmapping: geometry.write_zeroes.is_some_and(|limits| limits.may_unmap),
        }
    }
}

/// Refuses what `disk` cannot do.
///
/// # Errors
/// The first thing, in one line that says what to do.
pub fn check(params: &Params, disk: &Disk) -> Result<(), String> {
    let rw = params.rw;
    if disk.read_only && rw.changes() {
        return Err(format!(
            "the disk is read-only and rw={rw} changes it: use rw=randread, or a disk that is writable"
        ));
    }
    if params.scenario.as_str() != "none" {
        // Scenarios know what they ask for.
        return Ok(());
    }
    let block = disk.block_size;
    if let Some(split) = params.bssplit.iter().find(|split| !split.bytes.is_multiple_of(block)) {
        let bytes = split.bytes;
        return Err(format!("bs={bytes} is not a multiple of the device's blocks of {block} bytes: give bs={block}"));
    }
    if rw.trims() && params.verify == Verify::Crc32c && !disk.zeroes_by_unmapping {
        return Err(format!(
            "rw={rw} under verify needs a device whose trimmed blocks read as zeros, by WRITE ZEROES with unmap (a \
             DISCARD promises nothing), and this one does not offer it: leave verify out, or use rw=randwrite"
        ));
    }
    if rw.trims() && params.verify == Verify::None && !disk.discards {
        return Err(format!(
            "the device does not offer DISCARD: rw={rw} needs it; use rw=randwrite, or another device"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str, disk: Disk) -> Option<String> {
        check(&Params::parse(&format!("number_ios=1 {words}")).unwrap(), &disk).err()
    }

    #[test]
    fn a_block_that_is_no_multiple_of_the_devices_is_refused_with_one_that_is() {
        let large = Disk { block_size: 4096, ..Disk::UNKNOWN };
        for (words, bytes) in [("bs=512", 512), ("bs=6k", 6144), ("bssplit=8k/50:2k/50", 2048)] {
            for rw in ["read", "randwrite", "trim"] {
                let said = said(&format!("rw={rw} {words}"), large).expect(words);
                assert!(said.starts_with(&format!("bs={bytes} is not")) && said.ends_with("give bs=4096"), "{said}");
            }
        }
        for words in ["bs=4k", "bs=64k", "bssplit=4k/50:128k/50"] {
            assert_eq!(said(words, large), None);
        }
        assert_eq!(said("bs=512", Disk::UNKNOWN), None);
    }

    #[test]
    fn a_trim_needs_discard_and_under_verify_write_zeroes_that_may_unmap() {
        let only_discard = Disk { zeroes_by_unmapping: false, ..Disk::UNKNOWN };
        let only_zeroes = Disk { discards: false, ..Disk::UNKNOWN };
        for rw in ["trim", "randtrim"] {
            let words = [format!("rw={rw}"), format!("rw={rw} verify=crc32c")];
            assert_eq!(said(&words[0], only_discard), None);
            assert!(said(&words[0], only_zeroes).unwrap().contains("does not offer DISCARD"));
            assert_eq!(said(&words[1], only_zeroes), None);
            let said = said(&words[1], only_discard).unwrap();
            assert!(said.contains("WRITE ZEROES") && said.contains("leave verify out"), "{said}");
        }
        assert_eq!(said("rw=randrw verify=crc32c", Disk { discards: false, ..only_discard }), None);
    }

    #[test]
    fn whatever_changes_a_read_only_disk_is_refused() {
        let kept = Disk { read_only: true, ..Disk::UNKNOWN };
        for rw in ["write", "randwrite", "rw", "randrw", "trim", "randtrim"] {
            for verify in ["none", "crc32c"] {
                let said = said(&format!("rw={rw} verify={verify}"), kept).unwrap();
                assert!(said.contains("read-only") && said.contains(&format!("rw={rw} ")), "{said}");
            }
        }
        assert_eq!(said("rw=randread", kept), None);
    }
}
