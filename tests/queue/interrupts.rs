//! Interrupts against the driver's event index: sent exactly when asked for, none lost between drain and arm, no storm.
use crate::fake::wire::features;
use crate::fake::{Config, Order, Taken};
use crate::rig::{Live, Owned, World};
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Request};

/// The queue's vector; 0 is the configuration's.
const VECTOR: u16 = 1;

fn options() -> QueueOptions {
    QueueOptions { size: 256, chaining: Chaining::Indirect, ..QueueOptions::default() }
}

fn interrupts(live: &Live<'_, Owned<'_>>) -> u64 {
    live.device.interrupts_sent(VECTOR)
}

/// Submits `count` requests and has the device take them.
fn submit(live: &mut Live<'_, Owned<'_>>, count: usize) -> Vec<Taken> {
    let mut batch = live.queue.batch();
    for _ in 0..count {
        batch.push(Request::flush()).unwrap();
    }
    batch.publish();
    live.device.take(0, count)
}

#[test]
fn an_interrupt_comes_with_the_completion_that_was_wished_for_and_no_other() {
    for want in [1, 2, 5, 16] {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options());
        let taken = submit(&mut live, 16);
        assert!(!live.queue.arm(want));
        for (at, one) in (1..).zip(&taken) {
            live.device.complete(0, std::slice::from_ref(one));
            assert_eq!(interrupts(&live), u64::from(at >= want), "want {want}, completion {at}");
        }
        assert_eq!(live.reap().len(), 16);
    }
}

#[test]
fn interrupts_are_the_crossings_across_the_wrap() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let (mut chains, mut armed, mut size) = (0, 0, 1);
    while chains < 70_000 {
        size = size * 37 % 67 % 64 + 1;
        let taken = submit(&mut live, size);
        let want = (chains % size as u64) as u16 + 1;
        assert!(!live.queue.arm(want), "nothing is done yet");
        armed += 1;
        let (before, rest) = taken.split_at(usize::from(want) - 1);
        live.device.complete(0, before);
        assert_eq!(interrupts(&live), armed - 1, "too early at {chains}");
        live.device.complete(0, rest);
        assert_eq!(interrupts(&live), armed, "at {chains}");
        assert_eq!(live.reap().len(), size);
        chains += size as u64;
    }
    let counts = live.device.counts(0);
    assert_eq!((counts.interrupts, counts.interrupts_due), (armed, armed));
    live.device.assert_no_faults();
}

#[test]
fn a_polled_queue_is_interrupted_at_most_once_in_65536_chains() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    for _ in 0..1100 {
        let taken = submit(&mut live, 64);
        live.device.complete(0, &taken);
        assert_eq!(live.reap().len(), 64);
    }
    assert!(interrupts(&live) <= 1, "{} interrupts in 70400 chains", interrupts(&live));
}

#[test]
fn a_polled_queue_without_event_idx_is_never_interrupted() {
    let mut world = World::new(Config::default());
    let mut live = world.owned_without(features::EVENT_IDX, &options());
    for _ in 0..100 {
        let taken = submit(&mut live, 64);
        live.device.complete(0, &taken);
        live.reap();
    }
    assert_eq!(interrupts(&live), 0);
}

#[test]
fn a_completion_between_drain_and_arm_is_found_by_the_second_look() {
    for event_idx in [true, false] {
        let mut world = World::new(Config::default());
        let mut live = world.owned_without(if event_idx { 0 } else { features::EVENT_IDX }, &options());
        for round in 0..200 {
            let taken = submit(&mut live, 2);
            live.device.complete(0, &taken[..1]);
            assert_eq!(live.reap().len(), 1);
            // The device is between its index and its decision: the driver arms in that gap.
            live.device.complete_quietly(0, &taken[1..]);
            assert!(live.queue.arm(1), "round {round}: it is there");
            live.device.signal(0);
            assert_eq!(live.reap().len(), 1);
            live.queue.disarm();
        }
    }
}

#[test]
fn a_completion_after_the_second_look_interrupts() {
    for event_idx in [true, false] {
        let mut world = World::new(Config::default());
        let mut live = world.owned_without(if event_idx { 0 } else { features::EVENT_IDX }, &options());
        for round in 0..200 {
            let taken = submit(&mut live, 1);
            live.reap();
            assert!(!live.queue.arm(1));
            live.device.complete_quietly(0, &taken);
            assert!(live.device.signal(0), "round {round}");
            assert_eq!(interrupts(&live), round + 1);
            live.queue.disarm();
            assert_eq!(live.reap().len(), 1);
        }
    }
}

