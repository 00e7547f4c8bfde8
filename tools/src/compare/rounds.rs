//! Measures the entries: what they need, counts once, then pass after pass.
//!
//! Whatever fails, fails in its place: an entry without a device, a guest that cannot be had or a run that ended in an
//! error keeps the reason, is not run again, and leaves the others as they are. Only a signal ends it all.
use super::plan::{Entry, Extent, Fate, Guest, Kind, Place};
use super::side::Peer;
use crate::accel;
use crate::bench::{self, progress};
use crate::cli::Compare;
use crate::disk::Disk;
use crate::fail;
use crate::guest_count;
use crate::image;
use crate::job::Draft;
use crate::linux;
use crate::machine::Accel;
use crate::matrix::VERIFIED;
use crate::native::Native;
use crate::run::{Bed, Outcome};
use crate::say::note;
use crate::setup;
use crate::stop;
use crate::vm::Hypervisor;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// A run is repeated, so often, if others took more than this share of the processors.
const DISTURBED: f64 = 0.1;
const REPEATS: u32 = 2;
/// The disk of the verified run.
const VERIFY_BYTES: u64 = 64 << 20;

/// What the entries need, installed and built; those whose needs cannot be had are told why.
pub(crate) fn prepare(args: &Compare, entries: &mut [Entry]) -> Result<Bed> {
    let install = !args.means.no_setup;
    if install {
        setup::ensure(&[&setup::LINKER])?;
    }
    let mut bed = Bed { timeout: args.means.timeout.map(Duration::from_secs), ..Bed::default() };
    if let Some(qemu) =
        have(entries, |entry| entry.place == Place::Qemu, || setup::qemu(args.means.qemu.as_deref(), install))?
    {
        let image = image::given_or_built(args.means.image.as_deref())?;
        let mut with = Hypervisor { qemu, image, accel: Accel::Tcg };
        with.accel = accel::choose(&args.means.accel, &with)?;
        bed.qemu = Some(with);
    }
    let storage = have(entries, |entry| entry.place == Place::VhostUser, || setup::storage_daemon(install))?;
    let counted = |entry: &Entry| entry.place == Place::Embedded && entry.kind == Kind::Counted;
    let valgrind = have(entries, counted, || setup::valgrind(install))?;
    bed.linux = have(entries, |entry| entry.side.peer == Some(Peer::Linux), || linux::guest(install))?;
    if open(entries).any(|entry| entry.place != Place::Qemu) {
        bed.native = Some(Native { program: image::native(args.means.native.as_deref())?, storage, valgrind });
    }
    ensure!(open(entries).any(|entry| entry.side.peer.is_none()), "{}", nothing(entries));
    Ok(bed)
}

/// What `get` gets if an entry is `concerned`; if it cannot be had, those entries are left out.
fn have<T>(
    entries: &mut [Entry],
    concerned: impl Fn(&Entry) -> bool,
    get: impl FnOnce() -> Result<T>,
) -> Result<Option<T>> {
    if !open(entries).any(&concerned) {
        return Ok(None);
    }
    match get() {
        Ok(got) => Ok(Some(got)),
        Err(error) => {
            stop::check()?;
            let why = fail::line(&error);
            note!("note: left out: {why}");
            for entry in entries.iter_mut().filter(|entry| concerned(entry)) {
                entry.fate = Fate::LeftOut(why.clone());
            }
            Ok(None)
        }
    }
}

fn open(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.is_open())
}

fn nothing(entries: &[Entry]) -> String {
    let why = entries.iter().find_map(Entry::why_not).unwrap_or_default();
    format!("there is nothing to compare on: {why}")
}

