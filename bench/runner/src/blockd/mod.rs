//! Runs through blockd's storage path: clients over lib-block, front ends, the driver.
//!
//! ```text
//! job -> ClientDrive -> rings -> FrontEnd -> queue        publish: blockd's part, before the jobs begin
//! ```
//! Each queue has a front end. It runs on a processor of its own, or is stepped by its only client, so that the whole
//! path can be counted and compared on one processor.
mod calls;
mod drive;
mod publish;
mod restart;

use crate::buffers::{Page, Places, Scattered};
use crate::content::{Anything, Verified};
use crate::crew::Crew;
use crate::ground::{Ground, Host, Piece};
use crate::rig::{DoorbellOf, Rig};
use crate::runs::{self, Outcome, Returned, Setting};
use crate::seal;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};
use drive::{CREDIT, ClientDrive, DriveOf, Front, FrontOf, Name, timeless};
use drv_virtio_block::arena::Arena;
use drv_virtio_block::lib_block::front_end::{FrontEnd, Lent, Options};
use drv_virtio_block::platform::Badges;
use drv_virtio_block::queue::{Prepared, Wake};
use drv_virtio_block::transport::{Doorbell, QueueId};
use publish::{Means, Published};
pub(crate) use restart::run as restart;
use workload::params::{Mode, Params, SECTOR, Verify};
use workload::pattern::{Pattern, Region};
use workload::random::Random;
use workload::report::Report;
use workload::verify::ledger::Ledger;

/// Private memory of a front end.
const PRIVATE: usize = 8 << 20;

/// Runs what `params` ask for.
pub(crate) fn run<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    let mut rig: Rig<G, Prepared<'static, Lent<'static>>> = Rig::up(ground, params, crew)?;
    if params.icount {
        return count(ground, params, &mut rig);
    }
    let stage = Stage::up(ground, params, &mut rig)?;
    let setting = runs::setting(&rig);
    let outcome = match params.verify {
        Verify::Crc32c => stage.play::<Scattered>(ground, params, crew, &setting, (verified::<G>, seal::<G>)),
        Verify::None => stage.play::<Page>(ground, params, crew, &setting, (plain::<G>, no_seal::<G>)),
    }?;
    let taken = ground.take_configuration(&setting.plan);
    rig.service_configuration(ground, taken)?;
    Ok(outcome)
}

/// Makes calls instead of running jobs.
pub(crate) fn calls<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Result<(), String> {
    let mut rig: Rig<G, Prepared<'static, Lent<'static>>> = Rig::up(ground, params, crew)?;
    let mut stage = Stage::up(ground, params, &mut rig)?;
    calls::all(ground, &mut stage.fronts[0])
}

/// Front ends that are up, and what each client gets.
struct Stage<G: Ground> {
    fronts: Vec<Box<Front<G>>>,
    published: Vec<Published>,
    /// Each client's buffers.
    buffers: Vec<Piece>,
}

impl<G: Ground> Stage<G> {
    fn up(ground: &G, params: &Params, rig: &mut Rig<G, Prepared<'static, Lent<'static>>>) -> Result<Self, String> {
        let opened = rig.open()?;
        let queues = opened.len() as u16;
        let sessions = params.clients.div_ceil(queues) + 1;
        let mut fronts = Vec::new();
        for (number, (prepared, doorbell)) in (0..).zip(opened) {
            let mut arena = Arena::new(vec![MaybeUninit::uninit(); PRIVATE].leak());
            let bells = publish::bells(ground, params.clients, number, queues);
            let options = Options { queue: number as u8, sessions, credit: CREDIT, ..Options::default() };
            let front = FrontEnd::new(prepared, doorbell, bells, &mut arena, options, 1);
            fronts.push(Box::new(front.map_err(|why| format!("{} bytes are lacking for a front end", why.wanted))?));
        }
        let published = publish::survey(ground, &mut fronts[0], params)?;
        Ok(Self { fronts, published, buffers: Vec::new() })
    }

    /// A client on what was published for it.
    fn client<B: Name>(
        &mut self,
        ground: &G,
        params: &Params,
        server: &'static G::Wake,
        number: u16,
    ) -> Result<(DriveOf<G, B>, Piece), String> {
        let buffers = runs::job_memory(ground, params)?;
        let published = self.published[usize::from(number)];
        self.buffers.push(buffers);
        let means = Means { buffers, number, published };
        Ok((publish::attach(ground, &mut self.fronts, server, &means)?, buffers))
    }

