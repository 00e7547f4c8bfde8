//! The sector format, the ledger and the table: what damage is noticed, and what each says of it.
use proptest::prelude::*;
use workload::pattern::{Io, Op};
use workload::verify::ledger::{Ledger, Outcome, Refused};
use workload::verify::table::{Layout, SealError};
use workload::verify::{Expected, Fault, Mismatch, check, check_all, crc32c, fill, read_header};

/// The format written down a second time, bit by bit.
fn reference(lba: u64, generation: u64) -> Vec<u8> {
    let mut sector = [lba.to_le_bytes(), generation.to_le_bytes()].concat();
    for index in 0..62u128 {
        let word = u128::from(lba) * 0x9e37_79b9_7f4a_7c15
            + u128::from(generation) * 0xbf58_476d_1ce4_e5b9 % (1 << 64)
            + index * 0x94d0_49bb_1331_11eb;
        sector.extend(&word.to_le_bytes()[..8]);
    }
    sector.truncate(508);
    let crc = bitwise(&sector);
    sector.extend(crc.to_le_bytes());
    sector
}

fn bitwise(bytes: &[u8]) -> u32 {
    let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| u32::from(byte >> bit & 1)));
    !bits.fold(u32::MAX, |crc, bit| crc >> 1 ^ if (crc ^ bit) & 1 == 1 { 0x82f6_3b78 } else { 0 })
}

fn sector(lba: u64, generation: u64) -> [u8; 512] {
    let mut sector = [0; 512];
    fill(&mut sector, lba, generation);
    sector
}

fn io(op: Op, lba: u64, sectors: u32) -> Io {
    Io { op, lba, bytes: sectors * 512 }
}

proptest! {
    #[test]
    fn sectors_have_the_documented_format(lba in any::<u64>(), generation in any::<u64>()) {
        prop_assert_eq!(&sector(lba, generation)[..], &reference(lba, generation)[..]);
    }

    #[test]
    fn the_largest_region_fits_before_table_and_seal(capacity in prop_oneof![3u64..2000, any::<u64>().prop_map(|n| n.max(3))]) {
        let layout = Layout::new(capacity, 0).unwrap();
        prop_assert!(layout.covered <= layout.table);
        prop_assert_eq!(layout.table + layout.table_sectors, layout.seal());
        prop_assert_eq!(layout.seal(), capacity - 1);
        prop_assert_eq!(layout.table_sectors, layout.covered.div_ceil(128));
        let more = u128::from(layout.covered) + 1;
        prop_assert!(more + more.div_ceil(128) + 1 > u128::from(capacity));
        prop_assert_eq!(Layout::new(capacity, layout.covered), Ok(layout));
        prop_assert!(Layout::new(capacity, layout.covered + 1).is_err());
    }
}

#[test]
fn a_disk_without_room_for_data_has_no_layout() {
    for capacity in 0..3 {
        assert!(Layout::new(capacity, 0).is_err());
    }
    assert_eq!(
        Layout::new(2, 7).unwrap_err().to_string(),
        "size is 7 sectors of 512 bytes, the disk offers 0: lower size or enlarge the disk"
    );
}

#[test]
fn the_crc_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn every_flipped_bit_is_noticed_and_named() {
    let (lba, generation) = (0x0123_4567_89ab, 0x4d);
    for bit in 0..4096 {
        let mut sector = sector(lba, generation);
        sector[bit / 8] ^= 1 << (bit % 8);
        let fault = check(&sector, lba, generation).unwrap_err();
        assert_eq!(fault.lba, lba);
        let named = match bit / 8 {
            0..8 => matches!(fault.mismatch, Mismatch::Lba { found } if found == lba ^ 1 << bit),
            8..16 => {
                matches!(fault.mismatch, Mismatch::Generation { found, expected: 0x4d } if found == 0x4d ^ 1 << (bit - 64))
            }
            byte @ 16..508 => fault.mismatch == Mismatch::Pattern { offset: byte },
            _ => {
                matches!(fault.mismatch, Mismatch::Crc { found, expected } if found == expected ^ 1 << (bit - 4064))
            }
        };
        assert!(named, "bit {bit}: {fault}");
        assert_eq!(read_header(&sector).map(|header| header.sound), Some(false));
    }
}

#[test]
fn a_torn_block_is_noticed_at_its_first_stale_sector() {
    let (mut block, mut old) = ([0; 4096], [0; 4096]);
    fill(&mut block, 8, 2);
    fill(&mut old, 8, 1);
    block[1536..].copy_from_slice(&old[1536..]);
    let mismatch = Mismatch::Generation { found: 1, expected: 2 };
    assert_eq!(check(&block, 8, 2), Err(Fault { lba: 11, mismatch }));
}

