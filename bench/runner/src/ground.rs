//! What a run stands on: memory, processors, waiting and one device, as the image or a Linux process has them.
//!
//! Everything here lives as long as the run does, which is as long as the machine or the process: nothing is given back.
use crate::crew::Crew;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ptr::NonNull;
use drv_virtio_block::dma::{DeviceAddress, DmaRegion};
use drv_virtio_block::interrupt::{InterruptGrant, VectorPlan};
use drv_virtio_block::platform::{Badges, Platform};
use drv_virtio_block::queue::Wake;
use drv_virtio_block::transport::Transport;
use workload::params::Params;
use workload::report::Line;

/// A job's clock, and its way of waiting.
pub trait Host {
    /// Nanoseconds, monotonic.
    fn now_ns(&self) -> u64;

    /// Halts until the queue's interrupt came, acknowledges it, and counts it.
    fn wait(&mut self);

    /// Lets a device that has no thread of its own do what there is to do.
    #[inline(always)]
    fn step(&mut self) {}

    /// Whether the device can no longer be reached; asked while nothing completes.
    #[inline(always)]
    fn lost(&mut self) -> bool {
        false
    }

    /// Instructions so far, where the machine counts them.
    #[inline(always)]
    fn ticks() -> u64 {
        0
    }
}

/// Zeroed memory that the device may touch, at one address for both sides, never given back.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    base: NonNull<u8>,
    len: usize,
}

impl Piece {
    /// Memory from `base` on.
    ///
    /// # Safety
    /// The memory is as [`Piece`] says, at least page-aligned, and used through this value alone.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// Its address, for the processor and for the device.
    pub fn address(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As memory for rings.
    pub fn into_region(self) -> DmaRegion<'static> {
        // SAFETY: by the contract of `new`: initialised, mapped for the device at its own address, this value's alone,
        // and never freed.
        unsafe { DmaRegion::new(self.base, DeviceAddress(self.address()), self.len) }
    }
}

/// A device as it was handed over.
pub struct Handed<T> {
    /// Its registers.
    pub transport: T,
    /// Its interrupts.
    pub grants: Vec<InterruptGrant>,
    /// Memory for its rings.
    pub dma: DmaRegion<'static>,
}

/// Why a native run kills nobody.
const IMMORTAL: &str = "a thread of a process cannot be killed at any instruction: give --backend=qemu";

/// Work under way on a processor of its own, while whoever began it does something else.
pub trait Begun<R> {
    /// Whether it ended, in whatever way.
    fn is_over(&self) -> bool;

    /// Waits for its end; what it returned, or nothing if it was killed.
    fn outcome(self: Box<Self>) -> Option<R>;

    /// Ends it at whatever instruction it is, its stack abandoned, and waits until it takes no other; what it returned
    /// if that was first.
    fn kill(self: Box<Self>) -> Option<R>;
}

/// What [`Ground::begin`] gives.
pub type Beginning<R> = Result<Box<dyn Begun<R>>, String>;

/// See the module's text.
pub trait Ground {
    /// How the device is reached.
    type Transport: Transport<Doorbell: 'static> + Send + 'static;
    /// The clock and the interrupts of the thread that runs the run, or of the one that it is given to.
    type Platform: Platform + Send + 'static;
    /// See [`Host`].
    type Host: Host + Send + 'static;
    /// Wakes the submitters of one queue.
    type Wake: Wake + 'static;

    /// Gives every job of the crew a processor.
    ///
    /// # Errors
    /// When there are not enough.
    fn seats(&mut self, crew: Crew) -> Result<(), String>;

    /// The device, with `dma_len` bytes for its rings.
    ///
    /// # Errors
    /// When there is none, or it cannot be handed over.
    fn hand_over(&mut self, params: &Params, crew: Crew, dma_len: usize) -> Result<Handed<Self::Transport>, String>;

    /// Leads every interrupt of the plan that was reached to the jobs that wait for it ([`Crew::waiting`]). Called once,
    /// when the device is negotiated and before it starts.
    fn lead_interrupts(&mut self, crew: Crew, plan: &VectorPlan);

    /// Memory for buffers; `None` when there is not so much.
    fn dma(&self, bytes: usize) -> Option<Piece>;

    /// The platform for bring-up and reset.
    fn platform(&self) -> Self::Platform;

    /// What wakes the submitters of one queue, which are `jobs` in the order of their numbers there.
    fn wake(&self, jobs: Vec<u16>) -> Self::Wake;

    /// The clock and the bell of job `job`, whose queue interrupts with `own`.
    fn host(&self, job: u16, own: Badges) -> Self::Host;

    /// Runs one closure per job, each on its processor. The results are in the order of the jobs.
    fn run<R: Send + 'static>(&mut self, plan: &VectorPlan, jobs: Vec<Box<dyn FnOnce() -> R + Send>>) -> Vec<R>;

    /// Begins one job on its processor, which is not the caller's: `seats` was asked for a crew that stands apart.
    ///
    /// # Errors
    /// Where nobody can be killed.
    fn begin<R: Send + 'static>(&self, _job: u16, _work: Box<dyn FnOnce() -> R + Send>) -> Beginning<R> {
        Err(IMMORTAL.to_string())
    }

    /// As [`Ground::begin`], for work that [`Begun::kill`] may end.
    ///
    /// # Errors
    /// Where nobody can be killed.
    ///
    /// # Safety
    /// Nobody but `work` refers to its stack, and nobody counts on anything on it being dropped.
    unsafe fn begin_mortal<R: Send + 'static>(&self, _job: u16, _work: Box<dyn FnOnce() -> R + Send>) -> Beginning<R> {
        Err(IMMORTAL.to_string())
    }

    /// What `job` waits for besides its interrupts: what [`Ground::wake`] raises.
    ///
    /// # Errors
    /// Where nobody can be killed.
    fn doorbell(&self, _job: u16) -> Result<Badges, String> {
        Err(IMMORTAL.to_string())
    }

    /// Hands over once more what [`Ground::hand_over`] did: the same registers, interrupts and bytes for rings, in whatever
    /// state they were left.
    ///
    /// # Errors
    /// Where nobody can be killed, or nothing was handed over.
    ///
    /// # Safety
    /// Nobody uses what was handed over before, or anything made from it, any more. The device may still: whoever gets
    /// the memory resets it before anything is stored there.
    unsafe fn hand_over_again(&self) -> Result<Handed<Self::Transport>, String> {
        Err(IMMORTAL.to_string())
    }

    /// Takes the configuration's interrupt, if it came during the run.
    fn take_configuration(&mut self, plan: &VectorPlan) -> Badges;

    /// Interrupts of the first `queues` queues so far, and how many of them came to the processor of their job.
    fn interrupts(&self, crew: Crew, plan: &VectorPlan, queues: u16) -> (u64, u64);

    /// Sets the bound on what follows, in nanoseconds.
    fn bound(&self, ns: u64);

    /// Prints a result line.
    fn say(&self, line: &Line);

    /// Prints a line for people.
    fn remark(&self, text: &str);
}
