//! No bytes make the readers of conversations and preferences panic.
#![no_main]

use danlu_data::source::Source;
use danlu_data::{chat, preference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("input.jsonl");
    std::fs::write(&path, bytes).expect("a temporary file");
    let sources = [Source::Path(path.display().to_string())];
    let _ = chat::read(&sources);
    let _ = preference::read(&sources);
});
