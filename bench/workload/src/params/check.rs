//! Which parameters make sense: every field's range, then the pairs that contradict one another.
//!
//! A range names its key, whose row in [`super::KEYS`] says what to give; a contradiction brings its own advice.
use super::{Driver, Layout, ParamError, Params, SECTOR, Split, Submit, Verify, WHOLE, text};

impl Params {
    /// Checks every field's range and that no two contradict one another.
    ///
    /// # Errors
    /// The first field out of range, or the first contradiction; its `Display` says what to do.
    pub fn validate(&self) -> Result<(), ParamError> {
        self.check_names()?;
        self.check_blocks()?;
        self.check_depths()?;
        self.check_end()?;
        self.check_queues()
    }

    fn check_names(&self) -> Result<(), ParamError> {
        in_range(text::is_name(&self.name), "name")?;
        in_range(text::is_name(&self.scenario), "scenario")
    }

    fn check_blocks(&self) -> Result<(), ParamError> {
        let sound = |split: &Split| split.bytes > 0 && split.bytes.is_multiple_of(SECTOR) && split.weight > 0;
        let sum: u64 = self.bssplit.iter().map(|split| u64::from(split.weight)).sum();
        in_range(self.bssplit.iter().all(sound) && sum == u64::from(WHOLE), "bssplit")?;
        in_range(self.rwmixread <= 100, "rwmixread")?;
        in_range(self.size.is_multiple_of(u64::from(SECTOR)), "size")?;
        let least = u64::from(self.largest_block()) * u64::from(self.numjobs);
        agree(self.size == 0 || self.size >= least, "size is too small for one block in every job: raise size")
    }

    fn check_depths(&self) -> Result<(), ParamError> {
        in_range((1..=1024).contains(&self.iodepth), "iodepth")?;
        in_range((1..=128).contains(&self.iodepth_batch_submit), "iodepth_batch_submit")?;
        in_range(self.iodepth_batch_complete_max > 0, "iodepth_batch_complete_max")?;
        agree(
            self.iodepth_batch_submit <= self.iodepth,
            "iodepth_batch_submit is above iodepth: lower it or raise iodepth",
        )?;
        agree(
            self.iodepth_batch_complete_min <= self.iodepth,
            "iodepth_batch_complete_min is above iodepth, so that a run would wait for ever: lower it",
        )?;
        agree(
            self.iodepth_batch_complete_min <= self.iodepth_batch_complete_max,
            "iodepth_batch_complete_min is above iodepth_batch_complete_max: raise the latter",
        )
    }

    fn check_end(&self) -> Result<(), ParamError> {
        in_range(self.rate_iops <= 1_000_000_000, "rate_iops")?;
        let (timed, counted) = (self.runtime_ms > 0, self.number_ios > 0);
        agree(!(timed && counted), "runtime and number_ios exclude one another: set one of them to 0")?;
        agree(
            timed || counted || self.scenario.as_str() != "none",
            "nothing says when to stop: give runtime=5 (seconds) or number_ios=100000",
        )?;
        agree(
            !(counted && self.verify == Verify::Crc32c && self.rw.is_mixed() && self.rwmixread == 100),
            "number_ios counts writes under verify and rwmixread=100 has none: use rw=randread, or lower rwmixread",
        )?;
        agree(!(self.icount && timed), "icount counts fixed batches: give number_ios instead of runtime")?;
        agree(!(self.icount && self.rate_iops > 0), "icount measures no time: leave rate_iops out")?;
        agree(!(self.icount && self.numjobs > 1), "icount runs on one vCPU: use numjobs=1")
    }

    fn check_queues(&self) -> Result<(), ParamError> {
        in_range(self.numjobs > 0, "numjobs")?;
        let power = self.queue_size == 0 || (self.queue_size.is_power_of_two() && self.queue_size <= 32_768);
        in_range(power, "queue_size")?;
        agree(
            !(self.submit == Submit::Owner && self.queues > 0 && self.numjobs > self.queues),
            "submit=owner needs a queue for each job: raise queues, lower numjobs or use submit=auto",
        )?;
        agree(
            !(self.driver == Driver::Raw && self.submit == Submit::Shared),
            "driver=raw has no path for many submitters: use submit=owner or driver=ours",
        )?;
        agree(
            self.driver == Driver::Raw || self.layout == Layout::Line,
            "layout=dense is a layout of driver=raw: leave it out",
        )
    }
}

/// `Err` naming `key` and what it takes unless `holds`.
fn in_range(holds: bool, key: &'static str) -> Result<(), ParamError> {
    if holds { Ok(()) } else { Err(ParamError::OutOfRange { key }) }
}

/// `Err` with `advice` unless `holds`.
fn agree(holds: bool, advice: &'static str) -> Result<(), ParamError> {
    if holds { Ok(()) } else { Err(ParamError::Contradiction { advice }) }
}
