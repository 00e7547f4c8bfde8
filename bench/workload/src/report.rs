//! What a run answers: lines on the serial port, each `@drv ` followed by one JSON object, so that nothing is guessed.
//!
//! A run prints [`Line::Boot`] once the device is up, any number of [`Line::Note`], and ends with exactly one of
//! [`Line::Done`] or [`Line::Failed`]. Anything else on the port is human text. A run without `Done` did not succeed.
use arrayvec::{ArrayString, ArrayVec};
use serde::{Deserialize, Serialize};

/// What a result line starts with.
pub const PREFIX: &str = "@drv ";
/// Version of these structures; the tool refuses any other.
pub const VERSION: u32 = 1;
/// The percentiles that fio reports, in thousandths of a percent.
pub const PERCENTILES: [u32; 17] = [
    1_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 90_000, 95_000, 99_000, 99_500, 99_900,
    99_950, 99_990,
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
    /// From submission to completion, nanoseconds.
    pub clat_min_ns: u64,
    /// See `clat_min_ns`.
    pub clat_max_ns: u64,
    /// See `clat_min_ns`.
    pub clat_mean_ns: u64,
    /// One value for each of [`PERCENTILES`], nanoseconds.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Blocks whose content was not what had been written.
    pub verify_errors: u64,
    /// Doorbells rung.
    pub notifications: u64,
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
    /// Times that a submitter found its queue full.
    pub full: u64,
    /// Locked read-modify-writes and full fences on the I/O path, where the build counts them.
    pub atomics: Option<u64>,
    /// Where counted.
    pub instructions: Option<Instructions>,
}