#[test]
fn a_misplaced_sector_is_named_by_where_it_belongs() {
    assert_eq!(check(&sector(9, 1), 8, 1).unwrap_err().mismatch, Mismatch::Lba { found: 9 });
    assert_eq!(check(&[0; 512], 8, 1).unwrap_err().mismatch, Mismatch::Lba { found: 0 });
    assert_eq!(check(&[0; 512], 0, 1).unwrap_err().mismatch, Mismatch::Generation { found: 0, expected: 1 });
}

#[test]
fn a_part_of_a_sector_is_neither_written_nor_accepted() {
    let mut block = [0xee; 700];
    fill(&mut block, 4, 1);
    assert_eq!(block[..512], sector(4, 1));
    assert_eq!(block[512..], [0xee; 188]);
    assert_eq!(check(&block, 4, 1), Err(Fault { lba: 5, mismatch: Mismatch::Length { found: 188 } }));
    assert_eq!(read_header(&block[..511]), None);
}

#[test]
fn zeros_and_the_unknown_are_told_apart() {
    let mut block = [0; 1024];
    assert_eq!(check_all(&block, 0, |_| Expected::Zeros), Ok(()));
    block[600] = 1;
    let fault = Fault { lba: 1, mismatch: Mismatch::NotZero { offset: 88 } };
    assert_eq!(check_all(&block, 0, |_| Expected::Zeros), Err(fault));
    assert_eq!(check_all(&block, 0, |lba| if lba == 1 { Expected::Unknown } else { Expected::Zeros }), Ok(()));
}

#[test]
fn a_header_can_be_read_alone() {
    let header = read_header(&sector(5, 6)).unwrap();
    assert_eq!((header.lba, header.generation, header.sound), (5, 6, true));
}

#[test]
fn whatever_overlaps_an_io_in_flight_is_refused_until_it_ends() {
    let mut memory = [0; 32];
    let mut ledger = Ledger::new(&mut memory, 100);
    for held in [Op::Read, Op::Write, Op::Trim] {
        let middle = io(held, 110, 8);
        ledger.begin(&middle).unwrap();
        assert_eq!(ledger.in_flight(), Some(110));
        for op in [Op::Read, Op::Write, Op::Trim] {
            for (lba, sectors) in [(103, 8), (110, 8), (117, 1), (110, 1), (112, 2), (100, 32), (117, 15)] {
                assert_eq!(ledger.begin(&io(op, lba, sectors)), Err(Refused::Busy), "{op:?} {lba} {sectors}");
            }
            for neighbour in [io(op, 100, 10), io(op, 118, 14)] {
                ledger.begin(&neighbour).unwrap();
                ledger.finish(&neighbour, Outcome::Done).unwrap();
            }
        }
        ledger.finish(&middle, Outcome::Done).unwrap();
        assert_eq!(ledger.in_flight(), None);
    }
}

#[test]
fn a_refused_io_leaves_no_trace() {
    let mut memory = [0; 16];
    let mut ledger = Ledger::new(&mut memory, 0);
    ledger.begin(&io(Op::Write, 8, 1)).unwrap();
    assert_eq!(ledger.begin(&io(Op::Write, 0, 16)), Err(Refused::Busy));
    assert_eq!(ledger.expected(0), Expected::Zeros);
    ledger.begin(&io(Op::Write, 0, 8)).unwrap();
    assert_eq!(ledger.expected(0), Expected::Generation(2));
}

#[test]
fn an_io_outside_the_ledger_is_refused() {
    let mut memory = [0; 8];
    let mut ledger = Ledger::new(&mut memory, 8);
    for (lba, sectors) in [(7, 1), (7, 2), (15, 2), (16, 1), (0, 1), (u64::MAX, 1), (8, u32::MAX / 512)] {
        assert_eq!(ledger.begin(&io(Op::Read, lba, sectors)), Err(Refused::Outside), "{lba} {sectors}");
        assert_eq!(ledger.finish(&io(Op::Read, lba, sectors), Outcome::Done), Err(Refused::Outside));
    }
    assert_eq!(ledger.begin(&io(Op::Read, 8, 8)), Ok(()));
    assert_eq!((ledger.expected(7), ledger.expected(16)), (Expected::Unknown, Expected::Unknown));
}

