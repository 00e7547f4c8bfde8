//! How a run ends: one status per reason, reported through QEMU's `isa-debug-exit` device.
//!
//! QEMU exits with `(code << 1) | 1`. The codes start at 0x10, so that no reason collides with a status that QEMU
//! itself or a shell gives (0, 1, 2, 124, 127): whoever launches the image tells the reasons apart without reading text.

use x86_64::instructions::{hlt, interrupts, port::PortWriteOnly};

/// The port that `-device isa-debug-exit,iobase=0xf4,iosize=4` listens on.
pub const PORT: u16 = 0xf4;

/// Why the image stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    /// The scenario ran and everything that it checks held. QEMU's status: 33.
    Success = 0x10,
    /// The scenario ran and reports a failure, or is unknown. QEMU's status: 35.
    Failure = 0x11,
    /// A Rust panic: an invariant of the image is broken. QEMU's status: 37.
    Panic = 0x12,
    /// A processor exception, or an interrupt that nobody asked for. QEMU's status: 39.
    Fault = 0x13,
    /// The watchdog's deadline passed. QEMU's status: 41.
    Hang = 0x14,
}

/// Ends the virtual machine. Without the exit device the processor halts for good instead.
pub fn exit(reason: Exit) -> ! {
    let mut port = PortWriteOnly::<u32>::new(PORT);
    // SAFETY: the port belongs to the exit device alone (or to nobody); writing it touches no memory of ours.
    unsafe { port.write(reason as u32) };
    loop {
        interrupts::disable();
        hlt();
    }
}
