//! A back-end that follows a script: it speaks the protocol word by word, and breaks it where it is told to.
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use tempfile::TempDir;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Message numbers of the protocol.
pub mod message {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const GET_VRING_BASE: u32 = 11;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
}

/// Protocol features.
pub const MQ: u64 = 1;
pub const REPLY_ACK: u64 = 1 << 3;
pub const CONFIG: u64 = 1 << 9;
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Where the script leaves the path. Messages are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    None,
    /// Closes the connection when it gets this message.
    CloseAt(usize),
    /// Does not answer this message, nor any after it; closes when the other side does, or when told to.
    StallAt(usize),
    /// Answers this message that it failed.
    RejectAt(usize),
    /// Answers something else than the protocol.
    Garbage,
    /// Moves the used index of every queue to this value as soon as the queue is enabled.
    UsedIndex(u16),
    /// Has another capacity each time it is asked.
    Restless,
}

/// What the back-end is.
#[derive(Clone, Debug)]
pub struct Script {
    pub features: u64,
    pub protocol: u64,
    pub queues: u64,
    pub config: Vec<u8>,
    pub quirk: Quirk,
}

impl Script {
    /// A disk of 1 GiB with VERSION_1 and one queue, that acknowledges every message.
    pub fn plain() -> Self {
        let mut config = vec![0; 60];
        config[..8].copy_from_slice(&(1_u64 << 21).to_le_bytes());
        let features = 1 << 32 | PROTOCOL_FEATURES;
        Self { features, protocol: CONFIG | REPLY_ACK, queues: 1, config, quirk: Quirk::None }
    }

    pub fn with_quirk(mut self, quirk: Quirk) -> Self {
        self.quirk = quirk;
        self
    }
}

/// In the log: a connection is over, and everything that was handed over with it is closed.
pub const END: u32 = 0;

/// The connection that is stalled, to be closed.
#[derive(Default)]
struct Stalled {
    socket: Mutex<Option<UnixStream>>,
    change: Condvar,
}

