//! Which parameters make sense: every field's range, then the pairs that contradict one another.
//!
//! A range names its key, whose row in [`super::KEYS`] says what to give; a contradiction brings its own advice.
use super::{
    Amounts, Driver, Layout, MAX_CLIENTS, MAX_CREDIT, ParamError, Params, SECTOR, Split, Submit, Verify, Via, WHOLE,
    text,
};

/// The scenario of single calls.
const BLOCKD: &str = "blockd";
/// The scenario that kills the driver.
const RESTART: &str = "restart";

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
        self.check_queues()?;
        self.check_via()
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
        let whole = |bytes: u64| bytes.is_multiple_of(u64::from(SECTOR));
        in_range(whole(self.size), "size")?;
        in_range(whole(self.offset), "offset")?;
        in_range(whole(self.offset_increment), "offset_increment")?;
        agree(
            self.shares_disk() || (self.offset == 0 && self.offset_increment == 0),
            "jobs that are kept apart begin where the one before ends: leave offset and offset_increment out",
        )?;
        self.check_size()
    }

    fn check_size(&self) -> Result<(), ParamError> {
        let least = u64::from(self.largest_block()) * u64::from(self.jobs());
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
        agree(
            timed || counted || self.loops > 0 || self.scenario.as_str() != "none",
            "nothing says when to stop: give runtime=5 (seconds) or number_ios=100000",
        )?;
        let only_writes = counted && self.amounts == Amounts::Total;
        agree(
            !(only_writes && self.verify == Verify::Crc32c && self.rw.is_mixed() && self.rwmixread == 100),
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

    fn check_via(&self) -> Result<(), ParamError> {
        in_range((1..=MAX_CLIENTS).contains(&self.clients), "clients")?;
        in_range(self.kills > 0, "kills")?;
        let defaults = Self::default();
        agree(
            self.kills == defaults.kills || self.scenario.as_str() == RESTART,
            "kills is for scenario=restart: add that, or leave kills out",
        )?;
        if self.via == Via::Blockd {
            return self.check_blockd();
        }
        agree(self.clients == defaults.clients, "clients are of the front end: add via=blockd, or give numjobs=N")?;
        agree(self.front == defaults.front, "front is for via=blockd: add that, or leave front out")?;
        agree(self.partitions == defaults.partitions, "partitions is for via=blockd: add that, or leave it out")?;
        agree(
            ![BLOCKD, RESTART].contains(&self.scenario.as_str()),
            "scenarios blockd and restart run over lib-block: add via=blockd",
        )
    }

    fn check_blockd(&self) -> Result<(), ParamError> {
        agree(self.numjobs == 1, "the jobs of via=blockd are its clients: give clients=N instead of numjobs")?;
        agree(self.driver == Driver::Ours, "via=blockd stands on driver=ours: leave driver or via out")?;
        agree(
            matches!(self.submit, Submit::Auto | Submit::Owner),
            "the front ends of via=blockd own their queues: leave submit out",
        )?;
        agree(self.iodepth <= MAX_CREDIT, "a client of via=blockd has a credit of 256 requests: lower iodepth")?;
        agree(
            !self.is_stepped() || (self.clients == 1 && self.queues_wished() == 1),
            "front=stepped, and so icount, has one client and one queue: leave clients and queues out",
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
