//! Who writes which cache line: the two sides apart, two queues apart, and what never changes apart from what does.
//!
//! Everything is found from the addresses that the device is told: the rings, and through their descriptors headers,
//! statuses and tables. (What only the inside can see of private memory is looked at in `src/queue/tests.rs`.)
use crate::fake::{Config, HostMemory, Order};
use crate::rig::{Buf, Heap, World};
use drv_virtio_block::arena::{self, Arena};
use drv_virtio_block::device::Wishes;
use drv_virtio_block::queue::{Chaining, QueueOptions};
use drv_virtio_block::request::{Lba, Request};
use drv_virtio_block::transport::{QueueId, RingAddresses};
use std::collections::BTreeSet;
use std::mem::MaybeUninit;

/// What the rings are laid out by, on every architecture.
const LINE: u64 = 64;
const SIZES: [u16; 8] = [4, 8, 16, 32, 64, 128, 256, 1024];

type Lines = BTreeSet<u64>;

fn lines(address: u64, len: u64) -> impl Iterator<Item = u64> {
    address / LINE..(address + len).div_ceil(LINE)
}

/// The lines that the driver writes, and those that the device writes, of the two rings.
fn sides(rings: &RingAddresses) -> (Lines, Lines) {
    let size = u64::from(rings.size());
    let table = lines(rings.descriptors().0, 16 * size);
    let driver = table.chain(lines(rings.driver().0, 6 + 2 * size)).collect();
    (driver, lines(rings.device().0, 6 + 8 * size).collect())
}

struct Descriptor {
    index: u64,
    address: u64,
    len: u64,
    flags: u16,
}

/// `count` descriptors at `table`, as they are now.
fn descriptors(memory: &HostMemory, table: u64, count: u64) -> Vec<Descriptor> {
    let one = |index: u64| {
        let bytes = memory.bytes(table + 16 * index, 16);
        let word =
            |from: usize, to: usize| bytes[from..to].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Descriptor { index, address: word(0, 8), len: word(8, 12), flags: word(12, 14) as u16 }
    };
    (0..count).map(one).collect()
}

/// Every line that belongs to a queue: its rings and whatever its descriptors name, but for the buffers.
fn queue_lines(memory: &HostMemory, heap: &Heap, rings: &RingAddresses) -> Lines {
    let (mut all, device) = sides(rings);
    all.extend(device);
    let mut tables = vec![(rings.descriptors().0, u64::from(rings.size()))];
    while let Some((table, count)) = tables.pop() {
        for found in
            descriptors(memory, table, count).iter().filter(|found| found.len > 0 && !heap.holds(found.address))
        {
            all.extend(lines(found.address, found.len));
            if found.flags & 4 != 0 {
                tables.push((found.address, found.len / 16));
            }
        }
    }
    all
}

#[test]
fn the_indices_of_the_two_sides_never_share_a_line() {
    for (size, chaining) in SIZES.into_iter().flat_map(|size| [(size, Chaining::Direct), (size, Chaining::Indirect)]) {
        let mut world = World::new(Config { max_queue_size: 1024, ..Config::default() });
        let live = world.prepared(&QueueOptions { size, chaining, ..QueueOptions::default() });
        let (driver, device) = sides(&live.queue.addresses());
        assert!(driver.is_disjoint(&device), "size {size}: avail.idx and used_event against used.idx and avail_event");
    }
}

#[test]
fn used_entries_are_aligned_so_that_eight_fill_a_line() {
    for size in SIZES {
        let mut world = World::new(Config { max_queue_size: 1024, ..Config::default() });
        let live = world.prepared(&QueueOptions { size, ..QueueOptions::default() });
        assert_eq!((live.queue.addresses().device().0 + 4) % LINE, 0, "size {size}");
    }
}

/// A request of every kind of chain.
fn kinds(heap: &Heap) -> Vec<Request<Buf>> {
    vec![
        Request::read(Lba(0), heap.whole(512)),
        Request::write(Lba(1), heap.cut(&[100, 412])),
        Request::flush(),
        Request::discard(Lba(8), 8),
        Request::write(Lba(64), heap.cut(&[512; 9])),
        Request::get_id(heap.whole(20)),
    ]
}

