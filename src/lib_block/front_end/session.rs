//! One client on one queue: what it may do, what it registered, and its unanswered requests.
//!
//! Admission turns an entry into something that may be started, or into the status that answers it. An entry is a copy
//! in private memory by then. The common one is decided in one go (`plain.rs`); whatever that does not take goes through
//! [`Session::take`], which says the same of the common ones. It knows no queue and no other session.
//!
//! Invariants: every entry taken is answered once; a tag is free or has one request; a request is admitted only with
//! memory that is registered, blocks inside one extent, and a right.
use super::flight::{Backlog, Flight, Load, Place, Word};
use super::lent::List;
use super::plain::{Facts, weight};
use super::registry::{Registry, Way};
use super::{Options, limits::Limits};
use crate::dma::{DeviceAddress, Segment};
use crate::lib_block::entry::{Completion, Data, Flags, Operation, Piece, Submission, tag_of};
use crate::lib_block::message::{Capability, Opening, Rights, SessionId};
use crate::lib_block::ring::{Announcement, ServerEnd, ServerRings, Stage};
use crate::lib_block::{MAX_PIECES, Status};

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Nobody has it.
    Vacant,
    /// Its client does not yet go along with the epoch.
    Attaching,
    /// It is served.
    Serving,
    /// Nothing is taken any more; it is vacant once the device gave everything back.
    Ending,
}

/// Counts of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStatistics {
    /// Entries and calls answered with success.
    pub done: u64,
    /// Answered with anything else.
    pub failed: u64,
    /// What it was charged for what it started, in bytes: the scheduler's measure.
    pub charged: u64,
    /// Doorbells rung at the client.
    pub doorbells: u64,
}

pub(super) struct Session<'m> {
    pub(super) life: Life,
    pub(super) id: SessionId,
    pub(super) end: Option<ServerEnd<'m>>,
    /// The end of a session that was broken off.
    gagged: Option<ServerEnd<'m>>,
    pub(super) credit: u16,
    capability: Capability,
    /// Operations that may be asked for, by number.
    may: u32,
    pub(super) facts: Facts,
    pub(super) limits: Limits,
    pub(super) registry: Registry<'m>,
    /// By tag: what is known of every request.
    pub(super) words: &'m mut [Word],
    /// By tag: what is known of the others.
    pub(super) flights: &'m mut [Flight],
    pub(super) lists: &'m [List],
    pub(super) backlog: Backlog<'m>,
    pub(super) waiting: u32,
    /// Waiting requests with a deadline.
    pub(super) timed: u32,
    pub(super) load: Load,
    pub(super) cap: Load,
    pub(super) deficit: u64,
    pub(super) quantum: u64,
    /// The second word of every completion: the epoch.
    when: u64,
    /// What an ending session's client is told.
    farewell: Stage,
    /// What the call in progress came to.
    pub(super) called: Option<(Status, u32)>,
    pub(super) counted: SessionStatistics,
}

impl<'m> Session<'m> {
    /// Session number `at` of queue `queue`.
    pub(super) fn new(
        queue: u8,
        at: usize,
        (words, flights): (&'m mut [Word], &'m mut [Flight]),
        lists: &'m [List],
        tags: &'m mut [u16],
    ) -> Self {
        Self {
            life: Life::Vacant,
            // Session 0 is no session: generations begin with 1.
            id: SessionId(1 << 16 | u32::from(queue) << 8 | at as u32),
            end: None,
            gagged: None,
            credit: 0,
            capability: Capability::default(),
            may: 0,
            facts: Facts::default(),
            limits: Limits::default(),
            registry: Registry::new(),
            words,
            flights,
            lists,
            backlog: Backlog::new(tags),
            waiting: 0,
            timed: 0,
            load: Load::default(),
            cap: Load::default(),
            deficit: 0,
            quantum: 0,
            when: 0,
            farewell: Stage::Ended,
            called: None,
            counted: SessionStatistics::default(),
        }
    }

    /// The driver's life that it belongs to.
    fn epoch(&self) -> u32 {
        self.when as u32
    }

    /// Blocks of its device.
    pub(super) fn blocks(&self) -> u64 {
        self.capability.blocks()
    }

    /// The tag of calls, behind those of the client.
    pub(super) fn call_tag(&self) -> u16 {
        self.flights.len() as u16 - 1
    }

