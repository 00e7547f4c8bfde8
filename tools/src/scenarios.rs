//! What is tested under QEMU: each scenario boots the image on some machine and asserts on what it reports.
//!
//! To add one: a name, the smallest size that includes it, and a closure over [`Lab`], whose helpers boot, verify and
//! compare. Knows what must hold; running and counting is `testrun`'s.
use crate::disk::Disk;
use crate::fail;
use crate::icount::{self, Count};
use crate::job::{Draft, Job};
use crate::pairs;
use crate::run::{Bed, Outcome};
use crate::verify;
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

/// How much a test run includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// At most three minutes.
    Quick,
    Default,
    /// The big numbers.
    Long,
}

/// What scenarios are run with.
pub(crate) struct Lab {
    pub(crate) bed: Bed,
    pub(crate) size: Size,
}

type Run = Box<dyn Fn(&Lab) -> Result<()>>;

/// One line of the test run.
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The smallest size that includes it.
    size: Size,
    pub(crate) run: Run,
}

/// The feature bits that scenarios look at.
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
/// Disk of a verified run.
const BYTES: u64 = 64 << 20;
/// All block sizes, mostly small.
const SPLIT: &str = "bssplit=512/20:4k/70:16k/8:128k/1.9:1m/0.1";

/// Every scenario that `size` includes.
pub(crate) fn all(size: Size, record: bool) -> Vec<Scenario> {
    let mut all = vec![
        scenario("the image's self-test passes on four processors", Size::Quick, |lab| {
            lab.bed.succeeds(&Draft::of("name=selftest scenario=selftest vcpus=4 queues=4 vectors=5")?.finish()?)
        }),
        scenario("random reads complete when polled, without an interrupt", Size::Quick, |lab| {
            let outcome = lab.boot("rw=randread mode=polled iodepth=32 iodepth_batch_submit=32 number_ios=20000")?;
            ensure!(outcome.report.interrupts == 0, "{} interrupts", outcome.report.interrupts);
            Ok(())
        }),
        scenario("random writes complete by interrupt", Size::Quick, |lab| {
            let outcome =
                lab.boot("rw=randwrite mode=interrupt iodepth=32 iodepth_batch_submit=32 number_ios=20000")?;
            ensure!(outcome.report.interrupts > 0, "no interrupt was taken");
            Ok(())
        }),
        scenario("what four queues wrote is what the host reads", Size::Quick, |lab| {
            let ios = match lab.size {
                Size::Quick => 5_000,
                Size::Default => 50_000,
                Size::Long => 1_000_000,
            };
            lab.verified(&format!("numjobs=4 queues=4 mode=interrupt iodepth=32 {SPLIT} number_ios={ios}"))
        }),
        scenario("submitters that share a queue lose nothing", Size::Quick, |lab| {
            lab.verified("numjobs=4 queues=1 submit=shared mode=interrupt iodepth=16 number_ios=4000")
        }),
        scenario("the bare ring does the same work", Size::Quick, |lab| {
            lab.boot("driver=raw mode=polled iodepth=32 iodepth_batch_submit=32 number_ios=20000").map(drop)
        }),
        scenario("discards reach a raw file", Size::Default, |lab| {
            lab.on_file("rw=randtrim mode=interrupt iodepth=8 number_ios=500", |job| job).map(drop)
        }),
        scenario("a read-only disk is read and reported as such", Size::Quick, |lab| {
            let outcome = lab.on_file("rw=randread mode=interrupt iodepth=8 number_ios=2000", protected)?;
            ensure!(outcome.boot.read_only, "the disk was not reported as read-only");
            Ok(())
        }),
        scenario("a write to a read-only disk is refused", Size::Quick, |lab| {
            refused(lab.on_file("rw=randwrite mode=interrupt number_ios=100", protected), "read-only")
        }),
        scenario("more queues than the device has are refused", Size::Quick, |lab| {
            let mut job = Draft::of("queues=4 numjobs=4 number_ios=100")?.finish()?;
            job.machine.device.queues = 2;
            refused(lab.bed.watched(&job, &mut |_, _| Ok(())), "queue")
        }),
        scenario("a guest that hangs is ended in time, with its last words", Size::Quick, hangs),
        scenario("a QEMU that is killed is an error", Size::Quick, killed),
        scenario("a disk that grows while I/O runs is noticed", Size::Quick, resized),
        scenario("two counts of the same work are equal", Size::Quick, |lab| {
            for words in [BATCH_1, BATCH_32] {
                let (first, second) = (lab.count(words)?, lab.count(words)?);
                ensure!(first == second, "{words}: {first:?}, then {second:?}");
            }
            Ok(())
        }),
        scenario("counts stay within their bounds", Size::Quick, move |lab| counts(lab, record)),
    ];
    all.extend(operations());
    all.extend(ladder());
    all.extend(features());
    all.extend(ring_sizes());
    all.extend(combinations());
    all.retain(|scenario| scenario.size <= size);
    all
}

