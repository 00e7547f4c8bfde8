//! The kinds of run: ours, the bare ring or the lock, plain or verified, timed or counted. Each makes its drives, lets
//! the jobs run and sums up.
use crate::buffers::{Page, Places, Scattered};
use crate::content::{Anything, Verified};
use crate::crew::Crew;
use crate::drive::Drive;
use crate::ground::{Ground, Host, Piece};
use crate::icount::{self, Counted};
use crate::job::{Content, Done, Job, Plan};
use crate::locked::{self, Locked};
use crate::raw::RawMemory;
use crate::rig::{DoorbellOf, Memory, Rig};
use crate::seal;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use drv_virtio_block::dma::Buffer;
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::{CompletionMode, VectorPlan};
use drv_virtio_block::platform::Badges;
use drv_virtio_block::queue::{OwnedQueue, Prepared, SharedQueue, Statistics, Submitter};
use drv_virtio_block::transport::QueueId;
use workload::params::{Mode, Params};
use workload::pattern::{Pattern, Region};
use workload::random::Random;
use workload::report::{Report, Tally};
use workload::verify::ledger::Ledger;

type Owned<G, B> = OwnedQueue<'static, B, DoorbellOf<G>>;
type Shared<G, B> = SharedQueue<'static, B, DoorbellOf<G>, <G as Ground>::Wake>;
type Sub<G, B> = Submitter<'static, 'static, B, DoorbellOf<G>, <G as Ground>::Wake>;

/// What a run comes to.
pub type Outcome = Result<Box<Report>, String>;

/// What jobs need to know of the device that they run on.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Sectors.
    pub capacity: u64,
    /// Queues in use.
    pub queues: u16,
    /// How completions are noticed.
    pub mode: Mode,
    /// See [`Rig::grain`].
    pub grain: u32,
    /// What interrupts for what.
    pub plan: VectorPlan,
}

/// What a job needs besides its drive.
pub struct Setup<H> {
    params: Params,
    number: u16,
    setting: Setting,
    places: Places,
    host: H,
}

/// What comes back from a job.
pub struct Returned<D> {
    /// Its drive.
    pub drive: D,
    /// What it counted.
    pub tally: Box<Tally>,
    /// When it ran.
    pub done: Done,
    /// The job's part of the ledger, if it kept one.
    pub words: Vec<u32>,
    /// The first difference that it found.
    pub first_fault: Option<String>,
}

/// How a job runs with its drive.
type Run<D, H> = fn(D, Setup<H>) -> Result<Returned<D>, String>;

/// Runs ours on buffers that hold anything.
pub(crate) fn plain<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, Prepared<'static, Page>> = Rig::up(ground, params, crew)?;
    if crew.shares(rig.device.reached().queues)? {
        let drives = share(ground, &mut rig, crew)?;
        return finish(ground, rig, crew, |ground, setting, _| run(ground, params, crew, setting, drives, plain_job));
    }
    let drives = own(&mut rig)?;
    finish(ground, rig, crew, |ground, setting, _| run(ground, params, crew, setting, drives, plain_job))
}

/// Runs ours on verified blocks, and leaves the table that lets anyone check the disk.
pub(crate) fn verified<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, Prepared<'static, Scattered>> = Rig::up(ground, params, crew)?;
    if crew.shares(rig.device.reached().queues)? {
        let drives = share(ground, &mut rig, crew)?;
        return finish(ground, rig, crew, |ground, setting, disk| {
            let returned = run(ground, params, crew, setting, drives, verified_job)?;
            seal::write(ground, returned, params, disk)
        });
    }
    let drives = own(&mut rig)?;
    finish(ground, rig, crew, |ground, setting, disk| {
        let returned = run(ground, params, crew, setting, drives, verified_job)?;
        seal::write(ground, returned, params, disk)
    })
}

