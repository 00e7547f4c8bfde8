//! The native bench: one run of one set of parameters, and the devices that it can serve.
fn main() {}
