//! No bytes make the reader of a checkpoint's tensors panic, and it takes no more memory than there are bytes.
#![no_main]

use danlu_train::checkpoint::{NamedTensor, Values, read_tensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensors) = read_tensors(bytes) {
        let size = |tensor: &NamedTensor| match &tensor.data {
            Values::F32(data) => 4 * data.len(),
            Values::U8(data) => data.len(),
        };
        let read: usize = tensors.iter().map(size).sum();
        assert!(read <= bytes.len(), "{read} bytes of values in {} bytes", bytes.len());
    }
});
