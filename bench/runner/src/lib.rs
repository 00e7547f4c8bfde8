//! The workload runner, in the place of blockd: one run of one set of parameters, from bring-up to report.
//!
//! The image and the native bench run the same code; what differs between them (memory, threads, waiting, how a device
//! is reached) is behind one trait, [`ground::Ground`]. `no_std` with `alloc`.
//!
//! Reading order: this file (what a run consists of), [`ground`], [`rig`] (the device and its queues brought up),
//! [`crew`] (who shares what), [`job`] (the loop), [`drive`] (drivers as the loop sees them; [`raw`] and [`locked`] to
//! compare with, [`patience`] with others'; [`failure`]: why a request failed), [`fits`] (what a disk cannot do), [`content`] and [`buffers`] (data), [`icount`], [`runs`] (the kinds of run), `operations` and
//! `flush` (scenarios), `seal` (the table that lets the host check the disk).
//!
//! Results are the lines of [`workload::report`]; everything else printed is for people.
#![no_std]
extern crate alloc;

mod blockd;
pub mod buffers;
pub mod content;
pub mod crew;
pub mod drive;
pub mod failure;
pub mod fits;
mod flush;
pub mod ground;
pub mod icount;
pub mod job;
pub mod locked;
mod operations;
pub mod patience;
pub mod raw;
pub mod rig;
pub mod runs;
mod seal;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use crew::Crew;
use ground::Ground;
use workload::params::{Driver, Params, Submit, Verify, Via};
use workload::report::{Line, Note, Report, Tally};

/// Bound on bring-up, and on what comes after the last submission.
const MARGIN_NS: u64 = 20_000_000_000;
/// Bound on a run that is given as a number of I/Os.
const COUNT_NS: u64 = 3_600_000_000_000;

/// Runs what `params` say and reports it on `ground`; whether there is a result.
pub fn run<G: Ground>(ground: &mut G, params: &Params) -> bool {
    let result = try_run(ground, params);
    conclude(ground, result)
}

/// Says what a run came to; whether there is a result.
pub fn conclude<G: Ground>(ground: &G, result: runs::Outcome) -> bool {
    match result {
        Ok(report) => {
            ground.say(&Line::Done(*report));
            true
        }
        Err(why) => {
            ground.say(&Line::Failed(Note::new(format_args!("{why}"))));
            false
        }
    }
}

fn try_run<G: Ground>(ground: &mut G, params: &Params) -> runs::Outcome {
    params.validate().map_err(|e| e.to_string())?;
    ground.bound(MARGIN_NS);
    let crew = Crew::new(params);
    ground.seats(crew)?;
    let scenario = match params.scenario.as_str() {
        "none" => None,
        crew::RESTART => return blockd::restart(ground, params, crew),
        "blockd" => Some(blockd::calls(ground, params, crew)),
        "operations" => Some(operations::run(ground, params, crew)),
        "flush" => Some(flush::run(ground, params, crew)),
        other => return Err(format!("there is no scenario `{other}`: give operations, flush, blockd or restart")),
    };
    if let Some(outcome) = scenario {
        return outcome.map(|()| Box::new(Report::new(&Tally::new(), 0)));
    }
    if params.via == Via::Blockd {
        return blockd::run(ground, params, crew);
    }
    match (params.driver, params.icount) {
        (Driver::VirtioDriver | Driver::Blkio, _) => {
            Err(format!("driver={} runs natively: give --backend=vhost-user", params.driver))
        }
        (Driver::VirtioDrivers, _) => Err("driver=virtio-drivers runs in the image: give --backend=qemu".to_string()),
        (Driver::Linux, _) => Err("driver=linux runs in a guest of its own: give --backend=qemu".to_string()),
        (Driver::Ours, true) => runs::count(ground, params, crew),
        (Driver::Raw, true) => runs::count_raw(ground, params, crew),
        (Driver::Raw, false) => runs::raw(ground, params, crew),
        (Driver::Ours, false) if params.submit == Submit::Mutex => runs::locked(ground, params, crew),
        (Driver::Ours, false) if params.verify == Verify::Crc32c => runs::verified(ground, params, crew),
        (Driver::Ours, false) => runs::plain(ground, params, crew),
    }
}

/// How long a run may take.
pub fn bound(params: &Params) -> u64 {
    let run = if params.runtime_ms == 0 { COUNT_NS } else { params.runtime_ms * 1_000_000 };
    run + MARGIN_NS
}
