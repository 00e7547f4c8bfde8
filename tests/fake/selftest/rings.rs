//! What the device makes of chains and indices that a driver offers.
use super::hand_ring::{ALL, HandRing, INDIRECT, NEXT, WRITE};
use crate::fake::wire::features;
use crate::fake::{ChainFault, Config, DriverFault, Order, Outside};

/// Offers head 0 after `build` has written descriptors, and tells the fault.
fn fault_of(accepted: u64, build: impl FnOnce(&HandRing)) -> DriverFault {
    let mut ring = HandRing::live(Config::default(), accepted, 8);
    ring.build(0, 0, 0, 512);
    build(&ring);
    ring.offer(0);
    ring.publish();
    assert_eq!(ring.device.process_all(0), 1, "a bad chain is given back");
    let mut faults = ring.device.take_faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0)
}

fn chain_fault(accepted: u64, build: impl FnOnce(&HandRing)) -> ChainFault {
    match fault_of(accepted, build) {
        DriverFault::Chain { queue: 0, head: 0, why } => why,
        other => panic!("another fault: {other:?}"),
    }
}

/// Makes slot 0 an indirect chain of `entries`: header, data pieces of 512 bytes, status.
fn indirect(ring: &HandRing, entries: u16, len: u32) {
    let table = ring.table(0);
    ring.write_header(0, 0, 0);
    ring.describe(ring.part(0), 0, (table, len), INDIRECT, 0);
    ring.describe(table, 0, (ring.header(0), 16), NEXT, 1);
    for at in 1..entries - 1 {
        ring.describe(table, at, (ring.data(0) + 512 * u64::from(at), 512), NEXT | WRITE, at + 1);
    }
    ring.describe(table, entries - 1, (ring.status(0), 1), WRITE, 0);
}

#[test]
fn a_direct_chain_is_taken_and_completed() {
    let mut ring = HandRing::plain();
    ring.submit(2, 0, 5, 1024);
    assert_eq!(ring.device.poll_available(0), 1);
    let taken = ring.device.take(0, usize::MAX);
    assert_eq!((taken.len(), taken[0].head, taken[0].kind, taken[0].sector), (1, 6, 0, 5));
    assert_eq!((taken[0].data_len, taken[0].descriptors, taken[0].segments), (1024, 3, 1));
    assert_eq!(ring.device.in_flight(0), taken);
    assert_eq!(ring.reap(), []);
    ring.device.complete(0, &taken);
    assert_eq!(ring.reap(), [(6, 1025)]);
    assert_eq!(ring.answer(2), 0);
    ring.device.assert_no_faults();
}

#[test]
fn an_indirect_chain_is_taken_alone_or_behind_direct_descriptors() {
    let mut ring = HandRing::live(Config::default(), ALL, 8);
    indirect(&ring, 8, 128);
    ring.offer(0);
    ring.publish();
    let taken = ring.device.take(0, 1);
    assert_eq!((taken[0].descriptors, taken[0].segments, taken[0].indirect), (9, 6, true));
    ring.device.complete(0, &taken);
    // The header in the main table, the rest in the indirect one.
    ring.describe(ring.part(0), 0, (ring.header(0), 16), NEXT, 1);
    ring.describe(ring.part(0), 1, (ring.table(0), 32), INDIRECT | WRITE, 0);
    ring.describe(ring.table(0), 0, (ring.data(0), 512), NEXT | WRITE, 1);
    ring.describe(ring.table(0), 1, (ring.status(0), 1), WRITE, 0);
    ring.offer(0);
    ring.publish();
    let taken = ring.device.take(0, 1);
    assert_eq!((taken[0].descriptors, taken[0].segments, taken[0].data_len), (4, 1, 512));
    ring.device.complete(0, &taken);
    ring.device.assert_no_faults();
}

#[test]
fn a_table_of_three_is_allowed_on_a_queue_of_two_and_four_are_not() {
    let mut ring = HandRing::live(Config { max_queue_size: 2, ..Config::default() }, ALL, 2);
    for (entries, faults) in [(3, vec![]), (4, vec![ChainFault::TooLong { entries: 4 }])] {
        indirect(&ring, entries, u32::from(entries) * 16);
        ring.offer(0);
        ring.publish();
        ring.device.process_all(0);
        let faults: Vec<_> = faults.into_iter().map(|why| DriverFault::Chain { queue: 0, head: 0, why }).collect();
        assert_eq!(ring.device.take_faults(), faults);
    }
}

