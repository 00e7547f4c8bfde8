//! `cargo xtask test`: steps in order, one line each, one last line that counts.
//!
//! A step is a check, a run of `cargo test` whose tests are counted singly, a scenario under QEMU, or one on one of the
//! devices that the driver conforms to. What cannot run here is skipped, with the reason, and counted so. Knows how
//! steps are run and counted; what they check stands in [`scenarios`], [`conformance`] and in the packages' own tests.
use crate::beds::Beds;
use crate::cli::Test;
use crate::conformance::{self, Device, Mark};
use crate::fail::{self, Failure, Skip, last};
use crate::files;
use crate::fio;
use crate::guests;
use crate::image;
use crate::lab::{Lab, Run, Size};
use crate::libtest::{self, Tally};
use crate::native_scenarios;
use crate::process::capture;
use crate::root::root;
use crate::say::say;
use crate::scenarios::{self, Scenario};
use crate::setup;
use crate::stop;
use anyhow::Result;
use std::fmt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Longest time for one run of cargo, cold builds included.
const LIMIT: Duration = Duration::from_mins(20);
/// What the loom models may take, building them included.
const LOOM_LIMIT: Duration = Duration::from_mins(5);

/// Packages of which a part can be left out, by their default features.
const OPTIONAL_PARTS: [&str; 2] = ["--package=drv-virtio-block", "--package=blockd"];

