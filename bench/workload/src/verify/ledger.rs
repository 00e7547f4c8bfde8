//! During a run: which generation every sector must hold, and which sectors an I/O in flight has reserved.
//!
//! One word per sector, in memory that the caller provides; one job owns it, over its own region of the disk. Bit 31
//! says "in flight", the rest is the generation. Two I/Os in flight that touch the same sector have no defined outcome,
//! so [`Ledger::begin`] refuses the second one, be it a read: draw another or wait
//! ([`crate::pattern::Pattern::next_free`] does both). The bit makes the test exact, for any number in flight, at the
//! cost of one word per sector, which filling and checking the sector dwarf.
//!
//! It refuses to know buffers' owners, queues and time.
//!
//! Invariants: a sector is in flight exactly from `begin` to `finish`; its generation changes only there; a write that
//! failed, or a discard, leaves "unknown", which nothing is checked against until it is written again.
//!
//! ```
//! use workload::pattern::{Io, Op};
//! use workload::verify::ledger::{Ledger, Outcome, Refused};
//!
//! let (mut memory, mut buffer) = ([0; 16], [0; 4096]);
//! let mut ledger = Ledger::new(&mut memory, 0);
//! let (write, read) = (Io { op: Op::Write, lba: 8, bytes: 4096 }, Io { op: Op::Read, lba: 8, bytes: 4096 });
//! ledger.begin(&write).unwrap();
//! ledger.fill(&write, &mut buffer); // then submit it
//! assert_eq!(ledger.begin(&read), Err(Refused::Busy));
//! ledger.finish(&write, Outcome::Done).unwrap();
//! ledger.begin(&read).unwrap();
//! assert_eq!(ledger.check(&read, &buffer), Ok(()));
//! ```
use core::fmt;

use super::{Expected, Fault, SECTOR, check_all, fill};
use crate::pattern::{Io, Op};

/// Marks a sector in flight.
pub(super) const BUSY: u32 = 1 << 31;
/// In place of a generation: never written, or zeroed.
pub(super) const ZEROS: u32 = 0;
/// In place of a generation: nobody can say.
pub(super) const UNKNOWN: u32 = BUSY - 1;

/// What a ledger's word says of its sector, in flight or not.
pub(super) fn expected(word: u32) -> Expected {
    match word & !BUSY {
        ZEROS => Expected::Zeros,
        UNKNOWN => Expected::Unknown,
        generation => Expected::Generation(generation.into()),
    }
}

/// How an I/O ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well. A discard leaves "unknown".
    Done,
    /// Well, and the sectors now read as zeros: a write-zeroes, issued as [`Op::Trim`].
    Zeroed,
    /// In an error, or it was never submitted: what was to change is now "unknown".
    Failed,
}

/// Why the ledger does not take a step. Only [`Refused::Busy`] is ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An I/O in flight holds one of the sectors: try another, or later.
    Busy,
    /// The I/O leaves the ledger's sectors.
    Outside,
    /// The I/O is not in flight: it ended twice, or never began.
    Idle,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "a sector is in flight: try another I/O, or later",
            Self::Outside => "the I/O leaves the ledger's sectors: give the job its own region",
            Self::Idle => "the I/O is not in flight: it completed twice or was never begun",
        })
    }
}

impl core::error::Error for Refused {}

/// The record of one job's region.
#[derive(Debug)]
pub struct Ledger<'t> {
    words: &'t mut [u32],
    first: u64,
    last: u32,
}

impl<'t> Ledger<'t> {
    /// The ledger of the sectors from `first` on, one per word, all zeros so far. Under [`super::table`] the words are
    /// the job's part of the table: `first..` of it.
    pub fn new(words: &'t mut [u32], first: u64) -> Self {
        words.fill(ZEROS);
        Self { words, first, last: ZEROS }
    }

