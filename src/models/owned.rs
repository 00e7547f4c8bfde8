//! One owner and its device: the ring's four rules of order (`barrier.rs`), through the queue that relies on them.
use super::disk::Ground;
use super::explore;
use crate::request::{Lba, Request};
use crate::spec::{Features, feature};
use loom::thread;

const NOTIFICATIONS: [u64; 2] = [feature::EVENT_IDX, 0];

/// Fails without: `entries_before_index` (the device sees an index before its entry or descriptors),
/// `index_before_device_event` (a device that goes to sleep is not woken), `index_before_used_entries`.
#[test]
fn what_is_published_reaches_a_device_that_goes_to_sleep() {
    for features in NOTIFICATIONS {
        explore(3, move || {
            let ground = Ground::new(|disk| disk.features = Features(features));
            let (prepared, mut device) = ground.queue();
            let mut queue = prepared.owned(ground.signals());
            // The wish is a former one, so that only the one to come can ring.
            device.ring.device_event(0, false);
            let device = thread::spawn(move || {
                device.run();
                device
            });
            for number in 0..2 {
                queue.submit(Request::read(Lba(0), ground.page(number, 512))).unwrap();
            }
            device.join().unwrap().finish();
            let done = queue.reap(2, |done| assert_eq!((done.result, done.buffer.unwrap().uses()), (Ok(()), 1)));
            assert_eq!(done, 2);
            drop(queue);
            // SAFETY: the device's thread is joined and the queue gone.
            unsafe { ground.clear() };
        });
    }
}

/// Fails without: `event_before_last_look` (a completion between the last look and the wish interrupts nobody),
/// `index_before_used_entries` (an entry, a status or a buffer from before the index that covers it).
#[test]
fn a_completion_is_found_by_the_last_look_or_interrupts() {
    for features in NOTIFICATIONS {
        explore(4, move || {
            let ground = Ground::new(|disk| disk.features = Features(features));
            let (prepared, mut device) = ground.queue();
            let mut queue = prepared.owned(ground.signals());
            queue.submit(Request::read(Lba(0), ground.page(0, 512)).with_token(7)).unwrap();
            let device = thread::spawn(move || device.serve());
            let mut done = 0;
            loop {
                done += queue.reap(2, |done| {
                    assert_eq!((done.token, done.result, done.buffer.unwrap().uses()), (7, Ok(()), 1));
                });
                if done == 1 || !queue.arm(1) {
                    break;
                }
            }
            assert_eq!(device.join().unwrap(), 1);
            if done == 0 {
                assert!(ground.signals().interrupt.take(), "the owner waits, the chain is used, nobody interrupts");
                assert_eq!(queue.reap(2, drop), 1);
            }
            drop(queue);
            // SAFETY: the device's thread is joined and the queue gone.
            unsafe { ground.clear() };
        });
    }
}
