//! Compares the hand-written memory routines with loops over bytes, for every length around their seams.

use core::hint::black_box;

/// Longer than two turns of the longest loop, at any alignment.
const LONGEST: usize = 100;
const FIELD: usize = 256;
const SHIFTS: [usize; 4] = [0, 1, 8, 33];

type Field = [u8; FIELD];

/// Every routine, every length, source and target at several alignments and overlaps.
pub fn agree_with_byte_loops() -> bool {
    (0..=LONGEST)
        .all(|len| SHIFTS.into_iter().all(|to| fills(to, len) && SHIFTS.into_iter().all(|from| copies(from, to, len))))
}

fn pattern() -> Field {
    core::array::from_fn(|n| (n as u8).wrapping_mul(37) ^ 0x5a)
}

/// `memcpy` into another field, `memmove` within one, and `memcmp` of both with what a byte loop gives.
fn copies(from: usize, to: usize, len: usize) -> bool {
    let source = pattern();
    let (mut expected_copy, mut expected_move) = ([0; FIELD], source);
    for n in 0..len {
        // Volatile, or the loop would become the routine under test.
        // SAFETY: `to + n < FIELD`.
        unsafe { (&raw mut expected_copy[to + n]).write_volatile(source[from + n]) };
        // SAFETY: as above.
        unsafe { (&raw mut expected_move[to + n]).write_volatile(source[from + n]) };
    }
    let (mut copied, mut moved) = ([0; FIELD], source);
    copied[to..to + len].copy_from_slice(black_box(&source[from..from + len]));
    moved.copy_within(black_box(from..from + len), to);
    same(&copied, &expected_copy) && same(&moved, &expected_move) && compares(&source[from..from + len])
}

fn fills(to: usize, len: usize) -> bool {
    let mut filled = pattern();
    filled[to..to + len].fill(black_box(0xa5));
    let before = pattern();
    (0..FIELD).all(|n| filled[n] == if (to..to + len).contains(&n) { 0xa5 } else { before[n] })
}

/// `memcmp`: equal to a copy, and ordered by the first byte that differs.
fn compares(text: &[u8]) -> bool {
    let mut other = pattern();
    let other = &mut other[..text.len()];
    other.copy_from_slice(text);
    let equal = black_box(&*other) == text;
    let Some(last) = other.last_mut() else {
        return equal;
    };
    *last = last.wrapping_add(1);
    let greater = *last != 0;
    equal && (black_box(&*other) > text) == greater
}

fn same(left: &Field, right: &Field) -> bool {
    (0..FIELD).all(|n| left[n] == right[n])
}
