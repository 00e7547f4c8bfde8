//! Clients whose indices cannot be, that do not reap, and that disappear.
use crate::fake::{Config, Order};
use crate::rig::{Client, Rig, World, barrier, flush, pattern};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::front_end::Options;
use drv_virtio_block::lib_block::ring::{Announcement, Stage};
use drv_virtio_block::queue::QueueOptions;
use std::sync::atomic::Ordering;

/// Words of the header, as the ring's table has them.
const SUBMISSION_TAIL: usize = 16;
const COMPLETION_HEAD: usize = 17;

const fn stage(stage: Stage) -> Announcement {
    Announcement { epoch: 1, stage }
}

fn bump(client: &Client<'_>, word: usize, by: u32) {
    let now = client.words[word].load(Ordering::Relaxed) as u32;
    client.words[word].store(now.wrapping_add(by).into(), Ordering::Relaxed);
}

/// The session of `client` ends, and `other` does not notice.
#[track_caller]
fn ends_alone(rig: &mut Rig<'_>, client: &mut Client<'_>, other: &mut Client<'_>) {
    client.put(0, &pattern(1, 4096));
    rig.device.put_disk(0, &pattern(2, 4096));
    other.submit(&[other.read(3, 100, 1, 0)]);
    rig.serve();
    assert_eq!(rig.front.statistics().ended, 1);
    assert!(rig.front.is_open(client.id), "the device has its memory");
    assert_eq!(client.end.announcement(), stage(Stage::Serving), "it is not told yet");
    rig.sleep();
    assert_eq!(rig.front.unregister(client.id, client.all), Err(Status::Busy));
    let taken = rig.device.take(0, 99);
    assert_eq!(taken.iter().filter(|one| one.sector < 100).count(), 2);
    rig.device.complete(0, &taken[..1]);
    rig.serve();
    assert!(rig.front.is_open(client.id));
    assert_eq!(client.end.announcement(), stage(Stage::Serving));
    let tail = client.words[24].load(Ordering::Relaxed);
    rig.device.complete(0, &taken[1..]);
    rig.rung.take();
    rig.serve();
    assert!(!rig.front.is_open(client.id));
    assert_eq!(client.end.announcement(), stage(Stage::Ended));
    assert!(rig.rung.take().contains(&(client.id.0 as u16)), "it is rung");
    assert_eq!(client.words[24].load(Ordering::Relaxed), tail, "nothing was posted");
    assert_eq!(other.ends(), [(3, Status::Ok)]);
    assert_eq!(rig.front.unregister(client.id, client.all), Err(Status::NotFound));
    // Its place is good for another.
    let mut next = rig.client(client.at, 8);
    assert_ne!(next.id, client.id);
    assert_eq!(rig.ask(&next.read(0, 0, 8, 0), &mut next).status, Status::Ok);
    assert_eq!(next.get(0, 4096), pattern(2, 4096));
    rig.device.assert_no_faults();
}

#[test]
fn a_tail_further_ahead_than_the_ring_is_long_ends_the_session_alone() {
    for by in [9, 1 << 31, 0u32.wrapping_sub(3)] {
        let mut world = World::new(Config::default());
        let mut rig = world.usual();
        let (mut client, mut other) = (rig.client(0, 8), rig.client(1, 8));
        client.submit(&[client.read(0, 0, 1, 8192), client.read(1, 1, 1, 9216)]);
        rig.serve();
        bump(&client, SUBMISSION_TAIL, by);
        ends_alone(&mut rig, &mut client, &mut other);
    }
}

#[test]
fn a_head_beyond_what_was_published_or_back_ends_the_session_alone() {
    for by in [1, 9, 0u32.wrapping_sub(1)] {
        let mut world = World::new(Config::default());
        let mut rig = world.usual();
        let (mut client, mut other) = (rig.client(0, 8), rig.client(1, 8));
        rig.ask(&client.read(0, 0, 1, 0), &mut client);
        client.submit(&[client.read(0, 0, 1, 8192), client.read(1, 1, 1, 9216)]);
        rig.serve();
        bump(&client, COMPLETION_HEAD, by);
        client.say([0; 8]);
        ends_alone(&mut rig, &mut client, &mut other);
    }
}

