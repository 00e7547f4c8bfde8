//! A queue's counters: each written by one thread at a time with plain moves, read by anyone.
//!
//! They cost no locked instruction on the I/O path: whoever is inside of the gate or the turn in question, or the submitter itself, is the
//! only writer of each. A queue with one owner needs no more than plain numbers, and how many chains went out and came
//! back the ring's shadows say anyway.
use crate::sync::Tally;

/// What the submitters of a shared queue count for themselves, outside of the gates.
#[derive(Default)]
pub(crate) struct BySubmitter {
    pub(crate) notifications: Tally,
    pub(crate) full: Tally,
}

/// What is counted now and then: by the one thread that waits for interrupts, and by whose turn it is to drain.
#[derive(Default)]
pub(crate) struct ColdCounters {
    pub(crate) interrupts: Tally,
    pub(crate) violations: Tally,
    pub(crate) length_anomalies: Tally,
}

/// A reading of one queue's counters since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Chains made available to the device (more than requests when requests were split).
    pub submitted: u64,
    /// Chains that came back.
    pub completed: u64,
    /// Doorbells rung.
    pub notifications: u64,
    /// Interrupts that the waiting thread noted.
    pub interrupts: u64,
    /// Answers against the specification that broke the queue.
    pub violations: u64,
    /// Used lengths above what the device may write: more than the data and the status byte of a read, more than the
    /// status byte of anything else. They are no violations: the status decides, and the queue goes on.
    pub length_anomalies: u64,
    /// Requests refused because no slot was free.
    pub full: u64,
}
