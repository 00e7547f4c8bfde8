//! Futures: answered, woken once, first come first served, across restarts.
use super::rig::{Buffer, Buffers, N, Server, SharedServer, TestClient, attached, next_life};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::asynchronous::{AsyncClient, IoFuture};
use drv_virtio_block::lib_block::client::{Completion, Replay, Request, Standing};
use drv_virtio_block::lib_block::entry::Submission;
use drv_virtio_block::lib_block::ring::Stage;
use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it was woken.
#[derive(Default)]
pub(super) struct Counter(AtomicU32);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    pub(super) fn new() -> (Arc<Self>, Waker) {
        let counter = Arc::new(Self::default());
        (counter.clone(), counter.into())
    }

    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) type Ring = Box<dyn Fn()>;
pub(super) type Disk = AsyncClient<'static, Buffer, Ring, N>;
pub(super) type Io<'a> = IoFuture<'a, 'static, Buffer, Ring, N>;

pub(super) fn disk(policy: Replay) -> (Disk, Server, Buffers) {
    let (client, server, buffers): (TestClient, _, _) = attached();
    (AsyncClient::new(client, policy, Box::new(|| ())), server, buffers)
}

pub(super) fn poll(future: &mut Io<'_>, waker: &Waker) -> Poll<Completion<Buffer>> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

pub(super) fn ready(future: &mut Io<'_>) -> Completion<Buffer> {
    match poll(future, Waker::noop()) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("answered"),
    }
}

fn read(buffers: &Buffers, lba: u64) -> Request<Buffer> {
    Request::read(lba, 1, buffers.at(lba * 512, 1)).with_token(lba + 100)
}

/// Runs a future; whenever it sleeps, `serve` is called and the client driven.
fn block_on<T>(disk: &Disk, future: impl Future<Output = T>, mut serve: impl FnMut()) -> T {
    let mut future = pin!(future);
    let (counter, waker) = Counter::new();
    for turn in 0..10_000 {
        let before = counter.count();
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        while counter.count() == before {
            assert!(turn < 9_999, "nobody wakes it");
            serve();
            disk.drive();
            assert_ne!(counter.count(), before, "the server answered, nobody was woken");
        }
    }
    unreachable!("it never ends")
}

#[test]
fn futures_end_with_their_own_answers_in_any_order() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut all: Vec<_> = (0..4).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let wakers: Vec<_> = all.iter().map(|_| Counter::new()).collect();
    for (future, (_, waker)) in all.iter_mut().zip(&wakers) {
        assert!(poll(future, waker).is_pending());
    }
    let asked = server.take();
    assert_eq!(asked.len(), 4);
    for at in [3, 1] {
        server.done(&asked[at]);
    }
    disk.drive();
    disk.drive();
    assert_eq!(wakers.iter().map(|(counter, _)| counter.count()).collect::<Vec<_>>(), [0, 1, 0, 1]);
    server.answer(&asked[0], Status::OutOfRange);
    server.done(&asked[2]);
    // Polling one reaps for all.
    let third = ready(&mut all[2]);
    assert_eq!((third.token, third.status, third.bytes), (102, Status::Ok, 512));
    drop(third);
    assert_eq!(wakers[0].0.count(), 1);
    for (at, status) in [(0, Status::OutOfRange), (1, Status::Ok), (3, Status::Ok)] {
        let done = ready(&mut all[at]);
        assert_eq!((done.token, done.status), (at as u64 + 100, status));
        assert!(done.buffer.is_some());
    }
    assert!(wakers.iter().all(|(counter, _)| counter.count() == 1));
    assert_eq!((buffers.live(), disk.unanswered()), (0, 0));
}

#[test]
fn only_the_last_waker_is_woken() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut future = disk.submit(read(&buffers, 0));
    let ((old, first), (new, second)) = (Counter::new(), Counter::new());
    assert!(poll(&mut future, &first).is_pending());
    assert!(poll(&mut future, &second).is_pending());
    let asked = server.take();
    server.done(&asked[0]);
    disk.drive();
    assert_eq!((old.count(), new.count()), (0, 1));
    assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (2, 2), "no waker is kept");
}

#[test]
fn nothing_is_shown_before_somebody_polls_and_then_all_at_once() {
    let rung = Rc::new(RefCell::new(0));
    let bell = rung.clone();
    let (client, mut server, buffers): (TestClient, _, _) = attached();
    let disk: Disk = AsyncClient::new(client, Replay::Never, Box::new(move || *bell.borrow_mut() += 1));
    server.arm();
    let mut all: Vec<_> = (0..3).map(|lba| disk.submit(read(&buffers, lba))).collect();
    assert!(server.take().is_empty());
    for future in &mut all {
        assert!(poll(future, Waker::noop()).is_pending());
    }
    assert_eq!((server.take().len(), *rung.borrow()), (3, 1));
}

