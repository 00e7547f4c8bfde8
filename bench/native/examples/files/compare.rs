//! Files on an image, read by another implementation (embedded-sdmmc) straight from the host's file.
//!
//! It knows neither the driver nor the file system code that wrote; what must stand in the files is the exercise's.
use blockd::exercise::{DELETED, FILES, pattern};
use embedded_sdmmc::{
    Block, BlockCount, BlockDevice, BlockIdx, LfnBuffer, Mode, ShortFileName, TimeSource, Timestamp, VolumeIdx,
    VolumeManager,
};
use std::error::Error;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a name of 255 characters.
const NAME: usize = 800;
/// Bytes of a block, as that implementation has it.
const BLOCK: u64 = 512;

/// Compares every file that the exercise leaves on the file system that the image at `path` is; their number.
///
/// # Errors
/// The image is none, or a file differs, is missing, or is there and should not be.
pub(crate) fn compare(path: &Path) -> Result<usize, Box<dyn Error>> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let size = file.metadata()?.len();
    let manager = VolumeManager::new(Card { blocks: u32::try_from(size / BLOCK)?, file }, Never);
    let volume = manager.open_volume(VolumeIdx(0)).map_err(said)?;
    let root = volume.open_root_dir().map_err(said)?;
    for file in FILES {
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
        let inner =
            if directory.is_empty() { None } else { Some(root.open_dir(found(&root, directory)?).map_err(said)?) };
        let inner = inner.as_ref().unwrap_or(&root);
        let opened = inner.open_file_in_dir(found(inner, name)?, Mode::ReadOnly).map_err(said)?;
        let mut content = vec![0; opened.length() as usize];
        let read = opened.read(&mut content).map_err(said)?;
        let same = (0..).zip(&content).all(|(at, byte)| *byte == pattern(file.seed, at));
        if !same || read != file.bytes as usize || content.len() != read {
            return Err(format!("{} does not hold what was written to it", file.path).into());
        }
    }
    match find(&root, DELETED.path)? {
        None => Ok(FILES.len()),
        Some(_) => Err(format!("{} was deleted and is still there", DELETED.path).into()),
    }
}

/// Its errors have no words of their own.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
fn said(error: embedded_sdmmc::Error<io::Error>) -> Box<dyn Error> {
    format!("the image cannot be read: {error:?}").into()
}

type Directory<'a> = embedded_sdmmc::Directory<'a, Card, Never, 4, 4, 1>;

/// The short name of what has the name `long`, if anything has.
fn find(directory: &Directory<'_>, long: &str) -> Result<Option<ShortFileName>, Box<dyn Error>> {
    let mut storage = [0; NAME];
    let mut short = None;
    let look = |entry: &embedded_sdmmc::DirEntry, name: Option<&str>| {
        if name.map_or_else(|| entry.name.to_string() == long, |name| name == long) {
            short = Some(entry.name);
        }
        ControlFlow::Continue(())
    };
    directory.iterate_dir_lfn(&mut LfnBuffer::new(&mut storage), look).map_err(said)?;
    Ok(short)
}

fn found(directory: &Directory<'_>, long: &str) -> Result<ShortFileName, Box<dyn Error>> {
    find(directory, long)?.ok_or_else(|| format!("{long} is not there").into())
}

/// The image, behind a master boot record of its own, which that implementation wants to see.
struct Card {
    file: File,
    blocks: u32,
}

impl BlockDevice for Card {
    type Error = io::Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> io::Result<()> {
        for (block, at) in blocks.iter_mut().zip(u64::from(start.0)..) {
            if at > 0 {
                self.file.read_exact_at(&mut block.contents, (at - 1) * BLOCK)?;
                continue;
            }
            block.contents = [0; BLOCK as usize];
            block.contents[450] = 0x0C;
            block.contents[454] = 1;
            block.contents[458..462].copy_from_slice(&self.blocks.to_le_bytes());
            block.contents[510..].copy_from_slice(&[0x55, 0xAA]);
        }
        Ok(())
    }
    fn write(&self, _: &[Block], _: BlockIdx) -> io::Result<()> {
        // It puts down how much is free whenever it closes; the image stays as it is.
        Ok(())
    }
    fn num_blocks(&self) -> io::Result<BlockCount> {
        Ok(BlockCount(self.blocks + 1))
    }
}

struct Never;

impl TimeSource for Never {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp::from_fat(0x21, 0)
    }
}
