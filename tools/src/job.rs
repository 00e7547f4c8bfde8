//! One job: what the image or the native bench is told, and what it is told on.
//!
//! Built from `key=value` settings, whichever of the command line, a job file or the default matrix they come from, so
//! that all three read and refuse alike. What the two sides say must fit together is checked here; what the runner is
//! told is `workload`'s to check, and what a back-end excludes is `backend`'s.
use crate::backend::{Asked, Backend};
use crate::blockd;
use crate::callgrind;
use crate::disk::Disk;
use crate::fail;
use crate::jobfile::Setting;
use crate::jobs::{Typed, Where};
use crate::later;
use crate::linux;
use crate::machine::{Device, Machine};
use crate::partitions::Part;
use crate::peers;
use crate::pin::{self, Pins};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use workload::params::{Amounts, Driver, Front, Indirect, Mode, Params, SECTOR, Verify, Via};

/// Keys of this program's own, which nobody types.
const HIDDEN: [&str; 2] = ["amounts", "runtime_ms"];
/// How long a timed job runs unless told otherwise.
const RUNTIME_MS: u64 = 5_000;
/// How many I/Os are counted under `icount` unless told otherwise.
const COUNTED_IOS: u64 = 65_536;
/// Memory for the image itself.
const BASE_MIB: u64 = 256;
/// Rings and private memory of a queue in the image, of a front end on it, and stacks of a vCPU, with room to spare.
const QUEUE_BYTES: u64 = 2 << 20;
const FRONT_END_BYTES: u64 = 10 << 20;
const VCPU_BYTES: u64 = 2 << 20;
/// What QEMU and the native back-ends offer.
const RING_SIZES: std::ops::RangeInclusive<u16> = 4..=1024;
/// The ring that QEMU is asked for when the job does not say: room for depth 128 with three descriptors each.
const RING: u16 = 1024;

/// What the runner is told, where it runs, and the machine under it: its disk and device natively, too.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) params: Params,
    pub(crate) backend: Backend,
    pub(crate) machine: Machine,
    /// The partition of each client; none unless each has one.
    pub(crate) parts: Vec<Part>,
}

impl Job {
    /// Which core does what. Natively, a vCPU is a job's thread, and an I/O thread the device's.
    pub(crate) fn pins(&self) -> Result<Pins> {
        let cores = pin::cores()?;
        let (jobs, devices) = match self.backend {
            Backend::Qemu => (self.machine.vcpus, self.machine.iothreads),
            _ if self.backend.is_stepped() => (self.params.seats(), 0),
            _ => (self.params.seats(), 1),
        };
        Ok(pin::plan(&cores, jobs.into(), devices.into()))
    }

    /// How many I/Os the job makes at least if it succeeds, as far as that is known here.
    pub(crate) fn fewest_ios(&self) -> u64 {
        let params = &self.params;
        let numbered = if params.number_ios == 0 { u64::MAX } else { params.number_ios };
        let fewest = match (params.amounts, params.runtime_ms) {
            (Amounts::Total, _) => params.number_ios,
            (Amounts::Fio, 0) => numbered.min(self.passes().unwrap_or(1)),
            _ => 1,
        };
        fewest.max(1)
    }

    /// How many I/Os the job's passes make, if that is known here; without end if it makes no passes.
    fn passes(&self) -> Option<u64> {
        let params = &self.params;
        if params.loops == 0 {
            return Some(u64::MAX);
        }
        let bytes = if params.io_size > 0 { params.io_size } else { params.size };
        let block = u64::from(params.largest_block());
        // Without a size it is the device that says how much there is.
        (bytes > 0).then(|| bytes / block * u64::from(params.loops))
    }

    /// How many I/Os the job makes at most, to know how long it may take.
    pub(crate) fn most_ios(&self) -> u64 {
        let params = &self.params;
        let numbered = if params.number_ios == 0 { u64::MAX } else { params.number_ios };
        let disk = self.machine.disk.bytes().saturating_mul(params.jobs().into());
        let bytes = [params.io_size, params.size, disk].into_iter().find(|bytes| *bytes > 0).unwrap_or(0);
        let passes = (bytes / u64::from(params.smallest_block()) + 1).saturating_mul(params.loops.into());
        let most = numbered.min(if params.loops == 0 { u64::MAX } else { passes });
        if most == u64::MAX { 0 } else { most }
    }

