//! Both ends of the rings against a hostile peer.
//!
//! Where nothing is stored during an operation, its result is foreseen from the words as they are. Otherwise there is
//! no panic, no place outside of the rings, and never more to take than can be answered.
use crate::protocol_memory::{
    CLIENT, COMPLETION_EVENT, COMPLETION_HEAD, COMPLETION_TAIL, Memory, SERVER, SUBMISSION_EVENT, SUBMISSION_TAIL,
    SUBMISSIONS,
};
use crate::protocol_peer::{Role, Victim, besiege};
use crate::protocol_random::{Random, inputs};
use drv_virtio_block::lib_block::ring::{Announcement, ClientEnd, IndexJump, ServerEnd, Stage};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// How often which result was seen: a siege without some of each shows little.
#[derive(Default)]
struct Seen {
    granted: Cell<u64>,
    empty: Cell<u64>,
    jumps: Cell<u64>,
    doorbells: Cell<u64>,
    silent: Cell<u64>,
}

impl Seen {
    fn look(&self, result: Result<u32, IndexJump>) {
        let count = match result {
            Ok(0) => &self.empty,
            Ok(_) => &self.granted,
            Err(IndexJump) => &self.jumps,
        };
        count.set(count.get() + 1);
    }

    fn publish(&self, rung: bool) {
        let count = if rung { &self.doorbells } else { &self.silent };
        count.set(count.get() + 1);
    }

    fn is_enough(&self) {
        let counts = [&self.granted, &self.empty, &self.jumps, &self.doorbells, &self.silent].map(Cell::get);
        assert!(counts.iter().all(|count| *count > inputs() / 200), "{counts:?}");
    }
}

/// Whether `event` is one of the places from `before` up to `after`: counted, not computed.
fn is_passed(event: u32, before: u32, after: u32) -> bool {
    let mut at = before;
    while at != after {
        if at == event {
            return true;
        }
        at = at.wrapping_add(1);
    }
    false
}

/// Words outside of `own`.
fn others(memory: &Memory, own: &[Range<usize>]) -> u64 {
    let words = memory.all().enumerate().filter(|(word, _)| !own.iter().any(|range| range.contains(word)));
    words.fold(0, |sum: u64, (_, value)| sum.rotate_left(5).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ value)
}

struct Server<'m> {
    memory: &'m Memory,
    end: ServerEnd<'m>,
    seen: Rc<Seen>,
    epoch: u32,
    head: u32,
    next: u32,
    published: u32,
    reaped: u32,
    unanswered: u32,
}

impl<'m> Server<'m> {
    fn new(memory: &'m Memory, seen: Rc<Seen>) -> Self {
        let end = memory.server();
        Self { memory, end, seen, epoch: 0, head: 0, next: 0, published: 0, reaped: 0, unanswered: 0 }
    }

    /// Another life: the client is believed where it says that it stands, once it has the epoch.
    fn attach(&mut self, random: &mut Random, alone: bool) {
        self.epoch += 1;
        self.end = self.memory.server();
        self.end.announce(Announcement { epoch: self.epoch, stage: Stage::Serving });
        let (start, reaped) = (random.edge() as u32, random.edge() as u32);
        if alone {
            assert!(!self.end.acknowledged(self.epoch), "the client said nothing yet");
        }
        while !self.end.acknowledged(self.epoch) {
            self.memory.set(SUBMISSION_TAIL, start.into());
            self.memory.set(COMPLETION_HEAD, reaped.into());
            self.memory.set(CLIENT, u64::from(self.epoch) | u64::from(start) << 32);
        }
        self.unanswered = 0;
        (self.head, self.next, self.published, self.reaped) = (start, reaped, reaped, reaped);
        assert!(!alone || self.memory.index(COMPLETION_TAIL) == reaped);
    }

    /// Never below nothing, or more was granted than can be answered.
    fn room(&self, reaped: u32) -> u32 {
        self.memory.size() - self.next.wrapping_sub(reaped) - self.unanswered
    }

