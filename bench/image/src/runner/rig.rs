//! A device brought up with the queues that a run asks for: the driver's own bring-up, whoever drives the rings then.
//!
//! `M` is a queue's memory before the device runs: the driver's [`Prepared`], or the bare ring's. Everything lives as
//! long as the machine.
use super::fleet::Crew;
use super::handover::{Handover, hand_over};
use super::platform::Nucleus;
use super::raw::RawMemory;
use super::say;
use crate::Machine;
use crate::cpu::CpuId;
use crate::irq::Capability;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use core::mem::MaybeUninit;
use drv_virtio_block::arena::Arena;
use drv_virtio_block::device::{Offline, Running, Wishes};
use drv_virtio_block::dma::{Buffer, DmaRegion};
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::{CompletionMode, InterruptGrant, Rung};
use drv_virtio_block::platform::Badges;
use drv_virtio_block::queue::{Chaining, Prepared, QueueOptions};
use drv_virtio_block::spec::{Features, feature};
use drv_virtio_block::transport::pci::{PciDoorbell, PciTransport};
use drv_virtio_block::transport::{QueueId, RingAddresses};
use workload::params::{Indirect, Mode, Params};
use workload::report::{Boot, Line, Note, VERSION};

/// Ring memory per queue: enough for 1024 descriptors, their slots and tables.
const DMA_PER_QUEUE: usize = 512 << 10;
/// Private memory per queue.
const PRIVATE_PER_QUEUE: usize = 512 << 10;

/// What a queue's memory must offer to be brought up.
pub trait Memory: Sized {
    /// Lays a ring of `size` out.
    fn new(size: u16, params: &Params, disk: &'static Geometry, room: &mut Room) -> Result<Self, String>;
    /// Where the device finds it.
    fn addresses(&self) -> RingAddresses;
    /// Requests that can be in flight.
    fn slots(&self) -> u16;
}

/// Where queues take their memory from.
pub struct Room {
    pub dma: DmaRegion<'static>,
    pub arena: Arena<'static>,
}

/// A running device and its queues.
pub struct Rig<M> {
    pub device: Running<'static, PciTransport<'static>>,
    pub interrupts: &'static [Capability],
    pub queues: Vec<(QueueId, M)>,
    /// What it was brought up with, to be used again after a reset.
    pub wishes: Wishes,
    /// See `wishes`.
    pub grants: Vec<InterruptGrant>,
    slots: u16,
    queue_size: u16,
}

impl<M: Memory> Rig<M> {
    /// Brings the first block device up.
    pub fn new(machine: &Machine, params: &Params, crew: &Crew) -> Result<Self, String> {
        let function = machine.pci.functions().into_iter().find(|f| f.is_virtio_block());
        let function = machine.pci.block_function(function.ok_or("there is no virtio block device")?);
        let function = function.map_err(|why| format!("the block device {why}"))?;
        let queues = usize::from(crew.queues.max(1));
        let targets = targets(params, crew);
        let Handover { authority, interrupts } = hand_over(&function, &targets, DMA_PER_QUEUE * queues)?;
        let private = vec![MaybeUninit::uninit(); PRIVATE_PER_QUEUE * queues].leak();
        let mut room = Room { dma: authority.dma, arena: Arena::new(private) };
        let platform = Nucleus { interrupts };
        let place = Box::leak(Box::new(None));
        let transport = PciTransport::new(authority.windows);
        let (wishes, grants) = (wishes(params, crew), authority.interrupts.to_vec());
        let mut device = Offline::new(transport)
            .negotiate(&platform, &wishes, &grants, place)
            .map_err(|failed| failed.to_string())?;
        let disk = device.geometry();
        let mut memories = Vec::new();
        for (queue, size) in device.queues() {
            let memory = M::new(size, params, disk, &mut room)?;
            device = device.program(queue, &memory.addresses()).map_err(|failed| failed.to_string())?;
            memories.push((queue, memory));
        }
        let slots = memories.iter().map(|(_, memory)| memory.slots()).min().unwrap_or(0);
        let queue_size = memories.first().map_or(0, |(_, memory)| memory.addresses().size());
        let device = device.start().map_err(|failed| failed.to_string())?;
        let in_flight = in_flight_per_queue(params, memories.len());
        if in_flight > slots.into() {
            return Err(format!(
                "{in_flight} requests per queue exceed its {slots} slots: lower iodepth, or raise queue-size"
            ));
        }
        Ok(Self { device, interrupts, queues: memories, wishes, grants, slots, queue_size })
    }

    /// What was reached.
    pub fn boot(&self) -> Boot {
        let (reached, disk) = (self.device.reached(), self.device.geometry());
        let rung = match reached.rung {
            Rung::PerQueue => "vector-per-queue",
            Rung::Shared => "shared",
            Rung::Single => "single",
            Rung::None => "none",
        };
        Boot {
            version: VERSION,
            capacity: disk.capacity(),
            queues: reached.queues,
            queue_size: self.queue_size,
            slots: self.slots,
            vectors: reached.vectors,
            rung: ArrayString::from(rung).unwrap_or_default(),
            features: disk.features.0,
            read_only: disk.read_only,
            writeback: disk.writeback,
        }
    }

