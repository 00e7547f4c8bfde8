//! Bring-up, configuration changes and reset, against a device that records every access in order.
mod fake;

use Access::{Accept, Config, ConfigVector, Enable, Program, QueueVector, SetConfig, Status};
use drv_virtio_block::device::{BringUpError, Cache, ConfigChange, ConfigError, Offline, Wishes};
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::geometry::{Geometry, RangeLimits};
use drv_virtio_block::interrupt::{CompletionMode, Limit, Rung};
use drv_virtio_block::spec::{Features, NO_VECTOR, config, feature, status};
use drv_virtio_block::transport::{Doorbell, QueueId, RingAddresses, TransportError};
use fake::{Access, Clock, Fake, Registers, bring_up, device, grants, negotiate, program_all, rings, wishes};
use proptest::prelude::*;

const ACKNOWLEDGED: u8 = status::ACKNOWLEDGE;
const DRIVING: u8 = ACKNOWLEDGED | status::DRIVER;
const AGREED: u8 = DRIVING | status::FEATURES_OK;
const LIVE: u8 = AGREED | status::DRIVER_OK;

fn features(mask: u64) -> Features {
    Features(mask | feature::VERSION_1)
}

/// Why bringing this device up with four queues and five vectors fails.
fn refusal(fake: &Fake) -> BringUpError {
    bring_up(fake, &wishes(), &mut None).unwrap_err()
}

fn little(change: impl FnOnce(&mut Registers)) -> Fake {
    device().with(change)
}

// The order of steps (3.1.1).

#[test]
fn steps_are_taken_in_the_order_of_the_specification() {
    let fake = device();
    let mut place = None;
    let wishes = Wishes { queues: 2, write_back: Some(true), ..wishes() };
    drop(bring_up(&fake, &wishes, &mut place).unwrap());
    let expected = [
        Status(0),
        Status(ACKNOWLEDGED),
        Status(DRIVING),
        Accept(Features::IMPLEMENTED.0),
        Status(AGREED),
        SetConfig(config::WRITEBACK, 1),
        ConfigVector(10),
        QueueVector(0, 11),
        QueueVector(1, 12),
        Program(0),
        Program(1),
        Enable(0),
        Enable(1),
        Status(LIVE),
    ];
    assert_eq!(fake.writes(), expected);
}

#[test]
fn features_ok_is_read_back_before_anything_else_is_done() {
    let fake = device();
    drop(negotiate(&fake, &wishes(), &mut None).unwrap());
    let log = fake.log();
    let set = log.iter().position(|&a| a == Status(AGREED)).unwrap();
    assert_eq!(log[set + 1], Access::ReadStatus);
}

#[test]
fn a_device_that_refuses_the_features_is_given_up_on() {
    let fake = little(|r| r.refuses_features = true);
    let BringUpError::FeaturesRefused { offered, accepted } = refusal(&fake) else { panic!() };
    assert_eq!((offered, accepted), (Features::IMPLEMENTED, Features::IMPLEMENTED));
    assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
    assert!(!fake.log().iter().any(|a| matches!(a, Config(..) | Access::MaxSize(_))));
    let proposals = fake.writes().iter().filter(|a| matches!(a, Accept(_))).count();
    assert_eq!(proposals, 1, "there is nothing more to accept");
}

#[test]
fn a_device_that_refuses_less_than_it_offers_is_reset_and_asked_once_more_with_all_that_is_implemented() {
    let foreign = 1 << 40 | 1 << 34 | feature::ORDER_PLATFORM;
    for insists_on in [feature::EVENT_IDX, feature::INDIRECT_DESC, feature::MQ, feature::FLUSH | feature::CONFIG_WCE] {
        let fake = little(|r| (r.offered, r.insists_on) = (r.offered | foreign, insists_on));
        let mut place = None;
        let left_out = feature::EVENT_IDX | feature::INDIRECT_DESC | feature::MQ | feature::FLUSH | feature::CONFIG_WCE;
        let wishes = Wishes { features: Features::IMPLEMENTED.without(left_out), ..wishes() };
        let running = bring_up(&fake, &wishes, &mut place).unwrap();
        let few = Features::IMPLEMENTED.without(left_out).0;
        let begun = [Status(0), Status(ACKNOWLEDGED), Status(DRIVING)];
        let expected = [
            &begun[..],
            &[Accept(few), Status(AGREED)],
            &begun[..],
            &[Accept(Features::IMPLEMENTED.0), Status(AGREED)],
        ];
        assert_eq!(fake.writes()[..10], expected.concat());
        assert_eq!(running.reached().insisted, Features(left_out));
        assert_eq!(running.geometry().features, Features::IMPLEMENTED);
    }
}

#[test]
fn a_device_that_takes_what_was_wished_for_is_not_asked_for_more() {
    let fake = little(|r| r.insists_on = feature::FLUSH);
    let wishes = Wishes { features: Features(feature::FLUSH), ..wishes() };
    let mut place = None;
    let running = bring_up(&fake, &wishes, &mut place).unwrap();
    assert_eq!(fake.writes().iter().filter(|a| matches!(a, Accept(_))).count(), 1);
    assert_eq!(running.reached().insisted, Features::default());
    assert!(!running.geometry().features.has(feature::EVENT_IDX));
}

