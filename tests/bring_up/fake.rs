//! A device that records every access in order, and misbehaves on demand; a clock that moves only when it is looked at.
use drv_virtio_block::device::{BringUpError, Failed, Negotiated, Offline, Running, Unsettled, Wishes};
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::interrupt::InterruptGrant;
use drv_virtio_block::platform::{Badge, Badges, Nanos, Platform};
use drv_virtio_block::spec::{Features, NO_VECTOR, config, status};
use drv_virtio_block::transport::{Doorbell, QueueId, RingAddresses, Transport, TransportError};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// One access, as the device saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadStatus,
    Status(u8),
    Offered,
    Accept(u64),
    Queues,
    MaxSize(u16),
    QueueVector(u16, u16),
    ConfigVector(u16),
    Program(u16),
    Enable(u16),
    Doorbell(u16),
    Generation,
    Config(u32, u32),
    SetConfig(u32, u8),
    Isr,
    Ring(u16),
}

/// Called with every access before it takes effect.
type Hook = Box<dyn FnMut(&mut Registers, Access) + Send>;

/// The device's state. Tests write to it what the device is to be.
pub(crate) struct Registers {
    pub(crate) log: Vec<Access>,
    pub(crate) status: u8,
    pub(crate) offered: u64,
    pub(crate) refuses_features: bool,
    /// Features without all of which it refuses the others.
    pub(crate) insists_on: u64,
    accepted: u64,
    /// Status reads that a reset takes; `None`: it never ends.
    pub(crate) reset_takes: Option<u32>,
    resetting: u32,
    pub(crate) config: Vec<u8>,
    pub(crate) generation: u32,
    pub(crate) sizes: Vec<u16>,
    /// Vectors that can be in use at once.
    pub(crate) vectors: usize,
    /// Events that can have a vector at once.
    pub(crate) events: usize,
    /// What a vector reads back as, if not as it should.
    pub(crate) vector_reads: Option<u16>,
    pub(crate) mapped: BTreeMap<Option<u16>, u16>,
    pub(crate) programmed: BTreeMap<u16, RingAddresses>,
    /// Accesses from this one on fail.
    pub(crate) gone_at: Option<usize>,
    pub(crate) hook: Option<Hook>,
}

impl Registers {
    pub(crate) fn poke(&mut self, offset: u32, bytes: &[u8]) {
        self.config[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn set_capacity(&mut self, sectors: u64) {
        self.poke(config::CAPACITY, &sectors.to_le_bytes());
    }

    fn access(&mut self, access: Access) -> Result<(), TransportError> {
        if let Some(mut hook) = self.hook.take() {
            hook(self, access);
            self.hook.get_or_insert(hook);
        }
        self.log.push(access);
        if self.gone_at.is_some_and(|n| self.log.len() > n) { Err(TransportError::Gone) } else { Ok(()) }
    }

    fn field<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], TransportError> {
        self.access(Access::Config(offset, N as u32))?;
        let bytes = self.config.get(offset as usize..offset as usize + N);
        bytes.map(|b| b.try_into().unwrap()).ok_or(TransportError::NoSuchField { offset })
    }

    fn map(&mut self, event: Option<u16>, vector: u16) -> u16 {
        self.mapped.remove(&event);
        let used: BTreeSet<u16> = self.mapped.values().copied().chain([vector]).collect();
        if vector == NO_VECTOR || used.len() > self.vectors || self.mapped.len() >= self.events {
            return NO_VECTOR;
        }
        self.mapped.insert(event, vector);
        self.vector_reads.unwrap_or(vector)
    }
}

/// The device, shared between the test and the driver.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<Registers>>);

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

/// What every test's device starts from: all that is implemented, four queues of 256, 4 GiB.
pub(crate) fn device() -> Fake {
    let mut registers = Registers {
        log: Vec::new(),
        status: status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK,
        offered: Features::IMPLEMENTED.0,
        refuses_features: false,
        insists_on: 0,
        accepted: 0,
        reset_takes: Some(0),
        resetting: 0,
        config: vec![0; config::LEN as usize],
        generation: 7,
        sizes: vec![256; 4],
        vectors: 64,
        events: 64,
        vector_reads: None,
        mapped: BTreeMap::new(),
        programmed: BTreeMap::new(),
        gone_at: None,
        hook: None,
    };
    registers.set_capacity(8 << 20);
    registers.poke(config::BLK_SIZE, &512_u32.to_le_bytes());
    registers.poke(config::SEG_MAX, &126_u32.to_le_bytes());
    registers.poke(config::NUM_QUEUES, &4_u16.to_le_bytes());
    registers.poke(config::MAX_DISCARD_SECTORS, &4096_u32.to_le_bytes());
    registers.poke(config::MAX_WRITE_ZEROES_SECTORS, &4096_u32.to_le_bytes());
    registers.poke(config::MAX_DISCARD_SEG, &1_u32.to_le_bytes());
    registers.poke(config::MAX_WRITE_ZEROES_SEG, &1_u32.to_le_bytes());
    Fake(Arc::new(Mutex::new(registers)))
}

impl Fake {
    pub(crate) fn registers(&self) -> MutexGuard<'_, Registers> {
        self.0.lock().unwrap()
    }

