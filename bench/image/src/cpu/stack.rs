//! Stacks with a guard page: running off the end is a page fault with an address, not silent corruption.

use crate::boot;
use crate::descriptors::InterruptStacks;
use crate::memory;
use crate::paging::{self, PAGE};
use core::cell::UnsafeCell;

/// Bytes of a processor's main stack; unoptimised code needs much.
const MAIN_LEN: usize = boot::STACK_LEN;
/// Bytes of each interruption stack.
const INTERRUPTION_LEN: usize = 16 * 1024;

#[repr(C, align(4096))]
struct Reserve(UnsafeCell<[u8; INTERRUPTION_LEN]>);

// SAFETY: only the processor touches the bytes, through the boot processor's task state.
unsafe impl Sync for Reserve {}

/// The boot processor's interruption stacks, needed before there is memory to allocate.
static RESERVE: [Reserve; 3] = [const { Reserve(UnsafeCell::new([0; INTERRUPTION_LEN])) }; 3];

/// The boot processor's interruption stacks.
pub fn boot_interruption_stacks() -> InterruptStacks {
    let [interrupt, fault, last_resort] = [0, 1, 2].map(|n: usize| RESERVE[n].0.get() as u64 + INTERRUPTION_LEN as u64);
    InterruptStacks { interrupt, fault, last_resort }
}

/// Guards the stacks that the boot processor started on.
pub fn guard_boot_stacks() {
    paging::guard(boot::stack_bottom());
    for stack in &RESERVE {
        paging::guard(stack.0.get() as u64);
    }
}

/// A new main stack; returns its top.
pub fn main_stack() -> u64 {
    guarded(MAIN_LEN)
}

/// New interruption stacks.
pub fn interruption_stacks() -> InterruptStacks {
    let [interrupt, fault, last_resort] = [0; 3].map(|_| guarded(INTERRUPTION_LEN));
    InterruptStacks { interrupt, fault, last_resort }
}

fn guarded(len: usize) -> u64 {
    let stack = memory::dma(len + PAGE as usize).expect("memory for a stack");
    paging::guard(stack.device_address());
    stack.device_address() + stack.len() as u64
}
