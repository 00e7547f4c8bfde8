//! What stands in rings that an earlier client and its server left, and who of a server's lives is believed.
//!
//! Nothing in the rings is judged before the first attach. Whoever refuses looks first whether another life was announced.
use super::futures::{Disk, poll, ready};
use super::rig::{BLOCK, Buffer, Buffers, EPOCH, Memory, N, Server, TestClient, attached, next_life, reap};
use crate::protocol_memory::{
    CLIENT, COMPLETION_EVENT, COMPLETION_HEAD, COMPLETION_TAIL, SERVER, SUBMISSION_EVENT, SUBMISSION_TAIL, SUBMISSIONS,
};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::asynchronous::AsyncClient;
use drv_virtio_block::lib_block::client::buffer::Part;
use drv_virtio_block::lib_block::client::sync::{Blocking, Wait};
use drv_virtio_block::lib_block::client::{Client, Replay, Request, Resumed, Standing, Why};
use drv_virtio_block::lib_block::entry::Completion;
use drv_virtio_block::lib_block::message::Info;
use drv_virtio_block::lib_block::ring::Stage;
use std::task::Waker;

/// The words of an announcement, as the ring's table has them.
fn word(epoch: u32, stage: Stage) -> u64 {
    u64::from(epoch) | (stage as u64) << 32
}

/// Rings after a long life: any tail, any entries, any announcement, and the acknowledgement that goes with it.
fn left(tail: u32, entry: [u64; 2], said: u64) -> Memory {
    let memory = Memory::new(N as u16);
    memory.scribble(SERVER, said);
    memory.scribble(CLIENT, said & 0xffff_ffff | 77 << 32);
    for (place, value) in [(SUBMISSION_TAIL, 55), (COMPLETION_HEAD, 98), (COMPLETION_EVENT, 99), (SUBMISSION_EVENT, 54)]
    {
        memory.scribble(place, value);
    }
    memory.scribble(COMPLETION_TAIL, tail.into());
    for at in 0..N {
        memory.scribble(SUBMISSIONS + N * 8 + at * 2, entry[0]);
        memory.scribble(SUBMISSIONS + N * 8 + at * 2 + 1, entry[1]);
    }
    memory
}

/// Every kind of leftover; 100 is what the field found.
fn leftovers() -> impl Iterator<Item = Memory> {
    let tails = [0, 1, 3, 4, 5, 100, 1 << 31, u32::MAX];
    let answer = Completion { tag: 0, status: Status::Ok, bytes: BLOCK, epoch: EPOCH, late: false }.encode();
    let entries = [[0; 2], answer, [u64::MAX; 2]];
    let stages = [Stage::Absent, Stage::Serving, Stage::Stopped, Stage::Ended];
    let said = move || std::iter::once(0).chain(stages.into_iter().map(|stage| word(EPOCH, stage)));
    tails.into_iter().flat_map(move |tail| {
        entries.into_iter().flat_map(move |entry| said().map(move |said| left(tail, entry, said)))
    })
}

/// Rings as an earlier client and its server really left them after a hundred requests.
fn used() -> Memory {
    let (mut client, mut server, buffers) = attached();
    for round in 0..100 {
        client.submit(Request::read(round, 1, buffers.at(0, 1))).unwrap();
        let _ = client.publish();
        server.take().iter().for_each(|request| server.done(request));
        assert_eq!(reap(&mut client).len(), 1);
    }
    // Two more on their way when both went.
    client.submit(Request::flush()).unwrap();
    client.submit(Request::flush()).unwrap();
    let _ = client.publish();
    let asked = server.take();
    server.done(&asked[0]);
    server.memory
}

#[test]
fn nothing_that_was_left_is_judged_before_the_first_server() {
    for memory in leftovers().chain([used()]) {
        // A server of the next life, or one of the same that opens the session anew.
        for epoch in [EPOCH, EPOCH + 1] {
            let mut client: TestClient = Client::new(memory.rings(N as u16), BLOCK).unwrap();
            for _ in 0..3 {
                assert!(reap(&mut client).is_empty());
                assert!(!client.arm(1), "there is nothing to be woken for");
                assert_eq!(client.resume(Replay::Unanswered, |_| panic!("nothing was asked")), Resumed::Unchanged);
                assert_eq!(client.standing(), Standing::Detached);
                assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Restarting);
            }
            let mut server = Server::new(memory, N as u16, epoch);
            server.announce(Stage::Serving);
            assert!(client.arm(1));
            let resumed = client.resume(Replay::Unanswered, |_| panic!("nothing was asked"));
            assert_eq!(resumed, Resumed::Attached { lost: 0, replayed: 0 });
            assert!(server.is_acknowledged());
            let buffers = Buffers::default();
            for round in 0..9 {
                client.submit(Request::read(round, 1, buffers.at(0, 1)).with_token(round)).unwrap();
                let _ = client.publish();
                assert!(reap(&mut client).is_empty(), "nothing that was left answers it");
                let asked = server.take();
                assert_eq!(asked.iter().map(|request| request.lba).collect::<Vec<_>>(), [round]);
                server.done(&asked[0]);
                assert_eq!(reap(&mut client).iter().map(|done| done.token).collect::<Vec<_>>(), [round]);
            }
        }
    }
}

