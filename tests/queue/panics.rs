//! What the caller brings may panic in the middle of a queue's work, and the panic may be caught: a sink, a wake, a
//! doorbell. Every request is then still answered once, and the queue goes on with all of its slots.
use crate::fake::{Config, Lie, Order};
use crate::rig::{Bell, Buf, Clock, Live, Owned, Wire, World, outcomes};
use drv_virtio_block::device::{Running, Stopped};
use drv_virtio_block::queue::{Chaining, OwnedQueue, QueueOptions, SharedQueue, Wake};
use drv_virtio_block::request::{Completion, DeviceFault, Error, Gone, Lba, Request};
use drv_virtio_block::transport::{Doorbell, QueueId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];

fn options(chaining: Chaining) -> QueueOptions {
    QueueOptions { size: 64, chaining, large_tables: 1, ..QueueOptions::default() }
}

/// Panics, without the message and the backtrace.
fn fail() {
    std::panic::resume_unwind(Box::new("it fails as it was told"));
}

/// Runs `work`, which panics.
#[track_caller]
fn panics<R>(work: impl FnOnce() -> R) {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    assert!(outcome.is_err(), "the panic reaches whoever called");
}

/// What completed, and a sink that panics once, at completion number `at`, after it took it.
struct Taken {
    done: Vec<Completion<Buf>>,
    at: usize,
}

impl Taken {
    fn failing_at(at: usize) -> Self {
        Self { done: Vec::new(), at }
    }

    fn take(&mut self, completion: Completion<Buf>) {
        self.done.push(completion);
        if self.done.len() == self.at.wrapping_add(1) {
            fail();
        }
    }

    /// Reaps an owned queue until nothing comes, over the panic.
    #[track_caller]
    fn reap(&mut self, queue: &mut Owned<'_>) {
        let has_failed = |taken: &Self| taken.done.len() > taken.at;
        loop {
            let before = has_failed(self);
            let outcome = catch_unwind(AssertUnwindSafe(|| queue.reap(usize::MAX, |done| self.take(done))));
            match outcome {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => assert!(!before && has_failed(self), "the queue itself panics"),
            }
        }
    }
}

/// Requests of every kind that a queue answers in a way of its own: tokens 0 to 9, between plain ones.
fn every_kind(live: &mut Live<'_, Owned<'_>>) -> Vec<(u64, Result<(), Error>)> {
    let heap = live.heap.clone();
    let requests = [
        Request::read(Lba(0), heap.whole(512)),
        Request::write(Lba(1), heap.cut(&[100, 412])),
        Request::read(Lba(3), heap.whole(512)),
        Request::write_durably(Lba(2), heap.whole(512)),
        Request::flush(),
        Request::discard(Lba(40), 2),
        Request::read(Lba(8), heap.cut(&[64; 8])),
        Request::write(Lba(16), heap.cut(&[512; 8])),
        Request::get_id(heap.whole(20)),
        Request::read(Lba(4), heap.whole(512)),
    ];
    let expected = (0..requests.len() as u64).map(|token| (token, Ok(()))).collect();
    for (token, request) in (0..).zip(requests) {
        live.queue.submit(request.with_token(token)).expect("room for ten");
    }
    expected
}

/// The queue works, with all of its slots, and nothing of it was lost.
#[track_caller]
fn assert_whole(live: &mut Live<'_, Owned<'_>>) {
    assert_eq!((live.queue.broken(), live.queue.in_flight()), (None, 0));
    assert_eq!(live.heap.lent(), 0, "every buffer is back");
    let slots = u64::from(live.queue.slots());
    for token in 0..slots {
        live.queue.submit(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).expect("a free slot");
    }
    assert!(live.queue.submit(Request::flush()).is_err(), "no slot exists twice");
    assert_eq!(outcomes(&live.finish()), (0..slots).map(|token| (token, Ok(()))).collect::<Vec<_>>());
    let counted = live.queue.statistics();
    assert_eq!((counted.submitted, counted.violations), (counted.completed, 0));
    live.device.assert_no_faults();
}

