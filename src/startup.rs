//! What deviced hands over, checked into authority.
//!
//! deviced copies the declared capabilities into the driver's window; [`Authority::accept`] takes them one by one and
//! either has exactly what one virtio-blk device needs or refuses all of it with the reason. It touches no register
//! and matches no device: that a frame is what its kind says is deviced's word, that the frames fit together is checked
//! here. deviced has accepted capabilities with a larger `cap_len`, has ignored reserved kinds and BARs, and disables
//! `INTx` when there is no MSI-X.
//!
//! Invariants of an [`Authority`]:
//! - each kind of frame exactly once, aligned, long enough, inside its BAR, apart from the others and from the MSI-X
//!   table and pending bits;
//! - interrupts with distinct badges and distinct entries of the MSI-X table, no more than the driver can use;
//! - one DMA region, one provider endpoint, nothing else.
//!
//! Specification: 4.1.4 Virtio Structure PCI Capabilities, 4.1.5.1.2 MSI-X Vector Configuration.
//!
//! ```
//! use drv_virtio_block::startup::{Authority, Capability, Part, StartupError};
//! // A window without a single capability: the first thing missed is named.
//! let refused = Authority::accept(None, [] as [Capability; 0]).unwrap_err();
//! assert_eq!(refused, StartupError::Missing(Part::Common));
//! ```
#![forbid(unsafe_code)]
use crate::dma::DmaRegion;
use crate::interrupt::{InterruptGrant, MAX_INTERRUPTS};
use crate::platform::Badge;
use crate::transport::pci::{Window, Windows};
use arrayvec::ArrayVec;
use core::fmt;

/// BARs of a PCI function are numbered 0 to 5.
const BARS: u8 = 6;
/// Common configuration up to and including `queue_device` (4.1.4.3): all that this driver uses.
const COMMON_LEN: u64 = 56;
/// The capacity, which every block device has (5.2.4).
const DEVICE_LEN: u64 = 8;
/// Bytes of an entry of the MSI-X table.
const MSIX_ENTRY: u64 = 16;

/// A range of bytes of one BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarRange {
    /// The BAR's index, 0 to 5.
    pub bar: u8,
    /// Where the range starts in it.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl BarRange {
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// Whether the two have a byte in common. A range whose end overflows reaches to the end of everything.
    fn overlaps(self, other: Self) -> bool {
        let before = |a: Self, b: Self| a.end().is_some_and(|end| end <= b.offset);
        self.bar == other.bar && !before(self, other) && !before(other, self)
    }
}

/// What a `DEVICE_FRAME` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The common configuration.
    Common,
    /// The notification area.
    Notify {
        /// `notify_off_multiplier`: bytes per unit of a queue's `queue_notify_off`.
        multiplier: u32,
    },
    /// The ISR status.
    Isr,
    /// The block device's configuration.
    Device,
}

/// A `DEVICE_FRAME`: registers of the device, mapped.
#[derive(Debug)]
pub struct DeviceFrame<'a> {
    /// What it holds.
    pub kind: FrameKind,
    /// Where it lies.
    pub place: BarRange,
    /// Length of that BAR in bytes.
    pub bar_len: u64,
    /// Where it, or enough of its front, is mapped.
    pub window: Window<'a>,
}

/// Where the device keeps its MSI-X table and pending bits, which are deviced's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// The table; its length says how many entries there are.
    pub table: BarRange,
    /// The pending bit array.
    pub pending: BarRange,
}

/// The endpoint on which the driver provides its service; a number that means something to the platform only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub u64);

/// One capability of the window that deviced filled.
#[derive(Debug)]
pub enum Capability<'a> {
    /// Registers.
    Frame(DeviceFrame<'a>),
    /// An interrupt.
    Interrupt(InterruptGrant),
    /// Memory that the device may touch.
    Dma(DmaRegion<'a>),
    /// Where the driver serves its clients.
    Provider(Endpoint),
    /// Anything that the driver has no use for.
    Foreign,
}

/// What was handed over, checked.
#[derive(Debug)]
pub struct Authority<'a> {
    /// The registers: what [`crate::transport::pci::PciTransport`] is made from.
    pub windows: Windows<'a>,
    /// The interrupts, in the order of the window.
    pub interrupts: ArrayVec<InterruptGrant, MAX_INTERRUPTS>,
    /// The memory.
    pub dma: DmaRegion<'a>,
    /// The endpoint.
    pub provider: Endpoint,
}

impl<'a> Authority<'a> {
    /// Checks what the window holds; `msix` is `None` for a device without MSI-X.
    ///
    /// # Errors
    /// The first thing that is wrong; everything that was handed over is given up then.
    pub fn accept(msix: Option<Msix>, window: impl IntoIterator<Item = Capability<'a>>) -> Result<Self, StartupError> {
        let mut held = Held::default();
        for capability in window {
            held.take(capability)?;
        }
        held.check(msix)
    }
}

