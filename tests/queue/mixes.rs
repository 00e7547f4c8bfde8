//! Random requests over random queues, against a model of the disk: data, buffers, tokens, counters, and the rules.
//!
//! A run submits, lets the device take and complete a part in some order, reaps a part, and so on. Requests that would
//! race on the disk wait until the queue is idle, so that the model knows what every read must find.
#[path = "mixes/generate.rs"]
mod generate;
#[path = "mixes/limits.rs"]
mod limits;

use crate::fake::{Config, Order, RangeLimits};
use crate::rig::{Buf, Live, Model, Owned, PATIENCE, Room, World, pattern};
use drv_virtio_block::device::Wishes;
use drv_virtio_block::queue::QueueOptions;
use drv_virtio_block::request::{Completion, Lba, Refusal, Request};
use drv_virtio_block::spec::Features;
use generate::{Ask, Kind, Plan, SECTORS, Step, plans};
use limits::Limits;
use proptest::prelude::*;
use std::collections::HashMap;

/// What is out, by token.
struct Expected {
    kind: Kind,
    first: u64,
    sectors: u64,
    data: Vec<u8>,
}

struct Run<'w> {
    live: Live<'w, Owned<'w>>,
    limits: Limits,
    model: Model,
    out: HashMap<u64, Expected>,
    next: u64,
}

impl Run<'_> {
    /// Takes one completion: exactly one per token, with its buffer and the right data.
    fn check(out: &mut HashMap<u64, Expected>, done: Completion<Buf>) {
        let expected = out.remove(&done.token).expect("a token that is out, once");
        assert_eq!(done.result, Ok(()), "{:?}", expected.kind);
        assert_eq!(done.buffer.is_some(), expected.kind.has_buffer());
        if let Some(buffer) = done.buffer {
            let found = buffer.bytes();
            assert!(
                found == expected.data,
                "{:?} of {} sectors at {}",
                expected.kind,
                expected.sectors,
                expected.first
            );
        }
    }

    fn reap(&mut self, most: usize) -> usize {
        let out = &mut self.out;
        let handed = self.live.queue.reap(most, |done| Self::check(out, done));
        assert!(handed <= most);
        handed
    }

    /// Lets everything end. What is reaped may send something out again.
    fn settle(&mut self) {
        for _ in 0..PATIENCE {
            let done = self.live.device.complete_all(0, Order::AsTaken) + self.live.device.process_all(0);
            if self.reap(usize::MAX) + done == 0 && self.live.device.poll_available(0) == 0 {
                assert!(self.out.is_empty(), "an idle queue owes nothing");
                return;
            }
        }
        panic!("the queue never comes to rest");
    }

    fn races(&self, ask: &Ask) -> bool {
        let (first, end) = (ask.lba, ask.lba + ask.sectors());
        let touches = |other: &Expected| first < other.first + other.sectors && other.first < end;
        self.out.values().any(|other| touches(other) && (ask.kind.changes() || other.kind.changes()))
    }

    /// What the device will be asked, and what should come of it.
    fn request(&mut self, ask: &Ask) -> (Request<Buf>, Expected) {
        let (lba, heap) = (Lba(ask.lba), &self.live.heap);
        let sectors = ask.sectors();
        let expect = |data| Expected { kind: ask.kind, first: ask.lba, sectors, data };
        let fresh = || pattern(self.next, sectors as usize * 512);
        let buffer = |data: &[u8]| {
            let buffer = heap.cut(&ask.lens);
            buffer.set(data);
            buffer
        };
        match ask.kind {
            Kind::Read => {
                let data = self.model.read(ask.lba, sectors as usize * 512);
                (Request::read(lba, heap.cut(&ask.lens)), expect(data))
            }
            Kind::Write => (Request::write(lba, buffer(&fresh())), expect(fresh())),
            Kind::WriteDurably => (Request::write_durably(lba, buffer(&fresh())), expect(fresh())),
            Kind::Flush => (Request::flush(), expect(Vec::new())),
            Kind::Discard => (Request::discard(lba, sectors as u32), expect(Vec::new())),
            Kind::Zero(unmap) => (Request::write_zeroes(lba, sectors as u32, unmap), expect(Vec::new())),
            Kind::Id => {
                let id = b"fake-disk-0123456789".to_vec();
                (Request::get_id(heap.whole(20)), Expected { sectors: 0, ..expect(id) })
            }
        }
    }

    /// Submits as one batch.
    fn submit(&mut self, asks: &[Ask]) {
        for ask in asks {
            if self.races(ask) || self.live.heap.lent() > 50 {
                self.settle();
            }
            let (request, expected) = self.request(ask);
            let mut request = request.with_token(self.next);
            let cuttable = ask.kind.has_segments() && self.limits.must_cut(&ask.lens);
            let refusal = (cuttable && !self.limits.can_cut(&ask.lens)).then_some(Refusal::Unaligned);
            loop {
                match self.live.queue.submit(request) {
                    Ok(_) => {
                        assert_eq!(refusal, None, "a request that cannot be cut is refused: {:?}", ask.lens);
                        self.apply(ask, &expected);
                        self.out.insert(self.next, expected);
                        break;
                    }
                    Err(refused) if refused.why == Refusal::Full => {
                        assert!(!self.out.is_empty(), "an idle queue is not full");
                        self.settle();
                        request = refused.request;
                    }
                    Err(refused) => {
                        assert_eq!(Some(refused.why), refusal, "{:?} {:?}", ask.kind, ask.lens);
                        break;
                    }
                }
            }
            self.next += 1;
        }
    }

    fn apply(&mut self, ask: &Ask, expected: &Expected) {
        match ask.kind {
            Kind::Write | Kind::WriteDurably => self.model.write(ask.lba, &expected.data),
            Kind::Discard => self.model.discard(ask.lba, ask.sectors() as u32),
            Kind::Zero(_) => self.model.zero(ask.lba, ask.sectors() as u32),
            Kind::Read | Kind::Flush | Kind::Id => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit(asks) => self.submit(asks),
            Step::Take(most) => drop(self.live.device.take(0, *most)),
            Step::Complete(most, order) => {
                let mut taken = self.live.device.in_flight(0);
                order.arrange(&mut taken);
                taken.truncate(*most);
                self.live.device.complete(0, &taken);
            }
            Step::Reap(most) => drop(self.reap(*most)),
        }
    }

    fn end(&mut self, event_idx: bool) {
        self.settle();
        let (device, queue) = (&self.live.device, &self.live.queue);
        assert_eq!(self.live.heap.lent(), 0, "every buffer came back");
        assert!(device.disk(0, SECTORS) == self.model.all(), "the disk is what the model says");
        let counts = device.counts(0);
        let statistics = queue.statistics();
        assert_eq!((statistics.submitted, statistics.completed), (counts.published, counts.completed));
        assert_eq!((statistics.violations, queue.in_flight()), (0, 0));
        if event_idx {
            assert_eq!(device.notifications(0), device.expected_notifications(0));
        }
        assert_eq!(statistics.notifications, device.notifications(0));
        device.assert_no_faults();
    }
}

