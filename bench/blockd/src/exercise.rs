//! Files written to a volume, read back and compared: what shows that a device carries a file system.
//!
//! The volume holds a FAT file system from its first block on, made by somebody else, and is checked by somebody else
//! afterwards: [`pattern`] tells any reader what must stand in a file. It refuses to know whose volume it is.
//! Invariants: everything is read back by a file system mounted anew, over what was flushed; what cannot be written,
//! found again or compared ends the exercise with its reason.
//!
//! ```
//! use blockd::exercise::{FILES, pattern};
//!
//! let file = &FILES[0];
//! let first: Vec<u8> = (0..4).map(|at| pattern(file.seed, at)).collect();
//! println!("{} has {} bytes and begins with {first:?}", file.path, file.bytes);
//! ```
use crate::fat::{Stream, StreamError};
use crate::volume::Volume;
use arrayvec::ArrayString;
use axfatfs::{Dir, DirEntry, FileSystem, FsOptions, LossyOemCpConverter, NullTimeProvider, Read, Write};
use core::error::Error;
use core::fmt::{self, Display, Formatter};

/// A file that the exercise writes.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where it stands.
    pub path: &'static str,
    /// How long it is.
    pub bytes: u32,
    /// What [`pattern`] is told for its content.
    pub seed: u32,
}

/// What is left on the volume: nothing at all, less than a block, odd lengths, and a mebibyte; long names, a directory.
pub const FILES: [File; 5] = [
    File { path: "EMPTY.DAT", bytes: 0, seed: 1 },
    File { path: "SMALL.TXT", bytes: 61, seed: 2 },
    File { path: "a file with a long name.bin", bytes: 12_345, seed: 3 },
    File { path: "patterned.bin", bytes: 1 << 20, seed: 4 },
    File { path: "directory/inner file.bin", bytes: 70_001, seed: 5 },
];
/// The directory of one of them.
pub const DIRECTORY: &str = "directory";
/// Written and compared like the others, then deleted.
pub const DELETED: File = File { path: "deleted in the end.bin", bytes: 200_000, seed: 6 };

/// A name as it is listed: 255 UCS-2 characters at most.
pub type Name = ArrayString<765>;

/// What stood in the root directory before.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Its length.
    pub bytes: u64,
    /// Whether it is a directory.
    pub directory: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries that stood in the root directory before.
    pub listed: u32,
    /// Files written and compared.
    pub files: u32,
    /// Bytes written and compared.
    pub bytes: u64,
    /// Files deleted afterwards.
    pub deleted: u32,
}

/// Why the exercise ended early.
#[derive(Debug)]
pub enum Failed<E> {
    /// What the file system said, and while what.
    Files(&'static str, axfatfs::Error<StreamError<E>>),
    /// A file does not hold what was written to it.
    Differs {
        /// Which file.
        path: &'static str,
        /// Where it differs first.
        at: u32,
    },
    /// A deleted file is still there.
    Undead(&'static str),
}

impl<E: Display> Display for Failed<E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(what, axfatfs::Error::Io(error)) => write!(f, "{what}: {error}"),
            Self::Files(what, error) => write!(f, "{what}: {error}"),
            Self::Differs { path, at } => write!(f, "{path} differs from what was written, first at byte {at}"),
            Self::Undead(path) => write!(f, "{path} was deleted and is still there"),
        }
    }
}

impl<E: Error> Error for Failed<E> {}

/// The byte at `at` of the file with `seed`: differs between files, and between any two near places of one.
pub fn pattern(seed: u32, at: u32) -> u8 {
    let mixed = (u64::from(seed) << 32 | u64::from(at)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).to_be_bytes()[2]
}

type Files<'a, V> = FileSystem<&'a mut Stream<V>, NullTimeProvider, LossyOemCpConverter>;
type Root<'a, 'b, V> = Dir<'b, &'a mut Stream<V>, NullTimeProvider, LossyOemCpConverter>;
type Entry<'a, 'b, V> = DirEntry<'b, &'a mut Stream<V>, NullTimeProvider, LossyOemCpConverter>;
type Outcome<T, V> = Result<T, Failed<<V as Volume>::Error>>;

