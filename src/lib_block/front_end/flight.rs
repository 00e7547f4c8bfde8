//! One unanswered request of a session, and those that wait for their turn.
//!
//! A flight is its tag's: at most one request has it, from the moment its entry is taken until its answer is posted.
//! What the common request needs (place, memories, bytes) is one [`Word`] in a table of its own; the rest, a [`Flight`],
//! is written for those that wait, and for what is answered in a way of its own.
use crate::dma::Segment;
use crate::lib_block::entry::{Flags, Operation};

/// Where a request is; 0 is nowhere, for a tag that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Place {
    /// In the backlog.
    Waiting = 1,
    /// With the device, and answered by its answer alone.
    Device = 2,
    /// With the device, and more is to be done when it answers.
    DeviceSpecial = 3,
    /// Nowhere, and never in an entry: beyond the credit, or a call's.
    Reserved = 4,
}

/// Place (8 bits), operation (8), memories named (16), bytes that an answer reports (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    pub(super) const FREE: Self = Self(0);
    /// Of a tag that no entry may have.
    pub(super) const RESERVED: Self = Self(Place::Reserved as u64);

    #[inline(always)]
    pub(super) const fn new(place: Place, operation: Operation, memories: u16, bytes: u32) -> Self {
        Self(place as u64 | (operation as u64) << 8 | (memories as u64) << 16 | (bytes as u64) << 32)
    }

    #[inline(always)]
    pub(super) const fn is_free(self) -> bool {
        self.0 == 0
    }

    /// Whether the device's answer is all that its answer takes.
    #[inline(always)]
    pub(super) const fn is_plain(self) -> bool {
        self.0 as u8 == Place::Device as u8
    }

    /// What a common request on its way has in common with others that name memory number `at`: whether it reads or
    /// writes is the queue's to know.
    pub(super) const fn common(at: usize) -> Self {
        Self::new(Place::Device, Operation::Read, 1 << at, 0)
    }

    /// The same with so many bytes, where it had none.
    #[inline(always)]
    pub(super) const fn with_bytes(self, bytes: u64) -> Self {
        Self(self.0 | bytes << 32)
    }

    pub(super) const fn is(self, place: Place) -> bool {
        self.0 as u8 == place as u8
    }

    pub(super) fn operation(self) -> Option<Operation> {
        Operation::from_wire((self.0 >> 8) as u8)
    }

    pub(super) const fn memories(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub(super) const fn bytes(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) const fn at(self, place: Place) -> Self {
        Self(self.0 & !0xff | place as u64)
    }
}

/// See the module's text.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    pub(super) flags: Flags,
    /// Pieces: 0, 1, or more in the tag's list.
    pub(super) pieces: u16,
    /// Sectors that are left to be done (DISCARD, WRITE ZEROES), or of a piece of data.
    pub(super) sectors: u64,
    /// The next sector.
    pub(super) sector: u64,
    /// The one piece.
    pub(super) piece: Segment,
    /// 0: none.
    pub(super) deadline: u64,
}

/// What a session has with the device: requests (24 bits), bytes as they weigh (40 bits).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load(u64);

impl Load {
    /// Most requests and bytes that can be counted: those of all that a session can have fit, whatever it may.
    pub(super) const MAX_REQUESTS: u32 = (1 << 24) - 1;
    pub(super) const MAX_BYTES: u64 = 1 << 39;

    /// Of at most as many.
    #[inline(always)]
    pub(super) const fn of(requests: u32, bytes: u64) -> Self {
        Self((requests as u64) << 40 | bytes)
    }

    #[inline(always)]
    pub(super) fn add(&mut self, other: Self) {
        self.0 += other.0;
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, other: Self) {
        self.0 -= other.0;
    }

    #[inline(always)]
    pub(super) const fn requests(self) -> u32 {
        (self.0 >> 40) as u32
    }

    #[inline(always)]
    pub(super) const fn bytes(self) -> u64 {
        self.0 & ((1 << 40) - 1)
    }

    /// What is left to `cap`.
    #[inline(always)]
    pub(super) const fn room(self, cap: Self) -> (u32, u64) {
        (cap.requests().saturating_sub(self.requests()), cap.bytes().saturating_sub(self.bytes()))
    }
}

/// Tags in the order in which their requests came. A request that is withdrawn leaves a gap.
pub(super) struct Backlog<'m> {
    tags: &'m mut [u16],
    first: u32,
    behind: u32,
}

/// No tag.
const GAP: u16 = u16::MAX;

impl<'m> Backlog<'m> {
    /// `tags`: a power of two of them, more than twice as many as requests can wait.
    pub(super) fn new(tags: &'m mut [u16]) -> Self {
        Self { tags, first: 0, behind: 0 }
    }

    pub(super) fn clear(&mut self) {
        (self.first, self.behind) = (0, 0);
    }

    fn place(&mut self, at: u32) -> &mut u16 {
        let mask = self.tags.len() - 1;
        &mut self.tags[at as usize & mask]
    }

    /// Puts a tag behind the others.
    pub(super) fn push(&mut self, tag: u16) {
        self.make_room();
        *self.place(self.behind) = tag;
        self.behind = self.behind.wrapping_add(1);
    }

    /// Puts a tag before the others: its request goes on where it was.
    pub(super) fn push_front(&mut self, tag: u16) {
        self.make_room();
        self.first = self.first.wrapping_sub(1);
        *self.place(self.first) = tag;
    }

    /// Closes the gaps when there is no place left. There are twice as many places as requests, so that as many were
    /// withdrawn since the last time.
    fn make_room(&mut self) {
        if (self.behind.wrapping_sub(self.first) as usize) < self.tags.len() {
            return;
        }
        let (mut to, behind) = (self.first, self.behind);
        for at in 0..behind.wrapping_sub(self.first) {
            let tag = *self.place(self.first.wrapping_add(at));
            if tag != GAP {
                *self.place(to) = tag;
                to = to.wrapping_add(1);
            }
        }
        self.behind = to;
    }

    /// The first that waits.
    pub(super) fn front(&mut self) -> Option<u16> {
        while self.first != self.behind {
            let tag = *self.place(self.first);
            if tag != GAP {
                return Some(tag);
            }
            self.first = self.first.wrapping_add(1);
        }
        None
    }

    /// Takes what [`Backlog::front`] showed.
    pub(super) fn pop(&mut self) {
        self.first = self.first.wrapping_add(1);
    }

    /// Takes `tag` out, wherever it is.
    pub(super) fn withdraw(&mut self, tag: u16) {
        for at in 0..self.behind.wrapping_sub(self.first) {
            let place = self.place(self.first.wrapping_add(at));
            if *place == tag {
                *place = GAP;
            }
        }
    }

    /// Every tag that waits, first come first.
    pub(super) fn each(&mut self, mut f: impl FnMut(u16)) {
        for at in 0..self.behind.wrapping_sub(self.first) {
            let tag = *self.place(self.first.wrapping_add(at));
            if tag != GAP {
                f(tag);
            }
        }
    }
}
