//! The crate `virtio-drivers` in the place of the driver: the same jobs, the same buffers, the same report.
//!
//! What it has: one ring of 16, polled, no vectors; every request rings by itself, if the device wants it, and comes back
//! by itself. With indirect tables, which it takes when they are offered, each request is one descriptor and one
//! allocation; without, it is three descriptors. Batches, tokens of the caller and several queues are the job's, and are
//! made from that.
//!
//! It can lose a doorbell (there is no full fence between publishing a request and reading what the device wants), and
//! such a run ends in an error instead of never.
mod platform;

use super::Image;
use crate::time::now_ns;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use core::sync::atomic::Ordering;
use drv_virtio_block::interrupt::{CompletionMode, VectorPlan};
use drv_virtio_block::queue::Statistics;
use drv_virtio_block::spec::feature;
use platform::{Identity, Seen, Watched};
use runner::buffers::Page;
use runner::crew::Crew;
use runner::drive::{Drive, Outcome, Work};
use runner::failure::{Ended, Failure, Other};
use runner::fits::{self, Disk};
use runner::ground::Ground;
use runner::patience::Patience;
use runner::runs::{self, Setting};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use workload::params::{Mode, Params, SECTOR, Submit, Verify};
use workload::pattern::Op;
use workload::report::{Boot, Line, VERSION};

/// Descriptors of its ring, which nobody can change.
const RING: usize = 16;
/// Descriptors of a request without an indirect table.
const CHAIN: usize = 3;

/// Runs what `params` say; whether there is a result.
pub fn run(image: &mut Image<'_>, params: &Params) -> bool {
    let outcome = try_run(image, params);
    runner::conclude(image, outcome)
}

fn try_run(image: &mut Image<'_>, params: &Params) -> runs::Outcome {
    params.validate().map_err(|why| why.to_string())?;
    refuse(params)?;
    let crew = Crew::new(params);
    image.seats(crew)?;
    let peer = Peer::new(image)?;
    let capacity = peer.disk.capacity();
    image.say(&Line::Boot(peer.boot()));
    let block_size = peer.seen.block_size.load(Ordering::Relaxed).max(SECTOR);
    fits::check(params, &Disk { block_size, read_only: peer.disk.readonly(), ..Disk::UNKNOWN })?;
    image.bound(runner::bound(params));
    let in_flight = if params.icount { params.iodepth_batch_submit } else { params.iodepth };
    if usize::from(in_flight) > peer.slots() {
        return Err(format!("driver=virtio-drivers has room for {} requests here: lower iodepth", peer.slots()));
    }
    if params.icount {
        let used = peer.seen.used.load(Ordering::Relaxed);
        return runs::counted(image, vec![peer], Some(vec![used]), params, capacity);
    }
    let plan = VectorPlan::best(&[], 1, CompletionMode::Polled);
    let setting = Setting { capacity, queues: 1, mode: Mode::Polled, grain: SECTOR, plan };
    runs::foreign(image, params, crew, &setting, vec![peer])
}

/// What it cannot do; the launcher says the same earlier.
fn refuse(params: &Params) -> Result<(), String> {
    let trims = params.rw.trims();
    let one = params.numjobs == 1 && params.queues_wished() == 1 && params.submit != Submit::Shared;
    let lacking = [
        (params.mode == Mode::Interrupt, "has no interrupt vectors: use mode=polled"),
        (params.verify == Verify::Crc32c || params.scenario.as_str() != "none", "does not verify: use driver=ours"),
        (trims, "reads and writes only: leave trims out"),
        (!one, "has one queue for one submitter: leave numjobs, queues and submit out"),
    ];
    match lacking.iter().find(|(lacks, _)| *lacks) {
        Some((_, why)) => Err(format!("driver=virtio-drivers {why}")),
        None => Ok(()),
    }
}

/// What the crate lends from submission to completion, besides the data.
#[derive(Default)]
struct Slot {
    request: BlkReq,
    response: BlkResp,
}

/// What stands behind a token of the crate's.
#[derive(Clone, Copy)]
struct Flight {
    /// The job's token.
    token: u64,
    op: Op,
    data: u64,
    len: usize,
}

/// Its queue, as a job sees it.
struct Peer {
    disk: VirtIOBlk<Identity, Watched>,
    /// By the job's token.
    slots: Box<[Slot; RING]>,
    /// By the crate's token.
    flights: [Flight; RING],
    seen: &'static Seen,
    submitted: u64,
    completed: u64,
    patience: Patience,
}

