//! One life of the driver: the service as a job that may end at any instruction, and what the next life inherits.
//!
//! | What | From life to life |
//! |---|---|
//! | registers, MSI-X entries, bytes for rings | the same: the service resets the device before it stores there |
//! | private memory, place of the device's facts | the same: no device reaches it, and the dead do not |
//! | stack, and the few bytes of heap that begin a job | the stack is used again; the heap keeps what the dead had |
//!
//! So a life costs about a kilobyte of heap, and no memory that a device or a client knows.
use super::port::{Phase, Port};
use crate::blockd::PRIVATE;
use crate::blockd::drive::{Bells, CREDIT};
use crate::blockd::publish;
use crate::ground::Handed;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use drv_virtio_block::arena::Arena;
use drv_virtio_block::geometry::Geometry;
use drv_virtio_block::lib_block::entry::MemoryId;
use drv_virtio_block::lib_block::front_end::{Access, Notify};
use drv_virtio_block::lib_block::ring::ServerRings;
use drv_virtio_block::platform::{Badges, Platform};
use drv_virtio_block::queue::Wake;
use drv_virtio_block::service::{Beside, Envelope, Hardware, Service};
use drv_virtio_block::spec::Features;
use drv_virtio_block::transport::Transport;

/// Private memory that every life has in its turn.
pub(super) struct Estate {
    arena: NonNull<[MaybeUninit<u8>]>,
    facts: NonNull<Option<Geometry>>,
}

impl Estate {
    /// For a driver of `queues`, for good.
    pub(super) fn new(queues: u16) -> Self {
        let arena = vec![MaybeUninit::uninit(); PRIVATE * usize::from(queues)].leak();
        Self { arena: NonNull::from(arena), facts: NonNull::from(Box::leak(Box::new(None))) }
    }

    /// All that a life starts with.
    ///
    /// # Errors
    /// When the device cannot be handed over.
    ///
    /// # Safety
    /// Whatever started with it before, and with the device of `handed`, is over: it returned or was killed, and what it
    /// returned refers to none of it.
    pub(super) unsafe fn pass_on<T>(&self, handed: Handed<T>) -> Result<Hardware<'static, T>, String> {
        let Handed { transport, grants, dma } = handed;
        // SAFETY: valid: leaked, and any bytes are valid for it. Aliasing: the only references ever made are a life's,
        // on its stack and in this memory, and the last one is over. Order: the caller saw its end.
        let private = unsafe { &mut *self.arena.as_ptr() };
        // SAFETY: aliasing and order as above. A life that ended while it wrote here may have left no value at all:
        // written over, with nothing to be dropped, before there is a reference.
        let facts = unsafe {
            self.facts.write(None);
            &mut *self.facts.as_ptr()
        };
        let interrupts = grants.as_slice().try_into().map_err(|_| "more interrupts than a driver has".to_string())?;
        Ok(Hardware { transport, interrupts, dma, arena: Arena::new(private), facts })
    }
}

/// What a client has, whoever serves it.
pub(super) struct Member {
    /// Where its rings are, with [`CREDIT`] entries.
    pub(super) rings: u64,
    /// Under the numbers that the client uses.
    pub(super) memories: [(MemoryId, &'static [AtomicU64], Access); 2],
}

/// The doorbells of all clients, by queue.
pub(super) struct Doors<W: 'static>(pub(super) &'static [Bells<W>]);

impl<W> Clone for Doors<W> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<W: Wake> Notify for Doors<W> {
    fn ring(&self, session: u16) {
        if let Some(bells) = self.0.get(usize::from(session >> 8)) {
            bells.ring(session & 0xff);
        }
    }
}

/// What can be said of the device once it is up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) sectors: u64,
    pub(super) block_size: u32,
    pub(super) features: Features,
    pub(super) read_only: bool,
    pub(super) writeback: bool,
    /// Resets for the driver's own sake.
    pub(super) resets: u64,
}

/// See the module's text.
pub(super) struct Life<T, P, W: 'static> {
    pub(super) hardware: Hardware<'static, T>,
    pub(super) envelope: Envelope,
    pub(super) platform: P,
    pub(super) doors: Doors<W>,
    pub(super) port: &'static Port,
    pub(super) members: &'static [Member],
    /// Rung by clients and by blockd.
    pub(super) bell: Badges,
}

impl<T: Transport, P: Platform, W: Wake> Life<T, P, W> {
    /// Serves until it is dismissed, or killed; what the device is, if it was up.
    pub(super) fn live(self) -> Option<Facts> {
        let Self { hardware, envelope, platform, doors, port, members, bell } = self;
        let mut service = Service::new(hardware, envelope, &platform, doors);
        let mut facts = None;
        while !port.is_dismissed() {
            port.serve(|call, client| {
                let member = client.and_then(|client| members.get(client));
                let known = member.into_iter().flat_map(|member| &member.memories);
                let known = known.map(|(id, memory, access)| (*id, publish::grant_of(memory, *access))).collect();
                let base = member.and_then(|member| NonNull::new(member.rings as *mut u8));
                // SAFETY: zeroed by the ground, at a page, for good. Whatever served them before was killed or returned, and
                // this service opens no session before the device answered its reset. A client's one OPEN of this life
                // uses them, other calls drop them.
                let rings = base.and_then(|base| unsafe { ServerRings::new(base, CREDIT) });
                service.handle(call, Beside { rings, memory: None, known })
            });
            facts = facts_of(&service).or(facts);
            port.enter(Phase::Passing);
            let completed = service.pass();
            port.count(completed);
            if completed == 0 {
                port.enter(Phase::Waiting);
                // Without a device the service leaves a doorbell as it was delivered.
                platform.acknowledge(service.wait(bell, None));
            }
        }
        facts
    }
}

fn facts_of<T: Transport, P: Platform, N: Notify + Clone>(service: &Service<'static, T, P, N>) -> Option<Facts> {
    let resets = service.resets();
    let geometry = service.fronts().first()?.geometry()?;
    Some(Facts {
        sectors: geometry.capacity(),
        block_size: geometry.block_size,
        features: geometry.features,
        read_only: geometry.read_only,
        writeback: geometry.writeback,
        resets,
    })
}
