//! One chain, taken apart: any framing that the specification allows, direct, indirect, or both (2.7.5.3).
//!
//! It collects what the descriptors say and judges their shape; it touches no payload. A chain that has no shape breaks
//! the device, since there may be no status byte to answer with.
use super::memory::Reach;
use super::split::{SplitRing, descriptor};

/// Descriptor flags (2.7.5).
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Flags of a descriptor's second word.
#[inline(always)]
pub(super) const fn flags(word: u64) -> u16 {
    (word >> 32) as u16
}

/// `next` of a descriptor's second word.
#[inline(always)]
pub(super) const fn next(word: u64) -> u32 {
    (word >> 48) as u32
}

/// A chain, or what it says, makes no sense: the device stops and asks for a reset (2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// The buffers of one chain: what the device reads, then what it writes.
#[derive(Debug, Default)]
pub(super) struct Chain {
    segments: Vec<Segment>,
    /// How many of them the device reads.
    readable: usize,
}

/// A table that is walked: the ring's own, or one in the driver's memory.
struct Table {
    at: *const u8,
    count: u32,
    indirect: bool,
}

impl Chain {
    /// Reads the descriptors of the chain that begins at `head`. No descriptor is read twice, none outside its table,
    /// and no more than there are in the tables.
    pub(super) fn collect(&mut self, ring: &SplitRing, head: u16, reach: &mut Reach) -> Result<(), Broken> {
        self.segments.clear();
        self.readable = 0;
        let mut table = Table { at: ring.table(), count: ring.size(), indirect: false };
        let (mut index, mut left) = (u32::from(head), table.count);
        loop {
            if index >= table.count || left == 0 {
                return Err(Broken);
            }
            left -= 1;
            // SAFETY: inside the table (checked).
            let (address, word) = unsafe { descriptor(table.at, index) };
            let (len, flags) = (word as u32, flags(word));
            if flags & INDIRECT != 0 {
                if table.indirect || flags & NEXT != 0 {
                    return Err(Broken);
                }
                table = Self::indirect_table(address, len, reach)?;
                (index, left) = (0, table.count);
                continue;
            }
            self.push(Segment { address, len }, flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            index = next(word);
        }
    }

    fn indirect_table(address: u64, len: u32, reach: &mut Reach) -> Result<Table, Broken> {
        let sound = len > 0 && len.is_multiple_of(16) && address.is_multiple_of(8);
        if !sound || !reach.covers(address, len.into()) {
            return Err(Broken);
        }
        Ok(Table { at: super::memory::pointer(address), count: len / 16, indirect: true })
    }

    fn push(&mut self, segment: Segment, writable: bool) -> Result<(), Broken> {
        if !writable {
            // Everything readable comes first (2.7.4.2).
            if self.readable != self.segments.len() {
                return Err(Broken);
            }
            self.readable += 1;
        }
        self.segments.push(segment);
        Ok(())
    }

    fn part(&self, writable: bool) -> &[Segment] {
        let (readable, writable_part) = self.segments.split_at(self.readable);
        if writable { writable_part } else { readable }
    }

    /// Bytes that the device may read, or write.
    pub(super) fn bytes(&self, writable: bool) -> u64 {
        self.part(writable).iter().map(|segment| u64::from(segment.len)).sum()
    }

    /// The pieces of `len` bytes behind the first `skip` of either part.
    pub(super) fn pieces(&self, writable: bool, skip: u64, len: u64) -> impl Iterator<Item = Segment> + '_ {
        let (mut skip, mut left) = (skip, len);
        self.part(writable).iter().filter_map(move |segment| {
            let whole = u64::from(segment.len);
            let passed = skip.min(whole);
            skip -= passed;
            let take = left.min(whole - passed);
            left -= take;
            (take > 0).then(|| Segment { address: segment.address.wrapping_add(passed), len: take as u32 })
        })
    }
}