    /// Whether a call is unanswered.
    pub(super) fn is_called(&self) -> bool {
        !self.words[usize::from(self.call_tag())].is(Place::Reserved)
    }

    /// Begins to serve a client; what it asks for was checked.
    pub(super) fn open(
        &mut self,
        opening: &Opening,
        rings: ServerRings<'m>,
        limits: Limits,
        options: &Options,
        epoch: u32,
    ) {
        self.end = Some(ServerEnd::new(rings));
        self.life = Life::Attaching;
        self.credit = opening.credit;
        self.capability = opening.capability;
        let supported = |operation: Operation| limits.supports(operation).is_ok();
        self.may = may(opening.capability.rights, supported);
        self.limits = limits;
        let extent = match opening.capability.extents() {
            [extent] => (extent.first, extent.blocks),
            _ => (0, 0),
        };
        let allowed = |operation: Operation| self.may & 1 << operation as u32 != 0;
        self.facts = Facts::new(allowed, extent, &limits);
        for (tag, word) in self.words.iter_mut().enumerate() {
            *word = if tag < usize::from(opening.credit) { Word::FREE } else { Word::RESERVED };
        }
        self.registry.clear();
        let weight = u64::from(opening.weight);
        self.cap = Load::of(options.cap_requests, options.cap_bytes.saturating_mul(weight).min(Load::MAX_BYTES));
        (self.deficit, self.quantum) = (0, options.quantum.saturating_mul(weight));
        self.when = u64::from(epoch);
        self.called = None;
        self.counted = SessionStatistics::default();
    }

    /// Undoes an opening that its client was not told of.
    pub(super) fn give_up(&mut self) {
        (self.life, self.end) = (Life::Vacant, None);
        self.registry.clear();
    }

    /// Tells the client that it is served from here on.
    pub(super) fn invite(&mut self) {
        let word = Announcement { epoch: self.epoch(), stage: Stage::Serving };
        if let Some(end) = &mut self.end {
            end.announce(word);
        }
    }

    /// Lets no more entries in; those that wait are answered with [`Status::Gone`], those that the device has are
    /// awaited. Then the client is told `farewell`.
    pub(super) fn wind_up(&mut self, farewell: Stage) {
        if matches!(self.life, Life::Vacant | Life::Ending) {
            return;
        }
        (self.life, self.farewell) = (Life::Ending, farewell);
        let mut tags = [0u16; 64];
        while self.waiting > 0 {
            let mut count = 0;
            self.backlog.each(|tag| {
                if let Some(place) = tags.get_mut(count) {
                    *place = tag;
                    count += 1;
                }
            });
            for tag in &tags[..count] {
                self.withdraw(*tag, Status::Gone);
            }
        }
        self.backlog.clear();
    }

    /// Ends the session for what its client did: nothing is posted any more, and the client is told once the device
    /// has let go of its memory.
    #[cold]
    pub(super) fn break_off(&mut self) {
        self.gagged = self.end.take();
        self.wind_up(Stage::Ended);
    }

    /// Takes a request that waits out of the backlog and answers it.
    pub(super) fn withdraw(&mut self, tag: u16, status: Status) {
        self.backlog.withdraw(tag);
        self.unwait(tag);
        self.answer(tag, status, 0, false);
    }

    /// A request that waited does so no more.
    pub(super) fn unwait(&mut self, tag: u16) {
        self.waiting -= 1;
        self.timed -= u32::from(self.flights[usize::from(tag)].deadline != 0);
    }

    /// Ends an ending session that has nothing left; true: it is vacant now.
    pub(super) fn vacate(&mut self) -> bool {
        let over = self.life == Life::Ending && self.load.requests() == 0 && self.waiting == 0;
        if over {
            let word = Announcement { epoch: self.epoch(), stage: self.farewell };
            if let Some(end) = self.end.as_mut().or(self.gagged.as_mut()) {
                end.announce(word);
            }
            self.life = Life::Vacant;
            self.id = SessionId((((self.id.0 >> 16) + 1) & 0xffff).max(1) << 16 | self.id.0 & 0xffff);
            (self.end, self.gagged) = (None, None);
            self.registry.clear();
        }
        over
    }

    /// Posts the end of a request; its tag is free again.
    pub(super) fn answer(&mut self, tag: u16, status: Status, bytes: u32, late: bool) {
        if tag == self.call_tag() {
            self.words[usize::from(tag)] = Word::RESERVED;
            self.called = Some((status, bytes));
        } else {
            self.words[usize::from(tag)] = Word::FREE;
            self.post(tag, status, bytes, late);
        }
    }

