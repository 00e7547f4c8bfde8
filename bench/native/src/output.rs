//! Lines on standard output and standard error, whose readers may leave before this process ends.
//!
//! Without a reader of standard output nobody wants the rest: the process ends at once and quietly, as SIGPIPE would end
//! it. A line on standard error that nobody reads is dropped.
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// The exit status that a shell shows for a process that SIGPIPE ended.
const STATUS: i32 = 141;

/// Prints a line on standard output.
pub fn line(text: Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let Err(error) = writeln!(output, "{text}").and_then(|()| output.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(STATUS);
    }
    complain(format_args!("standard output cannot be written: {error}"));
    std::process::exit(1);
}

/// Prints a line on standard error.
pub fn complain(text: Arguments<'_>) {
    let _nobody_reads_it = writeln!(std::io::stderr().lock(), "{text}");
}
