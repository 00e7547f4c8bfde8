//! What the native bench can be told, besides the workload's own parameters.
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The driver as a Linux process, and devices for it.
#[derive(Debug, Parser)]
#[command(name = "native")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// See [`Cli`].
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one workload
    Run(Run),
    /// Serve the rust-vmm device as a vhost-user back-end
    Serve(Serve),
}

/// A device in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// Written for speed; moves no data unless it has a RAM disk.
    Minimal,
    /// Built on rust-vmm's rings, reached over vhost-user all the same.
    RustVmm,
}

/// One workload.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// A vhost-user-blk back-end
    #[arg(long, conflicts_with = "device", required_unless_present = "device")]
    pub socket: Option<PathBuf>,
    /// A device in this process
    #[arg(long)]
    pub device: Option<Device>,
    /// What the device in this process is made of
    #[command(flatten)]
    pub medium: Medium,
    /// No thread for the device: the submitters step it
    #[arg(long)]
    pub stepped: bool,
    /// Cores of the jobs
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Core of the device's thread
    #[arg(long)]
    pub device_core: Option<usize>,
    /// Largest ring that the device offers
    #[arg(long, default_value_t = 1024)]
    pub max_queue_size: u16,
    /// Queues that the device offers
    #[arg(long, default_value_t = 8)]
    pub device_queues: u16,
    /// The workload, as `key=value`
    #[arg(last = true)]
    pub params: Vec<String>,
}

/// A back-end.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Where to listen
    #[arg(long)]
    pub socket: PathBuf,
    /// What it is made of
    #[command(flatten)]
    pub medium: Medium,
    /// Queues that it offers
    #[arg(long, default_value_t = 8)]
    pub queues: u16,
    /// Serve one client, and end with it
    #[arg(long)]
    pub once: bool,
}

/// What a device is made of.
#[derive(Clone, Debug, Args)]
pub struct Medium {
    /// A raw image
    #[arg(long, conflicts_with = "disk_bytes")]
    pub disk: Option<PathBuf>,
    /// Memory of that many bytes
    #[arg(long)]
    pub disk_bytes: Option<u64>,
    /// Refuse whatever changes data
    #[arg(long)]
    pub read_only: bool,
    /// Keep writes in memory until they are flushed (rust-vmm device on a disk)
    #[arg(long, requires = "disk", conflicts_with = "read_only")]
    pub volatile_cache: bool,
    /// Deviate from the specification as devices in the field do
    #[arg(long)]
    pub deviating: bool,
}
