//! What stands behind a transport and its handle: one back-end after the other, and what the driver told the present one.
//!
//! The virtio status lives here. The protocol's own (feature STATUS) is not used: qemu-storage-daemon does not offer it,
//! the crate's front-end cannot say it, and it would not prove a reset either. What a reset is instead:
//!
//! 1. The queues go on until what was made available is used: both indices are in our memory. A back-end that is stopped
//!    before may finish later than it says: qemu-storage-daemon 7.2 answers GET_VRING_BASE at once, stores what it has in
//!    flight afterwards, and then ends itself over the call eventfd that it closed.
//! 2. GET_VRING_BASE stops each queue, and its answer is how far the available ring was consumed. Equal to the used index,
//!    it says that nothing is in flight; stopped, nothing can become so. Then the status reads 0.
//! 3. If that does not come about in half the time, the connection is hung up. The status reads 0 when the back-end has
//!    closed its end ([`Control::let_go`] says why that is proof), and the device is gone: what the driver told it is of
//!    no use, [`Line::replace`] connects to the next one.
//!
//! Invariants: a queue counts as started from the moment its kick may have been sent; a lost back-end stays lost.
use super::control::Control;
use super::error::{ConnectError, ControlError};
use super::transport::Share;
use crate::event::Event;
use drv_virtio_block::spec::{NO_VECTOR, status};
use drv_virtio_block::transport::{MAX_QUEUES, QueueId, RingAddresses, TransportError};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

/// Bytes of a ring before its index (2.7.6, 2.7.8: flags come first).
const INDEX: u64 = 2;

/// A queue as the driver programmed it.
struct Queue {
    vector: u16,
    rings: Option<RingAddresses>,
    kick: Option<Arc<Event>>,
    started: bool,
}

impl Queue {
    fn new() -> Self {
        Self { vector: NO_VECTOR, rings: None, kick: None, started: false }
    }

    /// Available and used index.
    fn indices(&self) -> Option<(u16, u16)> {
        let rings = self.rings?;
        let index = |ring: u64| {
            let index = std::ptr::with_exposed_provenance_mut((ring + INDEX) as usize);
            // SAFETY: the ring lies in the shared memory (`Share::holds` at programming), whose device addresses are
            // addresses of this process. Whoever made the `RingAddresses` promised that it stays mapped for as long as
            // the device knows it, which it does until this very reset is over. `holds` checked the alignment too, and
            // everybody accesses the index atomically. Acquire: what the device stored before it stored the used index
            // is visible when the caller learns of the reset.
            u16::from_le(unsafe { AtomicU16::from_ptr(index) }.load(Ordering::Acquire))
        };
        Some((index(rings.driver().0), index(rings.device().0)))
    }

    /// Whether the device owes nothing: it never started, or everything available is used.
    fn is_idle(&self) -> bool {
        !self.started || self.indices().is_none_or(|(available, used)| available == used)
    }
}

/// See the module's text.
pub(super) struct Line {
    control: Control,
    share: Share,
    calls: Arc<[Arc<Event>]>,
    patience: Duration,
    status: u8,
    /// A reset was asked for and nothing was said since; until when it may be an orderly one.
    resetting: Option<Instant>,
    queues: Vec<Queue>,
    generation: u32,
    config: Vec<u8>,
}

impl Line {
    pub(super) fn new(control: Control, share: Share, calls: Arc<[Arc<Event>]>, patience: Duration) -> Self {
        let config = control.facts().config.clone();
        let mut line =
            Self { control, share, calls, patience, status: 0, resetting: None, queues: vec![], generation: 0, config };
        line.forget();
        line
    }

    /// Nothing was told to the device, or it knows nothing of it any more.
    fn forget(&mut self) {
        let queues = self.control.facts().queues.min(MAX_QUEUES);
        self.queues = (0..queues).map(|_| Queue::new()).collect();
    }

    /// Why the back-end is lost, if it is.
    pub(super) fn lost(&mut self) -> Option<ControlError> {
        self.control.is_lost();
        self.control.lost()
    }

