//! One queue for C: a batch in, completions out, and the wait between them.
//!
//! A batch is one publish and one doorbell decision. Whoever waits looks again and again (polled), or arms the interrupt
//! and sleeps on its eventfd and the socket's hang-up. It refuses to know how the device was brought up, and trusts
//! neither requests nor the number of threads that call: a second one in the same queue is refused.
//!
//! Invariants: data goes to pieces of [`Pages`] only, never to the rings beside them; [`Queue::holds`] counts what of a
//! piece is in flight, so that it is not given to somebody else before.
use crate::pages::Pages;
use crate::types::{
    VBLK_BUSY, VBLK_DEVICE, VBLK_DISCARD, VBLK_EMPTY, VBLK_FLUSH, VBLK_FUA, VBLK_GONE, VBLK_INVALID, VBLK_NOT_SHARED,
    VBLK_OK, VBLK_READ, VBLK_UNALIGNED, VBLK_UNMAP, VBLK_WRITE, VBLK_WRITE_ZEROES, code_of, refusal, vblk_completion,
    vblk_request,
};
use drv_virtio_block::device::Quiesced;
use drv_virtio_block::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, Segment};
use drv_virtio_block::platform::{Badges, Nanos, Platform};
use drv_virtio_block::queue::{Batch, OwnedQueue};
use drv_virtio_block::request::{Lba, Request};
use drv_virtio_block::spec::SECTOR;
use native::event::Kick;
use native::platform::{LinuxPlatform, Watch};
use native::vhost_user::Connection;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Looks that find nothing between two yields of the processor, and between two looks at the socket.
const PATIENCE: u32 = 1 << 10;
const LONG_PATIENCE: u32 = 1 << 13;

/// A buffer of the caller's, in flight.
pub(crate) struct Lent {
    segments: [Segment; 1],
    /// Of the piece that it is in.
    piece: u32,
}

// SAFETY: the segment is inside a piece of the shared memory (`Pages::holding`), which is mapped at this address here
// and at the back-end until the device is closed, and given to nobody else while it is counted as lent. That nobody
// touches the buffer meanwhile is the C caller's promise (`vblk_request.buffer`), with nothing but its own data at stake.
unsafe impl Buffer for Lent {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
// SAFETY: as above; the memory was zeroed when it was mapped, so all of it is initialised.
unsafe impl DeviceReadable for Lent {}
// SAFETY: as above; bytes have no invalid values.
unsafe impl DeviceWritable for Lent {}

/// The driver's queue.
pub(crate) type Driven = OwnedQueue<'static, Lent, Kick>;

/// What the queues of a device share.
pub(crate) struct Common {
    pub(crate) pages: Pages,
    pub(crate) platform: LinuxPlatform,
    pub(crate) watch: Arc<Watch>,
    pub(crate) polled: bool,
    /// The bits that are 0 in the address of every buffer.
    pub(crate) odd: usize,
    /// The back-end was found gone.
    pub(crate) gone: AtomicBool,
}

/// What one thread at a time has.
pub(crate) struct Inner {
    /// `None`: the device is closed.
    driven: Option<Driven>,
    /// Looks that found nothing, since the last that found something.
    looks: u32,
}

/// A queue; C has a pointer to it.
#[allow(non_camel_case_types, reason = "C's name")]
pub struct vblk_queue {
    common: Arc<Common>,
    inner: Mutex<Inner>,
    /// What raises the queue's interrupt, and the hang-up.
    badges: Badges,
    /// Requests in flight per piece, at its first page. One thread at a time writes.
    lent: Box<[AtomicU32]>,
}

impl vblk_queue {
    /// `driven`, which interrupts with `own` (none: polled).
    pub(crate) fn new(common: Arc<Common>, driven: Driven, own: Badges) -> Self {
        let lent = (0..common.pages.count()).map(|_| AtomicU32::new(0)).collect();
        let badges = Badges(own.0 | Connection::HANG_UP.alone().0);
        Self { common, inner: Mutex::new(Inner { driven: Some(driven), looks: 0 }), badges, lent }
    }

