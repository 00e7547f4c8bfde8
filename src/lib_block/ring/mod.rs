//! A session's rings: a pair of index words and a table of entries each way, in memory that client and server share.
//!
//! One producer and one consumer per ring. The other side's index is copied, then checked: one that is further ahead
//! than the ring is long ends the session. Nothing that the other side stores is used as a place in memory unmasked,
//! and no word of one's own is read back. It knows no operations: entries are words.
//!
//! | Line (64 bytes) | Written by | Words |
//! |---|---|---|
//! | 0 | server, at attach | epoch and [`Stage`] |
//! | 1 | client, at attach; zero before | epoch that it goes along with, and where its submissions begin |
//! | 2 | client | submission tail, completion head, completion event |
//! | 3 | server | completion tail, submission event |
//! | 4 … | client | submission entries, one a line |
//! | then | server | completion entries, four a line |
//!
//! **Doorbells** in both directions are rung when the producer's tail crosses the consumer's event, which the consumer
//! stores when it wants to sleep. It then looks once more. Both sides put a full fence between their store and their
//! load: without it the entry falls between the look and the wish.
//!
//! **Attach.** The server stores a new epoch once no earlier server's device can touch the client's memory. The client
//! takes the completions that are left, knows that nothing else will be answered, and stores the epoch back with the
//! place where its next entry will be; from there on the server reads. So the first opening and a restart are one thing.
//! Epochs count from 1: 0 is what a client's word says that goes along with nobody.
//!
//! A submission entry may be written again once fewer than all places hold unanswered requests: the server reads entries
//! in order, and all those that it takes before it publishes any answer to them. A completion entry may be once the
//! client's head has passed it; credit sees to that.
mod client;
mod server;

use crate::sync::{AtomicU64, Ordering, full_fence};
use core::fmt;
#[cfg(not(all(test, loom)))]
use core::ptr::NonNull;

pub use client::ClientEnd;
pub use server::ServerEnd;

/// Words of the header.
const HEADER: usize = 32;
const SERVER: usize = 0;
const CLIENT: usize = 8;
const SUBMISSION_TAIL: usize = 16;
const COMPLETION_HEAD: usize = 17;
const COMPLETION_EVENT: usize = 18;
const COMPLETION_TAIL: usize = 24;
const SUBMISSION_EVENT: usize = 25;

/// Where a client's submissions begin: any place will do, and from this one the index wraps within the first 64.
const BEGINNING: u32 = 0u32.wrapping_sub(64);

/// Bytes that rings of `entries` take.
pub const fn bytes(entries: u16) -> usize {
    HEADER * 8 + entries as usize * (64 + 16)
}

/// Whether rings can have so many entries: a power of two from 2 to [`MAX_CREDIT`](super::MAX_CREDIT).
pub const fn is_size(entries: u16) -> bool {
    entries.is_power_of_two() && entries >= 2 && entries <= super::MAX_CREDIT
}

/// Both ends of rings in shared memory, for whoever maps them for client and server alike. Each end is had once:
/// [`Rings::split`] moves both out, and neither is `Copy`.
///
/// ```
/// use core::ptr::NonNull;
/// use drv_virtio_block::lib_block::client::{Client, pool::Page};
/// use drv_virtio_block::lib_block::ring::{self, ClientRings, Rings, ServerEnd};
/// # #[repr(align(64))]
/// # struct Memory([u8; ring::bytes(4)]);
/// fn both(mapped: NonNull<u8>) -> Option<()> {
///     // SAFETY: for this example; the caller's.
///     let (client, server) = unsafe { Rings::new(mapped, 4) }?.split();
///     let client = Client::<Page<'_, 8>, 4>::new(client, 512)?;
///     let server = ServerEnd::new(server);
///     # drop((client, server));
///     Some(())
/// }
/// # let mut memory = Memory([0; ring::bytes(4)]);
/// # both(NonNull::from(&mut memory).cast()).unwrap();
/// ```
/// A second client of the same rings would take the first one's answers for its own, so it cannot be had:
/// ```compile_fail,E0382
/// # use drv_virtio_block::lib_block::client::{Client, pool::Page};
/// # use drv_virtio_block::lib_block::ring::Rings;
/// fn two_clients(rings: Rings<'_>) {
///     let (client, _) = rings.split();
///     let one = Client::<Page<'_, 8>, 4>::new(client, 512);
///     let two = Client::<Page<'_, 8>, 4>::new(client, 512);
/// }
/// ```
/// Nor can a second server, which would answer requests that the first one's device still has:
/// ```compile_fail,E0382
/// # use drv_virtio_block::lib_block::ring::{Rings, ServerEnd};
/// fn two_servers(rings: Rings<'_>) {
///     let (_, server) = rings.split();
///     let one = ServerEnd::new(server);
///     let two = ServerEnd::new(server);
/// }
/// ```
/// ```compile_fail,E0382
/// # use drv_virtio_block::lib_block::ring::Rings;
/// fn split_twice(rings: Rings<'_>) {
///     let one = rings.split();
///     let two = rings.split();
/// }
/// ```
/// Nothing here can be cloned either, the ends in use included:
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::ring::{ClientEnd, ClientRings, Rings, ServerEnd, ServerRings};
/// fn is_clone<T: Clone>() {}
/// is_clone::<Rings<'_>>();
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::ring::ClientRings;
/// # fn is_clone<T: Clone>() {}
/// is_clone::<ClientRings<'_>>();
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::ring::ServerRings;
/// # fn is_clone<T: Clone>() {}
/// is_clone::<ServerRings<'_>>();
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::ring::ClientEnd;
/// # fn is_clone<T: Clone>() {}
/// is_clone::<ClientEnd<'_>>();
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::ring::ServerEnd;
/// # fn is_clone<T: Clone>() {}
/// is_clone::<ServerEnd<'_>>();
/// ```
pub struct Rings<'m>(Mapped<'m>);

