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
/// How often it is counted until two counts are alike.
const COUNTS: usize = 5;

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

/// Counts until two counts in a row are alike, and answers the last one. Where none are, whoever shares the host's
/// processors decides when the device answers and how much each interrupt covers: that is no fault, and nothing is told.
fn until_alike(mut count: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut counts = vec![count()?];
    while counts.len() < COUNTS {
        counts.push(count()?);
        let [.., before, last] = counts[..] else { continue };
        if (last / before - 1.0).abs() < ALIKE {
            return Ok(last);
        }
    }
    let all: Vec<_> = counts.iter().map(|count| format!("{count:.1}")).collect();
    Err(Skip(format!("the host is too busy to count alike twice: {} instructions per I/O", all.join(", "))).into())
}

/// The driver's part of it, which is counted between brackets, is within the whole.
fn alike(lab: &Lab) -> Result<()> {
    let load = "iodepth=32 iodepth_batch_submit=32";
    let job = Draft::of(&format!("{load} mode=interrupt number_ios=65536"))?.finish()?;
    let first = until_alike(|| guest_count::whole_guest(&lab.bed, &job))?;
    let count = lab.count(load)?;
    let driver = count.submit + count.complete;
    // A processor that spins instead of halting executes thousands.
    ensure!((driver..10.0 * driver).contains(&first), "{first:.1} per I/O in the guest, {driver:.1} in the driver");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_is_repeated_until_the_host_is_quiet_and_skipped_where_it_never_is() {
        let of = |values: &[f64]| {
            let mut left = values.iter().copied();
            until_alike(|| Ok(left.next().expect("it is counted no more often than that")))
        };
        assert!((of(&[251.8, 260.0]).unwrap() - 260.0).abs() < 0.1);
        assert!((of(&[251.8, 367.1, 255.0, 250.0]).unwrap() - 250.0).abs() < 0.1);
        let error = of(&[100.0, 200.0, 100.0, 200.0, 100.0]).unwrap_err();
        assert!(fail::is_skip(&error) && error.to_string().contains("too busy"), "{error}");
    }
}
