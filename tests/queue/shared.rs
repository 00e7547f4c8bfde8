//! A queue with many submitters, one step at a time: claims, batches, refusals, cancels, and the end of a queue.
use crate::fake::wire::{block, features};
use crate::fake::{Config, Lie, NotifyPolicy, Order};
use crate::rig::{Clock, Live, Shared, Sub, World, outcomes, pattern, restart, take};
use drv_virtio_block::queue::{Chaining, MAX_SUBMITTERS, QueueOptions, Statistics, Violation};
use drv_virtio_block::request::{Completion, Error, Gone, Lba, Refusal, Request};

const RESET: Result<(), Error> = Err(Error::Gone(Gone::Reset));

fn options() -> QueueOptions {
    QueueOptions { size: 256, chaining: Chaining::Indirect, ..QueueOptions::default() }
}

/// Publishes a batch of `count` flushes with tokens from `first` on.
fn flushes(submitter: &mut Sub<'_, '_>, first: u64, count: u64) {
    let mut batch = submitter.batch(count as u32);
    for token in first..first + count {
        batch.push(Request::flush().with_token(token)).unwrap();
    }
    batch.publish();
}

fn tokens(done: &[Completion<crate::rig::Buf>]) -> Vec<u64> {
    outcomes(done).into_iter().map(|(token, _)| token).collect()
}

#[test]
fn a_batch_is_one_index_store_and_one_doorbell_decision() {
    for mask in [0, features::EVENT_IDX] {
        let mut world = World::new(Config::default());
        let wishes = drv_virtio_block::device::Wishes {
            features: drv_virtio_block::spec::Features::IMPLEMENTED.without(mask),
            ..Default::default()
        };
        let (live, _) = world.start(&wishes, &options()).map(|mut all| all.remove(0)).share();
        let mut one = live.queue.submitter().unwrap();
        flushes(&mut one, 0, 64);
        let counts = live.device.counts(0);
        assert_eq!((counts.published, counts.publishes, live.device.notifications(0)), (64, 1, 1));
        live.device.process_all(0);
        assert_eq!(tokens(&take(&mut one)), (0..64).collect::<Vec<_>>());
        live.device.assert_no_faults();
    }
}

#[test]
fn doorbells_are_the_crossings_whoever_publishes() {
    for policy in [NotifyPolicy::Always, NotifyPolicy::EveryNth(7)] {
        let mut world = World::new(Config::default());
        let (live, _) = world.shared(&options());
        live.device.set_notify_policy(0, policy);
        let mut submitters: Vec<_> = (0..3).map(|_| live.queue.submitter().unwrap()).collect();
        let (mut sent, mut size) = (0, 1);
        while sent < 66_000 {
            size = size * 37 % 67 % 64 + 1;
            let submitter = &mut submitters[sent as usize % 3];
            let ((), publish) = live.device.watch_publish(0, || flushes(submitter, sent, size));
            assert_eq!((publish.entries, publish.rung), (size, publish.due), "at {sent}");
            sent += size;
            if sent % 3 != 0 || sent % 7 == 0 {
                live.device.process(0, usize::MAX, Order::AsTaken);
                for submitter in &mut submitters {
                    drop(take(submitter));
                }
            }
        }
        assert_eq!(live.queue.statistics().notifications, live.device.notifications(0));
        live.device.assert_no_faults();
    }
}

#[test]
fn there_are_as_many_submitters_as_promised_and_numbers_are_used_again() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&options());
    let mut all: Vec<_> = (0..MAX_SUBMITTERS).map(|_| live.queue.submitter().unwrap()).collect();
    assert!(all.iter().map(Sub::number).eq(0..MAX_SUBMITTERS));
    assert!(live.queue.submitter().is_none());
    flushes(&mut all[5], 0, 1);
    drop(all.remove(5));
    assert!(live.queue.submitter().is_none(), "its request is still out");
    drop(all.remove(7));
    assert_eq!(live.queue.submitter().unwrap().number(), 8, "the idle one's number");
}

#[test]
fn every_submitter_uses_every_slot_when_it_is_alone() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&QueueOptions { slots: 100, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    for submitter in [&mut one, &mut two] {
        flushes(submitter, 0, 100);
        let refused = submitter.submit(Request::flush().with_token(5)).unwrap_err();
        assert_eq!((refused.why, refused.request.token()), (Refusal::Full, 5));
        live.device.process_all(0);
        assert_eq!(take(submitter).len(), 100);
        assert!(!submitter.arm(), "it may sleep, and leaves its stash to others");
    }
    assert_eq!(live.queue.statistics().full, 2);
    live.device.assert_no_faults();
}

#[test]
fn slots_that_a_batch_reserved_and_did_not_use_are_given_back() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&QueueOptions { slots: 64, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    for _ in 0..5 {
        let mut batch = one.batch(64);
        batch.push(Request::flush().with_token(1)).unwrap();
        assert_eq!(two.submit(Request::flush()).unwrap_err().why, Refusal::Full, "reserved");
        batch.publish();
        // The stash keeps 32.
        flushes(&mut two, 0, 31);
        assert_eq!(two.submit(Request::flush()).unwrap_err().why, Refusal::Full);
        live.device.process_all(0);
        assert_eq!((take(&mut one).len(), take(&mut two).len()), (1, 31));
        assert!(!one.arm() && !two.arm(), "both may sleep, and have nothing left");
    }
    live.device.assert_no_faults();
}

