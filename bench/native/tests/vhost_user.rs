//! The driver over vhost-user against a back-end that others wrote: qemu-storage-daemon, where it is installed.
mod back_end;

use back_end::ends;
use back_end::ground::{BLOCK, Block, Ground, Queue, Rig, one, wishes};
use back_end::qsd::{Qsd, SIZE};
use drv_virtio_block::device::{Cache, Wishes};
use drv_virtio_block::interrupt::{CompletionMode, Rung};
use drv_virtio_block::platform::{Badges, Platform};
use drv_virtio_block::request::{Completion, Error, Gone, Lba, Request};
use drv_virtio_block::transport::QueueId;
use native::platform::LinuxPlatform;
use native::vhost_user::{Connection, Fault, OnLoss, Options};
use std::time::Duration;

/// Never reached; what bounds a test is `ends`.
const LONG: Duration = Duration::from_mins(1);
/// Sectors of a block.
const SECTORS: u64 = BLOCK as u64 / 512;

/// A device that is up, with all that belongs to it.
struct Up {
    connection: Connection,
    platform: LinuxPlatform,
    rig: Rig<'static>,
}

fn up(qsd: &Qsd, queues: u16, mode: CompletionMode) -> Up {
    let vectors = if mode == CompletionMode::Polled { 0 } else { queues + 1 };
    up_with(qsd, &Options { patience: LONG, vectors, ..Options::default() }, &wishes(queues, mode, LONG))
}

fn up_with(qsd: &Qsd, options: &Options, wishes: &Wishes) -> Up {
    let ground = Ground::leaked();
    let (connection, transport) = ground.connect(&qsd.path(), *options);
    let platform = connection.platform().unwrap();
    let rig = ground.start(&connection, transport, &platform, wishes).unwrap_or_else(|why| panic!("{why}"));
    Up { connection, platform, rig }
}

impl Up {
    fn block(&self, byte: u8) -> Block<'static> {
        let mut block = Block::new(self.rig.memory, BLOCK);
        block.bytes().fill(byte);
        block
    }

    fn queue(&mut self, n: usize) -> &mut Queue<'static> {
        &mut self.rig.queues[n]
    }
}

/// A block written, flushed and read back.
fn round_trip(up: &mut Up, queue: usize, lba: u64, byte: u8) {
    let (written, read) = (up.block(byte), up.block(!byte));
    assert_eq!(one(up.queue(queue), Request::write(Lba(lba), written)).0, Ok(()));
    assert_eq!(one(up.queue(queue), Request::flush()).0, Ok(()));
    let (result, block) = one(up.queue(queue), Request::read(Lba(lba), read));
    assert_eq!(result, Ok(()));
    assert!(block.unwrap().bytes().iter().all(|read| *read == byte));
}

#[test]
fn what_is_written_is_read_back_by_polling_and_the_facts_are_the_disks() {
    ends(|| {
        let Some(qsd) = Qsd::file(1) else { return };
        let mut up = up(&qsd, 1, CompletionMode::Polled);
        let running = up.rig.session.running().unwrap();
        let geometry = running.geometry();
        assert_eq!((running.reached().rung, geometry.capacity()), (Rung::None, SIZE / 512));
        // It offers SIZE_MAX with 0, which is no limit.
        assert_eq!((geometry.size_max, geometry.seg_max), (u32::MAX, 126));
        for n in 0..64 {
            round_trip(&mut up, 0, n * SECTORS, n as u8);
        }
        assert_eq!(up.rig.session.stop(&up.platform), Ok(()));
        assert_eq!(up.connection.lost(), None);
    });
}

#[test]
fn the_write_cache_is_as_it_was_wished() {
    ends(|| {
        let Some(qsd) = Qsd::file(1) else { return };
        for (write_back, cache) in [(true, Cache::WriteBack), (false, Cache::WriteThrough)] {
            let wishes = Wishes { write_back: Some(write_back), ..wishes(1, CompletionMode::Interrupt, LONG) };
            let mut up = up_with(&qsd, &Options { patience: LONG, ..Options::default() }, &wishes);
            assert_eq!(up.rig.session.running().unwrap().reached().cache, cache);
            round_trip(&mut up, 0, 0, 7);
            assert_eq!(up.rig.session.stop(&up.platform), Ok(()));
            // The daemon serves one connection at a time.
            up.connection.hang_up();
        }
    });
}

/// Waits for the interrupt of one queue and drains it, until `count` completions came; returns the badges that fired.
fn drain(platform: &LinuxPlatform, queue: &mut Queue<'_>, set: Badges, mut count: usize) -> Badges {
    let mut all = Badges::NONE;
    while count > 0 {
        if !queue.arm(1) {
            let fired = platform.wait(set, None);
            all = all | fired;
            queue.note_interrupt();
            platform.acknowledge(fired);
        }
        count -= queue.reap(count, |completion| assert_eq!(completion.result, Ok(())));
    }
    all
}

