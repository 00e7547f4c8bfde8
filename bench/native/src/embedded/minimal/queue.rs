//! One queue of the device: everything that is available at a look is carried out and handed back with one index store.
//!
//! The plain path (null medium; a read or write of one buffer in three descriptors, direct or through a table) is what
//! the ceiling is measured with: each descriptor is read once, two words at a time, and the payload is not touched.
//! Everything else goes through `chain.rs` and `request.rs`. It does not know who calls it: a thread of the device or
//! the driver's own.
//!
//! Every function that does the device's work is a symbol that begins with [`STEP_SYMBOL`], so that whoever counts
//! instructions can leave the device's out.
use super::Facts;
use super::Medium;
use super::chain::{Broken, Chain, INDIRECT, NEXT, WRITE, flags, next};
use super::memory::{Reach, Regions, pointer, prefetch_to_write};
use super::request::{self, IN, OUT};
use super::split::{SplitRing, descriptor};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the names of all functions begin with (the last part of their path) in which a device works; what they call is
/// the device's too.
pub const STEP_SYMBOL: &str = "embedded_device_step";

/// How many chains ahead a request's line is fetched. On a bare ring with dense headers, cores far, that gained about a
/// tenth in batches of 32 and more in longer ones, and nothing either way one at a time.
const AHEAD: u16 = 4;

/// What a queue did so far, over all its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chains handed back.
    pub used: u64,
    /// Stores of the used index.
    pub batches: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Doorbells rung by the driver, needed or not.
    pub notifications: u64,
}

/// Counters on lines of their own: the device's, then the doorbell's.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct DeviceCounters {
    used: AtomicU64,
    batches: AtomicU64,
    interrupts: AtomicU64,
}

/// As [`DeviceCounters`].
#[derive(Default)]
#[repr(align(128))]
pub(super) struct DriverCounters {
    notifications: AtomicU64,
}

#[derive(Default)]
pub(super) struct QueueCounters {
    device: DeviceCounters,
    driver: DriverCounters,
}

/// Adds without a locked instruction: each counter has one writer at a time.
#[inline(always)]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl QueueCounters {
    pub(super) fn note_notification(&self) {
        self.driver.notifications.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            used: of(&self.device.used),
            batches: of(&self.device.batches),
            interrupts: of(&self.device.interrupts),
            notifications: of(&self.driver.notifications),
        }
    }
}

/// What a queue is made of besides its ring.
pub(super) struct Parts {
    pub(super) facts: Arc<Facts>,
    pub(super) regions: Regions,
    pub(super) call: Option<Arc<OwnedFd>>,
    pub(super) counters: Arc<QueueCounters>,
    pub(super) broken: Arc<AtomicBool>,
}

/// One queue while it runs.
pub struct Queue {
    ring: SplitRing,
    /// Chains taken and handed back so far: a step leaves none between.
    next: u16,
    /// The last `avail_event`, of a device that is never notified.
    wish: u16,
    wakes: bool,
    plain: bool,
    stopped: bool,
    sectors: u64,
    reach: Reach,
    chain: Chain,
    parts: Parts,
}

impl Queue {
    pub(super) fn new(ring: SplitRing, parts: Parts) -> Self {
        let options = &parts.facts.options;
        let wakes = options.notify == super::Notify::WhenIdle;
        let plain = matches!(parts.facts.medium, Medium::Null) && !options.read_only;
        let wish = if wakes { 0 } else { ring.never_notify(0) };
        let (sectors, reach) = (options.sectors, Reach::new(parts.regions.clone()));
        Self { ring, next: 0, wish, wakes, plain, stopped: false, sectors, reach, chain: Chain::default(), parts }
    }

    /// Carries out everything that is available now and hands it back; returns how many requests that was.
    #[inline(always)]
    pub fn step(&mut self) -> usize {
        if self.plain { embedded_device_step_plain(self) } else { embedded_device_step_any(self) }
    }

    /// Asks for a notification with the next request ([`super::Notify::WhenIdle`] only), and looks again. True: there
    /// is one already, or the queue never asks.
    pub fn arm(&mut self) -> bool {
        !self.wakes || self.ring.arm(self.next)
    }

    /// Takes the wish of [`Queue::arm`] back.
    pub fn disarm(&mut self) {
        if self.wakes {
            self.ring.disarm();
        }
    }

    /// Looks: how many chains are available, 0 if the driver says more than there can be.
    #[inline(always)]
    fn fresh(&mut self) -> u16 {
        let fresh = self.ring.look(self.next);
        if u32::from(fresh) > self.ring.size() || self.stopped {
            return self.refuse();
        }
        fresh
    }

    #[cold]
    fn refuse(&mut self) -> u16 {
        self.stop();
        0
    }

    #[inline(always)]
    fn finish(&mut self, done: u16) -> usize {
        let (old, new) = (self.next, self.next.wrapping_add(done));
        if !self.wakes {
            self.wish = self.ring.stay_unnotified(self.wish, new);
        }
        self.next = new;
        self.ring.publish(new);
        let counters = &self.parts.counters.device;
        add(&counters.used, done.into());
        add(&counters.batches, 1);
        if self.parts.call.is_some() && self.ring.wants_interrupt(old, new) {
            embedded_device_step_interrupt(self);
        }
        done.into()
    }

