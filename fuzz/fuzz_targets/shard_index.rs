//! An accepted document index names ascending documents inside the split.
#![no_main]

use danlu_data::shards::{Document, check_index};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u64)| {
    let (entries, tokens) = input;
    if check_index(entries, tokens).is_ok() {
        let starts: Vec<u64> = entries.as_chunks().0.iter().map(|entry| Document::from_bytes(entry).start).collect();
        assert!(starts.is_sorted() && starts.iter().all(|&start| start < tokens));
    }
});
