//! The role of deviced: find virtio block functions, check what they claim, prepare them, describe them plainly.
//!
//! The driver gets windows into BARs and interrupt capabilities; it never sees configuration space. Placement is the
//! firmware's: BARs are taken where they lie. Everything a function says about itself is checked here against its BARs'
//! sizes: a structure that cannot be used is passed over ([`judge`]), and a function without a structure that the driver
//! needs is refused with the reason.

mod judge;
mod space;
mod virtio;

use crate::acpi::ConfigurationSpace;
use crate::{msix, paging};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;
use pci_types::capability::{MsixCapability, PciCapability};
use pci_types::{Bar, CommandRegister, EndpointHeader, PciHeader};
use space::Space;

pub use judge::{Unusable, WindowKind};
pub use pci_types::PciAddress;

const VIRTIO_VENDOR: u16 = 0x1af4;
const BLOCK: u16 = 0x1042;
const BLOCK_TRANSITIONAL: u16 = 0x1001;
/// Bytes of an MSI-X table entry.
const MSIX_ENTRY_LEN: u64 = 16;

/// A function on the bus, for lists.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor and device.
    pub id: (u16, u16),
}

impl Function {
    /// Whether this is a virtio block device, modern or transitional.
    pub fn is_virtio_block(self) -> bool {
        matches!(self.id, (VIRTIO_VENDOR, BLOCK | BLOCK_TRANSITIONAL))
    }
}

/// A virtio block function, prepared: it decodes memory, masters the bus, has `INTx` off and MSI-X on with every entry
/// masked.
#[derive(Debug)]
pub struct BlockFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Device id: 0x1042, or 0x1001 for a transitional one.
    pub device_id: u16,
    /// Its virtio windows, the first of each kind that can be used.
    pub windows: ArrayVec<Window, 4>,
    /// Its message-signalled interrupts, if it has any.
    pub msix: Option<Msix>,
}

/// Registers in a BAR. Invariant: `offset + len <= bar_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// What it holds.
    pub kind: WindowKind,
    /// Number of the BAR.
    pub bar: u8,
    /// Physical address of the BAR; memory is mapped one to one.
    pub bar_base: u64,
    /// Size of the BAR.
    pub bar_len: u64,
    /// First byte of the window in the BAR.
    pub offset: u32,
    /// Bytes of the window.
    pub len: u32,
    /// Bytes between two queues' doorbells ([`WindowKind::Notify`]); 0 otherwise.
    pub notify_multiplier: u32,
}

impl Window {
    /// Physical address of the window.
    pub fn address(&self) -> u64 {
        self.bar_base + u64::from(self.offset)
    }
}

/// A part of a BAR. Invariant: it ends inside the BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarPart {
    /// Number of the BAR.
    pub bar: u8,
    /// Physical address of the BAR.
    pub bar_base: u64,
    /// First byte in the BAR.
    pub offset: u32,
    /// Bytes.
    pub len: u64,
}

impl BarPart {
    /// Physical address of the part.
    pub fn address(&self) -> u64 {
        self.bar_base + u64::from(self.offset)
    }

    fn range(&self) -> judge::Range {
        judge::Range { bar: self.bar, offset: self.offset, len: self.len }
    }
}

/// A function's MSI-X structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Entries in the table.
    pub entries: u16,
    /// The table, 16 bytes per entry.
    pub table: BarPart,
    /// The pending bits, 8 bytes per 64 entries.
    pub pending: BarPart,
}

/// Why a function was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no endpoint.
    NotAnEndpoint,
    /// It has none of the structures of virtio 1: a legacy device.
    Legacy,
    /// There is no virtio window of this kind, or none that can be used; what is wrong with the first one then.
    Missing(WindowKind, Option<Unusable>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnEndpoint => write!(formatter, "is no endpoint"),
            Self::Legacy => write!(
                formatter,
                "is a legacy device (before virtio 1.0), which this driver does not drive: give it disable-modern=off"
            ),
            Self::Missing(kind, None) => write!(formatter, "has no {kind:?} structure"),
            Self::Missing(kind, Some(why)) => write!(formatter, "has no {kind:?} structure that can be used: {why}"),
        }
    }
}

/// The buses, as seen through configuration space.
#[derive(Debug)]
pub struct Pci(Space);

