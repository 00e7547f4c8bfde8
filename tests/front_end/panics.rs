//! Doorbells and clocks that panic, and a caller that catches that and goes on: each request is answered once.
use crate::fake::Config;
use crate::rig::{Client, Panicked, Rig, World, barrier, flush, opening};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::entry::Submission;
use drv_virtio_block::lib_block::message::Rights;
use drv_virtio_block::platform::Nanos;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Whether `work` came to its end.
fn survives<R>(work: impl FnOnce() -> R) -> bool {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(_) => true,
        Err(why) if why.is::<Panicked>() => false,
        Err(why) => resume_unwind(why),
    }
}

/// A clock that answers so many questions, and panics at the next.
fn clock(questions: u32) -> impl Fn() -> Nanos {
    let left = Cell::new(questions);
    move || match left.get() {
        0 => resume_unwind(Box::new(Panicked)),
        more => {
            left.set(more - 1);
            Nanos(1)
        }
    }
}

fn timed(wish: Submission) -> Submission {
    Submission { deadline: u64::MAX, ..wish }
}

/// Settles, and holds against the client that each of its `count` tags was answered once, well, and its memory is free.
#[track_caller]
fn answered_once(rig: &mut Rig<'_>, client: &mut Client<'_>, count: u16, what: &str) {
    rig.settle();
    let mut ends = client.ends();
    ends.sort_unstable_by_key(|(tag, _)| *tag);
    let all: Vec<_> = (0..count).map(|tag| (tag, Status::Ok)).collect();
    assert_eq!(ends, all, "{what}");
    assert_eq!(rig.front.unregister(client.id, client.all), Ok(()), "{what}");
    rig.front.close(client.id).unwrap();
    rig.serve();
    assert!(!rig.front.is_open(client.id), "{what}");
    rig.device.assert_no_faults();
}

#[test]
fn a_clock_that_panics_while_answers_are_taken_loses_none_of_them() {
    let mut panicked = 0;
    for questions in 0..8 {
        let mut world = World::new(Config::default());
        let mut rig = world.usual();
        let mut client = rig.client(0, 16);
        // Those that ask the clock lie between others, and are the first and the last.
        let all = [0, 1, 2, 3, 4, 5].map(|tag| client.read(tag, tag.into(), 1, 512 * u64::from(tag)));
        client.submit(&[timed(all[0]), all[1], timed(all[2]), all[3], all[4], timed(all[5])]);
        rig.serve();
        assert_eq!(rig.device.process_all(0), 6);
        panicked += u32::from(!survives(|| rig.front.serve(&clock(questions))));
        answered_once(&mut rig, &mut client, 6, &format!("{questions} questions"));
    }
    assert_eq!(panicked, 3, "each of the three asks once");
}

#[test]
fn a_clock_that_panics_while_entries_are_taken_has_none_taken_twice() {
    let mut panicked = 0;
    for questions in 0..8 {
        let mut world = World::new(Config::default());
        let mut rig = world.usual();
        let mut client = rig.client(0, 16);
        let all = [0, 1, 2, 3, 4, 5].map(|tag| client.read(tag, tag.into(), 1, 512 * u64::from(tag)));
        client.submit(&[all[0], all[1], timed(all[2]), all[3], timed(barrier(all[4])), timed(flush(5))]);
        panicked += u32::from(!survives(|| rig.front.serve(&clock(questions))));
        assert_eq!(client.take(), [], "nobody was told anything yet, least of all that a tag is busy");
        answered_once(&mut rig, &mut client, 6, &format!("{questions} questions"));
    }
    assert_eq!(panicked, 2, "what is behind a barrier is not looked at yet");
}

#[test]
fn a_clock_that_panics_after_a_reset_changes_nothing_and_the_next_one_answers_all() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(0, 0, 1, 0), timed(client.read(1, 1, 1, 512))]);
    rig.serve();
    rig.now.set(u64::MAX - 1);
    let queue = rig.stop_with(|front, proof| {
        assert!(!survives(|| front.reclaim(proof, &clock(0))));
        front.reclaim(proof, &|| Nanos(1)).expect("the queue is still there")
    });
    rig.serve();
    let mut ends = client.ends();
    ends.sort_unstable_by_key(|(tag, _)| *tag);
    assert_eq!(ends, [(0, Status::Reset), (1, Status::Reset)]);
    rig.go_on(queue);
    assert_eq!(rig.front.unregister(client.id, client.all), Ok(()));
}

#[test]
fn a_doorbell_that_panics_keeps_no_other_client_waiting() {
    for eager in 0..3 {
        let mut world = World::new(Config::default());
        let mut rig = world.usual();
        let mut clients = [0, 1, 2].map(|at| rig.client(at, 16));
        for client in &mut clients {
            client.submit(&[client.read(0, 0, 1, 0)]);
            client.end.arm(1, client.end.announcement());
        }
        rig.serve();
        rig.device.process_all(0);
        rig.rung.take();
        // The last of the three has no other behind it.
        for _ in 0..eager {
            let _ = rig.front.close(clients[0].id);
        }
        rig.rung.panic_next();
        assert!(!survives(|| rig.front.serve(&|| Nanos(1))));
        assert!(rig.front.arm(), "there is more to do, and nothing may come for it");
        rig.serve();
        let mut rung = rig.rung.take();
        rung.sort_unstable();
        rung.dedup();
        assert_eq!(rung.len(), 3, "everybody was told");
        assert!(!rig.front.arm());
        for client in &mut clients {
            assert_eq!(client.ends(), [(0, Status::Ok)]);
        }
    }
}

#[test]
fn an_opening_whose_doorbell_panics_leaves_no_session() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let good = opening(16, Rights::ALL, &[(0, 2048)]);
    for _ in 0..20 {
        let rings = rig.rings(0, 16);
        rig.rung.panic_next();
        assert!(!survives(|| rig.front.open(&good, rings, [])));
        rig.serve();
        assert_eq!(rig.front.sessions(), 0);
        assert!(!rig.front.arm());
    }
    let mut client = rig.open(0, &good);
    assert_eq!(rig.ask(&client.read(0, 0, 1, 0), &mut client).status, Status::Ok);
}
