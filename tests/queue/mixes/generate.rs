//! Random queues, devices and requests.
use crate::fake::Order;
use crate::fake::wire::features;
use drv_virtio_block::queue::Chaining;
use proptest::prelude::*;
use proptest::sample::select;

/// Size of the disk.
pub(super) const SECTORS: u64 = 4096;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    WriteDurably,
    Flush,
    Discard,
    Zero(bool),
    Id,
}

impl Kind {
    pub(super) fn changes(self) -> bool {
        matches!(self, Self::Write | Self::WriteDurably | Self::Discard | Self::Zero(_))
    }

    pub(super) fn has_segments(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::WriteDurably)
    }

    pub(super) fn has_buffer(self) -> bool {
        self.has_segments() || self == Self::Id
    }
}

/// One request: its segments sum up to whole blocks; ranges are as long as the segments together.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) lba: u64,
    pub(super) lens: Vec<u32>,
}

impl Ask {
    /// Sectors that it touches.
    pub(super) fn sectors(&self) -> u64 {
        match self.kind {
            Kind::Flush | Kind::Id => 0,
            _ => self.lens.iter().map(|len| u64::from(*len)).sum::<u64>() / 512,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Submit(Vec<Ask>),
    Take(usize),
    Complete(usize, Order),
    Reap(usize),
}

/// A device, a queue, and what happens.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) size: u16,
    pub(super) chaining: Chaining,
    pub(super) offered: u64,
    pub(super) event_idx: bool,
    pub(super) block: u32,
    pub(super) seg_max: u32,
    pub(super) size_max: u32,
    pub(super) range_max: u32,
    pub(super) alignment: u32,
    pub(super) large_tables: u16,
    pub(super) parents: u16,
    pub(super) steps: Vec<Step>,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => Just(Kind::Read),
        6 => Just(Kind::Write),
        2 => Just(Kind::WriteDurably),
        1 => Just(Kind::Flush),
        1 => Just(Kind::Discard),
        1 => any::<bool>().prop_map(Kind::Zero),
        1 => Just(Kind::Id),
    ]
}

fn lens() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![
        4 => (1..=8_u32).prop_map(|n| vec![512 * n]),
        2 => prop::collection::vec((1..=8_u32).prop_map(|n| 512 * n), 1..=40),
        2 => prop::collection::vec(1..=2000_u32, 1..=40),
        1 => prop::collection::vec(1..=100_u32, 1..=40),
    ]
}

/// Rounds the last segment up to whole blocks and moves the request onto the disk.
fn fit((kind, place, mut lens): (Kind, u64, Vec<u32>), block: u32) -> Ask {
    let total: u32 = lens.iter().sum();
    *lens.last_mut().unwrap() += total.next_multiple_of(block) - total;
    let blocks = u64::from(total.div_ceil(block));
    let per_block = u64::from(block / 512);
    let lba = place % (SECTORS / per_block - blocks + 1) * per_block;
    Ask { kind, lba, lens }
}

fn steps(block: u32) -> impl Strategy<Value = Vec<Step>> {
    let ask = (kinds(), any::<u64>(), lens()).prop_map(move |ask| fit(ask, block));
    let order = prop_oneof![Just(Order::AsTaken), Just(Order::Reversed), any::<u64>().prop_map(Order::Shuffled)];
    let step = prop_oneof![
        4 => prop::collection::vec(ask, 1..12).prop_map(Step::Submit),
        2 => (1..40_usize).prop_map(Step::Take),
        3 => (1..40_usize, order).prop_map(|(most, order)| Step::Complete(most, order)),
        2 => prop_oneof![Just(1), Just(3), Just(usize::MAX)].prop_map(Step::Reap),
    ];
    prop::collection::vec(step, 1..40)
}

/// Features of a device and the queue laid out for it.
fn queues() -> impl Strategy<Value = (u16, Chaining, u64)> {
    let base = features::IMPLEMENTED & !features::RO & !features::ACCESS_PLATFORM;
    let size = select(vec![2_u16, 4, 8, 16, 64, 256, 1024, 32768]);
    (size, any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.9)).prop_map(
        move |(size, table_form, tables, event_idx, seg_max)| {
            let tables = tables || size == 2;
            let chaining = if table_form && tables { Chaining::Indirect } else { Chaining::Direct };
            let without = |mask, keep| if keep { 0 } else { mask };
            let missing = without(features::INDIRECT_DESC, tables)
                | without(features::EVENT_IDX, event_idx)
                | without(features::SEG_MAX, seg_max);
            (size, chaining, base & !missing)
        },
    )
}

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let limits = (
        select(vec![0_u32, 1, 2, 3, 6, 12, 40, 126]),
        select(vec![0_u32, 0, 512, 1000, 4096, 5000]),
        select(vec![8_u32, 24, 100, 1024]),
        select(vec![0_u32, 1, 8, 16]),
    );
    let spare = (select(vec![0_u16, 1, 3]), select(vec![1_u16, 2, 8]));
    (queues(), limits, spare, select(vec![512_u32, 512, 4096])).prop_flat_map(|(queue, limits, spare, block)| {
        let (size, chaining, offered) = queue;
        let (seg_max, size_max, range_max, alignment) = limits;
        let (large_tables, parents) = spare;
        let event_idx = offered & features::EVENT_IDX != 0;
        let plan = Plan {
            size,
            chaining,
            offered,
            event_idx,
            block,
            seg_max,
            size_max,
            range_max,
            alignment,
            large_tables,
            parents,
            steps: Vec::new(),
        };
        steps(block).prop_map(move |steps| Plan { steps, ..plan.clone() })
    })
}
