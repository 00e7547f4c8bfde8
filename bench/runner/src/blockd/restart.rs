//! `scenario=restart`: the driver is killed at any instruction while clients verify what they read, and begun again.
//!
//! ```text
//! first processor: procd and blockd -- calls --> port --> life: Service, on the last job's processor   <-- kill
//! the others: clients -- rings ----------------------------^
//! ```
//! Clients and rings, the port, and blockd's record of who has which memory outlive the driver; registers, interrupts
//! and the driver's memory go to the next life as they are ([`life`]). A kill leaves the device running and every flag as
//! it was. Its moment is drawn from `randseed`: a span after a life began, a call of it or a number of requests, then spins.
//!
//! What must hold at the end: no request ended but with success, whoever answered it (an answer that comes twice breaks
//! its client); every block is as written, for the clients, and for the host by the table that is sealed last (a buffer
//! is stamped or filled before it is handed out, so that whoever writes there late changes what is checked); every
//! client saw the last epoch, and its stop. No survey: the whole disk is shared, and how large it is, the first life says.
mod client;
mod life;
mod port;
mod procd;

use super::drive::CREDIT;
use super::publish;
use crate::crew::Crew;
use crate::fits;
use crate::ground::{Begun, Ground, Piece};
use crate::rig::DoorbellOf;
use crate::runs::{self, Outcome, Setting};
use crate::seal;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use drv_virtio_block::interrupt::{CompletionMode, Rung, VectorPlan};
use drv_virtio_block::lib_block::client::{Replay, Resumed};
use drv_virtio_block::lib_block::message::{Body, Given};
use drv_virtio_block::lib_block::ring::Stage;
use drv_virtio_block::spec::feature;
use life::{Doors, Facts};
use procd::Procd;
use workload::params::{Mode, Params, SECTOR, Verify};
use workload::pattern::Region;
use workload::report::{Boot, Line, Note, VERSION};

/// Memory for the rings of a queue.
const DMA_PER_QUEUE: usize = 1 << 20;
/// Descriptors of a queue unless told otherwise.
const QUEUE_SIZE: u16 = 1024;
/// Requests that the last life answers before clients may end.
const AFTERWARDS: u64 = 500;

/// Set when clients are to submit nothing more.
static OVER: AtomicBool = AtomicBool::new(false);

/// What a client comes back with.
type Back<G> = client::Back<DoorbellOf<G>, <G as Ground>::Wake>;
/// A client at work.
type Working<G> = Box<dyn Begun<Result<Box<Back<G>>, String>>>;

/// Runs what `params` ask for.
pub(crate) fn run<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Outcome {
    if params.verify != Verify::Crc32c || !params.rw.writes() || params.partitions || params.is_stepped() {
        let wanted = "rw=randrw verify=crc32c, and neither partitions nor front";
        return Err(format!("scenario=restart verifies the whole disk: give {wanted}"));
    }
    if params.iodepth > CREDIT {
        return Err(format!("a client has a credit of {CREDIT}: lower iodepth"));
    }
    let bell = ground.doorbell(crew.jobs - 1)?;
    // Only to be handed over again, for each life.
    let grants = ground.hand_over(params, crew, DMA_PER_QUEUE * usize::from(crew.queues))?.grants;
    let mode = if params.mode == Mode::Polled { CompletionMode::Polled } else { CompletionMode::Interrupt };
    let plan = VectorPlan::best(&grants, crew.queues, mode);
    ground.lead_interrupts(crew, &plan);
    let ground = &*ground;
    let bells = |queue| publish::bells(ground, params.clients, queue, crew.queues);
    let doors = Doors((0..crew.queues).map(bells).collect::<Vec<_>>().leak());
    let mut procd = Procd::new(ground, params, crew, bell, doors);
    let facts = survey(&mut procd, crew)?;
    ground.say(&Line::Boot(boot(params, &plan, &facts)));
    let disk = fits::Disk { block_size: facts.block_size, read_only: facts.read_only, ..fits::Disk::UNKNOWN };
    fits::check(params, &disk)?;
    let many = facts.features.has(feature::INDIRECT_DESC) && queue_size(params) >= 16;
    let grain = if many { 16 } else { SECTOR };
    let setting = Setting { capacity: facts.sectors, queues: crew.queues, mode: params.mode, grain, plan };
    let enlisted = client::enlist(ground, params, crew, &facts)?;
    procd.know(enlisted.members, enlisted.openings);
    let clients = ordeal(ground, &mut procd, params, &setting, enlisted.parts)?;
    let report = runs::sum_up(ground, crew, &setting, &clients);
    conclude(ground, procd, params, clients, (facts.sectors, enlisted.spare))?;
    Ok(report)
}

fn queue_size(params: &Params) -> u16 {
    if params.queue_size == 0 { QUEUE_SIZE } else { params.queue_size }
}

