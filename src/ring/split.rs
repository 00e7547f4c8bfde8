//! The split virtqueue: descriptor table, available ring, used ring (2.7 Split Virtqueues).
//!
//! It touches memory only. It does not know what a chain carries, who waits, or how to reach the device; it returns
//! whether the device asked to be notified. Both indices the driver depends on are private shadows ([`Producer`],
//! [`Consumer`]): of the memory that the device can write, only `used` and the event indices are ever read.
//!
//! Invariants:
//! - an entry is stored before the index that offers it; `avail.idx` only moves forward, once per [`SplitRing::publish`];
//! - at most `size` chains are outstanding (the slots see to it), so that entries are never overwritten unread;
//! - a used index is believed up to the number of chains outstanding, and each used entry is read once.
//!
//! Memory, in order (each line 64 bytes): descriptors; available flags, index, entries, `used_event`; then, from a
//! line of their own, the used ring and `avail_event`. The used ring starts 4 bytes before a line boundary, as its
//! alignment of 4 allows, so that its 8-byte entries are naturally aligned and eight of them fill a line.
use crate::barrier;
use crate::dma::{DeviceAddress, DmaBlock, Segment};
use crate::memory::{Column, Records};
use crate::ring::crossed;
use crate::spec::SUPPRESS;
#[cfg(all(test, loom))]
use crate::sync::{Ordering, light_fence};

/// Where the parts of a ring of `size` entries lie in its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingLayout {
    size: u16,
    available: usize,
    used: usize,
    bytes: usize,
}

const LINE: usize = 64;

impl RingLayout {
    /// The layout for `size` descriptors, a power of two up to 32768 (2.7 Split Virtqueues).
    pub(crate) const fn new(size: u16) -> Option<Self> {
        if !size.is_power_of_two() || size > 32768 || size < 2 {
            return None;
        }
        let n = size as usize;
        let available = (16 * n).next_multiple_of(LINE);
        let used = (available + 2 * n + 6).next_multiple_of(LINE) + LINE - 4;
        Some(Self { size, available, used, bytes: (used + 8 * n + 6).next_multiple_of(LINE) })
    }

    /// Bytes of device-visible memory, to be aligned to 64.
    pub(crate) const fn bytes(self) -> usize {
        self.bytes
    }

    /// Where the available ring is; the descriptors are at the start of the block.
    pub(crate) const fn available(self, block: DeviceAddress) -> DeviceAddress {
        block.offset(self.available as u64)
    }

    pub(crate) const fn used(self, block: DeviceAddress) -> DeviceAddress {
        block.offset(self.used as u64)
    }
}

/// The driver's side of the available ring: a private shadow, one per ring, held by whoever may publish. It counts from
/// the start of the ring; the ring's own indices are the lowest 16 bits of that.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    /// Entries stored so far.
    tail: u64,
    /// Entries that the device was told of: `avail.idx`.
    published: u64,
}

impl Producer {
    /// What the next publish will tell the device.
    #[inline(always)]
    pub(crate) fn next(&self) -> u64 {
        self.tail
    }

    /// Entries that the device was told of.
    #[inline(always)]
    pub(crate) fn published(&self) -> u64 {
        self.published
    }
}

/// The driver's side of the used ring: a private shadow, one per ring, held by whoever may drain. It counts as
/// [`Producer`] does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Consumer {
    /// Entries taken so far.
    head: u64,
    /// The used index when it was last read.
    seen: u16,
}

impl Consumer {
    /// Entries taken so far.
    #[inline(always)]
    pub(crate) fn taken(self) -> u64 {
        self.head
    }

    /// Entries known to be there and not yet taken.
    #[inline(always)]
    pub(crate) fn known(self) -> u16 {
        self.seen.wrapping_sub(self.head as u16)
    }

    /// Takes the next `count` entries.
    #[inline(always)]
    pub(crate) fn advance(&mut self, count: usize) {
        self.head += count as u64;
    }

    /// Gives the last entry back.
    pub(crate) fn retreat(&mut self) {
        self.head -= 1;
    }

    /// Believes no entry that was not taken yet.
    pub(crate) fn forget(&mut self) {
        self.seen = self.head as u16;
    }

    /// Chains published and not taken back: what the used index may be ahead by.
    #[inline(always)]
    pub(crate) fn outstanding(self, producer: &Producer) -> u16 {
        self.behind(producer.published)
    }

    /// How far the entries taken are behind those that the device was told of.
    #[inline(always)]
    pub(crate) fn behind(self, published: u64) -> u16 {
        published.wrapping_sub(self.head) as u16
    }
}

