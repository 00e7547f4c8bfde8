//! Who shares what: how many jobs, how many queues for them, and whether one interrupt serves several.
//!
//! It knows parameters; which processor a job gets is the [`Ground`](crate::ground::Ground)'s.
use alloc::format;
use alloc::string::String;
use workload::params::{Mode, Params, Submit, Via};

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
    /// Several jobs hang on one interrupt.
    pub forwarded: bool,
    /// The caller's processor has no job, and all interrupts are the last job's, the configuration's too.
    pub apart: bool,
    /// How queues are to be reached, as asked.
    submit: Submit,
}

impl Crew {
    /// What the parameters ask for.
    pub fn new(params: &Params) -> Self {
        let (queues, submit) = (params.queues_wished(), params.submit);
        // The configuration has a vector of its own while there are enough.
        let enough = params.vectors > queues;
        let interrupts = params.mode == Mode::Interrupt;
        if params.scenario.as_str() == RESTART {
            let jobs = params.clients.saturating_add(1);
            return Self { jobs, fronts: 1, queues, forwarded: false, apart: true, submit };
        }
        if params.via == Via::Blockd {
            let fronts = if params.is_stepped() { 0 } else { queues };
            let forwarded = interrupts && fronts > 1 && !enough;
            let jobs = params.seats();
            return Self { jobs, fronts, queues, forwarded, apart: false, submit };
        }
        let jobs = if params.icount { 1 } else { params.numjobs };
        let shared = submit == Submit::Shared || queues < jobs;
        let forwarded = interrupts && jobs > 1 && (shared || !enough);
        Self { jobs, fronts: 0, queues, forwarded, apart: false, submit }
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
