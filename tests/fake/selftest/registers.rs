//! Registers: what the device makes of a driver that initialises it well, or badly.
use super::hand_ring::{ALL, HandRing, device};
use crate::fake::wire::{features, isr, status};
use crate::fake::{Config, DriverFault, FakeDevice, NO_VECTOR, Part, ResetBehaviour};

const READY: u8 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;

/// A device whose status has taken these steps.
fn after(steps: &[u8]) -> FakeDevice {
    let device = device(Config::default());
    device.set_status(0);
    device.status();
    device.set_driver_features(0);
    device.take_faults();
    for step in steps {
        device.set_status(*step);
    }
    device
}

/// A device that has negotiated everything.
fn negotiated(config: Config) -> FakeDevice {
    let device = device(config);
    device.negotiate(ALL);
    device.assert_no_faults();
    device
}

fn only_fault(device: &FakeDevice) -> DriverFault {
    let mut faults = device.take_faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0)
}

#[test]
fn initialisation_in_order_is_no_fault() {
    let ring = HandRing::plain();
    assert_eq!(ring.device.status(), READY | status::DRIVER_OK);
    ring.device.assert_no_faults();
}

#[test]
fn initialisation_begins_with_a_reset_that_is_awaited() {
    let device = device(Config::default());
    assert_eq!(device.status(), 0);
    device.set_status(status::ACKNOWLEDGE);
    assert_eq!(only_fault(&device), DriverFault::ResetNotAwaited, "to read 0 is not to reset");
    device.set_status(0);
    device.set_status(status::ACKNOWLEDGE);
    assert_eq!(only_fault(&device), DriverFault::ResetNotAwaited, "the status was not read");
    let live = HandRing::plain().device;
    live.set_status(0);
    live.set_status(status::ACKNOWLEDGE);
    assert_eq!(only_fault(&live), DriverFault::ResetNotAwaited, "nor after the first time");
}

#[test]
fn status_bits_come_one_at_a_time_in_their_order_and_stay() {
    assert_eq!(only_fault(&after(&[2])), DriverFault::StatusOutOfOrder { from: 0, to: 2 });
    assert_eq!(only_fault(&after(&[3])), DriverFault::StatusOutOfOrder { from: 0, to: 3 });
    assert_eq!(only_fault(&after(&[1, 3, 7])), DriverFault::StatusOutOfOrder { from: 3, to: 7 });
    assert_eq!(only_fault(&after(&[1, 2])), DriverFault::StatusBitsCleared(1));
    assert_eq!(only_fault(&after(&[1, 3, 0x43])), DriverFault::StatusBitsForeign(0x40));
    assert_eq!(only_fault(&after(&[1, 0x81, 0x83])), DriverFault::WentOnAfterFailed);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let device = after(&[1, 3]);
    device.set_driver_features(features::VERSION_1 | features::RO);
    device.set_status(READY);
    assert_eq!(device.status(), 3, "FEATURES_OK does not stand");
    assert_eq!(only_fault(&device), DriverFault::FeaturesNotOffered(features::RO));
}

#[test]
fn a_driver_that_takes_the_bait_is_refused() {
    let device = device(Config::default().with(features::IN_ORDER));
    device.set_status(0);
    device.status();
    device.set_status(1);
    device.set_status(3);
    device.set_driver_features(features::VERSION_1 | features::IN_ORDER);
    device.set_status(READY);
    assert_eq!(device.status() & status::FEATURES_OK, 0);
    assert_eq!(only_fault(&device), DriverFault::FeaturesNotImplemented(features::IN_ORDER));
}

#[test]
fn features_are_written_between_driver_and_features_ok() {
    let device = after(&[1]);
    device.set_driver_features(features::VERSION_1);
    assert_eq!(only_fault(&device), DriverFault::FeaturesAtWrongTime { status: 1 });
    let device = negotiated(Config::default());
    device.set_driver_features(features::VERSION_1);
    assert_eq!(only_fault(&device), DriverFault::FeaturesAtWrongTime { status: READY });
}

