//! Reads what `cargo test` prints: how many tests passed, failed and were ignored.
use crate::fail::{TAIL, last};
use std::ops::AddAssign;

/// Counts of single tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The sum of all summary lines, such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
pub(crate) fn tally(lines: &[String]) -> Tally {
    let mut sum = Tally::default();
    for line in lines {
        let Some((_, counts)) = line.split_once("test result: ") else {
            continue;
        };
        let count = |what: &str| -> u32 {
            let mut parts = counts.split([';', '.']).map(str::trim);
            parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok()).unwrap_or(0)
        };
        sum += Tally { passed: count("passed"), failed: count("failed"), skipped: count("ignored") };
    }
    sum
}

/// The names of failed tests, each once.
pub(crate) fn failures(lines: &[String]) -> Vec<String> {
    lines.iter().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).map(str::to_owned).collect()
}

/// What the first failed test said; without one, the last lines.
pub(crate) fn excerpt(lines: &[String]) -> Vec<String> {
    match lines.iter().position(|line| line.starts_with("---- ")) {
        Some(at) => lines[at..].iter().take(TAIL).cloned().collect(),
        None => last(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_is_what_the_first_failed_test_said() {
        let lines = ["failures:", "---- b::c stdout ----", "it broke", "test result: FAILED."].map(String::from);
        assert_eq!(excerpt(&lines)[..2], ["---- b::c stdout ----", "it broke"]);
        assert_eq!(excerpt(&lines[..1]), ["failures:"]);
    }

    #[test]
    fn summaries_of_several_binaries_are_added() {
        let lines = [
            "test a ... ok",
            "test b::c ... FAILED",
            "test result: FAILED. 11 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ]
        .map(String::from);
        let sum = tally(&lines);
        assert_eq!((sum.passed, sum.failed, sum.skipped), (15, 1, 2));
        assert_eq!(failures(&lines), ["b::c"]);
    }
}