#[test]
fn driving_shows_what_is_staged_and_rings_at_a_new_server() {
    let rung = Rc::new(RefCell::new(0));
    let bell = rung.clone();
    let (client, mut server, buffers): (TestClient, _, _) = attached();
    let disk: Disk = AsyncClient::new(client, Replay::Unanswered, Box::new(move || *bell.borrow_mut() += 1));
    let future = disk.submit(read(&buffers, 0));
    disk.drive();
    assert_eq!((server.take().len(), *rung.borrow()), (1, 0));
    let mut next = next_life(&server);
    disk.drive();
    assert_eq!((next.is_acknowledged(), *rung.borrow()), (true, 1));
    drop(future);
}

#[test]
fn without_credit_futures_come_in_the_order_in_which_they_were_polled() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut running: Vec<_> = (0..4).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let mut waiting: Vec<_> = (4..7).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let wakers: Vec<_> = waiting.iter().map(|_| Counter::new()).collect();
    for at in [1, 0, 2] {
        assert!(poll(&mut waiting[at], &wakers[at].1).is_pending());
    }
    let counts = || wakers.iter().map(|(counter, _)| counter.count()).collect::<Vec<_>>();
    let asked = server.take();
    assert_eq!((asked.len(), counts()), (4, vec![0, 0, 0]));
    server.done(&asked[2]);
    disk.drive();
    // The answer still has its place; once it is taken there is room for one.
    assert_eq!(counts(), [0, 0, 0]);
    let _ = ready(&mut running[2]);
    assert_eq!(counts(), [0, 1, 0]);
    // Who comes later does not take the place, nor who waits behind.
    let mut late = disk.submit(read(&buffers, 9));
    assert!(poll(&mut late, Waker::noop()).is_pending());
    assert!(poll(&mut waiting[0], &wakers[0].1).is_pending());
    assert!(server.take().is_empty());
    assert!(poll(&mut waiting[1], &wakers[1].1).is_pending());
    assert_eq!(server.take().iter().map(|s| s.lba).collect::<Vec<_>>(), [5]);
    assert_eq!(counts(), [0, 1, 0]);
}

#[test]
fn who_was_promised_a_place_and_goes_passes_it_on() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut running: Vec<_> = (0..4).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let (mut first, mut second, mut third) =
        (disk.submit(read(&buffers, 4)), disk.submit(read(&buffers, 5)), disk.submit(read(&buffers, 6)));
    let wakers: Vec<_> = (0..3).map(|_| Counter::new()).collect();
    assert!(poll(&mut first, &wakers[0].1).is_pending());
    assert!(poll(&mut second, &wakers[1].1).is_pending());
    assert!(poll(&mut third, &wakers[2].1).is_pending());
    drop(second);
    let asked = server.take();
    server.done(&asked[0]);
    let _ = ready(&mut running[0]);
    let counts = || wakers.iter().map(|(counter, _)| counter.count()).collect::<Vec<_>>();
    assert_eq!(counts(), [1, 0, 0]);
    drop(first);
    assert_eq!(counts(), [1, 0, 1]);
    assert!(poll(&mut third, &wakers[2].1).is_pending());
    assert_eq!(server.take().iter().map(|s| s.lba).collect::<Vec<_>>(), [6]);
    assert_eq!(buffers.live(), 4);
}

#[test]
fn beyond_all_places_futures_are_polled_again() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut all: Vec<_> = (0..9).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let wakers: Vec<_> = all.iter().map(|_| Counter::new()).collect();
    for (future, (_, waker)) in all.iter_mut().zip(&wakers) {
        assert!(poll(future, waker).is_pending());
    }
    // Four are asked, four have places, one is not forgotten.
    let counts: Vec<_> = wakers.iter().map(|(counter, _)| counter.count()).collect();
    assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let mut asked = Vec::new();
    let mut open: Vec<usize> = (0..9).collect();
    for _ in 0..5 {
        for request in server.take() {
            server.done(&request);
            asked.push(request.lba);
        }
        open.retain(|&at| poll(&mut all[at], &wakers[at].1).is_pending());
    }
    assert!(open.is_empty());
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

fn serve_rest(server: &mut Server) {
    for request in &server.take() {
        server.done(request);
    }
}

