//! A device brought up with the queues that a run asks for: the driver's own bring-up, whoever drives the rings then.
//!
//! `M` is a queue's memory before the device runs: the driver's [`Prepared`], or the bare ring's. Everything lives as
//! long as the run.
use crate::crew::Crew;
use crate::fits;
use crate::ground::{Ground, Handed, Piece};
use crate::raw::{RawMemory, Shape};
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
use drv_virtio_block::transport::{QueueId, RingAddresses, Transport};
use workload::params::{Indirect, Mode, Params, Via};
use workload::report::{Boot, Line, Note, VERSION};

/// Ring memory per queue: enough for 1024 descriptors, their slots and tables.
const DMA_PER_QUEUE: usize = 512 << 10;
/// Private memory per queue.
const PRIVATE_PER_QUEUE: usize = 512 << 10;

/// What a queue's memory must offer to be brought up.
pub trait Memory: Sized {
    /// Lays a ring of `size` out.
    ///
    /// # Errors
    /// When it does not fit, or the parameters ask for what it cannot do.
    fn new(size: u16, params: &Params, disk: &'static Geometry, room: &mut Room<'_>) -> Result<Self, String>;
    /// Where the device finds it.
    fn addresses(&self) -> RingAddresses;
    /// Requests that can be in flight.
    fn slots(&self) -> u16;
}

/// Where queues take their memory from.
pub struct Room<'r> {
    dma: DmaRegion<'static>,
    arena: Arena<'static>,
    /// For what is not carved from the two above.
    more: &'r dyn Fn(usize) -> Option<Piece>,
}

/// A running device and its queues.
pub struct Rig<G: Ground, M> {
    /// The device.
    pub device: Running<'static, G::Transport>,
    /// Memory of its queues, until they are made.
    pub queues: Vec<(QueueId, M)>,
    /// What it was brought up with, to be used again after a reset.
    pub wishes: Wishes,
    /// See `wishes`.
    pub grants: Vec<InterruptGrant>,
    slots: u16,
    queue_size: u16,
}

/// The doorbell of a ground's transport.
pub type DoorbellOf<G> = <<G as Ground>::Transport as Transport>::Doorbell;

impl<G: Ground, M: Memory> Rig<G, M> {
    /// Brings the ground's device up, says what was reached, and sets the bound for the run.
    ///
    /// # Errors
    /// When it cannot be had, does not come up, or has fewer slots than the run needs.
    pub fn up(ground: &mut G, params: &Params, crew: Crew) -> Result<Self, String> {
        let rig = Self::new(ground, params, crew)?;
        ground.say(&Line::Boot(rig.boot()));
        rig.note_features(ground);
        fits::check(params, &rig.device.geometry().into())?;
        ground.bound(crate::bound(params));
        Ok(rig)
    }

    fn new(ground: &mut G, params: &Params, crew: Crew) -> Result<Self, String> {
        let queues = usize::from(crew.queues.max(1));
        let Handed { transport, grants, dma } = ground.hand_over(params, crew, DMA_PER_QUEUE * queues)?;
        let private = vec![MaybeUninit::uninit(); PRIVATE_PER_QUEUE * queues].leak();
        let wishes = wishes(params, crew);
        let mut device = Offline::new(transport)
            .negotiate(&ground.platform(), &wishes, &grants, Box::leak(Box::new(None)))
            .map_err(|failed| failed.to_string())?;
        ground.lead_interrupts(crew, device.vectors());
        let more = |bytes| ground.dma(bytes);
        let mut room = Room { dma, arena: Arena::new(private), more: &more };
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
        Ok(Self { device, queues: memories, wishes, grants, slots, queue_size })
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

    /// Says which features are other than what was asked for or offered.
    fn note_features(&self, ground: &G) {
        let reached = self.device.reached();
        let none = Features::default();
        if reached.insisted != none {
            let insisted = reached.insisted;
            ground.say(&Line::Note(Note::new(format_args!("the device insists on {insisted}, which was left out"))));
        }
        if reached.unusable != none {
            let unusable = reached.unusable;
            let why = "its limits allow no request, so it counts as not offered";
            ground.say(&Line::Note(Note::new(format_args!("the device offers {unusable}, and {why}"))));
        }
    }

    /// The queues' memory, each with its doorbell.
    ///
    /// # Errors
    /// When the device cannot be reached.
    pub fn open(&mut self) -> Result<Vec<(M, DoorbellOf<G>)>, String> {
        let memories = core::mem::take(&mut self.queues);
        let with_bell = |(queue, memory)| Ok((memory, self.device.doorbell(queue).map_err(|e| e.to_string())?));
        memories.into_iter().map(with_bell).collect()
    }

    /// What pieces of buffers may be multiples of: anything a device may be given where chains hold many pieces, whole
    /// blocks where a request may have to be cut at every piece.
    pub fn grain(&self) -> u32 {
        let many = self.device.geometry().features.has(feature::INDIRECT_DESC) && self.queue_size >= 16;
        if many { 16 } else { self.device.geometry().block_size.max(512) }
    }

    /// Looks at the configuration, as its interrupt asks for; says what changed, and whether the interrupt was seen.
    ///
    /// # Errors
    /// When the device needs a reset or cannot be reached.
    pub fn service_configuration(&mut self, ground: &G, taken: Badges) -> Result<(), String> {
        let seen = self.device.vectors().configuration_in(taken);
        let change = self.device.service_configuration().map_err(|e| e.to_string())?;
        if change.needs_reset {
            return Err("the device asks for a reset".to_string());
        }
        if let Some((old, new)) = change.capacity {
            let how = if seen { "by interrupt" } else { "by looking" };
            let text = format_args!("capacity changed from {old} to {new} sectors, noticed {how}");
            ground.say(&Line::Note(Note::new(text)));
        }
        Ok(())
    }
}

fn wishes(params: &Params, crew: Crew) -> Wishes {
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
    if params.via == Via::Blockd {
        // Front ends take what there is room for.
        return 1;
    }
    usize::from(params.iodepth) * usize::from(params.numjobs).div_ceil(queues.max(1))
}

impl<B: Buffer> Memory for Prepared<'static, B> {
    fn new(size: u16, params: &Params, disk: &'static Geometry, room: &mut Room<'_>) -> Result<Self, String> {
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
    fn new(size: u16, params: &Params, _: &'static Geometry, room: &mut Room<'_>) -> Result<Self, String> {
        if !params.event_idx {
            return Err("driver=raw uses event indices: leave event_idx=off out".to_string());
        }
        let shape = Shape::new(size, params.layout, params.indirect == Indirect::On);
        let memory = (room.more)(shape.bytes());
        memory.and_then(|memory| RawMemory::new(shape, memory)).ok_or_else(|| "no memory for the bare ring".to_string())
    }

    fn addresses(&self) -> RingAddresses {
        RawMemory::addresses(self)
    }

    fn slots(&self) -> u16 {
        self.chains()
    }
}
