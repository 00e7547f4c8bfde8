//! The set-up messages of vhost-user, answered for a minimal device of this process.
//!
//! It runs while queues are set up and is silent afterwards. Addresses are virtual ones of this process on both sides, so
//! that the descriptors of memory that come along are closed unused. It knows nothing of requests.
//!
//! Invariant: what a driver said reaches the device through [`Device::install`], which checks it against the regions.
use crate::embedded::minimal::{Device, Rings};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};

/// What was said of one queue so far.
#[derive(Default)]
struct Vring {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    call: Option<Arc<OwnedFd>>,
}

/// The far end of a control connection.
pub(super) struct Control {
    device: Device,
    event_idx: bool,
    vrings: Vec<Vring>,
    regions: Vec<(*mut u8, usize)>,
}

// SAFETY: the addresses are handed on and compared, never followed here.
unsafe impl Send for Control {}

impl Control {
    pub(super) fn new(device: Device) -> Self {
        let vrings = (0..device.options().queues).map(|_| Vring::default()).collect();
        Self { device, event_idx: false, vrings, regions: Vec::new() }
    }

    /// Takes back what the driver added; only when the device is quiesced.
    pub(super) fn forget_regions(&mut self) {
        for (base, len) in self.regions.drain(..) {
            self.device.remove_region(base, len);
        }
    }

    fn vring(&mut self, index: usize) -> Result<&mut Vring> {
        self.vrings.get_mut(index).ok_or(Error::InvalidParam)
    }
}

/// A part of the protocol that is not offered.
fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl VhostUserBackendReqHandlerMut for Control {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.device.offered_features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.event_idx = features & drv_virtio_block::spec::feature::EVENT_IDX != 0;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.vrings.len() as u64)
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let (space, at) = (self.device.configuration(), offset as usize);
        space.get(at..at.saturating_add(size as usize)).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(32)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let (base, len) = (region.user_addr, region.memory_size as usize);
        let base = std::ptr::with_exposed_provenance_mut(base as usize);
        // SAFETY: the driver at the other end lives in this process and maps what it names until it is dropped, which
        // has the device let go first (`Backing`); buffers are the caller's promise (`over_minimal`).
        unsafe { self.device.add_region(base, len) };
        self.regions.push((base, len));
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.vring(index as usize)?.size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let vring = self.vring(index as usize)?;
        (vring.descriptors, vring.used, vring.available) = (descriptors, used, available);
        Ok(())
    }

    fn set_vring_base(&mut self, _: u32, base: u32) -> Result<()> {
        if base == 0 { Ok(()) } else { not_offered() }
    }

    fn set_vring_kick(&mut self, _: u8, _: Option<File>) -> Result<()> {
        // The device is never kicked: it spins, or is stepped.
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.vring(index.into())?.call = call.map(|file| Arc::new(file.into()));
        Ok(())
    }

    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> Result<()> {
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        if !enable {
            return not_offered();
        }
        let event_idx = self.event_idx;
        let vring = self.vring(index as usize)?;
        let Vring { size, descriptors, available, used, .. } = *vring;
        let (call, rings) = (vring.call.clone(), Rings { size, descriptors, available, used });
        // SAFETY: the areas lie in the crate's zeroed ring memory (checked against the regions), which `Backing` keeps
        // until the device let go; the crate drives them by the rules.
        unsafe { self.device.install(index as usize, &rings, event_idx, call) }.map_err(|_| Error::InvalidParam)?;
        self.device.start();
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        not_offered()
    }
    fn reset_device(&mut self) -> Result<()> {
        not_offered()
    }
    fn set_mem_table(
        &mut self,
        _: &[VhostUserMemoryRegion],
        _: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        not_offered()
    }
    fn get_vring_base(&mut self, _: u32) -> Result<VhostUserVringState> {
        not_offered()
    }
    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        not_offered()
    }
    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        not_offered()
    }
    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }
    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        not_offered()
    }
    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        not_offered()
    }
    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        not_offered()
    }
    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        not_offered()
    }
    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }
    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }
    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        not_offered()
    }
}
