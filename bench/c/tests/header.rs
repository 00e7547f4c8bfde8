//! The header in `include/` is what cbindgen makes of the sources.
use std::path::Path;

#[test]
fn the_header_is_not_stale() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).expect("cbindgen.toml is sound");
    let parse = cbindgen::Builder::new()
        .with_config(config)
        .with_src(package.join("src/types.rs"))
        .with_src(package.join("src/calls.rs"))
        .with_src(package.join("src/device.rs"))
        .with_src(package.join("src/queue.rs"));
    let mut made = Vec::new();
    parse.generate().expect("cbindgen reads the sources").write(&mut made);
    let path = package.join("include/drv_virtio_block.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let there = std::fs::read(&path).unwrap_or_default();
    let stale = "stale: run `UPDATE_HEADER=1 cargo test -p drv-virtio-block-c --test header`";
    assert!(there == made, "{}: {stale}", path.display());
}
