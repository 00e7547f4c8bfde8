//! Instructions of a whole guest per I/O: two boots under a plugin of QEMU's that counts what is executed, whose difference
//! leaves boot and end out.
//!
//! Whatever the guest is: the image, or Linux. It must wait for interrupts: a processor that is halted executes nothing,
//! one that polls counts its waiting. Two such counts are not exactly equal, since the device answers in real time and
//! interrupts cover now more, now fewer completions. Knows the plugin's file; what addresses mean is the caller's.
use crate::image;
use crate::job::Job;
use crate::machine::Accel;
use crate::run::Bed;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use workload::params::Mode;

/// The larger count of I/Os, unless the job says; the smaller one is a quarter of it.
const MANY: u64 = 131_072;
/// Fewer tell nothing: start and end are not that equal.
const FEWEST: u64 = 4_096;
/// From this QEMU on the plugin asks for the second version of the interface.
const SECOND: u32 = 9;

/// Where the plugin is, and where its counts go.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    library: PathBuf,
    out: PathBuf,
}

impl Plugin {
    /// QEMU's arguments that load it.
    pub(crate) fn arguments(&self) -> [OsString; 2] {
        // QEMU reads a comma in a name as two.
        let named = |path: &Path| path.to_string_lossy().replace(',', ",,");
        ["-plugin".into(), format!("file={},out={}", named(&self.library), named(&self.out)).into()]
    }
}

/// Executed blocks: address and instructions, to executions.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Blocks(BTreeMap<(u64, u64), u64>);

impl Blocks {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("QEMU's plugin left no counts")?;
        Self::parse(&text).context("the counts of QEMU's plugin are damaged")
    }

    fn parse(text: &str) -> Option<Self> {
        let (counts, end) = text.trim_end().rsplit_once('\n')?;
        let mut blocks = BTreeMap::new();
        for line in counts.lines() {
            let mut words = line.split(' ');
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let mut number = || words.next()?.parse::<u64>().ok();
            blocks.insert((address, number()?), number()?);
        }
        let whole = end.strip_prefix("blocks ")?.parse() == Ok(blocks.len());
        whole.then_some(Self(blocks))
    }
}

/// What the same work came to, done less and more often.
#[derive(Debug)]
pub(crate) struct Difference {
    few: Blocks,
    many: Blocks,
    /// By how many I/Os they differ.
    ios: u64,
}

impl Difference {
    /// Instructions per I/O, summed by what `key` makes of a block's address, if anything; fewer than none where more
    /// work took fewer.
    pub(crate) fn by<K: Ord>(&self, key: impl Fn(u64) -> Option<K>) -> BTreeMap<K, f64> {
        let mut sums = BTreeMap::new();
        for (blocks, sign) in [(&self.many, 1.0), (&self.few, -1.0)] {
            for ((address, instructions), executions) in &blocks.0 {
                if let Some(key) = key(*address) {
                    *sums.entry(key).or_default() += sign * (instructions * executions) as f64 / self.ios as f64;
                }
            }
        }
        sums
    }

    /// Instructions per I/O in blocks whose address is `wanted`.
    pub(crate) fn per_io(&self, wanted: impl Fn(u64) -> bool) -> f64 {
        self.by(|address| wanted(address).then_some(())).into_values().sum()
    }

    /// How often per I/O the block at `address` began.
    pub(crate) fn executions(&self, address: u64) -> f64 {
        let of = |blocks: &Blocks| -> u64 {
            blocks.0.iter().filter(|((at, _), _)| *at == address).map(|(_, executions)| executions).sum()
        };
        (of(&self.many) as f64 - of(&self.few) as f64) / self.ios as f64
    }
}

/// Instructions of the whole guest per I/O of `job`, whichever guest does it.
pub(crate) fn whole_guest(bed: &Bed, job: &Job) -> Result<f64> {
    let (difference, _) = twice(bed, job, |bed, job| bed.watched(job, &mut |_, _| Ok(())))?;
    let all = difference.per_io(|_| true);
    ensure!(all > 0.0, "job {}: {all} instructions per I/O were counted in the guest", job.params.name);
    Ok(all)
}

/// Runs `job` with few I/Os and with many; what was executed, and what the second run came to.
pub(crate) fn twice<T>(bed: &Bed, job: &Job, mut run: impl FnMut(&Bed, &Job) -> Result<T>) -> Result<(Difference, T)> {
    let params = &job.params;
    if params.mode != Mode::Interrupt {
        bail!("a guest that polls executes instructions while it waits: count it with mode=interrupt");
    }
    let with = bed.qemu.as_ref().context("QEMU was not set up")?;
    let library = image::plugin(if with.qemu.major < SECOND { "1" } else { "2" })?;
    let folder = tempfile::tempdir().context("making a folder for counts")?;
    let many = if params.number_ios > 0 { params.number_ios } else { MANY };
    let few = many / 4;
    ensure!(few >= FEWEST, "number_ios={many} is too few to count: give at least {}", 4 * FEWEST);
    let mut at = |ios: u64| -> Result<(Blocks, T)> {
        let out = folder.path().join(ios.to_string());
        let mut bed = bed.clone();
        bed.plugin = Some(Plugin { library: library.clone(), out: out.clone() });
        if let Some(with) = &mut bed.qemu {
            with.accel = Accel::Tcg;
        }
        let mut job = job.clone();
        job.machine.icount = false;
        job.params.icount = false;
        (job.params.runtime_ms, job.params.loops, job.params.number_ios) = (0, 0, ios);
        let told = run(&bed, &job)?;
        Ok((Blocks::read(&out)?, told))
    };
    let (few_blocks, _) = at(few)?;
    let (many_blocks, told) = at(many)?;
    Ok((Difference { few: few_blocks, many: many_blocks, ios: many - few }, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: &str = "1000 4 100\n1000 5 1\n2000 10 7\nblocks 3\n";
    const MANY: &str = "1000 4 300\n1000 5 1\n2000 10 17\nblocks 3\n";

    #[test]
    fn a_difference_is_what_more_ios_executed_and_what_is_in_both_is_left_out() {
        let blocks = |text| Blocks::parse(text).unwrap();
        let difference = Difference { few: blocks(FEW), many: blocks(MANY), ios: 100 };
        assert!((difference.per_io(|_| true) - 9.0).abs() < 1e-9);
        assert!((difference.per_io(|address| address >= 0x2000) - 1.0).abs() < 1e-9);
        assert!((difference.executions(0x1000) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn counts_that_were_cut_short_are_an_error_and_not_fewer_instructions() {
        let cuts =
            ["", "blocks 0", "1000 4 100\n1000 5 1", "1000 4 100\nblocks 3", "1000 4\nblocks 1", "x 4 1\nblocks 1"];
        for cut in cuts {
            assert_eq!(Blocks::parse(cut), None, "{cut}");
        }
    }
}
