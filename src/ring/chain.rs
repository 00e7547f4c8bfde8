//! The chains of a split ring: one or two possible heads per slot, with everything that never changes written once.
//!
//! It knows descriptors and slot numbers, not requests: header and status are two addresses per slot. Two layouts:
//!
//! *Direct*: three descriptors a slot, in three groups on lines of their own. `0..S` describe headers and `2S..3S`
//! statuses: static, so both sides keep those lines. `S..2S` describe data: the one descriptor that a request writes.
//! A chain without data, or with several segments, starts at the slot's data descriptor instead (*the other head*),
//! which then describes the header, or the slot's indirect table: the static ones are never touched.
//!
//! *Indirect*: one static descriptor a slot, which points to the slot's table: header, up to six segments, status.
//!
//! A slot's table holds its header at 0 and its status at 7, static; a chain through it runs by `next`. Longer chains
//! take a table from the pool ([`Pool`]) and give it back with the answer. In either form a chain of one segment is one
//! store of one descriptor ([`Chains::one`]); whatever else was changed is put back when the chain is ([`Chains::restore`]).
//!
//! Invariants: a head names exactly one slot ([`Chains::slot_of`] inverts what the builders return); no chain is longer
//! than the ring but on a ring of 2, where an indirect table of 3 is the shortest there is.
//! Specification: 2.7.5, 2.7.5.3 Indirect Descriptors, 2.7.4 Message Framing.
use crate::dma::{DeviceAddress, DmaBlock, Segment};
use crate::memory::{Column, Records};
use crate::ring::split::{NEXT_SHIFT, SplitRing, descriptor_word, store_descriptor};
use crate::spec::descriptor_flag::{INDIRECT, NEXT, WRITE};

/// Data segments that a slot's own table holds.
pub(crate) const INLINE: usize = 6;
/// Descriptors in a slot's table: header, segments, status.
const TABLE: usize = INLINE + 2;
const STATUS_ENTRY: u16 = TABLE as u16 - 1;

/// How a slot reaches its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Three descriptors a slot.
    Direct,
    /// One descriptor a slot, and a table.
    Indirect,
}

/// Which way a chain's data flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flow {
    /// The device writes it: a read.
    FromDevice = 0,
    /// The device reads it: a write.
    FromDriver = 1,
}

impl Flow {
    /// The data descriptors' flag.
    pub(crate) const fn flag(self) -> u16 {
        match self {
            Self::FromDevice => WRITE,
            Self::FromDriver => 0,
        }
    }

    /// How many of `bytes` the device may write: all or none, without a branch.
    #[inline(always)]
    pub(crate) const fn writable(self, bytes: u32) -> u32 {
        const MASKS: [u32; 2] = [u32::MAX, 0];
        bytes & MASKS[self as usize]
    }
}

/// A chain that was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: u16,
    /// It is the slot's other head, or the usual one with a chain that is to be [restored](Chains::restore).
    pub(crate) other: bool,
}

/// The chains of one ring.
pub(crate) struct Chains<'m> {
    form: Form,
    slots: u16,
    /// How far a slot's other head is from its usual one: direct, a group of descriptors; indirect, they are the same.
    other_by: u16,
    tables: Option<Tables<'m>>,
    /// The slots' (first) data descriptors.
    data: Column<'m>,
    /// Flags and `next` of slot 0's data descriptor, by [`Flow`].
    words: [u64; 2],
    /// What the word of a slot's data descriptor has more than that of the slot before. Direct: its status is one
    /// further on. Indirect: nothing, each table is the same.
    word_step: u64,
}

/// The slots' own indirect tables.
struct Tables<'m> {
    entries: Records<'m, 16>,
    base: DeviceAddress,
}

impl<'m> Chains<'m> {
    /// Most slots that a ring of `size` descriptors serves in this form.
    pub(crate) const fn capacity(form: Form, size: u16) -> u16 {
        match form {
            Form::Indirect => size,
            // Groups of four descriptors fill a line; small rings cannot afford the rounding.
            Form::Direct if size < 16 => size / 3,
            Form::Direct => (size / 3) & !3,
        }
    }

