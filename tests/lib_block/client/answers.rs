//! Tags, credit, cancels and doorbells with an honest server.
use super::rig::{BLOCK, Buffer, EPOCH, Memory, N, Server, TestClient, attached, ends, next_life, reap};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::buffer::Part;
use drv_virtio_block::lib_block::client::{Client, Replay, Request, Resumed, SharedBuffer, Standing, Tag, Why};
use drv_virtio_block::lib_block::entry::{self, Data, Flags, MemoryId, Operation, Piece};
use drv_virtio_block::lib_block::ring::Stage;

#[test]
fn every_operation_is_asked_as_it_was_meant() {
    let (mut client, mut server, buffers) = attached();
    let mut asked = Vec::new();
    for request in [
        Request::write(9, 2, buffers.at(4096, 2)).durably().with_deadline(77),
        Request::read(5, 1, buffers.at(512, 1)).after_all_before(),
        Request::discard(100, 8),
        Request::write_zeroes(200, 16, true),
    ] {
        client.submit(request).unwrap();
        let _ = client.publish();
        asked.extend(server.take());
        server.done(&asked[asked.len() - 1]);
        assert_eq!(reap(&mut client).len(), 1);
    }
    client.submit(Request::flush()).unwrap();
    let _ = client.publish();
    asked.extend(server.take());
    let said: Vec<_> = asked.iter().map(|s| (s.operation, s.flags.0, s.lba, s.blocks, s.deadline)).collect();
    assert_eq!(
        said,
        [
            (Operation::Write, Flags::FUA.0, 9, 2, 77),
            (Operation::Read, Flags::PRE_BARRIER.0, 5, 1, 0),
            (Operation::Discard, 0, 100, 8, 0),
            (Operation::WriteZeroes, Flags::UNMAP.0, 200, 16, 0),
            (Operation::Flush, 0, 0, 0, 0),
        ]
    );
    let piece = |offset, len| Data::One(Piece { memory: MemoryId(1), offset, len });
    assert_eq!(asked[0].data, piece(4096, 2 * BLOCK));
    assert_eq!(asked[1].data, piece(512, BLOCK));
    assert_eq!(asked[2].data, Data::None);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn two_pieces_and_a_list_are_named_as_the_buffer_says() {
    let (mut client, mut server, buffers) = attached();
    let piece = |offset, len| Piece { memory: MemoryId(3), offset, len };
    let (two, list) = (Data::Two([piece(0, 512), piece(8192, 512)]), Data::List(piece(64, 5 * 16)));
    client.submit(Request::read(0, 2, buffers.with(two))).unwrap();
    client.submit(Request::write(0, 5, buffers.with(list))).unwrap();
    let _ = client.publish();
    let asked = server.take();
    assert_eq!((asked[0].data, asked[1].data), (two, list));
    for request in &asked {
        server.done(request);
    }
    assert_eq!(reap(&mut client).iter().map(|done| done.bytes).collect::<Vec<_>>(), [1024, 2560]);
}

#[test]
fn answers_in_another_order_find_their_requests() {
    let (mut client, mut server, buffers) = attached();
    for round in 0..50u64 {
        for at in 0..4 {
            client.submit(Request::read(at, 1, buffers.at(at * 512, 1)).with_token(round * 4 + at)).unwrap();
        }
        let _ = client.publish();
        let asked = server.take();
        let mut tags: Vec<_> = asked.iter().map(|s| s.tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, [0, 1, 2, 3]);
        for at in [2, 0, 3, 1] {
            server.done(&asked[at]);
        }
        let all = reap(&mut client);
        assert_eq!(all.iter().map(|done| done.token % 4).collect::<Vec<_>>(), [2, 0, 3, 1]);
        for done in all {
            assert_eq!((done.status, done.bytes, done.token / 4), (Status::Ok, 512, round));
            let Some(Data::One(piece)) = done.buffer.as_ref().map(SharedBuffer::data) else { panic!("its buffer") };
            assert_eq!(piece.offset, done.token % 4 * 512);
        }
        assert_eq!((client.credit(), buffers.live()), (4, 0));
    }
}

#[test]
fn failures_late_answers_and_partial_bytes_come_as_they_are() {
    let (mut client, mut server, buffers) = attached();
    for token in 0..3 {
        client.submit(Request::read(0, 2, buffers.at(0, 2)).with_token(token)).unwrap();
    }
    let _ = client.publish();
    let asked = server.take();
    server.answer(&asked[0], Status::OutOfRange);
    server.say(entry::Completion { tag: asked[1].tag, status: Status::Ok, bytes: 1024, epoch: EPOCH, late: true });
    server.say(entry::Completion { tag: asked[2].tag, status: Status::IoError, bytes: 512, epoch: EPOCH, late: false });
    let all = reap(&mut client);
    let said: Vec<_> = all.iter().map(|done| (done.status, done.bytes, done.late)).collect();
    assert_eq!(said, [(Status::OutOfRange, 0, false), (Status::Ok, 1024, true), (Status::IoError, 512, false)]);
    assert!(all.iter().all(|done| done.buffer.is_some()));
    assert_eq!(client.standing(), Standing::Serving);
}

#[test]
fn without_credit_the_request_comes_back_whole() {
    let (mut client, mut server, buffers) = attached();
    for _ in 0..N {
        client.submit(Request::flush()).unwrap();
    }
    let refused = client.submit(Request::read(3, 1, buffers.at(0, 1)).with_token(8)).unwrap_err();
    assert_eq!((refused.why, refused.request.token()), (Why::Full, 8));
    assert!(refused.request.into_buffer().is_some());
    let _ = client.publish();
    let asked = server.take();
    assert_eq!(asked.len(), N);
    server.done(&asked[1]);
    assert_eq!(reap(&mut client).len(), 1);
    // The tag that came back last is the one that is given next.
    let tag = client.submit(Request::flush()).unwrap();
    assert_eq!(tag.number(), asked[1].tag);
    assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Full);
}