#[test]
fn an_io_that_ends_twice_is_noticed() {
    let mut memory = [0; 8];
    let mut ledger = Ledger::new(&mut memory, 0);
    let write = io(Op::Write, 0, 4);
    assert_eq!(ledger.finish(&write, Outcome::Done), Err(Refused::Idle));
    ledger.begin(&write).unwrap();
    ledger.finish(&write, Outcome::Done).unwrap();
    assert_eq!(ledger.finish(&write, Outcome::Failed), Err(Refused::Idle));
    assert_eq!(ledger.expected(0), Expected::Generation(1));
}

#[test]
fn each_outcome_leaves_what_is_documented() {
    let cases = [
        (Op::Read, Outcome::Done, Expected::Generation(1)),
        (Op::Read, Outcome::Failed, Expected::Generation(1)),
        (Op::Write, Outcome::Done, Expected::Generation(2)),
        (Op::Write, Outcome::Failed, Expected::Unknown),
        (Op::Trim, Outcome::Done, Expected::Unknown),
        (Op::Trim, Outcome::Zeroed, Expected::Zeros),
        (Op::Trim, Outcome::Failed, Expected::Unknown),
    ];
    for (op, outcome, expected) in cases {
        let mut memory = [u32::MAX; 4];
        let mut ledger = Ledger::new(&mut memory, 0);
        for (op, outcome) in [(Op::Write, Outcome::Done), (op, outcome)] {
            ledger.begin(&io(op, 1, 2)).unwrap();
            ledger.finish(&io(op, 1, 2), outcome).unwrap();
        }
        assert_eq!([1, 2].map(|lba| ledger.expected(lba)), [expected; 2], "{op:?} {outcome:?}");
        assert_eq!([0, 3].map(|lba| ledger.expected(lba)), [Expected::Zeros; 2]);
    }
}

#[test]
fn a_large_read_is_checked_against_the_small_writes_under_it() {
    let mut memory = [0; 8];
    let mut ledger = Ledger::new(&mut memory, 8);
    let mut data = [0; 4096];
    for (lba, sectors) in [(8, 8), (10, 1), (13, 2)] {
        let write = io(Op::Write, lba, sectors);
        ledger.begin(&write).unwrap();
        let start = (lba as usize - 8) * 512;
        ledger.fill(&write, &mut data[start..start + write.bytes as usize]);
        ledger.finish(&write, Outcome::Done).unwrap();
    }
    let read = io(Op::Read, 8, 8);
    ledger.begin(&read).unwrap();
    assert_eq!(ledger.check(&read, &data), Ok(()));
    assert_eq!([0, 2, 5, 6, 7].map(|n| read_header(&data[n * 512..]).unwrap().generation), [1, 2, 3, 3, 1]);
    fill(&mut data[1024..1536], 10, 1);
    let mismatch = Mismatch::Generation { found: 1, expected: 2 };
    assert_eq!(ledger.check(&read, &data), Err(Fault { lba: 10, mismatch }));
    let mismatch = Mismatch::Length { found: 512 };
    assert_eq!(ledger.check(&read, &data[..512]), Err(Fault { lba: 8, mismatch }));
}

#[test]
fn a_table_is_not_sealed_while_an_io_is_in_flight() {
    let layout = Layout::new(1000, 200).unwrap();
    let mut words = vec![0; 200];
    Ledger::new(&mut words, 0).begin(&io(Op::Read, 150, 2)).unwrap();
    let mut sector = [0; 512];
    assert_eq!(layout.encode_table(&words, 0, &mut sector), Ok(()));
    assert_eq!(layout.encode_table(&words, 1, &mut sector), Err(SealError::InFlight { lba: 150 }));
    assert_eq!(layout.encode_seal(&words, &mut sector), Err(SealError::InFlight { lba: 150 }));
}

#[test]
fn a_table_that_does_not_fit_its_layout_is_refused() {
    let layout = Layout::new(1000, 200).unwrap();
    assert_eq!(layout.encode_table(&[0; 201], 0, &mut [0; 512]), Err(SealError::Length));
    assert_eq!(layout.encode_table(&[0; 200], 1, &mut [0; 1024]), Err(SealError::Length));
    assert_eq!(layout.encode_table(&[0; 200], 0, &mut [0; 100]), Err(SealError::Length));
    assert_eq!(layout.encode_table(&[0; 200], u64::MAX, &mut [0; 1024]), Err(SealError::Length));
    assert_eq!(layout.encode_seal(&[0; 200], &mut [0; 1024]), Err(SealError::Length));
    assert_eq!(layout.encode_table(&[0; 200], 0, &mut [0; 1024]), Ok(()));
}
