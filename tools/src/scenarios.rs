//! What is tested under QEMU only: each scenario boots the image on some machine and asserts on what it reports. What
//! every device must do is in `conformance`.
//!
//! To add one: a name, the smallest size that includes it, and a closure over [`Lab`], whose helpers boot, verify and
//! compare. Knows what must hold; running and counting is `testrun`'s.
use crate::compared;
use crate::counts::{self, BATCH_1, BATCH_32, LIB_BLOCK_1, LIB_BLOCK_32};
use crate::disk::Disk;
use crate::fail::{self, Skip};
use crate::fewer_vectors;
use crate::job::{Draft, Job};
use crate::lab::{BYTES, Lab, Run, SPLIT, Size, protected, refused};
use crate::odd_machines;
use crate::pairs;
use crate::process::capture;
use crate::run::Bed;
use anyhow::{Context, Result, bail, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

/// One line of the test run.
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The smallest size that includes it.
    pub(crate) size: Size,
    pub(crate) run: Run,
}

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
        scenario("the bare ring does the same work", Size::Quick, |lab| {
            lab.boot("driver=raw mode=polled iodepth=32 iodepth_batch_submit=32 number_ios=20000").map(drop)
        }),
        scenario("two counts of virtio-drivers are equal", Size::Quick, |lab| {
            let jobs = ["iodepth=1", "iodepth=16 iodepth_batch_submit=16"];
            counts::are_equal_of(lab, &jobs.map(|words| format!("driver=virtio-drivers number_ios=8192 {words}")))
        }),
        scenario("discards reach a raw file", Size::Default, |lab| {
            lab.on_file("rw=randtrim mode=interrupt iodepth=8 number_ios=500", |job| job).map(drop)
        }),
        scenario("more queues than the device has are refused", Size::Quick, |lab| {
            let mut job = Draft::of("queues=4 numjobs=4 number_ios=100")?.finish()?;
            job.machine.device.queues = 2;
            refused(lab.bed.watched(&job, &mut |_, _| Ok(())), "queue")
        }),
        scenario("a guest that hangs is ended in time, with its last words", Size::Quick, hangs),
        scenario("a QEMU that is killed is an error", Size::Quick, killed),
        scenario("a host disk that is full ends the run at once, with QEMU's reason", Size::Quick, full),
        scenario("a disk that grows while I/O runs is noticed", Size::Quick, resized),
        scenario("requests beyond the end of a disk that shrank are the medium's errors", Size::Quick, shrunk),
        scenario(
            "a block size or a trim that the device does not have is refused before any request",
            Size::Quick,
            |lab| {
                let words = "rw=randread bs=512 mode=polled number_ios=100";
                for driver in ["ours", "raw", "virtio-drivers"] {
                    let outcome = lab.on_file(&format!("{words} driver={driver}"), large_blocks);
                    refused(outcome, "bs=512 is not a multiple of the device's blocks of 4096 bytes: give bs=4096")?;
                }
                let words = "rw=randtrim mode=polled number_ios=100";
                refused(lab.on_file(words, without_ranges), "does not offer DISCARD")?;
                refused(lab.on_file(&format!("via=blockd {words}"), without_ranges), "does not offer DISCARD")?;
                refused(lab.on_file(&format!("verify=crc32c {words}"), without_ranges), "WRITE ZEROES with unmap")
            },
        ),
        scenario("two counts of the same work are equal", Size::Quick, counts::are_equal),
        scenario("what lib-block adds to the counts stays within its bounds", Size::Quick, move |lab| {
            let jobs = [("lib-block-1", BATCH_1, LIB_BLOCK_1), ("lib-block-32", BATCH_32, LIB_BLOCK_32)];
            counts::added_are_bounded(lab, record, jobs)
        }),
        scenario("counts stay within their bounds", Size::Quick, move |lab| {
            counts::are_bounded(lab, record, [("batch-1", BATCH_1, 220.0), ("batch-32", BATCH_32, 130.0)])
        }),
    ];
    all.extend(peers());
    all.extend(restarts());
    all.extend(ladder());
    all.extend(fewer_vectors::all());
    all.extend(odd_machines::all());
    all.extend(combinations());
    all.extend(compared::all());
    all.retain(|scenario| scenario.size <= size);
    all
}

