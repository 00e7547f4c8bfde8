//! Jobs are killed wherever they are, and their processor goes on: two hundred times at random, then where it matters.

use crate::cpu::kill::Shelter;
use crate::cpu::{self, CpuId, PerCpu};
use crate::irq::{self, Doorbell, NEVER};
use crate::time::now_ns;
use crate::{print, println, serial};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use x86_64::registers::mxcsr::{self, MxCsr};
use x86_64::registers::rflags::{self, RFlags};

const ROUNDS: u32 = 200;
/// How many are killed while they ring.
const RINGERS: u64 = 50;
/// Upper bound of the spins before a kill; a power of two.
const SPINS: u64 = 1 << 14;
/// Steps after which a job counts as going on.
const GOING_ON: u64 = 1000;
const SHORT_NS: u64 = 20_000;
/// How long a ring may take: an emulator's thread has to be scheduled.
const LATENESS_NS: u64 = 200_000_000;

/// What the jobs do until they are killed.
const WAYS: [fn(u64) -> !; 5] = [leave_flags_set, allocate, speak, halt_forever, halt_often];

static STEPS: AtomicU64 = AtomicU64::new(0);
static RELEASED: AtomicBool = AtomicBool::new(false);
static SURVIVED: AtomicBool = AtomicBool::new(false);

/// Every processor but the boot processor.
pub fn leave_processors_usable() -> bool {
    let victims: Vec<_> = cpu::online().skip(1).collect();
    if victims.is_empty() {
        println!("kills: no processor to spare");
        return true;
    }
    let struck = strike_at_random(&victims);
    let aimed = victims.iter().all(|cpu| {
        let held = [shelters_defer(*cpu), a_kill_waits_for_its_section(*cpu), a_kill_is_for_one_job(*cpu)];
        println!("kills: {cpu}: sheltered, early, late: {held:?}; {} in all", cpu::killed(*cpu));
        held == [true; 3]
    });
    struck && aimed && victims.windows(2).take(1).all(|pair| rings_are_heard(pair[0], pair[1]))
}

fn strike_at_random(victims: &[CpuId]) -> bool {
    let bells: Result<Vec<_>, _> = victims.iter().map(|cpu| Doorbell::new(*cpu)).collect();
    let Ok(bells) = bells else {
        return false;
    };
    let mut random = 0x9e37_79b9_7f4a_7c15;
    (0..ROUNDS).zip(victims.iter().zip(&bells).cycle()).all(|(round, (cpu, bell))| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let held = strike(*cpu, bell, round as usize, random % SPINS);
        if !held {
            println!("kills: {cpu}: round {round} after {} spins", random % SPINS);
        }
        held
    })
}

fn strike(cpu: CpuId, bell: &Doorbell, round: usize, spins: u64) -> bool {
    let (way, badge, before) = (WAYS[round % WAYS.len()], bell.badge(), (step(), cpu::killed(cpu)));
    let job = cpu::start(cpu, move || exposed(|| way(badge)));
    // Every eighth is killed on its way in.
    while round % 8 != 7 && step() == before.0 {}
    bell.ring();
    spin(spins);
    let dead = if round.is_multiple_of(2) {
        job.kill().is_none()
    } else {
        cpu::kill(cpu);
        irq::halt_until(NEVER, || cpu::killed(cpu) > before.1);
        job.outcome().is_none()
    };
    let stopped = step();
    spin(SPINS);
    let still = step() == stopped && cpu::killed(cpu) == before.1 + 1;
    // The boot processor needs the locks that the dead might have kept, the next job everything else.
    drop(black_box(Vec::<u64>::with_capacity(spins as usize)));
    print!("");
    bell.ring();
    dead && still && cpu::run_on(cpu, move || is_sound(badge)) == Some(cpu)
}

/// Whether a job finds the processor as it should be; the doorbell has been rung.
fn is_sound(badge: u64) -> Option<CpuId> {
    let flags = rflags::read();
    let flags_held = flags.contains(RFlags::INTERRUPT_FLAG) && !flags.contains(RFlags::DIRECTION_FLAG);
    let control_held = mxcsr::read() & MxCsr::ROUNDING_CONTROL_NEGATIVE == MxCsr::empty();
    let rung = irq::wait(badge, NEVER) == badge;
    irq::acknowledge(badge);
    let slept = irq::wait(badge, now_ns() + SHORT_NS) == 0;
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    print!("");
    let copied = black_box(bytes.clone()) == bytes;
    (flags_held && control_held && rung && slept && copied).then(cpu::current)
}

fn leave_flags_set(_: u64) -> ! {
    let rounding = (mxcsr::read() | MxCsr::ROUNDING_CONTROL_NEGATIVE).bits();
    // SAFETY: the counter is an aligned word of which others see any value; no Rust runs with these flags, since the
    // loop has no end.
    unsafe {
        asm!(
            "ldmxcsr [{rounding}]",
            "std",
            "2:",
            "inc qword ptr [{steps}]",
            "jmp 2b",
            rounding = in(reg) &raw const rounding,
            steps = in(reg) STEPS.as_ptr(),
            options(noreturn),
        );
    }
}

