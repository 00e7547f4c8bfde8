//! The workload runner, in the place of blockd: one run of one set of parameters, from bring-up to report.
//!
//! Reading order: this file (what a run consists of), [`rig`] (the device and its queues brought up), [`handover`]
//! (deviced's part), [`job`] (the loop), [`drive`] (drivers as the loop sees them), [`content`] and [`buffers`] (data),
//! [`fleet`] (jobs on processors), [`icount`], [`runs`] (the kinds of run), [`seal`] (the table that lets the host check the disk).
//!
//! Results are the lines of [`workload::report`]; everything else printed is for people.
mod buffers;
mod content;
mod drive;
mod fleet;
mod handover;
mod icount;
mod job;
mod operations;
mod platform;
mod raw;
mod rig;
mod runs;
mod seal;

use crate::exit::Exit;
use crate::{Machine, println, serial, watchdog};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use fleet::Crew;
use rig::{Memory, Rig};
use workload::params::{Driver, Params, Submit, Verify};
use workload::report::{Line, Note, Report, Tally};

/// Bound on bring-up, and on what comes after the last submission.
const MARGIN_NS: u64 = 20_000_000_000;
/// Bound on a run that is given as a number of I/Os.
const COUNT_NS: u64 = 3_600_000_000_000;

/// Runs what the command line says; the exit status says whether there is a result.
pub fn run(machine: &Machine) -> Exit {
    match try_run(machine) {
        Ok(report) => {
            say(&Line::Done(*report));
            Exit::Success
        }
        Err(why) => {
            say(&Line::Failed(Note::new(format_args!("{why}"))));
            Exit::Failure
        }
    }
}

fn try_run(machine: &Machine) -> Result<Box<Report>, String> {
    let params = Params::parse(machine.command_line.text()).map_err(|e| e.to_string())?;
    params.validate().map_err(|e| e.to_string())?;
    watchdog::arm(MARGIN_NS);
    let cpus = if params.icount { 1 } else { machine.start_processors() };
    let crew = Crew::new(&params, cpus)?;
    if params.scenario.as_str() == "operations" {
        operations::run(up(machine, &params, &crew)?)?;
        return Ok(Box::new(Report::new(&Tally::new(), 0)));
    }
    if params.submit == Submit::Mutex {
        return Err("submit=mutex is compared natively: give --backend=embedded".to_string());
    }
    match (params.driver, params.icount) {
        (Driver::VirtioDriver, _) => Err("driver=virtio-driver runs natively: give --backend=vhost-user".to_string()),
        (Driver::Ours, true) => runs::count(up(machine, &params, &crew)?, &params, &crew),
        (Driver::Raw, true) => runs::count_raw(up(machine, &params, &crew)?, &params),
        (Driver::Raw, false) => runs::raw(up(machine, &params, &crew)?, &params, &crew),
        (Driver::Ours, false) if params.verify == Verify::Crc32c => {
            runs::verified(up(machine, &params, &crew)?, &params, &crew)
        }
        (Driver::Ours, false) => runs::plain(up(machine, &params, &crew)?, &params, &crew),
    }
}

/// Brings the device up, says what was reached, and sets the bound for the run.
fn up<M: Memory>(machine: &Machine, params: &Params, crew: &Crew) -> Result<Rig<M>, String> {
    let rig = Rig::new(machine, params, crew)?;
    say(&Line::Boot(rig.boot()));
    let bound = if params.runtime_ms == 0 { COUNT_NS } else { params.runtime_ms * 1_000_000 };
    watchdog::arm(bound + MARGIN_NS);
    Ok(rig)
}

/// Prints a result line.
pub fn say(line: &Line) {
    let mut text = String::new();
    match line.encode(&mut text) {
        Ok(()) => serial::write(format_args!("{text}")),
        Err(_) => println!("image: a result line does not fit"),
    }
}