#[test]
fn what_is_not_implemented_is_never_accepted_however_a_device_insists_and_the_refusal_names_it() {
    for (bit, name) in [(40, "RING_RESET"), (34, "RING_PACKED"), (36, "ORDER_PLATFORM"), (50, "bit 50")] {
        let fake = little(|r| (r.offered, r.insists_on) = (r.offered | 1 << bit, 1 << bit));
        let wishes = Wishes { features: Features(0), ..wishes() };
        let why = bring_up(&fake, &wishes, &mut None).unwrap_err();
        let accepts: Vec<u64> =
            fake.writes().iter().filter_map(|a| if let Accept(f) = a { Some(*f) } else { None }).collect();
        assert_eq!((accepts.len(), accepts[1]), (2, Features::IMPLEMENTED.0), "once more, and no third time");
        assert!(accepts.iter().all(|accepted| accepted & 1 << bit == 0));
        assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
        let line = why.to_string();
        assert!(line.contains(&format!("insist on {name},")) && line.contains("EVENT_IDX"), "{line}");
        assert!(!line.contains('\n') && line.len() < 256, "{line}");
    }
    let all = little(|r| r.refuses_features = true);
    let line = refusal(&all).to_string();
    assert!(line.contains("all the features that it offers: SIZE_MAX, SEG_MAX, RO"), "{line}");
}

#[test]
fn a_second_reset_that_is_not_answered_ends_in_time_too() {
    let fake = little(|r| {
        r.insists_on = feature::EVENT_IDX;
        r.hook = Some(Box::new(|r, access| {
            if access == Status(AGREED) {
                r.reset_takes = None;
            }
        }));
    });
    let wishes = Wishes { features: Features(0), ..wishes() };
    assert_eq!(bring_up(&fake, &wishes, &mut None).unwrap_err(), BringUpError::ResetTimeout);
}

#[test]
fn a_cache_switch_without_a_flush_stays_out_when_a_device_insists() {
    let fake = little(|r| {
        r.offered &= !feature::FLUSH;
        r.insists_on = feature::CONFIG_WCE;
    });
    assert!(refusal(&fake).to_string().contains("insist on CONFIG_WCE, which this driver does not take"));
}

#[test]
fn a_device_that_insists_on_order_platform_is_refused_with_that_hint() {
    let fake = little(|r| {
        r.offered |= feature::ORDER_PLATFORM;
        r.refuses_features = true;
    });
    assert!(refusal(&fake).to_string().contains("ORDER_PLATFORM"));
    assert!(!fake.writes().iter().any(|a| matches!(a, Accept(f) if f & feature::ORDER_PLATFORM != 0)));
}

#[test]
fn a_device_that_merely_offers_order_platform_is_driven_without_it() {
    let fake = little(|r| r.offered |= feature::ORDER_PLATFORM);
    drop(bring_up(&fake, &wishes(), &mut None).unwrap());
}

#[test]
fn a_legacy_device_is_refused_before_features_are_written() {
    let fake = little(|r| r.offered &= !feature::VERSION_1);
    assert_eq!(refusal(&fake), BringUpError::Legacy);
    assert_eq!(fake.writes(), [Status(0), Status(ACKNOWLEDGED), Status(DRIVING), Status(DRIVING | status::FAILED)]);
}

#[test]
fn whatever_access_fails_the_device_is_told_once_it_was_acknowledged() {
    let whole = device();
    drop(bring_up(&whole, &wishes(), &mut None).unwrap());
    for n in 0..whole.log().len() {
        let fake = little(|r| r.gone_at = Some(n));
        assert_eq!(refusal(&fake), BringUpError::Transport(TransportError::Gone), "at access {n}");
        let acknowledged = fake.log().contains(&Status(ACKNOWLEDGED));
        let told = matches!(fake.log().last(), Some(Status(s)) if s & status::FAILED != 0);
        assert_eq!(told, acknowledged, "at access {n}: {:?}", fake.log());
    }
}

// Reset (2.4).

#[test]
fn a_reset_is_waited_for_until_the_status_reads_zero() {
    let fake = little(|r| r.reset_takes = Some(20));
    let clock = Clock::default();
    drop(Offline::new(fake.clone()).negotiate(&clock, &wishes(), &grants(5), &mut None).unwrap());
    assert_eq!(clock.relaxed.get(), 20);
    let log = fake.log();
    assert_eq!(log[0], Status(0));
    assert!(log[1..22].iter().all(|&a| a == Access::ReadStatus));
    assert_eq!(log[22], Status(ACKNOWLEDGED));
}

#[test]
fn a_device_that_never_answers_a_reset_is_reported_within_the_patience() {
    let fake = little(|r| r.reset_takes = None);
    let clock = Clock::default();
    let failed = Offline::new(fake.clone()).negotiate(&clock, &wishes(), &grants(5), &mut None).unwrap_err();
    assert_eq!(failed.why, BringUpError::ResetTimeout);
    // The clock moves by a millisecond a look, the patience is 5 s.
    assert!((5_000..5_010).contains(&clock.looks.get()));
    assert_eq!(fake.writes(), [Status(0)]);
}

// Features (2.2, 6).

