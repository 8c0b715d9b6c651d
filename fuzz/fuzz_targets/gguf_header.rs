//! No bytes make the header of a GGUF file panic, and what is accepted lies in the file.
#![no_main]

use danlu_models::gguf::{Header, Value};
use libfuzzer_sys::fuzz_target;

fn count(value: Value) -> usize {
    1 + value.as_array().map_or(0, |array| array.values().map(count).sum())
}

fuzz_target!(|file: &[u8]| {
    if let Ok(header) = Header::parse(file) {
        let values: usize = header.keys().filter_map(|key| header.get(file, key)).map(count).sum();
        assert!(values <= file.len(), "{values} values in {} bytes", file.len());
    }
});
