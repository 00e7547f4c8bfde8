//! Requests that ended in an error: how many by whose fault, and which was the first.
//!
//! ```
//! use workload::failures::{Blame, Failures, First};
//! use workload::pattern::Op;
//!
//! let mut failures = Failures::default();
//! let first = First::new(Blame::Medium, Op::Write, 4096, 512, format_args!("medium: input/output error"));
//! failures.add(Blame::Medium, 7, || first);
//! assert_eq!(
//!     failures.to_string(),
//!     "1 requests that ended in an error: medium 1; the first: write of 512 bytes at sector 4096: medium: input/output error",
//! );
//! ```
use crate::pattern::Op;
use arrayvec::ArrayString;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Who is to blame for a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Whoever asked: it was refused before the device had it.
    Caller,
    /// The device, which answered against the specification or its own offer.
    Device,
    /// The medium: the device reported an input/output error.
    Medium,
    /// Nobody answered: the device was reset, or it is gone.
    Gone,
}

impl Blame {
    /// Everyone who can be to blame.
    pub const ALL: [Self; 4] = [Self::Caller, Self::Device, Self::Medium, Self::Gone];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Device => "device",
            Self::Medium => "medium",
            Self::Gone => "gone",
        }
    }
}

/// The first request that ended in an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    /// Who is to blame.
    pub blame: Blame,
    /// What was asked.
    pub op: Op,
    /// Its first 512-byte sector.
    pub lba: u64,
    /// Its length in bytes.
    pub bytes: u32,
    /// What was said of it.
    pub why: ArrayString<80>,
}

impl First {
    /// A request that failed because of `why`, of which as much is kept as fits.
    pub fn new(blame: Blame, op: Op, lba: u64, bytes: u32, why: fmt::Arguments<'_>) -> Self {
        Self { blame, op, lba, bytes, why: crate::report::kept(why) }
    }
}

/// What failed in a job, or in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Requests by who is to blame: see [`Blame::Caller`].
    pub caller: u64,
    /// See [`Blame::Device`].
    pub device: u64,
    /// See [`Blame::Medium`].
    pub medium: u64,
    /// See [`Blame::Gone`].
    pub gone: u64,
    /// The first of them all.
    pub first: Option<First>,
    /// When that was, in nanoseconds of the jobs' clock; only to tell which of several jobs' first was the first.
    #[serde(skip)]
    pub at_ns: u64,
}

impl Failures {
    /// Nothing failed yet.
    pub const fn new() -> Self {
        Self { caller: 0, device: 0, medium: 0, gone: 0, first: None, at_ns: 0 }
    }

    /// Counts one that failed at `now`; `first` describes it.
    #[cold]
    pub fn add(&mut self, blame: Blame, now: u64, first: impl FnOnce() -> First) {
        *self.count_mut(blame) += 1;
        if self.first.is_none() {
            (self.first, self.at_ns) = (Some(first()), now);
        }
    }

    /// How many are `blame`'s.
    pub const fn count(&self, blame: Blame) -> u64 {
        match blame {
            Blame::Caller => self.caller,
            Blame::Device => self.device,
            Blame::Medium => self.medium,
            Blame::Gone => self.gone,
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        Blame::ALL.into_iter().map(|blame| self.count(blame)).sum()
    }

    /// Adds another job's.
    pub fn merge(&mut self, other: &Self) {
        if other.first.is_some() && (self.first.is_none() || other.at_ns < self.at_ns) {
            (self.first, self.at_ns) = (other.first.clone(), other.at_ns);
        }
        for blame in Blame::ALL {
            *self.count_mut(blame) += other.count(blame);
        }
    }

    fn count_mut(&mut self, blame: Blame) -> &mut u64 {
        match blame {
            Blame::Caller => &mut self.caller,
            Blame::Device => &mut self.device,
            Blame::Medium => &mut self.medium,
            Blame::Gone => &mut self.gone,
        }
    }
}

impl fmt::Display for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, lba, bytes, why, .. } = self;
        write!(f, "{} of {bytes} bytes at sector {lba}: {why}", op.word())
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests that ended in an error", self.total())?;
        let some = Blame::ALL.into_iter().filter(|blame| self.count(*blame) > 0);
        for (at, blame) in some.enumerate() {
            write!(f, "{} {} {}", if at == 0 { ":" } else { "," }, blame.word(), self.count(blame))?;
        }
        self.first.as_ref().map_or(Ok(()), |first| write!(f, "; the first: {first}"))
    }
}
