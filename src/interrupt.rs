//! Interrupt capabilities, and the plan that spreads them over queues and configuration changes.
//!
//! An interrupt reaches the driver as a capability: a badge to wait for, and the index of the MSI-X table entry that
//! deviced has programmed for it. The driver writes that index to the device, reads it back, and never sees the table.
//! Without MSI-X there is no capability, deviced disables `INTx`, and the driver polls. This module plans; it touches no
//! register ([`crate::device`] maps and reads back) and waits for nothing ([`crate::platform`] does).
//!
//! The ladder, from the top; each rung needs fewer vectors than the one above:
//! 1. [`Rung::PerQueue`]: a vector for each queue and one for configuration changes;
//! 2. [`Rung::Shared`]: queues share vectors, configuration changes keep their own;
//! 3. [`Rung::Single`]: one vector for everything, so every interrupt on it looks at the configuration too;
//! 4. [`Rung::None`]: no vector; one queue, polled.
//!
//! A device that takes fewer vectors than it was offered puts the driver on a lower rung: the plan for what it took.
//!
//! Specification: 4.1.5.1.2 MSI-X Vector Configuration, 4.1.5.3 and 4.1.5.4 (interrupts of queues and configuration).
//!
//! ```
//! use drv_virtio_block::interrupt::{CompletionMode, InterruptGrant, Rung, VectorPlan};
//! use drv_virtio_block::platform::Badge;
//!
//! let grants = [0, 1, 2].map(|n| InterruptGrant { badge: Badge::new(n).unwrap(), vector: u16::from(n) });
//! let plan = VectorPlan::best(&grants, 4, CompletionMode::Interrupt);
//! assert_eq!((plan.rung(), plan.queues()), (Rung::Shared, 4));
//! ```
#![forbid(unsafe_code)]
use crate::platform::{Badge, Badges};
use crate::spec::NO_VECTOR;
use crate::transport::{MAX_QUEUES, QueueId};
use arrayvec::ArrayVec;
use core::fmt;
use core::str::FromStr;

/// Most interrupt capabilities that the driver has a use for: one per queue and one for configuration changes.
pub const MAX_INTERRUPTS: usize = MAX_QUEUES as usize + 1;

/// One interrupt capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptGrant {
    /// What [`crate::platform::Platform::wait`] returns when it fires.
    pub badge: Badge,
    /// Its entry in the MSI-X table, programmed by deviced.
    pub vector: u16,
}

/// How completions are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionMode {
    /// The owner looks at the queue; no queue has a vector.
    Polled,
    /// The device interrupts.
    Interrupt,
}

/// A completion mode that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeError {
    /// `adaptive`: known, and not there yet.
    NotSupportedYet,
    /// No such mode.
    Unknown,
}

impl fmt::Display for ModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSupportedYet => "completion mode adaptive: not supported yet, use polled or interrupt",
            Self::Unknown => "no such completion mode, use polled or interrupt",
        })
    }
}

impl core::error::Error for ModeError {}

impl FromStr for CompletionMode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match text {
            "polled" => Ok(Self::Polled),
            "interrupt" => Ok(Self::Interrupt),
            "adaptive" => Err(ModeError::NotSupportedYet),
            _ => Err(ModeError::Unknown),
        }
    }
}

impl fmt::Display for CompletionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polled => "polled",
            Self::Interrupt => "interrupt",
        })
    }
}

/// Where on the ladder a plan stands; see the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// A vector for each queue and one for configuration changes.
    PerQueue,
    /// Queues share vectors; configuration changes have their own.
    Shared,
    /// One vector for everything.
    Single,
    /// No queue has a vector.
    None,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerQueue => "a vector per queue",
            Self::Shared => "shared vectors",
            Self::Single => "a single vector",
            Self::None => "no vector",
        })
    }
}

/// Which vector serves what. Queues from [`VectorPlan::queues`] on do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorPlan {
    rung: Rung,
    queues: u16,
    mode: CompletionMode,
    /// The grants in use: the first is the configuration's, the others are the queues'.
    grants: ArrayVec<InterruptGrant, MAX_INTERRUPTS>,
}

