//! What belongs to another device: its queues, its reset.
use crate::fake::Config;
use crate::rig::World;
use drv_virtio_block::lib_block::Status;

#[test]
fn the_proof_of_another_devices_reset_gives_no_memory_back() {
    let (mut world, mut elsewhere) = (World::new(Config::default()), World::new(Config::default()));
    let (mut rig, mut other) = (world.usual(), elsewhere.usual());
    let mut client = rig.client(0, 16);
    client.submit(&[client.read(3, 0, 1, 0)]);
    rig.serve();
    let _queue = other.stop();
    assert!(rig.front.reclaim(&other.proof(), &|| panic!("nobody asks for the time")).is_none());
    assert_eq!(client.take(), []);
    assert_eq!(rig.front.unregister(client.id, client.all), Err(Status::Busy), "the device has it");
    rig.settle();
    assert_eq!(client.ends(), [(3, Status::Ok)]);
    rig.device.assert_no_faults();
}

#[test]
fn sessions_go_on_over_a_queue_of_their_own_device_only() {
    let (mut world, mut elsewhere) = (World::new(Config::default()), World::new(Config::default()));
    let (mut rig, mut other) = (world.usual(), elsewhere.usual());
    let mut client = rig.client(0, 16);
    let foreign = other.stop();
    let doorbell = rig.doorbell();
    let own = rig.stop();
    assert_eq!(rig.front.resume(foreign, doorbell), Err(Status::InvalidArgument));
    client.submit(&[client.read(0, 0, 1, 0)]);
    rig.serve();
    assert_eq!(other.device.poll_available(0), 0, "nothing of the session's memory goes to the other device");
    rig.go_on(own);
    rig.settle();
    assert_eq!(client.ends(), [(0, Status::Ok)]);
}

#[test]
fn an_earlier_flush_is_not_taken_for_a_later_one() {
    let mut world = World::new(Config::default());
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    assert!(rig.front.begin_flush());
    rig.serve();
    let first = rig.device.take(0, 99);
    client.submit(&[client.write(0, 0, 1, 0)]);
    rig.serve();
    let write = rig.device.take(0, 99);
    rig.device.complete(0, &write);
    rig.serve();
    assert!(rig.front.begin_flush(), "it covers the write");
    rig.device.complete(0, &first);
    rig.serve();
    assert_eq!(rig.front.own_outcome(), None, "the first flush says nothing of the write");
    rig.settle();
    assert_eq!((rig.front.own_outcome(), rig.front.own_outcome()), (Some(Status::Ok), None));
    assert_eq!(rig.device.unstable_sectors(), 0);
}
