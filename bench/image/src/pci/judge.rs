//! Which of a function's virtio capabilities can be used. Numbers only: no register is touched here.
//!
//! A function may offer a structure several times, and a driver takes the first that it can use (virtio 1.2, 4.1.4);
//! QEMU's `modern-pio-notify=on`, for one, puts a second notification structure into a BAR of I/O ports. So an instance
//! that cannot be used is passed over, and matters only if there is no other of its kind. What can be used is what the
//! driver accepts: a wrong one that is handed over would cost the whole device.

/// BARs of a function are numbered from 0 to one less than this.
pub const BARS: usize = 6;
/// Bytes of `struct virtio_pci_cap`.
const CAPABILITY_LEN: u8 = 16;
/// Bytes of `struct virtio_pci_notify_cap`.
const NOTIFY_CAPABILITY_LEN: u8 = 20;

/// What a virtio window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Common configuration.
    Common,
    /// Doorbells.
    Notify,
    /// Interrupt status, for `INTx`.
    Isr,
    /// Device-specific configuration.
    Device,
}

impl WindowKind {
    /// Every kind; a function needs one of each.
    pub const ALL: [Self; 4] = [Self::Common, Self::Notify, Self::Isr, Self::Device];

    /// The kind with this `cfg_type`, if the driver has a use for it.
    pub fn of_type(cfg_type: u8) -> Option<Self> {
        Self::ALL.into_iter().zip(1..).find(|(_, number)| *number == cfg_type).map(|(kind, _)| kind)
    }

    /// Least bytes of the capability, least bytes of the window, and what its offset is a multiple of.
    fn needs(self) -> (u8, u64, u64) {
        match self {
            // Up to and including `queue_device` (4.1.4.3).
            Self::Common => (CAPABILITY_LEN, 56, 4),
            Self::Notify => (NOTIFY_CAPABILITY_LEN, 2, 2),
            Self::Isr => (CAPABILITY_LEN, 1, 1),
            // The capacity (5.2.4).
            Self::Device => (CAPABILITY_LEN, 8, 4),
        }
    }
}

/// A range of bytes of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Number of the BAR.
    pub bar: u8,
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub len: u64,
}

impl Range {
    fn end(self) -> u64 {
        u64::from(self.offset).saturating_add(self.len)
    }

    fn overlaps(self, other: Self) -> bool {
        self.bar == other.bar && u64::from(self.offset) < other.end() && u64::from(other.offset) < self.end()
    }
}

/// What a capability claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub kind: WindowKind,
    /// Bytes of the capability itself.
    pub capability_len: u8,
    /// Where the window lies.
    pub range: Range,
    /// Bytes between two queues' doorbells ([`WindowKind::Notify`]); 0 otherwise.
    pub multiplier: u32,
}

/// Why an instance of a capability cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The capability is too short for its kind.
    ShortCapability,
    /// The BAR's number is reserved, or it is absent, not placed, or no memory.
    NoSuchBar(u8),
    /// The structure ends behind its BAR.
    BehindBar(u8),
    /// The structure has fewer bytes than the registers in it.
    ShortWindow,
    /// The structure's registers would not be aligned.
    Misaligned,
    /// Neither 0 nor a power of two from 2 on (4.1.4.4).
    Multiplier(u32),
    /// It shares bytes with a structure that is used already, or with the MSI-X table or pending bits.
    Overlaps,
}

impl core::fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ShortCapability => write!(formatter, "the capability is too short"),
            Self::NoSuchBar(bar) => write!(formatter, "it names BAR {bar}, which is not memory or not placed"),
            Self::BehindBar(bar) => write!(formatter, "it claims more of BAR {bar} than there is"),
            Self::ShortWindow => write!(formatter, "it is too short for its registers"),
            Self::Misaligned => write!(formatter, "its registers are not aligned"),
            Self::Multiplier(multiplier) => write!(formatter, "its notify_off_multiplier is {multiplier}"),
            Self::Overlaps => write!(formatter, "it overlaps another structure"),
        }
    }
}

/// Whether `range` lies inside one of `bars`, each of which has a length if it is memory that was placed.
pub fn inside(range: Range, bars: &[Option<u64>; BARS]) -> Result<(), Unusable> {
    let bar_len = bars.get(usize::from(range.bar)).copied().flatten().ok_or(Unusable::NoSuchBar(range.bar))?;
    if range.end() > bar_len { Err(Unusable::BehindBar(range.bar)) } else { Ok(()) }
}

/// Whether a window can be used beside those ranges that are taken.
pub fn usable(claim: &Claim, bars: &[Option<u64>; BARS], taken: &[Range]) -> Result<(), Unusable> {
    let (capability_len, window_len, align) = claim.kind.needs();
    if claim.capability_len < capability_len {
        return Err(Unusable::ShortCapability);
    }
    inside(claim.range, bars)?;
    if claim.range.len < window_len {
        return Err(Unusable::ShortWindow);
    }
    if !u64::from(claim.range.offset).is_multiple_of(align) {
        return Err(Unusable::Misaligned);
    }
    if claim.multiplier != 0 && (claim.multiplier == 1 || !claim.multiplier.is_power_of_two()) {
        return Err(Unusable::Multiplier(claim.multiplier));
    }
    if taken.iter().any(|range| range.overlaps(claim.range)) { Err(Unusable::Overlaps) } else { Ok(()) }
}

/// The first claim of each kind that can be used, in the order of [`WindowKind::ALL`]; `taken` is the MSI-X table and its
/// pending bits.
///
/// # Errors
/// A kind of which none can be used, and what is wrong with the first one, if there is one at all.
pub fn first_usable(
    claims: &[Claim],
    bars: &[Option<u64>; BARS],
    taken: [Option<Range>; 2],
) -> Result<[Claim; 4], (WindowKind, Option<Unusable>)> {
    let mut used = [taken[0], taken[1], None, None, None, None];
    let mut chosen = [None; 4];
    for claim in claims {
        let place = claim.kind as usize;
        let ranges = used.map(|range| range.unwrap_or(Range { bar: u8::MAX, offset: 0, len: 0 }));
        if chosen[place].is_none() && usable(claim, bars, &ranges).is_ok() {
            chosen[place] = Some(*claim);
            used[2 + place] = Some(claim.range);
        }
    }
    let ranges = used.map(|range| range.unwrap_or(Range { bar: u8::MAX, offset: 0, len: 0 }));
    let lacking = |kind: WindowKind| {
        let first = claims.iter().find(|claim| claim.kind == kind);
        (kind, first.and_then(|claim| usable(claim, bars, &ranges).err()))
    };
    let [common, notify, isr, device] = WindowKind::ALL;
    Ok([
        chosen[0].ok_or_else(|| lacking(common))?,
        chosen[1].ok_or_else(|| lacking(notify))?,
        chosen[2].ok_or_else(|| lacking(isr))?,
        chosen[3].ok_or_else(|| lacking(device))?,
    ])
}