impl VectorPlan {
    /// The highest rung for `queues` queues, at least 1 and at most [`MAX_QUEUES`], that `grants` allow.
    ///
    /// Who polls by choice keeps all queues and needs no vector, but gives the first to configuration changes. Who
    /// wanted interrupts and has none gets one queue, polled: the driver's original mode.
    pub fn best(grants: &[InterruptGrant], queues: u16, mode: CompletionMode) -> Self {
        let queues = queues.clamp(1, MAX_QUEUES);
        let (rung, queues, used) = match (mode, grants.len()) {
            (CompletionMode::Polled, n) => (Rung::None, queues, n.min(1)),
            (CompletionMode::Interrupt, 0) => (Rung::None, 1, 0),
            (CompletionMode::Interrupt, 1) => (Rung::Single, queues, 1),
            (CompletionMode::Interrupt, n) if n <= queues as usize => (Rung::Shared, queues, n),
            (CompletionMode::Interrupt, _) => (Rung::PerQueue, queues, queues as usize + 1),
        };
        Self { rung, queues, mode, grants: grants.iter().take(used).copied().collect() }
    }

    /// The plan after the device mapped `held` of this plan's vectors and answered `NO_VECTOR` to the next: the best
    /// one for those, with fewer vectors than this one in any case, so that falling comes to an end.
    #[must_use]
    pub fn after_refusal(&self, held: usize) -> Self {
        let fewer = held.min(self.grants.len().saturating_sub(1));
        Self::best(&self.grants[..fewer], self.queues, self.mode)
    }

    /// The rung.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// How completions are noticed: polled if no queue has a vector, whatever was wanted.
    pub fn mode(&self) -> CompletionMode {
        if self.rung == Rung::None { CompletionMode::Polled } else { CompletionMode::Interrupt }
    }

    /// How many queues there are.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// The grants in use, the configuration's first.
    pub fn grants(&self) -> &[InterruptGrant] {
        &self.grants
    }

    /// What interrupts for `queue`; `None`: nothing does, it is polled.
    pub fn queue(&self, queue: QueueId) -> Option<InterruptGrant> {
        let index = match self.rung {
            Rung::None => return None,
            Rung::Single => 0,
            Rung::Shared | Rung::PerQueue => 1 + queue.0 as usize % (self.grants.len() - 1),
        };
        self.grants.get(index).copied()
    }

    /// What interrupts for configuration changes; `None`: nothing does, look from time to time.
    pub fn configuration(&self) -> Option<InterruptGrant> {
        self.grants.first().copied()
    }

    /// Whether `fired` calls for a look at the configuration: its vector is among them, shared with queues or not.
    pub fn configuration_in(&self, fired: Badges) -> bool {
        self.configuration().is_some_and(|grant| fired.has(grant.badge))
    }

    /// Whether `fired` calls for a look at `queue`.
    pub fn queue_in(&self, queue: QueueId, fired: Badges) -> bool {
        self.queue(queue).is_some_and(|grant| fired.has(grant.badge))
    }

    /// The badges of every vector in use.
    pub fn badges(&self) -> Badges {
        self.grants.iter().map(|grant| grant.badge).collect()
    }
}

/// The table entry to map to: the grant's, or none.
pub(crate) fn vector_of(grant: Option<InterruptGrant>) -> u16 {
    grant.map_or(NO_VECTOR, |grant| grant.vector)
}

