//! The command line, as typed.
//!
//! Workload options carry fio's names and stay text here: [`Draft`] reads them, the same way for the command line, job
//! files and the matrix. Errors of the command line are one line.
//!
//! [`Draft`]: crate::job::Draft
use crate::compare::Peer;
use crate::jobfile::Setting;
use crate::jobs::keys;
use clap::{Arg, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Builds, boots, measures and tests the virtio block driver.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One of the tool's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what is missing (QEMU, its storage daemon, valgrind, dosfstools, fio, Chromium, a linker)
    Setup,
    /// Build the image and print its path
    Image,
    /// Measure; without options: set up, verify, measure the matrix, count instructions
    Bench(Box<Bench>),
    /// Run every test; ends with one line `N passed, N failed, N skipped`
    Test(Test),
    /// The same work by this driver and by its peers, interleaved; table, JSON and page
    Compare(Box<Compare>),
    /// One HTML page from result files
    Report(Report),
    /// Build fio's engine and print how it is used; with arguments: run fio with it
    Fio(Fio),
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Result files: of bench, of compare, or plain fio's JSON
    #[arg(required = true, value_name = "FILE.json")]
    pub(crate) files: Vec<PathBuf>,
    /// Where the page goes [default: beside the first file, under its name or, of several, report.html]
    #[arg(long, value_name = "FILE.html")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Fio {
    /// Do not install what is missing
    #[arg(long)]
    pub(crate) no_setup: bool,
    /// For fio, behind --
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The table; the JSON goes to a file.
    Normal,
    /// The JSON, or nothing if --output takes it.
    Json,
}

/// With what something is measured, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct Means {
    /// What to print: normal (the tables) or json
    #[arg(long, value_name = "FORMAT", default_value = "normal")]
    pub(crate) output_format: Format,
    /// Do not install what is missing
    #[arg(long)]
    pub(crate) no_setup: bool,
    /// QEMU to use instead of the one on the search path
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<PathBuf>,
    /// auto (tries KVM, falls back), kvm or tcg
    #[arg(long, value_name = "ACCEL", default_value = "auto")]
    pub(crate) accel: String,
    /// Image to boot instead of building one
    #[arg(long, value_name = "PATH")]
    pub(crate) image: Option<PathBuf>,
    /// Native bench to run instead of building one
    #[arg(long, value_name = "PATH")]
    pub(crate) native: Option<PathBuf>,
    /// Longest time for one run, in seconds [default: from the job's length]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "fio's other options are taken as in job files: docs/fio-keys.md")]
pub(crate) struct Bench {
    /// fio job file; sections run one after another, options given here override it
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) workload: Workload,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Fewer samples, shorter runs
    #[arg(long)]
    pub(crate) quick: bool,
    /// Count instructions per I/O instead of measuring time
    #[arg(long)]
    pub(crate) icount: bool,
    /// Where the JSON goes [default: bench/out/latest.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) means: Means,
    /// Passes over the matrix, when no workload is given [default: from the matrix]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) passes: Option<u16>,
    /// fio's other options, which [`parse`] takes out before the rest is read.
    #[arg(skip)]
    pub(crate) fio: Vec<Setting>,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch that is typed")]
pub(crate) struct Test {
    /// At most three minutes
    #[arg(long, conflicts_with = "long")]
    pub(crate) quick: bool,
    /// The big numbers as well
    #[arg(long)]
    pub(crate) long: bool,
    /// Do not install what is missing
    #[arg(long)]
    pub(crate) no_setup: bool,
    /// Run only the steps whose name contains this
    #[arg(long, value_name = "FILTER")]
    pub(crate) only: Option<String>,
    /// Store this compiler's instruction counts instead of comparing with them
    #[arg(long)]
    pub(crate) record: bool,
    /// QEMU to use instead of the one on the search path
    #[arg(long, value_name = "PATH")]
    pub(crate) qemu: Option<PathBuf>,
    /// Image to boot instead of building one
    #[arg(long, value_name = "PATH")]
    pub(crate) image: Option<PathBuf>,
    /// Native bench to run instead of building one
    #[arg(long, value_name = "PATH")]
    pub(crate) native: Option<PathBuf>,
    /// auto (tries KVM, falls back), kvm or tcg
    #[arg(long, value_name = "ACCEL", default_value = "tcg")]
    pub(crate) accel: String,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Whom to compare with [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) peers: Vec<Peer>,
    /// Fewer works, fewer samples, shorter runs
    #[arg(long)]
    pub(crate) quick: bool,
    /// Stored results to compare this run with
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Where the JSON goes, and beside it the page [default: bench/out/compare.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) means: Means,
    /// Passes over the timed works [default: 7, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) passes: Option<u16>,
}