fn scenario(name: &str, size: Size, run: impl Fn(&Lab) -> Result<()> + 'static) -> Scenario {
    Scenario { name: format!("qemu: {name}"), size, run: Box::new(run) }
}

/// Every operation, the refusals, and a reset under requests in flight; the image checks and says so.
fn operations() -> impl Iterator<Item = Scenario> {
    ["indirect=auto", "indirect=on", "indirect=off", "event_idx=off"].into_iter().map(|words| {
        scenario(&format!("every operation and a reset, {words}"), Size::Quick, move |lab| {
            let (_folder, job) =
                Lab::job_on_file(&format!("name=operations scenario=operations rw=write mode=polled {words}"))?;
            lab.bed.succeeds(&job)
        })
    })
}

/// The fallback ladder: four queues asked for, and fewer and fewer interrupts to serve them.
fn ladder() -> impl Iterator<Item = Scenario> {
    let rungs = [(5, "vector-per-queue", 4), (2, "shared", 4), (1, "single", 4), (0, "none", 1)];
    rungs.into_iter().map(|(vectors, rung, queues)| {
        scenario(&format!("{vectors} vectors for four queues reach the rung {rung}"), Size::Quick, move |lab| {
            let words = format!("queues=4 numjobs=4 vectors={vectors} mode=interrupt iodepth=8 number_ios=4000");
            let boot = lab.boot(&words)?.boot;
            ensure!(boot.rung.as_str() == rung, "the rung is {}", boot.rung);
            ensure!(boot.queues == queues, "{} queues are in use, not {queues}", boot.queues);
            Ok(())
        })
    })
}

/// Feature bits are used if, and only if, they are wanted and offered.
fn features() -> impl Iterator<Item = Scenario> {
    let wanted = [
        ("event_idx=on", EVENT_IDX, true),
        ("event_idx=off", EVENT_IDX, false),
        ("indirect=on", INDIRECT, true),
        ("indirect=auto", INDIRECT, true),
        ("indirect=off", INDIRECT, false),
    ];
    wanted.into_iter().map(|(words, bit, on)| {
        let state = if on { "negotiated" } else { "left alone" };
        scenario(&format!("{words} is {state}"), Size::Quick, move |lab| {
            let outcome = lab.boot(&format!("{words} mode=interrupt iodepth=32 number_ios=10000 {SPLIT}"))?;
            let used = outcome.boot.features & bit != 0;
            ensure!(used == on, "features are {:#x}", outcome.boot.features);
            Ok(())
        })
    })
}

fn ring_sizes() -> impl Iterator<Item = Scenario> {
    [4_u16, 8, 16, 32, 64, 128, 256, 512, 1024].into_iter().map(|entries| {
        let size = if matches!(entries, 4 | 128 | 1024) { Size::Quick } else { Size::Default };
        // Three descriptors per request, and room to round down.
        let depth = entries / 4;
        scenario(&format!("a ring of {entries} entries carries {depth} requests at a time"), size, move |lab| {
            let batch = depth.min(16);
            let outcome = lab.boot(&format!(
                "queue_size={entries} mode=interrupt iodepth={depth} iodepth_batch_submit={batch} number_ios=3000"
            ))?;
            ensure!(outcome.boot.queue_size == entries, "the ring has {} entries", outcome.boot.queue_size);
            Ok(())
        })
    })
}

