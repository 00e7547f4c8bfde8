//! The role of irqd: badges, waiting, and the interrupt capabilities that the driver is handed.
//!
//! A *line* is an interrupt vector together with a badge bit on one processor. Its entry in [`crate::vectors`] sets the
//! bit and counts; this module lets the processor halt until a bit of interest is set. Waiting is done by the
//! processor itself: one thread per processor, so a badge word has one reader. Knows nothing of devices; MSI-X entries
//! are programmed by [`crate::msix`].
//!
//! As in irqd, delivery needs an acknowledgement before the next one: a bit that [`wait`] returned is withheld until
//! [`acknowledge`]; what arrives meanwhile is kept and delivered then.
//!
//! Never lost: the waiter announces sleep, fences and looks at the badge; whoever raises a bit from another processor
//! sets it, fences and looks whether the waiter sleeps. One of the two sees the other. An interrupt between the
//! waiter's last look and its halt stays pending, because `sti` takes effect after `hlt` has begun.

use crate::apic::{self, Command};
use crate::cpu::lock::Mutex;
use crate::cpu::{self, CpuId, PerCpu};
use crate::time::now_ns;
use crate::vectors::{self, LINES};
use crate::{msix, timer};
use core::sync::atomic::{Ordering, fence};
use x86_64::instructions::interrupts;

pub use crate::timer::NEVER;

/// Halts the calling processor until `condition` holds or the clock shows `deadline`; says whether it holds.
///
/// The condition is examined after each interrupt, with interrupts off. Whoever makes it true from another processor
/// calls [`wake`] afterwards. Interrupts must be on, and are on again on return.
pub fn halt_until(deadline: u64, mut condition: impl FnMut() -> bool) -> bool {
    if condition() {
        return true;
    }
    let cpu = PerCpu::current();
    interrupts::disable();
    cpu.set_asleep(true);
    // Announced before looking; the other half is in `wake`.
    fence(Ordering::SeqCst);
    let held = loop {
        if condition() {
            break true;
        }
        if deadline != NEVER && now_ns() >= deadline {
            break false;
        }
        timer::arm(deadline);
        interrupts::enable_and_hlt();
        interrupts::disable();
    };
    cpu.set_asleep(false);
    interrupts::enable();
    held
}

/// Ends `cpu`'s halt, if it halts, so that it looks at its condition again.
pub fn wake(cpu: CpuId) {
    // What the caller changed comes before the look at the sleeper; the other half is in `halt_until`.
    fence(Ordering::SeqCst);
    let sleeper = PerCpu::of(cpu);
    if sleeper.is_asleep() && cpu != cpu::current() {
        apic::send(sleeper.apic_id(), Command::Fixed(vectors::WAKE));
    }
}

/// Halts until a badge bit of `bits` is raised on the calling processor, or the clock shows `deadline` ([`NEVER`] for
/// none). Returns the bits, which are taken; 0 after the deadline.
pub fn wait(bits: u64, deadline: u64) -> u64 {
    let mut taken = 0;
    halt_until(deadline, || {
        taken = take(bits);
        taken != 0
    });
    taken
}

/// Takes those of `bits` that are raised on the calling processor and not withheld, without waiting. No shelter: if the
/// job is killed in between, a bit is raised still or taken, and taken bits count as acknowledged after a kill.
#[inline]
pub fn take(bits: u64) -> u64 {
    let cpu = PerCpu::current();
    let withheld = cpu.unacknowledged.load(Ordering::Relaxed);
    // Acquire: what the raiser wrote before raising is visible.
    let taken = cpu.raised.load(Ordering::Acquire) & bits & !withheld;
    if taken != 0 {
        cpu.raised.fetch_and(!taken, Ordering::Acquire);
        cpu.unacknowledged.store(withheld | taken, Ordering::Relaxed);
    }
    taken
}

/// Lets `bits`, taken before on the calling processor, be delivered again.
#[inline]
pub fn acknowledge(bits: u64) {
    let withheld = &PerCpu::current().unacknowledged;
    withheld.store(withheld.load(Ordering::Relaxed) & !bits, Ordering::Relaxed);
}

/// Who has a line: a processor, and what raises it (so that no source is routed twice).
#[derive(Clone, Copy)]
struct Owner {
    cpu: CpuId,
    source: Option<u64>,
}

static OWNERS: Mutex<[Option<Owner>; LINES]> = Mutex::new([None; LINES]);

/// Why a line could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// The source already raises another line.
    SourceTaken,
    /// Every vector is taken, or every badge bit of the processor.
    Exhausted,
}

/// A vector and a badge bit on a processor. Dropping it frees both.
#[derive(Debug)]
pub struct Line {
    number: u8,
    cpu: CpuId,
}

