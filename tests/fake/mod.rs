//! A virtio-blk device in memory (split ring), for tests of whoever drives one.
//!
//! It is a second, independent reading of the specification: it imports nothing from the driver, it knows only bytes,
//! addresses and registers, and its event arithmetic is checked by counting indices one by one. It executes requests
//! on an in-memory disk in any order that the test chooses, lies when told to ([`Lie`]), and writes down everything
//! that the driver does against the specification ([`DriverFault`]). It refuses to know how the driver lays out its
//! slots, and to be fast.
//!
//! [`FakeDevice`] is a handle: clone it, use it from any thread. One lock guards the device's insides; doorbells and
//! interrupts are delivered outside of it, so that a driver may ring while the device works, and an interrupt
//! callback may call the device.
//!
//! | File | What |
//! |---|---|
//! | `memory` | guest memory with a device address of its own |
//! | `config`, `wire` | what the device offers; numbers of the specification |
//! | `registers`, `status` | features, vectors; the steps of initialisation, reset |
//! | `queue_registers`, `space` | queues; configuration space |
//! | `bring_up` | initialisation in three calls, for tests of less than a whole driver |
//! | `chain`, `request`, `overlap` | walks and judges what the driver offers |
//! | `ring`, `event` | one queue's state; event arithmetic |
//! | `take`, `engine`, `notify` | take; complete and signal; doorbells and what they should have been |
//! | `execute`, `disk` | what requests do; the volatile write cache |
//! | `lie`, `scribble` | a device that breaks the rules |
//! | `signals`, `worker` | doorbells and interrupts; a device on its own thread |
//!
//! Specification: 2.1-2.7, 3.1, 4.1.4, 4.1.5, 5.2 of version 1.3.
#![allow(dead_code, unused_imports, reason = "each test binary uses the part of the device that it needs")]

mod bring_up;
mod chain;
mod config;
mod disk;
mod engine;
mod event;
mod execute;
mod fault;
mod lie;
mod memory;
mod notify;
mod overlap;
mod queue_registers;
mod registers;
mod request;
mod ring;
mod scribble;
mod signals;
mod space;
mod status;
mod take;
pub(crate) mod wire;
mod worker;

pub(crate) use chain::ChainFault;
pub(crate) use config::{Config, RangeLimits, Topology};
pub(crate) use engine::Order;
pub(crate) use event::NotifyPolicy;
pub(crate) use fault::DriverFault;
pub(crate) use lie::Lie;
pub(crate) use memory::{HostMemory, Outside};
pub(crate) use notify::Publish;
pub(crate) use queue_registers::Part;
pub(crate) use registers::ResetBehaviour;
pub(crate) use request::RequestFault;
pub(crate) use ring::{QueueCounts, Taken};
pub(crate) use scribble::Area;
pub(crate) use wire::{INTX, NO_VECTOR};
pub(crate) use worker::{DeviceThread, Serve, Wake};

use disk::Disk;
use fault::FaultLog;
use overlap::Owned;
use registers::Registers;
use ring::Ring;
use signals::Signals;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle to the device; clones name the same device.
#[derive(Clone)]
pub(crate) struct FakeDevice {
    shared: Arc<Shared>,
}

/// What a handle leads to.
struct Shared {
    memory: Arc<HostMemory>,
    faults: FaultLog,
    signals: Signals,
    inner: Mutex<Inner>,
}

/// The device's insides, under one lock.
struct Inner {
    memory: Arc<HostMemory>,
    config: Config,
    registers: Registers,
    rings: Vec<Ring>,
    disk: Disk,
    owned: Owned,
    /// Numbers chains in the order in which they were taken.
    next_serial: u64,
    /// Chains with smaller numbers were forgotten by a reset.
    first_serial: u64,
    /// Faults and interrupts of the call under way; delivered when the lock is given back.
    new_faults: Vec<DriverFault>,
    new_interrupts: Vec<u16>,
}

impl FakeDevice {
    /// A device after power-on that reaches `memory` and nothing else.
    pub(crate) fn new(memory: Arc<HostMemory>, config: Config) -> Self {
        config.assert_sound();
        let inner = Inner {
            memory: Arc::clone(&memory),
            registers: Registers::new(&config),
            rings: (0..config.num_queues).map(|_| Ring::new(config.max_queue_size)).collect(),
            disk: Disk::default(),
            owned: Owned::default(),
            config,
            next_serial: 0,
            first_serial: 0,
            new_faults: Vec::new(),
            new_interrupts: Vec::new(),
        };
        let signals = Signals::new(inner.rings.len());
        Self { shared: Arc::new(Shared { memory, faults: FaultLog::default(), signals, inner: Mutex::new(inner) }) }
    }

    /// The memory that this device reaches.
    pub(crate) fn memory(&self) -> &Arc<HostMemory> {
        &self.shared.memory
    }

    /// Everything that the driver did wrongly so far, oldest first.
    pub(crate) fn faults(&self) -> Vec<DriverFault> {
        self.shared.faults.all()
    }

    /// As [`Self::faults`], and forgets them.
    pub(crate) fn take_faults(&self) -> Vec<DriverFault> {
        self.shared.faults.take()
    }

    /// Panics with the list if the driver did anything wrongly.
    #[track_caller]
    pub(crate) fn assert_no_faults(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "the driver broke the specification: {faults:#?}");
    }

    /// Runs `f` under the lock, then delivers what it caused without the lock.
    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let (result, faults, interrupts) = {
            let mut inner = self.lock();
            let result = f(&mut inner);
            self.shared.signals.mirror(inner.registers.hears_doorbells(), inner.enabled_queues());
            (result, std::mem::take(&mut inner.new_faults), std::mem::take(&mut inner.new_interrupts))
        };
        self.shared.faults.extend(faults);
        self.shared.signals.deliver(&interrupts);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test thread that panicked elsewhere should not hide the first failure behind a second one.
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn fault(&mut self, fault: DriverFault) {
        self.new_faults.push(fault);
    }

    /// The ring of `queue`.
    ///
    /// # Panics
    /// The test named a queue that the device does not have.
    fn ring(&mut self, queue: u16) -> &mut Ring {
        &mut self.rings[usize::from(queue)]
    }

    /// A bit per enabled queue.
    fn enabled_queues(&self) -> u64 {
        self.rings.iter().enumerate().fold(0, |set, (at, ring)| set | u64::from(ring.enabled()) << at)
    }
}
