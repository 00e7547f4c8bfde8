//! `scenario=flush`: flushes among writes in flight, and writes that are flushed by themselves.
//!
//! Every request is answered once, whatever overtakes what, and what was written before a flush was submitted is read
//! back after it. That a flush reaches the medium is seen from outside: on a device that loses its cache with its
//! process, what this scenario flushed last must be in the file.
use crate::buffers::{Places, Scattered};
use crate::crew::Crew;
use crate::ground::Ground;
use crate::rig::Rig;
use alloc::format;
use alloc::string::String;
use drv_virtio_block::queue::{OwnedQueue, Prepared};
use drv_virtio_block::request::{Lba, Request};
use drv_virtio_block::transport::Doorbell;
use workload::params::{Params, SECTOR};
use workload::report::{Line, Note};
use workload::verify::{check, fill};

type Queue<D> = OwnedQueue<'static, Scattered, D>;

const ROUNDS: u64 = 16;
/// Bytes of one write.
const BYTES: u32 = 4096;
/// Writes of one round, each to a place of its own.
const WRITES: usize = 20;
/// Writes of one round that are durable by themselves.
const DURABLE: usize = 5;
/// Where everything happens, in sectors.
const HERE: u64 = 1024;

/// Runs all rounds.
pub(crate) fn run<G: Ground>(ground: &mut G, params: &Params, crew: Crew) -> Result<(), String> {
    let mut rig: Rig<G, Prepared<'static, Scattered>> = Rig::up(ground, params, crew)?;
    let memory = ground.dma(WRITES * BYTES as usize).ok_or("no memory for the buffers")?;
    let mut places = Places::new(memory, BYTES as usize);
    let (prepared, doorbell) = rig.open()?.swap_remove(0);
    let mut queue = prepared.owned(doorbell);
    for round in 1..=ROUNDS {
        write(&mut queue, &mut places, 2 * round, 0..WRITES, Request::write)?;
        write(&mut queue, &mut places, 2 * round + 1, 0..DURABLE, Request::write_durably)?;
        read(&mut queue, &mut places, round)?;
    }
    let text = format_args!("flush: {ROUNDS} rounds, {WRITES} writes and {DURABLE} durable ones each");
    ground.say(&Line::Note(Note::new(text)));
    Ok(())
}

fn lba(place: usize) -> Lba {
    Lba(HERE + place as u64 * u64::from(BYTES / SECTOR))
}

/// Writes some places, with a flush among them in flight and one behind them.
fn write<D: Doorbell>(
    queue: &mut Queue<D>,
    places: &mut Places,
    generation: u64,
    which: core::ops::Range<usize>,
    request: fn(Lba, Scattered) -> Request<Scattered>,
) -> Result<(), String> {
    let count = which.len();
    let mut requests: alloc::vec::Vec<_> = which
        .map(|place| {
            fill(places.data(place, BYTES), lba(place).0, generation);
            request(lba(place), places.scattered(place, BYTES, &[]))
        })
        .collect();
    requests.insert(count / 2, Request::flush());
    all(queue, requests)?;
    all(queue, alloc::vec![Request::flush()])
}

/// Reads everything back: the durable ones were written last.
fn read<D: Doorbell>(queue: &mut Queue<D>, places: &mut Places, round: u64) -> Result<(), String> {
    let request = |place| Request::read(lba(place), places.scattered(place, BYTES, &[]));
    all(queue, (0..WRITES).map(request).collect())?;
    for place in 0..WRITES {
        let generation = 2 * round + u64::from(place < DURABLE);
        check(places.data(place, BYTES), lba(place).0, generation).map_err(|fault| format!("{fault}"))?;
    }
    Ok(())
}

/// Submits requests together and polls until each was answered once, in success.
fn all<D: Doorbell>(queue: &mut Queue<D>, requests: alloc::vec::Vec<Request<Scattered>>) -> Result<(), String> {
    let mut open = (1u64 << requests.len()) - 1;
    let mut batch = queue.batch();
    for (token, request) in requests.into_iter().enumerate() {
        batch.push(request.with_token(token as u64)).map_err(|refused| format!("refused: {}", refused.why))?;
    }
    batch.publish();
    let mut wrong = None;
    while open != 0 && wrong.is_none() && queue.broken().is_none() {
        queue.reap(usize::MAX, |completion| {
            let bit = 1 << completion.token;
            if open & bit == 0 || completion.result.is_err() {
                wrong = Some(format!("request {} came back as {:?}", completion.token, completion.result));
            }
            open &= !bit;
        });
    }
    if let Some(violation) = queue.broken() {
        return Err(format!("the device broke its queue: {violation}"));
    }
    wrong.map_or(Ok(()), Err)
}
