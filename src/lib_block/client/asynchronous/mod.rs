//! Futures for a session: any executor, one thread, no allocation.
//!
//! [`AsyncClient::submit`] stages at once if there is credit; polling any future shows the server what is staged, takes
//! what was answered, and wakes whom it belongs to. [`AsyncClient::drive`] does that too and asks for the doorbell: it
//! is called once at the beginning, whenever the doorbell was rung, or again and again by who polls. It knows no
//! executor and no doorbell: ringing the server's is a function of the caller's.
//!
//! A future that is dropped withdraws its request if there is credit for that; either way the request keeps its buffer
//! until its end, and it is dropped then. Without credit, futures wait in the order in which they were polled first;
//! beyond `N` of them, those who find no place are polled again and again. A restart is acted upon as the policy says,
//! and futures wait for the next server as for credit. If the server contradicts itself, futures end with
//! [`Status::IoError`] and without their buffers, and what they asked is not asked again.
//!
//! Not `Sync`, its futures not `Send`: a session per executor thread. Nothing is borrowed while foreign code runs
//! (wakers, buffers' drops, the doorbell). If that panics, the call ends with the panic and nothing is lost: the next
//! call wakes, drops and rings what is left, and a future that was about to end does so when it is polled again.
//!
//! ```
//! use drv_virtio_block::lib_block::Status;
//! use drv_virtio_block::lib_block::client::asynchronous::AsyncClient;
//! use drv_virtio_block::lib_block::client::pool::Page;
//! use drv_virtio_block::lib_block::client::Request;
//! async fn copy<'p>(disk: &AsyncClient<'_, Page<'p, 8>, impl Fn(), 4>, page: Page<'p, 8>) -> Option<Page<'p, 8>> {
//!     let read = disk.submit(Request::read(0, 8, page)).await;
//!     assert_eq!(read.status, Status::Ok);
//!     disk.submit(Request::write(8, 8, read.buffer?)).await.buffer
//! }
//! ```
mod calls;
mod waiters;

use super::buffer::SharedBuffer;
use super::request::{Completion, Request, Tag};
use super::session::{Client, Replay, Resumed, Standing};
use crate::lib_block::Status;
use calls::{Calls, NOBODY, News};
use core::cell::RefCell;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use waiters::Waiters;

struct Inner<'m, B, const N: usize> {
    client: Client<'m, B, N>,
    policy: Replay,
    calls: Calls<B, N>,
    waiters: Waiters<N>,
    /// Requests up to this one were in flight before there were futures.
    before: u64,
    /// The server's doorbell is to be rung, and was not yet.
    owed: bool,
    /// Those who wait know that the server is not believed any more.
    told: bool,
}

/// A session used by futures. See the module's text.
pub struct AsyncClient<'m, B, R, const N: usize> {
    inner: RefCell<Inner<'m, B, N>>,
    ring: R,
}

impl<B: SharedBuffer, const N: usize> Inner<'_, B, N> {
    /// Takes what was answered, and acts upon what the server says.
    fn look(&mut self) {
        let Self { client, calls, before, .. } = self;
        let mut note = |done: Completion<B>| {
            if done.tag.sequence <= *before { calls.answer_stray(done) } else { calls.answer(done) }
        };
        client.reap(u32::MAX, &mut note);
        if client.standing() != Standing::Serving {
            // Futures that were told of a failure went on: what they asked is not asked again behind their backs.
            let policy = if self.told { Replay::Never } else { self.policy };
            let resumed = client.resume(policy, &mut note);
            self.owed |= matches!(resumed, Resumed::Attached { .. });
        }
        let broken = matches!(client.standing(), Standing::Broken(_));
        if broken && !self.told {
            calls.tell_all();
        }
        self.told = broken;
    }

    /// How requests end that are not accepted any more.
    fn over(&self) -> Option<Status> {
        match self.client.standing() {
            Standing::Over(_) => Some(Status::Gone),
            Standing::Broken(_) => Some(Status::IoError),
            Standing::Serving | Standing::Detached => None,
        }
    }

    /// Requests that can be begun beyond those that were promised to be.
    fn spare(&self) -> u32 {
        if self.client.standing() != Standing::Serving {
            return 0;
        }
        self.client.credit().min(self.calls.left()).saturating_sub(self.waiters.granted())
    }

    /// Stages a request for which there is room.
    fn begin(&mut self, request: Request<B>) -> Result<(u16, Tag), Request<B>> {
        let token = request.token();
        let Some(call) = self.calls.vacant() else { return Err(request) };
        match self.client.submit(request.with_token(call.into())) {
            Ok(tag) => {
                self.calls.begin(call, token);
                Ok((call, tag))
            }
            Err(refused) => Err(refused.request.with_token(token)),
        }
    }

    /// The next thing to be done where nothing is borrowed.
    fn next(&mut self) -> Option<News<B>> {
        if let Some(news) = self.calls.next() {
            return Some(news);
        }
        if self.spare() > 0 || self.over().is_some() {
            return self.waiters.grant().map(News::Wake);
        }
        None
    }

    /// Shows the server what is staged; true: it is to be rung at.
    fn publish(&mut self) -> bool {
        self.client.publish() | mem::take(&mut self.owed)
    }
}

