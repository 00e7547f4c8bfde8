//! The disk behind the device: a null device, or a raw file checked before anything starts.
//!
//! Knows files and sizes; refuses to know workloads beyond whether they write.
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use workload::params::SECTOR;

/// Bytes of the null disk unless a job needs more.
pub(crate) const NULL_BYTES: u64 = 1 << 30;
/// The node that the device hangs on; QMP names it.
pub(crate) const NODE: &str = "disk";

/// What `--disk` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// QEMU's null-co: reads zeroes, forgets writes.
    Null {
        /// Capacity.
        bytes: u64,
    },
    /// A raw image or a block device.
    File {
        path: PathBuf,
        bytes: u64,
        /// A block device rather than a regular file.
        device: bool,
        /// Opened, and shown to the guest, as read-only.
        read_only: bool,
        /// Errors that QEMU's blkdebug puts in the place of answers, as its `inject-error` has them.
        injected: Vec<Value>,
    },
    /// That of the back-end that the user brings; nothing is known of it here.
    Theirs,
}

impl Disk {
    /// `null`, or a path that must hold whole sectors and be writable if the job writes. A job that does not write
    /// gets the file read-only.
    pub(crate) fn open(argument: &str, writes: bool) -> Result<Self> {
        if argument == "null" {
            return Ok(Self::Null { bytes: NULL_BYTES });
        }
        let path = Path::new(argument);
        let what = || format!("--disk={argument}");
        if !path.exists() {
            bail!("{}: no such file: create it (truncate -s 1G {argument}) or use --disk=null", what());
        }
        let kind = path.metadata().with_context(what)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            bail!("{}: neither a file nor a block device", what());
        }
        let mut file = OpenOptions::new().read(true).write(writes).open(path).with_context(|| {
            let purpose = if writes { "writing" } else { "reading" };
            format!("{}: cannot be opened for {purpose}: check its permissions", what())
        })?;
        let bytes = file.seek(SeekFrom::End(0)).with_context(what)?;
        if bytes == 0 || bytes % u64::from(SECTOR) != 0 {
            bail!(
                "{}: {bytes} bytes is not a positive multiple of {SECTOR}: resize it (truncate -s {} {argument})",
                what(),
                (bytes / u64::from(SECTOR) + 1) * u64::from(SECTOR)
            );
        }
        Ok(Self::File {
            // QEMU may run elsewhere; a relative path also must not look like a protocol ("a:b").
            path: path.canonicalize().with_context(what)?,
            bytes,
            device: kind.is_block_device(),
            read_only: !writes,
            injected: Vec::new(),
        })
    }

    /// A new sparse file of zeroes.
    pub(crate) fn create(path: &Path, bytes: u64) -> Result<Self> {
        File::create(path)
            .and_then(|file| file.set_len(bytes))
            .with_context(|| format!("creating the disk {}", path.display()))?;
        Self::open(&path.to_string_lossy(), true)
    }

    /// Its size, without bound where it is not known.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Null { bytes } | Self::File { bytes, .. } => *bytes,
            Self::Theirs => u64::MAX,
        }
    }

    /// Where the data can be re-read, if it is kept at all.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Null { .. } | Self::Theirs => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// Shown as read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::File { read_only: true, .. })
    }

    /// The same file, shown as read-only.
    #[must_use]
    pub(crate) fn protected(mut self) -> Self {
        if let Self::File { read_only, .. } = &mut self {
            *read_only = true;
        }
        self
    }

    /// The same file, on which QEMU lets requests fail as `injected` says.
    #[must_use]
    pub(crate) fn failing(mut self, injected: Value) -> Self {
        if let Self::File { injected: all, .. } = &mut self {
            all.push(injected);
        }
        self
    }

    /// QEMU's `-blockdev`, as JSON, which needs no escaping. Files go through the host's page cache and a thread pool:
    /// that works on every file system (tmpfs has no O_DIRECT), and data is checked here, not timed.
    pub(crate) fn blockdev(&self) -> Value {
        match self {
            Self::Null { .. } | Self::Theirs => {
                let bytes = self.bytes().min(i64::MAX.cast_unsigned());
                json!({"driver": "null-co", "node-name": NODE, "size": bytes, "read-zeroes": true})
            }
            Self::File { path, device, read_only, injected, .. } => {
                let driver = if *device { "host_device" } else { "file" };
                let file = json!({
                    "driver": driver, "filename": path.to_string_lossy(), "aio": "threads",
                    "cache": {"direct": false, "no-flush": false},
                    "discard": "unmap", "read-only": read_only,
                });
                let file = if injected.is_empty() {
                    file
                } else {
                    json!({"driver": "blkdebug", "image": file, "inject-error": injected, "discard": "unmap"})
                };
                json!({
                    "driver": "raw", "node-name": NODE, "file": file,
                    "discard": "unmap", "read-only": read_only,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        file
    }

    #[test]
    fn a_missing_disk_says_how_to_make_one() {
        let error = Disk::open("/nonexistent/disk.raw", false).unwrap_err();
        assert!(format!("{error:#}").contains("truncate -s 1G"), "{error:#}");
    }

    #[test]
    fn a_size_that_is_not_whole_sectors_is_refused_with_the_next_size_that_is() {
        for (bytes, next) in [(1000, "-s 1024"), (0, "-s 512"), (513, "-s 1024")] {
            let file = file_of(bytes);
            let error = Disk::open(&file.path().to_string_lossy(), false).unwrap_err();
            assert!(error.to_string().contains(next), "{error:#}");
        }
    }

    #[test]
    fn a_directory_is_no_disk() {
        assert!(Disk::open("/tmp", false).is_err());
    }

    #[test]
    fn a_job_that_does_not_write_gets_the_file_read_only() {
        let file = file_of(4096);
        let disk = Disk::open(&file.path().to_string_lossy(), false).unwrap();
        assert_eq!(disk.blockdev()["read-only"], json!(true));
        assert_eq!(disk.blockdev()["file"]["read-only"], json!(true));
        assert_eq!(disk.bytes(), 4096);
    }
}
