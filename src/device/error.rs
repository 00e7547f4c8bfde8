//! Why a device could not be brought up, looked at or reset; each says what the device or the platform did.
#![forbid(unsafe_code)]
use crate::spec::Features;
use crate::transport::{QueueId, TransportError};
use core::fmt;

/// What is wrong with a device's configuration (5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// It could not be read.
    Transport(TransportError),
    /// It changed during every one of the reads.
    Unstable,
    /// More sectors than 64 bits can count bytes for.
    Capacity(u64),
    /// A block size that is not a power of two from 512 to 65536.
    BlockSize(u32),
    /// A segment limit that no sector fits in.
    SizeMax(u32),
    /// A physical block of more logical blocks than a length can count bytes for: log2 of their number.
    PhysicalBlock(u8),
    /// A multi-queue device without a queue.
    NoQueue,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(why) => why.fmt(f),
            Self::Unstable => f.write_str("the configuration changed during every read of it"),
            Self::Capacity(sectors) => write!(f, "a capacity of {sectors} sectors is more than 2^64 bytes"),
            Self::BlockSize(bytes) => write!(f, "block size {bytes} is not a power of two from 512 to 65536"),
            Self::SizeMax(bytes) => write!(f, "a segment of at most {bytes} bytes holds no sector"),
            Self::PhysicalBlock(exp) => write!(f, "a physical block of 2^{exp} logical blocks is too large"),
            Self::NoQueue => f.write_str("the device offers several queues and has none"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<TransportError> for ConfigError {
    fn from(why: TransportError) -> Self {
        Self::Transport(why)
    }
}

/// Why a device could not be brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BringUpError {
    /// The wishes ask for a queue size that is not a power of two.
    WishedQueueSize(u16),
    /// A register could not be reached.
    Transport(TransportError),
    /// The status did not become 0 in time.
    ResetTimeout,
    /// The device is older than the specification that this driver implements: `VERSION_1` is not offered.
    Legacy,
    /// The device refused even all that is implemented of its offer.
    FeaturesRefused {
        /// What the device offers.
        offered: Features,
        /// What was accepted of it at last.
        accepted: Features,
    },
    /// The device's configuration is malformed or cannot be read.
    Config(ConfigError),
    /// A queue that the device counts does not exist.
    NoSuchQueue(QueueId),
    /// A queue of the device has a size that is not a power of two.
    QueueSize {
        /// The queue.
        queue: QueueId,
        /// Its size.
        size: u16,
    },
    /// A vector reads back as neither what was written nor `NO_VECTOR`.
    Vector {
        /// What was written.
        written: u16,
        /// What was read.
        read: u16,
    },
    /// A queue's rings are larger than was agreed on, not a power of two, or not aligned; or they belong to another queue,
    /// to another device, or to the time before its last reset.
    Rings(QueueId),
    /// A queue beyond those that were agreed on was programmed, or one of them twice.
    SurplusQueue(QueueId),
    /// Not every queue was programmed before the start: the first that was not.
    MissingQueue(QueueId),
    /// The device asked for a reset as soon as it ran.
    NeedsReset,
    /// A device that was brought up again is not what it was.
    Changed,
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WishedQueueSize(size) => write!(f, "queue size {size} was wished for, which is not a power of two"),
            Self::Transport(why) => why.fmt(f),
            Self::ResetTimeout => f.write_str("the device did not answer the reset in time"),
            Self::Legacy => f.write_str("the device does not offer VERSION_1, legacy devices are not driven"),
            Self::FeaturesRefused { offered, accepted } => {
                let missing = offered.without(accepted.0);
                if missing == Features::default() {
                    return write!(f, "the device refused all the features that it offers: {accepted}");
                }
                write!(f, "the device may insist on {missing}, which this driver does not take: it refused {accepted}")
            }
            Self::Config(why) => why.fmt(f),
            Self::NoSuchQueue(QueueId(n)) => write!(f, "the device counts queue {n} and does not have it"),
            Self::QueueSize { queue: QueueId(n), size } => {
                write!(f, "queue {n} of the device has {size} descriptors, which is not a power of two")
            }
            Self::Vector { written, read } => write!(f, "vector {written} reads back as {read}"),
            Self::Rings(QueueId(n)) => {
                write!(f, "the rings of queue {n} are too large, not a power of two, not aligned or not its own")
            }
            Self::SurplusQueue(QueueId(n)) => write!(f, "queue {n} was programmed twice or was not agreed on"),
            Self::MissingQueue(QueueId(n)) => write!(f, "queue {n} was not programmed before the start"),
            Self::Changed => f.write_str("the device is not what it was before the reset"),
            Self::NeedsReset => f.write_str("the device asked for a reset as soon as it ran"),
        }
    }
}

impl core::error::Error for BringUpError {}

impl From<TransportError> for BringUpError {
    fn from(why: TransportError) -> Self {
        Self::Transport(why)
    }
}

impl From<ConfigError> for BringUpError {
    fn from(why: ConfigError) -> Self {
        match why {
            ConfigError::Transport(why) => Self::Transport(why),
            why => Self::Config(why),
        }
    }
}

/// A step that failed, with the device in the state that it is in now. The device was told so (FAILED), if it got as far
/// as being acknowledged. `?` turns it into its reason alone, [`BringUpError`], where the device is let go of.
pub struct Failed<D> {
    /// Why.
    pub why: BringUpError,
    /// The device: [`crate::device::Offline`] if it knows no memory of ours, else [`crate::device::Unsettled`].
    pub device: D,
}

impl<D> fmt::Display for Failed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

/// Shows the reason and leaves the device out, so that a transport need not be [`Debug`](fmt::Debug).
impl<D> fmt::Debug for Failed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<D> core::error::Error for Failed<D> {}

/// For whoever is not going to try again: the device is let go of as it is.
impl<D> From<Failed<D>> for BringUpError {
    fn from(failed: Failed<D>) -> Self {
        failed.why
    }
}
