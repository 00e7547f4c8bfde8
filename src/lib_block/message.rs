//! Calls and their answers: 128 bytes each way, a capability beside those that hand over memory.
//!
//! blockd calls synchronously, as it called the original driver: GET INFO, READ, WRITE and FLUSH within a session, with
//! a granted buffer. The same messages open and close sessions and register memory, and procd and deviced start, stop
//! and read the driver with them. Memory is never described in a message: the platform delivers what a capability
//! grants beside it.
//!
//! | Bytes | Call | Answer |
//! |---|---|---|
//! | 0..2 | version | version |
//! | 2..4 | operation | what is given: nothing 0, information 1, bytes 2, session 3, memory 4, driver 5 |
//! | 4..8 | session | status (16 bits), zero |
//! | 8..16 | cookie of the caller's | the same |
//! | 16.. | what the operation needs, zeros | what it gives, zeros |
//!
//! Decoding looks at everything, unused bytes included, before anything is believed.
//!
//! ```
//! use drv_virtio_block::lib_block::message::{Body, Call, SessionId};
//! let call = Call { session: SessionId(2), cookie: 9, body: Body::Read { lba: 64, blocks: 8 } };
//! assert_eq!(Call::decode(&call.encode()), Ok(call));
//! assert!(Call::decode(&call.encode()[..127]).is_err());
//! ```
use super::entry::MemoryId;
use super::wire::{Reader, Writer};
use super::{Status, VERSION};

/// Bytes of a call and of an answer.
pub const BYTES: usize = 128;
const _: () = assert!(16 + 16 + MAX_EXTENTS * 16 <= BYTES && 16 + 72 <= BYTES);

/// Most extents of a session.
pub const MAX_EXTENTS: usize = 4;

/// A session, as the driver numbered it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionId(pub u32);

/// Logical blocks of the medium, side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub first: u64,
    /// How many, at least 1.
    pub blocks: u64,
}

impl Extent {
    /// The block behind the last; `None` past the end of all numbers.
    pub const fn end(self) -> Option<u64> {
        self.first.checked_add(self.blocks)
    }
}

/// What a session may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(pub u16);

impl Rights {
    /// READ.
    pub const READ: Self = Self(1);
    /// WRITE.
    pub const WRITE: Self = Self(2);
    /// DISCARD and WRITE ZEROES.
    pub const DISCARD: Self = Self(4);
    /// FLUSH.
    pub const FLUSH: Self = Self(8);
    /// All of them.
    pub const ALL: Self = Self(15);

    /// Whether all of `other` is there.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A capability to blocks: what blockd mints for each device that it publishes. The session's blocks are numbered
/// through its extents, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// What may be done.
    pub rights: Rights,
    extents: [Extent; MAX_EXTENTS],
    count: u16,
}

impl Capability {
    /// A capability to `extents`; `None` if there are none or too many, one is empty or ends nowhere, or all together
    /// have more blocks than there are numbers.
    pub fn new(rights: Rights, extents: &[Extent]) -> Option<Self> {
        let mut all = [Extent::default(); MAX_EXTENTS];
        all.get_mut(..extents.len())?.copy_from_slice(extents);
        let sound = extents.iter().all(|extent| extent.blocks > 0 && extent.end().is_some());
        extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.blocks))?;
        let known = rights.0 & !Rights::ALL.0 == 0;
        (sound && known && !extents.is_empty()).then_some(Self { rights, extents: all, count: extents.len() as u16 })
    }

    /// Its extents.
    pub fn extents(&self) -> &[Extent] {
        self.extents.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// Blocks in all.
    pub fn blocks(&self) -> u64 {
        self.extents().iter().map(|extent| extent.blocks).sum()
    }
}

/// What a session asks for when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The protocol that the client speaks: [`VERSION`].
    pub version: u16,
    /// Entries of the rings: a power of two up to what the driver allows; the session's credit.
    pub credit: u16,
    /// Share of the device's time, by bytes, against other sessions: at least 1.
    pub weight: u16,
    /// Names the caller's place (its processor, say): the driver maps it to a queue.
    pub affinity: u32,
    /// What it may touch.
    pub capability: Capability,
}

/// A call's operation, with what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// What the session's device is.
    GetInfo,
    /// Blocks into the granted buffer.
    Read {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
    },
    /// The granted buffer onto blocks.
    Write {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
        /// Answered once durable.
        fua: bool,
    },
    /// Makes everything durable that was answered.
    Flush,
    /// Opens a session over the granted rings.
    Open(Opening),
    /// Ends a session; its memory may be taken away once the answer is there.
    Close,
    /// Makes the granted memory known to the session.
    Register,
    /// Forgets memory that no request names.
    Unregister {
        /// Which.
        memory: MemoryId,
    },
    /// Brings the device up and serves.
    Start,
    /// Answers what is in flight, resets the device and serves no more.
    Stop {
        /// Flush before.
        flush: bool,
    },
    /// What the driver is and has done.
    ReadDriver,
}