/// What a combination is on.
const DISKS: [&str; 4] = ["null", "file", "read-only", "4k blocks"];

/// Every two values of these options meet in at least one run.
fn combinations() -> impl Iterator<Item = Scenario> {
    let queues = [1_u16, 2, 4];
    let switches = ["on", "off"];
    let rings = [8, 128, 1024];
    let vcpus = [1_u16, 2, 4];
    pairs::covering(&[3, 4, 2, 2, 3, 4, 3]).into_iter().map(move |row| {
        let queues = queues[row[0]];
        let vectors = [0, 1, 2, queues + 1][row[1]];
        let (event_idx, indirect) = (switches[row[2]], switches[row[3]]);
        let (ring, disk, vcpus) = (rings[row[4]], row[5], vcpus[row[6]]);
        let jobs = jobs(queues, vectors, vcpus);
        // A ring of 8 has room for two requests of three descriptors.
        let (depth, batch) = if ring == 8 { (2, 1) } else { (16, 4) };
        let words = format!(
            "queues={queues} vectors={vectors} event_idx={event_idx} indirect={indirect} queue_size={ring} \
             vcpus={vcpus} numjobs={jobs} mode=interrupt iodepth={depth} iodepth_batch_submit={batch}"
        );
        let name = format!(
            "{queues} queues, {vectors} vectors, event_idx {event_idx}, indirect {indirect}, ring {ring}, {}, {vcpus} vCPUs",
            DISKS[disk]
        );
        scenario(&name, Size::Default, move |lab| match disk {
            0 => lab.boot(&format!("{words} rw=randrw number_ios=3000")).map(drop),
            1 => lab.verified(&format!("{words} number_ios=1500 {SPLIT}")),
            2 => lab.on_file(&format!("{words} rw=randread number_ios=1500"), protected).map(drop),
            _ => lab.on_file(&format!("{words} rw=randrw bs=4k number_ios=1500"), large_blocks).map(drop),
        })
    })
}

/// As many jobs as have a queue and a vCPU each; one vCPU passes interrupts on where they are shared, and without
/// vectors there is one queue.
fn jobs(queues: u16, vectors: u16, vcpus: u16) -> u16 {
    match vectors {
        0 => 1,
        _ if vectors > queues => queues.min(vcpus),
        _ => queues.min(vcpus.saturating_sub(1).max(1)),
    }
}

const BATCH_1: &str = "iodepth=1";
const BATCH_32: &str = "iodepth=32 iodepth_batch_submit=32";

/// Counts against the bounds, and against what is stored for this compiler.
fn counts(lab: &Lab, record: bool) -> Result<()> {
    let path = icount::path();
    let rustc = crate::environment::rustc();
    let stored = icount::load(&path)?;
    for (job, words, must) in [("batch-1", BATCH_1, 220.0), ("batch-32", BATCH_32, 130.0)] {
        let count = lab.count(words)?;
        if record {
            icount::record(&path, &rustc, job, count)?;
        } else {
            icount::compare(&stored, &rustc, job, count, must)?;
        }
    }
    Ok(())
}

fn hangs(lab: &Lab) -> Result<()> {
    let limit = Duration::from_secs(8);
    let bed = Bed { timeout: Some(limit), ..lab.bed.clone() };
    let job = Draft::of("name=hang scenario=hang")?.finish()?;
    let start = Instant::now();
    let Err(error) = bed.succeeds(&job) else {
        bail!("the scenario ended well");
    };
    let line = fail::line(&error);
    ensure!(start.elapsed() < limit + Duration::from_secs(5), "it took {:?}", start.elapsed());
    ensure!(line.contains("hung") || line.contains("did not finish within"), "it was reported as: {line}");
    ensure!(!fail::tail(&error).is_empty(), "there are no last words");
    Ok(())
}

