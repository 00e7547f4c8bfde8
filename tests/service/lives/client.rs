//! A client that checks everything: through the client library, with buffers that know who has them.
use super::Plan;
use crate::rig::{self, ALL, CREDIT, Ground, PAGE, Tested, opening, pattern, word};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::client::{
    Client, Completion, Replay, Request, Resumed, ServerReadable, ServerWritable, SharedBuffer,
};
use drv_virtio_block::lib_block::entry::{Data, Piece};
use drv_virtio_block::lib_block::message::Opening;
use drv_virtio_block::lib_block::ring::Stage;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Bytes of a region: of the medium, and of a buffer.
const REGION: usize = 2048;
const BLOCKS: u64 = REGION as u64 / 512;
const REGIONS: u64 = 5;
/// What a buffer holds while nobody has it.
const HOME: u8 = 0x3c;

/// Which buffers are at home.
struct Shelf<'m> {
    ground: &'m Ground,
    home: RefCell<BTreeSet<usize>>,
}

impl<'m> Shelf<'m> {
    fn put(&self, page: usize, data: &[u8]) {
        self.ground.put(page, data);
    }

    /// Nobody wrote into it while it was at home.
    fn check(&self, page: usize) {
        assert!(self.ground.bytes(page, REGION) == [HOME; REGION], "buffer {page} was written after it came back");
    }

    fn take(self: &Rc<Self>) -> Leaf<'m> {
        let page = self.home.borrow_mut().pop_first().expect("as many as tags");
        self.check(page);
        Leaf { page, shelf: Rc::clone(self) }
    }
}

/// A buffer. Dropped, it is at home, and nobody writes into it any more.
struct Leaf<'m> {
    page: usize,
    shelf: Rc<Shelf<'m>>,
}

// SAFETY: the page is this value's alone until it is dropped, and a value that is leaked keeps it.
unsafe impl SharedBuffer for Leaf<'_> {
    fn data(&self) -> Data {
        Data::One(Piece { memory: ALL, offset: (self.page * PAGE) as u64, len: REGION as u32 })
    }
}
// SAFETY: initialised memory.
unsafe impl ServerReadable for Leaf<'_> {}
// SAFETY: bytes, read through `Leaf::bytes` only, which takes a buffer that is not with the server.
unsafe impl ServerWritable for Leaf<'_> {}

impl Leaf<'_> {
    fn bytes(&self) -> Vec<u8> {
        self.shelf.ground.bytes(self.page, REGION)
    }
}

impl Drop for Leaf<'_> {
    fn drop(&mut self) {
        self.shelf.put(self.page, &[HOME; REGION]);
        assert!(self.shelf.home.borrow_mut().insert(self.page), "a buffer comes home once");
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
enum What {
    /// This version, to this region.
    Write(u64, u64),
    Read(u64),
    Flush,
}

/// See the module's text.
pub(super) struct Worker<'m> {
    ground: &'m Ground,
    seat: usize,
    client: Client<'m, Leaf<'m>, { CREDIT as usize }>,
    shelf: Rc<Shelf<'m>>,
    replay: Replay,
    operations: u64,
    next: u64,
    /// Unanswered: by token, with the tag on the wire.
    asked: BTreeMap<u64, (What, u16)>,
    /// What the server said of itself last.
    word: u64,
    /// Versions that each region may hold: one, unless a write's end is not known.
    may: [Vec<u64>; REGIONS as usize],
    pub(super) done: u64,
    pub(super) lost: u64,
    pub(super) reset: u64,
    pub(super) replayed: u64,
}

impl<'m> Worker<'m> {
    pub(super) fn new(ground: &'m Ground, seat: usize, plan: &Plan) -> Self {
        let home = (seat * 16..seat * 16 + usize::from(CREDIT)).collect();
        let shelf = Rc::new(Shelf { ground, home: RefCell::new(home) });
        shelf.home.borrow().iter().for_each(|page| shelf.put(*page, &[HOME; REGION]));
        Self {
            ground,
            seat,
            client: Client::new(ground.client_rings(seat), 512).expect("rings of that size"),
            shelf,
            replay: if plan.replay { Replay::Unanswered } else { Replay::Never },
            operations: plan.operations,
            next: 0,
            asked: BTreeMap::new(),
            word: 0,
            may: std::array::from_fn(|_| vec![0]),
            done: 0,
            lost: 0,
            reset: 0,
            replayed: 0,
        }
    }

