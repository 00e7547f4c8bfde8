//! What the disk should hold: the same operations on a plain array.

const SECTOR: usize = 512;
/// What the fake leaves in discarded sectors.
const DISCARDED: u8 = 0xd1;

/// The expected content of a disk.
pub(crate) struct Model(Vec<u8>);

impl Model {
    pub(crate) fn new(sectors: u64) -> Self {
        Self(vec![0; sectors as usize * SECTOR])
    }

    fn part(&mut self, lba: u64, bytes: usize) -> &mut [u8] {
        &mut self.0[lba as usize * SECTOR..][..bytes]
    }

    pub(crate) fn read(&mut self, lba: u64, bytes: usize) -> Vec<u8> {
        self.part(lba, bytes).to_vec()
    }

    pub(crate) fn write(&mut self, lba: u64, data: &[u8]) {
        self.part(lba, data.len()).copy_from_slice(data);
    }

    pub(crate) fn discard(&mut self, lba: u64, sectors: u32) {
        self.part(lba, sectors as usize * SECTOR).fill(DISCARDED);
    }

    pub(crate) fn zero(&mut self, lba: u64, sectors: u32) {
        self.part(lba, sectors as usize * SECTOR).fill(0);
    }

    /// All of it.
    pub(crate) fn all(&self) -> &[u8] {
        &self.0
    }
}

/// `bytes` bytes that differ from those of every other seed, at every place.
pub(crate) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let word =
        |at: u64| (seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
    (0..bytes.div_ceil(8) as u64).flat_map(word).take(bytes).collect()
}
