//! What of a chain is data, read from the ring as a device reads it; and whether anybody granted that.
use crate::fake::HostMemory;
use drv_virtio_block::transport::RingAddresses;

/// Memory that the device was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) address: u64,
    pub(crate) len: u64,
    /// The device writes it.
    pub(crate) written: bool,
}

/// The descriptors of the chain at `head`, but for its header and its status.
pub(crate) fn segments(memory: &HostMemory, ring: &RingAddresses, head: u16) -> Vec<Told> {
    let (mut table, mut at) = (ring.descriptors().0, u64::from(head));
    let mut all = Vec::new();
    loop {
        let bytes = memory.bytes(table + 16 * at, 16);
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let address = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        let (flags, next) = (half(12), half(14));
        if flags & 4 != 0 {
            (table, at) = (address, 0);
            continue;
        }
        all.push(Told { address, len: len.into(), written: flags & 2 != 0 });
        if flags & 1 == 0 {
            break;
        }
        at = next.into();
    }
    all[1..all.len() - 1].to_vec()
}

/// Memory that a session may use at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) address: u64,
    pub(crate) len: u64,
    /// The device may write it.
    pub(crate) writable: bool,
}

impl Granted {
    /// Whether all of `told` is inside, and used as is allowed.
    pub(crate) fn covers(&self, told: &Told) -> bool {
        let inside = self.address <= told.address && told.address + told.len <= self.address + self.len;
        inside && (self.writable || !told.written)
    }
}

/// What a session may have the device do: kept by the test, which never asks the front end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) rights: u16,
    /// First sector and sectors.
    pub(crate) extents: Vec<(u64, u64)>,
    pub(crate) memory: Vec<Granted>,
}

impl Bounds {
    /// Whether one extent has all of these sectors.
    pub(crate) fn hold(&self, sector: u64, sectors: u64) -> bool {
        let inside = |(first, count): &(u64, u64)| *first <= sector && sector + sectors <= first + count;
        sectors > 0 && self.extents.iter().any(inside)
    }

    pub(crate) fn grant(&self, told: &Told) -> bool {
        self.memory.iter().any(|granted| granted.covers(told))
    }
}