#[test]
fn a_future_runs_to_its_end_on_any_executor() {
    let (disk, server, buffers) = disk(Replay::Never);
    let server: SharedServer = Rc::new(RefCell::new(server));
    let all = async {
        let mut sum = 0;
        for round in 0..25 {
            let pair = [disk.submit(read(&buffers, round)), disk.submit(Request::flush())];
            for future in pair {
                sum += u64::from(future.await.bytes);
            }
        }
        sum
    };
    let sum = block_on(&disk, all, || serve_rest(&mut server.borrow_mut()));
    assert_eq!((sum, buffers.live()), (25 * 512, 0));
}

#[test]
fn a_restart_is_replayed_behind_the_futures_backs() {
    let (disk, mut server, buffers) = disk(Replay::Unanswered);
    let mut future = disk.submit(read(&buffers, 3));
    let (counter, waker) = Counter::new();
    assert!(poll(&mut future, &waker).is_pending());
    assert_eq!(server.take().len(), 1);
    let mut next = next_life(&server);
    disk.drive();
    assert_eq!(counter.count(), 0);
    assert!(next.is_acknowledged());
    let again: Vec<Submission> = next.take();
    assert_eq!(again.len(), 1);
    next.done(&again[0]);
    disk.drive();
    assert_eq!((counter.count(), ready(&mut future).status), (1, Status::Ok));
}

#[test]
fn without_replay_a_restart_ends_futures_and_the_waiting_ones_wait_for_the_next_server() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut future = disk.submit(read(&buffers, 3));
    assert!(poll(&mut future, Waker::noop()).is_pending());
    let mut next = Server::new(server.memory, N as u16, server.epoch + 1);
    next.announce(Stage::Absent);
    disk.drive();
    assert!(poll(&mut future, Waker::noop()).is_pending());
    let mut waiting = disk.submit(read(&buffers, 4));
    let (counter, waker) = Counter::new();
    assert!(poll(&mut waiting, &waker).is_pending());
    assert_eq!((counter.count(), buffers.live()), (0, 2));
    next.announce(Stage::Serving);
    disk.drive();
    assert_eq!(counter.count(), 1);
    assert_eq!(ready(&mut future).status, Status::Reset);
    assert!(poll(&mut waiting, &waker).is_pending());
    assert!(next.is_acknowledged());
    assert_eq!(next.take().iter().map(|s| s.lba).collect::<Vec<_>>(), [4]);
    let _ = server.take();
}

#[test]
fn the_end_of_the_session_ends_every_future() {
    let (disk, mut server, buffers) = disk(Replay::Unanswered);
    let mut all: Vec<_> = (0..6).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let wakers: Vec<_> = all.iter().map(|_| Counter::new()).collect();
    for (future, (_, waker)) in all.iter_mut().zip(&wakers) {
        assert!(poll(future, waker).is_pending());
    }
    server.announce(Stage::Stopped);
    disk.drive();
    assert!(wakers.iter().all(|(counter, _)| counter.count() == 1));
    for future in &mut all {
        let done = ready(future);
        assert_eq!((done.status, done.buffer.is_some()), (Status::Gone, true));
    }
    let mut late = disk.submit(read(&buffers, 9));
    assert_eq!(ready(&mut late).status, Status::Gone);
    assert_eq!(buffers.live(), 0);
}

#[test]
fn a_server_that_lies_ends_futures_but_keeps_their_buffers() {
    let (disk, mut server, buffers) = disk(Replay::Never);
    let mut all: Vec<_> = (0..5).map(|lba| disk.submit(read(&buffers, lba))).collect();
    let wakers: Vec<_> = all.iter().map(|_| Counter::new()).collect();
    for (future, (_, waker)) in all.iter_mut().zip(&wakers) {
        assert!(poll(future, waker).is_pending());
    }
    let asked = server.take();
    server.answer(&Submission { blocks: 7, ..asked[0] }, Status::Ok);
    disk.drive();
    assert!(matches!(disk.standing(), Standing::Broken(_)));
    assert!(wakers.iter().all(|(counter, _)| counter.count() == 1));
    let status_of = |future: &mut Io<'_>| ready(future).status;
    let ends: Vec<_> = all.iter_mut().map(|future| (status_of(future), buffers.live())).collect();
    // The fifth was never asked: it has its buffer.
    assert_eq!(ends[..4], [(Status::IoError, 5); 4]);
    assert_eq!(ends[4], (Status::IoError, 4));
    let _next = next_life(&server);
    disk.drive();
    assert_eq!((disk.standing(), buffers.live(), disk.unanswered()), (Standing::Serving, 0, 0));
}
