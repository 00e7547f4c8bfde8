//! Tests of the fake device itself.
mod fake;
