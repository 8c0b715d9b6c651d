//! The layout of `.tokens` and `.index` files: a header of 128 bytes, then little-endian numbers.
//!
//! | bytes | contents |
//! |---|---|
//! | 0..8 | `DANLUTOK` or `DANLUIDX` |
//! | 8..12 | version, 1 |
//! | 12..16 | bytes of an entry: 2 or 4 for a token, 16 for a document |
//! | 16..20 | vocabulary size |
//! | 20..24 | zero |
//! | 24..32 | where in the split the first entry stands |
//! | 32..40 | number of entries |
//! | 40..72 | the tokenizer's BLAKE3 |
//! | 72..104 | BLAKE3 of the entries |
//! | 104..112 | the first bytes of the BLAKE3 of what stands before |
//! | 112..128 | zero |

use anyhow::{Context, Result, bail};

pub(super) const HEADER: usize = 128;
const VERSION: u32 = 1;
const CHECKED: usize = 104;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Token ids, two bytes each where the vocabulary allows it, else four.
    Tokens,
    /// For each document the position of its first token and the bytes of its text.
    Documents,
}

impl Contents {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Tokens => b"DANLUTOK",
            Self::Documents => b"DANLUIDX",
        }
    }
}

/// The header of a file, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub contents: Contents,
    /// Bytes of one entry.
    pub width: u32,
    pub vocab_size: u32,
    /// The position in the split of the file's first entry.
    pub first: u64,
    pub count: u64,
    pub tokenizer: [u8; 32],
    pub checksum: [u8; 32],
}

/// Bytes of a token for a vocabulary.
pub(super) fn token_width(vocab_size: usize) -> u32 {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

impl Header {
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(self.contents.magic());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.width.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.count.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.tokenizer);
        bytes[72..CHECKED].copy_from_slice(&self.checksum);
        let check = blake3::hash(&bytes[..CHECKED]);
        bytes[CHECKED..CHECKED + 8].copy_from_slice(&check.as_bytes()[..8]);
        bytes
    }

    /// Reads the header of a file that begins with `bytes` and has `file_size` bytes.
    ///
    /// # Errors
    /// When the file is of another kind or version, was damaged, or is not as long as its header says.
    pub fn parse(bytes: &[u8], file_size: u64, contents: Contents) -> Result<Self> {
        let Some(bytes) = bytes.get(..HEADER) else {
            bail!("it has {} bytes, fewer than a header; it was cut off or is another kind of file", bytes.len());
        };
        if bytes[..8] != *contents.magic() {
            let expected = String::from_utf8_lossy(contents.magic());
            bail!("it begins with {}, not with {expected}; it is another kind of file", bytes[..8].escape_ascii());
        }
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let long = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let version = word(8);
        if version != VERSION {
            bail!("it has version {version} of the format; this program reads version {VERSION}");
        }
        let check = blake3::hash(&bytes[..CHECKED]);
        if bytes[CHECKED..CHECKED + 8] != check.as_bytes()[..8] {
            bail!("its header does not match its checksum; the file was damaged");
        }
        let hash = |at: usize| bytes[at..].first_chunk().copied().unwrap_or_default();
        let header = Self {
            contents,
            width: word(12),
            vocab_size: word(16),
            first: long(24),
            count: long(32),
            tokenizer: hash(40),
            checksum: hash(72),
        };
        let width = match contents {
            Contents::Tokens => token_width(header.vocab_size as usize),
            Contents::Documents => DOCUMENT as u32,
        };
        if header.width != width {
            bail!("its entries have {} bytes where {width} are expected", header.width);
        }
        let size = header.count.checked_mul(u64::from(width)).and_then(|n| n.checked_add(HEADER as u64));
        let size = size.context("its header gives an impossible number of entries")?;
        if size != file_size {
            bail!("it has {file_size} bytes and should have {size}; it was cut off or added to");
        }
        Ok(header)
    }
}

pub(super) const DOCUMENT: usize = 16;

/// An entry of a document index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// The position in the split of its first token, which is the end-of-text token.
    pub start: u64,
    /// The bytes of its text as UTF-8.
    pub bytes: u64,
}

impl Document {
    pub fn to_bytes(self) -> [u8; DOCUMENT] {
        let mut bytes = [0; DOCUMENT];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; DOCUMENT]) -> Self {
        let number = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        Self { start: number(0), bytes: number(8) }
    }
}

/// Checks the entries of an index over a split of `tokens` tokens: the first document begins it, each has a token, all lie inside.
pub fn check_index(entries: &[u8], tokens: u64) -> Result<()> {
    let (documents, rest) = entries.as_chunks::<DOCUMENT>();
    if !rest.is_empty() {
        bail!("its last entry is cut off");
    }
    let mut next = 0;
    for (i, entry) in documents.iter().enumerate() {
        let start = Document::from_bytes(entry).start;
        if start < next || (i == 0 && start != 0) || start >= tokens {
            bail!("document {i} begins at token {start}, which cannot be in a split of {tokens} tokens");
        }
        next = start + 1;
    }
    if documents.is_empty() && tokens > 0 {
        bail!("it names no document for {tokens} tokens");
    }
    Ok(())
}
