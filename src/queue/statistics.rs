//! A queue's counters: each written by one thread at a time with plain moves, read by anyone.
//!
//! They cost no locked instruction on the I/O path: the owner of a queue, or the holder of the gate in question, is the
//! only writer of each.
use crate::sync::Tally;

/// The live counters. Submission and completion sides are apart, so that two gates never write one line.
#[derive(Default)]
pub(crate) struct SubmissionCounters {
    pub(crate) submitted: Tally,
    pub(crate) notifications: Tally,
    pub(crate) full: Tally,
}

/// What the submitters of a shared queue count for themselves, outside of the gates.
#[derive(Default)]
pub(crate) struct BySubmitter {
    pub(crate) notifications: Tally,
    pub(crate) full: Tally,
}

/// See [`SubmissionCounters`].
#[derive(Default)]
pub(crate) struct CompletionCounters {
    pub(crate) completed: Tally,
    pub(crate) interrupts: Tally,
    pub(crate) violations: Tally,
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
    /// Answers against the specification.
    pub violations: u64,
    /// Requests refused because no slot was free.
    pub full: u64,
}

impl Statistics {
    pub(crate) fn read(submission: &SubmissionCounters, completion: &CompletionCounters) -> Self {
        Self {
            submitted: submission.submitted.get(),
            completed: completion.completed.get(),
            notifications: submission.notifications.get(),
            interrupts: completion.interrupts.get(),
            violations: completion.violations.get(),
            full: submission.full.get(),
        }
    }
}
