//! One block request, carried out (5.2.6), in any framing: bytes are read and written as streams.
//!
//! It knows the chain's bytes through `virtio-queue`'s reader and writer, which check every address, and moves data
//! through one bounded buffer.
use super::Options;
use super::deviation::Moved;
use super::medium::Medium;
use drv_virtio_block::spec::request_status::{IOERR, OK, UNSUPP};
use drv_virtio_block::spec::{SECTOR, feature};
use std::io::{self, Read, Write};
use std::ops::Deref;
use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::GuestMemoryMmap;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// Bytes of a header and of a range.
const RECORD: usize = 16;
/// Bytes moved at once.
const CHUNK: usize = 1 << 16;
/// Bit 0 of a WRITE ZEROES range's flags.
const UNMAP: u32 = 1;

/// What requests are carried out on.
pub(super) struct Disk<'d> {
    pub(super) medium: &'d Medium,
    pub(super) options: &'d Options,
    pub(super) writeback: bool,
}

/// Why a request is not answered with OK.
enum Failure {
    Medium,
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Medium
    }
}

/// Carries out the request in `chain`; `None` for a chain that has no room for an answer.
pub(super) fn execute<M>(disk: &Disk<'_>, chain: DescriptorChain<M>, memory: &GuestMemoryMmap) -> Option<Moved>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let mut out = chain.clone().reader(memory).ok()?;
    let mut into = chain.writer(memory).ok()?;
    let room = into.available_bytes().checked_sub(1)?;
    let mut status = into.split_at(room).ok()?;
    let data = if room > 0 { room } else { out.available_bytes().saturating_sub(RECORD) };
    let answer = match disk.answer(&mut out, &mut into) {
        Ok(()) => OK,
        Err(Failure::Medium) => IOERR,
        Err(Failure::Unsupported) => UNSUPP,
    };
    let written = into.bytes_written() as u32;
    status.write_all(&[answer]).ok()?;
    Some(Moved { written: written + 1, data: data as u32, writable: room as u32 + 1 })
}

impl Disk<'_> {
    fn answer(&self, out: &mut Reader<'_>, into: &mut Writer<'_>) -> Result<(), Failure> {
        let (word, sector) = record(out)?;
        let changes = |kind| matches!(kind, OUT | DISCARD | WRITE_ZEROES);
        match word as u32 {
            kind if changes(kind) && self.options.read_only => Err(Failure::Medium),
            IN => self.read(sector, into),
            OUT => self.write(sector, out),
            FLUSH => Ok(self.medium.flush()?),
            GET_ID => Ok(into.write_all(&self.options.id)?),
            DISCARD if self.offers(feature::DISCARD) => self.range(out, 0),
            WRITE_ZEROES if self.offers(feature::WRITE_ZEROES) => self.range(out, UNMAP),
            _ => Err(Failure::Unsupported),
        }
    }

    fn offers(&self, mask: u64) -> bool {
        self.options.features & mask != 0
    }

    /// Where `bytes` from `sector` on begin, if they are whole sectors of the medium.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        let end = sector.checked_add(bytes / SECTOR).ok_or(Failure::Medium)?;
        let fits = bytes.is_multiple_of(SECTOR) && end <= self.medium.sectors();
        if fits { Ok(sector * SECTOR) } else { Err(Failure::Medium) }
    }

    fn read(&self, sector: u64, into: &mut Writer<'_>) -> Result<(), Failure> {
        let mut left = into.available_bytes();
        let mut at = self.place(sector, left as u64)?;
        let mut buffer = vec![0; left.min(CHUNK)];
        while left > 0 {
            let now = &mut buffer[..left.min(CHUNK)];
            self.medium.read(now, at)?;
            into.write_all(now)?;
            at += now.len() as u64;
            left -= now.len();
        }
        Ok(())
    }

    fn write(&self, sector: u64, out: &mut Reader<'_>) -> Result<(), Failure> {
        let mut left = out.available_bytes();
        let mut at = self.place(sector, left as u64)?;
        let mut buffer = vec![0; left.min(CHUNK)];
        while left > 0 {
            let now = &mut buffer[..left.min(CHUNK)];
            out.read_exact(now)?;
            self.medium.write(now, at)?;
            at += now.len() as u64;
            left -= now.len();
        }
        self.settle()
    }

    /// Without a write cache what is answered is stable.
    fn settle(&self) -> Result<(), Failure> {
        if self.writeback { Ok(()) } else { Ok(self.medium.flush()?) }
    }

    /// DISCARD and WRITE ZEROES: exactly one range (`max_discard_seg` and `max_write_zeroes_seg` are 1).
    fn range(&self, out: &mut Reader<'_>, allowed: u32) -> Result<(), Failure> {
        if out.available_bytes() != RECORD {
            return Err(Failure::Medium);
        }
        let (sector, word) = record(out)?;
        let (sectors, flags) = (word as u32, (word >> 32) as u32);
        if flags & !allowed != 0 {
            return Err(Failure::Unsupported);
        }
        let bytes = u64::from(sectors) * SECTOR;
        let at = self.place(sector, bytes)?;
        if sectors > self.options.max_range_sectors {
            return Err(Failure::Medium);
        }
        self.medium.zero(at, bytes)?;
        self.settle()
    }
}

/// The next two words of what the driver wrote.
fn record(out: &mut Reader<'_>) -> io::Result<(u64, u64)> {
    let mut bytes = [0; RECORD];
    out.read_exact(&mut bytes)?;
    let (first, second) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok((word(first), word(second)))
}