impl Pci {
    /// Takes configuration space over.
    ///
    /// # Safety
    /// `space` is what the firmware states, and nobody else uses it, or the ports that stand for it where there is none.
    pub unsafe fn new(space: Option<ConfigurationSpace>) -> Self {
        // SAFETY: by contract.
        Self(unsafe { Space::new(space) })
    }

    /// Where configuration space begins, if it is in memory, for a driver that brings its own way of reading it.
    pub fn base(&self) -> Option<u64> {
        self.0.base()
    }

    /// Every function on every bus that the firmware numbered.
    pub fn functions(&self) -> Vec<Function> {
        self.0.functions()
    }

    /// Prepares a function and describes it.
    ///
    /// # Errors
    /// The [`Refusal`], if what the function states about itself does not hold.
    pub fn block_function(&self, function: Function) -> Result<BlockFunction, Refusal> {
        let header = PciHeader::new(function.address);
        let mut header = EndpointHeader::from_header(header, &self.0).ok_or(Refusal::NotAnEndpoint)?;
        let bars = self.probe_bars(&mut header);
        // As with virtio's structures, the first that can be used.
        let found = header.capabilities(&self.0).find_map(|capability| match capability {
            PciCapability::MsiX(capability) => Some((capability, describe_msix(&capability, &bars).ok()?)),
            _ => None,
        });
        let msix = found.as_ref().map(|(_, msix)| *msix);
        let windows = virtio::windows(&self.0, &header, &bars, msix.as_ref())?;
        header.update_command(&self.0, |command| {
            command
                | CommandRegister::MEMORY_ENABLE
                | CommandRegister::BUS_MASTER_ENABLE
                | CommandRegister::INTERRUPT_DISABLE
        });
        if let Some((mut capability, msix)) = found {
            msix::mask_all(&msix);
            capability.set_function_mask(false, &self.0);
            capability.set_enabled(true, &self.0);
        }
        Ok(BlockFunction { address: function.address, device_id: function.id.1, windows, msix })
    }

    /// Sizes the BARs. Decoding is off meanwhile, because the probe moves them.
    fn probe_bars(&self, header: &mut EndpointHeader) -> Bars {
        header.update_command(&self.0, |command| {
            command & !(CommandRegister::MEMORY_ENABLE | CommandRegister::IO_ENABLE)
        });
        let mut bars = Bars::default();
        let mut slot = 0;
        while slot < judge::BARS {
            let bar = header.bar(slot as u8, &self.0);
            bars.0[slot] = match bar {
                Some(Bar::Memory32 { address, size, .. }) => placed(u64::from(address), u64::from(size)),
                Some(Bar::Memory64 { address, size, .. }) => placed(address, size),
                Some(Bar::Io { .. }) | None => None,
            };
            slot += if matches!(bar, Some(Bar::Memory64 { .. })) { 2 } else { 1 };
        }
        bars
    }
}

/// A BAR that the firmware placed and that could be mapped: base and length.
fn placed(base: u64, len: u64) -> Option<(u64, u64)> {
    (base != 0 && paging::map_device(base, len)).then_some((base, len))
}

/// A function's memory BARs.
#[derive(Debug, Default)]
struct Bars([Option<(u64, u64)>; judge::BARS]);

impl Bars {
    fn sizes(&self) -> [Option<u64>; judge::BARS] {
        self.0.map(|bar| bar.map(|(_, len)| len))
    }

    fn part(&self, bar: u8, offset: u32, len: u64) -> Result<BarPart, Unusable> {
        judge::inside(judge::Range { bar, offset, len }, &self.sizes())?;
        let (bar_base, _) = self.0[usize::from(bar)].ok_or(Unusable::NoSuchBar(bar))?;
        Ok(BarPart { bar, bar_base, offset, len })
    }
}

fn describe_msix(capability: &MsixCapability, bars: &Bars) -> Result<Msix, Unusable> {
    let entries = capability.table_size();
    let table_len = u64::from(entries) * MSIX_ENTRY_LEN;
    let pending_len = u64::from(entries.div_ceil(64)) * 8;
    Ok(Msix {
        entries,
        table: bars.part(capability.table_bar(), capability.table_offset(), table_len)?,
        pending: bars.part(capability.pba_bar(), capability.pba_offset(), pending_len)?,
    })
}
