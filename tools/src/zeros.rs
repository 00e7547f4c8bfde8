//! What of a file, or of a block device, is zeros: holes are known without being read.
//!
//! Every piece that is read gives way to a signal or a time limit (`stop`), so that disks of any size can be looked
//! through. Where the file system does not tell of holes, everything is data. Knows bytes; refuses to know their meaning.
use crate::stop;
use anyhow::Result;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// What is read at a time.
pub(crate) const PIECE: usize = 1 << 20;

/// Shows `visit` what is in `range` but holes, in order, piece by piece with its offset, while that says to go on;
/// whether it did to the end.
pub(crate) fn each(file: &File, range: Range<u64>, mut visit: impl FnMut(u64, &[u8]) -> Result<bool>) -> Result<bool> {
    let mut data = vec![0; PIECE];
    let mut holes = Holes::of(file);
    let mut at = range.start;
    while at < range.end {
        stop::check()?;
        let hole = holes.at(at);
        if hole > 0 {
            at = at.saturating_add(hole);
            continue;
        }
        let bytes = data.len().min((range.end - at) as usize);
        file.read_exact_at(&mut data[..bytes], at)?;
        if !visit(at, &data[..bytes])? {
            return Ok(false);
        }
        at += bytes as u64;
    }
    Ok(true)
}

/// Whether `data` is zeros.
pub(crate) fn is_zeros(data: &[u8]) -> bool {
    // The first byte is, and each is what its neighbour is: one comparison of memory, fast in every build.
    data.first().is_none_or(|first| *first == 0 && data[1..] == data[..data.len() - 1])
}

/// Where a file has holes. The last answer is kept: whoever asks goes through the file in order.
pub(crate) struct Holes<'f> {
    file: &'f File,
    /// What was asked for, up to where its answer holds, and whether it is a hole.
    known: Option<(Range<u64>, bool)>,
}

impl<'f> Holes<'f> {
    pub(crate) fn of(file: &'f File) -> Self {
        Self { file, known: None }
    }

    /// How many bytes from `at` on are a hole; 0 for data, and behind the end.
    pub(crate) fn at(&mut self, at: u64) -> u64 {
        if !self.known.as_ref().is_some_and(|(range, _)| range.contains(&at)) {
            self.known = self.ask(at);
        }
        match &self.known {
            Some((range, true)) => range.end - at,
            _ => 0,
        }
    }

    /// `None` where that is not told.
    fn ask(&self, at: u64) -> Option<(Range<u64>, bool)> {
        let seek = |whence| lseek(self.file, i64::try_from(at).ok()?, whence).ok()?.try_into().ok();
        let hole: u64 = seek(Whence::SeekHole)?;
        if hole > at {
            return Some((at..hole, false));
        }
        // None: up to the end there is no more data, and the end is not known yet.
        let data = seek(Whence::SeekData).or_else(|| self.file.metadata().ok().map(|meta| meta.len()));
        data.filter(|data| *data > at).map(|data| (at..data, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sparse(bytes: u64, written: &[u64]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        for at in written {
            file.write_all_at(b"data", *at).unwrap();
        }
        file
    }

    #[test]
    fn holes_of_a_huge_file_are_not_read_and_all_of_its_data_is() {
        // Reading this would take hours: the test's time is the assertion.
        let file = sparse(8192 * GIB, &[5, 4096 * GIB + 4095, 8192 * GIB - 4]);
        let mut data = Vec::new();
        let mut read = 0;
        let visit = |at, piece: &[u8]| {
            read += piece.len();
            let found = piece.windows(4).enumerate().filter(|(_, bytes)| bytes == b"data");
            data.extend(found.map(|(offset, _)| at + offset as u64));
            Ok(true)
        };
        assert!(each(&file, 0..8192 * GIB, visit).unwrap());
        assert_eq!(data, [5, 4096 * GIB + 4095, 8192 * GIB - 4]);
        assert!(read <= 64 << 20, "{read} bytes were read for four pages");
    }

    #[test]
    fn only_the_range_is_shown_and_no_further_than_is_asked_for() {
        let file = sparse(64 << 20, &[0, 8 << 20, 40 << 20]);
        let mut shown = Vec::new();
        each(&file, (8 << 20) + 1..(40 << 20) + 2, |at, piece| {
            shown.extend(piece.iter().zip(at..).filter(|(byte, _)| **byte != 0).map(|(byte, at)| (at, *byte)));
            Ok(true)
        })
        .unwrap();
        let first = 8 << 20;
        let rest = [(first + 1, b'a'), (first + 2, b't'), (first + 3, b'a'), (40 << 20, b'd'), ((40 << 20) + 1, b'a')];
        assert_eq!(shown, rest);
        let mut calls = 0;
        let stop = |_: u64, _: &[u8]| {
            calls += 1;
            Ok(false)
        };
        assert!(!each(&file, 0..64 << 20, stop).unwrap());
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error_and_no_zeros() {
        let file = sparse(4096, &[0]);
        assert!(each(&file, 0..8192, |_, _| Ok(true)).is_err());
    }

    #[test]
    fn one_byte_anywhere_is_not_zeros() {
        for length in [1, 2, 3, 4096] {
            let mut data = vec![0; length];
            assert!(is_zeros(&data));
            for at in [0, length / 2, length - 1] {
                data[at] = 1;
                assert!(!is_zeros(&data), "{at} of {length}");
                data[at] = 0;
            }
            assert!(!is_zeros(&vec![7; length]));
        }
        assert!(is_zeros(&[]));
    }

    #[test]
    fn looking_through_a_file_ends_when_its_time_is_over() {
        let file = sparse(1 << 20, &[0]);
        let _limit = stop::within(Some(std::time::Duration::ZERO));
        let error = each(&file, 0..1 << 20, |_, _| Ok(true)).unwrap_err();
        assert!(error.to_string().contains("was ended"), "{error}");
    }
}
