//! Garbage where only the driver may write: a driver that keeps its own copies does not notice.
use super::{FakeDevice, Inner};
use std::sync::atomic::Ordering;

/// What the device scribbles over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// The whole descriptor table.
    Descriptors,
    /// The whole available ring: flags, index, entries, `used_event`.
    Available,
    /// The headers of all chains in flight.
    Headers,
    /// The indirect tables of all chains in flight.
    Tables,
}

/// What was there before.
pub(super) struct Scribble {
    address: u64,
    before: Vec<u8>,
}

/// Neither a plausible index nor a plausible address.
const GARBAGE: [u8; 2] = [0xa7, 0xb9];

impl Inner {
    pub(super) fn scribble(&mut self, queue: u16, area: Area) {
        let ring = self.ring(queue);
        let (descriptors, available) = (16 * u64::from(ring.size()), 6 + 2 * u64::from(ring.size()));
        let spans = match area {
            Area::Descriptors => vec![(ring.registers.parts[0], descriptors)],
            Area::Available => vec![(ring.registers.parts[1], available)],
            Area::Headers => ring.headers(),
            Area::Tables => ring.flights.values().filter_map(|flight| flight.chain.table).collect(),
        };
        for (address, len) in spans {
            let before = self.memory.bytes(address, len as usize);
            let garbage: Vec<u8> = GARBAGE.into_iter().cycle().take(before.len()).collect();
            self.memory.put(address, &garbage);
            self.ring(queue).scribbles.push(Scribble { address, before });
        }
    }

    /// Puts back what is still garbage; what the driver wrote meanwhile stays.
    fn unscribble(&mut self, queue: u16) {
        for scribble in std::mem::take(&mut self.ring(queue).scribbles).into_iter().rev() {
            for (address, pair) in (scribble.address..).step_by(2).zip(scribble.before.chunks(2)) {
                let found = self.memory.bytes(address, pair.len());
                if found == GARBAGE[..pair.len()] {
                    self.memory.put(address, pair);
                }
            }
        }
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

impl FakeDevice {
    /// Writes garbage over `area`. Until [`Self::unscribble`] the device does not look at the available ring of the
    /// queue, and interrupts after every completion.
    pub(crate) fn scribble(&self, queue: u16, area: Area) {
        self.with(|inner| inner.scribble(queue, area));
    }

    /// Undoes all scribbles of the queue, in the bytes that the driver has not written since.
    pub(crate) fn unscribble(&self, queue: u16) {
        self.with(|inner| inner.unscribble(queue));
    }
}
