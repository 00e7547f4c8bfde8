//! A child process that is listened to: line by line, until it ends, in bounded time whatever happens.
//!
//! What it prints on standard output arrives one line at a time; its complaints on standard error are kept for the
//! error. Dropping a [`Program`] kills it. Knows nothing of what the lines mean.
use crate::fail::{Failure, TAIL};
use crate::process::{Guarded, forward};
use crate::stop;
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::fmt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a program may take to end once it said that it is done, or was asked to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long what it printed is taken in after its end: a child of its own may print for ever.
const DRAINING: Duration = Duration::from_secs(2);

/// What errors call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    /// The process, such as `QEMU`.
    pub(crate) name: &'static str,
    /// Whoever speaks on its standard output, such as `the image`.
    pub(crate) speaker: &'static str,
    /// A fault of its own says nothing of the driver.
    pub(crate) excused: bool,
}

/// What it printed.
enum Event {
    /// On standard output.
    Said(String),
    /// On standard error.
    Complaint(String),
}

/// What came of a moment's listening.
pub(crate) enum Next {
    /// A line on standard output.
    Line(String),
    Silence,
    /// There are no more.
    Ended,
}

/// A running program.
pub(crate) struct Program {
    who: Who,
    process: Guarded,
    events: Receiver<Event>,
    said: VecDeque<String>,
    complaints: VecDeque<String>,
    started: Instant,
}

impl Program {
    /// Starts `command`, on `core` only if one is given. Its standard input is the caller's to choose.
    pub(crate) fn start(who: Who, command: &mut Command, core: Option<usize>) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = Guarded::spawn_on(command, core);
        // The command holds a copy of the child's end of a socket, which would hide its death from us.
        command.stdin(Stdio::null());
        let path = command.get_program().to_string_lossy().into_owned();
        let mut process = spawned.with_context(|| format!("cannot start {path}"))?;
        let (sender, events) = channel();
        if let Some(pipe) = process.stdout() {
            forward(pipe, sender.clone(), Event::Said);
        }
        if let Some(pipe) = process.stderr() {
            forward(pipe, sender, Event::Complaint);
        }
        let (said, complaints) = (VecDeque::new(), VecDeque::new());
        Ok(Self { who, process, events, said, complaints, started: Instant::now() })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line; `None` when it ended. Running out of time is an error with the last output.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            match self.next(deadline)? {
                Next::Line(line) => return Ok(Some(line)),
                Next::Silence => {}
                Next::Ended => return Ok(None),
            }
        }
    }

    /// What comes within a moment. Running out of time is an error with the last output.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Next> {
        stop::interrupted()?;
        let left = stop::deadline(deadline).saturating_duration_since(Instant::now());
        // Also when there is more: one that never falls silent ends, too.
        if left.is_zero() {
            self.process.kill();
            let (who, seconds) = (self.who.speaker, self.started.elapsed().as_secs());
            return Err(self.failure(&format!("{who} did not finish within {seconds} s and was ended")));
        }
        match self.events.recv_timeout(left.min(stop::TICK)) {
            Ok(Event::Said(line)) => {
                remember(&mut self.said, &line);
                Ok(Next::Line(line))
            }
            Ok(Event::Complaint(line)) => {
                remember(&mut self.complaints, &line);
                Ok(Next::Silence)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Next::Ended),
            Err(RecvTimeoutError::Timeout) => Ok(Next::Silence),
        }
    }

    /// How it ended, if it did.
    pub(crate) fn poll(&mut self) -> Option<ExitStatus> {
        self.process.poll().ok().flatten()
    }

    /// How it ended, if it does within `patience`.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.process.wait_until(Instant::now() + patience).ok().flatten()
    }

    /// Waits for it to end by itself.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        let Some(status) = self.process.wait_until(Instant::now() + PATIENCE)? else {
            self.process.kill();
            let Who { name, speaker, .. } = self.who;
            return Err(self.failure(&format!("{speaker} reported its end but {name} did not end")));
        };
        self.drain();
        Ok(status)
    }

    /// Asks it to end, and kills it if it does not; how it ended.
    pub(crate) fn stop(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        self.process.ask_to_end();
        let status = self.process.wait_until(Instant::now() + patience)?;
        self.process.kill();
        self.drain();
        Ok(status)
    }

    /// How it ended after it stopped answering; `None` if it had to be killed.
    pub(crate) fn last_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.wait_until(Instant::now() + Duration::from_secs(1)).ok().flatten();
        self.process.kill();
        self.drain();
        status
    }

    /// An error with the last lines, or, before there are any, its complaints.
    pub(crate) fn failure(&self, what: &str) -> anyhow::Error {
        let last = self.complaints.back().map(|line| format!(": {line}")).unwrap_or_default();
        let tail = if self.said.is_empty() { &self.complaints } else { &self.said };
        let failure = Failure::new(format!("{what}{last}"), tail.iter().cloned().collect());
        failure.crashed(self.who.excused && self.process.crashed()).into()
    }

    /// The error for one that ended before it should have.
    pub(crate) fn ended(&self, status: &dyn fmt::Display) -> anyhow::Error {
        let Who { name, speaker, .. } = self.who;
        let whose = if name == speaker { "it" } else { speaker };
        self.failure(&format!("{name} ended ({status}) before {whose} reported its end"))
    }

    /// The last thing that it complained about.
    pub(crate) fn complaint(&self) -> Option<&str> {
        self.complaints.back().map(String::as_str)
    }

    /// The first remembered line that starts with `prefix`, and the one after it: panics take two.
    pub(crate) fn said(&self, prefix: &str) -> Option<String> {
        let at = self.said.iter().position(|line| !prefix.is_empty() && line.starts_with(prefix))?;
        let lines: Vec<&str> = self.said.iter().skip(at).take(2).map(String::as_str).collect();
        Some(lines.join(" "))
    }

    /// The first remembered line with `words` in it, from there on.
    pub(crate) fn said_within(&self, words: &str) -> Option<String> {
        self.said.iter().find_map(|line| line.find(words).map(|at| line[at..].to_owned()))
    }

    /// Takes in what it printed before it ended.
    pub(crate) fn drain(&mut self) {
        let deadline = Instant::now() + DRAINING;
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(200)) {
            if Instant::now() >= deadline {
                return;
            }
            match event {
                Event::Said(line) => remember(&mut self.said, &line),
                Event::Complaint(line) => remember(&mut self.complaints, &line),
            }
        }
    }
}

