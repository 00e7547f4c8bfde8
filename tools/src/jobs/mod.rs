//! fio's words as people type them, on the command line and in job files alike, and what they come to here.
//!
//! [`keys`] gives every option of fio its place, [`number`] reads fio's numbers, [`meaning`] turns what was said into
//! parameters. [`Typed`] collects what was said: the last value of a key holds, as in fio. Refuses to know this bench's
//! own keys, which are `job`'s.
pub(crate) mod keys;
mod meaning;
mod number;

use crate::jobfile::Setting;
use anyhow::{Result, bail, ensure};
use keys::Place;
pub(crate) use meaning::Where;
use std::collections::BTreeMap;

/// fio's keys that somebody set, and what is to be said of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typed {
    /// By the key, or by the key that it shares its meaning with.
    said: BTreeMap<&'static str, Setting>,
    notes: Vec<String>,
}

impl Typed {
    /// Takes a setting in if its key is fio's, and says under which name; `None` if the key is not fio's. The error does
    /// not say where the setting stands.
    pub(crate) fn take(&mut self, setting: &Setting) -> Result<Option<&'static str>> {
        let Some(known) = keys::find(&setting.key) else {
            return Ok(None);
        };
        let mut setting = setting.clone();
        if setting.value.is_empty() {
            ensure!(known.is_flag, "`{0}` has no value: write {0}=value", setting.key);
            "1".clone_into(&mut setting.value);
        }
        let engine = setting.value.split(':').next().unwrap_or_default();
        if known.name == "ioengine" && !keys::ENGINES.contains(&engine) {
            bail!("{}={} is no engine for a disk: leave it out, or the section", setting.key, setting.value);
        }
        match known.place {
            Place::Done(_) => {
                self.said.insert(slot(known.name), setting);
            }
            Place::Noted(why) => self.note(format!("{} {why}", setting.key)),
            Place::Only(values, why) => {
                let zero = values.contains(&"0") && number::size(&setting.value, number::BINARY).is_ok_and(|n| n == 0);
                let harmless = zero || values.contains(&setting.value.as_str());
                ensure!(harmless, "{}={} is refused: {why}", setting.key, setting.value);
            }
            Place::Refused(why) => bail!("{}={} is refused: {why}", setting.key, setting.value),
        }
        Ok(Some(known.name))
    }

    /// What is to be said, each once.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds to what is to be said.
    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    fn said(&self, key: &str) -> Option<&Setting> {
        self.said.get(key)
    }

    /// Whether somebody said how much is to be done.
    pub(crate) fn has_amount(&self) -> bool {
        ["size", "io_size", "loops", "number_ios", "runtime"].iter().any(|key| self.said.contains_key(key))
    }
}

/// Keys that say the same in other words replace one another.
fn slot(key: &'static str) -> &'static str {
    match key {
        "bsrange" | "bssplit" => "bs",
        "rwmixwrite" => "rwmixread",
        "allrandrepeat" => "randrepeat",
        key => key,
    }
}
