//! The peers in the place of the driver: the same jobs, the same buffers, the same report.
//!
//! [`PeerQueue`] and [`BlkioQueue`] do the forwarding; here they are [`Drive`]s, and their interrupts are lines that a
//! seat waits for. Where instructions are counted, *submit* is the batch handed over request by request and then the
//! doorbell decision (libblkio: one `do_io` without room for completions), *complete* is taking the completions (one
//! `do_io` that waits for none) and handing them back one by one; the device is stepped between the two.
use crate::event::Event;
use crate::ground::{Means, Process};
use crate::peer::blkio::{self, BlkioQueue};
use crate::peer::{Memory, PeerQueue, Setup};
use crate::vhost_user::VhostUser;
use drv_virtio_block::interrupt::{CompletionMode, InterruptGrant, VectorPlan};
use drv_virtio_block::platform::Badge;
use drv_virtio_block::queue::Statistics;
use drv_virtio_block::spec::{Features, feature};
use runner::buffers::Page;
use runner::crew::Crew;
use runner::drive::{Drive, Outcome, Work};
use runner::failure::{Ended, Failure};
use runner::fits::{self, Disk};
use runner::ground::Ground;
use runner::runs::{self, Setting};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use workload::params::{Indirect, Mode, Params, SECTOR, Submit, Verify};
use workload::pattern::Op;
use workload::report::{Boot, Line, VERSION};

/// How many requests fit is the crates' business: three descriptors each.
pub const QUEUE_SIZE: u16 = 1024;

/// A driver's queue, as a run takes it.
pub trait Queue: Drive<Page> + Send + 'static {
    /// How many reads and writes of one buffer fit at once.
    fn slots(&self) -> u16;

    /// What is raised with its interrupt.
    ///
    /// # Errors
    /// When no file descriptor is left.
    fn interrupt(&self) -> io::Result<Event>;
}

/// What virtio-driver is asked to set up.
///
/// # Errors
/// When the parameters ask for what it cannot do.
pub fn setup(params: &Params) -> Result<Setup, String> {
    let queues = queues(params)?;
    let mut features = Features(1 << 32 | feature::MQ | feature::FLUSH);
    if params.event_idx {
        features = Features(features.0 | feature::EVENT_IDX);
    }
    Ok(Setup { queues: queues.into(), queue_size: queue_size(params), features: features.0 })
}

/// What libblkio is asked to set up.
///
/// # Errors
/// When the parameters ask for what it cannot do.
pub fn blkio_setup(params: &Params) -> Result<blkio::Setup, String> {
    let queues = queues(params)?;
    if !params.event_idx {
        return Err("driver=blkio takes event indices wherever they are offered: leave event_idx=off out".to_owned());
    }
    Ok(blkio::Setup { queues, queue_size: queue_size(params), polled: params.mode == Mode::Polled })
}

fn queue_size(params: &Params) -> u16 {
    if params.queue_size == 0 { QUEUE_SIZE } else { params.queue_size }
}

/// How many queues, unless the parameters ask for what no peer can do.
fn queues(params: &Params) -> Result<u16, String> {
    let (crew, driver) = (Crew::new(params), params.driver);
    if params.verify == Verify::Crc32c || params.scenario.as_str() != "none" {
        return Err(format!("driver={driver} does not verify: use driver=ours"));
    }
    if crew.shares(crew.queues)? || params.submit == Submit::Mutex {
        return Err(format!("driver={driver} has one submitter per queue: raise queues or lower numjobs"));
    }
    if params.rw.trims() || params.indirect == Indirect::On {
        return Err(format!("driver={driver} reads and writes through direct chains here"));
    }
    Ok(crew.queues)
}

/// All of the run's memory, as the peers' transport takes it.
pub fn memory(means: &Means) -> Memory<'static> {
    let memory = means.memory;
    Memory { base: memory.base().as_ptr(), len: memory.len(), file: memory.as_fd(), offset: 0 }
}

/// Runs what the parameters say with a peer's `queues` on `disk` of `capacity` sectors; whether there is a result.
///
/// # Errors
/// When no file descriptor is left.
pub fn run<Q: Queue>(
    queues: Vec<Q>,
    mut means: Means,
    params: &Params,
    (disk, capacity): (Disk, u64),
) -> Result<bool, String> {
    let crew = Crew::new(params);
    // Vector 0 is the configuration's, which the crate does not have.
    means.calls = vec![event(Event::new())?];
    for queue in &queues {
        means.calls.push(event(queue.interrupt())?);
    }
    let grant = |vector: u16| Some(InterruptGrant { badge: Badge::new(vector as u8)?, vector });
    let grants: Vec<_> = (0..means.calls.len() as u16).filter_map(grant).collect();
    let mode = if params.mode == Mode::Polled { CompletionMode::Polled } else { CompletionMode::Interrupt };
    let plan = VectorPlan::best(&grants, queues.len() as u16, mode);
    let setting = Setting { capacity, queues: queues.len() as u16, mode: params.mode, grain: SECTOR, plan };
    let mut ground = Process::<VhostUser>::new(None, means);
    let boot = Boot { read_only: disk.read_only, ..boot(&queues, params, capacity) };
    let outcome = ground.seats(crew).and_then(|()| {
        ground.say(&Line::Boot(boot));
        fits::check(params, &disk)?;
        ground.bound(runner::bound(params));
        if params.icount {
            return runs::counted(&ground, queues, None, params, capacity);
        }
        runs::foreign(&mut ground, params, crew, &setting, queues)
    });
    Ok(runner::conclude(&ground, outcome))
}

