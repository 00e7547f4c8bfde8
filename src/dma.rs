//! Memory that the device may touch: where it is for the device, who owns it, which way data flows.
//!
//! It refuses to know what the memory holds. A [`DmaRegion`] is one contiguous piece that the platform mapped for the
//! device; [`DmaRegion::carve`] cuts blocks off its front, each handed out once. A buffer in flight is owned by its
//! slot: [`Buffer`]'s contract is what makes that sound, and the direction is in the type ([`DeviceReadable`],
//! [`DeviceWritable`]), so that a read cannot be submitted into memory that the device must not write.
//!
//! Device addresses are opaque numbers from the platform (with ACCESS_PLATFORM these are IOMMU addresses); the driver
//! adds offsets to them and nothing else.
//!
//! ```
//! use drv_virtio_block::dma::{DeviceAddress, Segment};
//! let page = Segment::new(DeviceAddress(0x4000), 4096);
//! assert_eq!(page.after(512).address(), DeviceAddress(0x4200));
//! ```
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// An address as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    /// The address `bytes` further on.
    #[must_use]
    #[inline(always)]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// One contiguous piece of memory in device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    address: DeviceAddress,
    /// Below 2^32. As wide as the address, so that there is no padding to be copied along.
    len: u64,
}

impl Segment {
    /// A segment of `len` bytes at `address`.
    pub const fn new(address: DeviceAddress, len: u32) -> Self {
        Self { address, len: len as u64 }
    }

    /// Where it starts.
    #[inline(always)]
    pub const fn address(self) -> DeviceAddress {
        self.address
    }

    /// Its length in bytes.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.len as u32
    }

    /// Its length in bytes, as it stands in a descriptor's second word.
    #[inline(always)]
    pub(crate) const fn wide_len(self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// What is left of it behind its first `bytes`, which must not exceed its length.
    #[must_use]
    pub const fn after(self, bytes: u32) -> Self {
        Self { address: self.address.offset(bytes as u64), len: self.len - bytes as u64 }
    }

    /// Its first `bytes`, or all of it if it is shorter.
    #[must_use]
    pub const fn first(self, bytes: u32) -> Self {
        let bytes = bytes as u64;
        Self { address: self.address, len: if bytes < self.len { bytes } else { self.len } }
    }
}

/// Memory that can be handed to the device for the duration of a request.
///
/// # Safety
/// From the moment the value is moved into a request until it is moved out of the completion (or dropped by whoever
/// took it out), the memory behind [`Buffer::segments`] stays mapped for the device at these addresses and nobody else
/// accesses it in a way that conflicts with the device. `segments` returns the same list every time and does not panic,
/// and neither it nor moving the value touches that memory. A value that is leaked keeps its memory from ever being reused.
pub unsafe trait Buffer {
    /// The pieces in order. None of them is empty.
    fn segments(&self) -> &[Segment];
}

/// A buffer that the device may read: data to be written to the medium.
///
/// # Safety
/// As [`Buffer`]; the memory is initialised.
pub unsafe trait DeviceReadable: Buffer {}

/// A buffer that the device may write: data read from the medium lands there.
///
/// A device that writes less than it says cannot be found out, so nothing that it says makes memory initialised. The
/// owner does, before it lends the memory for the first time: what a device leaves out is then the owner's own bytes.
///
/// # Safety
/// As [`Buffer`]; the memory is initialised when the value is moved into a request, nobody reads it while the device owns
/// it, and any bytes are valid content.
pub unsafe trait DeviceWritable: Buffer {}

/// Why a region could not be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionExhausted {
    /// Bytes asked for, alignment included.
    pub wanted: usize,
    /// Bytes that are left.
    pub left: usize,
}

impl fmt::Display for RegionExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the DMA region has {} bytes left where {} are needed", self.left, self.wanted)
    }
}

impl core::error::Error for RegionExhausted {}

/// A block cut off a region: valid for the region's lifetime and handed out once.
#[derive(Debug)]
pub struct DmaBlock<'m> {
    base: NonNull<u8>,
    device: DeviceAddress,
    len: usize,
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: a block is the only handle to its bytes, like `&mut [u8]`; moving it to another thread moves that authority.
unsafe impl Send for DmaBlock<'_> {}

impl<'m> DmaBlock<'m> {
    /// Its first byte for the driver.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its first byte for the device.
    pub fn device_address(&self) -> DeviceAddress {
        self.device
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `offset` on, `len` of them, as a block for good; `None` if they are not inside or not `align`ed.
    /// Parts may overlap: whoever cuts a block sees to it that each byte has one use.
    pub(crate) fn part(&self, offset: usize, len: usize, align: usize) -> Option<DmaBlock<'m>> {
        let inside = offset.checked_add(len)? <= self.len;
        // SAFETY: `offset` is inside the block (checked in the same breath, before the pointer is used).
        let base = inside.then(|| unsafe { self.base.add(offset) })?;
        let device = self.device.0.wrapping_add(offset as u64);
        let aligned = base.as_ptr().addr().is_multiple_of(align) && device.is_multiple_of(align as u64);
        aligned.then_some(DmaBlock { base, device: self.device.offset(offset as u64), len, memory: PhantomData })
    }
}

/// The one region of device-visible memory that the driver was handed.
#[derive(Debug)]
pub struct DmaRegion<'m> {
    rest: DmaBlock<'m>,
}

impl<'m> DmaRegion<'m> {
    /// Takes authority over a region.
    ///
    /// # Safety
    /// `base` points to `len` bytes, zeroed or otherwise initialised, that live for `'m`, until the device was reset, and
    /// for as long as the [`Geometry`](crate::geometry::Geometry) of which a queue in them was laid out is lent: for as
    /// long may a device be told of them. They are mapped for the device at `device..device + len` for as long, and are
    /// accessed by nobody else. `device + len` does not overflow.
    pub unsafe fn new(base: NonNull<u8>, device: DeviceAddress, len: usize) -> Self {
        Self { rest: DmaBlock { base, device, len, memory: PhantomData } }
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.rest.len
    }

    /// Cuts `len` bytes, aligned to `align` (a power of two) for the driver and for the device.
    ///
    /// # Errors
    /// When the region is too small, or its two addresses cannot be aligned together; nothing is taken then.
    pub fn carve(&mut self, len: usize, align: usize) -> Result<DmaBlock<'m>, RegionExhausted> {
        let pad = self.rest.base.as_ptr().addr().wrapping_neg() & (align - 1);
        let exhausted = RegionExhausted { wanted: len.saturating_add(pad), left: self.rest.len };
        let end = pad.checked_add(len).ok_or(exhausted)?;
        let block = self.rest.part(pad, len, align).ok_or(exhausted)?;
        self.rest = self.rest.part(end, self.rest.len - end, 1).ok_or(exhausted)?;
        Ok(block)
    }
}
