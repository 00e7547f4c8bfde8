//! What fio's done keys come to: parameters in fio's meaning of the amounts.
//!
//! fio's amounts are those of each job, and the parameters hold their sums. `size` bounds what a job transfers,
//! `io_size` likewise in its place, `loops` repeats that, `number_ios` and `runtime` end it early, and with
//! `time_based` nothing but those two does. An error names the key as it was typed and where it stands.
use super::Typed;
use super::keys;
use super::number::{self, Amount, BINARY, Base};
use crate::jobfile::Setting;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use workload::params::{Amounts, Params, Rw, SECTOR, parse_time_ms};

/// Most requests that are handed over at once.
const MOST_BATCH: u64 = 128;
/// Most block sizes of a job.
const MOST_SIZES: u64 = 8;

/// What the job runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Where<'a> {
    /// `null`, or the disk's path.
    pub(crate) disk: &'a str,
    /// The back-end that brings the disk.
    pub(crate) socket: Option<&'a str>,
    /// The disk's bytes; not of the null disk, which has as many as the job needs, nor of a back-end's own.
    pub(crate) bytes: Option<u64>,
}

impl Where<'_> {
    /// The disk takes the size that the job needs.
    fn grows(&self) -> bool {
        self.disk == "null" && self.socket.is_none()
    }
}

impl Typed {
    /// Sets what was said, in fio's meaning.
    pub(crate) fn settle(&mut self, params: &mut Params, on: Where<'_>) -> Result<()> {
        params.amounts = Amounts::Fio;
        params.norandommap = false;
        let base = self.read("kb_base", base)?.unwrap_or(BINARY);
        self.pattern(params)?;
        self.blocks(params, base)?;
        self.counts(params, base)?;
        self.engine(params)?;
        self.disk(on)?;
        self.amounts(params, on, base)
    }