impl Body {
    /// Whether it is about a session that is there.
    const fn has_session(&self) -> bool {
        !matches!(self, Self::Open(_) | Self::Start | Self::Stop { .. } | Self::ReadDriver)
    }

    const fn operation(&self) -> u16 {
        match self {
            Self::GetInfo => 1,
            Self::Read { .. } => 2,
            Self::Write { .. } => 3,
            Self::Flush => 4,
            Self::Open(_) => 16,
            Self::Close => 17,
            Self::Register => 18,
            Self::Unregister { .. } => 19,
            Self::Start => 32,
            Self::Stop { .. } => 33,
            Self::ReadDriver => 34,
        }
    }
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which session it is about; 0 where it is about none.
    pub session: SessionId,
    /// Comes back in the answer.
    pub cookie: u64,
    /// What is asked.
    pub body: Body,
}

impl Call {
    /// The call's bytes.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut out = Writer::new(&mut bytes);
        out.u16(VERSION);
        out.u16(self.body.operation());
        out.u32(self.session.0);
        out.u64(self.cookie);
        match self.body {
            Body::Read { lba, blocks } => {
                out.u64(lba);
                out.u32(blocks);
            }
            Body::Write { lba, blocks, fua } => {
                out.u64(lba);
                out.u32(blocks);
                out.u32(fua.into());
            }
            Body::Open(opening) => encode_opening(&mut out, &opening),
            Body::Unregister { memory } => out.u32(memory.0),
            Body::Stop { flush } => out.u32(flush.into()),
            Body::GetInfo | Body::Flush | Body::Close | Body::Register | Body::Start | Body::ReadDriver => {}
        }
        bytes
    }

    /// The call of these bytes.
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] for another length and for anything that cannot be, [`Status::Unsupported`] for
    /// another version or an unknown operation.
    pub fn decode(bytes: &[u8]) -> Result<Self, Status> {
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| Status::InvalidArgument)?;
        let mut from = Reader::new(bytes);
        let (version, operation) = (from.u16(), from.u16());
        if version != VERSION {
            return Err(Status::Unsupported);
        }
        let (session, cookie) = (SessionId(from.u32()), from.u64());
        let body = match operation {
            1 => Body::GetInfo,
            2 => Body::Read { lba: from.u64(), blocks: from.u32() },
            3 => Body::Write { lba: from.u64(), blocks: from.u32(), fua: truth(from.u32())? },
            4 => Body::Flush,
            16 => Body::Open(decode_opening(&mut from)?),
            17 => Body::Close,
            18 => Body::Register,
            19 => Body::Unregister { memory: MemoryId(from.u32()) },
            32 => Body::Start,
            33 => Body::Stop { flush: truth(from.u32())? },
            34 => Body::ReadDriver,
            _ => return Err(Status::Unsupported),
        };
        let about_none = !body.has_session() && session != SessionId::default();
        if !from.rest_is_zero() || about_none {
            return Err(Status::InvalidArgument);
        }
        Ok(Self { session, cookie, body })
    }
}

fn truth(value: u32) -> Result<bool, Status> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Status::InvalidArgument),
    }
}

fn encode_opening(out: &mut Writer<'_>, opening: &Opening) {
    out.u16(opening.version);
    out.u16(opening.credit);
    out.u16(opening.weight);
    out.u16(opening.capability.rights.0);
    out.u32(opening.affinity);
    out.u32(opening.capability.count.into());
    for extent in opening.capability.extents() {
        out.u64(extent.first);
        out.u64(extent.blocks);
    }
}

fn decode_opening(from: &mut Reader<'_>) -> Result<Opening, Status> {
    let (version, credit, weight) = (from.u16(), from.u16(), from.u16());
    let (rights, affinity, count) = (Rights(from.u16()), from.u32(), from.u32());
    let mut extents = [Extent::default(); MAX_EXTENTS];
    let used = extents.get_mut(..count as usize).ok_or(Status::InvalidArgument)?;
    for extent in used.iter_mut() {
        *extent = Extent { first: from.u64(), blocks: from.u64() };
    }
    let capability = Capability::new(rights, used).ok_or(Status::InvalidArgument)?;
    Ok(Opening { version, credit, weight, affinity, capability })
}

/// What a session's device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Blocks of the session.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Most blocks in one request with data.
    pub max_blocks: u32,
    /// Most pieces of memory in one request.
    pub max_pieces: u16,
    /// See the constants of [`Info`].
    pub traits: u16,
    /// Counts changes of the medium's capacity.
    pub generation: u32,
    /// The driver's life.
    pub epoch: u32,
    /// Features agreed with the device, as the specification numbers them.
    pub features: u64,
    /// The device's own name, zero-padded; all zeros if it has none.
    pub identity: [u8; 20],
}

impl Info {
    /// The medium refuses changes.
    pub const READ_ONLY: u16 = 1;
    /// Answered writes are volatile until a FLUSH.
    pub const WRITE_CACHE: u16 = 2;
    /// DISCARD is there.
    pub const DISCARD: u16 = 4;
    /// WRITE ZEROES is there.
    pub const WRITE_ZEROES: u16 = 8;

