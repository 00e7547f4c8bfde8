//! `cargo xtask bench`: jobs in, table and JSON out.
//!
//! Nothing is printed or written unless every run accounted for all of its requests.
use crate::accel;
use crate::cli::{Bench, Format};
use crate::disk::Disk;
use crate::environment::Environment;
use crate::figures::Cell;
use crate::image;
use crate::job::{Draft, Job};
use crate::jobfile::{self, Section, Setting};
use crate::json;
use crate::machine::Accel;
use crate::matrix::{self, Plan};
use crate::musts::{self, Check};
use crate::pin;
use crate::run::Bed;
use crate::setup;
use crate::table;
use crate::verify;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Runtime of a single job under `--quick`.
const QUICK_MS: u64 = 1_000;
/// The disk of the verified run.
const VERIFY_BYTES: u64 = 64 << 20;
/// No further pass begins after this, once there are three.
const BUDGET: Duration = Duration::from_secs(140);
const FEWEST_PASSES: usize = 3;

/// Runs the command.
pub(crate) fn run(args: &Bench) -> Result<()> {
    // Everything that can be refused is refused before anything is installed or built.
    let jobs = jobs(args)?;
    let output = output(args)?;
    let qemu = setup::qemu(args.qemu.as_deref(), !args.no_setup)?;
    for job in &jobs {
        job.machine.check(qemu.major, Accel::Tcg)?;
    }
    let mut bed = Bed {
        qemu,
        image: image::given_or_built(args.image.as_deref())?,
        accel: Accel::Tcg,
        timeout: args.timeout.map(Duration::from_secs),
    };
    let counted_only = !jobs.is_empty() && jobs.iter().all(|job| job.machine.icount);
    if !counted_only || args.accel != "auto" {
        bed.accel = accel::choose(&args.accel, &bed)?;
    }
    let environment = Environment::of(&bed.qemu, bed.accel);
    let (cells, checks) = if jobs.is_empty() { all(&bed, args)? } else { (each(&bed, jobs)?, Vec::new()) };
    let document = json::document(&environment, &cells, &checks);
    if args.output_format == Format::Json && args.output.is_none() {
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    json::write(&output, &document)?;
    if args.output_format == Format::Normal {
        show(&environment, &cells, &checks);
        println!("results: {}", output.display());
    }
    Ok(())
}

fn show(environment: &Environment, cells: &[Cell], checks: &[Check]) {
    println!("{}\n", environment.line());
    println!("{}", table::cells(cells));
    if !checks.is_empty() {
        println!("\n{}", table::checks(checks));
    }
}

/// The jobs asked for; none asks for the matrix.
fn jobs(args: &Bench) -> Result<Vec<Job>> {
    let mut given = args.workload.settings();
    given.extend(args.machine.settings());
    if args.icount {
        let (key, value, origin) = ("icount".into(), "on".into(), "--icount".into());
        given.push(Setting { key, value, origin });
    }
    let sections = match &args.file {
        Some(file) => jobfile::read(file)?,
        None if given.is_empty() => return Ok(Vec::new()),
        None => {
            let (name, settings) = ("bench".into(), Vec::new());
            vec![Section { name, settings }]
        }
    };
    sections.iter().map(|section| job(section, &given, args.quick)).collect()
}

fn job(section: &Section, given: &[Setting], quick: bool) -> Result<Job> {
    let mut draft = Draft::new();
    draft.named(&section.name).with_context(|| format!("[{}]", section.name))?;
    draft.apply(&section.settings)?;
    draft.apply(given)?;
    if quick {
        draft.runtime_unless_said(QUICK_MS);
    }
    draft.finish()
}

/// Where the JSON goes; known to be writable.
fn output(args: &Bench) -> Result<PathBuf> {
    let path = if let Some(path) = &args.output {
        path.clone()
    } else {
        let folder = image::root().join("bench/out");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        folder.join("latest.json")
    };
    json::writable(&path)?;
    Ok(path)
}

/// The jobs of the command line or a job file, one after another.
fn each(bed: &Bed, jobs: Vec<Job>) -> Result<Vec<Cell>> {
    let progress = progress(jobs.len() as u64);
    let mut cells = Vec::new();
    for job in jobs {
        progress.set_message(job.params.name.to_string());
        cells.push(once(bed, job)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(cells)
}

/// One run, checked by the host afterwards if the job verifies.
fn once(bed: &Bed, job: Job) -> Result<Cell> {
    let verified = verify::wanted(&job);
    if verified {
        verify::prepare(&job.machine.disk)?;
    }
    let outcome = bed.run(&job)?;
    if verified {
        let found = verify::check(&job.machine.disk)?;
        eprintln!("{}: the host checked {} written sectors on the disk", job.params.name, found.written);
    }
    Ok(Cell { job, samples: vec![outcome] })
}

/// The main job.
fn all(bed: &Bed, args: &Bench) -> Result<(Vec<Cell>, Vec<Check>)> {
    let plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    let start = Instant::now();
    let mut timed = matrix::timed(pin::cores()?.len(), plan)?;
    let mut counted = matrix::counted(plan)?;
    let compared = timed.iter().filter(|one| one.compared).count();
    let runs = 1 + plan.passes * timed.len() + plan.more * compared + counted.len();
    let progress = progress(runs as u64);

    progress.set_message("verify");
    let folder = tempfile::tempdir().context("making a folder for the disk")?;
    let disk = folder.path().join("verify.raw");
    Disk::create(&disk, VERIFY_BYTES)?;
    let mut cells = vec![once(bed, matrix::verified(&disk.to_string_lossy(), plan)?)?];
    progress.inc(1);

    for cell in &mut counted {
        progress.set_message(cell.job.params.name.to_string());
        cell.samples.push(bed.run(&cell.job)?);
        progress.inc(1);
    }
    for pass in 0..plan.passes + plan.more {
        if pass >= FEWEST_PASSES && start.elapsed() > BUDGET {
            eprintln!("note: this host is slow: {pass} samples per cell instead of {}", plan.passes);
            break;
        }
        for one in timed.iter_mut().filter(|one| pass < plan.passes || one.compared) {
            progress.set_message(one.cell.job.params.name.to_string());
            one.cell.samples.push(bed.run(&one.cell.job)?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    cells.extend(timed.into_iter().map(|one| one.cell));
    cells.extend(counted);
    let checks = musts::checks(&cells);
    Ok((cells, checks))
}

/// Drawn only on a terminal.
fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}
