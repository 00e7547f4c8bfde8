//! The serial line: the one place where the image speaks, and the [`print!`](crate::print) and
//! [`println!`](crate::println) macros.
//!
//! Any processor may print; a spin lock keeps lines whole. Interrupt handlers do not print, except those that end the
//! run: they go through [`with_dying_line`], which waits a bounded time for the lock and then speaks regardless,
//! because its holder may be the very code that was interrupted.

use crate::cpu::lock::Mutex;
use core::fmt::{self, Write};
use core::hint;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};

const COM1: u16 = 0x3f8;
/// Attempts to take the lock before a dying processor speaks without it.
const PATIENCE: u32 = 1 << 20;

static LINE: Mutex<Line> = Mutex::new(Line(com1()));

struct Line(Uart16550<PioBackend>);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send_bytes_exact(text.as_bytes());
        Ok(())
    }
}

const fn com1() -> Uart16550<PioBackend> {
    // SAFETY: COM1's eight ports belong to this module alone, for the image's whole life.
    match unsafe { Uart16550::new_port(COM1) } {
        Ok(uart) => uart,
        Err(_) => panic!("0x3f8 is a valid port"),
    }
}

/// Sets the port up (FIFO on). A missing port is not an error: the text is lost, the exit status still speaks.
pub fn init() {
    let _ = LINE.lock().0.init(Config::default());
}

/// The macros' back end.
pub fn write(text: fmt::Arguments<'_>) {
    let _ = LINE.lock().write_fmt(text);
}

/// Prints on a processor that is about to end the run and may have interrupted the lock's holder.
pub fn with_dying_line(speak: impl FnOnce(&mut dyn Write)) {
    for _ in 0..PATIENCE {
        if let Some(mut line) = LINE.try_lock() {
            speak(&mut *line);
            return;
        }
        hint::spin_loop();
    }
    speak(&mut Line(com1()));
}

/// Prints to the serial line.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::serial::write(format_args!($($argument)*)) };
}

/// Prints to the serial line and ends the line.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::serial::write(format_args!("{}\n", format_args!($($argument)*))) };
}
