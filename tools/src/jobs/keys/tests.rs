use super::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

/// docs/fio-keys.md, as the table says it.
fn document() -> String {
    let mut text = String::from(
        "# fio's keys, and what they are here\n\n\
         Every option of fio 3.33, on the command line of `cargo xtask bench` and in job files alike. This file is written from\n\
         `tools/src/jobs/keys.rs` and held against it by a test.\n\n\
         - **done**: as in fio, apart from what is said.\n\
         - **noted**: has no meaning here. It is accepted, and named once on standard error.\n\
         - **only**: the values named ask for nothing and are accepted; others are refused.\n\
         - **refused**: by name, with file and line, because it would change what is measured.\n\n\
         A key that is not here is refused, too. This bench's own keys (`mode`, `queues`, `driver`, …: `cargo xtask bench --help`) may stand\n\
         in job files beside fio's.\n\n\
         Job files: `[global]`, comments (`#`, `;`), `include FILE`, `key = value` with blanks, keys without a value, `${ENVIRONMENT}`,\n\
         `$jobname`, `$pagesize`, `$ncpus`, `$mb_memory`, hexadecimal numbers, quotes. Of a key that is given twice in a section the last\n\
         value holds. Expressions (`(4*1024)`) and decimal sizes (`1.5g`, which fio reads as 1 byte) are refused. Sections run one after\n\
         another, as with `stonewall`.\n\n\
         Amounts are fio's: `size`, `io_size` and `number_ios` are those of each job; the first bound that is reached ends it; `runtime`\n\
         ends it early, `time_based` makes it go on until then. Without a size a job goes over the whole disk once. The null disk has no\n\
         size: there a job without one goes on until `runtime` (5 seconds unless given) or `number_ios` ends it. Jobs of a section share\n\
         their part of the disk, as fio's share a file; under `verify` and `via=blockd` each has a part of its own. The result file says\n\
         `\"amounts\": \"fio\"` of such jobs and `\"total\"` of the project's own matrix and scenarios, whose `size` and `number_ios` are of\n\
         all jobs together; a baseline is not compared across the two.\n\n\
         | Key | Here | |\n|---|---|---|\n",
    );
    for key in KEYS {
        let names: Vec<String> =
            std::iter::once(&key.name).chain(key.aliases).map(|name| format!("`{name}`")).collect();
        let (place, what) = match key.place {
            Place::Done(what) => ("done".to_owned(), what),
            Place::Noted(what) => ("noted".to_owned(), what),
            Place::Only(values, what) => (format!("only {}", values.join(", ")), what),
            Place::Refused(what) => ("refused".to_owned(), what),
        };
        let _ = writeln!(text, "| {} | {place} | {what} |", names.join(", "));
    }
    text
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fio-keys.md");
    if std::env::var_os("WRITE_DOCUMENTS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap();
    assert!(stored == document(), "docs/fio-keys.md is not the table: WRITE_DOCUMENTS=1 cargo test -p xtask keys");
}

#[test]
fn no_name_stands_twice() {
    let mut seen = BTreeSet::new();
    for name in KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases)) {
        assert!(seen.insert(name), "{name}");
    }
}

#[test]
fn every_option_of_the_installed_fio_has_its_place() {
    let Ok(ran) = Command::new("fio").arg("--cmdhelp=all").output() else {
        crate::say::note!("skipped: fio is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&ran.stdout);
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let missing: Vec<&str> = names.filter(|name| !name.is_empty() && find(name).is_none()).collect();
    let version = Command::new("fio").arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    assert!(missing.is_empty() || version != "fio-3.33", "without a place: {missing:?}");
}
