//! Killing a job: its processor is taken away from it between two instructions, and serves again.
//!
//! The stack is abandoned with everything on it: nothing is dropped, nothing unwinds, the heap keeps what the job had.
//! That is how procd ends a driver. Knows the processor's state and nothing of what the job did; whoever starts the
//! next one cleans up behind the dead: devices, memory, badges. Lines that the job allocated itself stay taken.
//!
//! Where a job may be killed: inside [`killable`], outside any [`Shelter`]. `PerCpu::shelters` counts the reasons
//! against it, and life outside `killable` is one of them; the interrupt acts on 0, otherwise whoever takes the last
//! reason away looks whether the job is condemned. A shelter is what a system call is elsewhere: the dead never hold a
//! lock of the nucleus ([`super::lock`]) nor a mailbox that is half filled. With interrupts off a kill stays pending
//! too, which covers the timer and the way into and out of a halt.
//!
//! A kill is aimed at one job, by number: arriving late, it does the next one no harm.
//!
//! What the next job finds: no shelter, awake, flags and floating-point control as after boot, the main stack from
//! its top. Raised badge bits stay raised, those withheld until an acknowledgement count as acknowledged, and those
//! that the dead took are gone: a driver that starts looks at its device before it waits. The timer keeps its deadline
//! and may wake somebody in vain, as ever. The interruption stack is free, as after an `iretq`.

use super::{CpuId, PerCpu, job, online};
use crate::apic::{self, Command};
use crate::{irq, vectors};
use core::arch::{asm, naked_asm};
use core::marker::PhantomData;
use core::mem::offset_of;
use core::sync::atomic::{Ordering, compiler_fence};
use x86_64::instructions::interrupts;

/// The bit of `PerCpu::shelters` that stands for life outside [`killable`]; the others count shelters.
pub(super) const OUTSIDE: u32 = 1 << 31;
/// Floating-point control as the processor starts with: every exception masked, rounding to nearest.
const MXCSR: u32 = 0x1f80;

/// Runs `work` so that [`kill`] may end it at any instruction.
///
/// # Safety
/// Nobody but `work` refers to its stack: not a device, not another processor, no list that something pinned there has
/// joined. The stack is used again without anything on it having been dropped.
pub unsafe fn killable<R>(work: impl FnOnce() -> R) -> R {
    let shelters = &PerCpu::current().shelters;
    let outside = shelters.load(Ordering::Relaxed);
    assert!(matches!(outside, 0 | OUTSIDE), "a job in a shelter cannot be killed");
    shelters.store(0, Ordering::Relaxed);
    // Only this processor and its interrupts look, so the compiler alone must keep the order.
    compiler_fence(Ordering::SeqCst);
    die_if_condemned();
    let result = work();
    compiler_fence(Ordering::SeqCst);
    shelters.store(outside, Ordering::Relaxed);
    result
}

/// Condemns the job that `cpu` has: it ends where it is, or when it next may be killed. Does nothing to an idle
/// processor, nor to the job after this one.
///
/// # Panics
/// For the boot processor, which has nothing to go back to.
pub fn kill(cpu: CpuId) {
    condemn(cpu, PerCpu::of(cpu).job.load(Ordering::Relaxed));
}

/// Jobs that were killed on `cpu`, each counted when the processor could take the next one. Halting until it changes
/// with [`irq::halt_until`] is fine; a job that finished first leaves it as it was, which [`job::Job::kill`] notices.
pub fn killed(cpu: CpuId) -> u64 {
    PerCpu::of(cpu).kills.load(Ordering::Acquire)
}

pub(super) fn condemn(cpu: CpuId, job: u64) {
    assert_ne!(cpu, CpuId::BOOT, "the boot processor has nothing to go back to");
    // A killer who is killed here has killed.
    let _shelter = Shelter::enter();
    let target = PerCpu::of(cpu);
    // Numbers grow: a late killer of an earlier job must not save a later one.
    target.condemned.fetch_max(job, Ordering::Relaxed);
    apic::send(target.apic_id(), Command::Fixed(vectors::KILL));
}

/// A section of the nucleus: the job that the processor runs is not killed in it, but at its end.
#[must_use]
pub struct Shelter {
    /// It belongs to the processor that entered it.
    here: PhantomData<*const ()>,
}

impl Shelter {
    /// Begins the section, which ends with the value's life.
    #[inline]
    pub fn enter() -> Self {
        enter();
        Self { here: PhantomData }
    }
}

impl Drop for Shelter {
    #[inline]
    fn drop(&mut self) {
        leave();
    }
}

/// One more reason against a kill.
#[inline]
pub(super) fn enter() {
    // SAFETY: GS points at this processor's block, which nobody else writes; one instruction, so that an interrupt
    // sees the count before or after it. Memory is clobbered: what the shelter covers stays behind it.
    unsafe { asm!("inc dword ptr gs:[{shelters}]", shelters = const offset_of!(PerCpu, shelters), options(nostack)) };
}

/// Takes one reason away that [`enter`] brought.
#[inline]
pub(super) fn leave() {
    // SAFETY: as in `enter`; what the shelter covers stays before it.
    unsafe { asm!("dec dword ptr gs:[{shelters}]", shelters = const offset_of!(PerCpu, shelters), options(nostack)) };
    die_if_condemned();
}

/// Does late what the interrupt had to leave undone.
#[inline]
fn die_if_condemned() {
    let here = PerCpu::current();
    let condemned = here.condemned.load(Ordering::Relaxed) == here.job.load(Ordering::Relaxed);
    if condemned && here.shelters.load(Ordering::Relaxed) == 0 {
        // SAFETY: the processor runs a killable job outside any shelter: what `abandon` asks for.
        unsafe { abandon() }
    }
}

/// Leaves whatever runs here for good. The entry in [`vectors`] jumps here, from the interruption stack.
///
/// # Safety
/// The processor, not the boot processor, runs the job that is condemned, inside [`killable`], outside any shelter.
#[unsafe(naked)]
pub unsafe extern "C" fn abandon() -> ! {
    naked_asm!(
        "cli",
        "mov rsp, gs:[{main_stack}]",
        // The job may have left any flag as it was, the direction flag among them.
        "push 2",
        "popfq",
        "fninit",
        "push {mxcsr}",
        "ldmxcsr [rsp]",
        "add rsp, 8",
        "xor ebp, ebp",
        "call {revive}",
        "ud2",
        main_stack = const offset_of!(PerCpu, main_stack),
        mxcsr = const MXCSR,
        revive = sym revive,
    )
}

/// Makes the processor what it was before the job and serves on.
extern "C" fn revive() -> ! {
    let here = PerCpu::current();
    here.shelters.store(OUTSIDE, Ordering::Relaxed);
    here.set_asleep(false);
    here.unacknowledged.store(0, Ordering::Relaxed);
    interrupts::enable();
    job::bury(|| {
        // Release: whoever sees the count sees everything that the dead wrote, and the processor free.
        here.kills.fetch_add(1, Ordering::Release);
    });
    // The killer and the joiner may be anybody, and so may a sleeper whose doorbell the dead raised without a word.
    online().for_each(irq::wake);
    job::serve()
}
