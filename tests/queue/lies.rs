//! A device that breaks the rules: the queue breaks cleanly, or the request fails with the blame on the device.
//!
//! Three reads are in flight; the device lies about the first. A lie that the driver can see through breaks the queue:
//! counted once, nothing more is handed out however honest the device is from then on, and every buffer stays owned.
use crate::fake::{Area, Config, Lie, Order};
use crate::rig::{Live, Owned, World, outcomes, pattern};
use drv_virtio_block::queue::{Chaining, QueueOptions, Violation};
use drv_virtio_block::request::{DeviceFault, Error, Lba, Refusal, Request};

const BOTH: [Chaining; 2] = [Chaining::Direct, Chaining::Indirect];

fn options(chaining: Chaining) -> QueueOptions {
    // Slots in more than one word of the free set, in either form.
    QueueOptions { size: 256, chaining, ..QueueOptions::default() }
}

/// Submits reads 0, 1 and 2 and has the device lie about the first.
fn tell(live: &mut Live<'_, Owned<'_>>, bad: Lie) {
    for token in 0..3 {
        live.device.put_disk(token, &pattern(token, 512));
        live.queue.submit(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
    }
    let taken = live.device.take(0, 3);
    live.device.inject(0, bad);
    live.device.complete(0, &taken[..1]);
    assert_eq!(live.device.lies_left(0), 0);
}

/// The queue is broken by `violation`, `handed` of the three reads were given out, and it stays so.
#[track_caller]
fn assert_broken(live: &mut Live<'_, Owned<'_>>, violation: Violation, handed: usize) {
    let done = live.reap();
    assert_eq!(done.len(), handed, "{done:?}");
    drop(done);
    assert_eq!(live.queue.broken(), Some(violation));
    live.device.complete_all(0, Order::AsTaken);
    for _ in 0..3 {
        assert!(live.reap().is_empty(), "nothing more is believed");
    }
    assert_eq!(live.queue.statistics().violations, 1, "counted once");
    assert_eq!(live.queue.statistics().completed, handed as u64);
    let refused = live.queue.submit(Request::read(Lba(0), live.heap.whole(512))).unwrap_err();
    assert_eq!(refused.why, Refusal::Broken);
    let refused = live.queue.submit(Request::flush()).unwrap_err();
    assert_eq!((refused.why, live.queue.statistics().full), (Refusal::Broken, 0));
    drop(refused);
    assert_eq!(live.heap.lent(), 3 - handed + 1, "buffers stay owned (and one is in the refused request)");
}

#[test]
fn an_id_that_is_no_head_breaks_the_queue() {
    for chaining in BOTH {
        for bad in [Lie::IdOutOfRange, Lie::IdWithHighBits, Lie::UsedId(u32::MAX), Lie::UsedId(0x8000_0000)] {
            let mut world = World::new(Config::default());
            let mut live = world.owned(&options(chaining));
            tell(&mut live, bad);
            let done = live.reap();
            assert!(done.is_empty(), "{bad:?}");
            assert_eq!(live.queue.broken(), Some(Violation::UnknownId), "{bad:?} {chaining:?}");
        }
    }
}

#[test]
fn the_first_id_beyond_the_heads_breaks_the_queue() {
    let slots = 20; // of a ring of 64 in the direct form
    for (id, violation) in [(slots - 1, Violation::NotInFlight), (2 * slots, Violation::UnknownId)] {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&QueueOptions { size: 64, ..options(Chaining::Direct) });
        assert_eq!(live.queue.slots(), slots as u16);
        tell(&mut live, Lie::UsedId(id));
        assert!(live.reap().is_empty());
        assert_eq!(live.queue.broken(), Some(violation), "id {id}");
    }
}

#[test]
fn an_unknown_id_is_counted_once_and_nothing_follows() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    tell(&mut live, Lie::IdOutOfRange);
    assert_broken(&mut live, Violation::UnknownId, 0);
}

#[test]
fn an_id_that_is_not_in_flight_breaks_the_queue() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        tell(&mut live, Lie::IdNotInFlight);
        assert_broken(&mut live, Violation::NotInFlight, 0);
    }
}

#[test]
fn a_stale_id_of_a_chain_that_has_completed_breaks_the_queue() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        assert_eq!(live.ask(Request::read(Lba(9), live.heap.whole(512))).result, Ok(()));
        live.queue.submit(Request::flush()).unwrap();
        live.queue.submit(Request::flush()).unwrap();
        live.device.inject(0, Lie::IdNotInFlight);
        live.device.process(0, 1, Order::AsTaken);
        assert!(live.reap().len() <= 1);
        assert_eq!(live.queue.broken(), Some(Violation::NotInFlight));
    }
}

#[test]
fn an_id_given_back_twice_is_believed_once() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        tell(&mut live, Lie::IdTwice);
        assert_broken(&mut live, Violation::NotInFlight, 1);
    }
}

#[test]
fn the_other_head_of_a_chain_in_flight_is_not_taken_for_it() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&options(Chaining::Direct));
    tell(&mut live, Lie::IdOfDataDescriptor);
    assert_broken(&mut live, Violation::NotInFlight, 0);
}

#[test]
fn the_id_of_another_chain_that_was_not_executed_breaks_the_queue() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        // Slots are claimed from the lowest on: 1 is in flight too, and its status byte is as it was.
        tell(&mut live, Lie::UsedId(1));
        assert_broken(&mut live, Violation::NoStatus, 0);
    }
}

