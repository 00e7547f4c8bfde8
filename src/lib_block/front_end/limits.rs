//! What the device allows, as sessions look at it: block sizes as shifts, the largest request, operations on offer.
use crate::geometry::{Geometry, RangeLimits};
use crate::lib_block::entry::Operation;
use crate::lib_block::message::Info;
use crate::lib_block::{MAX_PIECES, Status};
use crate::spec::SECTOR_SHIFT;

/// Most bytes in one request: what a client asks for at once delays others by as much.
pub const MAX_BYTES: u64 = 1 << 20;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Blocks to bytes.
    pub(super) block_shift: u32,
    /// Blocks to sectors.
    pub(super) sector_shift: u32,
    /// Most blocks in one request with data.
    pub(super) max_blocks: u64,
    /// Most bytes in one piece that the device takes as it is.
    pub(super) max_piece: u64,
    pub(super) read_only: bool,
    pub(super) discard: Option<RangeLimits>,
    pub(super) write_zeroes: Option<RangeLimits>,
}

impl Limits {
    pub(super) fn of(geometry: &Geometry) -> Self {
        // A geometry that is no device's may say anything; a queue is laid out for a real block size only.
        let block_shift = geometry.block_size.trailing_zeros().clamp(SECTOR_SHIFT, MAX_BYTES.trailing_zeros());
        Self {
            block_shift,
            sector_shift: block_shift - SECTOR_SHIFT,
            max_blocks: MAX_BYTES >> block_shift,
            max_piece: geometry.size_max.into(),
            read_only: geometry.read_only,
            discard: geometry.discard,
            write_zeroes: geometry.write_zeroes,
        }
    }

    /// Whether the medium takes such requests at all.
    pub(super) fn supports(&self, operation: Operation) -> Result<(), Status> {
        let changes = matches!(operation, Operation::Write | Operation::Discard | Operation::WriteZeroes);
        if changes && self.read_only {
            return Err(Status::ReadOnly);
        }
        match operation {
            Operation::Discard if self.discard.is_none() => Err(Status::Unsupported),
            Operation::WriteZeroes if self.write_zeroes.is_none() => Err(Status::Unsupported),
            _ => Ok(()),
        }
    }

    /// How many of `sectors` from `sector` on go into one DISCARD or WRITE ZEROES.
    pub(super) fn share(&self, operation: Operation, sector: u64, sectors: u64) -> u32 {
        let limits = if operation == Operation::Discard { self.discard } else { self.write_zeroes };
        let Some(limits) = limits else { return sectors.min(u64::from(u32::MAX)) as u32 };
        let most = u64::from(limits.max_sectors);
        if sectors <= most {
            return sectors as u32;
        }
        // Inside the range, which ends on the medium; a range that does not is refused by the queue.
        let beyond = sector.wrapping_add(most) % u64::from(limits.alignment.max(1));
        let whole = if beyond < most { most - beyond } else { most };
        // A device whose limit is below its own block: the queue cuts what is left.
        (whole >> self.sector_shift << self.sector_shift).max(1 << self.sector_shift) as u32
    }

    /// What GET INFO says of a session with `blocks`.
    pub(super) fn info(
        &self,
        geometry: &Geometry,
        blocks: u64,
        generation: u32,
        epoch: u32,
        identity: [u8; 20],
    ) -> Info {
        let traits = [
            (geometry.read_only, Info::READ_ONLY),
            (geometry.writeback, Info::WRITE_CACHE),
            (self.discard.is_some(), Info::DISCARD),
            (self.write_zeroes.is_some(), Info::WRITE_ZEROES),
        ];
        Info {
            blocks,
            block_size: geometry.block_size,
            max_blocks: self.max_blocks as u32,
            max_pieces: MAX_PIECES as u16,
            traits: traits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum(),
            generation,
            epoch,
            features: geometry.features.0,
            identity,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::plain::Facts;
    use super::*;

    const NUMBERS: [u64; 7] = [0, 1, 8, 1 << 20, 1 << 32, u64::MAX - 1, u64::MAX];

    #[test]
    fn sessions_of_the_largest_medium_have_facts_as_any_other() {
        for size in [0, 1, 3, 512, 4096, 1 << 16, 1 << 31, u32::MAX] {
            let mut disk = Geometry::plain(u64::MAX);
            (disk.block_size, disk.size_max) = (size, size);
            let limits = Limits::of(&disk);
            assert!(limits.max_blocks >= 1 && limits.max_blocks << limits.block_shift <= MAX_BYTES, "{size}");
            for (first, blocks) in NUMBERS.iter().flat_map(|first| NUMBERS.map(|blocks| (*first, blocks))) {
                let _ = Facts::new(|_| true, (first, blocks), &limits);
            }
        }
    }

    #[test]
    fn the_parts_of_any_range_are_not_empty_and_no_larger_than_it() {
        let small = [0, 1, 8, 2048, 1 << 31, u32::MAX];
        for (max_sectors, alignment) in small.iter().flat_map(|most| small.map(|by| (*most, by))) {
            let mut disk = Geometry::plain(u64::MAX);
            disk.discard = Some(RangeLimits { max_sectors, alignment, may_unmap: false });
            let limits = Limits::of(&disk);
            for (sector, sectors) in NUMBERS.iter().flat_map(|sector| NUMBERS.map(|sectors| (*sector, sectors))) {
                let share = u64::from(limits.share(Operation::Discard, sector, sectors));
                assert!(share <= sectors.max(1), "{share} of {sectors} from {sector}, {:?}", disk.discard);
                assert!(share > 0 || sectors == 0, "{sectors} from {sector}, {:?}", disk.discard);
            }
        }
    }
}
