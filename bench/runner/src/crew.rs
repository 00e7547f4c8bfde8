//! Who shares what: how many jobs, how many queues for them, and which jobs wait for which interrupt.
//!
//! How many queues and interrupts there are is known only once the device is up, so whatever depends on them is asked
//! with the plan that was reached. Which processor a job gets is the [`Ground`](crate::ground::Ground)'s.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use drv_virtio_block::interrupt::{InterruptGrant, VectorPlan};
use drv_virtio_block::transport::QueueId;
use workload::params::{Params, Submit, Via};

/// The scenario whose driver is one job with all of the device.
pub const RESTART: &str = "restart";

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Crew {
    /// Jobs, each on a processor: submitters, or clients and then front ends.
    pub jobs: u16,
    /// Front ends among them, the last ones.
    pub fronts: u16,
    /// Queues wished for.
    pub queues: u16,
    /// The caller's processor has no job, and all interrupts are the last job's, the configuration's too.
    pub apart: bool,
    /// How queues are to be reached, as asked.
    submit: Submit,
}

impl Crew {
    /// What the parameters ask for.
    pub fn new(params: &Params) -> Self {
        let (queues, submit) = (params.queues_wished(), params.submit);
        if params.scenario.as_str() == RESTART {
            let jobs = params.clients.saturating_add(1);
            return Self { jobs, fronts: 1, queues, apart: true, submit };
        }
        if params.via == Via::Blockd {
            let fronts = if params.is_stepped() { 0 } else { queues };
            return Self { jobs: params.seats(), fronts, queues, apart: false, submit };
        }
        let jobs = if params.icount { 1 } else { params.numjobs };
        Self { jobs, fronts: 0, queues, apart: false, submit }
    }

    /// The jobs that wait for what `grant` interrupts for, in the plan that was reached.
    pub fn waiting(self, grant: InterruptGrant, plan: &VectorPlan) -> Vec<u16> {
        let of = |queue: u16| (0..self.jobs).filter(move |job| self.waits_for(*job, queue, plan.queues()));
        let queues = (0..plan.queues()).filter(|queue| plan.queue(QueueId(*queue)) == Some(grant));
        let mut jobs: Vec<u16> = queues.flat_map(of).collect();
        jobs.sort_unstable();
        jobs.dedup();
        jobs
    }

    /// Whether one interrupt of the plan that was reached is waited for by several jobs.
    pub fn shares_interrupts(self, plan: &VectorPlan) -> bool {
        plan.grants().iter().any(|grant| self.waiting(*grant, plan).len() > 1)
    }

    /// Whether `job` waits for the completions of `queue`, one of `queues`.
    fn waits_for(self, job: u16, queue: u16, queues: u16) -> bool {
        match self.fronts {
            0 => job % queues.max(1) == queue,
            _ => usize::from(job) == self.server(queue.into()),
        }
    }

    /// The first of the jobs that interrupts of queue `queue` are for.
    pub fn server(self, queue: usize) -> usize {
        match (self.fronts, self.jobs) {
            (0, jobs) => queue % usize::from(jobs.max(1)),
            (fronts, jobs) => usize::from(jobs - fronts) + queue % usize::from(fronts),
        }
    }

    /// Whether queues are shared, now that it is known that there are `queues`.
    ///
    /// # Errors
    /// When they would have to be and must not.
    pub fn shares(self, queues: u16) -> Result<bool, String> {
        if self.submit == Submit::Owner && queues < self.jobs {
            return Err(format!("{} jobs cannot own {queues} queues: lower numjobs or drop submit=owner", self.jobs));
        }
        Ok(self.submit == Submit::Shared || queues < self.jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use drv_virtio_block::interrupt::CompletionMode;
    use drv_virtio_block::platform::Badge;

    /// Each grant's jobs, the configuration's first, where a device with `vectors` vectors and enough queues is asked
    /// for what `words` say.
    fn waiting(words: &str, vectors: u8) -> Vec<Vec<u16>> {
        waiting_on(words, vectors, u16::MAX)
    }

    /// Likewise, where the device has no more than `queues` queues.
    fn waiting_on(words: &str, vectors: u8, queues: u16) -> Vec<Vec<u16>> {
        let params = Params::parse(&alloc::format!("{words} number_ios=1")).expect("parameters");
        let crew = Crew::new(&params);
        let grant = |n: u8| InterruptGrant { badge: Badge::new(n).expect("a badge"), vector: n.into() };
        let grants: Vec<_> = (0..vectors).map(grant).collect();
        let plan = VectorPlan::best(&grants, crew.queues.min(queues), CompletionMode::Interrupt);
        plan.grants().iter().map(|grant| crew.waiting(*grant, &plan)).collect()
    }

    #[test]
    fn who_waits_for_an_interrupt_follows_from_what_the_device_gave_and_not_from_what_was_asked_for() {
        let words = "mode=interrupt queues=4 numjobs=4 vectors=5";
        assert_eq!(waiting(words, 5), [vec![], vec![0], vec![1], vec![2], vec![3]]);
        assert_eq!(waiting(words, 4), [vec![], vec![0, 3], vec![1], vec![2]]);
        assert_eq!(waiting(words, 2), [vec![], vec![0, 1, 2, 3]]);
        assert_eq!(waiting(words, 1), [vec![0, 1, 2, 3]]);
        assert!(waiting(words, 0).is_empty());
    }

    #[test]
    fn all_submitters_of_a_queue_wait_for_its_interrupt() {
        assert_eq!(waiting("mode=interrupt queues=2 numjobs=5 vectors=3", 3), [vec![], vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(waiting("mode=interrupt queues=4 numjobs=1 vectors=5", 2), [vec![], vec![0]]);
    }

    #[test]
    fn jobs_of_queues_that_the_device_does_not_have_wait_for_those_that_it_has() {
        let words = "mode=interrupt queues=4 numjobs=4 vectors=5";
        assert_eq!(waiting_on(words, 5, 2), [vec![], vec![0, 2], vec![1, 3]]);
    }

    #[test]
    fn front_ends_wait_for_their_queues_and_clients_do_not() {
        let words = "via=blockd mode=interrupt clients=3 queues=2 vectors=3";
        assert_eq!(waiting(words, 3), [vec![], vec![3], vec![4]]);
        assert_eq!(waiting(words, 2), [vec![], vec![3, 4]]);
        assert_eq!(waiting(words, 1), [vec![3, 4]]);
    }
}
