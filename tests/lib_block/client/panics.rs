//! Caller's code that panics in the middle of a call, and is caught: sinks, buffers, wakers, doorbells. What the call had
//! begun is whole afterwards, nothing is handed out twice, nothing is forgotten.
use super::futures::{Counter, Disk, Io, disk, poll, ready};
use super::rig::{BLOCK, Buffer, Buffers, N, Server, TestClient, attached, next_life};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::asynchronous::AsyncClient;
use drv_virtio_block::lib_block::client::buffer::Part;
use drv_virtio_block::lib_block::client::sync::{Blocking, Wait};
use drv_virtio_block::lib_block::client::{
    Client, Completion, Replay, Request, Resumed, ServerReadable, ServerWritable, SharedBuffer, Standing, Why,
};
use drv_virtio_block::lib_block::entry::{Data, MemoryId, Piece};
use drv_virtio_block::lib_block::message::Info;
use drv_virtio_block::lib_block::ring::Stage;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// Runs what is to panic; whether it did.
fn panics<T>(what: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(what)).is_err()
}

/// A sink that notes tokens and panics when it is given its `fatal`th completion.
struct Sink {
    tokens: Vec<u64>,
    fatal: usize,
}

impl Sink {
    fn take(&mut self, done: &Completion<Buffer>) {
        self.tokens.push(done.token);
        assert_ne!(self.tokens.len() - 1, self.fatal, "the sink's own trouble");
    }
}

/// A client with a read of a block in each of its tags, tokens 0 to 3, all the same but for their buffers.
fn asked() -> (TestClient, Server, Buffers) {
    let (mut client, server, buffers) = attached();
    for token in 0..N as u64 {
        client.submit(Request::read(0, 1, buffers.at(token * 512, 1)).with_token(token)).unwrap();
    }
    let _ = client.publish();
    (client, server, buffers)
}

#[test]
fn after_a_sink_that_panics_no_answer_ends_a_request_that_was_submitted_since() {
    // The answer that the checked path takes is among those before, at and behind the panic.
    for (fatal, failed) in (0..3).flat_map(|fatal| (0..4).map(move |failed| (fatal, failed))) {
        let (mut client, mut server, buffers) = asked();
        for (at, request) in server.take()[..3].iter().enumerate() {
            server.answer(request, if at == failed { Status::IoError } else { Status::Ok });
        }
        let mut sink = Sink { tokens: Vec::new(), fatal };
        assert!(panics(|| client.reap(u32::MAX, |done| sink.take(&done))));
        assert_eq!(sink.tokens, (0..=fatal as u64).collect::<Vec<_>>());
        // The tags that are free now are used at once, for reads that the entries before would answer.
        for _ in 0..=fatal {
            client.submit(Request::read(0, 1, buffers.at(4096, 1)).with_token(9)).unwrap();
        }
        assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Full);
        let _ = client.publish();
        sink.fatal = usize::MAX;
        client.reap(u32::MAX, |done| sink.take(&done));
        assert_eq!(sink.tokens, [0, 1, 2], "each answer once, and none for a request that the server has");
        assert_eq!((client.standing(), buffers.live()), (Standing::Serving, fatal as u32 + 2));
        // The server has the places back, so it takes and answers what came since.
        let since = server.take();
        assert_eq!(since.len(), fatal + 1);
        for request in &since {
            server.done(request);
        }
        client.reap(u32::MAX, |done| sink.take(&done));
        assert_eq!(sink.tokens[3..], vec![9; fatal + 1]);
    }
}

