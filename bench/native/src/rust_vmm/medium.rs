//! Where the data is: a file, memory that looks like one, or a file behind a cache that is lost with the process.
//!
//! The last is what a disk with a write cache is: a write reaches the file with the next flush, and not before, so that
//! killing the process shows which flushes a driver did not send. Several queues use a medium at once; overlapping
//! requests race as on a real disk. It knows bytes, no requests.
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A medium of whole sectors.
#[derive(Debug)]
pub struct Medium {
    file: File,
    sectors: u64,
    /// Where reads and writes go, if that is not the file.
    cache: Option<Cache>,
}

/// What was written and not flushed is here alone.
#[derive(Debug)]
struct Cache {
    /// A copy of the whole file, in memory.
    memory: File,
    /// Chunks that differ from the file's.
    dirty: Mutex<BTreeSet<u64>>,
}

/// Bytes of a chunk.
const CHUNK: u64 = 4096;

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
        Ok(Self { file, sectors, cache: None })
    }

    /// The file at `path`, as long as it is; what is left of its last sector is out of reach.
    ///
    /// # Errors
    /// When it cannot be opened, for writing too unless `read_only`.
    pub fn file(path: &Path, read_only: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(!read_only).open(path)?;
        let sectors = file.metadata()?.len() / 512;
        Ok(Self { file, sectors, cache: None })
    }

    /// The file at `path`, behind a volatile write cache that holds all of it.
    ///
    /// # Errors
    /// When it cannot be opened for writing, or there is no memory for a copy of it.
    pub fn cached_file(path: &Path) -> io::Result<Self> {
        let medium = Self::file(path, false)?;
        let mut memory = File::from(memfd_create(c"rust-vmm-cache", MFdFlags::MFD_CLOEXEC)?);
        io::copy(&mut &medium.file, &mut memory)?;
        Ok(Self { cache: Some(Cache { memory, dirty: Mutex::default() }), ..medium })
    }

    /// Its length in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.front().read_exact_at(into, offset)
    }

    pub(super) fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.front().write_all_at(from, offset)?;
        self.changed(offset, from.len() as u64);
        Ok(())
    }

    /// Where reads and writes go.
    fn front(&self) -> &File {
        self.cache.as_ref().map_or(&self.file, |cache| &cache.memory)
    }

    /// Notes what the next flush has to carry over: before the request is answered, so that a later flush finds it.
    fn changed(&self, offset: u64, len: u64) {
        if let Some(cache) = &self.cache {
            let chunks = offset / CHUNK..(offset + len).div_ceil(CHUNK);
            cache.dirty.lock().unwrap_or_else(PoisonError::into_inner).extend(chunks);
        }
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        if let Some(cache) = &self.cache {
            // Held to the end: another queue's flush is not answered before this one carried over what it took.
            let mut dirty = cache.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            let mut data = [0; CHUNK as usize];
            for offset in std::mem::take(&mut *dirty).into_iter().map(|chunk| chunk * CHUNK) {
                let len = CHUNK.min(self.sectors * 512 - offset) as usize;
                cache.memory.read_exact_at(&mut data[..len], offset)?;
                self.file.write_all_at(&data[..len], offset)?;
            }
        }
        self.file.sync_data()
    }

    /// Makes a range read as zeros, by a hole if the file system has holes.
    pub(super) fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if fallocate(self.front(), hole, offset.cast_signed(), len.cast_signed()).is_ok() {
            self.changed(offset, len);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_cached_file_holds_what_was_flushed_and_nothing_else() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 8192 + 512]).unwrap();
        let on_disk = |at: usize| std::fs::read(file.path()).unwrap()[at];
        let medium = Medium::cached_file(file.path()).unwrap();
        medium.write(&[1; 512], 0).unwrap();
        medium.flush().unwrap();
        medium.write(&[2; 512], 8192).unwrap();
        medium.zero(4096, 512).unwrap();
        let mut data = [0; 512];
        medium.read(&mut data, 8192).unwrap();
        assert_eq!((data[0], on_disk(0), on_disk(4096), on_disk(8192)), (2, 1, 7, 7), "not flushed");
        medium.flush().unwrap();
        assert_eq!((on_disk(0), on_disk(512), on_disk(4096), on_disk(8192)), (1, 7, 0, 2), "flushed");
    }
}