/// Verifies, counts, then measures time.
pub(crate) fn run(bed: &Bed, entries: &mut [Entry], extent: Extent) -> Result<()> {
    let timed = entries.iter().filter(|entry| entry.kind == Kind::Timed).count();
    let progress = progress((1 + entries.len() - timed + extent.passes * timed) as u64);
    progress.set_message("verify");
    verify(bed, extent)?;
    progress.inc(1);
    let pass = |entries: &mut [Entry], kind, first: usize| -> Result<()> {
        for work in entries.chunk_by_mut(|a, b| a.work == b.work).filter(|work| work[0].kind == kind) {
            for turn in turns(first, work.len()) {
                let entry = &mut work[turn];
                progress.set_message(entry.name().to_owned());
                sample(bed, entry)?;
                progress.inc(1);
            }
        }
        Ok(())
    };
    pass(entries, Kind::Counted, 0)?;
    let start = Instant::now();
    for made in 0..extent.passes {
        if made >= extent.fewest && start.elapsed() > extent.budget {
            note!("note: this host is slow: {made} samples of each instead of {}", extent.passes);
            break;
        }
        pass(entries, Kind::Timed, made)?;
    }
    progress.finish_and_clear();
    Ok(())
}

/// Ours on a file that the host reads again.
fn verify(bed: &Bed, extent: Extent) -> Result<()> {
    let folder = tempfile::tempdir().context("making a folder for the disk")?;
    let path = folder.path().join("verify.raw");
    Disk::create(&path, VERIFY_BYTES)?;
    let mut draft = Draft::of(VERIFIED)?;
    if bed.qemu.is_none() {
        draft.add("backend=embedded device=rust-vmm")?;
    }
    draft.set("number_ios", &extent.verify_ios.to_string())?;
    draft.set("disk", &path.to_string_lossy())?;
    bench::once(bed, draft.finish()?).map(drop)
}

/// One more sample, or the reason that there is none.
fn sample(bed: &Bed, entry: &mut Entry) -> Result<()> {
    if !entry.is_open() {
        return Ok(());
    }
    let repeats = if entry.kind == Kind::Timed { REPEATS } else { 0 };
    match quietly(repeats, || bed.run(&entry.cell.job)) {
        Ok(mut outcome) => {
            if let Some(guest) = &mut entry.guest {
                outcome.guest_instructions = whole(bed, guest)?;
            }
            entry.cell.samples.push(outcome);
        }
        Err(error) => {
            stop::check()?;
            let why = fail::line(&error);
            note!("note: {} failed: {why}", entry.name());
            entry.fate = Fate::Failed(why);
        }
    }
    Ok(())
}

/// Who comes first in this pass, and then the others: another one in each pass.
fn turns(first: usize, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |turn| (first + turn) % sides)
}

/// One run, repeated up to `repeats` times while others took much of the processors; if they go on, the quietest stands.
fn quietly(repeats: u32, mut run: impl FnMut() -> Result<Outcome>) -> Result<Outcome> {
    let mut best = run()?;
    for _ in 0..repeats {
        if best.others <= DISTURBED {
            break;
        }
        let again = run()?;
        if again.others < best.others {
            best = again;
        }
    }
    Ok(best)
}

/// Instructions of the whole guest per I/O, or the reason that they are not known: the entry keeps its own count.
fn whole(bed: &Bed, guest: &mut Guest) -> Result<Option<f64>> {
    match guest_count::whole_guest(bed, &guest.job) {
        Ok(count) => Ok(Some(count)),
        Err(error) => {
            stop::check()?;
            let why = fail::line(&error);
            note!("note: the whole guest of {} was not counted: {why}", guest.job.params.name);
            guest.why_not = Some(why);
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::outcome;

    /// What stands of runs during which others took these shares, and how many runs it took.
    fn stands(shares: &[f64], repeats: u32) -> (f64, usize) {
        let mut runs = 0;
        let best = quietly(repeats, || {
            runs += 1;
            Ok(Outcome { others: shares[runs - 1], ..outcome(1, None) })
        });
        (best.unwrap().others, runs)
    }

    #[test]
    fn a_quiet_run_stands_and_a_disturbed_one_is_repeated() {
        assert_eq!(stands(&[0.05], 2), (0.05, 1));
        assert_eq!(stands(&[0.3, 0.02], 2), (0.02, 2));
        assert_eq!(stands(&[0.3, 0.2, 0.4], 2), (0.2, 3), "the quietest of all");
        assert_eq!(stands(&[0.3], 0), (0.3, 1), "a count does not depend on others");
    }

    #[test]
    fn every_side_has_its_turn_in_each_pass_and_each_is_first_once() {
        let order = |pass| turns(pass, 3).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(2), order(3)], [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
