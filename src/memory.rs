//! Device-visible memory as tables of small records: the only place where the driver dereferences DMA memory.
//!
//! Every access is one relaxed atomic of the field's width, so a device that writes where it should not can change a
//! value but cause no undefined behaviour; ordering is added by `barrier.rs`. Indices are masked to the table, so no
//! index, right or wrong, reaches outside it: the accessors are safe, and the mask is the price (one instruction).
//! It knows neither rings nor slots. Fields are little-endian on the wire.
//!
//! Under loom a table is made of loom atomics, and tables at one address are one table: a model's device finds the
//! driver's rings as every device does, by address.
#![allow(
    clippy::cast_ptr_alignment,
    reason = "the table's alignment is checked when it is made, the offset's by const"
)]
use crate::dma::DmaBlock;
use crate::sync::Ordering::Relaxed;
#[cfg(not(loom))]
use core::marker::PhantomData;

/// `count` records of `STRIDE` bytes; `count` is a power of two.
pub(crate) struct Records<'m, const STRIDE: usize> {
    mask: usize,
    #[cfg(not(loom))]
    base: core::ptr::NonNull<u8>,
    #[cfg(not(loom))]
    memory: PhantomData<&'m [core::sync::atomic::AtomicU64]>,
    #[cfg(loom)]
    first: usize,
    #[cfg(loom)]
    words: modelled::Words,
    #[cfg(loom)]
    memory: std::marker::PhantomData<&'m ()>,
}

// SAFETY: all access through the handle is atomic, so threads may share and move it like `&[AtomicU64]`.
#[cfg(not(loom))]
unsafe impl<const STRIDE: usize> Send for Records<'_, STRIDE> {}
// SAFETY: as above.
#[cfg(not(loom))]
unsafe impl<const STRIDE: usize> Sync for Records<'_, STRIDE> {}

impl<'m, const STRIDE: usize> Records<'m, STRIDE> {
    /// Bytes that `count` records take.
    pub(crate) const fn bytes(count: usize) -> usize {
        count * STRIDE
    }

    /// The table at the start of `block`; `None` if it does not fit there or is not aligned to `STRIDE` (8 at most).
    pub(crate) fn new(block: &DmaBlock<'m>, count: usize) -> Option<Self> {
        let align = if STRIDE < 8 { STRIDE } else { 8 };
        let fits = count.is_power_of_two() && Self::bytes(count) <= block.len();
        let aligned = block.base().as_ptr().addr().is_multiple_of(align);
        (fits && aligned).then(|| Self::at(block, count))
    }

    #[cfg(not(loom))]
    fn at(block: &DmaBlock<'m>, count: usize) -> Self {
        Self { mask: count - 1, base: block.base(), memory: PhantomData }
    }

    #[cfg(loom)]
    fn at(block: &DmaBlock<'m>, count: usize) -> Self {
        let words = modelled::table(block.base().as_ptr().addr(), STRIDE, count * Self::WORDS);
        Self { mask: count - 1, first: 0, words, memory: std::marker::PhantomData }
    }

    /// `count` (a power of two) records from `first` on, as a table that shares them; `None` if not all are inside.
    pub(crate) fn part(&self, first: usize, count: usize) -> Option<Self> {
        let fits = count.is_power_of_two() && first.checked_add(count)? <= self.mask + 1;
        #[cfg(not(loom))]
        return fits.then(|| {
            // SAFETY: the records from `first` on lie in this table's memory (checked).
            let base = unsafe { self.base.add(first * STRIDE) };
            Self { mask: count - 1, base, memory: PhantomData }
        });
        #[cfg(loom)]
        return fits.then(|| Self { mask: count - 1, first: self.first + first, ..self.clone() });
    }
}

#[cfg(loom)]
impl<const STRIDE: usize> Records<'_, STRIDE> {
    /// Bytes that one loom atomic stands for: fields of a record are that far apart.
    const GRAIN: usize = if STRIDE < 8 { 2 } else { 8 };
    const WORDS: usize = STRIDE / Self::GRAIN;
}

#[cfg(loom)]
impl<const STRIDE: usize> Clone for Records<'_, STRIDE> {
    fn clone(&self) -> Self {
        Self { mask: self.mask, first: self.first, words: self.words.clone(), memory: std::marker::PhantomData }
    }
}

/// What stands for DMA memory in loom's models.
#[cfg(loom)]
mod modelled {
    use loom::sync::atomic::AtomicU64;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    pub(super) type Words = Arc<Vec<AtomicU64>>;

    type Tables = BTreeMap<(usize, usize), Weak<Vec<AtomicU64>>>;

    /// By address and stride. An entry dies with its last table, so that an execution of a model finds nothing of the
    /// one before.
    static TABLES: Mutex<Tables> = Mutex::new(Tables::new());

    pub(super) fn table(address: usize, stride: usize, words: usize) -> Words {
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = tables.entry((address, stride)).or_default();
        entry.upgrade().filter(|table| table.len() == words).unwrap_or_else(|| {
            let table: Words = Arc::new((0..words).map(|_| AtomicU64::new(0)).collect());
            *entry = Arc::downgrade(&table);
            table
        })
    }
}

/// One accessor pair: a field of `$int` at byte `OFFSET` of a record.
macro_rules! field {
    ($load:ident, $store:ident, $int:ty, $atomic:ident) => {
        #[cfg(not(loom))]
        #[inline(always)]
        pub(crate) fn $load<const OFFSET: usize>(&self, index: usize) -> $int {
            const { assert!(OFFSET + size_of::<$int>() <= STRIDE && OFFSET % size_of::<$int>() == 0) };
            // SAFETY: the masked record lies in the block and the field in the record (asserted above); the block's
            // memory is mapped for 'm and at least as aligned as the field; it is only ever accessed atomically.
            let field = unsafe {
                core::sync::atomic::$atomic::from_ptr(
                    self.base.as_ptr().add((index & self.mask) * STRIDE + OFFSET).cast::<$int>(),
                )
            };
            <$int>::from_le(field.load(Relaxed))
        }

        #[cfg(not(loom))]
        #[inline(always)]
        pub(crate) fn $store<const OFFSET: usize>(&self, index: usize, value: $int) {
            const { assert!(OFFSET + size_of::<$int>() <= STRIDE && OFFSET % size_of::<$int>() == 0) };
            // SAFETY: as for the load.
            let field = unsafe {
                core::sync::atomic::$atomic::from_ptr(
                    self.base.as_ptr().add((index & self.mask) * STRIDE + OFFSET).cast::<$int>(),
                )
            };
            field.store(value.to_le(), Relaxed);
        }

        #[cfg(loom)]
        pub(crate) fn $load<const OFFSET: usize>(&self, index: usize) -> $int {
            self.words[(self.first + (index & self.mask)) * Self::WORDS + OFFSET / Self::GRAIN].load(Relaxed) as $int
        }

        #[cfg(loom)]
        pub(crate) fn $store<const OFFSET: usize>(&self, index: usize, value: $int) {
            self.words[(self.first + (index & self.mask)) * Self::WORDS + OFFSET / Self::GRAIN]
                .store(value as u64, Relaxed);
        }
    };
}

impl<const STRIDE: usize> Records<'_, STRIDE> {
    field!(load8, store8, u8, AtomicU8);
    field!(load16, store16, u16, AtomicU16);
    field!(load64, store64, u64, AtomicU64);
}
