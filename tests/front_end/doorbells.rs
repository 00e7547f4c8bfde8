//! Who is rung, how often, and when nobody is.
use crate::fake::{Config, Order};
use crate::rig::{World, flush};
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::front_end::{Access, Options, Served};
use drv_virtio_block::lib_block::message::Body;
use drv_virtio_block::queue::QueueOptions;

const DEPTH: u16 = 128;
const BATCH: u32 = 32;

#[test]
fn batches_at_depth_take_one_doorbell_each_way_while_the_other_side_sleeps() {
    let mut world = World::new(Config { overlap_allowed: true, ..Config::default() });
    let mut rig = world.usual();
    let mut client = rig.client(0, DEPTH);
    let mut free: Vec<u16> = (0..DEPTH).collect();
    let (mut to_server, mut to_client, mut answered) = (0u32, 0u32, 0u32);
    while answered < 64 * u32::from(DEPTH) {
        // The server sleeps while the client submits a batch.
        rig.sleep();
        while free.len() >= BATCH as usize {
            let batch: Vec<_> = free.drain(..BATCH as usize).map(|tag| client.read(tag, 0, 1, 0)).collect();
            let rung = client.submit(&batch);
            to_server += u32::from(rung);
            if rung {
                rig.sleep();
            }
        }
        // The client sleeps until a batch is done.
        assert!(!client.end.arm(BATCH, client.end.announcement()));
        rig.rung.take();
        let mut rung = 0;
        while rung == 0 {
            let taken = rig.device.take(0, 4);
            assert!(!taken.is_empty(), "the client sleeps, and nothing is left that could wake it");
            rig.device.complete(0, &taken);
            rig.serve();
            rung = rig.rung.take().len() as u32;
        }
        to_client += rung;
        let done = client.take();
        answered += done.len() as u32;
        free.extend(done.iter().map(|done| done.tag));
    }
    assert!(to_server <= answered / BATCH + 4, "{to_server} for {answered}");
    assert!(to_client <= answered / BATCH, "{to_client} for {answered}");
    assert_eq!(u64::from(to_client), rig.front.statistics().doorbells);
}

#[test]
fn nobody_is_rung_who_is_awake() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    for round in 0..100u16 {
        let rung = client.submit(&[client.read(round % 16, 0, 1, 0)]);
        assert!(!rung, "the server looks anyway");
        rig.serve();
        rig.device.process_all(0);
        rig.serve();
        assert_eq!(rig.rung.take(), [], "so does the client");
        assert_eq!(client.ends().len(), 1);
    }
    assert_eq!((rig.front.statistics().doorbells, client.end.doorbells()), (0, 0));
    rig.sleep();
    assert!(client.submit(&[flush(0)]), "it sleeps now");
    assert!(!client.submit(&[flush(1)]), "and was woken already");
}

#[test]
fn each_client_is_rung_once_for_all_that_one_pass_answers() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut clients = [rig.client(0, 16), rig.client(1, 16), rig.client(2, 16)];
    for client in &mut clients[..2] {
        let all: Vec<_> = (0..16).map(|tag| client.read(tag, 0, 1, u64::from(tag) * 512)).collect();
        client.submit(&all);
    }
    rig.serve();
    for client in &mut clients {
        assert!(!client.end.arm(1, client.end.announcement()));
    }
    rig.device.take(0, 99);
    rig.device.complete_all(0, Order::Shuffled(3));
    assert_eq!(rig.serve(), Served { completed: 32, doorbells: 2 });
    let mut rung = rig.rung.take();
    rung.sort_unstable();
    assert_eq!(rung, [clients[0].id.0 as u16, clients[1].id.0 as u16]);
    for client in &clients[..2] {
        assert_eq!(rig.front.session_statistics(client.id).unwrap().doorbells, 1);
    }
}

#[test]
fn the_interrupt_comes_when_the_most_eager_client_has_what_it_waits_for() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let (mut eager, mut patient) = (rig.client(0, 16), rig.client(1, 16));
    let reads: Vec<_> = (0..8).map(|tag| patient.read(tag, 0, 1, u64::from(tag) * 512)).collect();
    patient.submit(&reads);
    rig.serve();
    assert!(!patient.end.arm(6, patient.end.announcement()));
    rig.sleep();
    let taken = rig.device.take(0, 99);
    rig.device.take_interrupts();
    rig.device.complete(0, &taken[..5]);
    assert_eq!(rig.device.take_interrupts(), [], "five of six");
    eager.submit(&[eager.read(0, 0, 1, 0)]);
    rig.serve();
    assert!(!eager.end.arm(1, eager.end.announcement()));
    rig.sleep();
    let more = rig.device.take(0, 99);
    rig.device.complete(0, &more);
    assert_eq!(rig.device.take_interrupts().len(), 1, "one of one");
}

#[test]
fn an_interrupt_comes_for_a_call_whatever_the_ring_waits_for() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    let reads: Vec<_> = (0..4).map(|tag| client.read(tag, 0, 1, u64::from(tag) * 512)).collect();
    client.submit(&reads);
    let grant = rig.grant(0, 8192, 512, Access::ReadWrite);
    rig.front.begin_call(client.id, &Body::Read { lba: 9, blocks: 1 }, Some(grant)).unwrap();
    rig.serve();
    assert!(!client.end.arm(4, client.end.announcement()));
    rig.sleep();
    let call: Vec<_> = rig.device.take(0, 99).into_iter().filter(|one| one.sector == 9).collect();
    rig.device.take_interrupts();
    rig.device.complete(0, &call);
    assert_eq!(rig.device.take_interrupts().len(), 1);
    rig.serve();
    assert!(rig.front.call_outcome(client.id).is_some());
}

#[test]
fn an_interrupt_comes_for_the_first_slot_when_somebody_waits_for_one() {
    let mut world = World::new(Config { overlap_allowed: true, ..Config::default() });
    let mut rig = world.start(&QueueOptions { slots: 8, ..QueueOptions::default() }, Options::default());
    let (mut patient, mut waiting) = (rig.client(0, 8), rig.client(1, 8));
    let reads: Vec<_> = (0..8).map(|tag| patient.read(tag, 0, 1, 0)).collect();
    patient.submit(&reads);
    rig.serve();
    waiting.submit(&[waiting.read(0, 0, 1, 0)]);
    assert!(!patient.end.arm(8, patient.end.announcement()));
    rig.sleep();
    let first = rig.device.take(0, 1);
    rig.device.take_interrupts();
    rig.device.complete(0, &first);
    assert_eq!(rig.device.take_interrupts().len(), 1);
    rig.serve();
    assert_eq!(rig.device.poll_available(0), 8, "seven, and the one that waited");
}

#[test]
fn a_submission_between_the_last_look_and_the_sleep_is_seen_or_rung_for() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    rig.serve();
    client.submit(&[flush(0)]);
    assert!(rig.front.arm(), "it came before");
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok)]);
    rig.sleep();
    assert!(client.submit(&[flush(0)]), "it came after");
}