/// Declares options that stay text, and lists those given as settings.
macro_rules! settings {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $long:literal, $value:literal;)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, Args)]
        pub(crate) struct $name {
            $($(#[$field_about])* #[arg(long = $long, value_name = $value)] $field: Option<String>,)+
        }

        impl $name {
            /// Those that were given, in the order of declaration.
            pub(crate) fn settings(&self) -> Vec<Setting> {
                let mut given = Vec::new();
                $(if let Some(value) = &self.$field {
                    let key = stringify!($field).to_owned();
                    given.push(Setting { key, value: value.clone(), origin: concat!("--", $long).to_owned() });
                })+
                given
            }
        }
    };
}

settings! {
    /// What to do, in fio's words.
    Workload {
        /// Name of the job
        name: "name", "NAME";
        /// read, write, randread, randwrite, rw, randrw, trim or randtrim
        rw: "rw", "PATTERN";
        /// Block size, such as 4k
        bs: "bs", "SIZE";
        /// Block sizes with shares, such as 512/20:4k/80
        bssplit: "bssplit", "SPLIT";
        /// Requests in flight per job
        iodepth: "iodepth", "N";
        /// Submitters, one queue each while there are enough (--via=blockd has --clients)
        numjobs: "numjobs", "N";
        /// How much of the disk each job uses, and transfers [default: all of it, once]
        size: "size", "SIZE";
        /// How much each job transfers, if not size
        io_size: "io_size", "SIZE";
        /// How long to run at most, in seconds (5, 0.5) or with a unit (500ms, 2m); --time_based: and no shorter
        runtime: "runtime", "TIME";
        /// How many I/Os each job makes at most
        number_ios: "number_ios", "N";
        /// How often each job does that
        loops: "loops", "N";
        /// Where the jobs' part of the disk begins
        offset: "offset", "SIZE";
        /// How far each job's part begins behind the one before
        offset_increment: "offset_increment", "SIZE";
        /// Percentage of reads in a mix
        rwmixread: "rwmixread", "PERCENT";
        /// Requests handed over at once
        iodepth_batch_submit: "iodepth_batch_submit", "N";
        /// Completions to wait for at least
        iodepth_batch_complete_min: "iodepth_batch_complete_min", "N";
        /// Completions to take at most
        iodepth_batch_complete_max: "iodepth_batch_complete_max", "N";
        /// I/Os per second and job
        rate_iops: "rate_iops", "N";
        /// none or crc32c: check on the guest, then again on the host
        verify: "verify", "KIND";
        /// Seed of the access pattern
        randseed: "randseed", "N";
    }
}