    /// Reserves the sectors of `io`; a write gets the next generation.
    ///
    /// # Errors
    /// [`Refused::Busy`] or [`Refused::Outside`]; nothing has changed then.
    pub fn begin(&mut self, io: &Io) -> Result<(), Refused> {
        let next = if self.last + 1 == UNKNOWN { ZEROS + 1 } else { self.last + 1 };
        let words = self.words_of(io)?;
        if words.iter().any(|word| word & BUSY != 0) {
            return Err(Refused::Busy);
        }
        match io.op {
            Op::Read => words.iter_mut().for_each(|word| *word |= BUSY),
            Op::Trim => words.fill(BUSY | UNKNOWN),
            Op::Write => {
                words.fill(BUSY | next);
                self.last = next;
            }
        }
        Ok(())
    }

    /// Writes into `data` what the sectors of `io` must hold, for a write that has begun. Sectors that must hold zeros
    /// or anything become zeros.
    pub fn fill(&self, io: &Io, data: &mut [u8]) {
        for (sector, lba) in data.chunks_mut(SECTOR).zip(io.lba..) {
            match self.expected(lba) {
                Expected::Generation(generation) => fill(sector, lba, generation),
                Expected::Zeros | Expected::Unknown => sector.fill(0),
            }
        }
    }

    /// Checks what a read of `io` brought, while it still counts as in flight.
    ///
    /// # Errors
    /// The first sector that differs; data shorter or longer than `io` is a difference in length.
    pub fn check(&self, io: &Io, data: &[u8]) -> Result<(), Fault> {
        if data.len() != io.bytes as usize {
            return Err(Fault { lba: io.lba, mismatch: super::Mismatch::Length { found: data.len() } });
        }
        check_all(data, io.lba, |lba| self.expected(lba))
    }

    /// Ends `io`: its sectors are free again.
    ///
    /// # Errors
    /// [`Refused::Idle`] or [`Refused::Outside`]; nothing has changed then.
    pub fn finish(&mut self, io: &Io, outcome: Outcome) -> Result<(), Refused> {
        let words = self.words_of(io)?;
        if words.iter().any(|word| word & BUSY == 0) {
            return Err(Refused::Idle);
        }
        match (io.op, outcome) {
            (Op::Read, _) | (_, Outcome::Done) => words.iter_mut().for_each(|word| *word &= !BUSY),
            (_, Outcome::Zeroed) => words.fill(ZEROS),
            (_, Outcome::Failed) => words.fill(UNKNOWN),
        }
        Ok(())
    }

    /// What the sector must hold; [`Expected::Unknown`] outside the ledger.
    pub fn expected(&self, lba: u64) -> Expected {
        let index = lba.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.words.get(index)).map_or(Expected::Unknown, |word| expected(*word))
    }

    /// The first sector in flight, if any: after a run, an I/O that never came back.
    pub fn in_flight(&self) -> Option<u64> {
        self.words.iter().position(|word| word & BUSY != 0).map(|index| self.first + index as u64)
    }

    fn words_of(&mut self, io: &Io) -> Result<&mut [u32], Refused> {
        let start = io.lba.checked_sub(self.first).ok_or(Refused::Outside)?;
        let start = usize::try_from(start).map_err(|_| Refused::Outside)?;
        let end = start.checked_add(io.sectors() as usize).ok_or(Refused::Outside)?;
        self.words.get_mut(start..end).ok_or(Refused::Outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_skip_what_is_reserved_when_they_start_over() {
        let mut words = [0];
        let mut ledger = Ledger::new(&mut words, 0);
        ledger.last = UNKNOWN - 2;
        let io = Io { op: Op::Write, lba: 0, bytes: 512 };
        for expected in [UNKNOWN - 1, 1, 2] {
            ledger.begin(&io).unwrap();
            ledger.finish(&io, Outcome::Done).unwrap();
            assert_eq!(ledger.expected(0), Expected::Generation(expected.into()));
        }
    }
}