    /// Whether the disk is changed.
    pub(crate) fn writes(&self) -> bool {
        self.params.rw.changes()
    }
}

/// A job in the making.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    params: Params,
    /// Keys that somebody set, by their first name.
    said: BTreeSet<String>,
    asked: Asked,
    disk: String,
    vcpus: Option<u16>,
    iothreads: u16,
    /// fio's words, if people typed the job.
    typed: Option<Typed>,
    /// Keys that are called otherwise where they were typed.
    renamed: Vec<(&'static str, String)>,
    /// How long a job lasts of which nobody said that.
    short: Option<u64>,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self {
            params: Params::default(),
            said: BTreeSet::new(),
            asked: Asked::default(),
            disk: "null".into(),
            vcpus: None,
            iothreads: 1,
            typed: None,
            renamed: Vec::new(),
            short: None,
        }
    }

    /// A draft of `key=value` words, as scenarios and the matrix write them.
    pub(crate) fn of(words: &str) -> Result<Self> {
        let mut draft = Self::new();
        draft.add(words)?;
        Ok(draft)
    }

    /// Adds `key=value` words.
    pub(crate) fn add(&mut self, words: &str) -> Result<()> {
        for word in words.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').with_context(|| format!("`{word}` has no value"))?;
            self.set(key, value)?;
        }
        Ok(())
    }

    /// Applies settings in order; an error names where the setting stands.
    pub(crate) fn apply(&mut self, settings: &[Setting]) -> Result<()> {
        for setting in settings {
            self.set(&setting.key, &setting.value).with_context(|| setting.origin.clone())?;
        }
        Ok(())
    }

    /// Applies what people typed, in order and in fio's meaning.
    pub(crate) fn typed(&mut self, settings: &[Setting]) -> Result<()> {
        // An engine that does something else explains its keys.
        let (engines, others): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| setting.key == "ioengine");
        for setting in engines.into_iter().chain(others) {
            let known = self.typed.get_or_insert_default().take(setting).with_context(|| setting.origin.clone())?;
            self.renamed.extend(renamed(setting, known));
            match known {
                Some(known) => self.said.extend([known.to_owned()]),
                None if HIDDEN.contains(&setting.key.as_str()) => {
                    bail!("{}: unknown key `{}`: correct it or leave it out", setting.origin, setting.key)
                }
                None => self
                    .set(&setting.key, &setting.value)
                    .with_context(|| setting.origin.clone())
                    .map_err(|error| self.as_typed(error))?,
            }
        }
        Ok(())
    }

    /// The error in the words that were typed, where the job calls something otherwise.
    fn as_typed(&self, error: anyhow::Error) -> anyhow::Error {
        let line = fail::line(&error);
        let typed = self.renamed.iter().fold(line.clone(), |line, (key, typed)| replaced(&line, key, typed));
        if typed == line { error } else { anyhow::anyhow!(typed) }
    }

    /// One setting.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if later::settled(key, value)? || self.asked.set(key, value)? {
            return Ok(());
        }
        match key {
            "disk" => value.clone_into(&mut self.disk),
            "vcpus" => self.vcpus = Some(count(key, value, 1..=255)?),
            "iothreads" => self.iothreads = count(key, value, 1..=64)?,
            _ => self.params.set(key, value)?,
        }
        self.said.insert(key.to_owned());
        Ok(())
    }

    /// The job's name.
    pub(crate) fn named(&mut self, name: &str) -> Result<()> {
        self.set("name", name)
    }

    /// Whether nobody said how long to run.
    fn endless(&self) -> bool {
        let typed = self.typed.as_ref().is_some_and(Typed::has_amount);
        !typed && self.params.runtime_ms == 0 && self.params.number_ios == 0
    }

    fn said(&self, key: &str) -> bool {
        self.said.contains(key)
    }

    /// Fills in what was not said, and refuses what does not fit together.
    pub(crate) fn finish(self) -> Result<Job> {
        self.finish_and_notes().map(|(job, _)| job)
    }

    /// Likewise, with what is to be said of what was typed.
    pub(crate) fn finish_and_notes(mut self) -> Result<(Job, Vec<String>)> {
        self.settle()?;
        let job = self.completed().map_err(|error| self.as_typed(error))?;
        let notes = self.typed.map_or_else(Vec::new, |typed| typed.notes().to_vec());
        Ok((job, notes))
    }

    fn completed(&mut self) -> Result<Job> {
        self.defaults();
        self.params.validate()?;
        let backend = self.asked.settle(&self.params, self.disk != "null", |key| self.said(key))?;
        self.contradictions(&backend)?;
        let keeps = self.disk != "null" || backend.brings_disk();
        blockd::contradictions(&self.params, keeps, |key| self.said(key))?;
        if self.params.driver == Driver::Linux {
            linux::contradictions(&self.params, |key| self.said(key))?;
        }
        let mut disk =
            if backend.brings_disk() { Disk::Theirs } else { Disk::open(&self.disk, self.params.rw.changes())? };
        if let Disk::Null { bytes } = &mut disk {
            *bytes = needed(&self.params).max(*bytes);
        }
        let needed = needed(&self.params);
        if needed > disk.bytes() {
            let of =
                if self.params.amounts == Amounts::Fio { "what size and offset of each job come to" } else { "size" };
            bail!("{of}, {needed} bytes, is more than the disk has ({} bytes): lower it", disk.bytes());
        }
        let parts = blockd::partitions(&self.params, &disk)?;
        let mut machine = self.machine(disk);
        if self.params.driver == Driver::Linux {
            linux::machine(&self.params, &mut machine);
        }
        let job = Job { params: self.params.clone(), backend, machine, parts };
        if job.params.icount && job.backend.is_native() {
            callgrind::counts(&job)?;
        }
        Ok(job)
    }

    /// Turns what was typed into parameters.
    fn settle(&mut self) -> Result<()> {
        let endless = self.endless();
        let Some(typed) = &mut self.typed else { return Ok(()) };
        let disk = if self.asked.theirs().is_some() { None } else { Some(self.disk.as_str()) };
        // A disk that cannot be opened is refused when everything else is known.
        let bytes =
            disk.filter(|disk| *disk != "null").and_then(|disk| Disk::open(disk, false).ok()).map(|disk| disk.bytes());
        typed.settle(&mut self.params, Where { disk: &self.disk, socket: self.asked.theirs(), bytes })?;
        if let Some(short) = self.short.filter(|_| endless && !self.params.icount) {
            self.params.runtime_ms = short;
        }
        Ok(())
    }

    fn defaults(&mut self) {
        let params = &mut self.params;
        let no_end = params.runtime_ms == 0 && params.number_ios == 0 && params.loops == 0;
        if params.scenario.as_str() == "none" && no_end {
            if params.icount && self.asked.is_native() {
                params.number_ios =
                    callgrind::BATCHES * u64::from(params.iodepth_batch_submit) * u64::from(params.queues_wished());
            } else if params.icount {
                params.number_ios = COUNTED_IOS;
            } else {
                params.runtime_ms = RUNTIME_MS;
            }
        }
        if params.is_stepped() && !self.said.contains("front") {
            params.front = Front::Stepped;
        }
        // Linux is counted as a whole, and must not execute anything while it waits.
        let counted = params.icount && params.driver != Driver::Linux;
        let polled = counted || params.is_stepped() || self.asked.steps(params) || peers::is_polled(params.driver);
        if polled && !self.said.contains("mode") {
            params.mode = Mode::Polled;
        }
        if !self.said.contains("vectors") {
            params.vectors = match params.mode {
                Mode::Polled => 1,
                Mode::Interrupt => params.queues_wished().saturating_add(1),
            };
        }
    }

    fn contradictions(&self, backend: &Backend) -> Result<()> {
        let params = &self.params;
        if *backend == Backend::Qemu {
            self.check_vcpus()?;
        }
        if params.verify == Verify::Crc32c && self.disk == "null" {
            bail!("verify=crc32c needs a disk that keeps data: give --disk=FILE (the null disk forgets writes)");
        }
        if self.said("queue_size") && params.queue_size != 0 && !RING_SIZES.contains(&params.queue_size) {
            let whose = if backend.is_native() { "the back-ends" } else { "QEMU" };
            bail!("queue_size={} is not offered by {whose}: give a power of two from 4 to 1024", params.queue_size);
        }
        if params.driver == Driver::Raw && params.verify == Verify::Crc32c {
            bail!("driver=raw does not verify: use driver=ours");
        }
        Ok(())
    }

    fn check_vcpus(&self) -> Result<()> {
        let params = &self.params;
        let needed = params.seats();
        let vcpus = self.vcpus.unwrap_or(needed);
        if vcpus < needed {
            let (who, owners) = match params.via {
                Via::Driver => (format!("numjobs={}", params.numjobs), "every job has"),
                Via::Blockd => (blockd::who(params), "every client and front end has"),
            };
            bail!("vcpus={vcpus} is too few for {who}: {owners} a vCPU of its own: give at least {needed}");
        }
        if params.icount && vcpus > 1 {
            bail!("icount runs on one vCPU: leave vcpus={vcpus} out");
        }
        Ok(())
    }

    fn machine(&self, disk: Disk) -> Machine {
        let params = &self.params;
        let mib = BASE_MIB + needs(params, disk.bytes()).div_ceil(1 << 20).next_multiple_of(64);
        Machine {
            icount: params.icount,
            vcpus: self.vcpus.unwrap_or(params.seats()),
            iothreads: if peers::needs_synchronous_device(params) { 0 } else { self.iothreads },
            memory_mib: mib,
            disk,
            device: Device {
                queues: params.queues_wished(),
                vectors: params.vectors,
                queue_size: if params.queue_size == 0 { RING } else { params.queue_size },
                event_idx: params.event_idx,
                indirect: params.indirect != Indirect::Off,
                block_size: 512,
                ranges: true,
            },
        }
    }
}

