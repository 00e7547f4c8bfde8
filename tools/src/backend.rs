//! Where a job runs: under QEMU, on a vhost-user back-end, or on a device inside the native bench.
//!
//! [`Asked`] collects what was typed and settles it, refusing what does not fit together. Knows words and what excludes
//! what; starting anything is `server`'s and `native`'s.
use crate::peers;
use anyhow::{Result, bail, ensure};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use workload::params::{Driver, Mode, Params, Submit, Verify};

/// Where a job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// As the image on QEMU's PCI device.
    Qemu,
    /// As a Linux process on a vhost-user back-end.
    VhostUser(Server),
    /// As a Linux process with the device inside.
    Embedded(Inside),
}

/// A vhost-user back-end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The user's, at this socket.
    Theirs(PathBuf),
    /// qemu-storage-daemon, started for each run.
    StorageDaemon,
    /// The native bench's device on rust-vmm's queues, in a process of its own, started for each run; `volatile` keeps
    /// what is written in its memory until it is flushed.
    RustVmm { volatile: bool },
    /// The same device, with used lengths and a DISCARD as they should not be.
    Deviating,
}

/// A device inside the native bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Written for speed; `stepped` by the submitting threads, or spinning in a thread of its own.
    Minimal { stepped: bool },
    /// On rust-vmm's queues.
    RustVmm,
    /// The minimal one, which refuses some of what it offers and insists on the rest.
    Deviating,
}

impl Backend {
    /// The word for it on the command line.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::VhostUser(_) => "vhost-user",
            Self::Embedded(_) => "embedded",
        }
    }

    /// The device that answers.
    pub(crate) fn device(&self) -> &'static str {
        match self {
            Self::Qemu => "virtio-blk-pci",
            Self::VhostUser(Server::Theirs(_)) => "socket",
            Self::VhostUser(Server::StorageDaemon) => "qemu-storage-daemon",
            Self::Embedded(Inside::Minimal { .. }) => "minimal",
            Self::VhostUser(Server::RustVmm { .. }) | Self::Embedded(Inside::RustVmm) => "rust-vmm",
            Self::VhostUser(Server::Deviating) | Self::Embedded(Inside::Deviating) => "deviating",
        }
    }

    /// A Linux process rather than the image.
    pub(crate) fn is_native(&self) -> bool {
        *self != Self::Qemu
    }

    /// The device that is written for speed, whatever it insists on.
    pub(crate) fn is_minimal(&self) -> bool {
        matches!(self, Self::Embedded(Inside::Minimal { .. } | Inside::Deviating))
    }

    /// The device has no thread of its own.
    pub(crate) fn is_stepped(&self) -> bool {
        *self == Self::Embedded(Inside::Minimal { stepped: true })
    }

    /// The disk is the back-end's, out of sight.
    pub(crate) fn brings_disk(&self) -> bool {
        matches!(self, Self::VhostUser(Server::Theirs(_)))
    }
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    backend: Option<String>,
    socket: Option<String>,
    device: Option<String>,
    stepped: Option<bool>,
}

