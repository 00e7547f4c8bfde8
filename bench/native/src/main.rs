//! The native bench: one run of one set of parameters in this process, or a device served to another.
//!
//! `native run` says on standard output what the image says on its serial line; `native serve` is a back-end.
#![deny(clippy::print_stdout, clippy::print_stderr, reason = "`output` outlives readers that leave")]
#![forbid(unsafe_code)]
use clap::Parser;
use native::cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => native::bench::run(&run),
        Command::Serve(serve) => native::bench::serve(&serve),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