/// Runs the bare ring.
pub(crate) fn raw<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, RawMemory> = Rig::up(ground, params, crew)?;
    if crew.shares(rig.device.reached().queues)? || params.rw.trims() {
        return Err("driver=raw has one submitter per queue, and reads and writes only".to_string());
    }
    let drives: Vec<_> = rig.open()?.into_iter().map(|(memory, doorbell)| memory.open(doorbell)).collect();
    finish(ground, rig, crew, |ground, setting, _| run(ground, params, crew, setting, drives, plain_job))
}

/// Runs ours behind a lock.
pub(crate) fn locked<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, Prepared<'static, Page>> = Rig::up(ground, params, crew)?;
    if params.mode == Mode::Interrupt {
        return Err("submit=mutex is polled: give mode=polled".to_string());
    }
    let queues: Vec<&'static Locked<_, _>> = own::<G, Page>(&mut rig)?
        .into_iter()
        .map(|queue| &*Box::leak(Box::new(Locked::new(queue, crew.jobs))))
        .collect();
    let submitter = |job: u16| queues[usize::from(job) % queues.len()].submitter(job);
    let drives: Vec<locked::Submitter<_, _>> = (0..crew.jobs).map(submitter).collect();
    finish(ground, rig, crew, |ground, setting, _| run(ground, params, crew, setting, drives, plain_job))
}

/// Counts the instructions of ours.
pub(crate) fn count<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, Prepared<'static, Page>> = Rig::up(ground, params, crew)?;
    let used = used_rings(&rig);
    let capacity = rig.device.geometry().capacity();
    if crew.shares(rig.device.reached().queues)? {
        return counted(ground, share(ground, &mut rig, crew)?, Some(used), params, capacity);
    }
    counted(ground, own(&mut rig)?, Some(used), params, capacity)
}

/// Counts the instructions of the bare ring.
pub(crate) fn count_raw<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, RawMemory> = Rig::up(ground, params, crew)?;
    let used = used_rings(&rig);
    let drives = rig.open()?.into_iter().map(|(memory, doorbell)| memory.open(doorbell)).collect();
    counted(ground, drives, Some(used), params, rig.device.geometry().capacity())
}

pub(crate) fn used_rings<G: Ground, M: Memory>(rig: &Rig<G, M>) -> Vec<u64> {
    rig.queues.iter().map(|(_, memory)| memory.addresses().device().0).collect()
}

/// Counts the instructions of `drives`, whose used rings are at `used`; without that, one step of the device answers a
/// whole batch.
///
/// # Errors
/// When there is no pattern for the parameters, or no memory.
pub fn counted<G: Ground, D: Drive<Page>>(
    ground: &G,
    drives: Vec<D>,
    used: Option<Vec<u64>>,
    params: &Params,
    capacity: u64,
) -> Outcome {
    let memory = ground.dma(usize::from(params.iodepth_batch_submit) * 4096).ok_or("no memory for the buffers")?;
    counted_on(ground, drives, used, params, capacity, &Places::new(memory, 4096))
}

/// As [`counted`], on buffers that are there.
pub(crate) fn counted_on<G: Ground, D: Drive<Page>>(
    ground: &G,
    drives: Vec<D>,
    used: Option<Vec<u64>>,
    params: &Params,
    capacity: u64,
    places: &Places,
) -> Outcome {
    let batch = usize::from(params.iodepth_batch_submit);
    let used: Vec<_> = used.map_or_else(|| vec![None; drives.len()], |used| used.into_iter().map(Some).collect());
    let mut queues: Vec<_> = drives.into_iter().zip(used).map(|(drive, used)| Counted { drive, used }).collect();
    let endless = Params { number_ios: 0, loops: 0, numjobs: 1, ..params.clone() };
    let mut pattern = Pattern::new(&endless, 0, capacity).map_err(|e| e.to_string())?;
    let mut host = ground.host(0, Badges(0));
    let amount = (batch, params.number_ios);
    let instructions = icount::count(&mut queues, &mut host, &mut pattern, amount, |place| places.page(place, 4096));
    let mut report = Box::new(Report::new(&Tally::new(), 0));
    report.instructions = Some(instructions);
    for queue in &queues {
        add_drive(&mut report, &queue.drive);
    }
    Ok(report)
}

