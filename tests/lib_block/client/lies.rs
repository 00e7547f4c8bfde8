//! A server that contradicts itself is not believed any more; nothing is handed out twice, nothing panics.
use super::rig::{BLOCK, Buffers, COMPLETION_TAIL, EPOCH, Server, TestClient, attached, ends, next_life, reap};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{Fault, Replay, Request, Resumed, Standing, Why};
use drv_virtio_block::lib_block::entry::{Completion, Submission};
use drv_virtio_block::lib_block::ring::Stage;

/// Two reads in flight of two blocks each, tokens 0 and 1.
fn asked() -> (TestClient, Server, Buffers, Vec<Submission>) {
    let (mut client, mut server, buffers) = attached();
    for token in 0..2 {
        client.submit(Request::read(8, 2, buffers.at(0, 2)).with_token(token)).unwrap();
    }
    let _ = client.publish();
    let asked = server.take();
    (client, server, buffers, asked)
}

fn honest(tag: u16) -> Completion {
    Completion { tag, status: Status::Ok, bytes: 2 * BLOCK, epoch: EPOCH, late: false }
}

/// After `words` the client believes nothing, keeps both buffers, and gets them with the next life.
fn is_not_believed(lie: impl Fn(&[Submission]) -> [u64; 2], fault: Fault) {
    let (mut client, mut server, buffers, asked) = asked();
    server.raw(lie(&asked));
    // What is true behind a lie is not believed either.
    server.raw(honest(asked[0].tag).encode());
    assert!(reap(&mut client).is_empty());
    assert_eq!(client.standing(), Standing::Broken(fault));
    assert!(reap(&mut client).is_empty());
    assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Broken);
    assert_eq!((buffers.live(), client.unanswered()), (2, 2));
    assert!(!client.arm(1), "nothing but the next life is awaited");
    assert_eq!(client.resume(Replay::Never, |_| panic!("nothing new")), Resumed::Unchanged);

    let mut next = next_life(&server);
    assert!(client.arm(1));
    let mut all = Vec::new();
    assert_eq!(client.resume(Replay::Never, |done| all.push(done)), Resumed::Attached { lost: 2, replayed: 0 });
    assert_eq!(ends(&all), [(0, Status::Reset), (1, Status::Reset)]);
    assert!(next.is_acknowledged());
    assert_eq!((client.standing(), client.credit()), (Standing::Serving, 4));
}

#[test]
fn a_tag_out_of_range_is_not_believed() {
    for tag in [4, 5, 1024, u16::MAX] {
        is_not_believed(|_| honest(tag).encode(), Fault::UnknownTag);
    }
    // One that would be in flight if it were masked.
    is_not_believed(|asked| honest(asked[0].tag + 4).encode(), Fault::UnknownTag);
}

#[test]
fn a_tag_that_is_not_in_flight_is_not_believed() {
    is_not_believed(|_| Completion { bytes: 0, ..honest(3) }.encode(), Fault::UnknownTag);
    is_not_believed(|_| honest(3).encode(), Fault::UnknownTag);
}

#[test]
fn an_unknown_status_is_not_believed() {
    is_not_believed(|asked| [u64::from(asked[0].tag) | 12 << 16, EPOCH.into()], Fault::Malformed);
    is_not_believed(|asked| [u64::from(asked[0].tag) | 0xffff << 16, EPOCH.into()], Fault::Malformed);
    is_not_believed(|_| [u64::MAX, EPOCH.into()], Fault::Malformed);
    is_not_believed(|_| [u64::MAX, u64::MAX], Fault::Malformed);
}

#[test]
fn bits_without_a_meaning_are_not_believed() {
    is_not_believed(|asked| [honest(asked[0].tag).encode()[0], u64::from(EPOCH) | 1 << 33], Fault::Malformed);
    is_not_believed(|asked| [honest(asked[0].tag).encode()[0], u64::from(EPOCH) | 1 << 63], Fault::Malformed);
}

#[test]
fn too_many_bytes_are_not_believed() {
    is_not_believed(|asked| Completion { bytes: 2 * BLOCK + 1, ..honest(asked[0].tag) }.encode(), Fault::WrongBytes);
    let failed = |asked: &[Submission]| Completion { status: Status::IoError, bytes: 1025, ..honest(asked[0].tag) };
    is_not_believed(|asked| failed(asked).encode(), Fault::WrongBytes);
}

#[test]
fn all_of_it_with_fewer_bytes_is_not_believed() {
    is_not_believed(|asked| Completion { bytes: 2 * BLOCK - 1, ..honest(asked[0].tag) }.encode(), Fault::WrongBytes);
    is_not_believed(|asked| Completion { bytes: 0, ..honest(asked[0].tag) }.encode(), Fault::WrongBytes);
}