/// A range of the available ring that was published: what a doorbell decision is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    old: u16,
    new: u16,
}

/// A used entry, as untrusted as everything that comes from the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedEntry {
    pub(crate) id: u32,
    pub(crate) len: u32,
}

/// The ring's memory.
pub(crate) struct SplitRing<'m> {
    size: u16,
    event_idx: bool,
    descriptors: Records<'m, 16>,
    /// `flags` and `idx`, in front of the entries.
    available_head: Records<'m, 4>,
    available: Records<'m, 2>,
    used_event: Records<'m, 2>,
    used_head: Records<'m, 4>,
    used: Records<'m, 8>,
    avail_event: Records<'m, 2>,
}

/// Offsets in the head of either ring.
const FLAGS: usize = 0;
const INDEX: usize = 2;

impl<'m> SplitRing<'m> {
    /// A ring over `block`, which must be zeroed; `None` if the block does not fit `layout`.
    pub(crate) fn new(block: &DmaBlock<'m>, layout: RingLayout, event_idx: bool) -> Option<Self> {
        let n = layout.size as usize;
        let part = |offset, len, align| block.part(offset, len, align);
        Some(Self {
            size: layout.size,
            event_idx,
            descriptors: Records::new(&part(0, 16 * n, 16)?, n)?,
            available_head: Records::new(&part(layout.available, 4, 4)?, 1)?,
            available: Records::new(&part(layout.available + 4, 2 * n, 2)?, n)?,
            used_event: Records::new(&part(layout.available + 4 + 2 * n, 2, 2)?, 1)?,
            used_head: Records::new(&part(layout.used, 4, 4)?, 1)?,
            used: Records::new(&part(layout.used + 4, 8 * n, 8)?, n)?,
            avail_event: Records::new(&part(layout.used + 4 + 8 * n, 2, 2)?, 1)?,
        })
    }

    /// Stores one descriptor: two plain stores.
    #[inline(always)]
    pub(crate) fn describe(&self, index: u16, buffer: Segment, flags: u16, next: u16) {
        store_descriptor(&self.descriptors, index as usize, buffer, flags, next);
    }

    /// `count` (a power of two) of the descriptors from `first` on; `None` if they are not all inside.
    pub(crate) fn descriptors_from(&self, first: u16, count: u16) -> Option<Column<'m>> {
        self.descriptors.column(first.into(), 1, count.into())
    }

    /// Stores the next available entry. The device does not know of it before [`Self::publish`].
    #[inline(always)]
    pub(crate) fn offer(&self, producer: &mut Producer, head: u16) {
        self.available.store16::<0>(producer.tail as usize, head);
        producer.tail += 1;
    }

    /// Makes every stored entry available: one index store for all of them.
    #[inline(always)]
    pub(crate) fn publish(&self, producer: &mut Producer) -> Published {
        let new = producer.tail;
        let range = Published { old: producer.published as u16, new: new as u16 };
        barrier::entries_before_index();
        self.available_head.store16::<INDEX>(0, range.new);
        producer.published = new;
        range
    }

    /// Whether the device asked to be notified of `range`. The caller has put a full fence between the publish and
    /// this: [`barrier::index_before_device_event`], or one that it needs there anyway.
    #[inline(always)]
    pub(crate) fn device_wants(&self, range: Published) -> bool {
        if self.event_idx {
            crossed(self.avail_event.load16::<0>(0), range.old, range.new)
        } else {
            range.old != range.new && self.used_head.load16::<FLAGS>(0) & SUPPRESS == 0
        }
    }

    /// Reads the used index and returns how many entries are there to take, however wrong the device may be about it.
    #[inline(always)]
    pub(crate) fn look(&self, consumer: &mut Consumer) -> u16 {
        let seen = self.used_head.load16::<INDEX>(0);
        barrier::index_before_used_entries();
        consumer.seen = seen;
        seen.wrapping_sub(consumer.head as u16)
    }

    /// The used index, a hint: nothing that it covers may be read on the strength of it.
    #[inline(always)]
    pub(crate) fn peek_used(&self) -> u16 {
        self.used_head.load16::<INDEX>(0)
    }

    /// Takes the next used entry; only after [`Self::look`] said that there is one.
    #[inline(always)]
    pub(crate) fn take(&self, consumer: &mut Consumer) -> UsedEntry {
        let entry = self.ahead(*consumer, 0);
        consumer.advance(1);
        entry
    }

    /// The used entry behind the next `skip`, to be read once and taken by [`Consumer::advance`].
    #[inline(always)]
    pub(crate) fn ahead(&self, consumer: Consumer, skip: usize) -> UsedEntry {
        let (id, len) = self.used.load_pair::<0>((consumer.head as usize).wrapping_add(skip));
        UsedEntry { id, len }
    }

    /// Asks for an interrupt once `want` (at least 1) more entries are used, and looks again. True: they are there
    /// already, and an interrupt may not come.
    pub(crate) fn arm(&self, consumer: &mut Consumer, want: u16) -> bool {
        if self.event_idx {
            self.used_event.store16::<0>(0, (consumer.head as u16).wrapping_add(want).wrapping_sub(1));
        } else {
            self.available_head.store16::<FLAGS>(0, 0);
        }
        barrier::event_before_last_look();
        self.look(consumer) >= if self.event_idx { want } else { 1 }
    }

    /// Asks for no interrupt. With EVENT_IDX the last wish is left behind, which the device passes at most once in
    /// 65536 entries; a spurious interrupt is harmless (2.7.7.1), a store per drain is not free.
    pub(crate) fn disarm(&self) {
        if !self.event_idx {
            self.available_head.store16::<FLAGS>(0, SUPPRESS);
        }
    }

    /// Puts the wish for an interrupt as far away as it can be: for a queue that is polled.
    pub(crate) fn never_interrupt(&self, consumer: Consumer) {
        self.disarm();
        if self.event_idx {
            self.used_event.store16::<0>(0, (consumer.head as u16).wrapping_sub(1));
        }
    }

    /// Descriptors in the table.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Forgets everything that either side wrote; only when the device is quiesced.
    pub(crate) fn clear(&self) {
        for i in 0..self.size as usize {
            self.available.store16::<0>(i, 0);
            self.used.store64::<0>(i, 0);
        }
        for head in [&self.available_head, &self.used_head] {
            head.store16::<FLAGS>(0, 0);
            head.store16::<INDEX>(0, 0);
        }
        self.used_event.store16::<0>(0, 0);
        self.avail_event.store16::<0>(0, 0);
    }
}