    /// The value of `key`, if it was said; an error names key and place.
    fn read<T>(&self, key: &str, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        let Some(setting) = self.said(key) else { return Ok(None) };
        read(&setting.value).map(Some).map_err(|error| blamed(setting, &error))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.read(key, |value| number::size(value, BINARY))?.is_some_and(|number| number != 0))
    }

    fn pattern(&mut self, params: &mut Params) -> Result<()> {
        if let Some(given) = self.said("name").map(|setting| setting.value.clone()) {
            let name = named(&given);
            if name != given {
                self.note(format!("the job `{given}` is called {name} here"));
            }
            params.set("name", &name)?;
        }
        if let Some(rw) = self.read("rw", pattern)? {
            params.rw = rw;
        }
        params.norandommap = self.flag("norandommap")?;
        if let Some(setting) = self.said("rwmixread") {
            let share = self.read("rwmixread", |value| number::size(value, BINARY))?.unwrap_or_default();
            ensure!(share <= 100, "{}: {} does not take `{share}`: give 0 to 100", setting.origin, setting.key);
            params.rwmixread = u8::try_from(if setting.key == "rwmixwrite" { 100 - share } else { share })?;
        }
        if let Some(seed) = self.read("randseed", |value| number::size(value, BINARY))? {
            params.randseed = seed;
        } else if self.said("randrepeat").is_some() && !self.flag("randrepeat")? {
            params.randseed = RandomState::new().hash_one(0);
        }
        Ok(())
    }

    fn blocks(&self, params: &mut Params, base: Base) -> Result<()> {
        let Some(setting) = self.said("bs") else { return self.aligned(params, base) };
        let text = self.read("bs", |value| {
            let one = each_way(value, params.rw)?.unwrap_or_else(|| "4096".into());
            match keys::find(&setting.key).map(|key| key.name) {
                Some("bsrange") => range(&one, base),
                Some("bssplit") => split(&one, base),
                _ => block(&one, base).map(|bytes| bytes.to_string()),
            }
        })?;
        let text = text.unwrap_or_default();
        params.set("bssplit", &text).map_err(|_| {
            let takes = "up to 8 sizes, each a multiple of 512 below 4g, with shares of 100 percent in all";
            blamed(setting, &anyhow::anyhow!("does not take `{}`: give {takes}", setting.value))
        })?;
        self.aligned(params, base)
    }

    /// Positions are multiples of the smallest block, and nothing else is done.
    fn aligned(&self, params: &Params, base: Base) -> Result<()> {
        let smallest = u64::from(params.smallest_block());
        self.read("ba", |value| {
            let align = number::size(&each_way(value, params.rw)?.unwrap_or_else(|| "0".into()), base)?;
            ensure!(
                align == 0 || align == smallest,
                "does not take `{value}`: positions are multiples of {smallest} here"
            );
            Ok(())
        })?;
        Ok(())
    }

    fn counts(&self, params: &mut Params, base: Base) -> Result<()> {
        let mut set = |key: &str| -> Result<()> {
            let Some(setting) = self.said(key) else { return Ok(()) };
            let mut number = self.read(key, |value| number::size(value, base))?.unwrap_or_default();
            if key == "iodepth_batch" && number == 0 {
                number = u64::from(params.iodepth).min(MOST_BATCH);
            }
            params.set(&setting.key, &number.to_string()).with_context(|| setting.origin.clone())
        };
        let keys = ["numjobs", "iodepth", "iodepth_batch", "iodepth_batch_complete_min", "iodepth_batch_complete_max"];
        keys.iter().try_for_each(|key| set(key))?;
        if self.said("iodepth_batch_complete_max").is_none() {
            let least = params.iodepth_batch_complete_min;
            params.iodepth_batch_complete_max = params.iodepth_batch_complete_max.max(least);
        }
        let depth = u64::from(params.iodepth);
        self.read("iodepth_low", |value| {
            let low = number::size(value, base)?;
            ensure!(
                low == 0 || low == depth,
                "does not take `{value}`: the queue is filled up to iodepth={depth} again here"
            );
            Ok(())
        })?;
        let rate = self.read("rate_iops", |value| match each_way(value, params.rw)? {
            Some(rate) => number::size(&rate, base),
            None => Ok(0),
        })?;
        params.rate_iops = rate.unwrap_or(params.rate_iops);
        Ok(())
    }

    fn engine(&mut self, params: &mut Params) -> Result<()> {
        if let Some(kind) = self.read("verify", verified)? {
            params.set("verify", kind)?;
        }
        let Some(engine) = self.said("ioengine").map(|setting| setting.value.clone()) else { return Ok(()) };
        self.note("ioengine has no meaning here: the driver does the work".into());
        if keys::SYNCHRONOUS.contains(&engine.as_str()) && params.iodepth > 1 {
            let depth = params.iodepth;
            self.note(format!("iodepth={depth} holds here; fio keeps one request in flight with ioengine={engine}"));
        }
        Ok(())
    }

    /// What job files call the disk must be the disk.
    fn disk(&mut self, on: Where<'_>) -> Result<()> {
        if self.said("directory").is_some() && self.said("filename").is_none() {
            self.note("directory has no meaning where no files are made: the disk is --disk=FILE, whole".into());
        }
        let folder = self.said("directory").map(|setting| setting.value.clone());
        self.read("filename", |value| {
            let path = folder.as_deref().map_or_else(|| PathBuf::from(value), |folder| Path::new(folder).join(value));
            let same = |other: &str| {
                path == Path::new(other)
                    || path.canonicalize().ok().zip(Path::new(other).canonicalize().ok()).is_some_and(|(a, b)| a == b)
            };
            if on.socket.map_or_else(|| on.disk != "null" && same(on.disk), same) {
                return Ok(());
            }
            let disk = on.socket.unwrap_or(on.disk);
            let path = path.display();
            bail!(
                "`{value}` is not this run's disk ({disk}): leave it out, or give --disk={path} if that disk is meant"
            )
        })?;
        Ok(())
    }

    fn amounts(&self, params: &mut Params, on: Where<'_>, base: Base) -> Result<()> {
        let jobs = u64::from(params.jobs());
        let bytes = |key: &str, of: Option<u64>| self.read(key, |value| absolute(value, of, base));
        let smallest = u64::from(params.smallest_block());
        let rounded = |bytes: u64| bytes / smallest * smallest;
        params.offset = bytes("offset", on.bytes)?.map_or(0, rounded_to_sector);
        params.offset_increment = bytes("offset_increment", on.bytes)?.map_or(0, rounded_to_sector);
        let share = self.said("size").is_some_and(|setting| setting.value.ends_with('%'));
        let size = bytes("size", on.bytes)?.map_or(0, |size| if share { rounded(size) } else { size });
        if let Some(setting) = self.said("size").filter(|_| size > 0 && size < smallest) {
            bail!("{}: size={} is less than a block of {smallest} bytes: raise it", setting.origin, setting.value);
        }
        params.size = total(rounded_to_sector(size), jobs)?;
        let whole = if size > 0 { Some(size) } else { on.bytes.map(|bytes| bytes.saturating_sub(params.offset)) };
        let io_size = bytes("io_size", whole)?.unwrap_or(0);
        if !params.shares_disk() && params.offset_increment == rounded_to_sector(size) {
            // That is where they begin anyway.
            params.offset_increment = 0;
        }
        let loops = self.read("loops", |value| number::size(value, base))?.unwrap_or(1);
        let loops =
            u32::try_from(loops).ok().filter(|loops| *loops > 0).context("loops is out of range: give 1 or more")?;
        params.runtime_ms = self.read("runtime", time)?.unwrap_or(0);
        let time_based = self.flag("time_based")?;
        if time_based && params.runtime_ms == 0 {
            let origin = self.said("time_based").map_or("", |setting| &setting.origin);
            bail!("{origin}: time_based needs an end: give runtime=5 (seconds), or leave it out");
        }
        let number = self.read("number_ios", |value| number::size(value, base))?.unwrap_or(0);
        params.number_ios = total(total(number, loops.into())?, jobs)?;
        let is_bounded = size > 0 || io_size > 0 || !on.grows();
        params.loops = if time_based || params.icount || !is_bounded { 0 } else { loops };
        let pass = if io_size > 0 { io_size } else { pass(params, size, on) };
        params.io_size = total(pass, jobs)?;
        Ok(())
    }
}

