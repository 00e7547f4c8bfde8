//! One split queue's state in the device, and its words in memory. It decides nothing; `take` and `engine` do.
//!
//! Positions are free-running 16-bit indices. `next_avail` <= `observed` <= the driver's `avail.idx`; `signalled` <=
//! `used`. Specification: 2.7.6 The Virtqueue Available Ring, 2.7.8 The Virtqueue Used Ring.
use super::chain::{Chain, Walk};
use super::event::{NotifyPolicy, Wish};
use super::queue_registers::QueueRegisters;
use super::request::BlockRequest;
use super::scribble::Scribble;
use super::wire::{SUPPRESS, block};
use super::{HostMemory, Lie};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;

const CHECKED: &str = "the parts were checked when the queue was enabled";

/// A chain that the device has taken: what a test needs to choose the order of completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) queue: u16,
    /// Counts chains in the order in which they were taken, over all queues.
    pub(crate) serial: u64,
    pub(crate) head: u16,
    /// Request type; `u32::MAX` for a chain that is no request.
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// Bytes of data in either direction.
    pub(crate) data_len: u64,
    /// Descriptors, those of an indirect table included.
    pub(crate) descriptors: usize,
    /// Data segments.
    pub(crate) segments: usize,
    pub(crate) indirect: bool,
}

/// What a queue has seen since it was made; resets do not clear it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueCounts {
    /// Entries that the driver published, as far as the device has looked.
    pub(crate) published: u64,
    /// Changes of `avail.idx` that the device saw.
    pub(crate) publishes: u64,
    /// Chains taken.
    pub(crate) taken: u64,
    /// Used entries pushed, lies included.
    pub(crate) completed: u64,
    /// Interrupts that the queue wanted sent (with or without a vector to send them to).
    pub(crate) interrupts: u64,
    /// Interrupts that were due, by counting indices.
    pub(crate) interrupts_due: u64,
}

/// A chain in flight.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) head: u16,
    /// The device's clock when the chain was first seen in the available ring.
    pub(super) sent: u64,
    pub(super) chain: Chain,
    pub(super) request: Option<BlockRequest>,
    /// The test wants it never to complete.
    pub(super) lost: bool,
}

impl Flight {
    pub(super) fn taken(&self, queue: u16, serial: u64) -> Taken {
        let request = self.request.as_ref();
        let table = usize::from(self.chain.table.is_some());
        let inner = if table == 1 { self.chain.pieces.len() + 1 - self.chain.descriptors.len() } else { 0 };
        Taken {
            queue,
            serial,
            head: self.head,
            kind: request.map_or(u32::MAX, |request| request.kind),
            sector: request.map_or(0, |request| request.sector),
            data_len: request.map_or(0, BlockRequest::data_len),
            descriptors: self.chain.descriptors.len() + inner,
            segments: request.map_or(0, |request| request.readable.len() + request.writable.len()),
            indirect: table == 1,
        }
    }
}

/// One queue.
pub(super) struct Ring {
    pub(super) registers: QueueRegisters,
    pub(super) next_avail: u16,
    pub(super) observed: u16,
    /// For each entry from `next_avail` to `observed`: the device's clock when it was first seen.
    pub(super) sent: VecDeque<u64>,
    pub(super) used: u16,
    pub(super) signalled: u16,
    /// By serial.
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Descriptors of the main table that are in flight, and the head of their chain.
    pub(super) busy: HashMap<u16, u16>,
    /// The head that was completed last.
    pub(super) retired: Option<u16>,
    pub(super) wish: Wish,
    pub(super) lies: VecDeque<Lie>,
    pub(super) scribbles: Vec<Scribble>,
    pub(super) counts: QueueCounts,
    /// The available index made no sense; the device no longer looks at the queue.
    pub(super) broken: bool,
    pub(super) flags_faulted: bool,
}

impl Ring {
    pub(super) fn new(max_size: u16) -> Self {
        Self {
            registers: QueueRegisters::new(max_size),
            next_avail: 0,
            observed: 0,
            sent: VecDeque::new(),
            used: 0,
            signalled: 0,
            flights: BTreeMap::new(),
            busy: HashMap::new(),
            retired: None,
            wish: Wish::new(NotifyPolicy::Always),
            lies: VecDeque::new(),
            scribbles: Vec::new(),
            counts: QueueCounts::default(),
            broken: false,
            flags_faulted: false,
        }
    }

