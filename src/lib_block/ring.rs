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
use crate::sync::{AtomicU64, Ordering, full_fence};
use core::fmt;
#[cfg(not(all(test, loom)))]
use core::ptr::NonNull;

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

/// Rings in shared memory, as one side maps them.
#[derive(Clone, Copy)]
pub struct Rings<'m> {
    header: &'m [AtomicU64; HEADER],
    submissions: &'m [Entry],
    completions: &'m [[AtomicU64; 2]],
}

impl<'m> Rings<'m> {
    /// Rings of `entries` in the [`bytes`] from `base` on; `None` if that is no size, or `base` is not at a line.
    ///
    /// # Safety
    /// The memory is mapped, initialised, for `'m`. Others (the other side, in its own mapping) access it as atomics
    /// or not at all.
    #[cfg(not(all(test, loom)))]
    pub unsafe fn new(base: NonNull<u8>, entries: u16) -> Option<Self> {
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

    /// Rings of words that the caller has, as many of each as a power of two.
    #[cfg(all(test, loom))]
    pub(crate) fn of(
        header: &'m [AtomicU64; HEADER],
        submissions: &'m [Entry],
        completions: &'m [[AtomicU64; 2]],
    ) -> Self {
        assert!(submissions.len().is_power_of_two() && submissions.len() == completions.len());
        Self { header, submissions, completions }
    }

    /// Entries of each ring.
    #[inline(always)]
    pub fn size(&self) -> u32 {
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
        // SAFETY: masked into the table, whose length is a power of two: `new` and `of` see to it.
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

/// The client's end: produces submissions, consumes completions.
pub struct ClientEnd<'m> {
    rings: Rings<'m>,
    /// Where the next entry goes.
    next: u32,
    /// Tail as the server knows it.
    published: u32,
    /// Completions consumed, and told.
    head: u32,
    doorbells: u64,
}

impl<'m> ClientEnd<'m> {
    /// The end of rings that are new, or were another client's of the same memory before.
    pub fn new(rings: Rings<'m>) -> Self {
        // Nothing is in flight from here on, whatever was; what is left of completions, `acknowledge` skips.
        Self { rings, next: BEGINNING, published: BEGINNING, head: 0, doorbells: 0 }
    }

    /// Entries of each ring: the credit.
    #[inline(always)]
    pub fn size(&self) -> u32 {
        self.rings.size()
    }

    /// Puts a request behind the others. There is room as long as no more than [`ClientEnd::size`] are unanswered.
    #[inline(always)]
    pub fn stage(&mut self, words: [u64; 8]) {
        let entry = self.rings.submission(self.next);
        for (place, word) in entry.0.iter().zip(words) {
            // Relaxed: the tail's release covers it.
            place.store(word.to_le(), Ordering::Relaxed);
        }
        self.next = self.next.wrapping_add(1);
    }

    /// Whether something is staged that was not published.
    pub fn is_staged(&self) -> bool {
        self.next != self.published
    }

    /// Shows the server what was staged; true: its doorbell is to be rung.
    #[inline(always)]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let before = self.published;
        if self.next == before {
            return false;
        }
        self.published = self.next;
        // Release: pairs with the acquire in `ServerEnd::look`; entries before the tail.
        self.rings.store(SUBMISSION_TAIL, u64::from(self.next).to_le(), Ordering::Release);
        // Partner: `armed_before_last_look`. The tail is visible before the event is read.
        full_fence();
        let event = u64::from_le(self.rings.load(SUBMISSION_EVENT, Ordering::Relaxed)) as u32;
        let wanted = crossed(event, before, self.next);
        self.doorbells += u64::from(wanted);
        wanted
    }

    /// Completions that can be taken.
    ///
    /// # Errors
    /// When the server's tail is further ahead than the ring is long.
    #[inline(always)]
    pub fn look(&self) -> Result<u32, IndexJump> {
        // Acquire: pairs with the release in `ServerEnd::publish`; entries, data and the end of the server's interest
        // in the submission entries are visible.
        let tail = u64::from_le(self.rings.load(COMPLETION_TAIL, Ordering::Acquire)) as u32;
        let ready = tail.wrapping_sub(self.head);
        if ready > self.rings.size() { Err(IndexJump) } else { Ok(ready) }
    }

    /// The completion `ahead` of the first that was not consumed: below what [`ClientEnd::look`] said.
    #[inline(always)]
    pub fn peek(&self, ahead: u32) -> [u64; 2] {
        let entry = self.rings.completion(self.head.wrapping_add(ahead));
        [0, 1].map(|word| u64::from_le(entry[word].load(Ordering::Relaxed)))
    }

    /// Gives the places of `count` completions back.
    #[inline(always)]
    pub fn consume(&mut self, count: u32) {
        self.head = self.head.wrapping_add(count);
        // Release: pairs with the acquire in `ServerEnd::look`; the entries were read before they are written again.
        self.rings.store(COMPLETION_HEAD, u64::from(self.head).to_le(), Ordering::Release);
    }

    /// Asks for the doorbell once `want` (at least 1) more completions are there, and looks again. True: something can
    /// be taken now, or the server has something to say, and no doorbell may come for it.
    pub fn arm(&mut self, want: u32, known: Announcement) -> bool {
        let event = self.head.wrapping_add(want.max(1) - 1);
        self.rings.store(COMPLETION_EVENT, u64::from(event).to_le(), Ordering::Relaxed);
        // Partner: the fence in `ServerEnd::publish` and in `ServerEnd::announce`. The event is visible before the
        // last look.
        full_fence();
        let ready = self.look().unwrap_or(u32::MAX);
        ready >= want.max(1) || self.announcement() != known
    }

    /// What the server says of itself.
    #[inline]
    pub fn announcement(&self) -> Announcement {
        // Acquire: pairs with the release in `ServerEnd::announce`; what the server did before is visible, above all
        // what its device did with the client's memory.
        Announcement::decode(u64::from_le(self.rings.load(SERVER, Ordering::Acquire)))
    }

    /// Goes along with the server's `epoch`: submissions begin with the next that is staged. Everything before was
    /// answered or is lost, completions that were not consumed among it. The server's doorbell is to be rung.
    pub fn acknowledge(&mut self, epoch: u32) {
        self.published = self.next;
        // The server goes on from the head it finds here, so its tail stays where it is: until it has seen this, there
        // is nothing to be taken for a completion. Relaxed: no entry is read by this tail.
        self.head = u64::from_le(self.rings.load(COMPLETION_TAIL, Ordering::Relaxed)) as u32;
        self.rings.store(SUBMISSION_TAIL, u64::from(self.next).to_le(), Ordering::Relaxed);
        self.rings.store(COMPLETION_HEAD, u64::from(self.head).to_le(), Ordering::Relaxed);
        self.rings.store(COMPLETION_EVENT, u64::from(self.head.wrapping_sub(1)).to_le(), Ordering::Relaxed);
        let word = u64::from(epoch) | u64::from(self.next) << 32;
        // Release: pairs with the acquire in `ServerEnd::acknowledged`; the words above come with it.
        self.rings.store(CLIENT, word.to_le(), Ordering::Release);
        // Partner: `armed_before_last_look`; the server looks at this word, too, before it sleeps.
        full_fence();
    }

    /// How often the server's doorbell was to be rung.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }
}

/// The server's end: consumes submissions, produces completions.
pub struct ServerEnd<'m> {
    rings: Rings<'m>,
    /// Submissions consumed.
    head: u32,
    /// Where the next completion goes.
    next: u32,
    /// Tail as the client knows it.
    published: u32,
    /// Completions that the client consumed, as it said last: never more than were published.
    reaped: u32,
    doorbells: u64,
}

