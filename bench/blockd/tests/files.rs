//! The exercise on a window of a disk in memory, read afterwards by an implementation of others (embedded-sdmmc).
use axfatfs::{FatType, FormatVolumeOptions};
use blockd::exercise::{DELETED, DIRECTORY, FILES, File, exercise, pattern};
use blockd::fat::Stream;
use blockd::volume::WindowError;
use blockd::{Extent, Volume, Window};
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx, LfnBuffer, Mode, TimeSource, Timestamp, VolumeIdx};
use std::convert::Infallible;
use std::ops::ControlFlow;

/// What stands around the window, and must stand there afterwards.
const AROUND: u8 = 0xA5;
const FIRST: u64 = 40;

#[derive(Debug)]
struct Memory {
    bytes: Vec<u8>,
    block: usize,
    writes: usize,
    /// Writes that no flush has followed.
    unflushed: usize,
}

impl Volume for Memory {
    type Error = Infallible;

    fn block_size(&self) -> u32 {
        self.block as u32
    }
    fn blocks(&self) -> u64 {
        (self.bytes.len() / self.block) as u64
    }
    fn read(&mut self, lba: u64, into: &mut [u8]) -> Result<(), Infallible> {
        into.copy_from_slice(&self.bytes[lba as usize * self.block..][..into.len()]);
        Ok(())
    }
    fn write(&mut self, lba: u64, from: &[u8]) -> Result<(), Infallible> {
        self.bytes[lba as usize * self.block..][..from.len()].copy_from_slice(from);
        self.writes += 1;
        self.unflushed += 1;
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Infallible> {
        self.unflushed = 0;
        Ok(())
    }
}

/// A formatted window of `mebibytes`, with other people's blocks on both sides.
fn disk(block: usize, mebibytes: usize, fat: FatType) -> (Memory, Extent) {
    let blocks = (mebibytes << 20) / block;
    let bytes = vec![AROUND; (blocks + 2 * FIRST as usize) * block];
    let mut memory = Memory { bytes, block, writes: 0, unflushed: 0 };
    let extent = Extent { first: FIRST, blocks: blocks as u64 };
    let mut stream = Stream::new(Window::new(&mut memory, extent, false).unwrap()).unwrap();
    let options = FormatVolumeOptions::new().fat_type(fat).bytes_per_sector(block as u16);
    let options = options.bytes_per_cluster(block as u32);
    axfatfs::format_volume(&mut &mut stream, options).unwrap();
    stream.flush().unwrap();
    (memory, extent)
}

fn untouched(memory: &Memory) {
    let around = FIRST as usize * memory.block;
    let end = memory.bytes.len() - around;
    assert!(memory.bytes[..around].iter().chain(&memory.bytes[end..]).all(|byte| *byte == AROUND));
}

#[test]
fn files_survive_on_every_kind_of_volume_and_twice() {
    for (block, mebibytes, fat) in
        [(512, 2, FatType::Fat12), (512, 8, FatType::Fat16), (512, 40, FatType::Fat32), (4096, 64, FatType::Fat16)]
    {
        let (mut memory, extent) = disk(block, mebibytes, fat);
        for listed in [0, FILES.len() as u32] {
            let mut names = Vec::new();
            let window = Window::new(&mut memory, extent, false).unwrap();
            let report = exercise(window, |entry| names.push((entry.name, entry.bytes, entry.directory))).unwrap();
            assert_eq!((report.listed, report.files, report.deleted), (listed, FILES.len() as u32 + 1, 1));
            assert_eq!(memory.unflushed, 0, "everything is flushed in the end");
            for file in FILES.iter().filter(|file| listed > 0 && !file.path.contains('/')) {
                let entry = names.iter().find(|(name, ..)| name.as_str() == file.path);
                assert_eq!(entry.map(|(_, bytes, directory)| (*bytes, *directory)), Some((file.bytes.into(), false)));
            }
        }
        untouched(&memory);
    }
}

#[test]
fn what_was_written_is_read_by_others() {
    for (mebibytes, fat) in [(8, FatType::Fat16), (40, FatType::Fat32)] {
        let (mut memory, extent) = disk(512, mebibytes, fat);
        exercise(Window::new(&mut memory, extent, false).unwrap(), |_| ()).unwrap();
        let around = FIRST as usize * 512;
        let end = memory.bytes.len() - around;
        let manager = embedded_sdmmc::VolumeManager::new(Card(memory.bytes[around..end].to_vec()), Never);
        let volume = manager.open_volume(VolumeIdx(0)).unwrap();
        let root = volume.open_root_dir().unwrap();
        for file in FILES {
            let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
            let inner = if directory.is_empty() { None } else { Some(root.open_dir(short(&root, directory)).unwrap()) };
            let inner = inner.as_ref().unwrap_or(&root);
            let opened = inner.open_file_in_dir(short(inner, name), Mode::ReadOnly).unwrap();
            let mut content = vec![0; opened.length() as usize];
            assert_eq!(opened.read(&mut content).unwrap(), content.len());
            expect(&file, &content);
        }
        assert!(find(&root, DELETED.path).is_none());
        assert!(find(&root, DIRECTORY).is_some());
    }
}

#[test]
fn a_read_only_window_takes_no_file() {
    let (mut memory, extent) = disk(512, 8, FatType::Fat16);
    let before = memory.bytes.clone();
    let failed = exercise(Window::new(&mut memory, extent, true).unwrap(), |_| ()).unwrap_err();
    assert_eq!(failed.to_string(), "creating a directory: a write to a read-only device");
    assert!(memory.bytes == before);
}

#[test]
fn a_window_ends_where_it_ends() {
    let (mut memory, extent) = disk(512, 2, FatType::Fat12);
    for (first, blocks) in [(0, u64::MAX), (u64::MAX, 1), (1, memory.blocks())] {
        assert!(Window::new(&mut memory, Extent { first, blocks }, false).is_none());
    }
    let mut window = Window::new(&mut memory, extent, false).unwrap();
    let mut two = [0; 1024];
    assert_eq!(window.read(extent.blocks - 1, &mut two), Err(WindowError::Outside));
    assert_eq!(window.write(u64::MAX, &two), Err(WindowError::Outside));
    assert_eq!(window.write(0, &two[..700]), Err(WindowError::Length));
    assert_eq!(window.read(0, &mut []), Err(WindowError::Outside));
    untouched(&memory);
}

#[test]
fn a_volume_that_is_none_is_refused() {
    let blank = Memory { bytes: vec![0; 1 << 20], block: 512, writes: 0, unflushed: 0 };
    assert_eq!(exercise(blank, |_| ()).unwrap_err().to_string(), "mounting: Corrupted file system");
    let odd = Memory { bytes: vec![0; 520 * 8], block: 520, writes: 0, unflushed: 0 };
    assert_eq!(
        exercise(odd, |_| ()).unwrap_err().to_string(),
        "opening: a volume of a shape that holds no file system"
    );
}

fn expect(file: &File, content: &[u8]) {
    assert_eq!(content.len(), file.bytes as usize, "{}", file.path);
    assert!((0..).zip(content).all(|(at, byte)| *byte == pattern(file.seed, at)), "{}", file.path);
}

type Root<'a> = embedded_sdmmc::Directory<'a, Card, Never, 4, 4, 1>;

/// The short name of what has a long one.
fn find(root: &Root<'_>, long: &str) -> Option<embedded_sdmmc::ShortFileName> {
    let mut storage = [0; 800];
    let mut found = None;
    root.iterate_dir_lfn(&mut LfnBuffer::new(&mut storage), |entry, name| {
        if name.map_or_else(|| entry.name.to_string() == long, |name| name == long) {
            found = Some(entry.name);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn short(root: &Root<'_>, long: &str) -> embedded_sdmmc::ShortFileName {
    find(root, long).unwrap_or_else(|| panic!("{long} is not there"))
}

/// The volume behind a master boot record of its own, which that implementation wants to see.
#[derive(Debug)]
struct Card(Vec<u8>);

impl BlockDevice for Card {
    type Error = Infallible;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Infallible> {
        for (block, at) in blocks.iter_mut().zip(start.0 as usize..) {
            if at == 0 {
                let size = (self.0.len() / 512) as u32;
                block.contents = [0; 512];
                block.contents[450] = 0x0C;
                block.contents[454] = 1;
                block.contents[458..462].copy_from_slice(&size.to_le_bytes());
                block.contents[510..].copy_from_slice(&[0x55, 0xAA]);
            } else {
                block.contents.copy_from_slice(&self.0[(at - 1) * 512..at * 512]);
            }
        }
        Ok(())
    }
    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), Infallible> {
        // It puts down how much is free whenever it closes; the copy that it reads is of no further use.
        Ok(())
    }
    fn num_blocks(&self) -> Result<BlockCount, Infallible> {
        Ok(BlockCount((self.0.len() / 512) as u32 + 1))
    }
}

#[derive(Debug)]
struct Never;

impl TimeSource for Never {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp::from_fat(0x21, 0)
    }
}
