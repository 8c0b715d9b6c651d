//! Parquet: the text columns of each row group, a few values at a time.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::reader::Raw;
use super::{InputFile, RECORD_LIMIT};

/// Rows decoded at a time. Values are slices of their page, so this bounds handles rather than text.
const ROWS: usize = 256;

/// The rows of a file as records.
///
/// # Errors
/// Why the file is not a parquet file with a text column that can be read.
pub(super) fn records(file: Arc<InputFile>) -> Result<Box<dyn Iterator<Item = Raw> + Send>, String> {
    let opened = guarded(|| {
        let data = File::open(&file.path).map_err(|e| format!("cannot be opened: {e}"))?;
        let reader = SerializedFileReader::new(data).map_err(|e| format!("is not a readable parquet file: {e}"))?;
        let columns = text_columns(reader.metadata().file_metadata().schema_descr(), &file.text_keys)?;
        Ok((reader, columns))
    });
    let (reader, columns) = opened?;
    Ok(Box::new(Rows {
        file,
        reader,
        columns,
        row_group: 0,
        open: Vec::new(),
        rows: Vec::new().into_iter(),
        row: 0,
        ended: false,
    }))
}

/// Whole rows of a file as JSON records.
///
/// # Errors
/// Why the file is not a parquet file.
pub(super) fn rows(file: Arc<InputFile>) -> Result<Box<dyn Iterator<Item = Raw> + Send>, String> {
    let mut rows = guarded(|| {
        let data = File::open(&file.path).map_err(|e| format!("cannot be opened: {e}"))?;
        let reader = SerializedFileReader::new(data).map_err(|e| format!("is not a readable parquet file: {e}"))?;
        Ok(reader.into_iter())
    })?;
    let (mut number, mut ended) = (0, false);
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        number += 1;
        let read = guarded(|| {
            let Some(row) = rows.next() else { return Ok(None) };
            let row = row.map_err(|e| format!("cannot be read further: {e}"))?;
            Ok(Some(row.to_json_value().to_string().into_bytes()))
        });
        match read {
            Ok(None) => None,
            Ok(Some(bytes)) if bytes.len() > RECORD_LIMIT => Some(Raw::too_long(&file, Some(number), bytes.len() as u64)),
            Ok(Some(bytes)) => Some(Raw::Record { file: Arc::clone(&file), place: Some(number), bytes }),
            Err(reason) => {
                ended = true;
                Some(Raw::bad(&file, Some(number), reason, 0))
            }
        }
    })))
}

/// Turns a panic of the decoder on hostile bytes into a reason, so that one corrupt file costs itself and not the run.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("is corrupt: the parquet decoder gave up".to_owned()))
}

fn text_columns(schema: &SchemaDescriptor, keys: &[String]) -> Result<Vec<usize>, String> {
    let find = |key: &str| schema.columns().iter().position(|column| column.path().string() == key);
    let names = || schema.columns().iter().take(50).map(|column| column.path().string()).collect::<Vec<_>>().join(", ");
    let columns = if keys.is_empty() {
        vec![
            find("text")
                .or_else(|| find("content"))
                .ok_or_else(|| format!("has no column `text` or `content`; it has: {}", names()))?,
        ]
    } else {
        let column = |key: &String| find(key).ok_or_else(|| format!("has no column `{key}`; it has: {}", names()));
        keys.iter().map(column).collect::<Result<_, _>>()?
    };
    for &column in &columns {
        let column = schema.column(column);
        if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 {
            return Err(format!("column `{}` does not hold one text a row", column.path().string()));
        }
    }
    Ok(columns)
}

struct Rows {
    file: Arc<InputFile>,
    reader: SerializedFileReader<File>,
    columns: Vec<usize>,
    row_group: usize,
    /// A reader of each column in the current row group, with the definition level that a value which is not null has.
    open: Vec<(ColumnReaderImpl<ByteArrayType>, i16)>,
    /// Texts decoded and not yet yielded.
    rows: std::vec::IntoIter<Option<Vec<ByteArray>>>,
    row: u64,
    ended: bool,
}

