//! DISCARD and WRITE ZEROES above the device's limits: cut at its alignment and at whole blocks.
use crate::fake::{Config, Lie, Order, RangeLimits};
use crate::rig::{Live, Owned, World, outcomes};
use drv_virtio_block::queue::QueueOptions;
use drv_virtio_block::request::{Error, Lba, Request};

fn config(max_sectors: u32, alignment: u32) -> Config {
    let ranges = RangeLimits { max_sectors, max_segments: 1, alignment };
    Config { discard: ranges, write_zeroes: ranges, ..Config::default() }
}

/// One slot, so that pieces go out one after the other.
fn one_slot() -> QueueOptions {
    QueueOptions { size: 64, slots: 1, ..QueueOptions::default() }
}

/// Where the pieces of a request begin, found by what has changed on the disk after each.
fn cuts(live: &mut Live<'_, Owned<'_>>, request: Request<crate::rig::Buf>, first: u64, sectors: u64) -> Vec<u64> {
    live.device.put_disk(first, &vec![7; sectors as usize * 512]);
    live.queue.submit(request).unwrap();
    let mut cuts = Vec::new();
    let mut done = Vec::new();
    while done.is_empty() {
        live.device.process(0, 1, Order::AsTaken);
        let disk = live.device.disk(first, sectors);
        let changed = disk.chunks(512).take_while(|sector| sector.iter().all(|byte| *byte != 7)).count() as u64;
        assert!(disk[changed as usize * 512..].iter().all(|byte| *byte == 7), "from the front, without holes");
        cuts.push(first + changed);
        assert!(cuts.len() < 100, "it ends");
        done = live.reap();
    }
    assert_eq!(outcomes(&done), [(0, Ok(()))]);
    live.device.assert_no_faults();
    cuts
}

#[test]
fn a_discard_is_cut_at_the_limit_and_the_devices_alignment() {
    for (max, alignment, expected) in [
        (100, 0, vec![110, 210, 310]),
        (100, 1, vec![110, 210, 310]),
        (100, 64, vec![64, 128, 192, 256, 310]),
        (100, 4096, vec![110, 210, 310]),
        (300, 64, vec![310]),
    ] {
        let mut world = World::new(config(max, alignment));
        let mut live = world.owned(&one_slot());
        assert_eq!(cuts(&mut live, Request::discard(Lba(10), 300), 10, 300), expected, "{max} at {alignment}");
    }
}

#[test]
fn zeroes_are_cut_at_the_limit() {
    let mut world = World::new(config(100, 64));
    let mut live = world.owned(&one_slot());
    assert_eq!(cuts(&mut live, Request::write_zeroes(Lba(10), 300, true), 10, 300), [110, 210, 310]);
}

#[test]
fn pieces_of_a_range_are_whole_blocks_whatever_the_limit() {
    // QEMU allows 4194303 sectors, not a multiple of a block of 4096 bytes, and refuses what is off the block.
    for (max, alignment, expected) in
        [(101, 1, vec![112, 208, 304, 328]), (101, 12, vec![112, 208, 304, 328]), (101, 13, vec![112, 208, 304, 328])]
    {
        let mut world = World::new(Config { blk_size: 4096, ..config(max, alignment) });
        let mut live = world.owned(&one_slot());
        assert_eq!(cuts(&mut live, Request::discard(Lba(16), 312), 16, 312), expected, "{max} at {alignment}");
        let zeroes = Request::write_zeroes(Lba(16), 312, false);
        assert_eq!(cuts(&mut live, zeroes, 16, 312), [112, 208, 304, 328]);
    }
}

#[test]
fn a_cut_range_uses_as_many_slots_as_there_are() {
    let mut world = World::new(config(8, 1));
    let mut live = world.owned(&QueueOptions { size: 64, ..QueueOptions::default() });
    live.device.put_disk(0, &vec![7; 512 * 400]);
    live.queue.submit(Request::discard(Lba(0), 400)).unwrap();
    assert_eq!(live.device.take(0, 99).len(), usize::from(live.queue.slots()));
    live.device.complete_all(0, Order::Shuffled(3));
    assert_eq!(outcomes(&live.finish()), [(0, Ok(()))]);
    assert!(live.device.disk(0, 400).iter().all(|byte| *byte == 0xd1));
    live.device.assert_no_faults();
}

#[test]
fn the_first_error_ends_a_cut_range() {
    let mut world = World::new(config(8, 1));
    let mut live = world.owned(&one_slot());
    live.queue.submit(Request::write_zeroes(Lba(0), 80, false)).unwrap();
    live.device.process_all(0);
    assert!(live.reap().is_empty());
    live.device.inject(0, Lie::Status(1));
    assert_eq!(outcomes(&live.finish()), [(0, Err(Error::Medium))]);
    assert_eq!(live.device.counts(0).taken, 2);
}

#[test]
fn a_device_that_allows_no_sector_does_not_have_the_operation() {
    let mut world = World::new(config(0, 1));
    let mut live = world.owned(&one_slot());
    let why = |request| live.queue.submit(request).unwrap_err().why;
    let whys = [Request::discard(Lba(0), 1), Request::write_zeroes(Lba(0), 1, false)].map(why);
    assert_eq!(whys, [drv_virtio_block::request::Refusal::Unsupported; 2]);
}
