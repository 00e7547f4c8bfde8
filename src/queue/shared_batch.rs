//! A batch of one submitter of a shared queue: claim, fill, publish.
//!
//! Slots come from the submitter's stash, or are claimed for the rest of the batch with one locked instruction. What is
//! more than the stash may keep goes back when the batch ends. Nobody else sees a slot before it is published.
use super::core::Shape;
use super::shared::Wake;
use super::submitter::{MOST_STAGED, Submitter};
use crate::dma::Buffer;
use crate::request::{Refusal, Refused, Request, Ticket};
use crate::slot::{Answer, Record, State};
use crate::transport::Doorbell;
use core::mem::ManuallyDrop;

/// Requests on their way to the device together.
#[must_use = "dropping a batch publishes it; say so with `publish`"]
pub struct SharedBatch<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    submitter: &'s mut Submitter<'q, 'm, B, D, W>,
    /// [`crate::geometry::Geometry::comfortable`] when the batch began.
    comfortable: u64,
    want: u32,
}

impl<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> SharedBatch<'s, 'q, 'm, B, D, W> {
    #[inline(always)]
    pub(super) fn new(submitter: &'s mut Submitter<'q, 'm, B, D, W>, want: u32) -> Self {
        let comfortable = submitter.queue.geometry().comfortable();
        if submitter.queue.broken().is_some() {
            submitter.trim(0);
        }
        Self { submitter, comfortable, want }
    }

    /// Stages a request.
    ///
    /// # Errors
    /// Hands the request back with the reason: [`Refusal::Full`] is back-pressure, everything else the caller's error.
    #[inline(always)]
    pub fn push(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        self.stage(request)
    }

    #[inline(always)]
    fn stage(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        if request.buffer.is_none() {
            return self.push_bare(request);
        }
        let core = self.submitter.queue.core();
        let Some(data) = core.plain(&request, self.comfortable) else { return self.push_any(request) };
        let Some(slot) = self.claim() else { return Err(Refused { why: self.full(), request }) };
        let owner = State::owned_by(self.submitter.number);
        let (_, ticket) = core.stage_plain(slot, request, data, State::STAGED, owner);
        self.submitter.staged.push(ticket.slot);
        Ok(ticket)
    }

    /// A claimed slot, for which there is room among the staged ones.
    #[inline(always)]
    fn claim(&mut self) -> Option<(usize, &'m Record<B>)> {
        if self.submitter.staged.is_full() {
            self.make_room();
        }
        self.submitter.claim(self.want.saturating_sub(self.submitter.staged.len() as u32))
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) {
        self.publish_staged();
    }

    /// Why there is no slot.
    #[cold]
    fn full(&self) -> Refusal {
        let queue = self.submitter.queue;
        if queue.broken().is_some() {
            return Refusal::Broken;
        }
        queue.by_submitter[usize::from(self.submitter.number)].full.add(1);
        Refusal::Full
    }

    /// A request without a buffer. A way of its own, so that on the plain one nothing is kept at hand for it.
    #[cold]
    #[inline(never)]
    fn push_bare(&mut self, request: Request<B>) -> Result<Ticket, Refused<B>> {
        self.push_any(request)
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
        let Some((slot, _)) = self.claim() else { return Err(Refused { why: self.full(), request }) };
        let slot = slot as u16;
        let staged = match shape {
            Shape::Oversize => Err(request),
            Shape::Chain => match core.stage(slot, request, State::STAGED, owner) {
                Err(request) if !core.can_cut(&request) => {
                    self.submitter.unclaim(slot);
                    return Err(Refused { why: self.full(), request });
                }
                staged => staged,
            },
            Shape::Done => {
                core.park(slot, request.token, None, Answer::OK, owner);
                core.parked.put(usize::from(slot) / 64, 1 << (slot % 64));
                return Ok(core.ticket(slot));
            }
        };
        match staged {
            Ok(_) => self.submitter.staged.push(slot),
            Err(request) => return self.push_oversize(slot, request),
        }
        Ok(core.ticket(slot))
    }

    /// Cuts a request into as many slots as the batch wants: all of its first chains are staged before any of them can be
    /// published, since the parent is this thread's only until then.
    fn push_oversize(&mut self, slot: u16, request: Request<B>) -> Result<Ticket, Refused<B>> {
        let core = self.submitter.queue.core();
        let owner = State::owned_by(self.submitter.number);
        // Before the parent is opened, since the doorbell may panic.
        if !self.submitter.staged.is_empty() {
            let unused = Unused { submitter: &mut *self.submitter, slot };
            unused.submitter.publish();
            core::mem::forget(unused);
        }
        let parent = match core.open_parent(request) {
            Ok(parent) => parent,
            Err(request) => {
                self.submitter.unclaim(slot);
                return Err(Refused { why: self.full(), request });
            }
        };
        let (first, mut next) = (slot, Some(slot));
        while let Some(slot) = next {
            // SAFETY: none of the parent's chains is published before this function returns.
            if unsafe { core.stage_child(parent, slot, State::STAGED, owner) }.is_none() {
                self.submitter.unclaim(slot);
                break;
            }
            self.submitter.staged.push(slot);
            let more = (self.want as usize).min(MOST_STAGED).saturating_sub(self.submitter.staged.len());
            next = (more > 0).then(|| self.submitter.claim(more as u32)).flatten().map(|(slot, _)| slot as u16);
        }
        Ok(core.ticket(first))
    }

    #[inline(always)]
    fn publish_staged(&mut self) {
        if !self.submitter.staged.is_empty() {
            self.submitter.publish();
        }
    }

    /// Makes everything staged available to the device.
    #[inline(always)]
    pub fn publish(self) {
        // In place, as `Batch::publish`.
        ManuallyDrop::new(self).end();
    }

    #[inline(always)]
    fn end(&mut self) {
        // What the stash may not keep goes back first, since the doorbell may panic.
        self.submitter.trim(self.submitter.room());
        self.publish_staged();
    }
}

/// A slot that was claimed for a request and is given back when the doorbell panics before the request is in it.
struct Unused<'s, 'q, 'm, B: Buffer, D: Doorbell, W: Wake> {
    submitter: &'s mut Submitter<'q, 'm, B, D, W>,
    slot: u16,
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for Unused<'_, '_, '_, B, D, W> {
    fn drop(&mut self) {
        self.submitter.unclaim(self.slot);
    }
}

impl<B: Buffer, D: Doorbell, W: Wake> Drop for SharedBatch<'_, '_, '_, B, D, W> {
    #[inline(always)]
    fn drop(&mut self) {
        self.end();
    }
}
