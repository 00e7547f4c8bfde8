//! The conversation with one back-end, from the connect to its end: each message bounded, each failure final.
//!
//! The crate's [`Frontend`] speaks; one message it cannot say is said here by hand, on the same socket and never at the
//! same time: GET_CONFIG, because the front-end waits for all the bytes that it asked for while a back-end whose
//! configuration space is shorter answers fewer.
//!
//! It knows no queues beyond their numbers, and no driver. Once a message failed, the stream is of no use: the
//! connection is lost, every later message fails alike, and the back-end is made to notice, so that it lets go of the
//! memory ([`Control::let_go`]).
//!
//! Specification: vhost-user, "Communication", "Front-end message types".
use super::error::{ConnectError, ControlError, Fault};
use super::guard::{Guard, Outcome};
use crate::platform::hung_up;
use drv_virtio_block::spec::config;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vhost::VhostBackend;
use vhost::vhost_user::message::{FrontendReq, VhostUserHeaderFlag};
use vhost::vhost_user::{Error as VhostError, Frontend, VhostUserFrontend};
use vhost::vhost_user::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures as Virtio};

/// Lengths of the configuration space that are asked for, in bytes: all that the driver knows of, then up to the end of
/// older layouts (num_queues, opt_io_size, blk_size, seg_max), at last the capacity alone. A back-end may answer any
/// length, or none when it has less than was asked for.
const CONFIG_LENGTHS: [usize; 6] = [config::LEN as usize, 36, 32, 24, 16, CAPACITY];
/// Bytes of the capacity, without which there is no disk.
const CAPACITY: usize = 8;
/// Bytes of a message's header, and of the fixed part of a configuration message.
const HEADER: usize = 12;
const CONFIG_PART: usize = 12;
/// Version 1 of the protocol, in the flags of a header, and the flag of an answer.
const VERSION: u32 = 1;
const REPLY: u32 = 4;

/// What the back-end said of itself when it was connected to.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Virtio features, with the bits that belong to the protocol.
    pub(super) features: u64,
    /// How many queues it has room for.
    pub(super) queues: u16,
    /// Its configuration space, as long as it answers.
    pub(super) config: Vec<u8>,
}

/// A connection. See the module's text.
pub(super) struct Control {
    frontend: Frontend,
    socket: Arc<UnixStream>,
    guard: Guard,
    facts: Facts,
    lost: Option<ControlError>,
    /// The socket cannot tell any more whether the back-end closed its end.
    severed: bool,
    /// The back-end was told of memory.
    told: bool,
}

impl Control {
    /// Connects and learns what the back-end is; each message may take `bound`.
    pub(super) fn open(path: &Path, bound: Duration) -> Result<Self, ConnectError> {
        let socket = Arc::new(dial(path, bound)?);
        let frontend = Frontend::from_stream(socket.try_clone()?, 1);
        let guard = Guard::new(Arc::clone(&socket), bound)?;
        let facts = Facts { features: 0, queues: 1, config: Vec::new() };
        let mut control = Self { frontend, socket, guard, facts, lost: None, severed: false, told: false };
        control.introduce()?;
        Ok(control)
    }

