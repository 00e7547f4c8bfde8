//! A minimal virtio-blk device in this process, written for speed.
//!
//! Its memory is the process's, its interrupts are eventfds, and its work is done in [`Queue::step`]: by a thread that
//! spins ([`Device::spawn`], [`Device::run`]), by one that sleeps until it is kicked ([`Notify::WhenIdle`]), or by the
//! caller ([`Device::step`]). It answers every request type, in any framing. It refuses to know which driver is at the
//! other end and how it was brought up: registers are the transport's.
//!
//! Invariants:
//! - it touches nothing but its queues' rings and memory inside the regions that it was given;
//! - a queue is worked on by one thread at a time: whoever holds its gate; after [`Device::try_quiesce`] said so, nobody
//!   touches the driver's memory;
//! - a chain without sense breaks the device until it is reset.
//!
//! Specification: 2.7 Split Virtqueues, 5.2 Block Device.
mod chain;
mod disk;
mod memory;
mod options;
mod queue;
mod request;
mod split;
mod work;

pub use options::{Data, Notify, Options};
pub use queue::{Counters, Queue, STEP_SYMBOL};
pub use split::Rings;
pub use work::{QueueGuard, Worker};

use disk::Disk;
use drv_virtio_block::spec::config;
use memory::Regions;
use queue::{Parts, QueueCounters};
use split::SplitRing;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fmt, io};
use work::Gates;

/// What the device is, as far as its queues ask.
struct Facts {
    options: Options,
    medium: Medium,
}

/// Where data goes.
enum Medium {
    /// Nowhere: no buffer is touched.
    Null,
    /// Nowhere; reads return zeros.
    Zeros,
    /// Into memory.
    Ram(Disk),
}

/// Why a queue cannot be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// There is no such queue.
    NoSuchQueue,
    /// It is installed already.
    Twice,
    /// Size or alignments are not those of a split ring, or the areas lie outside the regions.
    Rings,
}

/// A handle to the device; clones are the same device.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

struct Shared {
    facts: Arc<Facts>,
    regions: Regions,
    gates: Gates,
    counters: Box<[Arc<QueueCounters>]>,
    /// One per queue of a device that is to be kicked.
    kicks: Box<[OwnedFd]>,
    broken: Arc<AtomicBool>,
    /// Bit `n`: queue `n` is installed.
    installed: AtomicU64,
    calls: Box<[Arc<OwnedFd>]>,
}

/// Makes an eventfd readable.
fn signal(eventfd: &OwnedFd) {
    // A counter that is full is readable already.
    let _ = nix::unistd::write(eventfd, &1_u64.to_ne_bytes());
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("options", self.options()).finish_non_exhaustive()
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchQueue => "there is no such queue",
            Self::Twice => "the queue is installed already",
            Self::Rings => "no rings of a split queue inside the regions",
        })
    }
}

impl std::error::Error for InstallError {}

impl Device {
    /// A device that is not driven yet. `regions` are the memory that a driver may name, as (first byte, bytes); `calls`
    /// are the eventfds behind the vectors, in their order.
    ///
    /// # Errors
    /// When an eventfd cannot be made, or the options make no device.
    ///
    /// # Safety
    /// The regions stay mapped, readable and writable, and are shared by the rules of the rings only with whoever drives
    /// the device, for as long as there is a handle to it, or it was reset and is driven no more. The driver names
    /// initialised memory, and does not touch a chain's memory between offering it and the used index that covers it.
    pub unsafe fn new(options: Options, regions: &[(*mut u8, usize)], calls: Vec<OwnedFd>) -> io::Result<Self> {
        options.check()?;
        let medium = match options.data {
            Data::Null => Medium::Null,
            Data::Zeros => Medium::Zeros,
            Data::Ram => Medium::Ram(Disk::new(options.sectors)),
        };
        let queues = usize::from(options.queues);
        let kicks = if options.notify == Notify::WhenIdle { queues } else { 0 };
        let shared = Shared {
            regions: Regions::default(),
            gates: Gates::new(queues),
            counters: (0..queues).map(|_| Arc::default()).collect(),
            kicks: (0..kicks).map(|_| work::kick()).collect::<io::Result<_>>()?,
            broken: Arc::default(),
            installed: AtomicU64::new(0),
            calls: calls.into_iter().map(Arc::new).collect(),
            facts: Arc::new(Facts { options, medium }),
        };
        let device = Self { shared: Arc::new(shared) };
        for (base, len) in regions {
            // SAFETY: the caller's.
            unsafe { device.add_region(*base, *len) };
        }
        Ok(device)
    }

