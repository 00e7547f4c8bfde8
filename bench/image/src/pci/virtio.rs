//! Virtio's vendor capabilities: where in the BARs a function keeps its registers.
//!
//! Virtio 1.2, 4.1.4 "Virtio Structure PCI Capabilities": types that are not known are passed over, and a capability may
//! be longer than is known. Which instances can be used is [`judge`]'s to say.

use super::judge::{self, Claim, Range, WindowKind};
use super::space::Space;
use super::{Bars, Msix, Refusal, Window};
use arrayvec::ArrayVec;
use pci_types::capability::{PciCapability, PciCapabilityAddress};
use pci_types::{ConfigRegionAccess, EndpointHeader};

/// Claims that are looked at; a function's list of capabilities has room for fewer.
const MOST_CLAIMS: usize = 16;

/// The capability's words, in the order of the specification: `vndr, next, len, type` - `bar, id, padding` - `offset` -
/// `length` - for notifications `notify_off_multiplier`.
struct Capability<'a> {
    space: &'a Space,
    at: PciCapabilityAddress,
}

impl Capability<'_> {
    fn word(&self, number: u16) -> u32 {
        // SAFETY: a capability's words lie inside configuration space (asserted by `Space`); reading them changes
        // nothing.
        unsafe { self.space.read(self.at.address, self.at.offset + 4 * number) }
    }

    fn claim(&self) -> Option<Claim> {
        let [_, _, capability_len, cfg_type] = self.word(0).to_le_bytes();
        let kind = WindowKind::of_type(cfg_type)?;
        let range = Range { bar: self.word(1).to_le_bytes()[0], offset: self.word(2), len: self.word(3).into() };
        let multiplier = if kind == WindowKind::Notify { self.word(4) } else { 0 };
        Some(Claim { kind, capability_len, range, multiplier })
    }
}

/// The first window of each kind that can be used.
pub(super) fn windows(
    space: &Space,
    header: &EndpointHeader,
    bars: &Bars,
    msix: Option<&Msix>,
) -> Result<ArrayVec<Window, 4>, Refusal> {
    let mut claims = ArrayVec::<Claim, MOST_CLAIMS>::new();
    for capability in header.capabilities(space) {
        if let PciCapability::Vendor(at) = capability
            && let Some(claim) = (Capability { space, at }).claim()
        {
            // What is too many is passed over.
            let _ = claims.try_push(claim);
        }
    }
    if claims.is_empty() {
        return Err(Refusal::Legacy);
    }
    let taken = [msix.map(|msix| msix.table.range()), msix.map(|msix| msix.pending.range())];
    let chosen =
        judge::first_usable(&claims, &bars.sizes(), taken).map_err(|(kind, why)| Refusal::Missing(kind, why))?;
    let window = |claim: Claim| {
        let Range { bar, offset, len } = claim.range;
        let (bar_base, bar_len) = bars.0[usize::from(bar)]?;
        // The length is 32 bits in the capability.
        Some(Window {
            kind: claim.kind,
            bar,
            bar_base,
            bar_len,
            offset,
            len: len as u32,
            notify_multiplier: claim.multiplier,
        })
    };
    Ok(chosen.into_iter().filter_map(window).collect())
}
