//! What the tool prints, into terminals, files and pipes whose readers may leave.
//!
//! [`say!`] prints a line of results on standard output, [`note!`] a remark on standard error. Once nobody reads
//! standard output any more, the rest is dropped without a word, the work in progress is told to end (`stop::check`) and
//! the exit status is that of a program that SIGPIPE ended; files are written all the same where nothing is left to do
//! but to print. A remark that cannot be printed is dropped. Refuses to know what is printed.
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The exit status that a shell shows for a program that SIGPIPE ended.
pub(crate) const STATUS: u8 = 141;

static CLOSED: AtomicBool = AtomicBool::new(false);
/// The first other failure of standard output, such as a full disk.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints a line on standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(format_args!($($text)*)) };
}

/// Prints a line on standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::say::remark(format_args!($($text)*)) };
}

pub(crate) use {note, say};

/// Prints a line on standard output; see [`say!`].
pub(crate) fn line(text: Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED.store(true, Ordering::Relaxed),
        Err(error) => {
            FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// Prints a line on standard error; see [`note!`].
pub(crate) fn remark(text: Arguments<'_>) {
    let _nobody_reads_it = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether nobody reads standard output any more.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Why standard output could not be written, if that was for another reason than a reader that left.
pub(crate) fn failure() -> Option<std::io::Error> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}
