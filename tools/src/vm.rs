//! A running QEMU: started paused, pinned, resumed, listened to, and ended in bounded time whatever happens.
//!
//! The guest's serial lines arrive one by one; QEMU's own complaints are kept for the error. Dropping a [`Vm`] kills
//! it. Knows nothing of what the lines mean.
use crate::fail::{Failure, TAIL};
use crate::machine::Machine;
use crate::pin::{self, Pins};
use crate::process::{Guarded, forward};
use crate::run::Bed;
use crate::stop;
use anyhow::{Context, Result, anyhow};
use qapi::qmp;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long QEMU may take to answer on QMP, and to end once the guest said that it is done.
const PATIENCE: Duration = Duration::from_secs(20);

/// QEMU's exit statuses for the image's ways to fail, and what the image's own words begin with.
const REASONS: [(i32, &str, &str); 4] = [
    (35, "the image reported a failure", ""),
    (37, "the image panicked", "panic"),
    (39, "the image ran into a processor fault", "fault"),
    (41, "the image hung and its watchdog ended it", "hang"),
];

type Monitor = qapi::Qmp<qapi::Stream<Answers, UnixStream>>;

/// QEMU's half of QMP. Its end is an error here, since the crate takes a greeting for granted and panics without one.
struct Answers(BufReader<UnixStream>);

impl Read for Answers {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl BufRead for Answers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.0.fill_buf()? {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

/// What QEMU printed.
enum Event {
    /// On the guest's serial port.
    Serial(String),
    /// On standard error.
    Complaint(String),
}

/// A running QEMU.
pub(crate) struct Vm {
    process: Guarded,
    monitor: Monitor,
    events: Receiver<Event>,
    serial: VecDeque<String>,
    complaints: VecDeque<String>,
    started: Instant,
}

impl Vm {
    /// Starts QEMU with its vCPUs paused.
    pub(crate) fn start(bed: &Bed, machine: &Machine, append: &str) -> Result<Self> {
        machine.check(bed.qemu.major, bed.accel)?;
        let (ours, theirs) = UnixStream::pair().context("making a socket pair for QMP")?;
        let patience = bed.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
        for timeout in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            timeout(&ours, Some(patience))?;
        }
        let mut command = Command::new(&bed.qemu.path);
        command
            .args(machine.arguments(bed.accel, &bed.image, append))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = Guarded::spawn(&mut command);
        // The command holds a copy of QEMU's end, which would hide its death from us.
        command.stdin(Stdio::null());
        let mut process = spawned.with_context(|| format!("cannot start {}", bed.qemu.path.display()))?;
        let (sender, events) = channel();
        if let Some(pipe) = process.stdout() {
            forward(pipe, sender.clone(), Event::Serial);
        }
        if let Some(pipe) = process.stderr() {
            forward(pipe, sender, Event::Complaint);
        }
        let reader = Answers(BufReader::new(ours.try_clone()?));
        let mut vm = Self {
            process,
            monitor: qapi::Qmp::new(qapi::Stream::new(reader, ours)),
            events,
            serial: VecDeque::new(),
            complaints: VecDeque::new(),
            started: Instant::now(),
        };
        if vm.monitor.handshake().is_err() {
            let status = vm.last_status().map_or("it does not answer".into(), |status| status.to_string());
            return Err(vm.failure(&format!("QEMU did not start ({status})")));
        }
        Ok(vm)
    }

    /// Runs one QMP command.
    pub(crate) fn execute<C: qapi::Command>(&mut self, command: &C) -> Result<C::Ok> {
        match self.monitor.execute(command) {
            Ok(answer) => Ok(answer),
            Err(qapi::ExecuteError::Qapi(refused)) => Err(anyhow!("QEMU refused {}: {}", C::NAME, refused.desc)),
            Err(_) => Err(match self.last_status() {
                Some(status) => self.ended(status),
                None => self.failure("QEMU does not answer and was ended"),
            }),
        }
    }

