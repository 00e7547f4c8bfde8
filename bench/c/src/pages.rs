//! Who has which page of the memory that the device shares.
//!
//! A table with one word a page: the piece that the page belongs to, named by the piece's first page. Looking a buffer
//! up is two reads of it, which is what every request pays. It knows no queues; the memory's contents are the caller's.
//!
//! Invariants: the table is changed under the lock only; a piece is whole pages in a row, and no page is in two.
use native::memory::PAGE;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Pages in a row, and their owners.
pub(crate) struct Pages {
    base: NonNull<u8>,
    /// Of each page: the number of its piece's first page, plus 1. 0: nobody's.
    owners: Box<[AtomicU32]>,
    change: Mutex<()>,
}

// SAFETY: the base is only an address here, from which pointers are made for whoever was given the page.
unsafe impl Send for Pages {}
// SAFETY: as above; the table is atomic.
unsafe impl Sync for Pages {}

impl Pages {
    /// Free pages: the whole ones of `len` bytes from `base` on, which is a page's first byte.
    pub(crate) fn new(base: NonNull<u8>, len: usize) -> Self {
        let owners = (0..len / PAGE).map(|_| AtomicU32::new(0)).collect();
        Self { base, owners, change: Mutex::new(()) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.owners.len()
    }

    /// A piece of at least `bytes` bytes; `None` when that is none, or no such row of pages is free.
    pub(crate) fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        let wanted = bytes.div_ceil(PAGE);
        if wanted == 0 {
            return None;
        }
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut row = 0;
        for (at, owner) in self.owners.iter().enumerate() {
            row = if owner.load(Ordering::Relaxed) == 0 { row + 1 } else { 0 };
            if row == wanted {
                let first = at + 1 - wanted;
                // Release: whoever learns of the piece through the table sees it whole; the caller is told anyway.
                self.owners[first..=at].iter().for_each(|owner| owner.store(first as u32 + 1, Ordering::Release));
                // SAFETY: the page is inside the memory that `base` begins.
                return Some(unsafe { self.base.add(first * PAGE) });
            }
        }
        None
    }

    /// Takes a piece back, unless `in_use` says of its first page that it may not go yet.
    pub(crate) fn give_back(&self, piece: NonNull<u8>, in_use: impl FnOnce(usize) -> bool) -> Result<(), Kept> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = piece.addr().get().wrapping_sub(self.base.addr().get());
        let first = offset / PAGE;
        let begins = offset.is_multiple_of(PAGE) && self.piece_of(first) == Some(first);
        if !begins {
            return Err(Kept::NoPiece);
        }
        if in_use(first) {
            return Err(Kept::InUse);
        }
        let rest = self.owners[first..].iter();
        rest.take_while(|owner| owner.load(Ordering::Relaxed) == first as u32 + 1)
            .for_each(|owner| owner.store(0, Ordering::Release));
        Ok(())
    }

    /// The first page of the piece that `len` bytes from `address` on are inside of; `None`: there is no such piece.
    #[inline(always)]
    pub(crate) fn holding(&self, address: usize, len: u64) -> Option<usize> {
        let offset = address.wrapping_sub(self.base.addr().get());
        let last = usize::try_from(len.checked_sub(1)?).ok()?.checked_add(offset)?;
        let piece = self.piece_of(offset / PAGE)?;
        (self.piece_of(last / PAGE)? == piece).then_some(piece)
    }

    #[inline(always)]
    fn piece_of(&self, page: usize) -> Option<usize> {
        let owner = self.owners.get(page)?.load(Ordering::Acquire);
        (owner as usize).checked_sub(1)
    }
}

/// Why a piece was not taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// No piece begins there.
    NoPiece,
    /// A request has it.
    InUse,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that nothing here dereferences.
    fn pages(count: usize) -> Pages {
        Pages::new(NonNull::new(std::ptr::without_provenance_mut(1 << 20)).unwrap(), count * PAGE + 7)
    }

    fn at(page: usize, byte: usize) -> usize {
        (1 << 20) + page * PAGE + byte
    }

    #[test]
    fn a_buffer_over_the_edge_of_its_piece_is_not_held() {
        let pages = pages(4);
        assert_eq!(pages.count(), 4);
        let (a, b) = (pages.take(PAGE + 1).unwrap(), pages.take(2 * PAGE).unwrap());
        assert_eq!((a.addr().get(), b.addr().get()), (at(0, 0), at(2, 0)));
        assert_eq!(pages.holding(at(0, 5), 2 * PAGE as u64 - 5), Some(0));
        assert_eq!(pages.holding(at(0, 5), 2 * PAGE as u64 - 4), None, "its end is the next piece's");
        assert_eq!(pages.holding(at(2, 0), 2 * PAGE as u64), Some(2));
        assert_eq!(pages.holding(at(2, 0), 2 * PAGE as u64 + 1), None);
        assert_eq!(pages.holding(at(0, 0) - 1, 2), None);
        assert_eq!(pages.holding(at(0, 0), 0), None);
        assert_eq!(pages.holding(at(3, 0), u64::MAX), None);
        assert_eq!(pages.holding(usize::MAX, 2), None);
    }

    #[test]
    fn pieces_come_back_once_and_from_their_beginning() {
        let pages = pages(4);
        let [a, b] = [0, 1].map(|_| pages.take(2 * PAGE).unwrap());
        assert!(pages.take(1).is_none());
        let inside = NonNull::new(a.as_ptr().wrapping_add(PAGE)).unwrap();
        assert_eq!(pages.give_back(inside, |_| false), Err(Kept::NoPiece));
        assert_eq!(pages.give_back(a, |first| first == 0), Err(Kept::InUse));
        assert_eq!(pages.give_back(a, |_| false), Ok(()));
        assert_eq!(pages.give_back(a, |_| false), Err(Kept::NoPiece));
        assert_eq!(pages.holding(at(1, 0), 1), None);
        assert_eq!(pages.holding(at(2, 0), 1), Some(2), "the neighbour stays");
        assert!(pages.take(2 * PAGE + 1).is_none());
        assert_eq!(pages.give_back(b, |_| false), Ok(()));
        assert_eq!(pages.take(4 * PAGE), Some(a));
    }
}