#[test]
fn a_refusal_leaves_the_reservation_as_it_was() {
    let mut world = World::new(Config { seg_max: 1, ..Config::default() });
    let (live, _) = world.shared(&QueueOptions { slots: 8, parents: 1, ..options() });
    let mut one = live.queue.submitter().unwrap();
    for _ in 0..20 {
        let mut batch = one.batch(4);
        assert!(batch.push(Request::read(Lba(1 << 40), live.heap.whole(512))).is_err());
        batch.push(Request::read(Lba(0), live.heap.cut(&[512; 2]))).unwrap();
        assert_eq!(batch.push(Request::read(Lba(0), live.heap.cut(&[512; 2]))).unwrap_err().why, Refusal::Full);
        batch.push(Request::read(Lba(0), live.heap.whole(512))).unwrap();
        batch.publish();
        live.device.process_all(0);
        live.device.process_all(0);
        assert_eq!(take(&mut one).len(), 2);
    }
    assert_eq!((live.heap.lent(), live.queue.statistics().full), (0, 20));
    flushes(&mut one, 0, 8);
    live.device.assert_no_faults();
}

#[test]
fn a_forgotten_batch_hurts_nobody_and_comes_back_with_the_reset() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&QueueOptions { slots: 64, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    let mut batch = one.batch(10);
    for token in 0..4 {
        batch.push(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
    }
    std::mem::forget(batch);
    flushes(&mut two, 0, 54);
    live.device.process_all(0);
    assert_eq!(take(&mut two).len(), 54);
    assert!(take(&mut one).is_empty());
    assert_eq!(live.heap.lent(), 4);
    drop((one, two));
    let Live { device, running, queue, .. } = live;
    let stopped = running.reset(&Clock::default()).unwrap();
    let mut back = Vec::new();
    let prepared = queue.reclaim(&stopped.proof(), |done| back.push(done)).unwrap();
    assert_eq!(outcomes(&back), (0..4).map(|token| (token, RESET)).collect::<Vec<_>>());
    drop(restart(stopped, &prepared, &device));
    device.assert_no_faults();
}

#[test]
fn a_request_that_the_device_knows_is_not_withdrawn() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&options());
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    let ticket = one.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(1)).unwrap();
    assert!(one.cancel(ticket).is_none() && two.cancel(ticket).is_none());
    live.device.process_all(0);
    assert!(one.cancel(ticket).is_none(), "done, and not yet reaped");
    assert_eq!(tokens(&take(&mut one)), [1]);
    assert!(one.cancel(ticket).is_none(), "reaped");
    one.submit(Request::flush()).unwrap();
    assert!(one.cancel(ticket).is_none(), "another use of the slot");
}

#[test]
fn a_ticket_of_another_queue_withdraws_nothing() {
    let (mut large, mut small) = (World::new(Config::default()), World::new(Config::default()));
    let (large, _) = large.shared(&options());
    let (small, _) = small.shared(&QueueOptions { slots: 3, ..options() });
    let (mut one, mut two) = (large.queue.submitter().unwrap(), small.queue.submitter().unwrap());
    two.submit(Request::flush()).unwrap();
    for _ in 0..200 {
        let ticket = one.submit(Request::flush()).unwrap();
        assert!(two.cancel(ticket).is_none());
    }
}

#[test]
fn a_broken_queue_is_seen_by_all_and_counted_once() {
    for (lie, violation) in [
        (Lie::IdOutOfRange, Violation::UnknownId),
        (Lie::IndexAhead(3000), Violation::IndexJump),
        (Lie::StatusUnwritten, Violation::NoStatus),
        (Lie::IdNotInFlight, Violation::NotInFlight),
    ] {
        let mut world = World::new(Config::default());
        let (live, wakes) = world.shared(&options());
        let mut submitters: Vec<_> = (0..4).map(|_| live.queue.submitter().unwrap()).collect();
        for (token, submitter) in (0..).zip(&mut submitters) {
            submitter.submit(Request::read(Lba(0), live.heap.whole(512)).with_token(token)).unwrap();
        }
        let taken = live.device.take(0, 4);
        live.device.inject(0, lie);
        live.device.complete(0, &taken[..1]);
        assert!(take(&mut submitters[2]).is_empty());
        assert_eq!(live.queue.broken(), Some(violation), "{lie:?}");
        assert_eq!(
            {
                let mut woken = wakes.take();
                woken.sort_unstable();
                woken
            },
            [0, 1, 2, 3],
            "nobody sleeps on it"
        );
        live.device.complete_all(0, Order::AsTaken);
        for submitter in &mut submitters {
            assert!(take(submitter).is_empty());
            assert!(submitter.arm(), "nobody goes to sleep on it either");
            let refused = submitter.submit(Request::read(Lba(0), live.heap.whole(512))).unwrap_err();
            assert_eq!(refused.why, Refusal::Broken);
        }
        let statistics = live.queue.statistics();
        assert_eq!((statistics.violations, statistics.completed, statistics.full), (1, 0, 0), "{lie:?}");
        assert_eq!(live.heap.lent(), 4);
        drop(submitters);
        recover(live, &[0, 1, 2, 3]);
    }
}

