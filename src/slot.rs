//! Lock-free request slots: who owns a slot, what it carries, and the header and status memory that goes with it.
//!
//! A slot's number is its place in every table. It knows no descriptors and no rings: `queue/` composes the two. States
//! 1-4 are those of `request.rs`. A slot moves 1 → 2 (claim) → 3 (publish) → 1 (completion handed back), or 3 → 4
//! (completion found by another thread) → 1; at any time one party may touch its [`Record`]:
//! 1. free: nobody; the bit in the free [`Bitmap`] is the only trace;
//! 2. staged: the claimer, then the publisher (handed over by the staged bitmap or the publish gate);
//! 3. in flight: nobody until the device's answer is drained, then the drainer;
//! 4. parked: the submitter that claimed it (handed over by the parked bitmap).
//!
//! Claiming and releasing is one locked instruction per 64-slot word, not per slot. The generation counts a slot's
//! uses and guards the caller's ticket. Stale answers of the *device* are excluded by reset alone.
//!
//! Header, status and the range payload of one slot share one 64-byte line ([`Lines`]): the device fetches one line
//! and gives it back. (Dense arrays were measured: see ROADMAP.md.)
use crate::dma::{DeviceAddress, DmaBlock, Segment};
use crate::memory::Records;
use crate::request::{DeviceFault, Error, Operation};
use crate::spec::{ID_BYTES, request_status};
use crate::sync::{AtomicU32, Guarded, Ordering, Word};
use core::mem::MaybeUninit;

/// Most slots of one queue.
pub const MAX_SLOTS: usize = 2048;
/// Most submitters that share one queue.
pub const MAX_SUBMITTERS: u8 = 32;
/// Bitmap words for [`MAX_SLOTS`].
pub(crate) const MAX_WORDS: usize = MAX_SLOTS / 64;

/// What a slot is doing, in one word of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u32);

impl State {
    pub(crate) const FREE: u32 = 0;
    pub(crate) const STAGED: u32 = 1;
    pub(crate) const IN_FLIGHT: u32 = 2;
    pub(crate) const PARKED: u32 = 3;
    const PHASE: u32 = 3;
    /// The chain is not the slot's usual one: it starts at the other head, or is to be restored (see `ring/chain.rs`).
    pub(crate) const OTHER_HEAD: u32 = 1 << 2;
    /// The record holds a buffer.
    pub(crate) const BUFFER: u32 = 1 << 3;
    /// A write that a FLUSH follows from the same slot.
    pub(crate) const FLUSH_FOLLOWS: u32 = 1 << 4;
    /// One chain of a request that was split; the record's token is the parent's number.
    pub(crate) const CHILD: u32 = 1 << 5;
    /// The chain uses a table of the pool.
    pub(crate) const LARGE_TABLE: u32 = 1 << 6;
    /// What makes a completion more than handing back a buffer.
    pub(crate) const SPECIAL: u32 = Self::FLUSH_FOLLOWS | Self::CHILD | Self::LARGE_TABLE;
    /// The FLUSH that follows a write: the device has done the write, so there is nothing to withdraw.
    pub(crate) const FLUSHES: u32 = 1 << 7;
    const OWNER: u32 = 1 << 8;
    const GENERATION: u32 = 1 << 13;

    #[inline(always)]
    pub(crate) fn phase(self) -> u32 {
        self.0 & Self::PHASE
    }

