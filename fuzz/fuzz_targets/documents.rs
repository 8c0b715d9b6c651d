//! No bytes make a reader of documents panic, and no more records come out than bytes went in.
#![no_main]

use std::sync::Arc;

use danlu_data::source::{Format, InputFile, ReadOptions, documents};
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 8] = [
    Format::Text,
    Format::Html,
    Format::Code,
    Format::Rust,
    Format::JsonLines,
    Format::Json,
    Format::Parquet,
    Format::ParquetRows,
];

fuzz_target!(|input: (u8, &[u8])| {
    let (format, bytes) = input;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("input");
    std::fs::write(&path, bytes).expect("a temporary file");
    let format = FORMATS[usize::from(format) % FORMATS.len()];
    let file = InputFile { path, label: "input".into(), format, bytes: bytes.len() as u64, text_keys: Arc::new([]) };
    let found = documents(vec![file], ReadOptions::default()).count();
    assert!(found <= bytes.len() + 1, "{found} records in {} bytes", bytes.len());
});
