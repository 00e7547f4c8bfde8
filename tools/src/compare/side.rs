//! Who is compared: our driver and its peers, each in the configurations that are measured.
//!
//! A [`Peer`] is what `--peers` names; a [`Side`] is one way of running it, with the words that ask for it. Knows no
//! figures.
use clap::ValueEnum;

/// A driver to compare with, as `--peers` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// A bare ring without slots, checks or errors
    Raw,
    /// The crate virtio-drivers, in the image
    VirtioDrivers,
    /// Linux' own driver under fio, in a guest of its own
    Linux,
    /// The crate virtio-driver (libblkio's), natively
    VirtioDriver,
    /// The crate blkio (libblkio itself), natively
    Blkio,
}

impl Peer {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::VirtioDrivers => "virtio-drivers",
            Self::Linux => "linux",
            Self::VirtioDriver => "virtio-driver",
            Self::Blkio => "blkio",
        }
    }

    /// What it is, for whoever reads the results.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Raw => "bare split ring without slots, checks or errors: the floor",
            Self::VirtioDrivers => "crate virtio-drivers 0.13 in the same image, one queue of 16, polled",
            Self::Linux => "Linux virtio_blk with block layer and system calls, fio with io_uring in the guest",
            Self::VirtioDriver => "crate virtio-driver 0.6 (libblkio's), a Linux process",
            Self::Blkio => "crate blkio 0.5 (libblkio), a Linux process",
        }
    }
}

/// One way of running ours or a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Part of the names of its jobs.
    pub(crate) slug: &'static str,
    /// As tables and plots call it.
    pub(crate) label: &'static str,
    /// `None`: ours.
    pub(crate) peer: Option<Peer>,
    /// What a job is told.
    pub(crate) words: &'static str,
}

/// Ours.
pub(crate) const OURS: Side = Side { slug: "ours", label: "ours", peer: None, words: "" };
/// Ours behind the storage path: client, front end and driver take turns on one processor.
pub(crate) const STEPPED: Side =
    Side { slug: "blockd", label: "ours via blockd", peer: None, words: "via=blockd front=stepped" };
/// Likewise, the front end on a processor of its own.
pub(crate) const OWN: Side =
    Side { slug: "blockd-own", label: "ours via blockd, own vCPUs", peer: None, words: "via=blockd front=own" };
/// The floor.
pub(crate) const RAW: Side = Side { slug: "raw", label: "bare ring", peer: Some(Peer::Raw), words: "driver=raw" };
/// virtio-drivers as it comes.
pub(crate) const DEFAULT: Side = Side {
    slug: "virtio-drivers",
    label: "virtio-drivers",
    peer: Some(Peer::VirtioDrivers),
    words: "driver=virtio-drivers",
};
/// virtio-drivers at its best.
pub(crate) const BEST: Side = Side {
    slug: "virtio-drivers-best",
    label: "virtio-drivers, event_idx=off",
    peer: Some(Peer::VirtioDrivers),
    words: "driver=virtio-drivers event_idx=off",
};
/// Linux.
pub(crate) const LINUX: Side = Side { slug: "linux", label: "Linux", peer: Some(Peer::Linux), words: "driver=linux" };
/// libblkio's driver.
pub(crate) const VIRTIO_DRIVER: Side = Side {
    slug: "virtio-driver",
    label: "virtio-driver",
    peer: Some(Peer::VirtioDriver),
    words: "driver=virtio-driver",
};
/// libblkio.
pub(crate) const BLKIO: Side = Side { slug: "blkio", label: "blkio", peer: Some(Peer::Blkio), words: "driver=blkio" };
