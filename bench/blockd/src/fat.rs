//! A volume as the stream of bytes that the file system works on.
//!
//! The file system reads and writes single directory entries and table cells; a device knows whole blocks. [`Stream`]
//! stands between, with room for one block. It refuses to know what a file is. Invariants: a run of whole blocks goes
//! to the device as one request, straight from the caller's memory; the one block that is kept is written back before
//! any request that could pass it, and before a flush; a flush reaches the device, and what is read afterwards comes
//! from there.
use crate::media::MAX_BLOCK;
use crate::volume::Volume;
use axfatfs::{IoBase, IoError, Read, Seek, SeekFrom, Write};
use core::error::Error;
use core::fmt::{self, Debug, Display, Formatter};

/// Why bytes did not get to the volume or from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamError<E> {
    /// Blocks that are no power of two from 512 to 4096 bytes, or more of them than can be counted in bytes.
    Shape,
    /// A position before the beginning or after the end.
    Seek,
    /// The volume ends before the bytes that were asked for.
    End,
    /// The volume ends before the bytes that were to be written.
    Full,
    /// What the volume said.
    Volume(E),
}

impl<E: Display> Display for StreamError<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => f.write_str("a volume of a shape that holds no file system"),
            Self::Seek => f.write_str("a position outside of the volume"),
            Self::End => f.write_str("reading past the end of the volume"),
            Self::Full => f.write_str("writing past the end of the volume"),
            Self::Volume(error) => Display::fmt(error, f),
        }
    }
}

impl<E: Error> Error for StreamError<E> {}

impl<E: Debug> IoError for StreamError<E> {
    fn is_interrupted(&self) -> bool {
        false
    }
    fn new_unexpected_eof_error() -> Self {
        Self::End
    }
    fn new_write_zero_error() -> Self {
        Self::Full
    }
}

/// A volume, a position on it in bytes, and one block of it.
///
/// ```
/// use axfatfs::{FileSystem, FsOptions, NullTimeProvider, Write};
/// use blockd::fat::Stream;
/// # use blockd::Volume;
/// # struct Memory(Vec<u8>);
/// # impl Volume for Memory {
/// #     type Error = core::convert::Infallible;
/// #     fn block_size(&self) -> u32 { 512 }
/// #     fn blocks(&self) -> u64 { self.0.len() as u64 / 512 }
/// #     fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Self::Error> {
/// #         into.copy_from_slice(&self.0[lba as usize * 512..][..into.len()]);
/// #         Ok(())
/// #     }
/// #     fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Self::Error> {
/// #         self.0[lba as usize * 512..][..from.len()].copy_from_slice(from);
/// #         Ok(())
/// #     }
/// #     fn flush(&mut self) -> Result<(), Self::Error> { Ok(()) }
/// # }
/// # let volume = Memory(vec![0; 4 << 20]);
///
/// let mut stream = Stream::new(volume)?;
/// axfatfs::format_volume(&mut &mut stream, axfatfs::FormatVolumeOptions::new()).unwrap();
/// stream.rewind();
/// let files = FileSystem::new(&mut stream, FsOptions::new().time_provider(NullTimeProvider::new())).unwrap();
/// files.root_dir().create_file("a name of some length.txt").unwrap().write_all(b"and a line").unwrap();
/// files.unmount().unwrap();
/// // The file system does not flush on its way out.
/// stream.flush()?;
/// # Ok::<(), blockd::fat::StreamError<core::convert::Infallible>>(())
/// ```
pub struct Stream<V> {
    volume: V,
    at: u64,
    end: u64,
    size: usize,
    /// Which block is kept.
    kept: Option<u64>,
    /// Whether the kept block is newer than the volume's.
    newer: bool,
    block: [u8; MAX_BLOCK],
}

