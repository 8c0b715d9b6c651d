//! No bytes make the header of a token file or document index panic, and what is accepted says how long the file is.
#![no_main]

use danlu_data::shards::{Contents, Header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u64)| {
    let (bytes, size) = input;
    for contents in [Contents::Tokens, Contents::Documents] {
        if let Ok(header) = Header::parse(bytes, size, contents) {
            assert_eq!(size, 128 + header.count * u64::from(header.width));
            assert_eq!(Header::parse(&header.to_bytes(), size, contents).expect("what was read can be written"), header);
        }
    }
});