    /// Posts what came of an entry.
    pub(super) fn post(&mut self, tag: u16, status: Status, bytes: u32, late: bool) {
        if status.is_ok() {
            self.counted.done += 1;
        } else {
            self.counted.failed += 1;
        }
        let completion = Completion { tag, status, bytes, epoch: self.epoch(), late };
        if let Some(end) = &mut self.end {
            end.post(completion.encode());
        }
    }

    /// Posts the success of the common requests of session `number` at the front of `tokens`; how many there were.
    #[inline(always)]
    pub(super) fn answer_common(&mut self, number: u64, tokens: &[u64]) -> usize {
        let (mut count, mut bytes) = (0, 0);
        // A session that was broken off is answered without a word.
        let mut posting = self.end.as_mut().map(ServerEnd::posting);
        let when = self.when;
        for token in tokens {
            let tag = token ^ number << 16;
            let Some(word) = self.words.get_mut(tag as usize).filter(|word| word.is_plain()) else { break };
            let moved = word.bytes();
            *word = Word::FREE;
            bytes += weight(moved);
            if let Some(posting) = &mut posting {
                posting.post([tag | u64::from(moved) << 32, when]);
            }
            count += 1;
        }
        self.load.remove(Load::of(count as u32, bytes));
        self.counted.done += count as u64;
        count
    }

    /// Holds any entry but a CANCEL against the session; on success its flight is filled and it can wait.
    fn admit(&mut self, words: &[u64; 8]) -> Result<u16, Status> {
        let tag = self.free_tag(words)?;
        let wish = Submission::decode(words)?;
        let bytes = self.allow(&wish)?;
        let (sector, sectors) = self.place(&wish)?;
        let (pieces, piece, memories) = self.collect(tag, &wish, bytes)?;
        self.fill(tag, &wish, (sector, sectors), (pieces, piece, memories), bytes);
        Ok(tag)
    }

    /// The tag of an entry, which must be free.
    fn free_tag(&self, words: &[u64; 8]) -> Result<u16, Status> {
        let tag = tag_of(words);
        if tag >= self.credit {
            return Err(Status::InvalidArgument);
        }
        if self.words[usize::from(tag)].is_free() { Ok(tag) } else { Err(Status::Busy) }
    }

    /// Rights, what the device can do, and how much at once; the bytes of data that are meant.
    fn allow(&self, wish: &Submission) -> Result<u32, Status> {
        self.limits.supports(wish.operation)?;
        if self.may & 1 << wish.operation as u32 == 0 {
            return Err(Status::Denied);
        }
        if !wish.operation.has_data() {
            return Ok(0);
        }
        if u64::from(wish.blocks) > self.limits.max_blocks {
            return Err(Status::InvalidArgument);
        }
        Ok(wish.blocks << self.limits.block_shift)
    }

    /// Where the blocks are on the medium, in sectors: inside one extent.
    fn place(&self, wish: &Submission) -> Result<(u64, u64), Status> {
        if !wish.operation.has_blocks() {
            return Ok((0, 0));
        }
        let (mut lba, blocks) = (wish.lba, u64::from(wish.blocks));
        for extent in self.capability.extents() {
            if lba < extent.blocks {
                let inside = blocks <= extent.blocks - lba;
                let shift = self.limits.sector_shift;
                return inside.then_some(((extent.first + lba) << shift, blocks << shift)).ok_or(Status::OutOfRange);
            }
            lba -= extent.blocks;
        }
        Err(Status::OutOfRange)
    }

