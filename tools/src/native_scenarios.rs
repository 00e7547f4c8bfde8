//! What is tested on the device inside the native bench: that each way through it does its work, and what that costs.
//!
//! The minimal device moves no data; what must hold of data is in `conformance`.
use crate::counts::{self, BATCH_1, BATCH_32, LIB_BLOCK_1, LIB_BLOCK_32};
use crate::lab::{Lab, Size};
use crate::scenarios::Scenario;
use anyhow::{Result, ensure};

/// The words that name the device.
pub(crate) const PLACE: &str = "backend=embedded";
/// What names of steps that count begin with; they need valgrind.
pub(crate) const COUNTS: &str = "native: counted, ";

/// Every scenario that `size` includes.
pub(crate) fn all(size: Size, record: bool) -> Vec<Scenario> {
    let mut all = vec![
        scenario("native: ", "polled, without an interrupt", |lab| {
            let outcome = lab.boot("mode=polled iodepth=32 iodepth_batch_submit=32 number_ios=100000")?;
            ensure!(outcome.report.interrupts == 0, "{} interrupts", outcome.report.interrupts);
            Ok(())
        }),
        scenario("native: ", "two jobs on two queues by interrupt", |lab| {
            let words = "rw=randrw mode=interrupt numjobs=2 queues=2 iodepth=32 iodepth_batch_submit=8";
            let outcome = lab.boot(&format!("{words} number_ios=20000"))?;
            ensure!(outcome.report.interrupts > 0, "no interrupt was taken");
            Ok(())
        }),
        scenario(COUNTS, "two counts of the same work are equal", counts::are_equal),
        scenario(COUNTS, "two counts of libblkio are equal, and its doorbells are unknown", |lab| {
            let jobs = [BATCH_1, BATCH_32].map(|words| format!("driver=blkio {words}"));
            counts::are_equal_of(lab, &jobs)?;
            let rung = lab.boot("driver=blkio mode=polled number_ios=1000")?.report.notifications;
            ensure!(rung.is_none(), "{rung:?} doorbells were reported");
            Ok(())
        }),
        scenario(COUNTS, "what lib-block adds to the counts stays within its bounds", move |lab| {
            let jobs = [("native-lib-block-1", BATCH_1, LIB_BLOCK_1), ("native-lib-block-32", BATCH_32, LIB_BLOCK_32)];
            counts::added_are_bounded(lab, record, jobs)
        }),
        scenario(COUNTS, "counts stay within their bounds", move |lab| {
            counts::are_bounded(lab, record, [("native-batch-1", BATCH_1, 200.0), ("native-batch-32", BATCH_32, 120.0)])
        }),
    ];
    all.extend(["shared", "mutex"].map(|path| {
        scenario("native: ", &format!("two submitters step the device of one queue, {path}"), move |lab| {
            let words = "mode=polled stepped=on numjobs=2 queues=1 iodepth=32 iodepth_batch_submit=8";
            lab.boot(&format!("{words} submit={path} number_ios=100000")).map(drop)
        })
    }));
    all.extend(["raw", "virtio-driver", "blkio"].into_iter().flat_map(|driver| {
        ["polled", "interrupt"].map(|mode| {
            scenario("native: ", &format!("driver={driver} does the same work, {mode}"), move |lab| {
                let words = "iodepth=32 iodepth_batch_submit=32 number_ios=20000";
                lab.boot(&format!("{words} driver={driver} mode={mode}")).map(drop)
            })
        })
    }));
    all.retain(|scenario| scenario.size <= size);
    all
}

fn scenario(prefix: &str, name: &str, run: impl Fn(&Lab) -> Result<()> + 'static) -> Scenario {
    Scenario { name: format!("{prefix}{name}"), size: Size::Quick, run: Box::new(run) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_those_that_count_say_so() {
        let all = all(Size::Quick, false);
        let names: HashSet<&str> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(names.iter().filter(|name| name.starts_with(COUNTS)).count(), 4);
    }

    #[test]
    fn the_place_is_the_embedded_device() {
        let job = Draft::of(&format!("{PLACE} runtime=1")).unwrap().finish().unwrap();
        assert_eq!(job.backend.device(), "minimal");
    }
}
