//! The kinds of run: ours or the bare ring, plain or verified, timed or counted. Each makes its drives, lets the jobs
//! run and sums up.
use super::buffers::{Page, Places, Scattered};
use super::content::{Anything, Verified};
use super::drive::Drive;
use super::fleet::{self, Bell, Bells, Crew, Returned};
use super::icount::{self, Counted};
use super::job::{Content, Job, Plan};
use super::raw::RawMemory;
use super::rig::{Memory, Rig};
use super::seal;
use crate::irq;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use drv_virtio_block::dma::Buffer;
use drv_virtio_block::interrupt::CompletionMode;
use drv_virtio_block::queue::{OwnedQueue, Prepared, SharedQueue, Submitter};
use drv_virtio_block::transport::pci::PciDoorbell;
use workload::params::{Mode, Params, Rw};
use workload::pattern::{Pattern, Region};
use workload::random::Random;
use workload::report::{Report, Tally};
use workload::verify::ledger::Ledger;

type Doorbell = PciDoorbell<'static>;
type Owned<B> = OwnedQueue<'static, B, Doorbell>;
type Shared<B> = SharedQueue<'static, B, Doorbell, Bells>;
type Sub<B> = Submitter<'static, 'static, B, Doorbell, Bells>;

/// What a run comes to.
pub type Outcome = Result<Box<Report>, String>;

/// What a job needs besides its drive.
struct Setup {
    params: Params,
    number: u16,
    capacity: u64,
    /// Badge bits that concern it.
    bits: u64,
    mode: Mode,
    grain: u32,
}

/// How a job runs with its drive.
type Run<D> = fn(D, &Setup) -> Result<Returned<D>, String>;

/// Runs ours on buffers that hold anything.
pub fn plain(mut rig: Rig<Prepared<'static, Page>>, params: &Params, crew: &Crew) -> Outcome {
    let bells = fleet::bells(crew)?;
    if crew.shares(&rig)? {
        let drives = share(&mut rig, crew, bells)?;
        return finish(rig, crew, |rig| run(rig, params, crew, bells, drives, plain_job));
    }
    let drives = own(&mut rig)?;
    finish(rig, crew, |rig| run(rig, params, crew, bells, drives, plain_job))
}

/// Runs ours on verified blocks, and leaves the table that lets anyone check the disk.
pub fn verified(mut rig: Rig<Prepared<'static, Scattered>>, params: &Params, crew: &Crew) -> Outcome {
    let bells = fleet::bells(crew)?;
    if crew.shares(&rig)? {
        let drives = share(&mut rig, crew, bells)?;
        return finish(rig, crew, |rig| sealed(rig, params, run(rig, params, crew, bells, drives, verified_job)?));
    }
    let drives = own(&mut rig)?;
    finish(rig, crew, |rig| sealed(rig, params, run(rig, params, crew, bells, drives, verified_job)?))
}

/// Writes the table behind a verified run.
fn sealed<M, D: Drive<Scattered>>(
    rig: &Rig<M>,
    params: &Params,
    returned: Vec<Returned<D>>,
) -> Result<Vec<Returned<D>>, String> {
    seal::write(returned, params, rig.device.geometry())
}

/// Runs the bare ring.
pub fn raw(mut rig: Rig<RawMemory>, params: &Params, crew: &Crew) -> Outcome {
    if crew.shares(&rig)? || matches!(params.rw, Rw::Trim | Rw::RandTrim) {
        return Err("driver=raw has one submitter per queue, and reads and writes only".to_string());
    }
    let bells = fleet::bells(crew)?;
    let memories = core::mem::take(&mut rig.queues);
    let drives: Result<Vec<_>, String> =
        memories.into_iter().map(|(queue, memory)| Ok(memory.open(rig.doorbell(queue)?))).collect();
    finish(rig, crew, |rig| run(rig, params, crew, bells, drives?, plain_job))
}

/// Counts the instructions of ours.
pub fn count(mut rig: Rig<Prepared<'static, Page>>, params: &Params, crew: &Crew) -> Outcome {
    let used = used_rings(&rig);
    if crew.shares(&rig)? {
        let drives = share(&mut rig, crew, fleet::bells(crew)?)?;
        return counted(drives, used, params, rig.device.geometry().capacity());
    }
    counted(own(&mut rig)?, used, params, rig.device.geometry().capacity())
}