fn allocate(_: u64) -> ! {
    loop {
        drop(black_box(Vec::<u64>::with_capacity(1 + (advance() % 64) as usize)));
    }
}

fn speak(_: u64) -> ! {
    loop {
        advance();
        serial::write(format_args!("{Mumbling}"));
    }
}

/// Text that takes its time and leaves no trace, but the serial line is locked meanwhile.
struct Mumbling;

impl fmt::Display for Mumbling {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        spin(100);
        Ok(())
    }
}

/// Takes the first ring and never acknowledges, so that the second is withheld.
fn halt_forever(badge: u64) -> ! {
    loop {
        advance();
        irq::wait(badge, NEVER);
    }
}

fn halt_often(badge: u64) -> ! {
    loop {
        advance();
        irq::acknowledge(irq::wait(badge, now_ns() + SHORT_NS));
    }
}

/// Whoever is killed while it rings has not raised a badge bit that its sleeper is never told of.
fn rings_are_heard(ringer: CpuId, sleeper: CpuId) -> bool {
    let Ok(bell) = Doorbell::new(sleeper) else {
        return false;
    };
    // The dead keep what they were given.
    let (badge, bell) = (bell.badge(), &*Box::leak(Box::new(bell)));
    let waiter = cpu::start(sleeper, move || exposed(|| loop_over(|| irq::acknowledge(irq::wait(badge, NEVER)))));
    let heard = (1..=RINGERS).all(|round| {
        let begin = step();
        let job = cpu::start(ringer, move || exposed(|| loop_over(|| bell.ring())));
        while step() == begin {}
        spin(round * SPINS / RINGERS);
        let dead = job.kill().is_none();
        let until = now_ns() + LATENESS_NS;
        let raised = || PerCpu::of(sleeper).raised.load(Ordering::Relaxed) & badge != 0;
        while raised() && now_ns() < until {}
        dead && !raised()
    });
    println!("kills: {sleeper} heard {ringer}: {heard}");
    waiter.kill().is_none() && heard
}

fn loop_over(act: impl Fn()) -> ! {
    loop {
        act();
        advance();
        spin(100);
    }
}

/// Under a shelter the job goes on, and so it does when an inner shelter ends; the end of the outer one is its own.
fn shelters_defer(cpu: CpuId) -> bool {
    is_deferred(cpu, || {
        exposed(|| {
            let shelter = Shelter::enter();
            until_released();
            drop(shelter);
            SURVIVED.store(true, Ordering::Relaxed);
        });
    })
}

/// A job that may not be killed yet dies as soon as it may.
fn a_kill_waits_for_its_section(cpu: CpuId) -> bool {
    is_deferred(cpu, || {
        until_released();
        exposed(|| SURVIVED.store(true, Ordering::Relaxed));
    })
}

fn is_deferred(cpu: CpuId, work: fn()) -> bool {
    let job = release_later(cpu, work);
    let before = cpu::killed(cpu);
    cpu::kill(cpu);
    let deferred = goes_on() && cpu::killed(cpu) == before && !job.is_over();
    RELEASED.store(true, Ordering::Relaxed);
    deferred && job.outcome().is_none() && !SURVIVED.load(Ordering::Relaxed) && cpu::killed(cpu) == before + 1
}

/// A job that is done first is not killed, nor is the next one instead, nor one that starts after the kill of an idle
/// processor.
fn a_kill_is_for_one_job(cpu: CpuId) -> bool {
    let before = cpu::killed(cpu);
    let harmless = || cpu::start(cpu, || exposed(|| spin(SPINS))).outcome().is_some();
    let job = release_later(cpu, until_released);
    cpu::kill(cpu);
    RELEASED.store(true, Ordering::Relaxed);
    let spared = job.outcome().is_some() && harmless();
    cpu::kill(cpu);
    spared && harmless() && cpu::killed(cpu) == before
}

/// Starts `work` and returns once it takes steps.
fn release_later(cpu: CpuId, work: fn()) -> cpu::job::Job<()> {
    RELEASED.store(false, Ordering::Relaxed);
    SURVIVED.store(false, Ordering::Relaxed);
    let job = cpu::start(cpu, work);
    goes_on();
    job
}

fn until_released() {
    while !RELEASED.load(Ordering::Relaxed) {
        advance();
        print!("");
    }
}

fn goes_on() -> bool {
    let begin = step();
    while step() < begin + GOING_ON {}
    true
}

fn exposed<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: nobody else hears of the stacks of these jobs.
    unsafe { cpu::killable(work) }
}

fn step() -> u64 {
    STEPS.load(Ordering::Relaxed)
}

fn advance() -> u64 {
    STEPS.fetch_add(1, Ordering::Relaxed)
}

fn spin(times: u64) {
    for turn in 0..times {
        black_box(turn);
    }
}