/// Resets; these tokens come back, once each; a new life begins.
fn recover(live: Live<'_, Shared<'_>>, expected: &[u64]) {
    let Live { device, heap, running, queue } = live;
    let stopped = running.reset(&Clock::default()).unwrap();
    let mut back = Vec::new();
    let prepared = queue.reclaim(&stopped.proof(), |done| back.push(done)).unwrap();
    assert_eq!(outcomes(&back), expected.iter().map(|token| (*token, RESET)).collect::<Vec<_>>());
    drop(back);
    let running = restart(stopped, &prepared, &device);
    let (live, _) = Live { device, heap, running, queue: prepared }.share();
    let mut one = live.queue.submitter().unwrap();
    for _ in 0..3 {
        let slots = live.queue.slots();
        flushes(&mut one, 0, slots.into());
        live.device.process_all(0);
        assert_eq!(take(&mut one).len(), usize::from(slots));
    }
    live.device.assert_no_faults();
}

#[test]
fn whatever_a_request_is_at_it_comes_back_once_with_the_reset() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&QueueOptions { large_tables: 1, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    let heap = live.heap.clone();
    let kinds = |token| match token % 4 {
        0 => Request::read(Lba(0), heap.whole(512)),
        1 => Request::write_durably(Lba(8), heap.cut(&[256, 256])),
        2 => Request::write(Lba(16), heap.cut(&[512; 8])),
        _ => Request::discard(Lba(64), 2),
    };
    for token in 0..16 {
        let submitter = if token % 2 == 0 { &mut one } else { &mut two };
        submitter.submit(kinds(token).with_token(token)).unwrap();
    }
    // Some completed and parked for the other, some completed and not drained, some with the device.
    let taken = live.device.take(0, 99);
    live.device.complete(0, &taken[..6]);
    let done = tokens(&take(&mut one));
    live.device.complete(0, &taken[6..9]);
    drop((one, two));
    let rest: Vec<u64> = (0..16).filter(|token| !done.contains(token)).collect();
    recover(live, &rest);
}

#[test]
fn the_counters_of_a_shared_queue_are_exact() {
    let mut world = World::new(Config { seg_max: 1, ..Config::default() });
    let (live, _) = world.shared(&QueueOptions { slots: 8, ..options() });
    let (mut one, mut two) = (live.queue.submitter().unwrap(), live.queue.submitter().unwrap());
    flushes(&mut one, 0, 5);
    two.submit(Request::write_durably(Lba(0), live.heap.whole(512))).unwrap();
    two.submit(Request::read(Lba(8), live.heap.cut(&[512; 2]))).unwrap();
    one.submit(Request::flush()).unwrap();
    assert_eq!(two.submit(Request::flush()).unwrap_err().why, Refusal::Full);
    live.device.inject(0, Lie::Status(block::IOERR));
    live.device.process_all(0);
    take(&mut one);
    live.device.process_all(0);
    take(&mut one);
    assert_eq!(take(&mut two).len(), 2);
    one.note_interrupt();
    let expected = Statistics {
        submitted: 5 + 2 + 2 + 1,
        completed: 10,
        notifications: live.device.notifications(0),
        interrupts: 1,
        violations: 0,
        length_anomalies: 0,
        full: 1,
    };
    assert_eq!(live.queue.statistics(), expected);
}

#[test]
fn requests_through_a_shared_queue_do_what_they_say() {
    let mut world = World::new(Config::default());
    let (live, _) = world.shared(&QueueOptions { large_tables: 1, ..options() });
    let (mut one, heap) = (live.queue.submitter().unwrap(), live.heap.clone());
    let mut ask = |request| {
        one.submit(request).unwrap();
        let mut done = take(&mut one);
        while done.is_empty() {
            live.device.process_all(0);
            done = take(&mut one);
        }
        done.remove(0)
    };
    let data = pattern(1, 4096);
    for lens in [vec![4096], vec![1000, 3096], vec![512; 8]] {
        let buffer = heap.cut(&lens);
        buffer.set(&data);
        assert_eq!(ask(Request::write_durably(Lba(8), buffer)).result, Ok(()));
        live.device.power_cut();
        assert_eq!(ask(Request::read(Lba(8), heap.cut(&lens))).buffer.unwrap().bytes(), data);
        assert_eq!(ask(Request::write_zeroes(Lba(8), 8, true)).result, Ok(()));
        assert_eq!(live.device.disk(8, 8), vec![0; 4096]);
    }
    assert_eq!(&ask(Request::get_id(heap.whole(20))).buffer.unwrap().bytes(), b"fake-disk-0123456789");
    assert_eq!(ask(Request::discard(Lba(0), 2000)).result, Ok(()), "in pieces");
    live.device.assert_no_faults();
}
