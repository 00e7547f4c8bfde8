//! Who drains, who gets what: completions of others are parked and their submitters woken; nobody sleeps on one.
#[path = "parking/mixes.rs"]
mod mixes;

use crate::fake::wire::features;
use crate::fake::{Config, Lie, Order};
use crate::rig::{World, outcomes, take};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{DeviceFault, Error, Lba, Request};

const VECTOR: u16 = 1;

fn options() -> QueueOptions {
    QueueOptions { size: 256, chaining: Chaining::Direct, ..QueueOptions::default() }
}

#[test]
fn whoever_drains_gets_its_own_and_parks_the_rest() {
    let mut world = World::new(Config::default());
    let (live, wakes) = world.shared(&options());
    let mut all: Vec<_> = (0..3).map(|_| live.queue.submitter().unwrap()).collect();
    for token in 0..30 {
        let request = Request::read(Lba(token), live.heap.whole(512)).with_token(token);
        all[token as usize % 3].submit(request).unwrap();
    }
    live.device.process(0, 99, Order::Shuffled(4));
    let expect = |of: u64| (0..10).map(|n| (3 * n + of, Ok(()))).collect::<Vec<_>>();
    assert_eq!(outcomes(&take(&mut all[1])), expect(1));
    let mut woken = wakes.take();
    woken.sort_unstable();
    assert_eq!(woken, [0, 2], "each once, and not the drainer");
    assert_eq!(outcomes(&take(&mut all[0])), expect(0));
    assert_eq!(outcomes(&take(&mut all[2])), expect(2));
    assert!(wakes.take().is_empty() && all.iter_mut().all(|one| take(one).is_empty()));
    assert_eq!(live.heap.lent(), 0);
}

#[test]
fn a_parked_answer_is_the_devices_word_for_word() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&options());
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    let lies = [Lie::Status(1), Lie::Status(2), Lie::Status(9), Lie::UsedLen(511), Lie::UsedLen(512)];
    for (token, lie) in (0..).zip(lies) {
        two.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
        live.device.inject(0, lie);
    }
    live.device.process(0, 1, Order::AsTaken);
    assert!(take(&mut one).is_empty());
    let faults = [DeviceFault::Unsupported, DeviceFault::BadStatus(9), DeviceFault::ShortRead].map(Error::Device);
    let results = [Err(Error::Medium), Err(faults[0]), Err(faults[1]), Err(faults[2]), Ok(())];
    let done = take(&mut two);
    assert_eq!(outcomes(&done), (0..).zip(results).collect::<Vec<_>>());
    assert!(done.iter().all(|done| done.buffer.is_some()));
}

#[test]
fn a_parked_completion_keeps_its_slot_until_it_is_taken() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&QueueOptions { slots: 4, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    for token in 0..4 {
        two.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
    }
    live.device.process_all(0);
    assert!(take(&mut one).is_empty());
    assert!(one.submit(Request::flush()).is_err(), "all four are parked");
    assert_eq!(take(&mut two).len(), 4);
    assert!(one.submit(Request::flush()).is_ok());
}

#[test]
fn a_durable_write_drained_by_another_is_flushed_and_returned_to_its_own() {
    for chaining in [Chaining::Direct, Chaining::Indirect] {
        let mut world = World::new(Config::default());
        let (live, wakes) = world.shared(&QueueOptions { chaining, ..options() });
        let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
        two.submit(Request::write_durably(Lba(3), live.heap.whole(512)).with_token(9)).unwrap();
        live.device.process_all(0);
        assert!(take(&mut one).is_empty() && wakes.take().is_empty(), "not durable yet");
        assert_eq!(live.device.process_all(0), 1, "the FLUSH, published by the drainer");
        assert!(take(&mut one).is_empty());
        assert_eq!(wakes.take(), [1]);
        assert_eq!(outcomes(&take(&mut two)), [(9, Ok(()))]);
        live.device.power_cut();
        assert_eq!(live.device.disk(3, 1), [crate::rig::FRESH; 512]);
        live.device.assert_no_faults();
    }
}

