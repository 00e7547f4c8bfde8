//! Memory that a session registered: named by number afterwards, checked at every use.
//!
//! It knows device addresses and access, no blocks. An id carries a generation, so that one that was unregistered does
//! not name what took its place.
use super::flight::Word;
use crate::dma::{DeviceAddress, Segment};
use crate::lib_block::Status;
use crate::lib_block::entry::{MemoryId, PIECE_BYTES, Piece};
use core::sync::atomic::{AtomicU64, Ordering};

/// Most pieces of memory that a session can have registered at a time.
pub const MAX_MEMORIES: usize = 16;

/// Which way the device may use memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may read it: writes to the medium.
    Read,
    /// And write it: reads from the medium.
    ReadWrite,
}

/// Memory that a client granted, as the platform mapped it. It is good for one registration or one call: what was given
/// back cannot be registered again without another grant.
///
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::front_end::Grant;
/// fn copied<T: Copy>() {}
/// copied::<Grant<'_>>();
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::front_end::Grant;
/// fn cloned<T: Clone>() {}
/// cloned::<Grant<'_>>();
/// ```
/// ```compile_fail,E0382
/// # use drv_virtio_block::lib_block::Status;
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Grant, Notify};
/// # use drv_virtio_block::lib_block::message::SessionId;
/// # use drv_virtio_block::transport::Doorbell;
/// fn again<'m, D: Doorbell, N: Notify>(
///     front: &mut FrontEnd<'m, D, N>,
///     session: SessionId,
///     grant: Grant<'m>,
/// ) -> Result<(), Status> {
///     let memory = front.register(session, grant)?;
///     front.unregister(session, memory)?;
///     front.register(session, grant)?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Grant<'m> {
    device: DeviceAddress,
    len: u64,
    access: Access,
    mapped: Option<&'m [AtomicU64]>,
}

impl<'m> Grant<'m> {
    /// `len` bytes that the device reaches at `device`. The driver itself needs no mapping of data; only lists of
    /// pieces are looked at, in `mapped`, the same bytes from the first on.
    ///
    /// # Safety
    /// The device can reach the memory there, as `access` says, for as long as the value is there, and after it was
    /// given to a session until that forgot it: it was unregistered, the session is not open any more
    /// ([`FrontEnd::is_open`](super::FrontEnd::is_open)), the call that it came with was answered or refused; or the
    /// front end is no more and the device was reset. It is initialised. Whoever else uses it meanwhile expects that.
    /// `mapped` is accessed by others as atomics or through other mappings.
    pub const unsafe fn new(device: DeviceAddress, len: u64, access: Access, mapped: Option<&'m [AtomicU64]>) -> Self {
        Self { device, len, access, mapped }
    }

    /// The first `bytes` of it for the device, if they are there and may be used so.
    pub(super) fn front(self, bytes: u32, written: bool) -> Option<Segment> {
        let may = !written || self.access == Access::ReadWrite;
        (may && u64::from(bytes) <= self.len).then(|| Segment::new(self.device, bytes))
    }
}

/// Which way data flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way(usize);

impl Way {
    /// Into memory that the device writes (0), or out of memory that it reads.
    #[inline(always)]
    pub(super) fn new(out: usize) -> Self {
        Self(out & 1)
    }

    /// Into memory, or out of it.
    pub(super) fn of(into: bool) -> Self {
        Self(usize::from(!into))
    }
}

/// One registration, laid out for the check: one line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Memory<'m> {
    /// Length by [`Way`]; 0 forbids.
    len: [u64; 2],
    /// What common requests that name it have in common.
    word: Word,
    device: u64,
    id: MemoryId,
    used: bool,
    mapped: Option<&'m [AtomicU64]>,
}

/// See the module's text.
pub(super) struct Registry<'m> {
    memories: [Memory<'m>; MAX_MEMORIES],
}

impl<'m> Registry<'m> {
    pub(super) fn new() -> Self {
        // Id 0 names nothing: generations begin with 1.
        let memory = |at: usize| Memory {
            len: [0; 2],
            word: Word::common(at),
            device: 0,
            id: MemoryId(1 << 16 | at as u32),
            used: false,
            mapped: None,
        };
        Self { memories: core::array::from_fn(memory) }
    }

    /// Takes memory in, under a number of its own.
    pub(super) fn register(&mut self, grant: Grant<'m>) -> Result<MemoryId, Status> {
        let free = self.memories.iter().find(|memory| !memory.used).ok_or(Status::Busy)?.id;
        self.register_as(free, grant)
    }