    #[inline(always)]
    pub(crate) fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// How often the slot was used, modulo 2^19.
    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        self.0 / Self::GENERATION
    }

    /// The submitter that claimed the slot, below [`MAX_SUBMITTERS`].
    #[inline(always)]
    pub(crate) fn owner(self) -> u8 {
        (self.0 / Self::OWNER) as u8 % MAX_SUBMITTERS
    }

    /// The flag bits that say `owner`.
    #[inline(always)]
    pub(crate) fn owned_by(owner: u8) -> u32 {
        u32::from(owner % MAX_SUBMITTERS) * Self::OWNER
    }

    /// The same use of the slot in another phase, with other flags.
    #[inline(always)]
    pub(crate) fn with(self, phase: u32, flags: u32) -> Self {
        Self(self.0 & !(Self::GENERATION - 1) | phase | flags)
    }

    /// The same flags in another phase.
    #[inline(always)]
    pub(crate) fn moved_to(self, phase: u32) -> Self {
        Self(self.0 & !Self::PHASE | phase)
    }

    /// Phase and flags of a slot in flight by its usual head, with a buffer, and nothing special about it.
    pub(crate) const PLAIN: u32 = Self::IN_FLIGHT | Self::BUFFER;

    /// This, if it is [`State::PLAIN`], whoever claimed the slot: phase and flags are the lowest byte.
    #[inline(always)]
    pub(crate) fn if_plain(self) -> Option<Self> {
        (u32::from(self.0 as u8) == Self::PLAIN).then_some(self)
    }

    /// What a [plain](State::if_plain) slot's state becomes when it is released by submitter `owner`, if that one
    /// claimed it: what remains of the state then is its generation.
    #[inline(always)]
    pub(crate) fn released_if_owned(self, owner: u8) -> Option<Self> {
        let rest = self.0.wrapping_sub(Self::PLAIN | Self::owned_by(owner));
        (rest & (Self::GENERATION - 1) == 0).then(|| Self(rest.wrapping_add(Self::GENERATION)))
    }

    /// What a slot's state becomes when it is released, if it is plain, on a queue that has one owner, number 0.
    #[inline(always)]
    pub(crate) fn released_if_plain_alone(self) -> Option<Self> {
        let plain = u32::from(self.0 as u8) == Self::PLAIN;
        plain.then(|| Self(self.0.wrapping_add(Self::GENERATION - Self::PLAIN)))
    }

    /// Free, one generation on.
    #[inline(always)]
    pub(crate) fn released(self) -> Self {
        Self((self.0 & !(Self::GENERATION - 1)).wrapping_add(Self::GENERATION))
    }
}

/// What a slot carries for its caller.
pub(crate) struct Content<B> {
    /// The caller's number, or the parent's.
    pub(crate) token: u64,
    /// Initialised while the state says [`State::BUFFER`].
    pub(crate) buffer: MaybeUninit<B>,
}

impl<B> Content<B> {
    /// Puts a request's token and buffer in; what was there is forgotten.
    #[inline(always)]
    pub(crate) fn put(&mut self, token: u64, buffer: Option<B>) {
        self.token = token;
        if let Some(buffer) = buffer {
            self.buffer.write(buffer);
        }
    }
}

/// One slot's private record.
pub(crate) struct Record<B> {
    state: AtomicU32,
    /// Free: the next slot of the [`FreeList`] that has it. In flight: data bytes that the device may write. Parked:
    /// the [`Answer`].
    word: AtomicU32,
    pub(crate) content: Guarded<Content<B>>,
}

impl<B> Record<B> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(State::FREE),
            word: AtomicU32::new(0),
            content: Guarded::new(Content { token: 0, buffer: MaybeUninit::uninit() }),
        }
    }

    /// Relaxed: whoever may act on the state got the slot through an ordered hand-over (bitmap, gate or used index);
    /// for everybody else the value is a hint.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        State(self.state.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state.0, Ordering::Relaxed);
    }

    /// Takes token and buffer of a slot that has both.
    ///
    /// # Safety
    /// The slot is the caller's by its state (module header), and the state says [`State::BUFFER`].
    #[inline(always)]
    pub(crate) unsafe fn take_whole(&self) -> (u64, B) {
        // SAFETY: exclusive and initialised by the contract; the caller releases the state, so it is read once.
        unsafe { self.content.with(|content| (content.token, content.buffer.assume_init_read())) }
    }

    /// Enters state 3 from 2. Release: a device may answer what it was never told of; then nothing but this store orders the
    /// claimer's content before the drainer that finds the slot in flight.
    #[inline(always)]
    pub(crate) fn set_in_flight(&self, state: State) {
        self.state.store(state.moved_to(State::IN_FLIGHT).0, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn word(&self) -> u32 {
        self.word.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_word(&self, word: u32) {
        self.word.store(word, Ordering::Relaxed);
    }
}

/// Free slots of one owner, threaded through their records: the slot that came back last goes out first, since its
/// lines are warm. Nobody else takes a slot from it, so claiming and releasing are a few plain moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreeList {
    first: u32,
}

impl FreeList {
    /// What follows the last slot: no slot's number.
    const END: u32 = u32::MAX;

    pub(crate) const EMPTY: Self = Self { first: Self::END };

    /// All of `records`, the lowest first. They are free, and the caller's.
    pub(crate) fn of<B>(records: &[Record<B>]) -> Self {
        let mut list = Self::EMPTY;
        for (slot, record) in records.iter().enumerate().rev() {
            list.push(slot as u32, record);
        }
        list
    }

    /// Takes a slot out.
    #[inline(always)]
    pub(crate) fn pop<'r, B>(&mut self, records: &'r [Record<B>]) -> Option<(usize, &'r Record<B>)> {
        // One comparison says both that the list goes on and that its slot has a record.
        let slot = self.first as usize;
        let record = records.get(slot)?;
        self.first = record.word();
        Some((slot, record))
    }

    /// Puts a free slot of the caller's in, with its record.
    #[inline(always)]
    pub(crate) fn push<B>(&mut self, slot: u32, record: &Record<B>) {
        record.set_word(self.first);
        self.first = slot;
    }
}