impl<'m> ServerEnd<'m> {
    /// The end of rings that nobody serves. Nothing is announced of this one yet, so the client has nothing to say: what
    /// stands there was said by an earlier one, maybe to this very epoch, and is cleared.
    pub fn new(rings: Rings<'m>) -> Self {
        // Relaxed: the release in `announce` covers it, and the client's next word follows that.
        rings.store(CLIENT, 0, Ordering::Relaxed);
        Self { rings, head: 0, next: 0, published: 0, reaped: 0, doorbells: 0 }
    }

    /// Entries of each ring: the credit.
    #[inline(always)]
    pub fn size(&self) -> u32 {
        self.rings.size()
    }

    /// Says what this server is. A new epoch is announced only once nothing of an earlier one touches the client's
    /// memory any more. The client's doorbell is to be rung.
    pub fn announce(&mut self, word: Announcement) {
        // Release: pairs with the acquire in `ClientEnd::announcement`.
        self.rings.store(SERVER, word.encode().to_le(), Ordering::Release);
        // Partner: the fence in `ClientEnd::arm`.
        full_fence();
    }

    /// Whether the client goes along with `epoch` (at least 1); if so, this end stands where the client does. To be asked
    /// until it is so, and not again while requests are unanswered: a client may say it twice.
    pub fn acknowledged(&mut self, epoch: u32) -> bool {
        // Acquire: pairs with the release in `ClientEnd::acknowledge`.
        let word = u64::from_le(self.rings.load(CLIENT, Ordering::Acquire));
        if word as u32 != epoch {
            return false;
        }
        self.head = (word >> 32) as u32;
        let reaped = u64::from_le(self.rings.load(COMPLETION_HEAD, Ordering::Relaxed)) as u32;
        (self.next, self.published, self.reaped) = (reaped, reaped, reaped);
        self.rings.store(COMPLETION_TAIL, u64::from(reaped).to_le(), Ordering::Relaxed);
        self.disarm();
        true
    }