/// The device's half of the same memory, as the specification has it, for the models that play the device.
#[cfg(all(test, loom))]
impl SplitRing<'_> {
    /// Loads the available index; entries and descriptors are read after it.
    pub(crate) fn device_available(&self) -> u16 {
        let index = self.available_head.load16::<INDEX>(0);
        light_fence(Ordering::Acquire);
        index
    }

    /// The head in entry `at` of the available ring.
    pub(crate) fn device_head(&self, at: u16) -> u16 {
        self.available.load16::<0>(at as usize)
    }

    /// Address, then length, flags and next of a descriptor.
    pub(crate) fn device_descriptor(&self, index: u16) -> (u64, u64) {
        (self.descriptors.load64::<0>(index as usize), self.descriptors.load64::<8>(index as usize))
    }

    /// Stores entry `at` of the used ring; status and data were stored before.
    pub(crate) fn device_use(&self, at: u16, id: u16, len: u32) {
        self.used.store64::<0>(at as usize, u64::from(id) | u64::from(len) << 32);
    }

    /// Offers used entries to the driver.
    pub(crate) fn device_publish_used(&self, index: u16) {
        light_fence(Ordering::Release);
        self.used_head.store16::<INDEX>(0, index);
    }

    /// Whether the driver wants to hear that the used index moved; after a full fence (2.7.7.2).
    pub(crate) fn driver_wants(&self, old: u16, new: u16) -> bool {
        if self.event_idx {
            crossed(self.used_event.load16::<0>(0), old, new)
        } else {
            self.available_head.load16::<FLAGS>(0) & SUPPRESS == 0
        }
    }

    /// Asks for a notification once available entry `index` is offered, or takes that back.
    pub(crate) fn device_event(&self, index: u16, wanted: bool) {
        if self.event_idx {
            self.avail_event.store16::<0>(0, if wanted { index } else { index.wrapping_sub(1) });
        } else {
            self.used_head.store16::<FLAGS>(0, if wanted { 0 } else { SUPPRESS });
        }
    }
}

/// Where `next` stands in a descriptor's second word.
pub(crate) const NEXT_SHIFT: u32 = 48;

/// Length, flags and next of a descriptor in one word.
#[inline(always)]
pub(crate) const fn descriptor_word(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << NEXT_SHIFT
}

/// Stores one descriptor of a ring's or a slot's table: two plain stores.
#[inline(always)]
pub(crate) fn store_descriptor(table: &Records<'_, 16>, index: usize, buffer: Segment, flags: u16, next: u16) {
    table.store64::<0>(index, buffer.address().0);
    table.store64::<8>(index, descriptor_word(buffer.len(), flags, next));
}
