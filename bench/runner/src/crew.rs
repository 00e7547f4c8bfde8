//! Who shares what: how many jobs, how many queues for them, and whether one interrupt serves several.
//!
//! It knows parameters; which processor a job gets is the [`Ground`](crate::ground::Ground)'s.
use alloc::format;
use alloc::string::String;
use workload::params::{Mode, Params, Submit};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Crew {
    /// Submitters.
    pub jobs: u16,
    /// Queues wished for.
    pub queues: u16,
    /// Several jobs hang on one interrupt.
    pub forwarded: bool,
    /// Queues are used through the many-submitters path, as asked.
    shared: bool,
    /// A queue must not be shared, as asked.
    exclusive: bool,
}

impl Crew {
    /// What the parameters ask for.
    pub fn new(params: &Params) -> Self {
        let jobs = if params.icount { 1 } else { params.numjobs };
        let queues = if params.queues == 0 { params.numjobs } else { params.queues };
        let shared = params.submit == Submit::Shared || queues < jobs;
        // The configuration has a vector of its own while there are enough.
        let enough = params.vectors > queues;
        let forwarded = params.mode == Mode::Interrupt && jobs > 1 && (shared || !enough);
        Self { jobs, queues, forwarded, shared, exclusive: params.submit == Submit::Owner }
    }

    /// Whether queues are shared, now that it is known that there are `queues`.
    ///
    /// # Errors
    /// When they would have to be and must not.
    pub fn shares(self, queues: u16) -> Result<bool, String> {
        if self.exclusive && queues < self.jobs {
            return Err(format!("{} jobs cannot own {queues} queues: lower numjobs or drop submit=owner", self.jobs));
        }
        Ok(self.shared || queues < self.jobs)
    }
}
