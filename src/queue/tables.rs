//! Which slot has which table of the large-table pool.
//!
//! Long chains are rare and the pool is small: a table is found by its slot with a look at all of them.
use crate::ring::chain::Pool;
use crate::slot::Bitmap;
use crate::sync::{AtomicU32, Ordering};

/// The pool, what is free of it, and whose the rest is.
pub(crate) struct LargeTables<'m> {
    pub(crate) pool: Pool<'m>,
    free: Bitmap<'m>,
    owners: &'m [AtomicU32],
    /// Data segments that a table holds.
    pub(crate) segments: usize,
}

const NOBODY: u32 = u32::MAX;

impl<'m> LargeTables<'m> {
    /// At most 64 tables, one owner entry each, all free.
    pub(crate) fn new(pool: Pool<'m>, free: Bitmap<'m>, owners: &'m [AtomicU32], segments: usize) -> Self {
        for owner in owners {
            owner.store(NOBODY, Ordering::Relaxed);
        }
        free.reset(0, Bitmap::full_word(owners.len(), 0));
        Self { pool, free, owners, segments }
    }

    /// A table for `slot`, if one is left.
    pub(crate) fn take(&self, slot: u16) -> Option<u16> {
        let (_, bit) = self.free.take(1, &mut 0)?;
        let table = bit.trailing_zeros() as u16;
        // Relaxed: read again by whoever settles the slot's chain, who got it through the ring.
        self.owners[table as usize].store(u32::from(slot), Ordering::Relaxed);
        Some(table)
    }

    /// Takes back the table of `slot`.
    pub(crate) fn give_back(&self, slot: u16) {
        let owned = |owner: &&AtomicU32| owner.load(Ordering::Relaxed) == u32::from(slot);
        if let Some((table, owner)) = (0..).zip(self.owners).find(|(_, owner)| owned(owner)) {
            owner.store(NOBODY, Ordering::Relaxed);
            self.free.put(0, 1 << table);
        }
    }
}