    fn foreseen(&self) -> Result<u32, IndexJump> {
        let ready = self.memory.index(SUBMISSION_TAIL).wrapping_sub(self.head);
        let reaped = self.memory.index(COMPLETION_HEAD);
        let possible = reaped == self.published || is_passed(reaped, self.reaped, self.published);
        if ready > self.memory.size() || !possible { Err(IndexJump) } else { Ok(ready.min(self.room(reaped))) }
    }

    fn look(&mut self, random: &mut Random, alone: bool) {
        let foreseen = alone.then(|| self.foreseen());
        let result = self.end.look(self.unanswered);
        self.seen.look(result);
        assert!(foreseen.is_none_or(|foreseen| foreseen == result), "{result:?} instead of {foreseen:?}");
        let Ok(ready) = result else { return self.attach(random, alone) };
        assert!(ready + self.unanswered <= self.memory.size());
        if alone {
            self.reaped = self.memory.index(COMPLETION_HEAD);
        }
        for ahead in 0..ready {
            let entry = self.end.peek(ahead);
            assert!(!alone || entry == self.memory.submission(self.head.wrapping_add(ahead)));
        }
        let taken = random.below(ready as usize + 1) as u32;
        self.end.consume(taken);
        self.head = self.head.wrapping_add(taken);
        self.unanswered += taken;
    }

    fn publish(&mut self, alone: bool) {
        let event = self.memory.index(COMPLETION_EVENT);
        let rung = self.end.publish();
        let foreseen = is_passed(event, self.published, self.next);
        assert!(!alone || rung == foreseen, "event {event}, {} to {}", self.published, self.next);
        if self.next != self.published {
            self.seen.publish(rung);
            assert!(!alone || self.memory.get(COMPLETION_TAIL) == u64::from(self.next));
        }
        self.published = self.next;
    }

    fn wait(&mut self, alone: bool) {
        let waiting = self.end.is_waiting(self.unanswered);
        if alone && let Ok(ready) = self.foreseen() {
            assert_eq!(waiting, ready > 0, "{ready} to take");
        }
    }
}

impl Victim for Server<'_> {
    fn step(&mut self, random: &mut Random, alone: bool) {
        if self.epoch == 0 {
            self.attach(random, alone);
        }
        let completions = self.memory.completions();
        let epoch = self.epoch;
        let own = [SERVER..SERVER + 1, COMPLETION_TAIL..SUBMISSION_EVENT + 1, completions..self.memory.len()];
        let before = (alone && random.one_in(4)).then(|| others(self.memory, &own));
        match random.below(8) {
            0..3 => self.look(random, alone),
            3 | 4 if self.unanswered > 0 => {
                for _ in 0..=random.below(self.unanswered as usize) {
                    self.end.post([random.word(), random.word()]);
                    self.next = self.next.wrapping_add(1);
                    self.unanswered -= 1;
                }
            }
            5 => self.publish(alone),
            6 => {
                self.end.arm();
                assert!(!alone || self.memory.index(SUBMISSION_EVENT) == self.head);
                self.wait(alone);
            }
            _ => self.end.disarm(),
        }
        // The client of a new life speaks while this one looks.
        let quiet = before.filter(|_| epoch == self.epoch);
        assert!(quiet.is_none_or(|before| before == others(self.memory, &own)), "a word of the client's");
    }
}

struct Client<'m> {
    memory: &'m Memory,
    end: ClientEnd<'m>,
    seen: Rc<Seen>,
    next: Option<u32>,
    published: u32,
    head: u32,
    epoch: u32,
}

impl<'m> Client<'m> {
    fn new(memory: &'m Memory, seen: Rc<Seen>) -> Self {
        Self { memory, end: memory.client(), seen, next: None, published: 0, head: 0, epoch: 0 }
    }