impl Draft {
    /// Sets a timed job's runtime unless somebody did.
    pub(crate) fn runtime_unless_said(&mut self, ms: u64) {
        self.short = Some(ms);
        if self.typed.is_none() && self.endless() && !self.params.icount {
            self.params.runtime_ms = ms;
        }
    }
}

/// Bytes that the image needs for a job besides [`BASE_MIB`]: buffers, and what it keeps for each vCPU and queue and,
/// under verify, for each sector. Sectors are counted twice, by the job that has them and in the table of all.
fn needs(params: &Params, disk: u64) -> u64 {
    let jobs = u64::from(params.jobs());
    let buffers = jobs * u64::from(params.iodepth.max(params.iodepth_batch_submit)) * u64::from(params.largest_block());
    let queue = if params.via == Via::Blockd { FRONT_END_BYTES + QUEUE_BYTES } else { QUEUE_BYTES };
    let queues = u64::from(params.queues_wished()) * queue;
    let vcpus = u64::from(params.seats()) * VCPU_BYTES;
    let covered = if params.size == 0 { disk } else { params.size };
    let tables = if params.verify == Verify::Crc32c { covered / u64::from(SECTOR) * 8 } else { 0 };
    buffers + queues + vcpus + tables
}

/// The disk that the jobs' parts take.
fn needed(params: &Params) -> u64 {
    if !params.shares_disk() {
        return params.size;
    }
    let last = params
        .offset_increment
        .saturating_mul(u64::from(params.jobs()).saturating_sub(1))
        .saturating_add(params.offset);
    last.saturating_add(params.per_job(params.size))
}

