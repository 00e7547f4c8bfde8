//! What every device must do: one list of scenarios, run on devices that others wrote.
//!
//! qemu-storage-daemon on a raw file, the device on rust-vmm's rings in a process of its own, QEMU's PCI device; and a few
//! of them on a device of our own that breaks rules as devices in the field do. To add a scenario: a name, the smallest
//! size that includes it, and a closure over [`Lab`], which runs on whichever device is at hand. Every run that writes
//! data is checked by the host afterwards. Running and counting is `testrun`'s.
use crate::backend::{Backend, Server};
use crate::fail::{is_skip, line};
use crate::job::{Draft, Job};
use crate::kills;
use crate::lab::{Lab, Run, SPLIT, Size, protected, refused};
use crate::over_blockd;
use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use serde_json::json;

/// Whom the driver is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    StorageDaemon,
    RustVmm,
    Qemu,
    /// Reports lengths that cannot be, offers what cannot be used, and refuses features.
    Deviating,
}

impl Device {
    pub(crate) const ALL: [Self; 4] = [Self::StorageDaemon, Self::RustVmm, Self::Qemu, Self::Deviating];
    /// Those that keep to the specification.
    const SOUND: [Self; 3] = [Self::StorageDaemon, Self::RustVmm, Self::Qemu];
    /// Those that are another process than the driver.
    const APART: [Self; 2] = [Self::StorageDaemon, Self::RustVmm];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StorageDaemon => "qemu-storage-daemon",
            Self::RustVmm => "rust-vmm",
            Self::Qemu => "QEMU",
            Self::Deviating => "deviating",
        }
    }

    /// The words that name it in a job.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::StorageDaemon => "backend=vhost-user",
            Self::RustVmm => "backend=vhost-user device=rust-vmm",
            Self::Qemu => "",
            Self::Deviating => "backend=vhost-user device=deviating",
        }
    }
}

/// A row of the table.
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The smallest size that includes it.
    size: Size,
    /// Where it means something.
    devices: &'static [Device],
    pub(crate) run: Run,
}

impl Scenario {
    /// Whether it means anything on `device`.
    pub(crate) fn is_for(&self, device: Device) -> bool {
        self.devices.contains(&device)
    }

    /// The same scenario, on the device that deviates as well.
    pub(crate) fn everywhere(self) -> Self {
        Self { devices: &Device::ALL, ..self }
    }

    /// The step's name.
    pub(crate) fn on(&self, device: Device) -> String {
        format!("conformance: {} on {}", self.name, device.name())
    }
}

/// Error numbers that a file system gives.
const EIO: i32 = 5;

/// The feature bits that scenarios look at.
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const DISCARD: u64 = 1 << 13;
const RING_RESET: u64 = 1 << 40;

/// Every scenario that `size` includes.
pub(crate) fn all(size: Size) -> Vec<Scenario> {
    let mut all = data();
    all.extend(rules());
    all.extend(operations());
    all.extend(features());
    all.extend(ring_sizes());
    all.extend(over_blockd::all());
    all.extend(deviations());
    all.retain(|scenario| scenario.size <= size);
    all
}