    /// The queue, unless another thread has it.
    pub(crate) fn enter(&self) -> Option<MutexGuard<'_, Inner>> {
        self.inner.try_lock().ok()
    }

    /// Whether a request in flight has memory of the piece that begins at this page.
    pub(crate) fn holds(&self, piece: usize) -> bool {
        self.lent.get(piece).is_some_and(|count| count.load(Ordering::Acquire) > 0)
    }

    /// Submits requests in order and publishes them together: how many, and what is the matter with the next one.
    pub(crate) fn submit(&self, requests: impl Iterator<Item = vblk_request>) -> (usize, i32) {
        let Some(mut inner) = self.enter() else { return (0, VBLK_BUSY) };
        let Some(driven) = inner.driven.as_mut() else { return (0, VBLK_INVALID) };
        if self.common.gone.load(Ordering::Relaxed) {
            return (0, VBLK_GONE);
        }
        let mut batch = driven.batch();
        let (mut accepted, mut code) = (0, VBLK_OK);
        for request in requests {
            code = self.push(&mut batch, &request);
            if code != VBLK_OK {
                break;
            }
            accepted += 1;
        }
        batch.publish();
        (accepted, code)
    }

    /// Stages what a request of C's asks, if it can be. In one piece with its callers: nothing of it goes through memory
    /// on its way to the slot.
    #[inline(always)]
    fn push(&self, batch: &mut Batch<'_, 'static, Lent, Kick>, asked: &vblk_request) -> i32 {
        if !(asked.offset | asked.length).is_multiple_of(SECTOR) {
            return VBLK_UNALIGNED;
        }
        let lba = Lba(asked.offset / SECTOR);
        let (request, piece) = match (asked.operation, asked.flags) {
            (VBLK_READ, 0) | (VBLK_WRITE, 0 | VBLK_FUA) => {
                let lent = match self.find(asked) {
                    Ok(lent) => lent,
                    Err(why) => return why,
                };
                let piece = lent.piece;
                let request = match (asked.operation, asked.flags) {
                    (VBLK_READ, _) => Request::read(lba, lent),
                    (_, VBLK_FUA) => Request::write_durably(lba, lent),
                    _ => Request::write(lba, lent),
                };
                (request, Some(piece))
            }
            _ => match without_data(asked, lba) {
                Ok(request) => (request, None),
                Err(why) => return why,
            },
        };
        match batch.push(request.with_token(asked.tag)) {
            Ok(_) => {
                self.lend(piece);
                VBLK_OK
            }
            Err(refused) => refusal(refused.why),
        }
    }

    /// The caller's buffer, if it is in one piece.
    #[inline(always)]
    fn find(&self, asked: &vblk_request) -> Result<Lent, i32> {
        if asked.length == 0 {
            return Err(VBLK_EMPTY);
        }
        let length = u32::try_from(asked.length).map_err(|_| VBLK_INVALID)?;
        let address = asked.buffer.addr();
        if address & self.common.odd != 0 {
            return Err(VBLK_UNALIGNED);
        }
        let piece = self.common.pages.holding(address, asked.length).ok_or(VBLK_NOT_SHARED)?;
        Ok(Lent { segments: [Segment::new(DeviceAddress(address as u64), length)], piece: piece as u32 })
    }

