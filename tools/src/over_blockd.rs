//! What must hold on every device with blockd's storage path in front of the driver: rows of the conformance table.
//!
//! Clients write and verify through lib-block, the host reads the disk afterwards; where clients have partitions, it
//! reads each by itself, and everything around them must be as it was. A disk whose table cannot be believed is left
//! alone altogether.
use crate::blockd::Frame;
use crate::conformance::{Scenario, few, scenario};
use crate::lab::{Lab, SPLIT, Size, protected, refused};
use crate::partitions::{self, Which};
use anyhow::{Context, Result, ensure};

/// Every row.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = verified().chain(on_partitions()).collect();
    all.push(scenario("via blockd: a write to a read-only disk is refused", Size::Quick, |lab| {
        let words = "via=blockd rw=randwrite mode=interrupt number_ios=100";
        refused(lab.on_file(words, protected), "read-only")
    }));
    all.push(scenario("via blockd: calls and their refusals", Size::Quick, |lab| {
        lab.succeeds("name=calls scenario=blockd via=blockd front=stepped rw=write mode=polled")
    }));
    all.push(scenario("via blockd: a read-only disk is read", Size::Quick, |lab| {
        let words = "via=blockd rw=randread mode=interrupt iodepth=8 clients=2";
        lab.on_file(&format!("{words} number_ios={}", few(lab)), protected).map(drop)
    }));
    all.extend(Which::ALL.map(|which| {
        // One of each kind; the others differ in the block that is wrong.
        let first = matches!(which, Which::PrimaryHeader | Which::BothEntries | Which::Overlap);
        let size = if first { Size::Quick } else { Size::Default };
        let end = if which.leaves_a_copy() { "is published from its other copy" } else { "is left alone" };
        scenario(&format!("via blockd: a disk with {} {end}", damage(which)), size, move |lab| spoiled(lab, which))
    }));
    all
}

/// Clients that share the whole disk.
fn verified() -> impl Iterator<Item = Scenario> {
    let rows = [
        ("one client, stepped", "front=stepped mode=polled iodepth=32 iodepth_batch_submit=8"),
        ("one client, polled", "mode=polled iodepth=32 iodepth_batch_submit=32"),
        ("one client, by interrupt", "mode=interrupt iodepth=32 iodepth_batch_submit=32"),
        ("one request at a time", "mode=interrupt iodepth=1"),
        ("three clients of one front end", "clients=3 mode=interrupt iodepth=16 iodepth_batch_submit=4"),
        ("two clients on two queues, polled", "clients=2 queues=2 mode=polled iodepth=16 iodepth_batch_submit=8"),
        ("four clients on two queues", "clients=4 queues=2 mode=interrupt iodepth=16 iodepth_batch_submit=8"),
        ("two queues on one interrupt", "clients=2 queues=2 vectors=1 mode=interrupt iodepth=16"),
        ("no interrupt at all", "clients=2 vectors=0 mode=interrupt iodepth=8"),
        ("more requests than slots", "clients=2 queue_size=8 mode=interrupt iodepth=64 iodepth_batch_submit=32"),
        ("no indirect descriptors", "clients=2 indirect=off mode=interrupt iodepth=16"),
        ("no event indices", "clients=2 event_idx=off mode=interrupt iodepth=16"),
    ];
    rows.into_iter().map(|(name, words)| {
        let row = scenario(&format!("via blockd: {name}"), Size::Quick, move |lab| {
            lab.verified(&format!("via=blockd {words} {SPLIT} number_ios={}", few(lab))).map(drop)
        });
        if name.starts_with("three clients") { row.everywhere() } else { row }
    })
}

/// Each client on a partition of its own.
fn on_partitions() -> impl Iterator<Item = Scenario> {
    let rows = [
        ("one client on its partition, stepped", 1, "front=stepped mode=polled iodepth=16 iodepth_batch_submit=8"),
        ("three clients on partitions", 3, "mode=interrupt iodepth=16 iodepth_batch_submit=8"),
        ("four clients on partitions and two queues", 4, "queues=2 mode=interrupt iodepth=16"),
    ];
    rows.into_iter().map(|(name, clients, words)| {
        scenario(&format!("via blockd: {name}"), Size::Quick, move |lab| {
            let words = format!("rw=randrw verify=crc32c {words} {SPLIT} number_ios={}", few(lab));
            let (_folder, job) = lab.job_on_partitions(&words, clients)?;
            lab.verified_job(&job).map(drop)
        })
    })
}

fn damage(which: Which) -> &'static str {
    match which {
        Which::PrimaryHeader => "a damaged primary header",
        Which::BackupHeader => "a damaged backup header",
        Which::BothHeaders => "two damaged headers",
        Which::PrimaryEntries => "damaged primary entries",
        Which::BothEntries => "entries damaged twice",
        Which::Overlap => "partitions that overlap",
        Which::BeyondEnd => "a partition beyond its end",
        Which::IntoTable => "a partition over its table",
    }
}

/// Why blockd publishes nothing of such a disk.
fn reason(which: Which) -> &'static str {
    match which {
        Which::BothEntries => "primary: wrong checksum of the entries; backup: wrong checksum of the entries",
        Which::Overlap => "partition 2 overlaps partition 1",
        Which::BeyondEnd | Which::IntoTable => "partition 2 reaches out of the usable blocks",
        _ => "primary: wrong checksum of the header; backup: wrong checksum of the header",
    }
}

/// A run on a disk that was damaged after the tool had looked at it.
fn spoiled(lab: &Lab, which: Which) -> Result<()> {
    let words = format!("rw=randrw verify=crc32c mode=interrupt iodepth=8 number_ios={}", few(lab));
    let (_folder, job) = lab.job_on_partitions(&words, 2)?;
    let path = job.machine.disk.path().context("there is no file")?;
    partitions::spoil(path, which)?;
    if which.leaves_a_copy() {
        let outcome = lab.verified_job(&job)?;
        ensure!(outcome.notes.iter().any(|note| note.contains("is damaged")), "the damage was not reported");
        return Ok(());
    }
    let all = Frame::around(path, &[])?;
    refused(lab.bed.watched(&job, &mut |_, _| Ok(())), reason(which))?;
    all.holds()
}