#[test]
fn chains_that_break_the_rules_are_found_out() {
    let direct = |at, buffer, flags, next| {
        chain_fault(ALL, move |ring: &HandRing| {
            let buffer = if buffer == (0, 0) { (ring.data(0), 512) } else { buffer };
            ring.describe(ring.part(0), at, buffer, flags, next);
        })
    };
    assert_eq!(direct(1, (0, 0), NEXT | WRITE, 8), ChainFault::NextOutOfRange { next: 8 });
    assert_eq!(direct(1, (0, 0), NEXT | WRITE, 1), ChainFault::Loop);
    assert_eq!(direct(1, (0, 0), NEXT | WRITE, 0), ChainFault::Loop);
    assert_eq!(direct(1, (77, 0), NEXT | WRITE, 2), ChainFault::Empty { entry: 1 });
    assert_eq!(direct(1, (0, 0), NEXT | WRITE | 8, 2), ChainFault::Flags { entry: 1, flags: 11 });
    assert_eq!(direct(2, (0, 0), 0, 0), ChainFault::ReadableAfterWritable { piece: 2 });
    let outside = Outside { address: 0x1000, len: 512 };
    assert_eq!(direct(1, (0x1000, 512), NEXT | WRITE, 2), ChainFault::Outside(outside));
    assert_eq!(direct(0, (0, 0), NEXT | INDIRECT, 1), ChainFault::IndirectWithNext);
}

#[test]
fn indirect_tables_that_break_the_rules_are_found_out() {
    assert_eq!(
        chain_fault(ALL & !features::INDIRECT_DESC, |ring| indirect(ring, 3, 48)),
        ChainFault::IndirectNotNegotiated
    );
    assert_eq!(chain_fault(ALL, |ring| indirect(ring, 3, 47)), ChainFault::TableLength { len: 47 });
    assert_eq!(chain_fault(ALL, |ring| indirect(ring, 3, 0)), ChainFault::TableLength { len: 0 });
    assert_eq!(chain_fault(ALL, |ring| indirect(ring, 3, 32)), ChainFault::NextOutOfRange { next: 2 });
    assert_eq!(chain_fault(ALL, |ring| indirect(ring, 9, 144)), ChainFault::TooLong { entries: 9 });
    let nested = |ring: &HandRing| {
        indirect(ring, 3, 48);
        ring.describe(ring.table(0), 1, (ring.table(0), 16), INDIRECT, 0);
    };
    assert_eq!(chain_fault(ALL, nested), ChainFault::IndirectNested);
}

#[test]
fn a_head_out_of_range_is_found_out() {
    let mut ring = HandRing::plain();
    ring.offer(64);
    ring.publish();
    ring.device.process_all(0);
    let why = ChainFault::HeadOutOfRange;
    assert_eq!(ring.device.take_faults(), [DriverFault::Chain { queue: 0, head: 64, why }]);
}

#[test]
fn a_head_offered_twice_in_flight_is_found_out_and_answered_once() {
    let mut ring = HandRing::plain();
    ring.submit(0, 0, 0, 512);
    ring.offer(0);
    ring.publish();
    assert_eq!(ring.device.process_all(0), 1);
    assert_eq!(ring.device.take_faults(), [DriverFault::HeadTwice { queue: 0, head: 0 }]);
    ring.submit(0, 0, 0, 512);
    assert_eq!(ring.device.process_all(0), 1, "again after completion is what rings are for");
    ring.device.assert_no_faults();
}

#[test]
fn two_chains_in_flight_share_no_descriptor_and_no_written_memory() {
    let mut ring = HandRing::plain();
    ring.submit(0, 0, 0, 512);
    let head = ring.build(1, 0, 0, 512);
    ring.describe(ring.part(0), head, (ring.header(1), 16), NEXT, 2);
    ring.offer(head);
    ring.publish();
    ring.device.process_all(0);
    let faults = ring.device.take_faults();
    assert!(faults.contains(&DriverFault::DescriptorShared { queue: 0, head: 3, descriptor: 2 }), "{faults:?}");
    assert!(faults.contains(&DriverFault::Overlap { queue: 0, head: 3, address: ring.status(0), with: Some(0) }));
}

#[test]
fn memory_that_the_device_writes_belongs_to_one_chain() {
    // Reads into the same buffer conflict; writes from the same buffer do not; a read into a written-from buffer does.
    for (first, second, conflict) in [(0, 0, true), (1, 1, false), (1, 0, true), (0, 1, true)] {
        let mut ring = HandRing::plain();
        ring.submit(0, first, 0, 1024);
        let head = ring.build(1, second, 8, 512);
        let flags = if second == 0 { NEXT | WRITE } else { NEXT };
        ring.describe(ring.part(0), head + 1, (ring.data(0) + 512, 512), flags, head + 2);
        ring.offer(head);
        ring.publish();
        ring.device.process_all(0);
        let address = ring.data(0) + 512;
        let expected = DriverFault::Overlap { queue: 0, head, address, with: Some(0) };
        assert_eq!(ring.device.take_faults(), if conflict { vec![expected] } else { vec![] }, "{first} {second}");
    }
}

