//! Another server after a kill, or none any more: what is lost, what is asked again, when buffers come back.
use super::rig::{EPOCH, N, Server, TestClient, attached, ends, next_life, reap};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{Client, Fault, Replay, Request, Resumed, Standing, Why};
use drv_virtio_block::lib_block::entry::{self, Data, Flags, MemoryId, Operation, Piece};
use drv_virtio_block::lib_block::ring::Stage;

/// The ends and what was found.
fn resume(client: &mut TestClient, policy: Replay) -> (Vec<(u64, Status)>, Resumed) {
    let mut all = Vec::new();
    let resumed = client.resume(policy, |done| all.push(done));
    (ends(&all), resumed)
}

#[test]
fn what_was_left_in_the_ring_is_valid_and_the_rest_is_lost_in_order() {
    let (mut client, mut server, buffers) = attached();
    // So that tags are not in the order of submission.
    for _ in 0..2 {
        client.submit(Request::flush()).unwrap();
    }
    let _ = client.publish();
    for request in server.take() {
        server.done(&request);
    }
    assert_eq!(reap(&mut client).len(), 2);
    for token in 0..4 {
        client.submit(Request::read(token, 1, buffers.at(0, 1)).with_token(token)).unwrap();
    }
    let _ = client.publish();
    let asked = server.take();
    server.done(&asked[2]);
    let mut next = next_life(&server);

    assert!(client.arm(1), "the announcement is seen without a doorbell");
    assert!(!next.is_acknowledged());
    let (all, resumed) = resume(&mut client, Replay::Never);
    assert_eq!(all, [(2, Status::Ok), (0, Status::Reset), (1, Status::Reset), (3, Status::Reset)]);
    assert_eq!(resumed, Resumed::Attached { lost: 3, replayed: 0 });
    assert_eq!(buffers.live(), 0);
    assert!(next.is_acknowledged());
    assert!(next.take().is_empty());
    assert_eq!((client.standing(), client.credit()), (Standing::Serving, 4));
}

#[test]
fn buffers_do_not_come_back_before_the_next_server_is_announced() {
    let (mut client, server, buffers) = attached();
    client.submit(Request::read(0, 1, buffers.at(0, 1))).unwrap();
    let _ = client.publish();
    for _ in 0..10 {
        assert!(reap(&mut client).is_empty());
        assert_eq!(resume(&mut client, Replay::Never), (vec![], Resumed::Unchanged));
    }
    // A server that is there but does not serve yet has not reset the device.
    let mut next = Server::new(server.memory, N as u16, EPOCH + 1);
    next.announce(Stage::Absent);
    assert!(reap(&mut client).is_empty());
    assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Restarting);
    assert_eq!(resume(&mut client, Replay::Never), (vec![], Resumed::Absent));
    assert_eq!((buffers.live(), client.unanswered()), (1, 1));
    assert!(!client.arm(1));
    next.announce(Stage::Serving);
    assert_eq!(resume(&mut client, Replay::Never).0, [(0, Status::Reset)]);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn requests_are_refused_from_the_announcement_until_it_was_acted_upon() {
    let (mut client, server, _) = attached();
    let mut next = next_life(&server);
    assert!(reap(&mut client).is_empty());
    assert_eq!(client.standing(), Standing::Detached);
    assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Restarting);
    assert!(!client.publish());
    resume(&mut client, Replay::Unanswered);
    client.submit(Request::flush()).unwrap();
    let _ = client.publish();
    assert!(next.is_acknowledged());
    assert_eq!(next.take().len(), 1);
}

#[test]
fn replay_asks_again_in_the_original_order_what_was_not_answered() {
    let (mut client, mut server, buffers) = attached();
    let two = Data::Two([0, 9000].map(|offset| Piece { memory: MemoryId(2), offset, len: 512 }));
    client.submit(Request::flush().with_token(9)).unwrap();
    client.submit(Request::flush().with_token(9)).unwrap();
    let _ = client.publish();
    let first = server.take();
    for at in [1, 0] {
        server.done(&first[at]);
    }
    assert_eq!(reap(&mut client).len(), 2);
    client.submit(Request::write(1, 2, buffers.with(two)).durably().with_deadline(5).with_token(0)).unwrap();
    client.submit(Request::read(2, 1, buffers.at(512, 1)).with_token(1)).unwrap();
    client.submit(Request::flush().after_all_before().with_token(2)).unwrap();
    let _ = client.publish();
    // Staged, and never shown to the old server.
    client.submit(Request::write_zeroes(3, 9, true).with_token(3)).unwrap();
    let before = server.take();
    assert_eq!(before.len(), 3);

    let mut next = next_life(&server);
    let (all, resumed) = resume(&mut client, Replay::Unanswered);
    assert_eq!((all, resumed), (vec![], Resumed::Attached { lost: 0, replayed: 4 }));
    assert_eq!((buffers.live(), client.credit()), (2, 0));
    assert!(next.is_acknowledged());
    let again = next.take();
    assert_eq!(&again[..3], &before[..]);
    assert_eq!((again[3].operation, again[3].flags), (Operation::WriteZeroes, Flags::UNMAP));
    assert_eq!((again[3].lba, again[3].blocks), (3, 9));
    for request in again.iter().rev() {
        next.done(request);
    }
    let tokens: Vec<_> = reap(&mut client).iter().map(|done| done.token).collect();
    assert_eq!((tokens, buffers.live()), (vec![3, 2, 1, 0], 0));
}

