//! Initialisation in the order of the specification, in three calls, for tests that exercise less than a whole driver.
use super::FakeDevice;
use super::wire::{NO_VECTOR, status};

impl FakeDevice {
    /// Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, and its check. Bits that are not offered are left out.
    #[track_caller]
    pub(crate) fn negotiate(&self, features: u64) {
        self.set_status(0);
        assert_eq!(self.status(), 0, "the device finishes its reset");
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        self.set_driver_features(features & self.device_features());
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        assert!(self.status() & status::FEATURES_OK != 0, "the device accepts the features");
    }

    /// Sets up and enables a queue; its interrupts go to vector `queue`, if the device has that.
    #[track_caller]
    pub(crate) fn set_up_queue(&self, queue: u16, size: u16, descriptors: u64, driver: u64, device: u64) {
        self.set_queue_size(queue, size);
        self.set_queue_parts(queue, descriptors, driver, device);
        let vector = if queue < self.vectors() { queue } else { NO_VECTOR };
        self.set_queue_vector(queue, vector);
        assert_eq!(self.queue_vector(queue), vector);
        self.set_queue_enable(queue, 1);
        assert_eq!(self.queue_enable(queue), 1, "the device accepts the queue: {:?}", self.faults());
    }

    /// DRIVER_OK.
    pub(crate) fn go_live(&self) {
        self.set_status(self.status() | status::DRIVER_OK);
    }

    /// Entries of the MSI-X table.
    pub(crate) fn vectors(&self) -> u16 {
        self.with(|inner| inner.config.vectors)
    }
}
