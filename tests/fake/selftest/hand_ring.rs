//! A driver in a few lines: descriptors and indices as bytes, no cleverness, so that the fake can be tested alone.
//!
//! Slot `n` uses descriptors `3n`, `3n + 1`, `3n + 2`, a header, a status byte and 8 KiB of data of its own.
use crate::fake::wire::{descriptor, features, le16, le32};
use crate::fake::{Config, FakeDevice, HostMemory};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

pub(crate) const ALL: u64 = features::IMPLEMENTED;
const MEMORY: usize = 8 << 20;
const QUEUE_BYTES: u64 = 0x8000;
const SLOTS: u64 = 0x10_0000;
const SLOT_BYTES: u64 = 0x3000;
pub(crate) const NEXT: u16 = descriptor::NEXT;
pub(crate) const WRITE: u16 = descriptor::WRITE;
pub(crate) const INDIRECT: u16 = descriptor::INDIRECT;

/// A device that has not been touched, with 8 MiB of memory.
pub(crate) fn device(config: Config) -> FakeDevice {
    FakeDevice::new(HostMemory::new(MEMORY), config)
}

/// One queue of a device, driven by hand.
pub(crate) struct HandRing {
    pub(crate) device: FakeDevice,
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) queue: u16,
    pub(crate) size: u16,
    pub(crate) avail: u16,
    pub(crate) seen: u16,
}

impl HandRing {
    /// A live device with one queue.
    pub(crate) fn live(config: Config, accepted: u64, size: u16) -> Self {
        let device = device(config);
        device.negotiate(accepted);
        let ring = Self::set_up(&device, 0, size);
        device.go_live();
        device.assert_no_faults();
        ring
    }

    /// A live default device with everything negotiated.
    pub(crate) fn plain() -> Self {
        Self::live(Config::default(), ALL, 64)
    }

    /// Sets up one queue of a device that has negotiated.
    pub(crate) fn set_up(device: &FakeDevice, queue: u16, size: u16) -> Self {
        let memory = Arc::clone(device.memory());
        let ring = Self { device: device.clone(), memory, queue, size, avail: 0, seen: 0 };
        device.set_up_queue(queue, size, ring.part(0), ring.part(1), ring.part(2));
        ring
    }

    /// Address of the descriptor table, available ring, used ring.
    pub(crate) fn part(&self, part: u64) -> u64 {
        self.memory.device_base() + QUEUE_BYTES * u64::from(self.queue) + [0, 0x2000, 0x4000][part as usize]
    }

    fn slot(&self, slot: u16) -> u64 {
        self.memory.device_base() + SLOTS + SLOT_BYTES * (u64::from(self.queue) * 64 + u64::from(slot))
    }

    pub(crate) fn header(&self, slot: u16) -> u64 {
        self.slot(slot)
    }

    pub(crate) fn status(&self, slot: u16) -> u64 {
        self.slot(slot) + 32
    }

    pub(crate) fn table(&self, slot: u16) -> u64 {
        self.slot(slot) + 64
    }

    pub(crate) fn data(&self, slot: u16) -> u64 {
        self.slot(slot) + 0x1000
    }

    /// The status byte that the device wrote.
    pub(crate) fn answer(&self, slot: u16) -> u8 {
        self.memory.bytes(self.status(slot), 1)[0]
    }

    /// Writes a descriptor into the table at `table`.
    pub(crate) fn describe(&self, table: u64, at: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&buffer.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&buffer.1.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.put(table + 16 * u64::from(at), &bytes);
    }

    pub(crate) fn write_header(&self, slot: u16, kind: u32, sector: u64) {
        self.memory.put(self.header(slot), &kind.to_le_bytes());
        self.memory.put(self.header(slot) + 4, &[0; 4]);
        self.memory.put(self.header(slot) + 8, &sector.to_le_bytes());
        self.memory.put(self.status(slot), &[0xff]);
    }

    /// Builds a request of slot's own descriptors: header, data if any, status.
    pub(crate) fn build(&self, slot: u16, kind: u32, sector: u64, data: u32) -> u16 {
        let writes = if matches!(kind, 0 | 8) { WRITE } else { 0 };
        let (head, table) = (3 * slot, self.part(0));
        self.write_header(slot, kind, sector);
        let after_header = if data == 0 { head + 2 } else { head + 1 };
        self.describe(table, head, (self.header(slot), 16), NEXT, after_header);
        self.describe(table, head + 1, (self.data(slot), data), NEXT | writes, head + 2);
        self.describe(table, head + 2, (self.status(slot), 1), WRITE, 0);
        head
    }

    /// Puts a head into the available ring; the device does not see it yet.
    pub(crate) fn offer(&mut self, head: u16) {
        let entry = self.part(1) + 4 + 2 * u64::from(self.avail % self.size);
        self.memory.store16(entry, head, Ordering::Relaxed).expect("inside");
        self.avail = self.avail.wrapping_add(1);
    }

    /// Shows everything offered to the device; rings nothing.
    pub(crate) fn publish(&self) {
        self.memory.store16(self.part(1) + 2, self.avail, Ordering::Release).expect("inside");
        fence(Ordering::SeqCst);
    }

    /// Builds, offers and publishes.
    pub(crate) fn submit(&mut self, slot: u16, kind: u32, sector: u64, data: u32) {
        let head = self.build(slot, kind, sector, data);
        self.offer(head);
        self.publish();
    }

    /// Submits, lets the device do it, and tells the status.
    pub(crate) fn run(&mut self, kind: u32, sector: u64, data: u32) -> u8 {
        self.submit(0, kind, sector, data);
        self.device.process_all(self.queue);
        self.reap();
        self.answer(0)
    }

    /// Writes `data` to the disk.
    pub(crate) fn write(&mut self, sector: u64, data: &[u8]) {
        self.memory.put(self.data(0), data);
        assert_eq!(self.run(1, sector, data.len() as u32), 0);
    }

    pub(crate) fn word(&self, address: u64) -> u16 {
        le16(&self.memory.bytes(address, 2), 0)
    }

    pub(crate) fn used_idx(&self) -> u16 {
        self.memory.load16(self.part(2) + 2, Ordering::Acquire).expect("inside")
    }

    pub(crate) fn used_flags(&self) -> u16 {
        self.word(self.part(2))
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.word(self.part(2) + 4 + 8 * u64::from(self.size))
    }

    pub(crate) fn set_used_event(&self, event: u16) {
        self.memory.store16(self.part(1) + 4 + 2 * u64::from(self.size), event, Ordering::Relaxed).expect("inside");
        fence(Ordering::SeqCst);
    }

    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.memory.store16(self.part(1), flags, Ordering::Relaxed).expect("inside");
    }

    /// All used entries that are new: id and length.
    pub(crate) fn reap(&mut self) -> Vec<(u32, u32)> {
        let mut entries = Vec::new();
        while self.seen != self.used_idx() {
            let element = self.part(2) + 4 + 8 * u64::from(self.seen % self.size);
            let bytes = self.memory.bytes(element, 8);
            entries.push((le32(&bytes, 0), le32(&bytes, 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        entries
    }
}
