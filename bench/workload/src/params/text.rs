//! Parameters as text: one table of keys, one way in ([`Params::set`]), one way out (`Display`).
//!
//! A key's value is read and printed by two matches over the same words; a test walks [`KEYS`] through both. Errors own
//! what they quote, so that they outlive the text.
use core::fmt;

use arrayvec::{ArrayString, ArrayVec};

use super::number::{self, Percent, Size, parse_size, parse_time_ms};
use super::{Amounts, Driver, Front, Indirect, Layout, MAX_SPLIT, Mode, Params, Rw, Split, Submit, Verify, Via, WHOLE};

/// A quoted piece of the text, cut after 48 bytes.
pub type Word = ArrayString<48>;

/// Every key, in the order of printing, and what its value looks like.
pub const KEYS: [(&str, &str); 37] = [
    ("name", "1 to 48 characters of A-Z a-z 0-9 . _ -"),
    ("scenario", "a scenario's name, 1 to 32 characters of A-Z a-z 0-9 . _ -, or none"),
    ("driver", "ours, raw, virtio-drivers, linux or, natively, virtio-driver, blkio"),
    ("mode", "polled or interrupt"),
    ("submit", "owner, shared, auto or, natively, mutex"),
    ("rw", "read, write, randread, randwrite, rw, randrw, trim or randtrim"),
    ("bssplit", "one size (4k) or up to 8 like 512/20:4k/80, each a multiple of 512, the shares adding up to 100"),
    ("iodepth", "1 to 1024"),
    ("iodepth_batch_submit", "1 to 128"),
    ("iodepth_batch_complete_min", "0 to iodepth"),
    ("iodepth_batch_complete_max", "1 or more"),
    ("numjobs", "1 to 65535"),
    ("amounts", "total or fio"),
    ("size", "a size such as 1g, a multiple of 512, or 0 for the whole disk"),
    ("io_size", "a size such as 1g, or 0 for as much as size"),
    ("loops", "a number of passes, or 0 for no bound"),
    ("offset", "a size such as 1g, a multiple of 512"),
    ("offset_increment", "a size such as 1g, a multiple of 512"),
    ("norandommap", "on or off"),
    ("runtime_ms", "milliseconds (runtime takes 5, 0.5, 500ms or 2m), or 0"),
    ("number_ios", "a number of I/Os, or 0"),
    ("rwmixread", "0 to 100"),
    ("rate_iops", "I/Os per second up to 1000000000, or 0 for no limit"),
    ("verify", "none or crc32c"),
    ("randseed", "a number"),
    ("queues", "a number of queues, or 0 for as many as are useful"),
    ("vectors", "a number of interrupt vectors"),
    ("queue_size", "a power of two up to 32768, or 0 for the device's"),
    ("event_idx", "on or off"),
    ("indirect", "on, off or auto"),
    ("layout", "line or dense"),
    ("icount", "on or off"),
    ("via", "driver or blockd"),
    ("clients", "1 to 16"),
    ("front", "own or stepped"),
    ("partitions", "on or off"),
    ("kills", "1 or more"),
];

/// Other names that fio has for some of [`KEYS`].
const ALIASES: [(&str, &str); 6] = [
    ("bs", "bssplit"),
    ("blocksize", "bssplit"),
    ("readwrite", "rw"),
    ("runtime", "runtime_ms"),
    ("iodepth_batch", "iodepth_batch_submit"),
    ("iodepth_batch_complete", "iodepth_batch_complete_min"),
];

/// Why parameters were refused. `Display` is one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// No such key.
    UnknownKey {
        /// The key as given.
        key: Word,
    },
    /// A word of the text is not `key=value`.
    NoValue {
        /// The word as given.
        word: Word,
    },
    /// A key, or another name of the same key, appears twice in one text.
    Repeated {
        /// The key as given the second time.
        key: Word,
    },
    /// A value that its key does not take.
    Malformed {
        /// The key as given: its name in [`KEYS`], or fio's other name for it.
        key: &'static str,
        /// The value as given.
        value: Word,
    },
    /// A field outside its range.
    OutOfRange {
        /// The key, by its name in [`KEYS`].
        key: &'static str,
    },
    /// Two fields that exclude one another.
    Contradiction {
        /// What is wrong and what to do about it.
        advice: &'static str,
    },
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key } => {
                write!(f, "unknown key `{}`: correct it or leave it out", key.escape_debug())
            }
            Self::NoValue { word } => {
                write!(f, "`{}` has no value: write key=value", word.escape_debug())
            }
            Self::Repeated { key } => {
                write!(f, "`{}` is given twice: leave one out", key.escape_debug())
            }
            Self::Malformed { key, value } => {
                write!(f, "{key} does not take `{}`: give {}", value.escape_debug(), takes(key))
            }
            Self::OutOfRange { key } => write!(f, "{key} is out of range: give {}", takes(key)),
            Self::Contradiction { advice } => f.write_str(advice),
        }
    }
}