fn killed(lab: &Lab) -> Result<()> {
    let job = Draft::of("name=killed runtime=20 mode=interrupt iodepth=32")?.finish()?;
    let result = lab.bed.watched(&job, &mut |vm, _| {
        let id = nix::unistd::Pid::from_raw(vm.id().cast_signed());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).context("killing QEMU")
    });
    refused(result, "QEMU ended")
}

/// Doubles the disk through QMP once the workload runs; the image notes the new capacity.
fn resized(lab: &Lab) -> Result<()> {
    let sectors = 2 * BYTES / 512;
    for mode in ["interrupt", "polled"] {
        let words = format!("rw=randrw mode={mode} iodepth=8 runtime=1 size=8m");
        let outcome = lab.on_file_watched(&words, |job| job, &mut |vm, line| {
            if matches!(line, workload::report::Line::Boot(_)) {
                std::thread::sleep(Duration::from_millis(300));
                vm.resize(2 * BYTES)?;
            }
            Ok(())
        })?;
        let noticed = outcome.notes.iter().any(|note| note.contains(&sectors.to_string()));
        ensure!(noticed, "{mode}: no note names {sectors} sectors: {:?}", outcome.notes);
    }
    Ok(())
}

fn protected(mut job: Job) -> Job {
    job.machine.disk = job.machine.disk.protected();
    job
}

fn large_blocks(mut job: Job) -> Job {
    job.machine.device.block_size = 4096;
    job
}

/// The run must fail, and its one line must contain `word`.
fn refused(result: Result<Outcome>, word: &str) -> Result<()> {
    let Err(error) = result else {
        bail!("it was not refused");
    };
    let line = fail::line(&error);
    if line.contains(word) { Ok(()) } else { Err(error.context("it was refused, but not for that reason")) }
}

impl Lab {
    /// Boots a job on the null disk.
    fn boot(&self, words: &str) -> Result<Outcome> {
        let job = Draft::of(words)?.finish()?;
        self.bed.watched(&job, &mut |_, _| Ok(()))
    }

    /// Boots a job on a file of zeros, on a machine changed by `change`.
    fn on_file(&self, words: &str, change: fn(Job) -> Job) -> Result<Outcome> {
        self.on_file_watched(words, change, &mut |_, _| Ok(()))
    }

    fn on_file_watched(&self, words: &str, change: fn(Job) -> Job, watch: crate::run::Watch<'_>) -> Result<Outcome> {
        let (_folder, job) = Self::job_on_file(words)?;
        self.bed.watched(&change(job), watch)
    }

    /// Writes and verifies in the guest, then checks the file here.
    fn verified(&self, words: &str) -> Result<()> {
        let (_folder, job) = Self::job_on_file(&format!("rw=randrw verify=crc32c {words}"))?;
        self.bed.watched(&job, &mut |_, _| Ok(()))?;
        verify::check(&job.machine.disk).map(drop)
    }

    fn job_on_file(words: &str) -> Result<(tempfile::TempDir, Job)> {
        let folder = tempfile::tempdir().context("making a folder for the disk")?;
        let path = folder.path().join("disk.raw");
        Disk::create(&path, BYTES)?;
        let mut draft = Draft::of(words)?;
        draft.set("disk", &path.to_string_lossy())?;
        let job = draft.finish()?;
        Ok((folder, job))
    }

    /// Instructions per I/O.
    fn count(&self, words: &str) -> Result<Count> {
        let report = self.boot(&format!("icount=on rw=randread queues=1 {words}"))?.report;
        let counted = report.instructions.context("the image counted no instructions")?;
        Ok(Count { submit: counted.submit_milli as f64 / 1000.0, complete: counted.complete_milli as f64 / 1000.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_sizes_include_one_another() {
        let names: HashSet<String> = all(Size::Long, false).into_iter().map(|one| one.name).collect();
        assert_eq!(names.len(), all(Size::Long, false).len());
        assert!(all(Size::Quick, false).len() < all(Size::Default, false).len());
    }
}
