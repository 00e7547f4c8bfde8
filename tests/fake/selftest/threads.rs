//! A device on its own thread, racing with a driver.
use super::hand_ring::{ALL, HandRing};
use crate::fake::{Config, DriverFault, NotifyPolicy, Order, Serve, Wake};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Submits `count` reads, one to four at a time, ringing when the device asks and sleeping for interrupts.
fn drive(ring: &mut HandRing, count: u32) {
    let (mut sent, mut done) = (0, 0);
    while done < count {
        let batch = (count - sent).min(1 + sent % 4);
        let old = ring.avail;
        for slot in 0..batch as u16 {
            let head = ring.build(slot, 0, 0, 512);
            ring.offer(head);
        }
        ring.publish();
        let event = ring.avail_event();
        if (0..batch as u16).any(|at| old.wrapping_add(at) == event) {
            ring.device.notify(ring.queue);
        }
        sent += batch;
        while done < sent {
            ring.set_used_event(ring.seen);
            let fresh = ring.reap().len() as u32;
            done += fresh;
            if fresh == 0 {
                assert!(ring.device.wait_interrupt(ring.queue, PATIENCE), "an interrupt was lost");
            }
        }
    }
}

#[test]
fn a_sleeping_device_is_woken_by_doorbells_and_a_sleeping_driver_by_interrupts() {
    for policy in [NotifyPolicy::Always, NotifyPolicy::SuppressWhileBusy] {
        let mut ring = HandRing::plain();
        ring.device.set_notify_policy(0, policy);
        let thread = ring.device.serve(Serve { batch: 3, order: Order::Reversed, ..Serve::default() });
        drive(&mut ring, 5_000);
        assert_eq!(thread.stop(), 5_000);
        ring.device.assert_no_faults();
        let heard = ring.device.notifications(0);
        assert!(heard > 0 && heard <= ring.device.notifications_asked(0), "{heard} doorbells");
    }
}

#[test]
fn a_polling_device_needs_no_doorbells() {
    let mut ring = HandRing::plain();
    ring.device.set_notify_policy(0, NotifyPolicy::Never);
    let thread = ring.device.serve(Serve { wake: Wake::Polling, ..Serve::default() });
    drive(&mut ring, 5_000);
    assert_eq!((thread.stop(), ring.device.notifications(0)), (5_000, 0));
    ring.device.assert_no_faults();
}

#[test]
fn two_queues_are_served_by_two_threads() {
    let device = super::hand_ring::device(Config { num_queues: 2, ..Config::default() });
    device.negotiate(ALL);
    let mut rings = [HandRing::set_up(&device, 0, 16), HandRing::set_up(&device, 1, 16)];
    device.go_live();
    let threads = [0, 1].map(|queue| device.serve(Serve { queues: vec![queue], ..Serve::default() }));
    std::thread::scope(|scope| {
        for ring in &mut rings {
            scope.spawn(|| drive(ring, 2_000));
        }
    });
    assert_eq!(threads.map(crate::fake::DeviceThread::stop), [2_000, 2_000]);
    device.assert_no_faults();
}

#[test]
fn a_doorbell_that_was_due_and_did_not_come_is_found_out() {
    let mut ring = HandRing::plain();
    let wake = Wake::Doorbell(Duration::from_millis(5));
    let thread = ring.device.serve(Serve { wake, ..Serve::default() });
    // A thread that happens to be awake finds an entry without fault; it is not awake every time.
    let until = Instant::now() + PATIENCE;
    while ring.device.faults().is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
        ring.submit(0, 0, 0, 512);
        while ring.reap().is_empty() && Instant::now() < until {
            std::thread::yield_now();
        }
    }
    thread.stop();
    assert_eq!(ring.device.take_faults()[0], DriverFault::DoorbellLost { queue: 0 });
    assert_ne!(ring.device.notifications(0), ring.device.expected_notifications(0), "and it shows in the count");
}

#[test]
fn stopping_does_not_wait_for_the_devices_patience() {
    let ring = HandRing::plain();
    let wake = Wake::Doorbell(Duration::from_mins(5));
    let thread = ring.device.serve(Serve { wake, ..Serve::default() });
    let start = Instant::now();
    thread.stop();
    assert!(start.elapsed() < Duration::from_mins(1));
}
