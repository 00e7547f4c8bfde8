//! Interrupt entries in assembly, and the map of vectors.
//!
//! Every one of the 256 vectors has an entry. Device lines (192 of them) and the wake-up share the lean shape: badge
//! bit, count, end of interrupt, no register but one saved. The kill is as lean and may not come back. The timer saves
//! everything, since it may call Rust. The rest leads to [`crate::fault`]. Knows what a badge is (a bit in the
//! [`PerCpu`] block that GS points at), not who waits for it.

use crate::apic;
use crate::cpu::{PerCpu, kill};
use crate::{fault, timer};
use core::arch::global_asm;
use core::mem::offset_of;

/// Vector of device line 0.
pub const FIRST_LINE: u8 = 0x30;
/// Device lines, one vector each.
pub const LINES: usize = 192;
/// Ends a halt, carries nothing.
pub const WAKE: u8 = 0xf0;
/// The local timer.
pub const TIMER: u8 = 0xf1;
/// Ends the job that the processor runs; see [`kill`](mod@crate::cpu::kill).
pub const KILL: u8 = 0xf2;
/// The local APIC's spurious interrupt: never acknowledged.
pub const SPURIOUS: u8 = 0xff;

/// Spacing of the entries in `line_entries`.
const LINE_STRIDE: usize = 64;
/// Spacing of the entries in `fault_entries`.
const FAULT_STRIDE: usize = 16;
/// Bit n set: exception n pushes an error code.
const WITH_ERROR_CODE: u32 = 0x6022_7d00;

const _: () = assert!(FIRST_LINE as usize + LINES <= WAKE as usize);

unsafe extern "C" {
    static fault_entries: u8;
    static line_entries: u8;
    static wake_entry: u8;
    static timer_entry: u8;
    static kill_entry: u8;
    static spurious_entry: u8;
}

/// Address of the code that serves `vector`.
pub fn entry(vector: u8) -> u64 {
    match vector {
        WAKE => (&raw const wake_entry) as u64,
        TIMER => (&raw const timer_entry) as u64,
        KILL => (&raw const kill_entry) as u64,
        SPURIOUS => (&raw const spurious_entry) as u64,
        FIRST_LINE..WAKE => (&raw const line_entries) as u64 + (vector - FIRST_LINE) as u64 * LINE_STRIDE as u64,
        _ => (&raw const fault_entries) as u64 + vector as u64 * FAULT_STRIDE as u64,
    }
}

global_asm!(
    // Device line n: raise bit n % 64 of this processor's badge word, count, end of interrupt.
    ".balign {line_stride}",
    "line_entries:",
    ".set line, 0",
    ".rept {lines}",
    ".balign {line_stride}",
    "lock bts qword ptr gs:[{raised}], line % 64",
    "inc qword ptr gs:[{arrivals} + 8 * line]",
    "push rax",
    "mov eax, {eoi}",
    "mov dword ptr [rax], 0",
    "pop rax",
    "iretq",
    ".set line, line + 1",
    ".endr",

    ".balign 16",
    "wake_entry:",
    "push rax",
    "mov eax, {eoi}",
    "mov dword ptr [rax], 0",
    "pop rax",
    "spurious_entry:",
    "iretq",

    // The kill, on the interruption stack, which is free again once it is left. End of interrupt first, since there
    // may be no way back. A sheltered job is left to itself: it looks when it leaves the shelter.
    ".balign 16",
    "kill_entry:",
    "push rax",
    "mov eax, {eoi}",
    "mov dword ptr [rax], 0",
    "mov rax, gs:[{job}]",
    "cmp rax, gs:[{condemned}]",
    "jne 2f",
    "cmp dword ptr gs:[{shelters}], 0",
    "je {abandon}",
    "2:",
    "pop rax",
    "iretq",

    // The timer. The processor pushed 40 bytes onto an aligned stack, nine registers make that 112.
    ".balign 16",
    "timer_entry:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "mov rdi, [rsp + 72]",
    "sub rsp, 512",
    "fxsave64 [rsp]",
    "cld",
    "call {timer_fired}",
    "fxrstor64 [rsp]",
    "add rsp, 512",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",

    // Exceptions and vectors without an owner: (vector, error code) onto the stack, then the report. Nobody returns.
    ".balign {fault_stride}",
    "fault_entries:",
    ".set vector, 0",
    ".rept 256",
    ".balign {fault_stride}",
    ".if vector >= 32 || (({with_error_code} >> (vector & 31)) & 1) == 0",
    "push 0",
    ".endif",
    "push vector",
    "jmp fault_common",
    ".set vector, vector + 1",
    ".endr",
    "fault_common:",
    "cld",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {fault}",
    "ud2",
    line_stride = const LINE_STRIDE,
    fault_stride = const FAULT_STRIDE,
    lines = const LINES,
    with_error_code = const WITH_ERROR_CODE,
    raised = const offset_of!(PerCpu, raised),
    arrivals = const offset_of!(PerCpu, arrivals),
    eoi = const apic::BASE + apic::END_OF_INTERRUPT,
    job = const offset_of!(PerCpu, job),
    condemned = const offset_of!(PerCpu, condemned),
    shelters = const offset_of!(PerCpu, shelters),
    abandon = sym kill::abandon,
    timer_fired = sym timer::fired,
    fault = sym fault::report,
);
