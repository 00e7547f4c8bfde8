//! Which I/O comes next: one job's stream of reads, writes and discards over its own part of the disk.
//!
//! fio's meaning: random positions are multiples of the smallest block, drawn without a map of what was covered
//! (`norandommap`) or, with one block size, each once in a pass (`once`); sequential streams wrap around, reads and
//! writes of a mix each at a position of their own. Jobs share a region where the parameters let them; otherwise
//! the disk is cut into equal regions, aligned to the largest block.
//!
//! It refuses to know time (the caller asks [`due_ns`] and waits), buffers, and which I/Os are in flight: that is the
//! closure of [`Pattern::next_free`].
//!
//! Invariants: every I/O lies inside the job's region; the stream depends on the parameters, the job's number and the
//! capacity alone; no job exceeds its share of `number_ios`, and the shares sum to it exactly; nor `loops` passes.
//!
//! ```
//! use workload::params::Params;
//! use workload::pattern::{Op, Pattern};
//!
//! let params = Params::parse("rw=write bs=4k number_ios=3 size=8k").unwrap();
//! let stream: Vec<_> = Pattern::new(&params, 0, 1 << 20).unwrap().map(|io| (io.op, io.lba, io.bytes)).collect();
//! assert_eq!(stream, [(Op::Write, 0, 4096), (Op::Write, 8, 4096), (Op::Write, 0, 4096)]);
//! ```
use core::fmt;

mod once;

use serde::{Deserialize, Serialize};

use crate::params::{Amounts, MAX_SPLIT, Params, Rw, SECTOR, Verify, WHOLE};
use crate::random::{Random, scale};
use crate::verify::table::{Layout, LayoutError};
use once::Once;

/// Draws that [`Pattern::next_free`] makes before it gives up until something completes.
const REDRAWS: u32 = 8;
/// What "no end" counts down from; at 100 million I/Os per second it lasts 5,800 years.
const ENDLESS: u64 = u64::MAX;

/// What an I/O does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Discards.
    Trim,
}

impl Op {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
        }
    }
}

/// One I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Io {
    /// What it does.
    pub op: Op,
    /// Its first 512-byte sector.
    pub lba: u64,
    /// Its length in bytes, a non-zero multiple of 512.
    pub bytes: u32,
}

impl Io {
    /// Its length in 512-byte sectors.
    #[inline]
    pub const fn sectors(&self) -> u32 {
        self.bytes / SECTOR
    }
}

/// The part of the disk that belongs to one job, in 512-byte sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First sector.
    pub first: u64,
    /// Length; the same for every job (of partitions: if they are equally long), a multiple of the largest block.
    pub sectors: u64,
}

impl Region {
    /// The region of `job` on a disk of `capacity` sectors, or on its partition of that length. Under `verify` the disk's reserved tail is left out.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn new(params: &Params, job: u16, capacity: u64) -> Result<Self, PatternError> {
        let jobs = params.jobs();
        if job >= jobs {
            return Err(PatternError::NoSuchJob { job, jobs });
        }
        if params.shares_disk() {
            return Self::shared(params, job, capacity);
        }
        // A partition is its client's alone; `size` is that of all of them.
        let sharers = if params.partitions { 1 } else { u64::from(jobs) };
        let asked = params.size / u64::from(SECTOR) / if params.partitions { u64::from(jobs) } else { 1 };
        let usable = match (params.verify, asked) {
            (Verify::Crc32c, _) => Layout::new(capacity, asked)?.covered,
            (Verify::None, 0) => capacity,
            (Verify::None, _) if asked > capacity => {
                return Err(LayoutError { asked, most: capacity }.into());
            }
            (Verify::None, _) => asked,
        };
        let block = u64::from(params.largest_block() / SECTOR).max(1);
        let sectors = usable / sharers / block * block;
        if sectors == 0 {
            return Err(PatternError::TooSmall { usable, needed: block * sharers });
        }
        Ok(Self { first: if params.partitions { 0 } else { u64::from(job) * sectors }, sectors })
    }

    /// The region of a job that may share it with others.
    fn shared(params: &Params, job: u16, capacity: u64) -> Result<Self, PatternError> {
        let first =
            params.offset.saturating_add(params.offset_increment.saturating_mul(job.into())) / u64::from(SECTOR);
        let asked = params.per_job(params.size) / u64::from(SECTOR);
        let there = capacity.saturating_sub(first);
        if asked > there {
            return Err(LayoutError { asked, most: there }.into());
        }
        let usable = if asked == 0 { there } else { asked };
        let block = u64::from(params.largest_block() / SECTOR).max(1);
        let sectors = usable / block * block;
        if sectors == 0 {
            return Err(PatternError::TooSmall { usable, needed: block });
        }
        Ok(Self { first, sectors })
    }
}

