//! The medium: sectors, and a write cache that a power cut empties.
//!
//! The clock ticks once per publish of used entries. A write carries the tick at which the driver could know of its
//! completion; a FLUSH carries the tick at which it was sent. The FLUSH makes stable what had completed when it was
//! sent, and nothing else: the strictest device that 5.2.6.2 allows.
use super::wire::block;
use super::{FakeDevice, Inner};
use std::collections::HashMap;

const SECTOR: usize = block::SECTOR as usize;
type Sector = Box<[u8; SECTOR]>;

/// The medium; sectors never written read as zeros.
#[derive(Default)]
pub(super) struct Disk {
    stable: HashMap<u64, Sector>,
    /// Content, and the tick of the oldest write that no FLUSH has covered.
    cached: HashMap<u64, (Sector, u64)>,
    now: u64,
}

impl Disk {
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Used entries have become visible to the driver.
    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    fn sector(&self, at: u64) -> [u8; SECTOR] {
        let cached = self.cached.get(&at).map(|(data, _)| data);
        cached.or_else(|| self.stable.get(&at)).map_or([0; SECTOR], |data| **data)
    }

    /// The content of `count` sectors.
    pub(super) fn read(&self, first: u64, count: u64) -> Vec<u8> {
        let mut content = Vec::with_capacity(count as usize * SECTOR);
        for at in first..first + count {
            content.extend_from_slice(&self.sector(at));
        }
        content
    }

    /// Writes whole sectors; a `volatile` write completes with the next tick and waits for a FLUSH.
    pub(super) fn write(&mut self, first: u64, data: &[u8], volatile: bool) {
        for (at, bytes) in (first..).zip(data.chunks_exact(SECTOR)) {
            let data: Sector = Box::new(bytes.try_into().expect("chunks of a sector"));
            if volatile {
                let completes = self.now + 1;
                self.cached.entry(at).or_insert_with(|| (Box::new([0; SECTOR]), completes)).0 = data;
            } else {
                self.cached.remove(&at);
                self.stable.insert(at, data);
            }
        }
    }

    /// Makes stable what had completed at tick `sent`.
    pub(super) fn flush(&mut self, sent: u64) {
        let stable = &mut self.stable;
        self.cached.retain(|at, (data, completed)| {
            let covered = *completed <= sent;
            if covered {
                stable.insert(*at, data.clone());
            }
            !covered
        });
    }

    fn power_cut(&mut self) {
        self.cached.clear();
    }
}

/// The test's side.
impl FakeDevice {
    /// The content of `count` sectors as a read would find it.
    pub(crate) fn disk(&self, first: u64, count: u64) -> Vec<u8> {
        self.with(|inner| inner.disk.read(first, count))
    }

    /// Puts whole sectors on the medium, stable.
    pub(crate) fn put_disk(&self, first: u64, data: &[u8]) {
        assert!(data.len().is_multiple_of(SECTOR), "whole sectors");
        self.with(|inner| inner.disk.write(first, data, false));
    }

    /// Sectors whose last write no FLUSH has covered.
    pub(crate) fn unstable_sectors(&self) -> usize {
        self.with(|inner| inner.disk.cached.len())
    }

    /// The write cache is lost; what [`Self::disk`] then tells is what survived.
    pub(crate) fn power_cut(&self) {
        self.with(|inner| inner.disk.power_cut());
    }
}