impl<V: Volume> Stream<V> {
    /// A stream that begins with the first byte of the volume.
    ///
    /// # Errors
    /// The volume has blocks of another kind.
    pub fn new(volume: V) -> Result<Self, StreamError<V::Error>> {
        let size = volume.block_size();
        if !size.is_power_of_two() || !(512..=MAX_BLOCK as u32).contains(&size) {
            return Err(StreamError::Shape);
        }
        let end = volume.blocks().checked_mul(u64::from(size)).ok_or(StreamError::Shape)?;
        Ok(Self { volume, at: 0, end, size: size as usize, kept: None, newer: false, block: [0; MAX_BLOCK] })
    }

    /// Back to the first byte, where a file system expects to be given it.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    /// Writes back what is kept, lets go of it, and flushes the volume.
    ///
    /// # Errors
    /// The volume's.
    pub fn flush(&mut self) -> Result<(), StreamError<V::Error>> {
        self.settle()?;
        self.kept = None;
        self.volume.flush().map_err(StreamError::Volume)
    }

    fn settle(&mut self) -> Result<(), StreamError<V::Error>> {
        if let (Some(lba), true) = (self.kept, self.newer) {
            self.volume.write(lba, &self.block[..self.size]).map_err(StreamError::Volume)?;
            self.newer = false;
        }
        Ok(())
    }

    /// Makes the block at the position the kept one; tells the position inside it.
    fn keep(&mut self) -> Result<usize, StreamError<V::Error>> {
        let (lba, offset) = self.place();
        if self.kept != Some(lba) {
            self.settle()?;
            // Until the read is through, the memory holds no block at all.
            self.kept = None;
            self.volume.read(lba, &mut self.block[..self.size]).map_err(StreamError::Volume)?;
            self.kept = Some(lba);
        }
        Ok(offset)
    }

    /// The block of the position, and the position inside it.
    fn place(&self) -> (u64, usize) {
        let size = self.size as u64;
        (self.at / size, (self.at % size) as usize)
    }

    /// How much of `wanted` can go to the device as whole blocks, past the kept one.
    fn whole(&self, wanted: usize) -> usize {
        let (_, offset) = self.place();
        let there = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if offset == 0 { wanted.min(there) / self.size * self.size } else { 0 }
    }
}

impl<V: Volume> IoBase for &mut Stream<V> {
    type Error = StreamError<V::Error>;
}

impl<V: Volume> Read for &mut Stream<V> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Self::Error> {
        if self.at == self.end || into.is_empty() {
            return Ok(0);
        }
        let whole = self.whole(into.len());
        let length = if whole > 0 {
            self.settle()?;
            let (lba, _) = self.place();
            self.volume.read(lba, &mut into[..whole]).map_err(StreamError::Volume)?;
            whole
        } else {
            let offset = self.keep()?;
            let length = into.len().min(self.size - offset);
            into[..length].copy_from_slice(&self.block[offset..offset + length]);
            length
        };
        self.at += length as u64;
        Ok(length)
    }
}

impl<V: Volume> Write for &mut Stream<V> {
    fn write(&mut self, from: &[u8]) -> Result<usize, Self::Error> {
        if self.at == self.end || from.is_empty() {
            return Ok(0);
        }
        let whole = self.whole(from.len());
        let length = if whole > 0 {
            // The kept block may be among those that are written now: older or newer, it is out of date afterwards.
            self.settle()?;
            self.kept = None;
            let (lba, _) = self.place();
            self.volume.write(lba, &from[..whole]).map_err(StreamError::Volume)?;
            whole
        } else {
            let offset = self.keep()?;
            let length = from.len().min(self.size - offset);
            self.block[offset..offset + length].copy_from_slice(&from[..length]);
            self.newer = true;
            length
        };
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Stream::flush(self)
    }
}

impl<V: Volume> Seek for &mut Stream<V> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Self::Error> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.filter(|at| *at <= self.end).ok_or(StreamError::Seek)?;
        Ok(self.at)
    }
}
