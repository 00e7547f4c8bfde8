//! QEMU's monitor: commands with their answers, and what QEMU tells by itself.
//!
//! QMP is lines of JSON over a connected socket. A thread reads them: answers go to whoever asked, events are kept for
//! whoever looks, and are made words in [`Told`]. The commands' types are the crate `qapi`'s; its own stream blocks, and
//! would keep an event until the next command. Refuses to know what a machine is for.
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long the guest may stand still until somebody continues it.
pub(crate) const CONTINUED: Duration = Duration::from_secs(2);

/// QEMU's side of the conversation, and ours.
pub(crate) struct Monitor {
    socket: UnixStream,
    answers: Receiver<Value>,
    events: Receiver<Value>,
    patience: Duration,
    /// The number of the last command.
    last: u64,
    told: Told,
}

/// Why a command has no result.
pub(crate) enum Failed {
    /// QEMU's own words.
    Refused(String),
    /// QEMU is gone, or does not answer.
    Silent,
}

impl Monitor {
    /// Greets the QEMU at the other end of `socket`, which has `patience` for each answer.
    pub(crate) fn new(socket: UnixStream, patience: Duration) -> Result<Self> {
        let reader = BufReader::new(socket.try_clone()?);
        socket.set_write_timeout(Some(patience))?;
        let (answer, answers) = channel();
        let (event, events) = channel();
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                let to = if value.get("event").is_some() { &event } else { &answer };
                if to.send(value).is_err() {
                    return;
                }
            }
        });
        let mut monitor = Self { socket, answers, events, patience, last: 0, told: Told::default() };
        let greeting = monitor.answers.recv_timeout(patience).context("no greeting")?;
        greeting.get("QMP").context("no greeting of QMP's")?;
        monitor.command("qmp_capabilities", &json!({}), patience).map_err(|_| anyhow!("no answer to the greeting"))?;
        Ok(monitor)
    }

    /// Runs one command.
    pub(crate) fn execute<C: qapi::Command>(&mut self, command: &C) -> Result<C::Ok, Failed> {
        let arguments = serde_json::to_value(command).map_err(|error| Failed::Refused(error.to_string()))?;
        let answer = self.command(C::NAME, &arguments, self.patience)?;
        serde_json::from_value(answer).map_err(|error| Failed::Refused(format!("its answer cannot be read ({error})")))
    }

    fn command(&mut self, name: &str, arguments: &Value, patience: Duration) -> Result<Value, Failed> {
        self.last += 1;
        let command = json!({"execute": name, "arguments": arguments, "id": self.last});
        writeln!(self.socket, "{command}").map_err(|_| Failed::Silent)?;
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut answer = self.answers.recv_timeout(left).map_err(|_| Failed::Silent)?;
            // Late answers to earlier commands are nobody's.
            if answer.get("id").is_some_and(|id| *id != self.last) {
                continue;
            }
            match answer.get_mut("return").map(Value::take) {
                Some(result) => return Ok(result),
                None => {
                    return Err(Failed::Refused(answer["error"]["desc"].as_str().unwrap_or("no reason").to_owned()));
                }
            }
        }
    }

    /// Takes in what QEMU told by itself; the reason, once the guest has stood still for so long that nobody will
    /// continue it.
    pub(crate) fn stands_still(&mut self) -> Option<String> {
        while let Ok(event) = self.events.try_recv() {
            self.told.take(&event);
        }
        let since = self.told.stopped?;
        if since.elapsed() < CONTINUED {
            return None;
        }
        let asked = self.command("query-status", &json!({}), Duration::from_secs(1)).ok();
        let status = asked.and_then(|answer| answer["status"].as_str().map(str::to_owned));
        Some(self.told.standstill(status.as_deref()))
    }

    /// Why the guest, or QEMU, was shut down, as far as QEMU told before it ended.
    pub(crate) fn shutdown(&mut self) -> Option<&str> {
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(200)) {
            self.told.take(&event);
        }
        self.told.shutdown.as_deref()
    }
}

/// What QEMU told by itself.
#[derive(Debug, Default)]
struct Told {
    /// Since when the guest stands still.
    stopped: Option<Instant>,
    /// The latest trouble that may be the reason.
    trouble: Option<String>,
    shutdown: Option<String>,
}