/// Runs the command.
pub(crate) fn run(args: &Test) -> Result<ExitCode> {
    let size = match (args.quick, args.long) {
        (true, _) => Size::Quick,
        (_, true) => Size::Long,
        _ => Size::Default,
    };
    let mut all = Steps { filter: args.only.as_deref(), tally: Tally::default() };
    static_checks(&mut all)?;
    rust_tests(&mut all, !args.no_setup, size)?;
    on_devices(&mut all, args, size)?;
    with_fio(&mut all, !args.no_setup, size)?;
    let Tally { passed, failed, skipped } = all.tally;
    if let (Some(filter), 0) = (&args.only, passed + failed + skipped) {
        anyhow::bail!("no step's name contains `{filter}`: leave --only out to see them all");
    }
    say!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn static_checks(all: &mut Steps<'_>) -> Result<()> {
    all.step("fmt", || {
        tool_or_skip("fmt")?;
        succeeds(image::cargo()?.args(["fmt", "--all", "--check"]), LIMIT)
    })?;
    all.step("clippy", || {
        tool_or_skip("clippy")?;
        let arguments = ["clippy", "--workspace", "--all-targets", "--features=xtask/browser", "--", "-D", "warnings"];
        succeeds(image::cargo()?.args(arguments), LIMIT)
    })?;
    all.step("clippy of the image", || {
        let mut command = image::cargo()?;
        command.args(["clippy", "--package=image", "--features=freestanding", "--", "-D", "warnings"]);
        succeeds(&mut command, LIMIT)
    })?;
    all.step("clippy without the optional parts", || {
        for package in OPTIONAL_PARTS {
            let arguments = ["clippy", package, "--no-default-features", "--", "-D", "warnings"];
            succeeds(image::cargo()?.args(arguments), LIMIT)?;
        }
        Ok(())
    })?;
    all.step("doc", || documented(&["--workspace"]))?;
    all.step("doc in every other feature set", || {
        for package in OPTIONAL_PARTS {
            documented(&[package, "--no-default-features"])?;
        }
        documented(&["--package=image", "--features=freestanding"])
    })
}

/// The documentation of what `arguments` choose, without a warning (an unresolved link is one).
fn documented(arguments: &[&str]) -> Result<()> {
    let mut command = image::cargo()?;
    command.args(["doc", "--no-deps"]).args(arguments).env("RUSTDOCFLAGS", "-D warnings");
    succeeds(&mut command, LIMIT)
}

fn rust_tests(all: &mut Steps<'_>, install: bool, size: Size) -> Result<()> {
    // The tests over vhost-user say so and pass where it cannot be had; here that is one line, and counted.
    all.step("tests: qemu-storage-daemon is there for them", || {
        setup::storage_daemon(install).map(drop).map_err(|error| Skip(fail::line(&error)).into())
    })?;
    all.tests("tests", || {
        let mut command = image::cargo()?;
        command.args(["test", "--workspace", "--tests", "--no-fail-fast"]);
        if matches!(size, Size::Long) {
            command.env("LIB_BLOCK_INPUTS", "10000000");
        }
        counted(&mut command, LIMIT)
    })?;
    all.tests("doctests", || {
        let mut command = image::cargo()?;
        command.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
        counted(&mut command, LIMIT)
    })?;
    if !matches!(size, Size::Quick) {
        all.tests("page, in a browser", || {
            let browser = setup::chromium(install).map_err(|error| Skip(fail::line(&error)))?;
            let mut command = image::cargo()?;
            command.args(["test", "--package=xtask", "--features=browser", "--test=page", "--no-fail-fast"]);
            counted(command.env("CHROMIUM", browser), LIMIT)
        })?;
    }
    all.tests("loom", || {
        let mut command = image::cargo()?;
        let arguments = ["test", "--release", "--package=drv-virtio-block", "--lib", "models"];
        command
            .args(arguments)
            .arg("--target-dir")
            .arg(root()?.join("target-loom"))
            .env("RUSTFLAGS", "--cfg loom")
            // The models run for seconds; linking them as the image is linked takes minutes.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        counted(&mut command, LOOM_LIMIT)
    })
}

/// The scenarios under QEMU, then those on every device, with whatever they need built and installed before.
fn on_devices(all: &mut Steps<'_>, args: &Test, size: Size) -> Result<()> {
    let booted = scenarios::all(size, args.record).into_iter().chain(guests::all(size, !args.no_setup));
    let booted: Vec<Scenario> = booted.filter(|scenario| all.wants(&scenario.name)).collect();
    let wanted = |scenario: &conformance::Scenario, device| scenario.is_for(device) && all.wants(&scenario.on(device));
    let conforming: Vec<conformance::Scenario> = conformance::all(size)
        .into_iter()
        .filter(|scenario| Device::ALL.iter().any(|&device| wanted(scenario, device)))
        .collect();
    let inside: Vec<Scenario> =
        native_scenarios::all(size, args.record).into_iter().filter(|scenario| all.wants(&scenario.name)).collect();
    let needs = |device| conforming.iter().any(|scenario| wanted(scenario, device));
    let image = !booted.is_empty() || needs(Device::Qemu);
    let native =
        !inside.is_empty() || needs(Device::StorageDaemon) || needs(Device::RustVmm) || needs(Device::Deviating);
    let mut beds = Beds::default();
    if image || all.wants("image") {
        all.always("image", || beds.add_qemu(args))?;
    }
    if native || all.wants("native") {
        all.always("native bench", || beds.add_native(args))?;
    }
    let on_qemu = beds.lab(Device::Qemu, size);
    for scenario in booted {
        run_in(all, &scenario.name, &on_qemu, &scenario.run)?;
    }
    for scenario in inside {
        let lab = beds.inside(size, scenario.name.starts_with(native_scenarios::COUNTS));
        run_in(all, &scenario.name, &lab, &scenario.run)?;
    }
    all.step("native: files on a partition, over the whole path", || files::on_a_partition(!args.no_setup))?;
    conform(all, &conforming, &beds, size)
}

/// fio on our driver, and its plots of our results; not in the short form.
fn with_fio(all: &mut Steps<'_>, install: bool, size: Size) -> Result<()> {
    if matches!(size, Size::Quick) {
        return Ok(());
    }
    let mut bench = Err("there is no fio with our engine".to_owned());
    if fio::steps::ALL.iter().any(|check| all.wants(check.name)) {
        all.always("fio's engine", || {
            let made = fio::steps::Bench::new(install);
            made.map(|made| bench = Ok(made))
        })?;
    }
    for check in &fio::steps::ALL {
        all.step(check.name, || (check.run)(bench.as_ref().map_err(|why| Skip(why.clone()))?))?;
    }
    all.step("fio-plot: reads and draws our results", || fio::plot::reads_our_results(install))
}

/// A scenario as a step, skipped if there is no lab; what came of it.
fn run_in(all: &mut Steps<'_>, name: &str, lab: &Result<Lab, String>, run: &Run) -> Result<Mark> {
    let mut mark = Mark::None;
    all.step(name, || {
        let result = match lab {
            Ok(lab) => run(lab),
            Err(why) => Err(Skip(why.clone()).into()),
        };
        mark = Mark::of(&result);
        result
    })?;
    Ok(mark)
}

/// Every scenario on every device, and the table of what came of it.
fn conform(all: &mut Steps<'_>, chosen: &[conformance::Scenario], beds: &Beds, size: Size) -> Result<()> {
    let labs = Device::ALL.map(|device| beds.lab(device, size));
    let mut rows = Vec::new();
    for scenario in chosen {
        let mut marks = [Mark::None; Device::ALL.len()];
        for ((device, lab), mark) in Device::ALL.into_iter().zip(&labs).zip(&mut marks) {
            if scenario.is_for(device) {
                *mark = run_in(all, &scenario.on(device), lab, &scenario.run)?;
            }
        }
        rows.push((scenario.name.clone(), marks));
    }
    if !rows.is_empty() {
        say!("{}", conformance::table(&rows));
    }
    Ok(())
}

/// Runs steps, prints their lines, counts.
struct Steps<'a> {
    filter: Option<&'a str>,
    tally: Tally,
}