    /// Whether `what` is so.
    pub const fn is(&self, what: u16) -> bool {
        self.traits & what == what
    }
}

/// A session that was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub session: SessionId,
    /// Requests that can be unanswered.
    pub credit: u16,
    /// The queue that serves it.
    pub queue: u16,
    /// Limits, capacity, epoch.
    pub info: Info,
}

/// The driver, as READ DRIVER tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The driver's life, from 1 on.
    pub epoch: u32,
    /// Serving, with a device that runs.
    pub serving: bool,
    /// Queues in use.
    pub queues: u16,
    /// Sessions open.
    pub sessions: u16,
    /// Requests answered.
    pub answered: u64,
    /// Entries and calls refused for what they said.
    pub refused: u64,
    /// Sessions ended because of what their client did.
    pub ended: u64,
}

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nothing but the status.
    Nothing,
    /// GET INFO.
    Info(Info),
    /// READ and WRITE: bytes moved.
    Moved(u32),
    /// OPEN.
    Opened(Opened),
    /// REGISTER.
    Registered(MemoryId),
    /// READ DRIVER.
    Driver(Driver),
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The cookie of the call.
    pub cookie: u64,
    /// What it gave, or why nothing was done.
    pub result: Result<Given, Status>,
}

impl Answer {
    /// The answer's bytes. An error gives nothing.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut out = Writer::new(&mut bytes);
        let (status, given) = match self.result {
            Ok(given) => (Status::Ok, given),
            Err(status) => (status, Given::Nothing),
        };
        out.u16(VERSION);
        out.u16(kind(&given));
        out.u32(status as u32);
        out.u64(self.cookie);
        match given {
            Given::Nothing => {}
            Given::Info(info) => encode_info(&mut out, &info),
            Given::Moved(bytes) => out.u32(bytes),
            Given::Opened(opened) => {
                out.u32(opened.session.0);
                out.u16(opened.credit);
                out.u16(opened.queue);
                encode_info(&mut out, &opened.info);
            }
            Given::Registered(memory) => out.u32(memory.0),
            Given::Driver(driver) => {
                out.u32(driver.epoch);
                out.u32(driver.serving.into());
                out.u16(driver.queues);
                out.u16(driver.sessions);
                out.u64(driver.answered);
                out.u64(driver.refused);
                out.u64(driver.ended);
            }
        }
        bytes
    }

    /// The answer of these bytes.
    ///
    /// # Errors
    /// As [`Call::decode`]; what the answer itself says went wrong is in [`Answer::result`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Status> {
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| Status::InvalidArgument)?;
        let mut from = Reader::new(bytes);
        let (version, kind) = (from.u16(), from.u16());
        if version != VERSION {
            return Err(Status::Unsupported);
        }
        let status = u16::try_from(from.u32()).ok().and_then(Status::from_wire).ok_or(Status::InvalidArgument)?;
        let cookie = from.u64();
        let given = match kind {
            0 => Given::Nothing,
            1 => Given::Info(decode_info(&mut from)),
            2 => Given::Moved(from.u32()),
            3 => Given::Opened(Opened {
                session: SessionId(from.u32()),
                credit: from.u16(),
                queue: from.u16(),
                info: decode_info(&mut from),
            }),
            4 => Given::Registered(MemoryId(from.u32())),
            5 => Given::Driver(Driver {
                epoch: from.u32(),
                serving: truth(from.u32())?,
                queues: from.u16(),
                sessions: from.u16(),
                answered: from.u64(),
                refused: from.u64(),
                ended: from.u64(),
            }),
            _ => return Err(Status::Unsupported),
        };
        if !from.rest_is_zero() || (!status.is_ok() && given != Given::Nothing) {
            return Err(Status::InvalidArgument);
        }
        Ok(Self { cookie, result: if status.is_ok() { Ok(given) } else { Err(status) } })
    }
}

const fn kind(given: &Given) -> u16 {
    match given {
        Given::Nothing => 0,
        Given::Info(_) => 1,
        Given::Moved(_) => 2,
        Given::Opened(_) => 3,
        Given::Registered(_) => 4,
        Given::Driver(_) => 5,
    }
}

fn encode_info(out: &mut Writer<'_>, info: &Info) {
    out.u64(info.blocks);
    out.u32(info.block_size);
    out.u32(info.max_blocks);
    out.u16(info.max_pieces);
    out.u16(info.traits);
    out.u32(info.generation);
    out.u32(info.epoch);
    out.u64(info.features);
    out.bytes(&info.identity);
}

fn decode_info(from: &mut Reader<'_>) -> Info {
    Info {
        blocks: from.u64(),
        block_size: from.u32(),
        max_blocks: from.u32(),
        max_pieces: from.u16(),
        traits: from.u16(),
        generation: from.u32(),
        epoch: from.u32(),
        features: from.u64(),
        identity: from.bytes(),
    }
}
