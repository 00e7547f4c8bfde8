//! The rings between two honest ends, and the ways in which one of them is not.
use crate::protocol_memory::{
    CLIENT, COMPLETION_EVENT, COMPLETION_HEAD, COMPLETION_TAIL, Memory, SERVER, SUBMISSION_EVENT, SUBMISSION_TAIL,
};
use drv_virtio_block::lib_block::ring::{Announcement, ClientEnd, IndexJump, Rings, ServerEnd, Stage};
use std::ptr::NonNull;

pub(crate) const fn serving(epoch: u32) -> Announcement {
    Announcement { epoch, stage: Stage::Serving }
}

/// Both ends, attached; completions begin at `completions`.
pub(crate) fn attached(memory: &Memory, completions: u32) -> (ClientEnd<'_>, ServerEnd<'_>) {
    memory.set(COMPLETION_TAIL, completions.into());
    let (mut client, mut server) = (memory.client(), memory.server());
    server.announce(serving(1));
    client.acknowledge(1);
    assert!(server.acknowledged(1));
    (client, server)
}

/// Places at which completions begin: the start, and just before the index wraps.
pub(crate) const PLACES: [u32; 4] = [0, 1, u32::MAX - 2, u32::MAX];

fn entry(number: u32) -> [u64; 8] {
    std::array::from_fn(|word| u64::from(number) << 32 | word as u64)
}

#[test]
fn rings_are_refused_for_a_size_or_a_place_that_cannot_be() {
    let memory = Memory::new(4);
    let base = memory.rings_base();
    for size in [0, 1, 3, 2048] {
        // SAFETY: refused before anything is touched.
        assert!(unsafe { Rings::new(base, size) }.is_none(), "{size} entries");
    }
    for off in [1, 8, 16, 32] {
        // SAFETY: as above.
        assert!(unsafe { Rings::new(NonNull::new(base.as_ptr().wrapping_add(off)).unwrap(), 4) }.is_none(), "{off}");
    }
}

#[test]
fn everything_goes_round_in_order_many_times_and_across_the_wrap() {
    for size in [2, 4, 16] {
        for place in PLACES {
            let memory = Memory::new(size);
            let (mut client, mut server) = attached(&memory, place);
            let (mut asked, mut answered, mut batch) = (0, 0, 0);
            while answered < 300 {
                batch = batch % u32::from(size) + 1;
                for number in asked..asked + batch {
                    client.stage(entry(number));
                }
                assert_eq!(server.look(0), Ok(0), "staged is not published");
                let _ = client.publish();
                assert_eq!(server.look(0), Ok(batch));
                for ahead in 0..batch {
                    assert_eq!(server.peek(ahead), entry(asked + ahead));
                }
                server.consume(batch);
                asked += batch;
                for number in answered..asked {
                    server.post([u64::from(number), !u64::from(number)]);
                }
                assert_eq!(client.look(), Ok(0), "posted is not published");
                let _ = server.publish();
                assert_eq!(client.look(), Ok(batch));
                for ahead in 0..batch {
                    let number = u64::from(answered + ahead);
                    assert_eq!(client.peek(ahead), [number, !number]);
                }
                client.consume(batch);
                answered = asked;
            }
        }
    }
}

#[test]
fn no_more_is_granted_than_the_client_has_room_for_answers() {
    let memory = Memory::new(8);
    let (mut client, mut server) = attached(&memory, u32::MAX - 3);
    for number in 0..8 {
        client.stage(entry(number));
    }
    let _ = client.publish();
    for unanswered in 0..12 {
        assert_eq!(server.look(unanswered), Ok(8u32.saturating_sub(unanswered)));
        assert_eq!(server.is_waiting(unanswered), unanswered < 8);
    }
    assert_eq!(server.look(u32::MAX), Ok(0));
    assert!(!server.is_waiting(u32::MAX));
    server.consume(8);
    for _ in 0..8 {
        server.post([0; 2]);
    }
    let _ = server.publish();
    // A client that asks on and never reaps.
    for number in 8..16 {
        client.stage(entry(number));
    }
    let _ = client.publish();
    assert_eq!((server.look(0), server.is_waiting(0)), (Ok(0), false));
    for consumed in 1..=8 {
        client.consume(1);
        assert_eq!((server.look(0), server.is_waiting(0)), (Ok(consumed), true));
    }
}

