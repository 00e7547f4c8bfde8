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
#[cfg(not(all(test, loom)))]
use core::{marker::PhantomData, sync::atomic::AtomicU32};

/// `count` records of `STRIDE` bytes; `count` is a power of two.
pub(crate) struct Records<'m, const STRIDE: usize> {
    mask: usize,
    #[cfg(not(all(test, loom)))]
    base: core::ptr::NonNull<u8>,
    #[cfg(not(all(test, loom)))]
    memory: PhantomData<&'m [core::sync::atomic::AtomicU64]>,
    #[cfg(all(test, loom))]
    first: usize,
    #[cfg(all(test, loom))]
    words: modelled::Words,
    #[cfg(all(test, loom))]
    memory: std::marker::PhantomData<&'m ()>,
}

// SAFETY: all access through the handle is atomic, so threads may share and move it like `&[AtomicU64]`.
#[cfg(not(all(test, loom)))]
unsafe impl<const STRIDE: usize> Send for Records<'_, STRIDE> {}
// SAFETY: as above.
#[cfg(not(all(test, loom)))]
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

    #[cfg(not(all(test, loom)))]
    fn at(block: &DmaBlock<'m>, count: usize) -> Self {
        Self { mask: count - 1, base: block.base(), memory: PhantomData }
    }

    #[cfg(all(test, loom))]
    fn at(block: &DmaBlock<'m>, count: usize) -> Self {
        let words = modelled::table(block.base().as_ptr().addr(), STRIDE, count * Self::WORDS);
        Self { mask: count - 1, first: 0, words, memory: std::marker::PhantomData }
    }
}

/// One record of 16 bytes out of every so many of a table: `count` of them, a power of two.
pub(crate) struct Column<'m> {
    mask: usize,
    #[cfg(not(all(test, loom)))]
    base: core::ptr::NonNull<u8>,
    /// Bytes from one to the next.
    #[cfg(not(all(test, loom)))]
    stride: usize,
    #[cfg(not(all(test, loom)))]
    memory: PhantomData<&'m [core::sync::atomic::AtomicU64]>,
    #[cfg(all(test, loom))]
    table: Records<'m, 16>,
    #[cfg(all(test, loom))]
    step: usize,
}

// SAFETY: as for `Records`.
#[cfg(not(all(test, loom)))]
unsafe impl Send for Column<'_> {}
// SAFETY: as for `Records`.
#[cfg(not(all(test, loom)))]
unsafe impl Sync for Column<'_> {}

impl<'m> Records<'m, 16> {
    /// `count` (a power of two) of the records, from `first` on and `step` apart, as a column that shares them; `None`
    /// if not all are inside.
    pub(crate) fn column(&self, first: usize, step: usize, count: usize) -> Option<Column<'m>> {
        let last = count.checked_sub(1)?.checked_mul(step)?.checked_add(first)?;
        let fits = count.is_power_of_two() && last <= self.mask;
        #[cfg(not(all(test, loom)))]
        return fits.then(|| {
            // SAFETY: the first record of the column lies in this table's memory (checked).
            let base = unsafe { self.base.add(first * 16) };
            Column { mask: count - 1, base, stride: step * 16, memory: PhantomData }
        });
        #[cfg(all(test, loom))]
        return fits.then(|| {
            let table = Records { first: self.first + first, ..self.clone() };
            Column { mask: count - 1, table, step }
        });
    }
}

impl Column<'_> {
    /// Stores one record.
    #[cfg(not(all(test, loom)))]
    #[inline(always)]
    pub(crate) fn store(&self, index: usize, [first, second]: [u64; 2]) {
        // SAFETY: the masked record lies in the table that the column was made from (checked there), whose memory is
        // mapped for 'm and aligned to 8; it is only ever accessed atomically.
        let words = unsafe {
            let record = self.base.as_ptr().add((index & self.mask) * self.stride).cast::<u64>();
            [record, record.add(1)].map(|word| core::sync::atomic::AtomicU64::from_ptr(word))
        };
        note(words[0].as_ptr(), true);
        words[0].store(first.to_le(), Relaxed);
        words[1].store(second.to_le(), Relaxed);
    }

    #[cfg(all(test, loom))]
    pub(crate) fn store(&self, index: usize, [first, second]: [u64; 2]) {
        let at = (index & self.mask) * self.step;
        self.table.store64::<0>(at, first);
        self.table.store64::<8>(at, second);
    }
}

/// Which bytes were accessed, in order; only this crate's tests see it.
#[cfg(all(test, not(loom)))]
pub(crate) mod accesses {
    use std::cell::RefCell;
    use std::vec::Vec;

    /// Whose access, where, and whether it wrote.
    #[derive(Clone, Copy)]
    pub(crate) struct Access {
        pub(crate) by_device: bool,
        pub(crate) address: usize,
        pub(crate) writes: bool,
    }

    std::thread_local!(static LOG: RefCell<Vec<Access>> = const { RefCell::new(Vec::new()) });

    pub(crate) fn note(by_device: bool, address: usize, writes: bool) {
        LOG.with_borrow_mut(|log| log.push(Access { by_device, address, writes }));
    }

    /// What this thread accessed since the last call.
    pub(crate) fn take() -> Vec<Access> {
        LOG.take()
    }
}

/// Notes an access by the driver.
#[cfg(not(all(test, loom)))]
#[inline(always)]
fn note<T>(field: *mut T, writes: bool) {
    #[cfg(test)]
    accesses::note(false, field.addr(), writes);
    let _ = (field, writes);
}

