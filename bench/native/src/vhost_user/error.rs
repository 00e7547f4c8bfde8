//! Why a back-end cannot be had, or was lost: one line each that says what to do.
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Most bytes of a socket's path: `sun_path` has one more, for its end.
const MAX_PATH: usize = 107;

/// What went wrong with a message of the control path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The back-end closed the connection, or died.
    Closed,
    /// It did not answer within this time.
    Stalled(Duration),
    /// It answered something that the protocol does not know here.
    Garbage,
    /// It answered that it failed to do what the message asks.
    Rejected,
    /// It was hung up from this side: on wish, or because a reset did not end otherwise.
    Ended,
    /// The system refused.
    System(io::ErrorKind),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the back-end closed the connection; see its own messages, it may have died"),
            Self::Stalled(bound) => {
                let bound = bound.as_millis();
                write!(f, "no answer within {bound} ms; the back-end hangs, or serves another connection: free it")
            }
            Self::Garbage => f.write_str("the answer is not vhost-user; give the socket of a vhost-user-blk back-end"),
            Self::Rejected => f.write_str("the back-end failed to do it; see its own messages"),
            Self::Ended => f.write_str("the connection was ended from this side; reset the device and reconnect"),
            Self::System(why) => write!(f, "{why}"),
        }
    }
}

/// A message of the control path that failed. The connection is of no use from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlError {
    /// The message, by its name in the protocol.
    pub message: &'static str,
    /// What went wrong with it.
    pub fault: Fault,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.fault)
    }
}

impl std::error::Error for ControlError {}

/// Why no back-end could be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Nothing is at the path.
    NoSocket(PathBuf),
    /// Something else is, or a socket that takes no streams.
    NotASocket(PathBuf),
    /// An empty path.
    NoPath,
    /// A path that is longer than a socket's address can hold.
    PathTooLong(PathBuf),
    /// There is a socket, and nobody listens.
    NobodyListens(PathBuf),
    /// Connecting failed otherwise.
    Socket(PathBuf, io::ErrorKind),
    /// A message of the set-up failed.
    Control(ControlError),
    /// The back-end has no protocol features: it cannot be asked for the configuration space.
    NoProtocolFeatures,
    /// It has protocol features, but not CONFIG.
    NoConfig,
    /// The configuration space does not even have the capacity: what it had, in bytes.
    ConfigTooShort(usize),
    /// The system has no file descriptor left, or refuses one.
    System(io::ErrorKind),
    /// A reconnect before the device was reset, or while the old back-end may still use the memory.
    NotReset,
}

impl ConnectError {
    /// Whether trying again may help: the back-end is not there yet, or is just going away.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoSocket(_) | Self::NobodyListens(_) => true,
            Self::Control(ControlError { fault, .. }) => *fault == Fault::Closed,
            _ => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocket(path) => {
                write!(f, "{}: no such socket; start the back-end, or give the path that it listens at", path.display())
            }
            Self::NotASocket(path) => {
                write!(f, "{}: not a socket that takes connections; give a back-end's", path.display())
            }
            Self::NoPath => f.write_str("an empty path; give that of a back-end's socket"),
            Self::PathTooLong(path) => {
                let len = path.as_os_str().len();
                write!(
                    f,
                    "the path has {len} bytes, a socket's has at most {MAX_PATH}; give a shorter one, a link will do"
                )
            }
            Self::NobodyListens(path) => {
                write!(f, "{}: nobody listens; the back-end ended, start it again", path.display())
            }
            Self::Socket(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Control(why) => write!(f, "vhost-user set-up, {why}"),
            Self::NoProtocolFeatures => {
                f.write_str("the back-end offers no vhost-user protocol features; CONFIG is needed, use a newer one")
            }
            Self::NoConfig => {
                f.write_str("the back-end lacks the protocol feature CONFIG; use a vhost-user-blk back-end that has it")
            }
            Self::ConfigTooShort(bytes) => {
                write!(f, "the back-end's configuration space has {bytes} bytes and no capacity; is it a block device?")
            }
            Self::System(why) => write!(f, "no file descriptor: {why}"),
            Self::NotReset => f.write_str("the old back-end may still use the memory; reset the device first"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<ControlError> for ConnectError {
    fn from(why: ControlError) -> Self {
        Self::Control(why)
    }
}

impl From<io::Error> for ConnectError {
    fn from(why: io::Error) -> Self {
        Self::System(why.kind())
    }
}