#[test]
fn a_cut_request_drained_by_another_goes_on_and_leaves_no_slot_behind() {
    let mut world = World::new(Config { seg_max: 1, ..Config::default() });
    let (live, _) = world.shared(&QueueOptions { slots: 8, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    for round in 0..20 {
        let mut batch = two.batch(3);
        batch.push(Request::read(Lba(0), live.heap.cut(&[512; 9])).with_token(round)).unwrap();
        batch.publish();
        let mut done = Vec::new();
        while done.is_empty() {
            assert!(live.device.process(0, 1, Order::AsTaken) > 0, "it goes on");
            assert!(take(&mut one).is_empty());
            if round % 2 == 0 || live.device.poll_available(0) == 0 {
                done = take(&mut two);
            }
        }
        assert_eq!(outcomes(&done), [(round, Ok(()))]);
        take(&mut two);
    }
    for _ in 0..8 {
        one.submit(Request::flush()).expect("all slots are free");
    }
    live.device.assert_no_faults();
}

#[test]
fn answers_without_the_device_wait_for_their_submitter_alone() {
    let mut world = World::new(Config { writeback: false, ..Config::default() });
    let (live, wakes) = world.shared(&options());
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    one.submit(Request::flush().with_token(1)).unwrap();
    assert!(one.arm(), "nobody is to sleep on it");
    assert!(!two.arm(), "it is not this one's");
    assert!(take(&mut two).is_empty() && wakes.take().is_empty());
    assert_eq!(outcomes(&take(&mut one)), [(1, Ok(()))]);
    assert!(!one.arm());
    assert_eq!(live.device.poll_available(0), 0);
}

#[test]
fn a_completion_between_drain_and_arm_is_not_slept_on() {
    for mask in [0, features::EVENT_IDX] {
        let mut world = World::new(Config::default());
        let wishes = drv_virtio_block::device::Wishes {
            features: drv_virtio_block::spec::Features::IMPLEMENTED.without(mask),
            ..Default::default()
        };
        let (live, _) = world.start(&wishes, &options()).map(|mut all| all.remove(0)).share();
        let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
        for round in 0..100 {
            two.submit(Request::flush().with_token(round)).unwrap();
            assert!(take(&mut one).is_empty() && take(&mut two).is_empty());
            let taken = live.device.take(0, 1);
            live.device.complete_quietly(0, &taken);
            assert!(one.arm() && two.arm(), "it is there for whoever looks");
            live.device.signal(0);
            assert!(take(&mut one).is_empty());
            assert!(two.arm(), "parked for this one");
            assert_eq!(outcomes(&take(&mut two)), [(round, Ok(()))]);
        }
    }
}

#[test]
fn an_armed_queue_interrupts_at_the_next_completion_of_anybody() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&options());
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    for round in 1..=100 {
        one.submit(Request::flush()).unwrap();
        two.submit(Request::flush()).unwrap();
        assert!(!one.arm() && !two.arm());
        let taken = live.device.take(0, 2);
        live.device.complete(0, &taken[..1]);
        assert_eq!(live.device.interrupts_sent(VECTOR), round);
        live.device.complete(0, &taken[1..]);
        assert_eq!(live.device.interrupts_sent(VECTOR), round, "no storm");
        assert_eq!((take(&mut one).len(), take(&mut two).len()), (1, 1));
    }
}

#[test]
fn a_submitter_that_reaps_inside_anothers_drain_is_told_to_look_again_and_loses_nothing() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&options());
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    for token in 0..10 {
        one.submit(Request::flush().with_token(token)).unwrap();
    }
    let taken = live.device.take(0, 10);
    live.device.complete(0, &taken[..5]);
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    one.reap(|done| {
        if outer.is_empty() {
            // More is done while the first drain is under way; the second submitter cannot enter.
            live.device.complete(0, &taken[5..]);
            two.submit(Request::flush().with_token(99)).unwrap();
            live.device.process_all(0);
            two.reap(|done| inner.push(done));
            assert!(two.arm(), "somebody else is draining: do not wait");
        }
        outer.push(done);
    });
    assert_eq!((outer.len(), inner.len()), (5, 0), "one drain is what was there when it began");
    outer.extend(take(&mut one));
    assert_eq!(outer.len(), 10);
    inner.extend(take(&mut two));
    assert_eq!(outcomes(&inner), [(99, Ok(()))]);
    live.device.assert_no_faults();
}
