//! What most drivers do where many threads share a queue: a lock around all of it. Only to compare with.
//!
//! The ring, the slots and their checks are the driver's own; the lock is held for one batch, or for one look at the
//! used ring. Completions of other submitters go into a mailbox each, under the same lock; a submitter's own are handed
//! over after it was released.
use crate::drive::{Drive, Outcome, Work, not_taken};
use crate::failure::{Ended, Failure};
use alloc::vec::Vec;
use drv_virtio_block::dma::{DeviceReadable, DeviceWritable};
use drv_virtio_block::queue::{OwnedQueue, Statistics, Violation};
use drv_virtio_block::request::{Error, Request};
use drv_virtio_block::transport::Doorbell;

/// Where the submitter's number stands in a token.
const NUMBER_AT: u32 = 32;

/// A queue, its lock, and a mailbox for each submitter.
pub struct Locked<B: DeviceReadable + DeviceWritable + 'static, D: Doorbell>(spin::Mutex<Inside<B, D>>);

struct Inside<B: DeviceReadable + DeviceWritable + 'static, D: Doorbell> {
    queue: OwnedQueue<'static, B, D>,
    mail: Vec<Vec<(u64, Ended)>>,
}

/// One submitter's way to the queue.
pub struct Submitter<B: DeviceReadable + DeviceWritable + 'static, D: Doorbell + 'static> {
    queue: &'static Locked<B, D>,
    number: u32,
    own: Vec<(u64, Ended)>,
}

impl<B: DeviceReadable + DeviceWritable + 'static, D: Doorbell + 'static> Locked<B, D> {
    /// A lock around `queue`, for `submitters` submitters.
    pub fn new(queue: OwnedQueue<'static, B, D>, submitters: u16) -> Self {
        let room = usize::from(queue.slots());
        let mail = (0..submitters).map(|_| Vec::with_capacity(room)).collect();
        Self(spin::Mutex::new(Inside { queue, mail }))
    }

    /// The submitter of that number, each to be made once.
    pub fn submitter(&'static self, number: u16) -> Submitter<B, D> {
        let room = usize::from(self.0.lock().queue.slots());
        Submitter { queue: self, number: number.into(), own: Vec::with_capacity(room) }
    }
}

impl<B: Copy + DeviceReadable + DeviceWritable, D: Doorbell> Drive<B> for Submitter<B, D> {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<B>]) -> Outcome {
        let mut inside = self.queue.0.lock();
        let mut batch = inside.queue.batch();
        for (at, one) in work.iter().enumerate() {
            let token = one.token | u64::from(self.number) << NUMBER_AT;
            if let Err(refused) = batch.push(one.request().with_token(token)) {
                return not_taken(at, one.token, refused.why);
            }
        }
        batch.publish();
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        let mut guard = self.queue.0.lock();
        let Inside { queue, mail } = &mut *guard;
        queue.reap(max, |completion| {
            let box_of = (completion.token >> NUMBER_AT) as usize;
            mail[box_of].push((completion.token & u64::from(u32::MAX), completion.result.map_err(Failure::Driver)));
        });
        core::mem::swap(&mut mail[self.number as usize], &mut self.own);
        drop(guard);
        let handed = self.own.len();
        for (token, ended) in self.own.drain(..) {
            done(token, ended);
        }
        handed
    }

    fn arm(&mut self, _: u16) -> bool {
        // Polled only: the run refuses anything else.
        true
    }

    fn broken(&self) -> Option<Violation> {
        self.queue.0.lock().queue.broken()
    }

    fn statistics(&self) -> Statistics {
        if self.number == 0 { self.queue.0.lock().queue.statistics() } else { Statistics::default() }
    }

    fn flush(&mut self) -> Ended {
        let token = u64::from(self.number) << NUMBER_AT;
        let flushed = self.queue.0.lock().queue.submit(Request::flush().with_token(token));
        flushed.map_err(|refused| Failure::Driver(Error::Caller(refused.why)))?;
        loop {
            let mut answer = None;
            self.reap(1, |_, ended| answer = Some(ended));
            if let Some(ended) = answer {
                return ended;
            }
        }
    }
}
