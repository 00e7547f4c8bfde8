//! What a survey asks of a raw disk: its size, and whole logical blocks.
//!
//! It refuses to know how a block is fetched. Invariant: a survey reads inside the disk only, one block per call, and
//! no block twice, so that a disk that answers differently the second time has no second time.
use crate::refused::Refused;
use core::fmt::Display;

/// The largest logical block that a survey has room for.
pub const MAX_BLOCK: usize = 4096;

/// A raw disk that can be read.
///
/// ```
/// use blockd::media::Media;
///
/// /// A disk without anything on it.
/// struct Blank;
///
/// impl Media for Blank {
///     type Error = core::convert::Infallible;
///
///     fn block_size(&self) -> u32 {
///         512
///     }
///     fn blocks(&self) -> u64 {
///         2048
///     }
///     fn read(&mut self, _: u64, blocks_of_data: &mut [u8]) -> Result<(), Self::Error> {
///         blocks_of_data.fill(0);
///         Ok(())
///     }
/// }
///
/// assert!(blockd::survey(&mut Blank).unwrap().partitions.is_empty());
/// ```
pub trait Media {
    /// What a failed read says.
    type Error: Display;

    /// Bytes in a logical block.
    fn block_size(&self) -> u32;

    /// Logical blocks on the disk.
    fn blocks(&self) -> u64;

    /// Reads whole logical blocks from `lba` on, as many as `blocks_of_data` holds.
    ///
    /// # Errors
    /// The disk's own, when it could not be read.
    fn read(&mut self, lba: u64, blocks_of_data: &mut [u8]) -> Result<(), Self::Error>;
}

/// A disk of a shape that can be surveyed, with room for one of its blocks.
pub(crate) struct Reader<'a, M> {
    media: &'a mut M,
    blocks: u64,
    size: usize,
    buffer: [u8; MAX_BLOCK],
}

impl<'a, M: Media> Reader<'a, M> {
    /// Both sizes are asked for once: a disk that changes its mind is read by its first answer.
    pub(crate) fn new(media: &'a mut M) -> Result<Self, Refused<M::Error>> {
        let (size, blocks) = (media.block_size(), media.blocks());
        let usable = size.is_power_of_two() && (512..=MAX_BLOCK as u32).contains(&size) && blocks > 0;
        if !usable {
            return Err(Refused::Shape { block_size: size, blocks });
        }
        Ok(Self { media, blocks, size: size as usize, buffer: [0; MAX_BLOCK] })
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(crate) fn block_size(&self) -> usize {
        self.size
    }

    pub(crate) fn block(&mut self, lba: u64) -> Result<&[u8], M::Error> {
        debug_assert!(lba < self.blocks);
        let block = &mut self.buffer[..self.size];
        self.media.read(lba, block)?;
        Ok(block)
    }
}
