//! The floor to compare with: a bare split ring without slots, checks, errors or ownership.
//!
//! The caller's token is the chain's number. Descriptors that never change are written once; a request writes its
//! header, one data descriptor and one available entry. It trusts the device and its caller with everything; that is
//! what it is for. It uses event indices, publishes once per batch and rings the doorbell if asked, as the driver does.
//!
//! Because it is nothing but memory accesses, layouts are compared on it ([`Shape`]): header and status in a line of
//! their own or in dense arrays, chains of three descriptors or an indirect table.
//! Specification: 2.7 Split Virtqueues.
use crate::buffers::Page;
use crate::drive::{Drive, Outcome, Work};
use crate::failure::{Ended, Failure, Other};
use crate::ground::Piece;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::queue::Statistics;
use drv_virtio_block::ring::crossed;
use drv_virtio_block::transport::{Doorbell, RingAddresses};
use workload::params::Layout;
use workload::pattern::Op;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// What a status is before the device writes it.
const POISON: u8 = 0xff;
/// Bytes of a header line, and of an indirect table.
const LINE: u64 = 64;

/// A descriptor's second word.
#[inline(always)]
const fn rest(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << 48
}

/// Where things are in a ring of `size`; all offsets in bytes from its base.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    size: u16,
    indirect: bool,
    /// Bytes from one header to the next, and from one status to the next, as powers of two.
    header_shift: u32,
    status_shift: u32,
}

impl Shape {
    /// The shape of a ring of `size` descriptors.
    pub const fn new(size: u16, layout: Layout, indirect: bool) -> Self {
        let (header_shift, status_shift) = match layout {
            Layout::Line => (6, 6),
            Layout::Dense => (4, 0),
        };
        Self { size, indirect, header_shift, status_shift }
    }

    /// Requests that can be in flight.
    pub const fn chains(&self) -> u16 {
        let chains = if self.indirect { self.size } else { self.size / 3 };
        if chains > 4 { chains & !3 } else { chains }
    }

    const fn available(&self) -> u64 {
        16 * self.size as u64
    }

    /// The used ring's entries begin on a line.
    const fn used(&self) -> u64 {
        (self.available() + 2 * self.size as u64 + 6).next_multiple_of(LINE) + LINE - 4
    }

    const fn headers(&self) -> u64 {
        (self.used() + 8 * self.size as u64 + 6).next_multiple_of(LINE)
    }

    /// In a line the status stands behind its header.
    const fn statuses(&self) -> u64 {
        let dense = self.headers() + ((self.chains() as u64) << self.header_shift);
        if self.status_shift == self.header_shift { self.headers() + 16 } else { dense.next_multiple_of(LINE) }
    }

    const fn tables(&self) -> u64 {
        (self.statuses() + ((self.chains() as u64) << self.status_shift)).next_multiple_of(LINE)
    }

    /// The data descriptor of chain 0, and bytes from one to the next as a power of two.
    const fn data(&self) -> (u64, u32) {
        if self.indirect { (self.tables() + 16, LINE.trailing_zeros()) } else { (16 * self.chains() as u64, 4) }
    }

    /// Bytes in all.
    pub const fn bytes(&self) -> usize {
        (self.tables() + LINE * self.chains() as u64) as usize
    }
}

/// A bare ring's memory, before the device runs.
#[derive(Debug)]
pub struct RawMemory {
    base: u64,
    shape: Shape,
}

impl RawMemory {
    /// A ring in `memory`; `None` if it is too small.
    pub fn new(shape: Shape, memory: Piece) -> Option<Self> {
        (memory.len() >= shape.bytes()).then(|| Self { base: memory.address(), shape })
    }

    /// Requests that can be in flight.
    pub const fn chains(&self) -> u16 {
        self.shape.chains()
    }

    /// Where the device finds it.
    pub fn addresses(&self) -> RingAddresses {
        let at = |offset: u64| DeviceAddress(self.base + offset);
        let (available, used) = (at(self.shape.available()), at(self.shape.used()));
        // SAFETY: three parts of zeroed memory that is never freed, at one address for both sides, and this ring's alone;
        // `open` and `Raw` touch it by the rules of the ring.
        unsafe { RingAddresses::new(self.shape.size, at(0), available, used) }
    }

    /// The ring, once the device runs.
    pub fn open<D: Doorbell>(self, doorbell: D) -> Raw<D> {
        let shape = self.shape;
        let (data, data_shift) = shape.data();
        let raw = Raw {
            mask: shape.size - 1,
            chains: shape.chains(),
            available: (self.base + shape.available()) as *mut u16,
            used: (self.base + shape.used()) as *mut u32,
            headers: self.base + shape.headers(),
            statuses: self.base + shape.statuses(),
            data: self.base + data,
            shifts: (shape.header_shift, shape.status_shift, data_shift),
            direct: !shape.indirect,
            tail: 0,
            head: 0,
            doorbell,
            submitted: 0,
            notifications: 0,
        };
        for chain in 0..raw.chains {
            raw.write_static(self.base, &shape, chain);
        }
        raw
    }
}

