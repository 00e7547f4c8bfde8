//! Chains that this repository's driver never makes, on a ring written by hand.
use crate::rig::world;
use native::embedded::minimal::{Data, Device, Options, Rings};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const SIZE: u16 = 16;

/// A ring at the front of the shared memory, and scratch memory behind it.
struct Hand {
    device: Device,
    base: *mut u8,
    next: u16,
}

const AVAILABLE: usize = 0x400;
const USED: usize = 0x800;
const SCRATCH: usize = 0x1000;
/// Where the tests put the status byte, preset to a value that no device returns.
const STATUS: usize = 0xf000;

impl Hand {
    fn new(options: Options) -> Self {
        let world = world(options);
        let hand = Self { device: world.device, base: world.base, next: 0 };
        let rings = Rings { size: SIZE, descriptors: hand.at(0), available: hand.at(AVAILABLE), used: hand.at(USED) };
        // SAFETY: zeroed memory of the world's, which lives for ever; only this test touches it.
        unsafe { hand.device.install(0, &rings, false, None) }.unwrap();
        hand.device.start();
        hand.put(STATUS, &[0xff]);
        hand
    }

    fn at(&self, offset: usize) -> u64 {
        self.base.expose_provenance() as u64 + offset as u64
    }

    fn put(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: inside the world's memory; the device runs in this thread only.
        unsafe { self.base.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        // SAFETY: as in `put`.
        unsafe { self.base.add(offset).cast::<[u8; N]>().read_unaligned() }
    }

    fn describe_at(&self, table: usize, index: usize, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.put(table + 16 * index, &bytes);
    }

    /// Descriptors 0, 1, 2, ... as one chain: (place, length, writable).
    fn chain(&self, table: usize, parts: &[(usize, u32, bool)]) {
        for (n, (place, len, writable)) in parts.iter().enumerate() {
            let more = if n + 1 < parts.len() { NEXT } else { 0 };
            let flags = more | if *writable { WRITE } else { 0 };
            self.describe_at(table, n, self.at(*place), *len, flags, n as u16 + 1);
        }
    }

    fn header(&self, kind: u32, sector: u64) {
        self.put(SCRATCH, &kind.to_le_bytes());
        self.put(SCRATCH + 8, &sector.to_le_bytes());
    }

    /// Offers a head and steps the device; the used entry, if there is one.
    fn offer(&mut self, head: u16) -> Option<(u32, u32)> {
        let (at, before) = (usize::from(self.next % SIZE), self.next);
        self.put(AVAILABLE + 4 + 2 * at, &head.to_le_bytes());
        self.next += 1;
        self.put(AVAILABLE + 2, &self.next.to_le_bytes());
        let did = self.device.step(0);
        let used = u16::from_le_bytes(self.get(USED + 2));
        assert_eq!(u64::from(used.wrapping_sub(before)), did as u64);
        let entry = USED + 4 + 8 * at;
        (did == 1).then(|| (u32::from_le_bytes(self.get(entry)), u32::from_le_bytes(self.get(entry + 4))))
    }

    fn status(&self) -> u8 {
        self.get::<1>(STATUS)[0]
    }

    /// A request in the usual three parts; status and bytes written.
    fn usual(&mut self, kind: u32, sector: u64, len: u32, writable: bool) -> (u8, u32) {
        self.header(kind, sector);
        self.put(STATUS, &[0xff]);
        self.chain(0, &[(SCRATCH, 16, false), (SCRATCH + 64, len, writable), (STATUS, 1, true)]);
        let (id, written) = self.offer(0).expect("an answer");
        assert_eq!(id, 0);
        (self.status(), written)
    }
}

fn both() -> [Hand; 2] {
    [Data::Null, Data::Ram].map(|data| Hand::new(Options { data, sectors: 64, ..Options::default() }))
}

#[test]
fn unknown_request_types_are_unsupported() {
    for mut hand in both() {
        for kind in [2, 3, 5, 12, 14, 15, u32::MAX] {
            assert_eq!(hand.usual(kind, 0, 512, true), (2, 1), "type {kind}");
        }
        assert_eq!(hand.usual(0, 0, 512, true), (0, 513), "and nothing is broken");
    }
}

#[test]
fn what_does_not_lie_on_the_medium_is_an_error_of_the_medium() {
    for mut hand in both() {
        for (sector, len) in [(64, 512), (63, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 65 * 512), (0, 511)] {
            assert_eq!(hand.usual(0, sector, len, true), (1, 1), "read {len} at {sector}");
            assert_eq!(hand.usual(1, sector, len, false), (1, 1), "write {len} at {sector}");
        }
        assert_eq!(hand.usual(0, 62, 1024, true), (0, 1025));
        assert_eq!(hand.usual(1, 62, 1024, false), (0, 1));
        assert!(!hand.device.is_broken());
    }
}

#[test]
fn data_that_flows_the_wrong_way_is_no_data() {
    for mut hand in both() {
        // A read without room, a write without data: nothing to transfer, which is whole sectors.
        assert_eq!(hand.usual(0, 0, 512, false), (0, 1));
        assert_eq!(hand.usual(1, 0, 512, true), (0, 1));
    }
}

#[test]
fn a_discard_that_is_not_one_segment_is_refused() {
    for mut hand in both() {
        for (len, flags, expected) in [(16, 0, 0), (15, 0, 1), (32, 0, 1), (16, 1, 2), (16, 2, 2)] {
            hand.put(SCRATCH + 64, &1_u64.to_le_bytes());
            hand.put(SCRATCH + 72, &4_u32.to_le_bytes());
            hand.put(SCRATCH + 76, &u32::to_le_bytes(flags));
            assert_eq!(hand.usual(11, 0, len, false), (expected, 1), "{len} bytes, flags {flags}");
        }
        hand.put(SCRATCH + 64, &60_u64.to_le_bytes());
        hand.put(SCRATCH + 76, &1_u32.to_le_bytes());
        assert_eq!(hand.usual(13, 0, 16, false), (0, 1), "to the end, with unmap");
        hand.put(SCRATCH + 72, &5_u32.to_le_bytes());
        assert_eq!(hand.usual(13, 0, 16, false), (1, 1), "beyond it");
    }
}

#[test]
fn a_header_in_pieces_and_a_status_behind_the_data_are_understood() {
    let mut hand = Hand::new(Options { data: Data::Ram, sectors: 64, ..Options::default() });
    hand.put(SCRATCH + 64, &[0x5a; 512]);
    assert_eq!(hand.usual(1, 3, 512, false), (0, 1));
    hand.header(0, 3);
    let (a, b, into) = (SCRATCH, SCRATCH + 5, SCRATCH + 0x1000);
    hand.put(into + 512, &[0xff]);
    for table in [0, 0x2000] {
        hand.put(into, &[0; 512]);
        hand.chain(table, &[(a, 5, false), (b, 11, false), (into, 100, true), (into + 100, 413, true)]);
        if table != 0 {
            hand.describe_at(0, 0, hand.at(table), 64, INDIRECT, 0);
        }
        assert_eq!(hand.offer(0), Some((0, 513)));
        assert_eq!((hand.get::<512>(into), hand.get::<1>(into + 512)), ([0x5a; 512], [0]), "table {table:#x}");
    }
}

#[test]
fn direct_descriptors_before_a_table_are_one_chain_with_it() {
    for mut hand in both() {
        hand.header(0, 0);
        hand.describe_at(0, 7, hand.at(SCRATCH), 16, NEXT, 3);
        hand.describe_at(0, 3, hand.at(0x2000), 32, INDIRECT, 0);
        hand.chain(0x2000, &[(SCRATCH + 64, 1024, true), (STATUS, 1, true)]);
        assert_eq!((hand.offer(7), hand.status()), (Some((7, 1025)), 0));
    }
}

/// Offers what `make` makes and expects the device to give up, once and for good.
fn breaks(what: &str, make: impl Fn(&Hand) -> u16) {
    for mut hand in both() {
        assert_eq!(hand.usual(4, 0, 0, true), (0, 1), "good before");
        hand.put(STATUS, &[0xff]);
        hand.header(0, 0);
        let head = make(&hand);
        assert_eq!((hand.offer(head), hand.status(), hand.device.is_broken()), (None, 0xff, true), "{what}");
        assert_eq!(hand.device.step(0), 0, "{what}: and stays so");
        hand.device.halt();
        assert!(hand.device.try_quiesce());
        assert!(!hand.device.is_broken(), "until it is reset");
    }
}

#[test]
fn chains_without_sense_break_the_device_and_touch_nothing() {
    let (header, data, status) = ((SCRATCH, 16, false), (SCRATCH + 64, 512, true), (STATUS, 1, true));
    breaks("a head outside the table", |_| SIZE);
    breaks("a next outside the table", |hand| {
        hand.describe_at(0, 0, hand.at(SCRATCH), 16, NEXT, SIZE);
        0
    });
    breaks("a loop", |hand| {
        hand.describe_at(0, 0, hand.at(SCRATCH), 16, NEXT, 1);
        hand.describe_at(0, 1, hand.at(SCRATCH), 16, NEXT, 0);
        0
    });
    breaks("no status", |hand| {
        hand.chain(0, &[header, (SCRATCH + 64, 512, false)]);
        0
    });
    breaks("a short header", |hand| {
        hand.chain(0, &[(SCRATCH, 15, false), data, status]);
        0
    });
    breaks("a readable part behind a writable one", |hand| {
        hand.chain(0, &[header, data, (SCRATCH, 16, false), status]);
        0
    });
    breaks("an empty table", |hand| {
        hand.describe_at(0, 0, hand.at(0x2000), 0, INDIRECT, 0);
        0
    });
    breaks("a table of a table and a half", |hand| {
        hand.chain(0x2000, &[header, data, status]);
        hand.describe_at(0, 0, hand.at(0x2000), 56, INDIRECT, 0);
        0
    });
    breaks("a table in a table", |hand| {
        hand.describe_at(0x2000, 0, hand.at(0x2000), 16, INDIRECT, 0);
        hand.describe_at(0, 0, hand.at(0x2000), 16, INDIRECT, 0);
        0
    });
    breaks("a table that goes on", |hand| {
        hand.chain(0x2000, &[header, data, status]);
        hand.describe_at(0, 0, hand.at(0x2000), 48, INDIRECT | NEXT, 1);
        0
    });
}

#[test]
fn addresses_outside_the_regions_break_the_device_and_touch_nothing() {
    let outside = [0, 0x1000, u64::MAX, u64::MAX - 7];
    for address in outside {
        breaks("a header outside", |hand| {
            hand.chain(0, &[(SCRATCH, 16, false), (SCRATCH + 64, 512, true), (STATUS, 1, true)]);
            hand.describe_at(0, 0, address, 16, NEXT, 1);
            0
        });
        breaks("a status outside", |hand| {
            hand.chain(0, &[(SCRATCH, 16, false), (SCRATCH + 64, 512, true), (STATUS, 1, true)]);
            hand.describe_at(0, 2, address, 1, WRITE, 0);
            0
        });
        breaks("a table outside", |hand| {
            hand.describe_at(0, 0, address & !7, 48, INDIRECT, 0);
            0
        });
    }
    // Across the end of the region, and data: null data is never touched, so only the one that moves it minds.
    let mut hand = Hand::new(Options { data: Data::Ram, ..Options::default() });
    hand.header(0, 0);
    hand.chain(0, &[(SCRATCH, 16, false), (SCRATCH + 64, 512, true), (STATUS, 1, true)]);
    hand.describe_at(0, 1, hand.at((1 << 23) - 511), 512, NEXT | WRITE, 2);
    assert_eq!((hand.offer(0), hand.device.is_broken()), (None, true));
}

#[test]
fn an_index_that_is_too_far_ahead_breaks_the_device() {
    let mut hand = Hand::new(Options::default());
    hand.header(4, 0);
    hand.chain(0, &[(SCRATCH, 16, false), (STATUS, 1, true)]);
    assert_eq!(hand.offer(0), Some((0, 1)));
    hand.put(AVAILABLE + 2, &(SIZE + 2).to_le_bytes());
    assert_eq!((hand.device.step(0), hand.device.is_broken()), (0, true));
    assert_eq!(hand.get::<2>(USED + 2), [1, 0]);
}

#[test]
fn good_chains_before_a_bad_one_are_answered() {
    for mut hand in both() {
        hand.header(4, 0);
        hand.chain(0, &[(SCRATCH, 16, false), (STATUS, 1, true)]);
        hand.put(AVAILABLE + 4, &[0, 0, 0, 0]);
        hand.next = 2;
        hand.put(AVAILABLE + 2, &hand.next.to_le_bytes());
        hand.put(AVAILABLE + 4 + 4, &99_u16.to_le_bytes());
        hand.put(AVAILABLE + 2, &3_u16.to_le_bytes());
        assert_eq!(hand.device.step(0), 2);
        assert_eq!((hand.get::<2>(USED + 2), hand.status(), hand.device.is_broken()), ([2, 0], 0, true));
    }
}

#[test]
fn rings_that_are_none_are_not_installed() {
    use native::embedded::minimal::InstallError;
    let world = world(Options { queue_size: 64, ..Options::default() });
    let at = world.base.expose_provenance() as u64;
    let good = Rings { size: 16, descriptors: at, available: at + 0x400, used: at + 0x800 };
    let bad = [
        Rings { size: 0, ..good },
        Rings { size: 12, ..good },
        Rings { size: 128, ..good },
        Rings { descriptors: at + 8, ..good },
        Rings { available: at + 0x401, ..good },
        Rings { used: at + 0x802, ..good },
        Rings { descriptors: at + (1 << 23) - 240, ..good },
        Rings { used: 0x1000, ..good },
    ];
    for rings in bad {
        // SAFETY: refused, so that nothing is ever touched.
        assert_eq!(unsafe { world.device.install(0, &rings, true, None) }, Err(InstallError::Rings), "{rings:?}");
    }
    // SAFETY: zeroed memory of this world, which lives for ever.
    unsafe {
        assert_eq!(world.device.install(1, &good, true, None), Err(InstallError::NoSuchQueue));
        assert_eq!(world.device.install(0, &good, true, None), Ok(()));
        assert_eq!(world.device.install(0, &good, true, None), Err(InstallError::Twice));
    }
}
