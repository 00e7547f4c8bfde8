//! What every queue model needs: memory for one execution, buffers whose bytes loom watches, signals, and a device.
//!
//! The device finds rings, chains and status bytes by address, as devices do, and uses each by the specification:
//! entries after the index, data and status before the used entry, the used entry before its index (2.7.8, 2.7.14), an
//! interrupt by the driver's wish after a full fence (2.7.7.2), and its own wish, a full fence and another look before
//! it sleeps (2.7.10).
use crate::arena::Arena;
use crate::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, DmaBlock, DmaRegion, Segment};
use crate::geometry::Geometry;
use crate::memory::Records;
use crate::queue::{Prepared, QueueOptions, Wake};
use crate::ring::split::{RingLayout, SplitRing};
use crate::spec::{Features, descriptor_flag, feature};
use crate::sync::{Guarded, full_fence};
use crate::transport::Doorbell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

/// A flag that stays up until somebody takes it: an eventfd, a pending interrupt, a thread's wake-up token.
pub(super) struct Signal(AtomicBool);

impl Signal {
    fn raise(&self) {
        // A read-modify-write, so that whoever takes the signal has seen what all its senders did.
        self.0.swap(true, Ordering::AcqRel);
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// How driver and device reach one another without memory.
pub(super) struct Signals {
    pub(super) doorbell: Signal,
    pub(super) interrupt: Signal,
    pub(super) woken: [Signal; 2],
    /// The next doorbell rings, and panics then. Not loom's: it orders nothing.
    pub(super) fragile: std::sync::atomic::AtomicBool,
}

impl Doorbell for &'static Signals {
    fn ring(&self) {
        self.doorbell.raise();
        if self.fragile.swap(false, std::sync::atomic::Ordering::SeqCst) {
            // Without the message and the backtrace of a panic.
            std::panic::resume_unwind(Box::new("the doorbell fails as it was told"));
        }
    }
}

impl Wake for &'static Signals {
    fn wake(&self, submitter: u8) {
        self.woken[usize::from(submitter)].raise();
    }
}

/// A buffer of one sector or two. Its "bytes" count who had it; loom sees when two have it at once.
pub(super) struct Page {
    segments: [Segment; 1],
    bytes: Arc<Guarded<u32>>,
}

impl Page {
    /// How often the device had the buffer. The page is the caller's.
    pub(super) fn uses(&self) -> u32 {
        // SAFETY: whoever has the page has its bytes: that is what the models are to show.
        unsafe { self.bytes.with(|uses| *uses) }
    }
}

impl core::fmt::Debug for Page {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.segments.fmt(f)
    }
}

// SAFETY: the "memory" at these made-up addresses is accessed by the model's device only.
unsafe impl Buffer for Page {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
// SAFETY: as above.
unsafe impl DeviceReadable for Page {}
// SAFETY: as above.
unsafe impl DeviceWritable for Page {}

/// Pages lie here for the device.
const PAGES: u64 = 1 << 60;
const PAGE: u64 = 4096;
const SIZE: u16 = 8;

/// What one execution of a model stands on. Freed by [`Ground::clear`] after the threads are joined; an execution that
/// fails leaks it.
pub(super) struct Ground {
    dma: NonNull<u8>,
    private: NonNull<[MaybeUninit<u8>]>,
    geometry: NonNull<Geometry>,
    signals: NonNull<Signals>,
    pages: Vec<Arc<Guarded<u32>>>,
}

const DMA_BYTES: usize = 4096;
const PRIVATE_BYTES: usize = 16384;

fn dma_layout() -> Layout {
    Layout::from_size_align(DMA_BYTES, 128).unwrap()
}

fn leak<T: ?Sized>(value: Box<T>) -> NonNull<T> {
    NonNull::from(Box::leak(value))
}

impl Ground {
    /// `adjust` makes the disk what the model is about; without it, one that notifies by event indices.
    pub(super) fn new(adjust: impl FnOnce(&mut Geometry)) -> Self {
        let mut geometry = Geometry::plain(1 << 20);
        geometry.features = Features(feature::EVENT_IDX);
        adjust(&mut geometry);
        let signal = || Signal(AtomicBool::new(false));
        Self {
            // SAFETY: the layout has bytes.
            dma: NonNull::new(unsafe { alloc_zeroed(dma_layout()) }).unwrap(),
            private: leak(std::vec![MaybeUninit::uninit(); PRIVATE_BYTES].into_boxed_slice()),
            geometry: leak(Box::new(geometry)),
            signals: leak(Box::new(Signals {
                doorbell: signal(),
                interrupt: signal(),
                woken: [signal(), signal()],
                fragile: false.into(),
            })),
            pages: (0..2).map(|_| Arc::new(Guarded::new(0))).collect(),
        }
    }

