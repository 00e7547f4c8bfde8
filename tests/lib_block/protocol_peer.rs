//! A hostile peer: stores what it likes in memory that it shares with a victim, between the victim's steps and during
//! them.
//!
//! A peer that stores noise alone is found out at the first look. So most of what this one stores is what an honest one
//! might, a little off at times.
use crate::protocol_memory::{
    CLIENT, COMPLETION_EVENT, COMPLETION_HEAD, COMPLETION_TAIL, Memory, SERVER, SUBMISSION_EVENT, SUBMISSION_TAIL,
};
use crate::protocol_random::{Random, Told, inputs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whom the peer claims to be.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Whoever is to bear it.
pub(crate) trait Victim {
    /// One operation. Alone, nothing else is stored meanwhile, and what comes of it can be foreseen.
    fn step(&mut self, random: &mut Random, alone: bool);
}

/// Steps of one victim.
const STEPS: u64 = 500;

/// Lets [`inputs`] operations of victims happen, each after something hostile; during a quarter of them, a second
/// thread stores as well.
pub(crate) fn besiege(seed: u64, role: Role, make: impl for<'m> Fn(&'m Memory) -> Box<dyn Victim + 'm>) {
    let told = Told::new();
    for run in 0..inputs() / STEPS {
        let mut random = Random::new(seed << 32 ^ run);
        let memory = Memory::new(2 << random.below(3));
        let alone = run % 4 != 0;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            if !alone {
                let (memory, stop) = (&memory, &stop);
                scope.spawn(move || {
                    let mut random = Random::new(!seed << 32 ^ run);
                    while !stop.load(Ordering::Relaxed) {
                        scribble(memory, role, &mut random);
                    }
                });
            }
            let _stop = Stop(&stop);
            let mut victim = make(&memory);
            for step in 0..STEPS {
                told.now((seed, run, step));
                if random.one_in(2) {
                    scribble(&memory, role, &mut random);
                }
                victim.step(&mut random, alone);
            }
        });
    }
}

/// Ends the second thread however the first ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stores something.
pub(crate) fn scribble(memory: &Memory, role: Role, random: &mut Random) {
    let near =
        |word, random: &mut Random| u64::from(memory.index(word).wrapping_add(random.below(5) as u32).wrapping_sub(2));
    match (random.below(32), role) {
        (0..12, Role::Client) => advance(memory, SUBMISSION_TAIL, random),
        (0..12, Role::Server) => advance(memory, COMPLETION_TAIL, random),
        (12..20, Role::Client) => {
            let seen = memory.index(COMPLETION_TAIL).wrapping_sub(random.below(2) as u32);
            memory.set(COMPLETION_HEAD, seen.into());
        }
        (12..24, Role::Server) => memory.set(SUBMISSION_EVENT, near(SUBMISSION_TAIL, random)),
        (20..24, Role::Client) => memory.set(COMPLETION_EVENT, near(COMPLETION_TAIL, random)),
        (24..28, _) => memory.set(random.below(memory.len()), random.word()),
        (28, _) => memory.set(random.below(memory.len()), random.edge()),
        (29, _) => {
            let words = [SUBMISSION_TAIL, COMPLETION_HEAD, COMPLETION_EVENT, COMPLETION_TAIL, SUBMISSION_EVENT];
            memory.set(words[random.below(5)], near(words[random.below(5)], random));
        }
        (30, _) => memory.set(CLIENT, random.below(4) as u64 | random.edge() << 32),
        (_, _) => memory.set(SERVER, random.below(4) as u64 | (random.below(6) as u64) << 32),
    }
}

/// As an honest peer that has something to say, and now and then one too many.
fn advance(memory: &Memory, word: usize, random: &mut Random) {
    let more = random.below(3) as u32;
    memory.set(word, memory.index(word).wrapping_add(more).into());
}
