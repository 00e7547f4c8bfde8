//! What a job's buffers hold: anything, or blocks that say where and when they were written.
use crate::buffers::{MOST_SEGMENTS, Page, Places, Scattered};
use crate::job::Content;
use workload::pattern::{Io, Op, Pattern, Step};
use workload::random::Random;
use workload::verify::ledger::{Ledger, Outcome};

/// Whatever the buffers hold.
pub struct Anything(pub Places);

impl Content<Page> for Anything {
    #[inline(always)]
    fn next(&mut self, pattern: &mut Pattern) -> Step {
        pattern.next().map_or(Step::End, Step::Io)
    }

    #[inline(always)]
    fn buffer(&mut self, place: usize, io: &Io) -> Page {
        self.0.page(place, io.bytes)
    }

    #[inline(always)]
    fn end(&mut self, _: usize, _: &Io, _: bool) -> bool {
        true
    }
}

/// Verified blocks, in buffers of a random number of pieces.
pub struct Verified<'l> {
    /// Where the data is.
    pub places: Places,
    /// What every block of the job's region holds.
    pub ledger: Ledger<'l>,
    /// Draws the pieces.
    pub random: Random,
    /// Pieces end at multiples of this many bytes.
    pub grain: u32,
    /// The first difference, for the report.
    pub first_fault: Option<alloc::string::String>,
}

impl Verified<'_> {
    /// Random ends of pieces.
    fn cuts(&mut self, bytes: u32) -> arrayvec::ArrayVec<u32, { MOST_SEGMENTS - 1 }> {
        let places = u64::from(bytes / self.grain - 1);
        let count = self.random.below(MOST_SEGMENTS as u64 * 2).saturating_sub(MOST_SEGMENTS as u64).min(places);
        let mut cuts: arrayvec::ArrayVec<u32, { MOST_SEGMENTS - 1 }> =
            (0..count).map(|_| (1 + self.random.below(places)) as u32 * self.grain).collect();
        cuts.sort_unstable();
        // Without the repeated ones: no piece is empty.
        let mut last = 0;
        cuts.retain(|cut| core::mem::replace(&mut last, *cut) != *cut);
        cuts
    }
}

impl Content<Scattered> for Verified<'_> {
    fn next(&mut self, pattern: &mut Pattern) -> Step {
        pattern.next_free(|io| self.ledger.begin(io).is_ok())
    }

    fn buffer(&mut self, place: usize, io: &Io) -> Scattered {
        if io.op == Op::Write {
            self.ledger.fill(io, self.places.data(place, io.bytes));
        }
        let cuts = self.cuts(io.bytes);
        self.places.scattered(place, io.bytes, &cuts)
    }

    fn end(&mut self, place: usize, io: &Io, success: bool) -> bool {
        let mut sound = true;
        if success
            && io.op == Op::Read
            && let Err(fault) = self.ledger.check(io, self.places.data(place, io.bytes))
        {
            sound = false;
            self.first_fault.get_or_insert_with(|| alloc::format!("{fault}"));
        }
        let outcome = if success { Outcome::Done } else { Outcome::Failed };
        sound & self.ledger.finish(io, outcome).is_ok()
    }
}
