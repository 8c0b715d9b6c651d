//! The files of a corpus in order, as records that are cheap to make, so that one thread feeds many that parse.

use std::fs;
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lines::{Line, Lines};
use super::{
    BadRecord, Document, Format, InputFile, Kind, RECORD_LIMIT, ReadOptions, code, compressed, html, json, parquet, text,
};
use crate::clean::decode;

/// A record as it was found, not yet decoded.
pub enum Raw {
    /// A file of moderate size, to be read by whoever parses it.
    File(Arc<InputFile>),
    /// The bytes of one record. `place` is its line or number within the file.
    Record {
        file: Arc<InputFile>,
        place: Option<u64>,
        bytes: Vec<u8>,
    },
    Bad(BadRecord),
}

impl Raw {
    pub(super) fn bad(file: &InputFile, place: Option<u64>, reason: impl Into<String>, bytes: u64) -> Self {
        Self::Bad(BadRecord { origin: origin(file, place), reason: reason.into(), bytes })
    }

    pub(super) fn too_long(file: &InputFile, place: Option<u64>, bytes: u64) -> Self {
        let what = match file.format {
            Format::JsonLines => "the line",
            Format::Json | Format::Parquet | Format::ParquetRows => "the record",
            Format::Text if place.is_some() => "the line",
            _ => "the file",
        };
        let reason = format!("{what} has {bytes} bytes; at most {RECORD_LIMIT} are read as one record");
        Self::bad(file, place, reason, bytes)
    }

    /// About how many bytes this will take in memory.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File(file) => file.bytes,
            Self::Record { bytes, .. } => bytes.len() as u64,
            Self::Bad(_) => 0,
        }
    }

    /// Decodes the record into its documents: usually one, several for a long text or a Rust source, or the reason why there is none.
    pub fn parse(self, options: &ReadOptions) -> Vec<Result<Document, BadRecord>> {
        let (file, place, bytes) = match self {
            Self::Bad(bad) => return vec![Err(bad)],
            Self::Record { file, place, bytes } => (file, place, bytes),
            Self::File(file) => match read_whole(&file) {
                Ok(bytes) => (file, None, bytes),
                Err(bad) => return vec![Err(bad)],
            },
        };
        let size = bytes.len() as u64;
        match parse_bytes(&file, place, bytes, options) {
            Ok(documents) => documents.into_iter().map(Ok).collect(),
            Err(reason) => vec![Err(BadRecord { origin: origin(&file, place), reason, bytes: size })],
        }
    }
}

fn parse_bytes(file: &InputFile, place: Option<u64>, bytes: Vec<u8>, options: &ReadOptions) -> Result<Vec<Document>, String> {
    let one = |text: String, kind| vec![Document { text, origin: origin(file, place), kind, language: None }];
    Ok(match file.format {
        Format::Html => {
            let declared = options.encoding.or_else(|| html::declared_encoding(&bytes));
            one(html::text(&decode::decode(bytes, declared)?), Kind::Web)
        }
        Format::JsonLines | Format::Json => {
            let bytes =
                if file.format == Format::JsonLines { decode::decode(bytes, options.encoding)?.into_bytes() } else { bytes };
            one(json::text(&bytes, &file.text_keys)?, Kind::Prose)
        }
        Format::Parquet | Format::ParquetRows => one(decode::decode(bytes, options.encoding)?, Kind::Prose),
        Format::Code => one(decode::decode(bytes, options.encoding)?, Kind::Code),
        Format::Rust => {
            let (code, prose) = code::split(&decode::decode(bytes, options.encoding)?);
            let mut documents = one(code, Kind::Code);
            if !prose.is_empty() {
                documents.push(Document {
                    text: prose,
                    origin: format!("{}#docs", file.label),
                    kind: Kind::Prose,
                    language: None,
                });
            }
            documents
        }
        Format::Text => {
            let whole = decode::decode(bytes, options.encoding)?;
            match &text::pieces(&whole)[..] {
                [_] => one(whole, Kind::Prose),
                pieces => pieces
                    .iter()
                    .map(|(line, piece)| Document {
                        text: (*piece).to_owned(),
                        origin: origin(file, Some(line + place.unwrap_or(1) - 1)),
                        kind: Kind::Prose,
                        language: None,
                    })
                    .collect(),
            }
        }
    })
}

/// The name of a record: its file, and its place in it when the file has many.
fn origin(file: &InputFile, place: Option<u64>) -> String {
    match place {
        Some(place) => format!("{}:{place}", file.label),
        None => file.label.clone(),
    }
}