    /// The set-up that every connection begins with.
    fn introduce(&mut self) -> Result<(), ConnectError> {
        let features = self.say("GET_FEATURES", |f| f.get_features())?;
        if features & Virtio::PROTOCOL_FEATURES.bits() == 0 {
            return Err(ConnectError::NoProtocolFeatures);
        }
        let offered = self.say("GET_PROTOCOL_FEATURES", VhostUserFrontend::get_protocol_features)?;
        if !offered.contains(Protocol::CONFIG) {
            return Err(ConnectError::NoConfig);
        }
        let accepted = offered & (Protocol::CONFIG | Protocol::MQ | Protocol::REPLY_ACK);
        self.say("SET_PROTOCOL_FEATURES", |f| f.set_protocol_features(accepted))?;
        if accepted.contains(Protocol::REPLY_ACK) {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        self.say("SET_OWNER", |f| f.set_owner())?;
        let mut queues = 1;
        if accepted.contains(Protocol::MQ) {
            queues = self.say("GET_QUEUE_NUM", VhostUserFrontend::get_queue_num)?;
        }
        let config = self.find_config()?;
        self.facts = Facts { features, queues: u16::try_from(queues).unwrap_or(u16::MAX), config };
        Ok(())
    }

    /// The configuration space, as long as the back-end answers.
    fn find_config(&mut self) -> Result<Vec<u8>, ConnectError> {
        let mut longest = 0;
        for len in CONFIG_LENGTHS {
            let config = self.get_config(len)?;
            if config.len() >= CAPACITY {
                return Ok(config);
            }
            longest = longest.max(config.len());
        }
        Err(ConnectError::ConfigTooShort(longest))
    }

    /// What the back-end said of itself.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Why the connection is of no use any more.
    pub(super) fn lost(&self) -> Option<ControlError> {
        self.lost
    }

    /// Looks at the socket: whether the connection is lost by now.
    pub(super) fn is_lost(&mut self) -> bool {
        if self.lost.is_none() && hung_up(self.socket.as_fd()) {
            self.lose(ControlError { message: "waiting", fault: Fault::Closed });
        }
        self.lost.is_some()
    }

    /// Whether the back-end cannot access the memory (any more): it was never told of it, or it closed its end.
    ///
    /// Why a closed end is proof: a back-end that ends its service finishes what it has in flight, unmaps, and closes
    /// then. One that is killed closes its files after its threads have left their memory, since the kernel takes an
    /// ending process apart in that order, and direct I/O into pinned pages is waited for before. A back-end that closes
    /// and goes on storing breaks the protocol; it could as well store into buffers that it was not given, which no
    /// front-end can keep it from while it has the memory mapped. An end that we shut ourselves proves nothing.
    pub(super) fn let_go(&self) -> bool {
        !self.told || (!self.severed && hung_up(self.socket.as_fd()))
    }

    /// Says one message through the front-end.
    pub(super) fn say<R>(
        &mut self,
        message: &'static str,
        call: impl FnOnce(&mut Frontend) -> vhost::Result<R>,
    ) -> Result<R, ControlError> {
        let frontend = &mut self.frontend;
        let bound = self.guard.bound();
        let (guard, socket) = (&self.guard, &self.socket);
        let outcome = match self.lost {
            Some(why) => return Err(why),
            None => guard.bounded(|| call(frontend)),
        };
        let closed = hung_up(socket.as_fd());
        self.settle(message, outcome, |why| fault_of(&why, bound, closed))
    }

    /// As [`Control::say`], with a message that may make the back-end use the memory.
    pub(super) fn tell<R>(
        &mut self,
        message: &'static str,
        call: impl FnOnce(&mut Frontend) -> vhost::Result<R>,
    ) -> Result<R, ControlError> {
        self.told = true;
        self.say(message, call)
    }

    /// Whether the back-end was told of memory.
    pub(super) fn told(&self) -> bool {
        self.told
    }

    /// Reads up to `len` bytes of the configuration space, from its start, in one message: one state of it.
    pub(super) fn get_config(&mut self, len: usize) -> Result<Vec<u8>, ControlError> {
        const MESSAGE: &str = "GET_CONFIG";
        if let Some(why) = self.lost {
            return Err(why);
        }
        let socket = &*self.socket;
        let outcome = self.guard.bounded(|| ask_config(socket, len));
        self.settle(MESSAGE, outcome, |why| by_hand(&why))
    }

    /// What became of a message; a failure is the end of the connection.
    fn settle<R, E>(
        &mut self,
        message: &'static str,
        (result, outcome): (Result<R, E>, Outcome),
        fault: impl FnOnce(E) -> Fault,
    ) -> Result<R, ControlError> {
        self.severed |= outcome == Outcome::Severed;
        let fault = match result {
            Ok(value) if outcome == Outcome::InTime => return Ok(value),
            // It came at the last moment; the socket is shut all the same.
            Ok(_) => Fault::Stalled(self.guard.bound()),
            Err(_) if outcome != Outcome::InTime => Fault::Stalled(self.guard.bound()),
            Err(why) => fault(why),
        };
        let why = ControlError { message, fault };
        self.lose(why);
        Err(why)
    }

    fn lose(&mut self, why: ControlError) {
        self.lost = Some(why);
        // The back-end sees the stream end and closes its side, if it has not. After a stall our reading side is shut:
        // shutting the other too would leave nothing to see its close by; it fails at its next answer instead.
        if !matches!(why.fault, Fault::Stalled(_)) {
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection from our side, in order; the back-end closes when it has finished what is in flight.
    pub(super) fn hang_up(&mut self) {
        if self.lost.is_none() {
            self.lose(ControlError { message: "hanging up", fault: Fault::Ended });
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A watch may hold the socket open: without this the back-end would not see its end.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Connects to a path, within `bound` also when the back-end's queue of connections is full.
fn dial(path: &Path, bound: Duration) -> Result<UnixStream, ConnectError> {
    let of_path = |why: Errno| ConnectError::Socket(path.to_owned(), io::Error::from(why).kind());
    let system = |why: Errno| ConnectError::from(io::Error::from(why));
    if path.as_os_str().is_empty() {
        return Err(ConnectError::NoPath);
    }
    let address = match UnixAddr::new(path) {
        Err(Errno::ENAMETOOLONG) => return Err(ConnectError::PathTooLong(path.to_owned())),
        address => address.map_err(of_path)?,
    };
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(system)?;
    let micros = i64::try_from(bound.as_micros()).unwrap_or(i64::MAX).max(1);
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(micros)).map_err(system)?;
    match connect(fd.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Err(ConnectError::NoSocket(path.to_owned())),
        Err(Errno::EAGAIN) => return Err(ControlError { message: "connect", fault: Fault::Stalled(bound) }.into()),
        Err(Errno::EPROTOTYPE) => return Err(ConnectError::NotASocket(path.to_owned())),
        Err(Errno::ECONNREFUSED) if !is_socket(path) => return Err(ConnectError::NotASocket(path.to_owned())),
        Err(Errno::ECONNREFUSED) => return Err(ConnectError::NobodyListens(path.to_owned())),
        Err(why) => return Err(of_path(why)),
    }
    // From here on the guard bounds.
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(0)).map_err(system)?;
    Ok(UnixStream::from(fd))
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// The header of a message of version 1 that asks for no acknowledgement, with room for what follows.
fn header(request: FrontendReq, size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(HEADER + size);
    for word in [u32::from(request), VERSION, size as u32] {
        text.extend(word.to_le_bytes());
    }
    text
}

/// GET_CONFIG by hand: as many of the `len` bytes as the back-end answers.
fn ask_config(mut socket: &UnixStream, len: usize) -> io::Result<Vec<u8>> {
    let mut text = header(FrontendReq::GET_CONFIG, CONFIG_PART + len);
    for word in [0, len as u32, 0] {
        text.extend(word.to_le_bytes());
    }
    text.resize(HEADER + CONFIG_PART + len, 0);
    socket.write_all(&text)?;
    let mut answer = [0; HEADER];
    socket.read_exact(&mut answer)?;
    let [request, flags, size] = words(&answer);
    let fits = size as usize <= CONFIG_PART + len;
    if request != u32::from(FrontendReq::GET_CONFIG) || flags & (3 | REPLY) != VERSION | REPLY || !fits {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; size as usize];
    socket.read_exact(&mut body)?;
    // An answer without as much as its fixed part says that there is nothing of that length.
    if body.len() < CONFIG_PART {
        return Ok(Vec::new());
    }
    let fixed: [u32; 3] = words(&body[..CONFIG_PART]);
    let data = body.split_off(CONFIG_PART);
    if fixed[0] != 0 || fixed[1] as usize > len {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(data)
}

/// Three little-endian words.
fn words(bytes: &[u8]) -> [u32; 3] {
    let word = |n: usize| bytes[4 * n..4 * n + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    [word(0), word(1), word(2)]
}

/// What a failed exchange by hand means.
fn by_hand(why: &io::Error) -> Fault {
    match why.kind() {
        io::ErrorKind::InvalidData => Fault::Garbage,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Fault::Closed,
        kind => Fault::System(kind),
    }
}

/// What a failed call of the front-end means, given whether the back-end has `closed` its end by now.
fn fault_of(why: &vhost::Error, bound: Duration, closed: bool) -> Fault {
    let vhost::Error::VhostUserProtocol(why) = why else { return Fault::Garbage };
    match why {
        VhostError::SocketBroken(_) | VhostError::Disconnected => Fault::Closed,
        // An answer that ends early: with the connection, or because that was all.
        VhostError::PartialMessage if closed => Fault::Closed,
        VhostError::BackendInternalError | VhostError::ReqHandlerError(_) => Fault::Rejected,
        VhostError::SocketRetry(_) => Fault::Stalled(bound),
        VhostError::SocketError(why) | VhostError::SocketConnect(why) => Fault::System(why.kind()),
        _ => Fault::Garbage,
    }
}
