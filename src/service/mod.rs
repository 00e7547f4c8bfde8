//! The driver as a service: one device, its queues, their front ends, and the calls that reach it.
//!
//! ```text
//! procd, deviced -- envelope, window --> Service::new -- START --> bring-up, a front end per queue, ready stamp
//! blockd -- calls -------------------> Service::handle
//! clients -- rings, doorbells -------> Service::pass   -- nothing to do --> Service::wait
//! ```
//! One thread owns it and waits on one badge word: interrupts, the clients' doorbells, control. It knows no rings and
//! no requests; those are the front ends'. Whoever wants a thread per queue takes front ends and queues without it.
//!
//! **Lives.** procd may kill the driver at any instruction; nothing is written down. The next life resets the device
//! before it lays anything out (negotiation begins so), so that memory which the old one lent is free by then; blockd
//! opens the sessions again, over the same rings, with the memory that they had; the clients see the new epoch, know by
//! their rings which of their tags were answered, and ask the others again if they want to.
//!
//! **Trouble.** A device that breaks its queue, asks for a reset or does not answer within the envelope's patience is
//! reset: what it had is answered with [`Status::Reset`] (or [`Status::TimedOut`]), and the same sessions go on in the
//! same epoch. If the reset is not answered either, nothing is given back: until it is (START asks again), or the
//! driver's process and with it what was granted is gone, the device may still write. A platform or transport that
//! panics during START or a reset takes the device along: nothing serves then, and nothing is given back.
#![deny(unsafe_code)]
mod calls;
mod envelope;
mod error;
mod fresh;
mod identity;
mod patience;

pub use calls::Beside;
pub use envelope::{ENVELOPE_BYTES, Envelope, MAX_PATIENCE};
pub use error::ServiceError;

use crate::arena::Arena;
use crate::device::{Failed, Negotiated, Offline, Running, Stopped, Unsettled, Wishes};
use crate::dma::{DmaBlock, DmaRegion};
use crate::geometry::Geometry;
use crate::interrupt::{InterruptGrant, MAX_INTERRUPTS};
use crate::lib_block::Status;
use crate::lib_block::front_end::{FrontEnd, Lent, Notify, Options};
use crate::platform::{Nanos, Platform};
use crate::queue::{Prepared, QueueOptions};
use crate::transport::{MAX_QUEUES, QueueId, Transport};
use arrayvec::ArrayVec;
use core::mem;

/// What deviced prints once the driver is ready.
pub const READY_STAMP: &str = "ERIX_DEVICED:READY:DRV_VIRTIO_BLOCK";

/// What the driver was handed, checked ([`crate::startup`]), and its private memory.
pub struct Hardware<'m, T> {
    /// The registers.
    pub transport: T,
    /// The interrupts, the first for the configuration.
    pub interrupts: ArrayVec<InterruptGrant, MAX_INTERRUPTS>,
    /// For rings, headers and statuses. It may be an earlier life's: nothing is written before the device was reset.
    pub dma: DmaRegion<'m>,
    /// For tables, out of the device's reach.
    pub arena: Arena<'m>,
    /// For the device's facts.
    pub facts: &'m mut Option<Geometry>,
}

