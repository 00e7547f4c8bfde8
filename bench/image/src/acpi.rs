//! The few facts that ACPI's static tables hold for this image: processors, HPET, PCI configuration space.
//!
//! No AML, no allocation. A table is accepted if its checksum holds; a missing fact is `None`, and whoever needs it
//! says so.

use crate::cpu::MAX_CPUS;
use arrayvec::ArrayVec;
use core::ops::Range;

const HEADER_LEN: usize = 36;

/// PCI Express configuration space of segment 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationSpace {
    /// Physical address of bus 0's part.
    pub base: u64,
    /// Buses that it covers.
    pub buses: core::ops::RangeInclusive<u8>,
}

/// What the tables say.
#[derive(Debug, Default)]
pub struct Platform {
    /// APIC ids of the processors that may be started, in the table's order.
    pub apic_ids: ArrayVec<u8, MAX_CPUS>,
    /// Physical address of the HPET's registers.
    pub hpet: Option<u64>,
    /// Where PCI configuration registers are.
    pub configuration_space: Option<ConfigurationSpace>,
}

impl Platform {
    /// Reads the tables that hang on the root pointer at `rsdp`.
    ///
    /// # Safety
    /// `rsdp` is what the hypervisor passed, and the tables' memory has not been written since.
    pub unsafe fn discover(rsdp: u64) -> Self {
        let mut platform = Self::default();
        // SAFETY: by contract.
        let Some(root) = (unsafe { Root::find(rsdp) }) else {
            return platform;
        };
        for address in root.addresses() {
            // SAFETY: by contract, an address in the root table leads to a table.
            let Some(table) = (unsafe { table(address) }) else {
                continue;
            };
            match &table[..4] {
                b"APIC" => platform.apic_ids = enabled_processors(table),
                b"HPET" => platform.hpet = u64_at(table, 44),
                b"MCFG" => platform.configuration_space = configuration_space(table),
                _ => {}
            }
        }
        platform
    }
}

/// The table of tables: RSDT (32-bit addresses) or XSDT (64-bit).
struct Root {
    entries: &'static [u8],
    width: usize,
}

impl Root {
    /// # Safety
    /// See [`Platform::discover`].
    unsafe fn find(rsdp: u64) -> Option<Self> {
        if rsdp == 0 {
            return None;
        }
        // SAFETY: by contract; the first 20 bytes exist in every revision.
        let pointer = unsafe { bytes(rsdp, 20) };
        if &pointer[..8] != b"RSD PTR " || checksum(pointer) != 0 {
            return None;
        }
        let (address, width) = if pointer[15] >= 2 {
            // SAFETY: revision 2 and later have 36 bytes.
            (u64_at(unsafe { bytes(rsdp, 36) }, 24)?, 8)
        } else {
            (u64::from(u32_at(pointer, 16)?), 4)
        };
        // SAFETY: by contract the root pointer leads to a table.
        let entries = unsafe { table(address) }?.get(HEADER_LEN..)?;
        Some(Self { entries, width })
    }

    fn addresses(&self) -> impl Iterator<Item = u64> {
        self.entries.chunks_exact(self.width).map(|entry| match *entry {
            [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => u64_at(entry, 0).unwrap_or_default(),
        })
    }
}

/// MADT: local APICs (type 0) that are enabled. Those with ids above 254 (type 9) need x2APIC and are left out.
fn enabled_processors(madt: &[u8]) -> ArrayVec<u8, MAX_CPUS> {
    const LOCAL_APIC: u8 = 0;
    const ENABLED: u8 = 1;
    let mut rest = madt.get(HEADER_LEN + 8..).unwrap_or_default();
    let mut ids = ArrayVec::new();
    while let [kind, len, ..] = *rest
        && (2..=rest.len()).contains(&usize::from(len))
    {
        let (entry, after) = rest.split_at(usize::from(len));
        if let [LOCAL_APIC, _, _, id, flags, ..] = *entry
            && flags & ENABLED != 0
        {
            // The rest of a table that is too long is ignored.
            let _ = ids.try_push(id);
        }
        debug_assert_eq!(kind, entry[0]);
        rest = after;
    }
    ids
}

/// MCFG: the first allocation, if it is that of segment 0.
fn configuration_space(mcfg: &[u8]) -> Option<ConfigurationSpace> {
    const FIRST: usize = HEADER_LEN + 8;
    const SEGMENT: Range<usize> = FIRST + 8..FIRST + 10;
    let base = u64_at(mcfg, FIRST)?;
    let segment = mcfg.get(SEGMENT)?;
    let [first, last] = *mcfg.get(SEGMENT.end..SEGMENT.end + 2)? else {
        return None;
    };
    (segment == [0, 0]).then_some(ConfigurationSpace { base, buses: first..=last })
}

/// The table at `address`, header included, if its checksum holds.
///
/// # Safety
/// See [`Platform::discover`].
unsafe fn table(address: u64) -> Option<&'static [u8]> {
    // SAFETY: by contract a table header.
    let header = unsafe { bytes(address, HEADER_LEN) };
    let len = u32_at(header, 4)? as usize;
    if len < HEADER_LEN {
        return None;
    }
    // SAFETY: the length is the table's own.
    let table = unsafe { bytes(address, len) };
    (checksum(table) == 0).then_some(table)
}

/// # Safety
/// `address..address + len` is memory of the tables, which nobody writes.
unsafe fn bytes(address: u64, len: usize) -> &'static [u8] {
    // SAFETY: by contract; memory is mapped one to one.
    unsafe { core::slice::from_raw_parts(address as *const u8, len) }
}

fn checksum(table: &[u8]) -> u8 {
    table.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(table: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(table.get(offset..)?.first_chunk().copied()?))
}

fn u64_at(table: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(table.get(offset..)?.first_chunk().copied()?))
}
