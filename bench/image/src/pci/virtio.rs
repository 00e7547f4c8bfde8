//! Virtio's vendor capabilities: where in the BARs a function keeps its registers.
//!
//! Virtio 1.2, 4.1.4 "Virtio Structure PCI Capabilities": the first capability of each kind counts, types that are not
//! known are passed over, and a capability may be longer than is known.

use super::ecam::Ecam;
use super::{Bars, Refusal, Window, WindowKind};
use arrayvec::ArrayVec;
use pci_types::capability::{PciCapability, PciCapabilityAddress};
use pci_types::{ConfigRegionAccess, EndpointHeader};

/// Bytes of `struct virtio_pci_cap`.
const CAPABILITY_LEN: u8 = 16;
/// Bytes of `struct virtio_pci_notify_cap`.
const NOTIFY_CAPABILITY_LEN: u8 = 20;
/// BAR numbers from here on are reserved; such a capability is ignored.
const FIRST_RESERVED_BAR: u8 = 6;

/// The capability's words, in the order of the specification: `vndr, next, len, type` - `bar, id, padding` - `offset` -
/// `length` - for notifications `notify_off_multiplier`.
struct Capability<'a> {
    space: &'a Ecam,
    at: PciCapabilityAddress,
}

impl Capability<'_> {
    fn word(&self, number: u16) -> u32 {
        // SAFETY: a capability's words lie inside configuration space (asserted by `Ecam`); reading them changes nothing.
        unsafe { self.space.read(self.at.address, self.at.offset + 4 * number) }
    }

    fn window(&self, bars: &Bars) -> Option<Result<Window, Refusal>> {
        let [_, _, len, kind] = self.word(0).to_le_bytes();
        let bar = self.word(1).to_le_bytes()[0];
        let (kind, least) = match kind {
            1 => (WindowKind::Common, CAPABILITY_LEN),
            2 => (WindowKind::Notify, NOTIFY_CAPABILITY_LEN),
            3 => (WindowKind::Isr, CAPABILITY_LEN),
            4 => (WindowKind::Device, CAPABILITY_LEN),
            _ => return None,
        };
        if len < least || bar >= FIRST_RESERVED_BAR {
            return None;
        }
        let (offset, length) = (self.word(2), self.word(3));
        let notify_multiplier = if kind == WindowKind::Notify { self.word(4) } else { 0 };
        Some(bars.check(bar, offset, u64::from(length)).map(|(bar_base, bar_len)| Window {
            kind,
            bar,
            bar_base,
            bar_len,
            offset,
            len: length,
            notify_multiplier,
        }))
    }
}

/// The first window of each kind.
pub(super) fn windows(space: &Ecam, header: &EndpointHeader, bars: &Bars) -> Result<ArrayVec<Window, 4>, Refusal> {
    let mut windows = ArrayVec::<Window, 4>::new();
    for capability in header.capabilities(space) {
        let PciCapability::Vendor(at) = capability else {
            continue;
        };
        let Some(window) = (Capability { space, at }).window(bars) else {
            continue;
        };
        let window = window?;
        if windows.iter().all(|known| known.kind != window.kind) {
            windows.push(window);
        }
    }
    for kind in [WindowKind::Common, WindowKind::Notify, WindowKind::Isr, WindowKind::Device] {
        if windows.iter().all(|window| window.kind != kind) {
            return Err(Refusal::Missing(kind));
        }
    }
    Ok(windows)
}
