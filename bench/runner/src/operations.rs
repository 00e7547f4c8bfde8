//! `scenario=operations`: every operation once against the real device, refusals, and a reset in the middle of I/O.
//!
//! One polled queue. What was written is read back; what is refused must be refused for its reason; after the reset
//! every request in flight comes back with its buffer, and the same memory drives the device again. The last line
//! notes what was done, so that the tool can tell that nothing was left out.
use crate::buffers::{Places, Scattered};
use crate::crew::Crew;
use crate::ground::Ground;
use crate::rig::{DoorbellOf, Rig};
use alloc::format;
use alloc::string::{String, ToString};
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::queue::{OwnedQueue, Prepared};
use drv_virtio_block::request::{Completion, Error, Gone, Lba, Refusal, Request};
use drv_virtio_block::transport::Doorbell;
use drv_virtio_block::transport::QueueId;
use workload::params::Params;
use workload::report::{Line, Note};
use workload::verify::{check, fill};

type Queue<D> = OwnedQueue<'static, Scattered, D>;

/// Bytes of a place: more than a chain of six segments of a page carries.
const PLACE: u32 = 1 << 20;
/// Requests in flight when the device is reset.
const CAUGHT: usize = 64;
/// Where everything happens, in sectors.
const HERE: u64 = 4096;

/// Runs all of it.
pub(crate) fn run<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Result<(), String> {
    let mut rig: Rig<G, Prepared<'static, Scattered>> = Rig::up(ground, params, crew)?;
    let memory = ground.dma((CAUGHT + 2) * PLACE as usize).ok_or("no memory for the buffers")?;
    let mut places = Places::new(memory, PLACE as usize);
    let (id, _) = *rig.queues.first().ok_or("there is no queue")?;
    let (prepared, doorbell) = rig.open()?.swap_remove(0);
    let mut queue = prepared.owned(doorbell);
    identity(ground, &mut queue, &mut places)?;
    write_and_read(&mut queue, &mut places)?;
    zeroes_and_discard(&mut queue, &mut places)?;
    refusals(&mut queue, &places)?;
    let mut queue = reset(ground, rig, id, queue, &places)?;
    read_back(&mut queue, &mut places, HERE, 2, PLACE)?;
    note(ground, "operations: identity, write, durable write, read, flush, write zeroes, discard, refusals, reset");
    Ok(())
}

fn note<G: Ground>(ground: &G, text: &str) {
    ground.say(&Line::Note(Note::new(format_args!("{text}"))));
}

/// Submits one request and polls until it is over.
fn one<D: Doorbell>(queue: &mut Queue<D>, request: Request<Scattered>) -> Result<(), String> {
    let what = request.operation();
    queue.submit(request).map_err(|refused| format!("{what:?} was refused: {}", refused.why))?;
    let mut result = None;
    while result.is_none() {
        queue.reap(1, |completion| result = Some(completion.result));
    }
    result.unwrap_or(Ok(())).map_err(|error| format!("{what:?} failed: {error}"))
}

fn identity<G: Ground, D: Doorbell>(ground: &G, queue: &mut Queue<D>, places: &mut Places) -> Result<(), String> {
    one(queue, Request::get_id(places.scattered(0, 20, &[])))?;
    let id = places.data(0, 20);
    let len = id.iter().position(|byte| *byte == 0).unwrap_or(20);
    note(ground, &format!("identity: {}", core::str::from_utf8(&id[..len]).map_err(|e| e.to_string())?));
    Ok(())
}

/// Writes a place in many pieces, durably and not, and reads it back in one.
fn write_and_read<D: Doorbell>(queue: &mut Queue<D>, places: &mut Places) -> Result<(), String> {
    let cuts = [16, 1000, 4096, 5000, 70_000, 71_000, 300_000, 500_000, 501_000, 900_000, 1_000_000]
        .map(|cut: u32| cut.next_multiple_of(512));
    fill(places.data(0, PLACE), HERE, 1);
    one(queue, Request::write(Lba(HERE), places.scattered(0, PLACE, &cuts)))?;
    one(queue, Request::flush())?;
    read_back(queue, places, HERE, 1, PLACE)?;
    fill(places.data(0, PLACE), HERE, 2);
    one(queue, Request::write_durably(Lba(HERE), places.scattered(0, PLACE, &cuts[..3])))?;
    read_back(queue, places, HERE, 2, PLACE)
}

