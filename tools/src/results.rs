//! Reads a result file, ours or plain fio's, and refuses what is not one.
//!
//! A file of ours must come from a compatible version, in Cargo's sense (0.1.x reads 0.1.y); figures may have changed
//! their meaning between others. Whatever is wrong is one line that names the file and says what to do. Knows the outer
//! shape that every reader relies on; refuses to know what single figures mean.
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;

/// What stands before the version in a file of ours.
const OURS: &str = "drv-virtio-block-";
/// Where such a file comes from.
const GIVE: &str = "give what `cargo xtask bench --output=FILE` or `fio --output-format=json --output=FILE` wrote";

/// The document in the file at `path`: an object with `fio version` and `jobs`, each with a `jobname`.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let name = path.display();
    let text = std::fs::read(path).with_context(|| format!("{name} cannot be read: {GIVE}"))?;
    parse(&text).with_context(|| name.to_string())
}

fn parse(text: &[u8]) -> Result<Value> {
    let document: Value = match serde_json::from_slice(text) {
        Ok(document) => document,
        Err(_) if text.trim_ascii().is_empty() => bail!("the file is empty: {GIVE}"),
        Err(error) if error.is_eof() => {
            bail!("the file is cut off after {} bytes: copy it again, or measure again", text.len())
        }
        Err(error) => bail!("not JSON ({error}): {GIVE}"),
    };
    let Some(version) = document.get("fio version").and_then(Value::as_str) else {
        bail!("not fio's JSON, `fio version` is missing: {GIVE}");
    };
    if let Some(version) = version.strip_prefix(OURS) {
        let here = env!("CARGO_PKG_VERSION");
        if line_of(version) != line_of(here) {
            bail!("written by drv-virtio-block {version}, and this is {here}: measure again, or use that version");
        }
    }
    let Some(jobs) = document.get("jobs").and_then(Value::as_array) else {
        bail!("not fio's JSON, `jobs` is missing: {GIVE}");
    };
    let named = |job: &Value| job.get("jobname").is_some_and(Value::is_string);
    if let Some(index) = jobs.iter().position(|job| !named(job)) {
        bail!("not fio's JSON, jobs[{index}] has no `jobname`: {GIVE}");
    }
    Ok(document)
}

/// The part of a version that compatible ones share: up to the first number that is not 0.
fn line_of(version: &str) -> Vec<&str> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut leading = true;
    release
        .split('.')
        .take_while(|number| {
            let taken = leading;
            leading &= *number == "0";
            taken
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file that holds `text`; the error as the one line that is shown.
    fn told(text: &str) -> Result<Value, String> {
        let file = tempfile::NamedTempFile::with_prefix("told").unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path()).map_err(|error| {
            let line = crate::fail::line(&error);
            assert!(line.contains(&*file.path().to_string_lossy()), "names the file: {line}");
            assert!(!line.contains('\n') && line.contains(": "), "{line}");
            line
        })
    }

    fn ours(version: &str) -> String {
        format!(r#"{{"fio version": "drv-virtio-block-{version}", "jobs": [{{"jobname": "a"}}]}}"#)
    }

    #[test]
    fn what_is_not_a_result_file_is_told_apart_in_one_line() {
        let whole = ours(env!("CARGO_PKG_VERSION"));
        for (text, part) in [
            ("", "is empty"),
            (" \n", "is empty"),
            (&whole[..whole.len() - 3], "cut off after"),
            ("iops: 7", "not JSON"),
            ("[1, 2]", "`fio version` is missing"),
            (r#"{"jobs": []}"#, "`fio version` is missing"),
            (r#"{"fio version": "fio-3.33"}"#, "`jobs` is missing"),
            (r#"{"fio version": "fio-3.33", "jobs": {}}"#, "`jobs` is missing"),
            (r#"{"fio version": "fio-3.33", "jobs": [{"jobname": "a"}, {}]}"#, "jobs[1] has no `jobname`"),
        ] {
            let line = told(text).expect_err(text);
            assert!(line.contains(part), "{line}");
        }
        let missing = read(Path::new("no/such/file.json")).unwrap_err();
        assert!(crate::fail::line(&missing).starts_with("no/such/file.json cannot be read: give what"));
        assert!(read(&std::env::temp_dir()).is_err(), "a folder");
    }

    #[test]
    fn compatible_versions_and_plain_fio_are_read() {
        assert!(told(&ours(env!("CARGO_PKG_VERSION"))).is_ok());
        assert!(told(r#"{"fio version": "fio-3.33", "jobs": [{"jobname": "a"}]}"#).is_ok());
        let line = told(&ours("9.0.0")).unwrap_err();
        assert!(line.contains("written by drv-virtio-block 9.0.0, and this is"), "{line}");
    }

    #[test]
    fn versions_are_compatible_as_cargo_has_it() {
        for (a, b, same) in [
            ("0.1.0", "0.1.7", true),
            ("0.1.0", "0.1.0-dirty", true),
            ("0.1.0", "0.2.0", false),
            ("0.1.0", "1.1.0", false),
            ("1.2.0", "1.9.3", true),
            ("1.2.0", "2.2.0", false),
            ("0.0.1", "0.0.2", false),
            ("0.1.0", "", false),
        ] {
            assert_eq!(line_of(a) == line_of(b), same, "{a} and {b}");
        }
    }
}
