//! A client of the front end: one session, bounded to its extent, used by one request at a time.
//!
//! It is what blockd's survey reads (the whole disk, without the right to write), and what the file system stands on
//! (the partition). Data is copied through one registered page, whatever the caller's memory is.
use crate::device::{CREDIT, Device};
use blockd::{Extent, Media, Volume};
use drv_virtio_block::dma::DeviceAddress;
use drv_virtio_block::lib_block::client::pool::{Page, Pool};
use drv_virtio_block::lib_block::client::sync::{Blocking, Failed, Wait};
use drv_virtio_block::lib_block::client::{self, Replay};
use drv_virtio_block::lib_block::front_end::{Access, Grant};
use drv_virtio_block::lib_block::message::{self, Capability, Info, Opening, Rights, SessionId};
use drv_virtio_block::lib_block::ring::{self, Rings};
use drv_virtio_block::lib_block::{Status, VERSION};
use std::error::Error;
use std::ptr::NonNull;

/// Bytes that are moved at once.
const PAGE: u32 = 64 << 10;

/// Waiting is serving: the front end is on this thread.
pub(crate) struct Step<'d>(&'d Device);

impl Wait for Step<'_> {
    fn ring(&mut self) {
        self.0.serve();
    }
    fn wait(&mut self) {
        self.0.wait();
        self.0.serve();
    }
}

type Bytes = Page<'static, 1>;

/// See the module's text.
pub(crate) struct Client<'d> {
    blocking: Blocking<'static, Bytes, Step<'d>, { CREDIT as usize }>,
    pool: &'static Pool<1>,
    device: &'d Device,
    session: SessionId,
    info: Info,
}

impl<'d> Client<'d> {
    /// A session over `extent`, or over the whole disk.
    pub(crate) fn open(device: &'d Device, extent: Option<Extent>, read_only: bool) -> Result<Self, Box<dyn Error>> {
        let memory = device.memory(ring::bytes(CREDIT)).ok_or("no memory for a client's rings")?;
        // SAFETY: zeroed and at a page, lives for good, and has no other handle: both sides use it through `Rings`.
        let rings = unsafe { Rings::new(memory.base(), CREDIT) }.ok_or("rings of an impossible size")?;
        let (client_rings, server_rings) = rings.split();
        let mut front = device.front.borrow_mut();
        let geometry = front.geometry().ok_or("there is no device")?;
        let whole = Extent { first: 0, blocks: geometry.capacity() / u64::from(geometry.block_size / 512) };
        let extent = extent.unwrap_or(whole);
        let rights = if read_only { Rights::READ.with(Rights::FLUSH) } else { Rights::ALL };
        let extents = [message::Extent { first: extent.first, blocks: extent.blocks }];
        let capability = Capability::new(rights, &extents).ok_or("a device without blocks")?;
        let opening = Opening { version: VERSION, credit: CREDIT, weight: 1, affinity: 0, capability };
        let opened = front.open(&opening, server_rings, [])?;
        let page = device.memory(PAGE as usize).ok_or("no memory for a client's page")?;
        // SAFETY: the device knows the memory at this address, for good, zeroed; only the pool and the driver use it.
        let grant =
            unsafe { Grant::new(DeviceAddress(page.device_address().0), u64::from(PAGE), Access::ReadWrite, None) };
        let id = front.register(opened.session, grant)?;
        drop(front);
        let bytes = NonNull::slice_from_raw_parts(page.base(), PAGE as usize);
        // SAFETY: the memory that was just registered, from its first byte on; the piece was its only handle.
        let pool = unsafe { Pool::new(bytes, id, PAGE) }.ok_or("a pool without a page")?;
        let client =
            client::Client::new(client_rings, opened.info.block_size).ok_or("the client does not fit its rings")?;
        let blocking = Blocking::new(client, &opened.info, Replay::Never, Step(device));
        let pool = Box::leak(Box::new(pool));
        Ok(Self { blocking, pool, device, session: opened.session, info: opened.info })
    }

    /// Ends the session; nothing is in flight, since every request was waited for.
    pub(crate) fn close(self) -> Result<(), Status> {
        self.device.front.borrow_mut().close(self.session)?;
        while self.device.front.borrow().is_open(self.session) {
            self.device.serve();
        }
        Ok(())
    }

    fn page(&self) -> Result<Bytes, Status> {
        // Out for good only if the server was not believed any more.
        self.pool.take().ok_or(Status::Gone)
    }

    /// Blocks that are moved at once.
    fn stride(&self) -> usize {
        PAGE as usize / self.info.block_size as usize * self.info.block_size as usize
    }

    fn blocks_of(&self, bytes: usize) -> Result<u32, Status> {
        let size = self.info.block_size as usize;
        if bytes.is_multiple_of(size) { Ok((bytes / size) as u32) } else { Err(Status::InvalidArgument) }
    }

    fn fetch(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Status> {
        let mut at = lba;
        for part in into.chunks_mut(self.stride()) {
            let blocks = self.blocks_of(part.len())?;
            let page = self.blocking.read(at, blocks, self.page()?).map_err(|Failed { status, .. }| status)?;
            part.copy_from_slice(&page.as_slice()[..part.len()]);
            at += u64::from(blocks);
        }
        Ok(())
    }
}

impl Media for Client<'_> {
    type Error = Status;

    fn block_size(&self) -> u32 {
        self.info.block_size
    }
    fn blocks(&self) -> u64 {
        self.info.blocks
    }
    fn read(&mut self, lba: u64, blocks_of_data: &mut [u8]) -> Result<(), Status> {
        self.fetch(lba, blocks_of_data)
    }
}

impl Volume for Client<'_> {
    type Error = Status;

    fn block_size(&self) -> u32 {
        self.info.block_size
    }
    fn blocks(&self) -> u64 {
        self.info.blocks
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Status> {
        self.fetch(lba, into)
    }
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Status> {
        let mut at = lba;
        for part in from.chunks(self.stride()) {
            let blocks = self.blocks_of(part.len())?;
            let mut page = self.page()?;
            page.as_mut_slice()[..part.len()].copy_from_slice(part);
            // The page goes home.
            drop(self.blocking.write(at, blocks, page).map_err(|Failed { status, .. }| status)?);
            at += u64::from(blocks);
        }
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Status> {
        self.blocking.flush().map_err(|Failed { status, .. }| status)
    }
}
