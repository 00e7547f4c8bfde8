//! The checkout that the tool works in, found anew by each run: a built checkout may be moved, copied, or removed.
//!
//! Cargo names the package that it runs; a tool that was started by its path looks around itself, then around the
//! current folder. Knows how a checkout looks; refuses to know what is done there.
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Files that only this project's root has together.
const MARKS: [&str; 3] = ["Cargo.toml", "tools/src/root.rs", "bench/image/Cargo.toml"];

/// The root of the checkout.
///
/// # Errors
/// When there is none around.
pub(crate) fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = ROOT.get_or_init(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let program = std::env::current_exe().ok();
        let folder = std::env::current_dir().ok();
        [package, program, folder].into_iter().flatten().find_map(|place| around(&place))
    });
    found.as_deref().context(
        "there is no checkout of drv-virtio-block around this program or the current folder: \
         run `cargo xtask` inside of one",
    )
}

/// The innermost folder around `place` that is a checkout's root.
fn around(place: &Path) -> Option<PathBuf> {
    let is_root = |folder: &&Path| MARKS.iter().all(|mark| folder.join(mark).is_file());
    place.ancestors().find(is_root).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_found_from_anywhere_inside_of_it_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("copy/target/debug/xtask");
        std::fs::create_dir_all(&inside).unwrap();
        assert_eq!(around(&inside), None);
        for mark in MARKS {
            let path = folder.path().join("copy").join(mark);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(around(&inside), Some(folder.path().join("copy")));
        assert_eq!(around(folder.path()), None);
    }
}
