//! The symbols that the compiler calls without being asked: memory routines and the unwinder's two.
//!
//! Written in assembly, so that the optimiser cannot turn a routine's loop into a call of itself. They are counted with
//! the driver when instructions are measured, therefore no `rep` (one counted instruction per iteration): up to 32
//! bytes without a loop, above that 32 bytes per iteration. Every path loads before it stores, which makes the short
//! paths of `memcpy` valid for `memmove` too.

use core::arch::naked_asm;

/// `memcpy` of the C standard.
///
/// # Safety
/// As in C: both ranges valid for `len` bytes and disjoint.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 32",
        "ja 3f",
        "cmp rdx, 16",
        "jae 2f",
        "cmp edx, 8",
        "jae 4f",
        "cmp edx, 4",
        "jae 5f",
        "test edx, edx",
        "je 6f",
        // 1 to 3 bytes: first, middle, last.
        "mov r8d, edx",
        "shr r8d, 1",
        "movzx ecx, byte ptr [rsi]",
        "movzx r9d, byte ptr [rsi + r8]",
        "movzx r10d, byte ptr [rsi + rdx - 1]",
        "mov [rdi], cl",
        "mov [rdi + r8], r9b",
        "mov [rdi + rdx - 1], r10b",
        "6: ret",
        // 4 to 7, 8 to 15, 16 to 32 bytes: two overlapping halves.
        "5: mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "4: mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "2: movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        // More: the last 32 bytes are loaded first and stored last, so that any length ends without a tail loop.
        "3: movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 32]",
        "7: movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "add rsi, 32",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "add rdi, 32",
        "cmp rdi, r8",
        "jb 7b",
        "movups [r8], xmm2",
        "movups [r8 + 16], xmm3",
        "ret",
    )
}

/// `memmove` of the C standard.
///
/// # Safety
/// As in C: both ranges valid for `len` bytes; they may overlap.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    naked_asm!(
        // Forward is right unless `to` lies inside the source; the short paths of memcpy are right always.
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jae {memcpy}",
        "cmp rdx, 32",
        "jbe {memcpy}",
        // Backward: the first 32 bytes are loaded first and stored last.
        "mov rax, rdi",
        "movups xmm2, [rsi]",
        "movups xmm3, [rsi + 16]",
        "2: movups xmm0, [rsi + rdx - 16]",
        "movups xmm1, [rsi + rdx - 32]",
        "movups [rdi + rdx - 16], xmm0",
        "movups [rdi + rdx - 32], xmm1",
        "sub rdx, 32",
        "cmp rdx, 32",
        "ja 2b",
        "movups [rdi], xmm2",
        "movups [rdi + 16], xmm3",
        "ret",
        memcpy = sym memcpy,
    )
}

/// `memset` of the C standard.
///
/// # Safety
/// As in C: the range is valid for `len` bytes.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx ecx, sil",
        "mov r8, 0x0101010101010101",
        "imul rcx, r8",
        "cmp rdx, 16",
        "jae 3f",
        "cmp edx, 8",
        "jae 4f",
        "cmp edx, 4",
        "jae 5f",
        "test edx, edx",
        "je 6f",
        "mov r8d, edx",
        "shr r8d, 1",
        "mov [rdi], cl",
        "mov [rdi + r8], cl",
        "mov [rdi + rdx - 1], cl",
        "6: ret",
        "5: mov [rdi], ecx",
        "mov [rdi + rdx - 4], ecx",
        "ret",
        "4: mov [rdi], rcx",
        "mov [rdi + rdx - 8], rcx",
        "ret",
        "3: movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "cmp rdx, 32",
        "ja 7f",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm0",
        "ret",
        "7: lea r8, [rdi + rdx - 32]",
        "2: movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "add rdi, 32",
        "cmp rdi, r8",
        "jb 2b",
        "movups [r8], xmm0",
        "movups [r8 + 16], xmm0",
        "ret",
    )
}

/// `memcmp` of the C standard.
///
/// # Safety
/// As in C: both ranges valid for `len` bytes.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    naked_asm!(
        "cmp rdx, 8",
        "jb 3f",
        "2: mov rax, [rdi]",
        "mov rcx, [rsi]",
        "cmp rax, rcx",
        "jne 4f",
        "add rdi, 8",
        "add rsi, 8",
        "sub rdx, 8",
        "cmp rdx, 8",
        "jae 2b",
        "3: test rdx, rdx",
        "je 6f",
        "5: movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "sub eax, ecx",
        "jne 7f",
        "inc rdi",
        "inc rsi",
        "dec rdx",
        "jne 5b",
        "6: xor eax, eax",
        "7: ret",
        // The words differ: in big-endian order the larger word is the larger string.
        "4: bswap rax",
        "bswap rcx",
        "cmp rax, rcx",
        "sbb eax, eax",
        "or eax, 1",
        "ret",
    )
}

/// `bcmp`: like [`memcmp`], of which only zero or not matters.
///
/// # Safety
/// As [`memcmp`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

/// `strlen` of the C standard.
///
/// # Safety
/// As in C: `text` ends with a zero byte.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    naked_asm!("mov rax, rdi", "2: cmp byte ptr [rax], 0", "je 3f", "inc rax", "jmp 2b", "3: sub rax, rdi", "ret")
}

/// Named by the precompiled `core`; nothing unwinds here, a panic ends the run.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {
    naked_asm!("ud2")
}

/// See [`rust_eh_personality`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_Resume() {
    naked_asm!("ud2")
}
