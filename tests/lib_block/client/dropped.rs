//! Futures that are dropped: the request is withdrawn, its buffer stays until the end.
use super::futures::{Counter, Disk, Io, disk, poll, ready};
use super::rig::{Buffers, N, next_life};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{Replay, Request};
use drv_virtio_block::lib_block::entry::Operation;
use std::task::Waker;

fn asked<'a>(disk: &'a Disk, buffers: &Buffers) -> Io<'a> {
    let mut future = disk.submit(Request::read(0, 1, buffers.at(0, 1)));
    assert!(poll(&mut future, Waker::noop()).is_pending());
    future
}

#[test]
fn a_dropped_future_withdraws_and_its_buffer_stays_until_the_answer() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let future = asked(&disk, &buffers);
    let request = server.take()[0];
    drop(future);
    assert_eq!(buffers.live(), 1);
    let cancel = server.take();
    assert_eq!((cancel.len(), cancel[0].operation, cancel[0].lba), (1, Operation::Cancel, request.tag.into()));
    server.answer(&cancel[0], Status::Busy);
    disk.drive();
    assert_eq!((buffers.live(), disk.unanswered()), (1, 1));
    server.done(&request);
    disk.drive();
    assert_eq!((buffers.live(), disk.unanswered()), (0, 0));
}

#[test]
fn without_credit_for_a_cancel_the_request_just_ends() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut all: Vec<_> = (0..N).map(|_| asked(&disk, &buffers)).collect();
    let requests = server.take();
    drop(all.remove(1));
    assert!(server.take().is_empty());
    assert_eq!(buffers.live(), 4);
    server.done(&requests[1]);
    disk.drive();
    assert_eq!((buffers.live(), disk.unanswered()), (3, 3));
    // Its place is free again.
    let again = asked(&disk, &buffers);
    assert_eq!(server.take().len(), 1);
    drop(again);
}

#[test]
fn a_dropped_future_that_was_answered_drops_its_buffer() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let future = asked(&disk, &buffers);
    let request = server.take()[0];
    server.done(&request);
    disk.drive();
    assert_eq!(buffers.live(), 1);
    drop(future);
    assert_eq!((buffers.live(), server.take().len()), (0, 0));
}

#[test]
fn a_future_dropped_while_it_waits_was_never_asked() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let all: Vec<_> = (0..N).map(|_| asked(&disk, &buffers)).collect();
    let (counter, waker) = Counter::new();
    let mut waiting = disk.submit(Request::read(9, 1, buffers.at(0, 1)));
    assert!(poll(&mut waiting, &waker).is_pending());
    drop(waiting);
    assert_eq!(buffers.live(), 4);
    for request in server.take() {
        server.done(&request);
    }
    disk.drive();
    drop(all);
    assert_eq!((counter.count(), buffers.live(), server.take().len()), (0, 0, 0));
}

#[test]
fn a_request_of_a_dropped_future_is_not_asked_again_and_its_buffer_comes_home_after_the_restart() {
    let (disk, mut server, buffers) = disk(Replay::Unanswered);
    let dropped = asked(&disk, &buffers);
    let mut kept = asked(&disk, &buffers);
    drop(dropped);
    assert_eq!((server.take().len(), buffers.live()), (3, 2));
    let mut next = next_life(&server);
    disk.drive();
    assert_eq!(buffers.live(), 1);
    assert!(next.is_acknowledged());
    let again = next.take();
    assert_eq!(again.len(), 1);
    next.done(&again[0]);
    disk.drive();
    assert_eq!(ready(&mut kept).status, Status::Ok);
    assert_eq!((buffers.live(), disk.unanswered()), (0, 0));
}

#[test]
fn many_futures_come_and_go_and_no_buffer_is_left() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut in_flight = Vec::new();
    let mut random = 1u32;
    for _ in 0..3000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match random >> 30 {
            0 => {
                let mut future = disk.submit(Request::write(0, 1, buffers.at(0, 1)));
                if poll(&mut future, Waker::noop()).is_pending() {
                    in_flight.push(future);
                }
            }
            1 if !in_flight.is_empty() => {
                let at = (random >> 8) as usize % in_flight.len();
                drop(in_flight.swap_remove(at));
            }
            2 => {
                for request in server.take().iter().rev() {
                    server.answer(request, if request.tag == 2 { Status::IoError } else { Status::Ok });
                }
            }
            _ => in_flight.retain_mut(|future| poll(future, Waker::noop()).is_pending()),
        }
    }
    for _ in 0..1000 {
        if in_flight.is_empty() {
            break;
        }
        for request in server.take() {
            server.done(&request);
        }
        in_flight.retain_mut(|future| poll(future, Waker::noop()).is_pending());
    }
    assert!(in_flight.is_empty());
    for request in server.take() {
        server.done(&request);
    }
    disk.drive();
    assert_eq!((buffers.live(), disk.unanswered()), (0, 0));
}
