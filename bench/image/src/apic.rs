//! The local interrupt controller (xAPIC, memory mapped): identity, interprocessor interrupts, timer registers.
//!
//! Knows registers only. Who is woken and why is [`crate::cpu`]'s and [`crate::irq`]'s affair, when the timer fires is
//! [`crate::timer`]'s. Each processor reaches its own controller at the same address. x2APIC is not used: TCG 7.2
//! lacks it. The legacy devices are silenced here once, so that no vector below 0x30 ever arrives.

use crate::vectors;
use x86_64::instructions::port::PortWriteOnly;
use x86_64::registers::model_specific::Msr;

/// Where every processor sees its own controller; [`init`] checks that the firmware left it there.
pub const BASE: u32 = 0xfee0_0000;
/// Offset of the end-of-interrupt register, written by the entries in [`vectors`].
pub const END_OF_INTERRUPT: u32 = 0xb0;

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const SPURIOUS: u32 = 0xf0;
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_ONE: u32 = 0b1011;
const BASE_MSR: u32 = 0x1b;
const BASE_MASK: u64 = 0x000f_ffff_ffff_f000;

/// An interprocessor command; the value is the low half of the command register (edge triggered, physical).
#[derive(Clone, Copy)]
pub enum Command {
    /// Deliver this vector.
    Fixed(u8),
    /// Interrupt the processor even if it does not take interrupts.
    NonMaskable,
    /// Reset to the wait-for-start state.
    Init,
    /// Start in real mode at page `n`, address `n << 12`.
    Startup(u8),
}

impl Command {
    fn word(self) -> u32 {
        match self {
            Self::Fixed(vector) => 0x4000 | u32::from(vector),
            Self::NonMaskable => 0x4400,
            Self::Init => 0x4500,
            Self::Startup(page) => 0x4600 | u32::from(page),
        }
    }
}

fn read(register: u32) -> u32 {
    // SAFETY: an aligned register in the APIC page, which is mapped and belongs to the calling processor; the
    // registers used here have no side effect on reads.
    unsafe { ((BASE + register) as usize as *const u32).read_volatile() }
}

fn write(register: u32, value: u32) {
    // SAFETY: as in `read`. What a write sets off (an interrupt at most) is handled by installed entries.
    unsafe { ((BASE + register) as usize as *mut u32).write_volatile(value) };
}

/// Brings the calling processor's controller up: everything accepted, local pins masked, timer stopped.
pub fn init() {
    // SAFETY: every x86-64 processor has IA32_APIC_BASE; reading it changes nothing.
    let base = unsafe { Msr::new(BASE_MSR).read() } & BASE_MASK;
    assert_eq!(base, u64::from(BASE), "the firmware moved the local APIC");
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, MASKED);
    write(TIMER_DIVIDE, DIVIDE_BY_ONE);
    write(LVT_TIMER, u32::from(vectors::TIMER));
    write(TIMER_INITIAL, 0);
    write(SPURIOUS, ENABLE | u32::from(vectors::SPURIOUS));
}

/// Silences what the firmware left running: the two 8259 controllers and the 8254 timer.
///
/// The timer would not interrupt, but under `-icount` each of its ticks is a point that virtual time jumps to while
/// every processor halts. Mode 0 counts down once and stays put.
pub fn silence_legacy_devices() {
    const MASK_ALL: u8 = 0xff;
    const CHANNEL_0_MODE_0: u8 = 0x30;
    for (port, value) in [(0x21, MASK_ALL), (0xa1, MASK_ALL), (0x43, CHANNEL_0_MODE_0), (0x40, 1), (0x40, 0)] {
        // SAFETY: the legacy devices' own registers; nothing here depends on their interrupts.
        unsafe { PortWriteOnly::<u8>::new(port).write(value) };
    }
}

/// The calling processor's APIC id.
pub fn id() -> u8 {
    (read(ID) >> 24) as u8
}

/// Sends `command` to the processor with this APIC id. QEMU and KVM deliver within the store, so the delivery status
/// is not polled.
pub fn send(apic_id: u8, command: Command) {
    write(COMMAND_HIGH, u32::from(apic_id) << 24);
    write(COMMAND_LOW, command.word());
}

/// Tells the controller that the interrupt in service is done.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Starts the one-shot timer; it interrupts with [`vectors::TIMER`] after `count` ticks. Zero stops it.
pub fn set_timer(count: u32) {
    write(TIMER_INITIAL, count);
}

/// Ticks that the timer has left.
pub fn timer_left() -> u32 {
    read(TIMER_CURRENT)
}

/// The APIC id that addresses every processor at once.
pub const EVERYONE: u8 = 0xff;

/// Address and data of a message-signalled interrupt that raises `vector` on the processor with this APIC id, or on
/// [`EVERYONE`].
pub fn message(apic_id: u8, vector: u8) -> (u64, u32) {
    (u64::from(BASE | u32::from(apic_id) << 12), u32::from(vector))
}
