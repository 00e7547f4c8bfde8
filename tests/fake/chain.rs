//! Walks a descriptor chain and judges it by the ring's rules; knows nothing of block requests.
//!
//! Specification: 2.7.4.2, 2.7.5, 2.7.5.3.1. A chain is no longer than the queue, counted in descriptors; the entries
//! of an indirect table count likewise, except that a table of three is allowed on a queue of two, where otherwise
//! nothing could be asked at all.
use super::wire::{descriptor, le16, le32, le64};
use super::{HostMemory, Outside};

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainFault {
    /// The head is not a descriptor of the table.
    HeadOutOfRange,
    /// `next` leads out of the table.
    NextOutOfRange { next: u16 },
    /// The chain comes back to itself.
    Loop,
    /// More descriptors than the queue allows.
    TooLong { entries: usize },
    /// More than 2^32 bytes.
    TooManyBytes { bytes: u64 },
    /// A descriptor of no bytes.
    Empty { entry: u16 },
    /// Flags that do not exist.
    Flags { entry: u16, flags: u16 },
    /// A readable buffer after a writable one.
    ReadableAfterWritable { piece: usize },
    /// INDIRECT without the feature.
    IndirectNotNegotiated,
    /// INDIRECT together with NEXT.
    IndirectWithNext,
    /// INDIRECT inside an indirect table.
    IndirectNested,
    /// A table that is empty or not a whole number of descriptors.
    TableLength { len: u32 },
    /// A buffer or table that is not in memory.
    Outside(Outside),
}

/// One descriptor's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) len: u64,
    pub(crate) writable: bool,
}

/// A chain as the device found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Entries of the main table, in order.
    pub(super) descriptors: Vec<u16>,
    /// The indirect table, if there is one.
    pub(super) table: Option<(u64, u64)>,
    /// The buffers, in order.
    pub(super) pieces: Vec<Piece>,
}

/// Where chains are looked for.
pub(super) struct Walk<'m> {
    pub(super) memory: &'m HostMemory,
    pub(super) table: u64,
    pub(super) size: u16,
    pub(super) indirect: bool,
}

/// A descriptor as read.
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// One table while it is walked: the main one, or an indirect one.
struct Table {
    base: u64,
    entries: u64,
    longest: usize,
    nested: bool,
}

impl Walk<'_> {
    /// Follows the chain that starts at `head`.
    pub(super) fn chain(&self, head: u16) -> Result<Chain, ChainFault> {
        let size = usize::from(self.size);
        if head >= self.size {
            return Err(ChainFault::HeadOutOfRange);
        }
        let main = Table { base: self.table, entries: u64::from(self.size), longest: size, nested: false };
        let mut chain = Chain::default();
        self.table(&main, head, &mut chain)?;
        if let Some((base, len)) = chain.table {
            let nested = Table { base, entries: len / descriptor::BYTES, longest: size.max(3), nested: true };
            self.table(&nested, 0, &mut chain)?;
        }
        check_order(&chain)?;
        let bytes = chain.pieces.iter().map(|piece| piece.len).sum();
        if bytes > 1 << 32 { Err(ChainFault::TooManyBytes { bytes }) } else { Ok(chain) }
    }

    /// Follows `next` through one table.
    fn table(&self, table: &Table, first: u16, chain: &mut Chain) -> Result<(), ChainFault> {
        let mut entry = first;
        let mut visited = Vec::new();
        loop {
            if visited.contains(&entry) {
                return Err(ChainFault::Loop);
            }
            visited.push(entry);
            if visited.len() > table.longest {
                return Err(ChainFault::TooLong { entries: visited.len() });
            }
            let found = self.descriptor(table.base + u64::from(entry) * descriptor::BYTES)?;
            self.buffer(table, entry, &found, chain)?;
            if !found.has(descriptor::NEXT) {
                break;
            }
            if u64::from(found.next) >= table.entries {
                return Err(ChainFault::NextOutOfRange { next: found.next });
            }
            entry = found.next;
        }
        if !table.nested {
            chain.descriptors = visited;
        }
        Ok(())
    }

    /// Adds one descriptor's buffer, or its table, to the chain.
    fn buffer(&self, table: &Table, entry: u16, found: &Descriptor, chain: &mut Chain) -> Result<(), ChainFault> {
        let flags = found.flags;
        if flags & !(descriptor::NEXT | descriptor::WRITE | descriptor::INDIRECT) != 0 {
            return Err(ChainFault::Flags { entry, flags });
        }
        if found.has(descriptor::INDIRECT) {
            chain.table = Some(self.indirect(table, found)?);
            return Ok(());
        }
        if found.len == 0 {
            return Err(ChainFault::Empty { entry });
        }
        let piece = Piece { address: found.address, len: u64::from(found.len), writable: found.has(descriptor::WRITE) };
        self.memory.locate(piece.address, piece.len).map_err(ChainFault::Outside)?;
        chain.pieces.push(piece);
        Ok(())
    }

    /// Address and length of an indirect table.
    fn indirect(&self, table: &Table, found: &Descriptor) -> Result<(u64, u64), ChainFault> {
        let len = u64::from(found.len);
        if !self.indirect {
            return Err(ChainFault::IndirectNotNegotiated);
        }
        if table.nested {
            return Err(ChainFault::IndirectNested);
        }
        if found.has(descriptor::NEXT) {
            return Err(ChainFault::IndirectWithNext);
        }
        if len == 0 || !len.is_multiple_of(descriptor::BYTES) {
            return Err(ChainFault::TableLength { len: found.len });
        }
        self.memory.locate(found.address, len).map_err(ChainFault::Outside)?;
        Ok((found.address, len))
    }

    fn descriptor(&self, at: u64) -> Result<Descriptor, ChainFault> {
        let mut bytes = [0; descriptor::BYTES as usize];
        self.memory.read(at, &mut bytes).map_err(ChainFault::Outside)?;
        let (address, len) = (le64(&bytes, 0), le32(&bytes, 8));
        Ok(Descriptor { address, len, flags: le16(&bytes, 12), next: le16(&bytes, 14) })
    }
}

fn check_order(chain: &Chain) -> Result<(), ChainFault> {
    let wrong = chain.pieces.windows(2).position(|pair| pair[0].writable && !pair[1].writable);
    wrong.map_or(Ok(()), |at| Err(ChainFault::ReadableAfterWritable { piece: at + 1 }))
}
