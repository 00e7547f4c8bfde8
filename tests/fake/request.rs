//! Reads a chain as a block request and judges it by the block device's rules, before anything is done.
//!
//! Framing is by bytes, not by descriptors: the first 16 readable bytes are the header, the last writable byte is the
//! status, the rest is data. Specification: 2.7.4 Message Framing, 5.2.6 Device Operation.
use super::chain::{Chain, Piece};
use super::wire::{block, features, le32, le64};
use super::{Inner, RangeLimits};

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFault {
    /// Fewer than 16 readable bytes.
    HeaderShort,
    /// No writable byte for the status.
    StatusMissing,
    /// The header's second word is not 0.
    ReservedNotZero(u32),
    /// A type that does not exist.
    UnknownType(u32),
    /// A type whose feature was not negotiated.
    NotNegotiated(u32),
    /// `sector` is not 0 although the type has none.
    SectorNotZero(u64),
    /// Data where the type has none, or in the wrong direction.
    DataMisplaced { readable: u64, writable: u64 },
    /// Not a multiple of 512 (read, write), not 20 (GET ID), not a multiple of 16 (ranges), or none at all.
    DataLength(u64),
    /// Not aligned to the logical block size.
    NotBlockAligned { sector: u64, bytes: u64 },
    /// More data segments than `seg_max`.
    TooManySegments(usize),
    /// A data segment longer than `size_max`.
    SegmentTooLong(u64),
    /// Beyond the capacity that the driver was told.
    BeyondCapacity { sector: u64, sectors: u64 },
    /// A change of a read-only medium.
    ReadOnly,
    /// More range segments than allowed.
    TooManyRanges(usize),
    /// A range longer than allowed.
    RangeTooLong(u32),
    /// Range flags that are unknown, or unmap where it is not allowed.
    RangeFlags(u32),
}

/// One segment of DISCARD or WRITE ZEROES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

/// A request as the device understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockRequest {
    pub(super) kind: u32,
    pub(super) sector: u64,
    pub(super) header: [u8; block::HEADER_BYTES],
    /// Data of the driver, without the header.
    pub(super) readable: Vec<Piece>,
    /// Data of the device, without the status.
    pub(super) writable: Vec<Piece>,
    pub(super) ranges: Vec<Range>,
    /// Address of the status byte.
    pub(super) status: u64,
    /// What the device must answer, if not OK.
    pub(super) refusal: Option<u8>,
}

impl BlockRequest {
    pub(super) fn data_len(&self) -> u64 {
        bytes(&self.readable) + bytes(&self.writable)
    }

    /// Whether the request touches sectors from `capacity` on.
    pub(super) fn beyond(&self, capacity: u64) -> bool {
        let transfer = matches!(self.kind, block::IN | block::OUT);
        transfer && ends_beyond(self.sector, self.data_len() / block::SECTOR, capacity)
            || self.ranges.iter().any(|range| ends_beyond(range.sector, u64::from(range.sectors), capacity))
    }
}

fn bytes(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.len).sum()
}

/// Takes the first `count` bytes off `pieces`; `None` if there are fewer.
fn split_front(pieces: &mut Vec<Piece>, mut count: u64) -> Option<Vec<Piece>> {
    let mut front = Vec::new();
    while count > 0 {
        let first = pieces.first_mut()?;
        let taken = first.len.min(count);
        front.push(Piece { len: taken, ..*first });
        first.address += taken;
        first.len -= taken;
        count -= taken;
        if first.len == 0 {
            pieces.remove(0);
        }
    }
    Some(front)
}

/// Takes the last byte off `pieces`.
fn split_last(pieces: &mut Vec<Piece>) -> Option<u64> {
    let last = pieces.last_mut()?;
    last.len -= 1;
    let address = last.address + last.len;
    if last.len == 0 {
        pieces.pop();
    }
    Some(address)
}

impl Inner {
    /// Reads `chain` as a request; what is wrong with it goes into `faults`. `None`: not even a header and a status.
    pub(super) fn parse(&self, chain: &Chain, faults: &mut Vec<RequestFault>) -> Option<BlockRequest> {
        let (mut writable, mut readable): (Vec<_>, Vec<_>) = chain.pieces.iter().partition(|piece| piece.writable);
        let Some(status) = split_last(&mut writable) else {
            faults.push(RequestFault::StatusMissing);
            return None;
        };
        let Some(header) = split_front(&mut readable, block::HEADER_BYTES as u64) else {
            faults.push(RequestFault::HeaderShort);
            return None;
        };
        let header: [u8; block::HEADER_BYTES] = self.gather(&header).try_into().expect("split at its length");
        let (kind, reserved, sector) = (le32(&header, 0), le32(&header, 4), le64(&header, 8));
        let ranges = Vec::new();
        let mut request = BlockRequest { kind, sector, header, readable, writable, ranges, status, refusal: None };
        if reserved != 0 {
            faults.push(RequestFault::ReservedNotZero(reserved));
        }
        self.judge(&mut request, faults);
        Some(request)
    }

