//! `manifest.json` of a token set.

use serde::{Deserialize, Serialize};

pub(super) const LAYOUT: u32 = 1;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const MAX_MANIFEST: u64 = 16 << 20;

/// What a token set is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub layout: u32,
    /// The hash of the corpus it was built from.
    pub source: String,
    /// BLAKE3 of the tokenizer, see [`crate::tokenizer::Tokenizer::hash`].
    pub tokenizer: String,
    pub vocab_size: usize,
    pub end_of_text: u32,
    pub train: SplitEntry,
    pub held_out: SplitEntry,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitEntry {
    /// Tokens, the end-of-text token before each document included.
    pub tokens: u64,
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    pub files: Vec<FileEntry>,
    pub index: FileEntry,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub file: String,
    pub entries: u64,
    /// BLAKE3 of the whole file.
    pub blake3: String,
}
