//! What `bench` without a workload measures on the native back-ends: which cells, how often, in which order.
//!
//! As [`matrix`](crate::matrix) has it: a verified run, timed cells once per pass with those that are compared side by
//! side, counted cells once. Many short passes, so that near and far cores both occur. Knows words and order; the
//! bounds are `native_musts`'.
use crate::backend::{Backend, Server};
use crate::figures::Cell;
use crate::job::{Draft, Job};
use crate::jobfile::Setting;
use crate::matrix::{Matrix, Plan, Timed, VERIFIED};
use crate::native_musts;
use anyhow::Result;
use std::time::Duration;

/// Under four minutes on two cores.
pub(crate) const FULL: Plan = Plan {
    passes: 17,
    more: 0,
    runtime_ms: 350,
    verify_ios: 20_000,
    count_peers: true,
    fewest: 5,
    budget: Duration::from_secs(170),
};
/// Within a minute.
pub(crate) const QUICK: Plan = Plan { passes: 3, runtime_ms: 150, verify_ios: 4_000, count_peers: false, ..FULL };

/// Those that do the same work.
const DRIVERS: [&str; 3] = ["ours", "virtio-driver", "raw"];

/// What is measured on `backend`, which `place` names, its verified run on the file `disk`.
pub(crate) fn on(backend: &Backend, place: &[Setting], plan: Plan, disk: &str) -> Result<Matrix> {
    let (timed, counted, checks): (_, _, fn(&[Cell]) -> _) = match backend {
        Backend::VhostUser(_) => (vhost_user(), Vec::new(), native_musts::vhost_user),
        _ => (embedded(), counts(plan), native_musts::embedded),
    };
    let timed = timed.into_iter().map(|(name, words)| {
        let mut draft = draft(place, &format!("name={name} bs=4k iodepth_batch_complete_max=128 {words}"))?;
        draft.runtime_unless_said(plan.runtime_ms);
        let cell = Cell { job: draft.finish()?, samples: Vec::new() };
        Ok(Timed { cell, compared: true })
    });
    let counted = counted.into_iter().map(|(name, words)| {
        let job = draft(place, &format!("name={name} icount=on rw=randread bs=4k queues=1 {words}"))?.finish()?;
        Ok(Cell { job, samples: Vec::new() })
    });
    Ok(Matrix {
        plan,
        verified: verified(backend, place, plan, disk)?,
        timed: timed.collect::<Result<_>>()?,
        counted: counted.collect::<Result<_>>()?,
        checks,
    })
}

fn draft(place: &[Setting], words: &str) -> Result<Draft> {
    let mut draft = Draft::new();
    draft.apply(place)?;
    draft.add(words)?;
    Ok(draft)
}

/// On a device that others wrote. A back-end that the user brings keeps its disk: it is left alone, and the
/// native bench's own is verified.
fn verified(backend: &Backend, place: &[Setting], plan: Plan, disk: &str) -> Result<Job> {
    let mut draft = match backend {
        Backend::VhostUser(Server::StorageDaemon) => draft(place, VERIFIED)?,
        _ => draft(&[], &format!("backend=embedded device=rust-vmm {VERIFIED}"))?,
    };
    draft.set("number_ios", &plan.verify_ios.to_string())?;
    draft.set("disk", disk)?;
    draft.finish()
}

type Words = (String, String);

/// The name of a polled cell.
pub(crate) fn polled(driver: &str, depth: u16, batch: u16) -> String {
    format!("polled-{driver}-{depth}x{batch}")
}

/// The name of an interrupt-driven cell.
pub(crate) fn interrupt(driver: &str, depth: u16) -> String {
    format!("interrupt-{driver}-{depth}")
}

/// The name of a cell in which two submitters share a queue.
pub(crate) fn submitters(path: &str, batch: u16) -> String {
    format!("two-on-one-{path}-{batch}")
}

/// The name of a counted cell; of `blockd`: over lib-block.
pub(crate) fn count(driver: &str, batch: u16) -> String {
    format!("count-{driver}-{batch}")
}

fn polled_cell(driver: &str, depth: u16, batch: u16) -> Words {
    let words =
        format!("rw=randread mode=polled queues=1 driver={driver} iodepth={depth} iodepth_batch_submit={batch}");
    (polled(driver, depth, batch), words)
}

