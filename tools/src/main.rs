//! The command line of drv-virtio-block.
fn main() {}