/// Why a job has no pattern. `Display` says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// The job's number is not below [`Params::jobs`].
    NoSuchJob {
        /// The number asked for.
        job: u16,
        /// How many there are.
        jobs: u16,
    },
    /// `size` exceeds the disk.
    Size(LayoutError),
    /// The disk, or `size`, does not hold one largest block for every job; both in sectors.
    TooSmall {
        /// What there is.
        usable: u64,
        /// What there must be.
        needed: u64,
    },
}

impl From<LayoutError> for PatternError {
    fn from(error: LayoutError) -> Self {
        Self::Size(error)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchJob { job, jobs } => write!(f, "job {job} of {jobs}: number jobs from 0"),
            Self::Size(error) => error.fmt(f),
            Self::TooSmall { usable, needed } => {
                write!(
                    f,
                    "{usable} sectors are too few, {needed} are needed: enlarge the disk or size, or lower bs or numjobs"
                )
            }
        }
    }
}

impl core::error::Error for PatternError {}

/// One block size of the stream.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// This size is chosen by numbers below this one that no earlier size took.
    below: u32,
    bytes: u32,
    /// How many random positions it has.
    places: u64,
}

/// The stream of one job's I/Os; `None` once the job's share of `number_ios` or its passes are used up. Either iterate,
/// or use [`Pattern::next_free`].
#[derive(Clone, Debug)]
pub struct Pattern {
    random: Random,
    region: Region,
    left: u64,
    /// Bytes that are left of all passes, where blocks of several sizes make them up.
    bytes_left: u64,
    /// Gives every block its turn, if no position may repeat in a pass.
    once: Option<Once>,
    /// What [`Pattern::next_free`] could not place, to be offered again.
    held: Option<Io>,
    /// The operation of every I/O, if there is one operation and one size: the short way.
    only: Option<Op>,
    is_random: bool,
    rw: Rw,
    /// Only writes count towards `number_ios`.
    only_writes_count: bool,
    rwmixread: u8,
    /// Sectors between neighbouring random positions.
    step: u64,
    /// Sectors into the region where the next sequential read, and the next sequential write or discard, begins.
    cursors: [u64; 2],
    kinds: [Kind; MAX_SPLIT],
    used: usize,
}

impl Pattern {
    /// The stream of `job` on a disk of `capacity` sectors.
    ///
    /// # Errors
    /// See [`PatternError`]. `params` must have been [validated](Params::validate); if not, the stream is unspecified
    /// but stays inside the region.
    pub fn new(params: &Params, job: u16, capacity: u64) -> Result<Self, PatternError> {
        let region = Region::new(params, job, capacity)?;
        let step = u64::from(params.smallest_block() / SECTOR).max(1);
        let mut kinds = [Kind { below: WHOLE, bytes: SECTOR, places: region.sectors }; MAX_SPLIT];
        let mut below = 0u32;
        for (kind, split) in kinds.iter_mut().zip(&params.bssplit) {
            below = below.saturating_add(split.weight);
            let places = (region.sectors - u64::from(split.bytes / SECTOR)) / step + 1;
            *kind = Kind { below, bytes: split.bytes, places };
        }
        let numbered = if params.number_ios == 0 { ENDLESS } else { share(params.number_ios, params.jobs(), job) };
        let single = params.bssplit.len() == 1;
        let (passes, bytes_left) = passes(params, region);
        let maps = params.rw.is_random() && !params.norandommap && single;
        let mut random = Random::for_job(params.randseed, job);
        let once = maps.then(|| Once::new(kinds[0].places, &mut random));
        Ok(Self {
            random,
            region,
            left: if single { numbered.min(passes) } else { numbered },
            bytes_left,
            is_random: params.rw.is_random() && once.is_none(),
            once,
            held: None,
            only: if params.bssplit.len() > 1 { None } else { only(params.rw) },
            rw: params.rw,
            only_writes_count: params.amounts == Amounts::Total
                && params.verify == Verify::Crc32c
                && params.rw.is_mixed(),
            rwmixread: params.rwmixread,
            step,
            cursors: [0; 2],
            kinds,
            used: params.bssplit.len().max(1),
        })
    }

    /// The job's part of the disk.
    pub const fn region(&self) -> Region {
        self.region
    }

    /// The next I/O that `admit` accepts, for callers that keep I/Os in flight from overlapping; `admit` enters it
    /// there, see [`crate::verify::ledger::Ledger::begin`]. A random I/O that is refused is drawn anew a few times,
    /// without using up the share; then, and with a sequential one at once, the I/O is kept and offered again first.
    pub fn next_free(&mut self, mut admit: impl FnMut(&Io) -> bool) -> Step {
        let mut draws = if self.held.is_some() || !self.is_random { 1 } else { REDRAWS };
        let Some(mut io) = self.held.take().or_else(|| self.next()) else {
            return Step::End;
        };
        let kind = self.kinds.iter().position(|kind| kind.bytes == io.bytes).unwrap_or(0);
        loop {
            if admit(&io) {
                return Step::Io(io);
            }
            draws -= 1;
            if draws == 0 {
                self.held = Some(io);
                return Step::Wait;
            }
            io = self.place(io.op, kind);
        }
    }

