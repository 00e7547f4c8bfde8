//! What both kinds of queue do alike: hold a request against the device's facts, stage it, settle the device's answer.
//!
//! All methods take `&self`: a slot's memory is exclusively the caller's by the state that the slot is in (`slot.rs`),
//! and nothing here claims, publishes or releases. The plain case, a read or write of one segment within every limit,
//! is decided first and inlined; everything else goes through [`Core::shape`].
use super::oversize::{ChainLimits, Cursor, MAX_CHAIN_BYTES, Parents};
use super::tables::LargeTables;
use crate::dma::{Buffer, Segment};
use crate::geometry::{Geometry, RangeLimits};
use crate::request::{Completion, Operation, Refusal, Request, Ticket};
use crate::ring::chain::{Chains, Flow, Head, INLINE};
use crate::ring::split::{SplitRing, UsedEntry};
use crate::slot::{Answer, Bitmap, Lines, Record, State};
use crate::spec::{ID_BYTES, SECTOR_SHIFT, request_status};
use core::fmt;

/// What a device did that broke its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A used id that is no chain's head.
    UnknownId,
    /// A used id whose chain is not in flight.
    NotInFlight,
    /// A chain given back without a status.
    NoStatus,
    /// A used index further on than chains are in flight.
    IndexJump,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownId => "used id is no chain's head",
            Self::NotInFlight => "used id names a chain that is not in flight",
            Self::NoStatus => "chain given back without a status",
            Self::IndexJump => "used index ahead of what is in flight",
        })
    }
}

impl core::error::Error for Violation {}

/// How a request goes to the device.
pub(crate) enum Shape {
    /// As one chain.
    Chain,
    /// Cut into several.
    Oversize,
    /// Not at all: there is nothing to do for the device.
    Done,
}

/// A used entry that was believed: the chain that it gives back.
pub(crate) struct Settled {
    pub(crate) slot: u16,
    pub(crate) state: State,
    pub(crate) answer: Answer,
    /// The used length is more than the device may write. It is counted, and the status decides.
    pub(crate) odd_length: bool,
}

/// Which way an operation's data flows: the lowest bit of the request type says so.
#[inline(always)]
fn flow_of(operation: Operation) -> Flow {
    if operation as u8 & 1 == 0 { Flow::FromDevice } else { Flow::FromDriver }
}

/// What a slot's state says of its chain's head.
#[inline(always)]
fn head_flag(head: Head) -> u32 {
    if head.other { State::OTHER_HEAD } else { 0 }
}

/// The parts of a queue that never change hands.
pub(crate) struct Core<'m, B> {
    pub(crate) geometry: &'m Geometry,
    pub(crate) ring: SplitRing<'m>,
    pub(crate) chains: Chains<'m>,
    pub(crate) lines: Lines<'m>,
    pub(crate) records: &'m [Record<B>],
    pub(crate) free: Bitmap<'m>,
    pub(crate) parked: Bitmap<'m>,
    pub(crate) staged: Bitmap<'m>,
    pub(crate) parents: Parents<'m, B>,
    pub(crate) tables: Option<LargeTables<'m>>,
    pub(crate) limits: ChainLimits,
    /// Most segments that a chain through a table of the pool may have.
    large: usize,
    plain: PlainFacts,
}

/// The device's facts as the plain path looks at them: a length and a kind of request in one test.
///
/// To a length in bytes 2^32 less one block is added. Of the sum a whole number of blocks up to the limit, a power of
/// two, has only bits between the two left, and bit 32; no sum is 0, so that a mask of ones forbids every length.
struct PlainFacts {
    less_a_block: u64,
    /// Bits that the sum must not have, by operation, and 16 further on with its flag.
    forbidden: [u64; 32],
    /// Bits that an aligned sector number does not have.
    unaligned: u64,
}