/// What a key is called where it was typed, if the job calls it otherwise; `known` is fio's first name of it.
fn renamed(setting: &Setting, known: Option<&str>) -> Option<(&'static str, String)> {
    let typed = setting.origin.strip_prefix("--").unwrap_or(&setting.key).to_owned();
    let key = match known.unwrap_or(setting.key.as_str()) {
        "bs" | "bsrange" | "bssplit" => "bssplit",
        "runtime" => "runtime_ms",
        "queue_size" => "queue_size",
        "event_idx" => "event_idx",
        "iodepth_batch" => "iodepth_batch_submit",
        "iodepth_batch_complete_min" => "iodepth_batch_complete_min",
        "rwmixread" => "rwmixread",
        _ => return None,
    };
    (key != typed).then_some((key, typed))
}

/// `text` with `typed` in the place of the whole word `key`.
fn replaced(text: &str, key: &str, typed: &str) -> String {
    let is_word = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (before, after) = (&rest[..at], &rest[at + key.len()..]);
        let alone = !before.chars().next_back().is_some_and(is_word) && !after.chars().next().is_some_and(is_word);
        out.push_str(before);
        out.push_str(if alone { typed } else { key });
        rest = after;
    }
    out + rest
}

fn count(key: &str, value: &str, range: std::ops::RangeInclusive<u16>) -> Result<u16> {
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => bail!("{key} does not take `{value}`: give {} to {}", range.start(), range.end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(words: &str) -> Job {
        Draft::of(words).unwrap().finish().unwrap()
    }

    #[test]
    fn every_job_has_a_vcpu_whatever_interrupts_it() {
        assert_eq!(job("numjobs=2 mode=interrupt").machine.vcpus, 2);
        assert_eq!(job("numjobs=2 mode=interrupt vectors=1").machine.vcpus, 2);
        assert_eq!(job("numjobs=2 queues=1 mode=interrupt").machine.vcpus, 2);
        assert_eq!(job("numjobs=2 queues=1 mode=polled").machine.vcpus, 2);
    }

    #[test]
    fn every_client_and_front_end_has_a_vcpu() {
        let vcpus = |words: &str| job(&format!("via=blockd mode=interrupt {words}")).machine.vcpus;
        assert_eq!(vcpus(""), 2);
        assert_eq!(vcpus("vectors=1"), 2);
        assert_eq!(vcpus("clients=3"), 4);
        assert_eq!(vcpus("clients=3 queues=2"), 5);
        assert_eq!(vcpus("clients=3 queues=2 vectors=2"), 5);
        assert_eq!(vcpus("clients=3 queues=2 vectors=2 mode=polled"), 5);
        assert_eq!(vcpus("vectors=1 front=stepped mode=polled"), 1);
        assert_eq!(vcpus("icount=on"), 1);
    }

    #[test]
    fn the_machines_memory_follows_from_buffers_queues_vcpus_and_sectors_under_verify() {
        let mib = |words: &str| job(words).machine.memory_mib;
        let plain = mib("mode=polled");
        assert!(plain >= BASE_MIB);
        assert!(mib("mode=polled numjobs=4 iodepth=128 bs=1m") >= plain + 512);
        assert!(mib("via=blockd queues=4 clients=4 mode=polled") >= BASE_MIB + 4 * 12);
        assert!(mib("queues=32 numjobs=32 mode=polled") >= BASE_MIB + 32 * 4);
        // Eight bytes for each of 16 Mi sectors.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        Disk::create(&path, 8 << 30).unwrap();
        let verified = format!("rw=randrw verify=crc32c mode=polled disk={}", path.display());
        assert!(mib(&verified) >= BASE_MIB + 128);
        assert!(mib(&format!("{verified} size=64m")) < BASE_MIB + 128);
    }

    #[test]
    fn a_front_end_has_a_queue_and_a_vector_whatever_the_number_of_clients() {
        let device = job("via=blockd clients=5 mode=interrupt").machine.device;
        assert_eq!((device.queues, device.vectors), (1, 2));
    }

    #[test]
    fn what_is_stepped_is_polled() {
        let params = |words: &str| job(&format!("via=blockd {words}")).params;
        assert_eq!(params("front=stepped").mode, Mode::Polled);
        assert_eq!(params("").mode, Mode::Interrupt);
        assert_eq!((params("icount=on").front, params("icount=on").mode), (Front::Stepped, Mode::Polled));
    }

    #[test]
    fn vectors_follow_the_queues_unless_they_are_given() {
        assert_eq!(job("queues=4 mode=interrupt").machine.device.vectors, 5);
        assert_eq!(job("queues=4 mode=interrupt vectors=0").machine.device.vectors, 0);
    }

    #[test]
    fn the_guest_has_memory_for_every_request_in_flight() {
        let small = job("iodepth=1").machine.memory_mib;
        for jobs in ["numjobs=4", "via=blockd clients=4"] {
            assert!(job(&format!("iodepth=128 bs=1m {jobs}")).machine.memory_mib >= small + 512 - 64);
        }
    }

    #[test]
    fn the_null_disk_grows_with_the_job() {
        assert_eq!(job("size=4g").machine.disk.bytes(), 4 << 30);
    }
}