/// A back-end that runs. It serves one connection after the other, each by the script of the moment.
pub struct Scripted {
    script: Arc<Mutex<Script>>,
    /// The messages of all connections, by number, and [`END`] behind each connection's last.
    pub log: mpsc::Receiver<u32>,
    stalled: Arc<Stalled>,
    place: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub fn start(script: Script) -> Self {
        let place = tempfile::tempdir().expect("a folder can be made");
        let listener = UnixListener::bind(place.path().join("socket")).expect("a socket can be made");
        let script = Arc::new(Mutex::new(script));
        let (log, heard) = mpsc::channel();
        let stalled = Arc::<Stalled>::default();
        let (theirs, stall) = (Arc::clone(&script), Arc::clone(&stalled));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let script = theirs.lock().expect("no panic").clone();
                let socket = stream.expect("accept works");
                // Nothing to serve: the end.
                if script.queues == 0 {
                    return;
                }
                let conversation = Conversation { script, socket, count: 0, memory: None, used: vec![], files: vec![] };
                let _ = conversation.run(&log, &stall);
                *stall.socket.lock().expect("no panic") = None;
                let _ = log.send(END);
            }
        });
        Self { script, log: heard, stalled, place, thread: Some(thread) }
    }

    pub fn path(&self) -> PathBuf {
        self.place.path().join("socket")
    }

    /// From the next connection on, another script.
    pub fn change(&self, script: Script) {
        *self.script.lock().expect("no panic") = script;
    }

    /// Waits for the end of a connection.
    pub fn wait_for_end(&self) {
        while self.log.recv().expect("the back-end runs") != END {}
    }

    /// Closes the connection that is stalled, as soon as there is one.
    pub fn close_stalled(&self) {
        let stalled = self.stalled.socket.lock().expect("no panic");
        let stalled = self.stalled.change.wait_while(stalled, |socket| socket.is_none()).expect("no panic");
        let socket = stalled.as_ref().expect("there is one");
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.script.lock().expect("no panic").queues = 0;
        let _ = UnixStream::connect(self.path());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection.
struct Conversation {
    script: Script,
    socket: UnixStream,
    count: usize,
    /// The memory, and its address for the device.
    memory: Option<(File, u64)>,
    /// Addresses of used rings, by queue.
    used: Vec<(u32, u64)>,
    /// Eventfds that were handed over.
    files: Vec<File>,
}

fn word(body: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(body[offset..offset + 4].try_into().expect("four bytes"))
}

fn long(body: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(body[offset..offset + 8].try_into().expect("eight bytes"))
}

impl Conversation {
    fn run(mut self, log: &mpsc::Sender<u32>, stalled: &Stalled) -> std::io::Result<()> {
        loop {
            let mut head = [0; 12];
            let (mut len, file) = self.socket.recv_with_fd(&mut head).map_err(std::io::Error::from)?;
            if len == 0 {
                return Ok(());
            }
            while len < head.len() {
                len += self.socket.read(&mut head[len..])?;
            }
            let mut body = vec![0; word(&head, 8) as usize];
            self.socket.read_exact(&mut body)?;
            self.count += 1;
            let request = word(&head, 0);
            let _ = log.send(request);
            match self.script.quirk {
                Quirk::CloseAt(n) if n == self.count => return Ok(()),
                Quirk::StallAt(n) if n == self.count => {
                    *stalled.socket.lock().expect("no panic") = Some(self.socket.try_clone()?);
                    stalled.change.notify_all();
                    // Until somebody closes.
                    while self.socket.read(&mut [0; 64])? > 0 {}
                    return Ok(());
                }
                Quirk::Garbage => self.socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?,
                _ => self.answer(request, word(&head, 4), &body, file)?,
            }
        }
    }

    fn answer(&mut self, request: u32, flags: u32, body: &[u8], file: Option<File>) -> std::io::Result<()> {
        let wanted = flags & 8 != 0;
        match request {
            message::GET_FEATURES => return self.say(request, &self.script.features.to_le_bytes()),
            message::GET_PROTOCOL_FEATURES => return self.say(request, &self.script.protocol.to_le_bytes()),
            message::GET_QUEUE_NUM => return self.say(request, &self.script.queues.to_le_bytes()),
            message::GET_VRING_BASE => return self.say(request, &[&body[..4], &[0; 4]].concat()),
            message::GET_CONFIG => return self.config(body),
            message::SET_MEM_TABLE => self.memory = file.map(|file| (file, long(body, 8))),
            message::SET_VRING_ADDR => self.used.push((word(body, 0), long(body, 16))),
            message::SET_VRING_ENABLE => self.enable(word(body, 0))?,
            message::SET_CONFIG => self.script.config[word(body, 0) as usize] = body[12],
            _ => self.files.extend(file),
        }
        let failed = self.script.quirk == Quirk::RejectAt(self.count);
        if wanted { self.say(request, &u64::from(failed).to_le_bytes()) } else { Ok(()) }
    }

    fn say(&self, request: u32, body: &[u8]) -> std::io::Result<()> {
        let head = [request, 1 | 4, body.len() as u32];
        let mut text: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        text.extend(body);
        (&self.socket).write_all(&text)
    }

    /// As qemu-storage-daemon does it: nothing, when more is asked for than there is.
    fn config(&mut self, body: &[u8]) -> std::io::Result<()> {
        let len = word(body, 4) as usize;
        if self.script.quirk == Quirk::Restless {
            let capacity = long(&self.script.config, 0) + 8;
            self.script.config[..8].copy_from_slice(&capacity.to_le_bytes());
        }
        match self.script.config.get(..len) {
            Some(config) => self.say(message::GET_CONFIG, &[&body[..12], config].concat()),
            None => self.say(message::GET_CONFIG, &[]),
        }
    }

    fn enable(&mut self, queue: u32) -> std::io::Result<()> {
        let Quirk::UsedIndex(index) = self.script.quirk else { return Ok(()) };
        let (file, base) = self.memory.as_ref().expect("the memory comes first");
        let (_, used) = self.used.iter().find(|(n, _)| *n == queue).expect("the addresses come first");
        file.write_all_at(&index.to_le_bytes(), used - base + 2)
    }
}