    /// Ties QEMU's threads to their cores.
    pub(crate) fn pin(&mut self, pins: &Pins) -> Result<()> {
        let main = self.process.id().cast_signed();
        pin::pin(Some(main), pins.main)?;
        let mut done = Vec::new();
        for base in self.execute(&qmp::query_cpus_fast {})?.iter().filter_map(base) {
            let core = pins.vcpus.get(usize::try_from(base.cpu_index)?);
            // One translating thread serves all vCPUs under icount: the first one's core counts.
            if let (Some(&core), false) = (core, done.contains(&base.thread_id)) {
                pin::pin(Some(i32::try_from(base.thread_id)?), core)?;
                done.push(base.thread_id);
            }
        }
        for thread in self.execute(&qmp::query_iothreads {})? {
            let index = thread.id.strip_prefix("io").and_then(|index| index.parse::<usize>().ok());
            if let Some(&core) = index.and_then(|index| pins.iothreads.get(index)) {
                pin::pin(Some(i32::try_from(thread.thread_id)?), core)?;
            }
        }
        Ok(())
    }

    /// Lets the vCPUs run.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.execute(&qmp::cont {}).map(drop)
    }

    /// Changes the disk's size under the guest.
    pub(crate) fn resize(&mut self, bytes: u64) -> Result<()> {
        let command =
            qmp::block_resize { device: None, node_name: Some(crate::disk::NODE.into()), size: i64::try_from(bytes)? };
        self.execute(&command).map(drop)
    }

    /// The process id, for whoever wants to see it die.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next serial line; `None` when QEMU ended. Running out of time is an error with the last output.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            stop::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left.min(stop::TICK)) {
                Ok(Event::Serial(line)) => {
                    remember(&mut self.serial, &line);
                    return Ok(Some(line));
                }
                Ok(Event::Complaint(line)) => remember(&mut self.complaints, &line),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    self.process.kill();
                    let seconds = self.started.elapsed().as_secs();
                    return Err(self.failure(&format!("the image did not finish within {seconds} s and was ended")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for QEMU to end by itself.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        let Some(status) = self.process.wait_until(Instant::now() + PATIENCE)? else {
            self.process.kill();
            return Err(self.failure("the image reported its end but QEMU did not end"));
        };
        self.drain();
        Ok(status)
    }

    /// An error with the last serial output, or, before there is any, QEMU's own words.
    pub(crate) fn failure(&self, what: &str) -> anyhow::Error {
        let last = self.complaints.back().map(|line| format!(": {line}")).unwrap_or_default();
        let tail = if self.serial.is_empty() { &self.complaints } else { &self.serial };
        let failure = Failure::new(format!("{what}{last}"), tail.iter().cloned().collect());
        failure.crashed(self.process.crashed()).into()
    }

    /// The first remembered serial line that starts with `prefix`, and the one after it: panics take two.
    fn said(&self, prefix: &str) -> Option<String> {
        let at = self.serial.iter().position(|line| !prefix.is_empty() && line.starts_with(prefix))?;
        let lines: Vec<&str> = self.serial.iter().skip(at).take(2).map(String::as_str).collect();
        Some(lines.join(" "))
    }

    /// The error for a QEMU that ended before the image reported its end.
    pub(crate) fn ended(&self, status: ExitStatus) -> anyhow::Error {
        let known = REASONS.iter().find(|(known, ..)| Some(*known) == status.code());
        let Some((_, reason, prefix)) = known else {
            return self.failure(&format!("QEMU ended ({status}) before the image reported its end"));
        };
        let words = self.said(prefix).map(|words| format!(": {words}")).unwrap_or_default();
        self.failure(&format!("{reason}{words}"))
    }

    /// How a QEMU ended that stopped answering; `None` if it had to be killed.
    fn last_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.wait_until(Instant::now() + Duration::from_secs(1)).ok().flatten();
        self.process.kill();
        self.drain();
        status
    }

    /// Takes in what QEMU printed before it ended.
    fn drain(&mut self) {
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(200)) {
            match event {
                Event::Serial(line) => remember(&mut self.serial, &line),
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

/// The part of the answer that does not depend on the architecture; other targets never appear here.
fn base(cpu: &qmp::CpuInfoFast) -> Option<&qmp::CpuInfoFastBase> {
    match cpu {
        qmp::CpuInfoFast::x86_64(base) | qmp::CpuInfoFast::i386(base) => Some(base),
        _ => None,
    }
}