#[test]
fn an_end_that_is_announced_to_a_client_that_never_attached_is_one() {
    for stage in [Stage::Stopped, Stage::Ended] {
        for memory in [left(100, [0; 2], word(EPOCH, stage)), left(100, [0; 2], 0)] {
            let mut client: TestClient = Client::new(memory.rings(N as u16), BLOCK).unwrap();
            let mut server = Server::new(memory, N as u16, EPOCH + 1);
            server.announce(stage);
            assert_eq!(client.resume(Replay::Never, |_| ()), Resumed::Over(stage));
            assert!(reap(&mut client).is_empty());
            assert_eq!(client.standing(), Standing::Over(stage));
        }
    }
}

/// The server as `script` has it does something whenever the client sleeps.
struct Sleeper<F> {
    script: F,
    sleeps: u32,
    rung: u32,
}

impl<F: FnMut(u32)> Wait for Sleeper<F> {
    fn ring(&mut self) {
        self.rung += 1;
    }

    fn wait(&mut self) {
        assert!(self.sleeps % 100 < 50, "nothing comes any more");
        self.sleeps += 1;
        (self.script)(self.sleeps - 1);
    }
}

type Sleeping<F> = Blocking<'static, Buffer, Sleeper<F>, N>;

fn blocking<F: FnMut(u32)>(memory: Memory, policy: Replay, script: F) -> Sleeping<F> {
    let client = Client::<Part<Buffer>, N>::new(memory.rings(N as u16), BLOCK).unwrap();
    let info = Info { block_size: BLOCK, max_blocks: 8, ..Info::default() };
    Blocking::new(client, &info, policy, Sleeper { script, sleeps: 0, rung: 0 })
}

/// What a server does whenever its client sleeps.
fn serve(server: &mut Server, acknowledged: &mut bool) {
    *acknowledged = *acknowledged || server.is_acknowledged();
    if *acknowledged {
        server.take().iter().for_each(|request| server.done(request));
    }
}

#[test]
fn who_waits_on_rings_that_were_left_is_served_by_the_server_that_comes() {
    for memory in leftovers().chain([used()]) {
        let (mut server, mut known) = (None, false);
        let mut disk = blocking(memory, Replay::Never, |sleep| match sleep {
            0 => {}
            1 => server.insert(Server::new(memory, N as u16, EPOCH + 1)).announce(Stage::Serving),
            _ => serve(server.as_mut().expect("announced"), &mut known),
        });
        let buffers = Buffers::default();
        drop(disk.read(0, 8, buffers.at(0, 8)).expect("the first server's answer"));
        disk.flush().expect("another");
        assert_eq!((disk.standing(), buffers.live()), (Standing::Serving, 0));
    }
}

#[test]
fn futures_over_rings_that_were_left_are_served_by_the_server_that_comes() {
    for memory in leftovers().chain([used()]) {
        let client: TestClient = Client::new(memory.rings(N as u16), BLOCK).unwrap();
        let disk: Disk = AsyncClient::new(client, Replay::Never, Box::new(|| ()));
        let buffers = Buffers::default();
        let mut future = disk.submit(Request::read(3, 1, buffers.at(0, 1)));
        disk.drive();
        assert!(poll(&mut future, Waker::noop()).is_pending());
        let mut server = Server::new(memory, N as u16, EPOCH + 1);
        server.announce(Stage::Serving);
        disk.drive();
        assert!(poll(&mut future, Waker::noop()).is_pending());
        serve(&mut server, &mut false);
        assert_eq!(ready(&mut future).status, Status::Ok);
    }
}

/// How a session came to an end, and what a blocking client says of requests in the meantime.
#[derive(Clone, Copy, Debug)]
enum End {
    Broken,
    Said(Stage),
}

#[test]
fn a_client_that_refuses_is_reached_by_the_next_life_of_its_server() {
    for end in [End::Broken, End::Said(Stage::Stopped), End::Said(Stage::Ended)] {
        for policy in [Replay::Never, Replay::Unanswered] {
            let memory = Memory::new(N as u16);
            let mut first = Server::new(memory, N as u16, EPOCH);
            first.announce(Stage::Serving);
            let server = std::cell::RefCell::new((first, false));
            let mut disk = blocking(memory, policy, |_| {
                let (server, known) = &mut *server.borrow_mut();
                if server.epoch > EPOCH {
                    serve(server, known);
                } else if *known {
                    match end {
                        End::Said(stage) => server.announce(stage),
                        // One block more than was asked for.
                        End::Broken => server.take().iter().for_each(|request| {
                            let bytes = (request.blocks + 1) * BLOCK;
                            let done =
                                Completion { tag: request.tag, status: Status::Ok, bytes, epoch: EPOCH, late: false };
                            server.say(done);
                        }),
                    }
                } else {
                    *known = server.is_acknowledged();
                }
            });
            let buffers = Buffers::default();
            let failed = disk.write(1, 1, buffers.at(0, 1)).unwrap_err();
            let (status, kept) = match end {
                End::Broken => (Status::IoError, true),
                End::Said(_) => (Status::Gone, false),
            };
            assert_eq!((failed.status, failed.buffer.is_none()), (status, kept), "{end:?}");
            drop(failed);
            // As long as nothing new is said, it refuses, without sleeping.
            let sleeps = disk.platform().sleeps;
            assert_eq!(disk.flush().unwrap_err().status, status);
            assert_eq!((disk.platform().sleeps, buffers.live()), (sleeps, u32::from(kept)));
            let next = next_life(&server.borrow().0);
            *server.borrow_mut() = (next, false);
            let rung = disk.platform().rung;
            drop(disk.read(2, 1, buffers.at(512, 1)).unwrap_or_else(|_| panic!("{end:?}: served again")));
            assert!(disk.platform().rung > rung, "the next life is told that the client goes along");
            assert_eq!((disk.standing(), buffers.live()), (Standing::Serving, 0));
        }
    }
}

