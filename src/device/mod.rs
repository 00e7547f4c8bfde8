//! Bring-up as a type-state, configuration changes, reset.
//!
//! ```text
//! Offline -- negotiate --> Negotiated -- program each queue, start --> Running
//!                           ^     |                                       |
//!                 negotiate |     +--> Unsettled <-- no answer -- reset --+
//!                           |              | quiesce                      |
//!                           +---------- Stopped <-------------------------+
//! ```
//! The order of the specification's steps is the order of the types, so a step cannot be left out or repeated, and a
//! doorbell can be had from [`Running`] only. It knows registers through [`Transport`] and leaves facts in a
//! [`Geometry`](crate::geometry::Geometry); rings, slots and buffers are the caller's: whoever builds a queue passes
//! its [`RingAddresses`](crate::transport::RingAddresses).
//!
//! Invariants:
//! - only features that are implemented and offered are accepted, and `FEATURES_OK` is read back; a device that refuses
//!   what was wished for is reset and asked once more, with all that it offers of what is implemented;
//! - every wait is bounded by the platform's clock; an error after ACKNOWLEDGE sets FAILED;
//! - memory that the device knows is given back against a [`Quiesced`] only, which exists only from the moment the
//!   status read 0 until the device is told something again, and fits no other device.
//!
//! Specification: 2.1 to 2.5, 3.1.1 Device Initialization, 3.3 Device Cleanup, 4.1.5.1.2, 5.2.4, 5.2.5, 6.
#![forbid(unsafe_code)]
mod bring_up;
mod config;
mod error;
mod negotiation;
mod running;
mod stopped;

pub use bring_up::{Negotiated, Offline};
pub use error::{BringUpError, ConfigError, Failed};
pub use running::{ConfigChange, Running};
pub use stopped::{Quiesced, Stopped, Unsettled};

use crate::interrupt::{CompletionMode, Limit, Rung};
use crate::platform::{Nanos, Platform};
use crate::spec::{Features, feature, status};
use crate::transport::{QueueId, Transport, TransportError};

/// The queue that serves whoever says `affinity` of itself (the number of its processor, say), with `queues` of them: the
/// only place where that is decided.
///
/// ```
/// use drv_virtio_block::{device::queue_for, transport::QueueId};
/// assert_eq!(queue_for(5, 4), QueueId(1));
/// ```
pub const fn queue_for(affinity: u32, queues: u16) -> QueueId {
    let queues = if queues == 0 { 1 } else { queues };
    QueueId((affinity % queues as u32) as u16)
}

/// What the owner would like; [`Reached`] says what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Queues: one per submitter.
    pub queues: u16,
    /// Descriptors per queue, a power of two; a device with smaller queues has its way.
    pub queue_size: u16,
    /// Options to accept if they are offered. What describes the device (read-only, block size, limits, platform
    /// addresses) is accepted in any case: leaving it out would not change the device, only blind the driver.
    pub features: Features,
    /// How completions are to be noticed.
    pub mode: CompletionMode,
    /// `Some(true)`: write-back, `Some(false)`: write-through, if the device lets the driver choose (`CONFIG_WCE`);
    /// `None`: as the device has it. Chosen here, before there are requests: what a change means for writes in flight
    /// is undefined (5.2.6.2).
    pub write_back: Option<bool>,
    /// How long a reset may take.
    pub patience: Nanos,
}

impl Default for Wishes {
    /// One interrupt-driven queue of 256 with all that is implemented, and 5 seconds for a reset.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 256,
            features: Features::IMPLEMENTED,
            mode: CompletionMode::Interrupt,
            write_back: None,
            patience: Nanos::from_millis(5_000),
        }
    }
}

/// What became of the wishes: to be reported, so that nothing is silently different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// How completions are noticed.
    pub mode: CompletionMode,
    /// Where on the vector ladder.
    pub rung: Rung,
    /// Vectors in use, the configuration's included.
    pub vectors: u16,
    /// Queues in use.
    pub queues: u16,
    /// Queues wished for.
    pub queues_wished: u16,
    /// What set the number of queues.
    pub limited_by: Limit,
    /// What the device promises about completed writes.
    pub cache: Cache,
    /// Features that the wishes left out, and that were accepted because the device refused to go on without them.
    pub insisted: Features,
    /// DISCARD and WRITE ZEROES, if the device offers them with limits that allow no request: they count as not offered,
    /// and [`Geometry::features`](crate::geometry::Geometry::features) does not have them.
    pub unusable: Features,
}

/// What a completed write is worth without a FLUSH (5.2.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Volatile until a FLUSH.
    WriteBack,
    /// Stable.
    WriteThrough,
    /// The device never offered FLUSH: the specification has the driver take it for write-through, but lets the device
    /// lose completed writes.
    Unpromised,
}

impl Cache {
    fn of(offered: Features, geometry: &crate::geometry::Geometry) -> Self {
        match (geometry.writeback, offered.has(feature::FLUSH)) {
            (true, _) => Self::WriteBack,
            (false, true) => Self::WriteThrough,
            (false, false) => Self::Unpromised,
        }
    }
}

/// The transport, with the status that the driver wrote last and how long it waits.
#[derive(Debug)]
struct Link<T> {
    transport: T,
    status: u8,
    patience: Nanos,
}

impl<T: Transport> Link<T> {
    /// Sets status bits; bits that are set stay set (2.1.1).
    fn raise(&mut self, bits: u8) -> Result<(), TransportError> {
        self.status |= bits;
        self.transport.set_status(self.status)
    }

    /// Gives up on the device. A device that is not even acknowledged, or cannot be reached, is left as it is.
    fn give_up(&mut self) {
        if self.status & status::ACKNOWLEDGE != 0 {
            let _ = self.raise(status::FAILED);
        }
    }

    /// Resets and waits for the status to read 0 (4.1.4.3.2), which is when the device has let go of all memory.
    fn reset(&mut self, platform: &impl Platform) -> Result<(), BringUpError> {
        let deadline = platform.now().after(self.patience);
        self.transport.set_status(0)?;
        self.status = 0;
        while self.transport.status()? != 0 {
            if platform.now() >= deadline {
                return Err(BringUpError::ResetTimeout);
            }
            platform.relax();
        }
        Ok(())
    }
}