#[test]
fn a_buffer_over_a_queue_is_found_out() {
    let address = HandRing::plain().part(2) + 8;
    let fault = fault_of(ALL, |ring| ring.describe(ring.part(0), 1, (ring.part(2) + 8, 512), NEXT | WRITE, 2));
    assert_eq!(fault, DriverFault::Overlap { queue: 0, head: 0, address, with: None });
}

#[test]
fn descriptors_and_headers_are_left_alone_in_flight() {
    for header in [false, true] {
        let mut ring = HandRing::plain();
        ring.submit(0, 0, 0, 512);
        let taken = ring.device.take(0, 1);
        if header {
            ring.memory.put(ring.header(0) + 8, &[1]);
        } else {
            ring.describe(ring.part(0), 1, (ring.data(0) + 512, 512), NEXT | WRITE, 2);
        }
        ring.device.complete(0, &taken);
        assert_eq!(ring.device.take_faults(), [DriverFault::ChangedInFlight { queue: 0, head: 0 }]);
    }
}

#[test]
fn the_available_index_never_goes_back_nor_too_far_ahead() {
    let mut ring = HandRing::plain();
    ring.submit(0, 0, 0, 512);
    ring.device.take(0, 1);
    ring.avail = 0;
    ring.publish();
    assert_eq!(ring.device.poll_available(0), 0);
    assert_eq!(ring.device.take_faults(), [DriverFault::AvailIndexWentBack { queue: 0, from: 1, to: 0 }]);
    let mut ring = HandRing::plain();
    ring.submit(0, 0, 0, 512);
    ring.device.take(0, 1);
    ring.avail = 65;
    ring.publish();
    ring.device.poll_available(0);
    assert_eq!(ring.device.take_faults(), [DriverFault::AvailIndexTooFar { queue: 0, from: 1, to: 65 }]);
}

#[test]
fn available_flags_stay_zero_with_event_idx_and_0_or_1_without() {
    for (accepted, flags, bad) in
        [(ALL, 1, true), (ALL & !features::EVENT_IDX, 1, false), (ALL & !features::EVENT_IDX, 2, true)]
    {
        let mut ring = HandRing::live(Config::default(), accepted, 8);
        ring.set_avail_flags(flags);
        ring.submit(0, 0, 0, 512);
        ring.device.process_all(0);
        let expected = if bad { vec![DriverFault::AvailFlags { queue: 0, flags }] } else { vec![] };
        assert_eq!(ring.device.take_faults(), expected);
    }
}

#[test]
fn nothing_is_taken_before_driver_ok() {
    let device = super::hand_ring::device(Config::default());
    device.negotiate(ALL);
    let mut ring = HandRing::set_up(&device, 0, 8);
    ring.submit(0, 0, 0, 512);
    assert_eq!((device.poll_available(0), device.process_all(0)), (0, 0));
    device.go_live();
    assert_eq!(device.expected_notifications(0), 0, "none could have been rung");
    assert_eq!(device.process_all(0), 1);
    device.assert_no_faults();
}

#[test]
fn completions_come_in_the_order_that_the_test_chooses() {
    for (order, heads) in [(Order::AsTaken, [0, 3, 6]), (Order::Reversed, [6, 3, 0])] {
        let mut ring = HandRing::plain();
        (0..3).for_each(|slot| ring.submit(slot, 0, 0, 512));
        assert_eq!(ring.device.process(0, 8, order), 3);
        assert_eq!(ring.reap().into_iter().map(|used| used.0).collect::<Vec<_>>(), heads);
    }
    let mut lists = [0, 1, 2].map(|seed| {
        let mut list: Vec<u16> = (0..50).collect();
        Order::Shuffled(seed).arrange(&mut list);
        list
    });
    assert!(lists[0] != lists[1] && lists[1] != lists[2]);
    lists[0].sort_unstable();
    assert!(lists[0].iter().copied().eq(0..50));
}

#[test]
fn indices_wrap_at_16_bits() {
    let mut ring = HandRing::live(Config::default(), ALL, 16);
    for round in 0..70_000_u64 {
        ring.submit((round % 5) as u16, 0, round % 2048, 512);
        assert_eq!(ring.device.process_all(0), 1);
        assert_eq!(ring.reap(), [(3 * (round as u32 % 5), 513)]);
    }
    ring.device.assert_no_faults();
}