/// A doorbell that is being rung: it is owed again if that panics.
struct Ringing<'a, 'm, B, const N: usize>(&'a RefCell<Inner<'m, B, N>>);

impl<B, const N: usize> Drop for Ringing<'_, '_, B, N> {
    fn drop(&mut self) {
        if let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.owed = true;
        }
    }
}

impl<'m, B: SharedBuffer, R: Fn(), const N: usize> AsyncClient<'m, B, R, N> {
    /// A client, attached or not. `ring` rings the server's doorbell. What the client has in flight nobody waits for:
    /// the buffers are dropped as they are answered.
    pub fn new(client: Client<'m, B, N>, policy: Replay, ring: R) -> Self {
        let calls = Calls::new(client.unanswered());
        let before = client.sequence();
        let waiters = Waiters::new();
        let inner = Inner { client, policy, calls, waiters, before, owed: false, told: false };
        Self { inner: RefCell::new(inner), ring }
    }

    /// A future of the request's end. It is staged at once if there is credit and nobody waits for it.
    pub fn submit(&self, request: Request<B>) -> IoFuture<'_, 'm, B, R, N> {
        let mut inner = self.inner.borrow_mut();
        let state = if inner.spare() > 0 && inner.waiters.is_empty() {
            match inner.begin(request) {
                Ok((call, tag)) => State::Asked(call, tag),
                Err(request) => State::Waiting(request, None),
            }
        } else {
            State::Waiting(request, None)
        };
        IoFuture { client: self, state }
    }

    /// Takes what was answered, wakes, shows what is staged, and asks for the doorbell: when this returns, it is rung
    /// for whatever comes next.
    pub fn drive(&self) {
        loop {
            self.pass();
            if !self.inner.borrow_mut().client.arm(1) {
                return;
            }
        }
    }

    /// How client and server stand.
    pub fn standing(&self) -> Standing {
        self.inner.borrow().client.standing()
    }

    /// Requests that are unanswered, withdrawals and those without a future included.
    pub fn unanswered(&self) -> u32 {
        self.inner.borrow().client.unanswered()
    }

    /// How often the server's doorbell was to be rung.
    pub fn doorbells(&self) -> u64 {
        self.inner.borrow().client.doorbells()
    }

    fn pass(&self) {
        self.inner.borrow_mut().look();
        // In this order, so that a waker that panics keeps nothing from the server. Telling stages nothing.
        self.publish();
        self.tell();
    }

    /// Wakes and drops, with nothing borrowed.
    fn tell(&self) {
        loop {
            let next = self.inner.borrow_mut().next();
            match next {
                Some(News::Wake(waker)) => waker.wake(),
                Some(News::Drop(done)) => drop(done),
                Some(News::Nothing) => {}
                None => return,
            }
        }
    }

    fn publish(&self) {
        let wanted = self.inner.borrow_mut().publish();
        if wanted {
            let ringing = Ringing(&self.inner);
            (self.ring)();
            mem::forget(ringing);
        }
    }
}

enum State<B> {
    /// For credit, with a place in the queue once it was polled.
    Waiting(Request<B>, Option<u16>),
    /// For the answer.
    Asked(u16, Tag),
    /// For being handed over.
    Answered(Completion<B>),
    /// For nothing.
    Ended,
}

/// The end of a request, to come. Dropped before, it withdraws the request; the buffer stays with that until its end.
#[must_use = "a future does nothing until it is polled, and withdraws its request when it is dropped"]
pub struct IoFuture<'a, 'm, B: SharedBuffer, R: Fn(), const N: usize> {
    client: &'a AsyncClient<'m, B, R, N>,
    state: State<B>,
}

