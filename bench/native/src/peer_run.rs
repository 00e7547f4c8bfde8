//! The peer in the place of the driver: the same jobs, the same buffers, the same report.
//!
//! [`PeerQueue`] does the forwarding; here it is a [`Drive`], and its interrupts are lines that a seat waits for.
use crate::event::Event;
use crate::ground::{Means, Process};
use crate::peer::{Memory, PeerQueue, Setup};
use crate::vhost_user::VhostUser;
use drv_virtio_block::interrupt::{CompletionMode, InterruptGrant, VectorPlan};
use drv_virtio_block::platform::Badge;
use drv_virtio_block::queue::Statistics;
use drv_virtio_block::spec::{Features, feature};
use runner::buffers::Page;
use runner::crew::Crew;
use runner::drive::{Drive, Outcome, Work};
use runner::ground::Ground;
use runner::runs::{self, Setting};
use std::os::fd::AsFd;
use std::sync::Arc;
use workload::params::{Indirect, Mode, Params, Rw, SECTOR, Submit, Verify};
use workload::pattern::Op;
use workload::report::{Boot, Line, VERSION};

/// How many requests fit is the crate's business: three descriptors each.
pub const QUEUE_SIZE: u16 = 1024;

/// What the peer is asked to set up.
///
/// # Errors
/// When the parameters ask for what it cannot do.
pub fn setup(params: &Params) -> Result<Setup, String> {
    let crew = Crew::new(params);
    if params.verify == Verify::Crc32c || params.scenario.as_str() != "none" {
        return Err("driver=virtio-driver does not verify: use driver=ours".to_owned());
    }
    if crew.shares(crew.queues)? || params.submit == Submit::Mutex {
        return Err("driver=virtio-driver has one submitter per queue: raise queues or lower numjobs".to_owned());
    }
    if matches!(params.rw, Rw::Trim | Rw::RandTrim) || params.indirect == Indirect::On {
        return Err("driver=virtio-driver reads and writes through direct chains here".to_owned());
    }
    let mut features = Features(1 << 32 | feature::MQ | feature::FLUSH);
    if params.event_idx {
        features = Features(features.0 | feature::EVENT_IDX);
    }
    let queue_size = if params.queue_size == 0 { QUEUE_SIZE } else { params.queue_size };
    Ok(Setup { queues: crew.queues.into(), queue_size, features: features.0 })
}

/// All of the run's memory, as the peer's transport takes it.
pub fn memory(means: &Means) -> Memory<'static> {
    let memory = means.memory;
    Memory { base: memory.base().as_ptr(), len: memory.len(), file: memory.as_fd(), offset: 0 }
}

/// Runs what the parameters say with the peer's `queues` on a disk of `capacity` sectors; whether there is a result.
///
/// # Errors
/// When no file descriptor is left.
pub fn run(queues: Vec<PeerQueue>, mut means: Means, params: &Params, capacity: u64) -> Result<bool, String> {
    let crew = Crew::new(params);
    // Vector 0 is the configuration's, which the crate does not have.
    means.calls = vec![event(Event::new())?];
    for queue in &queues {
        means.calls.push(event(queue.interrupt().try_clone_to_owned().and_then(Event::adopt))?);
    }
    let grant = |vector: u16| Some(InterruptGrant { badge: Badge::new(vector as u8)?, vector });
    let grants: Vec<_> = (0..means.calls.len() as u16).filter_map(grant).collect();
    let mode = if params.mode == Mode::Polled { CompletionMode::Polled } else { CompletionMode::Interrupt };
    let plan = VectorPlan::best(&grants, queues.len() as u16, mode);
    let setting = Setting { capacity, queues: queues.len() as u16, mode: params.mode, grain: SECTOR, plan };
    let mut ground = Process::<VhostUser>::new(None, means);
    let boot = boot(&queues, params, capacity);
    let drives: Vec<_> = queues.into_iter().map(|queue| Peer { queue, submitted: 0, completed: 0 }).collect();
    let outcome = ground.seats(crew).and_then(|()| {
        ground.say(&Line::Boot(boot));
        ground.bound(runner::bound(params));
        if params.icount {
            return runs::counted(&ground, drives, None, params, capacity);
        }
        runs::foreign(&mut ground, params, crew, &setting, drives)
    });
    Ok(runner::conclude(&ground, outcome))
}

fn event(event: std::io::Result<Event>) -> Result<Arc<Event>, String> {
    event.map(Arc::new).map_err(|e| format!("no eventfd left: {e}"))
}

fn boot(queues: &[PeerQueue], params: &Params, capacity: u64) -> Boot {
    let polled = params.mode == Mode::Polled;
    Boot {
        version: VERSION,
        capacity,
        queues: queues.len() as u16,
        queue_size: if params.queue_size == 0 { QUEUE_SIZE } else { params.queue_size },
        slots: queues.iter().map(PeerQueue::slots).min().unwrap_or(0),
        vectors: if polled { 0 } else { queues.len() as u16 },
        rung: if polled { "none" } else { "vector-per-queue" }.try_into().unwrap_or_default(),
        features: 0,
        read_only: false,
        writeback: false,
    }
}

/// One queue of the peer, as a job sees it.
struct Peer {
    queue: PeerQueue,
    submitted: u64,
    completed: u64,
}

// SAFETY: the crate's queue holds raw pointers into ring memory that it alone uses and that its backing keeps alive; the
// job's thread is its only user from here on.
unsafe impl Send for Peer {}

impl Drive<Page> for Peer {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<Page>]) -> Outcome {
        let mut outcome = Outcome { taken: work.len(), refused: None };
        for (at, one) in work.iter().enumerate() {
            let data = one.buffer.segment();
            let (buffer, len) = (data.address().0 as *mut u8, data.len() as usize);
            let offset = one.lba * u64::from(SECTOR);
            // SAFETY: a page of the run's memory, which the set-up was told of and nobody touches until its token is
            // back (`Page`); initialised from the start.
            let staged = unsafe {
                if one.op == Op::Write {
                    self.queue.write(offset, buffer, len, one.token)
                } else {
                    self.queue.read(offset, buffer, len, one.token)
                }
            };
            if staged.is_err() {
                outcome.taken = at;
                break;
            }
        }
        self.submitted += outcome.taken as u64;
        // It fails with the device, which shows soon enough.
        let _ = self.queue.notify();
        outcome
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, done: impl FnMut(u64, bool)) -> usize {
        let handed = self.queue.reap(max, done);
        self.completed += handed as u64;
        handed
    }

    fn arm(&mut self, _: u16) -> bool {
        self.queue.enable_interrupts(true);
        self.queue.has_completions()
    }

    fn woken(&mut self) {
        self.queue.enable_interrupts(false);
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            submitted: self.submitted,
            completed: self.completed,
            notifications: self.queue.notifications(),
            ..Statistics::default()
        }
    }

    fn flush(&mut self) -> bool {
        let staged = self.queue.flush(0).and_then(|()| self.queue.notify());
        let mut success = None;
        while staged.is_ok() && success.is_none() {
            self.queue.reap(1, |_, ok| success = Some(ok));
        }
        success == Some(true)
    }
}