#[test]
fn a_sink_that_panics_at_any_answer_of_an_owned_queue_gets_each_answer_once() {
    for (chaining, at) in BOTH.into_iter().flat_map(|form| (0..10).map(move |at| (form, at))) {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        for _ in 0..3 {
            let expected = every_kind(&mut live);
            let mut taken = Taken::failing_at(at);
            while live.device.process_all(0) > 0 {
                taken.reap(&mut live.queue);
            }
            assert_eq!(outcomes(&taken.done), expected, "{chaining:?}, panic at {at}");
        }
        assert_whole(&mut live);
    }
}

#[test]
fn a_sink_that_panics_more_often_than_there_are_slots_costs_none_of_them() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    for token in 0..3 * u64::from(live.queue.slots()) {
        live.queue.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).expect("a free slot");
        live.device.process_all(0);
        panics(|| live.queue.reap(1, |_| fail()));
        assert_eq!(live.queue.reap(1, |_| ()), 0, "it was handed out");
    }
    assert_whole(&mut live);
}

#[test]
fn a_sink_that_panics_at_an_error_leaves_the_other_answers_as_they_are() {
    for at in 0..4 {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(Chaining::Direct));
        for (token, status) in (0..).zip([1, 2, 9, 0]) {
            live.queue.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
            if status != 0 {
                live.device.inject(0, Lie::Status(status));
            }
        }
        live.device.process(0, 4, Order::AsTaken);
        let mut taken = Taken::failing_at(at);
        taken.reap(&mut live.queue);
        let faults = [DeviceFault::Unsupported, DeviceFault::BadStatus(9)].map(Error::Device);
        let expected = [Err(Error::Medium), Err(faults[0]), Err(faults[1]), Ok(())];
        assert_eq!(outcomes(&taken.done), (0..).zip(expected).collect::<Vec<_>>());
        drop(taken);
        assert_whole(&mut live);
    }
}

#[test]
fn a_sink_that_panics_at_what_was_answered_without_the_device_gets_the_rest_later() {
    for at in 0..3 {
        let mut world = World::new(Config { writeback: false, ..Config::default() });
        let mut live = world.owned(&options(Chaining::Direct));
        for round in 0..30 {
            for token in 0..3 {
                live.queue.submit(Request::flush().with_token(token)).expect("a free slot");
            }
            let mut taken = Taken::failing_at(at);
            taken.reap(&mut live.queue);
            assert_eq!(outcomes(&taken.done), [(0, Ok(())), (1, Ok(())), (2, Ok(()))], "round {round}");
        }
        assert_whole(&mut live);
    }
}