impl core::error::Error for ParamError {}

impl Params {
    /// Reads `key=value` pairs separated by white space over [`Params::default`], then [validates](Params::validate).
    ///
    /// # Errors
    /// The first unknown key, missing or malformed value, key given twice, value out of range, or contradiction.
    pub fn parse(text: &str) -> Result<Self, ParamError> {
        let mut params = Self::default();
        let mut seen = 0u64;
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(ParamError::NoValue { word: cut(word) })?;
            let index = index(key).ok_or(ParamError::UnknownKey { key: cut(key) })?;
            if seen & (1 << index) != 0 {
                return Err(ParamError::Repeated { key: cut(key) });
            }
            seen |= 1 << index;
            params.set(key, value)?;
        }
        params.validate()?;
        Ok(params)
    }

    /// Sets one field by its key in [`KEYS`] or one of fio's other names for it (`bs`, `blocksize`, `readwrite`,
    /// `runtime`, `iodepth_batch`, `iodepth_batch_complete`). Setting twice replaces; ranges that depend on other
    /// fields are left to [`Params::validate`].
    ///
    /// # Errors
    /// [`ParamError::UnknownKey`] or [`ParamError::Malformed`]; the parameters are then unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ParamError> {
        let index = index(key).ok_or(ParamError::UnknownKey { key: cut(key) })?;
        let name = KEYS[index].0;
        let read =
            if key == "runtime" { put(&mut self.runtime_ms, parse_time_ms(value)) } else { self.read(name, value) };
        let given = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(name, |(alias, _)| alias);
        read.ok_or(ParamError::Malformed { key: given, value: cut(value) })
    }

    /// `None` if `key` does not take `value`.
    fn read(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "name" => put(&mut self.name, name(value)),
            "scenario" => put(&mut self.scenario, name(value)),
            "driver" => put(&mut self.driver, Driver::from_word(value)),
            "mode" => put(&mut self.mode, Mode::from_word(value)),
            "submit" => put(&mut self.submit, Submit::from_word(value)),
            "rw" => put(&mut self.rw, if value == "readwrite" { Some(Rw::ReadWrite) } else { Rw::from_word(value) }),
            "bssplit" => put(&mut self.bssplit, bssplit(value)),
            "iodepth" => put(&mut self.iodepth, small(value)),
            "iodepth_batch_submit" => put(&mut self.iodepth_batch_submit, small(value)),
            "iodepth_batch_complete_min" => put(&mut self.iodepth_batch_complete_min, small(value)),
            "iodepth_batch_complete_max" => put(&mut self.iodepth_batch_complete_max, small(value)),
            "numjobs" => put(&mut self.numjobs, small(value)),
            "amounts" => put(&mut self.amounts, Amounts::from_word(value)),
            "size" => put(&mut self.size, parse_size(value)),
            "io_size" => put(&mut self.io_size, parse_size(value)),
            "loops" => put(&mut self.loops, small(value)),
            "offset" => put(&mut self.offset, parse_size(value)),
            "offset_increment" => put(&mut self.offset_increment, parse_size(value)),
            "norandommap" => put(&mut self.norandommap, switch(value)),
            "runtime_ms" => put(&mut self.runtime_ms, number::plain(value)),
            "number_ios" => put(&mut self.number_ios, parse_size(value)),
            "rwmixread" => put(&mut self.rwmixread, small(value)),
            "rate_iops" => put(&mut self.rate_iops, parse_size(value)),
            "verify" => put(&mut self.verify, Verify::from_word(value)),
            "randseed" => put(&mut self.randseed, number::plain(value)),
            "queues" => put(&mut self.queues, small(value)),
            "vectors" => put(&mut self.vectors, small(value)),
            "queue_size" => put(&mut self.queue_size, small(value)),
            "event_idx" => put(&mut self.event_idx, switch(value)),
            "indirect" => put(&mut self.indirect, Indirect::from_word(value)),
            "layout" => put(&mut self.layout, Layout::from_word(value)),
            "icount" => put(&mut self.icount, switch(value)),
            "via" => put(&mut self.via, Via::from_word(value)),
            "clients" => put(&mut self.clients, small(value)),
            "front" => put(&mut self.front, Front::from_word(value)),
            "partitions" => put(&mut self.partitions, switch(value)),
            "kills" => put(&mut self.kills, small(value)),
            _ => None,
        }
    }

    fn write(&self, key: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value: &dyn fmt::Display = match key {
            "name" => &self.name,
            "scenario" => &self.scenario,
            "driver" => &self.driver,
            "mode" => &self.mode,
            "submit" => &self.submit,
            "rw" => &self.rw,
            "bssplit" => return write_bssplit(&self.bssplit, f),
            "iodepth" => &self.iodepth,
            "iodepth_batch_submit" => &self.iodepth_batch_submit,
            "iodepth_batch_complete_min" => &self.iodepth_batch_complete_min,
            "iodepth_batch_complete_max" => &self.iodepth_batch_complete_max,
            "numjobs" => &self.numjobs,
            "amounts" => &self.amounts,
            "size" => &Size(self.size),
            "io_size" => &Size(self.io_size),
            "loops" => &self.loops,
            "offset" => &Size(self.offset),
            "offset_increment" => &Size(self.offset_increment),
            "norandommap" => &Switch(self.norandommap),
            "runtime_ms" => &self.runtime_ms,
            "number_ios" => &self.number_ios,
            "rwmixread" => &self.rwmixread,
            "rate_iops" => &self.rate_iops,
            "verify" => &self.verify,
            "randseed" => &self.randseed,
            "queues" => &self.queues,
            "vectors" => &self.vectors,
            "queue_size" => &self.queue_size,
            "event_idx" => &Switch(self.event_idx),
            "indirect" => &self.indirect,
            "layout" => &self.layout,
            "icount" => &Switch(self.icount),
            "via" => &self.via,
            "clients" => &self.clients,
            "front" => &self.front,
            "partitions" => &Switch(self.partitions),
            "kills" => &self.kills,
            _ => return Err(fmt::Error),
        };
        value.fmt(f)
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, _)) in KEYS.iter().enumerate() {
            let gap = if position > 0 { " " } else { "" };
            write!(f, "{gap}{key}=")?;
            self.write(key, f)?;
        }
        Ok(())
    }
}

