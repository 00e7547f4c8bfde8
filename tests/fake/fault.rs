//! What a driver can do against the specification, and the list of what it did.
use super::{ChainFault, Part, RequestFault};
use std::sync::{Mutex, PoisonError};

/// One offence of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DriverFault {
    /// Initialisation began without a reset, or before the reset was seen to be finished.
    ResetNotAwaited,
    /// A write to the status took bits away.
    StatusBitsCleared(u8),
    /// The status was given bits that are not the driver's.
    StatusBitsForeign(u8),
    /// The steps of initialisation came in another order, or several at once.
    StatusOutOfOrder { from: u8, to: u8 },
    /// It went on after setting FAILED, without a reset.
    WentOnAfterFailed,
    /// It went on without reading the status back after writing FEATURES_OK.
    FeaturesOkNotReadBack,
    /// Feature bits were written before DRIVER or after FEATURES_OK.
    FeaturesAtWrongTime { status: u8 },
    /// It accepted bits that the device did not offer.
    FeaturesNotOffered(u64),
    /// It accepted bits that were offered as bait: the driver cannot have meant them.
    FeaturesNotImplemented(u64),
    /// It did not accept VERSION_1.
    Version1NotAccepted,

    /// A vector outside the MSI-X table. `queue` is `None` for configuration changes.
    VectorBeyondTable { queue: Option<u16>, vector: u16 },
    /// A vector was set and never read back.
    VectorNotReadBack { queue: Option<u16> },

    /// The queue does not exist, or its size is 0.
    QueueUnavailable(u16),
    /// Queue registers were written before FEATURES_OK or after DRIVER_OK.
    QueueSetUpAtWrongTime { queue: u16, status: u8 },
    /// Queue registers were written while the queue was enabled.
    QueueChangedWhileEnabled(u16),
    /// Size 0, above the maximum, or not a power of two.
    QueueSizeBad { queue: u16, size: u16 },
    /// Something other than 1 was written to `queue_enable`.
    QueueEnableBad { queue: u16, value: u16 },
    /// A queue after the first was enabled without MQ.
    QueueWithoutMq(u16),
    /// A queue was enabled twice.
    QueueEnabledTwice(u16),
    /// A part of the queue is not aligned as it must be.
    QueuePartMisaligned { queue: u16, part: Part, address: u64 },
    /// A part of the queue is not wholly in memory, or was never set.
    QueuePartOutside { queue: u16, part: Part, address: u64 },
    /// A part of the queue lies over a part of this or another queue.
    QueuePartsOverlap { queue: u16, part: Part },
    /// The used ring's flags were not 0 when the queue was enabled.
    UsedFlagsNotZeroed(u16),

    /// A doorbell before DRIVER_OK (or after a reset).
    NotifiedBeforeDriverOk(u16),
    /// A doorbell for a queue that does not exist or is not enabled.
    NotifiedDisabledQueue(u16),
    /// A 32-bit doorbell without NOTIFICATION_DATA.
    NotifiedWide(u32),

    /// A configuration field that the device does not have, or that was not negotiated.
    ConfigNotNegotiated { offset: u32 },
    /// An access that is not exactly one field (or one half of `capacity`).
    ConfigAccess { offset: u32, width: u32 },
    /// `writeback` was read before FEATURES_OK.
    WritebackTooEarly,
    /// The configuration was written before FEATURES_OK, or a field that is read-only, or a value it cannot have.
    ConfigWrite { offset: u32, value: u64 },
    /// `capacity` was read without a look at the generation before, or none after.
    CapacityWithoutGeneration,

    /// `avail.idx` moved backwards.
    AvailIndexWentBack { queue: u16, from: u16, to: u16 },
    /// `avail.idx` is further ahead than the queue has room.
    AvailIndexTooFar { queue: u16, from: u16, to: u16 },
    /// `avail.flags` is not 0 with EVENT_IDX, or neither 0 nor 1 without.
    AvailFlags { queue: u16, flags: u16 },
    /// A chain was offered again before it was used.
    HeadTwice { queue: u16, head: u16 },
    /// Two chains in flight go through the same descriptor.
    DescriptorShared { queue: u16, head: u16, descriptor: u16 },
    /// A chain that breaks the ring's rules.
    Chain { queue: u16, head: u16, why: ChainFault },
    /// A request that breaks the block device's rules.
    Request { queue: u16, head: u16, why: RequestFault },
    /// Memory of this chain is also that of another chain in flight (or of the chain itself, or of a queue), and one
    /// of the two is for the device to write.
    Overlap { queue: u16, head: u16, address: u64, with: Option<u16> },
    /// Descriptors or header of a chain changed while it was in flight.
    ChangedInFlight { queue: u16, head: u16 },
    /// A device that slept, having asked for a doorbell, found work without one.
    DoorbellLost { queue: u16 },
}

/// The faults so far; a long list ends after [`FaultLog::MOST`].
#[derive(Default)]
pub(super) struct FaultLog {
    list: Mutex<Vec<DriverFault>>,
}

impl FaultLog {
    const MOST: usize = 1000;

    pub(super) fn extend(&self, faults: Vec<DriverFault>) {
        if faults.is_empty() {
            return;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let room = Self::MOST.saturating_sub(list.len());
        list.extend(faults.into_iter().take(room));
    }

    pub(super) fn all(&self) -> Vec<DriverFault> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn take(&self) -> Vec<DriverFault> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