impl Told {
    fn take(&mut self, event: &Value) {
        let data = &event["data"];
        let word = |key: &str| data[key].as_str().unwrap_or("unknown");
        match event["event"].as_str().unwrap_or_default() {
            "STOP" => self.stopped = self.stopped.or_else(|| Some(Instant::now())),
            "RESUME" => {
                if let Some(since) = self.stopped.take() {
                    let ms = since.elapsed().as_millis();
                    crate::say::note!(
                        "note: the guest stood still for {ms} ms and was continued: its times include that"
                    );
                }
                self.trouble = None;
            }
            "BLOCK_IO_ERROR" => self.trouble = Some(trouble(data)),
            "GUEST_PANICKED" | "GUEST_CRASHLOADED" => self.trouble = Some("the guest panicked".into()),
            "WATCHDOG" => self.trouble = Some(format!("QEMU's watchdog expired ({})", word("action"))),
            "MEMORY_FAILURE" => self.trouble = Some(format!("memory of the {} failed", word("recipient"))),
            "SHUTDOWN" => {
                let reason = word("reason");
                self.shutdown = Some(match reason {
                    "guest-reset" => "the guest was reset, as by a triple fault".into(),
                    "guest-shutdown" => "the guest shut down".into(),
                    "guest-panic" => "the guest panicked".into(),
                    "host-signal" => "a signal ended QEMU".into(),
                    _ => format!("shut down: {reason}"),
                });
            }
            _ => {}
        }
    }

    fn standstill(&self, status: Option<&str>) -> String {
        let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
        let why = self.trouble.as_deref().unwrap_or("QEMU told no reason");
        let seconds = CONTINUED.as_secs();
        format!("QEMU stopped the guest{status} and nobody continued it within {seconds} s: {why}")
    }
}

/// A failed request of the disk's, in words.
fn trouble(data: &Value) -> String {
    let operation = data["operation"].as_str().unwrap_or("request");
    let reason = data["reason"].as_str().unwrap_or("QEMU told no reason");
    let remedy = if data["nospace"] == true { ": make room on the host where the disk is, and run again" } else { "" };
    format!("a {operation} of the disk failed: {reason}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, BufReader<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reader = BufReader::new(theirs.try_clone().unwrap());
        (ours, reader, theirs)
    }

    #[test]
    fn events_between_a_command_and_its_answer_are_kept_and_late_answers_are_nobodys() {
        let (ours, mut reader, mut theirs) = pair();
        let qemu = std::thread::spawn(move || {
            let mut line = String::new();
            writeln!(theirs, "{}", json!({"QMP": {}})).unwrap();
            reader.read_line(&mut line).unwrap();
            writeln!(theirs, "{}", json!({"return": {}, "id": 1})).unwrap();
            reader.read_line(&mut line).unwrap();
            for said in [
                json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}),
                json!({"return": "an answer to an earlier command", "id": 1}),
                json!({"error": {"class": "GenericError", "desc": "no such node"}, "id": 2}),
            ] {
                writeln!(theirs, "{said}").unwrap();
            }
            (reader, theirs)
        });
        let mut monitor = Monitor::new(ours, Duration::from_mins(1)).unwrap();
        match monitor.command("block_resize", &json!({}), Duration::from_mins(1)) {
            Err(Failed::Refused(why)) => assert_eq!(why, "no such node"),
            _ => panic!("it was not refused"),
        }
        assert_eq!(monitor.shutdown(), Some("the guest was reset, as by a triple fault"));
        drop(qemu.join().unwrap());
        assert!(matches!(monitor.command("cont", &json!({}), Duration::from_mins(1)), Err(Failed::Silent)));
    }

    #[test]
    fn a_standstill_is_told_with_its_reason_and_forgotten_when_the_guest_goes_on() {
        let mut told = Told::default();
        let failed =
            json!({"operation": "write", "action": "stop", "nospace": true, "reason": "No space left on device"});
        told.take(&json!({"event": "BLOCK_IO_ERROR", "data": failed}));
        assert_eq!(told.stopped, None, "it may be reported to the guest instead");
        told.take(&json!({"event": "STOP"}));
        assert!(told.stopped.is_some());
        let line = told.standstill(Some("io-error"));
        assert!(line.contains("(io-error)") && line.contains("a write of the disk failed: No space left on device"));
        assert!(line.contains("make room on the host"), "{line}");
        told.take(&json!({"event": "RESUME"}));
        assert!(told.stopped.is_none() && told.trouble.is_none());
        told.take(&json!({"event": "STOP"}));
        assert!(told.standstill(None).contains("told no reason"));
        told.take(&json!({"event": "GUEST_PANICKED", "data": {"action": "pause"}}));
        assert!(told.standstill(None).contains("the guest panicked"));
    }
}
