//! Which memory belongs to chains in flight, to find a driver that gives the same bytes away twice.
//!
//! Two chains may read the same bytes; nobody else may touch what the device writes.
use super::chain::Piece;
use std::collections::BTreeMap;

/// The memory of all chains in flight, over all queues.
#[derive(Default)]
pub(super) struct Owned {
    /// By start; these never overlap one another.
    writable: BTreeMap<u64, Span>,
    /// By start and serial; these may overlap.
    readable: BTreeMap<(u64, u64), Span>,
    longest_readable: u64,
}

#[derive(Clone, Copy)]
struct Span {
    end: u64,
    serial: u64,
    head: u16,
}

/// An overlap: where, and with whose memory.
pub(super) struct Conflict {
    pub(super) address: u64,
    pub(super) with: u16,
}

impl Owned {
    /// Enters the memory of a chain, up to the first piece that conflicts.
    pub(super) fn claim(&mut self, serial: u64, head: u16, pieces: &[Piece]) -> Result<(), Conflict> {
        for piece in pieces {
            let span = Span { end: piece.address + piece.len, serial, head };
            if let Some(with) = self.conflict(piece) {
                return Err(Conflict { address: piece.address, with });
            }
            if piece.writable {
                self.writable.insert(piece.address, span);
            } else {
                self.readable.insert((piece.address, serial), span);
                self.longest_readable = self.longest_readable.max(piece.len);
            }
        }
        Ok(())
    }

    /// The head whose memory `piece` must not touch.
    fn conflict(&self, piece: &Piece) -> Option<u16> {
        let end = piece.address + piece.len;
        let before = self.writable.range(..end).next_back().map(|(_, span)| span);
        if let Some(span) = before.filter(|span| span.end > piece.address) {
            return Some(span.head);
        }
        if !piece.writable {
            return None;
        }
        let from = piece.address.saturating_sub(self.longest_readable);
        let mut near = self.readable.range((from, 0)..(end, 0)).map(|(_, span)| span);
        near.find(|span| span.end > piece.address).map(|span| span.head)
    }

    /// Gives back what [`Self::claim`] entered.
    pub(super) fn release(&mut self, serial: u64, pieces: &[Piece]) {
        for piece in pieces {
            if !piece.writable {
                self.readable.remove(&(piece.address, serial));
            } else if self.writable.get(&piece.address).is_some_and(|span| span.serial == serial) {
                self.writable.remove(&piece.address);
            }
        }
    }
}
