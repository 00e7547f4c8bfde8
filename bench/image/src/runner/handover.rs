//! The role of deviced towards the driver: one block function's windows, interrupts and memory become its capabilities.
//!
//! It knows nothing of rings or requests. What it hands over is
//! checked by the driver itself ([`Authority::accept`]).
use crate::irq::{Capability as Interrupt, Target};
use crate::memory::{self, DmaRegion as DmaMemory};
use crate::msix;
use crate::pci::{BlockFunction, Window as PciWindow, WindowKind};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ptr::NonNull;
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::platform::Badge;
use drv_virtio_block::startup::{Authority, BarRange, Capability, DeviceFrame, Endpoint, FrameKind, Msix};
use drv_virtio_block::transport::pci::Window;

/// The endpoint on which the driver would serve blockd; nobody calls it here.
const PROVIDER: Endpoint = Endpoint(1);

/// What belongs to one function's driver, whichever life of it.
pub struct Property {
    function: BlockFunction,
    /// In the order of the grants.
    pub interrupts: &'static [Interrupt],
    /// For the rings.
    memory: DmaMemory,
}

impl Property {
    /// At most `vectors` interrupts, as many as the function has entries for, which are raised on `target` until they are
    /// led elsewhere, and `dma_len` bytes.
    pub fn new(function: BlockFunction, vectors: u16, target: Target, dma_len: usize) -> Result<Self, String> {
        let interrupts = route(&function, vectors, target)?;
        let memory = memory::dma(dma_len).ok_or_else(|| format!("no {dma_len} bytes of memory for the rings"))?;
        Ok(Self { function, interrupts, memory })
    }

    /// The authority over it.
    ///
    /// # Safety
    /// Nobody uses an authority that was made before, or anything made from it. If its device was left running, whoever
    /// gets this one resets it before anything is stored in the memory.
    pub unsafe fn hand_over(&self) -> Result<Authority<'static>, String> {
        let base = NonNull::new(self.memory.as_ptr()).ok_or("memory at 0")?;
        // SAFETY: valid: initialised (zeroed once), mapped one to one for the device, never given back. Aliasing: this
        // value's alone, by the caller's word. Order: the caller saw the end of whoever had it before.
        let dma = unsafe { DmaRegion::new(base, DeviceAddress(self.memory.device_address()), self.memory.len()) };
        let frames = self.function.windows.iter().filter_map(frame).map(Capability::Frame);
        let grants = self.interrupts.iter().map(|interrupt| Capability::Interrupt(grant(interrupt)));
        let rest = [Capability::Dma(dma), Capability::Provider(PROVIDER)];
        let msix = self.function.msix.map(|msix| {
            let range =
                |part: crate::pci::BarPart| BarRange { bar: part.bar, offset: part.offset.into(), len: part.len };
            Msix { table: range(msix.table), pending: range(msix.pending) }
        });
        Authority::accept(msix, frames.chain(grants).chain(rest)).map_err(|e| e.to_string())
    }
}

fn route(function: &BlockFunction, vectors: u16, target: Target) -> Result<&'static [Interrupt], String> {
    let Some(msix) = &function.msix else { return Ok(&[]) };
    let routed = (0..vectors.min(msix.entries)).map(|index| msix::route(msix, index, target));
    let routed: Result<Vec<_>, _> = routed.collect();
    Ok(routed.map_err(|e| format!("an interrupt cannot be routed: {e:?}"))?.leak())
}

fn grant(interrupt: &Interrupt) -> InterruptGrant {
    let number = interrupt.badge().trailing_zeros() as u8;
    InterruptGrant { badge: Badge::new(number).expect("a badge word has 64 bits"), vector: interrupt.index() }
}

fn frame(window: &PciWindow) -> Option<DeviceFrame<'static>> {
    let kind = match window.kind {
        WindowKind::Common => FrameKind::Common,
        WindowKind::Notify => FrameKind::Notify { multiplier: window.notify_multiplier },
        WindowKind::Isr => FrameKind::Isr,
        WindowKind::Device => FrameKind::Device,
    };
    let place = BarRange { bar: window.bar, offset: window.offset.into(), len: window.len.into() };
    let base = NonNull::new(window.address() as *mut u8)?;
    // SAFETY: registers inside a placed BAR (checked when the function was found), mapped one to one for good, and
    // used through this window alone, as what their capability says: an earlier life's are dead (`Property::hand_over`).
    let mapped = unsafe { Window::new(base, window.len.into()) };
    Some(DeviceFrame { kind, place, bar_len: window.bar_len, window: mapped })
}