#[test]
fn the_wish_is_clamped_to_what_is_in_flight() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    for count in 1..=20_usize {
        let taken = submit(&mut live, count);
        assert!(!live.queue.arm(u16::MAX), "{count} in flight");
        live.device.complete(0, &taken[..count - 1]);
        assert_eq!(interrupts(&live), count as u64 - 1);
        live.device.complete(0, &taken[count - 1..]);
        assert_eq!(interrupts(&live), count as u64, "the last one interrupts: there will be no other");
        live.reap();
    }
    assert!(!live.queue.arm(0), "idle: the next completion, whenever it comes");
    let taken = submit(&mut live, 1);
    live.device.complete(0, &taken);
    assert_eq!(interrupts(&live), 21);
}

#[test]
fn a_wish_for_more_than_there_is_waits_for_the_rest() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let taken = submit(&mut live, 8);
    live.device.complete(0, &taken[..3]);
    assert!(!live.queue.arm(5), "three are there, five are wished for");
    live.device.complete(0, &taken[3..4]);
    assert_eq!(interrupts(&live), 0);
    live.device.complete(0, &taken[4..5]);
    assert_eq!(interrupts(&live), 1);
    assert_eq!(live.reap().len(), 5);
    live.device.complete(0, &taken[5..]);
    assert!(live.queue.arm(3), "all three are there already");
    assert_eq!(live.reap().len(), 3);
}

#[test]
fn entries_left_by_a_bounded_reap_are_not_slept_on() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    let taken = submit(&mut live, 8);
    live.device.complete(0, &taken);
    assert_eq!(live.queue.reap(3, |_| ()), 3);
    assert!(live.queue.arm(1));
    assert_eq!(live.queue.reap(99, |_| ()), 5);
}

#[test]
fn one_wish_is_one_interrupt_however_many_completions_follow() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options());
    for round in 1..=100 {
        let taken = submit(&mut live, 64);
        assert!(!live.queue.arm(1));
        for one in taken.chunks(1) {
            live.device.complete(0, one);
        }
        assert_eq!(interrupts(&live), round, "no storm");
        live.queue.disarm();
        assert_eq!(live.reap().len(), 64);
    }
}

#[test]
fn disarmed_without_event_idx_the_device_is_silent() {
    let mut world = World::new(Config::default());
    let mut live = world.owned_without(features::EVENT_IDX, &options());
    let taken = submit(&mut live, 9);
    assert!(!live.queue.arm(1));
    live.device.complete(0, &taken[..1]);
    assert_eq!(interrupts(&live), 1);
    live.queue.disarm();
    for one in taken[1..].chunks(1) {
        live.device.complete(0, one);
    }
    assert_eq!(interrupts(&live), 1);
    assert_eq!(live.reap().len(), 9);
}

#[test]
fn a_loop_that_arms_and_waits_never_sleeps_on_a_completion() {
    // The loop of the documentation, with the device acting at each point where the driver can be overtaken.
    for (event_idx, moment) in [true, false].into_iter().flat_map(|event| (0..4).map(move |moment| (event, moment))) {
        let mut world = World::new(Config::default());
        let mut live = world.owned_without(if event_idx { 0 } else { features::EVENT_IDX }, &options());
        let mut seen = 0;
        for round in 0..100_u64 {
            live.queue.submit(Request::read(Lba(round), live.heap.whole(512)).with_token(round)).unwrap();
            let act = |at: usize, live: &Live<'_, Owned<'_>>| {
                if at == moment {
                    live.device.process(0, 1, Order::AsTaken);
                }
            };
            act(0, &live);
            let before = interrupts(&live);
            let mut done = live.reap().len();
            act(1, &live);
            if done == 0 && !live.queue.arm(1) {
                act(2, &live);
                act(3, &live);
                assert!(interrupts(&live) > before, "asleep, with a completion there: moment {moment}");
                live.queue.disarm();
            }
            done += live.reap().len();
            assert_eq!(done, 1, "round {round}, moment {moment}");
            seen += done;
        }
        assert_eq!(seen, 100);
    }
}
