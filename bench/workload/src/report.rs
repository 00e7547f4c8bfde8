//! What a run answers: lines on the serial port, each `@drv ` followed by one JSON object, so that nothing is guessed.
//!
//! A run prints [`Line::Boot`] once the device is up, any number of [`Line::Note`], and ends with exactly one of
//! [`Line::Done`] or [`Line::Failed`]. Anything else on the port is human text. A run without `Done` did not succeed.
//!
//! The image encodes with [`Line::encode`]; the tool takes what follows [`PREFIX`] ([`Line::json`]) and hands it to
//! `serde_json`, which refuses a line that was cut short. Numbers are integers, exact up to 2^64; what was not measured
//! is absent, not zero.
//!
//! Jobs count into a [`Tally`] each, which are merged when the run has ended: nothing is shared while it lasts.
//!
//! ```
//! use workload::pattern::Op;
//! use workload::report::{Line, Report, Tally};
//!
//! let mut jobs = [Tally::new(), Tally::new()];
//! jobs[0].record(Op::Read, 4096, 80_000);
//! jobs[1].record(Op::Write, 512, 90_000);
//! let (first, others) = jobs.split_first_mut().unwrap();
//! first.merge(&others[0]);
//! let report = Report { notifications: Some(2), ..Report::new(first, 1_000_000) };
//!
//! let mut serial = String::new();
//! Line::Done(report.clone()).encode(&mut serial).unwrap();
//! let json = Line::json(serial.trim_end()).unwrap();
//! assert_eq!(serde_json::from_str::<Line>(json).unwrap(), Line::Done(report));
//! ```
use core::fmt;

use arrayvec::{ArrayString, ArrayVec};
use serde::{Deserialize, Serialize};

use crate::failures::Failures;
use crate::histogram::Histogram;
use crate::pattern::Op;

/// What a result line starts with.
pub const PREFIX: &str = "@drv ";
/// Version of these structures; the tool refuses any other.
pub const VERSION: u32 = 1;
/// The percentiles that fio reports, in thousandths of a percent.
pub const PERCENTILES: [u32; 17] = [
    1_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 90_000, 95_000, 99_000, 99_500,
    99_900, 99_950, 99_990,
];

/// One result line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "one value at a time, on a stack of its own")]
pub enum Line {
    /// The device is up: what was reached, never silently different from what was asked.
    Boot(Boot),
    /// A remark for the log: what a scenario saw.
    Note(Note),
    /// The run ended and every request was accounted for.
    Done(Report),
    /// The run ended in an error.
    Failed(Note),
}

/// A line of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// The text.
    pub text: ArrayString<256>,
}

/// What bring-up reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// [`VERSION`].
    pub version: u32,
    /// Capacity in 512-byte sectors.
    pub capacity: u64,
    /// Queues in use.
    pub queues: u16,
    /// Ring size of each.
    pub queue_size: u16,
    /// Request slots of each.
    pub slots: u16,
    /// Interrupt vectors in use (0: polled).
    pub vectors: u16,
    /// `vector-per-queue`, `shared`, `single` or `none`: the rung of the fallback ladder.
    pub rung: ArrayString<24>,
    /// Negotiated feature bits.
    pub features: u64,
    /// The medium is read-only.
    pub read_only: bool,
    /// The write cache is on, so that FLUSH reaches the device.
    pub writeback: bool,
}

/// One direction's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Completed I/Os.
    pub ios: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// From submission to completion, nanoseconds; 0 where nothing was measured.
    pub clat_min_ns: u64,
    /// See `clat_min_ns`.
    pub clat_max_ns: u64,
    /// See `clat_min_ns`.
    pub clat_mean_ns: u64,
    /// One value for each of [`PERCENTILES`], nanoseconds; empty where nothing was measured.
    pub percentiles_ns: ArrayVec<u64, 17>,
}

/// Instructions per I/O, in thousandths, so that no floating point crosses the line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instructions {
    /// Caller's batch handed over, to doorbell decision.
    pub submit_milli: u64,
    /// Used index read, to every completion handed back.
    pub complete_milli: u64,
}

/// A finished run; all jobs summed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Reads.
    pub read: Direction,
    /// Writes.
    pub write: Direction,
    /// Discards.
    pub trim: Direction,
    /// From the first submission to the last completion, nanoseconds.
    pub runtime_ns: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// The same, by who is to blame, and the first of them.
    #[serde(default)]
    pub failures: Failures,
    /// Blocks whose content was not what had been written.
    pub verify_errors: u64,
    /// Doorbells rung; nothing where the driver does not let it be seen.
    pub notifications: Option<u64>,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Of these, how many arrived on the vCPU of the queue's submitter.
    pub interrupts_home: u64,
    /// Chains submitted to the device (more than I/Os when requests were split).
    pub submitted: u64,
    /// Chains that came back.
    pub completed: u64,
    /// What the device did against the specification.
    pub violations: u64,
    /// Used lengths above what the device may write; they are no violations, and the status decided.
    #[serde(default)]
    pub length_anomalies: u64,
    /// Times that a submitter found its queue full.
    pub full: u64,
    /// Doorbells that clients rang at front ends.
    #[serde(default)]
    pub client_doorbells: u64,
    /// Doorbells that front ends rang at clients.
    #[serde(default)]
    pub front_doorbells: u64,
    /// Locked read-modify-writes and full fences on the I/O path, where the build counts them.
    pub atomics: Option<u64>,
    /// Where counted.
    pub instructions: Option<Instructions>,
}