/// What set the number of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing: there are as many as there are submitters.
    Submitters,
    /// The device has no more.
    Device,
    /// Without a vector there is one.
    Vectors,
    /// [`MAX_QUEUES`].
    Driver,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submitters => "submitters",
            Self::Device => "device",
            Self::Vectors => "vectors",
            Self::Driver => "driver",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(n: usize) -> std::vec::Vec<InterruptGrant> {
        (0..n).map(|i| InterruptGrant { badge: Badge::new(i as u8 + 3).unwrap(), vector: i as u16 + 7 }).collect()
    }

    fn best(n: usize, queues: u16) -> VectorPlan {
        VectorPlan::best(&grants(n), queues, CompletionMode::Interrupt)
    }

    #[test]
    fn enough_vectors_give_each_queue_its_own_and_leave_one_to_the_configuration() {
        let plan = best(9, 4);
        assert_eq!((plan.rung(), plan.queues(), plan.grants().len()), (Rung::PerQueue, 4, 5));
        let mut vectors: std::vec::Vec<_> = (0..4).map(|q| plan.queue(QueueId(q)).unwrap().vector).collect();
        vectors.push(plan.configuration().unwrap().vector);
        vectors.sort_unstable();
        assert_eq!(vectors, [7, 8, 9, 10, 11]);
    }

    #[test]
    fn one_vector_too_few_makes_queues_share_but_not_with_the_configuration() {
        let plan = best(4, 4);
        assert_eq!((plan.rung(), plan.queues()), (Rung::Shared, 4));
        let config = plan.configuration().unwrap();
        assert!((0..4).all(|q| plan.queue(QueueId(q)).unwrap() != config));
        assert_eq!(plan.queue(QueueId(0)), plan.queue(QueueId(3)));
    }

    #[test]
    fn a_single_vector_calls_for_queues_and_configuration_alike() {
        let plan = best(1, 4);
        assert_eq!((plan.rung(), plan.queues()), (Rung::Single, 4));
        let fired = plan.badges();
        assert!(plan.configuration_in(fired) && (0..4).all(|q| plan.queue_in(QueueId(q), fired)));
    }

    #[test]
    fn without_a_vector_there_is_one_polled_queue() {
        let plan = best(0, 4);
        assert_eq!((plan.rung(), plan.queues(), plan.mode()), (Rung::None, 1, CompletionMode::Polled));
        assert_eq!((plan.queue(QueueId(0)), plan.configuration()), (None, None));
        assert!(!plan.configuration_in(Badges(u64::MAX)));
    }

    #[test]
    fn polling_by_choice_keeps_the_queues_and_a_vector_for_the_configuration() {
        let plan = VectorPlan::best(&grants(5), 4, CompletionMode::Polled);
        assert_eq!((plan.rung(), plan.queues(), plan.grants().len()), (Rung::None, 4, 1));
        assert_eq!(plan.queue(QueueId(2)), None);
        assert!(plan.configuration_in(Badge::new(3).unwrap().alone()));
        let without = plan.after_refusal(0);
        assert_eq!((without.queues(), without.configuration()), (4, None));
    }

    #[test]
    fn an_interrupt_of_one_queue_does_not_call_for_another() {
        let plan = best(5, 4);
        let fired = plan.queue(QueueId(2)).unwrap().badge.alone();
        let called: std::vec::Vec<_> = (0..4).filter(|&q| plan.queue_in(QueueId(q), fired)).collect();
        assert_eq!(called, [2]);
        assert!(!plan.configuration_in(fired));
    }

    #[test]
    fn adaptive_is_refused_by_name() {
        assert_eq!("adaptive".parse::<CompletionMode>(), Err(ModeError::NotSupportedYet));
        assert!(ModeError::NotSupportedYet.to_string().contains("not supported yet"));
        assert_eq!("Polled".parse::<CompletionMode>(), Err(ModeError::Unknown));
        for mode in [CompletionMode::Polled, CompletionMode::Interrupt] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }

    proptest! {
        #[test]
        fn every_plan_serves_every_queue_with_vectors_that_were_granted(n in 0_usize..40, queues in 0_u16..40) {
            let (grants, plan) = (grants(n), best(n, queues));
            prop_assert!((1..=MAX_QUEUES).contains(&plan.queues()));
            let vectors = (0..plan.queues()).filter_map(|q| plan.queue(QueueId(q)));
            let served = vectors.filter(|grant| grants.contains(grant)).count();
            prop_assert_eq!(served, if n == 0 { 0 } else { plan.queues() as usize });
            // No vector carries two queues more than another.
            let load = |g: &InterruptGrant| (0..plan.queues()).filter(|&q| plan.queue(QueueId(q)) == Some(*g)).count();
            let loads: std::vec::Vec<_> = plan.grants().iter().skip(1).map(load).collect();
            prop_assert!(loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0) <= 1);
        }

        #[test]
        fn falling_always_ends_without_a_vector(n in 0_usize..40, queues in 1_u16..40, held: [u8; 33]) {
            let mut plan = best(n, queues);
            for held in held.map(usize::from) {
                let lower = plan.after_refusal(held);
                prop_assert!(lower.grants().len() < plan.grants().len() || plan.grants().is_empty());
                plan = lower;
            }
            prop_assert_eq!(plan.rung(), Rung::None);
        }
    }
}
