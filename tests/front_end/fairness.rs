//! Who gets how much: over every window of 64 rounds, and who waits for whom. The queue is the bottleneck; the device
//! works through it a few chains, or so many bytes, at a time.
use crate::fake::{Config, Order, Taken};
use crate::rig::{Client, Rig, World, flush, opening};
use drv_virtio_block::lib_block::entry::Operation;
use drv_virtio_block::lib_block::front_end::{Options, QUANTUM};
use drv_virtio_block::lib_block::message::{Opening, Rights};
use drv_virtio_block::queue::QueueOptions;

/// What a client always asks for.
#[derive(Clone, Copy)]
struct Asks {
    depth: u16,
    /// 0: flushes.
    bytes: u32,
    weight: u16,
}

const fn asks(depth: u16, bytes: u32) -> Asks {
    Asks { depth, bytes, weight: 1 }
}

/// How much the device does in a step.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Chains(usize),
    Bytes(u64),
}

/// Rounds of a window.
const WINDOW: u64 = 64;

struct Asker<'w> {
    client: Client<'w>,
    asks: Asks,
    free: Vec<u16>,
}

impl Asker<'_> {
    /// Asks for as much as it may.
    fn ask(&mut self) {
        for done in self.client.take() {
            assert!(done.status.is_ok(), "{done:?}");
            self.free.push(done.tag);
        }
        while let Some(tag) = self.free.pop() {
            let wish = match self.asks.bytes {
                0 => flush(tag),
                // The place says whose it is.
                bytes => self.client.io(Operation::Read, tag, self.client.at as u64 * 400, bytes / 512, 0),
            };
            self.client.submit(&[wish]);
        }
    }
}

/// Who asked for a chain, and what it counts.
fn whose(askers: &[Asker<'_>], chain: &Taken) -> (usize, u64) {
    if chain.data_len > 0 {
        return ((chain.sector / 400) as usize, chain.data_len);
    }
    (askers.iter().position(|asker| asker.asks.bytes == 0).unwrap(), QUANTUM)
}

/// Rounds, and what everybody was charged until then.
type Record = (u64, Vec<u64>);

fn record(rig: &Rig<'_>, askers: &[Asker<'_>]) -> Record {
    let charged = |asker: &Asker<'_>| rig.front.session_statistics(asker.client.id).unwrap().charged;
    (rig.front.statistics().rounds, askers.iter().map(charged).collect())
}

/// Lets them ask for [`ROUNDS`] rounds. A client of depth 1 never has more than a share of each other in front of it.
fn run(all: &[Asks], slots: u16, pace: Pace) -> Vec<Record> {
    let config = Config { overlap_allowed: true, writeback: true, ..Config::default() };
    let mut world = World::with(config, all.len(), 128 << 10);
    let mut rig = world.start(&QueueOptions { slots, ..QueueOptions::default() }, Options::default());
    let open = |(at, asks): (usize, &Asks)| {
        let opening = Opening { weight: asks.weight, ..opening(128, Rights::ALL, &[(0, 2048)]) };
        Asker { client: rig.open(at, &opening), asks: *asks, free: (0..asks.depth).collect() }
    };
    let mut askers: Vec<_> = all.iter().enumerate().map(open).collect();
    let mut records = Vec::new();
    let mut waiting: Vec<Option<Vec<u64>>> = vec![None; all.len()];
    let mut with_device: Vec<Taken> = Vec::new();
    while rig.front.statistics().rounds < ROUNDS {
        for (at, asker) in askers.iter_mut().enumerate() {
            if asker.asks.depth == 1
                && waiting[at].is_none()
                && (!asker.free.is_empty() || asker.client.end.look() == Ok(1))
            {
                waiting[at] = Some(vec![0; all.len()]);
            }
            asker.ask();
        }
        rig.serve();
        records.push(record(&rig, &askers));
        for chain in rig.device.take(0, usize::MAX) {
            let (from, bytes) = whose(&askers, &chain);
            waiting[from] = None;
            for (of, ahead) in waiting.iter_mut().enumerate() {
                let Some(ahead) = ahead else { continue };
                ahead[from] += bytes;
                let share = QUANTUM * u64::from(all[from].weight);
                assert!(ahead[from] <= share, "client {of} waits for more than a round of {from}");
            }
            with_device.push(chain);
        }
        let mut bytes = 0;
        let mut now = 0;
        while now < with_device.len()
            && match pace {
                Pace::Chains(most) => now < most,
                Pace::Bytes(most) => bytes < most,
            }
        {
            bytes += with_device[now].data_len.max(4096);
            now += 1;
        }
        let done: Vec<_> = with_device.drain(..now).collect();
        rig.device.complete(0, &done);
    }
    rig.device.complete_all(0, Order::AsTaken);
    rig.device.assert_no_faults();
    records
}

