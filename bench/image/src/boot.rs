//! From QEMU's `-kernel` to Rust: PVH entry in 32-bit mode, then long mode, a stack and [`crate::image_main`].
//!
//! Knows neither devices nor the memory map; it carries the address of `hvm_start_info` on and nothing else.
//! Invariants on arrival in Rust: interrupts off, the lowest 512 GiB mapped one to one with 1 GiB pages (2 MiB pages
//! where the processor has no larger ones), SSE on (the precompiled `core` uses it), a stack of [`STACK_LEN`] bytes, flat
//! segments from `boot_gdt`.
//! The application processors come through [`crate::cpu::trampoline`] and reuse the page tables and `boot_gdt`.
//!
//! The page tables are data, not code: `boot_pdpt` is spelled out by the assembler. Only those for 2 MiB pages are filled
//! in here. A processor that cannot run the image is refused with a result line, since nothing else works yet.

use crate::exit::{self, Exit};
use core::arch::global_asm;

/// Bytes of the boot processor's stack; its lowest page becomes the guard.
pub const STACK_LEN: usize = 1024 * 1024;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
pub const CR4: u32 = 0x620;
/// CR0: paging, write protection, native FPU errors, protected mode.
pub const CR0: u32 = 0x8001_0033;
/// The extended feature register and the bits set in it: long mode, no-execute.
pub const EFER: u32 = 0xc000_0080;
/// See [`EFER`].
pub const EFER_VALUE: u32 = 0x900;
/// Selector of the 64-bit code segment in `boot_gdt`.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the data segment in `boot_gdt`.
pub const DATA_SELECTOR: u16 = 0x10;

unsafe extern "C" {
    /// Lowest byte of the boot processor's stack.
    static boot_stack: u8;
}

/// Lowest address of the boot processor's stack.
pub fn stack_bottom() -> u64 {
    (&raw const boot_stack) as u64
}

global_asm!(
    // The note by which QEMU finds the 32-bit entry: name "Xen", type 18 (XEN_ELFNOTE_PHYS32_ENTRY).
    r#".section .note.Xen, "a", @note"#,
    ".balign 4",
    ".long 4, 8, 18",
    r#".asciz "Xen""#,
    ".quad pvh_entry",

    // Entry: ebx holds hvm_start_info, paging is off, segments are flat, there is no stack.
    r#".section .boot, "ax", @progbits"#,
    ".code32",
    ".global pvh_entry",
    "pvh_entry:",
    "cli",
    "cld",
    "mov esp, offset boot_stack + {stack_len}",
    "mov edi, ebx",
    "mov eax, 0x80000000",
    "cpuid",
    "mov esi, offset boot_no_long_mode",
    "cmp eax, 0x80000001",
    "jb 2f",
    "mov eax, 0x80000001",
    "cpuid",
    "bt edx, 29",
    "jnc 2f",
    "mov esi, offset boot_no_execute_disable",
    "bt edx, 20",
    "jnc 2f",
    "bt edx, 26",
    "jc 9f",

    // No 1 GiB pages: entry n of boot_pds maps 2n MiB, and entry n of boot_pdpt leads to the nth page of boot_pds.
    "mov ebx, offset boot_pds",
    "mov eax, 0x83",
    "xor edx, edx",
    "mov ecx, 512 * 512",
    "7: mov [ebx], eax",
    "mov [ebx + 4], edx",
    "add ebx, 8",
    "add eax, 0x200000",
    "adc edx, 0",
    "dec ecx",
    "jnz 7b",
    "mov ebx, offset boot_pdpt",
    "mov eax, offset boot_pds + 3",
    "mov ecx, 512",
    "8: mov [ebx], eax",
    "mov dword ptr [ebx + 4], 0",
    "add ebx, 8",
    "add eax, 0x1000",
    "dec ecx",
    "jnz 8b",

    "9: mov eax, {cr4}",
    "mov cr4, eax",
    "mov eax, offset boot_pml4",
    "mov cr3, eax",
    "mov ecx, {efer}",
    "mov eax, {efer_value}",
    "xor edx, edx",
    "wrmsr",
    "mov eax, {cr0}",
    "mov cr0, eax",
    "lgdt [boot_gdt_pointer]",
    "push {code}",
    "mov eax, offset boot_long_mode",
    "push eax",
    "retf",

    // The line at esi goes to the first serial port, and the machine ends.
    "2:",
    "mov dx, 0x3f8",
    "3: lodsb",
    "test al, al",
    "jz 5f",
    "out dx, al",
    "jmp 3b",
    "5:",
    "mov eax, {failure}",
    "mov dx, {exit_port}",
    "out dx, eax",
    "4: hlt",
    "jmp 4b",

    ".code64",
    "boot_long_mode:",
    "mov eax, {data}",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "xor eax, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov esp, offset boot_stack + {stack_len}",
    "xor ebp, ebp",
    "mov edi, edi",
    "call {main}",
    "ud2",

    r#".section .rodata.boot, "a", @progbits"#,
    "boot_no_long_mode:",
    r#".asciz "@drv {{\"failed\":{{\"text\":\"this processor has no 64-bit mode: use -cpu max\"}}}}\n""#,
    "boot_no_execute_disable:",
    r#".asciz "@drv {{\"failed\":{{\"text\":\"this processor has no no-execute pages (nx): use -cpu max\"}}}}\n""#,
    ".balign 8",
    ".global boot_gdt",
    "boot_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "boot_gdt_pointer: .word 23",
    ".quad boot_gdt",

    // Present and writable everywhere; accessed and dirty are the processor's to set. Entry n of boot_pdpt maps n GiB.
    r#".section .data.boot, "aw", @progbits"#,
    ".balign 4096",
    ".global boot_pml4",
    "boot_pml4: .quad boot_pdpt + 3",
    ".fill 511, 8, 0",
    "boot_pdpt:",
    ".set gib, 0",
    ".rept 512",
    ".quad (gib << 30) + 0x83",
    ".set gib, gib + 1",
    ".endr",

    r#".section .bss.boot, "aw", @nobits"#,
    ".balign 4096",
    ".global boot_stack",
    "boot_stack: .skip {stack_len}",
    "boot_pds: .skip 512 * 4096",
    ".text",
    stack_len = const STACK_LEN,
    cr4 = const CR4,
    cr0 = const CR0,
    efer = const EFER,
    efer_value = const EFER_VALUE,
    code = const CODE_SELECTOR,
    data = const DATA_SELECTOR,
    failure = const Exit::Failure as u32,
    exit_port = const exit::PORT,
    main = sym crate::image_main,
);
