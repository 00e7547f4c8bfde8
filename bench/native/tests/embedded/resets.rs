//! Letting go of the driver's memory, and starting again over it.
use crate::rig::{Clock, Live, Owned, grants, pattern, world};
use drv_virtio_block::device::{BringUpError, Wishes};
use drv_virtio_block::platform::Nanos;
use drv_virtio_block::queue::QueueOptions;
use drv_virtio_block::request::{Error, Gone, Lba, Request};
use drv_virtio_block::transport::QueueId;
use native::embedded::minimal::{Data, Options};

fn ram() -> Options {
    Options { data: Data::Ram, ..Options::default() }
}

fn wishes() -> Wishes {
    Wishes::default()
}

/// Resets with requests in flight, reclaims, starts again over the same memory.
fn around(live: Live<Owned>, in_flight: u64) -> Live<Owned> {
    let calls = live.calls.clone();
    let (stopped, mut queues, device, heap) = live.reset();
    let mut back = Vec::new();
    let prepared = queues.remove(0).reclaim(&stopped.proof(), |done| back.push((done.token, done.result))).unwrap();
    back.sort_by_key(|(token, _)| *token);
    assert_eq!(back, (0..in_flight).map(|token| (token, Err(Error::Gone(Gone::Reset)))).collect::<Vec<_>>());
    assert_eq!(device.step(0), 0, "the device knows no queue");
    let negotiated = stopped.negotiate(&Clock::new(), &wishes(), &grants(1)).unwrap();
    let mut running = negotiated.program(QueueId(0), &prepared.addresses()).unwrap().start().unwrap();
    let queue = prepared.owned(running.doorbell(QueueId(0)).unwrap());
    Live { device, calls, heap, running, queues: vec![queue] }
}

#[test]
fn after_a_reset_the_same_memory_serves_again_and_the_medium_kept_its_data() {
    let mut live = world(ram()).owned(&QueueOptions::default(), 0);
    for round in 0..5 {
        let data = pattern(round, 4096);
        let buf = live.heap.holding(&data);
        assert_eq!(live.outcome(Request::write(Lba(8 * round), buf)), Ok(()));
        for token in 0..round {
            let buf = live.heap.cut(&[4096]);
            live.queue().submit(Request::read(Lba(8 * token), buf).with_token(token)).unwrap();
        }
        // Half of them answered and not reaped, or none.
        if round % 2 == 1 {
            live.device.step(0);
        }
        live = around(live, round);
        let buf = live.heap.cut(&[4096]);
        assert_eq!(live.ask(Request::read(Lba(8 * round), buf)).buffer.unwrap().bytes(), data);
    }
}

#[test]
fn a_reset_waits_for_whoever_holds_a_queue() {
    let mut live = world(ram()).owned(&QueueOptions::default(), 0);
    live.queue().submit(Request::flush()).unwrap();
    let device = live.device.clone();
    let held = device.queue(0).unwrap();
    device.halt();
    assert!(!device.try_quiesce(), "held");
    drop(held);
    assert!(device.queue(0).is_none(), "halted");
    assert!(device.try_quiesce());
}

#[test]
fn a_reset_that_never_gets_the_queue_ends_with_the_patience() {
    let world = world(ram());
    let device = world.device.clone();
    let live = world.start(&Wishes { patience: Nanos(1), ..wishes() }, &QueueOptions::default());
    let held = device.queue(0).unwrap();
    let failed = live.running.reset(&Clock::new()).unwrap_err();
    assert_eq!(failed.why, BringUpError::ResetTimeout);
    drop(held);
    assert!(failed.device.quiesce(&Clock::new()).is_ok(), "asked again, it answers");
}

#[test]
fn a_spinning_thread_lets_go_and_takes_up_again() {
    for cut in [0, 1, 7] {
        let mut live = world(ram()).owned(&QueueOptions::default(), 0);
        let worker = live.device.spawn(vec![0], None).unwrap();
        for round in 0..20_u64 {
            let data = pattern(round, 4096);
            let buf = live.heap.holding(&data);
            live.queue().submit(Request::write(Lba(round), buf)).unwrap();
            while live.queue().reap(1, |done| assert_eq!(done.result, Ok(()))) == 0 {
                std::thread::yield_now();
            }
            // Requests that the thread may or may not reach before the reset: they come back either way.
            for token in 0..cut {
                live.queue().submit(Request::flush().with_token(token)).unwrap();
            }
            live = around(live, cut);
        }
        drop(worker);
        assert_eq!(live.outcome(Request::flush()), Ok(()), "the caller steps where the thread stopped");
    }
}

#[test]
fn a_second_driver_finds_a_device_that_is_driven_and_may_reset_it() {
    use drv_virtio_block::device::Offline;
    use drv_virtio_block::transport::Transport;
    let live = world(ram()).owned(&QueueOptions::default(), 0);
    let second = live.device.transport();
    assert_ne!(second.status().unwrap(), 0);
    let offline = Offline::new(second).quiesce(&Clock::new(), Nanos::from_millis(5000)).unwrap();
    assert_eq!(offline.into_transport().status().unwrap(), 0);
    assert!(live.device.queue(0).is_none());
}

#[test]
fn a_broken_device_asks_for_a_reset() {
    let world = world(ram());
    let base = world.base;
    let mut live = world.owned(&QueueOptions { size: 16, ..QueueOptions::default() }, 0);
    let buf = live.heap.cut(&[512]);
    live.queue().submit(Request::read(Lba(0), buf).with_token(0)).unwrap();
    assert_eq!(live.running.needs_reset(), Ok(false));
    // SAFETY: the ring's descriptors are the first thing in the driver's memory; nobody reads them in this moment.
    unsafe { base.write_bytes(0xff, 256) };
    assert_eq!(live.device.step(0), 0);
    assert_eq!(live.running.needs_reset(), Ok(true));
    let mut live = around(live, 1);
    assert_eq!(live.running.needs_reset(), Ok(false));
    assert_eq!(live.outcome(Request::flush()), Ok(()));
}