fn stopped(running: Running<'_, Wire>) -> Stopped<'_, Wire> {
    running.reset(&Clock::default()).expect("an answer to the reset")
}

#[test]
fn a_sink_that_panics_while_a_queue_is_reclaimed_costs_no_buffer() {
    for (shared, at) in [false, true].into_iter().flat_map(|shared| (0..9).map(move |at| (shared, at))) {
        let mut world = World::new(Config::default());
        let mut taken = Taken::failing_at(at);
        let heap = if shared {
            let (live, _) = world.shared(&options(Chaining::Direct));
            let mut one = live.queue.submitter().expect("a number");
            for token in 0..10 {
                one.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
            }
            drop(one);
            let stopped = stopped(live.running);
            panics(|| live.queue.reclaim(&stopped.proof(), |done| taken.take(done)));
            live.heap
        } else {
            let mut live = world.owned(&options(Chaining::Direct));
            every_kind(&mut live);
            let stopped = stopped(live.running);
            panics(|| live.queue.reclaim(&stopped.proof(), |done| taken.take(done)));
            live.heap
        };
        assert_eq!(taken.done.len(), at + 1);
        assert!(taken.done.iter().all(|done| done.result == Err(Error::Gone(Gone::Reset))));
        taken.done.clear();
        assert_eq!(heap.lent(), 0, "shared: {shared}, panic at {at}: what the sink did not see is dropped");
    }
}

/// A doorbell that rings, and then panics while it is told to.
#[derive(Clone)]
struct Fragile {
    bell: Arc<Mutex<Bell>>,
    fails: Arc<AtomicBool>,
}

impl Fragile {
    fn new(bell: Bell) -> Self {
        Self { bell: Arc::new(Mutex::new(bell)), fails: Arc::default() }
    }

    fn fails(&self, now: bool) {
        self.fails.store(now, Ordering::SeqCst);
    }
}

impl Doorbell for Fragile {
    fn ring(&self) {
        self.bell.lock().unwrap().ring();
        if self.fails.load(Ordering::SeqCst) {
            fail();
        }
    }
}

#[test]
fn a_doorbell_that_panics_has_an_owned_batch_published_once() {
    let mut world = World::new(Config::default());
    let mut live = world.prepared(&options(Chaining::Direct));
    let bell = Fragile::new(live.running.doorbell(QueueId(0)).unwrap());
    let mut queue: OwnedQueue<'_, Buf, Fragile> = live.queue.owned(bell.clone());
    for round in 0..100 {
        bell.fails(true);
        panics(|| {
            let mut batch = queue.batch();
            for token in 0..4 {
                assert!(batch.push(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).is_ok());
            }
            if round % 2 == 0 { batch.publish() } else { drop(batch) }
        });
        bell.fails(false);
        assert_eq!(live.device.process_all(0), 4, "each once");
        let mut done = Vec::new();
        queue.reap(usize::MAX, |completion| done.push(completion));
        assert_eq!(outcomes(&done), (0..4).map(|token| (token, Ok(()))).collect::<Vec<_>>());
    }
    assert_eq!((queue.broken(), live.heap.lent()), (None, 0));
    live.device.assert_no_faults();
}

/// Writes down who was woken, and panics at those that it was told to.
#[derive(Clone, Default)]
struct Wakes {
    woken: Arc<Mutex<Vec<u8>>>,
    /// Bit `n`: submitter `n`.
    failing: Arc<AtomicUsize>,
}

impl Wake for Wakes {
    fn wake(&self, submitter: u8) {
        self.woken.lock().unwrap().push(submitter);
        if self.failing.load(Ordering::SeqCst) & 1 << submitter != 0 {
            fail();
        }
    }
}

impl Wakes {
    fn take(&self) -> Vec<u8> {
        let mut woken = std::mem::take(&mut *self.woken.lock().unwrap());
        woken.sort_unstable();
        woken
    }
}

type FragileQueue<'w> = SharedQueue<'w, Buf, Fragile, Wakes>;

/// A shared queue of parts that can be told to panic.
fn fragile<'w>(world: &'w mut World, options: &QueueOptions) -> (Live<'w, FragileQueue<'w>>, Fragile, Wakes) {
    let mut live = world.prepared(options);
    let (bell, wakes) = (Fragile::new(live.running.doorbell(QueueId(0)).unwrap()), Wakes::default());
    let live = live.map(|prepared| prepared.shared(bell.clone(), wakes.clone()));
    (live, bell, wakes)
}

/// What a submitter gets until nothing comes, over the panic of its sink; where the sink fails, if it does.
fn reap_over<D: Doorbell, W: Wake>(
    one: &mut drv_virtio_block::queue::Submitter<'_, '_, Buf, D, W>,
    at: usize,
) -> Vec<Completion<Buf>> {
    let mut taken = Taken::failing_at(at);
    loop {
        match catch_unwind(AssertUnwindSafe(|| one.reap(|done| taken.take(done)))) {
            Ok(0) => return taken.done,
            Ok(_) => {}
            Err(_) => assert_eq!(taken.done.len(), at.wrapping_add(1), "the queue itself panics"),
        }
    }
}

/// All slots of the queue can be had, and nobody holds the turn.
#[track_caller]
fn assert_shared_whole(live: &Live<'_, FragileQueue<'_>>) {
    let mut one = live.queue.submitter().expect("a number");
    let slots = u64::from(live.queue.slots());
    for token in 0..slots {
        one.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).expect("a free slot");
    }
    assert!(one.submit(Request::flush()).is_err(), "no slot exists twice");
    live.device.process_all(0);
    let mut done = Vec::new();
    assert_eq!(one.reap(|completion| done.push(completion)) as u64, slots);
    drop(done);
    assert_eq!((live.queue.broken(), live.heap.lent()), (None, 0));
    let counted = live.queue.statistics();
    assert_eq!((counted.submitted, counted.violations), (counted.completed, 0));
    live.device.assert_no_faults();
}

