//! `metrics.jsonl`: one JSON object per line, `{"step": 12, "kind": "train", …}`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// An open log, positioned at its end.
pub struct MetricsLog {
    file: BufWriter<File>,
}

/// A longer line is not one of ours.
const LONGEST_LINE: usize = 1 << 20;

impl MetricsLog {
    /// Opens or creates a log and cuts it after the last row of `step`; also a last line that a crash tore.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let context = || format!("cannot open {}", path.display());
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).with_context(context)?;
        let mut keep = 0;
        each_row(&mut BufReader::new(&file), |row, end| {
            let happened = row.get("step").and_then(Value::as_u64).is_some_and(|s| s <= step);
            keep = if happened { end } else { keep };
            happened
        })
        .with_context(context)?;
        file.set_len(keep)?;
        file.seek(SeekFrom::End(0))?;
        Ok(MetricsLog { file: BufWriter::new(file) })
    }

    /// Appends a row; `step` and `kind` come first.
    pub fn row(&mut self, kind: &str, step: u64, values: Map<String, Value>) -> Result<()> {
        let mut row = Map::new();
        row.insert("step".into(), step.into());
        row.insert("kind".into(), kind.into());
        row.extend(values);
        serde_json::to_writer(&mut self.file, &row)?;
        Ok(self.file.write_all(b"\n")?)
    }

    pub fn flush(&mut self) -> Result<()> {
        Ok(self.file.flush()?)
    }
}

/// The whole rows of a log, in order; a torn last line is left out.
///
/// # Errors
/// When the file cannot be read.
pub fn read_metrics(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut rows = Vec::new();
    each_row(&mut BufReader::new(file), |row, _| {
        rows.push(row);
        true
    })
    .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(rows)
}

/// Calls `f` with each whole row and the offset of its end, until it says false or a line is not a whole row.
fn each_row(reader: &mut impl BufRead, mut f: impl FnMut(Map<String, Value>, u64) -> bool) -> Result<()> {
    let (mut line, mut end) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = std::io::Read::take(&mut *reader, LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
        end += read as u64;
        let whole = line.last() == Some(&b'\n');
        let row = serde_json::from_slice(&line).ok().filter(|_| whole);
        if !row.is_some_and(|row| f(row, end)) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(log: &mut MetricsLog, step: u64) {
        let mut values = Map::new();
        values.insert("loss".into(), (1.0 / (step + 1) as f64).into());
        log.row("train", step, values).unwrap();
    }

    fn steps(path: &Path) -> Vec<u64> {
        read_metrics(path).unwrap().iter().map(|row| row["step"].as_u64().unwrap()).collect()
    }

    #[test]
    fn a_resumed_log_says_what_happened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        (1..=5).for_each(|step| row(&mut log, step));
        log.flush().unwrap();
        drop(log);
        // A crash tore the next line; then the run goes on from the checkpoint of step 3.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\": 6, \"lo").unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4, 5]);
        let mut log = MetricsLog::open(&path, 3).unwrap();
        row(&mut log, 4);
        drop(log);
        assert_eq!(steps(&path), [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_not_a_log_is_cut_where_it_stops_being_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, b"{\"step\":1,\"kind\":\"train\"}\nnot json\n{\"step\":2,\"kind\":\"train\"}\n").unwrap();
        assert_eq!(steps(&path), [1]);
        drop(MetricsLog::open(&path, 9).unwrap());
        assert_eq!(steps(&path), [1]);
    }
}