    /// Runs the clients and their front ends, and sums up.
    fn play<B: Name + 'static>(
        mut self,
        ground: &mut G,
        params: &Params,
        crew: Crew,
        setting: &Setting,
        (act, seal): (Act<G, B>, Seal<G, B>),
    ) -> Outcome {
        let queues = self.fronts.len() as u16;
        let mut jobs: Vec<JobOf<G, B>> = Vec::new();
        // Each front end's clients that are at work.
        let left: Vec<_> = (0..queues).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        for number in 0..params.clients {
            let queue = number % queues;
            let server: &'static G::Wake = Box::leak(Box::new(ground.wake(vec![params.clients + queue])));
            let (mut drive, buffers) = self.client::<B>(ground, params, server, number)?;
            if params.is_stepped() {
                drive.front = Some(self.fronts.remove(0));
            }
            let part = Part {
                params: params.clone(),
                number,
                sectors: self.published[usize::from(number)].extent.blocks,
                mode: setting.mode,
                grain: setting.grain,
                places: Places::new(buffers, runs::place_bytes(params)),
                host: ground.host(number, Badges(0)),
            };
            let left = Arc::clone(&left[usize::from(queue)]);
            left.fetch_add(1, Ordering::Relaxed);
            jobs.push(Box::new(move || {
                let returned = act(drive, part);
                left.fetch_sub(1, Ordering::AcqRel);
                server.wake(0);
                returned.map(|returned| Came::Client(Box::new(returned)))
            }));
        }
        for (number, front) in (0..).zip(self.fronts) {
            let own = setting.plan.queue(QueueId(number)).map_or(Badges(0), |grant| grant.badge.alone());
            let host = ground.host(params.clients + number, own);
            let served = Served { front, host, mode: setting.mode, left: Arc::clone(&left[usize::from(number)]) };
            jobs.push(Box::new(move || Ok(Came::Front(served.serve()))));
        }
        let sectors = self.published.iter().map(|published| published.extent.blocks);
        let seals: Vec<(u64, Piece)> = sectors.zip(self.buffers).collect();
        let (mut clients, mut fronts) = (Vec::new(), Vec::new());
        for one in ground.run(&setting.plan, jobs) {
            match one? {
                Came::Client(client) => clients.push(*client),
                Came::Front(front) => fronts.push(front),
            }
        }
        let report = report(ground, crew, setting, &clients, &fronts);
        seal(params, clients, fronts, &seals)?;
        Ok(report)
    }
}

/// The clients' counts and the front ends'.
fn report<G: Ground, B: Name>(
    ground: &G,
    crew: Crew,
    setting: &Setting,
    clients: &[Returned<DriveOf<G, B>>],
    fronts: &[Box<Front<G>>],
) -> Box<Report> {
    let mut report = runs::sum_up(ground, crew, setting, clients);
    for queue in fronts.iter().filter_map(|front| front.queue()) {
        runs::add(&mut report, &queue.statistics());
    }
    let stepped = clients.iter().filter_map(|client| client.drive.front.as_ref());
    report.front_doorbells = fronts.iter().chain(stepped).map(|front| front.statistics().doorbells).sum();
    report.client_doorbells = clients.iter().map(|client| client.drive.client.doorbells()).sum();
    report
}

/// [`Came`], by the ground.
type CameOf<G, B> = Came<DoorbellOf<G>, <G as Ground>::Wake, B>;

/// A client's job, or a front end's.
type JobOf<G, B> = Box<dyn FnOnce() -> Result<CameOf<G, B>, String> + Send>;

/// What a client's job does.
type Act<G, B> = fn(DriveOf<G, B>, Part<<G as Ground>::Host>) -> Result<Returned<DriveOf<G, B>>, String>;

/// What comes back from a job.
enum Came<D: Doorbell, W: Wake + 'static, B: Name> {
    Client(Box<Returned<ClientDrive<D, W, B>>>),
    Front(Box<FrontOf<D, W>>),
}

/// A front end on a processor of its own.
struct Served<D: Doorbell, W: Wake + 'static, H> {
    front: Box<FrontOf<D, W>>,
    host: H,
    mode: Mode,
    left: Arc<AtomicUsize>,
}

impl<D: Doorbell, W: Wake, H: Host> Served<D, W, H> {
    /// Serves until no client is left.
    fn serve(mut self) -> Box<FrontOf<D, W>> {
        while self.left.load(Ordering::Acquire) > 0 {
            let served = self.front.serve(&timeless);
            self.host.step();
            if served.completed == 0 && self.mode == Mode::Interrupt && !self.front.arm() {
                // The last client rings.
                if self.left.load(Ordering::Acquire) > 0 {
                    self.host.wait();
                }
                self.front.woken();
            }
        }
        self.front
    }
}