    /// Ends the connection from this side.
    pub(super) fn hang_up(&mut self) {
        self.control.hang_up();
    }

    /// The present back-end, unless it is lost.
    fn live(&mut self) -> Result<&mut Control, TransportError> {
        if self.control.is_lost() { Err(TransportError::Gone) } else { Ok(&mut self.control) }
    }

    /// Another back-end in the place of a lost one that let go.
    pub(super) fn replace(&mut self, open: impl FnOnce() -> Result<Control, ConnectError>) -> Result<(), ConnectError> {
        if self.resetting.is_none() || !self.control.is_lost() || self.status() != Ok(0) {
            return Err(ConnectError::NotReset);
        }
        self.control = open()?;
        self.config.clone_from(&self.control.facts().config);
        self.generation = self.generation.wrapping_add(1);
        self.forget();
        Ok(())
    }

    /// The virtio status; see the module's text for when it is 0.
    pub(super) fn status(&mut self) -> Result<u8, TransportError> {
        let lost = self.control.is_lost();
        let Some(until) = self.resetting else {
            return if lost { Err(TransportError::Gone) } else { Ok(self.status) };
        };
        if self.status == 0 {
            return Ok(0);
        }
        let over = if lost {
            self.control.let_go()
        } else if self.queues.iter().all(Queue::is_idle) {
            self.stop_queues()
        } else {
            if Instant::now() >= until {
                self.control.hang_up();
            }
            false
        };
        if over {
            self.status = 0;
            self.forget();
        }
        Ok(self.status)
    }

    /// Stops the queues, which are idle; whether they all were. What fails here is a lost back-end at the next look.
    fn stop_queues(&mut self) -> bool {
        for (n, queue) in self.queues.iter().enumerate().filter(|(_, queue)| queue.started) {
            let Ok(base) = self.control.say("GET_VRING_BASE", |f| f.get_vring_base(n)) else { return false };
            if queue.indices().is_some_and(|(_, used)| u32::from(used) != base & 0xffff) {
                // It consumed something in the last moment, or lies.
                self.control.hang_up();
                return false;
            }
        }
        true
    }

    pub(super) fn set_status(&mut self, value: u8) -> Result<(), TransportError> {
        if value == 0 {
            if self.resetting.is_none() {
                // Half the time for an orderly end, half for the other one.
                self.resetting = Some(Instant::now() + self.patience / 2);
                // Not 0 before it is proven; with no queue started that is at the first look.
                self.status |= status::FAILED;
            }
            return Ok(());
        }
        self.live()?;
        self.resetting = None;
        self.status = value;
        Ok(())
    }

    pub(super) fn features(&mut self) -> Result<u64, TransportError> {
        Ok(self.live()?.facts().features)
    }

    pub(super) fn set_features(&mut self, accepted: u64) -> Result<(), TransportError> {
        gone(self.live()?.say("SET_FEATURES", |f| f.set_features(accepted)))
    }

    pub(super) fn num_queues(&mut self) -> Result<u16, TransportError> {
        Ok(self.live()?.facts().queues)
    }

    pub(super) fn set_queue_vector(&mut self, id: QueueId, vector: u16) -> Result<u16, TransportError> {
        self.live()?;
        let vector = self.vector(vector);
        self.queue(id)?.vector = vector;
        Ok(vector)
    }

    /// What a vector reads back as.
    pub(super) fn vector(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.calls.len() { vector } else { NO_VECTOR }
    }

    fn queue(&mut self, QueueId(n): QueueId) -> Result<&mut Queue, TransportError> {
        self.queues.get_mut(usize::from(n)).ok_or(TransportError::DoorbellOutside(QueueId(n)))
    }

