//! Why a request failed, in the words of whichever driver it was, and who is to blame.
use core::fmt;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::request::Error;
use workload::failures::Blame;

/// How a request ended.
pub type Ended = Result<(), Failure>;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What the driver said.
    Driver(Error),
    /// What a session of lib-block said.
    Session(Status),
    /// What another driver said, or the run itself.
    Other(Other),
}

/// What is said by other drivers, and by the run itself. A number, so that [`crate::drive::Outcome`] stays as small as
/// it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// An input/output error.
    Medium,
    /// An answer that is no success and no input/output error.
    Answer,
    /// A parameter that the driver does not take.
    Parameter,
    /// The bare ring does not flush.
    NoFlush,
    /// A request was submitted without room.
    NoRoom,
    /// The session ended.
    Ended,
    /// The server contradicted itself.
    Contradicted,
    /// The request was answered.
    Answered,
}

impl Other {
    fn told(self) -> (Blame, &'static str) {
        match self {
            Self::Medium => (Blame::Medium, "input/output error"),
            Self::Answer => (Blame::Device, "an answer that is no success"),
            Self::Parameter => (Blame::Caller, "an invalid parameter"),
            Self::NoFlush => (Blame::Caller, "the bare ring does not flush"),
            Self::NoRoom => (Blame::Caller, "submitted without room"),
            Self::Ended => (Blame::Gone, "the session ended"),
            Self::Contradicted => (Blame::Device, "the server contradicted itself"),
            Self::Answered => (Blame::Caller, "the request was answered"),
        }
    }
}

impl Failure {
    /// What another driver calls an input/output error.
    pub const MEDIUM: Self = Self::Other(Other::Medium);
    /// What another driver cannot tell apart: an answer that is no success and no input/output error.
    pub const DEVICE: Self = Self::Other(Other::Answer);

    /// Who is to blame.
    #[cold]
    pub fn blame(self) -> Blame {
        match self {
            Self::Driver(Error::Caller(_)) => Blame::Caller,
            Self::Driver(Error::Device(_)) => Blame::Device,
            Self::Driver(Error::Medium) => Blame::Medium,
            Self::Driver(Error::Gone(_)) => Blame::Gone,
            Self::Session(status) => blame_of(status),
            Self::Other(other) => other.told().0,
        }
    }
}

/// lib-block does not tell a medium's errors from a device's that answered against the specification.
fn blame_of(status: Status) -> Blame {
    match status {
        Status::Reset | Status::TimedOut | Status::Gone => Blame::Gone,
        Status::Ok | Status::IoError => Blame::Medium,
        Status::Denied
        | Status::InvalidArgument
        | Status::NotFound
        | Status::Busy
        | Status::Unsupported
        | Status::OutOfRange
        | Status::ReadOnly => Blame::Caller,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It says who is to blame by itself.
            Self::Driver(error) => fmt::Display::fmt(error, f),
            Self::Session(status) => write!(f, "{}: {status}", self.blame().word()),
            Self::Other(other) => {
                let (blame, text) = other.told();
                write!(f, "{}: {text}", blame.word())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use drv_virtio_block::request::{DeviceFault, Gone, Refusal};

    #[test]
    fn a_sessions_failures_are_the_callers_the_mediums_or_nobodys() {
        let of = |status| Failure::Session(status).blame();
        for status in [Status::Reset, Status::TimedOut, Status::Gone] {
            assert_eq!(of(status), Blame::Gone, "{status}");
        }
        for status in [Status::Denied, Status::InvalidArgument, Status::OutOfRange, Status::ReadOnly] {
            assert_eq!(of(status), Blame::Caller, "{status}");
        }
        assert_eq!(of(Status::IoError), Blame::Medium);
        assert_eq!((Failure::MEDIUM.blame(), Failure::DEVICE.blame()), (Blame::Medium, Blame::Device));
    }

    #[test]
    fn every_failure_names_who_is_to_blame_and_counts_as_theirs() {
        let all = [
            Failure::Driver(Error::Caller(Refusal::OutOfRange)),
            Failure::Driver(Error::Device(DeviceFault::BadStatus(9))),
            Failure::Driver(Error::Medium),
            Failure::Driver(Error::Gone(Gone::Reset)),
            Failure::MEDIUM,
            Failure::DEVICE,
        ];
        let sessions = Status::ALL.into_iter().map(Failure::Session);
        for failure in all.into_iter().chain(sessions) {
            let (text, blame) = (failure.to_string(), failure.blame().word());
            assert!(text.starts_with(&alloc::format!("{blame}: ")), "{text} is not {blame}'s");
        }
    }
}