#[test]
fn nothing_that_two_queues_write_shares_a_line() {
    for chaining in [Chaining::Direct, Chaining::Indirect] {
        for (size, slots) in [(4, 0), (8, 0), (64, 0), (64, 5), (256, 0)] {
            let mut world = World::new(Config { num_queues: 3, vectors: 4, ..Config::default() });
            let memory = std::sync::Arc::clone(world.device.memory());
            let options = QueueOptions { size, slots, chaining, large_tables: 2, ..QueueOptions::default() };
            let mut live = world.start(&Wishes { queues: 3, ..Wishes::default() }, &options);
            let mut seen = Lines::new();
            for (number, prepared) in (0..).zip(live.queue) {
                let rings = prepared.addresses();
                let mut queue = prepared.owned(live.running.doorbell(QueueId(number)).unwrap());
                let slots = queue.slots();
                for request in (0..slots).flat_map(|_| kinds(&live.heap)) {
                    drop(queue.submit(request));
                    let mine = queue_lines(&memory, &live.heap, &rings);
                    assert!(seen.is_disjoint(&mine), "queue {number} of size {size}, {chaining:?}");
                    live.device.process_all(number);
                    queue.reap(99, |_| ());
                }
                seen.extend(queue_lines(&memory, &live.heap, &rings));
            }
            live.device.assert_no_faults();
        }
    }
}

#[test]
fn descriptors_that_never_change_are_on_lines_of_their_own() {
    for (size, slots) in [(16, 0), (64, 0), (256, 0), (1024, 0), (256, 10), (64, 7)] {
        let mut world = World::new(Config { max_queue_size: 1024, ..Config::default() });
        let memory = std::sync::Arc::clone(world.device.memory());
        let (mut live, rings) = world.owned_with_addresses(&QueueOptions { size, slots, ..QueueOptions::default() });
        let (table, heap) = (rings.descriptors().0, live.heap.clone());
        let image = || descriptors(&memory, table, size.into());
        let (mut written, before) = (BTreeSet::new(), image());
        for _ in 0..3 {
            for request in (0..200).flat_map(|_| kinds(&heap)) {
                if live.queue.submit(request).is_err() {
                    live.device.process(0, usize::MAX, Order::AsTaken);
                    live.reap();
                }
            }
            for (old, new) in before.iter().zip(image()) {
                if (old.address, old.len, old.flags) != (new.address, new.len, new.flags) {
                    written.insert(new.index);
                }
            }
            live.finish();
        }
        assert!(!written.is_empty());
        let touched: Lines = written.iter().map(|index| (table + 16 * index) / LINE).collect();
        let fixed = before.iter().filter(|one| one.len > 0 && !written.contains(&one.index));
        let fixed: Lines = fixed.map(|one| (table + 16 * one.index) / LINE).collect();
        assert!(touched.is_disjoint(&fixed), "size {size}, {slots} slots");
    }
}

#[test]
fn headers_and_statuses_of_a_slot_share_one_line_and_slots_share_none() {
    let mut world = World::new(Config::default());
    let memory = std::sync::Arc::clone(world.device.memory());
    let live = world.prepared(&QueueOptions { size: 64, ..QueueOptions::default() });
    let slots = u64::from(live.queue.slots());
    let table = descriptors(&memory, live.queue.addresses().descriptors().0, 64);
    let mut seen = Lines::new();
    for slot in 0..slots {
        let (header, status) = (&table[slot as usize], &table[(2 * slots + slot) as usize]);
        assert_eq!((header.len, status.len, status.flags & 2), (16, 1, 2));
        assert_eq!(header.address / LINE, status.address / LINE);
        assert!(seen.insert(header.address / LINE), "slot {slot}");
    }
}

#[test]
fn private_tables_of_two_queues_never_share_a_line() {
    let mut memory = vec![MaybeUninit::uninit(); 4096];
    let mut arena = Arena::new(&mut memory);
    let mut last = 0;
    for count in 1..12 {
        let table = arena.place(count, |_| 0_u8).unwrap();
        let (first, end) = (table.as_ptr().addr() as u64, table.as_ptr_range().end.addr() as u64);
        assert!(first % arena::LINE as u64 == 0 && first >= last, "a table begins on a line of its own");
        last = end;
    }
}
