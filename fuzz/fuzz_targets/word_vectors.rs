//! No bytes make the reader of word vectors panic, and what is accepted reads back from what is written of it.
#![no_main]

use danlu_models::{VectorFormat, WordVectors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for format in [VectorFormat::Text, VectorFormat::Binary] {
        let Ok(vectors) = WordVectors::parse(file, file.len() as u64, format) else { continue };
        assert!(vectors.len() * vectors.width() <= file.len(), "{} vectors in {} bytes", vectors.len(), file.len());
        let mut written = vec![];
        // A binary file may have a word with a space of another script, which no line can hold.
        if vectors.write(&mut written, format).is_ok() {
            let read = WordVectors::parse(&written[..], written.len() as u64, format).expect("what was written is read");
            assert!(read == vectors, "what was written reads back as something else");
        }
    }
});