#[test]
fn at_most_as_many_are_reaped_as_asked_for() {
    let (mut client, mut server, _) = attached();
    for token in 0..3 {
        client.submit(Request::flush().with_token(token)).unwrap();
    }
    let _ = client.publish();
    for request in &server.take() {
        server.done(request);
    }
    let mut tokens = Vec::new();
    assert_eq!(client.reap(2, |done| tokens.push(done.token)), 2);
    assert_eq!((client.unanswered(), tokens.len()), (1, 2));
    assert_eq!(client.reap(2, |done| tokens.push(done.token)), 1);
    assert_eq!(client.reap(2, |done| tokens.push(done.token)), 0);
    assert_eq!(tokens, [0, 1, 2]);
}

#[test]
fn a_cancel_names_the_tag_and_both_end() {
    let (mut client, mut server, buffers) = attached();
    client.submit(Request::flush()).unwrap();
    let tag = client.submit(Request::read(0, 1, buffers.at(0, 1)).with_token(1)).unwrap();
    client.cancel(tag, 2).unwrap();
    let _ = client.publish();
    let asked = server.take();
    assert_eq!((asked[2].operation, asked[2].lba), (Operation::Cancel, tag.number().into()));
    server.answer(&asked[1], Status::Gone);
    server.done(&asked[2]);
    assert_eq!(ends(&reap(&mut client)), [(1, Status::Gone), (2, Status::Ok)]);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn a_cancel_of_what_was_answered_finds_nothing() {
    let (mut client, mut server, _) = attached();
    let old = client.submit(Request::flush()).unwrap();
    let _ = client.publish();
    let asked = server.take();
    server.done(&asked[0]);
    let done = reap(&mut client);
    assert_eq!(done[0].tag, old);
    assert_eq!(client.cancel(old, 0), Err(Why::NotFound));
    // The same tag in its next use is another request.
    let new = client.submit(Request::flush()).unwrap();
    assert_eq!(new.number(), old.number());
    assert_eq!(client.cancel(old, 0), Err(Why::NotFound));
    assert!(client.cancel(new, 0).is_ok());
}

#[test]
fn a_tag_of_another_client_finds_nothing_and_withdraws_nothing() {
    let others = |client: &mut TestClient| -> Vec<Tag> {
        // The same numbers and the same count of requests in a client of the same size; a larger client's; those of the
        // client that had these rings before.
        let (mut same, _server, _) = attached();
        let mut tags: Vec<_> = (0..N).map(|_| same.submit(Request::flush()).unwrap()).collect();
        let memory = Memory::new(64);
        let mut large = Client::<Buffer, 64>::new(memory.rings(64), BLOCK).unwrap();
        Server::new(memory, 64, EPOCH).announce(Stage::Serving);
        large.resume(Replay::Never, |_| ());
        tags.extend((0..64).map(|_| large.submit(Request::flush()).unwrap()));
        assert_eq!(tags.iter().filter(|tag| tag.number() >= N as u16).count(), 60);
        assert!(tags.iter().all(|tag| client.cancel(*tag, 0) == Err(Why::NotFound)));
        tags
    };
    let (mut client, mut server, buffers) = attached();
    let earlier = client.submit(Request::flush()).unwrap();
    drop(client);
    let mut client: TestClient = Client::new(server.memory.rings(N as u16), BLOCK).unwrap();
    server = next_life(&server);
    client.resume(Replay::Never, |_| ());
    assert!(server.is_acknowledged());
    let before = others(&mut client);
    for token in 0..3 {
        client.submit(Request::read(token, 1, buffers.at(0, 1)).with_token(token)).unwrap();
    }
    others(&mut client);
    assert_eq!(client.cancel(earlier, 0), Err(Why::NotFound));
    assert!(before.iter().all(|tag| client.cancel(*tag, 0) == Err(Why::NotFound)));
    let _ = client.publish();
    assert_eq!(server.take().len(), 3, "no withdrawal among them");
    // Nothing of it is left for a restart either.
    let mut next = next_life(&server);
    let resumed = client.resume(Replay::Unanswered, |_| panic!("nothing ended"));
    assert_eq!(resumed, Resumed::Attached { lost: 0, replayed: 3 });
    assert!(next.is_acknowledged());
    assert_eq!(next.take().len(), 3);
}

#[test]
fn a_tag_stays_its_clients_when_the_client_is_moved() {
    let (mut client, _server, _) = attached();
    let tag = client.submit(Request::flush()).unwrap();
    let mut moved = Box::new(client);
    assert!(moved.cancel(tag, 0).is_ok());
}

#[test]
fn a_cancel_takes_credit_as_well() {
    let (mut client, _server, _) = attached();
    let tag = client.submit(Request::flush()).unwrap();
    for _ in 1..N {
        client.submit(Request::flush()).unwrap();
    }
    assert_eq!(client.cancel(tag, 0), Err(Why::Full));
}

#[test]
fn the_servers_doorbell_is_rung_once_for_a_batch_and_only_when_it_asked() {
    let (mut client, mut server, _) = attached();
    assert!(!client.publish());
    server.arm();
    client.submit(Request::flush()).unwrap();
    client.submit(Request::flush()).unwrap();
    assert!(server.take().is_empty());
    assert!(client.publish());
    assert!(!client.publish());
    client.submit(Request::flush()).unwrap();
    assert!(!client.publish());
    assert_eq!((server.take().len(), client.doorbells()), (3, 1));
}

#[test]
fn the_clients_doorbell_comes_with_as_many_as_it_asked_for() {
    let (mut client, mut server, _) = attached();
    for _ in 0..3 {
        client.submit(Request::flush()).unwrap();
    }
    let _ = client.publish();
    let asked = server.take();
    assert!(!client.arm(2));
    let say = |tag| entry::Completion { tag, status: Status::Ok, bytes: 0, epoch: EPOCH, late: false }.encode();
    assert!(!server.raw(say(asked[0].tag)));
    assert!(server.raw(say(asked[1].tag)));
    assert!(client.arm(2));
    assert_eq!(reap(&mut client).len(), 2);
    // More than can come is not waited for.
    assert!(!client.arm(100));
    assert!(server.raw(say(asked[2].tag)));
}

#[test]
fn a_client_that_is_dropped_leaves_its_buffers_to_the_server() {
    let (mut client, mut server, buffers) = attached();
    client.submit(Request::read(0, 1, buffers.at(0, 1))).unwrap();
    client.submit(Request::read(0, 1, buffers.at(0, 1))).unwrap();
    let _ = client.publish();
    let asked = server.take();
    server.done(&asked[0]);
    drop(reap(&mut client));
    drop(client);
    assert_eq!(buffers.live(), 1);
}

#[test]
fn sizes_that_do_not_fit_make_no_client() {
    let rings = || super::rig::Memory::new(8).rings(8);
    assert!(Client::<super::rig::Buffer, 8>::new(rings(), 512).is_some());
    assert!(Client::<super::rig::Buffer, 4>::new(rings(), 512).is_none());
    assert!(Client::<super::rig::Buffer, 8>::new(rings(), 0).is_none());
    assert!(Client::<super::rig::Buffer, 8>::new(rings(), 513).is_none());
}

#[test]
fn parts_are_bytes_of_the_buffer_across_its_pieces() {
    let (_, _, buffers) = attached();
    let piece = |offset, len| Piece { memory: MemoryId(3), offset, len };
    let two = Data::Two([piece(1000, 100), piece(5000, 50)]);
    let of = |offset, len| Part::new(buffers.with(two), offset, len).map(|part| part.data());
    assert_eq!(of(0, 100), Some(Data::One(piece(1000, 100))));
    assert_eq!(of(99, 1), Some(Data::One(piece(1099, 1))));
    assert_eq!(of(100, 50), Some(Data::One(piece(5000, 50))));
    assert_eq!(of(90, 20), Some(Data::Two([piece(1090, 10), piece(5000, 10)])));
    assert_eq!(of(0, 150), Some(two));
    assert_eq!((of(0, 151), of(150, 1), of(0, 0), of(u32::MAX, 1)), (None, None, None, None));
    assert!(Part::new(buffers.with(Data::List(piece(0, 48))), 0, 48).is_none());
}

#[test]
fn more_bytes_than_an_answer_can_name_are_the_servers_to_refuse() {
    let (mut client, mut server, buffers) = attached();
    client.submit(Request::read(0, (1 << 23) + 1, buffers.at(0, 1))).unwrap();
    let _ = client.publish();
    let asked = server.take();
    server.answer(&asked[0], Status::InvalidArgument);
    assert_eq!(ends(&reap(&mut client)), [(0, Status::InvalidArgument)]);
}