/// Where the device is.
#[expect(clippy::large_enum_variant, reason = "a service has one, which is moved at starts and resets only")]
enum Device<'m, T> {
    /// Never brought up; with the place for its facts, unless an attempt took that along.
    Offline(Offline<T>, Option<&'m mut Option<Geometry>>),
    Running(Running<'m, T>),
    /// Reset; whatever it had was given back.
    Stopped(Stopped<'m, T>),
    /// It did not answer a reset, or was not asked for one yet: nothing that it knows is reused.
    Unsettled(Unsettled<'m, T>),
    /// On its way from one to another.
    Nowhere,
}

type Front<'m, T, N> = FrontEnd<'m, <T as Transport>::Doorbell, N>;

/// See the module's text.
pub struct Service<'m, T: Transport, P, N> {
    envelope: Envelope,
    platform: P,
    notify: N,
    device: Device<'m, T>,
    interrupts: ArrayVec<InterruptGrant, MAX_INTERRUPTS>,
    dma: DmaRegion<'m>,
    arena: Arena<'m>,
    /// By queue. One has its queue while the device runs, and until a reset proves that it let go of it.
    fronts: ArrayVec<Front<'m, T, N>, { MAX_QUEUES as usize }>,
    /// The queues of a device that does not run.
    parked: ArrayVec<Prepared<'m, Lent<'m>>, { MAX_QUEUES as usize }>,
    /// Where the device is to write its name; taken when it was asked.
    identity: Option<DmaBlock<'m>>,
    /// Changes of capacity, and what it was last.
    generation: u32,
    capacity: Option<u64>,
    /// By queue: since when requests are there and none is answered.
    silence: [Option<Nanos>; MAX_QUEUES as usize],
    /// When the configuration was looked at last.
    looked: Nanos,
    resets: u64,
    /// Why the last attempt at going on failed.
    trouble: Option<ServiceError>,
}

impl<'m, T: Transport, P: Platform, N: Notify + Clone> Service<'m, T, P, N> {
    /// A driver that does nothing yet: the device is not touched before START. An envelope that was not decoded counts
    /// as the nearest one that could have been, but for the size of the queues, which START refuses.
    pub fn new(hardware: Hardware<'m, T>, envelope: Envelope, platform: P, notify: N) -> Self {
        let Hardware { transport, interrupts, dma, arena, facts } = hardware;
        Self {
            envelope: envelope.bounded(),
            platform,
            notify,
            device: Device::Offline(Offline::new(transport), Some(facts)),
            interrupts,
            dma,
            arena,
            fronts: ArrayVec::new(),
            parked: ArrayVec::new(),
            identity: None,
            generation: 0,
            capacity: None,
            silence: [None; MAX_QUEUES as usize],
            looked: Nanos(0),
            resets: 0,
            trouble: None,
        }
    }

    fn wishes(&self) -> Wishes {
        let Envelope { queues, queue_size, mode, patience, .. } = self.envelope;
        Wishes { queues, queue_size, mode, patience, ..Wishes::default() }
    }

    /// Resets the device, brings it up, and is ready to serve: [`READY_STAMP`] may be printed.
    ///
    /// # Errors
    /// Why not: [`ServiceError::State`] when it serves already. After anything else it can be tried again, as far as
    /// there is memory; a device that did not answer a reset is asked for it again first.
    pub fn start(&mut self) -> Result<(), ServiceError> {
        match mem::replace(&mut self.device, Device::Nowhere) {
            Device::Offline(offline, facts) => self.first_start(offline, facts)?,
            Device::Stopped(stopped) => {
                self.device = Device::Stopped(stopped);
                self.take_back();
                self.start_again()?;
            }
            Device::Unsettled(unsettled) => {
                self.device = Device::Unsettled(unsettled);
                self.halt()?;
                return self.start();
            }
            other => {
                self.device = other;
                return Err(ServiceError::State);
            }
        }
        self.ask_identity();
        // Asked for its name, it may have shown that it does not answer.
        if self.is_serving() { Ok(()) } else { Err(self.trouble.unwrap_or(ServiceError::State)) }
    }

    fn first_start(
        &mut self,
        offline: Offline<T>,
        facts: Option<&'m mut Option<Geometry>>,
    ) -> Result<(), ServiceError> {
        let place = match facts.map_or_else(|| self.arena.place(1, |_| None), |facts| Ok(core::slice::from_mut(facts)))
        {
            Ok([place]) => place,
            Ok(_) => return Err(ServiceError::State),
            Err(why) => {
                self.device = Device::Offline(offline, None);
                return Err(ServiceError::Arena(why));
            }
        };
        let wishes = self.wishes();
        let device = match offline.negotiate(&self.platform, &wishes, &self.interrupts, place) {
            Ok(device) => device,
            Err(Failed { why, device }) => {
                self.device = Device::Offline(device, None);
                return Err(why.into());
            }
        };
        // The device was reset: what an earlier life laid out is nobody's, and is not to be taken for ours.
        fresh::clear(&mut self.dma);
        self.identity = identity::place(&mut self.dma);
        self.run(device)
    }

    fn start_again(&mut self) -> Result<(), ServiceError> {
        let wishes = self.wishes();
        let stopped = match mem::replace(&mut self.device, Device::Nowhere) {
            Device::Stopped(stopped) => stopped,
            other => {
                self.device = other;
                return Err(ServiceError::State);
            }
        };
        match stopped.negotiate(&self.platform, &wishes, &self.interrupts) {
            Ok(device) => self.run(device),
            Err(failed) => Err(self.unsettled(failed)),
        }
    }

    /// From features that were agreed on to front ends that serve.
    fn run(&mut self, device: Negotiated<'m, T>) -> Result<(), ServiceError> {
        let device = self.lay_out(device)?;
        let device = self.program(device).map_err(|failed| self.unsettled(failed))?;
        let mut running = device.start().map_err(|failed| self.unsettled(failed))?;
        let mut doorbells = ArrayVec::<_, { MAX_QUEUES as usize }>::new();
        for queue in (0..running.vectors().queues()).map(QueueId) {
            match running.doorbell(queue) {
                Ok(doorbell) => doorbells.push(doorbell),
                Err(why) => {
                    self.device = Device::Running(running);
                    // Whether that works, the state says.
                    let _ = self.halt();
                    return Err(ServiceError::BringUp(why.into()));
                }
            }
        }
        self.note_capacity(running.geometry().capacity());
        self.device = Device::Running(running);
        self.silence = [None; MAX_QUEUES as usize];
        self.looked = self.platform.now();
        self.furnish(doorbells).inspect_err(|_| {
            let _ = self.halt();
        })
    }

    /// Lays out the queues that are not there yet: all of them, unless the device ran before.
    fn lay_out(&mut self, device: Negotiated<'m, T>) -> Result<Negotiated<'m, T>, ServiceError> {
        for (_, size) in device.queues().skip(self.parked.len()) {
            let options = QueueOptions { size, large_tables: 4, large_segments: 16, ..QueueOptions::default() };
            match Prepared::new(&options, device.geometry(), &mut self.dma, &mut self.arena) {
                Ok(queue) => self.parked.push(queue),
                Err(why) => {
                    self.device = Device::Unsettled(device.abandon());
                    return Err(ServiceError::Prepare(why));
                }
            }
        }
        Ok(device)
    }

    fn program(&self, mut device: Negotiated<'m, T>) -> Result<Negotiated<'m, T>, Failed<Unsettled<'m, T>>> {
        for (queue, prepared) in (0..).map(QueueId).zip(&self.parked) {
            device = device.program(queue, &prepared.addresses())?;
        }
        Ok(device)
    }

    /// Gives every queue to its front end, which is made if it is not there yet.
    fn furnish(&mut self, doorbells: ArrayVec<T::Doorbell, { MAX_QUEUES as usize }>) -> Result<(), ServiceError> {
        let Envelope { sessions, credit, epoch, .. } = self.envelope;
        for ((queue, prepared), doorbell) in (0..).zip(mem::take(&mut self.parked)).zip(doorbells) {
            let options = Options { queue, sessions, credit, ..Options::default() };
            if let Some(front) = self.fronts.get_mut(usize::from(queue)) {
                // Each has none, and they are of the service's only device.
                front.resume(prepared, doorbell).map_err(|_| ServiceError::State)?;
                continue;
            }
            let front = FrontEnd::new(prepared, doorbell, self.notify.clone(), &mut self.arena, options, epoch);
            let mut front = front.map_err(ServiceError::Arena)?;
            front.describe(self.generation);
            self.fronts.push(front);
        }
        Ok(())
    }

    fn unsettled(&mut self, failed: Failed<Unsettled<'m, T>>) -> ServiceError {
        self.device = Device::Unsettled(failed.device);
        failed.why.into()
    }

    /// Whether the device runs.
    pub fn is_serving(&self) -> bool {
        matches!(self.device, Device::Running(_))
    }

    /// One pass over every front end, without waiting; how many requests were answered.
    ///
    /// While the device does not run nothing is taken from clients. What is theirs is posted, unless the device may
    /// still have it.
    pub fn pass(&mut self) -> usize {
        let clock = || self.platform.now();
        let serving = self.is_serving();
        let mut completed = 0;
        for (front, silence) in self.fronts.iter_mut().zip(&mut self.silence) {
            if !serving && front.queue().is_some() {
                continue;
            }
            let answers = front.serve(&clock).completed;
            if answers > 0 {
                *silence = None;
            }
            completed += answers;
        }
        if serving && self.fronts.iter().any(FrontEnd::is_broken) {
            // Why it failed, if it does, is in the state: nothing serves then.
            let _ = self.recover();
        }
        completed
    }

    /// Resets the device, answers what it had, and goes on.
    ///
    /// # Errors
    /// When it cannot be reset or brought up again: nothing serves then. [`ServiceError::State`] when it does not run
    /// anyway.
    pub fn recover(&mut self) -> Result<(), ServiceError> {
        let outcome = self.halt().and_then(|()| {
            self.resets += 1;
            self.start()
        });
        self.trouble = outcome.err();
        outcome
    }

    /// Resets the device, takes everything back from it and tells the clients.
    fn halt(&mut self) -> Result<(), ServiceError> {
        let stopped = match mem::replace(&mut self.device, Device::Nowhere) {
            Device::Running(running) => running.reset(&self.platform),
            Device::Unsettled(unsettled) => unsettled.quiesce(&self.platform),
            other => {
                self.device = other;
                return Err(ServiceError::State);
            }
        };
        let stopped = stopped.map_err(|failed| self.unsettled(failed))?;
        // Before anybody is told: a doorbell that panics leaves a device that is known to be stopped.
        self.device = Device::Stopped(stopped);
        self.take_back();
        Ok(())
    }

    /// Takes back what a stopped device has, as far as that was not done yet, and tells the clients.
    fn take_back(&mut self) {
        let Device::Stopped(stopped) = &self.device else { return };
        let clock = || self.platform.now();
        for front in &mut self.fronts {
            if let Some(prepared) = front.reclaim(&stopped.proof(), &clock) {
                self.parked.push(prepared);
            }
            // Without a queue this posts, and takes nothing.
            front.serve(&clock);
        }
    }

    /// Stops in order: sessions end with all of their answers, the cache is flushed if asked, the device is reset.
    /// START brings it back.
    ///
    /// # Errors
    /// [`ServiceError::State`] when it does not serve; [`ServiceError::Flush`] when it stopped, but the cache could not
    /// be flushed; why the device could not be reset: it may have requests then, and their sessions are open.
    pub fn stop(&mut self, flush: bool) -> Result<(), ServiceError> {
        if !self.is_serving() {
            return Err(ServiceError::State);
        }
        self.fronts.iter_mut().for_each(FrontEnd::wind_up);
        self.serve_until(|service| (!service.fronts.iter().any(FrontEnd::is_busy)).then_some(()));
        let flushed = if flush { self.flush() } else { Status::Ok };
        if !matches!(self.device, Device::Stopped(_)) {
            self.halt()?;
        }
        if flushed.is_ok() { Ok(()) } else { Err(ServiceError::Flush(flushed)) }
    }

    /// A FLUSH of the driver's own.
    fn flush(&mut self) -> Status {
        let begun = self.is_serving() && self.fronts.first_mut().is_some_and(FrontEnd::begin_flush);
        let outcome = begun.then(|| self.serve_until(|service| service.fronts.first_mut()?.own_outcome())).flatten();
        outcome.unwrap_or(Status::Gone)
    }

    /// The front ends, one per queue, to look at.
    pub fn fronts(&self) -> &[Front<'m, T, N>] {
        &self.fronts
    }

    /// How often the device was reset for its own sake.
    pub fn resets(&self) -> u64 {
        self.resets
    }
}