#[test]
fn a_request_whose_failure_was_told_is_not_asked_again_of_the_next_life() {
    // Blocking: the write failed, its caller went on and read something else.
    let memory = Memory::new(N as u16);
    let mut first = Server::new(memory, N as u16, EPOCH);
    first.announce(Stage::Serving);
    let state = std::cell::RefCell::new((first, false, Vec::new()));
    let mut disk = blocking(memory, Replay::Unanswered, |_| {
        let (server, known, seen) = &mut *state.borrow_mut();
        *known = *known || server.is_acknowledged();
        if !*known {
            return;
        }
        for request in server.take() {
            seen.push((server.epoch, request.lba));
            let more = u32::from(server.epoch == EPOCH);
            let bytes = (request.blocks + more) * BLOCK;
            server.say(Completion { tag: request.tag, status: Status::Ok, bytes, epoch: server.epoch, late: false });
        }
    });
    let buffers = Buffers::default();
    assert_eq!(disk.write(1, 1, buffers.at(0, 1)).unwrap_err().status, Status::IoError);
    {
        let (server, known, _) = &mut *state.borrow_mut();
        (*server, *known) = (next_life(server), false);
    }
    drop(disk.read(2, 1, buffers.at(0, 1)).unwrap());
    assert_eq!(state.borrow().2, [(EPOCH, 1), (EPOCH + 1, 2)]);

    // The same with futures: one that was told, and one that is still to be.
    let (client, mut server, buffers): (TestClient, _, _) = attached();
    let disk: Disk = AsyncClient::new(client, Replay::Unanswered, Box::new(|| ()));
    let mut all: Vec<_> = (0..3).map(|lba| disk.submit(Request::write(lba, 1, buffers.at(0, 1)))).collect();
    for future in &mut all {
        assert!(poll(future, Waker::noop()).is_pending());
    }
    let asked = server.take();
    server.say(Completion { tag: asked[1].tag, status: Status::Ok, bytes: 1, epoch: EPOCH, late: false });
    disk.drive();
    assert_eq!(ready(&mut all[0]).status, Status::IoError);
    let mut next = next_life(&server);
    disk.drive();
    assert!(next.is_acknowledged());
    assert!(next.take().is_empty(), "nothing is done behind a caller's back");
    assert_eq!((ready(&mut all[1]).status, ready(&mut all[2]).status), (Status::Reset, Status::Reset));
    assert_eq!(buffers.live(), 0);
}

#[test]
fn a_session_that_ended_and_is_opened_again_by_the_same_life_goes_on() {
    let (mut client, mut server, _) = attached();
    server.announce(Stage::Ended);
    assert_eq!(client.resume(Replay::Never, |_| ()), Resumed::Over(Stage::Ended));
    let mut again = Server::new(server.memory, N as u16, EPOCH);
    again.announce(Stage::Serving);
    assert_eq!(client.resume(Replay::Never, |_| ()), Resumed::Attached { lost: 0, replayed: 0 });
    assert!(again.is_acknowledged());
    client.submit(Request::flush().with_token(5)).unwrap();
    let _ = client.publish();
    again.take().iter().for_each(|request| again.done(request));
    assert_eq!(reap(&mut client)[0].token, 5);
}

#[test]
fn who_waits_is_served_though_all_credit_is_held_by_requests_that_nobody_waits_for() {
    let memory = Memory::new(N as u16);
    let mut server = Server::new(memory, N as u16, EPOCH);
    server.announce(Stage::Serving);
    let mut known = false;
    let mut disk = blocking(memory, Replay::Never, |sleep| {
        assert!(sleep >= 100, "the sleep's own trouble");
        serve(&mut server, &mut known);
    });
    let buffers = Buffers::default();
    for _ in 0..N {
        let read = std::panic::AssertUnwindSafe(|| drop(disk.read(0, 1, buffers.at(0, 1))));
        assert!(std::panic::catch_unwind(read).is_err());
    }
    assert_eq!(buffers.live(), N as u32);
    disk.platform().sleeps = 100;
    drop(disk.read(0, 1, buffers.at(0, 1)).expect("the answers of the others make room"));
    assert_eq!(buffers.live(), 0);
}