impl Asked {
    /// Takes `key=value` if it is about the back-end; true if it was.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        let one_of = |known: &[&str]| {
            ensure!(known.contains(&value), "{key} does not take `{value}`: give {}", known.join(" or "));
            Ok(Some(value.to_owned()))
        };
        match key {
            "backend" => self.backend = one_of(&["qemu", "vhost-user", "embedded"])?,
            "device" => self.device = one_of(&["minimal", "rust-vmm", "deviating"])?,
            "stepped" => self.stepped = one_of(&["on", "off"])?.map(|word| word == "on"),
            "socket" => self.socket = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The socket of the back-end that the user brings, and with it the disk.
    pub(crate) fn theirs(&self) -> Option<&str> {
        self.socket.as_deref().filter(|_| self.word() == "vhost-user")
    }

    fn word(&self) -> &str {
        self.backend.as_deref().unwrap_or("qemu")
    }

    pub(crate) fn is_native(&self) -> bool {
        self.word() != "qemu"
    }

    /// Whether the submitting threads step the device, which then cannot interrupt them.
    pub(crate) fn steps(&self, params: &Params) -> bool {
        self.word() == "embedded" && self.stepped.unwrap_or(params.icount)
    }

    /// The back-end, unless what was typed contradicts itself. `said` tells which other keys were given, `file` whether
    /// the disk is one.
    pub(crate) fn settle(&self, params: &Params, file: bool, said: impl Fn(&str) -> bool) -> Result<Backend> {
        let word = self.word();
        let backend = match word {
            "vhost-user" => Backend::VhostUser(self.server()?),
            "embedded" => Backend::Embedded(self.inside(params, file)?),
            _ => {
                self.only_natively(params)?;
                peers::under_qemu(params, said)?;
                return Ok(Backend::Qemu);
            }
        };
        for key in ["vcpus", "iothreads"] {
            ensure!(!said(key), "{key} is for backend=qemu: leave it out with backend={word}");
        }
        peers::natively(params)?;
        if params.icount && word == "vhost-user" {
            bail!("icount counts natively on the stepped minimal device only: use backend=embedded, or qemu");
        }
        if backend.brings_disk() && said("disk") {
            bail!("the back-end at socket={} has a disk of its own: leave disk out", self.socket());
        }
        if backend.brings_disk() && params.verify == Verify::Crc32c {
            bail!("verify=crc32c needs a disk that is read again here: leave socket out and give --disk=FILE");
        }
        Ok(backend)
    }

    fn socket(&self) -> &str {
        self.socket.as_deref().unwrap_or_default()
    }

    /// What QEMU does not have.
    fn only_natively(&self, params: &Params) -> Result<()> {
        let natively = "use backend=vhost-user or backend=embedded, not qemu";
        let driver = params.driver;
        let native = matches!(driver, Driver::VirtioDriver | Driver::Blkio);
        ensure!(!native, "driver={driver} runs natively only: {natively}");
        ensure!(params.submit != Submit::Mutex, "submit=mutex runs natively only: {natively}");
        ensure!(self.socket.is_none(), "socket={} is a vhost-user back-end's: add backend=vhost-user", self.socket());
        if let Some(device) = &self.device {
            bail!("device={device} is a native device: add backend=embedded");
        }
        ensure!(self.stepped.is_none(), "stepped is for the native minimal device: add backend=embedded");
        Ok(())
    }

    fn server(&self) -> Result<Server> {
        ensure!(self.stepped.is_none(), "stepped is for the device inside the bench: use backend=embedded");
        match (&self.socket, self.device.as_deref()) {
            (_, Some("minimal")) => bail!("device=minimal exists inside the bench only: use backend=embedded"),
            (Some(socket), Some(_)) => bail!("socket={socket} is there already: leave device out"),
            (None, Some("deviating")) => Ok(Server::Deviating),
            (None, Some(_)) => Ok(Server::RustVmm { volatile: false }),
            (None, None) => Ok(Server::StorageDaemon),
            (Some(socket), None) => {
                let path = PathBuf::from(socket);
                let Ok(meta) = path.metadata() else {
                    bail!(
                        "socket={socket}: no such socket: start a vhost-user-blk back-end there, or leave socket out to \
                         have qemu-storage-daemon started"
                    );
                };
                ensure!(meta.file_type().is_socket(), "socket={socket} is not a socket: give a back-end's");
                // The bench may run elsewhere.
                Ok(Server::Theirs(path.canonicalize()?))
            }
        }
    }

    fn inside(&self, params: &Params, file: bool) -> Result<Inside> {
        if let Some(socket) = &self.socket {
            bail!("socket={socket} is a vhost-user back-end's: use backend=vhost-user, or leave it out");
        }
        let stepped = self.steps(params);
        // The minimal device keeps nothing: with a file, the other one is meant.
        let kept = file && self.device.is_none() && !stepped;
        if kept || self.device.as_deref() == Some("rust-vmm") {
            ensure!(!params.icount, "icount counts natively on the stepped minimal device only: use device=minimal");
            ensure!(!stepped, "device=rust-vmm has a thread of its own: use device=minimal or stepped=off");
            return Ok(Inside::RustVmm);
        }
        ensure!(!file, "the minimal device moves no data: leave disk out, or use device=rust-vmm without stepped=on");
        if self.device.as_deref() == Some("deviating") {
            ensure!(!stepped, "device=deviating has a thread of its own: use device=minimal or stepped=off");
            return Ok(Inside::Deviating);
        }
        ensure!(stepped || !params.icount, "icount counts on a stepped device: leave stepped=off out");
        if stepped && params.mode == Mode::Interrupt {
            bail!("a stepped device has no thread that could interrupt: use mode=polled or stepped=off");
        }
        Ok(Inside::Minimal { stepped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Draft;

    fn backend(words: &str) -> Backend {
        Draft::of(&format!("runtime=1 {words}")).unwrap().finish().unwrap().backend
    }

    #[test]
    fn words_name_their_devices() {
        let found = ["", "backend=vhost-user", "backend=vhost-user device=rust-vmm", "backend=embedded"]
            .map(|words| backend(words).device());
        assert_eq!(found, ["virtio-blk-pci", "qemu-storage-daemon", "rust-vmm", "minimal"]);
        assert_eq!(backend("backend=embedded device=rust-vmm"), Backend::Embedded(Inside::RustVmm));
    }

    #[test]
    fn a_file_is_put_behind_the_device_that_moves_data() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let words = format!("backend=embedded disk={}", file.path().display());
        assert_eq!(backend(&words), Backend::Embedded(Inside::RustVmm));
        let minimal = Draft::of(&format!("{words} device=minimal runtime=1")).unwrap().finish();
        assert!(minimal.unwrap_err().to_string().contains("device=rust-vmm"));
    }

    #[test]
    fn counting_steps_the_minimal_device_and_so_does_stepped() {
        let counted = Draft::of("icount=on backend=embedded").unwrap().finish().unwrap();
        assert!(counted.backend.is_stepped());
        assert!(backend("backend=embedded stepped=on").is_stepped());
        assert!(!backend("backend=embedded").is_stepped());
    }
}