impl PlainFacts {
    fn new(geometry: &Geometry) -> Self {
        let block = u64::from(geometry.block_size);
        let limit = u64::from(geometry.size_max).min(u64::from(Geometry::COMFORT) << SECTOR_SHIFT);
        let limit = limit.checked_ilog2().map_or(0, |bits| 1u64 << bits);
        let lengths = limit.checked_sub(block).map_or(u64::MAX, |sums| u64::from(u32::MAX) & !sums);
        let mut forbidden = [u64::MAX; 32];
        forbidden[Operation::Read as usize] = lengths;
        if !geometry.read_only {
            forbidden[Operation::Write as usize] = lengths;
            // Force unit access without a write cache is a plain write.
            if !geometry.writeback {
                forbidden[Operation::Write as usize + 16] = lengths;
            }
        }
        Self { less_a_block: (1 << 32) - block, forbidden, unaligned: (block >> SECTOR_SHIFT) - 1 }
    }

    /// Whether a request of this kind, length and place is plain, if it lies on the medium.
    #[inline(always)]
    fn allow(&self, operation: Operation, flag: bool, len: u64, lba: u64) -> bool {
        let sum = len + self.less_a_block;
        sum & self.forbidden[operation as usize + usize::from(flag) * 16] == 0 && lba & self.unaligned == 0
    }
}

impl<'m, B> Core<'m, B> {
    #[allow(clippy::too_many_arguments, reason = "a queue is these parts; one caller")]
    pub(crate) fn new(
        geometry: &'m Geometry,
        ring: SplitRing<'m>,
        chains: Chains<'m>,
        lines: Lines<'m>,
        records: &'m [Record<B>],
        [free, parked, staged]: [Bitmap<'m>; 3],
        parents: Parents<'m, B>,
        tables: Option<LargeTables<'m>>,
    ) -> Self {
        let by_ring = (ring.size() as usize).saturating_sub(2).max(1);
        let by_device = (geometry.seg_max as usize).max(1).min(by_ring);
        let inline = if chains.has_tables() { INLINE.min(by_device) } else { 1 };
        Self {
            limits: ChainLimits {
                segments: inline,
                bytes: geometry.size_max.min(MAX_CHAIN_BYTES),
                unit: geometry.block_size,
            },
            plain: PlainFacts::new(geometry),
            large: tables.as_ref().map_or(inline, |tables| tables.segments.min(by_device).max(inline)),
            tables,
            geometry,
            ring,
            chains,
            lines,
            records,
            free,
            parked,
            staged,
            parents,
        }
    }

    /// A slot's record. Slot numbers come from the free bitmap or from [`Chains::slot_of`], both below the number of
    /// records.
    #[inline(always)]
    pub(crate) fn record(&self, slot: u16) -> &'m Record<B> {
        &self.records[slot as usize]
    }

    /// The ticket of a slot's present use.
    #[inline(always)]
    pub(crate) fn ticket(&self, slot: u16) -> Ticket {
        Ticket { slot, generation: self.record(slot).state().generation() }
    }

    /// The common answer: a chain whose state is plain came back well, whole and known. Gives its record and the state
    /// that releases it, as `released` has it of a plain state. `None` says nothing against it: [`Core::settle`]
    /// decides.
    ///
    /// Whatever the device wrote, nothing is indexed unchecked, and the status is read once.
    #[inline(always)]
    pub(crate) fn settle_plain(
        &self,
        entry: UsedEntry,
        released: impl FnOnce(State) -> Option<State>,
    ) -> Option<(&'m Record<B>, State)> {
        let record = self.records.get(entry.id as usize)?;
        let released = released(record.state())?;
        // Whole: everything writable was written, the status counted or not (devices differ, and it is checked).
        if entry.len.wrapping_sub(record.word()) > 1 || self.lines.read_status(entry.id) != request_status::OK {
            return None;
        }
        Some((record, released))
    }

