//! What a job's buffers hold: anything, or blocks that say where and when they were written.
use crate::buffers::{MOST_SEGMENTS, Page, Places, Scattered};
use crate::job::Content;
use alloc::collections::VecDeque;
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
///
/// A trim of blocks that nobody wrote would show nothing: its blocks are written before it and read after it, and it
/// makes them read as zeros.
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
    /// The rest of trims that have begun: the trim itself, or the read after it.
    next: VecDeque<Io>,
    /// I/Os of trims in flight.
    begun: usize,
    /// Every I/O of the job belongs to a trim: none is mixed with reads and writes.
    trims: bool,
    /// The pattern has ended.
    over: bool,
}

impl<'l> Verified<'l> {
    /// Blocks in `places`, of which `ledger` knows what they hold.
    pub fn new(places: Places, ledger: Ledger<'l>, random: Random, grain: u32) -> Self {
        let next = VecDeque::new();
        Self { places, ledger, random, grain, first_fault: None, next, begun: 0, trims: false, over: false }
    }

    /// The next I/O of a trim that has begun, if there is any and nobody is at its blocks.
    fn continued(&mut self) -> Option<Io> {
        let ledger = &mut self.ledger;
        let at = self.next.iter().position(|io| ledger.begin(io).is_ok())?;
        self.begun += 1;
        self.next.remove(at)
    }

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

/// What is done first: a trim begins with a write.
fn written(io: &Io) -> Io {
    if io.op == Op::Trim { Io { op: Op::Write, ..*io } } else { *io }
}

impl Content<Scattered> for Verified<'_> {
    const ZEROING: bool = true;

    fn next(&mut self, pattern: &mut Pattern) -> Step {
        if let Some(io) = self.continued() {
            return Step::Io(io);
        }
        let step = if self.over { Step::End } else { pattern.next_free(|io| self.ledger.begin(&written(io)).is_ok()) };
        match step {
            Step::Io(io) if io.op == Op::Trim => {
                self.trims = true;
                self.begun += 1;
                Step::Io(written(&io))
            }
            Step::End => {
                self.over = true;
                if self.begun > 0 || !self.next.is_empty() { Step::Wait } else { Step::End }
            }
            step => step,
        }
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
        let outcome = match (success, io.op) {
            (false, _) => Outcome::Failed,
            (true, Op::Trim) => Outcome::Zeroed,
            (true, _) => Outcome::Done,
        };
        if self.trims {
            self.begun -= 1;
            let next = |op| Io { op, ..*io };
            match io.op {
                Op::Write if success => self.next.push_back(next(Op::Trim)),
                Op::Trim if success => self.next.push_back(next(Op::Read)),
                _ => (),
            }
        }
        sound & self.ledger.finish(io, outcome).is_ok()
    }
}
