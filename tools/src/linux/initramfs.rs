//! The archive that the kernel unpacks as its first file system (cpio, newc), and what goes into it.
//!
//! Knows files and their places in the guest; where they come from is `packages`'. Modules are numbered in the order in
//! which they must be loaded, by what each says that it depends on.
use anyhow::{Context, Result, bail};
use cpio::newc::{Builder, trailer};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

const PROGRAM: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;

/// An archive in the making.
pub(super) struct Archive<W: Write> {
    out: W,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// With the folders and the device that the kernel expects.
    pub(super) fn new(out: W) -> Result<Self> {
        let mut archive = Self { out, inode: 0, folders: BTreeSet::new() };
        for folder in ["proc", "sys", "dev", "bin", "tmp"] {
            archive.folder(Path::new(folder))?;
        }
        let console = archive.entry("dev/console", CONSOLE).rdev_major(5).rdev_minor(1);
        archive.write(console, &[])?;
        Ok(archive)
    }

    /// A program, or a library.
    pub(super) fn program(&mut self, place: &str, content: &[u8]) -> Result<()> {
        self.add(place, PROGRAM, content)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, place: &str, target: &str) -> Result<()> {
        self.add(place, LINK, target.as_bytes())
    }

    /// The file at `path`, at the same place.
    pub(super) fn copy(&mut self, path: &Path) -> Result<()> {
        let place = path.to_str().context("a library's name is not UTF-8")?.trim_start_matches('/');
        self.program(place, &read(path)?)
    }

    /// The end.
    pub(super) fn finish(self) -> Result<()> {
        trailer(self.out)?.flush().context("writing the archive")
    }

    fn add(&mut self, place: &str, mode: u32, content: &[u8]) -> Result<()> {
        if let Some(folder) = Path::new(place).parent() {
            self.folder(folder)?;
        }
        let entry = self.entry(place, mode);
        self.write(entry, content)
    }

    fn folder(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<_> = folder.ancestors().filter(|one| !one.as_os_str().is_empty()).map(PathBuf::from).collect();
        for one in missing.into_iter().rev() {
            let name = one.to_string_lossy().into_owned();
            if self.folders.insert(one) {
                let entry = self.entry(&name, FOLDER);
                self.write(entry, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: &str, mode: u32) -> Builder {
        self.inode += 1;
        Builder::new(place).ino(self.inode).mode(mode).nlink(1)
    }

    fn write(&mut self, entry: Builder, content: &[u8]) -> Result<()> {
        let mut writer = entry.write(&mut self.out, u32::try_from(content.len())?);
        writer.write_all(content).and_then(|()| writer.finish().map(drop)).context("writing the archive")
    }
}

/// The modules that `wanted` need and these themselves, each after what it depends on. A name without a file is built
/// into the kernel.
pub(super) fn in_order(files: &[PathBuf], wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in wanted {
        visit(files, name, &mut found)?;
    }
    Ok(found)
}

fn visit(files: &[PathBuf], name: &str, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let file = files.iter().find(|file| file.file_stem().is_some_and(|stem| stem == name));
    let Some(file) = file.filter(|_| found.iter().all(|(known, _)| known != name)) else {
        return Ok(());
    };
    let content = read(file)?;
    for needed in depends(&content).with_context(|| format!("{} is no kernel module", file.display()))? {
        // A module cannot depend on itself; one that says so would not end.
        if needed == name {
            bail!("{} depends on itself", file.display());
        }
        visit(files, &needed, found)?;
    }
    found.push((name.to_owned(), content));
    Ok(())
}

/// What a module says that it depends on: `depends=` in its section of zero-terminated texts.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let marker = b"\0depends=";
    let at = module.windows(marker.len()).position(|bytes| bytes == marker)? + marker.len();
    let text = module[at..].split(|&byte| byte == 0).next()?;
    let names = std::str::from_utf8(text).ok()?;
    Some(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    fn module(folder: &Path, name: &str, depends: &str) -> PathBuf {
        let path = folder.join(format!("{name}.ko"));
        std::fs::write(&path, format!("ELF\0license=GPL\0depends={depends}\0name={name}\0")).unwrap();
        path
    }

    #[test]
    fn a_module_comes_after_everything_it_depends_on_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let files = [
            module(at, "virtio_pci", "virtio_ring,virtio"),
            module(at, "virtio_blk", "virtio,virtio_ring,built_in"),
            module(at, "virtio", "virtio_ring"),
            module(at, "virtio_ring", ""),
        ];
        let order = in_order(&files, &["virtio_blk", "virtio_pci"]).unwrap();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_blk", "virtio_pci"]);
        std::fs::write(&files[3], "no module").unwrap();
        assert!(in_order(&files, &["virtio_blk"]).is_err());
    }

    #[test]
    fn the_archive_has_every_folder_before_what_is_in_it() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes).unwrap();
        archive.program("usr/lib/a/b.so", b"12345").unwrap();
        archive.link("usr/lib/c", "a").unwrap();
        archive.finish().unwrap();
        let mut names = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode(), reader.entry().file_size()));
            rest = reader.finish().unwrap();
        }
        let at = |name: &str| names.iter().position(|(known, ..)| known == name).unwrap();
        assert!(at("usr") < at("usr/lib") && at("usr/lib/a") < at("usr/lib/a/b.so"));
        assert_eq!(names[at("usr/lib/a/b.so")], ("usr/lib/a/b.so".into(), PROGRAM, 5));
        assert_eq!(names.iter().filter(|(name, ..)| name == "usr/lib").count(), 1);
    }
}