/// An error that begins behind the key, with key and place before it.
fn blamed(setting: &Setting, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}: {} {error:#}", setting.origin, setting.key)
}

/// A job's name with the characters that the image's command line takes.
fn named(value: &str) -> String {
    let plain =
        |character: char| if character.is_ascii_alphanumeric() || "._-".contains(character) { character } else { '_' };
    value.chars().map(plain).take(48).collect()
}

fn base(value: &str) -> Result<Base> {
    match value {
        "1024" => Ok(BINARY),
        "1000" => Ok(Base(1000)),
        _ => bail!("does not take `{value}`: give 1024 or 1000"),
    }
}

fn pattern(value: &str) -> Result<Rw> {
    let (word, modifier) = value.split_once(':').map_or((value, None), |(word, modifier)| (word, Some(modifier)));
    let rw = match word {
        "readwrite" => Rw::ReadWrite,
        "trimwrite" | "randtrimwrite" => {
            bail!("does not take `{value}`: trims are jobs of their own here: give rw=trim, then rw=write")
        }
        _ => Rw::from_word(word).with_context(|| {
            format!("does not take `{value}`: give read, write, randread, randwrite, rw, randrw, trim or randtrim")
        })?,
    };
    match modifier {
        None | Some("1") if rw.is_random() || modifier.is_none() => Ok(rw),
        Some(modifier) => {
            bail!("does not take `{value}`: `:{modifier}` changes where positions follow one another: give rw={word}")
        }
        None => Ok(rw),
    }
}

/// Of a list for reads, writes and trims (each as the one before it unless given), what `rw` needs; `None` if that is
/// not said.
fn each_way(value: &str, rw: Rw) -> Result<Option<String>> {
    let mut ways: Vec<Option<String>> =
        value.split(',').map(|one| (!one.is_empty()).then(|| one.trim().to_owned())).collect();
    ensure!(ways.len() <= 3, "does not take `{value}`: give at most three, for reads, writes and trims");
    // A lone value is everybody's; of a list that ends in a comma, nobody's after it.
    while ways.len() < 3 {
        ways.push(ways.last().cloned().flatten());
    }
    let [read, write, trim] = [0, 1, 2].map(|way| ways[way].clone());
    match rw {
        Rw::Read | Rw::RandRead => Ok(read),
        Rw::Write | Rw::RandWrite => Ok(write),
        Rw::Trim | Rw::RandTrim => Ok(trim),
        Rw::ReadWrite | Rw::RandRw if read == write => Ok(read),
        Rw::ReadWrite | Rw::RandRw => {
            bail!("does not take `{value}`: reads and writes of a mix are alike here: give one value")
        }
    }
}

