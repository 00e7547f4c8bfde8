//! An error of one line, and the last output of whatever failed.
//!
//! Everything that goes wrong ends in one line on standard error that says what to do; a [`Failure`] adds the tail of
//! a guest's or a command's output below it. Knows nothing of what failed.
use crate::say::note;
use std::fmt;

/// How many lines of output are worth showing.
pub(crate) const TAIL: usize = 20;

/// One line, and below it the output that explains it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    tail: Vec<String>,
    crash: bool,
}

impl Failure {
    /// `what` happened; `tail` is what was last seen.
    pub(crate) fn new(what: impl Into<String>, tail: Vec<String>) -> Self {
        Self { what: what.into(), tail, crash: false }
    }

    /// The same, by a program that ran into a fault of its own.
    #[must_use]
    pub(crate) fn crashed(self, crash: bool) -> Self {
        Self { crash, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Why a step did not run; an error of this type counts as skipped.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Whether the error says that a step did not run.
pub(crate) fn is_skip(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Skip>().is_some()
}

/// The error as one line.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The output that belongs to the error, if it has any.
pub(crate) fn tail(error: &anyhow::Error) -> &[String] {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(&[], |failure| &failure.tail)
}

/// Whether a program ran into a fault of its own.
pub(crate) fn is_crash(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Failure>().is_some_and(|failure| failure.crash))
}

/// Prints the error and its tail on standard error.
pub(crate) fn show(error: &anyhow::Error) {
    note!("error: {}", line(error));
    for text in tail(error) {
        note!("  | {text}");
    }
}

/// The last [`TAIL`] of `lines`.
pub(crate) fn last(lines: &[String]) -> Vec<String> {
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_of_several_lines_is_shown_as_one() {
        let error = anyhow::anyhow!("first\n  second\n").context("while testing");
        assert_eq!(line(&error), "while testing: first second");
    }

    #[test]
    fn the_tail_survives_added_context() {
        let failure = Failure::new("it broke", vec!["last words".into()]);
        let error = Err::<(), _>(failure).context("job a").unwrap_err();
        assert_eq!(tail(&error), ["last words"]);
        assert_eq!(line(&error), "job a: it broke");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(last(&lines).len(), TAIL);
        assert_eq!(last(&lines).last().map(String::as_str), Some("99"));
    }
}