/// What was found in the window so far.
#[derive(Default)]
struct Held<'a> {
    common: Option<DeviceFrame<'a>>,
    notify: Option<(DeviceFrame<'a>, u32)>,
    isr: Option<DeviceFrame<'a>>,
    device: Option<DeviceFrame<'a>>,
    interrupts: ArrayVec<InterruptGrant, MAX_INTERRUPTS>,
    dma: Option<DmaRegion<'a>>,
    provider: Option<Endpoint>,
}

/// Fills a place that must be empty.
fn once<T>(place: &mut Option<T>, part: Part, value: T) -> Result<(), StartupError> {
    if place.is_some() {
        return Err(StartupError::Twice(part));
    }
    *place = Some(value);
    Ok(())
}

impl<'a> Held<'a> {
    fn take(&mut self, capability: Capability<'a>) -> Result<(), StartupError> {
        match capability {
            Capability::Frame(frame) => match frame.kind {
                FrameKind::Common => once(&mut self.common, Part::Common, frame),
                FrameKind::Notify { multiplier } => once(&mut self.notify, Part::Notify, (frame, multiplier)),
                FrameKind::Isr => once(&mut self.isr, Part::Isr, frame),
                FrameKind::Device => once(&mut self.device, Part::Device, frame),
            },
            Capability::Interrupt(grant) => self.interrupt(grant),
            Capability::Dma(region) => once(&mut self.dma, Part::Dma, region),
            Capability::Provider(endpoint) => once(&mut self.provider, Part::Provider, endpoint),
            Capability::Foreign => Err(StartupError::Foreign),
        }
    }

    fn interrupt(&mut self, grant: InterruptGrant) -> Result<(), StartupError> {
        for other in &self.interrupts {
            if other.badge == grant.badge {
                return Err(StartupError::SameBadge(grant.badge));
            }
            if other.vector == grant.vector {
                return Err(StartupError::SameVector(grant.vector));
            }
        }
        self.interrupts.try_push(grant).map_err(|_| StartupError::TooManyInterrupts)
    }

    fn check(self, msix: Option<Msix>) -> Result<Authority<'a>, StartupError> {
        let common = self.common.ok_or(StartupError::Missing(Part::Common))?;
        let (notify, multiplier) = self.notify.ok_or(StartupError::Missing(Part::Notify))?;
        let isr = self.isr.ok_or(StartupError::Missing(Part::Isr))?;
        let device = self.device.ok_or(StartupError::Missing(Part::Device))?;
        let dma = self.dma.ok_or(StartupError::Missing(Part::Dma))?;
        let provider = self.provider.ok_or(StartupError::Missing(Part::Provider))?;

        check_frame(Part::Common, &common, COMMON_LEN, 4)?;
        check_frame(Part::Notify, &notify, 2, 2)?;
        check_frame(Part::Isr, &isr, 1, 1)?;
        check_frame(Part::Device, &device, DEVICE_LEN, 4)?;
        check_multiplier(multiplier)?;
        check_apart(
            [(Part::Common, &common), (Part::Notify, &notify), (Part::Isr, &isr), (Part::Device, &device)],
            msix,
        )?;
        check_vectors(&self.interrupts, msix)?;
        if dma.left() == 0 {
            return Err(StartupError::TooShort { part: Part::Dma, needs: 1 });
        }
        let windows = Windows::new(common.window, notify.window, multiplier, isr.window, device.window);
        Ok(Authority { windows, interrupts: self.interrupts, dma, provider })
    }
}

/// One frame by itself: in a BAR that exists, inside it, mapped in full, long enough and aligned for its registers.
fn check_frame(part: Part, frame: &DeviceFrame<'_>, needs: u64, align: u64) -> Result<(), StartupError> {
    let BarRange { bar, offset, len } = frame.place;
    if bar >= BARS {
        return Err(StartupError::NoSuchBar { part, bar });
    }
    if frame.place.end().is_none_or(|end| end > frame.bar_len) {
        return Err(StartupError::OutsideBar(part));
    }
    // deviced may map less than a frame's length, which a device may make as large as it likes, but never more.
    if frame.window.len() < needs {
        return Err(StartupError::TooShort { part, needs });
    }
    if frame.window.len() > len {
        return Err(StartupError::MappedBeyond(part));
    }
    if !offset.is_multiple_of(align) || !(frame.window.address() as u64).is_multiple_of(align) {
        return Err(StartupError::Misaligned { part, align });
    }
    Ok(())
}

/// Zero (one address for all queues) or a power of two that keeps 16-bit writes aligned (4.1.4.4).
fn check_multiplier(multiplier: u32) -> Result<(), StartupError> {
    if multiplier == 0 || (multiplier.is_power_of_two() && multiplier != 1) {
        Ok(())
    } else {
        Err(StartupError::Multiplier(multiplier))
    }
}

