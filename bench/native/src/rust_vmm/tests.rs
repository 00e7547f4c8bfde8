//! Requests on a ring in guest memory, written by hand, as good and bad drivers write them.
use super::backend::Backend;
use super::{Medium, Options};
use drv_virtio_block::spec::config;
use std::sync::Arc;
use vhost_user_backend::VhostUserBackend;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const SIZE: u16 = 16;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const HEADER: u64 = 0x1000;
const DATA: u64 = 0x2000;
const STATUS: u64 = 0x1800;
const TABLE: u64 = 0x1c00;
const SECTORS: u64 = 300;

struct Guest {
    device: Backend,
    memory: Arc<GuestMemoryMmap>,
    queue: Queue,
    next: u16,
}

impl Guest {
    fn new(options: Options) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut queue = Queue::new(1024).unwrap();
        queue.set_size(SIZE);
        queue.set_desc_table_address(Some(0), Some(0));
        queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
        queue.set_used_ring_address(Some(USED as u32), Some(0));
        queue.set_ready(true);
        let device = Backend::new(Medium::ram(SECTORS).unwrap(), options).unwrap();
        Self { device, memory: Arc::new(memory), queue, next: 0 }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn describe(&self, table: u64, index: u64, address: u64, len: u32, flags: u16, next: u16) {
        let at = table + 16 * index;
        self.put(at, &address.to_le_bytes());
        self.put(at + 8, &len.to_le_bytes());
        self.put(at + 12, &flags.to_le_bytes());
        self.put(at + 14, &next.to_le_bytes());
    }

    fn chain(&self, table: u64, parts: &[(u64, u32, bool)]) {
        for (n, (address, len, writable)) in (0..).zip(parts) {
            let more = if n + 1 < parts.len() as u64 { NEXT } else { 0 };
            self.describe(table, n, *address, *len, more | if *writable { WRITE } else { 0 }, n as u16 + 1);
        }
    }

    fn header(&self, kind: u32, sector: u64) {
        self.put(HEADER, &kind.to_le_bytes());
        self.put(HEADER + 8, &sector.to_le_bytes());
        self.put(STATUS, &[0xff]);
    }

    fn offer(&mut self, head: u16) {
        self.put(AVAILABLE + 4 + 2 * u64::from(self.next % SIZE), &head.to_le_bytes());
        self.next += 1;
        self.put(AVAILABLE + 2, &self.next.to_le_bytes());
    }

    fn drain(&mut self) -> usize {
        self.device.drain(&mut self.queue, &self.memory).unwrap()
    }

    /// Offers chain `head`; the length in its used entry.
    fn ask(&mut self, head: u16) -> u32 {
        let at = USED + 4 + 8 * u64::from(self.next % SIZE);
        self.offer(head);
        assert_eq!(self.drain(), 1);
        assert_eq!(self.get(USED + 2, 2), self.next.to_le_bytes());
        let entry = self.get(at, 8);
        assert_eq!(entry[..4], u32::from(head).to_le_bytes());
        u32::from_le_bytes(entry[4..].try_into().unwrap())
    }

    fn status(&self) -> u8 {
        self.get(STATUS, 1)[0]
    }

    /// A request in the usual parts; status and bytes written.
    fn usual(&mut self, kind: u32, sector: u64, len: u32, writable: bool) -> (u8, u32) {
        self.header(kind, sector);
        self.chain(0, &[(HEADER, 16, false), (DATA, len, writable), (STATUS, 1, true)]);
        let written = self.ask(0);
        (self.status(), written)
    }

    fn range(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
        self.put(DATA, &sector.to_le_bytes());
        self.put(DATA + 8, &sectors.to_le_bytes());
        self.put(DATA + 12, &flags.to_le_bytes());
        self.usual(kind, 0, 16, false).0
    }
}

fn guest() -> Guest {
    Guest::new(Options::default())
}

/// More than one chunk, in a pattern.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| ((n * 7) ^ (n >> 8)) as u8).collect()
}

