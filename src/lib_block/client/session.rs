//! One client of one session: tags with what they own, over the client's end of the rings.
//!
//! The plain path is a store of the entry and a compare of the whole answer: what a tag *expects* is the completion's
//! first word for "all of it was done", so that one compare proves that the tag is in range, in flight, done, and that
//! no byte is missing or too many. Everything else is looked at in `check.rs`; a new server in `restart.rs`.
//!
//! ```
//! use drv_virtio_block::lib_block::client::pool::Page;
//! use drv_virtio_block::lib_block::client::{Client, Replay, Request, Why};
//! use drv_virtio_block::lib_block::ring::{self, ClientRings};
//! #[repr(align(64))]
//! struct Memory([u8; ring::bytes(4)]);
//! let mut memory = Memory([0; ring::bytes(4)]);
//! // SAFETY: nobody else has this memory.
//! let rings = unsafe { ClientRings::new(core::ptr::NonNull::from(&mut memory).cast(), 4) }.unwrap();
//! let mut client = Client::<Page<'_, 8>, 4>::new(rings, 512).unwrap();
//! let refused = client.submit(Request::flush()).unwrap_err();
//! assert_eq!(refused.why, Why::Restarting); // nobody serves these rings yet
//! ```
use super::buffer::SharedBuffer;
use super::request::{Completion, Refused, Request, Tag, Why};
use crate::lib_block::Status;
use crate::lib_block::entry::{Data, Flags, Operation, Submission};
use crate::lib_block::ring::{Announcement, ClientEnd, ClientRings, Stage, is_size};
use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicU32, Ordering};

/// What a server did that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More completions than its ring is long.
    IndexJump,
    /// A completion with an unknown status, or with bits that have no meaning.
    Malformed,
    /// A completion of a tag that is out of range or not in flight.
    UnknownTag,
    /// A completion of another life of the driver.
    WrongEpoch,
    /// More bytes than asked for, or all of it done with fewer.
    WrongBytes,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IndexJump => "the server posted more completions than its ring is long",
            Self::Malformed => "the server posted a completion that has no meaning",
            Self::UnknownTag => "the server answered a request that is not in flight",
            Self::WrongEpoch => "the server answered for another life of the driver",
            Self::WrongBytes => "the server's count of bytes does not fit the request",
        })
    }
}

impl core::error::Error for Fault {}

/// How client and server stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests are taken.
    Serving,
    /// No server yet, or another one than before: [`Client::resume`].
    Detached,
    /// The server is not believed any more; what is in flight stays owned until another life of it, or the end of the
    /// session, is announced.
    Broken(Fault),
    /// The server stopped ([`Stage::Stopped`]) or ended the session ([`Stage::Ended`]).
    Over(Stage),
}

/// What becomes of requests that a server took along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// They end with [`Status::Reset`].
    Never,
    /// They are asked again, in the order in which they were submitted, barriers and deadlines included; every
    /// operation gives the same when it is done twice. Cancels are not, nor what they were to withdraw.
    Unanswered,
}

/// What [`Client::resume`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The server says what it said before.
    Unchanged,
    /// A server serves; its doorbell is to be rung.
    Attached {
        /// Requests that ended with [`Status::Reset`].
        lost: u32,
        /// Requests that were asked again.
        replayed: u32,
    },
    /// No server. Nothing was handed out that it may still touch.
    Absent,
    /// The session ended; everything that was unanswered ended with [`Status::Gone`].
    Over(Stage),
}

/// What no completion can say of its epoch.
const NO_EPOCH: u64 = u64::MAX;

/// A tag.
pub(super) struct Slot<B> {
    /// First word of the completion that says that all of it was done. If no request has the tag: one of the
    /// neighbouring tag, which is never looked up here, whatever a server writes.
    expected: u64,
    pub(super) sequence: u64,
    token: u64,
    /// What it takes to ask again; the rest is the buffer's to say.
    pub(super) operation: Operation,
    flags: Flags,
    blocks: u32,
    pub(super) lba: u64,
    deadline: u64,
    /// `Some` only while a request has the tag.
    buffer: Option<B>,
}

