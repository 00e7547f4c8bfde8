//! A client's memory as the queue sees it: what was granted, checked, and lent for one request.
//!
//! It knows pieces of device memory and nothing of blocks. Most requests have one piece, which travels by value; more
//! of them stand in a table of the request's own, of which the buffer carries the address.
use crate::dma::{Buffer, DeviceAddress, DeviceReadable, DeviceWritable, Segment};
use crate::lib_block::MAX_PIECES;
use core::cell::UnsafeCell;
use core::marker::PhantomData;

/// Memory lent to the device for one request: what a front end's queue carries. It can be named, so that a queue can be
/// laid out for a front end ([`Prepared`](crate::queue::Prepared)), and nobody else can make, copy or take one: whoever
/// had one could have the device write memory that its client got back.
///
/// ```compile_fail,E0624
/// # use drv_virtio_block::dma::{DeviceAddress, Segment};
/// use drv_virtio_block::lib_block::front_end::Lent;
/// let lent = Lent::one(Segment::new(DeviceAddress(0x4000), 4096));
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::front_end::Lent;
/// fn copied<T: Copy>() {}
/// copied::<Lent<'_>>();
/// ```
/// ```compile_fail,E0277
/// # use drv_virtio_block::lib_block::front_end::Lent;
/// fn cloned<T: Clone>() {}
/// cloned::<Lent<'_>>();
/// ```
/// A queue that already has requests cannot become a front end's, which would take their tokens for its own:
/// ```compile_fail,E0308
/// # use drv_virtio_block::arena::{Arena, ArenaExhausted};
/// # use drv_virtio_block::lib_block::front_end::{FrontEnd, Lent, Notify, Options};
/// use drv_virtio_block::queue::OwnedQueue;
/// # use drv_virtio_block::transport::Doorbell;
/// fn used<'m, D: Doorbell, N: Notify>(
///     queue: OwnedQueue<'m, Lent<'m>, D>,
///     doorbell: D,
///     notify: N,
///     arena: &mut Arena<'m>,
/// ) -> Result<FrontEnd<'m, D, N>, ArenaExhausted> {
///     FrontEnd::new(queue, doorbell, notify, arena, Options::default(), 1)
/// }
/// ```
#[derive(Debug)]
pub struct Lent<'m> {
    /// The piece; or, with a length of 0, which no piece has, the address of a [`List`].
    one: Segment,
    list: PhantomData<&'m ()>,
}

impl<'m> Lent<'m> {
    /// One piece, which is not empty unless nothing looks at it.
    #[inline(always)]
    pub(super) fn one(piece: Segment) -> Self {
        Self { one: piece, list: PhantomData }
    }

    /// The pieces of a list, which is not filled again before the request was answered.
    pub(super) fn many(list: &'m List) -> Self {
        let address = core::ptr::from_ref(list).expose_provenance() as u64;
        Self { one: Segment::new(DeviceAddress(address), 0), list: PhantomData }
    }
}

// SAFETY: the memory behind a piece was granted to the driver for the device (`Grant::new`'s contract: until the session
// gave it back, which waits for every request that names it). The front end makes each for one request and hands none
// out: its queue is its own, empty when it gets it (`FrontEnd::new`, `resume`) and when it gives it away (`reclaim`). What the client does to it meanwhile is atomic or its own
// loss, since the driver never looks at it. The list is the request's and stays as it is until the answer. Nothing here
// touches the memory.
unsafe impl Buffer for Lent<'_> {
    #[inline(always)]
    fn segments(&self) -> &[Segment] {
        if self.one.is_empty() {
            // SAFETY: made by `many` from a reference for `'m`; the list is written between requests only.
            let list = unsafe { &*core::ptr::with_exposed_provenance::<List>(self.one.address().0 as usize) };
            return list.pieces();
        }
        core::slice::from_ref(&self.one)
    }
}

// SAFETY: as above; granted memory is initialised.
unsafe impl DeviceReadable for Lent<'_> {}
// SAFETY: as above; any bytes are valid content of a client's memory, and the driver reads none of it.
unsafe impl DeviceWritable for Lent<'_> {}

/// Room for the pieces of one request.
pub(super) struct List {
    content: UnsafeCell<(usize, [Segment; MAX_PIECES])>,
}

// SAFETY: `fill` is called by the front end alone, which owns its lists, for a request that is not in flight.
unsafe impl Sync for List {}

impl List {
    pub(super) fn new() -> Self {
        Self { content: UnsafeCell::new((0, [Segment::new(DeviceAddress(0), 0); MAX_PIECES])) }
    }

    /// Fills the list.
    ///
    /// # Safety
    /// No [`Lent`] of this list is in use, and nobody else fills it.
    pub(super) unsafe fn fill(&self, pieces: &[Segment]) {
        // SAFETY: exclusive, by contract.
        let (count, places) = unsafe { &mut *self.content.get() };
        *count = 0;
        for (place, piece) in places.iter_mut().zip(pieces) {
            *place = *piece;
            *count += 1;
        }
    }

    fn pieces(&self) -> &[Segment] {
        // SAFETY: not written while a `Lent` of it is in use (`fill`).
        let (count, places) = unsafe { &*self.content.get() };
        &places[..*count]
    }
}