/// Longest line that [`Line::encode`] can make, prefix and newline left out: three directions of 23 numbers and the
/// counters with the first failure, or a note of which every byte is escaped.
const LONGEST: usize = 4096;

impl Line {
    /// Writes the line: [`PREFIX`], JSON without a line break inside, newline. Takes 4 KiB of stack.
    ///
    /// # Errors
    /// `out` failed; part of the line may have been written.
    pub fn encode(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let mut buffer = [0; LONGEST];
        let length = serde_json_core::to_slice(self, &mut buffer).map_err(|_| fmt::Error)?;
        let json = core::str::from_utf8(&buffer[..length]).map_err(|_| fmt::Error)?;
        out.write_str(PREFIX)?;
        out.write_str(json)?;
        out.write_str("\n")
    }

    /// The JSON of a result line, without its newline; `None` for human text.
    pub fn json(line: &str) -> Option<&str> {
        line.strip_prefix(PREFIX)
    }
}

impl Note {
    /// A note of as much of the formatted text as fits.
    ///
    /// ```
    /// use workload::report::Note;
    /// assert_eq!(Note::new(format_args!("queue {} is gone", 3)).text.as_str(), "queue 3 is gone");
    /// ```
    pub fn new(text: fmt::Arguments<'_>) -> Self {
        Self { text: kept(text) }
    }
}

/// As much of the formatted text as fits.
pub(crate) fn kept<const N: usize>(text: fmt::Arguments<'_>) -> ArrayString<N> {
    let mut kept = Cut(ArrayString::new());
    // Only `Cut` can fail, and it does not; a value whose own Display fails leaves what it wrote.
    let _ = fmt::write(&mut kept, text);
    kept.0
}

/// Keeps what fits and drops the rest.
struct Cut<const N: usize>(ArrayString<N>);

impl<const N: usize> fmt::Write for Cut<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.try_push(character).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Direction {
    /// The figures of one direction.
    pub fn new(flow: &Flow) -> Self {
        let latency = &flow.latency;
        let measured = latency.count() > 0;
        Self {
            ios: flow.ios,
            bytes: flow.bytes,
            clat_min_ns: latency.min(),
            clat_max_ns: latency.max(),
            clat_mean_ns: latency.mean(),
            percentiles_ns: if measured { latency.percentiles(&PERCENTILES).into() } else { ArrayVec::new() },
        }
    }
}

impl Report {
    /// The report of a run of `runtime_ns`, its counters of the driver still 0.
    pub fn new(tally: &Tally, runtime_ns: u64) -> Self {
        Self {
            version: VERSION,
            read: Direction::new(&tally.read),
            write: Direction::new(&tally.write),
            trim: Direction::new(&tally.trim),
            runtime_ns,
            errors: tally.failures.total(),
            failures: tally.failures.clone(),
            verify_errors: tally.verify_errors,
            notifications: Some(0),
            ..Self::default()
        }
    }
}

/// One direction of one job while it runs.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Completed I/Os.
    pub ios: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// From submission to completion, nanoseconds, of those I/Os that were timed.
    pub latency: Histogram,
}

/// What one job counts while it runs: about 96 KB, to be placed in static memory.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Reads.
    pub read: Flow,
    /// Writes.
    pub write: Flow,
    /// Discards.
    pub trim: Flow,
    /// Requests that ended in an error.
    pub failures: Failures,
    /// Blocks whose content was not what had been written.
    pub verify_errors: u64,
}

impl Flow {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { ios: 0, bytes: 0, latency: Histogram::new() }
    }

    /// Adds another job's.
    pub fn merge(&mut self, other: &Self) {
        self.ios += other.ios;
        self.bytes += other.bytes;
        self.latency.merge(&other.latency);
    }
}

impl Tally {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { read: Flow::new(), write: Flow::new(), trim: Flow::new(), failures: Failures::new(), verify_errors: 0 }
    }

    /// Counts an I/O that succeeded after `ns` nanoseconds.
    #[inline]
    pub fn record(&mut self, op: Op, bytes: u32, ns: u64) {
        self.count(op, bytes);
        self.flow(op).latency.record(ns);
    }

    /// Counts `ios` I/Os, at least one, of `bytes` in all, that succeeded after `ns` nanoseconds each.
    #[inline]
    pub fn record_many(&mut self, op: Op, ios: u64, bytes: u64, ns: u64) {
        let flow = self.flow(op);
        flow.ios += ios;
        flow.bytes += bytes;
        flow.latency.record_many(ns, ios);
    }

    /// Counts an I/O that succeeded and was not timed.
    #[inline]
    pub fn count(&mut self, op: Op, bytes: u32) {
        let flow = self.flow(op);
        flow.ios += 1;
        flow.bytes += u64::from(bytes);
    }

    /// Adds another job's.
    pub fn merge(&mut self, other: &Self) {
        self.read.merge(&other.read);
        self.write.merge(&other.write);
        self.trim.merge(&other.trim);
        self.failures.merge(&other.failures);
        self.verify_errors += other.verify_errors;
    }

    #[inline]
    fn flow(&mut self, op: Op) -> &mut Flow {
        match op {
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
            Op::Trim => &mut self.trim,
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}
