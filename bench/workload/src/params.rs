//! One job's parameters, with fio's names and syntax, as they travel on the image's command line.
//!
//! The tool turns its options into a [`Params`] with [`Params::set`], prints it (`Display`: `key=value` pairs separated
//! by one space), and the image parses the same text back ([`Params::parse`]). Unknown keys, malformed values and
//! contradictions are errors whose one line says what to do: nothing is ignored.
//!
//! It refuses to know the disk, the number of processors and what the device offers: those who hold them compare.
//!
//! Invariants of a [`Params`] that [`Params::validate`] accepted: the weights of [`Params::bssplit`] sum to exactly
//! [`WHOLE`]; every block is a non-zero multiple of 512 bytes; something says when the run ends; printing and parsing
//! gives the same value again.
//!
//! ```
//! use workload::params::{Params, Rw};
//!
//! let params = Params::parse("rw=randwrite bssplit=512/20:4k/80 iodepth=32 runtime=5").unwrap();
//! assert_eq!(params.rw, Rw::RandWrite);
//! assert_eq!(params.runtime_ms, 5_000);
//! assert_eq!(Params::parse(&params.to_string()), Ok(params));
//!
//! let wrong = Params::parse("rw=randwrite iodpeth=32 runtime=5").unwrap_err();
//! assert_eq!(wrong.to_string(), "unknown key `iodpeth`: correct it or leave it out");
//! ```
mod check;
mod number;
mod text;

use arrayvec::{ArrayString, ArrayVec};

pub use number::{parse_size, parse_time_ms};
pub use text::{KEYS, ParamError, Word};

/// Most entries that a `bssplit` may have.
pub const MAX_SPLIT: usize = 8;
/// What the weights of a `bssplit` sum to: 100 percent in thousandths of a percent.
pub const WHOLE: u32 = 100_000;
/// Most clients of `via=blockd`.
pub const MAX_CLIENTS: u16 = 16;
/// Requests that a client of `via=blockd` can have unanswered.
pub const MAX_CREDIT: u16 = 256;
/// Kills of a `scenario=restart` that names no number.
const KILLS: u16 = 5;
/// Bytes in a sector, the unit of every disk address here.
pub const SECTOR: u32 = 512;

/// Spells an enum in fio's or the command line's words, both ways.
macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that `word` names, if any.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

/// Which driver does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// This project's driver: `ours`.
    Ours,
    /// The bare split ring without slots, checks or errors, the floor to compare with: `raw`.
    Raw,
    /// libblkio's: the crate `virtio-driver` (natively only).
    VirtioDriver,
    /// libblkio itself: the crate `blkio` (natively only).
    Blkio,
    /// rcore-os': the crate `virtio-drivers` (in the image only).
    VirtioDrivers,
    /// Linux' own, in a guest of its own that fio drives: `linux` (under QEMU only).
    Linux,
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

/// Which meaning the amounts were given in, so that results are not compared across it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amounts {
    /// `total`: this project's scenarios and matrix. `size` and `number_ios` are those of all jobs together, and
    /// only `runtime_ms` or `number_ios` ends a run.
    Total,
    /// `fio`: what people type. Every job was given `size`, `io_size` and `number_ios` of its own, of which the fields
    /// hold the sums, and `loops` passes over them end the run.
    Fio,
}

/// One entry of `bssplit`: blocks of `bytes`, chosen in `weight` of [`WHOLE`] I/Os.
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
    /// `mutex`: many submitters behind one lock around an exclusively owned queue, to compare with `shared` (natively
    /// only).
    Mutex,
}

/// What the jobs hand their requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `driver`: the driver itself.
    Driver,
    /// `blockd`: front ends that serve clients over lib-block, each on a queue of its own.
    Blockd,
}

/// Where a front end runs; see [`Params::is_stepped`] for what holds in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// `own`: on a processor of its own, as has every client.
    Own,
    /// `stepped`: clients, front ends and driver take turns on one processor.
    Stepped,
}

