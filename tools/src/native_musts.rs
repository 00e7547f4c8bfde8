//! What must hold natively, for near and for far cores: bounds that the project set itself.
//!
//! A distance that did not occur makes its checks unmeasured, never passed.
use crate::check::Check;
use crate::figures::{Cell, ratios_at};
use crate::musts::LIB_BLOCK_ADDS;
use crate::native_matrix::{count, interrupt, polled, submitters};
use crate::pingpong::Distance;

/// A bound on a ratio of IOPS, and a better one to aim for.
type Bound = (f64, Option<f64>);

/// Two cells, by name, and what their ratio must be with near cores and with far cores.
struct Ratio {
    what: String,
    ours: String,
    theirs: String,
    near: Bound,
    far: Bound,
}

impl Ratio {
    fn checks(self, cells: &[Cell]) -> [Check; 2] {
        [(Distance::Near, self.near), (Distance::Far, self.far)].map(|(distance, (must, aim))| {
            let all = match (named(cells, &self.ours), named(cells, &self.theirs)) {
                (Some(ours), Some(theirs)) => ratios_at(ours, theirs, distance, |one| one.iops),
                _ => Vec::new(),
            };
            Check::at_least(self.what.clone(), must, aim, None).of(all, distance)
        })
    }
}

fn named<'a>(cells: &'a [Cell], name: &str) -> Option<&'a Cell> {
    cells.iter().find(|cell| cell.job.params.name.as_str() == name)
}

/// Every bound that the embedded matrix measures.
pub(crate) fn embedded(cells: &[Cell]) -> Vec<Check> {
    let against = |driver: &str, (depth, batch), near, far| Ratio {
        what: format!("polled IOPS, depth {depth}, batch {batch}, against {driver}"),
        ours: polled("ours", depth, batch),
        theirs: polled(driver, depth, batch),
        near,
        far,
    };
    let (batched, one_by_one) = (((2.0, Some(4.0)), (2.5, Some(6.0))), (1.2, Some(1.6)));
    let floor = (0.4, Some(0.75));
    let mut ratios = vec![
        against("virtio-driver", (128, 32), batched.0, batched.1),
        against("virtio-driver", (128, 128), batched.0, batched.1),
        against("virtio-driver", (128, 1), one_by_one, one_by_one),
        against("raw", (128, 32), floor, floor),
    ];
    ratios.extend([1, 32].map(|batch| Ratio {
        what: format!("two submitters on one queue, batch {batch}, against a mutex"),
        ours: submitters("shared", batch),
        theirs: submitters("mutex", batch),
        near: (1.0, Some(1.5)),
        far: (1.0, Some(1.5)),
    }));
    let mut checks: Vec<Check> = ratios.into_iter().flat_map(|ratio| ratio.checks(cells)).collect();
    let counted = |kind, batch| {
        let cell = named(cells, &count(kind, batch)).filter(|cell| !cell.samples.is_empty())?;
        Some(cell.figures().instructions_per_io?.total)
    };
    checks.extend([(32, 120.0, 75.0), (1, 200.0, 130.0)].map(|(batch, must, aim)| {
        Check::at_most(format!("instructions per I/O, batch {batch}"), must, Some(aim), counted("ours", batch))
    }));
    let added = counted("blockd", 32).zip(counted("ours", 32)).map(|(via, driver)| via - driver);
    checks.push(Check::at_most(LIB_BLOCK_ADDS, 200.0, Some(110.0), added));
    checks
}

/// Every bound that the vhost-user matrix measures.
pub(crate) fn vhost_user(cells: &[Cell]) -> Vec<Check> {
    let polled = [(1, 0.97), (32, 0.97), (128, 1.0)].map(|(depth, must)| Ratio {
        what: format!("polled IOPS, depth {depth}, against virtio-driver"),
        ours: polled("ours", depth, depth.min(32)),
        theirs: polled("virtio-driver", depth, depth.min(32)),
        near: (must, None),
        far: (must, None),
    });
    let interrupt = [32, 128].map(|depth| Ratio {
        what: format!("interrupt-driven IOPS, depth {depth}, against virtio-driver"),
        ours: interrupt("ours", depth),
        theirs: interrupt("virtio-driver", depth),
        near: (1.1, Some(1.8)),
        far: (1.1, Some(1.8)),
    });
    polled.into_iter().chain(interrupt).flat_map(|ratio| ratio.checks(cells)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::outcome;
    use crate::job::Draft;

    fn cell(name: &str, samples: &[(u64, f64)]) -> Cell {
        let job = Draft::of(&format!("name={name} backend=embedded runtime=1")).unwrap().finish().unwrap();
        Cell { job, samples: samples.iter().map(|&(ios, ns)| outcome(ios, Some(ns))).collect() }
    }

    #[test]
    fn near_and_far_are_held_to_their_own_bounds_and_the_other_is_not_measured() {
        let ours = cell(&polled("ours", 128, 32), &[(230, 450.0), (240, 450.0), (220, 450.0)]);
        let theirs = cell(&polled("virtio-driver", 128, 32), &[(100, 450.0); 3]);
        let all = embedded(&[ours, theirs]);
        let batch: Vec<_> =
            all.iter().filter(|check| check.what.contains("depth 128, batch 32, against virtio")).collect();
        assert_eq!(batch.len(), 2);
        assert_eq!((batch[0].cores, batch[0].holds()), (Some(Distance::Near), None));
        // Twice is enough for near cores, and not for far ones.
        assert_eq!((batch[1].value, batch[1].holds(), batch[1].samples), (Some(2.3), Some(false), 3));
    }

    #[test]
    fn nothing_measured_passes_nothing() {
        assert!(embedded(&[]).iter().chain(&vhost_user(&[])).all(|check| check.holds().is_none()));
    }
}