    /// Adds memory that a driver may name.
    ///
    /// # Safety
    /// As for the regions of [`Device::new`].
    pub unsafe fn add_region(&self, base: *mut u8, len: usize) {
        // SAFETY: the caller's: no queue outlives the last handle.
        unsafe { self.shared.regions.add(base, len) };
    }

    /// Takes memory back that was added with the same bounds. A queue that runs may still reach it: to be called when
    /// [`Device::try_quiesce`] said that none does.
    pub fn remove_region(&self, base: *mut u8, len: usize) {
        self.shared.regions.remove(base, len);
    }

    /// The features that it offers.
    pub fn offered_features(&self) -> u64 {
        self.options().offered()
    }

    /// The configuration space that it begins with (5.2.4).
    pub fn configuration(&self) -> [u8; config::LEN as usize] {
        super::transport::configuration(self.options())
    }

    /// The register file, for this repository's driver.
    pub fn transport(&self) -> super::EmbeddedTransport {
        super::EmbeddedTransport::new(self.clone())
    }

    /// What the device is.
    pub fn options(&self) -> &Options {
        &self.shared.facts.options
    }

    /// What queue `index` did so far; all zero for one that does not exist.
    pub fn counters(&self, index: usize) -> Counters {
        self.shared.counters.get(index).map_or(Counters::default(), |counters| counters.read())
    }

    /// Whether a driver offered something without sense, so that only a reset helps.
    pub fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire)
    }

    /// Tells the device where a queue is. `call` is signalled for its interrupts. It is worked on after
    /// [`Device::start`].
    ///
    /// # Errors
    /// When there is no such queue, it is installed already, or its areas are not memory that a driver may name.
    ///
    /// # Safety
    /// The areas are initialised rings that nobody but one driver of them touches until [`Device::try_quiesce`] says so.
    pub unsafe fn install(
        &self,
        index: usize,
        rings: &Rings,
        event_idx: bool,
        call: Option<Arc<OwnedFd>>,
    ) -> Result<(), InstallError> {
        let shared = &*self.shared;
        let counters = shared.counters.get(index).ok_or(InstallError::NoSuchQueue)?;
        let inside = rings.areas().iter().all(|(address, len)| shared.regions.hold(*address, *len));
        if !rings.are_sound() || rings.size > shared.facts.options.queue_size || !inside {
            return Err(InstallError::Rings);
        }
        if shared.installed.fetch_or(1 << index, Ordering::AcqRel) & 1 << index != 0 {
            return Err(InstallError::Twice);
        }
        // SAFETY: sound and inside regions (checked), initialised and shared by the rules by the caller's promise.
        let ring = unsafe { SplitRing::new(rings, event_idx) };
        let parts = Parts {
            facts: shared.facts.clone(),
            regions: shared.regions.clone(),
            call,
            counters: counters.clone(),
            broken: shared.broken.clone(),
        };
        shared.gates.put(index, Queue::new(ring, parts));
        self.nudge();
        Ok(())
    }

    /// Lets the installed queues be worked on.
    pub fn start(&self) {
        self.shared.gates.run(true);
        self.nudge();
    }

    /// Asks whoever works on the queues to let go. To be followed by [`Device::try_quiesce`].
    pub fn halt(&self) {
        self.shared.gates.run(false);
        self.nudge();
    }

    /// After [`Device::halt`]: takes the queues away and forgets them. True: nobody touches the driver's memory any
    /// more, and what was stored before is visible to the caller. False: a thread still holds a queue; ask again.
    pub fn try_quiesce(&self) -> bool {
        if !self.shared.gates.take_all() {
            return false;
        }
        self.shared.installed.store(0, Ordering::Release);
        self.shared.broken.store(false, Ordering::Release);
        true
    }

    /// Notes a doorbell, and wakes the queue's thread if it is one that sleeps.
    pub(super) fn ring(&self, index: usize) {
        if let Some(counters) = self.shared.counters.get(index) {
            counters.note_notification();
        }
        if let Some(kick) = self.shared.kicks.get(index) {
            signal(kick);
        }
    }

    /// The eventfd behind a vector, `None` for one that there is not.
    pub(super) fn call(&self, vector: u16) -> Option<Arc<OwnedFd>> {
        self.shared.calls.get(usize::from(vector)).cloned()
    }

    /// Whether the device knows a driver's queue.
    pub fn is_driven(&self) -> bool {
        self.shared.installed.load(Ordering::Acquire) != 0
    }
}
