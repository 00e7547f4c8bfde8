//! What is compared: works, each done by several sides one after another.
//!
//! A [`Work`] is one piece of work on one device; its sides stand side by side in every pass, so that whatever drifts
//! drifts under all of them. An [`Entry`] is one side of one work, with its samples or with the reason that there are
//! none. Knows words and order; running is `rounds`'.
use super::side::{BEST, BLKIO, DEFAULT, LINUX, OURS, OWN, Peer, RAW, STEPPED, Side, VIRTIO_DRIVER};
use crate::figures::Cell;
use crate::job::{Draft, Job};
use anyhow::Result;
use std::time::Duration;

/// Where a work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under QEMU.
    Qemu,
    /// Natively, over vhost-user.
    VhostUser,
    /// Natively, on the device in the process.
    Embedded,
}

/// What is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Instructions: once, since two counts are equal.
    Counted,
    /// Time: once in every pass.
    Timed,
}

/// One side of one work.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) work: String,
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    pub(crate) side: &'static Side,
    pub(crate) cell: Cell,
    pub(crate) fate: Fate,
    /// The same work waiting for interrupts, whose whole guest is counted, too.
    pub(crate) guest: Option<Guest>,
}

/// A job whose whole guest is counted: driver, whatever stands around it, and the load.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) job: Job,
    /// Why there is no count.
    pub(crate) why_not: Option<String>,
}

/// What became of an entry so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing is in its way.
    Open,
    /// It was not begun, and why.
    LeftOut(String),
    /// A run of it ended in an error; its other samples are not results.
    Failed(String),
}

impl Entry {
    /// Whether nothing is in its way.
    pub(crate) fn is_open(&self) -> bool {
        self.fate == Fate::Open
    }

    /// Whether it has a result.
    pub(crate) fn is_measured(&self) -> bool {
        self.is_open() && !self.cell.samples.is_empty()
    }

    /// Why it has no result.
    pub(crate) fn why_not(&self) -> Option<&str> {
        match &self.fate {
            Fate::Open => None,
            Fate::LeftOut(why) | Fate::Failed(why) => Some(why),
        }
    }

    /// The name of its job.
    pub(crate) fn name(&self) -> &str {
        self.cell.job.params.name.as_str()
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) quick: bool,
    /// Passes over the timed works.
    pub(crate) passes: usize,
    /// Of one timed run, milliseconds.
    pub(crate) runtime_ms: u64,
    /// No further pass begins after `budget` once there are `fewest`.
    pub(crate) fewest: usize,
    pub(crate) budget: Duration,
    /// Of the verified run before everything else.
    pub(crate) verify_ios: u64,
}

impl Extent {
    /// Within fifteen minutes on two cores.
    pub(crate) const FULL: Self = Self {
        quick: false,
        passes: 7,
        runtime_ms: 500,
        fewest: 5,
        budget: Duration::from_mins(8),
        verify_ios: 20_000,
    };
    /// Within four.
    pub(crate) const QUICK: Self =
        Self { quick: true, passes: 3, runtime_ms: 300, fewest: 1, budget: Duration::from_secs(90), verify_ios: 4_000 };

    /// With as many passes as somebody asked for, whatever they take.
    #[must_use]
    pub(crate) fn with_passes(self, passes: Option<u16>) -> Self {
        match passes.map(usize::from) {
            Some(passes) => Self { passes, fewest: passes, ..self },
            None => self,
        }
    }
}

/// One piece of work, and who does it.
struct Work {
    name: String,
    place: Place,
    kind: Kind,
    /// Only in the long form.
    full: bool,
    words: String,
    sides: &'static [&'static Side],
}

/// Every entry, in the order of measuring.
pub(crate) fn entries(extent: Extent, peers: &[Peer]) -> Result<Vec<Entry>> {
    let wanted = |side: &&&'static Side| side.peer.is_none_or(|peer| peers.contains(&peer));
    let works = counted().into_iter().chain(under_qemu()).chain(natively());
    let mut entries = Vec::new();
    for work in works.filter(|work| !(extent.quick && work.full)) {
        for side in work.sides.iter().filter(wanted) {
            entries.push(entry(&work, side, extent)?);
        }
    }
    Ok(entries)
}

fn entry(work: &Work, side: &'static Side, extent: Extent) -> Result<Entry> {
    let mut draft = Draft::of("rw=randread bs=4k")?;
    // Linux takes a queue for each job anyway.
    draft.add(if side == &LINUX { "" } else { "queues=1" })?;
    draft.add(&work.words)?;
    draft.add(side.words)?;
    match work.place {
        Place::Qemu => (),
        Place::VhostUser => draft.add("backend=vhost-user iodepth_batch_complete_max=128")?,
        Place::Embedded => draft.add("backend=embedded iodepth_batch_complete_max=128")?,
    }
    match work.kind {
        // Linux is counted as a whole, which must halt while it waits.
        Kind::Counted if side == &LINUX => draft.add("icount=on mode=interrupt")?,
        Kind::Counted => draft.add("icount=on")?,
        // The guest's kernel is translated while it runs.
        Kind::Timed if side == &LINUX => draft.runtime_unless_said(2 * extent.runtime_ms),
        Kind::Timed => draft.runtime_unless_said(extent.runtime_ms),
    }
    draft.named(&format!("{}-{}", work.name, side.slug))?;
    let cell = Cell { job: draft.finish()?, samples: Vec::new() };
    let guest = guest(work, side)?;
    Ok(Entry { work: work.name.clone(), place: work.place, kind: work.kind, side, cell, fate: Fate::Open, guest })
}

