//! What whoever depends on the driver gets with it, seen from a package of their own.
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package outside of the workspace that depends on the driver.
struct Adopter {
    folder: tempfile::TempDir,
}

impl Adopter {
    /// `options` are what stands beside the path of the dependency.
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = format!(
            "[workspace]\n[package]\nname = \"adopter\"\nedition = \"2024\"\n[dependencies]\n\
             drv-virtio-block = {{ path = \"{}\"{options} }}\n",
            root().display()
        );
        std::fs::create_dir(folder.path().join("src")).expect("a folder for the source");
        std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("the manifest");
        std::fs::write(folder.path().join("src/lib.rs"), "#![no_std]\nuse drv_virtio_block as _;\n")
            .expect("the source");
        // The same versions as here, so that nothing has to be fetched.
        std::fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("the lock file");
        Self { folder }
    }

    /// Builds the package; `flags` are the compiler's.
    fn check(&self, flags: &str) {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["check", "--quiet", "--offline"]).current_dir(self.folder.path()).env("RUSTFLAGS", flags);
        let output = command.env("CARGO_TARGET_DIR", self.folder.path().join("target")).output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The packages in its lock file.
    fn locked(&self) -> Vec<String> {
        let lock = std::fs::read_to_string(self.folder.path().join("Cargo.lock")).expect("the lock file");
        let names = lock.lines().filter_map(|line| line.strip_prefix("name = \""));
        names.map(|name| name.trim_end_matches('"').to_owned()).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

#[test]
fn an_adopter_gets_the_three_dependencies_and_nothing_else() {
    let adopter = Adopter::new("");
    adopter.check("");
    assert_eq!(adopter.locked(), ["adopter", "arrayvec", "crossbeam-utils", "drv-virtio-block", "spin"]);
}

#[test]
fn a_client_alone_gets_no_dependency_at_all() {
    let adopter = Adopter::new(", default-features = false");
    adopter.check("");
    assert_eq!(adopter.locked(), ["adopter", "drv-virtio-block"]);
}

#[test]
fn an_adopter_may_build_with_loom_for_models_of_its_own() {
    Adopter::new("").check("--cfg loom");
}
