//! What a bench asks of a block device, and what it reports: one code for the image, the native bench and the tool.
//!
//! `no_std`, no allocation, no clock, no device: callers bring time and I/O. Reading order: [`params`] (what to do),
//! [`pattern`] (which block next, drawn with [`random`]), [`verify`] (what a block holds), [`histogram`] (how long it
//! took), [`failures`] (what went wrong), [`report`] (the answer on the serial line).
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod failures;
pub mod histogram;
pub mod params;
pub mod pattern;
pub mod random;
pub mod report;
pub mod verify;