#[test]
fn version_1_must_be_accepted_and_features_ok_read_back() {
    let device = after(&[1, 3, READY]);
    assert_eq!(only_fault(&device), DriverFault::Version1NotAccepted);
    assert_eq!(device.status() & status::FEATURES_OK, 0);
    let device = after(&[1, 3]);
    device.set_driver_features(features::VERSION_1);
    device.set_status(READY);
    device.set_queue_size(0, 8);
    assert_eq!(only_fault(&device), DriverFault::FeaturesOkNotReadBack);
}

#[test]
fn a_device_may_refuse_features_without_the_driver_being_at_fault() {
    let device = after(&[1, 3]);
    device.refuse_features(true);
    device.set_driver_features(features::VERSION_1);
    device.set_status(READY);
    assert_eq!(device.status(), 3);
    device.assert_no_faults();
}

#[test]
fn access_platform_is_insisted_on_where_it_is_offered() {
    let device = device(Config::default().with(features::ACCESS_PLATFORM));
    device.set_status(0);
    device.status();
    device.set_status(1);
    device.set_status(3);
    device.set_driver_features(features::VERSION_1);
    device.set_status(READY);
    assert_eq!(device.status(), 3);
}

#[test]
fn a_slow_reset_keeps_the_queues_until_the_status_reads_zero() {
    let mut ring = HandRing::plain();
    ring.submit(0, 0, 0, 512);
    let taken = ring.device.take(0, 1);
    ring.device.on_reset(ResetBehaviour::AfterReads(2));
    ring.device.set_status(0);
    assert_ne!(ring.device.status(), 0);
    ring.device.complete(0, &taken);
    assert_eq!(ring.reap().len(), 1, "the device still owns the queue");
    ring.submit(1, 0, 0, 512);
    let late = ring.device.take(0, 1);
    assert_ne!(ring.device.status(), 0);
    assert_eq!(ring.device.status(), 0);
    ring.device.complete(0, &late);
    assert_eq!(ring.reap().len(), 0, "and no longer after the status has read 0");
    assert_eq!(ring.device.queue_enable(0), 0);
    ring.device.assert_no_faults();
}

#[test]
fn a_reset_may_never_finish() {
    let ring = HandRing::plain();
    ring.device.on_reset(ResetBehaviour::Never);
    ring.device.set_status(0);
    assert!((0..1000).all(|_| ring.device.status() != 0));
    ring.device.notify(0);
    assert_eq!(only_fault(&ring.device), DriverFault::NotifiedBeforeDriverOk(0));
}

#[test]
fn vectors_are_within_the_table_and_read_back() {
    let device = negotiated(Config { vectors: 2, ..Config::default() });
    device.set_config_vector(2);
    assert_eq!(device.config_vector(), NO_VECTOR);
    assert_eq!(only_fault(&device), DriverFault::VectorBeyondTable { queue: None, vector: 2 });
    device.limit_vectors(1);
    device.set_queue_vector(0, 1);
    assert_eq!(device.queue_vector(0), NO_VECTOR, "the device has it but cannot give it");
    device.assert_no_faults();
    device.set_queue_vector(0, 0);
    device.go_live();
    assert_eq!(only_fault(&device), DriverFault::VectorNotReadBack { queue: Some(0) });
}

#[test]
fn queue_registers_are_written_rightly_and_at_their_time() {
    let device = negotiated(Config::default());
    for size in [0, 3, 512] {
        device.set_queue_size(0, size);
        assert_eq!(only_fault(&device), DriverFault::QueueSizeBad { queue: 0, size });
    }
    device.set_queue_size(7, 8);
    assert_eq!(only_fault(&device), DriverFault::QueueUnavailable(7));
    device.set_queue_enable(0, 0);
    assert_eq!(only_fault(&device), DriverFault::QueueEnableBad { queue: 0, value: 0 });
    let _ring = HandRing::set_up(&device, 0, 8);
    device.set_queue_enable(0, 1);
    assert_eq!(only_fault(&device), DriverFault::QueueEnabledTwice(0));
    device.set_queue_size(0, 8);
    assert_eq!(only_fault(&device), DriverFault::QueueChangedWhileEnabled(0));
}

