//! The configuration space: which fields may be read when, and how a change is noticed.
use super::hand_ring::{ALL, HandRing, device};
use crate::fake::wire::features;
use crate::fake::{Config, DriverFault, FakeDevice, Topology};

fn negotiated(config: Config, accepted: u64) -> FakeDevice {
    let device = device(config);
    device.negotiate(accepted);
    device
}

/// Reads `capacity` as a driver should.
fn capacity(device: &FakeDevice) -> u64 {
    loop {
        let before = device.config_generation();
        let sectors = device.read_config(4, 4) << 32 | device.read_config(0, 4);
        if device.config_generation() == before {
            return sectors;
        }
    }
}

#[test]
fn negotiated_fields_read_as_configured() {
    let topology = Topology { physical_block_exp: 3, alignment_offset: 1, min_io_size: 8, opt_io_size: 128 };
    let config = Config { capacity_sectors: 5 << 32 | 7, blk_size: 4096, topology, ..Config::default() };
    let device = negotiated(config, ALL);
    assert_eq!(capacity(&device), 5 << 32 | 7);
    let fields =
        [(12, 4, 126), (20, 4, 4096), (24, 1, 3), (25, 1, 1), (26, 2, 8), (28, 4, 128), (32, 1, 1), (34, 2, 1)];
    let limits = [(36, 4, 1024), (40, 4, 1), (44, 4, 1), (48, 4, 1024), (52, 4, 1), (56, 1, 1)];
    for (offset, width, value) in fields.into_iter().chain(limits) {
        assert_eq!(device.read_config(offset, width), value, "at {offset}");
    }
    device.assert_no_faults();
}

#[test]
fn a_field_that_was_not_negotiated_is_not_read() {
    let device = negotiated(Config::default(), ALL & !features::BLK_SIZE);
    device.read_config(20, 4);
    assert_eq!(device.take_faults(), [DriverFault::ConfigNotNegotiated { offset: 20 }]);
    assert_eq!(device.read_config(8, 4), 0xeeee_eeee, "nor what is not offered: it is garbage");
    assert_eq!(device.take_faults(), [DriverFault::ConfigNotNegotiated { offset: 8 }]);
}

#[test]
fn an_offered_field_may_be_read_before_features_ok_but_not_writeback() {
    let device = device(Config::default());
    assert_eq!(device.read_config(20, 4), 512);
    device.assert_no_faults();
    device.read_config(32, 1);
    assert_eq!(device.take_faults(), [DriverFault::WritebackTooEarly]);
}

#[test]
fn fields_are_read_whole_and_inside_the_space() {
    let device = negotiated(Config { space_len: 24, ..Config::default() }, ALL);
    for (offset, width) in [(0, 8), (20, 2), (12, 1), (33, 1), (24, 1), (u32::MAX, 4)] {
        device.read_config(offset, width);
        assert_eq!(device.take_faults(), [DriverFault::ConfigAccess { offset, width }]);
    }
}

#[test]
fn capacity_is_read_between_two_looks_at_the_generation() {
    let device = negotiated(Config::default(), ALL);
    device.read_config(0, 4);
    assert_eq!(device.take_faults(), [DriverFault::CapacityWithoutGeneration]);
    device.config_generation();
    device.read_config(0, 4);
    device.go_live();
    assert_eq!(device.take_faults(), [DriverFault::CapacityWithoutGeneration], "none after");
}

#[test]
fn a_capacity_that_changes_between_its_halves_is_noticed_by_generation() {
    let device = negotiated(Config { capacity_sectors: 0xffff_ffff, ..Config::default() }, ALL);
    device.tear_capacity(&[1 << 32, (1 << 32) + 1, 3 << 32]);
    assert_eq!(capacity(&device), 3 << 32);
    device.go_live();
    device.assert_no_faults();
}

#[test]
fn a_resize_sends_a_configuration_interrupt() {
    let device = negotiated(Config::default(), ALL);
    device.set_config_vector(0);
    device.config_vector();
    device.go_live();
    device.resize(4096);
    assert_eq!(device.take_interrupts(), [0]);
    assert_eq!(capacity(&device), 4096);
    device.assert_no_faults();
}

#[test]
fn only_writeback_is_written_and_only_with_config_wce() {
    let device = negotiated(Config::default(), ALL);
    device.write_config(32, 1, 0);
    assert!(!device.writeback());
    device.assert_no_faults();
    device.write_config(32, 1, 2);
    device.write_config(0, 4, 9);
    assert_eq!(device.take_faults().len(), 2);
    let device = negotiated(Config::default(), ALL & !features::CONFIG_WCE);
    device.write_config(32, 1, 0);
    assert_eq!(device.take_faults(), [DriverFault::ConfigWrite { offset: 32, value: 0 }]);
}

#[test]
fn without_flush_the_cache_starts_as_write_through() {
    assert!(!negotiated(Config::default(), ALL & !features::FLUSH).writeback());
    assert!(HandRing::plain().device.writeback());
}