    /// Takes memory in under the number that it had with an earlier driver.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is good once")]
    pub(super) fn register_as(&mut self, id: MemoryId, grant: Grant<'m>) -> Result<MemoryId, Status> {
        let Grant { device: DeviceAddress(device), len, access, mapped } = grant;
        let sound = len > 0 && device.checked_add(len).is_some() && id.0 >> 16 != 0;
        let memory =
            self.memories.get_mut((id.0 & 0xffff) as usize).filter(|_| sound).ok_or(Status::InvalidArgument)?;
        if memory.used {
            return Err(Status::Busy);
        }
        let written = if access == Access::ReadWrite { len } else { 0 };
        *memory = Memory { len: [written, len], device, id, used: true, mapped, ..*memory };
        Ok(id)
    }

    /// Forgets memory; the caller sees to it that no request names it.
    pub(super) fn forget(&mut self, id: MemoryId) -> Result<(), Status> {
        let memory = self.memories.iter_mut().find(|memory| memory.used && memory.id == id).ok_or(Status::NotFound)?;
        // 16 bits, and never 0: a place outlives any number of registrations.
        let next = (((id.0 >> 16) + 1) & 0xffff).max(1) << 16 | id.0 & 0xffff;
        *memory = Memory { len: [0; 2], used: false, mapped: None, id: MemoryId(next), ..*memory };
        Ok(())
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        for at in 0..MAX_MEMORIES {
            let _ = self.forget(self.memories[at].id);
        }
    }

    /// The bit that stands for the memory in the set of those that a request names; `None` if there is none.
    pub(super) fn bit(&self, id: MemoryId) -> Option<u16> {
        self.memories.iter().any(|memory| memory.used && memory.id == id).then(|| Self::bit_of(id.0))
    }

    /// The bit of an id that was located.
    #[inline(always)]
    pub(super) fn bit_of(id: u32) -> u16 {
        1 << (id as usize % MAX_MEMORIES)
    }

    /// Where `bytes` of memory `id` from `offset` on are for the device, and the word of a common request there; `None` says that
    /// [`Registry::locate`] knows why not.
    #[inline(always)]
    pub(super) fn find(&self, id: u32, offset: u64, bytes: u64, way: Way) -> Option<(Segment, Word)> {
        let memory = &self.memories[id as usize % MAX_MEMORIES];
        let end = offset.checked_add(bytes)?;
        let inside = memory.id.0 == id && end <= memory.len[way.0];
        inside.then(|| (Segment::new(DeviceAddress(memory.device + offset), bytes as u32), memory.word))
    }

    /// Where a piece is for the device.
    pub(super) fn locate(&self, piece: Piece, way: Way) -> Result<Segment, Status> {
        let found = self.find(piece.memory.0, piece.offset, u64::from(piece.len), way);
        found.map(|(segment, _)| segment).ok_or_else(|| self.why_not(piece))
    }

    #[cold]
    fn why_not(&self, piece: Piece) -> Status {
        let Some(memory) = self.memories.iter().find(|memory| memory.used && memory.id == piece.memory) else {
            return Status::NotFound;
        };
        let inside = piece.offset.checked_add(u64::from(piece.len)).is_some_and(|end| end <= memory.len[1]);
        if inside { Status::Denied } else { Status::OutOfRange }
    }

    /// Reads a list of pieces, each word once, into `into`; how many there are.
    pub(super) fn read_list(&self, list: Piece, into: &mut [Piece]) -> Result<usize, Status> {
        let memory = self.memories.iter().find(|memory| memory.used && memory.id == list.memory);
        let memory = memory.ok_or(Status::NotFound)?;
        let words = memory.mapped.ok_or(Status::Denied)?;
        if !list.offset.is_multiple_of(8) {
            return Err(Status::InvalidArgument);
        }
        let end = list.offset.checked_add(u64::from(list.len)).filter(|end| *end <= memory.len[1]);
        let word = |offset: u64| usize::try_from(offset / 8).map_err(|_| Status::OutOfRange);
        let range = word(list.offset)?..word(end.ok_or(Status::OutOfRange)?)?;
        let words = words.get(range).ok_or(Status::OutOfRange)?;
        let count = (list.len / PIECE_BYTES) as usize;
        for (piece, words) in into.iter_mut().zip(words.chunks_exact(2)) {
            // Relaxed: the acquire of the ring's tail covers what the client wrote before it submitted; what it writes
            // later makes another list of it, which is checked like any.
            *piece = Piece::decode([0, 1].map(|at: usize| u64::from_le(words[at].load(Ordering::Relaxed))));
        }
        Ok(count.min(into.len()))
    }
}
