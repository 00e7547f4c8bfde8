//! The device-wide registers: status, features, vectors, interrupt status; `status` judges their use over time.
//!
//! The methods of [`FakeDevice`] have the effect of the PCI common configuration's registers without the selectors.
//! Specification: 2.2 Feature Bits, 4.1.4.3, 4.1.4.5, 4.1.5.1.2.
use super::wire::{INTX, NO_VECTOR, features, isr, status};
use super::{Config, DriverFault, FakeDevice, Inner};

/// How the device answers a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetBehaviour {
    /// The status reads 0 at once.
    AtOnce,
    /// The first `n` reads of the status are not 0 yet; until then the device may still touch the queues.
    AfterReads(u32),
    /// It never finishes.
    Never,
}

/// A reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// None is under way.
    Done,
    /// So many reads of the status are not 0 yet; `None`: none ever is.
    Pending(Option<u32>),
}

/// The reset that initialisation begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstReset {
    /// The driver has not asked for one since power-on.
    Missing,
    /// It has asked, and not read a status of 0 since.
    Asked,
    /// It has waited until the status read 0.
    Awaited,
}

/// The device-wide registers.
pub(super) struct Registers {
    pub(super) status: u8,
    pub(super) reset: Reset,
    pub(super) first_reset: FirstReset,
    pub(super) offered: u64,
    pub(super) accepted: u64,
    pub(super) features_ok_unread: bool,
    pub(super) vector_table: u16,
    pub(super) config_vector: u16,
    pub(super) config_vector_unread: bool,
    pub(super) isr: u8,
    pub(super) isr_reads: u64,
    pub(super) resets: u64,
    pub(super) space: super::space::Space,
    pub(super) knobs: Knobs,
}

/// What the test has told the device to do.
pub(super) struct Knobs {
    pub(super) refuse_features: bool,
    pub(super) on_reset: ResetBehaviour,
    pub(super) usable_vectors: u16,
}

impl Registers {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            status: 0,
            reset: Reset::Done,
            first_reset: FirstReset::Missing,
            offered: config.features,
            accepted: 0,
            features_ok_unread: false,
            vector_table: config.vectors,
            config_vector: NO_VECTOR,
            config_vector_unread: false,
            isr: 0,
            isr_reads: 0,
            resets: 0,
            space: super::space::Space::new(config),
            knobs: Knobs { refuse_features: false, on_reset: ResetBehaviour::AtOnce, usable_vectors: u16::MAX },
        }
    }

    pub(super) fn status(&self) -> u8 {
        self.status
    }

    pub(super) fn offered(&self, mask: u64) -> bool {
        self.offered & mask == mask
    }

    /// Whether these features are in force: accepted, and FEATURES_OK stands.
    pub(super) fn negotiated(&self, mask: u64) -> bool {
        self.features_ok() && self.accepted & mask == mask
    }

    pub(super) fn features_ok(&self) -> bool {
        self.status & status::FEATURES_OK != 0
    }

    pub(super) fn driver_ok(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    /// Whether the device serves its queues: live, and not in an error of its own. A reset that has not finished
    /// leaves it serving.
    pub(super) fn live(&self) -> bool {
        self.driver_ok() && self.status & status::NEEDS_RESET == 0
    }

    /// Whether a doorbell may be rung now.
    pub(super) fn hears_doorbells(&self) -> bool {
        self.driver_ok() && self.reset == Reset::Done
    }

    pub(super) fn has_msix(&self) -> bool {
        self.vector_table > 0
    }

    /// What the device keeps of a vector that the driver writes; the second value tells of a driver's fault.
    pub(super) fn map_vector(&self, vector: u16) -> (u16, bool) {
        let beyond = vector != NO_VECTOR && vector >= self.vector_table;
        let kept = if beyond || vector >= self.knobs.usable_vectors { NO_VECTOR } else { vector };
        (kept, beyond)
    }
}