    /// Submissions that can be taken: those that are there, as long as there is room to complete them.
    ///
    /// # Errors
    /// When one of the client's indices cannot be.
    #[inline(always)]
    pub fn look(&mut self, unanswered: u32) -> Result<u32, IndexJump> {
        // Acquire: pairs with the release in `ClientEnd::publish`; the entries are visible.
        let tail = u64::from_le(self.rings.load(SUBMISSION_TAIL, Ordering::Acquire)) as u32;
        let ready = tail.wrapping_sub(self.head);
        // Acquire: pairs with the release in `ClientEnd::consume`.
        let reaped = u64::from_le(self.rings.load(COMPLETION_HEAD, Ordering::Acquire)) as u32;
        // It only grows, and not beyond what the client was shown.
        let reaped_more = reaped.wrapping_sub(self.reaped);
        if ready > self.rings.size() || reaped_more > self.published.wrapping_sub(self.reaped) {
            return Err(IndexJump);
        }
        self.reaped = reaped;
        let room = self.rings.size().saturating_sub(self.next.wrapping_sub(reaped)).saturating_sub(unanswered);
        Ok(ready.min(room))
    }

    /// The submission `ahead` of the first that was not consumed, each word read once.
    #[inline(always)]
    pub fn peek(&self, ahead: u32) -> [u64; 8] {
        let entry = self.rings.submission(self.head.wrapping_add(ahead));
        [0, 1, 2, 3, 4, 5, 6, 7].map(|at| entry.word(at))
    }