/// A life without clients, to its orderly end.
fn survey<G: Ground>(procd: &mut Procd<'_, G>, crew: Crew) -> Result<Facts, String> {
    procd.begin()?;
    procd.call(Body::Start)?;
    let Given::Driver(driver) = procd.call(Body::ReadDriver)? else { return Err("no word of the driver".to_string()) };
    if driver.queues < crew.queues {
        return Err(format!("queues={} is more than the driver got ({}): lower queues", crew.queues, driver.queues));
    }
    procd.call(Body::Stop { flush: false })?;
    procd.dismiss()?.ok_or_else(|| "the device has no facts".to_string())
}

/// What was reached; of slots only clients' credit is known here.
fn boot(params: &Params, plan: &VectorPlan, facts: &Facts) -> Boot {
    let rung = match plan.rung() {
        Rung::PerQueue => "vector-per-queue",
        Rung::Shared => "shared",
        Rung::Single => "single",
        Rung::None => "none",
    };
    Boot {
        version: VERSION,
        capacity: facts.sectors,
        queues: plan.queues(),
        queue_size: queue_size(params),
        slots: CREDIT,
        vectors: plan.badges().0.count_ones() as u16,
        rung: arrayvec::ArrayString::from(rung).unwrap_or_default(),
        features: facts.features.0,
        read_only: facts.read_only,
        writeback: facts.writeback,
    }
}

/// Life upon life under the clients' load; what the clients come back with.
fn ordeal<G: Ground>(
    ground: &G,
    procd: &mut Procd<'_, G>,
    params: &Params,
    setting: &Setting,
    parts: Vec<client::PartOf<G>>,
) -> Result<Vec<Back<G>>, String> {
    OVER.store(false, Ordering::Relaxed);
    procd.begin()?;
    procd.serve_all()?;
    let mut working: Vec<Working<G>> = Vec::new();
    for (number, part) in (0..).zip(parts) {
        let (params, setting) = (params.clone(), setting.clone());
        working.push(ground.begin(number, Box::new(move || part.work(&params, &setting)))?);
    }
    for _ in 0..params.kills {
        procd.live_until_drawn(|| watch::<G>(&mut working))?;
        procd.kill()?;
        procd.begin()?;
    }
    procd.live_until(AFTERWARDS, || watch::<G>(&mut working))?;
    OVER.store(true, Ordering::Relaxed);
    let back = |client: Working<G>| client.outcome().unwrap_or_else(|| Err("a client was killed".to_string()));
    working.into_iter().map(|client| back(client).map(|back| *back)).collect()
}

/// A client that ends before it was told to is trouble.
fn watch<G: Ground>(working: &mut Vec<Working<G>>) -> Result<(), String> {
    let Some(at) = working.iter().position(|client| client.is_over()) else { return Ok(()) };
    match working.remove(at).outcome() {
        Some(Err(why)) => Err(format!("client {at}: {why}")),
        _ => Err(format!("client {at} ended before it was told to")),
    }
}

/// Seals the disk through the last life, stops it, and looks whether everybody knows.
fn conclude<G: Ground>(
    ground: &G,
    mut procd: Procd<'_, G>,
    params: &Params,
    mut clients: Vec<Back<G>>,
    (sectors, spare): (u64, Piece),
) -> Result<(), String> {
    let mut words = Vec::new();
    for (number, client) in (0..).zip(&mut clients) {
        let region = Region::new(params, number, sectors).map_err(|e| e.to_string())?;
        seal::collect(&mut words, region, core::mem::take(&mut client.words), params.clients);
    }
    let sealing = &mut clients.first_mut().ok_or("there is no client")?.drive;
    seal::write_table(sealing, spare, &words, seal::Extent { sectors, block: 1 }, params.size / u64::from(SECTOR))?;
    let Given::Driver(driver) = procd.call(Body::ReadDriver)? else { return Err("no word of the driver".to_string()) };
    procd.call(Body::Stop { flush: true })?;
    let resets = procd.dismiss()?.map(|facts| facts.resets);
    let (mut lives, mut lost, mut replayed) = (0, 0, 0);
    for (number, client) in clients.iter_mut().enumerate() {
        let drive = &mut client.drive;
        let seen = drive.client.resume(Replay::Never, |_| lost += 1);
        if seen != Resumed::Over(Stage::Stopped) {
            return Err(format!("client {number} did not see the driver stop: {seen:?}"));
        }
        lives += drive.resumed.lives;
        lost += drive.resumed.lost;
        replayed += drive.resumed.replayed;
    }
    let note = |text: &str| ground.say(&Line::Note(Note::new(format_args!("restart: {text}"))));
    note(&format!("{} kills, by what was going on: {}", procd.kills(), procd.phases()));
    let epochs = format!("epoch {} at last, {lives} attachments of {} clients", driver.epoch, clients.len());
    note(&format!("{epochs}, {lost} requests lost, {replayed} asked again"));
    let sound = lost == 0 && driver.ended + driver.refused == 0 && resets == Some(0);
    if !sound || driver.epoch != procd.epoch() || procd.kills() != params.kills.into() {
        return Err(format!("{lost} requests were lost, {resets:?} resets; the last driver: {driver:?}"));
    }
    Ok(())
}