    /// The device with something about it changed.
    pub(crate) fn with(self, change: impl FnOnce(&mut Registers)) -> Self {
        change(&mut self.registers());
        self
    }

    pub(crate) fn log(&self) -> Vec<Access> {
        self.registers().log.clone()
    }

    /// Everything that was written, reads left out.
    pub(crate) fn writes(&self) -> Vec<Access> {
        use Access::{Accept, ConfigVector, Enable, Program, QueueVector, Ring, SetConfig, Status};
        let is_write = |access: &Access| {
            matches!(
                access,
                Status(_)
                    | Accept(_)
                    | QueueVector(..)
                    | ConfigVector(_)
                    | Program(_)
                    | Enable(_)
                    | SetConfig(..)
                    | Ring(_)
            )
        };
        self.log().into_iter().filter(is_write).collect()
    }
}

pub(crate) struct Bell(Fake, u16);

impl Doorbell for Bell {
    fn ring(&self) {
        let _ = self.0.registers().access(Access::Ring(self.1));
    }
}

// SAFETY: there is no memory behind this device.
unsafe impl Transport for Fake {
    type Doorbell = Bell;

    fn status(&self) -> Result<u8, TransportError> {
        let mut r = self.registers();
        r.access(Access::ReadStatus)?;
        if r.resetting > 0 {
            r.resetting -= 1;
            return Ok(0x80);
        }
        Ok(r.status)
    }

    fn set_status(&mut self, value: u8) -> Result<(), TransportError> {
        let mut r = self.registers();
        r.access(Access::Status(value))?;
        r.status = value;
        if value == 0 {
            r.resetting = r.reset_takes.unwrap_or(u32::MAX);
            r.accepted = 0;
            r.mapped.clear();
            r.programmed.clear();
        }
        if r.refuses_features || r.accepted & r.insists_on != r.insists_on {
            r.status &= !status::FEATURES_OK;
        }
        Ok(())
    }

    fn device_features(&mut self) -> Result<Features, TransportError> {
        let mut r = self.registers();
        r.access(Access::Offered)?;
        Ok(Features(r.offered))
    }

    fn set_driver_features(&mut self, accepted: Features) -> Result<(), TransportError> {
        let mut r = self.registers();
        r.access(Access::Accept(accepted.0))?;
        r.accepted = accepted.0;
        Ok(())
    }

    fn num_queues(&self) -> Result<u16, TransportError> {
        let mut r = self.registers();
        r.access(Access::Queues)?;
        Ok(r.sizes.len() as u16)
    }

    fn queue_max_size(&mut self, queue: QueueId) -> Result<u16, TransportError> {
        let mut r = self.registers();
        r.access(Access::MaxSize(queue.0))?;
        Ok(r.sizes[queue.0 as usize])
    }

    fn set_queue_vector(&mut self, queue: QueueId, vector: u16) -> Result<u16, TransportError> {
        let mut r = self.registers();
        r.access(Access::QueueVector(queue.0, vector))?;
        Ok(r.map(Some(queue.0), vector))
    }

    fn set_config_vector(&mut self, vector: u16) -> Result<u16, TransportError> {
        let mut r = self.registers();
        r.access(Access::ConfigVector(vector))?;
        Ok(r.map(None, vector))
    }