    /// The submissions `from..to` ahead of the first that was not consumed, or those of them before the end of the
    /// table: at least one, if there are any.
    #[cfg(feature = "driver")]
    #[inline(always)]
    pub(crate) fn run(&self, from: u32, to: u32) -> &'m [Entry] {
        let table = self.rings.submissions;
        let first = self.head.wrapping_add(from) as usize & (table.len() - 1);
        let behind = table.len().min(first + (to - from) as usize);
        &table[first..behind]
    }

    /// Notes that `count` submissions were taken.
    #[inline(always)]
    pub fn consume(&mut self, count: u32) {
        self.head = self.head.wrapping_add(count);
    }

    /// Puts a completion behind the others. There is room for one per submission taken.
    #[inline(always)]
    pub fn post(&mut self, words: [u64; 2]) {
        self.posting().post(words);
    }

    /// For several of them.
    #[inline(always)]
    pub(crate) fn posting(&mut self) -> Posting<'_, 'm> {
        Posting { rings: self.rings, next: self.next, end: &mut self.next }
    }

    /// Shows the client what was posted; true: its doorbell is to be rung.
    #[inline(always)]
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let before = self.published;
        if self.next == before {
            return false;
        }
        self.published = self.next;
        // Release: pairs with the acquire in `ClientEnd::look`.
        self.rings.store(COMPLETION_TAIL, u64::from(self.next).to_le(), Ordering::Release);
        // Partner: the fence in `ClientEnd::arm`. The tail is visible before the event is read.
        full_fence();
        let event = u64::from_le(self.rings.load(COMPLETION_EVENT, Ordering::Relaxed)) as u32;
        let wanted = crossed(event, before, self.next);
        self.doorbells += u64::from(wanted);
        wanted
    }

    /// Asks for the doorbell with the next submission. The caller puts one full fence between this, for all of its
    /// sessions, and [`ServerEnd::is_waiting`].
    #[inline]
    pub fn arm(&mut self) {
        self.rings.store(SUBMISSION_EVENT, u64::from(self.head).to_le(), Ordering::Relaxed);
    }

    /// Asks for no doorbell.
    #[inline]
    pub fn disarm(&mut self) {
        self.rings.store(SUBMISSION_EVENT, u64::from(self.head.wrapping_sub(1)).to_le(), Ordering::Relaxed);
    }

    /// Whether [`ServerEnd::look`] would find something. A client whose completions fill the ring waits for itself.
    #[inline]
    pub fn is_waiting(&self, unanswered: u32) -> bool {
        let tail = u64::from_le(self.rings.load(SUBMISSION_TAIL, Ordering::Relaxed)) as u32;
        let reaped = u64::from_le(self.rings.load(COMPLETION_HEAD, Ordering::Relaxed)) as u32;
        let room = self.rings.size().saturating_sub(self.next.wrapping_sub(reaped)).saturating_sub(unanswered);
        tail != self.head && room > 0
    }

    /// How many more completions the client waits for, as it says; at least 1.
    #[inline]
    pub fn wanted(&self) -> u32 {
        let event = u64::from_le(self.rings.load(COMPLETION_EVENT, Ordering::Relaxed)) as u32;
        let ahead = event.wrapping_sub(self.next);
        // An event that was passed, or nonsense: the next one is as good as any.
        if ahead < self.rings.size() { ahead + 1 } else { 1 }
    }

    /// How often the client's doorbell was to be rung.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }
}

/// Completions on their way into the ring: where the next goes is at hand meanwhile.
pub(crate) struct Posting<'s, 'm> {
    rings: Rings<'m>,
    next: u32,
    end: &'s mut u32,
}

impl Posting<'_, '_> {
    /// As [`ServerEnd::post`].
    #[inline(always)]
    pub(crate) fn post(&mut self, words: [u64; 2]) {
        let entry = self.rings.completion(self.next);
        entry[0].store(words[0].to_le(), Ordering::Relaxed);
        entry[1].store(words[1].to_le(), Ordering::Relaxed);
        self.next = self.next.wrapping_add(1);
    }
}

impl Drop for Posting<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.end = self.next;
    }
}

/// The full fence between arming every session and the last look at each.
///
/// Partner: the fence in [`ClientEnd::publish`] and in [`ClientEnd::acknowledge`].
#[inline]
pub fn armed_before_last_look() {
    full_fence();
}
