//! A client that says anything: entries that are nearly right, index words that are nearly possible, calls at any time.
//!
//! It writes the words of its rings itself. Most of what it says is accepted or refused as an entry; noise alone would
//! end its session at the first look.
use crate::oracle::{Bounds, Granted};
use crate::random::Random;
use crate::rig::Rig;
use drv_virtio_block::lib_block::VERSION;
use drv_virtio_block::lib_block::entry::{Data, Flags, MemoryId, Operation, Piece, Submission};
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::{Body, Capability, Extent, Opening, Rights, SessionId};
use drv_virtio_block::lib_block::ring::Stage;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const CREDIT: u16 = 16;
/// Bytes of its memory.
pub(crate) const DATA: usize = 64 << 10;

const SERVER: usize = 0;
const CLIENT: usize = 8;
const SUBMISSION_TAIL: usize = 16;
const COMPLETION_HEAD: usize = 17;
const COMPLETION_EVENT: usize = 18;
const COMPLETION_TAIL: usize = 24;
const SUBMISSION_EVENT: usize = 25;
const SUBMISSIONS: usize = 32;

/// See the module's text.
pub(crate) struct Hostile<'w> {
    words: &'w [AtomicU64],
    /// Where its memory is for the device.
    data: u64,
    id: Option<SessionId>,
    ids: Vec<MemoryId>,
    /// What it may do.
    pub(crate) bounds: Bounds,
    /// The call's grant is the last of `bounds.memory`.
    calling: bool,
    /// Entries that it said.
    pub(crate) said: u64,
    /// Places of submissions and completions where the session began.
    began: (u32, u32),
    /// It changed words that say where.
    muddled: bool,
}

impl<'w> Hostile<'w> {
    pub(crate) fn new(rig: &Rig<'w>) -> Self {
        Self {
            words: rig.words(0),
            data: rig.data(0),
            id: None,
            ids: Vec::new(),
            bounds: Bounds::default(),
            calling: false,
            said: 0,
            began: (0, 0),
            muddled: false,
        }
    }

    fn get(&self, word: usize) -> u32 {
        self.words[word].load(Ordering::Relaxed) as u32
    }

    fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Relaxed);
    }

    /// Something, in any order.
    pub(crate) fn act(&mut self, rig: &mut Rig<'w>, random: &mut Random) {
        self.notice(rig);
        if self.id.is_none() {
            return self.open(rig, random);
        }
        match random.below(100) {
            0..55 => (0..=random.below(4)).for_each(|_| self.say(random)),
            55..75 => self.reap(random),
            75..80 => self.scribble(random),
            80..88 => self.register(rig, random),
            88..93 => self.unregister(rig, random),
            93..96 => self.call(rig, random),
            96 => rig.front.close(self.id.unwrap()).unwrap(),
            97 => {
                let now = rig.now.get() + random.below(20) as u64;
                rig.now.set(now);
                rig.front.expire(&|| drv_virtio_block::platform::Nanos(now));
            }
            _ => self.rewrite(random),
        }
    }

    /// Looks whether the session and the call are over, and gives up what was granted for them.
    pub(crate) fn notice(&mut self, rig: &mut Rig<'w>) {
        let Some(id) = self.id else { return };
        if self.calling && rig.front.call_outcome(id).is_some() {
            self.calling = false;
            self.bounds.memory.pop();
        }
        if !rig.front.is_open(id) {
            (self.id, self.calling) = (None, false);
            self.ids.clear();
            self.bounds = Bounds::default();
        }
    }

    fn open(&mut self, rig: &mut Rig<'w>, random: &mut Random) {
        let extents: &[(u64, u64)] = [&[(64, 200)][..], &[(64, 40), (300, 8), (200, 64)], &[(0, 8)]][random.below(3)];
        let rights = if random.one_in(4) { random.below(16) as u16 } else { 15 };
        let all: Vec<_> = extents.iter().map(|(first, blocks)| Extent { first: *first, blocks: *blocks }).collect();
        let capability = Capability::new(Rights(rights), &all).unwrap();
        let weight = 1 + random.below(3) as u16;
        let opening = Opening { version: VERSION, credit: CREDIT, weight, affinity: 0, capability };
        self.id = Some(rig.front.open(&opening, rig.rings(0, CREDIT), []).unwrap().session);
        self.bounds = Bounds { rights, extents: extents.to_vec(), memory: Vec::new() };
        self.register(rig, random);
        rig.client_end(0, CREDIT).acknowledge(rig.epoch);
        self.began = (self.get(SUBMISSION_TAIL), self.get(COMPLETION_HEAD));
        self.muddled = false;
    }

    fn register(&mut self, rig: &mut Rig<'w>, random: &mut Random) {
        let offset = random.below(DATA / 8) * 8;
        let len = (1 + random.below((DATA - offset) / 8)) * 8;
        let access = if random.one_in(3) { Access::Read } else { Access::ReadWrite };
        let grant = rig.grant(0, offset, len, access);
        let Ok(id) = rig.front.register(self.id.unwrap(), grant) else { return };
        self.ids.push(id);
        let address = self.data + offset as u64;
        let granted = Granted { address, len: len as u64, writable: access == Access::ReadWrite };
        // Registrations in their order, the call's behind them.
        self.bounds.memory.insert(self.ids.len() - 1, granted);
    }

    fn unregister(&mut self, rig: &mut Rig<'w>, random: &mut Random) {
        if self.ids.is_empty() {
            return;
        }
        let at = random.below(self.ids.len());
        if rig.front.unregister(self.id.unwrap(), self.ids[at]).is_ok() {
            self.ids.remove(at);
            self.bounds.memory.remove(at);
        }
    }

    fn call(&mut self, rig: &mut Rig<'w>, random: &mut Random) {
        let (offset, len) = (random.below(DATA / 2), 512 * random.below(64));
        let access = if random.one_in(3) { Access::Read } else { Access::ReadWrite };
        let grant = rig.grant(0, offset & !7, len, access);
        let (lba, blocks) = (self.lba(random), random.below(9) as u32);
        let body = match random.below(3) {
            0 => Body::Read { lba, blocks },
            1 => Body::Write { lba, blocks, fua: random.one_in(2) },
            _ => Body::Flush,
        };
        if rig.front.begin_call(self.id.unwrap(), &body, Some(grant)).is_ok() {
            // What an earlier call came to, nobody asked.
            if std::mem::replace(&mut self.calling, true) {
                self.bounds.memory.pop();
            }
            let address = self.data + (offset & !7) as u64;
            let granted = Granted { address, len: len as u64, writable: access == Access::ReadWrite };
            self.bounds.memory.push(granted);
        }
    }

    fn lba(&self, random: &mut Random) -> u64 {
        let all: u64 = self.bounds.extents.iter().map(|(_, count)| count).sum();
        if random.one_in(8) { random.edge() } else { random.below(all as usize + 2) as u64 }
    }

    fn piece(&self, random: &mut Random, len: u32) -> Piece {
        let memory = match random.below(12) {
            0 => MemoryId(random.edge() as u32),
            1 => MemoryId(1 << 16 | random.below(17) as u32),
            _ if self.ids.is_empty() => MemoryId(0),
            _ => self.ids[random.below(self.ids.len())],
        };
        let offset = match random.below(10) {
            0 => random.edge(),
            1 => random.below(DATA) as u64,
            _ => 8 * random.below(64) as u64,
        };
        Piece { memory, offset, len: if random.one_in(12) { random.edge() as u32 } else { len } }
    }

    /// An entry, right or nearly so.
    fn entry(&self, random: &mut Random) -> [u64; 8] {
        let operation = Operation::from_wire(1 + random.below(6) as u8).unwrap();
        let operation = if random.one_in(2) { operation } else { [Operation::Read, Operation::Write][random.below(2)] };
        let blocks = 1 + random.below(8) as u32;
        let half = blocks * 256;
        let data = match random.below(6) {
            _ if !operation.has_data() => Data::None,
            0 => Data::Two([self.piece(random, half), self.piece(random, half)]),
            1 => Data::List(self.list(random, blocks)),
            _ => Data::One(self.piece(random, blocks * 512)),
        };
        let mut wish = Submission {
            tag: if random.one_in(16) { random.edge() as u16 } else { random.below(usize::from(CREDIT)) as u16 },
            blocks: if operation.has_blocks() { blocks } else { 0 },
            data,
            flags: if random.one_in(4) { Flags(random.below(8) as u8) } else { Flags(0) },
            deadline: if random.one_in(6) { random.below(200) as u64 } else { 0 },
            ..Submission::new(operation, 0)
        };
        wish.lba = match operation {
            Operation::Flush => 0,
            Operation::Cancel => random.below(usize::from(CREDIT) + 1) as u64,
            _ => self.lba(random),
        };
        let mut words = wish.encode();
        if random.one_in(10) {
            let word = random.below(8);
            words[word] = if random.one_in(2) { random.edge() } else { words[word] ^ 1 << random.below(64) };
        }
        words
    }

    /// A list somewhere in its memory, of pieces that are nearly right.
    fn list(&self, random: &mut Random, blocks: u32) -> Piece {
        let count = 3 + random.below(6) as u32;
        let at = self.piece(random, 16 * count);
        let place = self.ids.iter().position(|id| *id == at.memory).map(|at| self.bounds.memory[at]);
        if let Some(granted) = place.filter(|granted| at.offset.saturating_add(16 * 16) <= granted.len) {
            for piece in 0..count {
                let len = if piece == 0 { blocks * 512 - (count - 1) * 64 } else { 64 };
                let words = self.piece(random, len).encode();
                self.memory(granted.address + at.offset + 16 * u64::from(piece), words);
            }
        }
        at
    }

    fn memory(&self, address: u64, words: [u64; 2]) {
        // Its data lies behind its rings.
        let first = (address - self.data) as usize / 8 + self.words.len();
        // SAFETY: the words of the rings are followed by those of the data, in the same memory, accessed as atomics.
        let place = |at| unsafe { &*self.words.as_ptr().add(first + at) };
        place(0).store(words[0], Ordering::Relaxed);
        place(1).store(words[1], Ordering::Relaxed);
    }

    fn say(&mut self, random: &mut Random) {
        let tail = self.get(SUBMISSION_TAIL);
        let entry = self.entry(random);
        for (at, word) in entry.iter().enumerate() {
            self.set(SUBMISSIONS + (tail % u32::from(CREDIT)) as usize * 8 + at, *word);
        }
        // Without credit it overwrites what is there, and says no more of it.
        let answered = self.get(COMPLETION_TAIL).wrapping_sub(self.began.1);
        if tail.wrapping_sub(self.began.0).wrapping_sub(answered) < u32::from(CREDIT) || random.one_in(256) {
            self.set(SUBMISSION_TAIL, tail.wrapping_add(1).into());
        }
        self.said += 1;
    }

    fn reap(&mut self, random: &mut Random) {
        let too_far = random.one_in(100);
        self.muddled |= too_far;
        let tail = self.get(COMPLETION_TAIL).wrapping_add(too_far.into());
        self.set(COMPLETION_HEAD, tail.into());
        self.set(COMPLETION_EVENT, tail.wrapping_add(random.below(4) as u32).into());
    }

    /// Changes something that was said already.
    fn rewrite(&self, random: &mut Random) {
        let word = SUBMISSIONS + random.below(usize::from(CREDIT) * 8);
        let entry = self.entry(random);
        self.set(word, if random.one_in(2) { entry[word % 8] } else { random.edge() });
    }

    fn scribble(&mut self, random: &mut Random) {
        let word = [CLIENT, SUBMISSION_TAIL, COMPLETION_HEAD, COMPLETION_EVENT, COMPLETION_EVENT][random.below(5)];
        let harmless = word == CLIENT || word == COMPLETION_EVENT;
        let near = self.get(word).wrapping_add(random.below(5) as u32).wrapping_sub(2);
        if harmless || random.one_in(8) {
            self.muddled |= word != COMPLETION_EVENT;
            self.set(word, if random.one_in(3) { random.edge() } else { near.into() });
        }
    }

    /// With nothing in flight and the server asleep: whether as many answers were posted as entries taken.
    pub(crate) fn check_answered(&self, rig: &Rig<'w>, what: &str) {
        let Some(id) = self.id.filter(|id| !self.muddled && rig.front.is_open(*id)) else { return };
        let serving = self.words[SERVER].load(Ordering::Relaxed) >> 32 == Stage::Serving as u64;
        let taken = self.get(SUBMISSION_EVENT).wrapping_sub(self.began.0);
        let posted = self.get(COMPLETION_TAIL).wrapping_sub(self.began.1);
        assert!(!serving || taken == posted, "{what}: {taken} taken, {posted} answered");
        let counted = rig.front.session_statistics(id).unwrap();
        assert!(!serving || counted.done + counted.failed == u64::from(posted), "{what}: counted {counted:?}");
    }
}
