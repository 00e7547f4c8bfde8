//! The client's end of the rings. Which word is whose, and what an attach is, the module above says.
use super::{
    Announcement, BEGINNING, CLIENT, COMPLETION_EVENT, COMPLETION_HEAD, COMPLETION_TAIL, ClientRings, IndexJump,
    Mapped, SERVER, SUBMISSION_EVENT, SUBMISSION_TAIL, crossed,
};
use crate::sync::{Ordering, full_fence};

/// The client's end: produces submissions, consumes completions.
pub struct ClientEnd<'m> {
    rings: Mapped<'m>,
    /// Where the next entry goes.
    next: u32,
    /// Tail as the server knows it.
    published: u32,
    /// Completions consumed, and told.
    head: u32,
    doorbells: u64,
}

impl<'m> ClientEnd<'m> {
    /// The end of rings that are new, or were another client's of the same memory before. [`Client`] is the safe way to
    /// use it.
    ///
    /// # Safety
    /// Whatever is staged here names registered memory only as a [`SharedBuffer`] promises: nobody else accesses it in a
    /// way that conflicts with the server's device, from then on until the request is answered.
    ///
    /// [`Client`]: crate::lib_block::client::Client
    /// [`SharedBuffer`]: crate::lib_block::client::SharedBuffer
    pub unsafe fn new(ClientRings(rings): ClientRings<'m>) -> Self {
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
        self.acknowledge_with(epoch, 0);
    }

    /// As [`ClientEnd::acknowledge`], but submissions begin with the last `staged` entries that were staged. They are
    /// the server's to see with the next [`ClientEnd::publish`].
    pub(crate) fn acknowledge_with(&mut self, epoch: u32, staged: u32) {
        self.published = self.next.wrapping_sub(staged);
        // The server goes on from the head it finds here, so its tail stays where it is: until it has seen this, there
        // is nothing to be taken for a completion. Relaxed: no entry is read by this tail.
        self.head = u64::from_le(self.rings.load(COMPLETION_TAIL, Ordering::Relaxed)) as u32;
        self.rings.store(SUBMISSION_TAIL, u64::from(self.published).to_le(), Ordering::Relaxed);
        self.rings.store(COMPLETION_HEAD, u64::from(self.head).to_le(), Ordering::Relaxed);
        self.rings.store(COMPLETION_EVENT, u64::from(self.head.wrapping_sub(1)).to_le(), Ordering::Relaxed);
        let word = u64::from(epoch) | u64::from(self.published) << 32;
        // Release: pairs with the acquire in `ServerEnd::acknowledged`; the words above come with it.
        self.rings.store(CLIENT, word.to_le(), Ordering::Release);
        // Partner: `armed_before_last_look`; the server looks at this word, too, before it sleeps.
        full_fence();
    }

    /// Whether some client of these rings, maybe an earlier one, went along with `epoch`. A server that opens them anew
    /// clears that before it announces anything.
    pub(crate) fn is_acknowledged(&self, epoch: u32) -> bool {
        // Relaxed: the acquire of the announcement before covers the server's clearing.
        u64::from_le(self.rings.load(CLIENT, Ordering::Relaxed)) as u32 == epoch
    }

    /// How often the server's doorbell was to be rung.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }
}