    /// Bytes of the slots' tables.
    pub(crate) const fn table_bytes(slots: usize) -> usize {
        Records::<16>::bytes(TABLE * slots.next_power_of_two())
    }

    /// Chains for `slots` slots, with tables in `block` where INDIRECT was negotiated. `None`: the block is too small,
    /// or the form needs one.
    pub(crate) fn new(form: Form, slots: u16, ring: &SplitRing<'m>, block: Option<&DmaBlock<'m>>) -> Option<Self> {
        let tables = match block {
            Some(block) => Some(Tables {
                entries: Records::new(block, TABLE * (slots as usize).next_power_of_two())?,
                base: block.device_address(),
            }),
            None => None,
        };
        let count = slots.next_power_of_two();
        let (data, status, word_step) = match (form, &tables) {
            // `slots` and its next power of two together never exceed the ring: slots are at most a third of it.
            (Form::Direct, _) => (ring.descriptors_from(slots, count)?, 2 * slots, 1 << NEXT_SHIFT),
            (Form::Indirect, tables) => (tables.as_ref()?.entries.column(1, TABLE, count.into())?, STATUS_ENTRY, 0),
        };
        let word = |flow: Flow| descriptor_word(0, NEXT | flow.flag(), status);
        let words = [word(Flow::FromDevice), word(Flow::FromDriver)];
        let other_by = if form == Form::Direct { slots } else { 0 };
        Some(Self { form, slots, other_by, tables, data, words, word_step })
    }

    /// Writes what never changes of a slot: once, before the ring is used, and again after a reset.
    pub(crate) fn prepare(&self, ring: &SplitRing<'_>, slot: u16, header: Segment, status: Segment) {
        if let Some(tables) = &self.tables {
            tables.store(slot, 0, header, NEXT, 1);
            tables.store(slot, STATUS_ENTRY, status, WRITE, 0);
        }
        match self.form {
            Form::Direct => {
                ring.describe(slot, header, NEXT, self.slots + slot);
                ring.describe(2 * self.slots + slot, status, WRITE, 0);
            }
            Form::Indirect => self.point_to_table(ring, slot),
        }
    }

    /// Points the slot's usual (indirect form) or other (direct form) head at its own table.
    fn point_to_table(&self, ring: &SplitRing<'_>, slot: u16) {
        if let Some(tables) = &self.tables {
            let table = Segment::new(tables.address(slot), TABLE as u32 * 16);
            ring.describe(self.table_head(slot).id, table, INDIRECT, 0);
        }
    }

    /// Where a chain through the slot's own table starts.
    fn table_head(&self, slot: u16) -> Head {
        Head { id: slot + self.other_by, other: self.other_by != 0 }
    }

    /// Where a chain starts that is neither that nor one of one segment.
    fn other_head(&self, slot: u16) -> Head {
        Head { id: slot + self.other_by, other: true }
    }

    /// A chain with one data segment: in either form it starts at the slot's usual head.
    #[inline(always)]
    pub(crate) fn one(&self, slot: usize, data: Segment, flow: Flow) -> Head {
        let word = self.words[flow as usize] + data.wide_len() + (slot as u64).wrapping_mul(self.word_step);
        self.data.store(slot, [data.address().0, word]);
        Head { id: slot as u16, other: false }
    }

    /// A chain without data. To be [restored](Self::restore).
    pub(crate) fn none(&self, ring: &SplitRing<'_>, slot: u16, header: Segment) -> Head {
        match &self.tables {
            Some(tables) if self.form == Form::Indirect => tables.store(slot, 0, header, NEXT, STATUS_ENTRY),
            _ => ring.describe(self.slots + slot, header, NEXT, 2 * self.slots + slot),
        }
        self.other_head(slot)
    }

    /// A chain of one to [`INLINE`] segments through the slot's own table.
    pub(crate) fn inline(&self, ring: &SplitRing<'_>, slot: u16, data: &[Segment], flow: Flow) -> Head {
        if let Some(tables) = &self.tables {
            for (at, segment) in (1u16..).zip(data) {
                let next = if at as usize == data.len() { STATUS_ENTRY } else { at + 1 };
                tables.store(slot, at, *segment, NEXT | flow.flag(), next);
            }
            if self.form == Form::Direct {
                self.point_to_table(ring, slot);
            }
        }
        self.table_head(slot)
    }

