//! What is not supported yet, refused by name.
//!
//! The command line is fixed for all of the project; options whose work has not landed answer here, in one line, and
//! are never ignored.
use anyhow::{Result, bail};

const PACKED: &str = "packed rings";

/// Keys and values that come later, and with what.
const VALUES: [(&str, &str, &str); 2] =
    [("ring", "packed", PACKED), ("mode", "adaptive", "the adaptive completion mode")];

/// Keys with one value so far, which is accepted and changes nothing.
const ONLY: [(&str, &str); 1] = [("ring", "split")];

/// Refuses `key=value` if it comes later; true if the pair needs no more handling.
pub(crate) fn settled(key: &str, value: &str) -> Result<bool> {
    let hit = VALUES.iter().find(|(known, taken, _)| *known == key && *taken == value);
    if let Some((_, _, with)) = hit {
        bail!("{key}={value} is not supported yet: comes with {with}");
    }
    match ONLY.iter().find(|(known, _)| *known == key) {
        Some((_, only)) if *only == value => Ok(true),
        Some((_, only)) => bail!("{key} does not take `{value}`: give {only}"),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_values_are_refused_by_name() {
        for (key, value, _) in VALUES {
            let error = settled(key, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}={value} is not supported yet")));
        }
    }

    #[test]
    fn todays_values_pass_and_nonsense_does_not() {
        assert!(settled("ring", "split").unwrap());
        assert!(!settled("mode", "polled").unwrap());
        assert!(settled("ring", "round").is_err());
    }
}