    /// The memory of a request; several pieces go into the tag's list.
    fn collect(&self, tag: u16, wish: &Submission, bytes: u32) -> Result<(u16, Segment, u16), Status> {
        let mut pieces = [Piece::default(); MAX_PIECES];
        let count = match wish.data {
            Data::None => return Ok((0, Segment::new(DeviceAddress(0), 0), 0)),
            Data::One(piece) => {
                pieces[0] = piece;
                1
            }
            Data::Two([one, two]) => {
                (pieces[0], pieces[1]) = (one, two);
                2
            }
            Data::List(list) => self.registry.read_list(list, &mut pieces)?,
        };
        let mut segments = [Segment::new(DeviceAddress(0), 0); MAX_PIECES];
        let (mut sum, mut memories) = (0u64, 0);
        for (segment, piece) in segments.iter_mut().zip(&pieces[..count]) {
            if piece.len == 0 {
                return Err(Status::InvalidArgument);
            }
            *segment = self.registry.locate(*piece, Way::of(wish.operation == Operation::Read))?;
            sum += u64::from(piece.len);
            memories |= Registry::bit_of(piece.memory.0);
        }
        if sum != u64::from(bytes) {
            return Err(Status::InvalidArgument);
        }
        if count > 1 {
            // SAFETY: the tag is free, so nothing is in flight that lent its list; one thread has the session.
            unsafe { self.lists[usize::from(tag)].fill(&segments[..count]) };
        }
        Ok((count as u16, segments[0], memories))
    }

    fn fill(
        &mut self,
        tag: u16,
        wish: &Submission,
        (sector, sectors): (u64, u64),
        (pieces, piece, memories): (u16, Segment, u16),
        bytes: u32,
    ) {
        self.words[usize::from(tag)] = Word::new(Place::Waiting, wish.operation, memories, bytes);
        self.flights[usize::from(tag)] =
            Flight { flags: wish.flags, pieces, sectors, sector, piece, deadline: wish.deadline };
    }

    /// As [`Session::admit`], for a call, whose memory was granted beside it.
    pub(super) fn admit_call(&mut self, wish: &Submission, piece: Option<Segment>) -> Result<(), Status> {
        let tag = self.call_tag();
        if !self.words[usize::from(tag)].is(Place::Reserved) {
            return Err(Status::Busy);
        }
        let bytes = self.allow(wish)?;
        let place = self.place(wish)?;
        let (pieces, piece) = match piece {
            Some(piece) => (1, piece),
            None => (0, Segment::new(DeviceAddress(0), 0)),
        };
        self.fill(tag, wish, place, (pieces, piece, 0), bytes);
        Ok(())
    }

    /// Puts an admitted request behind those that wait.
    pub(super) fn wait(&mut self, tag: u16) {
        self.backlog.push(tag);
        self.waiting += 1;
        self.timed += u32::from(self.flights[usize::from(tag)].deadline != 0);
    }

    /// Takes any entry: answers it at once, or has it wait.
    #[cold]
    pub(super) fn take(&mut self, words: &[u64; 8]) {
        let outcome = if words[0] as u8 == Operation::Cancel as u8 {
            self.cancel(words).map_or_else(Some, |()| Some(Status::Ok))
        } else {
            self.admit(words).map_or_else(Some, |tag| {
                self.wait(tag);
                None
            })
        };
        if let Some(status) = outcome {
            self.post(tag_of(words), status, 0, false);
        }
    }

    /// What waits is withdrawn, what the device has stays.
    fn cancel(&mut self, words: &[u64; 8]) -> Result<(), Status> {
        self.free_tag(words)?;
        let target = Submission::decode(words)?.lba;
        let word = self.words.get(target as usize).copied().unwrap_or(Word::FREE);
        if target >= u64::from(self.credit) || word.is_free() {
            return Err(Status::NotFound);
        }
        if !word.is(Place::Waiting) {
            return Err(Status::Busy);
        }
        self.withdraw(target as u16, Status::Gone);
        Ok(())
    }

    /// Whether a request that is not answered names this memory.
    pub(super) fn names(&self, bit: u16) -> bool {
        self.words.iter().any(|word| !word.is_free() && word.memories() & bit != 0)
    }

    /// Whether a request wants to begin only when all before it were answered.
    pub(super) fn is_barrier(&self, tag: u16) -> bool {
        self.flights[usize::from(tag)].flags.has(Flags::PRE_BARRIER)
    }
}

/// What a session with these rights may ask for, by operation; CANCEL always.
fn may(rights: Rights, supported: impl Fn(Operation) -> bool) -> u32 {
    let mut may = 1 << Operation::Cancel as u32;
    let table = [
        (Rights::READ, Operation::Read),
        (Rights::WRITE, Operation::Write),
        (Rights::FLUSH, Operation::Flush),
        (Rights::DISCARD, Operation::Discard),
        (Rights::DISCARD, Operation::WriteZeroes),
    ];
    for (right, operation) in table {
        may |= u32::from(rights.has(right) && supported(operation)) << operation as u32;
    }
    may
}
