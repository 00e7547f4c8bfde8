//! Where the data is: a file, or memory that looks like one.
//!
//! Several queues use it at once; overlapping requests race as on a real disk. It knows bytes, no requests.
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A medium of whole sectors.
#[derive(Debug)]
pub struct Medium {
    file: File,
    sectors: u64,
}

/// What is written at once where holes cannot be punched.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl Medium {
    /// Memory of `sectors` sectors, all zeros.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn ram(sectors: u64) -> io::Result<Self> {
        let file = File::from(memfd_create(c"rust-vmm-medium", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(sectors.checked_mul(512).ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok(Self { file, sectors })
    }

    /// The file at `path`, as long as it is; what is left of its last sector is out of reach.
    ///
    /// # Errors
    /// When it cannot be opened, for writing too unless `read_only`.
    pub fn file(path: &Path, read_only: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(!read_only).open(path)?;
        let sectors = file.metadata()?.len() / 512;
        Ok(Self { file, sectors })
    }

    /// Its length in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    pub(super) fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(from, offset)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes a range read as zeros, by a hole if the file system has holes.
    pub(super) fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if fallocate(&self.file, hole, offset.cast_signed(), len.cast_signed()).is_ok() {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let now = (len - done).min(ZEROS.len() as u64);
            self.write(&ZEROS[..now as usize], offset + done)?;
            done += now;
        }
        Ok(())
    }
}