/// The device costs next to nothing: the drivers' own ceiling.
fn embedded() -> Vec<Words> {
    // A batch as large as the depth leaves nothing in flight while the next is made: measured beside the others.
    let sizes = [(128, 32), (128, 128), (128, 1), (32, 32)];
    let mut cells: Vec<Words> =
        sizes.into_iter().flat_map(|(depth, batch)| DRIVERS.map(|driver| polled_cell(driver, depth, batch))).collect();
    // What lib-block costs where the device costs next to nothing: shown, no bound is on it.
    let words = "rw=randread mode=polled queues=1 via=blockd iodepth=32 iodepth_batch_submit=32";
    cells.extend(
        ["stepped", "own"].map(|front| (format!("polled-blockd-{front}-32x32"), format!("{words} front={front}"))),
    );
    for batch in [1, 32] {
        for path in ["shared", "mutex"] {
            let words = format!(
                "rw=randread mode=polled queues=1 numjobs=2 stepped=on submit={path} iodepth=32 \
                 iodepth_batch_submit={batch}"
            );
            cells.push((submitters(path, batch), words));
        }
    }
    cells.extend(layouts());
    cells
}

/// The device limits all of them alike: what is left is the drivers' share.
fn vhost_user() -> Vec<Words> {
    let mut cells = Vec::new();
    for depth in [1_u16, 32, 128] {
        let batch = depth.min(32);
        cells.extend(["ours", "virtio-driver"].map(|driver| polled_cell(driver, depth, batch)));
        if depth == 32 {
            cells.push(polled_cell("raw", depth, batch));
        }
    }
    for depth in [32, 128] {
        for driver in ["ours", "virtio-driver"] {
            let words =
                format!("rw=randread mode=interrupt queues=1 driver={driver} iodepth={depth} iodepth_batch_submit=32");
            cells.push((interrupt(driver, depth), words));
        }
    }
    cells.extend(layouts());
    cells
}

/// Where chains and headers lie, to choose by: what is chosen is what is cheaper with the device's share.
fn layouts() -> Vec<Words> {
    let mut cells = Vec::new();
    for batch in [32, 1] {
        for indirect in ["off", "on"] {
            let (_, words) = polled_cell("ours", 32, batch);
            cells.push((format!("layout-indirect-{indirect}-32x{batch}"), format!("{words} indirect={indirect}")));
        }
        for layout in ["line", "dense"] {
            let (_, words) = polled_cell("raw", 32, batch);
            cells.push((format!("layout-raw-{layout}-32x{batch}"), format!("{words} layout={layout}")));
        }
    }
    cells
}

fn counts(plan: Plan) -> Vec<Words> {
    let drivers = DRIVERS.into_iter().filter(|driver| plan.count_peers || *driver == "ours");
    let kinds = drivers.map(|driver| (driver, format!("driver={driver}")));
    let cells = kinds.chain([("blockd", "via=blockd".to_owned())]).flat_map(|(kind, words)| {
        [1_u16, 32].map(|batch| {
            let words = format!("{words} iodepth={batch} iodepth_batch_submit={batch}");
            (count(kind, batch), words)
        })
    });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::outcome;

    fn place(backend: &str) -> Vec<Setting> {
        vec![Setting { key: "backend".into(), value: backend.into(), origin: "--backend".into() }]
    }

    fn matrix(backend: &str, plan: Plan) -> Matrix {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        crate::disk::Disk::create(&path, 64 << 20).unwrap();
        let place = place(backend);
        let known = draft(&place, "runtime=1").unwrap().finish().unwrap().backend;
        on(&known, &place, plan, &path.to_string_lossy()).unwrap()
    }

    /// All cells, each with a near and a far sample.
    fn measured(matrix: Matrix) -> Vec<Cell> {
        let timed = matrix.timed.into_iter().map(|timed| timed.cell);
        let mut cells: Vec<Cell> = timed.chain(matrix.counted).collect();
        for cell in &mut cells {
            for ns in [50.0, 450.0] {
                let mut sample = outcome(1_000, Some(ns));
                let counted = workload::report::Instructions { submit_milli: 60_000, complete_milli: 70_000 };
                sample.report.instructions = cell.job.params.icount.then_some(counted);
                cell.samples.push(sample);
            }
        }
        cells
    }

    #[test]
    fn every_check_finds_its_cells_in_the_matrix() {
        for backend in ["embedded", "vhost-user"] {
            let matrix = matrix(backend, QUICK);
            let checks = matrix.checks;
            let all = checks(&measured(matrix));
            assert!(all.len() > 8, "{backend}: {} checks", all.len());
            for check in all {
                assert!(check.holds().is_some(), "{backend}: {} is not measured", check.what);
            }
        }
    }

    #[test]
    fn compared_cells_have_five_samples_and_names_of_their_own() {
        for backend in ["embedded", "vhost-user"] {
            let matrix = matrix(backend, FULL);
            assert!(matrix.plan.fewest >= 5);
            let names: Vec<_> = matrix.timed.iter().map(|timed| timed.cell.job.params.name).collect();
            let unique: std::collections::HashSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{names:?}");
        }
    }

    #[test]
    fn the_verified_run_is_on_a_device_that_others_wrote() {
        assert_eq!(matrix("embedded", QUICK).verified.backend.device(), "rust-vmm");
        assert_eq!(matrix("vhost-user", QUICK).verified.backend.device(), "qemu-storage-daemon");
    }
}
