//! The page tables after boot: guard pages, and device memory above the 512 GiB that the boot code maps.
//!
//! Addresses are physical addresses throughout the image. Guarding splits a large page down to 4 KiB; every address
//! keeps its meaning, except the guard page, which loses it. Processors that already run may still know the old
//! translation: a guard placed then protects the processors that start later.

use crate::memory;
use core::arch::x86_64::__cpuid;
use spin::Mutex;
use x86_64::instructions::tlb;
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{PageTable, PageTableFlags as Flags, PageTableIndex};
use x86_64::{PhysAddr, VirtAddr};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

const LARGE_PAGE: u64 = 2 << 20;
const HUGE_PAGE: u64 = 1 << 30;
const TABLE: Flags = Flags::PRESENT.union(Flags::WRITABLE);
const LEAF: Flags = TABLE.union(Flags::HUGE_PAGE);
/// What one to one can reach: the lower half of 48 bits.
const LIMIT: u64 = 1 << 47;

unsafe extern "C" {
    static mut boot_pml4: PageTable;
}

/// The root table. The boot code loads it, afterwards only this module writes it.
static ROOT: Mutex<Root> = Mutex::new(Root(&raw mut boot_pml4));

struct Root(*mut PageTable);

// SAFETY: the pointer leads to a static that no processor owns.
unsafe impl Send for Root {}

impl Root {
    fn table(&mut self) -> &mut PageTable {
        // SAFETY: the table is a static of the boot code; `&mut self` of the only `Root` makes the reference unique.
        unsafe { &mut *self.0 }
    }
}

/// Takes the page at `address` away: touching it faults from now on.
pub fn guard(address: u64) {
    let mut root = ROOT.lock();
    let at = VirtAddr::new(address);
    let directory_pointers = next(&mut root.table()[at.p4_index()], None);
    let directory = next(&mut directory_pointers[at.p3_index()], Some(LARGE_PAGE));
    let pages = next(&mut directory[at.p2_index()], Some(PAGE));
    pages[at.p1_index()].set_unused();
    tlb::flush(at);
}

/// Maps `base..base + len`, memory of a device, one to one; says whether it can be reached.
pub fn map_device(base: u64, len: u64) -> bool {
    let Some(end) = base.checked_add(len).filter(|end| *end <= LIMIT) else {
        return false;
    };
    let mut root = ROOT.lock();
    let page = if has_huge_pages() { HUGE_PAGE } else { LARGE_PAGE };
    for address in (base & !(page - 1)..end).step_by(page as usize) {
        let at = VirtAddr::new(address);
        let mut entry = &mut next(&mut root.table()[at.p4_index()], None)[at.p3_index()];
        if page == LARGE_PAGE {
            entry = &mut next(entry, Some(LARGE_PAGE))[at.p2_index()];
        }
        if entry.is_unused() {
            entry.set_addr(PhysAddr::new(address), LEAF | Flags::NO_CACHE);
        }
    }
    true
}

/// Whether the processor has pages of 1 GiB; the boot code looked at the same bit.
fn has_huge_pages() -> bool {
    __cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// The table behind `entry`: as it is, or new and empty, or, if the entry is a leaf, split into leaves of `split` bytes.
fn next(entry: &mut PageTableEntry, split: Option<u64>) -> &mut PageTable {
    let leaf = entry.flags().contains(Flags::HUGE_PAGE);
    if entry.is_unused() || leaf {
        let base = entry.addr();
        let table = new_table();
        if let Some(step) = split.filter(|_| leaf) {
            let flags = if step == PAGE { TABLE } else { LEAF };
            for n in 0..512_u16 {
                table[PageTableIndex::new(n)].set_addr(base + u64::from(n) * step, flags);
            }
        }
        entry.set_addr(PhysAddr::new(core::ptr::from_mut(table) as u64), TABLE);
    }
    // SAFETY: an entry without the large-page bit names a table, which is mapped one to one; the borrow of the entry
    // keeps it unique, since each table hangs on one entry.
    unsafe { &mut *(entry.addr().as_u64() as *mut PageTable) }
}

fn new_table() -> &'static mut PageTable {
    let frame = memory::dma(PAGE as usize).expect("memory for a page table");
    // SAFETY: a fresh, zeroed, aligned page, which is an empty table; regions are never freed.
    unsafe { &mut *(frame.device_address() as *mut PageTable) }
}
