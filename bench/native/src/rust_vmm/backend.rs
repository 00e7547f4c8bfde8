//! The device as `vhost-user-backend` sees it: features, configuration, and a kick of one queue.
//!
//! It drains a queue, asks for the next kick, and looks again; a queue that makes no progress is left alone until it is
//! kicked again, whatever its index says. It knows no request types.
use super::deviation::Deviation;
use super::request::{Disk, execute};
use super::{Medium, Options};
use drv_virtio_block::spec::{config, feature};
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use vhost::vhost_user::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The device, over all its clients.
pub(super) struct Backend {
    medium: Medium,
    options: Options,
    /// Of a device that deviates.
    deviation: Option<Deviation>,
    writeback: AtomicBool,
    memory: RwLock<Option<Memory>>,
}

impl Backend {
    pub(super) fn new(medium: Medium, options: Options) -> io::Result<Self> {
        if !(1..=32).contains(&options.queues) || !options.queue_size.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no device has these queues"));
        }
        let writeback = AtomicBool::new(options.writeback);
        let deviation = options.deviating.then(Deviation::default);
        Ok(Self { medium, options, deviation, writeback, memory: RwLock::new(None) })
    }

    /// Between clients: nothing of the last one's stays, but the medium.
    pub(super) fn forget_client(&self) {
        self.set_memory(None);
        self.writeback.store(self.options.writeback, Ordering::Release);
    }

    fn set_memory(&self, memory: Option<Memory>) {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    /// Carries out whatever is available, a ring at most: an index that runs ahead meanwhile waits for the next look.
    /// Returns how many chains that was.
    pub(super) fn drain<M>(&self, queue: &mut Queue, memory: &M) -> Result<usize, Error>
    where
        M: Deref<Target = GuestMemoryMmap> + Clone,
    {
        let writeback = self.writeback.load(Ordering::Acquire);
        let disk = Disk { medium: &self.medium, options: &self.options, writeback };
        let mut done = 0;
        while done < usize::from(queue.size()) {
            let Some(chain) = queue.pop_descriptor_chain(memory.clone()) else { break };
            let head = chain.head_index();
            let length = execute(&disk, chain, memory).map_or(0, |moved| match &self.deviation {
                Some(deviation) => deviation.length(moved),
                None => moved.written,
            });
            queue.add_used(&**memory, head, length)?;
            done += 1;
        }
        Ok(done)
    }

    /// Until there is nothing to do and a kick was asked for.
    fn serve(&self, vring: &VringRwLock<Memory>) -> Result<(), Error> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(memory) = memory else { return Ok(()) };
        loop {
            vring.disable_notification()?;
            let mut state = vring.get_mut();
            let done = self.drain(state.get_queue_mut(), &memory.memory())?;
            if done > 0 && state.needs_notification()? {
                // A client that closed its end is noticed on the socket.
                let _ = state.signal_used_queue();
            }
            drop(state);
            let more = vring.enable_notification()?;
            if !more || done == 0 {
                return Ok(());
            }
        }
    }

    /// The configuration space (5.2.4) as it is now.
    fn configuration(&self) -> [u8; config::LEN as usize] {
        let options = &self.options;
        let mut space = [0; config::LEN as usize];
        let mut put = |offset: u32, bytes: &[u8]| space[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        put(config::CAPACITY, &self.medium.sectors().to_le_bytes());
        put(config::SEG_MAX, &options.seg_max.to_le_bytes());
        put(config::BLK_SIZE, &options.block_size.to_le_bytes());
        put(config::WRITEBACK, &[self.writeback.load(Ordering::Acquire).into()]);
        put(config::NUM_QUEUES, &options.queues.to_le_bytes());
        for at in [config::MAX_DISCARD_SECTORS, config::MAX_WRITE_ZEROES_SECTORS] {
            put(at, &options.max_range_sectors.to_le_bytes());
        }
        for at in [config::MAX_DISCARD_SEG, config::DISCARD_SECTOR_ALIGNMENT, config::MAX_WRITE_ZEROES_SEG] {
            put(at, &1_u32.to_le_bytes());
        }
        if self.deviation.is_some() {
            put(config::MAX_DISCARD_SEG, &[0; 4]);
        }
        put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        space
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringRwLock<Memory>;

    fn num_queues(&self) -> usize {
        self.options.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        self.options.queue_size.into()
    }

    fn features(&self) -> u64 {
        let read_only = if self.options.read_only { feature::RO } else { 0 };
        let offered = self.options.features & !feature::RO | read_only | feature::VERSION_1;
        offered | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _: bool) {
        // Each queue knows by itself.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let (space, at) = (self.configuration(), offset as usize);
        // Empty stands for an error in the protocol.
        space.get(at..at.saturating_add(size as usize)).map_or_else(Vec::new, <[u8]>::to_vec)
    }

    fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let offered = self.options.features & feature::CONFIG_WCE != 0;
        match bytes {
            [writeback] if offered && offset == config::WRITEBACK => {
                self.writeback.store(*writeback != 0, Ordering::Release);
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing but `writeback` can be written")),
        }
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        self.set_memory(Some(memory));
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.options.queues).map(|queue| 1 << queue).collect()
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn handle_event(&self, event: u16, _: EventSet, vrings: &[Self::Vring], _: usize) -> io::Result<()> {
        if let Some(vring) = vrings.get(usize::from(event)) {
            // A queue that is not one any more, or never was, is the client's loss; its thread serves on.
            let _ = self.serve(vring);
        }
        Ok(())
    }
}
