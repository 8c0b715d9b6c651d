//! How well a tokenizer compresses text.

use anyhow::Result;

use super::Tokenizer;

/// Bytes of text per token: more is better, 1 is a token for each byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct BytesPerToken {
    pub bytes: u64,
    pub tokens: u64,
}

impl BytesPerToken {
    pub fn ratio(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }
}

/// Encodes `texts` (held-out ones, to be fair) until `max_bytes` are seen.
pub fn bytes_per_token(
    tokenizer: &Tokenizer,
    texts: impl IntoIterator<Item = impl AsRef<str>>,
    max_bytes: u64,
) -> Result<BytesPerToken> {
    let mut sum = BytesPerToken::default();
    for text in texts {
        if sum.bytes >= max_bytes {
            break;
        }
        sum.bytes += text.as_ref().len() as u64;
        sum.tokens += tokenizer.encode(text.as_ref())?.len() as u64;
    }
    Ok(sum)
}
