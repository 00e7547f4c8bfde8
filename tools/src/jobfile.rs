//! fio's job file: `[global]` and job sections of `key=value` lines.
//!
//! As fio reads it: `#` and `;` begin a comment anywhere, a `[global]` section holds for the jobs after it, keys may
//! stand without a value, `include FILE` reads another file in the same place, `${NAME}` is the environment's, and
//! `$jobname`, `$ncpus`, `$pagesize` and `$mb_memory` are replaced. Knows no keys: what they mean and which
//! are refused is [`jobs`]'s and [`Job`]'s, and the line is named there.
//!
//! [`jobs`]: crate::jobs
//! [`Job`]: crate::job::Job
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// How deep files may include others.
const DEPTH: usize = 16;

/// One `key=value`, and where it came from; the value of a key that stands alone is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
    /// `--rw` or `file.fio:12`.
    pub(crate) origin: String,
}

/// One job: its name and every setting that holds for it, globals first, then its name, then its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) settings: Vec<Setting>,
}

impl Section {
    /// Whether the last of several settings gives one of `keys` a value other than 0.
    pub(crate) fn has(&self, keys: &[&str]) -> bool {
        let last = self.settings.iter().rev().find(|setting| keys.contains(&setting.key.as_str()));
        last.is_some_and(|setting| setting.value != "0")
    }
}

/// Reads a job file; its name opens every error.
pub(crate) fn read(path: &Path) -> Result<Vec<Section>> {
    let name = path.display().to_string();
    let text = text(path).with_context(|| format!("job file {name} cannot be read: check its name and permissions"))?;
    let mut sections = Sections::default();
    sections.add(path, &text, 0)?;
    sections.finish(&name)
}

/// The text of a file; what is no UTF-8 in it can only be a comment or a wrong value.
fn text(path: &Path) -> std::io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

/// What was read so far.
#[derive(Default)]
struct Sections {
    globals: Vec<Setting>,
    jobs: Vec<Section>,
    /// In `[global]`, in a job, or in neither.
    here: Option<bool>,
}

impl Sections {
    /// Reads the lines of one file; `depth` files include it.
    fn add(&mut self, path: &Path, text: &str, depth: usize) -> Result<()> {
        for (index, raw) in text.lines().enumerate() {
            let origin = format!("{}:{}", path.display(), index + 1);
            let line = raw.split(['#', ';']).next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if line.starts_with('[') {
                ensure!(depth == 0, "{origin}: `{line}`: an included file has no sections: leave it out");
                self.open(heading(line, &origin)?, &origin);
                continue;
            }
            let here = self.here.with_context(|| {
                format!("{origin}: `{line}` stands before any section: open one with [global] or [name]")
            })?;
            if let Some(file) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t', '='])) {
                self.include(path, file.trim_start_matches(['=', ' ', '\t']), &origin, depth)?;
                continue;
            }
            let setting = assignment(line, &origin)?;
            match self.jobs.last_mut() {
                Some(job) if !here => job.settings.push(setting),
                _ => self.globals.push(setting),
            }
        }
        Ok(())
    }

    fn open(&mut self, name: &str, origin: &str) {
        // So does fio: whatever begins like that.
        let is_global = name.starts_with("global");
        self.here = Some(is_global);
        if !is_global {
            let mut settings = self.globals.clone();
            settings.push(Setting { key: "name".into(), value: name.into(), origin: origin.into() });
            self.jobs.push(Section { name: name.into(), settings });
        }
    }

    /// The file `name`, as it stands or beside the file that includes it.
    fn include(&mut self, from: &Path, name: &str, origin: &str, depth: usize) -> Result<()> {
        ensure!(depth < DEPTH, "{origin}: files include one another: leave one out");
        let beside = from.parent().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let path = if Path::new(name).exists() { PathBuf::from(name) } else { beside };
        let text = text(&path).with_context(|| format!("{origin}: include {name} cannot be read: check its name"))?;
        self.add(&path, &text, depth + 1)
    }

    fn finish(mut self, name: &str) -> Result<Vec<Section>> {
        if self.jobs.is_empty() {
            bail!("{name}: no job in it: add a section such as [randread]");
        }
        for job in &mut self.jobs {
            for setting in &mut job.settings {
                setting.value = setting.value.replace("$jobname", &job.name);
            }
        }
        Ok(self.jobs)
    }
}

fn heading<'l>(line: &'l str, origin: &str) -> Result<&'l str> {
    let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match name.map(str::trim) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => bail!("{origin}: `{line}` is no section: write [name]"),
    }
}

