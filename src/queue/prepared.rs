//! A queue laid out in memory, not yet known to a running device: where queues begin, and where they end after a reset.
//!
//! It decides how many slots there are and which form their chains take; all memory is taken here, once. What is
//! reclaimed after a reset comes back as a [`Prepared`] over the same memory.
use super::core::Core;
use super::oversize::{Parent, Parents};
use super::owned::OwnedQueue;
use super::shared::{SharedQueue, Wake};
use super::tables::LargeTables;
use crate::arena::{Arena, ArenaExhausted};
use crate::device::Quiesced;
use crate::dma::{Buffer, DmaRegion, RegionExhausted};
use crate::geometry::{Geometry, is_block_size};
use crate::request::{Completion, Error, Gone};
use crate::ring::chain::{Chains, Form, Pool};
use crate::ring::split::{RingLayout, SplitRing};
use crate::slot::{Bitmap, Lines, MAX_SLOTS, Record, State};
use crate::spec::feature;
use crate::sync::{AtomicU32, Guarded, Word};
use crate::transport::{Doorbell, RingAddresses};
use core::fmt;

/// How chains reach their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chaining {
    /// Three fixed descriptors a slot; its table only for several segments. Measured cheaper than [`Chaining::Indirect`]
    /// wherever the ring has three times as many descriptors as requests in flight.
    #[default]
    Direct,
    /// One descriptor and one table a slot: as many slots as descriptors. Needs INDIRECT_DESC.
    Indirect,
}

/// What a queue is made of.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Descriptors: a power of two, at most what the device offers.
    pub size: u16,
    /// Most slots (0: as many as descriptors and memory allow). From four on, direct chains take them in fours.
    pub slots: u16,
    /// The chains' form; a ring of 2 always takes [`Chaining::Indirect`].
    pub chaining: Chaining,
    /// Tables for chains of more than six segments, at most 64; 0: such requests are cut.
    pub large_tables: u16,
    /// Segments of such a table.
    pub large_segments: u16,
    /// How many cut requests may be in flight at once, 1 to 64.
    pub parents: u16,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { size: 256, slots: 0, chaining: Chaining::Direct, large_tables: 0, large_segments: 126, parents: 8 }
    }
}

/// Why a queue cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareError {
    /// The size is not a power of two from 2 to 32768, or too small for its chains.
    Size(u16),
    /// Indirect chains were asked for (a ring of 2 needs them) and INDIRECT_DESC was not negotiated.
    NoIndirect,
    /// An option is out of its range.
    Options,
    /// The geometry's block size is not a power of two from 512 bytes to 64 KiB: it is no device's.
    BlockSize(u32),
    /// The DMA region does not hold even one slot.
    Dma(RegionExhausted),
    /// The private memory is too small.
    Private(ArenaExhausted),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "queue size {size} is not a power of two that holds a chain"),
            Self::NoIndirect => f.write_str("indirect chains were not negotiated"),
            Self::Options => f.write_str("queue options out of range"),
            Self::BlockSize(bytes) => {
                write!(f, "blocks of {bytes} bytes: a block size is a power of two from 512 to 65536")
            }
            Self::Dma(e) => write!(f, "DMA region too small: {} bytes wanted, {} left", e.wanted, e.left),
            Self::Private(e) => write!(f, "private memory too small: {} bytes wanted", e.wanted),
        }
    }
}

impl core::error::Error for PrepareError {}

impl From<RegionExhausted> for PrepareError {
    fn from(e: RegionExhausted) -> Self {
        Self::Dma(e)
    }
}

impl From<ArenaExhausted> for PrepareError {
    fn from(e: ArenaExhausted) -> Self {
        Self::Private(e)
    }
}

/// What the options come to on this device.
struct Plan {
    layout: RingLayout,
    form: Form,
    has_tables: bool,
    slots: usize,
    pool: usize,
}

impl Plan {
    fn new(options: &QueueOptions, geometry: &Geometry, room: usize) -> Result<Self, PrepareError> {
        let size = options.size;
        if !is_block_size(geometry.block_size) {
            return Err(PrepareError::BlockSize(geometry.block_size));
        }
        let layout = RingLayout::new(size).ok_or(PrepareError::Size(size))?;
        let has_tables = geometry.features.has(feature::INDIRECT_DESC);
        let wants_tables = options.chaining == Chaining::Indirect || size == 2;
        let form = if wants_tables { Form::Indirect } else { Form::Direct };
        if wants_tables && !has_tables {
            return Err(PrepareError::NoIndirect);
        }
        if options.large_tables > 64 || options.parents == 0 || options.parents > 64 {
            return Err(PrepareError::Options);
        }
        let pool = if has_tables { usize::from(options.large_tables) } else { 0 };
        let most = usize::from(Chains::capacity(form, size)).min(MAX_SLOTS);
        let wanted = if options.slots == 0 { most } else { most.min(usize::from(options.slots)) };
        // Groups of four descriptors fill a line: what changes stays off the lines of what does not.
        let wanted = if form == Form::Direct && wanted > 4 { wanted & !3 } else { wanted };
        let mut plan = Self { layout, form, has_tables, slots: wanted, pool };
        // Tables are rounded up to powers of two: halving is what makes the need smaller.
        while plan.slots > 1 && plan.dma_bytes(options) > room {
            plan.slots = plan.slots.next_power_of_two() / 2;
        }
        if plan.slots == 0 { Err(PrepareError::Size(size)) } else { Ok(plan) }
    }