    /// Nothing more is done for this driver before a reset (2.1.2).
    fn stop(&mut self) {
        self.stopped = true;
        self.parts.broken.store(true, Ordering::Release);
    }

    /// A request that is not plain.
    #[inline(always)]
    fn any(&mut self, head: u16) -> Result<u32, Broken> {
        self.chain.collect(&self.ring, head, &mut self.reach)?;
        request::execute(&self.parts.facts, &self.chain, &mut self.reach)
    }

    /// A plain request: the bytes written, or `None` if it is anything else, with nothing done.
    #[inline(always)]
    fn plain(&mut self, head: u16) -> Option<u32> {
        const SHAPE: u64 = (1 << 48) - 1;
        const HEADER: u64 = 16 | (NEXT as u64) << 32;
        const STATUS: u64 = 1 | (WRITE as u64) << 32;
        let (mut table, mut size, mut index) = (self.ring.table(), self.ring.size(), u32::from(head));
        if index >= size {
            return None;
        }
        // SAFETY: inside the ring's table (checked).
        let (mut header, mut word) = unsafe { descriptor(table, index) };
        if flags(word) == INDIRECT {
            let len = word as u32;
            if len < 16
                || !len.is_multiple_of(16)
                || !header.is_multiple_of(8)
                || !self.reach.covers(header, len.into())
            {
                return None;
            }
            (table, size, index) = (pointer(header), len / 16, 0);
            // SAFETY: the table has an entry, inside a region and aligned (checked).
            (header, word) = unsafe { descriptor(table, index) };
        }
        let data_at = next(word);
        if word & SHAPE != HEADER || data_at >= size {
            return None;
        }
        // SAFETY: inside the table (checked).
        let (_, data) = unsafe { descriptor(table, data_at) };
        let status_at = next(data);
        if status_at >= size {
            return None;
        }
        // SAFETY: inside the table (checked).
        let (status, last) = unsafe { descriptor(table, status_at) };
        if last & SHAPE != STATUS || !self.reach.covers(header, 16) || !self.reach.covers(status, 1) {
            return None;
        }
        // SAFETY: in a region (checked), and the driver's no more until the used index covers the chain.
        let (kind, sector) = unsafe {
            (pointer(header).cast::<u32>().read_unaligned(), pointer(header).add(8).cast::<u64>().read_unaligned())
        };
        let (kind, sector, bytes) = (u32::from_le(kind), u64::from_le(sector), data as u32);
        // A read's buffer is written by the device, a write's is not.
        let direction = NEXT | if kind == IN { WRITE } else { 0 };
        let fits = sector < self.sectors && u64::from(bytes / 512) <= self.sectors - sector;
        if kind > OUT || flags(data) != direction || !fits || !bytes.is_multiple_of(512) {
            return None;
        }
        // SAFETY: as above.
        unsafe { pointer(status).write(request::OK) };
        Some(1 + if kind == IN { bytes } else { 0 })
    }

    /// Has the line of a request that comes later fetched for writing: header and status are often neighbours.
    #[inline(always)]
    fn fetch(&self, at: u16) {
        let head = u32::from(self.ring.head(at));
        if head < self.ring.size() {
            // SAFETY: inside the ring's table (checked). A prefetch of whatever address it holds touches nothing.
            let (header, _) = unsafe { descriptor(self.ring.table(), head) };
            prefetch_to_write(header);
        }
    }
}

/// A step of a queue whose medium is null.
#[inline(never)]
fn embedded_device_step_plain(queue: &mut Queue) -> usize {
    let fresh = queue.fresh();
    if fresh == 0 {
        return 0;
    }
    let first = queue.next;
    for done in 0..fresh {
        let at = first.wrapping_add(done);
        if done + AHEAD < fresh {
            queue.fetch(at.wrapping_add(AHEAD));
        }
        let head = queue.ring.head(at);
        let written = match queue.plain(head) {
            Some(written) => written,
            None => match embedded_device_step_one(queue, head) {
                Ok(written) => written,
                Err(Broken) => return embedded_device_step_stop(queue, done),
            },
        };
        queue.ring.give_back(at, head, written);
    }
    queue.finish(fresh)
}

/// A step of any queue.
#[inline(never)]
fn embedded_device_step_any(queue: &mut Queue) -> usize {
    let fresh = queue.fresh();
    if fresh == 0 {
        return 0;
    }
    for done in 0..fresh {
        let at = queue.next.wrapping_add(done);
        let head = queue.ring.head(at);
        match queue.any(head) {
            Ok(written) => queue.ring.give_back(at, head, written),
            Err(Broken) => return embedded_device_step_stop(queue, done),
        }
    }
    queue.finish(fresh)
}

/// One request that is not plain.
#[cold]
#[inline(never)]
fn embedded_device_step_one(queue: &mut Queue, head: u16) -> Result<u32, Broken> {
    queue.any(head)
}

/// A chain without sense after `done` good ones: those are handed back, and that is all.
#[cold]
#[inline(never)]
fn embedded_device_step_stop(queue: &mut Queue, done: u16) -> usize {
    queue.stop();
    if done == 0 { 0 } else { queue.finish(done) }
}

/// Sends the queue's interrupt.
#[cold]
#[inline(never)]
fn embedded_device_step_interrupt(queue: &mut Queue) {
    add(&queue.parts.counters.device.interrupts, 1);
    if let Some(call) = &queue.parts.call {
        super::signal(call);
    }
}