#[test]
fn what_was_written_is_read_back_in_any_framing() {
    let (mut guest, len) = (guest(), 200 * 512);
    let data = pattern(len);
    guest.put(DATA, &data);
    assert_eq!(guest.usual(1, 50, len as u32, false), (0, 1));
    for table in [0, TABLE] {
        guest.put(DATA, &vec![0; len]);
        guest.header(0, 50);
        let (first, rest) = (100, len as u32 - 100);
        guest.chain(
            table,
            &[
                (HEADER, 7, false),
                (HEADER + 7, 9, false),
                (DATA, first, true),
                (DATA + 100, rest, true),
                (STATUS, 1, true),
            ],
        );
        if table != 0 {
            guest.describe(0, 0, table, 5 * 16, INDIRECT, 0);
        }
        assert_eq!((guest.ask(0), guest.status()), (len as u32 + 1, 0));
        assert_eq!(guest.get(DATA, len), data);
    }
}

#[test]
fn what_does_not_lie_on_the_medium_is_refused() {
    let mut guest = guest();
    for (sector, len) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511)] {
        assert_eq!(guest.usual(0, sector, len, true), (1, 1), "read {len} at {sector}");
        assert_eq!(guest.usual(1, sector, len, false), (1, 1), "write {len} at {sector}");
    }
    assert_eq!(guest.usual(0, SECTORS - 1, 512, true), (0, 513));
}

#[test]
fn ranges_read_as_zeros_and_their_neighbours_do_not() {
    for (kind, flags) in [(11, 0), (13, 0), (13, 1)] {
        let mut guest = guest();
        guest.put(DATA, &[0x5a; 20 * 512]);
        assert_eq!(guest.usual(1, 0, 20 * 512, false), (0, 1));
        assert_eq!(guest.range(kind, 5, 9, flags), 0);
        assert_eq!(guest.usual(0, 0, 20 * 512, true).0, 0);
        let expected: Vec<u8> =
            (0..20 * 512).map(|n| if (5 * 512..14 * 512).contains(&n) { 0 } else { 0x5a }).collect();
        assert_eq!(guest.get(DATA, 20 * 512), expected, "type {kind}");
        // Beyond the end, too long, with a flag that there is not, and not one range.
        assert_eq!(guest.range(kind, SECTORS - 1, 2, flags), 1);
        assert_eq!(guest.range(kind, u64::MAX, 1, flags), 1);
        assert_eq!(guest.range(kind, 0, 1, 2), 2);
        assert_eq!((guest.usual(kind, 0, 32, false), guest.usual(kind, 0, 15, false)), ((1, 1), (1, 1)));
    }
    let mut short = Guest::new(Options { max_range_sectors: 4, ..Options::default() });
    assert_eq!((short.range(13, 0, 4, 0), short.range(13, 0, 5, 0)), (0, 1));
    assert_eq!(guest().range(11, 0, 1, 1), 2, "a discard with the unmap flag");
}

