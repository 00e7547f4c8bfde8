//! qemu-storage-daemon as a child process. The listening socket is the test's, so that it is there before the daemon is
//! and stays when the daemon is killed: a connection waits in it, and nobody has to wait for the daemon.
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const PROGRAM: &str = "qemu-storage-daemon";

/// A daemon, and where it listens. It is killed when this is dropped.
pub struct Qsd {
    child: Child,
    listener: UnixListener,
    blockdev: String,
    queues: u16,
    place: TempDir,
}

/// Bytes of every disk.
pub const SIZE: u64 = 64 << 20;

impl Qsd {
    /// A disk that stores nothing and reads as zeros, each request taking `latency` nanoseconds; `None`, with a word on
    /// the test's output, where the daemon is not installed.
    pub fn null(queues: u16, latency: u64) -> Option<Self> {
        let disk = format!("driver=null-co,node-name=disk,size={SIZE},read-zeroes=on,latency-ns={latency}");
        Self::start(|_| disk, queues)
    }

    /// A disk in a file that is deleted afterwards.
    pub fn file(queues: u16) -> Option<Self> {
        let disk = |place: &Path| {
            let path = place.join("disk");
            std::fs::File::create(&path).and_then(|file| file.set_len(SIZE)).expect("a file can be made");
            format!("driver=file,node-name=disk,filename={}", path.display())
        };
        Self::start(disk, queues)
    }

    fn start(blockdev: impl FnOnce(&Path) -> String, queues: u16) -> Option<Self> {
        if Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().is_err() {
            // Not through `eprintln!`: the test harness hides what a test that passes prints.
            let _ = writeln!(std::io::stderr(), "skipped: {PROGRAM} is not installed");
            return None;
        }
        let place = tempfile::tempdir().expect("a folder can be made");
        let listener = UnixListener::bind(place.path().join("socket")).expect("a socket can be made");
        let blockdev = blockdev(place.path());
        let child = spawn(&listener, &blockdev, queues);
        Some(Self { child, listener, blockdev, queues, place })
    }

    /// Where it listens.
    pub fn path(&self) -> PathBuf {
        self.place.path().join("socket")
    }

    /// Stops it in the middle of whatever it does, and returns when it has stopped.
    pub fn freeze(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGSTOP).expect("the daemon is there");
        waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is our child");
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the daemon is there");
        self.child.wait().expect("it is our child");
    }

    /// Starts another one over the same disk.
    pub fn restart(&mut self) {
        self.child = spawn(&self.listener, &self.blockdev, self.queues);
    }
}

fn spawn(listener: &UnixListener, blockdev: &str, queues: u16) -> Child {
    let fd = listener.as_raw_fd();
    let export = format!(
        "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},addr.type=fd,addr.str={fd}"
    );
    let mut command = Command::new(PROGRAM);
    command.args(["--blockdev", blockdev, "--export", &export]);
    let socket = listener.as_fd().try_clone_to_owned().expect("a descriptor is left");
    // SAFETY: between fork and exec only system calls are made: the child keeps the socket, and dies with this thread.
    let child = unsafe {
        command.pre_exec(move || {
            let _ = &socket;
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            fcntl(std::os::fd::BorrowedFd::borrow_raw(fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        })
    };
    child.spawn().expect("the daemon starts")
}

impl Drop for Qsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