impl Rows {
    /// Decodes the next rows; false at the end of the file.
    fn decode(&mut self) -> Result<bool, String> {
        loop {
            if self.open.is_empty() {
                if self.row_group == self.reader.num_row_groups() {
                    return Ok(false);
                }
                let group = self.reader.get_row_group(self.row_group).map_err(|e| e.to_string())?;
                self.row_group += 1;
                for &column in &self.columns {
                    let level = group.metadata().column(column).column_descr().max_def_level();
                    match group.get_column_reader(column).map_err(|e| e.to_string())? {
                        ColumnReader::ByteArrayColumnReader(reader) => self.open.push((reader, level)),
                        _ => return Err("a row group has another column type than the schema".to_owned()),
                    }
                }
            }
            let mut rows: Vec<Option<Vec<ByteArray>>> = Vec::new();
            for (index, (reader, level)) in self.open.iter_mut().enumerate() {
                let (mut levels, mut values) = (Vec::new(), Vec::new());
                // One call may stop at the end of a page; all columns must advance by the same number of rows.
                let mut records = 0;
                while records < ROWS {
                    let (read, _, _) = reader
                        .read_records(ROWS - records, (*level > 0).then_some(&mut levels), None, &mut values)
                        .map_err(|e| format!("cannot be read further: {e}"))?;
                    if read == 0 {
                        break;
                    }
                    records += read;
                }
                if index == 0 {
                    rows = vec![Some(Vec::with_capacity(1)); records];
                } else if rows.len() != records {
                    return Err("its columns have different numbers of rows".to_owned());
                }
                let mut values = values.into_iter();
                for (i, row) in rows.iter_mut().enumerate() {
                    let present = *level == 0 || levels.get(i) == Some(level);
                    match (present.then(|| values.next()).flatten(), row.as_mut()) {
                        (Some(value), Some(texts)) => texts.push(value),
                        _ => *row = None,
                    }
                }
            }
            if rows.is_empty() {
                self.open.clear();
                continue;
            }
            self.rows = rows.into_iter();
            return Ok(true);
        }
    }
}

impl Iterator for Rows {
    type Item = Raw;

    fn next(&mut self) -> Option<Raw> {
        loop {
            if let Some(row) = self.rows.next() {
                self.row += 1;
                let Some(texts) = row else { return Some(Raw::bad(&self.file, Some(self.row), "the text is null", 0)) };
                let size: usize = texts.iter().map(|text| text.data().len() + 2).sum();
                if size > RECORD_LIMIT {
                    return Some(Raw::too_long(&self.file, Some(self.row), size as u64));
                }
                let texts: Vec<&[u8]> = texts.iter().map(ByteArray::data).collect();
                return Some(Raw::Record {
                    file: Arc::clone(&self.file),
                    place: Some(self.row),
                    bytes: texts.join(&b"\n\n"[..]),
                });
            }
            if self.ended {
                return None;
            }
            match guarded(|| self.decode()) {
                Ok(more) => self.ended = !more,
                Err(reason) => {
                    self.ended = true;
                    return Some(Raw::bad(&self.file, Some(self.row + 1), reason, 0));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Format;
    use parquet::column::writer::ColumnWriter;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::path::Path;

    fn write(path: &Path, texts: &[Option<&str>]) {
        let schema = parse_message_type("message rows { required int64 id; optional binary text (UTF8); }").unwrap();
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), Arc::new(schema), Arc::default()).unwrap();
        for group in texts.chunks(300) {
            let mut rows = writer.next_row_group().unwrap();
            let mut column = rows.next_column().unwrap().unwrap();
            let ColumnWriter::Int64ColumnWriter(ids) = column.untyped() else { panic!() };
            ids.write_batch(&vec![7; group.len()], None, None).unwrap();
            column.close().unwrap();
            let mut column = rows.next_column().unwrap().unwrap();
            let ColumnWriter::ByteArrayColumnWriter(values) = column.untyped() else { panic!() };
            let levels: Vec<i16> = group.iter().map(|text| i16::from(text.is_some())).collect();
            let present: Vec<ByteArray> = group.iter().flatten().map(|text| (*text).into()).collect();
            values.write_batch(&present, Some(&levels), None).unwrap();
            column.close().unwrap();
            rows.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, keys: &[&str]) -> Result<Vec<Result<String, String>>, String> {
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        let file = InputFile { path: path.into(), label: "a".into(), format: Format::Parquet, bytes: 0, text_keys: keys.into() };
        let row = |raw| match raw {
            Raw::Record { bytes, .. } => Ok(String::from_utf8(bytes).unwrap()),
            Raw::Bad(bad) => Err(bad.reason),
            Raw::File(_) => panic!(),
        };
        Ok(records(Arc::new(file))?.map(row).collect())
    }

    #[test]
    fn rows_come_back_and_nulls_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let texts: Vec<String> = (0..1_000).map(|i| format!("text {i}")).collect();
        let mut rows: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
        rows[500] = None;
        write(&path, &rows);
        let found = read(&path, &[]).unwrap();
        assert_eq!(found.len(), 1_000);
        for (i, row) in found.iter().enumerate() {
            assert_eq!(row.as_deref().ok(), rows[i], "row {i}");
        }
        assert_eq!(read(&path, &["text", "text"]).unwrap()[3], Ok("text 3\n\ntext 3".to_owned()));
        assert!(read(&path, &["body"]).unwrap_err().contains("it has: id, text"));
        assert!(read(&path, &["id"]).unwrap_err().contains("does not hold one text"));
    }

    #[test]
    fn a_corrupt_file_ends_in_a_reason_wherever_it_is_hurt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let text = "some words that repeat ".repeat(40);
        write(&path, &vec![Some(text.as_str()); 400]);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut hurt = whole.clone();
            hurt[at] ^= 0x55;
            std::fs::write(&path, &hurt).unwrap();
            let _ = read(&path, &[]);
            if at % 7 == 0 {
                std::fs::write(&path, &whole[..at]).unwrap();
                assert!(read(&path, &[]).is_err(), "cut at {at}");
            }
        }
    }
}
