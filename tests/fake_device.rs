//! Tests of the fake device itself, driven by hand: bytes in a ring, no driver.
mod fake;

#[path = "fake/selftest/events.rs"]
mod events;
#[path = "fake/selftest/hand_ring.rs"]
mod hand_ring;
#[path = "fake/selftest/lies.rs"]
mod lies;
#[path = "fake/selftest/memory.rs"]
mod memory;
#[path = "fake/selftest/registers.rs"]
mod registers;
#[path = "fake/selftest/requests.rs"]
mod requests;
#[path = "fake/selftest/rings.rs"]
mod rings;
#[path = "fake/selftest/space.rs"]
mod space;
#[path = "fake/selftest/threads.rs"]
mod threads;