#[test]
fn a_restart_in_which_the_sink_panics_is_done_to_its_end_by_the_next_call() {
    let stages = [Stage::Serving, Stage::Stopped, Stage::Ended];
    let policies = [Replay::Never, Replay::Unanswered];
    let cases = stages.iter().flat_map(|stage| policies.iter().map(move |policy| (*stage, *policy)));
    for (stage, policy) in cases {
        // One answer is left in the ring, three requests are unanswered.
        let ends = if stage == Stage::Serving && policy == Replay::Unanswered { 1 } else { 4 };
        for fatal in 0..ends {
            let (mut client, mut server, buffers) = asked();
            let all = server.take();
            server.done(&all[2]);
            let mut next = if stage == Stage::Serving {
                next_life(&server)
            } else {
                server.announce(stage);
                server
            };
            let mut sink = Sink { tokens: Vec::new(), fatal };
            assert!(panics(|| client.resume(policy, |done| sink.take(&done))));
            assert_eq!(sink.tokens.len(), fatal + 1);
            assert!(matches!(client.submit(Request::flush()).unwrap_err().why, Why::Restarting | Why::Ended));
            assert!(!client.publish());
            assert!(stage != Stage::Serving || !next.is_acknowledged(), "not before everything was handed out");
            sink.fatal = usize::MAX;
            let resumed = client.resume(policy, |done| sink.take(&done));
            let order: &[u64] = if ends == 1 { &[2] } else { &[2, 0, 1, 3] };
            assert_eq!(sink.tokens, order);
            if stage != Stage::Serving {
                assert_eq!((resumed, buffers.live()), (Resumed::Over(stage), 0));
                continue;
            }
            assert!(next.is_acknowledged());
            let again: Vec<_> = next.take().iter().map(|request| request.data).collect();
            let kept = |at: u64| Data::One(Piece { memory: MemoryId(1), offset: at * 512, len: BLOCK });
            let replayed: &[Data] = if ends == 1 { &[kept(0), kept(1), kept(3)] } else { &[] };
            assert_eq!(again, replayed);
        }
    }
}

#[test]
fn a_client_whose_sink_panics_while_it_is_abandoned_is_abandoned_by_the_next_call() {
    for fatal in 0..N {
        let (mut client, _server, buffers) = asked();
        let mut sink = Sink { tokens: Vec::new(), fatal };
        // SAFETY: the played server touches no memory.
        assert!(panics(|| unsafe { client.abandon(|done| sink.take(&done)) }));
        sink.fatal = usize::MAX;
        // SAFETY: as above.
        unsafe { client.abandon(|done| sink.take(&done)) };
        assert_eq!((sink.tokens, buffers.live()), (vec![0, 1, 2, 3], 0));
    }
}

/// A buffer that panics when it is asked where it is, once its `calls` have run out.
#[derive(Debug)]
struct Touchy {
    inner: Buffer,
    calls: Rc<Cell<u32>>,
}

// SAFETY: as the inner buffer's.
unsafe impl SharedBuffer for Touchy {
    fn data(&self) -> Data {
        let left = self.calls.get().checked_sub(1).expect("the buffer's own trouble");
        self.calls.set(left);
        self.inner.data
    }
}
// SAFETY: as above.
unsafe impl ServerReadable for Touchy {}
// SAFETY: as above.
unsafe impl ServerWritable for Touchy {}

#[test]
fn a_buffer_that_panics_when_it_is_asked_where_it_is_leaves_the_client_as_it_was() {
    let memory = super::rig::Memory::new(N as u16);
    let mut client = Client::<Touchy, N>::new(memory.rings(N as u16), BLOCK).unwrap();
    let mut server = Server::new(memory, N as u16, super::rig::EPOCH);
    server.announce(Stage::Serving);
    client.resume(Replay::Never, |_| ());
    assert!(server.is_acknowledged());
    let (buffers, calls) = (Buffers::default(), Rc::new(Cell::new(0)));
    let touchy = |lba: u64| Touchy { inner: buffers.at(lba * 512, 1), calls: calls.clone() };
    assert!(panics(|| client.submit(Request::read(0, 1, touchy(0)))));
    assert_eq!((client.credit(), buffers.live()), (4, 0), "no tag is lost, and the buffer was nobody else's");
    calls.set(3);
    for lba in 1..4 {
        client.submit(Request::write(lba, 1, touchy(lba)).with_token(lba)).unwrap();
    }
    let _ = client.publish();
    assert_eq!(server.take().iter().map(|request| request.lba).collect::<Vec<_>>(), [1, 2, 3]);
    // The same while requests are asked again: at the first, the second, the third of them.
    for good in 0..3 {
        let mut next = next_life(&server);
        calls.set(good);
        assert!(panics(|| client.resume(Replay::Unanswered, |_| panic!("nothing ended"))));
        assert!(!next.is_acknowledged(), "the server is told nothing by halves");
        assert_eq!(client.submit(Request::flush()).unwrap_err().why, Why::Restarting);
        calls.set(3);
        let resumed = client.resume(Replay::Unanswered, |_| panic!("nothing ended"));
        assert_eq!(resumed, Resumed::Attached { lost: 0, replayed: 3 });
        assert!(next.is_acknowledged());
        assert_eq!(next.take().iter().map(|request| request.lba).collect::<Vec<_>>(), [1, 2, 3]);
        server = next;
    }
}