    /// A queue's doorbell.
    pub fn doorbell(&mut self, queue: QueueId) -> Result<PciDoorbell<'static>, String> {
        self.device.doorbell(queue).map_err(|e| e.to_string())
    }

    /// What pieces of buffers may be multiples of: anything a device may be given where chains hold many pieces, whole
    /// sectors where a request may have to be cut at every piece.
    pub fn grain(&self) -> u32 {
        let many = self.device.geometry().features.has(feature::INDIRECT_DESC) && self.queue_size >= 16;
        if many { 16 } else { 512 }
    }

    /// Looks at the configuration, as its interrupt asks for; says what changed, and whether the interrupt was seen.
    pub fn service_configuration(&mut self, taken: u64) -> Result<(), String> {
        let seen = self.device.vectors().configuration_in(Badges(taken));
        let change = self.device.service_configuration().map_err(|e| e.to_string())?;
        if change.needs_reset {
            return Err("the device asks for a reset".to_string());
        }
        if let Some((old, new)) = change.capacity {
            let how = if seen { "by interrupt" } else { "by looking" };
            say(&Line::Note(Note::new(format_args!("capacity changed from {old} to {new} sectors, noticed {how}"))));
        }
        Ok(())
    }

    /// Interrupts of the queues so far, and how many of them came to the processor that `home` gives for a queue.
    pub fn interrupts(&self, home: impl Fn(usize) -> CpuId) -> (u64, u64) {
        let plan = self.device.vectors();
        let mut seen = 0;
        let mut sums = (0, 0);
        for at in 0..self.device.reached().queues {
            let Some(grant) = plan.queue(QueueId(at)) else { continue };
            let interrupt = self.interrupts.iter().find(|i| i.index() == grant.vector);
            // A shared vector is counted once.
            if let Some(interrupt) = interrupt.filter(|i| seen & i.badge() == 0) {
                seen |= interrupt.badge();
                sums.0 += interrupt.arrivals();
                sums.1 += interrupt.arrivals_on(home(at.into()));
            }
        }
        sums
    }
}

/// The processor of each interrupt capability: the configuration's first, then the queues'.
fn targets(params: &Params, crew: &Crew) -> Vec<CpuId> {
    let queues = usize::from(params.vectors).saturating_sub(1);
    let single = params.vectors == 1;
    let first = if single { crew.target(0) } else { CpuId::BOOT };
    let all = core::iter::once(first).chain((0..queues).map(|queue| crew.target(queue)));
    all.take(params.vectors.into()).collect()
}

fn wishes(params: &Params, crew: &Crew) -> Wishes {
    let mut features = Features::IMPLEMENTED;
    if !params.event_idx {
        features = features.without(feature::EVENT_IDX);
    }
    if params.indirect == Indirect::Off {
        features = features.without(feature::INDIRECT_DESC);
    }
    let mode = match params.mode {
        Mode::Polled => CompletionMode::Polled,
        Mode::Interrupt => CompletionMode::Interrupt,
    };
    let queue_size = if params.queue_size == 0 { 1024 } else { params.queue_size };
    Wishes { queues: crew.queues, queue_size, features, mode, ..Wishes::default() }
}

fn in_flight_per_queue(params: &Params, queues: usize) -> usize {
    if params.icount {
        return params.iodepth_batch_submit.into();
    }
    usize::from(params.iodepth) * usize::from(params.numjobs).div_ceil(queues.max(1))
}

impl<B: Buffer> Memory for Prepared<'static, B> {
    fn new(size: u16, params: &Params, disk: &'static Geometry, room: &mut Room) -> Result<Self, String> {
        let chaining = if params.indirect == Indirect::On { Chaining::Indirect } else { Chaining::Direct };
        let options = QueueOptions { size, chaining, large_tables: 4, large_segments: 16, ..QueueOptions::default() };
        Prepared::new(&options, disk, &mut room.dma, &mut room.arena).map_err(|e| e.to_string())
    }

    fn addresses(&self) -> RingAddresses {
        Prepared::addresses(self)
    }

    fn slots(&self) -> u16 {
        Prepared::slots(self)
    }
}

impl Memory for RawMemory {
    fn new(size: u16, params: &Params, _: &'static Geometry, _: &mut Room) -> Result<Self, String> {
        if !params.event_idx || params.indirect == Indirect::On {
            return Err("driver=raw uses event indices and direct chains only".to_string());
        }
        RawMemory::new(size).ok_or_else(|| "no memory for the bare ring".to_string())
    }

    fn addresses(&self) -> RingAddresses {
        RawMemory::addresses(self)
    }

    fn slots(&self) -> u16 {
        (RawMemory::addresses(self).size() / 3) & !3
    }
}
