//! JSON laid flat: every number, text and switch of an object under the path that leads to it.
//!
//! The page's raw tables and the CSV files are made of this, so that they are complete by construction: whatever a
//! writer adds to a job or a sample becomes a column. Refuses to know what any field means.
use anyhow::Result;
use serde_json::Value;
use std::collections::HashMap;

/// Rows under the union of their columns, in the order in which these were first seen.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Option<Value>>>,
    places: HashMap<String, usize>,
}

impl Table {
    /// One row per job: all of it but its samples.
    pub(crate) fn of_jobs(document: &Value) -> Self {
        let mut table = Self::default();
        for job in jobs(document) {
            table.push(&mut |path| path != "drv.samples", &[("", job)]);
        }
        table
    }

    /// One row per sample, after its job's name and its place among the job's samples.
    pub(crate) fn of_samples(document: &Value) -> Self {
        let mut table = Self::default();
        for job in jobs(document) {
            let samples = job["drv"]["samples"].as_array().map_or(&[][..], Vec::as_slice);
            for (index, sample) in samples.iter().enumerate() {
                let place = Value::from(index + 1);
                table.push(&mut |_| true, &[("jobname", &job["jobname"]), ("sample", &place), ("", sample)]);
            }
        }
        table
    }

    fn push(&mut self, wanted: &mut dyn FnMut(&str) -> bool, parts: &[(&str, &Value)]) {
        self.rows.push(Vec::new());
        for (path, value) in parts {
            self.spread(path, value, wanted);
        }
    }

    fn spread(&mut self, path: &str, value: &Value, wanted: &mut dyn FnMut(&str) -> bool) {
        if !wanted(path) {
            return;
        }
        let under = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    self.spread(&under(key), field, wanted);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.spread(&under(&index.to_string()), item, wanted);
                }
            }
            scalar => self.set(path, scalar),
        }
    }

    fn set(&mut self, path: &str, value: &Value) {
        let next = self.columns.len();
        let column = *self.places.entry(path.to_owned()).or_insert(next);
        if column == next {
            self.columns.push(path.to_owned());
        }
        if let Some(row) = self.rows.last_mut() {
            if row.len() <= column {
                row.resize(column + 1, None);
            }
            row[column] = Some(value.clone());
        }
    }

    /// The cells of `row`, one for each column.
    pub(crate) fn cells<'a>(&'a self, row: &'a [Option<Value>]) -> impl Iterator<Item = Option<&'a Value>> {
        (0..self.columns.len()).map(|column| row.get(column).and_then(Option::as_ref))
    }

    /// The table as CSV: a line of columns, then a line for each row. `null` is empty.
    pub(crate) fn csv(&self) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if !self.columns.is_empty() {
            writer.write_record(&self.columns)?;
        }
        for row in &self.rows {
            writer.write_record(self.cells(row).map(|cell| cell.map_or_else(String::new, text)))?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }
}

fn jobs(document: &Value) -> &[Value] {
    document["jobs"].as_array().map_or(&[], Vec::as_slice)
}

/// A number as it stands in the file, a text without quotes, nothing for `null`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"jobs": [
            {"jobname": "a, \"b\"", "read": {"iops": 1.5}, "drv": {"samples": [{"iops": 1}, {"iops": 2, "cores": null}]}},
            {"jobname": "c", "drv": {"pins": [4, 5], "samples": [{"iops": 3, "steady": true}]}},
            {"jobname": "plain"},
        ]})
    }

    #[test]
    fn every_leaf_has_a_cell_under_its_path() {
        let table = Table::of_jobs(&document());
        assert_eq!(table.columns, ["jobname", "read.iops", "drv.pins.0", "drv.pins.1"]);
        assert_eq!(table.rows.len(), 3);
        assert_eq!(table.rows[1][3], Some(json!(5)));
        assert_eq!(table.cells(&table.rows[2]).flatten().count(), 1, "short rows are filled up");
    }

    #[test]
    fn samples_carry_their_jobs_name_and_their_place() {
        let table = Table::of_samples(&document());
        assert_eq!(table.columns, ["jobname", "sample", "iops", "cores", "steady"]);
        assert_eq!(table.rows.len(), 3);
        assert_eq!(table.rows[1][..3], [Some(json!("a, \"b\"")), Some(json!(2)), Some(json!(2))]);
    }

    #[test]
    fn csv_quotes_what_needs_it_and_has_a_cell_for_every_column() {
        let csv = Table::of_samples(&document()).csv().unwrap();
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines[0], "jobname,sample,iops,cores,steady");
        assert_eq!(lines[1..], ["\"a, \"\"b\"\"\",1,1,,", "\"a, \"\"b\"\"\",2,2,,", "c,1,3,,true"]);
    }
}