    /// Forgets everything but the policy, the injected lies and the counts.
    pub(super) fn reset(&mut self) {
        let old = std::mem::replace(self, Self::new(self.registers.max_size));
        self.wish = old.wish.reset();
        self.lies = old.lies;
        self.counts = old.counts;
    }

    pub(super) fn enabled(&self) -> bool {
        self.registers.enabled
    }

    pub(super) fn vector_unread(&self) -> bool {
        self.registers.vector_unread
    }

    pub(super) fn size(&self) -> u16 {
        self.registers.size
    }

    /// Entries that were seen and not taken.
    pub(super) fn waiting(&self) -> u16 {
        self.observed.wrapping_sub(self.next_avail)
    }

    pub(super) fn walk<'m>(&self, memory: &'m HostMemory, indirect: bool) -> Walk<'m> {
        Walk { memory, table: self.registers.parts[0], size: self.size(), indirect }
    }

    fn driver_word(&self, memory: &HostMemory, index: u64, order: Ordering) -> u16 {
        memory.load16(self.registers.parts[1] + 2 * index, order).expect(CHECKED)
    }

    pub(super) fn avail_flags(&self, memory: &HostMemory) -> u16 {
        self.driver_word(memory, 0, Ordering::Relaxed)
    }

    /// Acquire: entries and descriptors below the index are read after it.
    pub(super) fn avail_idx(&self, memory: &HostMemory) -> u16 {
        self.driver_word(memory, 1, Ordering::Acquire)
    }

    pub(super) fn avail_entry(&self, memory: &HostMemory, position: u16) -> u16 {
        self.driver_word(memory, 2 + u64::from(position % self.size()), Ordering::Relaxed)
    }

    pub(super) fn used_event(&self, memory: &HostMemory) -> u16 {
        self.driver_word(memory, 2 + u64::from(self.size()), Ordering::Relaxed)
    }

    /// Writes the next used entry; the driver does not see it before [`Self::publish_used`].
    pub(super) fn push_used(&mut self, memory: &HostMemory, id: u32, len: u32) {
        let element = self.registers.parts[2] + 4 + 8 * u64::from(self.used % self.size());
        memory.store32(element, id).expect(CHECKED);
        memory.store32(element + 4, len).expect(CHECKED);
        self.used = self.used.wrapping_add(1);
        self.counts.completed += 1;
    }

    /// Release: used entries, status bytes and data are visible before the index.
    pub(super) fn publish_used(&self, memory: &HostMemory, index: u16) {
        memory.store16(self.registers.parts[2] + 2, index, Ordering::Release).expect(CHECKED);
    }

    /// Writes the wish for doorbells where the driver looks for it, and garbage where it must not look.
    pub(super) fn publish_wish(&self, memory: &HostMemory) {
        let flags = if self.wish.suppressed && !self.wish.event_idx { SUPPRESS } else { 0 };
        let event = if self.wish.event_idx { self.wish.event } else { 0x5a5a };
        let base = self.registers.parts[2];
        memory.store16(base, flags | self.wish.noise, Ordering::Relaxed).expect(CHECKED);
        memory.store16(base + 4 + 8 * u64::from(self.size()), event, Ordering::Relaxed).expect(CHECKED);
    }

    /// Whether a chain in flight starts at `head`.
    pub(super) fn in_flight(&self, head: u16) -> bool {
        self.busy.get(&head) == Some(&head)
    }

    /// A descriptor of no chain in flight and not of `besides`: a head that was used before, if possible.
    pub(super) fn idle_head(&self, besides: &[u16]) -> Option<u16> {
        let idle = |at: &u16| !self.busy.contains_key(at) && !besides.contains(at);
        self.retired.into_iter().chain(0..self.size()).find(idle)
    }

    /// The first bytes of every header in flight: address and length.
    pub(super) fn headers(&self) -> Vec<(u64, u64)> {
        let first = |flight: &Flight| flight.chain.pieces.first().map(|piece| (piece.address, piece.len));
        let most = block::HEADER_BYTES as u64;
        self.flights.values().filter_map(first).map(|(address, len)| (address, len.min(most))).collect()
    }
}
