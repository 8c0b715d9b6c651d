//! Whatever the bytes, reading ends, without a panic, in documents or reasons.

use std::fs;
use std::sync::Arc;

use danlu_data::source::{Format, InputFile, ReadOptions, documents};
use proptest::prelude::*;

fn read_all(bytes: &[u8], format: Format) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    fs::write(&path, bytes).unwrap();
    let label = "input".to_owned();
    let file = InputFile { path, label, format, bytes: bytes.len() as u64, text_keys: Arc::new([]) };
    let found = documents(vec![file], ReadOptions::default()).count();
    assert!(found <= bytes.len() + 1, "{found} records in {} bytes", bytes.len());
}

/// Pieces that the parsers give a meaning to, in any order, with any bytes between.
fn pieces(meaningful: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(meaningful).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => "\\PC{0,4}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

const HTML: &[&str] = &[
    "<",
    ">",
    "</",
    "/>",
    "<p>",
    "</p>",
    "<script>",
    "</script",
    "<!--",
    "-->",
    "<head>",
    "<body",
    "<pre>",
    "</pre>",
    "<a b=\"",
    "\"",
    "'",
    "=",
    "&amp;",
    "&#x",
    "&#99999999999;",
    "&",
    "<nav>",
    "</nav>",
    "<li>",
    "中",
    "charset=",
    "charset=gbk",
];
const JSON: &[&str] =
    &["[", "]", "{", "}", "\"", "\\", ":", ",", "\"text\":", "\"text\"", "\"a\"", "1", "null", "\n", " ", "\\ud800", "中"];

const COCO: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "1",
    "-",
    "9999999999",
    "null",
    "{\"images\":[{\"id\":1,\"file_name\":\"a\",\"height\":9,\"width\":9}],\"categories\":[{\"id\":1,\"name\":\"a\"}],\"annotations\":[",
    "{\"id\":1,\"image_id\":1,\"category_id\":1,\"bbox\":[1,1,2,2],\"segmentation\":",
    "[[1,1,5,1,5,5]]",
    "{\"size\":[9,9],\"counts\":",
    "\"0o00\"",
    "[9,3,69]",
    "}]}",
];

proptest! {
    #[test]
    fn files_of_instances(bytes in pieces(COCO)) {
        if let Ok(dataset) = danlu_data::scenes::coco::parse(&bytes) {
            prop_assert!(dataset.pictures.iter().all(|entry| entry.instances.len() == entry.ids.len()));
        }
    }

    #[test]
    fn html(bytes in pieces(HTML)) {
        read_all(&bytes, Format::Html);
    }

    #[test]
    fn json(bytes in pieces(JSON)) {
        read_all(&bytes, Format::Json);
        read_all(&bytes, Format::JsonLines);
    }

    #[test]
    fn text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Text, Format::Code, Format::Rust, Format::Parquet] {
            read_all(&bytes, format);
        }
    }
}
