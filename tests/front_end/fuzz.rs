//! A hostile client beside an honest one, over a device that takes and completes as it likes.
//!
//! Whatever the hostile one does: nothing panics; every chain that the device takes, and every one that it completes,
//! lies in memory that was granted at that time, in the right direction, within extents and rights; the honest one gets
//! its own data, in time; and every entry that was taken is answered once.
use crate::fake::wire::block;
use crate::fake::{Config, Order, RangeLimits, Taken};
use crate::hostile::{DATA, Hostile};
use crate::oracle::{Bounds, Granted, Told, segments};
use crate::random::{Random, Told as Progress, inputs};
use crate::rig::{Client, Rig, World, opening, pattern};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::front_end::Options;
use drv_virtio_block::lib_block::message::Rights;
use drv_virtio_block::queue::QueueOptions;

/// Entries of one run.
const RUN: u64 = 2000;
/// Requests of the honest client, each with blocks and memory of its own.
const HONEST: u16 = 8;
/// Where its blocks begin.
const HONEST_FIRST: u64 = 1024;

/// What an honest request is about.
#[derive(Clone, Copy)]
enum Stage {
    Idle,
    /// Writes the pattern of a seed onto so many blocks.
    Writes(u64, u32),
    /// Reads it back.
    Reads(u64, u32),
}

struct Honest<'w> {
    client: Client<'w>,
    stages: [Stage; HONEST as usize],
    bounds: Bounds,
    /// Passes in which nothing of what it asked for ended.
    idle: u32,
    done: u64,
}

impl Honest<'_> {
    fn act(&mut self, random: &mut Random) {
        for answer in self.client.take() {
            self.idle = 0;
            let at = usize::from(answer.tag);
            self.stages[at] = match (self.stages[at], answer.status) {
                (Stage::Writes(seed, blocks), Status::Ok) => Stage::Reads(seed, blocks),
                (Stage::Reads(seed, blocks), Status::Ok) => {
                    let data = self.client.get(at as u64 * 4096, blocks as usize * 512);
                    assert!(data == pattern(seed, blocks as usize * 512), "request {at} read something else");
                    self.done += 1;
                    Stage::Idle
                }
                (_, Status::Reset) => Stage::Idle,
                (_, status) => panic!("an honest request ends with {status:?}"),
            };
            self.ask(answer.tag, random);
        }
    }

    fn ask(&mut self, tag: u16, random: &mut Random) {
        let (at, offset) = (usize::from(tag), u64::from(tag) * 4096);
        if let Stage::Idle = self.stages[at] {
            self.stages[at] = Stage::Writes(random.word(), 1 + random.below(8) as u32);
        }
        let lba = u64::from(tag) * 8;
        match self.stages[at] {
            Stage::Writes(seed, blocks) => {
                self.client.put(offset, &pattern(seed, blocks as usize * 512));
                self.client.submit(&[self.client.write(tag, lba, blocks, offset)]);
            }
            Stage::Reads(_, blocks) => {
                self.client.put(offset, &[0x33; 4096]);
                self.client.submit(&[self.client.read(tag, lba, blocks, offset)]);
            }
            Stage::Idle => {}
        }
    }
}

/// A chain that the device has.
struct Chain {
    taken: Taken,
    data: Vec<Told>,
}

/// Who asked for a chain, if somebody had the right to.
fn justified(rig: &Rig<'_>, chain: &Chain, all: [&Bounds; 2]) -> bool {
    let right = |right: Rights| move |bounds: &&Bounds| bounds.rights & right.0 != 0;
    let Taken { kind, sector, .. } = chain.taken;
    let sectors: u64 = chain.data.iter().map(|told| told.len).sum::<u64>() / 512;
    let moved = |bounds: &&Bounds| bounds.hold(sector, sectors) && chain.data.iter().all(|told| bounds.grant(told));
    match kind {
        block::IN => {
            chain.data.iter().all(|told| told.written)
                && all.iter().copied().filter(right(Rights::READ)).any(|bounds| moved(&bounds))
        }
        block::OUT => {
            chain.data.iter().all(|told| !told.written)
                && all.iter().copied().filter(right(Rights::WRITE)).any(|bounds| moved(&bounds))
        }
        block::FLUSH => chain.data.is_empty(),
        block::DISCARD | block::WRITE_ZEROES => {
            let bytes = rig.memory.bytes(chain.data[0].address, 16);
            let first = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let count = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            all.iter().copied().filter(right(Rights::DISCARD)).any(|bounds| bounds.hold(first, count.into()))
        }
        _ => false,
    }
}

