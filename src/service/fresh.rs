//! DMA memory as a life finds it: zeros, whatever the one before left there.
//!
//! A ring that is laid out over an earlier one would begin with its indices, and the device would take what they say for
//! requests.
use crate::dma::{DmaBlock, DmaRegion};
use crate::memory::Records;

/// Bytes of a word.
const WORD: usize = 8;

/// Zeroes all that is left of the region. The device, and with it any earlier driver's, was reset before, and has not been
/// told of this memory since.
#[allow(unsafe_code, reason = "a region is taken apart and made whole again, which nothing else here needs")]
pub(super) fn clear(region: &mut DmaRegion<'_>) {
    let Ok(all) = region.carve(region.left(), 1) else { return };
    zero(&all);
    // SAFETY: a region's memory, whole, as the block that was just cut off it: nobody else has any of it, and the block
    // ends here.
    *region = unsafe { DmaRegion::new(all.base(), all.device_address(), all.len()) };
}

/// Zeroes what is aligned; no block that is cut off begins before that, and none is used for less than a word.
fn zero(all: &DmaBlock<'_>) {
    let mut at = all.base().as_ptr().addr().wrapping_neg() % WORD;
    let mut words = all.len().saturating_sub(at) / WORD;
    while words > 0 {
        // Tables have as many records as a power of two.
        let count = 1 << words.ilog2();
        let table = all.part(at, count * WORD, 1).and_then(|part| Records::<WORD>::new(&part, count));
        let Some(table) = table else { return };
        for index in 0..count {
            table.store64::<0>(index, 0);
        }
        at += count * WORD;
        words -= count;
    }
}
