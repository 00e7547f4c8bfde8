//! Random interleavings of submitters, drains and the device: each completion goes to its submitter, once, with its data.
use crate::fake::{Config, Order};
use crate::rig::{Buf, Live, PATIENCE, Room, Shared, Sub, World, pattern, take};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Completion, Lba, Refusal, Request};
use proptest::prelude::*;
use std::collections::HashMap;

/// Sectors of one request's place on the disk.
const STRIDE: u64 = 32;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Write,
    WriteDurably,
    Read,
    Flush,
}

#[derive(Clone, Debug)]
enum Step {
    /// A submitter's batch: size of the reservation, kinds and numbers of segments.
    Submit(usize, u32, Vec<(Kind, usize)>),
    Reap(usize),
    Device(usize, Order),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![Just(Kind::Write), Just(Kind::WriteDurably), Just(Kind::Read), Just(Kind::Flush)];
    let asks = prop::collection::vec((kind, prop_oneof![3 => Just(1_usize), 1 => 1..=20_usize]), 1..20);
    let order = prop_oneof![Just(Order::AsTaken), Just(Order::Reversed), any::<u64>().prop_map(Order::Shuffled)];
    let step = prop_oneof![
        3 => (any::<usize>(), 1..=64_u32, asks).prop_map(|(who, want, asks)| Step::Submit(who, want, asks)),
        2 => any::<usize>().prop_map(Step::Reap),
        3 => (1..30_usize, order).prop_map(|(most, order)| Step::Device(most, order)),
    ];
    prop::collection::vec(step, 1..60)
}

/// What each submitter has out: by token, the data that its buffer must hold in the end.
struct Run<'q, 'w> {
    live: &'q Live<'w, Shared<'w>>,
    submitters: Vec<Sub<'q, 'w>>,
    out: Vec<HashMap<u64, Vec<u8>>>,
    next: u64,
}

impl Run<'_, '_> {
    fn check(&mut self, who: usize, done: Vec<Completion<Buf>>) -> usize {
        let count = done.len();
        for one in done {
            let expected = self.out[who].remove(&one.token).expect("a token of this submitter, once");
            assert_eq!(one.result, Ok(()));
            assert!(one.buffer.map_or(Vec::new(), |buffer| buffer.bytes()) == expected, "token {}", one.token);
        }
        count
    }

    fn submit(&mut self, who: usize, want: u32, asks: &[(Kind, usize)]) {
        let mut batch = self.submitters[who].batch(want);
        for (kind, segments) in asks {
            if self.live.heap.lent() >= 90 {
                break;
            }
            let token = self.next;
            self.next += 1;
            // Every token has its place on the disk, so that nothing races there.
            let lba = token % 90 * STRIDE;
            let lens = vec![512; *segments];
            let data = pattern(token, 512 * segments);
            let filled = || {
                let buffer = self.live.heap.cut(&lens);
                buffer.set(&data);
                buffer
            };
            let (request, expected) = match kind {
                Kind::Write => (Request::write(Lba(lba), filled()), data),
                Kind::WriteDurably => (Request::write_durably(Lba(lba), filled()), data),
                // What is there is there for good: a place of its own that nobody writes.
                Kind::Read => {
                    let at = 90 * STRIDE + token % 8;
                    let data = self.live.device.disk(at, *segments as u64);
                    (Request::read(Lba(at), self.live.heap.cut(&lens)), data)
                }
                Kind::Flush => (Request::flush(), Vec::new()),
            };
            match batch.push(request.with_token(token)) {
                Ok(_) => drop(self.out[who].insert(token, expected)),
                Err(refused) => assert_eq!(refused.why, Refusal::Full),
            }
        }
        batch.publish();
    }

    fn settle(&mut self) {
        for _ in 0..PATIENCE {
            let mut moved = self.live.device.complete_all(0, Order::AsTaken) + self.live.device.process_all(0);
            for who in 0..self.submitters.len() {
                let done = take(&mut self.submitters[who]);
                moved += self.check(who, done);
            }
            if moved == 0 && self.live.device.poll_available(0) == 0 {
                assert!(self.out.iter().all(HashMap::is_empty), "an idle queue owes nobody anything");
                return;
            }
        }
        panic!("the queue never comes to rest");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit(who, want, asks) => self.submit(who % self.submitters.len(), *want, asks),
            Step::Reap(who) => {
                let who = who % self.submitters.len();
                let done = take(&mut self.submitters[who]);
                self.check(who, done);
            }
            Step::Device(most, order) => {
                self.live.device.take(0, *most);
                let mut taken = self.live.device.in_flight(0);
                order.arrange(&mut taken);
                taken.truncate(*most);
                self.live.device.complete(0, &taken);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_each_submitter_its_own_completions_once(
        steps in steps(),
        submitters in 1..=5_usize,
        form in prop_oneof![Just(Chaining::Direct), Just(Chaining::Indirect)],
        slots in prop_oneof![Just(3_u16), Just(20), Just(80)],
        seg_max in prop_oneof![Just(1_u32), Just(4), Just(126)],
        (large_tables, parents) in (0..3_u16, 1..4_u16),
    ) {
        let room = Room { places: 100, place: 11 << 10, ..Room::default() };
        let mut world = World::with(Config { seg_max, capacity_sectors: 4096, ..Config::default() }, room);
        let options = QueueOptions { size: 256, slots, chaining: form, large_tables, large_segments: 30, parents };
        let (live, _) = world.shared(&options);
        let submitters: Vec<_> = (0..submitters).map(|_| live.queue.submitter().unwrap()).collect();
        let out = submitters.iter().map(|_| HashMap::new()).collect();
        let mut run = Run { live: &live, submitters, out, next: 0 };
        for step in &steps {
            run.step(step);
        }
        run.settle();
        drop(run);
        let (counts, statistics) = (live.device.counts(0), live.queue.statistics());
        assert_eq!((statistics.submitted, statistics.completed), (counts.published, counts.completed));
        assert_eq!((statistics.violations, live.heap.lent()), (0, 0));
        assert_eq!(statistics.notifications, live.device.expected_notifications(0));
        assert_eq!(live.device.notifications(0), live.device.expected_notifications(0));
        live.device.assert_no_faults();
    }
}