/// What the device that deviates does, and what becomes of it.
fn deviations() -> impl Iterator<Item = Scenario> {
    let lengths = scenario("lengths that cannot be are counted, and the data is whole", Size::Quick, |lab| {
        let words = "mode=polled iodepth=16 iodepth_batch_submit=4 queues=2 numjobs=2";
        let outcome = lab.verified(&format!("{words} {SPLIT} number_ios={}", few(lab)))?;
        let (odd, done) = (outcome.report.length_anomalies, outcome.report.completed);
        // Every fourth length is above what a read may have, three in four above what a write may.
        ensure!((done / 4..done).contains(&odd), "{odd} odd lengths in {done} answers");
        ensure!(outcome.notes.iter().any(|note| note.contains("more bytes")), "no note tells of them");
        Ok(())
    });
    let unusable =
        scenario("an operation that cannot be used counts as not offered, and a note says so", Size::Quick, |lab| {
            let outcome = lab.verified(&format!("mode=interrupt iodepth=4 number_ios={}", few(lab)))?;
            ensure!(outcome.boot.features & DISCARD == 0, "features are {:#x}", outcome.boot.features);
            let told = outcome.notes.iter().any(|note| note.contains("offers DISCARD") && note.contains("not offered"));
            ensure!(told, "no note tells of it: {:?}", outcome.notes);
            Ok(())
        });
    let refused = scenario("features that it insists on are accepted at the second attempt", Size::Quick, |lab| {
        let words = "backend=embedded device=deviating mode=polled event_idx=off indirect=off iodepth=8";
        let job = Draft::of(&format!("{words} number_ios={}", few(lab)))?.finish()?;
        let outcome = lab.bed.watched(&job, &mut |_, _| Ok(()))?;
        let features = outcome.boot.features;
        let (needed, foreign) = (EVENT_IDX | INDIRECT, features & RING_RESET);
        ensure!(features & needed == needed && foreign == 0, "features are {features:#x}");
        let told = outcome.notes.iter().any(|note| note.contains("insists on INDIRECT_DESC, EVENT_IDX"));
        ensure!(told, "no note tells of it: {:?}", outcome.notes);
        Ok(())
    });
    [lengths, unusable, refused].into_iter().map(|one| Scenario { devices: &[Device::Deviating], ..one })
}

/// What was written is what is read, however it travels.
fn data() -> Vec<Scenario> {
    vec![
        scenario("what four queues wrote is what the host reads", Size::Quick, |lab| {
            let ios = lab.size.pick(5_000, 50_000, 1_000_000);
            lab.verified(&format!("numjobs=4 queues=4 mode=interrupt iodepth=32 {SPLIT} number_ios={ios}")).map(drop)
        }),
        scenario("two jobs on two queues, polled", Size::Quick, |lab| {
            let words = "numjobs=2 queues=2 mode=polled iodepth=16 iodepth_batch_submit=8";
            lab.verified(&format!("{words} {SPLIT} number_ios={}", few(lab))).map(drop)
        }),
        scenario("submitters that share a queue lose nothing", Size::Quick, |lab| {
            let words = "numjobs=4 queues=1 submit=shared mode=interrupt iodepth=16";
            lab.verified(&format!("{words} number_ios={}", few(lab))).map(drop)
        })
        .everywhere(),
        scenario("polled, without an interrupt", Size::Quick, |lab| {
            let words = "mode=polled iodepth=32 iodepth_batch_submit=32";
            let outcome = lab.verified(&format!("{words} {SPLIT} number_ios={}", few(lab)))?;
            ensure!(outcome.report.interrupts == 0, "{} interrupts", outcome.report.interrupts);
            Ok(())
        }),
        scenario("by interrupt", Size::Quick, |lab| {
            let words = "mode=interrupt iodepth=32 iodepth_batch_submit=32";
            let outcome = lab.verified(&format!("{words} {SPLIT} number_ios={}", few(lab)))?;
            ensure!(outcome.report.interrupts > 0, "no interrupt was taken");
            Ok(())
        })
        .everywhere(),
        scenario("one request at a time by interrupt", Size::Quick, |lab| {
            lab.verified("mode=interrupt iodepth=1 number_ios=500").map(drop)
        }),
    ]
}