/// Frames apart from one another, of one mind about their BARs, and away from what is deviced's.
fn check_apart(frames: [(Part, &DeviceFrame<'_>); 4], msix: Option<Msix>) -> Result<(), StartupError> {
    for (i, (part, frame)) in frames.iter().enumerate() {
        for (other_part, other) in &frames[..i] {
            if frame.place.bar == other.place.bar && frame.bar_len != other.bar_len {
                return Err(StartupError::BarLength { bar: frame.place.bar });
            }
            if frame.place.overlaps(other.place) {
                return Err(StartupError::Overlap(*other_part, *part));
            }
        }
        if let Some(msix) = msix
            && (frame.place.overlaps(msix.table) || frame.place.overlaps(msix.pending))
        {
            return Err(StartupError::TouchesMsix(*part));
        }
    }
    Ok(())
}

/// Vectors inside the table; none without a table.
fn check_vectors(grants: &[InterruptGrant], msix: Option<Msix>) -> Result<(), StartupError> {
    let entries = msix.map_or(0, |msix| msix.table.len / MSIX_ENTRY);
    match grants.iter().find(|grant| u64::from(grant.vector) >= entries) {
        Some(_) if msix.is_none() => Err(StartupError::InterruptWithoutMsix),
        Some(grant) => Err(StartupError::NoSuchVector(grant.vector)),
        None => Ok(()),
    }
}

/// What must be handed over, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The frame of the common configuration.
    Common,
    /// The frame of the notification area.
    Notify,
    /// The frame of the ISR status.
    Isr,
    /// The frame of the block device's configuration.
    Device,
    /// The DMA region.
    Dma,
    /// The provider endpoint.
    Provider,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Common => "common configuration frame",
            Self::Notify => "notify frame",
            Self::Isr => "ISR frame",
            Self::Device => "device configuration frame",
            Self::Dma => "DMA region",
            Self::Provider => "provider endpoint",
        })
    }
}

/// Why a window was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// It was not handed over.
    Missing(Part),
    /// It was handed over more than once.
    Twice(Part),
    /// A capability that the driver has no use for.
    Foreign,
    /// A frame in a BAR that no function has.
    NoSuchBar {
        /// The frame.
        part: Part,
        /// Its BAR.
        bar: u8,
    },
    /// A frame that does not lie inside its BAR.
    OutsideBar(Part),
    /// Two frames that disagree about the length of their BAR.
    BarLength {
        /// The BAR.
        bar: u8,
    },
    /// Too short for its registers, or too little of it is mapped, or empty.
    TooShort {
        /// What.
        part: Part,
        /// Bytes it needs.
        needs: u64,
    },
    /// A frame whose mapping is longer than itself.
    MappedBeyond(Part),
    /// A frame that does not start at a multiple of `align`, in its BAR or where it is mapped.
    Misaligned {
        /// The frame.
        part: Part,
        /// Bytes.
        align: u64,
    },
    /// Two frames with a byte in common.
    Overlap(Part, Part),
    /// A frame with a byte of the MSI-X table or of the pending bits.
    TouchesMsix(Part),
    /// A notify multiplier that is neither 0 nor an even power of two.
    Multiplier(u32),
    /// More interrupts than [`MAX_INTERRUPTS`].
    TooManyInterrupts,
    /// Two interrupts with one badge.
    SameBadge(Badge),
    /// Two interrupts with one entry of the MSI-X table.
    SameVector(u16),
    /// An interrupt beyond the end of the MSI-X table.
    NoSuchVector(u16),
    /// An interrupt of a device that has no MSI-X.
    InterruptWithoutMsix,
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(part) => write!(f, "{part}: not handed over"),
            Self::Twice(part) => write!(f, "{part}: handed over twice"),
            Self::Foreign => f.write_str("a capability of no use to this driver was handed over"),
            Self::NoSuchBar { part, bar } => write!(f, "{part}: there is no BAR {bar}"),
            Self::OutsideBar(part) => write!(f, "{part}: reaches beyond its BAR"),
            Self::BarLength { bar } => write!(f, "BAR {bar}: handed over with two lengths"),
            Self::TooShort { part, needs } => write!(f, "{part}: shorter than {needs} bytes"),
            Self::MappedBeyond(part) => write!(f, "{part}: mapped beyond its length"),
            Self::Misaligned { part, align } => write!(f, "{part}: not aligned to {align} bytes"),
            Self::Overlap(one, other) => write!(f, "{one}: overlaps the {other}"),
            Self::TouchesMsix(part) => write!(f, "{part}: touches the MSI-X table or its pending bits"),
            Self::Multiplier(n) => write!(f, "notify multiplier {n} is neither 0 nor an even power of two"),
            Self::TooManyInterrupts => write!(f, "more than {MAX_INTERRUPTS} interrupts"),
            Self::SameBadge(badge) => write!(f, "two interrupts have badge {}", badge.number()),
            Self::SameVector(vector) => write!(f, "two interrupts have vector {vector}"),
            Self::NoSuchVector(vector) => write!(f, "vector {vector} is beyond the MSI-X table"),
            Self::InterruptWithoutMsix => f.write_str("an interrupt was handed over, but the device has no MSI-X"),
        }
    }
}

impl core::error::Error for StartupError {}
