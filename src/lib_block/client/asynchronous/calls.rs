//! What became of each request that a future waits for: the requests' tags end with their completions, which the
//! futures may take later.
//!
//! Wakers and buffers run foreign code when they are woken or dropped: they are handed out here, and that is done where
//! nothing is borrowed.
use crate::lib_block::client::request::Completion;
use core::mem;
use core::task::Waker;

/// Token of requests that nobody waits for.
pub(super) const NOBODY: u64 = u64::MAX;

enum State<B> {
    Free,
    /// In flight.
    Asked,
    /// Answered, for the future to take.
    Answered(Completion<B>),
    /// In flight, and its future is gone.
    Abandoned,
    /// Answered, for nobody.
    Orphan(Completion<B>),
    /// Set aside for the end of a request that no future asked.
    Stray,
}

struct Call<B> {
    state: State<B>,
    /// The caller's number.
    token: u64,
    waker: Option<Waker>,
    /// It is among the news.
    told: bool,
}

/// `N` calls.
pub(super) struct Calls<B, const N: usize> {
    all: [Call<B>; N],
    free: [u16; N],
    free_count: usize,
    /// Calls of which someone is to be told: each once.
    news: [u16; N],
    news_count: usize,
    /// Calls set aside, the last ones.
    strays: usize,
}

/// What is to be done outside.
pub(super) enum News<B> {
    Wake(Waker),
    Drop(Completion<B>),
    /// Nobody waits yet.
    Nothing,
}

impl<B, const N: usize> Calls<B, N> {
    /// Calls of a client that has as many requests in flight already as `strays` says.
    pub(super) fn new(strays: u32) -> Self {
        let strays = N.min(strays as usize);
        let state = |at: usize| if at < N - strays { State::Free } else { State::Stray };
        Self {
            all: core::array::from_fn(|at| Call { state: state(at), token: 0, waker: None, told: false }),
            free: core::array::from_fn(|at| at as u16),
            free_count: N - strays,
            news: [0; N],
            news_count: 0,
            strays,
        }
    }

    /// Calls that are free.
    pub(super) fn left(&self) -> u32 {
        self.free_count as u32
    }

    /// The call that is begun next.
    pub(super) fn vacant(&self) -> Option<u16> {
        self.free_count.checked_sub(1).map(|last| self.free[last])
    }

    /// Begins the vacant call, whose request was accepted, with the caller's `token`.
    pub(super) fn begin(&mut self, call: u16, token: u64) {
        self.free_count -= 1;
        let entry = &mut self.all[usize::from(call)];
        debug_assert!(entry.waker.is_none(), "told before it ended, and so taken");
        (entry.state, entry.token, entry.waker) = (State::Asked, token, None);
    }

    /// Notes the end of a request that was in flight before there were futures, whatever its token is.
    pub(super) fn answer_stray(&mut self, done: Completion<B>) {
        if let Some(left) = self.strays.checked_sub(1) {
            let call = N - self.strays;
            self.strays = left;
            self.all[call].state = State::Orphan(done);
            self.tell(call as u16);
        }
    }

    /// Notes a completion that has a call's number as its token.
    pub(super) fn answer(&mut self, mut done: Completion<B>) {
        let number = done.token;
        // No number of a call: a withdrawal, which has no buffer.
        let Some(call) = usize::try_from(number).ok().and_then(|at| self.all.get_mut(at)) else { return };
        done.token = call.token;
        call.state = match call.state {
            State::Abandoned => State::Orphan(done),
            _ => State::Answered(done),
        };
        self.tell(number as u16);
    }

    fn tell(&mut self, call: u16) {
        if !mem::replace(&mut self.all[usize::from(call)].told, true) {
            self.news[self.news_count] = call;
            self.news_count += 1;
        }
    }

    /// Everyone who waits is to be woken: what they wait for does not come.
    pub(super) fn tell_all(&mut self) {
        for call in 0..N {
            if matches!(self.all[call].state, State::Asked) {
                self.tell(call as u16);
            }
        }
    }

    /// The next of whom someone is to be told.
    pub(super) fn next(&mut self) -> Option<News<B>> {
        self.news_count = self.news_count.checked_sub(1)?;
        let number = self.news[self.news_count];
        let call = &mut self.all[usize::from(number)];
        call.told = false;
        if matches!(call.state, State::Orphan(_)) {
            return Some(match self.end(number) {
                State::Orphan(done) => News::Drop(done),
                _ => News::Nothing,
            });
        }
        Some(call.waker.take().map_or(News::Nothing, News::Wake))
    }

    /// The answer, if it is there; the call ends with it.
    pub(super) fn take(&mut self, call: u16) -> Option<Completion<B>> {
        if !matches!(self.all[usize::from(call)].state, State::Answered(_)) {
            return None;
        }
        match self.end(call) {
            State::Answered(done) => Some(done),
            _ => None,
        }
    }

    /// Another waker; gives the old one back.
    pub(super) fn renew(&mut self, call: u16, waker: Waker) -> Option<Waker> {
        self.all[usize::from(call)].waker.replace(waker)
    }

    /// The future goes. True: the request is still in flight.
    pub(super) fn abandon(&mut self, call: u16) -> (bool, Option<Completion<B>>, Option<Waker>) {
        let entry = &mut self.all[usize::from(call)];
        let waker = entry.waker.take();
        if matches!(entry.state, State::Asked) {
            entry.state = State::Abandoned;
            return (true, None, waker);
        }
        (false, self.take(call), waker)
    }

    /// The caller's number.
    pub(super) fn token(&self, call: u16) -> u64 {
        self.all[usize::from(call)].token
    }

    fn end(&mut self, call: u16) -> State<B> {
        self.free[self.free_count] = call;
        self.free_count += 1;
        mem::replace(&mut self.all[usize::from(call)].state, State::Free)
    }
}