proptest! {
    #[test]
    fn only_offered_wished_and_implemented_features_are_accepted(offered: u64, wished: u64) {
        let fake = little(|r| {
            r.offered = offered | feature::VERSION_1;
            r.poke(config::WRITEBACK, &[1]);
        });
        let mut place = None;
        let wishes = Wishes { features: Features(wished), ..wishes() };
        let accepted = negotiate(&fake, &wishes, &mut place).unwrap().geometry().features;
        prop_assert!(fake.writes().contains(&Accept(accepted.0)));
        prop_assert_eq!(accepted.0 & !(offered | feature::VERSION_1), 0);
        prop_assert_eq!(accepted.0 & !Features::IMPLEMENTED.0, 0);
        let descriptive = feature::VERSION_1 | feature::ACCESS_PLATFORM | feature::RO | feature::BLK_SIZE
            | feature::SIZE_MAX | feature::SEG_MAX;
        prop_assert_eq!(accepted.0 & !(wished | descriptive), 0);
        // What describes the device is taken whatever is wished for.
        prop_assert_eq!(accepted.0 & descriptive, (offered | feature::VERSION_1) & descriptive);
        prop_assert!(accepted.has(feature::FLUSH) || !accepted.has(feature::CONFIG_WCE));
    }

    #[test]
    fn a_field_is_read_only_if_its_feature_was_accepted_and_after_features_ok(offered: u64) {
        let fake = little(|r| r.offered = offered | feature::VERSION_1);
        let mut place = None;
        let accepted = negotiate(&fake, &wishes(), &mut place).unwrap().geometry().features;
        let log = fake.log();
        let agreed = log.iter().position(|&a| a == Status(AGREED)).unwrap();
        for (at, access) in log.iter().enumerate() {
            let Config(offset, width) = *access else { continue };
            prop_assert!(at > agreed);
            let (needs, expected) = match offset {
                0 | 4 => (0, 4),
                config::SIZE_MAX => (feature::SIZE_MAX, 4),
                config::SEG_MAX => (feature::SEG_MAX, 4),
                config::BLK_SIZE => (feature::BLK_SIZE, 4),
                config::PHYSICAL_BLOCK_EXP | config::ALIGNMENT_OFFSET => (feature::TOPOLOGY, 1),
                config::MIN_IO_SIZE => (feature::TOPOLOGY, 2),
                config::OPT_IO_SIZE => (feature::TOPOLOGY, 4),
                config::WRITEBACK => (feature::CONFIG_WCE, 1),
                config::NUM_QUEUES => (feature::MQ, 2),
                config::MAX_DISCARD_SECTORS | config::MAX_DISCARD_SEG | config::DISCARD_SECTOR_ALIGNMENT => {
                    (feature::DISCARD, 4)
                }
                config::MAX_WRITE_ZEROES_SECTORS | config::MAX_WRITE_ZEROES_SEG => (feature::WRITE_ZEROES, 4),
                config::WRITE_ZEROES_MAY_UNMAP => (feature::WRITE_ZEROES, 1),
                other => return Err(TestCaseError::fail(format!("field at {other}"))),
            };
            prop_assert!(accepted.has(needs), "field at {} without its feature", offset);
            prop_assert_eq!(width, expected, "field at {}", offset);
        }
    }
}

#[test]
fn a_device_with_the_capacity_alone_is_driven_by_defaults() {
    let fake = little(|r| {
        r.offered = feature::VERSION_1;
        r.config.truncate(8);
    });
    let mut place = None;
    let running = bring_up(&fake, &wishes(), &mut place).unwrap();
    let facts = running.geometry();
    assert_eq!((facts.capacity(), facts.block_size, facts.seg_max, facts.size_max), (8 << 20, 512, 1, u32::MAX));
    assert!(!facts.read_only && !facts.writeback && facts.discard.is_none() && facts.topology.is_none());
    assert_eq!((running.reached().queues, running.reached().limited_by), (1, Limit::Device));
    assert_eq!(running.reached().cache, Cache::Unpromised);
}

// Configuration (2.5, 5.2.4, 5.2.5).

#[test]
fn a_configuration_that_changes_while_it_is_read_is_read_again() {
    let fake = little(|r| {
        r.set_capacity(0xffff_ffff);
        r.hook = Some(Box::new(|r, access| {
            // Between the two halves of the capacity the disk grows, once.
            if access == Config(4, 4) && r.generation == 7 {
                r.set_capacity(0x1_0000_0000);
                r.generation = 8;
            }
        }));
    });
    let mut place = None;
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    assert_eq!(device.geometry().capacity(), 0x1_0000_0000);
}

#[test]
fn a_configuration_that_never_rests_is_given_up_on() {
    let fake = little(|r| r.hook = Some(Box::new(|r, _| r.generation = r.generation.wrapping_add(1))));
    assert_eq!(refusal(&fake), BringUpError::Config(ConfigError::Unstable));
    assert!(fake.log().len() < 1_000);
}

#[test]
fn a_configuration_space_that_ends_before_a_promised_field_is_refused() {
    let fake = little(|r| r.config.truncate(config::NUM_QUEUES as usize));
    let offset = config::NUM_QUEUES;
    assert_eq!(refusal(&fake), BringUpError::Transport(TransportError::NoSuchField { offset }));
}

#[test]
fn a_malformed_configuration_is_refused_by_name() {
    let cases: [(u32, &[u8], ConfigError); 9] = [
        (config::CAPACITY, &[0, 0, 0, 0, 0, 0, 128, 0], ConfigError::Capacity(1 << 55)),
        (config::BLK_SIZE, &[0, 0, 0, 0], ConfigError::BlockSize(0)),
        (config::BLK_SIZE, &[0, 1, 0, 0], ConfigError::BlockSize(256)),
        (config::BLK_SIZE, &[0, 3, 0, 0], ConfigError::BlockSize(768)),
        (config::BLK_SIZE, &[0, 0, 2, 0], ConfigError::BlockSize(0x2_0000)),
        (config::SIZE_MAX, &[255, 1, 0, 0], ConfigError::SizeMax(511)),
        (config::PHYSICAL_BLOCK_EXP, &[23], ConfigError::PhysicalBlock(23)),
        (config::PHYSICAL_BLOCK_EXP, &[255], ConfigError::PhysicalBlock(255)),
        (config::NUM_QUEUES, &[0, 0], ConfigError::NoQueue),
    ];
    for (offset, bytes, why) in cases {
        let fake = little(|r| r.poke(offset, bytes));
        assert_eq!(refusal(&fake), BringUpError::Config(why));
        assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)), "{why}");
    }
}

