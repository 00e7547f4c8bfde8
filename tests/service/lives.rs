//! Lives: the driver killed at every step that it takes, and begun again over the same memory.
//!
//! A step is an access to a register, a doorbell in either direction, a look at the clock or at badges, and each move of
//! the run itself (a client submits or reaps, the service passes, the device works). At its number the stack is
//! abandoned; the device goes on as it was, and works in everything that it knows until the next life's reset is done. So
//! all prefixes of what a life shows to others are there but those within one batch of stores that nobody looks at before
//! the store of an index, which is the batch's end.
mod run;

use run::{Outcome, Plan, run};

/// How often a run of a life's whole length is cut.
fn whole(plan: &Plan) -> u64 {
    let Outcome { lives, .. } = run(plan, &[]);
    assert_eq!(lives.len(), 1, "nobody was killed");
    lives[0]
}

#[test]
fn a_life_that_nobody_ends_does_everything() {
    for plan in [Plan::default(), Plan { queues: 2, ..Plan::default() }, Plan { replay: false, ..Plan::default() }] {
        let outcome = run(&plan, &[]);
        assert_eq!((outcome.lost, outcome.replayed), (0, 0));
        assert_eq!(outcome.done, plan.operations * 2);
    }
}

#[test]
fn killed_at_any_step_nothing_acknowledged_is_lost_and_nothing_answered_twice() {
    let plan = Plan::default();
    let (mut replayed, mut cut) = (0, 0);
    for kill in 0..whole(&plan) {
        let outcome = run(&plan, &[kill]);
        assert_eq!(outcome.done, plan.operations * 2, "killed at {kill}");
        assert_eq!((outcome.lost, outcome.lives.len()), (0, 2), "killed at {kill}");
        replayed += outcome.replayed;
        cut += u64::from(outcome.replayed > 0);
    }
    assert!(cut > 50 && replayed > 200, "kills met {replayed} requests, in {cut} of the runs");
}

#[test]
fn killed_at_any_step_without_replay_exactly_what_was_unanswered_is_lost() {
    let plan = Plan { replay: false, ..Plan::default() };
    let mut lost = 0;
    for kill in 0..whole(&plan) {
        let outcome = run(&plan, &[kill]);
        assert_eq!((outcome.replayed, outcome.done + outcome.lost), (0, plan.operations * 2), "killed at {kill}");
        lost += outcome.lost;
    }
    assert!(lost > 200, "kills met {lost} requests");
}

#[test]
fn lives_that_are_killed_in_their_beginning_are_followed_by_one_that_is_not() {
    let plan = Plan::default();
    let length = whole(&plan);
    for kill in (0..length).step_by(7) {
        for next in [0, 9, 20, 47, length / 3] {
            let outcome = run(&plan, &[kill, next, next / 2]);
            assert_eq!((outcome.done, outcome.lost), (plan.operations * 2, 0), "killed at {kill}, {next}");
        }
    }
}

#[test]
fn killed_with_several_queues_each_client_goes_on() {
    let plan = Plan { queues: 2, ..Plan::default() };
    for kill in 0..whole(&plan) {
        let outcome = run(&plan, &[kill]);
        assert_eq!((outcome.done, outcome.lost), (plan.operations * 2, 0), "killed at {kill}");
    }
}

#[test]
fn a_device_that_takes_its_time_for_the_reset_writes_into_nothing_that_was_handed_back() {
    let plan = Plan { slow_reset: true, ..Plan::default() };
    for kill in (0..whole(&plan)).step_by(2) {
        let outcome = run(&plan, &[kill]);
        assert_eq!((outcome.done, outcome.lost), (plan.operations * 2, 0), "killed at {kill}");
    }
}

#[test]
fn killed_within_a_reset_of_its_own_it_goes_on() {
    let plan = Plan { trouble: true, ..Plan::default() };
    for kill in 0..whole(&plan) {
        let outcome = run(&plan, &[kill]);
        assert_eq!(outcome.done + outcome.reset, plan.operations * 2, "killed at {kill}");
        assert_eq!(outcome.lost, 0, "killed at {kill}");
    }
}