    /// Everything was asked and answered.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.operations && self.asked.is_empty()
    }

    fn first_block(&self) -> u64 {
        512 * self.seat as u64
    }

    /// As blockd does for its clients when a driver has begun.
    pub(super) fn reopen(&mut self, service: &mut Tested<'m>) {
        let opening = Opening { affinity: self.seat as u32, ..opening(self.first_block(), 512) };
        rig::open(service, self.ground, self.seat, opening);
    }

    fn content(&self, region: u64, version: u64) -> Vec<u8> {
        if version == 0 { vec![0; REGION] } else { pattern(version << 8 | region << 1 | self.seat as u64, REGION) }
    }

    /// Asks for a few things.
    pub(super) fn submit(&mut self) {
        self.resume();
        for _ in 0..3 {
            let region = self.next * 3 % REGIONS;
            let is_free = |(what, _): &(What, u16)| !matches!(what, What::Write(_, r) | What::Read(r) if *r == region);
            if self.next == self.operations || !self.asked.values().all(is_free) || self.client.credit() == 0 {
                break;
            }
            let lba = region * BLOCKS;
            let (what, request) = match self.next % 7 {
                2 | 4 => (What::Read(region), Request::read(lba, BLOCKS as u32, self.shelf.take())),
                6 => (What::Flush, Request::flush()),
                kind => {
                    let leaf = self.shelf.take();
                    let version = self.next + 1;
                    self.shelf.put(leaf.page, &self.content(region, version));
                    let request = Request::write(lba, BLOCKS as u32, leaf);
                    let request = if kind == 1 { request.durably() } else { request };
                    // Far away: but the clock is looked at.
                    let request = if kind == 3 { request.with_deadline(u64::MAX) } else { request };
                    (What::Write(version, region), request)
                }
            };
            let Ok(tag) = self.client.submit(request.with_token(self.next)) else { break };
            self.asked.insert(self.next, (what, tag.number()));
            self.next += 1;
        }
        let _ = self.client.publish();
    }

    /// Takes what was answered.
    pub(super) fn reap(&mut self) {
        self.resume();
        let mut answers = Vec::new();
        self.client.reap(u32::MAX, |completion| answers.push(completion));
        for answer in &answers {
            self.settle(answer, false);
        }
        // Asleep, so that its doorbell is rung.
        let _ = self.client.arm(1);
    }

    /// Goes along with a new life.
    fn resume(&mut self) {
        let word = self.ground.ring_words(self.seat, 1)[0];
        if std::mem::replace(&mut self.word, word) == word {
            return;
        }
        let unanswered = self.unanswered();
        let mut answers = Vec::new();
        let resumed = self.client.resume(self.replay, |completion| answers.push(completion));
        let Resumed::Attached { lost, replayed } = resumed else {
            assert!(!matches!(resumed, Resumed::Over(Stage::Ended)), "the session was ended");
            for answer in &answers {
                self.settle(answer, false);
            }
            return;
        };
        let over = answers.iter().filter(|answer| answer.status == Status::Reset && unanswered.contains(&answer.token));
        assert_eq!(over.count(), lost as usize);
        let expected = if self.replay == Replay::Never { unanswered.len() } else { 0 };
        assert_eq!(lost as usize, expected, "exactly what was not answered");
        assert_eq!((lost + replayed) as usize, unanswered.len());
        self.replayed += u64::from(replayed);
        for answer in &answers {
            self.settle(answer, unanswered.contains(&answer.token));
        }
    }

    /// The tokens of what no completion in the ring answers, by the ring's bytes.
    fn unanswered(&self) -> BTreeSet<u64> {
        let words = self.ground.ring_words(self.seat, word::END);
        let (head, tail) = (words[word::COMPLETION_HEAD] as u32, words[word::COMPLETION_TAIL] as u32);
        let count = tail.wrapping_sub(head);
        assert!(count <= u32::from(CREDIT));
        let at = |ahead: u32| (head.wrapping_add(ahead) % u32::from(CREDIT)) as usize;
        let tags: BTreeSet<u16> = (0..count).map(|ahead| words[word::COMPLETIONS + 2 * at(ahead)] as u16).collect();
        self.asked.iter().filter(|(_, (_, tag))| !tags.contains(tag)).map(|(token, _)| *token).collect()
    }

    /// Holds an answer against what was asked; `lost`: it ended with a life.
    fn settle(&mut self, answer: &Completion<Leaf<'m>>, lost: bool) {
        let (what, tag) = self.asked.remove(&answer.token).expect("what was asked is answered once");
        assert_eq!(tag, answer.tag.number());
        match (what, answer.status) {
            (What::Write(version, region), Status::Ok) => self.may[region as usize] = vec![version],
            (What::Write(version, region), Status::Reset) => self.may[region as usize].push(version),
            (What::Read(region), Status::Ok) => {
                let found = answer.buffer.as_ref().expect("the buffer comes back").bytes();
                self.narrow(region, &found);
            }
            (_, Status::Ok | Status::Reset) => {}
            (what, status) => panic!("{what:?} ended with {status:?}"),
        }
        match answer.status {
            Status::Ok => self.done += 1,
            _ if lost => self.lost += 1,
            _ => self.reset += 1,
        }
    }

    /// What is found is one of those that may be, and is from now on the only one.
    fn narrow(&mut self, region: u64, found: &[u8]) {
        let may = &self.may[region as usize];
        let is = may.iter().copied().find(|version| self.content(region, *version) == found);
        let is = is.unwrap_or_else(|| panic!("region {region} of client {} is none of {may:?}", self.seat));
        self.may[region as usize] = vec![is];
    }

    /// Nobody writes into what is at home.
    fn check_shelf(&self) {
        self.shelf.home.borrow().iter().for_each(|page| self.shelf.check(*page));
    }

    /// The medium holds what was acknowledged, after a power cut: everything was flushed.
    pub(super) fn check_all(&mut self) {
        self.ground.device.power_cut();
        for region in 0..REGIONS {
            let found = self.ground.device.disk(self.first_block() + region * BLOCKS, BLOCKS);
            self.narrow(region, &found);
        }
        self.check_shelf();
        assert_eq!(self.shelf.home.borrow().len(), usize::from(CREDIT), "every buffer came back");
        self.ground.device.assert_no_faults();
    }
}