#[test]
fn a_server_reports_a_tail_further_than_its_ring() {
    let memory = Memory::new(4);
    let (mut client, mut server) = attached(&memory, 0);
    let begin = memory.index(SUBMISSION_TAIL);
    for ahead in 0..=4 {
        memory.set(SUBMISSION_TAIL, begin.wrapping_add(ahead).into());
        assert_eq!(server.look(0), Ok(ahead));
    }
    for jump in [5, 6, 1 << 31, u32::MAX] {
        memory.set(SUBMISSION_TAIL, begin.wrapping_add(jump).into());
        assert_eq!(server.look(0), Err(IndexJump), "{jump}");
    }
    memory.set(SUBMISSION_TAIL, u64::from(begin) | 1 << 32);
    assert_eq!(server.look(0), Ok(0), "an index has 32 bits");
    client.stage(entry(0));
    let _ = client.publish();
    assert_eq!(server.look(0), Ok(1));
}

#[test]
fn a_server_reports_a_head_that_goes_back_or_beyond_what_was_published() {
    for place in PLACES {
        let memory = Memory::new(8);
        let (_, mut server) = attached(&memory, place);
        let head = |head: u32| memory.set(COMPLETION_HEAD, place.wrapping_add(head).into());
        for _ in 0..6 {
            server.post([0; 2]);
        }
        head(1);
        assert_eq!(server.look(0), Err(IndexJump), "posted, but not published");
        let _ = server.publish();
        for possible in [0, 2, 2, 3] {
            head(possible);
            assert_eq!(server.look(0), Ok(0));
        }
        for impossible in [0, 2, 7, 8, 1 << 31, u32::MAX] {
            head(impossible);
            assert_eq!(server.look(0), Err(IndexJump), "{impossible} after 3 of 6");
        }
        head(6);
        assert_eq!(server.look(0), Ok(0));
    }
}

#[test]
fn a_client_reports_a_tail_further_than_its_ring() {
    for place in PLACES {
        let memory = Memory::new(4);
        let (mut client, _) = attached(&memory, place);
        client.consume(0);
        for ahead in 0..=4 {
            memory.set(COMPLETION_TAIL, place.wrapping_add(ahead).into());
            assert_eq!(client.look(), Ok(ahead));
        }
        for jump in [5, 1 << 31, u32::MAX] {
            memory.set(COMPLETION_TAIL, place.wrapping_add(jump).into());
            assert_eq!(client.look(), Err(IndexJump), "{jump}");
            assert!(client.arm(4, serving(1)), "it does not sleep over it");
        }
    }
}

#[test]
fn stages_have_their_numbers_and_others_are_absent() {
    let memory = Memory::new(2);
    let (client, mut server) = (memory.client(), memory.server());
    assert_eq!(client.announcement(), Announcement { epoch: 0, stage: Stage::Absent });
    let stages = [(0, Stage::Absent), (1, Stage::Serving), (2, Stage::Stopped), (3, Stage::Ended)];
    for (number, stage) in stages {
        server.announce(Announcement { epoch: 0xAABB_CCDD, stage });
        assert_eq!(memory.get(SERVER), number << 32 | 0xAABB_CCDD);
        assert_eq!(client.announcement(), Announcement { epoch: 0xAABB_CCDD, stage });
    }
    for number in [4, 255, 1 << 31] {
        memory.set(SERVER, number << 32 | 7);
        assert_eq!(client.announcement(), Announcement { epoch: 7, stage: Stage::Absent });
    }
}

#[test]
fn a_client_that_waits_is_shown_an_announcement() {
    let memory = Memory::new(2);
    let (mut client, mut server) = (memory.client(), memory.server());
    let absent = client.announcement();
    assert!(!client.arm(1, absent));
    server.announce(serving(1));
    assert!(client.arm(1, absent), "a new epoch");
    assert!(!client.arm(1, serving(1)));
    server.announce(Announcement { epoch: 1, stage: Stage::Ended });
    assert!(client.arm(1, serving(1)), "a new stage");
}