// Nothing in it is ever pinned: buffers are moved by contract.
impl<B: SharedBuffer, R: Fn(), const N: usize> Unpin for IoFuture<'_, '_, B, R, N> {}

impl<B: SharedBuffer, R: Fn(), const N: usize> IoFuture<'_, '_, B, R, N> {
    /// Goes on as far as it can; wakers that are not needed any more come back, to be dropped outside.
    fn step(&mut self, waker: Waker) -> [Option<Waker>; 2] {
        let inner = &mut *self.client.inner.borrow_mut();
        if let State::Waiting(..) = self.state
            && let State::Waiting(request, place) = mem::replace(&mut self.state, State::Ended)
        {
            let over = inner.over();
            let first = place.map_or(inner.spare() > 0 && inner.waiters.is_empty(), |at| inner.waiters.is_granted(at));
            if over.is_none() && !first {
                return self.queue(inner, request, place, waker);
            }
            let old = place.and_then(|at| inner.waiters.leave(at));
            if let Some(status) = over {
                let tag = Tag { number: 0, client: 0, sequence: 0 };
                let (token, bytes, late) = (request.token(), 0, false);
                let done = Completion { token, tag, status, bytes, late, buffer: request.into_buffer() };
                self.state = State::Answered(done);
                return [old, Some(waker)];
            }
            match inner.begin(request) {
                Ok((call, tag)) => self.state = State::Asked(call, tag),
                // The server went meanwhile: behind those who wait.
                Err(request) => return self.queue(inner, request, None, waker),
            }
        }
        let State::Asked(call, tag) = self.state else { return [Some(waker), None] };
        if let Some(done) = inner.calls.take(call) {
            self.state = State::Answered(done);
            return [Some(waker), None];
        }
        if inner.over().is_some() {
            // In flight with a server that is not believed: the buffer stays, the future does not.
            let token = inner.calls.token(call);
            let (_, _, old) = inner.calls.abandon(call);
            let done = Completion { token, tag, status: Status::IoError, bytes: 0, late: false, buffer: None };
            self.state = State::Answered(done);
            return [old, Some(waker)];
        }
        [inner.calls.renew(call, waker), None]
    }

    fn queue(
        &mut self,
        inner: &mut Inner<'_, B, N>,
        request: Request<B>,
        place: Option<u16>,
        waker: Waker,
    ) -> [Option<Waker>; 2] {
        let (place, old) = match place {
            Some(at) => (place, Some(inner.waiters.renew(at, waker))),
            None => match inner.waiters.join(waker) {
                Ok(at) => (Some(at), None),
                Err(waker) => (None, Some(waker)),
            },
        };
        self.state = State::Waiting(request, place);
        [old, None]
    }
}

impl<B: SharedBuffer, R: Fn(), const N: usize> Future for IoFuture<'_, '_, B, R, N> {
    type Output = Completion<B>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completion<B>> {
        let this = self.get_mut();
        this.client.pass();
        let unneeded = this.step(context.waker().clone());
        this.client.publish();
        // An answer that was taken, or a grant that was not used, may be room for another. Meanwhile the answer is kept
        // in the future: what runs here may panic.
        this.client.tell();
        drop(unneeded);
        match mem::replace(&mut this.state, State::Ended) {
            State::Answered(done) => return Poll::Ready(done),
            state => this.state = state,
        }
        if matches!(this.state, State::Waiting(_, None)) {
            // No place in the queue.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<B: SharedBuffer, R: Fn(), const N: usize> Drop for IoFuture<'_, '_, B, R, N> {
    fn drop(&mut self) {
        // Dropped at the end, with nothing borrowed.
        let _ended = match mem::replace(&mut self.state, State::Ended) {
            State::Ended => return,
            State::Answered(done) => (None, Some(done), None),
            State::Waiting(request, place) => {
                let waker = place.and_then(|at| self.client.inner.borrow_mut().waiters.leave(at));
                (Some(request), None, waker)
            }
            State::Asked(call, tag) => {
                let inner = &mut *self.client.inner.borrow_mut();
                let (in_flight, done, waker) = inner.calls.abandon(call);
                if in_flight && inner.spare() > 0 {
                    // Refused, it just ends later.
                    let _ = inner.client.cancel(tag, NOBODY);
                }
                (None, done, waker)
            }
        };
        self.client.publish();
        self.client.tell();
    }
}
