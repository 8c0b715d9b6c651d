//! Where documents come from. Reading is split in two so that it can be parallel and still bounded: a [`Reader`] walks the files in
//! order and yields [`Raw`] records cheaply (a path to read, a line, a parquet value), and [`Raw::parse`], which any thread may call,
//! decodes a record into documents.

mod code;
mod compressed;
pub(crate) mod html;
mod json;
mod lines;
mod parquet;
mod reader;
mod resolve;
mod text;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use compressed::open_alone as open;
pub use reader::{Raw, Reader};
pub use resolve::{Inputs, Source, resolve};

/// The most bytes one record (a line, a JSON element, a parquet value, a file that must be read whole) may have. A longer one is
/// quarantined while its bytes are skipped, so that no input decides how much memory is used.
pub const RECORD_LIMIT: usize = 16 << 20;

/// What a text is, which decides the quality rules that fit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Written language.
    #[default]
    Prose,
    /// The text of a web page: prose among menus and notices.
    Web,
    /// A source file of a programming language.
    Code,
}

/// One text with where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub text: String,
    /// The file, and for a file of many documents the line or record: `corpus/a.jsonl:17`.
    pub origin: String,
    pub kind: Kind,
    /// ISO 639-3 code of the language, absent when it is not code or could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// A record that could not be read, for the quarantine file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRecord {
    pub origin: String,
    pub reason: String,
    /// Bytes that were given up, as far as known.
    pub bytes: u64,
}

/// How the records of a file are found and decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Html,
    Code,
    /// A Rust source of which code and doc comments become two documents.
    Rust,
    JsonLines,
    /// One JSON array, or one object whose values are the records.
    Json,
    Parquet,
    /// Parquet whose records are whole rows, as JSON.
    ParquetRows,
}

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    pub path: PathBuf,
    /// The path as the report and the documents name it.
    pub label: String,
    pub format: Format,
    pub bytes: u64,
    /// The keys of a JSON record or the parquet columns that hold its text, joined by a blank line; none means `text`, else `content`.
    pub text_keys: Arc<[String]>,
}

/// How records are decoded.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The encoding of text that is not Unicode, by its WHATWG label ("gbk", "windows-1252"). Without one such text is quarantined.
    pub encoding: Option<&'static encoding_rs::Encoding>,
}

/// All documents of `files`, one after the other on this thread; [`crate::add()`] does the same in parallel.
pub fn documents(files: Vec<InputFile>, options: ReadOptions) -> impl Iterator<Item = Result<Document, BadRecord>> {
    Reader::new(files).flat_map(move |raw| raw.parse(&options))
}
