//! What a client asks of a device: whole blocks, read and written, and a flush that means it.
//!
//! A [`Window`] is a part of a volume as a volume of its own: what a partition looks like to its client. It refuses to
//! know what is written. Invariant: nothing that a window passes on leaves its extent, and a read-only one passes on no
//! write.
use crate::survey::Extent;
use core::error::Error;
use core::fmt::{self, Display, Formatter};

/// A device as its client uses it. Buffers hold whole logical blocks.
pub trait Volume {
    /// What a failed request says.
    type Error: Error + 'static;

    /// Bytes in a logical block.
    fn block_size(&self) -> u32;

    /// Logical blocks of the device.
    fn blocks(&self) -> u64;

    /// Reads as many blocks as `into` holds, from `lba` on.
    ///
    /// # Errors
    /// The device's own.
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `from` to the blocks from `lba` on.
    ///
    /// # Errors
    /// The device's own.
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Self::Error>;

    /// Returns once everything written before lasts.
    ///
    /// # Errors
    /// The device's own.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

impl<V: Volume> Volume for &mut V {
    type Error = V::Error;

    fn block_size(&self) -> u32 {
        V::block_size(self)
    }
    fn blocks(&self) -> u64 {
        V::blocks(self)
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        V::read(self, lba, into)
    }
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Self::Error> {
        V::write(self, lba, from)
    }
    fn flush(&mut self) -> Result<(), Self::Error> {
        V::flush(self)
    }
}

/// Why a window did not pass a request on, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowError<E> {
    /// Some of the blocks are not the window's, or there are none.
    Outside,
    /// A buffer that does not hold whole blocks.
    Length,
    /// A write to a read-only device.
    ReadOnly,
    /// What the volume said.
    Volume(E),
}

impl<E: Display> Display for WindowError<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("outside of the device"),
            Self::Length => f.write_str("a buffer that does not hold whole blocks"),
            Self::ReadOnly => f.write_str("a write to a read-only device"),
            Self::Volume(error) => Display::fmt(error, f),
        }
    }
}

impl<E: Error> Error for WindowError<E> {}

/// A part of a volume.
///
/// ```
/// use blockd::{Extent, Volume, Window};
///
/// struct Memory(Vec<u8>);
///
/// impl Volume for Memory {
///     type Error = core::convert::Infallible;
///
///     fn block_size(&self) -> u32 {
///         512
///     }
///     fn blocks(&self) -> u64 {
///         self.0.len() as u64 / 512
///     }
///     fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Self::Error> {
///         into.copy_from_slice(&self.0[lba as usize * 512..][..into.len()]);
///         Ok(())
///     }
///     fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Self::Error> {
///         self.0[lba as usize * 512..][..from.len()].copy_from_slice(from);
///         Ok(())
///     }
///     fn flush(&mut self) -> Result<(), Self::Error> {
///         Ok(())
///     }
/// }
///
/// let mut disk = Memory(vec![0; 64 * 512]);
/// let mut part = Window::new(&mut disk, Extent { first: 8, blocks: 4 }, false).unwrap();
/// part.write(3, &[7; 512]).unwrap();
/// assert_eq!(part.write(4, &[7; 512]).unwrap_err().to_string(), "outside of the device");
/// assert_eq!(disk.0[11 * 512], 7);
/// ```
#[derive(Debug)]
pub struct Window<V> {
    volume: V,
    extent: Extent,
    read_only: bool,
}

impl<V: Volume> Window<V> {
    /// The part of `volume` that `extent` names; none if it does not lie inside.
    pub fn new(volume: V, extent: Extent, read_only: bool) -> Option<Self> {
        let inside = extent.first.checked_add(extent.blocks)? <= volume.blocks();
        inside.then_some(Self { volume, extent, read_only })
    }

    fn translate(&self, lba: u64, bytes: usize) -> Result<u64, WindowError<V::Error>> {
        let size = self.volume.block_size() as usize;
        if !bytes.is_multiple_of(size) {
            return Err(WindowError::Length);
        }
        self.extent.translate(lba, (bytes / size) as u64).ok_or(WindowError::Outside)
    }
}

impl<V: Volume> Volume for Window<V> {
    type Error = WindowError<V::Error>;

    fn block_size(&self) -> u32 {
        self.volume.block_size()
    }

    fn blocks(&self) -> u64 {
        self.extent.blocks
    }

    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        let at = self.translate(lba, into.len())?;
        self.volume.read(at, into).map_err(WindowError::Volume)
    }

    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Self::Error> {
        if self.read_only {
            return Err(WindowError::ReadOnly);
        }
        let at = self.translate(lba, from.len())?;
        self.volume.write(at, from).map_err(WindowError::Volume)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.volume.flush().map_err(WindowError::Volume)
    }
}
