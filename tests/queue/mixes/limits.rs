//! When a request must be cut, and whether it can be: counted byte by byte, independently of the driver.
use super::generate::Plan;
use crate::fake::wire::features;

/// What one chain may carry on a plan's queue.
pub(super) struct Limits {
    /// Segments of a chain through a slot's own descriptors.
    own: usize,
    /// Segments of a chain through a table of the pool.
    pooled: usize,
    bytes: u64,
    block: u64,
}

impl Limits {
    pub(super) fn new(plan: &Plan) -> Self {
        let offered = |mask| plan.offered & mask != 0;
        let seg_max = if offered(features::SEG_MAX) { plan.seg_max.max(1) as usize } else { 1 };
        let most = seg_max.min(usize::from(plan.size).saturating_sub(2).max(1));
        let tables = offered(features::INDIRECT_DESC);
        let own = if tables { most.min(6) } else { 1 };
        let pooled = if tables && plan.large_tables > 0 { most.min(20).max(own) } else { own };
        let limited = offered(features::SIZE_MAX) && plan.size_max > 0;
        Self { own, pooled, bytes: if limited { plan.size_max.into() } else { u64::MAX }, block: plan.block.into() }
    }

    pub(super) fn must_cut(&self, lens: &[u32]) -> bool {
        lens.len() > self.pooled || lens.iter().any(|len| u64::from(*len) > self.bytes)
    }

    /// Whether every chain can hold at least one block.
    pub(super) fn can_cut(&self, lens: &[u32]) -> bool {
        let total: u64 = lens.iter().map(|len| u64::from(*len)).sum();
        let mut at = 0;
        while at < total {
            let reach = self.reach(lens, at);
            let blocks = (reach - at) / self.block;
            if blocks == 0 {
                return false;
            }
            at += blocks * self.block;
        }
        true
    }

    /// How far a chain that starts at byte `at` gets.
    fn reach(&self, lens: &[u32], at: u64) -> u64 {
        let mut reach = at;
        for _ in 0..self.own {
            let mut start = 0;
            for len in lens.iter().map(|len| u64::from(*len)) {
                if (start..start + len).contains(&reach) {
                    reach = (start + len).min(reach.saturating_add(self.bytes));
                    break;
                }
                start += len;
            }
        }
        reach
    }
}
