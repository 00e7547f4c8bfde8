//! `cargo xtask report`: result files in, one page out.
//!
//! Every file is read and checked before anything is written: a bad one leaves a page that is there as it is.
use crate::cli::Report;
use crate::json;
use crate::page;
use crate::results;
use crate::say::say;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Runs the command.
pub(crate) fn run(args: &Report) -> Result<()> {
    let output = output(args)?;
    let mut documents = Vec::new();
    for (path, name) in args.files.iter().zip(names(&args.files)) {
        documents.push((name, results::read(path)?));
    }
    page::write(&output, &documents)?;
    say!("page: {}", output.display());
    Ok(())
}

/// Where the page goes; known to be writable, and none of the files.
fn output(args: &Report) -> Result<PathBuf> {
    let output = args.output.clone().unwrap_or_else(|| match args.files.as_slice() {
        [only] => only.with_extension("html"),
        several => several[0].with_file_name("report.html"),
    });
    let same = |file: &&PathBuf| match (file.canonicalize(), output.canonicalize()) {
        (Ok(file), Ok(output)) => file == output,
        _ => **file == output,
    };
    if let Some(file) = args.files.iter().find(same) {
        bail!("the page would replace {}: give --output=FILE.html", file.display());
    }
    // A file that cannot be read is the better thing to say.
    if args.files.iter().all(|file| file.exists()) {
        json::writable(&output)?;
    }
    Ok(output)
}

/// The files' names; whole paths where two files have the same one.
fn names(files: &[PathBuf]) -> Vec<String> {
    let short = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let all: Vec<String> = files.iter().map(|path| short(path)).collect();
    let clashes = |name: &String| all.iter().filter(|other| *other == name).count() > 1;
    let named = files.iter().zip(&all);
    named.map(|(path, name)| if clashes(name) { path.display().to_string() } else { name.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_short_as_they_can_be() {
        let files = ["a/x.json", "b/x.json", "b/y.json"].map(PathBuf::from);
        assert_eq!(names(&files), ["a/x.json", "b/x.json", "y.json"]);
    }
}
