//! Turns an ordinary host build into a freestanding one: no start files, no C library, fixed addresses from `linker.ld`.
//!
//! Link arguments only: no target file, no nightly, no rustflags, so that plain `cargo build` in the root builds the image.

use std::env;
use std::path::PathBuf;

const LINK_ARGUMENTS: &[&str] = &[
    "-nostartfiles",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,-z,max-page-size=0x1000",
    "-Wl,-z,norelro",
    "-Wl,-z,noexecstack",
    "-Wl,--no-dynamic-linker",
];

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let script = package.join("../../linker.ld").canonicalize().expect("linker.ld lies in the workspace root");
    for argument in LINK_ARGUMENTS {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    println!("cargo:rerun-if-changed={}", script.display());
    println!("cargo:rerun-if-changed=build.rs");
}