    fn attach(&mut self, alone: bool) -> u32 {
        self.epoch += 1;
        self.end.acknowledge(self.epoch);
        // What the client says itself is for the peer to spoil.
        if alone {
            self.head = self.memory.index(COMPLETION_HEAD);
            assert_eq!(self.head, self.memory.index(COMPLETION_TAIL));
            self.published = self.memory.index(SUBMISSION_TAIL);
            assert_eq!(self.memory.get(CLIENT), u64::from(self.epoch) | u64::from(self.published) << 32);
        }
        *self.next.insert(self.published)
    }

    fn foreseen(&self) -> Result<u32, IndexJump> {
        let ready = self.memory.index(COMPLETION_TAIL).wrapping_sub(self.head);
        if ready > self.memory.size() { Err(IndexJump) } else { Ok(ready) }
    }

    fn look(&mut self, random: &mut Random, alone: bool) {
        let foreseen = self.foreseen();
        let result = self.end.look();
        self.seen.look(result);
        assert!(!alone || result == foreseen, "{result:?} instead of {foreseen:?}");
        let Ok(ready) = result else {
            self.attach(alone);
            return;
        };
        assert!(ready <= self.memory.size());
        for ahead in 0..ready {
            let entry = self.end.peek(ahead);
            assert!(!alone || entry == self.memory.completion(self.head.wrapping_add(ahead)));
        }
        let taken = random.below(ready as usize + 1) as u32;
        self.end.consume(taken);
        self.head = self.head.wrapping_add(taken);
        assert!(!alone || self.memory.get(COMPLETION_HEAD) == u64::from(self.head));
    }

    fn arm(&mut self, random: &mut Random, alone: bool) {
        let (want, known) = (random.below(6) as u32, self.end.announcement());
        let known = if random.one_in(8) { Announcement { epoch: !known.epoch, ..known } } else { known };
        let foreseen = self.foreseen().is_ok_and(|ready| ready < want.max(1)) && self.end.announcement() == known;
        let awake = self.end.arm(want, known);
        assert!(!alone || awake != foreseen, "wants {want}, awake: {awake}");
        let event = self.head.wrapping_add(want.max(1) - 1);
        assert!(!alone || self.memory.get(COMPLETION_EVENT) == u64::from(event));
    }
}

impl Victim for Client<'_> {
    fn step(&mut self, random: &mut Random, alone: bool) {
        let next = match self.next {
            Some(next) => next,
            None => self.attach(alone),
        };
        let own = [CLIENT..CLIENT + 1, SUBMISSION_TAIL..COMPLETION_EVENT + 1, SUBMISSIONS..self.memory.completions()];
        let before = (alone && random.one_in(4)).then(|| others(self.memory, &own));
        match random.below(8) {
            0 | 1 if next.wrapping_sub(self.published) < self.memory.size() => {
                let words = std::array::from_fn(|_| random.word());
                self.end.stage(words);
                assert!(!alone || self.memory.submission(next) == words);
                self.next = Some(next.wrapping_add(1));
            }
            2 | 3 => {
                let event = self.memory.index(SUBMISSION_EVENT);
                let rung = self.end.publish();
                assert!(!alone || rung == is_passed(event, self.published, next), "event {event}, to {next}");
                if next != self.published {
                    self.seen.publish(rung);
                    assert!(!alone || self.memory.get(SUBMISSION_TAIL) == u64::from(next));
                }
                self.published = next;
            }
            4 | 5 => self.look(random, alone),
            6 => self.arm(random, alone),
            _ => assert_eq!(self.end.is_staged(), next != self.published),
        }
        assert!(before.is_none_or(|before| before == others(self.memory, &own)), "a word of the server's");
    }
}

#[test]
fn what_a_server_does_with_a_hostile_client_can_be_foreseen() {
    let seen = Rc::new(Seen::default());
    besiege(6, Role::Client, |memory| Box::new(Server::new(memory, seen.clone())));
    seen.is_enough();
}

#[test]
fn what_a_client_does_with_a_hostile_server_can_be_foreseen() {
    let seen = Rc::new(Seen::default());
    besiege(7, Role::Server, |memory| Box::new(Client::new(memory, seen.clone())));
    seen.is_enough();
}