settings! {
    /// What to do it with.
    MachineArgs {
        /// ours, raw (a bare ring without slots, checks or errors), virtio-drivers, linux or, natively, virtio-driver, blkio
        driver: "driver", "DRIVER";
        /// polled or interrupt
        mode: "mode", "MODE";
        /// How submitters reach their queue: owner, shared, auto or, natively, mutex (one lock, to compare with)
        submit: "submit", "PATH";
        /// Virtqueues; with --via=blockd each has a front end [default there: 1]
        queues: "queues", "N";
        /// Interrupt capabilities handed over; QEMU's property is set alike
        vectors: "vectors", "N";
        /// Entries of each ring, a power of two from 4 to 1024
        queue_size: "queue-size", "N";
        /// on or off
        event_idx: "event-idx", "SWITCH";
        /// on (always), auto (where it pays) or off
        indirect: "indirect", "SWITCH";
        /// line or dense: where driver=raw keeps headers and statuses
        layout: "layout", "LAYOUT";
        /// Virtual processors
        vcpus: "vcpus", "N";
        /// Raw image or block device, or null
        disk: "disk", "FILE";
        /// I/O threads; more than one needs QEMU 9
        iothreads: "iothreads", "N";
        /// split
        ring: "ring", "RING";
        /// driver, or blockd: clients over lib-block, whose front ends stand before the driver
        via: "via", "WAY";
        /// Clients of --via=blockd, 1 to 16; they are its jobs [default: 1]
        clients: "clients", "N";
        /// own (clients and front ends have a processor each) or stepped (all take turns on one)
        front: "front", "PLACE";
        /// on: each client of --via=blockd works on a GPT partition of its own on --disk=FILE
        partitions: "partitions", "SWITCH";
        /// qemu, vhost-user or embedded (a device inside the bench) [default: qemu, or embedded if there is none]
        backend: "backend", "BACKEND";
        /// vhost-user back-end to use; without it qemu-storage-daemon is started
        socket: "socket", "PATH";
        /// Native device: minimal (written for speed), rust-vmm, or deviating (breaks rules as devices in the field do)
        device: "device", "DEVICE";
        /// on: no device thread, the submitters step the minimal device
        stepped: "stepped", "SWITCH";
    }
}

/// The command line. Of `bench`, fio's options that have no place in the help are taken out first.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    if arguments.get(1).is_none_or(|command| command != "bench") {
        return Cli::try_parse_from(arguments);
    }
    let command = Cli::command();
    let bench = command.find_subcommand("bench");
    let ours: Vec<&str> = bench.into_iter().flat_map(clap::Command::get_arguments).filter_map(Arg::get_long).collect();
    let (mut rest, mut fio) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let (key, value) = text.split_once('=').map_or((&*text, None), |(key, value)| (key, Some(value.to_owned())));
        let key = key.strip_prefix("--").filter(|key| !ours.contains(key));
        let Some((key, known)) = key.and_then(|key| Some((key, keys::find(key)?))) else {
            rest.push(argument);
            continue;
        };
        let apart = |next: &OsString| !known.is_flag && !next.to_string_lossy().starts_with('-');
        let value = match value {
            None => arguments.next_if(apart).map(|next| next.to_string_lossy().into_owned()),
            given => given,
        };
        let (key, origin) = (key.to_owned(), format!("--{key}"));
        fio.push(Setting { key, value: value.unwrap_or_default(), origin });
    }
    let mut cli = Cli::try_parse_from(rest)?;
    if let Command::Bench(bench) = &mut cli.command {
        bench.fio = fio;
    }
    Ok(cli)
}

/// clap's error as one line: what is wrong, its tip, and where help is.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut parts = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let what = parts.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let more: Vec<_> = parts.filter(|line| !line.is_empty()).collect();
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(" ")) };
    format!("{what}{more}; see cargo xtask --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_option_is_one_line_that_points_to_help() {
        let error = Cli::try_parse_from(["xtask", "bench", "--iodpeth=3"]).unwrap_err();
        let line = one_line(&error);
        assert!(line.contains("--iodpeth") && line.contains("--help") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn options_become_settings_under_the_images_names() {
        let cli = Cli::try_parse_from(["xtask", "bench", "--queue-size=128", "--rw=read"]).unwrap();
        let Command::Bench(bench) = cli.command else {
            panic!("not bench");
        };
        assert_eq!(bench.workload.settings()[0].key, "rw");
        let machine = bench.machine.settings();
        assert_eq!((machine[0].key.as_str(), machine[0].origin.as_str()), ("queue_size", "--queue-size"));
    }
}