#[test]
fn the_server_stands_where_the_client_says_and_only_in_its_own_epoch() {
    let memory = Memory::new(4);
    let mut server = memory.server();
    server.announce(serving(5));
    for stale in [0, 4, 6, u32::MAX] {
        memory.set(CLIENT, u64::from(stale) | 9 << 32);
        assert!(!server.acknowledged(5), "epoch {stale}");
        assert_eq!(server.look(0), Ok(0), "and nothing changed");
    }
    for (start, reaped) in [(9, 0), (u32::MAX, u32::MAX - 1)] {
        memory.set(SUBMISSION_TAIL, u64::from(u32::wrapping_add(start, 3)));
        memory.set(COMPLETION_HEAD, u64::from(reaped));
        memory.set(CLIENT, 5 | u64::from(start) << 32);
        assert!(server.acknowledged(5));
        assert_eq!(server.look(0), Ok(3));
        assert_eq!(memory.index(COMPLETION_TAIL), reaped);
        assert_eq!(memory.index(SUBMISSION_EVENT), start.wrapping_sub(1), "no doorbell is asked for");
    }
}

#[test]
fn after_a_restart_what_was_in_the_rings_is_neither_done_again_nor_answered() {
    for place in PLACES {
        let memory = Memory::new(4);
        let (mut client, mut server) = attached(&memory, place);
        for number in 0..4 {
            client.stage(entry(number));
        }
        let _ = client.publish();
        assert_eq!(server.look(0), Ok(4));
        server.consume(2);
        server.post([1, 1]);
        server.post([2, 2]);
        let _ = server.publish();
        // The server dies. The client takes one completion, and stages something that it does not publish.
        assert_eq!(client.look(), Ok(2));
        client.consume(1);
        client.stage(entry(4));
        let mut server = memory.server();
        assert!(!server.acknowledged(1), "its client's word was to another server");
        server.announce(serving(2));
        assert!(!server.acknowledged(2));
        client.acknowledge(2);
        assert!(!client.is_staged());
        assert_eq!(client.look(), Ok(0), "before the server comes to it");
        assert!(server.acknowledged(2));
        assert_eq!((server.look(0), client.look()), (Ok(0), Ok(0)));
        client.stage(entry(5));
        let _ = client.publish();
        assert_eq!((server.look(0), server.peek(0)), (Ok(1), entry(5)));
        server.consume(1);
        server.post([5, 5]);
        let _ = server.publish();
        assert_eq!((client.look(), client.peek(0)), (Ok(1), [5, 5]));
    }
}

#[test]
fn memory_of_an_earlier_session_in_the_same_epoch_serves_a_new_one() {
    let memory = Memory::new(4);
    let (mut client, mut server) = attached(&memory, 0);
    for number in 0..3 {
        client.stage(entry(number));
    }
    let _ = client.publish();
    server.consume(3);
    for _ in 0..3 {
        server.post([7, 7]);
    }
    let _ = server.publish();
    server.announce(Announcement { epoch: 1, stage: Stage::Ended });
    // Another session of the same server over it.
    let mut server = memory.server();
    server.announce(serving(1));
    assert!(!server.acknowledged(1), "the earlier client's word is not this one's");
    let mut client = memory.client();
    client.acknowledge(1);
    assert_eq!(client.look(), Ok(0), "the earlier client's completions are not this one's");
    assert!(server.acknowledged(1));
    assert_eq!((server.look(0), client.look()), (Ok(0), Ok(0)));
    client.stage(entry(3));
    let _ = client.publish();
    assert_eq!((server.look(0), server.peek(0)), (Ok(1), entry(3)));
}

#[test]
fn a_new_client_is_rung_for_nothing_before_it_asks() {
    for place in PLACES {
        let memory = Memory::new(4);
        let (_, mut server) = attached(&memory, place);
        assert_eq!(memory.index(COMPLETION_EVENT), place.wrapping_sub(1));
        for _ in 0..4 {
            server.post([0; 2]);
            assert!(!server.publish());
        }
    }
}