#[test]
fn each_queue_interrupts_on_its_own_vector_in_its_own_thread() {
    ends(|| {
        let Some(qsd) = Qsd::null(4, 0) else { return };
        let up = up(&qsd, 4, CompletionMode::Interrupt);
        let Up { mut rig, platform, connection } = up;
        let plan = rig.session.running().unwrap().vectors().clone();
        assert_eq!((plan.rung(), plan.queues()), (Rung::PerQueue, 4));
        std::thread::scope(|threads| {
            for (n, queue) in rig.queues.iter_mut().enumerate() {
                let (platform, own) = (&platform, plan.queue(QueueId(n as u16)).unwrap().badge.alone());
                let memory = rig.memory;
                let blocks: Vec<_> = (0..8).map(|_| Block::new(memory, BLOCK)).collect();
                threads.spawn(move || {
                    let mut blocks = Some(blocks);
                    let mut fired = Badges::NONE;
                    for round in 0..100 {
                        let mut batch = queue.batch();
                        for block in blocks.take().into_iter().flatten() {
                            let _ = batch.push(Request::read(Lba(round), block)).unwrap_or_else(|_| panic!("refused"));
                        }
                        batch.publish();
                        let mut back = vec![];
                        while back.len() < 8 {
                            if queue.reap(8, |completion| back.push(completion.buffer.unwrap())) == 0 && !queue.arm(1) {
                                let raised = platform.wait(own, None);
                                queue.note_interrupt();
                                platform.acknowledge(raised);
                                fired = fired | raised;
                            }
                        }
                        blocks = Some(back);
                    }
                    assert_eq!(queue.statistics().completed, 800);
                    assert_eq!(fired, if queue.statistics().interrupts > 0 { own } else { Badges::NONE });
                });
            }
        });
        assert!(rig.queues.iter().any(|queue| queue.statistics().interrupts > 0));
        assert_eq!(rig.session.stop(&platform), Ok(()));
        assert_eq!(connection.lost(), None);
    });
}

#[test]
fn an_interrupt_is_that_of_the_queue_that_was_used_and_of_no_other() {
    ends(|| {
        // Slow enough that a queue is armed before it answers.
        let Some(qsd) = Qsd::null(3, 2_000_000) else { return };
        let mut up = up(&qsd, 3, CompletionMode::Interrupt);
        let plan = up.rig.session.running().unwrap().vectors().clone();
        for n in [2, 0, 1] {
            let block = up.block(0);
            assert!(up.rig.queues[n].submit(Request::read(Lba(0), block)).is_ok());
            let fired = drain(&up.platform, &mut up.rig.queues[n], plan.badges(), 1);
            assert_eq!(fired, plan.queue(QueueId(n as u16)).unwrap().badge.alone());
        }
    });
}

#[test]
fn after_a_reset_under_load_the_device_writes_nothing_more() {
    ends(|| {
        let Some(qsd) = Qsd::null(1, 30_000_000) else { return };
        let mut up = up(&qsd, 1, CompletionMode::Polled);
        for token in 0..16 {
            let block = up.block(0xaa);
            assert!(up.queue(0).submit(Request::read(Lba(0), block).with_token(token)).is_ok());
        }
        let mut back = vec![];
        let sink = |_, completion: Completion<Block<'static>>| back.push(completion.buffer.unwrap());
        let mut parked = up.rig.session.park(&up.platform, &mut up.rig.queues, OnLoss::Fail, sink).unwrap();
        assert_eq!((back.len(), up.connection.lost()), (16, None));
        for block in &mut back {
            block.bytes().fill(0x55);
        }
        // A request takes as long as those that may still have been under way.
        up.rig.queues = parked.resume(&mut up.rig.session, &up.platform, LONG).unwrap().queues;
        for _ in 0..2 {
            let block = up.block(1);
            assert_eq!(one(up.queue(0), Request::read(Lba(0), block)).0, Ok(()));
        }
        assert!(back.iter_mut().all(|block| block.bytes().iter().all(|byte| *byte == 0x55)));
    });
}