/// Counts the instructions of the bare ring.
pub fn count_raw(mut rig: Rig<RawMemory>, params: &Params) -> Outcome {
    let used = used_rings(&rig);
    let memories = core::mem::take(&mut rig.queues);
    let drives: Result<Vec<_>, String> =
        memories.into_iter().map(|(queue, memory)| Ok(memory.open(rig.doorbell(queue)?))).collect();
    counted(drives?, used, params, rig.device.geometry().capacity())
}

fn used_rings<M: Memory>(rig: &Rig<M>) -> Vec<u64> {
    rig.queues.iter().map(|(_, memory)| memory.addresses().device().0).collect()
}

fn counted<D: Drive<Page>>(drives: Vec<D>, used: Vec<u64>, params: &Params, capacity: u64) -> Outcome {
    let batch = usize::from(params.iodepth_batch_submit);
    let mut queues: Vec<_> = drives.into_iter().zip(used).map(|(drive, used)| Counted { drive, used }).collect();
    let endless = Params { number_ios: 0, numjobs: 1, ..params.clone() };
    let mut pattern = Pattern::new(&endless, 0, capacity).map_err(|e| e.to_string())?;
    let places = Places::new(batch, 4096).ok_or("no memory for the buffers")?;
    let instructions = icount::count(&mut queues, &mut pattern, batch, |place| places.page(place, 4096));
    let mut report = Box::new(Report::new(&Tally::new(), 0));
    report.instructions = Some(instructions);
    for queue in &queues {
        add_statistics(&mut report, &queue.drive);
    }
    Ok(report)
}

/// An owned queue from each prepared one.
fn own<B: Buffer>(rig: &mut Rig<Prepared<'static, B>>) -> Result<Vec<Owned<B>>, String> {
    let prepared = core::mem::take(&mut rig.queues);
    prepared.into_iter().map(|(queue, prepared)| Ok(prepared.owned(rig.doorbell(queue)?))).collect()
}

/// A submitter per job, spread over shared queues.
fn share<B: Buffer>(rig: &mut Rig<Prepared<'static, B>>, crew: &Crew, bells: Bells) -> Result<Vec<Sub<B>>, String> {
    let prepared = core::mem::take(&mut rig.queues);
    let count = prepared.len();
    let mut queues: Vec<&'static Shared<B>> = Vec::new();
    for (at, (queue, prepared)) in prepared.into_iter().enumerate() {
        // The jobs of queue `at` are numbers at, at + count, …: submitter n of the queue is job at + n * count.
        let own: Vec<_> = bells.0.iter().skip(at).step_by(count).copied().collect();
        let shared = prepared.shared(rig.doorbell(queue)?, Bells::some(own));
        queues.push(Box::leak(Box::new(shared)));
    }
    let submitter = |job: usize| queues[job % count].submitter().ok_or("too many jobs on one queue".to_string());
    (0..crew.places.len()).map(submitter).collect()
}

/// Runs the jobs, each with its drive.
fn run<M: Memory, D: Send + 'static>(
    rig: &Rig<M>,
    params: &Params,
    crew: &Crew,
    bells: Bells,
    drives: Vec<D>,
    job: Run<D>,
) -> Result<Vec<Returned<D>>, String> {
    let plan = rig.device.vectors();
    let reached = rig.device.reached();
    let queues = usize::from(reached.queues).max(1);
    let mode = match reached.mode {
        CompletionMode::Polled => Mode::Polled,
        CompletionMode::Interrupt => Mode::Interrupt,
    };
    let jobs = drives.into_iter().zip(0u16..).take(crew.places.len()).map(|(drive, number)| {
        let queue = drv_virtio_block::transport::QueueId(number % queues as u16);
        let own = plan.queue(queue).map_or(0, |grant| grant.badge.alone().0);
        let bell = bells.bit(number.into());
        let bits = if crew.forwarded { bell } else { own | bell };
        let setup = Setup {
            params: params.clone(),
            number,
            capacity: rig.device.geometry().capacity(),
            bits,
            mode,
            grain: rig.grain(),
        };
        Box::new(move || job(drive, &setup)) as Box<dyn FnOnce() -> Result<Returned<D>, String> + Send>
    });
    fleet::run(crew, bells, plan.badges().0, jobs.collect()).into_iter().collect()
}