#[test]
fn the_largest_values_that_mean_something_are_taken() {
    let fake = little(|r| {
        r.set_capacity((1 << 55) - 1);
        r.poke(config::BLK_SIZE, &0x1_0000_u32.to_le_bytes());
        r.poke(config::SIZE_MAX, &512_u32.to_le_bytes());
        r.poke(config::PHYSICAL_BLOCK_EXP, &[15]);
    });
    let mut place = None;
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    let facts = device.geometry();
    assert_eq!((facts.capacity(), facts.block_size, facts.size_max), ((1 << 55) - 1, 1 << 16, 512));
    assert_eq!(facts.topology.unwrap().physical_block_exp, 15);
}

#[test]
fn zero_means_one_segment_and_no_segment_size_limit() {
    let fake = little(|r| r.poke(config::SEG_MAX, &[0; 4]));
    let mut place = None;
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    assert_eq!((device.geometry().seg_max, device.geometry().size_max), (1, u32::MAX));
}

#[test]
fn range_operations_have_the_limits_of_their_own_fields() {
    let fake = little(|r| {
        r.poke(config::MAX_DISCARD_SECTORS, &100_u32.to_le_bytes());
        r.poke(config::DISCARD_SECTOR_ALIGNMENT, &8_u32.to_le_bytes());
        r.poke(config::MAX_WRITE_ZEROES_SECTORS, &200_u32.to_le_bytes());
        r.poke(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
    });
    let mut place = None;
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    let facts = device.geometry();
    assert_eq!(facts.discard, Some(RangeLimits { max_sectors: 100, alignment: 8, may_unmap: false }));
    assert_eq!(facts.write_zeroes, Some(RangeLimits { max_sectors: 200, alignment: 1, may_unmap: true }));
}

#[test]
fn a_discard_alignment_of_zero_allows_every_sector() {
    let mut place = None;
    let device = negotiate(&device(), &wishes(), &mut place).unwrap();
    assert_eq!(device.geometry().discard.unwrap().alignment, 1);
}

#[test]
fn facts_of_an_earlier_device_are_replaced_and_kept_if_negotiation_fails() {
    let mut place = Some(Geometry::plain(5));
    let broken = little(|r| r.sizes[0] = 3);
    assert!(negotiate(&broken, &wishes(), &mut place).is_err());
    assert_eq!(place.as_ref().map(Geometry::capacity), Some(5));
    assert_eq!(negotiate(&device(), &wishes(), &mut place).unwrap().geometry().capacity(), 8 << 20);
}

#[test]
fn an_operation_whose_limits_allow_no_request_counts_as_not_offered_and_is_reported() {
    // Block size, sectors, segments, and whether a request is possible.
    let cases = [
        (512, 0, 1, false),
        (512, 8, 0, false),
        (512, 0, 0, false),
        (512, u32::MAX, 0, false),
        (4096, 7, 1, false),
        (65536, 127, 9, false),
        (512, 1, 1, true),
        (4096, 8, u32::MAX, true),
        (65536, 128, 1, true),
    ];
    let discard = [config::MAX_DISCARD_SECTORS, config::MAX_DISCARD_SEG];
    let zeroes = [config::MAX_WRITE_ZEROES_SECTORS, config::MAX_WRITE_ZEROES_SEG];
    for ((block, sectors, segments, usable), both) in cases.into_iter().flat_map(|case| [(case, true), (case, false)]) {
        let fake = little(|r| {
            r.poke(config::BLK_SIZE, &u32::to_le_bytes(block));
            let good = [1 << 20, 1];
            for (fields, values) in
                [(discard, [sectors, segments]), (zeroes, if both { [sectors, segments] } else { good })]
            {
                r.poke(fields[0], &values[0].to_le_bytes());
                r.poke(fields[1], &values[1].to_le_bytes());
            }
        });
        let mut place = None;
        let device = negotiate(&fake, &wishes(), &mut place).unwrap();
        let facts = device.geometry();
        let out = |bit: u64, out: bool| if out { bit } else { 0 };
        let unusable = out(feature::DISCARD, !usable) | out(feature::WRITE_ZEROES, both && !usable);
        assert_eq!(device.reached().unusable, Features(unusable), "{block} {sectors} {segments}");
        assert_eq!(facts.features, Features::IMPLEMENTED.without(unusable));
        assert_eq!((facts.discard.is_some(), facts.write_zeroes.is_some()), (usable, usable || !both));
    }
}

#[test]
fn no_discard_alignment_keeps_an_operation_from_being_used() {
    for alignment in [0, 1, 3, 7, 4097, u32::MAX] {
        let fake = little(|r| r.poke(config::DISCARD_SECTOR_ALIGNMENT, &u32::to_le_bytes(alignment)));
        let mut place = None;
        let device = negotiate(&fake, &wishes(), &mut place).unwrap();
        assert_eq!(device.geometry().discard.map(|limits| limits.alignment), Some(alignment.max(1)));
        assert_eq!(device.reached().unusable, Features::default());
    }
}

#[test]
fn read_only_is_known_whatever_is_wished_for() {
    let mut place = None;
    let wishes = Wishes { features: Features(0), ..wishes() };
    assert!(negotiate(&device(), &wishes, &mut place).unwrap().geometry().read_only);
    let writable = little(|r| r.offered &= !feature::RO);
    assert!(!negotiate(&writable, &wishes, &mut None).unwrap().geometry().read_only);
}

#[test]
fn the_write_cache_is_deduced_as_the_specification_says() {
    const WCE: u64 = feature::CONFIG_WCE | feature::FLUSH;
    let all = Features::IMPLEMENTED.0;
    // Offered, wished, `writeback`; write-back, promise.
    let cases = [
        (WCE, all, 1, true, Cache::WriteBack),
        (WCE, all, 0, false, Cache::WriteThrough),
        (WCE, all, 9, true, Cache::WriteBack),
        (WCE, feature::FLUSH, 0, true, Cache::WriteBack),
        (feature::FLUSH, all, 0, true, Cache::WriteBack),
        (WCE, 0, 1, false, Cache::WriteThrough),
        (0, all, 1, false, Cache::Unpromised),
        (feature::CONFIG_WCE, all, 1, false, Cache::Unpromised),
    ];
    for (offered, wished, byte, writeback, cache) in cases {
        let fake = little(|r| {
            r.offered = features(offered).0;
            r.poke(config::WRITEBACK, &[byte]);
        });
        let (mut place, wishes) = (None, Wishes { features: Features(wished), ..wishes() });
        let device = negotiate(&fake, &wishes, &mut place).unwrap();
        let found = (device.geometry().writeback, device.reached().cache);
        assert_eq!(found, (writeback, cache), "{offered:#x} {wished:#x} {byte}");
    }
}

#[test]
fn a_cache_that_cannot_be_chosen_is_not_written_to() {
    let fake = little(|r| r.offered &= !feature::CONFIG_WCE);
    let (mut place, wishes) = (None, Wishes { write_back: Some(false), ..wishes() });
    assert!(negotiate(&fake, &wishes, &mut place).unwrap().geometry().writeback);
    assert!(!fake.log().iter().any(|a| matches!(a, SetConfig(..))));
}

#[test]
fn a_chosen_cache_is_believed_only_as_it_reads_back() {
    let chosen = Wishes { write_back: Some(false), ..wishes() };
    let obeys = little(|r| r.poke(config::WRITEBACK, &[1]));
    assert_eq!(negotiate(&obeys, &chosen, &mut None).unwrap().reached().cache, Cache::WriteThrough);
    let stubborn = little(|r| {
        r.hook = Some(Box::new(|r, access| {
            if access == Config(config::WRITEBACK, 1) {
                r.poke(config::WRITEBACK, &[1]);
            }
        }));
    });
    assert_eq!(negotiate(&stubborn, &chosen, &mut None).unwrap().reached().cache, Cache::WriteBack);
}

// Queues (4.1.4.3, 4.1.5.1.3).

#[test]
fn a_queue_size_that_is_zero_or_no_power_of_two_is_refused() {
    let missing = little(|r| r.sizes[2] = 0);
    assert_eq!(refusal(&missing), BringUpError::NoSuchQueue(QueueId(2)));
    let odd = little(|r| r.sizes[3] = 96);
    assert_eq!(refusal(&odd), BringUpError::QueueSize { queue: QueueId(3), size: 96 });
    for fake in [missing, odd] {
        assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
    }
}

#[test]
fn a_wish_for_an_odd_queue_size_leaves_the_device_untouched() {
    for queue_size in [0, 100] {
        let fake = device();
        let wishes = Wishes { queue_size, ..wishes() };
        let failed = negotiate(&fake, &wishes, &mut None).unwrap_err();
        assert_eq!(failed.why, BringUpError::WishedQueueSize(queue_size));
        assert_eq!(fake.log(), []);
    }
}

#[test]
fn each_queue_has_the_least_of_its_own_size_and_the_wished_one() {
    let fake = little(|r| r.sizes = vec![0x8000, 64, 128, 4]);
    let wishes = Wishes { queue_size: 128, ..wishes() };
    let mut place = None;
    let device = negotiate(&fake, &wishes, &mut place).unwrap();
    assert_eq!(device.queues().map(|(_, size)| size).collect::<Vec<_>>(), [128, 64, 128, 4]);
}

#[test]
fn what_limits_the_number_of_queues_is_reported() {
    let many = |n: usize| {
        little(move |r| {
            r.sizes = vec![16; n];
            r.poke(config::NUM_QUEUES, &(n as u16).to_le_bytes());
        })
    };
    // Queues of the device, wished for, capabilities; reached, why.
    let cases = [
        (4, 4, 5, 4, Limit::Submitters),
        (8, 4, 5, 4, Limit::Submitters),
        (4, 8, 9, 4, Limit::Device),
        (4, 4, 0, 1, Limit::Vectors),
        (1, 1, 0, 1, Limit::Submitters),
        (1, 4, 0, 1, Limit::Device),
        (64, 48, 33, 32, Limit::Driver),
        (4, 0, 5, 1, Limit::Submitters),
    ];
    for (has, queues, vectors, reached, why) in cases {
        let (mut place, wishes) = (None, Wishes { queues, ..wishes() });
        let device = Offline::new(many(has)).negotiate(&Clock::default(), &wishes, &grants(vectors), &mut place);
        let device = device.unwrap();
        let found = (device.reached().queues, device.reached().limited_by);
        assert_eq!(found, (reached, why), "{has} {queues} {vectors}");
        assert_eq!(device.queues().len(), reached as usize);
    }
}

#[test]
fn no_queue_beyond_the_transports_own_number_is_touched() {
    let fake = little(|r| r.poke(config::NUM_QUEUES, &400_u16.to_le_bytes()));
    let wishes = Wishes { queues: 8, ..wishes() };
    assert_eq!(negotiate(&fake, &wishes, &mut None).unwrap().reached().queues, 4);
    let none = little(|r| r.sizes.clear());
    assert_eq!(refusal(&none), BringUpError::NoSuchQueue(QueueId(0)));
}

#[test]
fn a_queue_is_told_exactly_where_its_rings_are() {
    let fake = device();
    drop(bring_up(&fake, &wishes(), &mut None).unwrap());
    for queue in 0..4 {
        assert_eq!(fake.registers().programmed[&queue], rings(QueueId(queue), 256));
    }
}

#[test]
fn rings_that_do_not_fit_what_was_agreed_on_are_refused() {
    let good = rings(QueueId(0), 256);
    // The size, and how far each area is off a multiple of 16.
    let misplaced = |size, off: [u64; 3]| {
        let [descriptors, driver, device] = off.map(|by| DeviceAddress(good.descriptors().0 + by));
        // SAFETY: there is no memory behind this device.
        unsafe { RingAddresses::new(size, descriptors, driver, device) }
    };
    let bad = [
        misplaced(512, [0; 3]),
        misplaced(100, [0; 3]),
        misplaced(0, [0; 3]),
        misplaced(256, [8, 0, 0]),
        misplaced(256, [0, 1, 0]),
        misplaced(256, [0, 0, 2]),
    ];
    for rings in bad {
        let (fake, mut place) = (device(), None);
        let failed = negotiate(&fake, &wishes(), &mut place).unwrap().program(QueueId(0), &rings).unwrap_err();
        assert_eq!(failed.why, BringUpError::Rings(QueueId(0)), "{rings:?}");
        assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
        assert!(fake.registers().programmed.is_empty());
    }
    let (fake, mut place) = (device(), None);
    let fewer = misplaced(16, [0, 2, 4]);
    assert!(negotiate(&fake, &wishes(), &mut place).unwrap().program(QueueId(0), &fewer).is_ok());
}

#[test]
fn a_queue_is_programmed_once_and_only_if_it_was_agreed_on() {
    let (fake, mut place) = (device(), None);
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    let beyond = device.program(QueueId(4), &rings(QueueId(4), 256)).unwrap_err();
    assert_eq!(beyond.why, BringUpError::SurplusQueue(QueueId(4)));
    let mut place = None;
    let device = program_all(negotiate(&fake, &wishes(), &mut place).unwrap()).unwrap();
    let twice = device.program(QueueId(1), &rings(QueueId(1), 256)).unwrap_err();
    assert_eq!(twice.why, BringUpError::SurplusQueue(QueueId(1)));
}

#[test]
fn a_device_is_not_started_with_a_queue_missing() {
    let (fake, mut place) = (device(), None);
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    let device = device.program(QueueId(0), &rings(QueueId(0), 256)).unwrap();
    let failed = device.start().unwrap_err();
    assert_eq!(failed.why, BringUpError::MissingQueue(QueueId(1)));
    assert!(!fake.log().iter().any(|a| matches!(a, Enable(_))));
    assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
}

#[test]
fn a_doorbell_rings_its_own_queue_and_is_had_after_driver_ok_only() {
    let (fake, mut place) = (device(), None);
    let mut running = bring_up(&fake, &wishes(), &mut place).unwrap();
    assert!(!fake.log().iter().any(|a| matches!(a, Access::Doorbell(_) | Access::Ring(_))));
    running.doorbell(QueueId(2)).unwrap().ring();
    assert_eq!(fake.log().last(), Some(&Access::Ring(2)));
    assert_eq!(running.doorbell(QueueId(4)).err(), Some(TransportError::DoorbellOutside(QueueId(4))));
}

#[test]
fn a_device_that_is_given_up_on_by_choice_is_told() {
    let (fake, mut place) = (device(), None);
    let unsettled = negotiate(&fake, &wishes(), &mut place).unwrap().abandon();
    assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
    drop(unsettled.quiesce(&Clock::default()).unwrap());
    assert_eq!(fake.writes().last(), Some(&Status(0)));
}

// Vectors (4.1.5.1.2).

#[test]
fn fewer_vectors_than_hoped_for_lead_down_the_ladder() {
    let cases = [
        (64, Rung::PerQueue, 4, 5),
        (5, Rung::PerQueue, 4, 5),
        (4, Rung::Shared, 4, 4),
        (3, Rung::Shared, 4, 3),
        (2, Rung::Shared, 4, 2),
        (1, Rung::Single, 4, 1),
        (0, Rung::None, 1, 0),
    ];
    for (has, rung, queues, used) in cases {
        let (fake, mut place) = (little(|r| r.vectors = has), None);
        let device = program_all(negotiate(&fake, &wishes(), &mut place).unwrap()).unwrap();
        let reached = device.reached();
        assert_eq!((reached.rung, reached.queues, reached.vectors), (rung, queues, used), "{has}");
        let polled = used == 0;
        assert_eq!(reached.mode, if polled { CompletionMode::Polled } else { CompletionMode::Interrupt });
        // What the device has mapped is what the plan says, and nothing is left over from a higher rung.
        let plan = device.vectors();
        let mut expected: std::collections::BTreeMap<_, _> =
            (0..queues).filter_map(|q| plan.queue(QueueId(q)).map(|grant| (Some(q), grant.vector))).collect();
        expected.extend(plan.configuration().map(|grant| (None, grant.vector)));
        assert_eq!(fake.registers().mapped, expected, "{has}");
        drop(device.start().unwrap());
    }
}

/// What was written to vector registers.
fn vectors_written(fake: &Fake) -> Vec<Access> {
    fake.writes().into_iter().filter(|a| matches!(a, QueueVector(..) | ConfigVector(_))).collect()
}

#[test]
fn a_fall_takes_every_vector_back_and_offers_as_many_as_were_held() {
    let fake = little(|r| r.vectors = 2);
    drop(negotiate(&fake, &wishes(), &mut None).unwrap());
    let mut expected = vec![ConfigVector(10), QueueVector(0, 11), QueueVector(1, 12)];
    expected.push(ConfigVector(NO_VECTOR));
    expected.extend((0..4).map(|q| QueueVector(q, NO_VECTOR)));
    expected.push(ConfigVector(10));
    expected.extend((0..4).map(|q| QueueVector(q, 11)));
    assert_eq!(vectors_written(&fake), expected);
}

#[test]
fn a_device_that_refuses_its_first_vector_is_polled_at_once() {
    let fake = little(|r| r.vectors = 0);
    drop(negotiate(&fake, &wishes(), &mut None).unwrap());
    let mut expected = vec![ConfigVector(10), ConfigVector(NO_VECTOR)];
    expected.extend((0..4).map(|q| QueueVector(q, NO_VECTOR)));
    assert_eq!(vectors_written(&fake), expected);
}

#[test]
fn a_device_that_maps_few_events_whatever_their_vector_keeps_none_mapped_when_polled() {
    let (fake, mut place) = (little(|r| r.events = 3), None);
    let device = negotiate(&fake, &wishes(), &mut place).unwrap();
    assert_eq!((device.reached().rung, device.reached().queues), (Rung::None, 1));
    assert!(fake.registers().mapped.is_empty());
}

#[test]
fn without_capabilities_no_vector_register_is_touched() {
    let (fake, mut place) = (device(), None);
    let device = Offline::new(fake.clone()).negotiate(&Clock::default(), &wishes(), &[], &mut place).unwrap();
    assert_eq!((device.reached().rung, device.reached().queues), (Rung::None, 1));
    assert!(!fake.log().iter().any(|a| matches!(a, QueueVector(..) | ConfigVector(_))));
}

#[test]
fn polling_by_choice_maps_the_configuration_only() {
    let (fake, mut place) = (device(), None);
    let wishes = Wishes { mode: CompletionMode::Polled, ..wishes() };
    let device = negotiate(&fake, &wishes, &mut place).unwrap();
    assert_eq!((device.reached().mode, device.reached().queues), (CompletionMode::Polled, 4));
    let vectors: Vec<_> =
        fake.writes().into_iter().filter(|a| matches!(a, QueueVector(..) | ConfigVector(_))).collect();
    assert_eq!(vectors, [ConfigVector(10)]);
}

#[test]
fn only_granted_vectors_and_no_vector_are_ever_written() {
    for has in 0..6 {
        let fake = little(|r| r.vectors = has);
        drop(negotiate(&fake, &wishes(), &mut None).unwrap());
        for access in fake.writes() {
            if let QueueVector(_, vector) | ConfigVector(vector) = access {
                assert!((10..15).contains(&vector) || vector == NO_VECTOR);
            }
        }
    }
}

#[test]
fn a_vector_that_reads_back_as_another_is_refused() {
    let fake = little(|r| r.vector_reads = Some(3));
    assert_eq!(refusal(&fake), BringUpError::Vector { written: 10, read: 3 });
}

// The running device.

#[test]
fn a_change_between_reading_and_driver_ok_is_not_missed() {
    let (fake, mut place) = (device(), None);
    let device = program_all(negotiate(&fake, &wishes(), &mut place).unwrap()).unwrap();
    // Before DRIVER_OK a device reports nothing, not even through the generation.
    fake.registers().set_capacity(42);
    assert_eq!(device.start().unwrap().geometry().capacity(), 42);
}

#[test]
fn a_device_that_needs_a_reset_at_once_does_not_count_as_started() {
    let fake = little(|r| {
        r.hook = Some(Box::new(|r, access| {
            if access == Access::ReadStatus && r.status == LIVE {
                r.status |= status::DEVICE_NEEDS_RESET;
            }
        }));
    });
    assert_eq!(refusal(&fake), BringUpError::NeedsReset);
    assert_eq!(fake.writes().last(), Some(&Status(LIVE | status::FAILED)));
}

#[test]
fn a_changed_capacity_is_reported_once_and_held_against_requests() {
    let (fake, mut place) = (device(), None);
    let mut running = bring_up(&fake, &wishes(), &mut place).unwrap();
    assert_eq!(running.service_configuration().unwrap(), ConfigChange::default());
    // The generation is left alone: a device may change it only after the new value was read.
    fake.registers().set_capacity(1 << 30);
    let change = running.service_configuration().unwrap();
    assert_eq!((change.capacity, change.needs_reset), (Some((8 << 20, 1 << 30)), false));
    assert_eq!(running.geometry().capacity(), 1 << 30);
    assert_eq!(running.service_configuration().unwrap(), ConfigChange::default());
}

#[test]
fn a_capacity_that_cannot_be_is_reported_and_not_taken() {
    let (fake, mut place) = (device(), None);
    let mut running = bring_up(&fake, &wishes(), &mut place).unwrap();
    fake.registers().set_capacity(u64::MAX);
    assert_eq!(running.service_configuration(), Err(ConfigError::Capacity(u64::MAX)));
    assert_eq!(running.geometry().capacity(), 8 << 20);
}

#[test]
fn a_device_that_needs_a_reset_or_forgot_its_start_says_so() {
    for now in [LIVE | status::DEVICE_NEEDS_RESET, 0, AGREED] {
        let (fake, mut place) = (device(), None);
        let mut running = bring_up(&fake, &wishes(), &mut place).unwrap();
        assert_eq!(running.needs_reset(), Ok(false));
        fake.registers().status = now;
        assert_eq!(running.needs_reset(), Ok(true));
        assert!(running.service_configuration().unwrap().needs_reset);
    }
}

#[test]
fn the_isr_status_is_never_read() {
    let (fake, mut place) = (little(|r| r.vectors = 1), None);
    let mut running = bring_up(&fake, &wishes(), &mut place).unwrap();
    let fired = running.vectors().badges();
    assert!(running.vectors().configuration_in(fired));
    running.service_configuration().unwrap();
    assert!(!fake.log().contains(&Access::Isr));
}

#[test]
fn a_reset_proves_quiet_for_its_own_device_only() {
    let (one, other) = (device(), device());
    let (mut place_one, mut place_other) = (None, None);
    let running = bring_up(&one, &wishes(), &mut place_one).unwrap();
    let bystander = bring_up(&other, &wishes(), &mut place_other).unwrap();
    let facts = running.geometry();
    let stopped = running.reset(&Clock::default()).unwrap();
    assert!(stopped.proof().covers(facts));
    assert!(!stopped.proof().covers(bystander.geometry()));
    assert_eq!(one.log()[one.log().len() - 2..], [Status(0), Access::ReadStatus]);
}

#[test]
fn a_reset_that_is_not_answered_proves_nothing_until_it_is() {
    let (fake, mut place) = (device(), None);
    let running = bring_up(&fake, &wishes(), &mut place).unwrap();
    let facts = running.geometry();
    fake.registers().reset_takes = None;
    let clock = Clock::default();
    let failed = running.reset(&clock).unwrap_err();
    assert_eq!(failed.why, BringUpError::ResetTimeout);
    assert!(clock.looks.get() < 5_010);
    fake.registers().reset_takes = Some(3);
    let stopped = failed.device.quiesce(&clock).unwrap();
    assert!(stopped.proof().covers(facts));
}

#[test]
fn a_device_that_vanished_proves_nothing() {
    let (fake, mut place) = (device(), None);
    let running = bring_up(&fake, &wishes(), &mut place).unwrap();
    fake.registers().gone_at = Some(0);
    let failed = running.reset(&Clock::default()).unwrap_err();
    assert_eq!(failed.why, BringUpError::Transport(TransportError::Gone));
}

#[test]
fn a_device_is_brought_back_over_the_same_facts() {
    let (fake, mut place) = (device(), None);
    let running = bring_up(&fake, &wishes(), &mut place).unwrap();
    let facts = running.geometry();
    let stopped = running.reset(&Clock::default()).unwrap();
    fake.registers().set_capacity(99);
    let again = stopped.negotiate(&Clock::default(), &wishes(), &grants(5)).unwrap();
    assert_eq!(facts.capacity(), 99);
    let running = program_all(again).unwrap().start().unwrap();
    assert!(std::ptr::eq(running.geometry(), facts));
}

#[test]
fn a_device_that_came_back_as_another_is_refused_and_can_still_be_stopped() {
    let changes: [(u32, &[u8]); 5] = [
        (config::BLK_SIZE, &[0, 16, 0, 0]),
        (config::SEG_MAX, &[5, 0, 0, 0]),
        (config::WRITEBACK, &[1]),
        (config::MAX_DISCARD_SECTORS, &[7, 0, 0, 0]),
        (config::OPT_IO_SIZE, &[7, 0, 0, 0]),
    ];
    for (offset, bytes) in changes {
        let (fake, mut place) = (device(), None);
        let stopped = bring_up(&fake, &wishes(), &mut place).unwrap().reset(&Clock::default()).unwrap();
        fake.registers().poke(offset, bytes);
        let failed = stopped.negotiate(&Clock::default(), &wishes(), &grants(5)).unwrap_err();
        assert_eq!(failed.why, BringUpError::Changed, "field at {offset}");
        assert_eq!(fake.writes().last(), Some(&Status(AGREED | status::FAILED)));
        failed.device.quiesce(&Clock::default()).unwrap().into_offline();
    }
    let (fake, mut place) = (device(), None);
    let stopped = bring_up(&fake, &wishes(), &mut place).unwrap().reset(&Clock::default()).unwrap();
    fake.registers().offered &= !feature::EVENT_IDX;
    let failed = stopped.negotiate(&Clock::default(), &wishes(), &grants(5)).unwrap_err();
    assert_eq!(failed.why, BringUpError::Changed);
}

#[test]
fn every_error_is_one_line() {
    let transport = TransportError::NoSuchField { offset: 4 };
    let errors = [
        BringUpError::WishedQueueSize(3),
        BringUpError::Transport(transport),
        BringUpError::ResetTimeout,
        BringUpError::Legacy,
        BringUpError::FeaturesRefused { offered: Features(1), accepted: Features(0) },
        BringUpError::Config(ConfigError::Transport(transport)),
        BringUpError::NoSuchQueue(QueueId(1)),
        BringUpError::QueueSize { queue: QueueId(1), size: 3 },
        BringUpError::Vector { written: 1, read: 2 },
        BringUpError::Rings(QueueId(1)),
        BringUpError::SurplusQueue(QueueId(1)),
        BringUpError::MissingQueue(QueueId(1)),
        BringUpError::NeedsReset,
        BringUpError::Changed,
    ];
    for error in errors {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains('\n') && text.len() < 120, "{text}");
    }
}