    /// Tells the back-end of the memory, once, and where a queue's rings are in it.
    pub(super) fn program_queue(&mut self, id: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        self.live()?;
        self.queue(id)?;
        if !self.share.holds(rings) {
            return Err(TransportError::Protocol);
        }
        if !self.control.told() {
            let region = VhostUserMemoryRegionInfo {
                guest_phys_addr: self.share.address,
                userspace_addr: self.share.address,
                memory_size: self.share.len,
                mmap_offset: 0,
                mmap_handle: self.share.file.as_raw_fd(),
            };
            gone(self.control.tell("SET_MEM_TABLE", |f| f.set_mem_table(&[region])))?;
        }
        let (n, size) = (usize::from(id.0), rings.size());
        let addresses = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: rings.descriptors().0,
            used_ring_addr: rings.device().0,
            avail_ring_addr: rings.driver().0,
            log_addr: None,
        };
        gone(self.control.say("SET_VRING_NUM", |f| f.set_vring_num(n, size)))?;
        gone(self.control.say("SET_VRING_BASE", |f| f.set_vring_base(n, 0)))?;
        gone(self.control.tell("SET_VRING_ADDR", |f| f.set_vring_addr(n, &addresses)))?;
        // A new one each time: what an earlier back-end may still hold can neither ring nor swallow.
        let kick = Arc::new(Event::new().map_err(|_| TransportError::DoorbellOutside(id))?);
        let queue = self.queue(id)?;
        (queue.rings, queue.kick) = (Some(*rings), Some(kick));
        Ok(())
    }

    /// Hands over the two eventfds and lets the queue run: with the kick it counts as started.
    pub(super) fn enable_queue(&mut self, id: QueueId) -> Result<(), TransportError> {
        self.live()?;
        let queue = self.queue(id)?;
        let kick = queue.kick.clone().ok_or(TransportError::DoorbellOutside(id))?;
        queue.started = true;
        let vector = usize::from(queue.vector);
        let n = usize::from(id.0);
        // A back-end interrupts now and then even so (whenever the index meets the event index that nobody moves), and
        // qemu-storage-daemon 7.2 ends the connection when it has no file for that. So it gets one that nobody reads.
        let mute = Event::new().map_err(|_| TransportError::DoorbellOutside(id))?;
        let call = self.calls.get(vector).map_or(&mute, |call| call);
        gone(self.control.say("SET_VRING_CALL", |f| f.set_vring_call(n, call.file())))?;
        gone(self.control.tell("SET_VRING_KICK", |f| f.set_vring_kick(n, kick.file())))?;
        gone(self.control.say("SET_VRING_ENABLE", |f| f.set_vring_enable(n, true)))?;
        // A back-end may raise a call eventfd when it gets it, lest something was forgotten. Nothing was: no queue runs.
        if let Some(call) = self.calls.get(vector) {
            call.take();
        }
        Ok(())
    }

    pub(super) fn kick(&mut self, id: QueueId) -> Result<Arc<Event>, TransportError> {
        self.live()?;
        self.queue(id)?.kick.clone().ok_or(TransportError::DoorbellOutside(id))
    }

    /// Reads the configuration space anew; another content is another generation.
    pub(super) fn config_generation(&mut self) -> Result<u32, TransportError> {
        let len = self.config.len();
        let now = gone(self.live()?.get_config(len))?;
        if now.len() != len {
            return Err(TransportError::Protocol);
        }
        if now != self.config {
            self.generation = self.generation.wrapping_add(1);
            self.config = now;
        }
        Ok(self.generation)
    }

    /// Bytes of the configuration space as it was read last.
    pub(super) fn config<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], TransportError> {
        self.live()?;
        let bytes = self.config.get(offset as usize..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or(TransportError::NoSuchField { offset })
    }

    pub(super) fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        let [_] = self.config::<1>(offset)?;
        let flags = vhost::vhost_user::message::VhostUserConfigFlags::empty();
        gone(self.control.say("SET_CONFIG", |f| f.set_config(offset, flags, &[value])))
    }
}

/// To the driver a failed message is a device that is gone; the handle keeps the reason.
fn gone<R>(outcome: Result<R, ControlError>) -> Result<R, TransportError> {
    outcome.map_err(|_| TransportError::Gone)
}
