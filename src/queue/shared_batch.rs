//! A batch of one submitter of a shared queue: reserve, fill, publish.
//!
//! Slots are reserved from one bitmap word at a time, so that a batch that fits one costs one claim and one publish.
//! What was reserved and not used goes back when the batch ends. Nobody else sees a slot before its word is published.
use super::core::Shape;
use super::shared::Wake;
use super::submitter::Submitter;
use crate::dma::Buffer;
use crate::request::{Refusal, Refused, Request, Ticket};
use crate::slot::{Answer, State};
use crate::sync::Ordering;
use crate::transport::Doorbell;

/// Requests on their way to the device together.
#[must_use = "dropping a batch publishes it; say so with `publish`"]
pub struct SharedBatch<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    submitter: &'s mut Submitter<'q, 'm, B, D, W>,
    want: u32,
    word: usize,
    /// Claimed in `word` and not yet filled.
    reserved: u64,
    /// Filled in `word` and not yet published.
    staged: u64,
}

impl<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> SharedBatch<'s, 'q, 'm, B, D, W> {
    pub(super) fn new(submitter: &'s mut Submitter<'q, 'm, B, D, W>, want: u32) -> Self {
        Self { submitter, want: want.clamp(1, 64), word: 0, reserved: 0, staged: 0 }
    }

    /// Stages a request.
    ///
    /// # Errors
    /// Hands the request back with the reason: [`Refusal::Full`] is back-pressure, everything else the caller's error.
    #[inline(always)]
    pub fn push(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let core = self.submitter.queue.core();
        let Some(data) = core.plain(&request) else { return self.push_any(request) };
        let Some(slot) = self.claim() else { return self.full(request) };
        let owner = State::owned_by(self.submitter.number);
        let (_, ticket) = core.stage_plain(slot, request, data, State::STAGED, owner);
        self.staged |= 1 << (slot % 64);
        Ok(ticket)
    }

    /// A claimed slot: from the reservation, or a new one.
    #[inline(always)]
    fn claim(&mut self) -> Option<u16> {
        if self.reserved == 0 {
            self.reserve()?;
        }
        let bit = self.reserved.trailing_zeros();
        self.reserved &= self.reserved - 1;
        Some((self.word * 64) as u16 + bit as u16)
    }

    fn reserve(&mut self) -> Option<()> {
        if self.submitter.queue.reaping.broken.load(Ordering::Relaxed) != 0 {
            return None;
        }
        // Another word follows: what is staged in this one goes out first.
        self.publish_staged();
        let (word, bits) = self.submitter.queue.core().free.take(self.want, &mut self.submitter.near)?;
        self.submitter.mine[word] |= bits;
        (self.word, self.reserved) = (word, bits);
        Some(())
    }

    #[cold]
    fn full(&self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let broken = self.submitter.queue.broken().is_some();
        self.submitter.queue.by_submitter[usize::from(self.submitter.number)].full.add(u64::from(!broken));
        Err(Refused { why: if broken { Refusal::Broken } else { Refusal::Full }, request })
    }

    /// Whatever is not plain: refusals, other operations, several segments, oversize.
    #[cold]
    fn push_any(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let core = self.submitter.queue.core();
        let owner = State::owned_by(self.submitter.number);
        let shape = match core.shape(&request) {
            Ok(shape) => shape,
            Err(why) => return Err(Refused { why, request }),
        };
        let Some(slot) = self.claim() else { return self.full(request) };
        let staged = match shape {
            Shape::Oversize => Err(request),
            Shape::Chain => match core.stage(slot, request, State::STAGED, owner) {
                Err(request) if !core.can_cut(&request) => {
                    self.reserved |= 1 << (slot % 64);
                    return self.full(request);
                }
                staged => staged,
            },
            Shape::Done => {
                core.park(slot, request.token, None, Answer::OK, owner);
                core.parked.put(self.word, 1 << (slot % 64));
                return Ok(core.ticket(slot));
            }
        };
        match staged {
            Ok(_) => self.staged |= 1 << (slot % 64),
            Err(request) => return self.push_oversize(slot, request),
        }
        Ok(core.ticket(slot))
    }

    /// Cuts a request into the slots of the present reservation: all of its first chains are staged before any of them
    /// can be published, since the parent is this thread's only until then.
    fn push_oversize(&mut self, slot: u16, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let core = self.submitter.queue.core();
        let owner = State::owned_by(self.submitter.number);
        let unclaim = 1 << (slot % 64);
        let parent = match core.open_parent(request) {
            Ok(parent) => parent,
            Err(request) => {
                self.reserved |= unclaim;
                return self.full(request);
            }
        };
        let mut next = Some(slot);
        while let Some(slot) = next {
            // SAFETY: none of the parent's chains is published before this function returns.
            if unsafe { core.stage_child(parent, slot, State::STAGED, owner) }.is_none() {
                self.reserved |= 1 << (slot % 64);
                break;
            }
            self.staged |= 1 << (slot % 64);
            next = (self.reserved != 0).then(|| self.claim()).flatten();
        }
        Ok(core.ticket(slot))
    }

    #[inline(always)]
    fn publish_staged(&mut self) {
        let staged = core::mem::take(&mut self.staged);
        if staged != 0 {
            self.submitter.queue.publish(self.submitter.number, self.word, staged);
        }
    }

    /// Makes everything staged available to the device.
    #[inline(always)]
    pub fn publish(self) {}
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for SharedBatch<'_, '_, '_, B, D, W> {
    #[inline(always)]
    fn drop(&mut self) {
        self.publish_staged();
        self.submitter.give_back(self.word, self.reserved);
    }
}
