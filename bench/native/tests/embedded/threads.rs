//! The device's own threads: spinning, and sleeping between kicks; nothing is lost on the way to sleep on either side.
use crate::rig::{Buf, Live, Owned, pattern, wait, world};
use drv_virtio_block::device::Wishes;
use drv_virtio_block::queue::{Prepared, QueueOptions, SharedQueue};
use drv_virtio_block::request::{Lba, Request};
use drv_virtio_block::transport::QueueId;
use native::embedded::EmbeddedDoorbell;
use native::embedded::minimal::{Data, Notify, Options};

fn ram(notify: Notify) -> Options {
    Options { data: Data::Ram, notify, ..Options::default() }
}

/// Submits, and reaps without waiting.
fn polled(live: &mut Live<Owned>, request: Request<Buf>) -> Buf {
    live.queue().submit(request).unwrap();
    let mut back = None;
    while live.queue().reap(1, |done| back = Some(done)) == 0 {
        std::thread::yield_now();
    }
    let done = back.unwrap();
    assert_eq!(done.result, Ok(()));
    done.buffer.unwrap()
}

#[test]
fn data_comes_back_from_a_thread_that_spins_or_sleeps() {
    for notify in [Notify::Never, Notify::WhenIdle] {
        let mut live = world(ram(notify)).owned(&QueueOptions::default(), 0);
        let _worker = live.device.spawn(vec![0], None).unwrap();
        let (mut out, mut into) = (live.heap.cut(&[4096]), live.heap.cut(&[4096]));
        for n in 0..400 {
            let data = pattern(n, 4096);
            out.fill(&data);
            out = polled(&mut live, Request::write(Lba(n % 100 * 8), out));
            into = polled(&mut live, Request::read(Lba(n % 100 * 8), into));
            assert_eq!(into.bytes(), data, "{notify:?}, request {n}");
        }
        assert_eq!(live.device.counters(0).used, 800);
        let rung = live.device.counters(0).notifications;
        assert_eq!(rung, live.queue().statistics().notifications);
        assert!((notify == Notify::Never) == (rung == 0), "{rung} doorbells");
    }
}

#[test]
fn both_sides_sleep_and_nothing_is_lost() {
    for without in [0, drv_virtio_block::spec::feature::EVENT_IDX] {
        let mut live = world(ram(Notify::WhenIdle)).owned(&QueueOptions::default(), without);
        let _worker = live.device.spawn(vec![0], None).unwrap();
        let mut done = 0;
        for n in 0..3000_u16 {
            let size = n % 5 + 1;
            let mut batch = live.queue().batch();
            for _ in 0..size {
                batch.push(Request::flush()).unwrap();
            }
            batch.publish();
            while live.queue().in_flight() > 0 {
                let got = live.queue().reap(99, |answer| assert_eq!(answer.result, Ok(())));
                done += got;
                let left = live.queue().in_flight();
                if got == 0 && !live.queue().arm(left) {
                    wait(&live.calls[1]);
                }
            }
        }
        assert_eq!(done as u64, live.device.counters(0).used);
    }
}

#[test]
fn one_thread_serves_several_queues_of_several_drivers() {
    for notify in [Notify::Never, Notify::WhenIdle] {
        let wishes = Wishes { queues: 3, ..Wishes::default() };
        let live = world(Options { queues: 3, ..ram(notify) }).start(&wishes, &QueueOptions::default()).own();
        let _worker = live.device.spawn(vec![0, 1, 2], None).unwrap();
        std::thread::scope(|scope| {
            for (n, mut queue) in (0..).zip(live.queues) {
                let mut buf = live.heap.cut(&[512]);
                scope.spawn(move || {
                    for round in 0..300_u64 {
                        let (lba, data) = (Lba(n * 1000 + round), pattern(n + round, 512));
                        buf.fill(&data);
                        for write in [true, false] {
                            let request = if write { Request::write(lba, buf) } else { Request::read(lba, buf) };
                            queue.submit(request).unwrap();
                            let mut back = None;
                            while queue.reap(1, |done| back = Some(done)) == 0 {
                                std::thread::yield_now();
                            }
                            let done = back.unwrap();
                            assert_eq!(done.result, Ok(()));
                            buf = done.buffer.unwrap();
                        }
                        assert_eq!(buf.bytes(), data, "queue {n}, round {round}");
                    }
                });
            }
        });
        for queue in 0..3 {
            assert_eq!(live.device.counters(queue).used, 600, "queue {queue}");
        }
    }
}

#[test]
fn many_submitters_share_a_queue() {
    struct Quiet;
    impl drv_virtio_block::queue::Wake for Quiet {
        fn wake(&self, _: u8) {}
    }
    const EACH: u64 = 500;
    let mut live: Live<Prepared<'static, Buf>> =
        world(ram(Notify::Never)).start(&Wishes::default(), &QueueOptions::default());
    let doorbell: EmbeddedDoorbell = live.running.doorbell(QueueId(0)).unwrap();
    let queue: SharedQueue<'_, _, _, _> = live.queues.remove(0).shared(doorbell, Quiet);
    let _worker = live.device.spawn(vec![0], None).unwrap();
    std::thread::scope(|scope| {
        for n in 0..3 {
            let mut submitter = queue.submitter().unwrap();
            let mut buf = Some(live.heap.cut(&[512]));
            scope.spawn(move || {
                for round in 0..EACH {
                    let (lba, data) = (Lba(n * 100 + round % 100), pattern(n + round, 512));
                    for write in [true, false] {
                        let holding = buf.take().unwrap();
                        let request = if write {
                            holding.fill(&data);
                            Request::write(lba, holding)
                        } else {
                            Request::read(lba, holding)
                        };
                        submitter.submit(request.with_token(round)).unwrap();
                        while buf.is_none() {
                            submitter.reap(|done| {
                                assert_eq!((done.token, done.result), (round, Ok(())));
                                buf = done.buffer;
                            });
                            std::thread::yield_now();
                        }
                    }
                    assert_eq!(buf.as_ref().unwrap().bytes(), data, "submitter {n}, round {round}");
                }
            });
        }
    });
    assert_eq!(live.device.counters(0).used, 3 * 2 * EACH);
    assert_eq!(live.device.counters(0).notifications, 0);
}

#[test]
fn a_core_that_there_is_not_is_an_error() {
    let device = world(ram(Notify::Never)).device;
    assert!(device.spawn(vec![0], Some(4000)).is_err());
}
