//! The floor to compare with: a bare split ring without slots, checks, errors or ownership.
//!
//! The caller's token is the chain's number, three fixed descriptors each, in the layout that was measured best (static
//! descriptors apart). It trusts the device and its caller with everything; that is what it is for. It uses event
//! indices, publishes once per batch and rings the doorbell if asked, as the driver does.
//! Specification: 2.7 Split Virtqueues.
use crate::buffers::Page;
use crate::drive::{Drive, Outcome, Work};
use crate::ground::Piece;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::queue::Statistics;
use drv_virtio_block::ring::crossed;
use drv_virtio_block::transport::{Doorbell, RingAddresses};
use workload::pattern::Op;

#[repr(C)]
struct Descriptor {
    addr: u64,
    /// Length, flags and next.
    rest: u64,
}

impl Descriptor {
    #[inline(always)]
    const fn rest(len: u32, flags: u16, next: u16) -> u64 {
        len as u64 | (flags as u64) << 32 | (next as u64) << 48
    }
}

/// Header and status of a chain, one line.
#[repr(C, align(64))]
struct Line {
    kind: u64,
    sector: u64,
    status: u8,
}

/// The ring.
pub struct Raw<D> {
    size: u16,
    chains: u16,
    descriptors: *mut Descriptor,
    available: *mut u16,
    used: *mut u16,
    lines: *mut Line,
    tail: u16,
    head: u16,
    doorbell: D,
    submitted: u64,
    notifications: u64,
}

// SAFETY: the ring's memory is its alone; moving it to another processor moves all of it.
unsafe impl<D: Send> Send for Raw<D> {}

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A bare ring's memory, before the device runs.
pub struct RawMemory {
    base: u64,
    size: u16,
}

impl RawMemory {
    /// Bytes for a ring of `size`, with its lines behind it.
    pub const fn bytes(size: u16) -> usize {
        Self::lines_at(size) + size as usize * size_of::<Line>()
    }

    /// A ring of `size` in `memory`; `None` if it is too small.
    pub fn new(size: u16, memory: Piece) -> Option<Self> {
        (memory.len() >= Self::bytes(size)).then(|| Self { base: memory.address(), size })
    }

    const fn used_at(size: u16) -> usize {
        (16 * size as usize + 2 * size as usize + 6).next_multiple_of(64) + 60
    }

    const fn lines_at(size: u16) -> usize {
        (Self::used_at(size) + 8 * size as usize + 6).next_multiple_of(64)
    }

    /// Requests that can be in flight.
    pub const fn chains(&self) -> u16 {
        (self.size / 3) & !3
    }

    /// Where the device finds it.
    pub fn addresses(&self) -> RingAddresses {
        let at = |offset: usize| DeviceAddress(self.base + offset as u64);
        let available = at(16 * usize::from(self.size));
        // SAFETY: three parts of zeroed memory that is never freed, mapped one to one, and this ring's alone; `open` and
        // `Raw` touch it by the rules of the ring.
        unsafe { RingAddresses::new(self.size, at(0), available, at(Self::used_at(self.size))) }
    }

    /// The ring, once the device runs.
    pub fn open<D: Doorbell>(self, doorbell: D) -> Raw<D> {
        let chains = self.chains();
        let at = |offset: usize| self.base + offset as u64;
        let raw = Raw {
            size: self.size,
            chains,
            descriptors: at(0) as *mut Descriptor,
            available: at(16 * usize::from(self.size)) as *mut u16,
            used: at(Self::used_at(self.size)) as *mut u16,
            lines: at(Self::lines_at(self.size)) as *mut Line,
            tail: 0,
            head: 0,
            doorbell,
            submitted: 0,
            notifications: 0,
        };
        for chain in 0..chains {
            let line = at(Self::lines_at(self.size)) + u64::from(chain) * size_of::<Line>() as u64;
            let header = Descriptor { addr: line, rest: Descriptor::rest(16, NEXT, chains + chain) };
            let status = Descriptor { addr: line + 16, rest: Descriptor::rest(1, WRITE, 0) };
            // SAFETY: three descriptors per chain lie in the table of `size`; nobody else has the memory.
            unsafe {
                raw.descriptors.add(usize::from(chain)).write_volatile(header);
                raw.descriptors.add(usize::from(2 * chains + chain)).write_volatile(status);
            }
        }
        raw
    }
}

