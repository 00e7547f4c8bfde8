//! The startup envelope: what procd tells the driver about this life of it, in 64 bytes.
//!
//! Authority comes in the capability window ([`crate::startup`]); the envelope only says how to use it.
//!
//! | Bytes | What |
//! |---|---|
//! | 0..2 | version, [`VERSION`] |
//! | 2..4 | queues wished for, at least 1 |
//! | 4..8 | epoch: the driver's life, counted by procd from 1 |
//! | 8..10 | descriptors per queue: a power of two, at least 2 |
//! | 10..12 | sessions per queue, up to [`MAX_SESSIONS`] |
//! | 12..14 | largest credit of a session: a power of two |
//! | 14..16 | 0: polled, 1: interrupts |
//! | 16..24 | how long the device may take for an answer or a reset, in nanoseconds, up to [`MAX_PATIENCE`] |
//! | 24..64 | zeros |
//!
//! ```
//! use drv_virtio_block::service::Envelope;
//! let envelope = Envelope { epoch: 3, queues: 2, ..Envelope::default() };
//! assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
//! ```
use crate::interrupt::CompletionMode;
use crate::lib_block::front_end::MAX_SESSIONS;
use crate::lib_block::{MAX_CREDIT, Status, VERSION};
use crate::platform::Nanos;

/// Bytes of an envelope.
pub const ENVELOPE_BYTES: usize = 64;

/// The most patience: a minute. Every wait for the device is to end while somebody still waits for it.
pub const MAX_PATIENCE: Nanos = Nanos::from_millis(60_000);

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The driver's life, from 1 on: never that of an earlier one.
    pub epoch: u32,
    /// Queues wished for.
    pub queues: u16,
    /// Descriptors per queue.
    pub queue_size: u16,
    /// Sessions per queue.
    pub sessions: u16,
    /// Largest credit of a session.
    pub credit: u16,
    /// How completions are to be noticed.
    pub mode: CompletionMode,
    /// How long the device may take for an answer or a reset.
    pub patience: Nanos,
}

impl Default for Envelope {
    /// The first life, one interrupt-driven queue of 256, 8 sessions with a credit of up to 256, 5 seconds.
    fn default() -> Self {
        Self {
            epoch: 1,
            queues: 1,
            queue_size: 256,
            sessions: 8,
            credit: 256,
            mode: CompletionMode::Interrupt,
            patience: Nanos::from_millis(5_000),
        }
    }
}

impl Envelope {
    /// The envelope with each number within its bounds, but for the descriptors of a queue.
    pub(super) fn bounded(self) -> Self {
        Self {
            epoch: self.epoch.max(1),
            queues: self.queues.max(1),
            queue_size: self.queue_size,
            sessions: self.sessions.clamp(1, MAX_SESSIONS),
            credit: self.credit.clamp(2, MAX_CREDIT).next_power_of_two(),
            mode: self.mode,
            patience: self.patience.clamp(Nanos(1), MAX_PATIENCE),
        }
    }

    /// The envelope's bytes.
    pub fn encode(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        let mode = u16::from(self.mode == CompletionMode::Interrupt);
        bytes[0..2].copy_from_slice(&VERSION.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.queues.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.queue_size.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.sessions.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.credit.to_le_bytes());
        bytes[14..16].copy_from_slice(&mode.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.patience.0.to_le_bytes());
        bytes
    }

    /// The envelope of these bytes.
    ///
    /// # Errors
    /// [`Status::Unsupported`] for another version, [`Status::InvalidArgument`] for another length and for anything
    /// that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Status> {
        let bytes: &[u8; ENVELOPE_BYTES] = bytes.try_into().map_err(|_| Status::InvalidArgument)?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        if half(0) != VERSION {
            return Err(Status::Unsupported);
        }
        let mode = match half(14) {
            0 => CompletionMode::Polled,
            1 => CompletionMode::Interrupt,
            _ => return Err(Status::InvalidArgument),
        };
        let envelope = Self {
            epoch: word(4),
            queues: half(2),
            queue_size: half(8),
            sessions: half(10),
            credit: half(12),
            mode,
            patience: Nanos(u64::from(word(16)) | u64::from(word(20)) << 32),
        };
        let credit = envelope.credit.is_power_of_two() && (2..=MAX_CREDIT).contains(&envelope.credit);
        let size = envelope.queue_size.is_power_of_two() && envelope.queue_size >= 2;
        let counts = envelope.epoch > 0 && envelope.queues > 0 && (1..=MAX_SESSIONS).contains(&envelope.sessions);
        let sound = credit && size && counts && (Nanos(1)..=MAX_PATIENCE).contains(&envelope.patience);
        let zeros = bytes[24..].iter().all(|byte| *byte == 0);
        if sound && zeros { Ok(envelope) } else { Err(Status::InvalidArgument) }
    }
}