/// What a client's job needs besides its drive.
struct Part<H> {
    params: Params,
    number: u16,
    /// Of its device.
    sectors: u64,
    mode: Mode,
    grain: u32,
    places: Places,
    host: H,
}

impl<H: Host> Part<H> {
    fn pattern(&self) -> Result<Pattern, String> {
        Pattern::new(&self.params, self.number, self.sectors).map_err(|e| e.to_string())
    }
}

fn plain<G: Ground>(mut drive: DriveOf<G, Page>, part: Part<G::Host>) -> Result<Returned<DriveOf<G, Page>>, String> {
    let pattern = part.pattern()?;
    let Part { params, mode, places, host, .. } = part;
    let (tally, done) = runs::drive_job(&mut drive, &params, mode, host, pattern, &mut Anything(places))?;
    Ok(Returned { drive, tally, done, words: Vec::new(), first_fault: None })
}

fn verified<G: Ground>(
    mut drive: DriveOf<G, Scattered>,
    part: Part<G::Host>,
) -> Result<Returned<DriveOf<G, Scattered>>, String> {
    let pattern = part.pattern()?;
    let Region { first, sectors } = pattern.region();
    let mut words = vec![0; sectors as usize];
    let ledger = Ledger::new(&mut words, first);
    let Part { params, number, mode, grain, places, host, .. } = part;
    let random = Random::for_job(params.randseed ^ 1, number);
    let mut content = Verified::new(places, ledger, random, grain);
    let (tally, done) = runs::drive_job(&mut drive, &params, mode, host, pattern, &mut content)?;
    let first_fault = content.first_fault.take();
    Ok(Returned { drive, tally, done, words, first_fault })
}

/// What was seen of the disk's content, once everybody is done.
type Seal<G, B> = fn(&Params, Vec<Returned<DriveOf<G, B>>>, Vec<Box<Front<G>>>, &[(u64, Piece)]) -> Result<(), String>;

/// Nobody looked.
#[expect(clippy::unnecessary_wraps, reason = "one of two `Seal`s")]
fn no_seal<G: Ground>(
    _: &Params,
    _: Vec<Returned<DriveOf<G, Page>>>,
    _: Vec<Box<Front<G>>>,
    _: &[(u64, Piece)],
) -> Result<(), String> {
    Ok(())
}

/// Writes the tables that let the host check the disk, each client's front end stepped by it for that: one over the
/// whole disk, or one on each partition.
fn seal<G: Ground>(
    params: &Params,
    mut clients: Vec<Returned<DriveOf<G, Scattered>>>,
    fronts: Vec<Box<Front<G>>>,
    each: &[(u64, Piece)],
) -> Result<(), String> {
    if !params.rw.changes() {
        return Ok(());
    }
    let mut fronts: Vec<_> = fronts.into_iter().map(Some).collect();
    let own = params.size / u64::from(SECTOR) / u64::from(if params.partitions { params.clients } else { 1 });
    let sharers = if params.partitions { 1 } else { params.clients };
    let mut all = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let (sectors, memory) = each[number];
        let region = Region::new(params, number as u16, sectors).map_err(|e| e.to_string())?;
        seal::collect(&mut all, region, core::mem::take(&mut client.words), sharers);
        if !params.partitions && number + 1 < usize::from(params.clients) {
            continue;
        }
        let at = number % fronts.len().max(1);
        let lent = fronts.get_mut(at).and_then(Option::take);
        let stepped = lent.is_some();
        if stepped {
            client.drive.front = lent;
        }
        // A client's device has blocks of 512 bytes (`publish::attach`).
        seal::write_table(&mut client.drive, memory, &all, seal::Extent { sectors, block: 1 }, own)?;
        if stepped {
            fronts[at] = client.drive.front.take();
        }
        all.clear();
    }
    Ok(())
}

/// Counts instructions: client, front end and driver on one processor, in one bracket.
fn count<G: Ground>(ground: &G, params: &Params, rig: &mut Rig<G, Prepared<'static, Lent<'static>>>) -> Outcome {
    let used = runs::used_rings(rig);
    let capacity = rig.device.geometry().capacity();
    let mut stage = Stage::up(ground, params, rig)?;
    let server: &'static G::Wake = Box::leak(Box::new(ground.wake(Vec::new())));
    let buffers = runs::job_memory(ground, params)?;
    let means = Means { buffers, number: 0, published: stage.published[0] };
    let mut drive = publish::attach::<G, Page>(ground, &mut stage.fronts, server, &means)?;
    drive.front = Some(stage.fronts.remove(0));
    let places = Places::new(buffers, runs::place_bytes(params));
    runs::counted_on(ground, vec![drive], Some(used), params, capacity, &places)
}
