//! No bytes make the readers of a checkpoint's files panic.
#![no_main]

use danlu_train::checkpoint::{State, read_tensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensors) = read_tensors(bytes) {
        let values: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
        assert!(4 * values <= bytes.len(), "{values} values in {} bytes", bytes.len());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = State::from_json(text, &danlu_files::hash_bytes(bytes));
    }
});