/// Keeps the last lines only.
fn remember(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == TAIL {
        lines.pop_front();
    }
    lines.push_back(line.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Who = Who { name: "sh", speaker: "sh", excused: false };

    fn shell(script: &str) -> Program {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).stdin(Stdio::null());
        Program::start(WHO, &mut command, None).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn lines_come_one_by_one_and_complaints_are_kept_for_the_error() {
        let mut program = shell("echo one; echo broken >&2; echo two; exit 3");
        assert_eq!(program.next_line(soon()).unwrap().as_deref(), Some("one"));
        assert_eq!(program.next_line(soon()).unwrap().as_deref(), Some("two"));
        assert_eq!(program.next_line(soon()).unwrap(), None);
        let status = program.end().unwrap();
        assert_eq!(status.code(), Some(3));
        let error = program.ended(&status).to_string();
        assert_eq!(error, "sh ended (exit status: 3) before it reported its end: broken");
    }

    #[test]
    fn one_that_never_falls_silent_is_ended_in_time() {
        for script in ["yes", "yes >&2"] {
            let mut program = shell(script);
            let deadline = Instant::now() + Duration::from_millis(300);
            let error = loop {
                match program.next_line(deadline) {
                    Ok(line) => assert_eq!(line.as_deref(), Some("y")),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains("did not finish within"), "{error}");
            assert!(program.poll().is_some());
        }
    }

    #[test]
    fn one_that_does_not_end_when_asked_to_is_killed() {
        let mut program = shell("trap '' TERM; echo ready; while :; do sleep 1; done");
        assert_eq!(program.next_line(soon()).unwrap().as_deref(), Some("ready"));
        assert_eq!(program.stop(Duration::from_millis(50)).unwrap(), None);
        assert!(program.poll().is_some(), "it is still there");
    }

    #[test]
    fn one_that_ends_when_asked_to_says_how() {
        let mut program = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        assert_eq!(program.next_line(soon()).unwrap().as_deref(), Some("ready"));
        let status = program.stop(Duration::from_secs(20)).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(7));
    }
}
