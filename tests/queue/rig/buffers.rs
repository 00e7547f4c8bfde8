//! Buffers of several segments in the memory that the device reaches, with canaries around every segment.
//!
//! A buffer owns a place; the place is free again when the buffer is dropped, so that a place which the driver loses or
//! gives back twice is seen: [`Heap::lent`], and the checks of `drop`.
use crate::fake::HostMemory;
use drv_virtio_block::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, Segment};
use std::sync::{Arc, Mutex};

/// Bytes before and after each segment; odd, so that segments start at odd addresses.
const GAP: usize = 7;
const CANARY: u8 = 0xc5;
/// What a fresh buffer holds: neither zeros nor what the fake leaves in discarded sectors.
pub(crate) const FRESH: u8 = 0x9e;

/// Places for buffers.
#[derive(Clone)]
pub(crate) struct Heap {
    memory: Arc<HostMemory>,
    first: u64,
    bytes: usize,
    places: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Heap {
    /// `places` places of `bytes` bytes from `offset` on.
    pub(crate) fn new(memory: &Arc<HostMemory>, offset: usize, places: usize, bytes: usize) -> Self {
        assert!(offset + places * bytes <= memory.len(), "places lie in memory");
        let first = memory.device_base() + offset as u64;
        let free = Arc::new(Mutex::new((0..places).rev().collect()));
        Self { memory: Arc::clone(memory), first, bytes, places, free }
    }

    /// Whether the device's address is that of a place.
    pub(crate) fn holds(&self, address: u64) -> bool {
        (self.first..self.first + (self.places * self.bytes) as u64).contains(&address)
    }

    /// How many buffers exist.
    pub(crate) fn lent(&self) -> usize {
        self.places - self.free.lock().unwrap().len()
    }

    /// A buffer with segments of these lengths, back to front in memory.
    #[track_caller]
    pub(crate) fn cut(&self, lens: &[u32]) -> Buf {
        let total: usize = lens.iter().map(|len| *len as usize + GAP).sum::<usize>() + GAP;
        assert!(total <= self.bytes, "{total} bytes fit a place of {}", self.bytes);
        let place = self.free.lock().unwrap().pop().expect("a free place");
        let start = self.first + (place * self.bytes) as u64;
        self.memory.put(start, &vec![CANARY; total]);
        let mut end = total;
        let segments = lens.iter().map(|len| {
            end -= GAP + *len as usize;
            Segment::new(DeviceAddress(start + end as u64), *len)
        });
        let buffer = Buf { segments: segments.collect(), start, total, place, heap: self.clone() };
        buffer.set(&vec![FRESH; buffer.len()]);
        buffer
    }

    /// A buffer that is the same segment of `len` bytes, `times` times.
    #[track_caller]
    pub(crate) fn repeated(&self, len: u32, times: usize) -> Buf {
        let mut buffer = self.whole(len);
        buffer.segments = vec![buffer.segments[0]; times];
        buffer
    }

    /// A buffer of one segment.
    #[track_caller]
    pub(crate) fn whole(&self, len: u32) -> Buf {
        self.cut(&[len])
    }

    /// A buffer of one segment that holds `data`.
    #[track_caller]
    pub(crate) fn holding(&self, data: &[u8]) -> Buf {
        let buffer = self.whole(data.len() as u32);
        buffer.set(data);
        buffer
    }
}

/// A buffer.
pub(crate) struct Buf {
    segments: Vec<Segment>,
    start: u64,
    total: usize,
    place: usize,
    heap: Heap,
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({} segments in place {})", self.segments.len(), self.place)
    }
}

// SAFETY: the place is this value's alone until it is dropped, and a value that is leaked keeps it; the memory lives as
// long as the device, which holds it too. The list of segments never changes.
unsafe impl Buffer for Buf {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
// SAFETY: `cut` fills the memory.
unsafe impl DeviceReadable for Buf {}
// SAFETY: bytes, read through `bytes` only, which takes a buffer that is not with the driver.
unsafe impl DeviceWritable for Buf {}

impl Buf {
    pub(crate) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len() as usize).sum()
    }

    /// Puts `data` in, which is as long as the buffer.
    pub(crate) fn set(&self, data: &[u8]) {
        assert_eq!(data.len(), self.len());
        let mut rest = data;
        for segment in &self.segments {
            let (now, later) = rest.split_at(segment.len() as usize);
            self.heap.memory.put(segment.address().0, now);
            rest = later;
        }
    }

    /// The content.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let one = |segment: &Segment| self.heap.memory.bytes(segment.address().0, segment.len() as usize);
        self.segments.iter().flat_map(one).collect()
    }

    /// Panics if anybody wrote between the segments.
    fn check_canaries(&self) {
        let mut image = self.heap.memory.bytes(self.start, self.total);
        for segment in &self.segments {
            let from = (segment.address().0 - self.start) as usize;
            image[from..from + segment.len() as usize].fill(CANARY);
        }
        assert!(image.iter().all(|byte| *byte == CANARY), "the device wrote outside of a buffer's segments");
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let mut free = self.heap.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A second panic would hide the first.
        if !std::thread::panicking() {
            self.check_canaries();
            assert!(!free.contains(&self.place), "a place is given back once");
        }
        free.push(self.place);
    }
}