    fn geometry(&self) -> &'static Geometry {
        // SAFETY: alive until `clear`, which comes after the last use.
        unsafe { self.geometry.as_ref() }
    }

    pub(super) fn signals(&self) -> &'static Signals {
        // SAFETY: alive until `clear`, which comes after the last use.
        unsafe { self.signals.as_ref() }
    }

    /// Page `number` as a buffer of `len` bytes.
    pub(super) fn page(&self, number: usize, len: u32) -> Page {
        let address = DeviceAddress(PAGES + number as u64 * PAGE);
        Page { segments: [Segment::new(address, len)], bytes: self.pages[number].clone() }
    }

    /// A queue of two slots, and its device.
    pub(super) fn queue(&self) -> (Prepared<'static, Page>, Device) {
        let prepared = self.lay_out(&mut self.arena());
        assert_eq!(prepared.slots(), 2);
        let event_idx = self.geometry().features.has(feature::EVENT_IDX);
        let layout = RingLayout::new(SIZE).unwrap();
        let ring = SplitRing::new(&self.block(prepared.addresses().descriptors()), layout, event_idx).unwrap();
        // The static descriptor of slot 0 points to the first slot's line.
        let lines_at = DeviceAddress(ring.device_descriptor(0).0);
        let lines = Records::new(&self.block(lines_at), 2).unwrap();
        let (signals, pages) = (self.signals(), self.pages.clone());
        (prepared, Device { ring, lines, lines_at, pages, signals, seen: 0, used: 0 })
    }

    /// The private memory, which is lent once.
    pub(super) fn arena(&self) -> Arena<'static> {
        // SAFETY: alive until `clear`, and lent once.
        Arena::new(unsafe { &mut *self.private.as_ptr() })
    }

    /// A queue of two slots, its tables in `arena`.
    pub(super) fn lay_out<B: Buffer>(&self, arena: &mut Arena<'static>) -> Prepared<'static, B> {
        let at = DeviceAddress(self.dma.as_ptr().addr() as u64);
        // SAFETY: the block is this execution's; its bytes are never dereferenced under loom.
        let mut dma = unsafe { DmaRegion::new(self.dma, at, DMA_BYTES) };
        let options = QueueOptions { size: SIZE, parents: 1, ..QueueOptions::default() };
        Prepared::new(&options, self.geometry(), &mut dma, arena).unwrap()
    }

    /// The memory from a device address on.
    fn block(&self, at: DeviceAddress) -> DmaBlock<'static> {
        let offset = at.0 as usize - self.dma.as_ptr().addr();
        // SAFETY: inside the block, as every address is that the driver hands out; never dereferenced under loom.
        let mut region = unsafe { DmaRegion::new(self.dma.add(offset), at, DMA_BYTES - offset) };
        region.carve(DMA_BYTES - offset, 1).unwrap()
    }
}

impl Ground {
    /// Lends `value` to threads, which want it for good.
    pub(super) fn lend<T>(value: T) -> Lent<T> {
        Lent(leak(Box::new(value)))
    }