fn read_back<D: Doorbell>(
    queue: &mut Queue<D>,
    places: &mut Places,
    lba: u64,
    generation: u64,
    bytes: u32,
) -> Result<(), String> {
    places.data(1, bytes).fill(0xa5);
    one(queue, Request::read(Lba(lba), places.scattered(1, bytes, &[])))?;
    check(places.data(1, bytes), lba, generation).map_err(|fault| format!("{fault}"))
}

fn zeroes_and_discard<D: Doorbell>(queue: &mut Queue<D>, places: &mut Places) -> Result<(), String> {
    let (lba, sectors) = (HERE + u64::from(PLACE / 512), PLACE / 512);
    for unmap in [false, true] {
        fill(places.data(0, PLACE), lba, 3);
        one(queue, Request::write(Lba(lba), places.scattered(0, PLACE, &[])))?;
        one(queue, Request::write_zeroes(Lba(lba), sectors, unmap))?;
        one(queue, Request::read(Lba(lba), places.scattered(1, PLACE, &[])))?;
        if places.data(1, PLACE).iter().any(|byte| *byte != 0) {
            return Err(format!("zeroed sectors hold data (unmap: {unmap})"));
        }
    }
    let discard = Request::discard(Lba(lba), sectors);
    if queue.geometry().discard.is_some() {
        return one(queue, discard);
    }
    match queue.submit(discard) {
        Err(refused) if refused.why == Refusal::Unsupported => Ok(()),
        _ => Err("a discard that the device does not have was not refused".to_string()),
    }
}

fn refusals<D: Doorbell>(queue: &mut Queue<D>, places: &Places) -> Result<(), String> {
    let (end, discards) = (queue.geometry().capacity(), queue.geometry().discard.is_some());
    let cases = [
        (Request::read(Lba(end), places.scattered(0, 512, &[])), Refusal::OutOfRange),
        (Request::read(Lba(u64::MAX), places.scattered(0, 512, &[])), Refusal::OutOfRange),
        (Request::write(Lba(end - 1), places.scattered(0, 1024, &[])), Refusal::OutOfRange),
        (Request::read(Lba(0), places.scattered(0, 100, &[])), Refusal::Unaligned),
        (Request::discard(Lba(0), 0), if discards { Refusal::Empty } else { Refusal::Unsupported }),
        (Request::get_id(places.scattered(0, 16, &[])), Refusal::BadBuffer),
    ];
    for (request, why) in cases {
        match queue.submit(request) {
            Err(refused) if refused.why == why => {}
            Err(refused) => return Err(format!("refused for {:?} and not {why:?}", refused.why)),
            Ok(_) => return Err(format!("not refused, which should have been {why:?}")),
        }
    }
    Ok(())
}

/// Resets the device under requests in flight and brings it up again over the same memory.
fn reset<G: Ground>(
    ground: &G,
    rig: Rig<G, Prepared<'static, Scattered>>,
    id: QueueId,
    mut queue: Queue<DoorbellOf<G>>,
    places: &Places,
) -> Result<Queue<DoorbellOf<G>>, String> {
    for token in 0..CAUGHT as u64 {
        let buffer = places.scattered(2 + token as usize, PLACE, &[]);
        queue.submit(Request::read(Lba(0), buffer).with_token(token)).map_err(|refused| refused.why.to_string())?;
    }
    let platform = ground.platform();
    let (wishes, grants): (_, &[InterruptGrant]) = (rig.wishes, &rig.grants);
    let stopped = rig.device.reset(&platform).map_err(|failed| failed.to_string())?;
    let (mut seen, mut wrong) = (0u64, 0);
    let count = |completion: Completion<Scattered>| {
        wrong += u64::from(completion.result != Err(Error::Gone(Gone::Reset)) || completion.buffer.is_none());
        seen |= 1 << completion.token;
    };
    let prepared = queue.reclaim(&stopped.proof(), count).ok_or("the proof was not taken")?;
    if seen != u64::MAX || wrong > 0 {
        return Err(format!("of {CAUGHT} requests {} came back from the reset, {wrong} wrongly", seen.count_ones()));
    }
    let device = stopped.negotiate(&platform, &wishes, grants).map_err(|failed| failed.to_string())?;
    let device = device.program(id, &prepared.addresses()).map_err(|failed| failed.to_string())?;
    let mut device = device.start().map_err(|failed| failed.to_string())?;
    let doorbell = device.doorbell(id).map_err(|e| e.to_string())?;
    Ok(prepared.owned(doorbell))
}
