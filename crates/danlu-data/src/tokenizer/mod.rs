//! Tokenizers: training, the `tokenizer.json` everyone reads, encoding in parallel and decoding as tokens arrive.
//!
//! The file format and the encoding are those of the `tokenizers` library, so that a tokenizer made here encodes in `transformers` to
//! the same ids, and one made there works here. Training is our own where the library's result depends on hash order.

mod export;
mod fast;
pub mod ggml;
mod merges;
mod report;
mod split;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod train;
mod unigram;
mod words;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail};
use rayon::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer as Library, TokenizerImpl,
};

use fast::Fast;
pub use report::{BytesPerToken, bytes_per_token};
pub use stream::DecodeStream;
pub use train::{Kind, TrainSpec, train};

/// Begins every document and, as the next document's first token, ends it. Generation starts from it.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins and ends a turn of a chat.
pub const TURN_START: &str = "<|im_start|>";
pub const TURN_END: &str = "<|im_end|>";
/// Fills rows of unequal length where a format asks for it; never predicted.
pub const PAD: &str = "<|pad|>";

/// No tokenizer in use has a file near this size; a larger one is refused before it is read.
const MAX_FILE: u64 = 256 << 20;

/// What models call the token that ends a document, most specific first.
const END_NAMES: [&str; 6] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]", "<|eot_id|>"];

