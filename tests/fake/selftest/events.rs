//! Doorbells and interrupts: exactly those that are due.
use super::hand_ring::{ALL, HandRing};
use crate::fake::wire::{block, features, isr};
use crate::fake::{Config, INTX, NO_VECTOR, NotifyPolicy, Order, Publish};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const FLAGS: u64 = ALL & !features::EVENT_IDX;

/// A driver that rings by looking at each entry that it publishes.
fn publish_and_ring(ring: &mut HandRing, slots: &[u16]) {
    let old = ring.avail;
    for slot in slots {
        let head = ring.build(*slot, block::FLUSH, 0, 0);
        ring.offer(head);
    }
    ring.publish();
    let asked = (0..slots.len() as u16).any(|at| old.wrapping_add(at) == ring.avail_event());
    if asked {
        ring.device.notify(0);
    }
}

#[test]
fn every_policy_counts_a_correct_drivers_doorbells_exactly_across_the_wrap() {
    let (wrap, short) = (14_000, 2_000);
    let policies = [
        (NotifyPolicy::Always, wrap),
        (NotifyPolicy::SuppressWhileBusy, short),
        (NotifyPolicy::EveryNth(1), short),
        (NotifyPolicy::EveryNth(5), wrap),
        (NotifyPolicy::Never, short),
    ];
    for (policy, steps) in policies {
        let mut ring = HandRing::plain();
        ring.device.set_notify_policy(0, policy);
        for step in 0..steps {
            // Publishes of 1 to 4 entries, up to three of them between two visits of the device.
            for publish in 0..=step % 3 {
                let first = 4 * publish as u16;
                let slots: Vec<u16> = (first..=first + ((step / 3 + publish) % 4) as u16).collect();
                publish_and_ring(&mut ring, &slots);
            }
            ring.device.process(0, 3, Order::Shuffled(step));
            ring.reap();
        }
        ring.device.assert_no_faults();
        assert!(steps == short || ring.device.counts(0).published > 65_536);
        assert_eq!(ring.device.notifications(0), ring.device.expected_notifications(0), "{policy:?}");
        assert!(ring.device.notifications(0) <= ring.device.notifications_asked(0), "{policy:?}");
        assert_eq!(ring.device.notifications(0) == 0, policy == NotifyPolicy::Never);
    }
}

#[test]
fn a_doorbell_too_few_or_too_many_shows() {
    let mut ring = HandRing::plain();
    let device = ring.device.clone();
    let ((), seen) = device.watch_publish(0, || ring.submit(0, 0, 0, 512));
    assert_eq!(seen, Publish { entries: 1, due: 1, rung: 0 });
    let ((), seen) = device.watch_publish(0, || {
        ring.submit(1, 0, 0, 512);
        device.notify(0);
    });
    assert_eq!(seen, Publish { entries: 1, due: 0, rung: 1 }, "the device had asked for entry 0 only");
    assert_eq!((device.notifications(0), device.expected_notifications(0)), (1, 1));
}

#[test]
fn without_event_idx_every_publish_rings_unless_the_flag_is_set() {
    let mut ring = HandRing::live(Config::default(), FLAGS, 64);
    let device = ring.device.clone();
    assert_eq!((ring.used_flags(), ring.avail_event()), (0, 0x5a5a), "the event field holds garbage");
    let ((), seen) = device.watch_publish(0, || ring.submit(0, 0, 0, 512));
    assert_eq!(seen.due, 1);
    let ((), seen) = device.watch_publish(0, || ring.submit(1, 0, 0, 512));
    assert_eq!(seen.due, 1, "every publish, not every crossing");
    device.suppress(0);
    assert_eq!(ring.used_flags(), 1);
    let ((), seen) = device.watch_publish(0, || ring.submit(2, 0, 0, 512));
    assert_eq!(seen, Publish { entries: 1, due: 0, rung: 0 });
    assert!(device.rearm(0), "and the device looks again after it has asked");
    assert_eq!(ring.used_flags(), 0);
}

#[test]
fn suppression_ends_with_a_look_that_finds_what_came_meanwhile() {
    let mut ring = HandRing::plain();
    let device = ring.device.clone();
    device.set_notify_policy(0, NotifyPolicy::SuppressWhileBusy);
    device.suppress(0);
    assert_eq!(ring.used_flags(), 0, "with EVENT_IDX the flags stay 0");
    let ((), seen) = device.watch_publish(0, || ring.submit(0, 0, 0, 512));
    assert_eq!(seen.due, 0);
    assert!(device.rearm(0));
    assert_eq!(device.process_all(0), 1);
    assert!(!device.rearm(0));
    assert_eq!(ring.avail_event(), 1);
}