    /// Checks a used entry and says which slot it completes and how. Whatever the device wrote, nothing is indexed
    /// unchecked. The entry was covered by a used index read before.
    ///
    /// Ids, states and the status are held to the specification. The length is not: devices in the field report 0, a
    /// write's data, or one byte more than there is, so that nothing but a read's shortness follows from it.
    #[cold]
    pub(crate) fn settle(&self, entry: UsedEntry) -> Result<Settled, Violation> {
        let slot = self.chains.slot_of(entry.id).ok_or(Violation::UnknownId)?;
        let record = self.record(slot);
        let state = record.state();
        let head = self.chains.head_of(slot, state.has(State::OTHER_HEAD));
        if state.phase() != State::IN_FLIGHT || u32::from(head) != entry.id {
            return Err(Violation::NotInFlight);
        }
        let writable = record.word();
        let status = self.lines.read_status(slot.into());
        if status == request_status::POISON {
            return Err(Violation::NoStatus);
        }
        // `writable` leaves room for the status: chains are cut below 2^31.
        let odd_length = entry.len > writable + 1;
        Ok(Settled { slot, state, answer: Answer::new(status, entry.len, writable), odd_length })
    }

    /// Whether place and length are whole blocks.
    fn is_aligned(&self, lba: u64, bytes: u64) -> bool {
        (lba << SECTOR_SHIFT | bytes) & u64::from(self.geometry.block_size - 1) == 0
    }

    /// Whether `sectors` from `lba` on lie on the medium.
    #[inline(always)]
    fn inside(&self, lba: u64, sectors: u64) -> bool {
        self.geometry.capacity().checked_sub(sectors).is_some_and(|last| lba <= last)
    }
}