/// What the device said of a chain: its status byte, and whether a successful read came back short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) u32);

impl Answer {
    pub(crate) const OK: Self = Self(request_status::OK as u32);
    const SHORT: u32 = 1 << 8;

    /// From the status byte as read once, and the used length against the writable data bytes.
    ///
    /// A read is short when the device says that it wrote less than the data, in so many words. A length of 0 says
    /// nothing: such a device does not report lengths. Neither does a length of 1 of GET ID, the one request with less
    /// than a sector of data: some devices count the status byte alone there. What was not written holds what the
    /// caller had put there ([`DeviceWritable`](crate::dma::DeviceWritable)), whatever the length says.
    #[inline(always)]
    pub(crate) fn new(status: u8, len: u32, writable: u32) -> Self {
        let reported = if writable == ID_BYTES { len > 1 } else { len > 0 };
        let short = status == request_status::OK && reported && len < writable;
        Self(u32::from(status) | if short { Self::SHORT } else { 0 })
    }

    /// The caller's result.
    pub(crate) fn result(self) -> Result<(), Error> {
        match self {
            Self::OK => Ok(()),
            Self(short) if short & Self::SHORT != 0 => Err(Error::Device(DeviceFault::ShortRead)),
            Self(status) => Err(match status as u8 {
                request_status::IOERR => Error::Medium,
                request_status::UNSUPP => Error::Device(DeviceFault::Unsupported),
                other => Error::Device(DeviceFault::BadStatus(other)),
            }),
        }
    }
}

/// Where a slot's header, status and range lie in its line.
const SECTOR_AT: usize = 8;
const STATUS_AT: usize = 16;
const RANGE_AT: usize = 24;
const RANGE_COUNT_AT: usize = RANGE_AT + 8;

/// The device-visible lines: one per slot.
pub(crate) struct Lines<'m> {
    lines: Records<'m, 64>,
    base: DeviceAddress,
}

impl<'m> Lines<'m> {
    /// Bytes for `slots` slots.
    pub(crate) const fn bytes(slots: usize) -> usize {
        Records::<64>::bytes(slots.next_power_of_two())
    }

    /// Lines in `block`; `None` if it is too small.
    pub(crate) fn new(block: &DmaBlock<'m>, slots: usize) -> Option<Self> {
        Some(Self { lines: Records::new(block, slots.next_power_of_two())?, base: block.device_address() })
    }

    /// Where the device finds a slot's header (16 bytes, it reads them).
    pub(crate) fn header(&self, slot: u16) -> Segment {
        Segment::new(self.base.offset(u64::from(slot) * 64), 16)
    }

    /// Where the device puts a slot's status (1 byte).
    pub(crate) fn status(&self, slot: u16) -> Segment {
        Segment::new(self.base.offset(u64::from(slot) * 64 + STATUS_AT as u64), 1)
    }

    /// Where the device finds a slot's range payload (16 bytes, it reads them).
    pub(crate) fn range(&self, slot: u16) -> Segment {
        Segment::new(self.base.offset(u64::from(slot) * 64 + RANGE_AT as u64), 16)
    }

    /// Writes a request header and poisons the status.
    #[inline(always)]
    pub(crate) fn write(&self, slot: usize, operation: Operation, sector: u64) {
        self.lines.store64::<0>(slot, operation as u64);
        self.lines.store64::<SECTOR_AT>(slot, sector);
        self.lines.store8::<STATUS_AT>(slot, request_status::POISON);
    }

