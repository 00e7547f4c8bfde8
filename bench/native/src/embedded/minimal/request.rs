//! One block request of any kind and framing, carried out (5.2.6 Device Operation).
//!
//! The rarer half of the device: what the plain path of `queue.rs` does not know comes here, and everything of a device
//! that moves data. Every byte that is touched lies in a region. Payload is moved before the status is written, and the
//! status before the used entry.
use super::chain::{Broken, Chain};
use super::disk::Piece;
use super::memory::{Reach, pointer};
use super::{Facts, Medium};

/// Request types.
pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Status values.
pub(super) const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// Bytes of a request header, and of a discard segment.
const HEADER: u64 = 16;
/// Bit 0 of a WRITE ZEROES segment's flags.
const UNMAP: u32 = 1;

/// Carries out the request in `chain`; returns how many bytes were written, the status included.
pub(super) fn execute(facts: &Facts, chain: &Chain, reach: &mut Reach) -> Result<u32, Broken> {
    let (readable, writable) = (chain.bytes(false), chain.bytes(true));
    if readable < HEADER || writable == 0 {
        return Err(Broken);
    }
    let status = chain.pieces(true, writable - 1, 1).next().ok_or(Broken)?;
    if !reach.covers(status.address, 1) {
        return Err(Broken);
    }
    let mut header = [0; HEADER as usize];
    gather(chain, reach, 0, &mut header)?;
    let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let sector = u64::from_le_bytes(header[8..].try_into().map_err(|_| Broken)?);
    let request = Request { facts, chain, sector, out: readable - HEADER, into: writable - 1 };
    let (answer, written) = request.answer(kind, reach)?;
    // SAFETY: one byte in a region (checked), the device's until the used index covers this chain.
    unsafe { pointer(status.address).write(answer) };
    Ok(written as u32 + 1)
}

/// Copies bytes that the device reads, from `skip` on.
fn gather(chain: &Chain, reach: &mut Reach, skip: u64, into: &mut [u8]) -> Result<(), Broken> {
    let mut filled = 0;
    for piece in chain.pieces(false, skip, into.len() as u64) {
        if !reach.covers(piece.address, piece.len.into()) {
            return Err(Broken);
        }
        let len = piece.len as usize;
        // SAFETY: inside a region (checked), the device's to read now; pieces sum to at most `into.len()`.
        unsafe { pointer(piece.address).copy_to_nonoverlapping(into[filled..filled + len].as_mut_ptr(), len) };
        filled += len;
    }
    if filled == into.len() { Ok(()) } else { Err(Broken) }
}

struct Request<'r> {
    facts: &'r Facts,
    chain: &'r Chain,
    sector: u64,
    /// Bytes behind the header that the device reads.
    out: u64,
    /// Bytes before the status that the device writes.
    into: u64,
}

impl Request<'_> {
    /// The status, and the payload bytes that were written.
    fn answer(&self, kind: u32, reach: &mut Reach) -> Result<(u8, u64), Broken> {
        let read_only = self.facts.options.read_only;
        match kind {
            IN => self.read(reach),
            OUT | DISCARD | WRITE_ZEROES if read_only => Ok((IOERR, 0)),
            OUT => Ok((self.write(reach)?, 0)),
            FLUSH => Ok((OK, 0)),
            GET_ID => self.identify(reach),
            DISCARD | WRITE_ZEROES => Ok((self.ranges(kind, reach)?, 0)),
            _ => Ok((UNSUPP, 0)),
        }
    }

    /// Whether `bytes` from the request's sector on are whole sectors of the medium.
    fn on_medium(&self, bytes: u64) -> bool {
        bytes.is_multiple_of(512)
            && self.sector.checked_add(bytes / 512).is_some_and(|end| end <= self.facts.options.sectors)
    }

    /// Calls `each` with the place on the medium of every piece of payload.
    fn transfer(
        &self,
        reach: &mut Reach,
        (writable, skip, bytes): (bool, u64, u64),
        mut each: impl FnMut(usize, &Piece),
    ) -> Result<(), Broken> {
        let mut offset = self.sector as usize * 512;
        for piece in self.chain.pieces(writable, skip, bytes) {
            if !reach.covers(piece.address, piece.len.into()) {
                return Err(Broken);
            }
            let len = piece.len as usize;
            each(offset, &Piece { at: pointer(piece.address), len });
            offset += len;
        }
        Ok(())
    }

    fn read(&self, reach: &mut Reach) -> Result<(u8, u64), Broken> {
        if !self.on_medium(self.into) {
            return Ok((IOERR, 0));
        }
        let part = (true, 0, self.into);
        match &self.facts.medium {
            // SAFETY: a writable piece inside a region (checked), the device's now.
            Medium::Ram(disk) => self.transfer(reach, part, |offset, to| unsafe { disk.read(offset, to) })?,
            // SAFETY: as above.
            Medium::Zeros => self.transfer(reach, part, |_, to| unsafe { to.at.write_bytes(0, to.len) })?,
            Medium::Null => {}
        }
        Ok((OK, self.into))
    }

    fn write(&self, reach: &mut Reach) -> Result<u8, Broken> {
        if !self.on_medium(self.out) {
            return Ok(IOERR);
        }
        if let Medium::Ram(disk) = &self.facts.medium {
            // SAFETY: a readable piece inside a region (checked), initialised by the driver's contract.
            self.transfer(reach, (false, HEADER, self.out), |offset, from| unsafe { disk.write(offset, from) })?;
        }
        Ok(OK)
    }

    fn identify(&self, reach: &mut Reach) -> Result<(u8, u64), Broken> {
        let id = self.facts.options.id;
        if self.into < id.len() as u64 {
            return Ok((IOERR, 0));
        }
        let mut from = 0;
        for piece in self.chain.pieces(true, 0, id.len() as u64) {
            if !reach.covers(piece.address, piece.len.into()) {
                return Err(Broken);
            }
            let len = piece.len as usize;
            // SAFETY: a writable piece inside a region (checked); pieces sum to the identity's length.
            unsafe { pointer(piece.address).copy_from_nonoverlapping(id[from..].as_ptr(), len) };
            from += len;
        }
        Ok((OK, id.len() as u64))
    }

    /// DISCARD and WRITE ZEROES: segments of sector, count and flags; all are checked before one is carried out.
    fn ranges(&self, kind: u32, reach: &mut Reach) -> Result<u8, Broken> {
        let options = &self.facts.options;
        let (most, flags) =
            if kind == DISCARD { (options.max_discard_sectors, 0) } else { (options.max_write_zeroes_sectors, UNMAP) };
        if most == 0 {
            return Ok(UNSUPP);
        }
        if self.out != HEADER {
            // `max_discard_seg` and `max_write_zeroes_seg` are 1.
            return Ok(IOERR);
        }
        let mut range = [0; HEADER as usize];
        gather(self.chain, reach, HEADER, &mut range)?;
        let word = u64::from_le_bytes(range[8..].try_into().map_err(|_| Broken)?);
        let (sectors, asked) = (u64::from(word as u32), (word >> 32) as u32);
        if asked & !flags != 0 {
            return Ok(UNSUPP);
        }
        let sector = u64::from_le_bytes(range[..8].try_into().map_err(|_| Broken)?);
        let inside = sector.checked_add(sectors).is_some_and(|end| end <= options.sectors);
        if !inside || sectors > most.into() {
            return Ok(IOERR);
        }
        if let Medium::Ram(disk) = &self.facts.medium {
            disk.zero(sector, sectors);
        }
        Ok(OK)
    }
}
