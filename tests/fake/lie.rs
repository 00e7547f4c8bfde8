//! A device that breaks the rules: each [`Lie`] spoils one completion.
//!
//! The fake's own accounting stays honest underneath, so that one lie is one lie.
use super::execute::Execution;
use super::ring::{Flight, Ring};
use super::scribble::Area;
use super::{FakeDevice, Inner};

/// How one completion is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The used entry carries exactly this id.
    UsedId(u32),
    /// The id is the queue's size: just out of range.
    IdOutOfRange,
    /// The id is in range, but with the high half set.
    IdWithHighBits,
    /// The id is that of a chain completed before, or else of one never offered.
    IdNotInFlight,
    /// The entry is pushed twice, before one index update.
    IdTwice,
    /// The id is that of the chain's second descriptor (of the next descriptor, for an indirect chain).
    IdOfDataDescriptor,
    /// The used length is exactly this.
    UsedLen(u32),
    /// The used length is one more than the chain's writable bytes.
    LenTooLarge,
    /// Half of the data is written, the length says so, the status says OK.
    LenTooShort,
    /// The used length is 0 although everything was written.
    LenZero,
    /// The published index is this much further than it should be.
    IndexAhead(u16),
    /// The published index is this much behind where it was.
    IndexBack(u16),
    /// The status byte is not written.
    StatusUnwritten,
    /// Nothing is done and the status is this: 1 IOERR, 2 UNSUPP, 7 unknown.
    Status(u8),
    /// Nothing is done, the status is this and the used length that.
    Undone { status: u8, len: u32 },
    /// Before the entry is pushed, the device writes garbage where only the driver may write. Undone by
    /// [`FakeDevice::unscribble`].
    Scribble(Area),
    /// The completion never comes.
    Never,
}

/// A used entry.
pub(super) struct Answer {
    pub(super) id: u32,
    pub(super) len: u32,
    pub(super) twice: bool,
}

impl Lie {
    pub(super) fn execution(self) -> Execution {
        match self {
            Self::LenTooShort => Execution::Half,
            Self::StatusUnwritten => Execution::StatusUnwritten,
            Self::Status(status) | Self::Undone { status, .. } => Execution::Status(status),
            _ => Execution::Honest,
        }
    }

    /// What is pushed instead of the honest `answer`.
    pub(super) fn bend(self, answer: Answer, ring: &Ring, flight: &Flight) -> Answer {
        let writable: u64 = flight.chain.pieces.iter().filter(|piece| piece.writable).map(|piece| piece.len).sum();
        let size = ring.size();
        let neighbour = (flight.head + 1) % size;
        match self {
            Self::UsedId(id) => Answer { id, ..answer },
            Self::IdOutOfRange => Answer { id: u32::from(size), ..answer },
            Self::IdWithHighBits => Answer { id: answer.id | 0x1_0000, ..answer },
            Self::IdNotInFlight => {
                Answer { id: ring.idle_head(&flight.chain.descriptors).map_or(u32::from(size), u32::from), ..answer }
            }
            Self::IdTwice => Answer { twice: true, ..answer },
            Self::IdOfDataDescriptor => {
                Answer { id: u32::from(flight.chain.descriptors.get(1).copied().unwrap_or(neighbour)), ..answer }
            }
            Self::UsedLen(len) | Self::Undone { len, .. } => Answer { len, ..answer },
            Self::LenTooLarge => Answer { len: writable as u32 + 1, ..answer },
            Self::LenZero => Answer { len: 0, ..answer },
            _ => answer,
        }
    }

    /// The index to publish instead of `after`, when it was `before`.
    pub(super) fn index(self, before: u16, after: u16) -> u16 {
        match self {
            Self::IndexAhead(by) => after.wrapping_add(by),
            Self::IndexBack(by) => before.wrapping_sub(by),
            _ => after,
        }
    }
}

impl FakeDevice {
    /// Spoils the next completion on `queue`; several lies are told one after the other, each once.
    pub(crate) fn inject(&self, queue: u16, lie: Lie) {
        self.with(|inner: &mut Inner| inner.ring(queue).lies.push_back(lie));
    }

    /// Lies not yet told on `queue`.
    pub(crate) fn lies_left(&self, queue: u16) -> usize {
        self.with(|inner| inner.ring(queue).lies.len())
    }
}
