//! Devices with fewer interrupt vectors than the tool asked them for: whatever rung of the ladder they leave is reached,
//! said, and runs.
//!
//! The vectors are taken away behind the tool's back, so that nothing which was decided from the job can be right.
use crate::job::Draft;
use crate::lab::{Lab, SPLIT, Size};
use crate::scenarios::{Scenario, scenario};
use anyhow::{Context, Result, ensure};

/// Vectors that the device has, and queues that are asked for with a vector each.
const LADDER: [(u16, u16); 8] = [(1, 2), (1, 4), (2, 2), (2, 3), (2, 4), (3, 4), (4, 8), (0, 2)];
/// Those that the path through blockd is tried on.
const OVER_BLOCKD: [(u16, u16); 4] = [(1, 2), (2, 2), (2, 3), (0, 2)];

/// The scenarios.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("whatever vectors a device has fewer than asked for, every job runs", Size::Quick, |lab| {
            LADDER.iter().take(lab.size.pick(4, 8, 8)).try_for_each(|(vectors, queues)| {
                runs(lab, *vectors, *queues, &format!("queues={queues} numjobs={queues}"))
            })
        }),
        scenario("whatever vectors a device has fewer than asked for, every front end runs", Size::Default, |lab| {
            OVER_BLOCKD.iter().try_for_each(|(vectors, queues)| {
                runs(lab, *vectors, *queues, &format!("via=blockd queues={queues} clients={queues}"))
            })
        }),
        scenario("a driver that is killed goes on with the one vector that its device has", Size::Default, |lab| {
            let words = format!(
                "rw=randrw verify=crc32c name=restart scenario=restart via=blockd clients=2 queues=2 vcpus=4 kills=3 \
                 mode=interrupt iodepth=16 iodepth_batch_submit=4 size=8m {SPLIT}"
            );
            let (_folder, mut job) = lab.job_on_file(&words)?;
            job.machine.device.vectors = 1;
            let boot = lab.verified_job(&job)?.boot;
            ensure!(boot.rung.as_str() == "single", "the rung is {}", boot.rung);
            Ok(())
        }),
    ]
}

/// Runs a job for as many vectors as it has queues and one more, on a device with `vectors`.
fn runs(lab: &Lab, vectors: u16, queues: u16, words: &str) -> Result<()> {
    let words = format!("{words} vectors={} mode=interrupt rw=randrw iodepth=4 number_ios=400", queues + 1);
    let mut job = Draft::of(&words)?.finish()?;
    job.machine.device.vectors = vectors;
    let outcome = lab.bed.watched(&job, &mut |_, _| Ok(()));
    let outcome = outcome.with_context(|| format!("{vectors} vectors on the device, {words}"))?;
    let (boot, report) = (outcome.boot, outcome.report);
    let rung = match vectors {
        0 => "none",
        1 => "single",
        _ => "shared",
    };
    ensure!(boot.rung.as_str() == rung, "{vectors} vectors for {queues} queues: the rung is {}", boot.rung);
    ensure!(boot.vectors == vectors, "{vectors} vectors on the device, {} in use", boot.vectors);
    let interrupted = report.interrupts > 0;
    ensure!(interrupted == (vectors > 0), "{vectors} vectors for {queues} queues: {} interrupts", report.interrupts);
    Ok(())
}