/// Everything that the image is told. Field names are the keys on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
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
    /// `bssplit`; plain `bs=4k` is one entry. As in fio an entry without a percentage shares the remainder evenly with
    /// the others that have none; percentages that do not add up to 100 are refused.
    pub bssplit: ArrayVec<Split, MAX_SPLIT>,
    /// `iodepth`: requests in flight per job, 1 to 1024.
    pub iodepth: u16,
    /// `iodepth_batch_submit`, 1 to 128 and at most `iodepth`.
    pub iodepth_batch_submit: u16,
    /// `iodepth_batch_complete_min`: 0 polls without waiting for any; at most `iodepth`.
    pub iodepth_batch_complete_min: u16,
    /// `iodepth_batch_complete_max`: most completions taken in one go, at least 1.
    pub iodepth_batch_complete_max: u16,
    /// `numjobs`: submitters, each on a vCPU of its own; 1 with `via=blockd`, whose jobs are its clients. Ask
    /// [`Params::jobs`].
    pub numjobs: u16,
    /// `amounts`: who said `size`, `io_size` and `number_ios`, and so whether jobs may share sectors; see [`Amounts`].
    pub amounts: Amounts,
    /// `size` in bytes: how much of the disk is used in all (0: all of it), split evenly among jobs.
    pub size: u64,
    /// `io_size` in bytes: how much one pass transfers, in all jobs together (0: as much as the jobs' regions hold).
    pub io_size: u64,
    /// `loops`: how many passes each job makes at most; 0 bounds none.
    pub loops: u32,
    /// `offset` in bytes: where the first job's region begins. Only where jobs [may share](Params::shares_disk).
    pub offset: u64,
    /// `offset_increment` in bytes: how far each job's region begins behind the one before.
    pub offset_increment: u64,
    /// `norandommap`: random positions may repeat; otherwise every block comes once in a pass, if there is one block size.
    pub norandommap: bool,
    /// `runtime_ms`: how long to submit at most in milliseconds, or 0. fio's `runtime=5` (seconds) sets it too.
    pub runtime_ms: u64,
    /// `number_ios`: how many I/Os at most in all jobs together, or 0; with `amounts=total` and `verify` this counts
    /// writes where `rw` has any.
    pub number_ios: u64,
    /// `rwmixread` in percent.
    pub rwmixread: u8,
    /// `rate_iops` per job, at most 1,000,000,000; 0 is no limit.
    pub rate_iops: u64,
    /// `verify`.
    pub verify: Verify,
    /// `randseed`.
    pub randseed: u64,
    /// `queues`: virtqueues asked for (0: as many as jobs, device and vectors allow; with `via=blockd`: one). Ask
    /// [`Params::queues_wished`].
    pub queues: u16,
    /// `vectors`: interrupt capabilities handed over to the driver.
    pub vectors: u16,
    /// `queue_size`: ring size asked for, a power of two up to 32768 (0: the device's).
    pub queue_size: u16,
    /// `event_idx`: `on` or `off`.
    pub event_idx: bool,
    /// `indirect`: `on` (every chain through its slot's table), `auto` (direct where one segment does), `off` (never).
    pub indirect: Indirect,
    /// `layout`: where `driver=raw` keeps headers and statuses.
    pub layout: Layout,
    /// `icount`: `on` or `off`: count instructions per I/O over fixed batches instead of measuring time.
    pub icount: bool,
    /// `via`.
    pub via: Via,
    /// `clients`: the jobs of `via=blockd`, 1 to 16.
    pub clients: u16,
    /// `front`: of `via=blockd`; `icount` steps it whatever this says.
    pub front: Front,
    /// `partitions`: `on`: each client works on a partition of its own, on the first `size / clients` bytes of it;
    /// `off`: each on its share of the whole disk.
    pub partitions: bool,
    /// `kills`: how often `scenario=restart` kills the driver, 1 or more.
    pub kills: u16,
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

/// `layout`, see [`Params::layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `line`: header and status of a request in one cache line of its own.
    Line,
    /// `dense`: an array of headers and an array of statuses.
    Dense,
}

words!(Driver {
    Ours => "ours",
    Raw => "raw",
    VirtioDriver => "virtio-driver",
    Blkio => "blkio",
    VirtioDrivers => "virtio-drivers",
    Linux => "linux",
});
words!(Mode { Polled => "polled", Interrupt => "interrupt" });
words!(Rw {
    Read => "read",
    Write => "write",
    RandRead => "randread",
    RandWrite => "randwrite",
    ReadWrite => "rw",
    RandRw => "randrw",
    Trim => "trim",
    RandTrim => "randtrim",
});
words!(Amounts { Total => "total", Fio => "fio" });
words!(Verify { None => "none", Crc32c => "crc32c" });
words!(Submit { Owner => "owner", Shared => "shared", Auto => "auto", Mutex => "mutex" });
words!(Via { Driver => "driver", Blockd => "blockd" });
words!(Front { Own => "own", Stepped => "stepped" });
words!(Layout { Line => "line", Dense => "dense" });
words!(Indirect { On => "on", Off => "off", Auto => "auto" });