    /// What the next I/O does and which block size it has, counted against the job's share.
    #[inline(never)]
    fn choose(&mut self) -> (Op, usize) {
        // One draw serves both choices: 100 * WHOLE spends 24 of its 64 bits.
        let bits = self.random.next();
        let (percent, bits) = scale(bits, 100);
        let mixed = if percent < u64::from(self.rwmixread) { Op::Read } else { Op::Write };
        let op = only(self.rw).unwrap_or(mixed);
        if !self.only_writes_count || op == Op::Write {
            self.left -= 1;
        }
        (op, self.afforded(self.kind_at(bits)))
    }

    /// The same size, or where less is left of the passes, the largest that still fits; and what it takes is taken off.
    fn afforded(&mut self, kind: usize) -> usize {
        if self.used == 1 || self.bytes_left == ENDLESS {
            return kind;
        }
        let kinds = &self.kinds[..self.used];
        let left = self.bytes_left;
        let fits = |kind: &usize| u64::from(kinds[*kind].bytes) <= left;
        let largest = || (0..kinds.len()).filter(fits).max_by_key(|kind| kinds[*kind].bytes);
        let smallest = || (0..kinds.len()).min_by_key(|kind| kinds[*kind].bytes);
        let kind = if fits(&kind) { kind } else { largest().or_else(smallest).unwrap_or(kind) };
        self.bytes_left = left.saturating_sub(kinds[kind].bytes.into());
        if self.bytes_left == 0 {
            self.left = 0;
        }
        kind
    }

    /// Which block size `bits` choose.
    #[inline]
    fn kind_at(&self, bits: u64) -> usize {
        let point = scale(bits, u64::from(WHOLE)).0 as u32;
        self.kinds[..self.used].iter().position(|kind| point < kind.below).unwrap_or(0)
    }

    /// Gives an operation of one of the sizes its place.
    #[inline]
    fn place(&mut self, op: Op, kind: usize) -> Io {
        let Kind { bytes, places, .. } = self.kinds[kind];
        let sectors = u64::from(bytes / SECTOR);
        let offset = if self.is_random {
            self.random.below(places) * self.step
        } else if let Some(once) = &mut self.once {
            once.next(&mut self.random) * self.step
        } else {
            let cursor = &mut self.cursors[usize::from(op != Op::Read)];
            let start = if *cursor + sectors > self.region.sectors { 0 } else { *cursor };
            *cursor = start + sectors;
            start
        };
        Io { op, lba: self.region.first + offset, bytes }
    }
}

impl Iterator for Pattern {
    type Item = Io;

    #[inline]
    fn next(&mut self) -> Option<Io> {
        if self.left == 0 {
            return None;
        }
        let (op, kind) = if let Some(op) = self.only {
            self.left -= 1;
            (op, 0)
        } else {
            self.choose()
        };
        Some(self.place(op, kind))
    }
}

/// How many I/Os all of a job's passes make, if it has blocks of one size, and how many bytes. A pass goes on until it
/// has transferred at least what it should, as fio's does.
fn passes(params: &Params, region: Region) -> (u64, u64) {
    if params.loops == 0 {
        return (ENDLESS, ENDLESS);
    }
    let all = region.sectors * u64::from(SECTOR);
    let bytes = if params.io_size == 0 { all } else { params.per_job(params.io_size) };
    let loops = u64::from(params.loops);
    let each = bytes.div_ceil(params.largest_block().max(1).into());
    (each.saturating_mul(loops), bytes.saturating_mul(loops))
}

/// The operation of every I/O of `rw`, unless they differ.
const fn only(rw: Rw) -> Option<Op> {
    match rw {
        Rw::Read | Rw::RandRead => Some(Op::Read),
        Rw::Write | Rw::RandWrite => Some(Op::Write),
        Rw::Trim | Rw::RandTrim => Some(Op::Trim),
        Rw::ReadWrite | Rw::RandRw => None,
    }
}

/// What [`Pattern::next_free`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This one was admitted: submit it.
    Io(Io),
    /// Nothing was admitted: ask again when something has completed.
    Wait,
    /// The job's share is used up.
    End,
}

/// How many of `total` I/Os fall to `job`, one of `jobs`: shares differ by at most one and sum to `total`. 0 if there
/// is no such job.
pub const fn share(total: u64, jobs: u16, job: u16) -> u64 {
    if job >= jobs {
        return 0;
    }
    total / jobs as u64 + ((job as u64) < total % jobs as u64) as u64
}

/// When the `n`th I/O of a job (from 0) may be submitted under `rate_iops`, in nanoseconds from the job's start,
/// rounded down; at once if the rate is 0. Exact for rates up to 10^9; saturates after 584 years.
pub const fn due_ns(rate_iops: u64, n: u64) -> u64 {
    if rate_iops == 0 {
        return 0;
    }
    let whole = (n / rate_iops).saturating_mul(1_000_000_000);
    whole.saturating_add((n % rate_iops).saturating_mul(1_000_000_000) / rate_iops)
}
