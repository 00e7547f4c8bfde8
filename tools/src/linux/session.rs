//! What the guest says: lines behind a marker on the serial port, between the kernel's own words.
//!
//! fio's JSON comes as numbered lines and a count at the end, so that a lost, cut or foreign line is an error and never
//! a smaller result. Knows the lines; what fio's words mean is `fio`'s.
use anyhow::{Context, Result, bail, ensure};

/// What lines for the tool start with.
const MARKER: &str = "@linux ";
/// More than fio ever writes for one group of jobs.
const MOST: usize = 10_000;

/// The disk as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Disk {
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    /// The block layer polls its queue.
    pub(super) polls: bool,
    /// Requests that it keeps for each queue.
    pub(super) requests: u16,
    pub(super) vectors: u16,
    pub(super) features: u64,
    pub(super) writeback: bool,
}

/// A function of a module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Symbol {
    pub(crate) address: u64,
    pub(crate) name: String,
    pub(crate) module: String,
}

/// A line, read.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Disk(Disk),
    /// fio begins its I/O; the disk's interrupts so far.
    Begin(u64),
    /// fio ended its I/O; the disk's interrupts so far.
    End(u64),
    Done,
    Failed(String),
    /// Kept in the session.
    Other,
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) kernel: String,
    pub(super) fio: String,
    pub(super) clock: String,
    pub(super) symbols: Vec<Symbol>,
    json: Vec<String>,
}

impl Session {
    /// Takes a line of the serial port in; `None` for what others say.
    pub(super) fn take(&mut self, line: &str) -> Result<Option<Said>> {
        let Some(at) = line.find(MARKER) else {
            return Ok(None);
        };
        let text = &line[at + MARKER.len()..];
        self.said(text).map(Some).with_context(|| format!("the Linux guest's line cannot be read: {text}"))
    }

    /// fio's JSON, once it is complete.
    pub(super) fn json(&self) -> String {
        self.json.join("\n")
    }

    fn said(&mut self, text: &str) -> Result<Said> {
        let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
        match what {
            "kernel" => rest.clone_into(&mut self.kernel),
            "fio" => rest.clone_into(&mut self.fio),
            "clock" => rest.clone_into(&mut self.clock),
            "disk" => return disk(rest).map(Said::Disk),
            "symbol" => self.symbols.push(symbol(rest).context("no symbol")?),
            "begin" => return Ok(Said::Begin(rest.parse()?)),
            "end" => return Ok(Said::End(rest.parse()?)),
            "json" => self.part(rest)?,
            "done" => {
                let (has, lines) = (self.json.len(), rest.parse::<usize>()?);
                ensure!(has == lines && has > 0, "{has} of {lines} lines of fio's result arrived");
                return Ok(Said::Done);
            }
            "failed" => return Ok(Said::Failed(rest.to_owned())),
            _ => bail!("`{what}` is not known"),
        }
        Ok(Said::Other)
    }

    fn part(&mut self, rest: &str) -> Result<()> {
        let (number, line) = rest.split_once(' ').unwrap_or((rest, ""));
        let expected = self.json.len() + 1;
        ensure!(number.parse() == Ok(expected), "line {expected} of fio's result was expected");
        ensure!(expected <= MOST, "fio's result has no end");
        self.json.push(line.to_owned());
        Ok(())
    }
}

fn disk(text: &str) -> Result<Disk> {
    let words: Vec<&str> = text.split(' ').collect();
    let [sectors, read_only, polls, requests, vectors, features, cache @ ..] = words.as_slice() else {
        bail!("words are missing");
    };
    Ok(Disk {
        sectors: sectors.parse()?,
        read_only: *read_only == "1",
        polls: *polls == "1",
        requests: requests.parse()?,
        vectors: vectors.parse()?,
        features: bits(features)?,
        writeback: cache.join(" ") == "write back",
    })
}

/// Feature bits as sysfs shows them: the lowest first.
fn bits(text: &str) -> Result<u64> {
    ensure!(text.len() == 64 && text.bytes().all(|bit| matches!(bit, b'0' | b'1')), "no feature bits");
    Ok(text.bytes().rev().fold(0, |bits, bit| bits << 1 | u64::from(bit == b'1')))
}

/// `address type name [module]`, functions only.
fn symbol(text: &str) -> Option<Symbol> {
    let mut words = text.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let (_kind, name) = (words.next()?, words.next()?);
    let module = words.next()?.strip_prefix('[')?.strip_suffix(']')?;
    Some(Symbol { address, name: name.to_owned(), module: module.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(lines: &[&str]) -> bool {
        let mut session = Session::default();
        lines.iter().any(|line| session.take(line).is_err())
    }

    #[test]
    fn a_result_is_whole_or_an_error() {
        let whole = ["@linux json 1 {", "@linux json 2 }", "@linux done 2"];
        let mut session = Session::default();
        let said: Vec<_> = whole.iter().map(|line| session.take(line).unwrap().unwrap()).collect();
        assert_eq!(said.last(), Some(&Said::Done));
        assert_eq!(session.json(), "{\n}");
        assert!(fails(&[whole[0], whole[2]]), "a lost last line");
        assert!(fails(&[whole[1], whole[2]]), "a lost first line");
        assert!(fails(&[whole[0], whole[0], whole[1], whole[2]]), "a line twice");
        assert!(fails(&["@linux done 0"]), "nothing at all");
        assert!(fails(&["@linux json 1[    3.1] oops", "@linux done 1"]), "a line with the kernel's words in it");
    }

    #[test]
    fn the_kernels_words_are_not_the_guests_and_unknown_words_are_errors() {
        let mut session = Session::default();
        assert_eq!(session.take("[    1.2] Kernel panic - not syncing").unwrap(), None);
        assert_eq!(session.take("[    1.2] late @linux begin 7").unwrap(), Some(Said::Begin(7)));
        for damaged in ["@linux begin", "@linux end 3x", "@linux dsk 1", "@linux disk 1 0", "@linux symbol ffff t"] {
            assert!(session.take(damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn a_disk_is_read_from_its_line() {
        let mut features = "0".repeat(64);
        features.replace_range(9..10, "1");
        features.replace_range(32..33, "1");
        let line = format!("@linux disk 2097152 0 1 256 3 {features} write through");
        let Said::Disk(disk) = Session::default().take(&line).unwrap().unwrap() else {
            panic!("no disk");
        };
        assert_eq!((disk.sectors, disk.features), (2_097_152, 1 << 32 | 1 << 9));
        assert!(disk.polls && !disk.read_only && !disk.writeback);
    }
}
