//! One job's parameters, with fio's names and syntax, as they travel on the image's command line.
//!
//! The tool turns its options into a [`Params`], prints it (`Display`: `key=value` pairs separated by one space), and
//! the image parses the same text back (`Params::parse`). Unknown keys, malformed values and contradictions are errors:
//! nothing is ignored.
use arrayvec::{ArrayString, ArrayVec};

/// Most entries that a `bssplit` may have.
pub const MAX_SPLIT: usize = 8;

/// Which driver does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// This project's driver: `ours`.
    Ours,
    /// The bare split ring without slots, checks or errors, the floor to compare with: `raw`.
    Raw,
}

/// How completions are awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `polled`.
    Polled,
    /// `interrupt`.
    Interrupt,
}

/// fio's `rw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rw {
    /// `read`: sequential reads.
    Read,
    /// `write`: sequential writes.
    Write,
    /// `randread`.
    RandRead,
    /// `randwrite`.
    RandWrite,
    /// `rw`: sequential mix, see `rwmixread`.
    ReadWrite,
    /// `randrw`: random mix, see `rwmixread`.
    RandRw,
    /// `trim`: sequential discards.
    Trim,
    /// `randtrim`.
    RandTrim,
}

/// What a written block holds and whether a read checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// `none`.
    None,
    /// `crc32c`: the block format of [`crate::verify`].
    Crc32c,
}

/// One entry of `bssplit`: blocks of `bytes`, chosen in `weight` of all entries' summed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Block size in bytes, a multiple of 512.
    pub bytes: u32,
    /// Share in thousandths of a percent (fio allows fractions: `128k/1.9` is 1900).
    pub weight: u32,
}

/// How the submitters reach their queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submit {
    /// `owner`: one submitter owns a queue exclusively; refused when there are more jobs than queues.
    Owner,
    /// `shared`: the many-submitters path, whatever the number of jobs.
    Shared,
    /// `auto`: exclusive while there are enough queues.
    Auto,
}

/// Everything that the image is told. Field names are the keys on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// fio's job name, at most 48 bytes of `[A-Za-z0-9._-]`.
    pub name: ArrayString<48>,
    /// A named scenario of the image instead of a plain workload (`none` for the workload), at most 32 bytes.
    pub scenario: ArrayString<32>,
    /// `driver`.
    pub driver: Driver,
    /// `mode`.
    pub mode: Mode,
    /// `submit`.
    pub submit: Submit,
    /// `rw`.
    pub rw: Rw,
    /// `bssplit`; plain `bs=4k` is one entry.
    pub bssplit: ArrayVec<Split, MAX_SPLIT>,
    /// `iodepth`: requests in flight per job, 1 to 1024.
    pub iodepth: u16,
    /// `iodepth_batch_submit`, 1 to 64 and at most `iodepth`.
    pub iodepth_batch_submit: u16,
    /// `iodepth_batch_complete_min`: 0 polls without waiting for any; at most `iodepth`.
    pub iodepth_batch_complete_min: u16,
    /// `iodepth_batch_complete_max`: most completions taken in one go, at least 1.
    pub iodepth_batch_complete_max: u16,
    /// `numjobs`: submitters, each on a vCPU of its own.
    pub numjobs: u16,
    /// `size` in bytes: how much of the disk is used in all (0: all of it), split evenly among jobs.
    pub size: u64,
    /// `runtime_ms`: how long to submit, 0 with `number_ios`.
    pub runtime_ms: u64,
    /// `number_ios`: how many I/Os in all jobs together, 0 with `runtime_ms`; with `--verify` this counts writes.
    pub number_ios: u64,
    /// `rwmixread` in percent.
    pub rwmixread: u8,
    /// `rate_iops` per job; 0 is no limit.
    pub rate_iops: u64,
    /// `verify`.
    pub verify: Verify,
    /// `randseed`.
    pub randseed: u64,
    /// `queues`: virtqueues asked for (0: as many as jobs, device and vectors allow).
    pub queues: u16,
    /// `vectors`: interrupt capabilities handed over to the driver.
    pub vectors: u16,
    /// `queue_size`: ring size asked for (0: the device's).
    pub queue_size: u16,
    /// `event_idx`: `on` or `off`.
    pub event_idx: bool,
    /// `indirect`: `on` (every chain through its slot's table), `auto` (direct where one segment does), `off` (never).
    pub indirect: Indirect,
    /// `icount`: count instructions per I/O over fixed batches instead of measuring time.
    pub icount: bool,
}

/// `indirect`, see [`Params::indirect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indirect {
    /// `on`.
    On,
    /// `off`.
    Off,
    /// `auto`.
    Auto,
}
