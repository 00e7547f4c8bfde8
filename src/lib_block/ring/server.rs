//! The server's end of the rings. Which word is whose, and what an attach is, the module above says.
#[cfg(feature = "driver")]
use super::Entry;
use super::{
    Announcement, CLIENT, COMPLETION_EVENT, COMPLETION_HEAD, COMPLETION_TAIL, IndexJump, Mapped, SERVER,
    SUBMISSION_EVENT, SUBMISSION_TAIL, ServerRings, crossed,
};
use crate::sync::{Ordering, full_fence};

/// The server's end: consumes submissions, produces completions.
pub struct ServerEnd<'m> {
    rings: Mapped<'m>,
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
    pub fn new(ServerRings(rings): ServerRings<'m>) -> Self {
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
    rings: Mapped<'m>,
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
