//! The cache lines that travel between the driver's core and the device's, counted from the accesses of both.
//!
//! A line *travels* when a side reads or writes one that it does not hold in its present form; it is *claimed* when a
//! side writes one that it holds and the other side holds too (a message, without the line). Both are exact: one more is
//! a regression. The device here reads what it must and writes what it must, once per batch where it may.
use super::{OwnedQueue, Prepared, QueueOptions};
use crate::arena::Arena;
use crate::dma::{Buffer, DeviceAddress, DeviceWritable, DmaRegion, Segment};
use crate::geometry::Geometry;
use crate::memory::accesses::{self, Access};
use crate::request::{Lba, Request};
use crate::spec::{Features, feature};
use crate::transport::Doorbell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::SeqCst};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

struct Page([Segment; 1]);

// SAFETY: no device ever touches it.
unsafe impl Buffer for Page {
    fn segments(&self) -> &[Segment] {
        &self.0
    }
}
// SAFETY: as above.
unsafe impl DeviceWritable for Page {}

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

const SIZE: u16 = 256;
const MASK: usize = SIZE as usize - 1;

/// A device of few words, on the driver's thread: the rings by address, host memory mapped one to one.
struct Device {
    descriptors: usize,
    available: usize,
    used: usize,
    seen: u16,
}

macro_rules! access {
    ($load:ident, $store:ident, $int:ty, $atomic:ident) => {
        fn $load(at: usize) -> $int {
            accesses::note(true, at, false);
            // SAFETY: aligned, inside the queue's memory, which is leaked and only accessed atomically.
            unsafe { $atomic::from_ptr(at as *mut $int) }.load(SeqCst)
        }

        fn $store(at: usize, value: $int) {
            accesses::note(true, at, true);
            // SAFETY: as above.
            unsafe { $atomic::from_ptr(at as *mut $int) }.store(value, SeqCst);
        }
    };
}

#[allow(dead_code, reason = "one macro for all widths")]
impl Device {
    access!(load8, store8, u8, AtomicU8);
    access!(load16, store16, u16, AtomicU16);
    access!(load64, store64, u64, AtomicU64);

    fn descriptor(&self, index: u64) -> (usize, u64) {
        let at = self.descriptors + index as usize * 16;
        (Self::load64(at) as usize, Self::load64(at + 8))
    }

    /// Serves what is available, and offers it back with one index.
    fn serve(&mut self) {
        let available = Self::load16(self.available + 2);
        while self.seen != available {
            let at = usize::from(self.seen) & MASK;
            let head = u64::from(Self::load16(self.available + 4 + 2 * at));
            let (header, to_data) = self.descriptor(head);
            assert_eq!(Self::load64(header), 0, "a read");
            Self::load64(header + 8);
            let (_, to_status) = self.descriptor(to_data >> 48);
            let (status, _) = self.descriptor(to_status >> 48);
            Self::store8(status, 0);
            let written = u64::from(to_status as u32) + 1;
            Self::store64(self.used + 4 + 8 * at, head | written << 32);
            self.seen = self.seen.wrapping_add(1);
        }
        Self::store16(self.used + 2, available);
        // Its wish for a notification (none), and the driver's for an interrupt.
        Self::store16(self.used + 4 + 8 * usize::from(SIZE), available.wrapping_sub(1));
        Self::load16(self.available + 4 + 2 * usize::from(SIZE));
    }
}

/// A queue for polling, its device, and where its slots' lines are.
fn queue() -> (OwnedQueue<'static, Page, Silent>, Device, usize) {
    const BYTES: usize = 128 << 10;
    let mut disk = Geometry::plain(1 << 20);
    disk.features = Features(feature::VERSION_1 | feature::EVENT_IDX);
    let base = NonNull::from(vec![0u64; BYTES / 8].leak()).cast::<u8>();
    // SAFETY: zeroed and leaked; the device finds it where the driver does.
    let mut dma = unsafe { DmaRegion::new(base, DeviceAddress(base.as_ptr() as u64), BYTES) };
    let mut arena = Arena::new(vec![MaybeUninit::uninit(); BYTES].leak());
    let options = QueueOptions { size: SIZE, ..QueueOptions::default() };
    let prepared = Prepared::new(&options, Box::leak(Box::new(disk)), &mut dma, &mut arena).expect("room");
    let rings = prepared.addresses();
    let [descriptors, available, used] = [rings.descriptors(), rings.driver(), rings.device()].map(|at| at.0 as usize);
    let lines = prepared.core.lines.header(0).address().0 as usize;
    (prepared.owned(Silent), Device { descriptors, available, used, seen: 0 }, lines)
}