/// Panics whenever it wakes.
struct Grumpy;

impl Wake for Grumpy {
    fn wake(self: Arc<Self>) {
        panic!("the waker's own trouble");
    }
}

fn read(buffers: &Buffers, lba: u64) -> Request<Buffer> {
    Request::read(lba, 1, buffers.at(lba * 512, 1))
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_woken_and_no_answer_from_its_future() {
    // Whichever of them it is: the others are woken by the same call or by the next one, each once.
    for grumpy in 0..3 {
        let (disk, mut server, buffers) = disk(Replay::Never);
        let mut all: Vec<_> = (0..3).map(|lba| disk.submit(read(&buffers, lba))).collect();
        let counters: Vec<_> = all.iter().map(|_| Counter::new()).collect();
        for (at, future) in all.iter_mut().enumerate() {
            let waker = if at == grumpy { Waker::from(Arc::new(Grumpy)) } else { counters[at].1.clone() };
            assert!(poll(future, &waker).is_pending());
        }
        for request in server.take() {
            server.done(&request);
        }
        assert!(panics(|| disk.drive()));
        disk.drive();
        for (at, (counter, _)) in counters.iter().enumerate() {
            assert_eq!(counter.count(), u32::from(at != grumpy), "future {at}, the panic at {grumpy}");
        }
        assert!(all.iter_mut().all(|future| ready(future).buffer.is_some()));
        assert_eq!((buffers.live(), disk.unanswered()), (0, 0));
    }
}

/// Four requests in flight, a fifth that waits for credit with a waker that panics.
fn waiting<'a>(disk: &'a Disk, buffers: &Buffers) -> (Vec<Io<'a>>, Io<'a>) {
    let running: Vec<_> = (0..4).map(|lba| disk.submit(read(buffers, lba))).collect();
    let mut fifth = disk.submit(read(buffers, 4));
    assert!(poll(&mut fifth, &Arc::new(Grumpy).into()).is_pending());
    (running, fifth)
}

#[test]
fn a_future_keeps_its_answer_when_the_waker_of_another_panics_in_its_poll() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let (mut running, mut fifth) = waiting(&disk, &buffers);
    let asked = server.take();
    server.done(&asked[1]);
    // Its answer makes room for the fifth, whose waker panics.
    assert!(panics(|| poll(&mut running[1], Waker::noop())));
    assert_eq!(buffers.live(), 5);
    let done = ready(&mut running[1]);
    assert_eq!((done.status, done.buffer.is_some()), (Status::Ok, true));
    assert!(poll(&mut fifth, Waker::noop()).is_pending());
    assert_eq!(server.take().iter().map(|request| request.lba).collect::<Vec<_>>(), [4]);
    // Dropped instead of polled again, it drops its buffer once.
    drop(done);
    let mut sixth = disk.submit(read(&buffers, 5));
    assert!(poll(&mut sixth, &Arc::new(Grumpy).into()).is_pending());
    server.done(&asked[2]);
    assert!(panics(|| poll(&mut running[2], Waker::noop())));
    assert_eq!(buffers.live(), 5);
    drop(running.remove(2));
    assert_eq!(buffers.live(), 4);
}

#[test]
fn a_future_that_is_dropped_withdraws_its_request_though_the_waker_of_another_panics() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let (mut running, fifth) = waiting(&disk, &buffers);
    let asked = server.take();
    server.done(&asked[0]);
    server.done(&asked[1]);
    let dropped = running.remove(3);
    assert!(panics(|| poll(&mut running[0], Waker::noop())));
    drop(ready(&mut running[0]));
    // Room for the fifth, which was told, and for a withdrawal.
    drop(ready(&mut running[1]));
    drop(fifth);
    drop(dropped);
    let cancel = server.take();
    assert_eq!(cancel.iter().map(|request| request.lba).collect::<Vec<_>>(), [u64::from(asked[3].tag)]);
}