/// The device takes some, and completes some of those that it has.
fn device(rig: &Rig<'_>, chains: &mut Vec<Chain>, all: [&Bounds; 2], random: &mut Random) {
    for taken in rig.device.take(0, random.below(12)) {
        let chain = Chain { taken, data: segments(rig.memory, &rig.addresses, taken.head) };
        assert!(justified(rig, &chain, all), "taken: {taken:?} {:?} {all:?}", chain.data);
        chains.push(chain);
    }
    if random.one_in(2) {
        Order::Shuffled(random.word()).arrange(chains);
        let some = random.below(chains.len() + 1);
        let done: Vec<_> = chains.drain(..some).collect();
        for chain in &done {
            assert!(justified(rig, chain, all), "completed: {:?} {:?} {all:?}", chain.taken, chain.data);
        }
        rig.device.complete(0, &done.iter().map(|chain| chain.taken).collect::<Vec<_>>());
    }
}

fn one_run(seed: u64, told: &Progress<(u64, u64)>) -> (u64, [u64; 3]) {
    let mut random = Random::new(seed);
    let limits = RangeLimits { max_sectors: 16, max_segments: 1, alignment: 8 };
    let config = Config {
        overlap_allowed: true,
        discard: limits,
        write_zeroes: limits,
        seg_max: [4, 126][random.below(2)],
        ..Config::default()
    };
    let mut world = World::with(config, 2, DATA);
    let slots = [8, 24, 0][random.below(3)];
    let mut rig = world.start(&QueueOptions { slots, ..QueueOptions::default() }, Options::default());
    let client = rig.open(1, &opening(HONEST, Rights::READ.with(Rights::WRITE), &[(HONEST_FIRST, 64)]));
    let memory = vec![Granted { address: client.data, len: DATA as u64, writable: true }];
    let bounds = Bounds { rights: 3, extents: vec![(HONEST_FIRST, 64)], memory };
    let mut honest = Honest { client, stages: [Stage::Idle; HONEST as usize], bounds, idle: 0, done: 0 };
    let mut hostile = Hostile::new(&rig);
    let mut chains = Vec::new();
    (0..HONEST).for_each(|tag| honest.ask(tag, &mut random));
    while hostile.said < RUN {
        told.now((seed, hostile.said));
        hostile.act(&mut rig, &mut random);
        if random.one_in(3) {
            honest.act(&mut random);
        }
        if random.one_in(2) {
            rig.serve();
            hostile.notice(&mut rig);
            device(&rig, &mut chains, [&hostile.bounds, &honest.bounds], &mut random);
            honest.idle += 1;
            assert!(honest.idle < 500, "the honest client starves");
        }
        if random.one_in(8) {
            rig.front.arm();
        }
        if random.one_in(2000) {
            rig.reset();
            chains.clear();
        }
        if random.one_in(200) {
            while rig.device.poll_available(0) > 0 || !chains.is_empty() {
                device(&rig, &mut chains, [&hostile.bounds, &honest.bounds], &mut random);
                rig.serve();
                hostile.notice(&mut rig);
            }
            rig.sleep();
            // What slept was woken by nothing: all that could be done is done.
            if rig.device.poll_available(0) == 0 {
                hostile.check_answered(&rig, &format!("entry {}", hostile.said));
            }
        }
    }
    rig.device.assert_no_faults();
    let counted = rig.front.statistics();
    (honest.done, [counted.answered, counted.refused, counted.ended])
}

#[test]
fn whatever_one_client_does_nothing_reaches_the_device_that_was_not_granted_and_others_are_served() {
    let told = Progress::new();
    let first: u64 = std::env::var("LIB_BLOCK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut all = [0; 4];
    for run in 0..inputs().div_ceil(RUN) {
        let (done, [answered, refused, ended]) = one_run(first + run, &told);
        for (sum, one) in all.iter_mut().zip([done, answered, refused, ended]) {
            *sum += one;
        }
    }
    // A generator that makes only one kind of input tests little.
    let [done, answered, refused, ended] = all;
    let runs = inputs().div_ceil(RUN);
    assert!(done > 100 * runs && answered > 2 * done + 10 * runs && refused > 10 * runs && ended > runs, "{all:?}");
}
