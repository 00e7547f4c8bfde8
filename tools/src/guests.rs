//! What is tested of whole guests: Linux doing the work, and the counting of everything that a guest executes.
//!
//! Linux' guest is made by the first scenario that needs it; where its packages cannot be had, that is why it is skipped.
use crate::fail::{self, Skip};
use crate::guest_count;
use crate::job::Draft;
use crate::lab::{Lab, Size, refused};
use crate::linux;
use crate::run::Bed;
use crate::scenarios::Scenario;
use crate::setup;
use anyhow::{Result, ensure};

/// How many I/Os each run has.
const IOS: u64 = 20_000;
/// Two counts of the same work may differ by this share: the device answers in real time.
const ALIKE: f64 = 0.3;

/// Every scenario that `size` includes; `install` allows to install and download what they need.
pub(crate) fn all(size: Size, install: bool) -> Vec<Scenario> {
    let mut all = vec![
        scenario("linux: every read completes, by interrupts and polled", Size::Default, move |lab| {
            works(lab, install)
        }),
        scenario("linux: a disk that it cannot poll is refused", Size::Long, move |lab| unpolled(lab, install)),
        scenario("qemu: the whole guest's instructions are counted alike twice", Size::Default, alike),
    ];
    all.retain(|scenario| scenario.size <= size);
    all
}

fn scenario(name: &str, size: Size, run: impl Fn(&Lab) -> Result<()> + 'static) -> Scenario {
    Scenario { name: name.to_owned(), size, run: Box::new(run) }
}

fn bed(lab: &Lab, install: bool) -> Result<Bed> {
    setup::fio(install).map_err(|error| Skip(fail::line(&error)))?;
    let guest = linux::guest(install)?;
    Ok(Bed { linux: Some(guest), ..lab.bed.clone() })
}

fn words(mode: &str) -> String {
    format!("driver=linux mode={mode} iodepth=32 iodepth_batch_submit=8 number_ios={IOS}")
}

fn works(lab: &Lab, install: bool) -> Result<()> {
    let bed = bed(lab, install)?;
    for mode in ["interrupt", "polled"] {
        let outcome = bed.watched(&Draft::of(&words(mode))?.finish()?, &mut |_, _| Ok(()))?;
        let report = &outcome.report;
        ensure!(report.read.ios == IOS && report.read.bytes == IOS * 4096, "{mode}: {:?}", report.read);
        ensure!(report.read.percentiles_ns.iter().is_sorted(), "{mode}: {:?}", report.read.percentiles_ns);
        // Each interrupt covers several requests at this depth, and not all of them.
        let few = report.interrupts < IOS / 1000;
        ensure!(few == (mode == "polled"), "{mode}: {} interrupts for {IOS} reads", report.interrupts);
        ensure!(outcome.busy.is_some_and(|seconds| seconds > 0.0), "{mode}: no processor time was taken");
        ensure!(report.notifications.is_none(), "{mode}: nobody counted notifications");
    }
    Ok(())
}

/// Polling takes a second queue; with one, Linux waits for interrupts and says nothing.
fn unpolled(lab: &Lab, install: bool) -> Result<()> {
    let mut job = Draft::of(&words("polled"))?.finish()?;
    job.machine.device.queues = 1;
    refused(bed(lab, install)?.watched(&job, &mut |_, _| Ok(())), "does not poll")
}

/// The driver's part of it, which is counted between brackets, is within the whole.
fn alike(lab: &Lab) -> Result<()> {
    let load = "iodepth=32 iodepth_batch_submit=32";
    let job = Draft::of(&format!("{load} mode=interrupt number_ios=65536"))?.finish()?;
    let first = guest_count::whole_guest(&lab.bed, &job)?;
    let second = guest_count::whole_guest(&lab.bed, &job)?;
    ensure!((first / second - 1.0).abs() < ALIKE, "{first:.1}, then {second:.1} instructions per I/O");
    let count = lab.count(load)?;
    let driver = count.submit + count.complete;
    // A processor that spins instead of halting executes thousands.
    ensure!((driver..10.0 * driver).contains(&first), "{first:.1} per I/O in the guest, {driver:.1} in the driver");
    Ok(())
}