    unsafe fn program_queue(&mut self, queue: QueueId, rings: &RingAddresses) -> Result<(), TransportError> {
        let mut r = self.registers();
        r.access(Access::Program(queue.0))?;
        r.programmed.insert(queue.0, *rings);
        Ok(())
    }

    fn enable_queue(&mut self, queue: QueueId) -> Result<(), TransportError> {
        self.registers().access(Access::Enable(queue.0))
    }

    fn doorbell(&mut self, queue: QueueId) -> Result<Bell, TransportError> {
        self.registers().access(Access::Doorbell(queue.0))?;
        Ok(Bell(self.clone(), queue.0))
    }

    fn config_generation(&self) -> Result<u32, TransportError> {
        let mut r = self.registers();
        r.access(Access::Generation)?;
        Ok(r.generation)
    }

    fn config_u8(&self, offset: u32) -> Result<u8, TransportError> {
        self.registers().field(offset).map(u8::from_le_bytes)
    }

    fn config_u16(&self, offset: u32) -> Result<u16, TransportError> {
        self.registers().field(offset).map(u16::from_le_bytes)
    }

    fn config_u32(&self, offset: u32) -> Result<u32, TransportError> {
        self.registers().field(offset).map(u32::from_le_bytes)
    }

    fn set_config_u8(&mut self, offset: u32, value: u8) -> Result<(), TransportError> {
        let mut r = self.registers();
        r.access(Access::SetConfig(offset, value))?;
        r.poke(offset, &[value]);
        Ok(())
    }

    fn take_interrupt_status(&mut self) -> Result<u8, TransportError> {
        self.registers().access(Access::Isr).map(|()| 0)
    }
}

/// A clock that goes on by a millisecond whenever it is looked at, and nothing else.
#[derive(Default)]
pub(crate) struct Clock {
    pub(crate) looks: Cell<u64>,
    pub(crate) relaxed: Cell<u64>,
}

impl Platform for Clock {
    fn now(&self) -> Nanos {
        self.looks.set(self.looks.get() + 1);
        Nanos::from_millis(self.looks.get())
    }

    fn relax(&self) {
        self.relaxed.set(self.relaxed.get() + 1);
    }

    fn wait(&self, _: Badges, _: Option<Nanos>) -> Badges {
        Badges::NONE
    }

    fn acknowledge(&self, _: Badges) {}
    fn mask(&self, _: Badges) {}
    fn unmask(&self, _: Badges) {}
}

/// `n` interrupt capabilities with vectors from 10 on.
pub(crate) fn grants(n: u8) -> Vec<InterruptGrant> {
    (0..n).map(|i| InterruptGrant { badge: Badge::new(i).unwrap(), vector: 10 + u16::from(i) }).collect()
}

pub(crate) fn rings(queue: QueueId, size: u16) -> RingAddresses {
    let base = 0x1_0000 * u64::from(queue.0 + 1);
    let at = |offset| DeviceAddress(base + offset);
    // SAFETY: there is no memory behind this device.
    unsafe { RingAddresses::new(size, at(0), at(0x4000), at(0x8000)) }
}

/// Four queues, interrupt-driven.
pub(crate) fn wishes() -> Wishes {
    Wishes { queues: 4, ..Wishes::default() }
}

/// Negotiates with five vectors.
pub(crate) fn negotiate<'g>(
    fake: &Fake,
    wishes: &Wishes,
    place: &'g mut Option<Geometry>,
) -> Result<Negotiated<'g, Fake>, Failed<Offline<Fake>>> {
    Offline::new(fake.clone()).negotiate(&Clock::default(), wishes, &grants(5), place)
}

pub(crate) fn program_all(
    mut device: Negotiated<'_, Fake>,
) -> Result<Negotiated<'_, Fake>, Failed<Unsettled<'_, Fake>>> {
    for (queue, size) in device.queues() {
        device = device.program(queue, &rings(queue, size))?;
    }
    Ok(device)
}

/// The whole way.
pub(crate) fn bring_up<'g>(
    fake: &Fake,
    wishes: &Wishes,
    place: &'g mut Option<Geometry>,
) -> Result<Running<'g, Fake>, BringUpError> {
    Ok(program_all(negotiate(fake, wishes, place)?)?.start()?)
}