fn config(plan: &Plan) -> Config {
    let ranges = RangeLimits { max_sectors: plan.range_max, max_segments: 1, alignment: plan.alignment };
    Config {
        features: plan.offered,
        capacity_sectors: SECTORS,
        max_queue_size: plan.size,
        blk_size: plan.block,
        seg_max: plan.seg_max,
        size_max: plan.size_max,
        discard: ranges,
        write_zeroes: ranges,
        ..Config::default()
    }
}

/// PROPTEST_CASES, or what a few seconds allow.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_on_any_queue_leaves_the_disk_and_every_buffer_as_the_model_says(plan in plans()) {
        let room = Room { dma: 2 << 20, private: 256 << 10, places: 64, place: 128 << 10 };
        let mut world = World::with(config(&plan), room);
        let options = QueueOptions {
            size: plan.size,
            slots: 64,
            chaining: plan.chaining,
            large_tables: plan.large_tables,
            large_segments: 20,
            parents: plan.parents,
        };
        let wishes = Wishes { features: Features::IMPLEMENTED, ..Wishes::default() };
        let live = world.start(&wishes, &options).map(|mut queues| queues.remove(0)).own();
        let limits = Limits::new(&plan);
        let mut run = Run { live, limits, model: Model::new(SECTORS), out: HashMap::new(), next: 0 };
        for step in &plan.steps {
            run.step(step);
        }
        run.end(plan.event_idx);
    }
}
