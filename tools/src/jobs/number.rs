//! fio's numbers, as people type them: sizes with their suffixes, hexadecimal ones, shares of a disk.
//!
//! fio's meaning of the suffixes, which surprises: with its default `kb_base=1024`, `4k` and `4kb` are 4096 bytes and
//! `4KiB` is 4000; with `kb_base=1000` it is the other way round. A number that fio would read as another one
//! (`1.5g` is one byte there) is refused.
use anyhow::{Result, bail};

/// What `k` multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base(pub(crate) u64);

/// fio's default.
pub(crate) const BINARY: Base = Base(1024);

/// Suffix letters in rising powers.
const POWERS: [u8; 5] = *b"kmgtp";

/// An amount of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Bytes(u64),
    /// Of the disk, 0 to 100 or, for what may be transferred, more.
    Percent(u64),
}

/// A number with one of fio's suffixes for sizes, or a hexadecimal one; the error says what to give.
pub(crate) fn size(text: &str, base: Base) -> Result<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digits_only = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return match u64::from_str_radix(digits, 16) {
            Ok(number) if digits_only => Ok(number),
            _ => bail!("does not take `{text}`: give a hexadecimal number without a suffix, such as 0x1000"),
        };
    }
    if text.starts_with('(') {
        bail!("does not take `{text}`: expressions are not computed here: give the number that it comes to");
    }
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    if suffix.starts_with('.') && !digits.is_empty() {
        bail!(
            "does not take `{text}`: fio cuts it to {digits} at the point: give a whole number, such as 1536m for 1.5g"
        );
    }
    match digits.parse::<u64>().ok().zip(factor(suffix, base)).and_then(|(number, factor)| number.checked_mul(factor)) {
        Some(number) => Ok(number),
        None => bail!("does not take `{text}`: give a number such as 4096, 4k, 1g or 0x1000"),
    }
}

/// What a suffix multiplies by.
fn factor(suffix: &str, Base(base): Base) -> Option<u64> {
    let [letter, rest @ ..] = suffix.as_bytes() else {
        return Some(1);
    };
    let power = u32::try_from(POWERS.iter().position(|known| known.eq_ignore_ascii_case(letter))?).ok()? + 1;
    let other = if base == 1024 { 1000u64 } else { 1024 };
    if rest.is_empty() || rest.eq_ignore_ascii_case(b"b") {
        return Some(base.pow(power));
    }
    rest.eq_ignore_ascii_case(b"ib").then(|| other.pow(power))
}

/// A size, or a percentage of the disk.
pub(crate) fn amount(text: &str, base: Base) -> Result<Amount> {
    match text.strip_suffix('%') {
        Some(share) => Ok(Amount::Percent(size(share, base)?)),
        None => size(text, base).map(Amount::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_mean_what_fio_means_by_them() {
        let number = |text: &str| size(text, BINARY).unwrap();
        assert_eq!([number("4k"), number("4K"), number("4kb"), number("4kB")], [4096; 4]);
        assert_eq!([number("4kib"), number("4KiB"), number("1mib")], [4000, 4000, 1_000_000]);
        assert_eq!([size("4k", Base(1000)).unwrap(), size("4kib", Base(1000)).unwrap()], [4000, 4096]);
        assert_eq!([number("0x1000"), number("0X1000"), number("1g"), number("0")], [4096, 4096, 1 << 30, 0]);
        assert_eq!(amount("10%", BINARY).unwrap(), Amount::Percent(10));
    }

    #[test]
    fn numbers_that_fio_reads_as_others_are_refused() {
        for text in ["1.5g", "0x10k", "", "k", "-1", "4q", "4 k", "(4*1024)", "99999999999p", "%", "0x", "0x+1"] {
            assert!(amount(text, BINARY).is_err(), "{text}");
        }
        assert!(size("1.5g", BINARY).unwrap_err().to_string().contains("1536m"));
    }
}