impl<B> Slot<B> {
    fn empty(number: usize) -> Self {
        Self {
            expected: number as u64 ^ 1,
            sequence: 0,
            token: 0,
            operation: Operation::Flush,
            flags: Flags(0),
            blocks: 0,
            lba: 0,
            deadline: 0,
            buffer: None,
        }
    }

    /// Whether no request has the tag, which is `number`.
    pub(super) fn is_free(&self, number: usize) -> bool {
        (self.expected ^ number as u64) & 1 != 0
    }

    /// The end of its request, which there is.
    #[inline(always)]
    fn ended(&mut self, client: u32, number: u16, status: Status, bytes: u32, late: bool) -> Completion<B> {
        self.expected ^= 1;
        let tag = Tag { number, client, sequence: self.sequence };
        Completion { token: self.token, tag, status, bytes, late, buffer: self.buffer.take() }
    }

    /// Bytes asked for.
    pub(super) fn asked(&self) -> u32 {
        (self.expected >> 32) as u32
    }
}

/// The client's side of a session: `N` tags, a power of two as the rings have entries. Not for more than one thread
/// at a time; one executor or processor, one session.
///
/// When dropped with requests unanswered it leaks their buffers: the server has them.
pub struct Client<'m, B, const N: usize> {
    pub(super) end: ClientEnd<'m>,
    /// Second word of completions: the epoch that was acknowledged.
    pub(super) epoch: u64,
    /// A block's bytes, where completions have them.
    unit: u64,
    /// Which client of the program it is.
    identity: u32,
    sequence: u64,
    /// How many of `tags`, from the first, are free.
    free: u32,
    /// All bits while the client stands at [`Standing::Serving`], else none: one look for credit and server.
    open: u32,
    standing: Standing,
    /// The server's word as far as it was acted upon.
    pub(super) known: Announcement,
    tags: [u16; N],
    pub(super) slots: [Slot<B>; N],
}

impl<'m, B: SharedBuffer, const N: usize> Client<'m, B, N> {
    const MASK: usize = {
        assert!(N <= 1 << 15 && is_size(N as u16), "a power of two, at least 2, up to MAX_CREDIT");
        N - 1
    };

    /// A client of rings that are new, or that an earlier client left: nothing in them is believed before a server
    /// invites this client. `None` if they have not `N` entries or `block_size` (bytes of a block, as
    /// [`Info`](crate::lib_block::message::Info) says) is none. [`Client::resume`] attaches it.
    pub fn new(rings: ClientRings<'m>, block_size: u32) -> Option<Self> {
        if rings.size() as usize != Self::MASK + 1 || !block_size.is_power_of_two() {
            return None;
        }
        // SAFETY: it is private here, and staged are requests with `SharedBuffer`s, which their tags keep.
        let end = unsafe { ClientEnd::new(rings) };
        Some(Self {
            known: end.announcement(),
            end,
            identity: identity(),
            epoch: NO_EPOCH,
            unit: u64::from(block_size) << 32,
            sequence: 0,
            free: N as u32,
            open: 0,
            standing: Standing::Detached,
            tags: core::array::from_fn(|at| (Self::MASK - at) as u16),
            slots: core::array::from_fn(Slot::empty),
        })
    }

    /// Requests that can be submitted before one must be answered.
    #[inline]
    pub fn credit(&self) -> u32 {
        self.free
    }

    /// Requests that are unanswered.
    #[inline]
    pub fn unanswered(&self) -> u32 {
        N as u32 - self.free
    }

