//! Instructions per I/O: fixed batches on one processor whose time-stamp counter counts instructions, or under a tool
//! that counts those of [`counted_submit`] and [`counted_complete`].
//!
//! *Submit* is bracketed from the batch standing ready in memory to the doorbell decision, *complete* from the read of
//! the used index to the last completion handed back. Between the two the whole batch is awaited outside of any
//! bracket. The empty bracket is subtracted. Several queues take turns, batch by batch.
use crate::buffers::Page;
use crate::drive::{Drive, Work};
use crate::ground::Host;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};
use workload::pattern::{Op, Pattern};
use workload::report::Instructions;

/// Batches before counting begins: caches and free lists settle.
const WARM_UP: u64 = 32;
/// Batches counted per queue, unless the run says how many I/Os.
const COUNTED: u64 = 256;

/// A queue under count: its driver, and the device's used index as the bracket's owner sees it.
pub struct Counted<D> {
    /// Its driver.
    pub drive: D,
    /// Device address of the used ring, at one address for both sides; `None`: one step of the device is enough.
    pub used: Option<u64>,
}

impl<D> Counted<D> {
    fn used_index(&self) -> Option<u16> {
        // SAFETY: the index of a used ring in memory that lives for good; the device writes it, so it is read as an
        // atomic.
        self.used.map(|used| unsafe { AtomicU16::from_ptr((used + 2) as *mut u16) }.load(Ordering::Acquire))
    }

    /// Waits until the whole batch is used.
    fn wait<H: Host>(&self, host: &mut H, before: Option<u16>, batch: u16) {
        host.step();
        while self.used_index().zip(before).is_some_and(|(now, before)| now.wrapping_sub(before) < batch) {
            core::hint::spin_loop();
            host.step();
        }
    }
}

/// Counts over all of `queues` in turn, batches of `batch`, `ios` in all (about 256 batches per queue if that is less).
pub fn count<D: Drive<Page>, H: Host>(
    queues: &mut [Counted<D>],
    host: &mut H,
    pattern: &mut Pattern,
    (batch, ios): (usize, u64),
    page: impl Fn(usize) -> Page,
) -> Instructions {
    let empty = (0..16).map(|_| bracket::<H, _>(|| ())).min().unwrap_or(0);
    let (mut submitting, mut completing) = (0, 0);
    let mut work: Vec<Work<Page>> = Vec::with_capacity(batch);
    let turns = queues.len();
    let rounds = COUNTED.max(ios / (batch * turns) as u64);
    for round in 0..(WARM_UP + rounds) as usize * turns {
        let queue = &mut queues[round % turns];
        work.clear();
        work.extend((0..batch).map(|place| {
            let io = pattern.next().expect("an endless pattern");
            let op = if io.op == Op::Trim { Op::Read } else { io.op };
            Work { op, lba: io.lba, sectors: io.sectors(), token: place as u64, buffer: page(place), zeroing: false }
        }));
        let before = queue.used_index();
        let submitted = counted_submit::<D, H>(&mut queue.drive, &work);
        queue.wait(host, before, batch as u16);
        let mut sum = 0;
        let completed = counted_complete::<D, H>(&mut queue.drive, batch, &mut sum);
        assert_eq!(sum, (batch * (batch + 1) / 2) as u64, "every request came back once, in success");
        if round >= WARM_UP as usize * turns {
            submitting += submitted - empty;
            completing += completed - empty;
        }
    }
    let ios = rounds * turns as u64 * batch as u64;
    Instructions { submit_milli: submitting * 1000 / ios, complete_milli: completing * 1000 / ios }
}

/// What submission takes. A function of its own, so that the driver gets the registers that it would in a small caller;
/// the call itself is not the driver's.
#[inline(never)]
pub fn counted_submit<D: Drive<Page>, H: Host>(drive: &mut D, work: &[Work<Page>]) -> u64 {
    bracket::<H, _>(|| drive.submit(work))
}

/// What completion takes.
#[inline(never)]
pub fn counted_complete<D: Drive<Page>, H: Host>(drive: &mut D, batch: usize, sum: &mut u64) -> u64 {
    bracket::<H, _>(|| drive.reap(batch, |token, ended| *sum += token + u64::from(ended.is_ok())))
}

/// Instructions that `f` takes, the bracket's own included.
#[inline(always)]
fn bracket<H: Host, T>(f: impl FnOnce() -> T) -> u64 {
    let before = H::ticks();
    core::hint::black_box(f());
    H::ticks() - before
}
