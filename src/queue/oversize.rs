//! Requests above the device's limits: a parent that is cut into chains, a few at a time.
//!
//! A parent keeps the caller's buffer and where the next piece starts. It begins with as many chains as slots can be
//! had, one at least, and each chain that comes back hands its slot to the next piece: a request larger than the queue
//! makes progress, and never waits for a slot again. The first error ends the cutting; the parent completes when its
//! last chain is back. A durable write ends in one FLUSH from the last slot.
//!
//! Invariant: a parent is touched by its submitter before any of its chains is published, and by whoever drains the
//! used ring afterwards; the hand-over is the publish and the device's answer.
//! Specification: 5.2.4 `size_max`, `seg_max`, `max_discard_sectors`, `max_write_zeroes_sectors`.
use super::core::Core;
use crate::barrier;
use crate::dma::{Buffer, Segment};
use crate::geometry::RangeLimits;
use crate::request::{Operation, Request};
use crate::ring::chain::{Head, INLINE};
use crate::slot::{Answer, Bitmap, State};
use crate::spec::SECTOR_SHIFT;
use crate::sync::Guarded;
use arrayvec::ArrayVec;
use core::mem::ManuallyDrop;

/// Most data bytes of a chain, whatever the device allows: QEMU fails what has 2^31 bytes or more, qemu-storage-daemon
/// never answers it. A multiple of every block size.
pub(crate) const MAX_CHAIN_BYTES: u32 = (1 << 31) - (1 << 16);

/// What one chain may carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainLimits {
    /// Data segments, 1 to [`INLINE`].
    pub(crate) segments: usize,
    /// Bytes of one segment, at most [`MAX_CHAIN_BYTES`].
    pub(crate) bytes: u32,
    /// Chains carry multiples of this many bytes: the logical block.
    pub(crate) unit: u32,
}

/// A place in a list of segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    segment: usize,
    offset: u32,
}

impl Cursor {
    /// Cuts the next chain's data off `segments`: whole units, as many as the limits allow. Empty at the end, or when
    /// no whole unit fits into a chain.
    pub(crate) fn cut(&mut self, segments: &[Segment], limits: &ChainLimits) -> ArrayVec<Segment, INLINE> {
        let mut data = ArrayVec::new();
        let mut bytes = 0;
        while data.len() < limits.segments {
            let Some(rest) = segments.get(self.segment).map(|s| s.after(self.offset)) else { break };
            let piece = rest.first(limits.bytes.min(MAX_CHAIN_BYTES - bytes));
            if piece.is_empty() {
                break;
            }
            bytes += piece.len();
            data.push(piece);
            self.advance(piece.len(), rest.len());
        }
        self.give_back(bytes % limits.unit, segments, &mut data);
        data
    }

    fn advance(&mut self, bytes: u32, rest: u32) {
        if bytes == rest {
            *self = Self { segment: self.segment + 1, offset: 0 };
        } else {
            self.offset += bytes;
        }
    }

    /// Moves back by the last `excess` bytes of `data`.
    fn give_back(&mut self, mut excess: u32, segments: &[Segment], data: &mut ArrayVec<Segment, INLINE>) {
        while excess > 0 {
            let Some(last) = data.pop() else { return };
            let cut = excess.min(last.len());
            if self.offset == 0 {
                self.segment -= 1;
                self.offset = segments[self.segment].len();
            }
            self.offset -= cut;
            excess -= cut;
            if cut < last.len() {
                data.push(last.first(last.len() - cut));
            }
        }
    }

    /// Whether all of `segments` can be cut.
    pub(crate) fn can_cut(segments: &[Segment], limits: &ChainLimits) -> bool {
        let mut cursor = Self::default();
        while cursor.segment < segments.len() {
            if cursor.cut(segments, limits).is_empty() {
                return false;
            }
        }
        true
    }
}

/// A request that was cut.
pub(crate) struct Parent<B> {
    /// Like a slot's buffer, never dropped here: a request that is not taken out stays the device's.
    request: ManuallyDrop<Option<Request<B>>>,
    cursor: Cursor,
    /// First sector of the next piece.
    lba: u64,
    /// Chains that are out.
    outstanding: u32,
    answer: Answer,
    flush_follows: bool,
}

/// The parents of one queue.
pub(crate) struct Parents<'m, B> {
    free: Bitmap<'m>,
    parents: &'m [Guarded<Parent<B>>],
}

impl<B> Parent<B> {
    pub(crate) fn unused() -> Self {
        let (cursor, answer) = (Cursor::default(), Answer::OK);
        Self { request: ManuallyDrop::new(None), cursor, lba: 0, outstanding: 0, answer, flush_follows: false }
    }

