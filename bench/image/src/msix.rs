//! MSI-X table entries: the other end of an interrupt capability, at the device.
//!
//! The table belongs to this side, never to the driver, which learns an entry's index and nothing else. Written here:
//! the message (which processor, which vector) and the mask bit. Sources: PCI Express, "MSI-X Table Structure".

use crate::apic;
use crate::cpu::PerCpu;
use crate::irq::{Capability, Line, LineError, Target};
use crate::pci::Msix;

/// Bytes of an entry.
const ENTRY_LEN: u64 = 16;
const ADDRESS_LOW: u64 = 0;
const ADDRESS_HIGH: u64 = 4;
const DATA: u64 = 8;
const CONTROL: u64 = 12;
const MASKED: u32 = 1;

/// Why an interrupt could not be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The table has no such entry.
    NoSuchEntry,
    /// The entry is routed already, or no vector is left.
    Line(LineError),
}

impl From<LineError> for RouteError {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

/// Routes entry `index` of a function's table to `target` and unmasks it.
///
/// # Errors
/// If the table has no such entry, it is routed already, or no vector is left.
pub fn route(msix: &Msix, index: u16, target: Target) -> Result<Capability, RouteError> {
    let entry = Entry::of(msix, index).ok_or(RouteError::NoSuchEntry)?;
    let line = Line::allocate(entry.address)?;
    entry.mask();
    let capability = Capability::new(entry, line, target);
    capability.unmask();
    Ok(capability)
}

/// Masks the whole table: nothing is delivered that nobody routed.
pub fn mask_all(msix: &Msix) {
    for index in 0..msix.entries {
        // Dropping an entry masks it.
        drop(Entry::of(msix, index));
    }
}

/// One entry of a function's table; dropping it masks the interrupt.
#[derive(Debug)]
pub struct Entry {
    address: u64,
    index: u16,
}

impl Entry {
    fn of(msix: &Msix, index: u16) -> Option<Self> {
        let address = msix.table.address() + u64::from(index) * ENTRY_LEN;
        (index < msix.entries).then_some(Self { address, index })
    }

    pub fn index(&self) -> u16 {
        self.index
    }

    /// Has the entry raise `vector` on `target`. A message is changed only while its entry is masked, which is left as
    /// it was.
    pub fn aim(&self, target: Target, vector: u8) {
        let apic_id = match target {
            Target::One(cpu) => PerCpu::of(cpu).apic_id(),
            Target::Everyone => apic::EVERYONE,
        };
        let (address, data) = apic::message(apic_id, vector);
        let control = self.read(CONTROL);
        self.mask();
        self.write(ADDRESS_LOW, address as u32);
        self.write(ADDRESS_HIGH, (address >> 32) as u32);
        self.write(DATA, data);
        self.write(CONTROL, control);
    }

    pub fn mask(&self) {
        self.write(CONTROL, self.read(CONTROL) | MASKED);
        // Reading back makes sure that the device has seen the write before the caller goes on.
        self.read(CONTROL);
    }

    pub fn unmask(&self) {
        self.write(CONTROL, self.read(CONTROL) & !MASKED);
    }

    fn read(&self, field: u64) -> u32 {
        // SAFETY: the table lies inside its BAR (checked when the function was found), which is mapped and reached by
        // this module alone; `index` is below the table's size; fields are aligned.
        unsafe { ((self.address + field) as *const u32).read_volatile() }
    }

    fn write(&self, field: u64, value: u32) {
        // SAFETY: as in `read`; the message written leads to an installed interrupt entry.
        unsafe { ((self.address + field) as *mut u32).write_volatile(value) };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.mask();
    }
}
