//! A medium that shrinks and grows under sessions that are open.
use crate::fake::Config;
use crate::rig::{Client, Rig, World};
use drv_virtio_block::lib_block::Status;

/// A read, and how many chains of it reached the device.
fn ask<'w>(rig: &mut Rig<'w>, client: &mut Client<'w>, lba: u64, blocks: u32) -> (Status, u64) {
    let before = rig.device.counts(0).taken;
    let status = rig.ask(&client.read(0, lba, blocks, 0), client).status;
    (status, rig.device.counts(0).taken - before)
}

#[test]
fn what_a_shrunk_medium_has_no_more_does_not_reach_the_device_and_comes_back_with_it() {
    // Far enough from either end that the fast path alone decides.
    let mut world = World::new(Config { capacity_sectors: 16384, ..Config::default() });
    let mut rig = world.usual();
    let mut client = rig.client(0, 16);
    for _ in 0..2 {
        assert_eq!(ask(&mut rig, &mut client, 16383, 1), (Status::Ok, 1));
        rig.device.resize(4096);
        rig.look_at_configuration();
        for (lba, blocks) in [(4096, 1), (8192, 8), (12000, 256), (16383, 1), (4095, 2)] {
            assert_eq!(ask(&mut rig, &mut client, lba, blocks), (Status::OutOfRange, 0), "{blocks} blocks from {lba}");
        }
        assert_eq!(ask(&mut rig, &mut client, 4095, 1), (Status::Ok, 1), "the last block that is left");
        assert_eq!(ask(&mut rig, &mut client, 0, 256), (Status::Ok, 1));
        rig.device.resize(16384);
        rig.look_at_configuration();
        assert_eq!(ask(&mut rig, &mut client, 8192, 8), (Status::Ok, 1));
    }
    rig.device.assert_no_faults();
}