/// What is counted of the whole guest. Linux counts its own in one go with its driver's.
fn guest(work: &Work, side: &'static Side) -> Result<Option<Guest>> {
    let words = match side.slug {
        _ if work.name != count(128) => return Ok(None),
        "linux" => return Ok(None),
        // Whoever waits by taking turns with its front end on one processor does not halt.
        "blockd" => OWN.words,
        _ => side.words,
    };
    let mut draft = Draft::of("rw=randread bs=4k queues=1 mode=interrupt")?;
    draft.add(&work.words)?;
    draft.add(words)?;
    draft.named(&format!("guest-{}", side.slug))?;
    draft.set("number_ios", &GUEST_IOS.to_string())?;
    Ok(Some(Guest { job: draft.finish()?, why_not: None }))
}

/// I/Os of the longer of the two boots that a guest is counted by.
const GUEST_IOS: u64 = 131_072;

/// The name of a timed work under QEMU.
pub(crate) fn timed(mode: &str, depth: u16) -> String {
    format!("{mode}-{depth}")
}

/// The name of a polled work under QEMU whose requests are handed over one at a time.
pub(crate) fn one_by_one(depth: u16) -> String {
    format!("polled-{depth}x1")
}

/// The name of a counted work under QEMU.
pub(crate) fn count(depth: u16) -> String {
    format!("count-{depth}")
}

fn words(mode: &str, depth: u16, batch: u16) -> String {
    format!("mode={mode} iodepth={depth} iodepth_batch_submit={batch}")
}

/// Largest batch: beyond it little changes.
const BATCH: u16 = 32;

fn counted() -> Vec<Work> {
    let work = |name: String, place, full, depth, batch, sides| {
        let words = format!("iodepth={depth} iodepth_batch_submit={batch}");
        Work { name, place, kind: Kind::Counted, full, words, sides }
    };
    let native: &[&Side] = &[&OURS, &VIRTIO_DRIVER, &BLKIO, &RAW];
    vec![
        work(count(1), Place::Qemu, true, 1, 1, &[&OURS, &STEPPED, &DEFAULT, &BEST, &RAW]),
        work(count(16), Place::Qemu, false, 16, 16, &[&OURS, &DEFAULT, &BEST, &RAW]),
        work(count(128), Place::Qemu, false, 128, BATCH, &[&OURS, &STEPPED, &LINUX, &RAW]),
        work("embedded-count-1".into(), Place::Embedded, true, 1, 1, native),
        work("embedded-count-32".into(), Place::Embedded, true, BATCH, BATCH, native),
    ]
}

fn under_qemu() -> Vec<Work> {
    let with = |name, mode, depth, batch, full, sides| {
        let words = words(mode, depth, batch);
        Work { name, place: Place::Qemu, kind: Kind::Timed, full, words, sides }
    };
    let work = |mode, depth: u16, full, sides| with(timed(mode, depth), mode, depth, depth.min(BATCH), full, sides);
    vec![
        work("polled", 1, true, &[&OURS, &DEFAULT, &BEST, &LINUX, &RAW]),
        work("polled", 16, false, &[&OURS, &DEFAULT, &BEST, &RAW]),
        // A batch of 16 keeps the device waiting for whoever publishes it as one; one at a time nobody batches.
        with(one_by_one(16), "polled", 16, 1, false, &[&OURS, &DEFAULT, &BEST, &RAW]),
        work("polled", 32, true, &[&OURS, &STEPPED, &RAW]),
        work("polled", 128, false, &[&OURS, &STEPPED, &LINUX, &RAW]),
        work("interrupt", 1, true, &[&OURS, &OWN, &LINUX, &RAW]),
        work("interrupt", 16, true, &[&OURS, &RAW]),
        work("interrupt", 32, true, &[&OURS, &OWN, &LINUX, &RAW]),
        work("interrupt", 128, false, &[&OURS, &OWN, &LINUX, &RAW]),
    ]
}

fn natively() -> Vec<Work> {
    let work = |name: String, place, full, words, sides| Work { name, place, kind: Kind::Timed, full, words, sides };
    let over_vhost = |mode, depth: u16, full, sides| {
        work(format!("vhost-{mode}-{depth}"), Place::VhostUser, full, words(mode, depth, depth.min(BATCH)), sides)
    };
    let inside = |depth, batch, full| {
        let sides: &[&Side] = &[&OURS, &VIRTIO_DRIVER, &BLKIO, &RAW];
        let name = format!("embedded-polled-{depth}x{batch}");
        work(name, Place::Embedded, full, words("polled", depth, batch), sides)
    };
    vec![
        over_vhost("polled", 1, true, &[&OURS, &VIRTIO_DRIVER, &BLKIO, &RAW]),
        over_vhost("polled", 32, false, &[&OURS, &VIRTIO_DRIVER, &BLKIO, &RAW]),
        over_vhost("polled", 128, true, &[&OURS, &VIRTIO_DRIVER, &BLKIO, &RAW]),
        over_vhost("interrupt", 1, true, &[&OURS, &VIRTIO_DRIVER, &BLKIO]),
        over_vhost("interrupt", 32, true, &[&OURS, &VIRTIO_DRIVER, &BLKIO]),
        over_vhost("interrupt", 128, false, &[&OURS, &VIRTIO_DRIVER, &BLKIO]),
        inside(128, BATCH, false),
        inside(128, 1, true),
    ]
}
