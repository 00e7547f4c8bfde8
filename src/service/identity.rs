//! The device's own name, asked for once in a life.
//!
//! The device writes it into a small block of the driver's, of which nothing is used again: a device that does not answer
//! costs a wait for as long as patience goes, a reset, and leaves zeros.
use super::Service;
use crate::dma::{DmaBlock, DmaRegion};
use crate::lib_block::Status;
use crate::lib_block::front_end::Notify;
use crate::memory::Records;
use crate::platform::Platform;
use crate::spec::ID_BYTES;
use crate::transport::Transport;

/// Bytes of the block: a power of two, above those of a name.
const BYTES: usize = 32;
/// Two words of 32 bits.
const PAIR: usize = 8;
const _: () = assert!(ID_BYTES as usize <= BYTES && BYTES.is_power_of_two());

/// Room for the name; without it there is none.
pub(super) fn place<'m>(region: &mut DmaRegion<'m>) -> Option<DmaBlock<'m>> {
    region.carve(BYTES, crate::arena::LINE).ok()
}

impl<T: Transport, P: Platform, N: Notify + Clone> Service<'_, T, P, N> {
    /// Asks the device for its name, unless it was asked before, and waits for it.
    pub(super) fn ask_identity(&mut self) {
        let Some(block) = self.identity.take() else { return };
        if !self.fronts.first_mut().is_some_and(|front| front.begin_identity(&block)) {
            return;
        }
        if self.serve_until(|service| service.fronts.first_mut()?.own_outcome()) == Some(Status::Ok) {
            let name = read(&block);
            self.fronts.iter_mut().for_each(|front| front.identify(name));
        }
    }
}

/// The bytes that the device wrote.
fn read(block: &DmaBlock<'_>) -> [u8; ID_BYTES as usize] {
    let mut bytes = [0; BYTES];
    if let Some(table) = Records::<PAIR>::new(block, BYTES / PAIR) {
        for (index, pair) in bytes.chunks_exact_mut(PAIR).enumerate() {
            let (first, second) = table.load_pair::<0>(index);
            pair.copy_from_slice(&(u64::from(first) | u64::from(second) << 32).to_le_bytes());
        }
    }
    core::array::from_fn(|at| bytes[at])
}