    /// Writes the payload of DISCARD and WRITE ZEROES.
    pub(crate) fn write_range(&self, slot: u16, sector: u64, sectors: u32, unmap: bool) {
        self.lines.store64::<RANGE_AT>(slot as usize, sector);
        self.lines.store64::<RANGE_COUNT_AT>(slot as usize, u64::from(sectors) | u64::from(unmap) << 32);
    }

    /// Reads the status byte: once per answer, after the used index that covers it.
    #[inline(always)]
    pub(crate) fn read_status(&self, slot: u32) -> u8 {
        self.lines.load8::<STATUS_AT>(slot as usize)
    }
}

/// A set of slots, one bit each, shared by many threads.
pub(crate) struct Bitmap<'m> {
    words: &'m [Word],
}

impl<'m> Bitmap<'m> {
    /// How many words `slots` slots need.
    pub(crate) const fn words(slots: usize) -> usize {
        slots.div_ceil(64)
    }

    /// A set over `words`, which start as the caller set them.
    pub(crate) fn new(words: &'m [Word]) -> Self {
        Self { words }
    }

    /// What the word `w` of a full set of `slots` holds.
    pub(crate) const fn full_word(slots: usize, w: usize) -> u64 {
        let before = w * 64;
        if slots >= before + 64 {
            u64::MAX
        } else if slots <= before {
            0
        } else {
            (1 << (slots - before)) - 1
        }
    }

    /// The words, for walking.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// A look at word `w`: a hint in shared use.
    #[inline(always)]
    pub(crate) fn peek(&self, w: usize) -> u64 {
        self.words[w].load(Ordering::Relaxed)
    }

    /// Takes up to `want` members of one word with one locked instruction: the word and its bits. Prefers a word that
    /// has enough, so that a batch is one claim.
    pub(crate) fn take(&self, want: u32, near: &mut usize) -> Option<(usize, u64)> {
        loop {
            let word = self.peek(*near);
            let (bits, count) = lowest(word, want);
            if count < want {
                let best = self.best_word(want)?;
                if best != *near {
                    *near = best;
                    continue;
                }
            }
            // Acquire: pairs with the release of `put`; the slot's former user is done with its record.
            if self.words[*near]
                .compare_exchange(word, word & !bits, Ordering::Acquire, Ordering::Relaxed)
                .is_ok_and(|_| bits != 0)
            {
                return Some((*near, bits));
            }
        }
    }

    /// The first word that has `want` members, or the one that has most; `None` when the set looks empty.
    #[cold]
    fn best_word(&self, want: u32) -> Option<usize> {
        let members = |w: usize| self.peek(w).count_ones();
        let enough = (0..self.len()).find(|&w| members(w) >= want);
        enough.or_else(|| (0..self.len()).max_by_key(|&w| members(w)).filter(|&w| members(w) > 0))
    }

    /// Adds `bits` to word `w`.
    #[inline(always)]
    pub(crate) fn put(&self, w: usize, bits: u64) {
        // Release: what this thread did to the slots is visible to whoever takes them.
        self.words[w].fetch_or(bits, Ordering::Release);
    }

    /// Takes those of `bits` that are in word `w`.
    pub(crate) fn take_of(&self, w: usize, bits: u64) -> u64 {
        if self.peek(w) & bits == 0 {
            return 0;
        }
        // Acquire: pairs with the release of `put`.
        self.words[w].fetch_and(!bits, Ordering::Acquire) & bits
    }

    /// Takes all of word `w`.
    pub(crate) fn take_word(&self, w: usize) -> u64 {
        if self.peek(w) == 0 {
            return 0;
        }
        // Acquire: pairs with the release of `put`.
        self.words[w].swap(0, Ordering::Acquire)
    }

    /// Sets word `w`; only while no other thread uses the set.
    pub(crate) fn reset(&self, w: usize, bits: u64) {
        self.words[w].store(bits, Ordering::Relaxed);
    }
}

/// The lowest bits of `word`, at most `want`, and how many they are.
#[inline(always)]
fn lowest(word: u64, want: u32) -> (u64, u32) {
    let (mut rest, mut count) = (word, 0);
    while rest != 0 && count < want {
        rest &= rest - 1;
        count += 1;
    }
    (word & !rest, count)
}

