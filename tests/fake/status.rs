//! The device status: the steps of initialisation, each when its time has come, and reset.
//!
//! Specification: 2.1 Device Status Field, 2.2.1 Driver requirements: feature bits, 2.4 Device Reset, 3.1.1 Driver
//! requirements: device initialization.
use super::registers::{FirstReset, Reset, ResetBehaviour};
use super::wire::{NO_VECTOR, features, status};
use super::{DriverFault, Inner};

impl Inner {
    pub(super) fn read_status(&mut self) -> u8 {
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
        if registers.status == 0 && registers.first_reset == FirstReset::Asked {
            registers.first_reset = FirstReset::Awaited;
        }
        registers.features_ok_unread = false;
        registers.status
    }

    pub(super) fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.begin_reset();
        }
        self.registers.space.next_step();
        if self.registers.first_reset != FirstReset::Awaited {
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
        let refused = unoffered | bait != 0 || no_version_1 || no_platform || self.registers.knobs.refuse_features;
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
        self.registers.first_reset = FirstReset::Asked;
        match self.registers.knobs.on_reset {
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
}