fn read_whole(file: &InputFile) -> Result<Vec<u8>, BadRecord> {
    danlu_files::read_bounded(&file.path, RECORD_LIMIT as u64).map_err(|error| BadRecord {
        origin: file.label.clone(),
        reason: format!("{error:#}"),
        bytes: file.bytes,
    })
}

type Records = Box<dyn Iterator<Item = Raw> + Send>;

/// The records of files, one file after the other.
pub struct Reader {
    files: std::vec::IntoIter<InputFile>,
    records: Option<Records>,
    read: Arc<AtomicU64>,
}

impl Reader {
    pub fn new(files: Vec<InputFile>) -> Self {
        Self { files: files.into_iter(), records: None, read: Arc::default() }
    }

    /// The records of one file as JSON, whole: of parquet, rows with all their columns.
    pub(crate) fn json(mut file: InputFile) -> Self {
        if file.format == Format::Parquet {
            file.format = Format::ParquetRows;
        }
        Self::new(vec![file])
    }

    /// A counter of the bytes read so far, for progress.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    fn open(&mut self, file: InputFile) -> Result<Records, Raw> {
        let file = Arc::new(file);
        let unreadable = |error: std::io::Error| Raw::bad(&file, None, format!("cannot be opened: {error}"), file.bytes);
        if file.format == Format::Parquet {
            self.read.fetch_add(file.bytes, Ordering::Relaxed);
            return parquet::records(Arc::clone(&file)).map_err(|reason| Raw::bad(&file, None, reason, file.bytes));
        }
        if file.format == Format::ParquetRows {
            return parquet::rows(Arc::clone(&file)).map_err(|reason| Raw::bad(&file, None, reason, file.bytes));
        }
        let whole = matches!(file.format, Format::Text | Format::Html | Format::Code | Format::Rust);
        let packed = file.path.extension().is_some_and(|e| e == "gz" || e == "zst");
        if whole && !packed && file.bytes <= RECORD_LIMIT as u64 {
            self.read.fetch_add(file.bytes, Ordering::Relaxed);
            return Ok(Box::new(std::iter::once(Raw::File(file))));
        }
        let mut reader = compressed::open(&file.path, &self.read).map_err(unreadable)?;
        let start = reader.fill_buf().map_err(unreadable)?;
        if let Some(reason) = decode::not_streamable(start) {
            return Err(Raw::bad(&file, None, reason, file.bytes));
        }
        Ok(match file.format {
            Format::Text => Box::new(text::Pieces::new(file, reader)),
            Format::JsonLines => Box::new(json_lines(file, reader)),
            Format::Json => Box::new(json::Elements::new(file, reader)),
            _ => {
                let mut bytes = Vec::new();
                reader.take(RECORD_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
                if bytes.len() > RECORD_LIMIT {
                    return Err(Raw::too_long(&file, None, file.bytes.max(bytes.len() as u64)));
                }
                Box::new(std::iter::once(Raw::Record { file, place: None, bytes }))
            }
        })
    }
}

impl Iterator for Reader {
    type Item = Raw;

    fn next(&mut self) -> Option<Raw> {
        loop {
            if let Some(raw) = self.records.as_mut().and_then(Iterator::next) {
                return Some(raw);
            }
            let mut file = self.files.next()?;
            // The size may have changed since the folder was listed; what is read whole is decided by what is there now.
            file.bytes = fs::metadata(&file.path).map_or(file.bytes, |now| now.len());
            match self.open(file) {
                Ok(records) => self.records = Some(records),
                Err(bad) => {
                    self.records = None;
                    return Some(bad);
                }
            }
        }
    }
}

fn json_lines(file: Arc<InputFile>, reader: Box<dyn BufRead + Send>) -> impl Iterator<Item = Raw> + Send {
    let mut lines = Lines::new(reader, RECORD_LIMIT);
    let mut ended = false;
    std::iter::from_fn(move || {
        while !ended {
            let mut bytes = Vec::new();
            let line = lines.next(&mut bytes);
            let place = Some(lines.number);
            match line {
                Ok(Line::Whole) if bytes.trim_ascii().is_empty() => {}
                Ok(Line::Whole) => return Some(Raw::Record { file: Arc::clone(&file), place, bytes }),
                Ok(Line::TooLong(bytes)) => return Some(Raw::too_long(&file, place, bytes)),
                Ok(Line::End) => ended = true,
                Err(error) => {
                    ended = true;
                    return Some(Raw::bad(&file, Some(lines.number + 1), format!("cannot be read further: {error}"), 0));
                }
            }
        }
        None
    })
}
