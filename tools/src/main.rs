//! The command line of drv-virtio-block: `cargo xtask setup|image|bench|compare|report|fio|test`.
//!
//! Where to read: [`cli`] what can be typed; [`mod@bench`] the main job, of [`job`]s from [`jobfile`]s or the
//! [`matrix`]; [`mod@compare`] the same work by the peers; [`mod@run`] one run to a report, of what is [`running`]: a
//! [`vm`] on a [`machine`], or the [`native`] bench on a [`server`] or a device of its own ([`backend`]); [`figures`],
//! [`table`], [`json`], [`page`] what is shown; [`testrun`], [`scenarios`] and [`conformance`] what is tested;
//! [`mod@fio`] fio on our driver. Every error is one line that says what to do.
#![deny(clippy::print_stdout, clippy::print_stderr, reason = "`say` outlives readers that leave")]
mod accel;
mod backend;
mod beds;
mod bench;
mod blockd;
mod callgrind;
mod check;
mod cli;
mod compare;
mod compared;
mod conformance;
mod counts;
mod cpu;
mod disk;
mod environment;
mod fail;
mod fewer_vectors;
mod figures;
mod files;
mod fio;
mod guest_count;
mod guests;
mod heard;
mod icount;
mod image;
mod job;
mod jobfile;
mod jobs;
mod json;
mod kills;
mod lab;
mod later;
mod libtest;
mod linux;
mod machine;
mod matrix;
mod monitor;
mod musts;
mod native;
mod native_matrix;
mod native_musts;
mod native_scenarios;
mod odd_machines;
mod over_blockd;
mod page;
mod pairs;
mod partitions;
mod peers;
mod pin;
mod pingpong;
mod process;
mod program;
mod qemu;
mod report;
mod results;
mod root;
mod run;
mod running;
mod say;
mod scenarios;
mod server;
mod setup;
mod shortfall;
mod stop;
mod table;
mod testrun;
mod verify;
mod vm;
mod work;
mod zeros;

use anyhow::Result;
use cli::Command;
use say::{note, say};
use std::process::ExitCode;

/// The status of a command line that was not understood, as is customary.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            note!("error: {}", cli::one_line(&error));
            return ExitCode::from(USAGE);
        }
        Err(help) => {
            say!("{}", help.to_string().trim_end());
            return printed(ExitCode::SUCCESS);
        }
    };
    match stop::install().and_then(|()| run(cli.command)) {
        Ok(status) => printed(status),
        Err(_) if say::is_closed() && !stop::requested() => ExitCode::from(say::STATUS),
        Err(error) => {
            fail::show(&error);
            if stop::requested() { ExitCode::from(stop::STATUS) } else { ExitCode::FAILURE }
        }
    }
}

/// The exit status, given how far what was printed came.
fn printed(status: ExitCode) -> ExitCode {
    if say::is_closed() {
        return ExitCode::from(say::STATUS);
    }
    let Some(error) = say::failure() else {
        return status;
    };
    note!("error: standard output cannot be written: {error}");
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => setup::everything().map(|()| say!("nothing is missing"))?,
        Command::Image => say!("{}", image::build()?.display()),
        Command::Bench(args) => bench::run(&args)?,
        Command::Test(args) => return testrun::run(&args),
        Command::Compare(args) => compare::run(&args)?,
        Command::Report(args) => report::run(&args)?,
        Command::Fio(args) => return fio::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}
