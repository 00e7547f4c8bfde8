//! One request at a time: cut, waited for, across restarts.
use super::rig::{BLOCK, Buffer, Buffers, EPOCH, Memory, N, Server};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::buffer::Part;
use drv_virtio_block::lib_block::client::sync::{Blocking, Wait};
use drv_virtio_block::lib_block::client::{Client, Replay, SharedBuffer, Standing};
use drv_virtio_block::lib_block::entry::{Data, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::message::Info;
use drv_virtio_block::lib_block::ring::Stage;

/// What the server does whenever the client sleeps.
type Script = Box<dyn FnMut(&mut Server, u32)>;

/// The server runs while the client sleeps.
struct Platform {
    server: Server,
    script: Script,
    sleeps: u32,
    rings: u32,
}

impl Wait for Platform {
    fn ring(&mut self) {
        self.rings += 1;
    }

    fn wait(&mut self) {
        assert!(self.sleeps < 50, "nothing comes any more");
        (self.script)(&mut self.server, self.sleeps);
        self.sleeps += 1;
    }
}

type Disk = Blocking<'static, Buffer, Platform, N>;

/// A client that nobody serves yet.
fn disk(policy: Replay, script: impl FnMut(&mut Server, u32) + 'static) -> (Disk, Buffers) {
    let memory = Memory::new(N as u16);
    let client: Client<'static, Part<Buffer>, N> = Client::new(memory.rings(N as u16), BLOCK).unwrap();
    let server = Server::new(memory, N as u16, EPOCH);
    let info = Info { block_size: BLOCK, max_blocks: 8, ..Info::default() };
    let platform = Platform { server, script: Box::new(script), sleeps: 0, rings: 0 };
    (Blocking::new(client, &info, policy, platform), Buffers::default())
}

/// Serves from the first sleep on: `answer` is asked about every request.
fn serving(mut answer: impl FnMut(&mut Server, &Submission) + 'static) -> impl FnMut(&mut Server, u32) + 'static {
    let mut known = false;
    let mut started = false;
    move |server, _| {
        if !started {
            server.announce(Stage::Serving);
            started = true;
            return;
        }
        known = known || server.is_acknowledged();
        assert!(known, "the client goes along");
        for request in server.take() {
            answer(server, &request);
        }
    }
}

/// What was asked, for the test to look at.
type Seen = std::rc::Rc<std::cell::RefCell<Vec<Submission>>>;

#[test]
fn the_first_request_waits_for_a_server_and_all_are_answered() {
    let seen = Seen::default();
    let log = seen.clone();
    let (mut disk, buffers) = disk(
        Replay::Never,
        serving(move |server, request| {
            log.borrow_mut().push(*request);
            server.done(request);
        }),
    );
    let buffer = disk.read(3, 8, buffers.at(0, 8)).unwrap();
    let buffer = disk.write(4, 8, buffer).unwrap();
    drop(disk.write_durably(5, 2, buffer).unwrap());
    disk.flush().unwrap();
    disk.discard(6, 100).unwrap();
    disk.write_zeroes(7, 100, true).unwrap();
    let said: Vec<_> = seen.borrow().iter().map(|s| (s.operation, s.lba, s.blocks, s.flags.0)).collect();
    assert_eq!(
        said,
        [
            (Operation::Read, 3, 8, 0),
            (Operation::Write, 4, 8, 0),
            (Operation::Write, 5, 2, 1),
            (Operation::Flush, 0, 0, 0),
            (Operation::Discard, 6, 100, 0),
            (Operation::WriteZeroes, 7, 100, 4),
        ]
    );
    assert_eq!(buffers.live(), 0);
    assert!(disk.platform().rings >= 1, "the acknowledgement rings");
}

#[test]
fn a_transfer_above_the_limit_is_cut() {
    let seen = Seen::default();
    let log = seen.clone();
    let (mut disk, buffers) = disk(
        Replay::Never,
        serving(move |server, request| {
            log.borrow_mut().push(*request);
            server.done(request);
        }),
    );
    let piece = |offset, blocks: u32| Piece { memory: MemoryId(1), offset, len: blocks * BLOCK };
    let two = buffers.with(Data::Two([piece(0, 10), piece(100_000, 30)]));
    let buffer = disk.read(1000, 20, two).unwrap();
    assert!(matches!(buffer.data(), Data::Two(_)));
    let said: Vec<_> = seen.borrow().iter().map(|s| (s.lba, s.blocks, s.data)).collect();
    assert_eq!(
        said,
        [
            (1000, 8, Data::One(piece(0, 8))),
            (1008, 8, Data::Two([piece(8 * 512, 2), piece(100_000, 6)])),
            (1016, 4, Data::One(piece(100_000 + 6 * 512, 4))),
        ]
    );
}

#[test]
fn a_part_that_fails_ends_the_transfer_and_says_how_far_it_came() {
    let (mut disk, buffers) = disk(
        Replay::Never,
        serving(|server, request| {
            server.answer(request, if request.lba == 16 { Status::IoError } else { Status::Ok });
        }),
    );
    let failed = disk.write(0, 32, buffers.at(0, 32)).unwrap_err();
    assert_eq!((failed.status, failed.moved, failed.buffer.is_some()), (Status::IoError, 16, true));
}

#[test]
fn a_buffer_that_is_too_small_or_cannot_be_cut_comes_back() {
    let (mut disk, buffers) = disk(Replay::Never, serving(Server::done));
    let failed = disk.read(0, 3, buffers.at(0, 2)).unwrap_err();
    assert_eq!((failed.status, failed.moved, failed.buffer.is_some()), (Status::InvalidArgument, 0, true));
    let list = |blocks: u32| Data::List(Piece { memory: MemoryId(1), offset: 0, len: blocks * 16 });
    let failed = disk.read(0, 9, buffers.with(list(9))).unwrap_err();
    assert_eq!((failed.status, failed.buffer.is_some()), (Status::InvalidArgument, true));
    assert!(disk.read(0, 8, buffers.with(list(8))).is_ok());
    let failed = disk.read(0, 1 << 23, buffers.at(0, 8)).unwrap_err();
    assert_eq!(failed.status, Status::InvalidArgument);
}

/// A server that is replaced while it has the first request.
fn replaced(policy: Replay) -> (Result<Buffer, (Status, bool)>, u32) {
    let seen = Seen::default();
    let log = seen.clone();
    let mut serve = serving(move |server, request| {
        log.borrow_mut().push(*request);
        server.done(request);
    });
    let (mut disk, buffers) = disk(policy, move |server, sleep| match sleep {
        0 => server.announce(Stage::Serving),
        1 => {
            assert!(server.is_acknowledged());
            assert_eq!(server.take().len(), 1);
            *server = Server::new(server.memory, N as u16, EPOCH + 1);
        }
        // Another sleep without news: the buffer stays where it is.
        2 => {}
        _ => serve(server, sleep),
    });
    let result = disk.read(0, 1, buffers.at(0, 1)).map_err(|failed| (failed.status, failed.buffer.is_some()));
    let asked = seen.borrow().len() as u32;
    (result, asked)
}

#[test]
fn a_restart_is_replayed_when_told_to() {
    let (result, asked) = replaced(Replay::Unanswered);
    assert!(result.is_ok());
    assert_eq!(asked, 1);
}

#[test]
fn a_restart_is_told_when_not_to_be_replayed() {
    let (result, asked) = replaced(Replay::Never);
    assert_eq!((result.unwrap_err(), asked), ((Status::Reset, true), 0));
}

#[test]
fn a_server_that_lies_keeps_the_buffer_until_the_session_ends() {
    let (mut disk, buffers) = disk(
        Replay::Never,
        serving(|server, request| {
            server.answer(&Submission { blocks: request.blocks + 1, ..*request }, Status::Ok);
        }),
    );
    let failed = disk.read(0, 1, buffers.at(0, 1)).unwrap_err();
    assert_eq!((failed.status, failed.buffer.is_none(), buffers.live()), (Status::IoError, true, 1));
    assert!(matches!(disk.standing(), Standing::Broken(_)));
    let failed = disk.read(0, 1, buffers.at(0, 1)).unwrap_err();
    assert_eq!((failed.status, failed.buffer.is_some()), (Status::IoError, true));
    drop(failed);
    assert_eq!(buffers.live(), 1);
}

#[test]
fn a_session_that_ends_says_so() {
    let (mut disk, buffers) = disk(Replay::Unanswered, serving(|server, _| server.announce(Stage::Ended)));
    let failed = disk.read(0, 1, buffers.at(0, 1)).unwrap_err();
    assert_eq!((failed.status, failed.buffer.is_some()), (Status::Gone, true));
    let failed = disk.flush().unwrap_err();
    assert_eq!(failed.status, Status::Gone);
}
