//! Calls of one session over a real device: what is given, what is refused, and that a session ends where it ends.
//!
//! GET INFO, WRITE, READ and FLUSH as blockd makes them, over two extents that lie apart, so that a block's number is
//! the session's and not the disk's; then everything that a caller may not do. The last line notes what was done.
use super::drive::Front;
use super::publish::{Published, Raw, opening, rings};
use crate::ground::Ground;
use alloc::format;
use alloc::string::String;
use core::fmt::Debug;
use drv_virtio_block::lib_block::Status;
use drv_virtio_block::lib_block::front_end::Access;
use drv_virtio_block::lib_block::message::{Body, Capability, Extent, Given, Opening, Rights};
use workload::params::SECTOR;
use workload::report::{Line, Note};
use workload::verify::{check, fill};

/// The session's first blocks.
const LATER: Extent = Extent { first: 4096, blocks: 64 };
/// And its last ones, which lie before them on the disk.
const EARLIER: Extent = Extent { first: 1024, blocks: 32 };
/// Credit of these sessions.
const CREDIT: u16 = 2;

/// Runs all of it on `front`.
pub(crate) fn all<G: Ground>(ground: &G, front: &mut Front<G>) -> Result<(), String> {
    let opening = |rights| {
        let capability = Capability::new(rights, &[LATER, EARLIER]).ok_or("no capability to two extents")?;
        let whole = opening(&Published { extent: LATER, read_only: false }, CREDIT, 0)?;
        Ok::<_, String>(Opening { capability, ..whole })
    };
    let mut raw = Raw::open(ground, front, &opening(Rights::ALL)?)?;
    given(&mut raw)?;
    outside(&mut raw)?;
    one_at_a_time(&mut raw)?;
    let ended = raw.close()?;
    let late = front.begin_call(ended, &Body::Flush, None);
    expect("a call of a session that ended", late, Err(Status::NotFound))?;
    let mut raw = Raw::open(ground, front, &opening(Rights::READ)?)?;
    expect("a read with the right", raw.call(&Body::Read { lba: 0, blocks: 8 }), Ok(()))?;
    expect("a write without the right", raw.call(&WRITE), Err(Status::Denied))?;
    expect("a flush without the right", raw.call(&Body::Flush), Err(Status::Denied))?;
    raw.close()?;
    sessions(ground, front, &opening(Rights::ALL)?)?;
    let text = "calls: information, write, durable write, read, flush, extents, rights, refusals of calls and sessions";
    ground.say(&Line::Note(Note::new(format_args!("{text}"))));
    Ok(())
}

/// A write inside of the session.
const WRITE: Body = Body::Write { lba: 0, blocks: 8, fua: false };

/// Information, and data that comes back as it went.
fn given<G: Ground>(raw: &mut Raw<'_, G>) -> Result<(), String> {
    let info = raw.info()?;
    if info.blocks != LATER.blocks + EARLIER.blocks || info.block_size != SECTOR {
        return Err(format!("the session is said to have {} blocks of {} bytes", info.blocks, info.block_size));
    }
    for (generation, fua) in [(1, false), (2, true)] {
        for (lba, blocks) in [(LATER.blocks - 4, 4), (LATER.blocks, 4)] {
            fill(raw.bytes(blocks), lba, generation);
            expect("a write", raw.call(&Body::Write { lba, blocks, fua }), Ok(()))?;
        }
        expect("a flush", raw.call(&Body::Flush), Ok(()))?;
        // Each extent by itself: the blocks follow one another for the session only.
        for (lba, blocks) in [(LATER.blocks, 4), (LATER.blocks - 4, 4)] {
            raw.bytes(blocks).fill(0xa5);
            let moved = raw.call(&Body::Read { lba, blocks });
            if moved != Ok(Given::Moved(blocks * SECTOR)) {
                return Err(format!("a read of {blocks} blocks: {moved:?}"));
            }
            check(raw.bytes(blocks), lba, generation).map_err(|fault| format!("{fault}"))?;
        }
    }
    Ok(())
}

/// What does not lie in the session, and what is no call of its.
fn outside<G: Ground>(raw: &mut Raw<'_, G>) -> Result<(), String> {
    let end = LATER.blocks + EARLIER.blocks;
    for (lba, blocks) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 4)] {
        let outcome = raw.call(&Body::Read { lba, blocks });
        expect("a read outside of the session", outcome, Err(Status::OutOfRange))?;
        let outcome = raw.call(&Body::Write { lba, blocks, fua: false });
        expect("a write outside of the session", outcome, Err(Status::OutOfRange))?;
    }
    let whole = LATER.blocks as u32;
    for (what, body) in [
        ("a read of nothing", Body::Read { lba: 0, blocks: 0 }),
        ("a read of more than a request may", Body::Read { lba: 0, blocks: u32::MAX }),
        ("a call to another endpoint", Body::ReadDriver),
    ] {
        expect(what, raw.call(&body), Err(Status::InvalidArgument))?;
    }
    let small = raw.begin(&Body::Read { lba: 0, blocks: whole }, Access::ReadWrite, 1);
    expect("a read into a buffer that is too small", small, Err(Status::InvalidArgument))?;
    let guarded = raw.begin(&Body::Read { lba: 0, blocks: 1 }, Access::Read, 1);
    expect("a read into a buffer that is not to be written", guarded, Err(Status::InvalidArgument))
}

/// A second call while one is unanswered.
fn one_at_a_time<G: Ground>(raw: &mut Raw<'_, G>) -> Result<(), String> {
    expect("a first call", raw.begin(&Body::Flush, Access::Read, 1), Ok(()))?;
    expect("a second call", raw.begin(&Body::Flush, Access::Read, 1), Err(Status::Busy))?;
    expect("the first call", raw.outcome(), Ok(()))
}

/// Sessions that are not opened.
fn sessions<G: Ground>(ground: &G, front: &mut Front<G>, good: &Opening) -> Result<(), String> {
    let blocks = front.geometry().ok_or("there is no device")?.capacity();
    let beyond = Capability::new(Rights::ALL, &[Extent { first: blocks - 1, blocks: 2 }]).ok_or("no capability")?;
    for (what, opening, why) in [
        ("another version", Opening { version: good.version + 1, ..*good }, Status::Unsupported),
        ("a credit that is not the rings'", Opening { credit: 4, ..*good }, Status::InvalidArgument),
        ("no weight", Opening { weight: 0, ..*good }, Status::InvalidArgument),
        ("blocks that the disk has not", Opening { capability: beyond, ..*good }, Status::OutOfRange),
    ] {
        let (_, server) = rings(ground, CREDIT)?;
        expect(what, front.open(&opening, server, []), Err(why))?;
    }
    Ok(())
}

/// Fails unless `outcome` is what it should be.
fn expect<T: Debug>(what: &str, outcome: Result<T, Status>, should: Result<(), Status>) -> Result<(), String> {
    match (outcome, should) {
        (Ok(_), Ok(())) => Ok(()),
        (Err(why), Err(should)) if why == should => Ok(()),
        (outcome, should) => Err(format!("{what}: {outcome:?} instead of {should:?}")),
    }
}