impl Line {
    /// Takes a free line on `cpu`. `source` is any number that tells device sources apart.
    pub fn allocate(cpu: CpuId, source: Option<u64>) -> Result<Self, LineError> {
        let mut owners = OWNERS.lock();
        if source.is_some() && owners.iter().flatten().any(|owner| owner.source == source) {
            return Err(LineError::SourceTaken);
        }
        let bits_taken = (0..LINES)
            .filter(|n| owners[*n].is_some_and(|owner| owner.cpu == cpu))
            .fold(0, |bits, n| bits | 1_u64 << (n % 64));
        let number = (0..LINES)
            .find(|n| owners[*n].is_none() && bits_taken & (1 << (n % 64)) == 0)
            .ok_or(LineError::Exhausted)?;
        owners[number] = Some(Owner { cpu, source });
        for cpu in cpu::online() {
            PerCpu::of(cpu).arrivals[number].store(0, Ordering::Relaxed);
        }
        Ok(Self { number: number as u8, cpu })
    }

    pub fn badge(&self) -> u64 {
        1 << (self.number % 64)
    }

    pub fn vector(&self) -> u8 {
        vectors::FIRST_LINE + self.number
    }

    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    fn arrivals_on(&self, cpu: CpuId) -> u64 {
        PerCpu::of(cpu).arrivals[usize::from(self.number)].load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let cpu = PerCpu::of(self.cpu);
        cpu.raised.fetch_and(!self.badge(), Ordering::Relaxed);
        cpu.unacknowledged.fetch_and(!self.badge(), Ordering::Relaxed);
        OWNERS.lock()[usize::from(self.number)] = None;
    }
}

/// The right to wait for, acknowledge and mask one interrupt of a device. Dropping it masks the interrupt and forgets
/// its badge; its processor must not be waiting for it then.
#[derive(Debug)]
pub struct Capability {
    // Dropped in this order: the device falls silent before the line is free.
    entry: msix::Entry,
    line: Line,
}

impl Capability {
    pub fn new(entry: msix::Entry, line: Line) -> Self {
        Self { entry, line }
    }

    /// The bit that the interrupt raises in its processor's badge word.
    pub fn badge(&self) -> u64 {
        self.line.badge()
    }

    /// The processor that the interrupt is routed to, the only one that may wait for it.
    pub fn cpu(&self) -> CpuId {
        self.line.cpu()
    }

    /// The processor's vector, for reports.
    pub fn vector(&self) -> u8 {
        self.line.vector()
    }

    /// The entry of the device's MSI-X table: what the driver writes into the device's vector registers.
    pub fn index(&self) -> u16 {
        self.entry.index()
    }

    /// Halts until the interrupt arrives (true) or the clock shows `deadline` (false).
    pub fn wait(&self, deadline: u64) -> bool {
        debug_assert_eq!(cpu::current(), self.cpu(), "waiting on another processor's interrupt");
        wait(self.badge(), deadline) != 0
    }

    /// Lets the interrupt be delivered again after [`wait`] or [`take`] returned its bit.
    pub fn acknowledge(&self) {
        debug_assert_eq!(cpu::current(), self.cpu(), "acknowledging another processor's interrupt");
        acknowledge(self.badge());
    }

    /// Keeps the device from interrupting; what it raises meanwhile is delivered on [`Self::unmask`].
    pub fn mask(&self) {
        self.entry.mask();
    }

    /// Lets the device interrupt.
    pub fn unmask(&self) {
        self.entry.unmask();
    }

    /// Interrupts that arrived since the capability was made, on whichever processor.
    pub fn arrivals(&self) -> u64 {
        cpu::online().map(|cpu| self.arrivals_on(cpu)).sum()
    }

    /// Those of them that arrived on `cpu`.
    pub fn arrivals_on(&self, cpu: CpuId) -> u64 {
        self.line.arrivals_on(cpu)
    }
}

/// A badge bit that software raises: how a client or another queue's thread gets a waiting processor's attention. Dropped
/// under the same condition as a [`Capability`].
#[derive(Debug)]
pub struct Doorbell {
    line: Line,
}

impl Doorbell {
    /// A doorbell that `cpu` waits for.
    ///
    /// # Errors
    /// [`LineError::Exhausted`] if the processor has no badge bit left.
    pub fn new(cpu: CpuId) -> Result<Self, LineError> {
        Line::allocate(cpu, None).map(|line| Self { line })
    }

    /// The bit that [`wait`] returns.
    pub fn badge(&self) -> u64 {
        self.line.badge()
    }

    /// Raises the bit, from any processor; what the caller wrote before is visible to the waiter. No shelter: a kill
    /// between raising and announcing wakes every sleeper.
    pub fn ring(&self) {
        PerCpu::of(self.line.cpu()).raised.fetch_or(self.badge(), Ordering::Release);
        wake(self.line.cpu());
    }
}