#[test]
fn another_epoch_is_not_believed() {
    is_not_believed(|asked| Completion { epoch: EPOCH - 1, ..honest(asked[0].tag) }.encode(), Fault::WrongEpoch);
    is_not_believed(|asked| Completion { epoch: EPOCH + 1, ..honest(asked[0].tag) }.encode(), Fault::WrongEpoch);
}

#[test]
fn a_tag_that_is_answered_twice_gives_its_buffer_once() {
    let (mut client, mut server, buffers, asked) = asked();
    server.done(&asked[0]);
    server.done(&asked[0]);
    server.done(&asked[1]);
    let all = reap(&mut client);
    assert_eq!(ends(&all), [(0, Status::Ok)]);
    drop(all);
    assert_eq!(client.standing(), Standing::Broken(Fault::UnknownTag));
    assert_eq!((buffers.live(), client.unanswered()), (1, 1));
    // Nor in another batch.
    assert!(reap(&mut client).is_empty());
}

#[test]
fn a_tag_answered_again_later_is_not_the_next_request() {
    let (mut client, mut server, _, asked) = asked();
    server.done(&asked[0]);
    assert_eq!(reap(&mut client).len(), 1);
    // The tag's next use is a flush: an answer to the read has too many bytes for it.
    client.submit(Request::flush()).unwrap();
    server.done(&asked[0]);
    assert!(reap(&mut client).is_empty());
    assert_eq!(client.standing(), Standing::Broken(Fault::WrongBytes));
}

#[test]
fn an_index_that_jumps_is_not_believed() {
    for jump in [5u32, 6, 1 << 31, u32::MAX] {
        let (mut client, mut server, buffers, asked) = asked();
        server.done(&asked[0]);
        assert_eq!(reap(&mut client).len(), 1);
        server.memory.scribble(COMPLETION_TAIL, jump.wrapping_add(1).into());
        assert!(reap(&mut client).is_empty());
        assert_eq!(client.standing(), Standing::Broken(Fault::IndexJump));
        // Nor when it comes back to where it was.
        server.memory.scribble(COMPLETION_TAIL, 2);
        server.done(&asked[1]);
        assert!(reap(&mut client).is_empty());
        assert_eq!((buffers.live(), client.unanswered()), (1, 1));
    }
}

#[test]
fn more_answers_than_questions_are_not_believed() {
    let (mut client, mut server, _, asked) = asked();
    server.memory.scribble(COMPLETION_TAIL, 4);
    server.done(&asked[0]);
    server.memory.scribble(COMPLETION_TAIL, 4);
    // Zeros behind the first: tag 0, all of it done, of epoch 0.
    let all = reap(&mut client);
    assert!(all.len() <= 1);
    assert!(matches!(client.standing(), Standing::Broken(_)));
}

#[test]
fn whoever_is_not_believed_is_not_heard_in_the_next_life() {
    let (mut client, mut server, buffers, asked) = asked();
    server.raw(Completion { bytes: 1, ..honest(asked[1].tag) }.encode());
    server.done(&asked[0]);
    assert!(reap(&mut client).is_empty());
    let _next = next_life(&server);
    let mut all = Vec::new();
    client.resume(Replay::Never, |done| all.push(done));
    assert_eq!(ends(&all), [(0, Status::Reset), (1, Status::Reset)]);
    drop(all);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn answers_behind_a_jump_are_not_heard_in_the_next_life() {
    let (mut client, mut server, buffers, asked) = asked();
    server.memory.scribble(COMPLETION_TAIL, 100);
    assert!(reap(&mut client).is_empty());
    server.done(&asked[1]);
    let _next = next_life(&server);
    let mut all = Vec::new();
    client.resume(Replay::Never, |done| all.push(done));
    assert_eq!(ends(&all), [(0, Status::Reset), (1, Status::Reset)]);
    drop(all);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn the_end_of_the_session_gives_everything_back_even_so() {
    let (mut client, mut server, buffers, asked) = asked();
    server.raw(honest(asked[0].tag + 4).encode());
    assert!(reap(&mut client).is_empty());
    server.announce(Stage::Ended);
    let mut all = Vec::new();
    assert_eq!(client.resume(Replay::Unanswered, |done| all.push(done)), Resumed::Over(Stage::Ended));
    assert_eq!(ends(&all), [(0, Status::Gone), (1, Status::Gone)]);
    drop(all);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn abandoning_gives_everything_back() {
    let (mut client, mut server, buffers, asked) = asked();
    server.raw(honest(asked[0].tag + 4).encode());
    assert!(reap(&mut client).is_empty());
    let mut all = Vec::new();
    // SAFETY: the played server touches no memory.
    unsafe { client.abandon(|done| all.push(done)) };
    assert_eq!(ends(&all), [(0, Status::Gone), (1, Status::Gone)]);
    drop(all);
    assert_eq!((buffers.live(), client.submit(Request::flush()).unwrap_err().why), (0, Why::Ended));
}
