//! fio's job file: `[global]` and job sections of `key=value` lines.
//!
//! Comments start with `#` or `;`. A `[global]` section holds for the jobs after it, as in fio. Sections run one after
//! another, which fio calls `stonewall`; that word is accepted and already true. Knows no keys: [`Job`] takes them and
//! refuses what it does not know, and the line is named here.
//!
//! [`Job`]: crate::job::Job
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::path::Path;

/// One `key=value`, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
    /// `--rw` or `file.fio:12`.
    pub(crate) origin: String,
}

/// One job: its name and every setting that holds for it, globals first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) settings: Vec<Setting>,
}

/// Reads a job file; its name opens every error.
pub(crate) fn read(path: &Path) -> Result<Vec<Section>> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("job file {name} cannot be read: check its name and permissions"))?;
    parse(&name.to_string(), &text)
}

fn parse(file: &str, text: &str) -> Result<Vec<Section>> {
    let mut globals: Vec<Setting> = Vec::new();
    let mut jobs: Vec<Section> = Vec::new();
    let mut here: Option<bool> = None; // in [global]?
    let mut seen = HashSet::new();
    for (index, raw) in text.lines().enumerate() {
        let origin = format!("{file}:{}", index + 1);
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            let name = heading(line, &origin)?;
            seen.clear();
            here = Some(name == "global");
            if name != "global" {
                let settings = globals.clone();
                jobs.push(Section { name, settings });
            }
            continue;
        }
        let Some(setting) = assignment(line, &origin)? else {
            continue;
        };
        if !seen.insert(setting.key.clone()) {
            bail!("{origin}: `{}` is given twice in this section: leave one out", setting.key);
        }
        match (here, jobs.last_mut()) {
            (None, _) => bail!("{origin}: `{line}` stands before any section: open one with [global] or [name]"),
            (Some(false), Some(job)) => job.settings.push(setting),
            _ => replace(&mut globals, setting),
        }
    }
    if jobs.is_empty() {
        bail!("{file}: no job in it: add a section such as [randread]");
    }
    Ok(jobs)
}

fn heading(line: &str, origin: &str) -> Result<String> {
    let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match name.map(str::trim) {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => bail!("{origin}: `{line}` is no section: write [name]"),
    }
}

/// `None` for `stonewall`.
fn assignment(line: &str, origin: &str) -> Result<Option<Setting>> {
    if line == "stonewall" {
        return Ok(None);
    }
    let Some((key, value)) = line.split_once('=') else {
        bail!("{origin}: `{line}` has no value: write key=value");
    };
    Ok(Some(Setting { key: key.trim().to_owned(), value: value.trim().to_owned(), origin: origin.to_owned() }))
}

/// A later `[global]` replaces what an earlier one said.
fn replace(settings: &mut Vec<Setting>, new: Setting) {
    settings.retain(|old| old.key != new.key);
    settings.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("a.fio", text).unwrap_err().to_string()
    }

    #[test]
    fn globals_hold_for_the_jobs_after_them() {
        let text = "; a comment\n[global]\nbs = 4k\n[one]\nrw=read\nstonewall\n[global]\nbs=8k\n[two]\nrw=write\n";
        let jobs = parse("a.fio", text).unwrap();
        let pairs =
            |job: &Section| -> Vec<String> { job.settings.iter().map(|s| format!("{}={}", s.key, s.value)).collect() };
        assert_eq!(jobs.len(), 2);
        assert_eq!(pairs(&jobs[0]), ["bs=4k", "rw=read"]);
        assert_eq!(pairs(&jobs[1]), ["bs=8k", "rw=write"]);
        assert_eq!(jobs[1].settings[1].origin, "a.fio:10");
    }

    #[test]
    fn every_malformed_line_is_named() {
        assert!(error("rw=read\n").starts_with("a.fio:1: `rw=read` stands before any section"));
        assert!(error("[a]\n\nrw\n").starts_with("a.fio:3: `rw` has no value"));
        assert!(error("[a\n").starts_with("a.fio:1: `[a` is no section"));
        assert!(error("[a]\nrw=read\nrw=write\n").starts_with("a.fio:3: `rw` is given twice"));
        assert!(error("[global]\nrw=read\n").contains("no job in it"));
    }
}