#[test]
fn a_sink_that_panics_while_it_drains_for_all_gives_the_turn_back_and_wakes_the_others() {
    for (chaining, at) in BOTH.into_iter().flat_map(|form| (0..5_usize).map(move |at| (form, at))) {
        let mut world = World::new(Config { seg_max: 2, ..Config::default() });
        let (live, _, wakes) = fragile(&mut world, &options(chaining));
        let mut all: Vec<_> = (0..3).map(|_| live.queue.submitter().unwrap()).collect();
        for round in 0..20 {
            let heap = &live.heap;
            for one in &mut all {
                let requests = [
                    Request::read(Lba(0), heap.whole(512)),
                    Request::write_durably(Lba(2), heap.whole(512)),
                    Request::read(Lba(8), heap.cut(&[512; 5])),
                    Request::write(Lba(16), heap.cut(&[100, 412])),
                    Request::flush(),
                ];
                for (token, request) in (0..).zip(requests) {
                    one.submit(request.with_token(token)).expect("room for five each");
                }
            }
            let mut done: [Vec<_>; 3] = Default::default();
            let mut seen = Vec::new();
            while live.device.process(0, usize::MAX, Order::Shuffled(round)) > 0 {
                done[0].extend(reap_over(&mut all[0], at.wrapping_sub(done[0].len())));
                seen.extend(wakes.take());
            }
            assert!(seen.contains(&1) && seen.contains(&2), "{chaining:?}, panic at {at}: {seen:?}");
            for (one, done) in all.iter_mut().zip(&mut done).skip(1) {
                done.extend(reap_over(one, usize::MAX));
            }
            for done in &done {
                let expected: Vec<_> = (0..5).map(|token| (token, Ok(()))).collect();
                assert_eq!(outcomes(done), expected, "{chaining:?}, panic at {at}");
            }
        }
        drop(all);
        assert_shared_whole(&live);
    }
}

#[test]
fn a_sink_that_panics_at_what_others_parked_for_it_gets_the_rest_later() {
    for at in 0..10 {
        let mut world = World::new(Config::default());
        let (live, ..) = fragile(&mut world, &options(Chaining::Direct));
        for _ in 0..5 {
            let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
            for token in 0..10 {
                two.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
            }
            live.device.process_all(0);
            assert_eq!(one.reap(|_| ()), 0, "another's are parked");
            let mut taken = Taken::failing_at(at);
            panics(|| two.reap(|done| taken.take(done)));
            if at < 9 {
                assert!(two.arm(), "there is more: it must not sleep");
            }
            taken.at = usize::MAX;
            two.reap(|done| taken.take(done));
            assert_eq!(outcomes(&taken.done), (0..10).map(|token| (token, Ok(()))).collect::<Vec<_>>());
        }
        assert_shared_whole(&live);
    }
}

#[test]
fn a_wake_that_panics_keeps_no_other_submitter_asleep() {
    for failing in 1..4_u8 {
        let mut world = World::new(Config::default());
        let (live, _, wakes) = fragile(&mut world, &options(Chaining::Direct));
        let mut all: Vec<_> = (0..4).map(|_| live.queue.submitter().unwrap()).collect();
        for (token, one) in (0..).zip(&mut all) {
            one.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
        }
        live.device.process_all(0);
        wakes.failing.store(1 << failing, Ordering::SeqCst);
        let mut mine = Vec::new();
        panics(|| all[0].reap(|done| mine.push(done)));
        assert_eq!((mine.len(), wakes.take()), (1, vec![1, 2, 3]), "each once");
        for one in &mut all[1..] {
            assert_eq!(one.reap(|_| ()), 1, "it is there for whoever looks");
        }
        drop((all, mine));
        assert_shared_whole(&live);
    }
}

