//! One register in a window: a volatile access of its own width, in the byte order of the bus.
//!
//! Nothing is ordered here: `barrier.rs` says what comes before and after, and the window and the doorbell call it.
//!
//! Under loom a register is a loom atomic that is found by its address: fences around it cost no instruction on x86, and
//! a model shows that they are needed (`models/pci.rs`).
#[cfg(not(all(test, loom)))]
use core::ptr::NonNull;

/// An integer of a register's width, little-endian on the bus.
pub(crate) trait Register: Copy {
    /// Between the bus and the processor, in either direction.
    #[cfg(not(all(test, loom)))]
    fn swapped(self) -> Self;

    /// From what stands for a register in loom's models.
    #[cfg(all(test, loom))]
    fn from_word(word: u64) -> Self;

    /// For what stands for a register in loom's models.
    #[cfg(all(test, loom))]
    fn into_word(self) -> u64;
}

macro_rules! registers {
    ($($width:ty)*) => { $(
        impl Register for $width {
            #[cfg(not(all(test, loom)))]
            #[inline(always)]
            fn swapped(self) -> Self {
                self.to_le()
            }

            #[cfg(all(test, loom))]
            fn from_word(word: u64) -> Self {
                word as Self
            }

            #[cfg(all(test, loom))]
            fn into_word(self) -> u64 {
                self.into()
            }
        }
    )* };
}
registers!(u8 u16 u32);

/// Where a register is.
#[derive(Debug)]
#[cfg(not(all(test, loom)))]
pub(crate) struct Place<R>(NonNull<R>);

#[cfg(not(all(test, loom)))]
impl<R: Register> Place<R> {
    /// The register at `at`.
    ///
    /// # Safety
    /// For as long as the place is used, `at` is aligned and mapped for accesses of this width, it is reached through no
    /// Rust reference, and whatever is written there breaks no promise of this program.
    #[inline(always)]
    pub(crate) unsafe fn new(at: NonNull<R>) -> Self {
        Self(at)
    }

    /// Reads it once.
    #[inline(always)]
    pub(crate) fn load(&self) -> R {
        // SAFETY: validity and aliasing: `new`'s promise. Ordering: none is relied on here.
        unsafe { self.0.read_volatile() }.swapped()
    }

    /// Writes it once.
    #[inline(always)]
    pub(crate) fn store(&self, value: R) {
        // SAFETY: as in `load`.
        unsafe { self.0.write_volatile(value.swapped()) };
    }
}

#[cfg(all(test, loom))]
pub(crate) use modelled::Place;

#[cfg(all(test, loom))]
mod modelled {
    use super::Register;
    use crate::memory::modelled::{Words, table};
    use core::marker::PhantomData;
    use core::ptr::NonNull;
    use loom::sync::atomic::Ordering::Relaxed;

    /// Where a register is. It keeps its value for as long as one place of it exists.
    #[derive(Debug)]
    pub(crate) struct Place<R>(Words, PhantomData<R>);

    impl<R: Register> Place<R> {
        /// # Safety
        /// None is needed here: the address is a name.
        pub(crate) unsafe fn new(at: NonNull<R>) -> Self {
            Self(table(at.as_ptr().addr(), 1, 1), PhantomData)
        }

        pub(crate) fn load(&self) -> R {
            R::from_word(self.0[0].load(Relaxed))
        }

        pub(crate) fn store(&self, value: R) {
            self.0[0].store(value.into_word(), Relaxed);
        }
    }
}