/// Every window: each of `backlogged` within a tenth of its share of what those who ask for less leave.
#[track_caller]
fn check(records: &[Record], all: &[Asks], backlogged: &[usize], what: &str) {
    let mut windows = 0;
    for (at, (begin, before)) in records.iter().enumerate() {
        let Some((end, after)) = records[at..].iter().find(|(round, _)| round - begin >= WINDOW) else { break };
        let got: Vec<f64> = after.iter().zip(before).map(|(after, before)| (after - before) as f64).collect();
        let shared: f64 = backlogged.iter().map(|at| got[*at]).sum();
        let weights: u16 = backlogged.iter().map(|at| all[*at].weight).sum();
        for one in backlogged {
            let fair = shared * f64::from(all[*one].weight) / f64::from(weights);
            let off = (got[*one] / fair - 1.0).abs();
            assert!(off <= 0.1, "{what}: client {one} got {got:?} in rounds {begin} to {end}");
        }
        windows += 1;
    }
    assert!(windows >= 5, "{what}: {windows} windows");
}

/// Slots of the queue, and what the device does with them.
const QUEUES: [(u16, Pace); 3] = [(4, Pace::Chains(1)), (16, Pace::Chains(7)), (48, Pace::Bytes(64 << 10))];
/// Rounds of a run: many windows, one in two of which share nothing.
const ROUNDS: u64 = 2 * WINDOW + 8;

/// The same for queues of several lengths and devices of several paces.
#[track_caller]
fn everywhere(all: &[Asks], backlogged: &[usize]) {
    for (slots, pace) in QUEUES {
        check(&run(all, slots, pace), all, backlogged, &format!("{slots} slots, {pace:?}"));
    }
}

#[test]
fn a_client_that_asks_for_little_never_waits_more_than_a_round() {
    everywhere(&[asks(128, 128 << 10), asks(1, 4 << 10)], &[0]);
    everywhere(&[asks(1, 4 << 10), asks(128, 128 << 10), asks(128, 4 << 10), asks(1, 64 << 10)], &[1, 2]);
}

#[test]
fn large_and_small_requests_get_the_same_bytes() {
    everywhere(&[asks(128, 128 << 10), asks(128, 4 << 10)], &[0, 1]);
}

#[test]
fn sizes_that_do_not_divide_the_share_get_the_same_bytes() {
    everywhere(&[asks(128, 100 << 10), asks(128, 12 << 10), asks(128, 128 << 10)], &[0, 1, 2]);
}

#[test]
fn requests_below_the_least_count_as_the_least() {
    everywhere(&[asks(128, 512), asks(128, 16 << 10)], &[0, 1]);
}

#[test]
fn weights_are_shares() {
    let three = |asks| Asks { weight: 3, ..asks };
    everywhere(&[asks(128, 128 << 10), three(asks(128, 128 << 10))], &[0, 1]);
    everywhere(&[three(asks(128, 128 << 10)), asks(128, 4 << 10)], &[0, 1]);
}

#[test]
fn a_client_that_only_flushes_gets_its_share_and_no_more() {
    everywhere(&[asks(128, 128 << 10), asks(32, 0)], &[0, 1]);
    everywhere(&[asks(128, 4 << 10), asks(32, 0), asks(1, 4 << 10)], &[0, 1]);
}

#[test]
fn a_device_that_answers_out_of_order_is_shared_alike() {
    for seed in 0..4u64 {
        let all = [asks(128, 128 << 10), asks(128, 4 << 10)];
        let mut world = World::with(Config { overlap_allowed: true, ..Config::default() }, 2, 128 << 10);
        let mut rig = world.start(&QueueOptions { slots: 24, ..QueueOptions::default() }, Options::default());
        let open = |(at, asks): (usize, &Asks)| {
            let client = rig.open(at, &opening(128, Rights::ALL, &[(0, 2048)]));
            Asker { client, asks: *asks, free: (0..asks.depth).collect() }
        };
        let mut askers: Vec<_> = all.iter().enumerate().map(open).collect();
        let mut records = Vec::new();
        while rig.front.statistics().rounds < ROUNDS {
            askers.iter_mut().for_each(Asker::ask);
            rig.serve();
            records.push(record(&rig, &askers));
            rig.device.take(0, usize::MAX);
            let mut taken = rig.device.in_flight(0);
            Order::Shuffled(seed + records.len() as u64).arrange(&mut taken);
            taken.truncate(5);
            rig.device.complete(0, &taken);
        }
        check(&records, &all, &[0, 1], &format!("seed {seed}"));
        rig.device.assert_no_faults();
    }
}