#[test]
fn flush_identity_and_unknown_types_are_answered() {
    let mut guest = guest();
    guest.header(4, 0);
    guest.chain(0, &[(HEADER, 16, false), (STATUS, 1, true)]);
    assert_eq!((guest.ask(0), guest.status()), (1, 0));
    assert_eq!(guest.usual(8, 0, 20, true), (0, 21));
    assert_eq!(guest.get(DATA, 20), b"rust-vmm\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(guest.usual(8, 0, 19, true).0, 1, "no room");
    for kind in [2, 3, 5, 14, u32::MAX] {
        assert_eq!(guest.usual(kind, 0, 512, true), (2, 1), "type {kind}");
    }
    let features = Options::default().features & !drv_virtio_block::spec::feature::DISCARD;
    assert_eq!(Guest::new(Options { features, ..Options::default() }).range(11, 0, 1, 0), 2, "not offered");
}

#[test]
fn a_read_only_device_changes_nothing() {
    let mut guest = Guest::new(Options { read_only: true, ..Options::default() });
    guest.put(DATA, &[1; 512]);
    assert_eq!(guest.usual(1, 0, 512, false), (1, 1));
    assert_eq!((guest.range(11, 0, 1, 0), guest.range(13, 0, 1, 0)), (1, 1));
    assert_eq!(guest.usual(0, 0, 512, true), (0, 513));
    assert_eq!(guest.get(DATA, 512), [0; 512]);
}

#[test]
fn chains_without_sense_are_given_back_and_the_next_one_is_served() {
    let mut guest = guest();
    let nowhere = 1 << 30;
    let bad: [&dyn Fn(&Guest); 9] = [
        &|guest| guest.chain(0, &[(HEADER, 16, false), (DATA, 512, false)]),
        &|guest| guest.chain(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 0, true)]),
        &|guest| guest.chain(0, &[(nowhere, 16, false), (DATA, 512, true), (STATUS, 1, true)]),
        &|guest| guest.chain(0, &[(HEADER, 16, false), (nowhere, 512, true), (STATUS, 1, true)]),
        &|guest| guest.chain(0, &[(HEADER, 16, false), (DATA, 512, true), (u64::MAX, 1, true)]),
        &|guest| guest.describe(0, 0, HEADER, 16, NEXT, 0),
        &|guest| guest.describe(0, 0, HEADER, 16, NEXT, SIZE),
        &|guest| guest.describe(0, 0, TABLE, 17, INDIRECT, 0),
        &|guest| {
            guest.describe(TABLE, 0, TABLE, 16, INDIRECT, 0);
            guest.describe(0, 0, TABLE, 16, INDIRECT, 0);
        },
    ];
    for (n, make) in bad.iter().enumerate() {
        guest.header(0, 0);
        make(&guest);
        let written = guest.ask(0);
        assert!(guest.status() != 0 && written <= 513, "{n}: status {}, {written} bytes", guest.status());
        assert_eq!(guest.usual(0, 0, 512, true), (0, 513), "after {n}");
    }
    guest.header(0, 0);
    guest.chain(0, &[(HEADER, 15, false), (DATA, 512, true), (STATUS, 1, true)]);
    assert_eq!((guest.ask(0), guest.status()), (1, 1), "a short header with room for an answer");
}

#[test]
fn an_index_too_far_ahead_and_a_head_outside_make_no_progress_and_no_panic() {
    let mut guest = guest();
    guest.put(AVAILABLE + 2, &(SIZE + 1).to_le_bytes());
    assert_eq!(guest.drain(), 0);
    assert_eq!(guest.get(USED + 2, 2), [0, 0]);
    guest.put(AVAILABLE + 2, &[1, 0]);
    guest.put(AVAILABLE + 4, &SIZE.to_le_bytes());
    assert!(guest.device.drain(&mut guest.queue, &guest.memory).is_err(), "there is nothing to give back");
}

#[test]
fn the_configuration_says_what_was_asked_for_and_only_the_cache_can_be_changed() {
    let device = Backend::new(Medium::ram(77).unwrap(), Options { queues: 3, ..Options::default() }).unwrap();
    let all = device.get_config(0, config::LEN);
    assert_eq!((all.len(), &all[..8]), (60, &77_u64.to_le_bytes()[..]));
    assert_eq!(device.get_config(config::NUM_QUEUES, 2), [3, 0]);
    assert!(device.get_config(0, 61).is_empty() && device.get_config(u32::MAX, 4).is_empty());
    assert!(device.set_config(config::WRITEBACK, &[0]).is_ok());
    assert_eq!(device.get_config(config::WRITEBACK, 1), [0]);
    assert!(device.set_config(config::CAPACITY, &[0]).is_err() && device.set_config(config::WRITEBACK, &[]).is_err());
    device.forget_client();
    assert_eq!(device.get_config(config::WRITEBACK, 1), [1], "the next client finds it as it was");
}

#[test]
fn options_that_make_no_device_are_refused() {
    for options in [
        Options { queues: 0, ..Options::default() },
        Options { queues: 33, ..Options::default() },
        Options { queue_size: 100, ..Options::default() },
    ] {
        assert!(Backend::new(Medium::ram(1).unwrap(), options).is_err());
    }
}