impl<D: Doorbell> Raw<D> {
    #[inline(always)]
    fn available_index(&self) -> &AtomicU16 {
        // SAFETY: word 1 of the ring is its index, aligned and alive as long as `self`; all access is atomic.
        unsafe { AtomicU16::from_ptr(self.available.add(1)) }
    }

    #[inline(always)]
    fn used_index(&self) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.used.add(1)) }
    }

    #[inline(always)]
    fn stage(&mut self, work: &Work<Page>) {
        let chain = work.token as usize;
        let data = work.buffer.segment();
        let (kind, flags) = if work.op == Op::Read { (0, NEXT | WRITE) } else { (1, NEXT) };
        let next = 2 * self.chains + work.token as u16;
        let rest = Descriptor::rest(data.len(), flags, next);
        // SAFETY: the job's tokens are below `chains`, so line, descriptor and entry lie in the ring's memory, and the
        // chain is not with the device: its completion has come back.
        unsafe {
            let line = self.lines.add(chain);
            (&raw mut (*line).kind).write_volatile(kind);
            (&raw mut (*line).sector).write_volatile(work.lba);
            (&raw mut (*line).status).write_volatile(0xff);
            let descriptor = self.descriptors.add(usize::from(self.chains) + chain);
            (&raw mut (*descriptor).addr).write_volatile(data.address().0);
            (&raw mut (*descriptor).rest).write_volatile(rest);
            self.available.add(2 + usize::from(self.tail & (self.size - 1))).write_volatile(chain as u16);
        }
        self.tail = self.tail.wrapping_add(1);
    }
}

impl<D: Doorbell> Drive<Page> for Raw<D> {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<Page>]) -> Outcome {
        let old = self.tail;
        for work in work {
            self.stage(work);
        }
        self.submitted += u64::from(self.tail.wrapping_sub(old));
        self.available_index().store(self.tail, Ordering::Release);
        // Partner: the device's fence between storing its event index and looking at ours.
        fence(Ordering::SeqCst);
        // SAFETY: the available event index ends the used ring.
        let event = unsafe { self.used.add(2 + 4 * usize::from(self.size)).read_volatile() };
        if crossed(event, old, self.tail) {
            self.notifications += 1;
            self.doorbell.ring();
        }
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, bool)) -> usize {
        let ready = self.used_index().load(Ordering::Acquire).wrapping_sub(self.head);
        let count = usize::from(ready).min(max);
        for _ in 0..count {
            let at = 2 + 4 * usize::from(self.head & (self.size - 1));
            // SAFETY: an entry of the used ring; its first word is the chain's number, which has no more bits.
            let chain = unsafe { self.used.add(at).read_volatile() };
            self.head = self.head.wrapping_add(1);
            done(u64::from(chain), true);
        }
        count
    }

    fn arm(&mut self, want: u16) -> bool {
        let event = self.head.wrapping_add(want.max(1)).wrapping_sub(1);
        // SAFETY: the used event index ends the available ring.
        unsafe { self.available.add(2 + usize::from(self.size)).write_volatile(event) };
        // Partner: the device's fence between storing its index and looking at our event index.
        fence(Ordering::SeqCst);
        self.used_index().load(Ordering::Acquire).wrapping_sub(self.head) >= want.max(1)
    }

    fn statistics(&self) -> Statistics {
        let chains = self.submitted;
        Statistics { submitted: chains, completed: chains, notifications: self.notifications, ..Statistics::default() }
    }

    fn flush(&mut self) -> bool {
        false
    }
}