#[test]
fn a_status_that_was_not_written_breaks_the_queue() {
    for chaining in BOTH {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        tell(&mut live, Lie::StatusUnwritten);
        assert_broken(&mut live, Violation::NoStatus, 0);
    }
}

#[test]
fn an_index_further_than_what_is_in_flight_breaks_the_queue() {
    for ahead in [3, 60, 1000, 0x7fff, 0xfffe] {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(Chaining::Direct));
        tell(&mut live, Lie::IndexAhead(ahead));
        assert_broken(&mut live, Violation::IndexJump, 0);
    }
}

#[test]
fn an_index_ahead_of_its_entries_hands_out_nothing_unfinished() {
    for (chaining, ahead) in BOTH.into_iter().flat_map(|form| [(form, 1), (form, 2)]) {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        // The entry behind the index is a stale one: that of a chain long completed.
        tell(&mut live, Lie::IndexAhead(ahead));
        let done = live.reap();
        assert_eq!(outcomes(&done), [(0, Ok(()))], "the honest entry");
        assert_eq!(done[0].buffer.as_ref().unwrap().bytes(), pattern(0, 512));
        assert!(live.queue.broken().is_some());
        assert_eq!((live.queue.statistics().violations, live.heap.lent()), (1, 3));
    }
}

#[test]
fn an_index_that_goes_back_breaks_the_queue() {
    for back in [1, 2, 100] {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(Chaining::Direct));
        tell(&mut live, Lie::IndexBack(back));
        assert!(live.queue.arm(1), "nobody is to sleep on this");
        assert_broken(&mut live, Violation::IndexJump, 0);
    }
}

#[test]
fn errors_of_the_medium_and_unknown_statuses_are_told_apart() {
    for (status, error) in [
        (1, Error::Medium),
        (2, Error::Device(DeviceFault::Unsupported)),
        (3, Error::Device(DeviceFault::BadStatus(3))),
        (0xfe, Error::Device(DeviceFault::BadStatus(0xfe))),
    ] {
        for chaining in BOTH {
            let mut world = World::new(Config::default());
            let mut live = world.owned(&options(chaining));
            tell(&mut live, Lie::Status(status));
            let done = live.reap();
            assert_eq!(outcomes(&done), [(0, Err(error))]);
            assert!(done[0].buffer.is_some());
            live.device.complete_all(0, Order::AsTaken);
            assert_eq!(live.reap().len(), 2, "the queue goes on");
        }
    }
}

#[test]
fn a_device_that_writes_over_what_is_the_drivers_does_not_confuse_it() {
    for (chaining, area) in BOTH
        .into_iter()
        .flat_map(|form| [Area::Descriptors, Area::Available, Area::Headers, Area::Tables].map(|area| (form, area)))
    {
        let mut world = World::new(Config::default());
        let mut live = world.owned(&options(chaining));
        tell(&mut live, Lie::Scribble(area));
        let done = live.reap();
        assert_eq!(outcomes(&done), [(0, Ok(()))], "{area:?}");
        assert_eq!(done[0].buffer.as_ref().unwrap().bytes(), pattern(0, 512));
        drop(done);
        live.device.unscribble(0);
        live.device.complete_all(0, Order::AsTaken);
        assert_eq!(outcomes(&live.reap()), [(1, Ok(())), (2, Ok(()))]);
        let data = pattern(50, 512);
        assert_eq!(live.ask(Request::write(Lba(50), live.heap.holding(&data))).result, Ok(()));
        assert_eq!(live.ask(Request::read(Lba(50), live.heap.cut(&[12, 500]))).buffer.unwrap().bytes(), data);
        assert_eq!((live.queue.broken(), live.heap.lent()), (None, 0));
        live.device.assert_no_faults();
    }
}

#[test]
fn an_answer_that_never_comes_keeps_its_slot_and_buffer() {
    let mut world = World::new(Config::default());
    let mut live = world.owned(&QueueOptions { slots: 4, ..options(Chaining::Direct) });
    tell(&mut live, Lie::Never);
    live.device.complete_all(0, Order::AsTaken);
    assert_eq!(outcomes(&live.reap()), [(1, Ok(())), (2, Ok(()))]);
    for _ in 0..50 {
        for token in 10..13 {
            live.queue.submit(Request::read(Lba(token), live.heap.whole(512)).with_token(token)).unwrap();
        }
        assert!(live.queue.submit(Request::flush()).is_err(), "its slot is not given to anybody else");
        assert_eq!(live.finish().len(), 3);
    }
    assert_eq!((live.queue.in_flight(), live.heap.lent()), (1, 1));
    live.device.assert_no_faults();
}

#[test]
fn noise_in_the_flags_means_nothing() {
    for event_idx in [true, false] {
        let mut world = World::new(Config::default());
        let mask = if event_idx { 0 } else { crate::fake::wire::features::EVENT_IDX };
        let mut live = world.owned_without(mask, &options(Chaining::Direct));
        live.device.set_used_flags_noise(0, if event_idx { 0xffff } else { 0xfffe });
        for _ in 0..10 {
            assert_eq!(live.ask(Request::read(Lba(0), live.heap.whole(512))).result, Ok(()));
        }
        assert_eq!(live.device.notifications(0), 10, "with EVENT_IDX flags are ignored, without only bit 0 counts");
        live.device.assert_no_faults();
    }
}
