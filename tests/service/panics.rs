//! Whatever the driver calls out to panics, and whoever called the driver catches that and goes on with it.
//!
//! One story, told again and again: each time another of its outward calls (registers, doorbells, clock, sleep) panics.
use crate::fake::{Config, RangeLimits};
use crate::rig::{ALL, CREDIT, Ground, Killed, Peer, Private, Tested, ask, opening, read, write};
use drv_virtio_block::lib_block::entry::{Flags, Operation, Submission};
use drv_virtio_block::lib_block::message::{Body, Given, SessionId};
use drv_virtio_block::lib_block::ring::Stage;
use drv_virtio_block::lib_block::{self, Status};
use drv_virtio_block::platform::{Badges, Nanos};
use drv_virtio_block::service::Beside;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A deadline that makes a request ask the clock, and never passes.
const LATE: u64 = u64::MAX;

/// What the client of the story has asked and was answered, by tag.
#[derive(Default)]
struct Ledger {
    asked: [u32; CREDIT as usize],
    answered: [u32; CREDIT as usize],
}

impl Ledger {
    fn submit(&mut self, peer: &mut Peer<'_>, entries: &[Submission]) {
        for entry in entries {
            self.asked[usize::from(entry.tag)] += 1;
        }
        peer.submit(entries);
    }

    /// Takes answers; what nobody asked for, or is answered twice, is the worst of all: the tag's memory is used again.
    fn reap(&mut self, peer: &mut Peer<'_>, step: u64) {
        for (tag, status) in peer.answers() {
            let tag = usize::from(tag);
            self.answered[tag] += 1;
            assert!(self.answered[tag] <= self.asked[tag], "step {step}: tag {tag} is answered again, {status:?}");
        }
    }

    fn unanswered(&self) -> usize {
        self.asked.iter().zip(&self.answered).filter(|(asked, answered)| asked != answered).count()
    }
}

fn timed(entry: Submission) -> Submission {
    Submission { deadline: LATE, ..entry }
}

/// Calls `step`, and says whether it came to its end.
fn survives<R>(step: impl FnOnce() -> R) -> bool {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(_) => true,
        Err(why) if why.is::<Killed>() => false,
        Err(why) => std::panic::resume_unwind(why),
    }
}

/// The story, with a panic in outward call number `step`; false: it has not so many.
fn story(step: u64) -> bool {
    let limits = RangeLimits { max_sectors: 16, max_segments: 1, alignment: 1 };
    let ground = Ground::new(Config { discard: limits, ..Config::default() });
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 1024));
    let id = peer.opened.session;
    let mut ledger = Ledger::default();
    let discard = Submission { tag: 2, blocks: 40, ..Submission::new(Operation::Discard, 512) };
    let barrier = |entry: Submission| Submission { flags: Flags::PRE_BARRIER, ..entry };
    // Common ones before and behind those that ask the clock.
    let first = [read(0, 0, 0), timed(write(1, 8, 1)), timed(discard), read(3, 16, 3), read(4, 24, 4)];
    let second = [timed(barrier(read(5, 32, 5))), write(6, 40, 6)];
    ground.fuse.set(step);
    let mut whole = true;
    ledger.submit(&mut peer, &first);
    whole &= survives(|| service.pass());
    ledger.submit(&mut peer, &second);
    let now = Some(Nanos(0));
    whole &= survives(|| service.wait(Badges::NONE, now));
    for _ in 0..3 {
        ground.device.process_all(0);
        whole &= survives(|| service.pass());
        ledger.reap(&mut peer, step);
    }
    ledger.submit(&mut peer, &[read(7, 8, 1), timed(flush(0))]);
    whole &= survives(|| service.pass());
    whole &= survives(|| service.recover());
    ledger.reap(&mut peer, step);
    whole &= survives(|| ask(&mut service, id, Body::Flush, Beside::default()));
    ground.fuse.set(u64::MAX);
    end(&ground, &mut service, &mut peer, &mut ledger, step);
    !whole
}

fn flush(tag: u16) -> Submission {
    Submission { tag, ..Submission::new(Operation::Flush, 0) }
}

/// After the story: who was answered, and whether the memory can be had back.
fn end<'m>(ground: &'m Ground, service: &mut Tested<'m>, peer: &mut Peer<'m>, ledger: &mut Ledger, step: u64) {
    let session = peer.opened.session;
    let forget = |service: &mut Tested<'m>| ask(service, session, Body::Unregister { memory: ALL }, Beside::default());
    if !service.is_serving() {
        // Stopped in the middle: it goes on, or the device was lost on its way and keeps what it has.
        let _ = service.start();
    }
    for _ in 0..8 {
        ground.device.process_all(0);
        service.pass();
    }
    ledger.reap(peer, step);
    let forgotten = forget(service);
    if service.is_serving() {
        assert_eq!(ledger.unanswered(), 0, "step {step}: {:?} of {:?}", ledger.answered, ledger.asked);
        assert_eq!(forgotten, Ok(Given::Nothing), "step {step}");
        assert_eq!(ask(service, session, Body::Close, Beside::default()), Ok(Given::Nothing), "step {step}");
        assert_eq!(peer.end.announcement().stage, Stage::Ended, "step {step}");
    } else if ledger.unanswered() > 0 {
        assert_eq!(forgotten, Err(Status::Busy), "step {step}: nobody knows what the device does");
    }
    ground.device.assert_no_faults();
}

#[test]
fn whatever_outward_call_panics_every_request_is_answered_once_or_its_memory_stays_in_use() {
    let mut steps = 0;
    while story(steps) {
        steps += 1;
    }
    assert!(steps > 40, "the story has {steps} outward calls only");
}

#[test]
fn an_opening_whose_doorbell_panics_leaves_no_session_and_can_be_made_again() {
    let ground = Ground::new(Config::default());
    let mut private = Private::new();
    let mut service = ground.started(&mut private);
    let wish = lib_block::message::Call { session: SessionId(0), cookie: 1, body: Body::Open(opening(0, 64)) }.encode();
    let beside = Beside { rings: Some(ground.rings(0)), ..Beside::default() };
    ground.fuse.set(0);
    assert!(!survives(|| service.handle(&wish, beside)));
    service.pass();
    assert_eq!(service.fronts()[0].sessions(), 0, "nobody knows the session's number, so there is none");
    let mut peer = Peer::new(&mut service, &ground, 0, opening(0, 64));
    peer.submit(&[read(1, 0, 0)]);
    service.pass();
    ground.device.process_all(0);
    service.pass();
    assert_eq!(peer.answers(), [(1, Status::Ok)]);
}