    fn dma_bytes(&self, options: &QueueOptions) -> usize {
        let tables = if self.has_tables { Chains::table_bytes(self.slots) } else { 0 };
        let pool = if self.pool > 0 { Pool::bytes(self.pool, options.large_segments.into()) } else { 0 };
        // Four blocks, each aligned to a pair of lines.
        self.layout.bytes() + Lines::bytes(self.slots) + tables + pool + 4 * ALIGN
    }
}

/// Blocks of two queues never share a line, nor the pair of lines that is fetched together.
const ALIGN: usize = crate::arena::LINE;

/// A queue in memory. `B` is what its requests carry.
pub struct Prepared<'m, B> {
    pub(super) core: Core<'m, B>,
    addresses: RingAddresses,
}

impl<'m, B: Buffer> Prepared<'m, B> {
    /// Lays a queue out for a device of this geometry.
    ///
    /// # Errors
    /// When the options do not fit the device or memory is short; memory already taken is not given back.
    pub fn new(
        options: &QueueOptions,
        geometry: &'m Geometry,
        dma: &mut DmaRegion<'m>,
        arena: &mut Arena<'m>,
    ) -> Result<Self, PrepareError> {
        let plan = Plan::new(options, geometry, dma.left())?;
        let slots = plan.slots;
        let block = dma.carve(plan.layout.bytes(), ALIGN)?;
        let lines = dma.carve(Lines::bytes(slots), ALIGN)?;
        let tables = plan.has_tables.then(|| dma.carve(Chains::table_bytes(slots), ALIGN)).transpose()?;
        let event_idx = geometry.features.has(feature::EVENT_IDX);
        let misfit = PrepareError::Size(options.size);
        let ring = SplitRing::new(&block, plan.layout, event_idx).ok_or(misfit)?;
        let chains = Chains::new(plan.form, slots as u16, &ring, tables.as_ref()).ok_or(misfit)?;
        let lines = Lines::new(&lines, slots).ok_or(misfit)?;
        let large = Self::large_tables(&plan, options, dma, arena)?;
        let parents = arena.place(options.parents.into(), |_| Guarded::new(Parent::unused()))?;
        let parents = Parents::new(Bitmap::new(arena.place(1, |_| Word::new(0))?), parents);
        let mut set = || Ok::<_, ArenaExhausted>(Bitmap::new(arena.place(Bitmap::words(slots), |_| Word::new(0))?));
        let sets = [set()?, set()?, set()?];
        let records = arena.place(slots, |_| Record::new())?;
        let core = Core::new(geometry, ring, chains, lines, records, sets, parents, large);
        let at = block.device_address();
        let (driver, device) = (plan.layout.available(at), plan.layout.used(at));
        // SAFETY: three parts of a block that was carved off the region for good, of the lengths that the layout has for
        // this size, as is what the descriptors will lead to. The region's memory is initialised and mapped for the
        // device; from here on it is touched by the rules of the ring only, and laid out anew only by `reclaim`, which
        // wants the proof. That they go to one queue of this device only, and again only after that, `within` and
        // `Negotiated::program` see to: nobody gets these without it.
        let addresses = unsafe { RingAddresses::new(options.size, at, driver, device) };
        let prepared = Self { core, addresses };
        prepared.write_static();
        Ok(prepared)
    }

