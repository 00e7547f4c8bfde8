//! Data buffers of a job: memory that the device may touch, cut into one place per request in flight.
//!
//! A place is lent to at most one request at a time: the job's free list sees to it, and a place returns there only
//! with the completion that gives the buffer back.
use crate::ground::Piece;
use core::ops::Range;
use drv_virtio_block::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, Segment};

/// Most segments of a scattered buffer: more than a slot's own table holds, and more than a pooled one.
pub const MOST_SEGMENTS: usize = 12;

/// The places of one job.
pub struct Places {
    base: u64,
    bytes: usize,
    count: usize,
}

impl Places {
    /// Places of `bytes` bytes: as many as `memory` has room for.
    pub fn new(memory: Piece, bytes: usize) -> Self {
        Self { base: memory.address(), bytes, count: memory.len() / bytes.max(1) }
    }

    #[inline(always)]
    fn at(&self, place: usize, range: Range<usize>) -> u64 {
        assert!(place < self.count && range.end <= self.bytes, "a buffer leaves its place");
        self.base + (place * self.bytes + range.start) as u64
    }

    /// The first `bytes` of a place, in one piece.
    #[inline(always)]
    pub fn page(&self, place: usize, bytes: u32) -> Page {
        Page(Segment::new(DeviceAddress(self.at(place, 0..bytes as usize)), bytes))
    }

    /// The first `bytes` of a place in pieces that end where `cuts` says (ascending, below `bytes`).
    pub fn scattered(&self, place: usize, bytes: u32, cuts: &[u32]) -> Scattered {
        let mut segments = [Segment::new(DeviceAddress(0), 0); MOST_SEGMENTS];
        let (mut start, mut count) = (0, 0);
        for end in cuts.iter().copied().chain([bytes]) {
            let at = self.at(place, start as usize..end as usize);
            segments[count] = Segment::new(DeviceAddress(at), end - start);
            (start, count) = (end, count + 1);
        }
        Scattered { segments, count }
    }

    /// The first `bytes` of a place that is not lent.
    pub fn data(&mut self, place: usize, bytes: u32) -> &mut [u8] {
        let at = self.at(place, 0..bytes as usize);
        // SAFETY: inside the job's own memory (`at`); the place is with nobody else, since it was never lent or its
        // completion has come back (the job asks for no other), and `&mut self` lends it once.
        unsafe { core::slice::from_raw_parts_mut(at as *mut u8, bytes as usize) }
    }
}

/// A buffer in one piece. It can be copied, so that work stands ready in memory; the job lends it to one request at a
/// time all the same.
#[derive(Clone, Copy, Debug)]
pub struct Page(Segment);

// SAFETY: `Places` memory is mapped one to one for good and initialised; a place is lent once at a time (module text).
unsafe impl Buffer for Page {
    #[inline(always)]
    fn segments(&self) -> &[Segment] {
        core::slice::from_ref(&self.0)
    }
}
// SAFETY: initialised memory.
unsafe impl DeviceReadable for Page {}
// SAFETY: bytes.
unsafe impl DeviceWritable for Page {}

impl Page {
    /// Where it is.
    #[inline(always)]
    pub fn segment(&self) -> Segment {
        self.0
    }
}

/// A buffer in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Scattered {
    segments: [Segment; MOST_SEGMENTS],
    count: usize,
}

// SAFETY: as for `Page`.
unsafe impl Buffer for Scattered {
    fn segments(&self) -> &[Segment] {
        &self.segments[..self.count]
    }
}
// SAFETY: initialised memory.
unsafe impl DeviceReadable for Scattered {}
// SAFETY: bytes.
unsafe impl DeviceWritable for Scattered {}
