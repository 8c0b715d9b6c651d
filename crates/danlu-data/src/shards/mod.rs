//! Token shards: a corpus as token ids on disk, mapped into memory, with the boundaries and byte lengths of its documents.
//!
//! A token set is the folder `tokens-<tokenizer>/` in its corpus: `train-00000.tokens`, …, `train.index`, the same for `held_out`, the
//! tokenizer, and `manifest.json` with the checksum of each file.

mod format;
mod manifest;
mod set;
#[cfg(test)]
mod tests;
mod write;

pub use format::{Contents, Document, Header, check_index};
pub use manifest::{FileEntry, Manifest, SplitEntry};
pub use set::{TokenSet, TokenSplit};
pub use write::build_from;