/// The client's end of rings, not yet used: what [`Client::new`](super::client::Client::new) takes.
pub struct ClientRings<'m>(Mapped<'m>);

/// The server's end of rings, not yet used: what a session is opened over.
pub struct ServerRings<'m>(Mapped<'m>);

impl<'m> Rings<'m> {
    /// Rings of `entries` in the [`bytes`] from `base` on; `None` if that is no size, or `base` is not at a line.
    ///
    /// # Safety
    /// The memory is mapped, initialised, for `'m`. Others access it as atomics or not at all. Both ends are free, as
    /// [`ClientRings::new`] and [`ServerRings::new`] say.
    #[cfg(not(all(test, loom)))]
    pub unsafe fn new(base: NonNull<u8>, entries: u16) -> Option<Self> {
        // SAFETY: as the caller says.
        unsafe { Mapped::new(base, entries) }.map(Self)
    }

    /// Rings of words that the caller has, as many of each as a power of two. The models make them anew as they need.
    #[cfg(all(test, loom))]
    pub(crate) fn of(
        header: &'m [AtomicU64; HEADER],
        submissions: &'m [Entry],
        completions: &'m [[AtomicU64; 2]],
    ) -> Self {
        assert!(submissions.len().is_power_of_two() && submissions.len() == completions.len());
        Self(Mapped { header, submissions, completions })
    }

    /// Entries of each ring.
    pub fn size(&self) -> u32 {
        self.0.size()
    }

    /// The two ends, one each.
    pub fn split(self) -> (ClientRings<'m>, ServerRings<'m>) {
        (ClientRings(self.0), ServerRings(self.0))
    }
}

impl ClientRings<'_> {
    /// The client's end alone, as a client maps it; else as [`Rings::new`].
    ///
    /// # Safety
    /// The memory is as for [`Rings::new`]. The client's end is free for as long as this one, or what it is moved into,
    /// is used: nobody has another, and no server will answer what an earlier one asked. Its session is closed, and the
    /// call that closed it answered, or the device was reset.
    #[cfg(not(all(test, loom)))]
    pub unsafe fn new(base: NonNull<u8>, entries: u16) -> Option<Self> {
        // SAFETY: as the caller says.
        unsafe { Mapped::new(base, entries) }.map(Self)
    }

    /// Entries of each ring.
    pub fn size(&self) -> u32 {
        self.0.size()
    }
}

impl ServerRings<'_> {
    /// The server's end alone, as a server maps it; else as [`Rings::new`]. A server's next life takes the rings of its
    /// clients up again with it.
    ///
    /// # Safety
    /// The memory is as for [`Rings::new`]. The server's end is free for as long as this one, or what it is moved into,
    /// is used: nobody has another, or whoever had it is over and stores nothing there any more. Before the new end
    /// announces anything, nothing that an earlier server asked of its device touches the client's memory any more: the
    /// session was closed, or the device was reset and answered that.
    #[cfg(not(all(test, loom)))]
    pub unsafe fn new(base: NonNull<u8>, entries: u16) -> Option<Self> {
        // SAFETY: as the caller says.
        unsafe { Mapped::new(base, entries) }.map(Self)
    }

    /// Entries of each ring.
    pub fn size(&self) -> u32 {
        self.0.size()
    }
}