impl Rw {
    /// Positions are drawn at random rather than following one another.
    pub const fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw | Self::RandTrim)
    }

    /// Reads and writes alternate at random, by `rwmixread`.
    pub const fn is_mixed(self) -> bool {
        matches!(self, Self::ReadWrite | Self::RandRw)
    }

    /// The I/Os discard.
    pub const fn trims(self) -> bool {
        matches!(self, Self::Trim | Self::RandTrim)
    }

    /// Some of the I/Os change the disk: they write or discard.
    pub const fn changes(self) -> bool {
        self.writes() || self.trims()
    }

    /// Some of the I/Os write.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::RandWrite) || self.is_mixed()
    }
}

impl Default for Params {
    /// fio's defaults where it has them, except for random reads. Nothing says when to stop: set `runtime`, `loops` or
    /// `number_ios`, or [`Params::validate`] refuses.
    fn default() -> Self {
        Self {
            name: text::literal("bench"),
            scenario: text::literal("none"),
            driver: Driver::Ours,
            mode: Mode::Interrupt,
            submit: Submit::Auto,
            rw: Rw::RandRead,
            bssplit: core::iter::once(Split { bytes: 4096, weight: WHOLE }).collect(),
            iodepth: 1,
            iodepth_batch_submit: 1,
            iodepth_batch_complete_min: 1,
            iodepth_batch_complete_max: 64,
            numjobs: 1,
            amounts: Amounts::Total,
            size: 0,
            io_size: 0,
            loops: 0,
            offset: 0,
            offset_increment: 0,
            norandommap: true,
            runtime_ms: 0,
            number_ios: 0,
            rwmixread: 50,
            rate_iops: 0,
            verify: Verify::None,
            randseed: 0x89,
            queues: 0,
            vectors: 16,
            queue_size: 0,
            event_idx: true,
            indirect: Indirect::Auto,
            layout: Layout::Line,
            icount: false,
            via: Via::Driver,
            clients: 1,
            front: Front::Own,
            partitions: false,
            kills: KILLS,
        }
    }
}

impl Params {
    /// How many submitters there are: clients with `via=blockd`, jobs otherwise.
    pub const fn jobs(&self) -> u16 {
        match self.via {
            Via::Driver => self.numjobs,
            Via::Blockd => self.clients,
        }
    }

    /// How many queues are wished for: as many as were asked for, else one per job or, with `via=blockd`, one. Each
    /// queue of `via=blockd` has a front end.
    pub const fn queues_wished(&self) -> u16 {
        match (self.queues, self.via) {
            (0, Via::Driver) => self.numjobs,
            (0, Via::Blockd) => 1,
            (queues, _) => queues,
        }
    }

    /// Jobs may work on the same sectors, as fio's do on one file: nobody verifies what they write, and no front end
    /// keeps them apart.
    pub const fn shares_disk(&self) -> bool {
        matches!((self.amounts, self.verify, self.via), (Amounts::Fio, Verify::None, Via::Driver))
    }

    /// What each job does of `total`, one of the fields that hold the sum over all jobs.
    pub fn per_job(&self, total: u64) -> u64 {
        total / u64::from(self.jobs().max(1))
    }

    /// Clients, front ends and driver take turns on one processor.
    pub const fn is_stepped(&self) -> bool {
        matches!(self.via, Via::Blockd) && (self.icount || matches!(self.front, Front::Stepped))
    }

    /// How many processors are at work: one per job and front end, or one that steps them all.
    pub const fn seats(&self) -> u16 {
        match self.via {
            Via::Driver => self.numjobs,
            Via::Blockd if self.is_stepped() => 1,
            Via::Blockd => self.clients.saturating_add(self.queues_wished()),
        }
    }

    /// The largest block in bytes; regions are aligned to it.
    pub fn largest_block(&self) -> u32 {
        self.bssplit.iter().map(|split| split.bytes).max().unwrap_or(0)
    }

    /// The smallest block in bytes; random positions are multiples of it, as in fio.
    pub fn smallest_block(&self) -> u32 {
        self.bssplit.iter().map(|split| split.bytes).min().unwrap_or(0)
    }
}
