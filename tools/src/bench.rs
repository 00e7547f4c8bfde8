//! `cargo xtask bench`: jobs in, table, JSON and page out.
//!
//! Nothing is printed or written unless every run accounted for all of its requests; but where JSON was asked for, and
//! the last run's requests ended in errors, that tells of them.
use crate::backend::Backend;
use crate::check::Check;
use crate::cli::{Bench, Format};
use crate::cpu;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::figures::{self, Cell};
use crate::heard::Unsound;
use crate::job::Job;
use crate::jobfile::Setting;
use crate::json;
use crate::matrix::{self, Matrix, Plan};
use crate::native_matrix;
use crate::page;
use crate::pin;
use crate::root::root;
use crate::run::{Bed, Outcome};
use crate::say::{note, say};
use crate::shortfall;
use crate::stop;
use crate::table;
use crate::verify;
use crate::work::{self, Work};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The disk of the verified run.
const VERIFY_BYTES: u64 = 64 << 20;

/// Runs the command.
pub(crate) fn run(args: &Bench) -> Result<()> {
    let output = output(args.output.as_deref(), "latest.json")?;
    let (work, bed) = work::prepare(args)?;
    if pin::cores()?.len() == 1 {
        note!("note: there is one core only: the device takes turns with the driver on it");
    }
    let environment = Environment::of(&bed);
    let (cells, checks) = match work {
        Work::Jobs(jobs) => {
            let mut cells = Vec::new();
            let done = each(&bed, jobs, &mut cells);
            let told = |error: &anyhow::Error| error.downcast_ref::<Unsound>().is_some_and(Unsound::says_so);
            if done.as_ref().is_err_and(told) {
                tell(args, &json::document(&environment, &cells, &[]))?;
            }
            done?;
            (cells, Vec::new())
        }
        Work::Matrix(backend, place) => all(&bed, &backend, &place, args)?,
    };
    if let Some(share) = figures::others(&cells).filter(|share| *share > cpu::POOR) {
        note!("note: others took {:.0} % of the processors: measure again when the host is idle", share * 100.0);
    }
    for line in shortfall::of_cells(&cells) {
        note!("note: {line}");
    }
    let document = json::document(&environment, &cells, &checks);
    if args.means.output_format == Format::Json && args.output.is_none() {
        say!("{}", serde_json::to_string_pretty(&document)?);
    }
    json::write(&output, &document)?;
    let page = page(&output);
    if let Some(page) = &page {
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        page::write(page, &[(name, document)])?;
    }
    if args.means.output_format == Format::Normal {
        show(&environment, &cells, &checks);
        say!("results: {}", output.display());
        if let Some(page) = page {
            say!("page: {}", page.display());
        }
    }
    Ok(())
}

/// Where JSON was asked for, it tells of a run that failed, too; former results of nobody's choice are left alone.
fn tell(args: &Bench, document: &Value) -> Result<()> {
    match &args.output {
        Some(output) => json::write(output, document),
        None if args.means.output_format == Format::Json => {
            say!("{}", serde_json::to_string_pretty(document)?);
            Ok(())
        }
        None => Ok(()),
    }
}

fn show(environment: &Environment, cells: &[Cell], checks: &[Check]) {
    say!("{}\n", environment.line());
    say!("{}", table::cells(cells));
    if !checks.is_empty() {
        say!("\n{}", table::checks(checks));
    }
}

/// Where the JSON goes, to `name` unless somebody said; known to be writable.
pub(crate) fn output(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    let path = if let Some(path) = given {
        path.to_owned()
    } else {
        let folder = root()?.join("bench/out");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        folder.join(name)
    };
    writable(&path)?;
    Ok(path)
}

/// Fails early if results or their page could not be written there.
fn writable(path: &Path) -> Result<()> {
    json::writable(path)?;
    if let Some(page) = page(path) {
        if page == path {
            bail!("--output={}: the page goes there: give a name that does not end in .html", path.display());
        }
        json::writable(&page)?;
    }
    Ok(())
}

/// Where the page goes: beside the JSON, unless that goes to a device or a pipe.
pub(crate) fn page(output: &Path) -> Option<PathBuf> {
    (!output.exists() || output.is_file()).then(|| output.with_extension("html"))
}

/// The jobs of the command line or a job file, one after another, into `cells`; the last one is there even if its
/// requests ended in errors.
fn each(bed: &Bed, jobs: Vec<Job>, cells: &mut Vec<Cell>) -> Result<()> {
    let progress = progress(jobs.len() as u64);
    for job in jobs {
        progress.set_message(job.params.name.to_string());
        let cell = once(bed, job.clone()).inspect_err(|error| {
            if let Some(unsound) = error.downcast_ref::<Unsound>() {
                cells.push(Cell { job, samples: vec![Outcome::clone(&unsound.outcome)] });
            }
        })?;
        cells.push(cell);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// One run, checked by the host afterwards if the job verifies; the time limit is that of all of it.
pub(crate) fn once(bed: &Bed, job: Job) -> Result<Cell> {
    let _limit = stop::within(bed.timeout);
    let verified = verify::wanted(&job);
    if verified {
        verify::prepare(&job)?;
    }
    let outcome = bed.run(&job)?;
    if verified {
        let found = verify::check(&job)?;
        let name = &job.params.name;
        if job.params.rw.trims() {
            note!("{name}: the host checked that {} sectors read as zeros on the disk", found.zeros);
        } else {
            note!("{name}: the host checked {} written sectors on the disk", found.written);
        }
    }
    Ok(Cell { job, samples: vec![outcome] })
}

/// The main job.
fn all(bed: &Bed, backend: &Backend, place: &[Setting], args: &Bench) -> Result<(Vec<Cell>, Vec<Check>)> {
    let folder = tempfile::tempdir().context("making a folder for the disk")?;
    let path = folder.path().join("verify.raw");
    Disk::create(&path, VERIFY_BYTES)?;
    let disk = path.to_string_lossy();
    let plan = |full: Plan, quick: Plan| if args.quick { quick } else { full }.with_passes(args.passes);
    let mut matrix = match backend {
        Backend::Qemu => matrix::qemu(pin::cores()?.len(), plan(Plan::FULL, Plan::QUICK), &disk)?,
        _ => native_matrix::on(backend, place, plan(native_matrix::FULL, native_matrix::QUICK), &disk)?,
    };
    if bed.native.as_ref().is_some_and(|native| native.valgrind.is_none()) {
        matrix.counted.clear();
    }
    measure(bed, matrix)
}

fn measure(bed: &Bed, matrix: Matrix) -> Result<(Vec<Cell>, Vec<Check>)> {
    let Matrix { plan, verified, mut timed, mut counted, checks } = matrix;
    let start = Instant::now();
    let compared = timed.iter().filter(|one| one.compared).count();
    let runs = 1 + plan.passes * timed.len() + plan.more * compared + counted.len();
    let progress = progress(runs as u64);
    progress.set_message("verify");
    let mut cells = vec![once(bed, verified)?];
    progress.inc(1);
    for cell in &mut counted {
        progress.set_message(cell.job.params.name.to_string());
        cell.samples.push(bed.run(&cell.job)?);
        progress.inc(1);
    }
    for pass in 0..plan.passes + plan.more {
        if pass >= plan.fewest && start.elapsed() > plan.budget {
            note!("note: this host is slow: {pass} samples per cell instead of {}", plan.passes + plan.more);
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
    let checks = checks(&cells);
    Ok((cells, checks))
}

/// Drawn only on a terminal.
pub(crate) fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}
