//! Child processes that never outlive the tool.
//!
//! A [`Guarded`] child leads a process group of its own. It is killed with its group when the value is dropped, and by
//! the kernel when the tool itself is killed. [`capture`] runs a command to its end with its output collected. Knows
//! nothing of what the commands do.
use crate::fail::{Failure, last};
use crate::pin;
use crate::say::note;
use crate::stop;
use anyhow::{Context, Result};
use nix::sched::sched_setaffinity;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid, getppid};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Longer lines are cut, so that a guest that prints without end cannot fill memory.
const LONGEST_LINE: u64 = 64 * 1024;

/// How long a child may take to end when it is asked to, and when it is killed.
const ENDING: Duration = Duration::from_secs(2);
const DYING: Duration = Duration::from_secs(2);

/// A child that is killed, with its process group, when dropped.
pub(crate) struct Guarded {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Guarded {
    /// Starts `command`. To be called on the main thread: the kernel's promise to kill the child is tied to the
    /// thread that made it.
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        Self::spawn_on(command, None)
    }

    /// Likewise, with all of its threads on `core` if one is given.
    pub(crate) fn spawn_on(command: &mut Command, core: Option<usize>) -> std::io::Result<Self> {
        let parent = getpid();
        let cores = core.map(pin::only).transpose()?;
        // SAFETY: between fork and exec only async-signal-safe system calls are made (prctl, sched_setaffinity,
        // getppid), nothing is allocated and no lock is taken.
        unsafe {
            command.process_group(0).pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                if let Some(cores) = &cores {
                    sched_setaffinity(Pid::from_raw(0), cores)?;
                }
                if getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
            });
        }
        let child = command.spawn()?;
        Ok(Self { child, ended: None })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pipe of the child's standard output.
    pub(crate) fn stdout(&mut self) -> Option<impl Read + Send + 'static + use<>> {
        self.child.stdout.take()
    }

    /// The pipe of the child's standard error.
    pub(crate) fn stderr(&mut self) -> Option<impl Read + Send + 'static + use<>> {
        self.child.stderr.take()
    }

    /// How it ended, if it did.
    pub(crate) fn poll(&mut self) -> std::io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Ended by a segmentation fault, as far as is known.
    pub(crate) fn crashed(&self) -> bool {
        self.ended.is_some_and(|status| status.signal() == Some(Signal::SIGSEGV as i32))
    }

    /// Waits until `deadline`; `None` if it still runs then.
    pub(crate) fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.poll()? {
                return Ok(Some(status));
            }
            stop::check()?;
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks the child to end.
    pub(crate) fn ask_to_end(&mut self) {
        if self.poll().is_ok_and(|status| status.is_none()) {
            // An error: it is gone already; wait() tells how.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        }
    }

    /// Kills the group and waits for the child, but not for one that cannot be killed: another user's, or one that
    /// waits for a device that hangs.
    pub(crate) fn kill(&mut self) {
        if self.poll().is_ok_and(|status| status.is_some()) {
            return;
        }
        // Errors: the child is gone already, or never became a group leader; wait() tells which.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.kill();
        if !self.ends_by(Instant::now() + DYING) {
            note!("note: process {} cannot be ended from here and was left", self.child.id());
        }
    }

    /// Asks the group to end, and kills it if it does not: what is killed in the middle of its work, as a package
    /// manager, may leave damage.
    fn end(&mut self) {
        if self.poll().is_ok_and(|status| status.is_none()) {
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
            self.ends_by(Instant::now() + ENDING);
        }
        self.kill();
    }

    /// Whether it ended until `deadline`, whatever signals come.
    pub(crate) fn ends_by(&mut self, deadline: Instant) -> bool {
        loop {
            match self.poll() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                Ok(ended) => return ended.is_some(),
                Err(_) => return true,
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends each line of `pipe`, cut at a bounded length and made printable, until it ends.
pub(crate) fn forward<T: Send + 'static>(
    pipe: impl Read + Send + 'static,
    to: Sender<T>,
    wrap: impl Fn(String) -> T + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            if to.send(wrap(text.trim_end().to_owned())).is_err() {
                return;
            }
        }
    });
}