fn plain_job<D: Drive<Page>>(mut drive: D, setup: &Setup) -> Result<Returned<D>, String> {
    let (pattern, places) = setup.pattern_and_places()?;
    let mut content = Anything(places);
    let (tally, done) = drive_job(&mut drive, setup, pattern, &mut content);
    Ok(Returned { drive, tally, done, words: Vec::new(), first_fault: None })
}

fn verified_job<D: Drive<Scattered>>(mut drive: D, setup: &Setup) -> Result<Returned<D>, String> {
    let (pattern, places) = setup.pattern_and_places()?;
    let Region { first, sectors } = pattern.region();
    let mut words = alloc::vec![0; sectors as usize];
    let ledger = Ledger::new(&mut words, first);
    let random = Random::for_job(setup.params.randseed ^ 1, setup.number);
    let mut content = Verified { places, ledger, random, grain: setup.grain, first_fault: None };
    let (tally, done) = drive_job(&mut drive, setup, pattern, &mut content);
    let first_fault = content.first_fault.take();
    Ok(Returned { drive, tally, done, words, first_fault })
}

impl Setup {
    fn pattern_and_places(&self) -> Result<(Pattern, Places), String> {
        let pattern = Pattern::new(&self.params, self.number, self.capacity).map_err(|e| e.to_string())?;
        let largest = self.params.bssplit.iter().map(|split| split.bytes).max().unwrap_or(4096);
        let depth = usize::from(self.params.iodepth);
        let lacking = || format!("no memory for {depth} buffers of {largest} bytes: lower iodepth or the block size");
        let places = Places::new(depth, largest as usize).ok_or_else(lacking)?;
        Ok((pattern, places))
    }
}

fn drive_job<B, D: Drive<B>, C: Content<B>>(
    drive: &mut D,
    setup: &Setup,
    pattern: Pattern,
    content: &mut C,
) -> (Box<Tally>, super::job::Done) {
    let mut tally = Box::new(Tally::new());
    let mut bell = Bell { bits: setup.bits };
    let done = Job::new(Plan::new(&setup.params, setup.mode), pattern, drive, content, &mut bell, &mut tally).run();
    (tally, done)
}

/// Runs the jobs, services the configuration if its interrupt came, and sums up.
fn finish<M: Memory, B, D: Drive<B>>(
    mut rig: Rig<M>,
    crew: &Crew,
    jobs: impl FnOnce(&Rig<M>) -> Result<Vec<Returned<D>>, String>,
) -> Outcome {
    let returned = jobs(&rig)?;
    let configuration = rig.device.vectors().configuration().map_or(0, |grant| grant.badge.alone().0);
    let taken = irq::take(configuration) | crew.taken();
    irq::acknowledge(taken);
    rig.service_configuration(taken)?;
    Ok(sum_up(&rig, crew, &returned))
}

fn sum_up<M: Memory, B, D: Drive<B>>(rig: &Rig<M>, crew: &Crew, returned: &[Returned<D>]) -> Box<Report> {
    let mut tally = Box::new(Tally::new());
    for job in returned {
        tally.merge(&job.tally);
    }
    let started = returned.iter().map(|job| job.done.started).min().unwrap_or(0);
    let ended = returned.iter().map(|job| job.done.ended).max().unwrap_or(0);
    let mut report = Box::new(Report::new(&tally, ended - started));
    for job in returned {
        if let Some(fault) = &job.first_fault {
            crate::println!("image: {fault}");
        }
        add_statistics(&mut report, &job.drive);
    }
    (report.interrupts, report.interrupts_home) = rig.interrupts(|queue| crew.target(queue));
    report
}

fn add_statistics<B, D: Drive<B>>(report: &mut Report, drive: &D) {
    let statistics = drive.statistics();
    report.notifications += statistics.notifications;
    report.submitted += statistics.submitted;
    report.completed += statistics.completed;
    report.violations += statistics.violations;
    report.full += statistics.full;
}