fn block(text: &str, base: Base) -> Result<u64> {
    let bytes = number::size(text, base)?;
    let sector = u64::from(SECTOR);
    if bytes == 0 || !bytes.is_multiple_of(sector) {
        let binary = if text.to_ascii_lowercase().ends_with("ib") { " (k is 1024 in fio, kib 1000)" } else { "" };
        bail!(
            "does not take `{text}`: {bytes} bytes{binary} is not a positive multiple of {sector}: give a size such as 4k"
        );
    }
    Ok(bytes)
}

/// `4k-16k`, as shares of a split.
fn range(text: &str, base: Base) -> Result<String> {
    let (low, high) = text.split_once('-').or_else(|| text.split_once(':')).unwrap_or((text, text));
    let (low, high) = (block(low.trim(), base)?, block(high.trim(), base)?);
    ensure!(
        low <= high && high.is_multiple_of(low),
        "does not take `{text}`: give multiples of the first size, such as 4k-16k"
    );
    let sizes = high / low;
    ensure!(sizes <= MOST_SIZES, "does not take `{text}`: {sizes} sizes are more than {MOST_SIZES}: give bssplit");
    Ok((1..=sizes).map(|times| (times * low).to_string()).collect::<Vec<_>>().join(":"))
}

/// `512/20:4k/80` in bytes.
fn split(text: &str, base: Base) -> Result<String> {
    let mut plain = String::new();
    for entry in text.split(':') {
        let (size, share) = entry.split_once('/').unwrap_or((entry, ""));
        // fio never chooses these.
        if share == "0" {
            continue;
        }
        let gap = if plain.is_empty() { "" } else { ":" };
        let _ = write!(plain, "{gap}{}", block(size.trim(), base)?);
        if !share.is_empty() {
            let _ = write!(plain, "/{share}");
        }
    }
    Ok(plain)
}

fn verified(value: &str) -> Result<&'static str> {
    match value {
        "0" | "none" => Ok("none"),
        "crc32c" | "crc32c-intel" => Ok("crc32c"),
        _ => bail!("does not take `{value}`: give none or crc32c"),
    }
}

fn time(value: &str) -> Result<u64> {
    parse_time_ms(value).with_context(|| {
        format!(
            "does not take `{value}`: give seconds (5 or 0.5), or a time such as 500ms or 2m, in whole milliseconds"
        )
    })
}

/// Bytes, of which `of` are the whole.
fn absolute(value: &str, of: Option<u64>, base: Base) -> Result<u64> {
    match number::amount(value, base)? {
        Amount::Bytes(bytes) => Ok(bytes),
        Amount::Percent(share) => {
            let of =
                of.with_context(|| format!("does not take `{value}`: the size of the disk is not known: give bytes"))?;
            u64::try_from(u128::from(of) * u128::from(share) / 100).with_context(|| format!("does not take `{value}`"))
        }
    }
}

fn rounded_to_sector(bytes: u64) -> u64 {
    bytes / u64::from(SECTOR) * u64::from(SECTOR)
}

/// What one pass transfers beyond the whole blocks of a job's part of the disk: a sequential pass reaches beyond
/// `size` if a last, whole block finds room there, as fio's does. 0: no more than those.
fn pass(params: &Params, size: u64, on: Where<'_>) -> u64 {
    let (smallest, jobs) = (u64::from(params.smallest_block()), u64::from(params.jobs()));
    if params.bssplit.len() > 1 {
        return size / smallest * smallest;
    }
    let blocks = size.div_ceil(smallest) * smallest;
    let last = params.offset + params.offset_increment * jobs.saturating_sub(1);
    let room = on.bytes.is_none_or(|bytes| params.shares_disk() && last.saturating_add(blocks) <= bytes);
    if params.rw.is_random() || !room { 0 } else { size }
}

/// The sum over all jobs.
fn total(each: u64, jobs: u64) -> Result<u64> {
    each.checked_mul(jobs).with_context(|| format!("{each} for each of {jobs} jobs is too much: lower it"))
}