#[cfg(all(test, loom))]
impl<const STRIDE: usize> Records<'_, STRIDE> {
    /// Bytes that one loom atomic stands for: fields of a record are that far apart.
    const GRAIN: usize = if STRIDE < 8 { 2 } else { 8 };
    const WORDS: usize = STRIDE / Self::GRAIN;
}

#[cfg(all(test, loom))]
impl<const STRIDE: usize> Clone for Records<'_, STRIDE> {
    fn clone(&self) -> Self {
        Self { mask: self.mask, first: self.first, words: self.words.clone(), memory: std::marker::PhantomData }
    }
}

/// What stands for DMA memory in loom's models.
#[cfg(all(test, loom))]
pub(crate) mod modelled {
    use loom::sync::atomic::AtomicU64;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    pub(crate) type Words = Arc<Vec<AtomicU64>>;

    type Tables = BTreeMap<(usize, usize), Weak<Vec<AtomicU64>>>;

    /// By address and stride. An entry dies with its last table, so that an execution of a model finds nothing of the
    /// one before.
    static TABLES: Mutex<Tables> = Mutex::new(Tables::new());

    pub(crate) fn table(address: usize, stride: usize, words: usize) -> Words {
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = tables.entry((address, stride)).or_default();
        entry.upgrade().filter(|table| table.len() == words).unwrap_or_else(|| {
            let table: Words = Arc::new((0..words).map(|_| AtomicU64::new(0)).collect());
            *entry = Arc::downgrade(&table);
            table
        })
    }
}

impl<const STRIDE: usize> Records<'_, STRIDE> {
    /// Where the `T` at byte `OFFSET` of a record is.
    #[cfg(not(all(test, loom)))]
    #[inline(always)]
    fn field<T, const OFFSET: usize>(&self, index: usize) -> *mut T {
        const { assert!(OFFSET + size_of::<T>() <= STRIDE && OFFSET.is_multiple_of(align_of::<T>())) };
        // SAFETY: the masked record lies in the block and the field in the record (asserted above).
        unsafe { self.base.as_ptr().add((index & self.mask) * STRIDE + OFFSET).cast::<T>() }
    }

    /// The loom atomic that stands for byte `OFFSET` of a record.
    #[cfg(all(test, loom))]
    fn word<const OFFSET: usize>(&self, index: usize) -> &loom::sync::atomic::AtomicU64 {
        &self.words[(self.first + (index & self.mask)) * Self::WORDS + OFFSET / Self::GRAIN]
    }
}

/// A field's load.
macro_rules! load {
    ($load:ident, $int:ty, $atomic:ident) => {
        #[cfg(not(all(test, loom)))]
        #[inline(always)]
        pub(crate) fn $load<const OFFSET: usize>(&self, index: usize) -> $int {
            note(self.field::<$int, OFFSET>(index), false);
            // SAFETY: the field's memory is mapped for 'm and as aligned as the field (the table is, and the offset in
            // it); it is only ever accessed atomically.
            let field = unsafe { core::sync::atomic::$atomic::from_ptr(self.field::<$int, OFFSET>(index)) };
            <$int>::from_le(field.load(Relaxed))
        }

        #[cfg(all(test, loom))]
        pub(crate) fn $load<const OFFSET: usize>(&self, index: usize) -> $int {
            self.word::<OFFSET>(index).load(Relaxed) as $int
        }
    };
}

/// A field's store.
macro_rules! store {
    ($store:ident, $int:ty, $atomic:ident) => {
        #[cfg(not(all(test, loom)))]
        #[inline(always)]
        pub(crate) fn $store<const OFFSET: usize>(&self, index: usize, value: $int) {
            note(self.field::<$int, OFFSET>(index), true);
            // SAFETY: as for a load.
            let field = unsafe { core::sync::atomic::$atomic::from_ptr(self.field::<$int, OFFSET>(index)) };
            field.store(value.to_le(), Relaxed);
        }

        #[cfg(all(test, loom))]
        pub(crate) fn $store<const OFFSET: usize>(&self, index: usize, value: $int) {
            self.word::<OFFSET>(index).store(value as u64, Relaxed);
        }
    };
}

impl<const STRIDE: usize> Records<'_, STRIDE> {
    load!(load8, u8, AtomicU8);
    load!(load16, u16, AtomicU16);
    store!(store8, u8, AtomicU8);
    store!(store16, u16, AtomicU16);
    store!(store64, u64, AtomicU64);
    // The models' device reads descriptors whole.
    #[cfg(all(test, loom))]
    load!(load64, u64, AtomicU64);

    /// Two 32-bit words side by side, each loaded once: nothing says that they were stored together but what orders the
    /// loads after both stores.
    #[cfg(not(all(test, loom)))]
    #[inline(always)]
    pub(crate) fn load_pair<const OFFSET: usize>(&self, index: usize) -> (u32, u32) {
        let words = self.field::<[u32; 2], OFFSET>(index).cast::<u32>();
        note(words, false);
        // SAFETY: both words are in the field; otherwise as for a load.
        let (first, second) = unsafe { (AtomicU32::from_ptr(words), AtomicU32::from_ptr(words.add(1))) };
        (u32::from_le(first.load(Relaxed)), u32::from_le(second.load(Relaxed)))
    }

    #[cfg(all(test, loom))]
    pub(crate) fn load_pair<const OFFSET: usize>(&self, index: usize) -> (u32, u32) {
        let both = self.load64::<OFFSET>(index);
        (both as u32, (both >> 32) as u32)
    }
}
