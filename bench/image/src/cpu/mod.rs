//! Processors: who is there, and the block of memory that each one owns.
//!
//! A processor is a thread here: it runs one job at a time ([`job`]) and halts in between. GS points at its
//! [`PerCpu`] block, so that interrupt entries reach the badge word in one instruction. Blocks consist of atomics:
//! others may read them, but only the owner writes, except where a field says otherwise.

pub mod job;
pub mod kill;
pub mod lock;
pub mod stack;
pub mod startup;
pub mod trampoline;

use crate::timer::NEVER;
use crate::vectors::LINES;
use core::arch::asm;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

pub use job::{run_on, start};
pub use kill::{kill, killable, killed};
pub use startup::start_all;

/// Processors that the image can use; more are ignored.
pub const MAX_CPUS: usize = 32;

static BLOCKS: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
/// Processors that run: ids 0 to this, exclusive.
static ONLINE: AtomicU32 = AtomicU32::new(1);

/// A processor's number in this image, counted from 0 in the order of the firmware's table, the boot processor first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u8);

impl CpuId {
    /// The processor that booted.
    pub const BOOT: Self = Self(0);

    /// The processor with this number, online or about to be.
    fn numbered(index: usize) -> Self {
        assert!(index < MAX_CPUS);
        Self(index as u8)
    }

    /// The number, below [`count`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cpu{}", self.0)
    }
}

/// What a processor owns. The entries in [`crate::vectors`] address it through GS.
#[repr(C, align(128))]
pub struct PerCpu {
    /// Badge bits that were raised and not yet taken. Others raise bits too (doorbells).
    pub raised: AtomicU64,
    /// Badge bits that were taken and not yet acknowledged.
    pub unacknowledged: AtomicU64,
    /// When the timer fires; see [`crate::timer`].
    pub timer_at: AtomicU64,
    /// Halted, or about to: whoever raises something for this processor must send it a wake-up.
    asleep: AtomicBool,
    index: AtomicU8,
    apic_id: AtomicU8,
    /// Reasons not to kill the job; see [`kill`](mod@kill).
    pub shelters: AtomicU32,
    /// The number of the last job that was posted here. The poster writes it.
    pub job: AtomicU64,
    /// The number of the job that is to be killed. Killers write it.
    pub condemned: AtomicU64,
    /// Jobs that were killed here.
    kills: AtomicU64,
    /// Where the main stack begins. Whoever starts the processor writes it.
    main_stack: AtomicU64,
    /// Interrupts that arrived on this processor, per device line.
    pub arrivals: [AtomicU64; LINES],
}

impl PerCpu {
    const fn new() -> Self {
        Self {
            raised: AtomicU64::new(0),
            unacknowledged: AtomicU64::new(0),
            timer_at: AtomicU64::new(NEVER),
            asleep: AtomicBool::new(false),
            index: AtomicU8::new(0),
            apic_id: AtomicU8::new(0),
            shelters: AtomicU32::new(kill::OUTSIDE),
            // Never equal to `condemned` on the boot processor, where nobody posts.
            job: AtomicU64::new(1),
            condemned: AtomicU64::new(0),
            kills: AtomicU64::new(0),
            main_stack: AtomicU64::new(0),
            arrivals: [const { AtomicU64::new(0) }; LINES],
        }
    }

    /// The calling processor's block.
    #[inline]
    pub fn current() -> &'static Self {
        Self::of(current())
    }

    /// Any processor's block.
    #[inline]
    pub fn of(cpu: CpuId) -> &'static Self {
        &BLOCKS[cpu.index()]
    }

    /// The processor's address for interrupts.
    pub fn apic_id(&self) -> u8 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Whether it has halted, or is about to.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    pub fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Relaxed);
    }
}

/// Points GS at the calling processor's block. Must be the first thing that it does in Rust.
pub fn adopt(cpu: CpuId) {
    let block = PerCpu::of(cpu);
    block.index.store(cpu.0, Ordering::Relaxed);
    GsBase::write(VirtAddr::from_ptr(block));
}

/// Records the APIC id by which others reach `cpu`.
fn record_apic_id(cpu: CpuId, apic_id: u8) {
    PerCpu::of(cpu).apic_id.store(apic_id, Ordering::Relaxed);
}

/// Records where the main stack of `cpu`, which does not run yet, begins.
fn record_main_stack(cpu: CpuId, top: u64) {
    PerCpu::of(cpu).main_stack.store(top, Ordering::Relaxed);
}

/// The calling processor.
#[inline]
pub fn current() -> CpuId {
    let index: u32;
    // SAFETY: `adopt` pointed GS at a `PerCpu`, whose `index` is a byte that never changes again.
    unsafe {
        asm!(
            "movzx {index:e}, byte ptr gs:[{offset}]",
            index = out(reg) index,
            offset = const offset_of!(PerCpu, index),
            options(nostack, preserves_flags, readonly, pure),
        );
    }
    CpuId(index as u8)
}

/// How many processors run.
pub fn count() -> usize {
    ONLINE.load(Ordering::Acquire) as usize
}

/// The processors that run, the boot processor first.
pub fn online() -> impl Iterator<Item = CpuId> {
    (0..count()).map(|index| CpuId(index as u8))
}
