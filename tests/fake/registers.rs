//! Status, features, vectors, interrupt status: the device-wide registers, and the order in which they may be used.
//!
//! The methods of [`FakeDevice`] have the effect of the PCI common configuration's registers without the selectors.
//! Specification: 2.1 Device Status Field, 2.2 Feature Bits, 2.4 Device Reset, 3.1.1 Driver requirements: device
//! initialization, 4.1.4.3, 4.1.4.5, 4.1.5.1.2.
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

/// A reset under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    Done,
    Pending(Option<u32>),
}

/// The device-wide registers.
pub(super) struct Registers {
    status: u8,
    reset: Reset,
    /// The driver has read a status of 0 since it asked for a reset; false after power-on.
    reset_seen: bool,
    offered: u64,
    accepted: u64,
    features_ok_unread: bool,
    vector_table: u16,
    config_vector: u16,
    config_vector_unread: bool,
    isr: u8,
    isr_reads: u64,
    resets: u64,
    pub(super) space: super::space::Space,
    /// Knobs.
    refuse_features: bool,
    on_reset: ResetBehaviour,
    usable_vectors: u16,
}

impl Registers {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            status: 0,
            reset: Reset::Done,
            reset_seen: false,
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
            refuse_features: false,
            on_reset: ResetBehaviour::AtOnce,
            usable_vectors: u16::MAX,
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
        let kept = if beyond || vector >= self.usable_vectors { NO_VECTOR } else { vector };
        (kept, beyond)
    }
}

impl Inner {
    fn read_status(&mut self) -> u8 {
        let registers = &mut self.registers;
        match registers.reset {
            Reset::Done => {}
            Reset::Pending(Some(0)) => self.finish_reset(),
            Reset::Pending(left) => {
                registers.reset = Reset::Pending(left.map(|reads| reads - 1));
                // A device that was already at 0 when it was reset is busy with what came before its power-on.
                return registers.status | status::ACKNOWLEDGE;
            }
        }
        let registers = &mut self.registers;
        registers.reset_seen |= registers.status == 0;
        registers.features_ok_unread = false;
        registers.status
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.begin_reset();
        }
        self.registers.space.next_step();
        if !self.registers.reset_seen {
            self.fault(DriverFault::ResetNotAwaited);
        }
        let old = self.registers.status;
        let added = value & !old;
        let cleared = old & !value & !status::NEEDS_RESET;
        let foreign = added & !(0x0f | status::FAILED);
        if cleared != 0 {
            self.fault(DriverFault::StatusBitsCleared(cleared));
        }
        if foreign != 0 {
            self.fault(DriverFault::StatusBitsForeign(foreign));
        }
        if old & status::FAILED != 0 {
            self.fault(DriverFault::WentOnAfterFailed);
        }
        self.registers.status |= added & status::FAILED;
        self.step(old, value, added & 0x0f);
    }

    /// One step of initialisation: exactly the bit that is next.
    fn step(&mut self, from: u8, to: u8, added: u8) {
        let next = match from & 0x0f {
            0 => status::ACKNOWLEDGE,
            0x01 => status::DRIVER,
            0x03 => status::FEATURES_OK,
            0x0b => status::DRIVER_OK,
            _ => 0,
        };
        if added != 0 && added != next {
            self.fault(DriverFault::StatusOutOfOrder { from, to });
        }
        self.registers.status |= added & !(status::FEATURES_OK | status::DRIVER_OK);
        if added & status::FEATURES_OK != 0 {
            self.judge_features();
        }
        if added & status::DRIVER_OK != 0 && self.registers.features_ok() {
            self.go_live();
        }
    }

    /// Sets FEATURES_OK if the driver's choice can be served.
    fn judge_features(&mut self) {
        let accepted = self.registers.accepted;
        let unoffered = accepted & !self.registers.offered;
        let bait = accepted & self.registers.offered & !features::IMPLEMENTED;
        let no_version_1 = accepted & features::VERSION_1 == 0;
        let no_platform =
            self.registers.offered(features::ACCESS_PLATFORM) && accepted & features::ACCESS_PLATFORM == 0;
        if unoffered != 0 {
            self.fault(DriverFault::FeaturesNotOffered(unoffered));
        }
        if bait != 0 {
            self.fault(DriverFault::FeaturesNotImplemented(bait));
        }
        if no_version_1 && self.registers.offered(features::VERSION_1) {
            self.fault(DriverFault::Version1NotAccepted);
        }
        let refused = unoffered | bait != 0 || no_version_1 || no_platform || self.registers.refuse_features;
        if !refused {
            self.registers.status |= status::FEATURES_OK;
            // Without FLUSH a device with a selectable cache starts with write-through.
            let writeback = self.config.writeback && accepted & features::FLUSH != 0;
            self.registers.space.set_writeback(writeback);
        }
        self.registers.features_ok_unread = true;
    }

    fn go_live(&mut self) {
        self.check_features_ok_was_read();
        if self.registers.config_vector_unread {
            self.fault(DriverFault::VectorNotReadBack { queue: None });
        }
        for queue in 0..self.rings.len() as u16 {
            if self.ring(queue).vector_unread() {
                self.fault(DriverFault::VectorNotReadBack { queue: Some(queue) });
            }
        }
        if self.registers.space.take_unclosed() {
            self.fault(DriverFault::CapacityWithoutGeneration);
        }
        self.registers.status |= status::DRIVER_OK;
        self.start_rings();
    }

    pub(super) fn check_features_ok_was_read(&mut self) {
        if std::mem::take(&mut self.registers.features_ok_unread) {
            self.fault(DriverFault::FeaturesOkNotReadBack);
        }
    }

    fn begin_reset(&mut self) {
        self.registers.reset_seen = false;
        match self.registers.on_reset {
            ResetBehaviour::AtOnce => self.finish_reset(),
            ResetBehaviour::AfterReads(reads) => self.registers.reset = Reset::Pending(Some(reads)),
            ResetBehaviour::Never => self.registers.reset = Reset::Pending(None),
        }
    }

    /// From here on the device touches no queue. What the write cache holds survives: a reset is not a power cut.
    fn finish_reset(&mut self) {
        let registers = &mut self.registers;
        registers.status = 0;
        registers.reset = Reset::Done;
        registers.accepted = 0;
        registers.features_ok_unread = false;
        registers.config_vector = NO_VECTOR;
        registers.config_vector_unread = false;
        registers.isr = 0;
        registers.resets += 1;
        registers.space.reset(&self.config);
        self.rings.iter_mut().for_each(super::Ring::reset);
        self.owned = super::Owned::default();
        self.first_serial = self.next_serial;
    }

    /// An interrupt of the queue's or the configuration's vector.
    pub(super) fn raise(&mut self, vector: u16, cause: u8) {
        if !self.registers.has_msix() {
            self.registers.isr |= cause;
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
        self.with(|inner| inner.registers.refuse_features = refuse);
    }

    /// How the next resets go.
    pub(crate) fn on_reset(&self, behaviour: ResetBehaviour) {
        self.with(|inner| inner.registers.on_reset = behaviour);
    }

    /// The device answers NO_VECTOR for vectors from `limit` on, though its table has them.
    pub(crate) fn limit_vectors(&self, limit: u16) {
        self.with(|inner| inner.registers.usable_vectors = limit);
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