pub(crate) fn scenario(name: &str, size: Size, run: impl Fn(&Lab) -> Result<()> + 'static) -> Scenario {
    Scenario { name: format!("qemu: {name}"), size, run: Box::new(run) }
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

/// The driver to compare with, with and without what it can make of event indices and indirect tables.
fn peers() -> impl Iterator<Item = Scenario> {
    let jobs = [("on", "auto", 1), ("off", "auto", 1), ("on", "auto", 16), ("off", "auto", 16), ("off", "off", 5)];
    jobs.into_iter().map(|(event_idx, indirect, depth)| {
        let name =
            format!("virtio-drivers does the same work, event_idx {event_idx}, indirect {indirect}, depth {depth}");
        scenario(&name, Size::Quick, move |lab| {
            let words = format!("driver=virtio-drivers event_idx={event_idx} indirect={indirect} rw=randrw");
            let outcome =
                lab.boot(&format!("{words} iodepth={depth} iodepth_batch_submit={depth} number_ios=20000"))?;
            let (boot, report) = (outcome.boot, outcome.report);
            ensure!(
                boot.queue_size == 16 && boot.slots >= depth,
                "a ring of {}, {} slots",
                boot.queue_size,
                boot.slots
            );
            ensure!(report.read.ios > 0 && report.write.ios > 0, "it did not both read and write");
            let rung = report.notifications.context("its doorbells are counted")?;
            ensure!((1..=report.submitted).contains(&rung), "{rung} doorbells for {} requests", report.submitted);
            Ok(())
        })
    })
}

/// A driver that is killed at any instruction while two clients verify, and begun again.
fn restarts() -> impl Iterator<Item = Scenario> {
    ["polled", "interrupt"].into_iter().map(|mode| {
        let name = format!("a driver that is killed is begun again, and nothing is lost, {mode}");
        scenario(&name, Size::Default, move |lab| {
            let kills = lab.size.pick(5, 20, 100);
            // A vCPU for each client, the driver, and whoever kills it.
            let words = format!(
                "name=restart scenario=restart via=blockd clients=2 vcpus=4 kills={kills} mode={mode} \
                 iodepth=32 iodepth_batch_submit=8 size=16m {SPLIT}"
            );
            let outcome = lab.verified(&words)?;
            let told = outcome.notes.iter().any(|note| note.contains(&format!(" {kills} kills")));
            ensure!(told, "no note tells of {kills} kills: {:?}", outcome.notes);
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
            1 => lab.verified(&format!("{words} number_ios=1500 {SPLIT}")).map(drop),
            2 => lab.on_file(&format!("{words} rw=randread number_ios=1500"), protected).map(drop),
            _ => lab.on_file(&format!("{words} rw=randrw bs=4k number_ios=1500"), large_blocks).map(drop),
        })
    })
}

/// As many jobs as have a queue and a vCPU each; without vectors there is one queue.
fn jobs(queues: u16, vectors: u16, vcpus: u16) -> u16 {
    if vectors == 0 { 1 } else { queues.min(vcpus) }
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

/// A file system of its own, in memory.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("making a folder for a small file system")?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path());
        let mounted = capture(&mut mount, Duration::from_secs(20), |_| ());
        match mounted {
            Ok(ran) if ran.status.success() => Ok(Self(folder)),
            Ok(ran) => Err(Skip(format!("no file system can be mounted here: {}", ran.lines.join(" "))).into()),
            Err(error) => Err(Skip(fail::line(&error)).into()),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _reported_by_the_folder = capture(unmount.arg("-l").arg(self.0.path()), Duration::from_secs(20), |_| ());
    }
}

/// QEMU stops a guest that writes to a host's disk that is full, in case somebody makes room and continues it.
fn full(lab: &Lab) -> Result<()> {
    let small = Small::new()?;
    let path = small.0.path().join("disk.raw");
    Disk::create(&path, BYTES)?;
    // All of it does not fit; an hour is longer than anybody waits.
    let job = lab.job_on(&path, "rw=write bs=64k iodepth=8 mode=interrupt runtime=3600")?;
    let result = lab.bed.watched(&job, &mut |_, _| Ok(()));
    refused(result, "a write of the disk failed: No space left on device")
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

/// Halves the disk through QMP once the image is up.
fn shrunk(lab: &Lab) -> Result<()> {
    let words = "rw=randwrite mode=interrupt bs=4k iodepth=8 runtime=1";
    let result = lab.on_file_watched(words, |job| job, &mut |vm, line| {
        if matches!(line, workload::report::Line::Boot(_)) { vm.resize(BYTES / 2) } else { Ok(()) }
    });
    let line = fail::line(&result.err().context("writes beyond the end of the disk succeeded")?);
    let change = format!("capacity changed from {} to {} sectors", BYTES / 512, BYTES / 1024);
    for part in ["requests that ended in an error: medium ", "; the first: write of 4096 bytes at sector ", &change] {
        ensure!(line.contains(part), "`{part}` is not in: {line}");
    }
    let blamed = line.split_once("error: medium ").and_then(|(_, rest)| rest.split_once("; the first"));
    ensure!(blamed.is_some_and(|(count, _)| count.parse().is_ok_and(|count: u64| count > 0)), "others, too: {line}");
    Ok(())
}

fn without_ranges(mut job: Job) -> Job {
    job.machine.device.ranges = false;
    job
}

fn large_blocks(mut job: Job) -> Job {
    job.machine.device.block_size = 4096;
    job
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