#[test]
fn what_waits_when_a_session_is_broken_off_never_starts() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut client, mut other) = (rig.client(0, 8), rig.client(1, 8));
    client.submit(&[client.read(0, 0, 1, 8192), client.read(1, 1, 1, 9216)]);
    client.submit(&[barrier(client.write(2, 50, 1, 0)), flush(3), client.write(4, 51, 1, 0)]);
    rig.serve();
    bump(&client, SUBMISSION_TAIL, 100);
    ends_alone(&mut rig, &mut client, &mut other);
    assert_eq!(rig.device.disk(50, 2), vec![0; 1024]);
}

#[test]
fn a_client_that_never_reaps_stops_itself_alone() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut client, mut other) = (rig.client(0, 8), rig.client(1, 8));
    let mut taken = 0;
    for round in 0..40u16 {
        // Its tags are free again, so that only its ring is in its way.
        if round < 16 {
            client.submit(&[client.read(round % 8, 0, 1, u64::from(round % 8) * 512)]);
        }
        other.submit(&[other.write(round % 8, round.into(), 1, 0)]);
        rig.serve();
        taken += rig.device.process_all(0);
        rig.serve();
        assert_eq!(other.ends(), [(round % 8, Status::Ok)], "round {round}");
        rig.sleep();
    }
    assert_eq!(taken, 8 + 40);
    assert_eq!(client.ends().len(), 8);
    // It goes on as soon as it reaps, and its doorbell says so: the submissions are there already.
    rig.settle();
    assert_eq!(client.ends().len(), 8);
    rig.device.assert_no_faults();
}

#[test]
fn refusals_take_room_in_the_ring_as_well() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 8);
    for _ in 0..8 {
        client.say([77; 8]);
    }
    rig.sleep();
    client.submit(&[client.read(0, 0, 1, 0)]);
    rig.sleep();
    assert_eq!(rig.device.poll_available(0), 0, "no room for its answer");
    assert_eq!(client.ends().len(), 8);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok)]);
}

#[test]
fn a_client_that_disappears_keeps_its_memory_until_the_device_is_done_with_it() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut client, mut other) = (rig.client(0, 8), rig.client(1, 8));
    client.submit(&[client.read(0, 0, 8, 0), client.read(1, 8, 8, 4096), barrier(client.read(2, 0, 8, 8192))]);
    rig.serve();
    rig.front.close(client.id).unwrap();
    rig.sleep();
    assert!(rig.front.is_open(client.id) && rig.front.is_busy());
    assert_eq!(client.ends(), [(2, Status::Gone)], "what had not begun");
    client.submit(&[client.read(3, 0, 8, 0)]);
    rig.rung.take();
    rig.serve();
    let taken = rig.device.take(0, 99);
    assert_eq!(taken.len(), 2, "nothing more is taken");
    other.submit(&[other.read(3, 100, 1, 0)]);
    rig.serve();
    rig.device.complete(0, &taken);
    rig.serve();
    assert!(!rig.front.is_open(client.id));
    assert_eq!(client.ends(), [(0, Status::Ok), (1, Status::Ok)]);
    assert_eq!(client.end.announcement(), stage(Stage::Ended));
    assert_eq!(rig.front.close(client.id), Err(Status::NotFound));
    rig.settle();
    assert_eq!(other.ends(), [(3, Status::Ok)]);
    assert_eq!((rig.front.sessions(), rig.front.statistics().ended), (1, 0), "an orderly end is no offence");
}