#[test]
fn a_doorbell_whose_ringing_panicked_is_rung_by_the_next_call() {
    let (client, mut server, buffers): (TestClient, _, _) = attached();
    let (rung, sore) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(true)));
    let (count, is_sore) = (rung.clone(), sore.clone());
    let bell = Box::new(move || {
        assert!(!is_sore.get(), "the doorbell's own trouble");
        count.set(count.get() + 1);
    });
    let disk: Disk = AsyncClient::new(client, Replay::Unanswered, bell);
    server.arm();
    let mut future = disk.submit(read(&buffers, 0));
    assert!(panics(|| poll(&mut future, Waker::noop())));
    sore.set(false);
    disk.drive();
    disk.drive();
    assert_eq!((rung.get(), server.take().len()), (1, 1), "rung once, though nothing new was shown");
    // As much for the doorbell that an attach asks for.
    sore.set(true);
    let mut next = next_life(&server);
    assert!(panics(|| disk.drive()));
    sore.set(false);
    disk.drive();
    assert_eq!((rung.get(), next.is_acknowledged(), next.take().len()), (2, true, 1));
    drop(future);
}

/// A platform whose doorbell panics as long as it hurts, and whose server answers while the client sleeps.
struct Sore {
    server: Server,
    hurts: bool,
    rung: u32,
}

impl Wait for Sore {
    fn ring(&mut self) {
        assert!(!self.hurts, "the doorbell's own trouble");
        self.rung += 1;
    }

    fn wait(&mut self) {
        // A server that sleeps until it is rung.
        assert!(self.rung > 0, "nobody rang");
        assert!(self.rung > 1 || self.server.is_acknowledged());
        for request in self.server.take() {
            self.server.done(&request);
        }
    }
}

#[test]
fn a_blocking_client_rings_the_doorbell_whose_ringing_panicked_before() {
    let memory = super::rig::Memory::new(N as u16);
    let client = Client::<Part<Buffer>, N>::new(memory.rings(N as u16), BLOCK).unwrap();
    let mut server = Server::new(memory, N as u16, super::rig::EPOCH);
    server.announce(Stage::Serving);
    let info = Info { block_size: BLOCK, max_blocks: 8, ..Info::default() };
    let mut disk = Blocking::new(client, &info, Replay::Never, Sore { server, hurts: true, rung: 0 });
    let buffers = Buffers::default();
    assert!(panics(|| disk.read(0, 1, buffers.at(0, 1))));
    assert_eq!(buffers.live(), 0, "it was not asked yet");
    disk.platform().hurts = false;
    drop(disk.read(0, 1, buffers.at(0, 1)).expect("the server was rung"));
    assert_eq!((disk.platform().rung, buffers.live()), (1, 0));
}

#[test]
fn a_doorbell_may_drive_the_client_that_rings_it() {
    let slot: Rc<RefCell<Option<Rc<Disk>>>> = Rc::default();
    let depth = Rc::new(Cell::new(0));
    let (inner, nested) = (slot.clone(), depth.clone());
    let (client, mut server, buffers): (TestClient, _, _) = attached();
    let bell = Box::new(move || {
        nested.set(nested.get() + 1);
        assert!(nested.get() < 10, "it rings for the same request again and again");
        if let Some(disk) = inner.borrow().as_ref() {
            disk.drive();
        }
    });
    let disk: Rc<Disk> = Rc::new(AsyncClient::new(client, Replay::Never, bell));
    *slot.borrow_mut() = Some(disk.clone());
    server.arm();
    let mut future = disk.submit(read(&buffers, 0));
    assert!(poll(&mut future, Waker::noop()).is_pending());
    assert_eq!((depth.get(), server.take().len()), (1, 1));
    drop(future);
    slot.borrow_mut().take();
}

/// A buffer whose drop panics.
struct Bomb(Buffer, Rc<Cell<bool>>);