    /// How client and server stand, as far as it was noticed.
    #[inline]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn stand(&mut self, standing: Standing) {
        self.standing = standing;
        self.open = if standing == Standing::Serving { u32::MAX } else { 0 };
    }

    /// How many requests were submitted: the number of the last one.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> u32 {
        (self.unit >> 32) as u32
    }

    /// How often the server's doorbell was to be rung.
    pub fn doorbells(&self) -> u64 {
        self.end.doorbells()
    }

    /// Stages a request; the server sees it after [`Client::publish`]. What is asked is not checked here: the server
    /// does, and answers.
    ///
    /// # Errors
    /// The request, when there is no credit ([`Why::Full`]) or no server.
    #[inline(always)]
    pub fn submit(&mut self, request: Request<B>) -> Result<Tag, Refused<B>> {
        if self.free & self.open == 0 {
            return Err(self.refuse(request));
        }
        Ok(self.stage(request))
    }

    /// Stages the withdrawal of a request, which takes a tag of its own and ends with `token`: [`Status::Ok`] if the
    /// request was withdrawn (it ends with [`Status::Gone`]), else why not. Either way the request itself ends as well.
    ///
    /// # Errors
    /// [`Why::NotFound`] when the request was answered, or was another client's; else as [`Client::submit`].
    pub fn cancel(&mut self, tag: Tag, token: u64) -> Result<Tag, Why> {
        let number = usize::from(tag.number);
        let unanswered = |slot: &Slot<B>| !slot.is_free(number) && slot.sequence == tag.sequence;
        if tag.client != self.identity || !self.slots.get(number).is_some_and(unanswered) {
            return Err(Why::NotFound);
        }
        if self.free & self.open == 0 {
            return Err(self.why());
        }
        Ok(self.stage(Request::new(Operation::Cancel, tag.number.into(), 0, 0, None).with_token(token)))
    }

    /// There is credit, and a server.
    #[inline(always)]
    fn stage(&mut self, request: Request<B>) -> Tag {
        self.free -= 1;
        // Masked for the compiler: tags are below `N`, and so is the number of free ones.
        let number = self.tags[self.free as usize & Self::MASK];
        let slot = &mut self.slots[usize::from(number) & Self::MASK];
        self.sequence += 1;
        // More bytes than an answer can name wrap; the server refuses such a request.
        slot.expected = u64::from(number) | u64::from(request.moved).wrapping_mul(self.unit);
        slot.sequence = self.sequence;
        slot.token = request.token;
        slot.operation = request.operation;
        slot.flags = request.flags;
        slot.blocks = request.blocks;
        slot.lba = request.lba;
        slot.deadline = request.deadline;
        // A free tag has no buffer: nothing is there to be dropped.
        mem::forget(mem::replace(&mut slot.buffer, request.buffer));
        // The buffer's own code says where it is, and may panic. Undone behind it, rather than asked before it: that costs
        // nothing where it does not panic.
        let staging = Staging { client: self, number };
        let words = entry(number, &staging.client.slots[usize::from(number) & Self::MASK]);
        mem::forget(staging);
        self.end.stage(words);
        Tag { number, client: self.identity, sequence: self.sequence }
    }

    /// Stages what a tag has once more.
    pub(super) fn stage_again(&mut self, number: u16) {
        let words = entry(number, &self.slots[usize::from(number) & Self::MASK]);
        self.end.stage(words);
    }

    #[cold]
    fn refuse(&self, request: Request<B>) -> Refused<B> {
        Refused { why: self.why(), request }
    }

    fn why(&self) -> Why {
        match self.standing {
            Standing::Serving => Why::Full,
            Standing::Detached => Why::Restarting,
            Standing::Broken(_) => Why::Broken,
            Standing::Over(_) => Why::Ended,
        }
    }

    /// Shows the server what was staged; true: its doorbell is to be rung.
    #[inline(always)]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        self.open != 0 && self.end.publish()
    }

    /// Takes up to `max` completions, and looks whether the server says something new ([`Client::standing`]). How many
    /// there were. A `sink` that panics has had the completion that it was given; those behind it come with the next
    /// call.
    #[inline(always)]
    pub fn reap(&mut self, max: u32, mut sink: impl FnMut(Completion<B>)) -> u32 {
        // What the server says is looked at first: what it says goes for all completions before.
        if (self.end.announcement() != self.known || self.open == 0) && !self.notice() {
            return 0;
        }
        self.take(max, &mut sink)
    }

    #[inline(always)]
    pub(super) fn take(&mut self, max: u32, sink: &mut impl FnMut(Completion<B>)) -> u32 {
        let count = match self.end.look() {
            Ok(ready) => ready.min(max),
            Err(_) => self.jumped(),
        };
        let mut reaping = Reaping { client: self, taken: 0 };
        while reaping.taken < count {
            let client = &mut *reaping.client;
            let words = client.end.peek(reaping.taken);
            let number = words[0] as u16;
            let slot = &mut client.slots[usize::from(number) & Self::MASK];
            let completion = if (words[0] ^ slot.expected) | (words[1] ^ client.epoch) == 0 {
                // Written out, so that the place of the slot is computed once.
                let completion = slot.ended(client.identity, number, Status::Ok, (words[0] >> 32) as u32, false);
                let free = client.free;
                client.tags[free as usize & Self::MASK] = number;
                client.free = free + 1;
                completion
            } else {
                match client.check(words) {
                    Some(completion) => completion,
                    None => break,
                }
            };
            // The tag is free: this entry must not be looked at again, whatever becomes of the caller's code.
            reaping.taken += 1;
            sink(completion);
        }
        reaping.taken
    }

    /// The end of a tag's request, which there is.
    pub(super) fn release(&mut self, number: u16, status: Status, bytes: u32, late: bool) -> Completion<B> {
        self.tags[self.free as usize & Self::MASK] = number;
        self.free += 1;
        self.slots[usize::from(number) & Self::MASK].ended(self.identity, number, status, bytes, late)
    }

    /// Asks for the client's doorbell once `want` more requests are answered (or as many as there are), or the server
    /// has something to say. True: that is so already, and no doorbell may come for it.
    pub fn arm(&mut self, want: u32) -> bool {
        let ready = self.end.arm(want.min(self.unanswered()), self.known);
        // Of a server whose completions are not believed nothing is awaited but what it says of itself.
        if self.believes() { ready } else { self.has_news(self.end.announcement()) }
    }

    /// Whether completions are looked at: not before the first attach, when what stands in the rings is another
    /// client's, and not after the server contradicted itself or ended.
    pub(super) fn believes(&self) -> bool {
        match self.standing {
            Standing::Serving => true,
            Standing::Detached => self.epoch != NO_EPOCH,
            Standing::Broken(_) | Standing::Over(_) => false,
        }
    }

    /// Whether the server's word is to be acted upon. Before the first attach that is one which was said after this
    /// client began, or one that serves and that no earlier client of the rings went along with.
    pub(super) fn has_news(&self, word: Announcement) -> bool {
        let is_invited =
            || self.epoch == NO_EPOCH && word.stage == Stage::Serving && !self.end.is_acknowledged(word.epoch);
        word != self.known || is_invited()
    }
}