impl Inner {
    /// An interrupt of the queue's or the configuration's vector.
    pub(super) fn raise(&mut self, vector: u16, cause: u8) {
        if !self.registers.has_msix() || cause == isr::CONFIG {
            self.registers.isr |= cause;
        }
        if !self.registers.has_msix() {
            self.new_interrupts.push(INTX);
        } else if vector != NO_VECTOR {
            self.new_interrupts.push(vector);
        }
    }

    /// A configuration change interrupt, if the device is live.
    pub(super) fn raise_config(&mut self) {
        if self.registers.driver_ok() {
            self.raise(self.registers.config_vector, isr::CONFIG);
        }
    }

    fn map_config_vector(&mut self, vector: u16) {
        let (kept, beyond) = self.registers.map_vector(vector);
        if beyond {
            self.fault(DriverFault::VectorBeyondTable { queue: None, vector });
        }
        self.registers.config_vector = kept;
        self.registers.config_vector_unread = vector != NO_VECTOR;
    }

    fn accept(&mut self, bits: u64) {
        let status = self.registers.status;
        if status & status::DRIVER == 0 || status & status::FEATURES_OK != 0 {
            self.fault(DriverFault::FeaturesAtWrongTime { status });
        }
        self.registers.accepted = bits;
    }
}

/// The driver's side of the registers.
impl FakeDevice {
    /// Reads `device_status`.
    pub(crate) fn status(&self) -> u8 {
        self.with(Inner::read_status)
    }

    /// Writes `device_status`; 0 resets.
    pub(crate) fn set_status(&self, value: u8) {
        self.with(|inner| inner.write_status(value));
    }

    /// Reads the offered features.
    pub(crate) fn device_features(&self) -> u64 {
        self.with(|inner| inner.registers.offered)
    }

    /// Reads the accepted features.
    pub(crate) fn driver_features(&self) -> u64 {
        self.with(|inner| inner.registers.accepted)
    }

    /// Writes the accepted features, all 64 bits.
    pub(crate) fn set_driver_features(&self, bits: u64) {
        self.with(|inner| inner.accept(bits));
    }

    /// Reads `config_msix_vector`.
    pub(crate) fn config_vector(&self) -> u16 {
        self.with(|inner| {
            inner.registers.config_vector_unread = false;
            inner.registers.config_vector
        })
    }

    /// Writes `config_msix_vector`.
    pub(crate) fn set_config_vector(&self, vector: u16) {
        self.with(|inner| inner.map_config_vector(vector));
    }

    /// Reads the ISR status, which clears it.
    pub(crate) fn read_isr(&self) -> u8 {
        self.with(|inner| {
            inner.registers.isr_reads += 1;
            std::mem::take(&mut inner.registers.isr)
        })
    }
}

/// The test's side: knobs and looks without effect.
impl FakeDevice {
    /// The device will not keep FEATURES_OK.
    pub(crate) fn refuse_features(&self, refuse: bool) {
        self.with(|inner| inner.registers.knobs.refuse_features = refuse);
    }

    /// How the next resets go.
    pub(crate) fn on_reset(&self, behaviour: ResetBehaviour) {
        self.with(|inner| inner.registers.knobs.on_reset = behaviour);
    }

    /// The device answers NO_VECTOR for vectors from `limit` on, though its table has them.
    pub(crate) fn limit_vectors(&self, limit: u16) {
        self.with(|inner| inner.registers.knobs.usable_vectors = limit);
    }

    /// Sets DEVICE_NEEDS_RESET: the device stops serving its queues and tells through the configuration interrupt.
    pub(crate) fn need_reset(&self) {
        self.with(|inner| {
            inner.registers.status |= status::NEEDS_RESET;
            inner.raise_config();
        });
    }

    /// The status without the effects of a driver's read.
    pub(crate) fn peek_status(&self) -> u8 {
        self.with(|inner| inner.registers.status)
    }

    /// How often the ISR status was read.
    pub(crate) fn isr_reads(&self) -> u64 {
        self.with(|inner| inner.registers.isr_reads)
    }

    /// How many resets were finished.
    pub(crate) fn resets(&self) -> u64 {
        self.with(|inner| inner.registers.resets)
    }
}
