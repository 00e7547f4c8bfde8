//! What the crate `virtio-drivers` asks of whoever uses it: memory, registers, and the transport itself.
//!
//! The transport is the crate's own over PCI, found through the crate's own way of reading configuration space, because
//! what it does to ring a doorbell (two accesses to the common registers before the one to the doorbell) is part of
//! what its users pay. [`Watched`] stands between it and the driver and looks on: it adds one instruction to each
//! doorbell, to count it, and nothing to an I/O without one.
//!
//! Memory is as cheap as it can be: mapped one to one and within the device's reach, so that sharing and unsharing a
//! buffer do nothing. That is the crate's best case.
use crate::memory;
use alloc::format;
use alloc::string::String;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use drv_virtio_block::spec::{config, feature};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{Cam, DeviceFunction, MmioCam, PciRoot};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pci::{Pci, PciAddress};

/// Memory that is mapped one to one.
pub struct Identity;

// SAFETY: `dma_alloc` gives fresh zeroed pages that nobody else has; a physical address is a pointer here.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // The crate takes address 0 for a failure.
        let Some(memory) = memory::dma(pages * PAGE_SIZE) else { return (0, NonNull::dangling()) };
        (memory.device_address(), NonNull::new(memory.as_ptr()).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // A run takes what it needs and the machine ends with it.
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _: usize) -> NonNull<u8> {
        // A placed BAR is not at 0; it was mapped when the function was prepared.
        NonNull::new(paddr as *mut u8).expect("registers at address 0")
    }

    #[inline(always)]
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as PhysAddr
    }

    #[inline(always)]
    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The crate's transport to the function at `at`, which deviced has prepared: nobody is interrupted.
///
/// # Errors
/// What the crate finds wrong with it.
pub fn transport(pci: &Pci, at: PciAddress) -> core::result::Result<PciTransport, String> {
    let base = pci
        .base()
        .ok_or("driver=virtio-drivers reads configuration space in memory, which this machine lacks: use -M q35")?;
    // SAFETY: configuration space by the firmware's word, 256 buses of it on this machine, mapped one to one for good;
    // the image's own accesses to it are over.
    let space = unsafe { MmioCam::new(base as *mut u8, Cam::Ecam) };
    let function = DeviceFunction { bus: at.bus(), device: at.device(), function: at.function() };
    PciTransport::new::<Identity, _>(&mut PciRoot::new(space), function).map_err(|why| format!("virtio-drivers: {why}"))
}

/// What was seen of the driver.
#[derive(Debug, Default)]
pub struct Seen {
    /// Doorbells rung.
    pub notifications: AtomicU64,
    /// Features that it accepted.
    pub features: AtomicU64,
    /// Where its used ring is.
    pub used: AtomicU64,
    /// Bytes in the device's blocks, which the driver does not ask for; 0 if the device does not say.
    pub block_size: AtomicU32,
}

/// The transport, watched.
pub struct Watched {
    pub transport: PciTransport,
    pub seen: &'static Seen,
}

impl Transport for Watched {
    fn device_type(&self) -> DeviceType {
        self.transport.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        let offered = self.transport.read_device_features();
        if offered & feature::BLK_SIZE != 0
            && let Ok(size) = self.transport.read_config_space::<u32>(config::BLK_SIZE as usize)
        {
            self.seen.block_size.store(size, Ordering::Relaxed);
        }
        offered
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.seen.features.store(driver_features, Ordering::Relaxed);
        self.transport.write_driver_features(driver_features);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.transport.max_queue_size(queue)
    }

    #[inline(always)]
    fn notify(&mut self, queue: u16) {
        // One thread writes, so that no locked instruction is needed.
        let rung = self.seen.notifications.load(Ordering::Relaxed);
        self.seen.notifications.store(rung + 1, Ordering::Relaxed);
        self.transport.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.transport.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.transport.set_status(status);
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        self.transport.set_guest_page_size(guest_page_size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.transport.requires_legacy_layout()
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, available: PhysAddr, used: PhysAddr) {
        self.seen.used.store(used, Ordering::Relaxed);
        self.transport.queue_set(queue, size, descriptors, available, used);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.transport.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.transport.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.transport.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        self.transport.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<()> {
        self.transport.write_config_space(offset, value)
    }
}
