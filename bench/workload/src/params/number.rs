//! fio's numbers: sizes, times and percentages, both ways.
//!
//! Only digits and one suffix; a number that does not fit is refused, never wrapped. One deviation: `KiB` is 1024 here,
//! as the standard has it, while fio reads it as 1000 unless told `kb_base=1000`.
use core::fmt;

use super::WHOLE;

/// Suffix letters in rising powers of 1024.
const POWERS: [u8; 5] = *b"kmgtp";

/// A size in fio's syntax, in bytes: plain bytes, or with `k`, `m`, `g`, `t`, `p` in either case, each also as `kb` or
/// `KiB`; powers of 1024. `None` if it is no such number or exceeds a `u64`.
///
/// ```
/// use workload::params::parse_size;
/// assert_eq!(parse_size("4k"), Some(4096));
/// assert_eq!(parse_size("1GiB"), Some(1 << 30));
/// assert_eq!(parse_size("4 k"), None);
/// ```
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, suffix) = split_number(text)?;
    let factor = match suffix.as_bytes() {
        [] => 1,
        [letter, rest @ ..] => {
            let power = POWERS.iter().position(|known| known.eq_ignore_ascii_case(letter))? as u32 + 1;
            let known = rest.is_empty() || rest.eq_ignore_ascii_case(b"b") || rest.eq_ignore_ascii_case(b"ib");
            if known {
                1024u64.pow(power)
            } else {
                return None;
            }
        }
    };
    digits.checked_mul(factor)
}

/// A time in fio's syntax, in milliseconds: seconds unless it ends in `us`, `ms`, `s`, `m`, `h` or `d` (either case), with
/// up to six decimals. `None` if it is no such number, exceeds a `u64`, or is not a whole number of milliseconds.
///
/// ```
/// use workload::params::parse_time_ms;
/// assert_eq!(parse_time_ms("5"), Some(5_000));
/// assert_eq!(parse_time_ms("0.5"), Some(500));
/// assert_eq!(parse_time_ms("500ms"), Some(500));
/// assert_eq!(parse_time_ms("2m"), Some(120_000));
/// assert_eq!(parse_time_ms("1us"), None);
/// ```
pub fn parse_time_ms(text: &str) -> Option<u64> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    // Microseconds in a unit.
    let units = [
        ("", 1_000_000),
        ("us", 1),
        ("usec", 1),
        ("ms", 1_000),
        ("msec", 1_000),
        ("s", 1_000_000),
        ("m", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ];
    let (_, factor) = units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(suffix))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let places = u32::try_from(fraction.len()).ok().filter(|places| (1..=6).contains(places))?;
    let scale = 10u128.pow(places);
    let millionths = (u128::from(plain(whole)?) * scale + u128::from(plain(fraction)?)).checked_mul(*factor)?;
    let milliseconds = millionths.is_multiple_of(scale * 1_000).then(|| millionths / (scale * 1_000))?;
    u64::try_from(milliseconds).ok()
}

/// A percentage with up to three decimals, in thousandths of a percent.
pub(super) fn parse_percent(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 3 {
        return None;
    }
    let scale = 10u32.pow(3 - fraction.len() as u32);
    let thousandths = plain(fraction)? as u32 * scale;
    let percent = u32::try_from(plain(whole)?).ok()?;
    percent.checked_mul(1_000)?.checked_add(thousandths).filter(|sum| *sum <= WHOLE)
}

/// Digits only, at least one.
pub(super) fn plain(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    Some((plain(digits)?, suffix))
}

/// Prints bytes with the largest suffix that loses nothing, up to `t`.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut suffix) = (self.0, "");
        for next in ["k", "m", "g", "t"] {
            if number == 0 || !number.is_multiple_of(1024) {
                break;
            }
            (number, suffix) = (number / 1024, next);
        }
        write!(f, "{number}{suffix}")
    }
}

/// Prints thousandths of a percent as a percentage with the decimals it needs.
pub(super) struct Percent(pub(super) u32);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1_000, self.0 % 1_000);
        match fraction {
            0 => write!(f, "{whole}"),
            _ if fraction % 100 == 0 => write!(f, "{whole}.{}", fraction / 100),
            _ if fraction % 10 == 0 => write!(f, "{whole}.{:02}", fraction / 10),
            _ => write!(f, "{whole}.{fraction:03}"),
        }
    }
}
