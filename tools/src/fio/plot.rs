//! fio-plot, which draws fio's results, reads ours: it makes its picture, and its own reader has our numbers.
//!
//! It lives in a Python environment below cargo's target folder. Its files are one job each, told apart by depth and
//! number of jobs.
use super::cache;
use crate::fail::{self, Failure, Skip, last};
use crate::process::{Captured, OURSELVES, capture};
use crate::setup;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The version that is tested with.
const PACKAGE: &str = "fio-plot==1.1.21";
const LIMIT: Duration = Duration::from_mins(10);
/// Depths of the results; told to fio-plot in this order.
const DEPTHS: [&str; 3] = ["1", "8", "32"];

/// What fio-plot's own reader makes of the files in a folder.
const READER: &str = r#"
import json, sys
from fio_plot.fiolib import jsonimport, jsonparsing
settings = {"input_directory": [sys.argv[1]], "rw": "randread", "iodepth": [1, 8, 32], "numjobs": [1], "filter": ["read"]}
files = jsonimport.list_json_files(settings)
[folder] = jsonparsing.parse_json_data(settings, jsonimport.import_json_dataset(settings, files))
print(json.dumps([[row["iodepth"], row["numjobs"], row["bs"], row["iops"], row["bw"], row["lat"]] for row in folder["data"]]))
"#;

/// The step; skipped where the environment cannot be made.
pub(crate) fn reads_our_results(install: bool) -> Result<()> {
    let python = environment(install).map_err(|error| Skip(fail::line(&error)))?;
    let folder = tempfile::tempdir().context("making a folder for the results")?;
    let results = folder.path().join("results");
    fs::create_dir(&results)?;
    let written: Vec<Value> = DEPTHS.iter().map(|depth| result(&results, depth)).collect::<Result<_>>()?;
    let ran = succeeds(Command::new(&python).args(["-c", READER]).arg(&results))?;
    let said = ran.lines.last().map(String::as_str).unwrap_or_default();
    let read: Value = serde_json::from_str(said).with_context(|| format!("fio-plot's reader said: {said}"))?;
    ensure!(read == json!(written), "fio-plot read {read}, we wrote {}", json!(written));
    for (kind, name) in [(&["--bargraph2d-qd"][..], "bars.png"), (&["--bargraph3d", "--type", "iops"], "space.png")] {
        draws(&python, &results, kind, &folder.path().join(name))?;
    }
    Ok(())
}

/// Measures at one depth, on the device in the process; what fio-plot is to read of it.
fn result(results: &Path, depth: &str) -> Result<Value> {
    let path = results.join(format!("randread-{depth}-1.json"));
    let mut command = Command::new(OURSELVES);
    command.args(["bench", "--no-setup", "--backend=embedded", "--rw=randread", "--bs=4k", "--number_ios=20000"]);
    command.arg(format!("--iodepth={depth}")).arg(format!("--output={}", path.display()));
    succeeds(&mut command)?;
    let document: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let way = &document["jobs"][0]["read"];
    ensure!(way["iops"].as_f64() > Some(0.0), "the result of depth {depth} has no IOPS");
    Ok(json!([depth, "1", "4k", way["iops"], way["bw"], way["lat_ns"]["mean"]]))
}

/// Has fio-plot draw a picture of the results.
fn draws(python: &Path, results: &Path, kind: &[&str], picture: &Path) -> Result<()> {
    let mut command = Command::new(python.with_file_name("fio-plot"));
    command.arg("--input-directory").arg(results).args(["--title", "depths", "--rw", "randread"]).args(kind);
    command.arg("--iodepth").args(DEPTHS).args(["--numjobs", "1", "--output-filename"]).arg(picture);
    // Without a screen, and without a folder in somebody's home.
    command.env("MPLBACKEND", "Agg").env("MPLCONFIGDIR", results.with_file_name("settings"));
    let ran = succeeds(&mut command)?;
    let bytes = fs::read(picture).unwrap_or_default();
    if bytes.starts_with(b"\x89PNG\r\n") && bytes.len() > 10_000 {
        return Ok(());
    }
    Err(Failure::new(format!("fio-plot {} made no picture", kind.join(" ")), last(&ran.lines)).into())
}

/// The Python that has fio-plot; made unless it is there.
fn environment(install: bool) -> Result<PathBuf> {
    let folder = cache("fio-plot")?.join(PACKAGE.replace("==", "-"));
    let (python, made) = (folder.join("bin/python"), folder.join("complete"));
    if made.is_file() {
        return Ok(python);
    }
    let system = setup::python(install)?;
    succeeds(Command::new(system).args(["-m", "venv", "--clear"]).arg(&folder))?;
    succeeds(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-input", PACKAGE]))?;
    fs::write(&made, "")?;
    Ok(python)
}

fn succeeds(command: &mut Command) -> Result<Captured> {
    let ran = capture(command, LIMIT, |_| ())?;
    if ran.status.success() {
        return Ok(ran);
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).take(3).collect();
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let why = ran.lines.last().map_or_else(String::new, |line| format!(": {line}"));
    let what = format!("{name} {} … failed ({}){why}", words.join(" "), ran.status);
    Err(Failure::new(what, last(&ran.lines)).into())
}
