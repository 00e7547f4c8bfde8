//! One request at a time, waited for: for a client that has nothing else to do.
//!
//! It refuses to know what waiting is ([`Wait`] does) and how long it may take. A transfer above the limit of a request
//! is cut, and done up to the first part that fails. A restart of the driver is acted upon as the policy says. While
//! it waits it looks a few times, asks for the doorbell, looks once more, and sleeps. Before it refuses because the
//! session ended or the server contradicted itself, it looks whether another life of the server was announced.
//!
//! A [`Wait`] that panics, or a buffer's drop, ends the call with that panic. What it asked stays with the server and
//! nobody waits for it: its buffer is dropped when it is answered.
//!
//! ```
//! use drv_virtio_block::lib_block::client::sync::{Blocking, Failed, Wait};
//! use drv_virtio_block::lib_block::client::pool::Page;
//! fn copy<'p, W: Wait>(disk: &mut Blocking<'_, Page<'p, 8>, W, 4>, page: Page<'p, 8>) -> Result<(), Failed<Page<'p, 8>>> {
//!     let page = disk.read(0, 8, page)?;
//!     let _page = disk.write(8, 8, page)?;
//!     disk.flush()
//! }
//! ```
use super::buffer::{Part, ServerReadable, ServerWritable, SharedBuffer};
use super::request::{Completion, Request, Tag, Why};
use super::session::{Client, Replay, Resumed, Standing};
use crate::lib_block::Status;
use crate::lib_block::entry::Data;
use crate::lib_block::message::Info;
use core::fmt;
use core::hint;

/// Looks before the doorbell is asked for.
const LOOKS: u32 = 64;

/// What a client needs of its platform.
pub trait Wait {
    /// Rings the server's doorbell.
    fn ring(&mut self);
    /// Sleeps until the client's doorbell was rung since this returned last. May return sooner.
    fn wait(&mut self);
}

/// A request that failed. `?` turns it into its [`Status`] alone where the buffer is not wanted back.
pub struct Failed<B> {
    /// How.
    pub status: Status,
    /// Blocks from the first that were moved before.
    pub moved: u32,
    /// The buffer, unless the server still has it: one that contradicted itself is not believed to be done with it.
    pub buffer: Option<B>,
}

/// Shows everything but the buffer, which therefore need not be [`Debug`](fmt::Debug).
impl<B> fmt::Debug for Failed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Failed");
        shown.field("status", &self.status).field("moved", &self.moved).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for Failed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {} blocks", self.status, self.moved)
    }
}

impl<B> core::error::Error for Failed<B> {}

impl<B> From<Failed<B>> for Status {
    fn from(failed: Failed<B>) -> Self {
        failed.status
    }
}

impl<B> Failed<B> {
    fn of(status: Status, moved: u32, buffer: Option<Part<B>>) -> Self
    where
        B: SharedBuffer,
    {
        Self { status, moved, buffer: buffer.map(Part::into_buffer) }
    }
}

/// A session used by one who waits. Buffers are [`Part`]s within, so that transfers can be cut.
pub struct Blocking<'m, B, W, const N: usize> {
    client: Client<'m, Part<B>, N>,
    platform: W,
    policy: Replay,
    max_blocks: u32,
    /// The server's doorbell is to be rung, and was not yet.
    owed: bool,
}

impl<'m, B: SharedBuffer, W: Wait, const N: usize> Blocking<'m, B, W, N> {
    /// A client, attached or not; limits as the session was opened with. What it has in flight nobody waits for: the
    /// buffers are dropped as they are answered.
    pub fn new(client: Client<'m, Part<B>, N>, info: &Info, policy: Replay, platform: W) -> Self {
        Self { client, platform, policy, max_blocks: info.max_blocks.max(1), owed: false }
    }

    /// How client and server stand.
    pub fn standing(&self) -> Standing {
        self.client.standing()
    }

    /// The platform.
    pub fn platform(&mut self) -> &mut W {
        &mut self.platform
    }

    /// Reads `blocks` from `lba` on into the front of `buffer`.
    ///
    /// # Errors
    /// What the server answered; [`Status::InvalidArgument`] if the buffer has not as many bytes, or would have to be
    /// cut and is a list; [`Status::Gone`] when the session ended; [`Status::IoError`] when the server contradicted
    /// itself; [`Status::Reset`] when the driver was restarted and the policy is not to replay.
    pub fn read(&mut self, lba: u64, blocks: u32, buffer: B) -> Result<B, Failed<B>>
    where
        B: ServerWritable,
    {
        self.transfer(lba, blocks, buffer, Request::read)
    }

    /// Writes `blocks` from `lba` on from the front of `buffer`.
    ///
    /// # Errors
    /// As [`Blocking::read`].
    pub fn write(&mut self, lba: u64, blocks: u32, buffer: B) -> Result<B, Failed<B>>
    where
        B: ServerReadable,
    {
        self.transfer(lba, blocks, buffer, Request::write)
    }

    /// A write that is answered once durable.
    ///
    /// # Errors
    /// As [`Blocking::read`].
    pub fn write_durably(&mut self, lba: u64, blocks: u32, buffer: B) -> Result<B, Failed<B>>
    where
        B: ServerReadable,
    {
        self.transfer(lba, blocks, buffer, |lba, blocks, part| Request::write(lba, blocks, part).durably())
    }

