//! The role of irqd: badges, waiting, and the interrupt capabilities that the driver is handed.
//!
//! A *line* is an interrupt vector together with a badge bit. Its entry in [`crate::vectors`] sets the bit on the
//! processor that it arrives on, and counts; this module lets the processor halt until a bit of interest is set. Waiting
//! is done by the processor itself: one thread per processor, so a badge word has one reader. An interrupt that jobs on
//! several processors wait for is raised on all of them. Knows nothing of devices; MSI-X entries are programmed by
//! [`crate::msix`].
//!
//! As in irqd, delivery needs an acknowledgement before the next one: a bit that [`wait`] returned is withheld until
//! [`acknowledge`]; what arrives meanwhile is kept and delivered then.
//!
//! Never lost: the waiter announces sleep, fences and looks at the badge; whoever raises a bit from another processor
//! sets it, fences and looks whether the waiter sleeps. One of the two sees the other. An interrupt between the
//! waiter's last look and its halt stays pending, because `sti` takes effect after `hlt` has begun.

use crate::apic::{self, Command};
use crate::cpu::lock::Mutex;
use crate::cpu::{self, CpuId, MAX_CPUS, PerCpu};
use crate::time::now_ns;
use crate::vectors::{self, LINES};
use crate::{msix, timer};
use core::sync::atomic::{AtomicU8, Ordering, fence};
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

/// What is taken: vectors, by what raises them, and badge bits, by processor.
struct Taken {
    sources: [Option<u64>; LINES],
    bits: [u64; MAX_CPUS],
}

static TAKEN: Mutex<Taken> = Mutex::new(Taken { sources: [None; LINES], bits: [0; MAX_CPUS] });

/// Why a line could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// The source already raises another line.
    SourceTaken,
    /// Every vector is taken, or every badge bit.
    Exhausted,
}

/// Where a line is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On this processor.
    One(CpuId),
    /// On every processor at once, so that jobs on several can wait for it.
    Everyone,
}

/// A vector, and the badge bit that it raises, the same on every processor. Dropping it frees both.
#[derive(Debug)]
pub struct Line {
    number: u8,
}

impl Line {
    /// Takes a free line. `source` is any number that tells device sources apart.
    pub fn allocate(source: u64) -> Result<Self, LineError> {
        let mut taken = TAKEN.lock();
        if taken.sources.contains(&Some(source)) {
            return Err(LineError::SourceTaken);
        }
        let bits = taken.bits.iter().fold(0, |all, bits| all | bits);
        let free = |n: &usize| taken.sources[*n].is_none() && bits & 1 << (n % 64) == 0;
        let number = (0..LINES).find(free).ok_or(LineError::Exhausted)?;
        taken.sources[number] = Some(source);
        for bits in &mut taken.bits {
            *bits |= 1 << (number % 64);
        }
        for cpu in cpu::online() {
            PerCpu::of(cpu).arrivals[number].store(0, Ordering::Relaxed);
        }
        Ok(Self { number: number as u8 })
    }

    pub fn badge(&self) -> u64 {
        1 << (self.number % 64)
    }

    pub fn vector(&self) -> u8 {
        vectors::FIRST_LINE + self.number
    }

    fn arrivals_on(&self, cpu: CpuId) -> u64 {
        PerCpu::of(cpu).arrivals[usize::from(self.number)].load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        cpu::online().for_each(|cpu| forget(cpu, self.badge()));
        let mut taken = TAKEN.lock();
        taken.sources[usize::from(self.number)] = None;
        for bits in &mut taken.bits {
            *bits &= !self.badge();
        }
    }
}

/// Forgets that `bit` was raised on `cpu`.
fn forget(cpu: CpuId, bit: u64) {
    PerCpu::of(cpu).raised.fetch_and(!bit, Ordering::Relaxed);
    PerCpu::of(cpu).unacknowledged.fetch_and(!bit, Ordering::Relaxed);
}