#[test]
fn a_session_that_nobody_went_along_with_closes_at_once() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut other = rig.client(1, 8);
    let mut client = rig.hands(0, 8);
    let opening = crate::rig::opening(8, drv_virtio_block::lib_block::message::Rights::ALL, &[(0, 8)]);
    let id = rig.front.open(&opening, rig.rings(0, 8), []).unwrap().session;
    client.submit(&[flush(0)]);
    rig.sleep();
    assert!(rig.front.is_open(id), "it is waited for, and nobody spins");
    rig.front.close(id).unwrap();
    rig.serve();
    assert!(!rig.front.is_open(id));
    assert_eq!(client.end.announcement(), stage(Stage::Ended));
    rig.sleep();
    assert_eq!(rig.ask(&flush(1), &mut other).status, Status::Ok);
}

#[test]
fn winding_up_tells_every_client_after_its_last_answer() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut one, mut two, mut broken) = (rig.client(0, 8), rig.client(1, 8), rig.client(2, 8));
    one.submit(&[one.read(0, 0, 1, 0), barrier(one.read(1, 0, 1, 512))]);
    broken.submit(&[broken.read(0, 0, 1, 0)]);
    rig.serve();
    bump(&broken, SUBMISSION_TAIL, 100);
    rig.serve();
    rig.front.wind_up();
    rig.serve();
    assert_eq!((one.end.announcement(), two.end.announcement()), (stage(Stage::Serving), stage(Stage::Stopped)));
    assert_eq!((one.ends(), two.ends()), (vec![(1, Status::Gone)], vec![]));
    assert!(rig.front.is_busy());
    rig.device.process_all(0);
    rig.serve();
    assert_eq!(one.ends(), [(0, Status::Ok)]);
    assert_eq!((one.end.announcement(), rig.front.is_busy()), (stage(Stage::Stopped), false));
    assert_eq!(broken.end.announcement(), stage(Stage::Ended), "what it did is still so");
}

#[test]
fn clients_that_fill_the_queue_leave_the_server_asleep() {
    let mut world = World::new(Config { overlap_allowed: true, ..Config::default() });
    let queue = QueueOptions { slots: 8, ..QueueOptions::default() };
    let mut rig = world.start(&queue, Options::default());
    let mut clients = [rig.client(0, 16), rig.client(1, 16), rig.client(2, 16)];
    for client in &mut clients {
        let all: Vec<_> = (0..16).map(|tag| client.read(tag, 0, 1, u64::from(tag) * 512)).collect();
        client.submit(&all);
    }
    rig.sleep();
    let mut done = 0;
    while done < 48 {
        // An interrupt comes for every one that makes room.
        let taken = rig.device.take(0, 1);
        rig.device.take_interrupts();
        assert_eq!(taken.len(), 1, "the queue is kept full");
        rig.device.complete(0, &taken);
        let room_is_wanted = done + 8 < 48;
        assert!(!room_is_wanted || !rig.device.take_interrupts().is_empty(), "after {done}");
        rig.sleep();
        done += clients.iter_mut().map(|client| client.ends().len()).sum::<usize>();
    }
    rig.device.complete_all(0, Order::AsTaken);
    rig.device.assert_no_faults();
}

#[test]
fn a_request_that_fills_the_cap_goes_alone_and_at_once() {
    for (cap_requests, cap_bytes, blocks) in [(0, 0, 2048), (0, 0, 1025), (1, 4 << 20, 1)] {
        let config = Config { capacity_sectors: 8192, overlap_allowed: true, ..Config::default() };
        let mut world = World::with(config, 1, 1 << 20);
        let options = Options { cap_requests, cap_bytes, ..Options::default() };
        let mut rig = world.start(&QueueOptions::default(), options);
        let mut client = rig.client(0, 8);
        let wishes = [0, 1, 2].map(|tag| client.read(tag, 0, blocks, 0));
        client.submit(&wishes);
        for tag in 0..3 {
            rig.sleep();
            assert_eq!(rig.device.process_all(0), 1, "{cap_requests} {cap_bytes}: request {tag}");
        }
        rig.sleep();
        assert_eq!(client.ends().len(), 3);
    }
}
