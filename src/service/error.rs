//! Why the driver does not serve, and what that is called in an answer.
use crate::arena::ArenaExhausted;
use crate::device::BringUpError;
use crate::lib_block::Status;
use crate::queue::PrepareError;
use core::fmt;

/// Why the driver does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceError {
    /// It serves already, or not at all any more.
    State,
    /// The device could not be brought up.
    BringUp(BringUpError),
    /// A queue could not be laid out.
    Prepare(PrepareError),
    /// Private memory is short.
    Arena(ArenaExhausted),
    /// It was stopped, but the FLUSH before that did not succeed: what was answered may not be durable.
    Flush(Status),
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State => f.write_str("the driver cannot be started in the state that it is in"),
            Self::BringUp(why) => why.fmt(f),
            Self::Prepare(why) => why.fmt(f),
            Self::Arena(why) => write!(f, "private memory is short: {} bytes more are needed", why.wanted),
            Self::Flush(why) => write!(f, "stopped, but what was written may not be durable: {why}"),
        }
    }
}

impl core::error::Error for ServiceError {}

impl From<BringUpError> for ServiceError {
    fn from(why: BringUpError) -> Self {
        Self::BringUp(why)
    }
}

/// What a start or stop that failed is called in an answer.
pub(super) fn status_of(why: ServiceError) -> Status {
    match why {
        ServiceError::State => Status::Busy,
        ServiceError::BringUp(_) => Status::IoError,
        ServiceError::Prepare(_) | ServiceError::Arena(_) => Status::InvalidArgument,
        ServiceError::Flush(status) => status,
    }
}