/// The place of `key` in [`KEYS`].
fn index(key: &str) -> Option<usize> {
    let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name);
    KEYS.iter().position(|(known, _)| *known == key)
}

fn takes(key: &str) -> &'static str {
    if key == "runtime" {
        return "seconds (5 or 0.5), or a time such as 500ms or 2m";
    }
    index(key).map_or("another value", |index| KEYS[index].1)
}

/// `bssplit` and `bs`: sizes that say nothing share what the others leave; a lone size has everything.
fn bssplit(text: &str) -> Option<ArrayVec<Split, MAX_SPLIT>> {
    let mut splits = ArrayVec::<Split, MAX_SPLIT>::new();
    for entry in text.split(':') {
        let (size, share) = entry.split_once('/').unwrap_or((entry, ""));
        // Weight 0 stands for "says nothing" until the shares are known; an explicit 0 is refused.
        let weight = if share.is_empty() { 0 } else { number::parse_percent(share).filter(|weight| *weight > 0)? };
        let bytes = u32::try_from(parse_size(size)?).ok()?;
        splits.try_push(Split { bytes, weight }).ok()?;
    }
    let rest = WHOLE.checked_sub(splits.iter().map(|split| split.weight).sum())?;
    let silent = splits.iter().filter(|split| split.weight == 0).count() as u32;
    let mut left = silent;
    for split in splits.iter_mut().filter(|split| split.weight == 0) {
        left -= 1;
        // The last one takes what does not divide.
        split.weight = if left == 0 { rest - (silent - 1) * (rest / silent) } else { rest / silent };
    }
    let sound = |split: &Split| split.weight > 0 && split.bytes > 0 && split.bytes.is_multiple_of(super::SECTOR);
    let whole = splits.iter().map(|split| split.weight).sum::<u32>() == WHOLE;
    if whole && splits.iter().all(sound) { Some(splits) } else { None }
}

fn write_bssplit(splits: &[Split], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let [only] = splits {
        return write!(f, "{}", Size(only.bytes.into()));
    }
    for (position, split) in splits.iter().enumerate() {
        let gap = if position > 0 { ":" } else { "" };
        write!(f, "{gap}{}/{}", Size(split.bytes.into()), Percent(split.weight))?;
    }
    Ok(())
}

/// Stores a value that was understood.
fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn small<T: TryFrom<u64>>(text: &str) -> Option<T> {
    T::try_from(number::plain(text)?).ok()
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Prints what [`switch`] reads.
struct Switch(bool);

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

fn name<const N: usize>(text: &str) -> Option<ArrayString<N>> {
    ArrayString::from(text).ok().filter(|text| is_name(text))
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The default of a name, empty (and so refused by [`Params::validate`]) if it did not fit.
pub(super) fn literal<const N: usize>(text: &str) -> ArrayString<N> {
    ArrayString::from(text).unwrap_or_default()
}

/// As much of `text` as a [`Word`] holds.
fn cut(text: &str) -> Word {
    let mut word = Word::new();
    for character in text.chars() {
        if word.try_push(character).is_err() {
            break;
        }
    }
    word
}