#[test]
fn queue_parts_are_aligned_inside_memory_and_apart() {
    let device = negotiated(Config { num_queues: 2, ..Config::default() });
    let base = device.memory().device_base();
    let end = base + device.memory().len() as u64;
    device.set_queue_size(0, 8);
    device.set_queue_parts(0, base + 8, base + 0x1001, base + 0x2002);
    device.set_queue_enable(0, 1);
    let misaligned = |part, address| DriverFault::QueuePartMisaligned { queue: 0, part, address };
    let parts = [(Part::Descriptors, base + 8), (Part::Driver, base + 0x1001), (Part::Device, base + 0x2002)];
    assert_eq!(device.take_faults(), parts.map(|(part, address)| misaligned(part, address)));
    device.set_queue_parts(0, base, base + 0x1000, end - 64);
    device.set_queue_enable(0, 1);
    let outside = DriverFault::QueuePartOutside { queue: 0, part: Part::Device, address: end - 64 };
    assert_eq!(only_fault(&device), outside);
    device.set_queue_parts(0, base, base + 0x1000, base + 0x1014);
    device.set_queue_enable(0, 1);
    let overlap = |queue, part| DriverFault::QueuePartsOverlap { queue, part };
    assert_eq!(device.take_faults(), [overlap(0, Part::Driver), overlap(0, Part::Device)]);
    assert_eq!(device.queue_enable(0), 0);
    let _ring = HandRing::set_up(&device, 0, 8);
    device.set_queue_size(1, 8);
    device.set_queue_parts(1, base, base + 0x9000, base + 0xa000);
    device.set_queue_enable(1, 1);
    assert_eq!(only_fault(&device), overlap(1, Part::Descriptors));
}

#[test]
fn a_second_queue_wants_mq_and_zeroed_used_flags() {
    let device = device(Config { num_queues: 2, ..Config::default() });
    device.negotiate(ALL & !features::MQ);
    let ring = HandRing::set_up(&device, 1, 8);
    assert_eq!(only_fault(&device), DriverFault::QueueWithoutMq(1));
    ring.memory.put(ring.memory.device_base() + 0x4000, &[1, 0]);
    HandRing::set_up(&device, 0, 8);
    assert_eq!(only_fault(&device), DriverFault::UsedFlagsNotZeroed(0));
}

#[test]
fn no_queue_is_enabled_after_driver_ok() {
    let device = negotiated(Config::default());
    device.go_live();
    device.set_queue_size(0, 8);
    let status = READY | status::DRIVER_OK;
    assert_eq!(only_fault(&device), DriverFault::QueueSetUpAtWrongTime { queue: 0, status });
}

#[test]
fn doorbells_come_after_driver_ok_for_enabled_queues_and_16_bits_wide() {
    let device = negotiated(Config { num_queues: 2, ..Config::default() });
    let _ring = HandRing::set_up(&device, 0, 8);
    device.notify(0);
    assert_eq!(only_fault(&device), DriverFault::NotifiedBeforeDriverOk(0));
    device.go_live();
    device.notify(0);
    device.notify(1);
    assert_eq!(only_fault(&device), DriverFault::NotifiedDisabledQueue(1));
    device.notify_wide(0);
    assert_eq!(only_fault(&device), DriverFault::NotifiedWide(0));
    assert_eq!((device.notifications(0), device.notifications(1)), (1, 0));
}

#[test]
fn a_device_that_needs_a_reset_tells_and_takes_nothing() {
    let device = negotiated(Config::default());
    let mut ring = HandRing::set_up(&device, 0, 64);
    device.set_config_vector(1);
    assert_eq!(device.config_vector(), 1);
    device.go_live();
    ring.submit(0, 0, 0, 512);
    device.need_reset();
    assert_eq!(device.take_interrupts(), [1]);
    assert_eq!(device.read_isr(), isr::CONFIG);
    assert_ne!(device.status() & status::NEEDS_RESET, 0);
    assert_eq!(device.process_all(0), 0);
    device.negotiate(ALL);
    device.assert_no_faults();
}