/// A command that ran to its end.
pub(crate) struct Captured {
    pub(crate) status: ExitStatus,
    /// Standard output and error, interleaved as written.
    pub(crate) lines: Vec<String>,
}

/// This program, also when a build has put another one in its place meanwhile.
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// Runs `command` with its output collected, at most for `limit`; `each` sees every line as it comes.
pub(crate) fn capture(command: &mut Command, limit: Duration, mut each: impl FnMut(&str)) -> Result<Captured> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let spawned = Guarded::spawn(command);
    // The command holds the pipe's writing ends, which would keep the reader waiting.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.with_context(|| format!("cannot start {name}"))?;
    let (sender, receiver) = channel();
    forward(reader, sender, |line| line);
    let deadline = Instant::now() + limit;
    let mut lines = Vec::new();
    let mut keep = |line: String| {
        each(&line);
        lines.push(line);
    };
    loop {
        match receiver.recv_timeout(stop::TICK) {
            Ok(line) => keep(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(2)),
        }
        if let Some(status) = child.poll()? {
            rest(&receiver, keep);
            return Ok(Captured { status, lines });
        }
        if let Err(error) = stop::check() {
            child.end();
            return Err(error);
        }
        if Instant::now() >= deadline {
            child.end();
            let what = format!("{name} did not end within {} s", limit.as_secs());
            return Err(Failure::new(what, last(&lines)).into());
        }
    }
}

/// What is still in the pipe; a grandchild that holds it open is not waited for.
fn rest(from: &Receiver<String>, mut keep: impl FnMut(String)) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while let Ok(line) = from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        keep(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn both_streams_are_captured_in_order() {
        let mut command = shell("echo one; echo two >&2; echo three; exit 3");
        let captured = capture(&mut command, Duration::from_secs(10), |_| ()).unwrap();
        assert_eq!(captured.lines, ["one", "two", "three"]);
        assert_eq!(captured.status.code(), Some(3));
    }

    #[test]
    fn a_command_that_hangs_is_killed_and_its_last_words_are_kept() {
        let before = Instant::now();
        let mut command = shell("echo alive; sleep 60");
        let error = capture(&mut command, Duration::from_millis(300), |_| ()).err().unwrap();
        assert!(before.elapsed() < Duration::from_secs(20));
        assert_eq!(crate::fail::tail(&error), ["alive"]);
    }

    #[test]
    fn a_dropped_child_takes_its_group_with_it() {
        let mut child = Guarded::spawn(shell("sleep 60 & echo $!; wait").stdout(Stdio::piped())).expect("sh starts");
        let mut line = String::new();
        BufReader::new(child.stdout().unwrap()).read_line(&mut line).unwrap();
        let grandchild = format!("/proc/{}/stat", line.trim());
        assert!(std::fs::exists(&grandchild).unwrap());
        drop(child);
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            std::fs::read_to_string(&grandchild).map_or(true, |stat| stat.contains(") Z "))
        });
        assert!(gone, "{grandchild} outlived its group");
    }

    #[test]
    fn what_may_be_asked_to_end_is_not_killed_in_the_middle_of_its_work() {
        let folder = tempfile::tempdir().unwrap();
        let done = folder.path().join("done");
        let mut command =
            shell(&format!("trap 'touch {}; exit' TERM; echo; while :; do sleep 0.01; done", done.display()));
        capture(&mut command, Duration::from_millis(300), |_| ()).err().unwrap();
        assert!(done.exists());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let (sender, receiver) = channel();
        forward(std::io::repeat(b'x').take(200_000), sender, |line| line);
        let longest = receiver.iter().map(|line: String| line.len()).max();
        assert_eq!(longest, Some(65536));
    }
}