/// An owned queue from each prepared one.
fn own<G: Ground, B: Buffer>(rig: &mut Rig<G, Prepared<'static, B>>) -> Result<Vec<Owned<G, B>>, String> {
    Ok(rig.open()?.into_iter().map(|(prepared, doorbell)| prepared.owned(doorbell)).collect())
}

/// A submitter per job, spread over shared queues.
fn share<G: Ground, B: Buffer>(
    ground: &G,
    rig: &mut Rig<G, Prepared<'static, B>>,
    crew: Crew,
) -> Result<Vec<Sub<G, B>>, String> {
    let opened = rig.open()?;
    let count = opened.len();
    let mut queues: Vec<&'static Shared<G, B>> = Vec::new();
    for (at, (prepared, doorbell)) in opened.into_iter().enumerate() {
        // Submitter n of queue `at` is job at + n * count.
        let jobs = (at as u16..crew.jobs).step_by(count).collect();
        queues.push(Box::leak(Box::new(prepared.shared(doorbell, ground.wake(jobs)))));
    }
    let submitter = |job: usize| queues[job % count].submitter().ok_or("too many jobs on one queue".to_string());
    (0..crew.jobs.into()).map(submitter).collect()
}

/// Runs the jobs, each with its drive.
fn run<G: Ground, D: Send + 'static>(
    ground: &mut G,
    params: &Params,
    crew: Crew,
    setting: &Setting,
    drives: Vec<D>,
    job: Run<D, G::Host>,
) -> Result<Vec<Returned<D>>, String> {
    let mut jobs = Vec::new();
    for (drive, number) in drives.into_iter().zip(0..crew.jobs) {
        let queue = QueueId(number % setting.queues.max(1));
        let own = setting.plan.queue(queue).map_or(Badges(0), |grant| grant.badge.alone());
        let setup = Setup {
            params: params.clone(),
            number,
            setting: setting.clone(),
            places: places(ground, params)?,
            host: ground.host(number, own),
        };
        jobs.push(Box::new(move || job(drive, setup)) as Box<dyn FnOnce() -> Result<Returned<D>, String> + Send>);
    }
    ground.run(&setting.plan, jobs).into_iter().collect()
}

/// Runs drives that the caller made, on buffers that hold anything, and sums up.
///
/// # Errors
/// When a job cannot run.
pub fn foreign<G: Ground, D: Drive<Page> + Send + 'static>(
    ground: &mut G,
    params: &Params,
    crew: Crew,
    setting: &Setting,
    drives: Vec<D>,
) -> Outcome {
    let returned = run(ground, params, crew, setting, drives, plain_job)?;
    Ok(sum_up(ground, crew, setting, &returned))
}

/// The buffers of one job.
fn places<G: Ground>(ground: &G, params: &Params) -> Result<Places, String> {
    Ok(Places::new(job_memory(ground, params)?, place_bytes(params)))
}

/// Bytes of a place for one request.
pub(crate) fn place_bytes(params: &Params) -> usize {
    params.largest_block().max(512) as usize
}

/// Memory for the places of one job, and enough to seal the disk with.
pub(crate) fn job_memory<G: Ground>(ground: &G, params: &Params) -> Result<Piece, String> {
    let (largest, depth) = (place_bytes(params), usize::from(params.iodepth.max(params.iodepth_batch_submit)));
    let lacking = || format!("no memory for {depth} buffers of {largest} bytes: lower iodepth or the block size");
    ground.dma((depth * largest).max(seal::BYTES)).ok_or_else(lacking)
}

fn plain_job<D: Drive<Page>, H: Host>(mut drive: D, setup: Setup<H>) -> Result<Returned<D>, String> {
    let pattern = setup.pattern()?;
    let Setup { params, setting, places, host, .. } = setup;
    let (tally, done) = drive_job(&mut drive, &params, setting.mode, host, pattern, &mut Anything(places))?;
    Ok(Returned { drive, tally, done, words: Vec::new(), first_fault: None })
}

