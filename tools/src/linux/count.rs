//! Instructions per I/O of Linux' driver, split into submitting and completing, and of the whole guest.
//!
//! The driver is what stands in the modules of virtio, by the guest's own symbols. What other parts of the kernel do for
//! it (mapping for DMA, the request's state, the interrupt's entry) counts for the whole guest only. A function is on the
//! side of its callers: [`COMPLETE`] names those that complete, all others prepare and submit. Setting up is in both
//! boots, and thus in neither side.
use super::session::Symbol;
use crate::figures::ios;
use crate::guest_count;
use crate::job::Job;
use crate::run::{Bed, Told};
use crate::say::note;
use anyhow::{Result, ensure};
use workload::report::{Direction, Instructions};

/// The driver: virtio_blk, virtio_ring, virtio_pci and what they use.
const MODULES: &str = "virtio";
/// Functions that complete, by how their names begin. `detach_buf` and `vring_unmap` also undo a request that could not
/// be submitted, which does not happen here.
const COMPLETE: [&str; 10] = [
    "virtblk_done",
    "virtblk_request_done",
    "virtblk_complete",
    "virtqueue_get_buf",
    "virtqueue_enable_cb",
    "virtqueue_disable_cb",
    "virtqueue_is_broken",
    "detach_buf",
    "vring_unmap",
    "vring_interrupt",
];
/// What rings the doorbell.
const NOTIFY: &str = "vp_notify";
/// Functions are listed from here on, in instructions per I/O.
const WORTH_LISTING: f64 = 0.05;
/// The kernel's half of the addresses.
const KERNEL: u64 = 1 << 63;

/// No function is longer, in bytes: what stands behind a module's last one is not its own.
const LONGEST: u64 = 0x4000;

/// Functions and what each costs per I/O.
type Costs<'a> = Vec<(&'a str, f64)>;

/// Counts the job: two boots.
#[allow(clippy::cast_sign_loss, reason = "not below 0")]
pub(super) fn count(bed: &Bed, job: &Job) -> Result<Told> {
    let (difference, ran) = guest_count::twice(bed, job, |bed, job| super::once(bed, job, &mut |_, _| Ok(())))?;
    let functions = Functions::new(&ran.symbols);
    let costs = difference.by(|address| functions.at(address).map(|function| function.name.as_str()));
    let (complete, submit): (Costs<'_>, Costs<'_>) = costs.into_iter().partition(|(name, _)| completes(name));
    let sum = |costs: &Costs<'_>| costs.iter().map(|(_, cost)| cost).sum::<f64>();
    let (submitting, completing) = (sum(&submit), sum(&complete));
    ensure!(
        submitting > 0.0 && completing > 0.0,
        "no instruction was counted in Linux' modules of virtio: is the driver built into this kernel?"
    );
    let (all, kernel) = (difference.per_io(|_| true), difference.per_io(|address| address >= KERNEL));
    let notify = ran.symbols.iter().filter(|symbol| symbol.name.starts_with(NOTIFY));
    let mut told = ran.told;
    told.report.instructions =
        Some(Instructions { submit_milli: milli(submitting), complete_milli: milli(completing) });
    told.guest_instructions = Some(all);
    let rung: f64 = notify.map(|symbol| difference.executions(symbol.address)).sum();
    told.report.notifications = Some((rung.max(0.0) * ios(&told.report) as f64).round() as u64);
    // Time under the plugin is not the driver's.
    told.busy = None;
    told.report.runtime_ns = 0;
    told.report.read = Direction::default();
    told.report.write = Direction::default();
    let whole = format!("the whole guest: {all:.0} instructions per I/O, {kernel:.0} of them in the kernel");
    let lists = [listed("submit", submit), listed("complete", complete)];
    for line in std::iter::once(&whole).chain(&lists) {
        note!("{}: {line}", job.params.name);
    }
    told.notes.push(whole);
    told.notes.extend(lists);
    Ok(told)
}

/// The driver's functions, in the order of their addresses.
struct Functions<'a>(Vec<&'a Symbol>);

impl<'a> Functions<'a> {
    fn new(symbols: &'a [Symbol]) -> Self {
        let mut sorted: Vec<_> = symbols.iter().collect();
        sorted.sort_by_key(|symbol| symbol.address);
        Self(sorted)
    }

    /// The one that has `address`.
    fn at(&self, address: u64) -> Option<&'a Symbol> {
        let before = self.0.partition_point(|symbol| symbol.address <= address);
        let symbol = *self.0.get(before.checked_sub(1)?)?;
        (address - symbol.address < LONGEST && symbol.module.starts_with(MODULES)).then_some(symbol)
    }
}

fn completes(name: &str) -> bool {
    COMPLETE.iter().any(|prefix| name.starts_with(prefix))
}

#[allow(clippy::cast_sign_loss, reason = "checked to be positive")]
fn milli(instructions: f64) -> u64 {
    (instructions * 1e3).round() as u64
}

/// The functions of a side, the costliest first.
fn listed(side: &str, mut costs: Costs<'_>) -> String {
    costs.retain(|(_, cost)| *cost >= WORTH_LISTING);
    costs.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let all: Vec<_> = costs.iter().map(|(name, cost)| format!("{name} {cost:.1}")).collect();
    format!("{side}: {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(address: u64, name: &str, module: &str) -> Symbol {
        Symbol { address, name: name.into(), module: module.into() }
    }

    #[test]
    fn an_address_belongs_to_the_function_before_it_and_to_none_far_behind_it() {
        let symbols = [
            symbol(0x3000, "virtqueue_get_buf", "virtio_ring"),
            symbol(0x1000, "virtio_queue_rqs", "virtio_blk"),
            symbol(0x2000, "fuse_lookup", "fuse"),
        ];
        let functions = Functions::new(&symbols);
        let at = |address| functions.at(address).map(|function| function.name.as_str());
        assert_eq!([at(0xfff), at(0x1000), at(0x1fff)], [None, Some("virtio_queue_rqs"), Some("virtio_queue_rqs")]);
        assert_eq!([at(0x2000), at(0x3fff), at(0x3000 + LONGEST)], [None, Some("virtqueue_get_buf"), None]);
    }

    #[test]
    fn what_undoes_a_submission_completes() {
        for name in ["virtqueue_get_buf_ctx_split", "detach_buf_split", "vring_unmap_one_split", "virtblk_done"] {
            assert!(completes(name), "{name}");
        }
        for name in
            ["virtqueue_add_split", "virtio_queue_rqs", "virtqueue_kick_prepare", "vp_notify", "vring_map_one_sg"]
        {
            assert!(!completes(name), "{name}");
        }
    }
}