    /// Frees the memory.
    ///
    /// # Safety
    /// Nothing made from this ground is used any more: threads joined, queues dropped.
    pub(super) unsafe fn clear(self) {
        // SAFETY: each is what `new` leaked, and unused by the contract.
        unsafe {
            dealloc(self.dma.as_ptr(), dma_layout());
            drop(Box::from_raw(self.private.as_ptr()));
            drop(Box::from_raw(self.geometry.as_ptr()));
            drop(Box::from_raw(self.signals.as_ptr()));
        }
    }
}

/// Something lent until [`Lent::take_back`].
pub(super) struct Lent<T>(NonNull<T>);

impl<T: 'static> Lent<T> {
    pub(super) fn get(&self) -> &'static T {
        // SAFETY: alive until `take_back`, which comes after the last use.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    /// Nobody uses what was lent any more.
    pub(super) unsafe fn take_back(self) -> T {
        // SAFETY: leaked by `lend`, and unused by the contract.
        *unsafe { Box::from_raw(self.0.as_ptr()) }
    }
}

/// Where the status byte of a line is.
const STATUS_AT: usize = 16;

/// The device.
pub(super) struct Device {
    pub(super) ring: SplitRing<'static>,
    lines: Records<'static, 64>,
    lines_at: DeviceAddress,
    pages: Vec<Arc<Guarded<u32>>>,
    signals: &'static Signals,
    /// Available entries taken.
    seen: u16,
    /// Used entries offered.
    used: u16,
}

impl Device {
    /// Serves what is available and offers it back with one index store. Returns how many chains that were.
    pub(super) fn serve(&mut self) -> u16 {
        let available = self.ring.device_available();
        let old = self.used;
        while self.seen != available {
            let head = self.ring.device_head(self.seen);
            let len = self.execute(head);
            self.ring.device_use(self.used, head, len);
            self.seen = self.seen.wrapping_add(1);
            self.used = self.used.wrapping_add(1);
        }
        if self.used != old {
            self.ring.device_publish_used(self.used);
            full_fence();
            if self.ring.driver_wants(old, self.used) {
                self.signals.interrupt.raise();
            }
        }
        self.used.wrapping_sub(old)
    }

    /// Runs one chain: header, data if there is any, status. Returns how many bytes it wrote.
    fn execute(&self, head: u16) -> u32 {
        let mut written = 0;
        let mut next = head;
        loop {
            let (address, rest) = self.ring.device_descriptor(next);
            let (len, flags) = (rest as u32, (rest >> 32) as u16);
            let writes = flags & descriptor_flag::WRITE != 0;
            assert!(len > 0, "the descriptor is seen by the device that sees its index");
            if address >= PAGES {
                let page = &self.pages[((address - PAGES) / PAGE) as usize];
                // SAFETY: the chain gives the page to the device until it is used; loom checks just that.
                unsafe { page.with(|uses| *uses += 1) };
            } else if writes {
                self.answer(((address - self.lines_at.0) / 64) as usize, 0);
            }
            written += if writes { len } else { 0 };
            if flags & descriptor_flag::NEXT == 0 {
                return written;
            }
            next = (rest >> 48) as u16;
        }
    }

    /// Writes a slot's status.
    pub(super) fn answer(&self, slot: usize, status: u8) {
        self.lines.store8::<STATUS_AT>(slot, status);
    }

    /// Wishes to be notified of the next chain and looks again: whether it may sleep.
    fn rest(&self) -> bool {
        self.ring.device_event(self.seen, true);
        full_fence();
        self.ring.device_available() == self.seen
    }

    /// Works until it sleeps and no doorbell wakes it.
    pub(super) fn run(&mut self) {
        loop {
            self.signals.doorbell.take();
            self.serve();
            if self.rest() && !self.signals.doorbell.take() {
                return;
            }
        }
    }

    /// After `run` and everybody else is done: what was published is served, or a doorbell says so.
    pub(super) fn finish(&mut self) {
        let left = self.ring.device_available() != self.seen;
        assert!(!left || self.signals.doorbell.take(), "a chain is published, the device sleeps, no doorbell rang");
        self.serve();
    }
}
