//! Registers and memory: the three rules of order of the PCI transport (`barrier.rs`), which cost no instruction on x86.
//!
//! The device here is as the specification has it: it loads memory after it saw a register change, and it has stored to
//! memory before it changes one. On a bus that is so by itself; between threads it takes the fences that it has here.
use super::explore;
use crate::sync::{Guarded, Ordering, light_fence};
use crate::transport::pci::register::{Place, Register};
use crate::transport::pci::{PciTransport, Window, Windows};
use crate::transport::{Doorbell, QueueId, Transport};
use core::ptr::NonNull;
use loom::thread;
use std::boxed::Box;
use std::sync::Arc;

/// Addresses for the registers of one execution, and memory that driver and device take turns in.
struct Board {
    addresses: Box<[u64; 16]>,
    memory: Arc<Guarded<u32>>,
}

const STATUS: usize = 20;
const QUEUE_ENABLE: usize = 28;
const NOTIFY: usize = 64;

impl Board {
    fn new() -> Self {
        Self { addresses: Box::new([0; 16]), memory: Arc::new(Guarded::new(0)) }
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        NonNull::from(&*self.addresses).cast::<u8>().map_addr(|at| at.saturating_add(offset))
    }

    /// A register as the device has it.
    fn register<R: Register>(&self, offset: usize) -> Place<R> {
        // SAFETY: under loom an address is a name.
        unsafe { Place::new(self.at(offset).cast()) }
    }

    fn transport(&self) -> PciTransport<'static> {
        // SAFETY: as above.
        let window = |offset| unsafe { Window::new(self.at(offset), 64) };
        PciTransport::new(Windows::new(window(0), window(NOTIFY), 4, window(0), window(0)))
    }
}

/// The memory's next value; loom fails the model if nothing orders this behind the access before.
fn touch(memory: &Guarded<u32>) -> u32 {
    // SAFETY: driver and device take turns, by the register: that is what the models are to show.
    unsafe {
        memory.with(|value| {
            *value += 1;
            *value
        })
    }
}

/// Runs a driver that has memory first, against a device that has it once `register` is `expected`.
fn driver_first<R: Register + PartialEq + Send + Sync + 'static>(
    offset: usize,
    expected: R,
    write: impl Fn(&mut PciTransport<'_>) + Send + Sync + 'static,
) {
    explore(3, move || {
        let board = Board::new();
        let (register, memory) = (board.register::<R>(offset), board.memory.clone());
        let device = thread::spawn(move || {
            if register.load() == expected {
                light_fence(Ordering::Acquire);
                assert_eq!(touch(&memory), 2);
            }
        });
        // The value is there for as long as the register has a place.
        let _kept = board.register::<R>(offset);
        let mut transport = board.transport();
        assert_eq!(touch(&board.memory), 1);
        write(&mut transport);
        device.join().unwrap();
    });
}

/// Fails without: `memory_before_register`, or with it behind the store.
#[test]
fn a_device_that_sees_a_register_written_sees_what_was_stored_before() {
    driver_first(STATUS, 0x0f_u8, |transport| transport.set_status(0x0f).unwrap());
    driver_first(QUEUE_ENABLE, 1_u16, |transport| transport.enable_queue(QueueId(0)).unwrap());
}

/// Fails without: `memory_before_doorbell`, or with it behind the store.
#[test]
fn a_device_that_sees_the_doorbell_sees_what_was_stored_before() {
    explore(3, || {
        let board = Board::new();
        let (register, memory) = (board.register::<u16>(NOTIFY), board.memory.clone());
        let bell = board.transport().doorbell(QueueId(3)).unwrap();
        let device = thread::spawn(move || {
            if register.load() == 3 {
                light_fence(Ordering::Acquire);
                assert_eq!(touch(&memory), 2);
            }
        });
        assert_eq!(touch(&board.memory), 1);
        bell.ring();
        device.join().unwrap();
    });
}

/// Fails without: `register_before_memory`, or with it in front of the load.
#[test]
fn what_a_device_stored_before_its_status_read_0_is_seen_by_the_driver() {
    explore(3, || {
        let board = Board::new();
        let (register, memory) = (board.register::<u8>(STATUS), board.memory.clone());
        let kept = board.register::<u8>(STATUS);
        kept.store(0x0f);
        let device = thread::spawn(move || {
            assert_eq!(touch(&memory), 1);
            light_fence(Ordering::Release);
            register.store(0);
        });
        if board.transport().status() == Ok(0) {
            assert_eq!(touch(&board.memory), 2);
        }
        device.join().unwrap();
    });
}