#[test]
fn a_wake_that_panics_over_a_broken_queue_keeps_nobody_asleep_either() {
    let mut world = World::new(Config::default());
    let (live, _, wakes) = fragile(&mut world, &options(Chaining::Direct));
    let mut all: Vec<_> = (0..4).map(|_| live.queue.submitter().unwrap()).collect();
    all[0].submit(Request::flush()).unwrap();
    live.device.inject(0, Lie::IdOutOfRange);
    live.device.process_all(0);
    wakes.failing.store(1 << 1, Ordering::SeqCst);
    panics(|| all[0].reap(|_| ()));
    assert_eq!((wakes.take(), live.queue.broken().is_some()), (vec![0, 1, 2, 3], true));
}

/// Submits four reads in one batch, and eight more cut into pieces of a sector when `cut`.
fn batch(
    one: &mut drv_virtio_block::queue::Submitter<'_, '_, Buf, Fragile, Wakes>,
    heap: &crate::rig::Heap,
    cut: bool,
) {
    let mut batch = one.batch(8);
    for token in 0..4 {
        assert!(batch.push(Request::read(Lba(token), heap.whole(512)).with_token(token)).is_ok());
    }
    if cut {
        assert!(batch.push(Request::read(Lba(8), heap.cut(&[512; 9])).with_token(4)).is_ok());
    }
    batch.publish();
}

#[test]
fn a_doorbell_that_panics_has_a_shared_batch_published_once_and_costs_no_slot() {
    for cut in [false, true] {
        let mut world = World::new(Config { seg_max: 1, ..Config::default() });
        let (live, bell, _) = fragile(&mut world, &options(Chaining::Direct));
        for round in 0..100 {
            let mut one = live.queue.submitter().unwrap();
            bell.fails(true);
            panics(|| batch(&mut one, &live.heap, cut));
            bell.fails(false);
            // The doorbell rang for the four before the fifth was taken, so that one is not submitted.
            assert_eq!(live.device.process_all(0), 4, "round {round}: each once");
            let done = reap_over(&mut one, usize::MAX);
            assert_eq!(outcomes(&done), (0..4).map(|token| (token, Ok(()))).collect::<Vec<_>>());
        }
        assert_shared_whole(&live);
    }
}

#[test]
fn a_doorbell_that_panics_when_a_batch_is_fuller_than_one_publication_publishes_it_once() {
    let mut world = World::new(Config::default());
    let (live, bell, _) = fragile(&mut world, &QueueOptions { size: 256, ..options(Chaining::Indirect) });
    let mut one = live.queue.submitter().unwrap();
    for _ in 0..10 {
        bell.fails(true);
        panics(|| {
            let mut batch = one.batch(70);
            for token in 0..70 {
                assert!(batch.push(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).is_ok());
            }
        });
        bell.fails(false);
        assert_eq!(live.device.process_all(0), 64, "each once; the next one was not taken");
        let done = reap_over(&mut one, usize::MAX);
        assert_eq!(outcomes(&done), (0..64).map(|token| (token, Ok(()))).collect::<Vec<_>>());
    }
    drop(one);
    assert_shared_whole(&live);
}

#[test]
fn a_doorbell_that_panics_while_a_drainer_sends_the_flush_of_a_write_leaves_nothing_behind() {
    for owner in 0..2 {
        let mut world = World::new(Config::default());
        let (live, bell, wakes) = fragile(&mut world, &options(Chaining::Direct));
        let mut all = [live.queue.submitter().unwrap(), live.queue.submitter().unwrap()];
        for _ in 0..20 {
            all[owner].submit(Request::write_durably(Lba(3), live.heap.whole(512)).with_token(9)).unwrap();
            all[1].submit(Request::read(Lba(0), live.heap.whole(512)).with_token(1)).unwrap();
            live.device.process(0, usize::MAX, Order::AsTaken);
            bell.fails(true);
            panics(|| all[0].reap(|_| ()));
            bell.fails(false);
            assert_eq!(live.device.process_all(0), 1, "the FLUSH, once");
            let mut done: Vec<_> = reap_over(&mut all[0], usize::MAX);
            done.extend(reap_over(&mut all[1], usize::MAX));
            assert_eq!(outcomes(&done), [(1, Ok(())), (9, Ok(()))]);
            assert!(wakes.take().contains(&1), "whose completion another one found");
        }
        drop(all);
        assert_shared_whole(&live);
    }
}