/// The words of rings, as one side maps them.
#[derive(Clone, Copy)]
struct Mapped<'m> {
    header: &'m [AtomicU64; HEADER],
    submissions: &'m [Entry],
    completions: &'m [[AtomicU64; 2]],
}

impl<'m> Mapped<'m> {
    /// # Safety
    /// The memory is mapped, initialised, for `'m`. Others (the other side, in its own mapping) access it as atomics
    /// or not at all.
    #[cfg(not(all(test, loom)))]
    unsafe fn new(base: NonNull<u8>, entries: u16) -> Option<Self> {
        if !is_size(entries) || !base.as_ptr().addr().is_multiple_of(64) {
            return None;
        }
        let size = usize::from(entries);
        // SAFETY: inside the memory that the caller vouches for, aligned (64, then multiples of 64); atomics may be
        // shared with whoever else accesses them as such, and any content is valid for them.
        unsafe {
            let submissions = base.add(HEADER * 8);
            let completions = submissions.add(size * 64);
            Some(Self {
                header: base.cast().as_ref(),
                submissions: core::slice::from_raw_parts(submissions.cast().as_ptr(), size),
                completions: core::slice::from_raw_parts(completions.cast().as_ptr(), size),
            })
        }
    }

    /// Entries of each ring.
    #[inline(always)]
    fn size(&self) -> u32 {
        self.submissions.len() as u32
    }

    #[inline(always)]
    fn load(&self, word: usize, order: Ordering) -> u64 {
        self.header[word].load(order)
    }

    #[inline(always)]
    fn store(&self, word: usize, value: u64, order: Ordering) {
        self.header[word].store(value, order);
    }

    #[inline(always)]
    fn submission(&self, at: u32) -> &'m Entry {
        // SAFETY: masked into the table, whose length is a power of two: `new` and `Rings::of` see to it.
        unsafe { self.submissions.get_unchecked(at as usize & (self.submissions.len() - 1)) }
    }

    #[inline(always)]
    fn completion(&self, at: u32) -> &'m [AtomicU64; 2] {
        // SAFETY: as above; both tables are equally long.
        unsafe { self.completions.get_unchecked(at as usize & (self.completions.len() - 1)) }
    }
}

/// A submission as it stands in shared memory: each word says something else each time that it is read.
#[repr(transparent)]
pub(crate) struct Entry(pub(crate) [AtomicU64; 8]);

impl Entry {
    /// One of the eight words, read now.
    #[inline(always)]
    pub(crate) fn word(&self, at: usize) -> u64 {
        // Relaxed: covered by the acquire of `ServerEnd::look`. What the client writes meanwhile makes another entry of
        // it, no more: only this copy is looked at.
        u64::from_le(self.0[at].load(Ordering::Relaxed))
    }
}

/// Whether a tail that went from `before` to `after` crossed `event`.
#[inline(always)]
const fn crossed(event: u32, before: u32, after: u32) -> bool {
    after.wrapping_sub(event).wrapping_sub(1) < after.wrapping_sub(before)
}

/// The other side's index is further ahead than its ring is long, or than what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexJump;

impl fmt::Display for IndexJump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other side's index is further on than its ring is long")
    }
}

impl core::error::Error for IndexJump {}

/// What a server is to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none yet.
    Absent,
    /// It serves those who go along with its epoch.
    Serving,
    /// It was stopped in order; everything was answered.
    Stopped,
    /// It ended the session, because of what the client did or on its wish.
    Ended,
}

/// The server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The server's life.
    pub epoch: u32,
    /// What it does.
    pub stage: Stage,
}

impl Announcement {
    fn encode(self) -> u64 {
        u64::from(self.epoch) | (self.stage as u64) << 32
    }

    fn decode(word: u64) -> Self {
        let stage = match word >> 32 {
            1 => Stage::Serving,
            2 => Stage::Stopped,
            3 => Stage::Ended,
            _ => Stage::Absent,
        };
        Self { epoch: word as u32, stage }
    }
}

/// The full fence between arming every session and the last look at each.
///
/// Partner: the fence in [`ClientEnd::publish`] and in [`ClientEnd::acknowledge`].
#[inline]
pub fn armed_before_last_look() {
    full_fence();
}