#[test]
fn noise_in_the_used_flags_does_not_change_what_is_due() {
    let mut ring = HandRing::plain();
    let device = ring.device.clone();
    device.set_used_flags_noise(0, 1);
    device.rearm(0);
    assert_eq!(ring.used_flags(), 1);
    let ((), seen) = device.watch_publish(0, || ring.submit(0, 0, 0, 512));
    assert_eq!(seen.due, 1);
}

#[test]
fn interrupts_come_when_the_used_event_is_crossed() {
    let mut ring = HandRing::plain();
    (0..6).for_each(|slot| ring.submit(slot, 0, 0, 512));
    let taken = ring.device.take(0, 6);
    ring.set_used_event(2);
    ring.device.complete(0, &taken[..2]);
    assert_eq!(ring.device.take_interrupts(), [], "entries 0 and 1");
    ring.device.complete(0, &taken[2..4]);
    assert_eq!(ring.device.take_interrupts(), [0], "entry 2");
    ring.device.complete(0, &taken[4..]);
    assert_eq!(ring.device.take_interrupts(), [], "not again");
    let counts = ring.device.counts(0);
    assert_eq!((counts.interrupts, counts.interrupts_due, counts.completed), (1, 1, 6));
    assert_eq!(ring.device.interrupts_sent(0), 1);
}

#[test]
fn interrupts_follow_the_used_event_across_the_wrap() {
    let mut ring = HandRing::plain();
    for round in 0..66_000_u32 {
        ring.submit(0, 0, 0, 512);
        ring.set_used_event(ring.seen.wrapping_add(u16::from(round % 3 == 0)));
        ring.device.process_all(0);
        assert_eq!(ring.device.take_interrupts().len(), usize::from(round % 3 != 0), "round {round}");
        ring.reap();
    }
}

#[test]
fn a_driver_may_re_arm_between_the_index_and_the_decision() {
    let mut ring = HandRing::plain();
    ring.submit(0, 0, 0, 512);
    ring.set_used_event(1000);
    let taken = ring.device.take(0, 1);
    ring.device.complete_quietly(0, &taken);
    assert_eq!(ring.reap().len(), 1);
    ring.set_used_event(1);
    assert!(!ring.device.signal(0), "entry 0 is not entry 1");
    ring.submit(0, 0, 0, 512);
    let taken = ring.device.take(0, 1);
    ring.device.complete_quietly(0, &taken);
    assert!(ring.device.signal(0));
    assert!(!ring.device.signal(0), "once");
}

#[test]
fn without_event_idx_the_flag_suppresses_interrupts_and_the_event_is_ignored() {
    let mut ring = HandRing::live(Config::default(), FLAGS, 64);
    ring.set_used_event(500);
    ring.run(0, 0, 512);
    assert_eq!(ring.device.take_interrupts(), [0]);
    ring.set_avail_flags(1);
    ring.run(0, 0, 512);
    assert_eq!(ring.device.take_interrupts(), []);
}

#[test]
fn a_queue_without_vector_is_silent_and_a_device_without_msix_uses_its_line() {
    let mut ring = HandRing::live(Config { vectors: 0, ..Config::default() }, ALL, 64);
    assert_eq!(ring.device.queue_vector(0), NO_VECTOR);
    ring.run(0, 0, 512);
    assert_eq!(ring.device.take_interrupts(), [INTX]);
    assert_eq!((ring.device.read_isr(), ring.device.read_isr()), (isr::QUEUE, 0));
    assert_eq!(ring.device.isr_reads(), 2);
    let device = super::hand_ring::device(Config::default());
    device.limit_vectors(0);
    device.negotiate(ALL);
    let base = device.memory().device_base();
    device.set_queue_size(0, 64);
    device.set_queue_parts(0, base, base + 0x2000, base + 0x4000);
    device.set_queue_enable(0, 1);
    device.go_live();
    let mut ring = HandRing { memory: Arc::clone(device.memory()), device, queue: 0, size: 64, avail: 0, seen: 0 };
    ring.run(0, 0, 512);
    assert_eq!(ring.device.take_interrupts(), []);
    assert_eq!(ring.device.counts(0).interrupts, 1, "wanted, but with nowhere to go");
    ring.device.assert_no_faults();
}

#[test]
fn an_interrupt_callback_may_call_the_device() {
    let mut ring = HandRing::plain();
    let calls = Arc::new(AtomicU64::new(0));
    let (device, count) = (ring.device.clone(), Arc::clone(&calls));
    ring.device.on_interrupt(move |vector| {
        assert_eq!((vector, device.in_flight(0).len()), (0, 0));
        count.fetch_add(1, Ordering::Relaxed);
    });
    ring.run(0, 0, 512);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