/// One request of sixteen fails, the fourth, on a file on which QEMU's blkdebug lets it.
fn failing(lab: &Lab) -> Result<()> {
    const ENOSPC: i32 = 28;
    let kinds = [("rw=write", "write", EIO), ("rw=read", "read", EIO), ("rw=write", "write", ENOSPC)];
    // QEMU stops a guest whose disk is full.
    let kinds = if lab.place.is_empty() { &kinds[..2] } else { &kinds[..] };
    for (rw, kind, errno) in kinds {
        for via in ["mode=polled", "via=blockd mode=interrupt"] {
            let (_folder, mut job) = lab.job_on_file(&format!("{rw} bs=4k size=64k number_ios=16 {via}"))?;
            let error = json!({"event": "none", "iotype": kind, "errno": errno, "sector": 24, "once": false});
            job.machine.disk = job.machine.disk.failing(error);
            let first = format!("the first: {kind} of 4096 bytes at sector 24: medium: input/output error");
            let line = format!("1 requests that ended in an error: medium 1; {first}");
            refused(lab.bed.watched(&job, &mut |_, _| Ok(())), &line)?;
        }
    }
    Ok(())
}

/// Trims on a disk that was written, which reads as zeros then, for the driver and for the host.
fn trimmed(lab: &Lab) -> Result<()> {
    for words in
        ["rw=trim mode=interrupt", "rw=randtrim mode=polled", "rw=randtrim mode=interrupt via=blockd clients=2"]
    {
        let words = format!("{words} verify=crc32c bssplit=4k/70:64k/30 size=1m iodepth=8 number_ios=300");
        let (_folder, job) = lab.job_on_file(&words)?;
        let verified = lab.verified_job(&job);
        // qemu-storage-daemon offers WRITE ZEROES and, in the versions known here, does not say that it may unmap.
        let may_be_refused = lab.place == Device::StorageDaemon.place();
        if may_be_refused && verified.as_ref().is_err_and(|error| line(error).contains("WRITE ZEROES with unmap")) {
            continue;
        }
        let outcome = verified?;
        let [trims, writes, reads] =
            [&outcome.report.trim, &outcome.report.write, &outcome.report.read].map(|way| way.ios);
        ensure!(
            trims >= 300 && writes == trims && reads == trims,
            "{trims} trims, {writes} writes before, {reads} reads after"
        );
    }
    Ok(())
}

/// Order, rights, and either side's sudden end.
fn rules() -> Vec<Scenario> {
    vec![
        scenario("flush keeps its order", Size::Quick, |lab| {
            lab.succeeds("name=flush scenario=flush rw=write mode=interrupt")
        })
        .everywhere(),
        scenario("a read-only disk is read and reported as such", Size::Quick, |lab| {
            let outcome = lab.on_file("rw=randread mode=interrupt iodepth=8 number_ios=2000", protected)?;
            ensure!(outcome.boot.read_only, "the disk was not reported as read-only");
            Ok(())
        }),
        scenario("a write to a read-only disk is refused", Size::Quick, |lab| {
            refused(lab.on_file("rw=randwrite mode=interrupt number_ios=100", protected), "read-only")
        }),
        Scenario {
            devices: &[Device::StorageDaemon, Device::Qemu],
            ..scenario("a request that fails is told with its fault, its kind and its place", Size::Quick, failing)
        },
        scenario("what is trimmed under verify reads as zeros, or is refused before it starts", Size::Quick, trimmed),
        scenario("the device is killed in mid-I/O and started again", Size::Quick, kills::device),
        Scenario {
            devices: &Device::APART,
            ..scenario("the driver is killed in mid-I/O and started again", Size::Quick, kills::driver)
        },
        Scenario {
            devices: &[Device::RustVmm],
            ..scenario("what was flushed outlives a volatile cache", Size::Quick, |lab| {
                let words = "rw=randrw verify=crc32c mode=interrupt numjobs=2 queues=2 iodepth=16";
                let (_folder, job) = lab.job_on_file(&format!("{words} {SPLIT} number_ios={}", few(lab)))?;
                lab.verified_job(&volatile(job)).map(drop)
            })
        },
    ]
}

/// The same job on a device that forgets with its process what was not flushed.
fn volatile(mut job: Job) -> Job {
    job.backend = Backend::VhostUser(Server::RustVmm { volatile: true });
    job
}