    /// Fills in the ranges and the refusal.
    fn judge(&self, request: &mut BlockRequest, faults: &mut Vec<RequestFault>) {
        let before = faults.len();
        let kind = request.kind;
        if let Err(fault) = self.known(kind) {
            faults.push(fault);
            request.refusal = Some(block::UNSUPP);
            return;
        }
        match kind {
            block::IN | block::OUT => self.judge_transfer(request, faults),
            block::FLUSH => expect_data(request, (0, 0), faults),
            block::GET_ID => judge_id(request, faults),
            block::DISCARD => self.judge_ranges(request, self.config.discard, 0, faults),
            _ => self.judge_ranges(request, self.config.write_zeroes, block::UNMAP, faults),
        }
        if !matches!(kind, block::IN | block::OUT) && request.sector != 0 {
            faults.push(RequestFault::SectorNotZero(request.sector));
        }
        let changes = matches!(kind, block::OUT | block::DISCARD | block::WRITE_ZEROES);
        let read_only = changes && self.registers.offered(features::RO);
        if read_only {
            faults.push(RequestFault::ReadOnly);
        }
        if faults.len() > before {
            let flags = faults[before..].iter().any(|fault| matches!(fault, RequestFault::RangeFlags(_)));
            request.refusal = Some(if flags { block::UNSUPP } else { block::IOERR });
        } else if request.beyond(self.registers.space.capacity()) {
            // Shrunk since the driver last read the capacity: the device refuses, and the driver is not to blame.
            request.refusal = Some(block::IOERR);
        }
    }

    fn known(&self, kind: u32) -> Result<(), RequestFault> {
        let feature = match kind {
            block::IN | block::OUT | block::GET_ID => 0,
            block::FLUSH => features::FLUSH,
            block::DISCARD => features::DISCARD,
            block::WRITE_ZEROES => features::WRITE_ZEROES,
            _ => return Err(RequestFault::UnknownType(kind)),
        };
        if self.registers.negotiated(feature) { Ok(()) } else { Err(RequestFault::NotNegotiated(kind)) }
    }

    fn judge_transfer(&self, request: &BlockRequest, faults: &mut Vec<RequestFault>) {
        let len = request.data_len();
        let data = if request.kind == block::IN { &request.writable } else { &request.readable };
        expect_data(request, if request.kind == block::IN { (0, len) } else { (len, 0) }, faults);
        if len == 0 || !len.is_multiple_of(block::SECTOR) {
            faults.push(RequestFault::DataLength(len));
        }
        let registers = &self.registers;
        let unit = if registers.negotiated(features::BLK_SIZE) { u64::from(self.config.blk_size) } else { 1 };
        if !len.is_multiple_of(unit) || !request.sector.wrapping_mul(block::SECTOR).is_multiple_of(unit) {
            faults.push(RequestFault::NotBlockAligned { sector: request.sector, bytes: len });
        }
        if registers.negotiated(features::SEG_MAX) && data.len() > self.config.seg_max.max(1) as usize {
            faults.push(RequestFault::TooManySegments(data.len()));
        }
        let longest = data.iter().map(|piece| piece.len).max().unwrap_or(0);
        let size_max = u64::from(self.config.size_max);
        if registers.negotiated(features::SIZE_MAX) && size_max != 0 && longest > size_max {
            faults.push(RequestFault::SegmentTooLong(longest));
        }
        if request.beyond(registers.space.believable_capacity()) {
            faults.push(RequestFault::BeyondCapacity { sector: request.sector, sectors: len / block::SECTOR });
        }
    }

    fn judge_ranges(
        &self,
        request: &mut BlockRequest,
        limits: RangeLimits,
        flags: u32,
        faults: &mut Vec<RequestFault>,
    ) {
        let len = request.data_len();
        expect_data(request, (len, 0), faults);
        if len == 0 || !len.is_multiple_of(block::RANGE_BYTES as u64) {
            faults.push(RequestFault::DataLength(len));
        }
        request.ranges = self.gather(&request.readable).chunks_exact(block::RANGE_BYTES).map(range).collect();
        if request.ranges.len() > limits.max_segments as usize {
            faults.push(RequestFault::TooManyRanges(request.ranges.len()));
        }
        for range in &request.ranges {
            if range.sectors > limits.max_sectors {
                faults.push(RequestFault::RangeTooLong(range.sectors));
            }
            if range.flags & !flags != 0 {
                faults.push(RequestFault::RangeFlags(range.flags));
            }
            if ends_beyond(range.sector, u64::from(range.sectors), self.registers.space.believable_capacity()) {
                faults.push(RequestFault::BeyondCapacity { sector: range.sector, sectors: u64::from(range.sectors) });
            }
        }
    }

    /// The bytes of readable pieces, one after the other.
    pub(super) fn gather(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut all = vec![0; bytes(pieces) as usize];
        let mut rest = all.as_mut_slice();
        for piece in pieces {
            let (now, later) = rest.split_at_mut(piece.len as usize);
            self.memory.read(piece.address, now).expect("bounds were checked when the chain was walked");
            rest = later;
        }
        all
    }
}

fn ends_beyond(sector: u64, sectors: u64, capacity: u64) -> bool {
    sector.checked_add(sectors).is_none_or(|end| end > capacity)
}

fn range(bytes: &[u8]) -> Range {
    Range { sector: le64(bytes, 0), sectors: le32(bytes, 8), flags: le32(bytes, 12) }
}

fn judge_id(request: &BlockRequest, faults: &mut Vec<RequestFault>) {
    let len = request.data_len();
    expect_data(request, (0, len), faults);
    if len != block::ID_BYTES as u64 {
        faults.push(RequestFault::DataLength(len));
    }
}

/// Faults a request whose readable and writable data are not `expected` bytes.
fn expect_data(request: &BlockRequest, expected: (u64, u64), faults: &mut Vec<RequestFault>) {
    let found = (bytes(&request.readable), bytes(&request.writable));
    if found != expected {
        faults.push(RequestFault::DataMisplaced { readable: found.0, writable: found.1 });
    }
}