    /// Moves on by the next piece's sectors; returns where the piece starts.
    fn take_sectors(&mut self, sectors: u64) -> u64 {
        self.lba += sectors;
        self.lba - sectors
    }
}

impl<'m, B> Parents<'m, B> {
    /// At most 64, all unused.
    pub(crate) fn new(free: Bitmap<'m>, parents: &'m [Guarded<Parent<B>>]) -> Self {
        free.reset(0, Bitmap::full_word(parents.len(), 0));
        Self { free, parents }
    }

    /// # Safety
    /// The parent is this thread's by the module's invariant.
    unsafe fn with<R>(&self, parent: u16, f: impl FnOnce(&mut Parent<B>) -> R) -> R {
        // SAFETY: handed on to the caller.
        unsafe { self.parents[parent as usize].with(f) }
    }

    /// Takes a cut request back from a parent whose chains are all back or lost to a reset.
    ///
    /// # Safety
    /// As [`Parents::with`].
    pub(crate) unsafe fn close(&self, parent: u16) -> Option<Request<B>> {
        // SAFETY: handed on to the caller.
        let request = unsafe { self.with(parent, |p| p.request.take()) };
        self.free.put(0, 1 << parent);
        request
    }
}

/// What follows from a chain that was more than a plain one.
pub(crate) enum Next<B> {
    /// The request is over.
    Finished(u64, Option<B>, Answer),
    /// The slot goes out again with this head.
    Staged(Head),
    /// The slot is free; its request goes on with others.
    Released,
}

impl<B: Buffer> Core<'_, B> {
    /// Takes a request of shape `Oversize` in; gives it back when all parents are busy.
    pub(crate) fn open_parent(&self, request: Request<B>) -> Result<u16, Request<B>> {
        let Some((_, bit)) = self.parents.free.take(1, &mut 0) else { return Err(request) };
        let parent = bit.trailing_zeros() as u16;
        let flush_follows = request.operation == Operation::Write && request.flag && self.geometry.writeback;
        let lba = request.lba;
        // SAFETY: just taken from the free set by this thread, and none of its chains exists.
        unsafe {
            self.parents.with(parent, |p| {
                *p = Parent { request: ManuallyDrop::new(Some(request)), lba, flush_follows, ..Parent::unused() };
            });
        }
        Ok(parent)
    }

    /// Stages the parent's next piece in a slot that the caller owns; `None` when nothing is left to be cut.
    ///
    /// # Safety
    /// The parent is this thread's by the module's invariant.
    pub(crate) unsafe fn stage_child(&self, parent: u16, slot: u16, phase: u32, flags: u32) -> Option<Head> {
        // SAFETY: handed on to the caller.
        let (head, writable) = unsafe { self.parents.with(parent, |p| self.cut_child(p, slot)) }?;
        // SAFETY: the slot is the caller's; a child carries the parent's number for a token and no buffer.
        unsafe { self.record(slot).content.with(|content| content.token = u64::from(parent)) };
        self.stage_again(slot, head, writable, phase, flags | State::CHILD);
        Some(head)
    }

    fn cut_child(&self, parent: &mut Parent<B>, slot: u16) -> Option<(Head, u32)> {
        let request = parent.request.as_ref()?;
        let (operation, unmap) = (request.operation, request.flag);
        let staged = match operation {
            Operation::Discard | Operation::WriteZeroes => {
                let discard = operation == Operation::Discard;
                let limits = if discard { self.geometry.discard } else { self.geometry.write_zeroes };
                let end = request.lba + u64::from(request.sectors);
                let sectors = range_piece(parent.lba, end, limits?, self.limits.unit >> SECTOR_SHIFT)?;
                let lba = parent.take_sectors(u64::from(sectors));
                (self.stage_range(slot, operation, lba, sectors, unmap), 0)
            }
            _ => {
                let segments = request.buffer.as_ref()?.segments();
                let data = parent.cursor.cut(segments, &self.limits);
                let bytes: u32 = data.iter().map(|s| s.len()).sum();
                if bytes == 0 {
                    return None;
                }
                let lba = parent.take_sectors(u64::from(bytes >> SECTOR_SHIFT));
                let writable = if operation == Operation::Read { bytes } else { 0 };
                (self.chain_up(slot, operation, lba, &data), writable)
            }
        };
        parent.outstanding += 1;
        Some(staged)
    }

    /// Decides what follows from the answer to a chain whose state is [`State::SPECIAL`]; whatever goes out again is
    /// left in `phase`.
    ///
    /// # Safety
    /// The slot was just settled by this thread, which drains the used ring.
    #[cold]
    pub(crate) unsafe fn follow(&self, slot: u16, state: State, answer: Answer, phase: u32) -> Next<B> {
        barrier::state_before_content();
        self.restore(slot, state);
        if state.has(State::CHILD) {
            // SAFETY: the slot is this thread's, and a child holds no buffer.
            let (parent, _) = unsafe { self.empty(slot, state.with(State::FREE, 0)) };
            // SAFETY: this thread drains the used ring, so the parent is its own.
            return unsafe { self.follow_child(parent as u16, slot, answer, phase, State::owned_by(state.owner())) };
        }
        if state.has(State::FLUSH_FOLLOWS) && answer == Answer::OK {
            let head = self.chain_up(slot, Operation::Flush, 0, &[]);
            let flags = State::owned_by(state.owner()) | State::BUFFER | State::FLUSHES;
            self.stage_again(slot, head, 0, phase, flags);
            return Next::Staged(head);
        }
        // SAFETY: the slot is this thread's and its state still says what it holds.
        let (token, buffer) = unsafe { self.empty(slot, state) };
        Next::Finished(token, buffer, answer)
    }

    /// # Safety
    /// The parent is this thread's by the module's invariant.
    unsafe fn follow_child(&self, parent: u16, slot: u16, answer: Answer, phase: u32, flags: u32) -> Next<B> {
        let note = |p: &mut Parent<B>| {
            p.outstanding -= 1;
            if p.answer == Answer::OK {
                p.answer = answer;
            }
            (p.outstanding, p.answer, p.answer == Answer::OK && p.flush_follows)
        };
        // SAFETY: by this function's contract.
        let (outstanding, answer, flush_follows) = unsafe { self.parents.with(parent, note) };
        if answer == Answer::OK {
            // SAFETY: as above.
            if let Some(head) = unsafe { self.stage_child(parent, slot, phase, flags) } {
                return Next::Staged(head);
            }
        }
        if outstanding > 0 {
            return Next::Released;
        }
        if flush_follows {
            let head = self.chain_up(slot, Operation::Flush, 0, &[]);
            // SAFETY: as above.
            unsafe { self.parents.with(parent, |p| (p.flush_follows, p.outstanding) = (false, 1)) };
            self.stage_again(slot, head, 0, phase, flags | State::CHILD);
            return Next::Staged(head);
        }
        // SAFETY: the last chain is back, so the parent is this thread's to close.
        match unsafe { self.parents.close(parent) } {
            Some(request) => Next::Finished(request.token, request.buffer, answer),
            None => Next::Released,
        }
    }
}