    /// Counts a buffer as lent.
    #[inline(always)]
    fn lend(&self, piece: Option<u32>) {
        if let Some(count) = piece.and_then(|piece| self.lent.get(piece as usize)) {
            // Not one step: who is in the queue is the only writer.
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Hands up to `max` completions to `sink`, waiting until at least `min` came, nothing is left in flight, or
    /// `patience` (`None`: without end) is over: how many, and what is the matter with the queue.
    pub(crate) fn reap(
        &self,
        max: usize,
        min: usize,
        patience: Option<Nanos>,
        mut sink: impl FnMut(vblk_completion),
    ) -> (usize, i32) {
        let Some(mut inner) = self.enter() else { return (0, VBLK_BUSY) };
        let Inner { driven: Some(driven), looks } = &mut *inner else { return (0, VBLK_INVALID) };
        let (mut taken, mut end, mut last) = (0, None, patience == Some(Nanos(0)));
        loop {
            let came = driven.reap(max - taken, |completion| {
                if let Some(count) = completion.buffer.as_ref().and_then(|lent| self.lent.get(lent.piece as usize)) {
                    // Release: whoever sees the piece unused sees the device's last store to it.
                    count.store(count.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
                }
                sink(vblk_completion { tag: completion.token, status: code_of(completion.result), reserved: 0 });
            });
            taken += came;
            *looks = if came > 0 { 0 } else { looks.wrapping_add(1) };
            if taken >= min && came > 0 {
                return (taken, VBLK_OK);
            }
            if driven.broken().is_some() {
                return (taken, VBLK_DEVICE);
            }
            if came == 0 && (last || self.is_gone(*looks)) {
                let gone = self.common.gone.load(Ordering::Relaxed);
                return (taken, if gone { VBLK_GONE } else { VBLK_OK });
            }
            if taken >= min || (came == 0 && driven.in_flight() == 0) {
                return (taken, VBLK_OK);
            }
            if came == 0 {
                let platform = &self.common.platform;
                let until = *end.get_or_insert_with(|| patience.map(|span| platform.now().after(span)));
                last = self.wait(driven, (min - taken).min(usize::from(u16::MAX)) as u16, *looks, until);
            }
        }
    }

    /// Whether the back-end is known to be gone; looks at the socket now and then.
    fn is_gone(&self, looks: u32) -> bool {
        if looks.is_multiple_of(LONG_PATIENCE) && self.common.watch.hung_up() {
            self.common.gone.store(true, Ordering::Relaxed);
        }
        self.common.gone.load(Ordering::Relaxed)
    }

    /// Lets time pass until something may have come; true: this was the last time.
    fn wait(&self, driven: &mut Driven, want: u16, looks: u32, until: Option<Nanos>) -> bool {
        let common = &*self.common;
        if common.polled {
            if !looks.is_multiple_of(PATIENCE) {
                spin_loop();
                return false;
            }
            common.platform.relax();
            return until.is_some_and(|end| common.platform.now() >= end);
        }
        if driven.arm(want) {
            return false;
        }
        let fired = common.platform.wait(self.badges, until);
        let own = fired.without(Connection::HANG_UP.alone());
        if !own.is_empty() {
            common.platform.acknowledge(own);
            driven.note_interrupt();
        }
        if fired.has(Connection::HANG_UP) {
            common.gone.store(true, Ordering::Relaxed);
        }
        fired.is_empty() || fired.has(Connection::HANG_UP)
    }
}

/// A request without a buffer.
#[cold]
fn without_data(asked: &vblk_request, lba: Lba) -> Result<Request<Lent>, i32> {
    if !asked.buffer.is_null() {
        return Err(VBLK_INVALID);
    }
    let sectors = u32::try_from(asked.length / SECTOR).map_err(|_| VBLK_INVALID)?;
    match (asked.operation, asked.flags) {
        (VBLK_FLUSH, 0) if asked.offset == 0 && sectors == 0 => Ok(Request::flush()),
        (VBLK_DISCARD, 0) => Ok(Request::discard(lba, sectors)),
        (VBLK_WRITE_ZEROES, flags @ (0 | VBLK_UNMAP)) => Ok(Request::write_zeroes(lba, sectors, flags == VBLK_UNMAP)),
        _ => Err(VBLK_INVALID),
    }
}

impl Inner {
    /// The queue and what was in flight in it are over; `proof`: the device was stopped.
    pub(crate) fn end(&mut self, proof: Option<&Quiesced<'_>>) {
        // Nobody is left to be told. Without a proof the queue is dropped with what is in flight: a [`Lent`] owns nothing.
        if let (Some(driven), Some(proof)) = (self.driven.take(), proof) {
            let _ = driven.reclaim(proof, |_| ());
        }
    }
}
