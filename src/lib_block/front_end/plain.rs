//! The common request: one piece, one extent, no flag, no deadline. From its entry to the queue in two steps, each for
//! a good number of them: [`Common::admit`], which knows no queue, and [`launch`], which knows no session.
//!
//! What a session's entries are held against is laid out here once, so that an entry costs one comparison per fact:
//! kind (operation, flags and pieces in one number, which no entry has where the right is missing), place (a whole
//! request of the largest size fits from any block below one number), length, tag, memory. An entry that fails any of
//! them is not refused: [`Session::take`](super::session::Session::take) reads it anew and decides, and says the same of
//! common ones. It knows no turns: how many and how much may start is told.
//!
//! Every word of an entry is read once here. A client that changes it meanwhile has submitted what was read.
use super::flight::Word;
use super::lent::Lent;
use super::limits::Limits;
use super::registry::{Registry, Way};
use crate::dma::{DeviceAddress, Segment};
use crate::lib_block::entry;
use crate::lib_block::ring::Entry;
use crate::queue::Batch;
use crate::request::{Lba, Operation, Refusal, Request};
use crate::transport::Doorbell;

/// What a request weighs at least, in bytes, for its share and for the cap.
pub(super) const LEAST: u64 = 4096;

/// What a request of so many bytes weighs.
#[inline(always)]
pub(super) const fn weight(bytes: u32) -> u64 {
    if bytes as u64 > LEAST { bytes as u64 } else { LEAST }
}

/// The kind of an entry, in the lower half of its first word, that reads into one piece or writes one.
const READ_ONE: u32 = entry::Operation::Read as u32 | 1 << 16;
const WRITE_ONE: u32 = entry::Operation::Write as u32 | 1 << 16;
/// Where the right is missing: kinds that are looked for in the other place, by the bit that tells the two apart, so
/// that whatever a client writes there is not found.
const NEVER_READ: u32 = 1 << 1;
const NEVER_WRITE: u32 = 0;
const _: () = assert!(READ_ONE >> 1 & 1 == 0 && WRITE_ONE >> 1 & 1 == 1);
const _: () = assert!(NEVER_READ >> 1 & 1 == 1 && NEVER_WRITE >> 1 & 1 == 0);

/// What common entries of a session are held against.
#[derive(Clone, Copy, Default)]
pub(super) struct Facts {
    /// Of a read and of a write.
    kinds: [u32; 2],
    /// From any block below this one a request of the largest size lies in the extent; 0 with several extents.
    comfortable: u64,
    /// Most bytes of a request, less one.
    most_less_one: u64,
    /// First sector of the extent.
    first: u64,
    /// Of a block.
    block_bytes: u64,
    block_sectors: u64,
}

impl Facts {
    /// The facts of a session that may do what it `may` within `(first, blocks)`.
    pub(super) fn new(may: impl Fn(entry::Operation) -> bool, (first, blocks): (u64, u64), limits: &Limits) -> Self {
        Self {
            kinds: [
                if may(entry::Operation::Read) { READ_ONE } else { NEVER_READ },
                if may(entry::Operation::Write) { WRITE_ONE } else { NEVER_WRITE },
            ],
            comfortable: blocks.saturating_add(1).saturating_sub(limits.max_blocks),
            // What is longer than a segment may be is cut by the queue.
            most_less_one: (limits.max_blocks << limits.block_shift).min(limits.max_piece).saturating_sub(1),
            first: first << limits.sector_shift,
            block_bytes: 1 << limits.block_shift,
            block_sectors: 1 << limits.sector_shift,
        }
    }
}

/// Why the common requests came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There are no more, or no more may start now.
    Out,
    /// The next is not common.
    Special,
    /// The next has not room in the budget.
    Budget,
    /// The same, where the cap is what leaves no room.
    Capped,
    /// The queue did not take the next.
    Refused(Refusal),
}

/// A common request on its way to the queue.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    sector: u64,
    piece: Segment,
    tag: u64,
    write: bool,
}

impl Ready {
    pub(super) const NONE: Self = Self { sector: 0, piece: Segment::new(DeviceAddress(0), 0), tag: 0, write: false };
}

/// Parts of a session, side by side.
pub(super) struct Common<'s, 'm> {
    pub(super) facts: &'s Facts,
    pub(super) registry: &'s Registry<'m>,
    pub(super) words: &'s mut [Word],
    /// What may start, in bytes as they weigh; what is left of it afterwards.
    pub(super) budget: u64,
}

impl Common<'_, '_> {
    /// Admits entries, as many as `ready` has room for and as far as they are common; how many and why no more. A
    /// function of its own: together with what the queue does there are not registers enough.
    #[inline(never)]
    pub(super) fn admit(&mut self, entries: &[Entry], ready: &mut [Ready]) -> (usize, End) {
        let facts = self.facts;
        let mut budget = self.budget;
        let (mut count, mut why) = (0, End::Out);
        for (entry, place) in entries.iter().zip(ready) {
            let what = entry.word(0);
            // READ is 1 and WRITE is 2.
            let way = (what >> 1 & 1) as usize;
            why = End::Special;
            if what as u32 != facts.kinds[way] {
                break;
            }
            let (lba, blocks, named, offset) = (entry.word(1), entry.word(2), entry.word(3), entry.word(4));
            let zero = blocks >> 32 | entry.word(5) | entry.word(6) | entry.word(7);
            let (bytes, id) = (named >> 32, named as u32);
            let length =
                bytes == blocks.wrapping_mul(facts.block_bytes) && bytes.wrapping_sub(1) <= facts.most_less_one;
            if zero != 0 || lba >= facts.comfortable || !length {
                break;
            }
            // What must be zero above the tag makes it too large. Tags beyond the credit are never free.
            let tag = what >> 32;
            let Some(word) = self.words.get_mut(tag as usize).filter(|word| word.is_free()) else { break };
            let Some((piece, common)) = self.registry.find(id, offset, bytes, Way::new(way)) else { break };
            let weight = weight(bytes as u32);
            why = End::Budget;
            if weight > budget {
                break;
            }
            budget -= weight;
            *word = common.with_bytes(bytes);
            *place = Ready { sector: facts.first + lba * facts.block_sectors, piece, tag, write: way != 0 };
            (count, why) = (count + 1, End::Out);
        }
        self.budget = budget;
        (count, why)
    }

    /// Undoes the admission of what the queue did not take.
    #[cold]
    pub(super) fn put_back(&mut self, ready: &[Ready]) {
        for one in ready {
            if let Some(word) = self.words.get_mut(one.tag as usize) {
                self.budget += weight(word.bytes());
                *word = Word::FREE;
            }
        }
    }
}

/// Starts admitted requests; how many the queue took and why no more.
#[inline(never)]
pub(super) fn launch<'m, D: Doorbell>(
    ready: &[Ready],
    batch: &mut Batch<'_, 'm, Lent<'m>, D>,
    base: u64,
) -> (usize, Option<Refusal>) {
    let comfortable = batch.comfortable();
    for (count, one) in ready.iter().enumerate() {
        let operation = if one.write { Operation::Write } else { Operation::Read };
        let request = Request::moving(operation, Lba(one.sector), Lent::one(one.piece), base | one.tag);
        if one.sector >= comfortable {
            // Near the end of the medium, or behind it since it shrank.
            if let Err(refused) = batch.push(request) {
                return (count, Some(refused.why));
            }
        } else if !batch.push_plain(request, one.piece) {
            return (count, Some(Refusal::Full));
        }
    }
    (ready.len(), None)
}