// SAFETY: as the inner buffer's.
unsafe impl SharedBuffer for Bomb {
    fn data(&self) -> Data {
        self.0.data
    }
}
// SAFETY: as above.
unsafe impl ServerWritable for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.1.get(), "the buffer's own trouble");
    }
}

#[test]
fn a_buffer_whose_drop_panics_keeps_nobody_from_being_woken() {
    let memory = super::rig::Memory::new(N as u16);
    let client = Client::<Bomb, N>::new(memory.rings(N as u16), BLOCK).unwrap();
    let mut server = Server::new(memory, N as u16, super::rig::EPOCH);
    server.announce(Stage::Serving);
    let disk = AsyncClient::new(client, Replay::Never, || ());
    disk.drive();
    assert!(server.is_acknowledged());
    let (buffers, armed) = (Buffers::default(), Rc::new(Cell::new(false)));
    let bomb = |lba: u64| Request::read(lba, 1, Bomb(buffers.at(lba * 512, 1), armed.clone()));
    let poll = |future: &mut _, waker: &Waker| {
        std::future::Future::poll(std::pin::Pin::new(future), &mut std::task::Context::from_waker(waker))
    };
    // One is dropped in flight: its buffer is dropped when it is answered. The other waits for credit and is dropped
    // while a place is promised to it, which somebody else gets.
    let mut all: Vec<_> = (0..4).map(|lba| disk.submit(bomb(lba))).collect();
    let (mut promised, mut behind) = (disk.submit(bomb(4)), disk.submit(bomb(5)));
    let wakers: Vec<_> = (0..3).map(|_| Counter::new()).collect();
    assert!(poll(&mut all[0], &wakers[0].1).is_pending());
    assert!(poll(&mut promised, &wakers[1].1).is_pending());
    assert!(poll(&mut behind, &wakers[2].1).is_pending());
    drop(all.pop());
    for request in server.take() {
        server.done(&request);
    }
    armed.set(true);
    assert!(panics(|| disk.drive()));
    armed.set(false);
    disk.drive();
    let counts = || wakers.iter().map(|(counter, _)| counter.count()).collect::<Vec<_>>();
    assert_eq!(counts(), [1, 1, 0]);
    assert_eq!((buffers.live(), disk.unanswered()), (5, 0));
    armed.set(true);
    assert!(panics(|| drop(promised)));
    armed.set(false);
    assert_eq!(counts(), [1, 1, 1], "the place is passed on");
}

#[test]
fn requests_that_were_in_flight_before_the_futures_end_none_of_them() {
    let (mut client, mut server, buffers) = attached();
    // Tokens that are numbers of calls, of none, and of withdrawals.
    for token in [0, u64::MAX] {
        client.submit(read(&buffers, token & 1).with_token(token)).unwrap();
    }
    let _ = client.publish();
    let disk: Disk = AsyncClient::new(client, Replay::Never, Box::new(|| ()));
    let mut all: Vec<_> = (2..5).map(|lba| disk.submit(read(&buffers, lba).with_token(lba))).collect();
    let wakers: Vec<_> = all.iter().map(|_| Counter::new()).collect();
    for (future, (_, waker)) in all.iter_mut().zip(&wakers) {
        assert!(poll(future, waker).is_pending());
    }
    let asked = server.take();
    assert_eq!(asked.iter().map(|request| request.lba).collect::<Vec<_>>(), [0, 1, 2, 3]);
    server.done(&asked[0]);
    server.done(&asked[1]);
    disk.drive();
    let counts = || wakers.iter().map(|(counter, _)| counter.count()).collect::<Vec<_>>();
    assert_eq!((counts(), buffers.live()), (vec![0, 0, 1], 3), "credit is there, nobody was answered");
    assert!(poll(&mut all[2], &wakers[2].1).is_pending());
    for request in asked[2..].iter().copied().chain(server.take()).collect::<Vec<_>>() {
        server.done(&request);
    }
    disk.drive();
    for (at, future) in all.iter_mut().enumerate() {
        assert_eq!(ready(future).token, at as u64 + 2);
    }
    assert_eq!((buffers.live(), disk.unanswered()), (0, 0));
}
