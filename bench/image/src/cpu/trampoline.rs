//! The first instructions of an application processor: real mode below 1 MiB, straight into long mode, into Rust.
//!
//! The code is assembled into the image and copied to [`PAGE`], where the start-up interrupt sends the processor. What
//! it needs is left at [`HANDOVER`] in the same page, for one processor at a time.

use crate::boot;
use core::arch::global_asm;
use core::mem::offset_of;

/// Where the trampoline runs; conventional memory that the firmware left free.
pub const PAGE: u64 = 0x8000;
/// Offset of the segments' limit and base in the page.
const SEGMENTS: u64 = 4;
/// Where the processor finds its [`Handover`].
const HANDOVER: u64 = PAGE + 0xf00;

/// What a starting processor needs.
#[repr(C)]
pub struct Handover {
    /// Top of its stack.
    pub stack: u64,
    /// Its number.
    pub cpu: u64,
    /// Where it goes, with the number as the first argument.
    pub entry: u64,
}

unsafe extern "C" {
    static trampoline_begin: u8;
    static trampoline_end: u8;
}

/// Copies the code to [`PAGE`].
pub fn place() {
    let begin = &raw const trampoline_begin;
    let len = (&raw const trampoline_end) as usize - begin as usize;
    assert!(len as u64 <= HANDOVER - PAGE);
    // SAFETY: the symbols bound the code in the image; the page is free conventional memory (asserted by the caller
    // against the memory map), mapped, and no processor runs in it yet.
    unsafe { core::ptr::copy_nonoverlapping(begin, PAGE as *mut u8, len) };
}

/// Leaves `handover` for the next processor. The previous one must have arrived in Rust.
pub fn hand_over(handover: Handover) {
    // SAFETY: inside the trampoline's page, aligned, and nobody reads it now.
    unsafe { (HANDOVER as *mut Handover).write_volatile(handover) };
}

global_asm!(
    r#".section .rodata.trampoline, "a", @progbits"#,
    ".balign 16",
    "trampoline_begin:",
    ".code16",
    "jmp 2f",
    // Limit and base of the boot code's segments, at a known place.
    ".org trampoline_begin + {segments}",
    ".word 23",
    ".long boot_gdt",
    "2: cli",
    "cld",
    "xor ax, ax",
    "mov ds, ax",
    "lgdtd [{page} + {segments}]",
    "mov eax, {cr4}",
    "mov cr4, eax",
    "mov eax, offset boot_pml4",
    "mov cr3, eax",
    "mov ecx, {efer}",
    "mov eax, {efer_value}",
    "xor edx, edx",
    "wrmsr",
    "mov eax, {cr0}",
    "mov cr0, eax",
    // A far jump to code:offset with a 32-bit offset, spelled out.
    ".byte 0x66, 0xea",
    ".long trampoline_long - trampoline_begin + {page}",
    ".word {code}",
    ".code64",
    "trampoline_long:",
    "mov eax, {data}",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "xor eax, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov rsp, [{handover} + {stack}]",
    "mov rdi, [{handover} + {cpu}]",
    "xor ebp, ebp",
    "call [{handover} + {entry}]",
    "ud2",
    "trampoline_end:",
    ".text",
    page = const PAGE,
    segments = const SEGMENTS,
    handover = const HANDOVER,
    stack = const offset_of!(Handover, stack),
    cpu = const offset_of!(Handover, cpu),
    entry = const offset_of!(Handover, entry),
    cr4 = const boot::CR4,
    cr0 = const boot::CR0,
    efer = const boot::EFER,
    efer_value = const boot::EFER_VALUE,
    code = const boot::CODE_SELECTOR,
    data = const boot::DATA_SELECTOR,
);