/// Which client of the program this is, so that no other one takes its tags for its own. They repeat after 2^32 clients.
fn identity() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Relaxed: nothing but another number each time.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A request that has its tag and that no entry was made of. Dropped, which only a panic brings about, it gives the tag
/// back, and its buffer goes.
struct Staging<'c, 'm, B, const N: usize> {
    client: &'c mut Client<'m, B, N>,
    number: u16,
}

impl<B, const N: usize> Drop for Staging<'_, '_, B, N> {
    #[cold]
    fn drop(&mut self) {
        let Client { slots, free, .. } = &mut *self.client;
        if let Some(slot) = slots.get_mut(usize::from(self.number)) {
            *free += 1;
            slot.expected ^= 1;
            slot.buffer = None;
        }
    }
}

/// Completions that are being taken. Those that were handed out are consumed in any case, also if whoever takes them
/// panics: their tags are free, and an entry that is looked at twice would end the tag's next request.
struct Reaping<'c, 'm, B, const N: usize> {
    client: &'c mut Client<'m, B, N>,
    taken: u32,
}

impl<B, const N: usize> Drop for Reaping<'_, '_, B, N> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.taken != 0 {
            self.client.end.consume(self.taken);
        }
    }
}

/// The entry that asks for what a tag has.
#[inline(always)]
fn entry<B: SharedBuffer>(tag: u16, slot: &Slot<B>) -> [u64; 8] {
    let data = slot.buffer.as_ref().map_or(Data::None, SharedBuffer::data);
    let Slot { operation, flags, lba, blocks, deadline, .. } = *slot;
    Submission { operation, flags, tag, lba, blocks, data, deadline }.encode()
}

impl<B, const N: usize> Drop for Client<'_, B, N> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            // The server's, or its device's, until someone knows better.
            mem::forget(slot.buffer.take());
        }
    }
}
