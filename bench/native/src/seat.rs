//! A job's place in the process: its core, its clock, what it waits for.
//!
//! Interrupts are eventfds. A thread that waits polls its own, takes what was raised and counts it. In polled mode a
//! seat looks now and then whether the back-end is still there, and lets a device without a thread of its own do its
//! work.
use crate::clock::Clock;
use crate::event::Event;
use crate::platform::Watch;
use drv_virtio_block::queue::Wake;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runner::ground::Host;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Looks that find nothing, until the back-end's socket is looked at.
const PATIENCE: u32 = 1 << 16;

/// A device that does its work when it is asked to, on the thread that asks.
pub trait Step: Send + Sync {
    /// Does what there is to do, unless another thread is at it.
    fn step(&self);
}

/// An interrupt: its eventfd, and how often it was taken.
#[derive(Debug)]
pub struct Line {
    /// What the device raises.
    pub event: Arc<Event>,
    /// How often it was taken.
    pub taken: AtomicU64,
}

impl Line {
    /// A line over `event`.
    pub fn new(event: Arc<Event>) -> Self {
        Self { event, taken: AtomicU64::new(0) }
    }

    /// Takes the interrupt, if it came.
    pub fn take(&self) -> bool {
        let taken = self.event.take();
        self.taken.fetch_add(u64::from(taken), Ordering::Relaxed);
        taken
    }
}

/// See the module's text.
pub struct Seat {
    clock: Clock,
    lines: Vec<Arc<Line>>,
    watch: Option<Arc<Watch>>,
    stepper: Option<&'static dyn Step>,
    looks: u32,
    lost: bool,
}

impl Seat {
    /// A seat that waits for any of `lines`.
    pub fn new(lines: Vec<Arc<Line>>, watch: Option<Arc<Watch>>, stepper: Option<&'static dyn Step>) -> Self {
        Self { clock: Clock::get(), lines, watch, stepper, looks: 0, lost: false }
    }
}

impl Host for Seat {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn wait(&mut self) {
        if self.lines.iter().filter(|line| line.take()).count() > 0 {
            return;
        }
        let fds = self.lines.iter().map(|line| PollFd::new(line.event.as_fd(), PollFlags::POLLIN));
        let watch = self.watch.iter().map(|watch| PollFd::new(watch.as_fd(), PollFlags::empty()));
        let mut fds: Vec<_> = fds.chain(watch).collect();
        let _ = poll(&mut fds, PollTimeout::NONE);
        self.lost |= self
            .watch
            .as_ref()
            .is_some_and(|watch| fds.last().is_some_and(|fd| fd.any() == Some(true)) && watch.hung_up());
        for line in &self.lines {
            line.take();
        }
    }

    #[inline(always)]
    fn step(&mut self) {
        if let Some(stepper) = self.stepper {
            stepper.step();
        }
    }

    #[inline]
    fn lost(&mut self) -> bool {
        self.looks += 1;
        if self.looks >= PATIENCE {
            self.looks = 0;
            self.lost |= self.watch.as_ref().is_some_and(|watch| watch.hung_up());
        }
        self.lost
    }
}

/// Rings the bells of a queue's submitters.
pub struct Bells(pub Vec<Arc<Line>>);

impl Wake for Bells {
    fn wake(&self, submitter: u8) {
        if let Some(bell) = self.0.get(usize::from(submitter)) {
            bell.event.raise();
        }
    }
}

/// Waits until one of `lines` is raised; takes them all and returns which were (bit by place).
pub fn take_any(lines: &[&Line]) -> u64 {
    let mut fds: Vec<_> = lines.iter().map(|line| PollFd::new(line.event.as_fd(), PollFlags::POLLIN)).collect();
    let _ = poll(&mut fds, PollTimeout::NONE);
    lines.iter().enumerate().filter(|(_, line)| line.take()).fold(0, |bits, (at, _)| bits | 1 << at)
}