fn assignment(line: &str, origin: &str) -> Result<Setting> {
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let (key, value) = (key.trim(), substituted(unquoted(value.trim())));
    ensure!(!key.is_empty(), "{origin}: `{line}` has no key: write key=value");
    if line.contains("${") && value.is_empty() {
        bail!("{origin}: `{line}` comes to nothing: set what it takes from the environment");
    }
    if line.contains('=') && value.is_empty() {
        bail!("{origin}: `{line}` has no value: write {key}=value, or leave it out");
    }
    Ok(Setting { key: key.to_owned(), value, origin: origin.to_owned() })
}

fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// With the environment's `${NAME}`, and fio's words for the machine.
fn substituted(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(&std::env::var(name).unwrap_or_default());
        rest = behind;
    }
    out.push_str(rest);
    if !out.contains('$') {
        return out;
    }
    let system = |name| nix::unistd::sysconf(name).ok().flatten().unwrap_or(1).unsigned_abs();
    let page = system(nix::unistd::SysconfVar::PAGE_SIZE);
    let memory = (system(nix::unistd::SysconfVar::_PHYS_PAGES) * page) >> 20;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    out.replace("$ncpus", &processors.to_string())
        .replace("$pagesize", &page.to_string())
        .replace("$mb_memory", &memory.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Section>> {
        let mut sections = Sections::default();
        sections.add(Path::new("a.fio"), text, 0)?;
        sections.finish("a.fio")
    }

    fn pairs(job: &Section) -> Vec<String> {
        job.settings.iter().map(|s| format!("{}={}", s.key, s.value)).collect()
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn globals_hold_for_the_jobs_after_them() {
        let text = "; a comment\n[global]\nbs = 4k\n[one]\nrw=read\nstonewall\n[global]\nbs=8k\n[two]\nrw=write\n";
        let jobs = parse(text).unwrap();
        assert_eq!(jobs.len(), 2);
        assert_eq!(pairs(&jobs[0]), ["bs=4k", "name=one", "rw=read", "stonewall="]);
        assert_eq!(pairs(&jobs[1]), ["bs=4k", "bs=8k", "name=two", "rw=write"]);
        assert_eq!(jobs[1].settings[3].origin, "a.fio:10");
    }

    #[test]
    fn lines_are_read_as_fio_reads_them() {
        let text = "[a job]\r\n\tsize = 4k ; behind it\nnumjobs=4\t# four\ndescription=\"x y\"\nfilename='$jobname.0'\n time_based \n";
        let jobs = parse(text).unwrap();
        assert_eq!(
            pairs(&jobs[0]),
            ["name=a job", "size=4k", "numjobs=4", "description=x y", "filename=a job.0", "time_based="]
        );
    }

    #[test]
    fn the_environment_and_the_machine_fill_values_in() {
        let home = std::env::var("PATH").unwrap();
        let jobs = parse("[a]\ndescription=<${PATH}>${NO_SUCH_NAME_HERE}\niodepth=$ncpus\nbs=$pagesize\n").unwrap();
        let found = pairs(&jobs[0]);
        assert_eq!(found[1], format!("description=<{home}>"));
        assert!(found[2].trim_start_matches("iodepth=").parse::<u64>().unwrap() > 0);
        assert_eq!(found[3], "bs=4096");
    }

    #[test]
    fn a_file_is_included_from_beside_the_one_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.fio");
        std::fs::write(&path, "[a]\nrw=read\ninclude b.inc\nbs=8k\n").unwrap();
        std::fs::write(folder.path().join("b.inc"), "; shared\nbs=4k\niodepth=2\n").unwrap();
        let jobs = read(&path).unwrap();
        assert_eq!(pairs(&jobs[0]), ["name=a", "rw=read", "bs=4k", "iodepth=2", "bs=8k"]);
        assert!(jobs[0].settings[2].origin.ends_with("b.inc:2"));
        std::fs::write(folder.path().join("b.inc"), "include a.fio\n").unwrap();
        assert!(read(&path).is_err(), "a section in an included file, or files that include one another");
        std::fs::write(folder.path().join("b.inc"), "include b.inc\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("include one another"));
        std::fs::write(&path, "[a]\ninclude none.inc\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("a.fio:2: include none.inc cannot be read"));
    }

    #[test]
    fn every_malformed_line_is_named() {
        assert!(
            error("[a]\nrw=${NO_SUCH_NAME_HERE}\n").contains("a.fio:2: `rw=${NO_SUCH_NAME_HERE}` comes to nothing")
        );
        assert!(error("rw=read\n").starts_with("a.fio:1: `rw=read` stands before any section"));
        assert!(error("[a]\n\nrw=\n").starts_with("a.fio:3: `rw=` has no value"));
        assert!(error("[a]\n=4\n").starts_with("a.fio:2: `=4` has no key"));
        assert!(error("[a\n").starts_with("a.fio:1: `[a` is no section"));
        assert!(error("[global]\nrw=read\n").contains("no job in it"));
    }
}