    fn large_tables(
        plan: &Plan,
        options: &QueueOptions,
        dma: &mut DmaRegion<'m>,
        arena: &mut Arena<'m>,
    ) -> Result<Option<LargeTables<'m>>, PrepareError> {
        if plan.pool == 0 {
            return Ok(None);
        }
        let segments = usize::from(options.large_segments);
        let block = dma.carve(Pool::bytes(plan.pool, segments), ALIGN)?;
        let pool = Pool::new(&block, plan.pool, segments).ok_or(PrepareError::Options)?;
        let free = Bitmap::new(arena.place(1, |_| Word::new(0))?);
        let owners = arena.place(plan.pool, |_| AtomicU32::new(0))?;
        Ok(Some(LargeTables::new(pool, free, owners, segments)))
    }

    /// Bytes of DMA memory that [`Prepared::new`] takes at most, for planning a region.
    ///
    /// # Errors
    /// When the options do not fit the device.
    pub fn dma_bytes(options: &QueueOptions, geometry: &Geometry) -> Result<usize, PrepareError> {
        Plan::new(options, geometry, usize::MAX).map(|plan| plan.dma_bytes(options))
    }

    /// Where the device finds the ring. To be asked for again after a reset: what was said before is refused then.
    pub fn addresses(&self) -> RingAddresses {
        self.addresses.within(self.core.geometry.driving())
    }

    /// Whether the queue was laid out for the device of this geometry.
    pub(crate) fn is_for(&self, geometry: &Geometry) -> bool {
        core::ptr::eq(self.core.geometry, geometry)
    }

    /// How many requests (chains, to be exact) can be in flight.
    pub fn slots(&self) -> u16 {
        self.core.records.len() as u16
    }

    /// A queue for one owner.
    pub fn owned<D: Doorbell>(self, doorbell: D) -> OwnedQueue<'m, B, D> {
        OwnedQueue::new(self, doorbell)
    }

    /// A queue for many submitters; `wake` tells a submitter that another one found its completion.
    pub fn shared<D: Doorbell, W: Wake>(self, doorbell: D, wake: W) -> SharedQueue<'m, B, D, W> {
        SharedQueue::new(self, doorbell, wake)
    }

    /// Writes what never changes, and makes every slot free.
    fn write_static(&self) {
        let slots = self.core.records.len();
        for slot in 0..slots as u16 {
            let (header, status) = (self.core.lines.header(slot), self.core.lines.status(slot));
            self.core.chains.prepare(&self.core.ring, slot, header, status);
        }
        for w in 0..Bitmap::words(slots) {
            self.core.free.reset(w, Bitmap::full_word(slots, w));
            self.core.parked.reset(w, 0);
            self.core.staged.reset(w, 0);
        }
    }

    /// After a reset: hands every request back that the device still had or that was not collected, and makes the queue
    /// as new. `None`, with nothing touched and nothing to be reused, when the proof is of another device's reset.
    pub(super) fn reclaim(self, proof: &Quiesced, mut sink: impl FnMut(Completion<B>)) -> Option<Self> {
        if !proof.covers(self.core.geometry) {
            return None;
        }
        let mut rest = Unreclaimed { prepared: &self, next: 0 };
        while let Some(completion) = rest.take() {
            sink(completion);
        }
        drop(rest);
        self.core.ring.clear();
        self.write_static();
        Some(self)
    }

    fn reclaim_slot(&self, slot: u16) -> Option<Completion<B>> {
        let state = self.core.record(slot).state();
        let parked = state.phase() == State::PARKED;
        if state.phase() == State::FREE || (parked && state.has(State::CHILD)) {
            self.core.record(slot).set_state(state.released());
            return None;
        }
        self.core.restore(slot, state);
        // SAFETY: the device is quiesced (the caller checked the proof) and `self` is the queue's only handle.
        let (token, buffer) = unsafe { self.core.empty(slot, state) };
        self.core.record(slot).set_state(state.released());
        if state.has(State::CHILD) {
            // SAFETY: as above; the first child found closes the parent, the others find it closed.
            let request = unsafe { self.core.parents.close(token as u16) }?;
            return Some(reset_completion(request.token, request.buffer));
        }
        Some(reset_completion(token, buffer))
    }
}

/// The slots of a stopped queue that were not yet looked at. The drop takes the buffers of all of them out and drops
/// them: that happens when the sink of [`Prepared::reclaim`] panics.
struct Unreclaimed<'p, 'm, B: Buffer> {
    prepared: &'p Prepared<'m, B>,
    next: u16,
}

impl<B: Buffer> Unreclaimed<'_, '_, B> {
    /// The completion of the next slot that has one.
    fn take(&mut self) -> Option<Completion<B>> {
        while self.next < self.prepared.slots() {
            let slot = self.next;
            // Counted before anything is taken out, so that no slot is looked at twice.
            self.next += 1;
            if let Some(completion) = self.prepared.reclaim_slot(slot) {
                return Some(completion);
            }
        }
        None
    }
}

impl<B: Buffer> Drop for Unreclaimed<'_, '_, B> {
    fn drop(&mut self) {
        while let Some(completion) = self.take() {
            drop(completion);
        }
    }
}

fn reset_completion<B>(token: u64, buffer: Option<B>) -> Completion<B> {
    Completion { token, result: Err(Error::Gone(Gone::Reset)), buffer }
}

impl<B> fmt::Debug for Prepared<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