/// The slots of a bitmap word, lowest first.
#[inline(always)]
pub(crate) fn slots_of(w: usize, mut bits: u64) -> impl Iterator<Item = u16> {
    core::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as u16)?;
        bits &= bits - 1;
        Some((w * 64) as u16 + bit)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn full(slots: usize) -> std::vec::Vec<Word> {
        (0..Bitmap::words(slots)).map(|w| Word::new(Bitmap::full_word(slots, w))).collect()
    }

    #[test]
    fn a_batch_is_claimed_with_one_locked_instruction() {
        let words = full(300);
        let set = Bitmap::new(&words);
        let mut near = 0;
        crate::sync::spent::take();
        let (w, bits) = set.take(32, &mut near).unwrap();
        assert_eq!((w, bits.count_ones(), crate::sync::spent::take()), (0, 32, 1));
        let (_, more) = set.take(64, &mut near).unwrap();
        assert_eq!((near, more), (1, u64::MAX), "a word with enough is preferred to the first");
    }

    #[test]
    fn every_slot_is_taken_once_and_no_slot_beyond_the_last_exists() {
        let words = full(70);
        let set = Bitmap::new(&words);
        let (mut seen, mut near) = (std::collections::BTreeSet::new(), 0);
        while let Some((w, bits)) = set.take(64, &mut near) {
            assert!(slots_of(w, bits).all(|slot| seen.insert(slot) && slot < 70));
        }
        assert_eq!(seen.len(), 70);
    }

    #[test]
    fn a_list_hands_every_slot_out_once_and_the_last_that_came_back_first() {
        let records: std::vec::Vec<Record<u32>> = (0..70).map(|_| Record::new()).collect();
        let mut list = FreeList::of(&records);
        for expected in 0..70 {
            assert_eq!(list.pop(&records).map(|(slot, _)| slot), Some(expected));
        }
        assert!(list.pop(&records).is_none());
        for slot in [7, 69, 0] {
            list.push(slot, &records[slot as usize]);
        }
        for expected in [0, 69, 7] {
            assert_eq!(list.pop(&records).map(|(slot, _)| slot), Some(expected));
        }
        assert!(list.pop(&records).is_none());
    }

    #[test]
    fn only_a_plain_slot_in_flight_is_released_the_short_way() {
        for flags in 0..1 << 13 {
            let state = State(0).with(0, flags);
            let plain = flags & 0xff == State::PLAIN;
            assert_eq!((state.if_plain().is_some(), state.released_if_plain_alone().is_some()), (plain, plain));
            for owner in 0..MAX_SUBMITTERS {
                let released = state.if_plain().and_then(|state| state.released_if_owned(owner));
                let expected = (plain && state.owner() == owner).then(|| state.released());
                assert_eq!(released, expected);
            }
        }
        let last = State(u32::MAX).with(State::IN_FLIGHT, State::BUFFER);
        assert_eq!(last.released_if_plain_alone().map(|state| state.0), Some(0), "the generation wraps into itself");
    }

    #[test]
    fn a_released_slot_has_another_generation_and_no_flags() {
        let state = State(0).with(State::IN_FLIGHT, State::BUFFER | State::CHILD);
        assert_eq!(state.released().generation(), 1);
        assert_eq!(state.released().phase(), State::FREE);
        assert!(!state.released().has(State::BUFFER | State::CHILD));
        assert_eq!(State(u32::MAX).released().generation(), 0, "the generation wraps into itself");
    }

    #[test]
    fn answers_name_the_blame() {
        assert_eq!(Answer::new(0, 4097, 4096).result(), Ok(()));
        assert_eq!(Answer::new(0, 4095, 4096).result(), Err(Error::Device(DeviceFault::ShortRead)));
        assert_eq!(Answer::new(0, 1, 4096).result(), Err(Error::Device(DeviceFault::ShortRead)));
        assert_eq!(Answer::new(0, 0, 4096).result(), Ok(()), "not reported");
        assert_eq!(Answer::new(1, 0, 4096).result(), Err(Error::Medium));
        assert_eq!(Answer::new(2, 1, 0).result(), Err(Error::Device(DeviceFault::Unsupported)));
        assert_eq!(Answer::new(9, 1, 0).result(), Err(Error::Device(DeviceFault::BadStatus(9))));
    }
}