#[test]
fn nothing_is_answered_twice_over_many_restarts() {
    let (mut client, mut server, buffers) = attached();
    let (mut next_token, mut seen) = (0, Vec::new());
    let policies = [Replay::Unanswered, Replay::Never, Replay::Unanswered];
    for round in 0..60usize {
        while let Ok(_tag) = client.submit(Request::write(0, 1, buffers.at(0, 1)).with_token(next_token)) {
            next_token += 1;
        }
        let _ = client.publish();
        let asked = server.take();
        for (at, request) in asked.iter().enumerate() {
            if (at + round) % 3 == 0 {
                server.done(request);
            }
        }
        if round % 2 == 0 {
            seen.extend(reap(&mut client).iter().map(|done| done.token));
        }
        server = next_life(&server);
        client.resume(policies[round % 3], |done| seen.push(done.token));
        assert!(server.is_acknowledged());
    }
    let _last = next_life(&server);
    client.resume(Replay::Never, |done| seen.push(done.token));
    seen.sort_unstable();
    assert_eq!(seen, (0..next_token).collect::<Vec<_>>());
    assert_eq!((buffers.live(), client.credit()), (0, 4));
}

#[test]
fn a_cancel_is_not_asked_again_nor_what_it_withdraws() {
    let (mut client, mut server, buffers) = attached();
    let tag = client.submit(Request::read(0, 1, buffers.at(0, 1)).with_token(1)).unwrap();
    client.submit(Request::read(1, 1, buffers.at(0, 1)).with_token(2)).unwrap();
    client.cancel(tag, 3).unwrap();
    let _ = client.publish();
    let mut next = next_life(&server);
    let (all, resumed) = resume(&mut client, Replay::Unanswered);
    assert_eq!(all, [(1, Status::Reset), (3, Status::Reset)]);
    assert_eq!(resumed, Resumed::Attached { lost: 2, replayed: 1 });
    assert!(next.is_acknowledged());
    assert_eq!(next.take().iter().map(|s| s.lba).collect::<Vec<_>>(), [1]);
    let _ = server.take();
}

#[test]
fn a_cancel_does_not_reach_the_next_use_of_its_tag() {
    let (mut client, mut server, _) = attached();
    let tag = client.submit(Request::flush()).unwrap();
    client.cancel(tag, 1).unwrap();
    let _ = client.publish();
    let asked = server.take();
    server.done(&asked[0]);
    assert_eq!(reap(&mut client).len(), 1);
    let again = client.submit(Request::flush().with_token(2)).unwrap();
    assert_eq!(again.number(), tag.number());
    let _next = next_life(&server);
    let (all, resumed) = resume(&mut client, Replay::Unanswered);
    assert_eq!((all, resumed), (vec![(1, Status::Reset)], Resumed::Attached { lost: 1, replayed: 1 }));
}

#[test]
fn answers_of_the_old_epoch_are_not_believed_of_the_new_server() {
    let (mut client, server, buffers) = attached();
    client.submit(Request::read(0, 1, buffers.at(0, 1))).unwrap();
    let mut next = next_life(&server);
    resume(&mut client, Replay::Unanswered);
    assert!(next.is_acknowledged());
    let again = next.take();
    next.say(entry::Completion { tag: again[0].tag, status: Status::Ok, bytes: 512, epoch: EPOCH, late: false });
    assert!(reap(&mut client).is_empty());
    assert_eq!(client.standing(), Standing::Broken(Fault::WrongEpoch));
    assert_eq!(buffers.live(), 1);
}

#[test]
fn a_stop_ends_what_is_unanswered_and_refuses_the_rest() {
    for stage in [Stage::Stopped, Stage::Ended] {
        let (mut client, mut server, buffers) = attached();
        for token in 0..3 {
            client.submit(Request::read(0, 1, buffers.at(0, 1)).with_token(token)).unwrap();
        }
        let _ = client.publish();
        let asked = server.take();
        server.done(&asked[1]);
        server.announce(stage);
        let (all, resumed) = resume(&mut client, Replay::Unanswered);
        assert_eq!(all, [(1, Status::Ok), (0, Status::Gone), (2, Status::Gone)]);
        assert_eq!((resumed, client.standing()), (Resumed::Over(stage), Standing::Over(stage)));
        assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Ended);
        assert_eq!(buffers.live(), 0);
        assert!(!client.arm(1));
    }
}

#[test]
fn a_session_goes_on_when_a_stopped_driver_starts_again() {
    let (mut client, mut server, _) = attached();
    server.announce(Stage::Stopped);
    assert_eq!(resume(&mut client, Replay::Never).1, Resumed::Over(Stage::Stopped));
    let mut next = next_life(&server);
    assert_eq!(resume(&mut client, Replay::Never).1, Resumed::Attached { lost: 0, replayed: 0 });
    assert!(next.is_acknowledged());
    client.submit(Request::flush()).unwrap();
    let _ = client.publish();
    assert_eq!(next.take().len(), 1);
}

#[test]
fn nobody_is_attached_before_there_is_a_server() {
    let memory = super::rig::Memory::new(N as u16);
    let mut client: TestClient = Client::new(memory.rings(N as u16), 512).unwrap();
    assert_eq!(resume(&mut client, Replay::Never), (vec![], Resumed::Unchanged));
    assert_eq!(client.standing(), Standing::Detached);
    assert!(!client.arm(1));
    assert!(reap(&mut client).is_empty());
}
