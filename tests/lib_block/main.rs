//! lib-block from the outside: what is said, and the rings it is said over.
//!
//! | Module | What |
//! |---|---|
//! | `client` | the client library against a played server |
//! | `protocol_bytes` | golden bytes of every message |
//! | `protocol_decoding` | round trips, refusals, every bit of every message |
//! | `protocol_fuzz` | hostile bytes for every decoder |
//! | `protocol_ring`, `protocol_doorbells` | what the rings promise to honest ends, and who is rung when |
//! | `protocol_hostile` | both ends of the rings against a hostile peer |
mod client;
mod protocol_bytes;
mod protocol_decoding;
mod protocol_doorbells;
mod protocol_fuzz;
mod protocol_hostile;
mod protocol_memory;
mod protocol_peer;
mod protocol_random;
mod protocol_ring;
mod protocol_values;