/// The accesses of one lap of the ring in batches, when everything is warm; and where the slots' lines are.
fn one_lap(batch: usize) -> (Vec<Access>, usize) {
    let (mut queue, mut device, lines) = queue();
    let mut lap = || {
        for _ in 0..usize::from(SIZE) / batch {
            let mut requests = queue.batch();
            for place in 0..batch as u64 {
                let page = Page([Segment::new(DeviceAddress(place * 4096), 4096)]);
                assert!(requests.push(Request::read(Lba(8 * place), page)).is_ok());
            }
            requests.publish();
            device.serve();
            assert_eq!(queue.reap(usize::MAX, |done| assert!(done.result.is_ok())), batch);
        }
    };
    lap();
    accesses::take();
    lap();
    (accesses::take(), lines)
}

/// Lines that travel and lines that are claimed in a lap that follows one like it.
fn count(lap: &[Access], place: impl Fn(usize) -> usize) -> (u32, u32) {
    let mut held: BTreeMap<usize, [bool; 2]> = BTreeMap::new();
    let (mut travel, mut claimed) = (0, 0);
    for (at, access) in lap.iter().chain(lap).enumerate() {
        let line = held.entry(place(access.address) / 64).or_default();
        let (own, other) = (usize::from(access.by_device), usize::from(!access.by_device));
        if at >= lap.len() {
            travel += u32::from(!line[own]);
            claimed += u32::from(access.writes && line[own] && line[other]);
        }
        line[own] = true;
        line[other] &= !access.writes;
    }
    (travel, claimed)
}

/// Headers of 16 bytes side by side, and statuses of one byte, in place of a line for each slot.
fn dense(lines: usize) -> impl Fn(usize) -> usize {
    let header_bytes = 16 * 128;
    move |address| match address.checked_sub(lines) {
        Some(inside) if inside < 128 * 64 && inside % 64 < 16 => lines + inside / 64 * 16 + inside % 64,
        Some(inside) if inside < 128 * 64 => lines + header_bytes + inside / 64,
        _ => address,
    }
}

/// Per lap of 256 requests, for batches of 32 and of 1:
///
/// | Line | of 32 | of 1 |
/// |---|---|---|
/// | slot lines: header there, status back | 512 | 512 |
/// | data descriptors, four a line | 64 | 256 |
/// | static descriptors: nobody writes them | 0 | 0 |
/// | available index, with the first 30 entries in its line | 8 | 256 |
/// | other available entries, 32 a line: a batch spans two | 15 | 226 |
/// | used entries, eight a line | 32 | 256 |
/// | used index | 8 | 256 |
/// | available event index | 8 | 256 |
/// | used event index: read by the device, not written for a queue that is polled | 0 | 0 |
/// | **sum** | 647 | 2018 |
///
/// Each comes with a claim: whoever writes a line of the two sides has just seen the other side's last word in it.
#[test]
fn the_lines_that_travel_are_those_that_were_counted() {
    for (batch, expected) in [(32, 512 + 64 + 8 + 15 + 32 + 8 + 8), (1, 512 + 256 + 256 + 226 + 256 + 256 + 256)] {
        let (lap, _) = one_lap(batch);
        assert_eq!(count(&lap, |address| address), (expected, expected), "batch of {batch}");
    }
}

/// What the other layout would cost: a third in batches, as long as the slots in use are neighbours; an eighth more one
/// at a time.
#[test]
fn dense_headers_and_statuses_travel_less_in_batches_and_more_one_at_a_time() {
    for (batch, travel) in [(32, 215), (1, 2274)] {
        let (lap, lines) = one_lap(batch);
        assert_eq!(count(&lap, dense(lines)).0, travel, "batch of {batch}");
    }
}