    /// Makes every write that was answered durable.
    ///
    /// # Errors
    /// As [`Blocking::read`], without a buffer.
    pub fn flush(&mut self) -> Result<(), Failed<B>> {
        self.plain(Request::flush())
    }

    /// Says that `blocks` from `lba` on hold nothing of value.
    ///
    /// # Errors
    /// As [`Blocking::read`], without a buffer.
    pub fn discard(&mut self, lba: u64, blocks: u32) -> Result<(), Failed<B>> {
        self.plain(Request::discard(lba, blocks))
    }

    /// Makes `blocks` from `lba` on read as zeros; with `unmap` the device may deallocate them.
    ///
    /// # Errors
    /// As [`Blocking::read`], without a buffer.
    pub fn write_zeroes(&mut self, lba: u64, blocks: u32, unmap: bool) -> Result<(), Failed<B>> {
        self.plain(Request::write_zeroes(lba, blocks, unmap))
    }

    fn plain(&mut self, request: Request<Part<B>>) -> Result<(), Failed<B>> {
        match self.one(request) {
            (Status::Ok, _) => Ok(()),
            (status, buffer) => Err(Failed::of(status, 0, buffer)),
        }
    }

    fn transfer(
        &mut self,
        lba: u64,
        blocks: u32,
        buffer: B,
        ask: impl Fn(u64, u32, Part<B>) -> Request<Part<B>>,
    ) -> Result<B, Failed<B>> {
        let block = self.client.block_size();
        let list = matches!(buffer.data(), Data::List(_));
        let mut part = Part::whole(buffer);
        if blocks.checked_mul(block).is_none() || (list && blocks > self.max_blocks) {
            return Err(Failed::of(Status::InvalidArgument, 0, Some(part)));
        }
        let mut moved = 0;
        // No blocks at all are asked for as well: what is wrong with that is the server's to say.
        loop {
            let now = (blocks - moved).min(self.max_blocks);
            if now > 0 && !list && !part.set(moved * block, now * block) {
                return Err(Failed::of(Status::InvalidArgument, moved, Some(part)));
            }
            match self.one(ask(lba.wrapping_add(moved.into()), now, part)) {
                (Status::Ok, Some(back)) => part = back,
                (status, buffer) => return Err(Failed::of(status, moved, buffer)),
            }
            moved += now;
            if moved == blocks {
                return Ok(part.into_buffer());
            }
        }
    }

    /// Asks and waits.
    fn one(&mut self, request: Request<Part<B>>) -> (Status, Option<Part<B>>) {
        let tag = match self.ask(request) {
            Ok(tag) => tag,
            Err((status, request)) => return (status, request.into_buffer()),
        };
        loop {
            if let Some(done) = self.turn(Some(tag)) {
                return (done.status, done.buffer);
            }
            if matches!(self.client.standing(), Standing::Broken(_)) {
                // Its next life, or the end of the session, gives the buffer back: it is dropped then.
                return (Status::IoError, None);
            }
        }
    }

    /// Submits as soon as there is a server that takes it.
    fn ask(&mut self, mut request: Request<Part<B>>) -> Result<Tag, (Status, Request<Part<B>>)> {
        loop {
            let refused = match self.client.submit(request) {
                Ok(tag) => return Ok(tag),
                Err(refused) => refused,
            };
            request = refused.request;
            let status = match refused.why {
                // For a server, or for the answer to a request that nobody waits for any more.
                Why::Restarting | Why::Full => {
                    self.turn(None);
                    continue;
                }
                Why::Ended => Status::Gone,
                Why::Broken => Status::IoError,
                Why::NotFound => Status::NotFound,
            };
            if !self.follow() {
                return Err((status, request));
            }
        }
    }

    /// Acts upon what the server said since the session ended or it was not believed any more; false: nothing.
    fn follow(&mut self) -> bool {
        // Callers were told that their requests failed, and went on: none is asked again behind their backs.
        let resumed = self.client.resume(Replay::Never, drop);
        self.owed |= matches!(resumed, Resumed::Attached { .. });
        self.show();
        resumed != Resumed::Unchanged
    }

    /// Shows the server what is staged.
    fn show(&mut self) {
        self.owed |= self.client.publish();
        if self.owed {
            self.platform.ring();
            // Only now: a doorbell whose ringing panicked was not rung.
            self.owed = false;
        }
    }

    /// Looks, acts upon what the server says, waits if there is nothing; the end of `tag`, if it came.
    fn turn(&mut self, tag: Option<Tag>) -> Option<Completion<Part<B>>> {
        self.show();
        // As in `follow`: without a tag, nobody waits for what is in flight.
        let policy = if tag.is_some() { self.policy } else { Replay::Never };
        let mut found = None;
        let mut take = |done: Completion<Part<B>>| {
            if Some(done.tag) == tag {
                found = Some(done);
            }
        };
        for _ in 0..LOOKS {
            if self.client.reap(u32::MAX, &mut take) > 0 {
                return found;
            }
            match self.client.resume(policy, &mut take) {
                Resumed::Unchanged if self.client.standing() == Standing::Serving => hint::spin_loop(),
                Resumed::Unchanged => break,
                Resumed::Attached { .. } => {
                    self.owed = true;
                    self.show();
                    return found;
                }
                Resumed::Absent | Resumed::Over(_) => return found,
            }
        }
        let broken = matches!(self.client.standing(), Standing::Broken(_));
        if !broken && !self.client.arm(1) {
            self.platform.wait();
        }
        None
    }
}