/// A tokenizer: text to ids below [`Tokenizer::vocab_size`] and back. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    /// Takes the text of a special token as ordinary text.
    plain: Library,
    /// Does the same sooner, where the tokenizer is of our own kind.
    fast: Option<Fast>,
    /// Takes it as the special token; made when first asked for.
    with_special: OnceLock<Library>,
    vocab_size: usize,
    end_of_text: u32,
    /// Made when first asked for: who only runs a model never does.
    hash: OnceLock<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a model's folder.
    ///
    /// # Errors
    /// When the file is missing, too large, not a tokenizer, or has no token that ends a document.
    pub fn load(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let bytes = danlu_files::read_bounded(&file, MAX_FILE)?;
        Self::from_json(&bytes, export::end_token_beside(&file)?.as_deref())
            .with_context(|| format!("{} is not a usable tokenizer", file.display()))
    }

    /// A tokenizer from the bytes of its `tokenizer.json`. `end` names the token that ends a document, where the file alone does not
    /// tell.
    pub fn from_json(bytes: &[u8], end: Option<&str>) -> Result<Self> {
        let mut plain = read(bytes)?;
        // A file may ask for truncation or padding; either would silently change the corpus.
        plain.with_truncation(None).map_err(|e| anyhow!("{e}"))?;
        plain.with_padding(None);
        let fast = if Fast::may_be(&plain) { Fast::new(&json(&plain)?) } else { None };
        plain.set_encode_special_tokens(true);
        let end_of_text = end
            .into_iter()
            .chain(END_NAMES)
            .find_map(|name| plain.token_to_id(name))
            .with_context(|| format!("it has no token that ends a document; one of {} is needed", END_NAMES.join(", ")))?;
        // Ids may have holes, so the size a model needs is the largest id and one, not the number of tokens.
        let largest = plain.get_vocab(true).into_values().max().context("its vocabulary is empty")?;
        if largest == u32::MAX {
            bail!("it has a token with the id {largest}, which is the mark for a target without loss");
        }
        let vocab_size = largest as usize + 1;
        let inner = Inner { plain, fast, with_special: OnceLock::new(), vocab_size, end_of_text, hash: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same tokenizer, whose documents end with the token `end`.
    ///
    /// # Errors
    /// When it has no such token.
    pub fn ending_with(&self, end: u32) -> Result<Self> {
        let name = self.id_to_token(end).with_context(|| format!("the tokenizer has no token {end} to end documents with"))?;
        Self::from_json(self.to_json()?.as_bytes(), Some(&name))
    }

    /// The contents of `tokenizer.json`.
    pub fn to_json(&self) -> Result<String> {
        json(&self.inner.plain)
    }

    /// Writes `path`, a `tokenizer.json`, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        danlu_files::write_atomic_bytes(path, self.to_json()?.as_bytes())
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into a model's folder, as
    /// `transformers.PreTrainedTokenizerFast` reads them. `context` is the longest sequence the model takes, in tokens.
    pub fn export(&self, folder: &Path, context: usize) -> Result<()> {
        export::export(self, folder, context)
    }

    /// The ids of ordinary text. The text of a special token, such as `<|endoftext|>` in a document about tokenizers, is encoded as
    /// the characters it consists of, so that no document can end itself.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self.inner.fast.as_ref().and_then(|fast| fast.encode(text)) {
            Some(ids) => Ok(ids),
            None => encode_with(&self.inner.plain, text),
        }
    }

    /// [`Tokenizer::encode`] where the text of special tokens stands for those tokens: for chat templates, whose text is trusted.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        encode_with(self.with_special(), text)
    }

    /// [`Tokenizer::encode_with_special`], and for each token the bytes of `text` it stands for. Tokens that share a character have its
    /// whole range.
    pub fn encode_with_special_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        let encoding = self.with_special().encode(text, false).map_err(|e| anyhow!("cannot encode: {e}"))?;
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    fn with_special(&self) -> &Library {
        self.inner.with_special.get_or_init(|| {
            let mut library = self.inner.plain.clone();
            library.set_encode_special_tokens(false);
            // No token is added after encoding, so all that this step could do is to move offsets away from spaces.
            library.with_post_processor(None::<PostProcessorWrapper>);
            library
        })
    }

    /// Whether a token is a special one, which no ordinary text encodes to.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.plain.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// [`Tokenizer::encode`] of many texts on all threads, in their order.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of ids, special tokens included. Bytes that are not UTF-8 become U+FFFD; ids the vocabulary lacks are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.plain.decode(ids, false).map_err(|e| anyhow!("cannot decode: {e}"))
    }

    /// [`Tokenizer::decode`] without the special tokens.
    pub fn decode_text(&self, ids: &[u32]) -> Result<String> {
        self.inner.plain.decode(ids, true).map_err(|e| anyhow!("cannot decode: {e}"))
    }

    /// Decodes tokens as they are generated; special tokens are left out.
    pub fn stream(&self) -> DecodeStream {
        DecodeStream::new(self.clone())
    }

    /// The number of rows a model's embedding needs: the largest id and one.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The id that begins and ends a document.
    pub fn end_of_text(&self) -> u32 {
        self.inner.end_of_text
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.plain.token_to_id(token)
    }

    /// The token as the vocabulary spells it (`Ġthe`), not as text.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.plain.id_to_token(id)
    }

    /// BLAKE3 of the tokenizer's canonical JSON, in hexadecimal: equal for equal tokenizers, whoever wrote the file.
    pub fn hash(&self) -> &str {
        self.inner.hash.get_or_init(|| {
            // What was read as JSON can be written as JSON. Two folders may have one tokenizer.json and end documents with different tokens of it.
            let json = json(&self.inner.plain).unwrap_or_default();
            danlu_files::hash_bytes(format!("{json}\n{}", self.inner.end_of_text).as_bytes())
        })
    }
}

/// A tokenizer as the library reads it. To find out which kind of model a file has, the library takes it apart three times, which is most of the
/// time in which a model is made ready; so a byte-pair model, which most are, is read as such, and only what is none is read that way.
fn read(bytes: &[u8]) -> Result<Library> {
    type Bpe = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
    match serde_json::from_slice::<Bpe>(bytes) {
        Ok(tokenizer) => Ok(tokenizer.into()),
        Err(_) => Library::from_bytes(bytes).map_err(|e| anyhow!("{e}")),
    }
}

fn encode_with(library: &Library, text: &str) -> Result<Vec<u32>> {
    let encoding = library.encode_fast(text, false).map_err(|e| anyhow!("cannot encode: {e}"))?;
    Ok(encoding.get_ids().to_vec())
}

fn json(library: &Library) -> Result<String> {
    library.to_string(false).map_err(|e| anyhow!("cannot write the tokenizer as JSON: {e}"))
}
