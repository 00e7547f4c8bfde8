//! Which host core does what.
//!
//! Unpinned threads change results several times over, so every thread of QEMU that takes part has its core: vCPU 0
//! the first core, I/O threads the next ones, further vCPUs the cores that are left, or, if none is, vCPU 0's core
//! onwards in turn. QEMU's main thread, which forwards interrupts under TCG, goes with vCPU 0. Only cores that this
//! process may use are handed out. Knows nothing of QEMU: callers bring thread ids.
use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// The plan of one run, in host core numbers; part of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pins {
    /// QEMU's main thread.
    pub(crate) main: usize,
    /// Each vCPU.
    pub(crate) vcpus: Vec<usize>,
    /// Each I/O thread.
    pub(crate) iothreads: Vec<usize>,
}

/// The cores that this process may use.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("reading the set of usable cores")?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Deals `cores` out.
pub(crate) fn plan(cores: &[usize], vcpus: usize, iothreads: usize) -> Pins {
    let at = |index: usize| cores[index % cores.len()];
    let spare = cores.len().saturating_sub(1 + iothreads);
    let further = |vcpu: usize| match (vcpu, spare) {
        (0, _) => at(0),
        // More vCPUs than cores: shared out over all of them, the I/O threads' last.
        (_, 0) => at(vcpu % cores.len()),
        _ if vcpu <= spare => at(iothreads + vcpu),
        _ => at(vcpu - spare - 1),
    };
    Pins { main: at(0), vcpus: (0..vcpus).map(further).collect(), iothreads: (1..=iothreads).map(at).collect() }
}

/// The set of one core.
pub(crate) fn only(core: usize) -> nix::Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(set)
}

/// Ties a thread to a core; `None` is the calling thread.
pub(crate) fn pin(thread: Option<i32>, core: usize) -> Result<()> {
    let set = only(core).with_context(|| format!("core {core}"))?;
    sched_setaffinity(Pid::from_raw(thread.unwrap_or(0)), &set)
        .with_context(|| format!("pinning a thread to core {core}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_vcpu_and_one_io_thread_share_no_core_if_there_are_two() {
        let pins = plan(&[0, 1], 1, 1);
        assert_eq!((pins.vcpus, pins.iothreads), (vec![0], vec![1]));
    }

    #[test]
    fn further_vcpus_get_cores_of_their_own_while_there_are_any() {
        let pins = plan(&[0, 1, 2, 3], 3, 1);
        assert_eq!((pins.vcpus, pins.iothreads), (vec![0, 2, 3], vec![1]));
    }

    #[test]
    fn too_few_cores_are_shared_and_only_usable_ones_are_named() {
        for cores in [vec![5], vec![3, 9], vec![1, 2, 4]] {
            let pins = plan(&cores, 8, 2);
            assert_eq!(pins.vcpus.len(), 8);
            let all = pins.vcpus.iter().chain(&pins.iothreads);
            assert!(all.clone().all(|core| cores.contains(core)), "{pins:?}");
        }
    }

    #[test]
    fn a_pinned_thread_may_use_that_core_only() {
        let first = cores().unwrap()[0];
        std::thread::spawn(move || {
            pin(None, first).unwrap();
            assert_eq!(cores().unwrap(), [first]);
        })
        .join()
        .unwrap();
    }
}
