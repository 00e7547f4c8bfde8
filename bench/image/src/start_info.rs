//! What the hypervisor hands over at boot: memory map, command line, address of the ACPI tables.
//!
//! The structure is Xen's `hvm_start_info` (PVH), version 1. It is read once; only the command line stays where it is,
//! in memory that is never handed out (checked).

use crate::memory::{FLOOR, MAX_REGIONS, Region};
use arrayvec::ArrayVec;
use core::ffi::{CStr, c_char};

const MAGIC: u32 = 0x336e_c578;
/// Type of a memory map entry that says: usable.
const USABLE: u32 = 1;

#[repr(C)]
struct Raw {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawRegion {
    base: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

/// The hypervisor's word, checked for shape.
pub struct StartInfo {
    /// Usable memory.
    pub regions: ArrayVec<Region, MAX_REGIONS>,
    /// The text after QEMU's `-append`.
    pub command_line: &'static str,
    /// Physical address of the ACPI root pointer; 0 if there is none.
    pub rsdp: u64,
}

impl StartInfo {
    /// Reads the structure at `address`.
    ///
    /// # Safety
    /// `address` is the value that the PVH entry received, and the memory it leads to is untouched since.
    pub unsafe fn read(address: u64) -> Self {
        // SAFETY: by contract a `Raw`, mapped one to one.
        let raw = unsafe { &*(address as *const Raw) };
        assert_eq!(raw.magic, MAGIC, "not started through PVH");
        assert!(raw.version >= 1, "the hypervisor passes no memory map");
        assert!(raw.command_line < FLOOR, "the command line lies in memory that will be handed out");
        // SAFETY: by contract an array of that many entries, which stays.
        let map =
            unsafe { core::slice::from_raw_parts(raw.memory_map as *const RawRegion, raw.memory_map_entries as usize) };
        let regions = map.iter().filter(|entry| entry.kind == USABLE);
        let regions = regions.filter_map(|entry| Region::new(entry.base, entry.len)).take(MAX_REGIONS).collect();
        // SAFETY: by contract null or a string that ends with zero and stays.
        let command_line = unsafe { text(raw.command_line as *const c_char) };
        Self { regions, command_line, rsdp: raw.rsdp }
    }
}

/// # Safety
/// `text` is null or leads to a string that ends with zero and is never written again.
unsafe fn text(text: *const c_char) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(text) }.to_str().expect("the command line is UTF-8")
}