#[test]
fn requests_in_flight_fail_when_the_daemon_is_killed_and_the_next_one_serves() {
    ends(|| {
        let Some(mut qsd) = Qsd::null(2, 0) else { return };
        let mut up = up(&qsd, 2, CompletionMode::Interrupt);
        qsd.freeze();
        for token in 0..10 {
            let block = up.block(0);
            assert!(up.queue(token % 2).submit(Request::read(Lba(0), block).with_token(token as u64)).is_ok());
        }
        qsd.kill();
        // A thread that waits for its queue learns of it at once.
        let set = up.rig.session.running().unwrap().vectors().badges() | Connection::HANG_UP.alone();
        assert_eq!(up.platform.wait(set, None), Connection::HANG_UP.alone());
        assert_eq!(up.connection.lost().map(|why| why.fault), Some(Fault::Closed));
        let mut lost = vec![];
        let sink = |_, completion: Completion<Block<'static>>| {
            assert_eq!((completion.result, completion.buffer.is_some()), (Err(Error::Gone(Gone::Reset)), true));
            lost.push(completion.token);
        };
        let mut parked = up.rig.session.park(&up.platform, &mut up.rig.queues, OnLoss::Fail, sink).unwrap();
        lost.sort_unstable();
        assert!(lost.iter().copied().eq(0..10));
        qsd.restart();
        let resumed = parked.resume(&mut up.rig.session, &up.platform, LONG).unwrap();
        up.rig.queues = resumed.queues;
        assert_eq!((up.rig.queues.len(), resumed.refused.len(), up.connection.lost()), (2, 0, None));
        assert_eq!(up.platform.wait(Connection::HANG_UP.alone(), Some(up.platform.now())), Badges::NONE);
        for n in [0, 1] {
            let block = up.block(0);
            assert!(up.rig.queues[n].submit(Request::read(Lba(0), block)).is_ok());
            drain(&up.platform, &mut up.rig.queues[n], set, 1);
        }
    });
}

#[test]
fn writes_in_flight_are_replayed_when_the_daemon_is_killed() {
    ends(|| {
        let Some(mut qsd) = Qsd::file(1) else { return };
        let mut up = up(&qsd, 1, CompletionMode::Interrupt);
        qsd.freeze();
        for token in 0..12_u64 {
            let block = up.block(token as u8 + 1);
            assert!(up.queue(0).submit(Request::write(Lba(token * SECTORS), block).with_token(token)).is_ok());
        }
        qsd.kill();
        // Number 3 is not wanted any more.
        let mut again = |lost: Completion<Block<'static>>| match (lost.token, lost.buffer) {
            (3, buffer) => Err(Completion { token: 3, result: lost.result, buffer }),
            (token, buffer) => Ok(Request::write(Lba(token * SECTORS), buffer.unwrap()).with_token(token)),
        };
        let mut failed = vec![];
        let on_loss = OnLoss::Replay(&mut again);
        let sink = |_, completion: Completion<Block<'static>>| failed.push(completion.token);
        let mut parked = up.rig.session.park(&up.platform, &mut up.rig.queues, on_loss, sink).unwrap();
        assert_eq!(failed, [3]);
        qsd.restart();
        let resumed = parked.resume(&mut up.rig.session, &up.platform, LONG).unwrap();
        up.rig.queues = resumed.queues;
        let own = up.rig.session.running().unwrap().vectors().badges();
        drain(&up.platform, &mut up.rig.queues[0], own, 11);
        for token in 0..12_u64 {
            let block = up.block(0xff);
            let (result, block) = one(up.queue(0), Request::read(Lba(token * SECTORS), block));
            let expected = if token == 3 { 0 } else { token as u8 + 1 };
            assert_eq!(result, Ok(()));
            assert!(block.unwrap().bytes().iter().all(|byte| *byte == expected), "block {token}");
        }
    });
}

#[test]
fn every_request_is_accounted_for_when_the_daemon_is_killed_in_the_middle() {
    ends(|| {
        let Some(mut qsd) = Qsd::null(1, 0) else { return };
        let mut up = up(&qsd, 1, CompletionMode::Polled);
        let mut idle: Vec<_> = (0..16).map(|_| up.block(0)).collect();
        for round in 0..5_u64 {
            let (mut submitted, mut over, mut lost) = (0_u64, 0_u64, 0_u64);
            let killing = 1000 * (round + 1);
            while up.connection.lost().is_none() {
                while let Some(block) = idle.pop() {
                    assert!(up.queue(0).submit(Request::read(Lba(round), block)).is_ok());
                    submitted += 1;
                }
                let before = over;
                up.queue(0).reap(16, |completion| {
                    assert_eq!(completion.result, Ok(()));
                    idle.push(completion.buffer.unwrap());
                    over += 1;
                });
                if before < killing && over >= killing {
                    qsd.kill();
                }
            }
            let sink = |_, completion: Completion<Block<'static>>| {
                *(if completion.result.is_ok() { &mut over } else { &mut lost }) += 1;
                idle.push(completion.buffer.unwrap());
            };
            let mut parked = up.rig.session.park(&up.platform, &mut up.rig.queues, OnLoss::Fail, sink).unwrap();
            assert_eq!((over + lost, idle.len()), (submitted, 16));
            qsd.restart();
            up.rig.queues = parked.resume(&mut up.rig.session, &up.platform, LONG).unwrap().queues;
        }
        assert_eq!(one(&mut up.rig.queues[0], Request::read(Lba(0), idle.pop().unwrap())).0, Ok(()));
    });
}