/// How many sectors of `lba..end` the next chain covers: at most the limit, in blocks of `block` sectors, and cut at the
/// device's alignment where that leaves something. `None` at the end.
fn range_piece(lba: u64, end: u64, limits: RangeLimits, block: u32) -> Option<u32> {
    let left = end.checked_sub(lba).filter(|left| *left > 0)?;
    // A limit of 0 would cut pieces of nothing for ever.
    let limit = u64::from(limits.max_sectors.max(1));
    if left <= limit {
        return Some(left as u32);
    }
    // Below `end`, so that this does not overflow wherever on the medium the range is.
    let most = lba + limit;
    let block = u64::from(block).max(1);
    let at_multiple = |of: u64| Some(most - most % of).filter(|cut| *cut > lba && cut.is_multiple_of(block));
    let cut = at_multiple(limits.alignment.max(1).into()).or_else(|| at_multiple(block)).unwrap_or(most);
    Some((cut - lba) as u32)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::dma::DeviceAddress;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn pieces_are_whole_units_within_the_limits_and_together_the_whole(
            lens in prop::collection::vec(1u32..9000, 1..12),
            segments in 1usize..=6,
            bytes in 512u32..8192,
        ) {
            let mut lens = lens;
            let total: u32 = lens.iter().sum();
            lens.push(512 - total % 512);
            let list: Vec<Segment> = lens.iter().enumerate()
                .map(|(i, len)| Segment::new(DeviceAddress(i as u64 * 0x10000), *len)).collect();
            let limits = ChainLimits { segments, bytes, unit: 512 };
            let byte = |s: &Segment| (s.address().0..s.address().0 + u64::from(s.len())).collect::<Vec<_>>();
            let mut cursor = Cursor::default();
            let mut covered = Vec::new();
            while cursor.segment < list.len() {
                let cut = cursor.cut(&list, &limits);
                if cut.is_empty() {
                    prop_assert!(!Cursor::can_cut(&list, &limits));
                    return Ok(());
                }
                prop_assert!(cut.len() <= segments && cut.iter().all(|s| !s.is_empty() && s.len() <= bytes));
                prop_assert_eq!(cut.iter().map(|s| s.len()).sum::<u32>() % 512, 0);
                covered.extend(cut.iter().flat_map(byte));
            }
            prop_assert!(Cursor::can_cut(&list, &limits));
            prop_assert_eq!(covered, list.iter().flat_map(byte).collect::<Vec<_>>());
        }
    }

    /// The segments name memory that is not there: a cut looks at lengths only.
    #[test]
    fn no_piece_has_two_gibibytes_however_long_the_segments_are() {
        for unit in [512, 4096, 1 << 16] {
            let whole = |len: u32| len - len % unit;
            let lengths = [(1u32 << 31) - unit, 1 << 31, 1 << 30, whole(u32::MAX), (1 << 29) + unit, unit];
            for (len, segments) in lengths.into_iter().flat_map(|len| [(len, 1), (len, 2), (len, 6)]) {
                let list = [Segment::new(DeviceAddress(0), len); 9];
                let limits = ChainLimits { segments, bytes: MAX_CHAIN_BYTES, unit };
                let (mut cursor, mut covered, mut most) = (Cursor::default(), 0, 0);
                while cursor.segment < list.len() {
                    let bytes: u64 = cursor.cut(&list, &limits).iter().map(|s| u64::from(s.len())).sum();
                    assert!(bytes > 0 && bytes.is_multiple_of(unit.into()), "{len} in {segments}: {bytes}");
                    assert!(16 + bytes + 1 < 1 << 31, "{len} in {segments}: {bytes}");
                    (covered, most) = (covered + bytes, most.max(bytes));
                }
                assert_eq!(covered, 9 * u64::from(len));
                let wanted = (u64::from(len) * segments as u64).min(u64::from(MAX_CHAIN_BYTES));
                assert!(most >= wanted / 2, "{len} in {segments}: pieces of {most} at most");
            }
        }
    }

    #[test]
    fn ranges_are_cut_at_the_devices_alignment() {
        let limits = RangeLimits { max_sectors: 100, alignment: 64, may_unmap: false };
        assert_eq!(range_piece(10, 1000, limits, 1), Some(54), "to the boundary at 64");
        assert_eq!(range_piece(64, 1000, limits, 1), Some(64));
        assert_eq!(range_piece(960, 1000, limits, 1), Some(40));
        assert_eq!(range_piece(1000, 1000, limits, 1), None);
        let coarse = RangeLimits { alignment: 4096, ..limits };
        assert_eq!(range_piece(10, 1000, coarse, 1), Some(100), "progress goes before alignment");
    }

    #[test]
    fn a_range_at_the_end_of_the_largest_medium_is_cut_as_anywhere_else() {
        let end = u64::MAX;
        for max_sectors in [1, 8, 4_194_303, u32::MAX - 1, u32::MAX] {
            let limits = RangeLimits { max_sectors, alignment: 1, may_unmap: false };
            assert_eq!(range_piece(end, end, limits, 1), None);
            assert_eq!(range_piece(end - 1, end, limits, 1), Some(1), "the last sector, {max_sectors} at a time");
            let all = u64::from(u32::MAX);
            let piece = range_piece(end - all, end, limits, 1);
            assert_eq!(piece, Some(max_sectors), "the most that one request names, {max_sectors} at a time");
        }
    }

    #[test]
    fn whatever_limits_a_range_is_cut_by_the_pieces_are_not_empty_and_are_together_the_range() {
        let ends = [0, 1, 2, 4096, u64::MAX - 1, u64::MAX];
        let numbers = [0, 1, 3, 8, 1 << 31, u32::MAX];
        for (end, sectors) in ends.iter().flat_map(|end| [0, 1, 2, 64, 4096].map(|sectors| (*end, sectors))) {
            for (max_sectors, alignment) in numbers.iter().flat_map(|most| numbers.map(|by| (*most, by))) {
                let limits = RangeLimits { max_sectors, alignment, may_unmap: false };
                for block in [0, 1, 8, 128] {
                    let mut lba = end.saturating_sub(sectors);
                    while let Some(piece) = range_piece(lba, end, limits, block) {
                        assert!(piece >= 1 && piece <= max_sectors.max(1), "{piece} of {lba}..{end} by {limits:?}");
                        lba += u64::from(piece);
                    }
                    assert_eq!(lba, end, "{limits:?}, blocks of {block}");
                }
            }
        }
    }

    #[test]
    fn ranges_are_cut_into_whole_blocks() {
        let odd = RangeLimits { max_sectors: 4_194_303, alignment: 1, may_unmap: false };
        assert_eq!(range_piece(8, 1 << 40, odd, 8), Some(4_194_296), "the limit of QEMU, blocks of 4096 bytes");
        let misfit = RangeLimits { max_sectors: 101, alignment: 13, may_unmap: false };
        assert_eq!(range_piece(16, 328, misfit, 8), Some(96), "blocks go before alignment");
        let small = RangeLimits { max_sectors: 5, ..odd };
        assert_eq!(range_piece(16, 328, small, 8), Some(5), "no whole block: the device may refuse it");
    }
}
