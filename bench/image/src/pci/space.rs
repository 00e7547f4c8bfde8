//! PCI configuration space, in memory (ECAM) or behind two I/O ports, and the walk over the buses.

use super::Function;
use crate::acpi::ConfigurationSpace;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use pci_types::{ConfigRegionAccess, HeaderType, PciAddress, PciHeader, PciPciBridgeHeader};
use x86_64::instructions::port::Port;

/// Bytes of a function's configuration space in memory.
const FUNCTION_LEN: u16 = 4096;
/// Bytes of it that the ports reach; every capability of conventional PCI lies there.
const PORT_LEN: u16 = 256;
/// The ports of configuration mechanism 1: which register, and its value.
const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;
/// Vendor id that reads where no function answers.
const NOBODY: u16 = 0xffff;

/// Access to segment 0.
#[derive(Debug)]
pub(super) enum Space {
    /// In memory, where the firmware says.
    Memory(ConfigurationSpace),
    /// Behind the ports: a machine before PCI Express, such as QEMU's `pc`. One processor at a time uses them.
    Ports,
}

impl ConfigRegionAccess for Space {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        if let Some(register) = self.register(address, offset) {
            // SAFETY: `register` stays inside the space; by contract of `new` it is mapped configuration space. A read
            // of an absent function gives all ones.
            return unsafe { register.read_volatile() };
        }
        // SAFETY: the ports are configuration space's, and this value's alone by contract of `new`.
        unsafe {
            Port::new(ADDRESS_PORT).write(port_address(address, offset));
            Port::new(DATA_PORT).read()
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        if let Some(register) = self.register(address, offset) {
            // SAFETY: as in `read`; the caller answers for what the value does.
            return unsafe { register.write_volatile(value) };
        }
        // SAFETY: as in `read`.
        unsafe {
            Port::new(ADDRESS_PORT).write(port_address(address, offset));
            Port::new(DATA_PORT).write(value);
        }
    }
}

fn port_address(address: PciAddress, offset: u16) -> u32 {
    assert!(offset < PORT_LEN && offset.is_multiple_of(4));
    let function = u32::from(address.device()) << 11 | u32::from(address.function()) << 8;
    1 << 31 | u32::from(address.bus()) << 16 | function | u32::from(offset)
}

impl Space {
    /// Configuration space in memory, or, where the firmware names none, behind the ports.
    ///
    /// # Safety
    /// `space` is configuration space by the firmware's word, mapped one to one, and nobody else uses it or the ports.
    pub(super) unsafe fn new(space: Option<ConfigurationSpace>) -> Self {
        space.map_or(Self::Ports, Self::Memory)
    }

    /// Physical address of bus 0's part, if it is in memory.
    pub(super) fn base(&self) -> Option<u64> {
        match self {
            Self::Memory(space) => Some(space.base),
            Self::Ports => None,
        }
    }

    fn buses(&self) -> RangeInclusive<u8> {
        match self {
            Self::Memory(space) => space.buses.clone(),
            Self::Ports => 0..=u8::MAX,
        }
    }

    fn register(&self, address: PciAddress, offset: u16) -> Option<*mut u32> {
        let Self::Memory(space) = self else { return None };
        assert!(space.buses.contains(&address.bus()) && offset < FUNCTION_LEN && offset.is_multiple_of(4));
        let place = u64::from(address.bus()) << 20
            | u64::from(address.device()) << 15
            | u64::from(address.function()) << 12
            | u64::from(offset);
        Some((space.base + place) as *mut u32)
    }

    /// Every function of the root bus and of the buses behind its bridges, and, if there is no virtio block device
    /// among them, of all other buses: a further root (QEMU's `pxb-pcie`) has no bridge that leads to it.
    pub(super) fn functions(&self) -> Vec<Function> {
        let (mut found, mut visited) = (Vec::new(), Vec::new());
        self.walk(*self.buses().start(), &mut found, &mut visited);
        for bus in self.buses() {
            if found.iter().any(|function: &Function| function.is_virtio_block()) {
                break;
            }
            if !visited.contains(&bus) {
                self.walk(bus, &mut found, &mut visited);
            }
        }
        found
    }

    /// Visits a root bus and the buses behind its bridges.
    fn walk(&self, root: u8, found: &mut Vec<Function>, visited: &mut Vec<u8>) {
        let mut buses = Vec::from([root]);
        while let Some(bus) = buses.pop() {
            visited.push(bus);
            for device in 0..DEVICES {
                self.visit_device(bus, device, found, &mut buses);
            }
        }
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
        (bus > address.bus() && self.buses().contains(&bus)).then_some(bus)
    }
}
