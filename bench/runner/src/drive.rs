//! What a job asks of a driver, and how ours answers: exclusively owned queues and submitters of a shared one.
//!
//! The same loop and the same instruction count then serve every driver. `submit` takes work that stands ready in
//! memory; nothing of making it is charged to the driver.
use crate::failure::{Ended, Failure};
use drv_virtio_block::dma::{DeviceReadable, DeviceWritable};
use drv_virtio_block::queue::{OwnedQueue, Statistics, Submitter, Violation, Wake};
use drv_virtio_block::request::{Completion, Error, Lba, Refusal, Request};
use drv_virtio_block::transport::Doorbell;
use workload::pattern::Op;

/// One I/O to be done, with its buffer; `token` comes back with the completion.
#[derive(Clone, Copy, Debug)]
pub struct Work<B> {
    /// What to do.
    pub op: Op,
    /// First sector.
    pub lba: u64,
    /// Sectors.
    pub sectors: u32,
    /// The caller's number, below the queue's depth.
    pub token: u64,
    /// Where the data is.
    pub buffer: B,
    /// A trim makes its sectors read as zeros (WRITE ZEROES with unmap) instead of promising nothing (DISCARD).
    pub zeroing: bool,
}

impl<B: Copy + DeviceReadable + DeviceWritable> Work<B> {
    #[inline(always)]
    pub(crate) fn request(&self) -> Request<B> {
        match self.op {
            Op::Read => Request::read(Lba(self.lba), self.buffer),
            Op::Write => Request::write(Lba(self.lba), self.buffer),
            Op::Trim if self.zeroing => Request::write_zeroes(Lba(self.lba), self.sectors, true),
            Op::Trim => Request::discard(Lba(self.lba), self.sectors),
        }
        .with_token(self.token)
    }
}

/// A driver, as a job sees it.
pub trait Drive<B> {
    /// Submits the work up to the first that finds no room, and publishes it with one doorbell decision.
    fn submit(&mut self, work: &[Work<B>]) -> Outcome;

    /// Hands at most about `max` completions (token, and how it ended) to `done` and returns how many.
    fn reap(&mut self, max: usize, done: impl FnMut(u64, Ended)) -> usize;

    /// Asks for an interrupt after `want` more completions; true: look again first.
    fn arm(&mut self, want: u16) -> bool;

    /// What the device did to end it all, if anything.
    fn broken(&self) -> Option<Violation> {
        None
    }

    /// Why nothing more is to be expected, if the driver can tell; asked again and again while nothing completes.
    #[inline(always)]
    fn despairs(&mut self) -> Option<&'static str> {
        None
    }

    /// After an interrupt: counts it, and asks for no more of them while completions are taken.
    fn woken(&mut self) {}

    /// The counters of its queue; a queue that several drives share is counted by the first of them.
    fn statistics(&self) -> Statistics;

    /// Whether nobody can see its doorbells being rung: the counters say nothing of notifications then.
    fn rings_unseen(&self) -> bool {
        false
    }

    /// Flushes, with nothing else in flight, and polls for the answer.
    ///
    /// # Errors
    /// Why it failed.
    fn flush(&mut self) -> Ended;
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How much of the work was taken, from the front: the rest found no room and is to be submitted again.
    pub taken: usize,
    /// The token of the last request that was refused for good, and why.
    pub refused: Option<(u64, Failure)>,
}

/// What a refusal of the `at`th piece of work comes to; a batch that is dropped is published.
#[cold]
pub(crate) fn not_taken(at: usize, token: u64, why: Refusal) -> Outcome {
    match why {
        Refusal::Full => Outcome { taken: at, refused: None },
        _ => Outcome { taken: at + 1, refused: Some((token, Failure::Driver(Error::Caller(why)))) },
    }
}

impl<B: Copy + DeviceReadable + DeviceWritable, D: Doorbell> Drive<B> for OwnedQueue<'_, B, D> {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<B>]) -> Outcome {
        let mut batch = self.batch();
        for (at, one) in work.iter().enumerate() {
            if let Err(refused) = batch.push(one.request()) {
                return not_taken(at, one.token, refused.why);
            }
        }
        batch.publish();
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        OwnedQueue::reap(self, max, |completion| report(&completion, &mut done))
    }

    fn arm(&mut self, want: u16) -> bool {
        OwnedQueue::arm(self, want)
    }

    fn broken(&self) -> Option<Violation> {
        OwnedQueue::broken(self)
    }

    fn woken(&mut self) {
        self.note_interrupt();
        self.disarm();
    }

    fn statistics(&self) -> Statistics {
        OwnedQueue::statistics(self)
    }

    fn flush(&mut self) -> Ended {
        Self::submit(self, Request::flush()).map_err(|refused| Failure::Driver(Error::Caller(refused.why)))?;
        first(|sink| OwnedQueue::reap(self, 1, sink))
    }
}

impl<B: Copy + DeviceReadable + DeviceWritable, D: Doorbell, W: Wake> Drive<B> for Submitter<'_, '_, B, D, W> {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<B>]) -> Outcome {
        let mut batch = self.batch(work.len() as u32);
        for (at, one) in work.iter().enumerate() {
            if let Err(refused) = batch.push(one.request()) {
                return not_taken(at, one.token, refused.why);
            }
        }
        batch.publish();
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, _: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        Submitter::reap(self, |completion| report(&completion, &mut done))
    }

    fn arm(&mut self, _: u16) -> bool {
        Submitter::arm(self)
    }

    fn broken(&self) -> Option<Violation> {
        self.queue().broken()
    }

    fn statistics(&self) -> Statistics {
        if self.number() == 0 { self.queue().statistics() } else { Statistics::default() }
    }

    fn flush(&mut self) -> Ended {
        Self::submit(self, Request::flush()).map_err(|refused| Failure::Driver(Error::Caller(refused.why)))?;
        first(|sink| Submitter::reap(self, sink))
    }
}

/// Polls until one completion came, and says how that ended.
fn first<B>(mut reap: impl FnMut(&mut dyn FnMut(Completion<B>)) -> usize) -> Ended {
    loop {
        let mut ended = None;
        reap(&mut |completion: Completion<B>| ended = Some(completion.result.map_err(Failure::Driver)));
        if let Some(ended) = ended {
            return ended;
        }
    }
}

#[inline(always)]
pub(crate) fn report<B>(completion: &Completion<B>, done: &mut impl FnMut(u64, Ended)) {
    done(completion.token, completion.result.map_err(Failure::Driver));
}
