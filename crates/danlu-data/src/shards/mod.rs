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

use anyhow::Result;

pub use format::{Contents, Document, Header, check_index};
pub use manifest::{FileEntry, Manifest, SplitEntry};
pub use set::{TokenSet, TokenSplit};
pub use write::build_from;

use crate::Progress;
use crate::corpus::{Corpus, Split};
use crate::tokenizer::Tokenizer;

/// The token set of a corpus for a tokenizer: the one in its folder when it is still right, else built there.
///
/// # Errors
/// As [`build_from`].
pub fn build(corpus: &Corpus, tokenizer: &Tokenizer, progress: &mut dyn Progress) -> Result<TokenSet> {
    let folder = corpus.folder().join(format!("tokens-{}", &tokenizer.hash()[..16]));
    if folder.exists() {
        match TokenSet::open(&folder) {
            Ok(set) if set.manifest.source == corpus.manifest.hash && set.manifest.tokenizer == tokenizer.hash() => {
                return Ok(set);
            }
            Ok(_) => progress.note("the corpus has changed since it was made into tokens; making it again"),
            Err(error) => progress.note(&format!("{error:#}; making it again")),
        }
    }
    let train = &corpus.manifest.train;
    progress.start("make tokens", Some(train.bytes + corpus.manifest.held_out.bytes), "bytes");
    let texts = |split| corpus.documents(split).map(|document| Ok(document?.text));
    build_from(&folder, &corpus.manifest.hash, tokenizer, texts(Split::Train), texts(Split::HeldOut), progress)
}
