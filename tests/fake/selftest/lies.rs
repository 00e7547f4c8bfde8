//! The device's lies are told once each, and are what they claim to be.
use super::hand_ring::{HandRing, INDIRECT, NEXT, WRITE};
use crate::fake::{Area, Lie};

const READ: u32 = 0;
const GARBAGE: [u8; 4] = [0xa7, 0xb9, 0xa7, 0xb9];

/// Two reads in slots 0 and 1 (heads 0 and 3); the first completes with a lie, the second honestly.
fn told(lie: Lie) -> (HandRing, Vec<(u32, u32)>) {
    let mut ring = HandRing::plain();
    ring.device.put_disk(0, &[0x42; 1024]);
    ring.submit(0, READ, 0, 1024);
    ring.submit(1, READ, 0, 1024);
    let taken = ring.device.take(0, 2);
    ring.device.inject(0, lie);
    ring.device.complete(0, &taken[..1]);
    let first = ring.reap();
    assert_eq!(ring.device.lies_left(0), 0);
    ring.device.assert_no_faults();
    (ring, first)
}

#[test]
fn forged_ids_are_what_they_claim() {
    assert_eq!(told(Lie::UsedId(0xdead_beef)).1, [(0xdead_beef, 1025)]);
    assert_eq!(told(Lie::IdOutOfRange).1, [(64, 1025)]);
    assert_eq!(told(Lie::IdWithHighBits).1, [(0x1_0000, 1025)]);
    assert_eq!(told(Lie::IdOfDataDescriptor).1, [(1, 1025)]);
    assert_eq!(told(Lie::IdTwice).1, [(0, 1025), (0, 1025)]);
    assert_eq!(told(Lie::IdNotInFlight).1, [(6, 1025)], "neither slot 0 nor slot 1");
}

#[test]
fn an_id_not_in_flight_is_one_that_was_before() {
    let (mut ring, _) = told(Lie::UsedLen(0));
    ring.device.inject(0, Lie::IdNotInFlight);
    ring.device.complete_all(0, crate::fake::Order::AsTaken);
    assert_eq!(ring.reap(), [(0, 1025)], "slot 0's, completed before");
}

#[test]
fn forged_lengths_are_what_they_claim() {
    assert_eq!(told(Lie::UsedLen(7)).1, [(0, 7)]);
    assert_eq!(told(Lie::LenTooLarge).1, [(0, 1026)]);
    assert_eq!(told(Lie::LenZero).1, [(0, 0)]);
    let (ring, used) = told(Lie::Undone { status: 0, len: 9 });
    assert_eq!((used, ring.memory.bytes(ring.data(0), 1024)), (vec![(0, 9)], vec![0; 1024]), "nothing was written");
    let (ring, used) = told(Lie::LenTooShort);
    assert_eq!(used, [(0, 512)]);
    assert_eq!(ring.memory.bytes(ring.data(0), 512), [0x42; 512]);
    assert_eq!(ring.memory.bytes(ring.data(0) + 512, 512), [0; 512], "not written, as the length says");
    assert_eq!(ring.answer(0), 0);
}

#[test]
fn forged_indices_move_ahead_and_back_once() {
    let (ring, used) = told(Lie::IndexAhead(5));
    assert_eq!((used.len(), ring.used_idx()), (6, 6));
    ring.device.complete_all(0, crate::fake::Order::AsTaken);
    assert_eq!(ring.used_idx(), 2, "the honest index comes back");
    let mut ring = HandRing::plain();
    ring.run(READ, 0, 512);
    ring.device.inject(0, Lie::IndexBack(1));
    ring.submit(0, READ, 0, 512);
    ring.device.process_all(0);
    assert_eq!(ring.used_idx(), 0);
}

#[test]
fn forged_statuses_are_what_they_claim_and_nothing_is_done() {
    for status in [1, 2, 7] {
        let (ring, used) = told(Lie::Status(status));
        assert_eq!((used, ring.answer(0)), (vec![(0, 1)], status));
        assert_eq!(ring.memory.bytes(ring.data(0), 8), [0; 8]);
    }
    let (ring, used) = told(Lie::StatusUnwritten);
    assert_eq!((used, ring.answer(0)), (vec![(0, 1024)], 0xff));
    assert_eq!(ring.memory.bytes(ring.data(0), 8), [0x42; 8]);
}

#[test]
fn a_completion_that_never_comes_does_not_hold_up_the_others() {
    let (mut ring, used) = told(Lie::Never);
    assert_eq!(used, []);
    assert_eq!(ring.device.complete_all(0, crate::fake::Order::AsTaken), 1);
    assert_eq!(ring.reap(), [(3, 1025)]);
    assert_eq!(ring.device.in_flight(0), []);
    ring.device.set_status(0);
    ring.device.status();
    assert_eq!(ring.device.in_flight(0), []);
}

#[test]
fn scribbles_cover_what_they_claim_and_can_be_undone() {
    let (mut ring, _) = told(Lie::Scribble(Area::Descriptors));
    assert_eq!(ring.memory.bytes(ring.part(0), 4), GARBAGE);
    assert_eq!(ring.memory.bytes(ring.part(0) + 16 * 63 + 12, 4), GARBAGE);
    ring.device.scribble(0, Area::Available);
    ring.device.scribble(0, Area::Headers);
    assert_eq!(ring.memory.bytes(ring.part(1), 4), GARBAGE);
    assert_eq!(ring.memory.bytes(ring.header(1), 4), GARBAGE);
    assert_eq!(ring.device.complete_all(0, crate::fake::Order::AsTaken), 1, "the device knows what it was asked");
    ring.device.unscribble(0);
    ring.device.take_interrupts();
    ring.submit(1, READ, 0, 512);
    assert_eq!(ring.device.process_all(0), 1);
    assert_eq!(ring.reap().len(), 2);
    ring.device.assert_no_faults();
}

#[test]
fn undoing_a_scribble_keeps_what_the_driver_wrote_meanwhile() {
    let mut ring = HandRing::plain();
    ring.device.scribble(0, Area::Available);
    ring.submit(0, READ, 0, 512);
    assert_eq!(ring.device.process_all(0), 0, "the device does not look at garbage of its own");
    ring.device.unscribble(0);
    assert_eq!(ring.device.process_all(0), 1);
    ring.device.assert_no_faults();
}

#[test]
fn indirect_tables_in_flight_can_be_scribbled_over() {
    let mut ring = HandRing::plain();
    let table = ring.table(0);
    ring.write_header(0, READ, 0);
    ring.describe(ring.part(0), 0, (table, 48), INDIRECT, 0);
    ring.describe(table, 0, (ring.header(0), 16), NEXT, 1);
    ring.describe(table, 1, (ring.data(0), 512), NEXT | WRITE, 2);
    ring.describe(table, 2, (ring.status(0), 1), WRITE, 0);
    ring.offer(0);
    ring.publish();
    ring.device.take(0, 1);
    ring.device.scribble(0, Area::Tables);
    assert_eq!(ring.memory.bytes(table, 4), GARBAGE);
    ring.device.inject(0, Lie::IdOfDataDescriptor);
    ring.device.complete_all(0, crate::fake::Order::AsTaken);
    assert_eq!(ring.reap(), [(1, 513)], "the next descriptor: the chain has no second one in the ring");
}
