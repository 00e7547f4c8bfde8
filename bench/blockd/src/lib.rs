//! blockd's role in the bench: what stands on a raw disk, published as devices that end where they must.
//!
//! | Module | What it is |
//! |---|---|
//! | [`media`] | what is asked of a raw disk to be read |
//! | [`survey`](mod@survey) | both copies of the partition table, checked; the disk and its partitions as extents |
//! | [`refused`] | why nothing was published |
//! | [`volume`] | what is asked of a device to be used; a window onto a part of one |
#![cfg_attr(
    feature = "fat",
    doc = "| [`fat`], [`exercise`](mod@exercise) | files on a volume, written, read and compared (feature `fat`) |"
)]
//!
//! `no_std`, no allocation. It refuses to know who reads and writes the blocks: queues, messages and interrupts are the
//! business of whoever implements [`media::Media`] and [`volume::Volume`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "fat")]
pub mod exercise;
#[cfg(feature = "fat")]
pub mod fat;
pub mod media;
pub mod refused;
pub mod survey;
pub mod volume;

mod entries;
mod header;
mod mbr;

pub use media::Media;
pub use refused::Refused;
pub use survey::{Extent, Partition, Published, survey};
pub use volume::{Volume, Window};