impl Peer {
    fn new(image: &Image<'_>) -> Result<Self, String> {
        let function = image.function()?;
        let seen: &'static Seen = Box::leak(Box::default());
        let transport = platform::transport(&image.machine.pci, function.address)?;
        let mut disk = VirtIOBlk::new(Watched { transport, seen }).map_err(|why| format!("virtio-drivers: {why}"))?;
        // Heard by the device without event indices only; nobody would hear the interrupt anyway.
        disk.disable_interrupts();
        Ok(Self {
            disk,
            slots: Box::default(),
            flights: [Flight { token: 0, op: Op::Read, data: 0, len: 0 }; RING],
            seen,
            submitted: 0,
            completed: 0,
            patience: Patience::default(),
        })
    }

    fn features(&self) -> u64 {
        self.seen.features.load(Ordering::Relaxed)
    }

    /// Requests that can be in flight.
    fn slots(&self) -> usize {
        if self.features() & feature::INDIRECT_DESC == 0 { RING / CHAIN } else { RING }
    }

    fn boot(&self) -> Boot {
        Boot {
            version: VERSION,
            capacity: self.disk.capacity(),
            queues: 1,
            queue_size: self.disk.virt_queue_size(),
            slots: self.slots() as u16,
            vectors: 0,
            rung: "none".try_into().unwrap_or_default(),
            features: self.features(),
            read_only: self.disk.readonly(),
            writeback: self.features() & feature::FLUSH != 0,
        }
    }

    #[inline(always)]
    fn submit_one(&mut self, one: &Work<Page>) -> Result<(), Error> {
        let segment = one.buffer.segment();
        let flight = Flight { token: one.token, op: one.op, data: segment.address().0, len: segment.len() as usize };
        let Slot { request, response } = &mut self.slots[one.token as usize];
        let block = one.lba as usize;
        // SAFETY: a page of the job's memory, which nobody touches until its token is back (`Page`); initialised from the
        // start.
        let data = unsafe { flight.data() };
        // SAFETY: page and slot are the request's alone until its token is back, since tokens in flight differ; both live
        // as long as the device is driven.
        let token = unsafe {
            if one.op == Op::Write {
                self.disk.write_blocks_nb(block, request, data, response)
            } else {
                self.disk.read_blocks_nb(block, request, data, response)
            }
        }?;
        self.flights[usize::from(token)] = flight;
        self.submitted += 1;
        Ok(())
    }
}

impl Flight {
    /// # Safety
    /// As for a slice of `len` bytes at `data`, which the caller chooses the life of.
    #[inline(always)]
    unsafe fn data<'d>(&self) -> &'d mut [u8] {
        // SAFETY: by contract.
        unsafe { core::slice::from_raw_parts_mut(self.data as *mut u8, self.len) }
    }
}

/// What the crate says of a request that failed.
#[cold]
fn failure(why: &Error) -> Failure {
    match why {
        Error::IoError => Failure::MEDIUM,
        Error::InvalidParam => Failure::Other(Other::Parameter),
        _ => Failure::DEVICE,
    }
}

impl Drive<Page> for Peer {
    #[inline(always)]
    fn submit(&mut self, work: &[Work<Page>]) -> Outcome {
        for (at, one) in work.iter().enumerate() {
            match self.submit_one(one) {
                Ok(()) => (),
                Err(Error::QueueFull) => return Outcome { taken: at, refused: None },
                Err(why) => return Outcome { taken: at + 1, refused: Some((one.token, failure(&why))) },
            }
        }
        Outcome { taken: work.len(), refused: None }
    }

    #[inline(always)]
    fn reap(&mut self, max: usize, mut done: impl FnMut(u64, Ended)) -> usize {
        let mut handed = 0;
        while handed < max
            && let Some(token) = self.disk.peek_used()
        {
            let flight = self.flights[usize::from(token)];
            let Slot { request, response } = &mut self.slots[flight.token as usize];
            // SAFETY: the page that was submitted under this token, which the device has answered.
            let data = unsafe { flight.data() };
            // SAFETY: the same buffers as were submitted under this token.
            let result = unsafe {
                if flight.op == Op::Write {
                    self.disk.complete_write_blocks(token, request, data, response)
                } else {
                    self.disk.complete_read_blocks(token, request, data, response)
                }
            };
            handed += 1;
            done(flight.token, result.map_err(|why| failure(&why)));
        }
        self.completed += handed as u64;
        handed
    }

    fn arm(&mut self, _: u16) -> bool {
        true
    }

    fn despairs(&mut self) -> Option<&'static str> {
        let why = "nothing has completed for 10 s; driver=virtio-drivers can lose a doorbell: run it again";
        self.patience.is_out(self.submitted + self.completed, now_ns).then_some(why)
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            submitted: self.submitted,
            completed: self.completed,
            notifications: self.seen.notifications.load(Ordering::Relaxed),
            ..Statistics::default()
        }
    }

    fn flush(&mut self) -> Ended {
        self.disk.flush().map_err(|why| failure(&why))
    }
}