    /// A chain through table `table` of the pool, in place of the slot's own. To be [restored](Self::restore).
    #[allow(clippy::too_many_arguments, reason = "a chain is these parts")]
    pub(crate) fn large(
        &self,
        ring: &SplitRing<'_>,
        pool: &Pool<'_>,
        table: u16,
        slot: u16,
        frame: (Segment, Segment),
        data: &[Segment],
        flow: Flow,
    ) -> Head {
        let head = self.other_head(slot);
        ring.describe(head.id, pool.write(table, frame, data, flow), INDIRECT, 0);
        head
    }

    /// After a chain without data or through the pool has come back: [`Chains::one`] finds what it relies on.
    pub(crate) fn restore(&self, ring: &SplitRing<'_>, slot: u16, header: Segment) {
        if let (Form::Indirect, Some(tables)) = (self.form, &self.tables) {
            self.point_to_table(ring, slot);
            tables.store(slot, 0, header, NEXT, 1);
        }
    }

    /// The slot that a used id names; `None` for an id that is no head.
    pub(crate) fn slot_of(&self, id: u32) -> Option<u16> {
        let slots = u32::from(self.slots);
        if id < slots {
            return Some(id as u16);
        }
        (self.form == Form::Direct && id < 2 * slots).then(|| (id - slots) as u16)
    }

    /// The id of a slot's usual or other head.
    #[inline(always)]
    pub(crate) fn head_of(&self, slot: u16, other: bool) -> u16 {
        slot + if other { self.other_by } else { 0 }
    }

    /// Whether several segments can share a chain.
    pub(crate) fn has_tables(&self) -> bool {
        self.tables.is_some()
    }
}

impl Tables<'_> {
    fn address(&self, slot: u16) -> DeviceAddress {
        self.base.offset(u64::from(slot) * TABLE as u64 * 16)
    }

    #[inline(always)]
    fn store(&self, slot: u16, entry: u16, buffer: Segment, flags: u16, next: u16) {
        store_descriptor(&self.entries, slot as usize * TABLE + entry as usize, buffer, flags, next);
    }
}

/// Tables for chains of more than [`INLINE`] segments, few and reserved at start.
pub(crate) struct Pool<'m> {
    entries: Records<'m, 16>,
    base: DeviceAddress,
    per_table: usize,
}

impl<'m> Pool<'m> {
    /// Bytes for `tables` tables of `segments` data segments each.
    pub(crate) const fn bytes(tables: usize, segments: usize) -> usize {
        Records::<16>::bytes((tables * Self::per_table(segments)).next_power_of_two())
    }

    const fn per_table(segments: usize) -> usize {
        (segments + 2).next_multiple_of(4)
    }

    /// The pool in `block`; `None` if it is too small.
    pub(crate) fn new(block: &DmaBlock<'m>, tables: usize, segments: usize) -> Option<Self> {
        let per_table = Self::per_table(segments);
        let entries = Records::new(block, (tables * per_table).next_power_of_two())?;
        Some(Self { entries, base: block.device_address(), per_table })
    }

    /// Writes a whole chain into `table` and returns where the device finds it.
    fn write(&self, table: u16, (header, status): (Segment, Segment), data: &[Segment], flow: Flow) -> Segment {
        let first = table as usize * self.per_table;
        let entry = |at: usize, buffer, flags| {
            let next = if flags & NEXT == 0 { 0 } else { at as u16 + 1 };
            store_descriptor(&self.entries, first + at, buffer, flags, next);
        };
        entry(0, header, NEXT);
        for (at, segment) in (1..).zip(data) {
            entry(at, *segment, NEXT | flow.flag());
        }
        entry(data.len() + 1, status, WRITE);
        Segment::new(self.base.offset(first as u64 * 16), (data.len() as u32 + 2) * 16)
    }
}