impl<B: Buffer> Core<'_, B> {
    /// The segment of a plain request: one read or write of one segment, allowed, aligned, inside, within the limits.
    /// `comfortable` is [`Geometry::comfortable`], read once for a batch. `None` says nothing against the request:
    /// [`Core::shape`] decides.
    #[inline(always)]
    pub(crate) fn plain(&self, request: &Request<B>, comfortable: u64) -> Option<Segment> {
        let [segment] = request.buffer.as_ref()?.segments() else { return None };
        if !self.plain.allow(request.operation, request.flag, segment.wide_len(), request.lba) {
            return None;
        }
        let sectors = segment.wide_len() >> SECTOR_SHIFT;
        let inside = request.lba < comfortable || self.inside(request.lba, sectors);
        inside.then_some(*segment)
    }

    /// Stages a plain request in `slot`, which the caller claimed. Returns the head to offer and the slot's ticket.
    #[inline(always)]
    pub(crate) fn stage_plain(
        &self,
        (slot, record): (usize, &Record<B>),
        request: Request<B>,
        data: Segment,
        phase: u32,
        flags: u32,
    ) -> (Head, Ticket) {
        let flow = flow_of(request.operation);
        self.lines.write(slot, request.operation, request.lba);
        let head = self.chains.one(slot, data, flow);
        record.set_word(flow.writable(data.len()));
        // SAFETY: the slot is claimed by this thread (state 2), so nobody else touches its content.
        unsafe { record.content.with(|content| content.put(request.token, request.buffer)) };
        // A free slot's state has neither phase nor flags.
        let state = State(record.state().0 | phase | flags | State::BUFFER | head_flag(head));
        record.set_state(state);
        (head, Ticket { slot: slot as u16, generation: state.generation() })
    }

    /// Puts the caller's things into a claimed slot.
    fn fill(&self, slot: u16, token: u64, buffer: Option<B>, writable: u32) {
        let record = self.record(slot);
        record.set_word(writable);
        // SAFETY: as in `stage_plain`.
        unsafe { record.content.with(|content| content.put(token, buffer)) };
    }

    /// Moves a slot into `phase` with these flags, within its present generation.
    fn enter(&self, slot: u16, phase: u32, flags: u32, head: Head) {
        let record = self.record(slot);
        record.set_state(record.state().with(phase, flags | head_flag(head)));
    }

    /// Decides how any request goes to the device, or why it does not.
    #[cold]
    pub(crate) fn shape(&self, request: &Request<B>) -> Result<Shape, Refusal> {
        let changes = !matches!(request.operation, Operation::Read | Operation::GetId | Operation::Flush);
        if changes && self.geometry.read_only {
            return Err(Refusal::ReadOnly);
        }
        match request.operation {
            Operation::Read | Operation::Write => self.shape_data(request),
            Operation::Discard => self.shape_range(request, self.geometry.discard),
            Operation::WriteZeroes => self.shape_range(request, self.geometry.write_zeroes),
            Operation::Flush if self.geometry.writeback => Ok(Shape::Chain),
            // Write-through: what was answered is durable (5.2.5.2).
            Operation::Flush => Ok(Shape::Done),
            Operation::GetId => match request.buffer.as_ref().map(Buffer::segments) {
                Some([segment]) if segment.len() >= ID_BYTES => Ok(Shape::Chain),
                _ => Err(Refusal::BadBuffer),
            },
        }
    }

    fn shape_data(&self, request: &Request<B>) -> Result<Shape, Refusal> {
        let segments = request.buffer.as_ref().map_or(&[][..], Buffer::segments);
        let bytes: u64 = segments.iter().map(|s| u64::from(s.len())).sum();
        if bytes == 0 || segments.iter().any(|s| s.is_empty()) {
            return Err(Refusal::Empty);
        }
        if !self.is_aligned(request.lba, bytes) {
            return Err(Refusal::Unaligned);
        }
        if !self.inside(request.lba, bytes >> SECTOR_SHIFT) {
            return Err(Refusal::OutOfRange);
        }
        let short = segments.iter().all(|s| s.len() <= self.limits.bytes) && bytes <= u64::from(MAX_CHAIN_BYTES);
        if short && segments.len() <= self.large {
            return Ok(Shape::Chain);
        }
        Cursor::can_cut(segments, &self.limits).then_some(Shape::Oversize).ok_or(Refusal::Unaligned)
    }

    /// Whether a request that found no table of the pool can be cut instead. If not, it waits for a table.
    pub(crate) fn can_cut(&self, request: &Request<B>) -> bool {
        let segments = request.buffer.as_ref().map_or(&[][..], Buffer::segments);
        Cursor::can_cut(segments, &self.limits)
    }

    fn shape_range(&self, request: &Request<B>, limits: Option<RangeLimits>) -> Result<Shape, Refusal> {
        let limits = limits.ok_or(Refusal::Unsupported)?;
        if request.sectors == 0 {
            return Err(Refusal::Empty);
        }
        let bytes = u64::from(request.sectors) << SECTOR_SHIFT;
        if !self.is_aligned(request.lba, bytes) {
            return Err(Refusal::Unaligned);
        }
        if !self.inside(request.lba, u64::from(request.sectors)) {
            return Err(Refusal::OutOfRange);
        }
        Ok(if request.sectors <= limits.max_sectors { Shape::Chain } else { Shape::Oversize })
    }

    /// Stages any request of shape [`Shape::Chain`] in `slot`. Gives it back when it needs a table of the pool and
    /// none is left: it is to be cut instead.
    #[cold]
    pub(crate) fn stage(&self, slot: u16, request: Request<B>, phase: u32, flags: u32) -> Result<Head, Request<B>> {
        let operation = request.operation;
        let flow = flow_of(operation);
        let durable = operation == Operation::Write && request.flag && self.geometry.writeback;
        let mut flags = flags | if durable { State::FLUSH_FOLLOWS } else { 0 };
        let data = request.buffer.as_ref().map_or(&[][..], Buffer::segments);
        let identity = [data.first().map_or(self.lines.range(slot), |s| s.first(ID_BYTES))];
        let data = if operation == Operation::GetId { &identity[..] } else { data };
        let head = match operation {
            Operation::Discard | Operation::WriteZeroes => {
                self.stage_range(slot, operation, request.lba, request.sectors, request.flag)
            }
            _ if data.len() > self.limits.segments => {
                let Some(head) = self.chain_large(slot, data, flow) else { return Err(request) };
                flags |= State::LARGE_TABLE;
                self.lines.write(slot.into(), operation, request.lba);
                head
            }
            _ => self.chain_up(slot, operation, request.lba, data),
        };
        let writable = flow.writable(data.iter().map(|s| s.len()).sum());
        flags |= if request.buffer.is_some() { State::BUFFER } else { 0 };
        self.fill(slot, request.token, request.buffer, writable);
        self.enter(slot, phase, flags, head);
        Ok(head)
    }

    /// Writes header and chain for at most [`ChainLimits::segments`] segments.
    pub(crate) fn chain_up(&self, slot: u16, operation: Operation, lba: u64, data: &[Segment]) -> Head {
        let flow = flow_of(operation);
        self.lines.write(slot.into(), operation, lba);
        match data {
            [] => self.chains.none(&self.ring, slot, self.lines.header(slot)),
            [one] => self.chains.one(slot.into(), *one, flow),
            _ => self.chains.inline(&self.ring, slot, data, flow),
        }
    }

    fn chain_large(&self, slot: u16, data: &[Segment], flow: Flow) -> Option<Head> {
        let tables = self.tables.as_ref()?;
        let table = tables.take(slot)?;
        let frame = (self.lines.header(slot), self.lines.status(slot));
        Some(self.chains.large(&self.ring, &tables.pool, table, slot, frame, data, flow))
    }

    /// Writes header, range and chain of a DISCARD or WRITE ZEROES.
    pub(crate) fn stage_range(&self, slot: u16, operation: Operation, lba: u64, sectors: u32, unmap: bool) -> Head {
        self.lines.write(slot.into(), operation, 0);
        self.lines.write_range(slot, lba, sectors, unmap);
        self.chains.one(slot.into(), self.lines.range(slot), Flow::FromDriver)
    }

    /// Stages a child of parent `parent`, or the FLUSH that follows a durable write, in a slot that its request
    /// already owns.
    pub(crate) fn stage_again(&self, slot: u16, head: Head, writable: u32, phase: u32, flags: u32) {
        self.record(slot).set_word(writable);
        self.enter(slot, phase, flags, head);
    }

    /// Parks the end of a request in a slot that the drainer holds.
    pub(crate) fn park(&self, slot: u16, token: u64, buffer: Option<B>, answer: Answer, flags: u32) {
        let flags = flags | if buffer.is_some() { State::BUFFER } else { 0 };
        self.fill(slot, token, buffer, answer.0);
        let record = self.record(slot);
        record.set_state(record.state().with(State::PARKED, flags));
    }

    /// After a chain that was not the slot's usual one, whose state was `state`: what the usual one relies on is there
    /// again, and a table of the pool free.
    #[inline(always)]
    pub(crate) fn restore(&self, slot: u16, state: State) {
        if state.has(State::OTHER_HEAD) {
            self.restore_other(slot, state);
        }
    }

    #[cold]
    fn restore_other(&self, slot: u16, state: State) {
        self.chains.restore(&self.ring, slot, self.lines.header(slot));
        if let (true, Some(tables)) = (state.has(State::LARGE_TABLE), &self.tables) {
            tables.give_back(slot);
        }
    }

    /// Takes a parked slot's completion, if it has one, and leaves the slot released.
    ///
    /// # Safety
    /// The slot is parked and this thread took its bit out of the parked set.
    pub(crate) unsafe fn collect(&self, slot: u16) -> Option<Completion<B>> {
        let record = self.record(slot);
        let state = record.state();
        if state.has(State::CHILD) {
            record.set_state(state.released());
            return None;
        }
        // SAFETY: handed on to the caller; the state of a parked slot says what it holds.
        let (token, buffer) = unsafe { self.empty(slot, state) };
        record.set_state(state.released());
        Some(Completion { token, result: Answer(record.word()).result(), buffer })
    }

    /// Parks a slot that a cut request no longer needs: its submitter takes the slot and nothing else.
    pub(crate) fn park_empty(&self, slot: u16, flags: u32) {
        let record = self.record(slot);
        record.set_state(record.state().with(State::PARKED, flags | State::CHILD));
    }

    /// Takes token and buffer out of a slot.
    ///
    /// # Safety
    /// The slot belongs to this thread: its chain was given back by the device (or the device is quiesced), or it was
    /// never published; and its state, which is `state`, has not been released.
    #[inline(always)]
    pub(crate) unsafe fn empty(&self, slot: u16, state: State) -> (u64, Option<B>) {
        // SAFETY: the slot is this thread's by the contract; the buffer is initialised when the state says so.
        unsafe {
            self.record(slot)
                .content
                .with(|content| (content.token, state.has(State::BUFFER).then(|| content.buffer.assume_init_read())))
        }
    }
}