fn event(event: io::Result<Event>) -> Result<Arc<Event>, String> {
    event.map(Arc::new).map_err(|e| format!("no eventfd left: {e}"))
}

fn boot<Q: Queue>(queues: &[Q], params: &Params, capacity: u64) -> Boot {
    let polled = params.mode == Mode::Polled;
    Boot {
        version: VERSION,
        capacity,
        queues: queues.len() as u16,
        queue_size: queue_size(params),
        slots: queues.iter().map(Queue::slots).min().unwrap_or(0),
        vectors: if polled { 0 } else { queues.len() as u16 },
        rung: if polled { "none" } else { "vector-per-queue" }.try_into().unwrap_or_default(),
        features: 0,
        read_only: false,
        writeback: false,
    }
}

/// What a peer's completion says: 0, or a negative error number.
#[inline(always)]
fn ended(error: i32) -> Ended {
    match error {
        0 => Ok(()),
        // `EIO`: what the crates make of `VIRTIO_BLK_S_IOERR`.
        error if error == -(nix::errno::Errno::EIO as i32) => Err(Failure::MEDIUM),
        _ => Err(Failure::DEVICE),
    }
}

/// One queue of virtio-driver or of libblkio, as a job sees it.
pub struct Peer<Q> {
    queue: Q,
    submitted: u64,
    completed: u64,
}

impl<Q> Peer<Q> {
    /// All of `queues`, before any work.
    pub fn all(queues: Vec<Q>) -> Vec<Self> {
        queues.into_iter().map(|queue| Self { queue, submitted: 0, completed: 0 }).collect()
    }
}

// SAFETY: the crate's queue holds raw pointers into ring memory that it alone uses and that its backing keeps alive; the
// job's thread is its only user from here on.
unsafe impl Send for Peer<PeerQueue> {}

impl Queue for Peer<PeerQueue> {
    fn slots(&self) -> u16 {
        self.queue.slots()
    }

    fn interrupt(&self) -> io::Result<Event> {
        self.queue.interrupt().try_clone_to_owned().and_then(Event::adopt)
    }
}

impl Drive<Page> for Peer<PeerQueue> {
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
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        let handed = self.queue.reap(max, |token, error| done(token, ended(error)));
        self.completed += handed as u64;
        handed
    }

    fn arm(&mut self, _: u16) -> bool {
        self.queue.enable_interrupts(true);
        let found = self.queue.has_completions();
        if found {
            // Nobody will sleep: what is reaped next does not pay for interrupts.
            self.queue.enable_interrupts(false);
        }
        found
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

    fn flush(&mut self) -> Ended {
        self.queue.flush(0).and_then(|()| self.queue.notify()).map_err(|_| Failure::DEVICE)?;
        let mut answer = None;
        while answer.is_none() {
            self.queue.reap(1, |_, error| answer = Some(error));
        }
        answer.map_or(Ok(()), ended)
    }
}

// SAFETY: the crate's queue may be sent; the rest is held until the last queue goes, and touched by nobody meanwhile.
unsafe impl Send for Peer<BlkioQueue> {}

impl Queue for Peer<BlkioQueue> {
    fn slots(&self) -> u16 {
        self.queue.slots()
    }

    fn interrupt(&self) -> io::Result<Event> {
        self.queue.interrupt()
    }
}

impl Drive<Page> for Peer<BlkioQueue> {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<Page>]) -> Outcome {
        for one in work {
            let data = one.buffer.segment();
            let (buffer, len) = (data.address().0 as *mut u8, data.len() as usize);
            let offset = one.lba * u64::from(SECTOR);
            // SAFETY: as for virtio-driver above.
            unsafe {
                if one.op == Op::Write {
                    self.queue.write(offset, buffer, len, one.token);
                } else {
                    self.queue.read(offset, buffer, len, one.token);
                }
            }
        }
        self.submitted += work.len() as u64;
        // It fails with the device, which shows soon enough.
        let _ = self.queue.flush_batch();
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        let handed = self.queue.reap(max, |token, error| done(token, ended(error)));
        self.completed += handed as u64;
        handed
    }

    fn arm(&mut self, _: u16) -> bool {
        self.queue.arm()
    }

    fn woken(&mut self) {
        self.queue.disarm();
    }

    fn statistics(&self) -> Statistics {
        Statistics { submitted: self.submitted, completed: self.completed, ..Statistics::default() }
    }

    fn rings_unseen(&self) -> bool {
        true
    }

    fn flush(&mut self) -> Ended {
        self.queue.flush(0);
        let mut answer = None;
        while answer.is_none() {
            self.queue.flush_batch().map_err(|_| Failure::DEVICE)?;
            self.queue.reap(1, |_, error| answer = Some(error));
        }
        answer.map_or(Ok(()), ended)
    }
}
