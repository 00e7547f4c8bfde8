//! Looks at the available ring and takes chains off it, judging everything that it finds.
//!
//! Specification: 2.7.6, 2.7.13 Supplying Buffers to The Device, as its reader.
use super::chain::{Chain, Piece};
use super::event::NotifyPolicy;
use super::overlap::Conflict;
use super::request::BlockRequest;
use super::ring::{Flight, Taken};
use super::wire::features;
use super::{DriverFault, FakeDevice, Inner};
use std::sync::Arc;

impl Inner {
    /// Looks at the available index and notes what was published since the last look.
    pub(super) fn observe(&mut self, queue: u16) {
        // What the driver publishes before DRIVER_OK is seen when the device goes live.
        if !self.registers.driver_ok() {
            return;
        }
        let event_idx = self.registers.negotiated(features::EVENT_IDX);
        let (now, memory) = (self.disk.now(), Arc::clone(&self.memory));
        let ring = self.ring(queue);
        if !ring.enabled() || ring.broken || !ring.scribbles.is_empty() {
            return;
        }
        let (from, to, flags) = (ring.observed, ring.avail_idx(&memory), ring.avail_flags(&memory));
        let step = to.wrapping_sub(from);
        let room = usize::from(ring.size()) - usize::from(ring.waiting()) - ring.flights.len();
        let sound = usize::from(step) <= room;
        if sound {
            ring.observed = to;
            ring.sent.extend(std::iter::repeat_n(now, usize::from(step)));
            ring.counts.published += u64::from(step);
            ring.counts.publishes += u64::from(step > 0);
            ring.wish.note_published(from, to);
        } else {
            ring.broken = true;
            let back = from.wrapping_sub(to) <= step;
            let went_back = DriverFault::AvailIndexWentBack { queue, from, to };
            self.fault(if back { went_back } else { DriverFault::AvailIndexTooFar { queue, from, to } });
        }
        let flags_bad = if event_idx { flags != 0 } else { flags > 1 };
        if flags_bad && !std::mem::replace(&mut self.ring(queue).flags_faulted, true) {
            self.fault(DriverFault::AvailFlags { queue, flags });
        }
    }

    pub(super) fn observe_all(&mut self) {
        (0..self.rings.len() as u16).for_each(|queue| self.observe(queue));
    }

    /// Takes up to `most` chains.
    pub(super) fn take(&mut self, queue: u16, most: usize) -> Vec<Taken> {
        if !self.registers.live() || !self.ring(queue).enabled() {
            return Vec::new();
        }
        self.observe(queue);
        let mut taken = Vec::new();
        while taken.len() < most && self.ring(queue).waiting() > 0 {
            let memory = Arc::clone(&self.memory);
            let ring = self.ring(queue);
            let head = ring.avail_entry(&memory, ring.next_avail);
            let sent = ring.sent.pop_front().expect("one for each entry that waits");
            ring.next_avail = ring.next_avail.wrapping_add(1);
            ring.counts.taken += 1;
            taken.extend(self.admit(queue, head, sent));
        }
        if self.ring(queue).wish.policy != NotifyPolicy::SuppressWhileBusy {
            self.wish(queue, false);
        }
        taken
    }

    /// Judges one chain and enters it as in flight; `None` if it can never be completed.
    fn admit(&mut self, queue: u16, head: u16, sent: u64) -> Option<Taken> {
        let ring = self.ring(queue);
        if ring.in_flight(head) {
            self.fault(DriverFault::HeadTwice { queue, head });
            return None;
        }
        let indirect = self.registers.negotiated(features::INDIRECT_DESC);
        let walked = self.rings[usize::from(queue)].walk(&self.memory, indirect).chain(head);
        let chain = match walked {
            Ok(chain) => chain,
            Err(why) => {
                self.fault(DriverFault::Chain { queue, head, why });
                Chain { descriptors: vec![head], ..Chain::default() }
            }
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        self.claim(queue, head, serial, &chain);
        let request = if chain.pieces.is_empty() { None } else { self.understand(queue, head, &chain) };
        let flight = Flight { head, sent, chain, request, lost: false };
        let taken = flight.taken(queue, serial);
        self.ring(queue).flights.insert(serial, flight);
        Some(taken)
    }

    fn understand(&mut self, queue: u16, head: u16, chain: &Chain) -> Option<BlockRequest> {
        let mut faults = Vec::new();
        let request = self.parse(chain, &mut faults);
        self.new_faults.extend(faults.into_iter().map(|why| DriverFault::Request { queue, head, why }));
        request
    }

    /// Enters the chain's descriptors and memory as belonging to it.
    fn claim(&mut self, queue: u16, head: u16, serial: u64, chain: &Chain) {
        for &descriptor in &chain.descriptors {
            if self.ring(queue).busy.insert(descriptor, head).is_some() {
                self.fault(DriverFault::DescriptorShared { queue, head, descriptor });
            }
        }
        let pieces = chain.memory();
        let in_queue = |piece: &&Piece| {
            self.rings.iter().any(|ring| ring.enabled() && ring.registers.touches(piece.address, piece.len))
        };
        if let Some(address) = pieces.iter().find(in_queue).map(|piece| piece.address) {
            self.fault(DriverFault::Overlap { queue, head, address, with: None });
        }
        if self.config.overlap_allowed {
            return;
        }
        if let Err(Conflict { address, with }) = self.owned.claim(serial, head, &pieces) {
            self.fault(DriverFault::Overlap { queue, head, address, with: Some(with) });
        }
    }
}

impl Chain {
    /// All memory that the device reaches through the chain, tables included.
    pub(super) fn memory(&self) -> Vec<Piece> {
        let table = self.table.map(|(address, len)| Piece { address, len, writable: false });
        table.into_iter().chain(self.pieces.iter().copied()).collect()
    }
}

/// The test's side.
impl FakeDevice {
    /// How many published chains wait to be taken.
    pub(crate) fn poll_available(&self, queue: u16) -> u16 {
        self.with(|inner| {
            inner.observe(queue);
            inner.ring(queue).waiting()
        })
    }

    /// Takes up to `most` chains off the available ring, in the driver's order, and judges them. Nothing before
    /// DRIVER_OK, nor after DEVICE_NEEDS_RESET. Afterwards the device asks for doorbells by its policy.
    pub(crate) fn take(&self, queue: u16, most: usize) -> Vec<Taken> {
        self.with(|inner| inner.take(queue, most))
    }

    /// Chains that were taken and not completed, in the order in which they were taken.
    pub(crate) fn in_flight(&self, queue: u16) -> Vec<Taken> {
        self.with(|inner| inner.in_flight(queue))
    }
}