/// Lists the root directory to `each`, writes files, reads them back and compares, deletes one, and flushes.
///
/// # Errors
/// The volume, the file system, or a difference.
pub fn exercise<V: Volume>(volume: V, mut each: impl FnMut(&Listed)) -> Result<Report, Failed<V::Error>> {
    let mut stream = Stream::new(volume).map_err(|error| Failed::Files("opening", error.into()))?;
    let mut report = Report::default();
    mounted::<V>(&mut stream, |root| {
        for entry in root.iter() {
            each(&listed::<V>(&entry.map_err(while_("listing"))?));
            report.listed += 1;
        }
        root.create_dir(DIRECTORY).map_err(while_("creating a directory"))?;
        FILES.iter().chain([&DELETED]).try_for_each(|file| write::<V>(root, file))
    })?;
    mounted::<V>(&mut stream, |root| {
        for file in FILES.iter().chain([&DELETED]) {
            compare::<V>(root, file)?;
            report.files += 1;
            report.bytes += u64::from(file.bytes);
        }
        root.remove(DELETED.path).map_err(while_("deleting"))?;
        report.deleted += 1;
        Ok(())
    })?;
    mounted::<V>(&mut stream, |root| match root.open_file(DELETED.path) {
        Err(axfatfs::Error::NotFound) => FILES.iter().try_for_each(|file| compare::<V>(root, file)),
        Ok(_) => Err(Failed::Undead(DELETED.path)),
        Err(error) => Err(Failed::Files("looking for a deleted file", error)),
    })?;
    Ok(report)
}

/// Mounts, hands over the root directory, unmounts and flushes.
fn mounted<V: Volume>(
    stream: &mut Stream<V>,
    work: impl for<'a, 'b> FnOnce(&Root<'a, 'b, V>) -> Outcome<(), V>,
) -> Outcome<(), V> {
    stream.rewind();
    let options = FsOptions::new().time_provider(NullTimeProvider::new());
    let files: Files<'_, V> = FileSystem::new(&mut *stream, options).map_err(while_("mounting"))?;
    work(&files.root_dir())?;
    files.unmount().map_err(while_("unmounting"))?;
    stream.flush().map_err(|error| Failed::Files("flushing", error.into()))
}

fn while_<E>(what: &'static str) -> impl Fn(axfatfs::Error<StreamError<E>>) -> Failed<E> {
    move |error| Failed::Files(what, error)
}

fn listed<V: Volume>(entry: &Entry<'_, '_, V>) -> Listed {
    let mut name = Name::new();
    let mut push = |char: char| {
        // No more than 255 characters of three bytes at most can come; a longer name would be cut.
        let _ = name.try_push(if char.is_control() { char::REPLACEMENT_CHARACTER } else { char });
    };
    if let Some(units) = entry.long_file_name_as_ucs2_units() {
        for unit in char::decode_utf16(units.iter().copied()) {
            push(unit.unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    } else {
        for byte in entry.short_file_name_as_bytes() {
            push(if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER });
        }
    }
    Listed { name, bytes: entry.len(), directory: entry.is_dir() }
}

fn write<V: Volume>(root: &Root<'_, '_, V>, file: &File) -> Outcome<(), V> {
    let mut out = root.create_file(file.path).map_err(while_("creating a file"))?;
    // It may be there from an earlier exercise.
    out.truncate().map_err(while_("truncating a file"))?;
    let mut bytes = [0; 4096];
    for at in (0..file.bytes).step_by(bytes.len()) {
        let length = bytes.len().min((file.bytes - at) as usize);
        fill(file.seed, at, &mut bytes[..length]);
        out.write_all(&bytes[..length]).map_err(while_("writing a file"))?;
    }
    out.flush().map_err(while_("closing a file"))
}

fn compare<V: Volume>(root: &Root<'_, '_, V>, file: &File) -> Outcome<(), V> {
    let mut from = root.open_file(file.path).map_err(while_("opening a file"))?;
    let (mut is, mut must) = ([0; 4096], [0; 4096]);
    let mut at = 0;
    loop {
        let length = from.read(&mut is).map_err(while_("reading a file"))?;
        // A file that is too long differs from where it should end.
        let compared = length.min((file.bytes - at) as usize);
        fill(file.seed, at, &mut must[..compared]);
        let same = is[..length].iter().zip(&must[..compared]).take_while(|(is, must)| is == must).count();
        at += same as u32;
        if same < length || (length == 0 && at < file.bytes) {
            return Err(Failed::Differs { path: file.path, at });
        }
        if length == 0 {
            return Ok(());
        }
    }
}

fn fill(seed: u32, at: u32, bytes: &mut [u8]) {
    for (byte, at) in bytes.iter_mut().zip(at..) {
        *byte = pattern(seed, at);
    }
}