/// The ring.
pub struct Raw<D> {
    mask: u16,
    chains: u16,
    available: *mut u16,
    /// Off by one word, so that entries are pairs of words on a line: index and flags are its word 0.
    used: *mut u32,
    headers: u64,
    statuses: u64,
    data: u64,
    shifts: (u32, u32, u32),
    direct: bool,
    tail: u16,
    head: u16,
    doorbell: D,
    submitted: u64,
    notifications: u64,
}

// SAFETY: the ring's memory is its alone; moving it to another processor moves all of it.
unsafe impl<D: Send> Send for Raw<D> {}

impl<D> Raw<D> {
    /// Writes the descriptors that never change.
    fn write_static(&self, base: u64, shape: &Shape, chain: u16) {
        let (number, chains) = (u64::from(chain), self.chains);
        let header = self.headers + (number << self.shifts.0);
        let status = self.statuses + (number << self.shifts.1);
        let table = base + shape.tables() + number * LINE;
        let write = |at: u64, address: u64, rest: u64| {
            // SAFETY: `at` is a descriptor of the ring's table (three for each of size/3 chains, or one for each of
            // size) or of the chain's own table; nobody else has the memory.
            unsafe {
                (at as *mut u64).write_volatile(address);
                ((at + 8) as *mut u64).write_volatile(rest);
            }
        };
        if self.direct {
            write(base + 16 * number, header, rest(16, NEXT, chains + chain));
            write(base + 16 * (2 * u64::from(chains) + number), status, rest(1, WRITE, 0));
        } else {
            write(base + 16 * number, table, rest(48, INDIRECT, 0));
            write(table, header, rest(16, NEXT, 1));
            write(table + 32, status, rest(1, WRITE, 0));
        }
    }

    #[inline(always)]
    fn available_index(&self) -> &AtomicU16 {
        // SAFETY: word 1 of the ring is its index, aligned and alive as long as `self`; all access is atomic.
        unsafe { AtomicU16::from_ptr(self.available.add(1)) }
    }

    #[inline(always)]
    fn used_index(&self) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.used.cast::<u16>().add(1)) }
    }

    #[inline(always)]
    fn stage(&mut self, work: &Work<Page>) {
        let chain = work.token;
        let data = work.buffer.segment();
        let (kind, flags) = if work.op == Op::Read { (0, NEXT | WRITE) } else { (1, NEXT) };
        let next = if self.direct { 2 * self.chains + chain as u16 } else { 2 };
        let header = (self.headers + (chain << self.shifts.0)) as *mut u64;
        let status = (self.statuses + (chain << self.shifts.1)) as *mut u8;
        let descriptor = (self.data + (chain << self.shifts.2)) as *mut u64;
        // SAFETY: the job's tokens are below `chains`, so header, status, descriptor and entry lie in the ring's memory,
        // and the chain is not with the device: its completion has come back.
        unsafe {
            header.write_volatile(kind);
            header.add(1).write_volatile(work.lba);
            status.write_volatile(POISON);
            descriptor.write_volatile(data.address().0);
            descriptor.add(1).write_volatile(rest(data.len(), flags, next));
            self.available.add(2 + usize::from(self.tail & self.mask)).write_volatile(chain as u16);
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
        // SAFETY: the available event index stands behind the last entry of the used ring.
        let event = unsafe { self.used.add(1 + 2 * (usize::from(self.mask) + 1)).cast::<u16>().read_volatile() };
        if crossed(event, old, self.tail) {
            self.notifications += 1;
            self.doorbell.ring();
        }
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        let ready = self.used_index().load(Ordering::Acquire).wrapping_sub(self.head);
        let count = usize::from(ready).min(max);
        for _ in 0..count {
            let at = 1 + 2 * usize::from(self.head & self.mask);
            // SAFETY: an entry of the used ring; its first word is the chain's number.
            let chain = unsafe { self.used.add(at).read_volatile() };
            self.head = self.head.wrapping_add(1);
            done(u64::from(chain), Ok(()));
        }
        count
    }

    fn arm(&mut self, want: u16) -> bool {
        let event = self.head.wrapping_add(want.max(1)).wrapping_sub(1);
        // SAFETY: the used event index stands behind the last entry of the available ring.
        unsafe { self.available.add(3 + usize::from(self.mask)).write_volatile(event) };
        // Partner: the device's fence between storing its index and looking at our event index.
        fence(Ordering::SeqCst);
        self.used_index().load(Ordering::Acquire).wrapping_sub(self.head) >= want.max(1)
    }

    fn statistics(&self) -> Statistics {
        let chains = self.submitted;
        Statistics { submitted: chains, completed: chains, notifications: self.notifications, ..Statistics::default() }
    }

    fn flush(&mut self) -> Ended {
        Err(Failure::Other(Other::NoFlush))
    }
}