/// The right to wait for, acknowledge and mask one interrupt of a device. Dropping it masks the interrupt and forgets
/// its badge; nobody must be waiting for it then.
#[derive(Debug)]
pub struct Capability {
    // Dropped in this order: the device falls silent before the line is free.
    entry: msix::Entry,
    line: Line,
    /// The number of the processor that it is raised on, or [`EVERYONE`].
    target: AtomicU8,
}

/// No processor's number.
const EVERYONE: u8 = u8::MAX;

impl Capability {
    /// The entry, still masked, has `line` raised on `target`.
    pub fn new(entry: msix::Entry, line: Line, target: Target) -> Self {
        let capability = Self { entry, line, target: AtomicU8::new(EVERYONE) };
        capability.lead_to(target);
        capability
    }

    /// Has the interrupt raised on `target` from now on. What is under way may still be raised where it was before, so
    /// this is done before the device has anything to interrupt for.
    pub fn lead_to(&self, target: Target) {
        let number = match target {
            Target::One(cpu) => cpu.index() as u8,
            Target::Everyone => EVERYONE,
        };
        self.target.store(number, Ordering::Relaxed);
        self.entry.aim(target, self.line.vector());
    }

    /// The bit that the interrupt raises in the badge words of its target.
    pub fn badge(&self) -> u64 {
        self.line.badge()
    }

    /// The vector, for reports.
    pub fn vector(&self) -> u8 {
        self.line.vector()
    }

    /// The entry of the device's MSI-X table: what the driver writes into the device's vector registers.
    pub fn index(&self) -> u16 {
        self.entry.index()
    }

    /// Whether it is raised on the calling processor.
    fn is_here(&self) -> bool {
        let target = self.target.load(Ordering::Relaxed);
        target == EVERYONE || usize::from(target) == cpu::current().index()
    }

    /// Halts until the interrupt arrives (true) or the clock shows `deadline` (false).
    pub fn wait(&self, deadline: u64) -> bool {
        debug_assert!(self.is_here(), "waiting on another processor's interrupt");
        wait(self.badge(), deadline) != 0
    }

    /// Lets the interrupt be delivered again after [`wait`] or [`take`] returned its bit.
    pub fn acknowledge(&self) {
        debug_assert!(self.is_here(), "acknowledging another processor's interrupt");
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

    /// Interrupts that arrived since the capability was made. One that is raised on every processor counts once: a
    /// processor may take two as one, so the one that took most tells how many there were.
    pub fn arrivals(&self) -> u64 {
        let each = cpu::online().map(|cpu| self.arrivals_on(cpu));
        if self.target.load(Ordering::Relaxed) == EVERYONE { each.max().unwrap_or(0) } else { each.sum() }
    }

    /// Those of them that arrived on `cpu`.
    pub fn arrivals_on(&self, cpu: CpuId) -> u64 {
        self.line.arrivals_on(cpu)
    }
}

/// A badge bit that software raises: how a client or another queue's thread gets a waiting processor's attention. It
/// needs no vector. Dropped under the same condition as a [`Capability`].
#[derive(Debug)]
pub struct Doorbell {
    bit: u8,
    cpu: CpuId,
}

impl Doorbell {
    /// A doorbell that `cpu` waits for: the highest free bit, so that the low ones stay free on every processor at once,
    /// which lines need.
    ///
    /// # Errors
    /// [`LineError::Exhausted`] if the processor has no badge bit left.
    pub fn new(cpu: CpuId) -> Result<Self, LineError> {
        let taken = &mut TAKEN.lock().bits[cpu.index()];
        let bit = (!*taken).checked_ilog2().ok_or(LineError::Exhausted)?;
        *taken |= 1 << bit;
        Ok(Self { bit: bit as u8, cpu })
    }

    /// The bit that [`wait`] returns.
    pub fn badge(&self) -> u64 {
        1 << self.bit
    }

    /// Raises the bit, from any processor; what the caller wrote before is visible to the waiter. No shelter: a kill
    /// between raising and announcing wakes every sleeper.
    pub fn ring(&self) {
        PerCpu::of(self.cpu).raised.fetch_or(self.badge(), Ordering::Release);
        wake(self.cpu);
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        forget(self.cpu, self.badge());
        TAKEN.lock().bits[self.cpu.index()] &= !self.badge();
    }
}