fn verified_job<D: Drive<Scattered>, H: Host>(mut drive: D, setup: Setup<H>) -> Result<Returned<D>, String> {
    let pattern = setup.pattern()?;
    let Setup { params, number, setting, places, host } = setup;
    let Region { first, sectors } = pattern.region();
    let mut words = alloc::vec![0; sectors as usize];
    let ledger = Ledger::new(&mut words, first);
    let random = Random::for_job(params.randseed ^ 1, number);
    let mut content = Verified::new(places, ledger, random, setting.grain);
    let (tally, done) = drive_job(&mut drive, &params, setting.mode, host, pattern, &mut content)?;
    let first_fault = content.first_fault.take();
    Ok(Returned { drive, tally, done, words, first_fault })
}

impl<H> Setup<H> {
    fn pattern(&self) -> Result<Pattern, String> {
        Pattern::new(&self.params, self.number, self.setting.capacity).map_err(|e| e.to_string())
    }
}

pub(crate) fn drive_job<B, D: Drive<B>, C: Content<B>, H: Host>(
    drive: &mut D,
    params: &Params,
    mode: Mode,
    mut host: H,
    pattern: Pattern,
    content: &mut C,
) -> Result<(Box<Tally>, Done), String> {
    let mut tally = Box::new(Tally::new());
    let done = Job::new(Plan::new(params, mode), pattern, drive, content, &mut host, &mut tally).run()?;
    Ok((tally, done))
}

/// What jobs need to know of the rig's device.
pub(crate) fn setting<G: Ground, M: Memory>(rig: &Rig<G, M>) -> Setting {
    let reached = rig.device.reached();
    Setting {
        capacity: rig.device.geometry().capacity(),
        queues: reached.queues,
        mode: match reached.mode {
            CompletionMode::Polled => Mode::Polled,
            CompletionMode::Interrupt => Mode::Interrupt,
        },
        grain: rig.grain(),
        plan: rig.device.vectors().clone(),
    }
}

/// Runs the jobs, services the configuration if its interrupt came, and sums up.
fn finish<G: Ground, M: Memory, B, D: Drive<B>>(
    ground: &mut G,
    mut rig: Rig<G, M>,
    crew: Crew,
    jobs: impl FnOnce(&mut G, &Setting, &Geometry) -> Result<Vec<Returned<D>>, String>,
) -> Outcome {
    let setting = setting(&rig);
    let returned = jobs(ground, &setting, rig.device.geometry())?;
    let taken = ground.take_configuration(&setting.plan);
    rig.service_configuration(ground, taken)?;
    Ok(sum_up(ground, crew, &setting, &returned))
}

pub(crate) fn sum_up<G: Ground, B, D: Drive<B>>(
    ground: &G,
    crew: Crew,
    setting: &Setting,
    returned: &[Returned<D>],
) -> Box<Report> {
    let mut tally = Box::new(Tally::new());
    for job in returned {
        tally.merge(&job.tally);
    }
    let started = returned.iter().map(|job| job.done.started).min().unwrap_or(0);
    let ended = returned.iter().map(|job| job.done.ended).max().unwrap_or(0);
    let mut report = Box::new(Report::new(&tally, ended - started));
    for job in returned {
        if let Some(fault) = &job.first_fault {
            ground.remark(fault);
        }
        add_drive(&mut report, &job.drive);
    }
    (report.interrupts, report.interrupts_home) = ground.interrupts(crew, &setting.plan, setting.queues);
    report
}

/// Adds the counters of a drive's queue, as far as they are known.
fn add_drive<B, D: Drive<B>>(report: &mut Report, drive: &D) {
    add(report, &drive.statistics());
    if drive.rings_unseen() {
        report.notifications = None;
    }
}

/// Adds a queue's counters.
pub(crate) fn add(report: &mut Report, statistics: &Statistics) {
    report.notifications = report.notifications.map(|so_far| so_far + statistics.notifications);
    report.submitted += statistics.submitted;
    report.completed += statistics.completed;
    report.violations += statistics.violations;
    report.length_anomalies += statistics.length_anomalies;
    report.full += statistics.full;
}