impl Steps<'_> {
    fn wants(&self, name: &str) -> bool {
        self.filter.is_none_or(|filter| name.contains(filter))
    }

    /// A step that counts as one test.
    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.wants(name) { self.always(name, run) } else { Ok(()) }
    }

    /// Likewise, whatever the filter.
    fn always(&mut self, name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
        let one = Tally { passed: 1, ..Tally::default() };
        self.run(name, || run().map(|()| (one, String::new())))
    }

    /// A step of many tests.
    fn tests(&mut self, name: &str, run: impl FnOnce() -> Result<Tally>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        self.run(name, || {
            let tally = run()?;
            Ok((tally, format!(": {} passed, {} ignored", tally.passed, tally.skipped)))
        })
    }

    fn run(&mut self, name: &str, run: impl FnOnce() -> Result<(Tally, String)>) -> Result<()> {
        let start = Instant::now();
        let result = run();
        stop::check()?;
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok((tally, detail)) => {
                say!("ok      {name}{detail} ({seconds:.1} s)");
                self.tally += tally;
            }
            Err(error) => self.not_passed(name, &error, seconds),
        }
        Ok(())
    }

    fn not_passed(&mut self, name: &str, error: &anyhow::Error, seconds: f64) {
        let line = fail::line(error);
        if fail::is_skip(error) {
            say!("skipped {name}: {line}");
            self.tally.skipped += 1;
            return;
        }
        say!("FAILED  {name} ({seconds:.1} s): {line}");
        for text in fail::tail(error) {
            say!("  | {text}");
        }
        self.tally += match error.downcast_ref::<SomeFailed>() {
            Some(SomeFailed { tally, .. }) => *tally,
            None => Tally { failed: 1, ..Tally::default() },
        };
    }
}

/// Some of many tests failed.
#[derive(Debug)]
struct SomeFailed {
    tally: Tally,
    failure: Failure,
}

impl fmt::Display for SomeFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for SomeFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

fn succeeds(command: &mut Command, limit: Duration) -> Result<()> {
    let ran = capture(command, limit, |_| ())?;
    if ran.status.success() {
        return Ok(());
    }
    Err(Failure::new(shown(command), last(&ran.lines)).into())
}

/// Counts the tests of a `cargo test`.
fn counted(command: &mut Command, limit: Duration) -> Result<Tally> {
    let ran = capture(command, limit, |_| ())?;
    let mut tally = libtest::tally(&ran.lines);
    if ran.status.success() {
        return Ok(tally);
    }
    // A test binary that does not build, or dies, is a failure of its own.
    tally.failed = tally.failed.max(1);
    let failed = libtest::failures(&ran.lines);
    let mut what = shown(command);
    if !failed.is_empty() {
        what = format!("{} ({what})", failed.join(", "));
    }
    let failure = Failure::new(what, libtest::excerpt(&ran.lines));
    Err(SomeFailed { tally, failure }.into())
}

/// The command as one types it.
fn shown(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    format!("cargo {} failed", words.join(" "))
}

fn tool_or_skip(subcommand: &str) -> Result<()> {
    let mut command = image::cargo()?;
    let there = capture(command.args([subcommand, "--version"]), LIMIT, |_| ())?;
    if there.status.success() { Ok(()) } else { Err(Skip(format!("cargo {subcommand} is not installed")).into()) }
}
