//! PCI configuration space in memory (ECAM), and the walk over the buses.

use super::Function;
use crate::acpi::ConfigurationSpace;
use alloc::vec::Vec;
use pci_types::{ConfigRegionAccess, HeaderType, PciAddress, PciHeader, PciPciBridgeHeader};

/// Bytes of a function's configuration space.
const FUNCTION_LEN: u16 = 4096;
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;
/// Vendor id that reads where no function answers.
const NOBODY: u16 = 0xffff;

/// Access to segment 0.
#[derive(Debug)]
pub(super) struct Ecam(ConfigurationSpace);

impl ConfigRegionAccess for Ecam {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: `register` stays inside the space; by contract of `new` it is mapped configuration space. A read of
        // an absent function gives all ones.
        unsafe { self.register(address, offset).read_volatile() }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // SAFETY: as in `read`; the caller answers for what the value does.
        unsafe { self.register(address, offset).write_volatile(value) };
    }
}

impl Ecam {
    /// # Safety
    /// `space` is configuration space by the firmware's word, mapped one to one, and nobody else uses it.
    pub(super) unsafe fn new(space: ConfigurationSpace) -> Self {
        Self(space)
    }

    /// Physical address of bus 0's part.
    pub(super) fn base(&self) -> u64 {
        self.0.base
    }

    fn register(&self, address: PciAddress, offset: u16) -> *mut u32 {
        assert!(self.0.buses.contains(&address.bus()) && offset < FUNCTION_LEN && offset.is_multiple_of(4));
        let place = u64::from(address.bus()) << 20
            | u64::from(address.device()) << 15
            | u64::from(address.function()) << 12
            | u64::from(offset);
        (self.0.base + place) as *mut u32
    }

    /// Every function of the root bus and of the buses behind its bridges.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        let mut buses = Vec::from([*self.0.buses.start()]);
        while let Some(bus) = buses.pop() {
            for device in 0..DEVICES {
                self.visit_device(bus, device, &mut found, &mut buses);
            }
        }
        found
    }

    fn visit_device(&self, bus: u8, device: u8, found: &mut Vec<Function>, buses: &mut Vec<u8>) {
        for number in 0..FUNCTIONS {
            let address = PciAddress::new(0, bus, device, number);
            let header = PciHeader::new(address);
            let id = header.id(self);
            if id.0 != NOBODY {
                found.push(Function { address, id });
                buses.extend(self.bus_behind(address));
            }
            if number == 0 && (id.0 == NOBODY || !header.has_multiple_functions(self)) {
                return;
            }
        }
    }

    /// The bus behind a bridge. Firmware numbers buses upwards, which also ends a walk through a lying bridge.
    fn bus_behind(&self, address: PciAddress) -> Option<u8> {
        let header = PciHeader::new(address);
        if header.header_type(self) != HeaderType::PciPciBridge {
            return None;
        }
        let bus = PciPciBridgeHeader::from_header(header, self)?.secondary_bus_number(self);
        (bus > address.bus() && self.0.buses.contains(&bus)).then_some(bus)
    }
}
