//! One run: two clients, verified writes and reads, as many lives as it takes.
use super::super::rig;
use crate::fake::{Config, Lie, Order, ResetBehaviour};
use crate::lives::run::client::Worker;
use drv_virtio_block::platform::{Badges, Platform};
use drv_virtio_block::service::Envelope;
use rig::{Ground, Killed, Private, Tested};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[path = "client.rs"]
mod client;

/// What is run.
pub(super) struct Plan {
    /// Of each client.
    pub(super) operations: u64,
    pub(super) queues: u16,
    /// Clients ask again.
    pub(super) replay: bool,
    /// The device's reset takes a few looks, during which it works on.
    pub(super) slow_reset: bool,
    /// The device breaks its queue in the middle of every life.
    pub(super) trouble: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { operations: 14, queues: 1, replay: true, slow_reset: false, trouble: false }
    }
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    /// Operations that were done, over both clients.
    pub(super) done: u64,
    /// That ended with a driver's life.
    pub(super) lost: u64,
    /// That ended with a reset in a life.
    pub(super) reset: u64,
    /// That were asked again.
    pub(super) replayed: u64,
    /// Steps of each life.
    pub(super) lives: Vec<u64>,
}

/// Moves after which a run that is not over never will be.
const MOVES: usize = 4_000;

/// Lives that end at these steps, and one more that does not.
#[track_caller]
pub(super) fn run(plan: &Plan, kills: &[u64]) -> Outcome {
    let config = Config { num_queues: plan.queues, vectors: plan.queues + 1, ..Config::default() };
    let ground = Ground::new(config);
    if plan.slow_reset {
        ground.device.on_reset(ResetBehaviour::AfterReads(3));
    }
    ground.soil(0xa5);
    let mut privates: Vec<Private> = (0..=kills.len()).map(|_| Private::new()).collect();
    let mut workers = [0, 1].map(|seat| Worker::new(&ground, seat, plan));
    let mut outcome = Outcome::default();
    for (life, private) in privates.iter_mut().enumerate() {
        let envelope = Envelope { epoch: life as u32 + 1, queues: plan.queues, ..rig::envelope() };
        let mut service = ground.service(private, envelope);
        ground.fuse.set(kills.get(life).copied().unwrap_or(u64::MAX));
        ground.wild.set(true);
        let ended = catch_unwind(AssertUnwindSafe(|| live(&mut service, &ground, &mut workers, plan)));
        outcome.lives.push(ground.fuse.burnt());
        ground.fuse.set(u64::MAX);
        match ended {
            Ok(()) => {
                ground.wild.set(false);
                while ground.device.lies_left(0) > 0 {
                    // Told now, so that it does not spoil the end.
                    let _ = service.stop(true);
                    service.start().expect("it comes up again");
                }
                service.stop(true).expect("it stops");
                break;
            }
            Err(why) if why.is::<Killed>() => {
                // Nothing of it runs on, nothing is dropped.
                std::mem::forget(service);
                // The device does a little of what it has, and of what it finds.
                let queue = life as u16 % plan.queues;
                ground.device.process(queue, 1, Order::AsTaken);
            }
            Err(why) => resume_unwind(why),
        }
    }
    for worker in &mut workers {
        worker.check_all();
        outcome.done += worker.done;
        outcome.lost += worker.lost;
        outcome.reset += worker.reset;
        outcome.replayed += worker.replayed;
    }
    outcome
}

fn live<'m>(service: &mut Tested<'m>, ground: &'m Ground, workers: &mut [Worker<'m>; 2], plan: &Plan) {
    service.start().expect("it comes up");
    for worker in workers.iter_mut() {
        ground.fuse.tick();
        worker.reopen(service);
    }
    for at in 0..MOVES {
        if workers.iter().all(Worker::is_over) {
            return;
        }
        ground.fuse.tick();
        if plan.trouble && at == 14 {
            ground.device.inject(0, Lie::IdOutOfRange);
        }
        match at % 10 {
            0 => workers[0].submit(),
            1 => workers[1].submit(),
            2 | 5 => _ = service.pass(),
            3 => (0..plan.queues).for_each(|queue| drop(ground.device.take(queue, 3))),
            4 => {
                let queue = at as u16 / 10 % plan.queues;
                let taken = ground.device.in_flight(queue);
                ground.device.complete(queue, &taken[taken.len() / 2..]);
            }
            6 => workers[0].reap(),
            7 => workers[1].reap(),
            8 => _ = ground.device.process(at as u16 / 10 % plan.queues, 2, Order::Reversed),
            _ => {
                let now = ground.desk.now();
                service.wait(Badges::NONE, Some(now));
            }
        }
    }
    panic!("the run does not come to its end");
}