/// I/Os of a scenario whose point is not their number.
pub(crate) fn few(lab: &Lab) -> u32 {
    lab.size.pick(800, 4_000, 20_000)
}

pub(crate) fn scenario(name: &str, size: Size, run: impl Fn(&Lab) -> Result<()> + 'static) -> Scenario {
    Scenario { name: name.to_owned(), size, devices: &Device::SOUND, run: Box::new(run) }
}

/// Every operation, the refusals, and a reset under requests in flight; the runner checks and says so.
fn operations() -> impl Iterator<Item = Scenario> {
    ["indirect=auto", "indirect=on", "indirect=off", "event_idx=off"].into_iter().map(|words| {
        scenario(&format!("every operation and a reset, {words}"), Size::Quick, move |lab| {
            lab.succeeds(&format!("name=operations scenario=operations rw=write mode=polled {words}"))
        })
        .everywhere()
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
            let words = format!("{words} mode=interrupt iodepth=32 {SPLIT} number_ios={}", few(lab));
            let outcome = lab.verified(&words)?;
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
        scenario(&format!("a ring of {entries} entries, {depth} requests at a time"), size, move |lab| {
            let (batch, ios) = (depth.min(16), u32::from(depth) * 4 + 400);
            let outcome = lab.verified(&format!(
                "queue_size={entries} mode=interrupt iodepth={depth} iodepth_batch_submit={batch} number_ios={ios}"
            ))?;
            ensure!(outcome.boot.queue_size == entries, "the ring has {} entries", outcome.boot.queue_size);
            Ok(())
        })
    })
}

/// What came of one scenario on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It means nothing there, or was not asked for.
    #[default]
    None,
    Ok,
    Failed,
    Skipped,
}

impl Mark {
    pub(crate) fn of(result: &Result<()>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(error) if is_skip(error) => Self::Skipped,
            Err(_) => Self::Failed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::None => "–",
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// Scenarios and what came of them on each device.
pub(crate) fn table(rows: &[(String, [Mark; Device::ALL.len()])]) -> String {
    let mut table = Table::new();
    let headings = std::iter::once("conformance").chain(Device::ALL.map(Device::name));
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings);
    for (name, marks) in rows.iter().filter(|(_, marks)| marks.iter().any(|mark| *mark != Mark::None)) {
        table.add_row(std::iter::once(name.as_str()).chain(marks.map(Mark::word)));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fail::Skip;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_sizes_include_one_another() {
        let names: HashSet<String> = all(Size::Long).into_iter().map(|one| one.name).collect();
        assert_eq!(names.len(), all(Size::Long).len());
        assert!(all(Size::Quick).len() < all(Size::Default).len());
    }

    #[test]
    fn every_device_has_all_scenarios_but_those_that_mean_nothing_there() {
        let all = all(Size::Long);
        let left_out = |device| all.iter().filter(|one| !one.is_for(device)).count();
        // Three are for the device that deviates alone.
        assert_eq!(Device::SOUND.map(left_out), [4, 4, 5]);
        let there: Vec<&Scenario> = all.iter().filter(|one| one.is_for(Device::Deviating)).collect();
        assert!(there.len() >= 10 && there.iter().any(|one| one.name.starts_with("via blockd")));
    }

    #[test]
    fn the_table_tells_failed_from_skipped_and_leaves_out_what_was_not_run() {
        let skipped = Mark::of(&Err(Skip("no QEMU".into()).into()));
        let failed = Mark::of(&Err(anyhow::anyhow!("lost data")));
        let rows =
            [("one".to_owned(), [Mark::Ok, failed, skipped, Mark::None]), ("unseen".to_owned(), [Mark::None; 4])];
        let text = table(&rows);
        let row = text.lines().find(|line| line.contains("one")).unwrap();
        assert!(row.find("ok") < row.find("FAILED") && row.find("FAILED") < row.find("skipped"), "{text}");
        assert!(!text.contains("unseen"), "{text}");
    }
}
