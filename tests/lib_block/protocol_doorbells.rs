//! Doorbells: none is lost in any order of the two sides' steps, none is rung that nobody asked for.
use crate::protocol_memory::{COMPLETION_EVENT, Memory, SUBMISSION_EVENT, SUBMISSION_TAIL};
use crate::protocol_ring::{PLACES, attached, serving};
use drv_virtio_block::lib_block::ring::{ClientEnd, ServerEnd, armed_before_last_look};

/// Whether one of the entries from `before` up to `after` is the one at `event`: by the words of the protocol.
fn is_among(event: u32, before: u32, after: u32) -> bool {
    (0..after.wrapping_sub(before)).any(|ahead| before.wrapping_add(ahead) == event)
}

#[test]
fn a_doorbell_is_rung_when_the_entry_of_the_event_is_published_wherever_the_index_wraps() {
    let memory = Memory::new(16);
    for place in (0..40).map(|ahead| 0u32.wrapping_sub(20).wrapping_add(ahead)) {
        for event in -5..12 {
            for batch in 1..=8u32 {
                let (_, mut server) = attached(&memory, place);
                let event = place.wrapping_add_signed(event);
                memory.set(COMPLETION_EVENT, event.into());
                (0..batch).for_each(|_| server.post([0; 2]));
                let expected = is_among(event, place, place.wrapping_add(batch));
                assert_eq!(server.publish(), expected, "{batch} at {place}, event {event}");
                assert!(!server.publish(), "nothing else was posted");
                assert_eq!(server.doorbells(), u64::from(expected));
            }
        }
    }
}

#[test]
fn a_client_rings_when_the_entry_of_the_event_is_published_on_both_sides_of_the_wrap() {
    let memory = Memory::new(16);
    let (mut client, mut server) = attached(&memory, 0);
    let mut wrapped = false;
    for event in -5..12 {
        for batch in 1..=8 {
            let before = memory.index(SUBMISSION_TAIL);
            let event = before.wrapping_add_signed(event);
            memory.set(SUBMISSION_EVENT, event.into());
            (0..batch).for_each(|_| client.stage([0; 8]));
            let after = before.wrapping_add(batch);
            assert_eq!(client.publish(), is_among(event, before, after), "{batch} at {before}, event {event}");
            assert!(!client.publish(), "nothing else was staged");
            assert_eq!(server.look(0), Ok(batch));
            server.consume(batch);
            wrapped |= after < before;
        }
    }
    assert!(wrapped, "the index wraps early");
}

#[test]
fn a_server_is_rung_once_per_wish_and_not_at_all_without() {
    let memory = Memory::new(8);
    let (mut client, mut server) = attached(&memory, 0);
    let mut publish = |server: &mut ServerEnd<'_>, count| {
        (0..count).for_each(|_| client.stage([0; 8]));
        let rung = client.publish();
        server.consume(count);
        rung
    };
    for round in 0..200 {
        assert!(!publish(&mut server, 3), "round {round}: it asked for nothing");
        server.arm();
        assert!(publish(&mut server, 1 + round % 8));
        for _ in 0..3 {
            assert!(!publish(&mut server, 8), "round {round}: it was rung already");
        }
        server.arm();
        server.disarm();
    }
    assert_eq!(client.doorbells(), 200);
}

#[test]
fn a_client_is_rung_once_when_as_many_completions_are_there_as_it_wants() {
    for place in PLACES {
        for want in 1..=8u32 {
            let memory = Memory::new(8);
            let (mut client, mut server) = attached(&memory, place);
            for ahead in 0..want {
                assert!(!client.arm(want, serving(1)), "{ahead} of {want}");
                server.post([0; 2]);
                assert_eq!(server.publish(), ahead + 1 == want, "{ahead} of {want}");
            }
            assert!(client.arm(want, serving(1)), "they are there");
            assert_eq!((client.look(), server.doorbells()), (Ok(want), 1));
        }
        let memory = Memory::new(8);
        let (mut client, mut server) = attached(&memory, place);
        assert!(!client.arm(0, serving(1)), "none is at least one");
        server.post([0; 2]);
        assert!(server.publish());
    }
}

/// A consumer that takes what is there, wishes, looks again and sleeps until it is rung; one step at a time.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Doing {
    Taking,
    Wishing,
    LookingAgain,
    Sleeping,
}

/// Lets a producer and a consumer do their steps in the order of `order`'s bits; then the consumer goes on alone until
/// it sleeps for good. Returns how many it took and how many doorbells rang.
fn interleave(
    order: u32,
    steps: u32,
    mut produce: impl FnMut() -> bool,
    mut consume: impl FnMut(Doing) -> Doing,
) -> u32 {
    let (mut doing, mut rung, mut doorbells) = (Doing::Taking, false, 0);
    let mut turn = |producer: bool, doing: &mut Doing| {
        if producer {
            let rings = produce();
            rung |= rings;
            doorbells += u32::from(rings);
        } else if *doing != Doing::Sleeping {
            *doing = consume(*doing);
        } else if rung {
            rung = false;
            *doing = Doing::Taking;
        }
        rung
    };
    for step in 0..steps {
        turn(order >> step & 1 == 1, &mut doing);
    }
    // The producer does the rest, then nobody but the consumer moves.
    for _ in order.count_ones()..steps {
        turn(true, &mut doing);
    }
    while turn(false, &mut doing) || doing != Doing::Sleeping {}
    doorbells
}

const STEPS: u32 = 11;

#[test]
fn no_submission_is_slept_over_in_any_order_of_steps() {
    for order in 0..1 << STEPS {
        let memory = Memory::new(16);
        let (mut client, mut server) = attached(&memory, 0);
        let (mut published, mut taken) = (0, 0);
        let produce = || {
            // One, then two, then one ...
            (0..=published % 2).for_each(|_| client.stage([0; 8]));
            published += 1;
            client.publish()
        };
        let consume = |doing| match doing {
            Doing::Taking => {
                server.disarm();
                let ready = server.look(0).unwrap().min(2);
                server.consume(ready);
                taken += ready;
                if ready == 0 { Doing::Wishing } else { Doing::Taking }
            }
            Doing::Wishing => {
                server.arm();
                armed_before_last_look();
                Doing::LookingAgain
            }
            _ if server.is_waiting(0) => Doing::Taking,
            _ => Doing::Sleeping,
        };
        let doorbells = interleave(order, STEPS, produce, consume);
        assert_eq!(taken, (0..published).map(|number| number % 2 + 1).sum(), "order {order:b}");
        assert!(doorbells <= published);
    }
}

#[test]
fn no_completion_is_slept_over_in_any_order_of_steps() {
    for (order, place) in (0..1 << STEPS).flat_map(|order| PLACES.map(|place| (order, place))) {
        let memory = Memory::new(16);
        let (mut client, mut server): (ClientEnd<'_>, _) = attached(&memory, place);
        let (mut published, mut taken) = (0, 0);
        let produce = || {
            (0..=published % 2).for_each(|_| server.post([0; 2]));
            published += 1;
            server.publish()
        };
        let consume = |doing| match doing {
            Doing::Taking => {
                let ready = client.look().unwrap().min(2);
                client.consume(ready);
                taken += ready;
                if ready == 0 { Doing::Wishing } else { Doing::Taking }
            }
            // The client's wish and its last look are one.
            Doing::Wishing if client.arm(1, serving(1)) => Doing::Taking,
            _ => Doing::Sleeping,
        };
        interleave(order, STEPS, produce, consume);
        assert_eq!(taken, (0..published).map(|number| number % 2 + 1).sum(), "order {order:b} from {place}");
    }
}
