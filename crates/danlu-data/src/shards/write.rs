//! Building a token set from a stream of documents.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::format::{Contents, DOCUMENT, Document, HEADER, Header, token_width};
use super::manifest::{FileEntry, LAYOUT, MANIFEST, Manifest, SplitEntry, TOKENIZER};
use super::set::TokenSet;
use crate::Progress;
use crate::tokenizer::Tokenizer;

/// Documents are encoded in parallel in batches of this many bytes.
const BATCH: usize = 4 << 20;

/// A new file begins after the document that reaches this many tokens, so that files stay easy to copy.
const FILE_TOKENS: u64 = 1 << 28;

/// Encodes documents into the token set `folder`, replacing what is there. `source` is the hash of what the documents come from.
///
/// Memory does not grow with the documents. `progress` counts bytes of text.
///
/// # Errors
/// When a document cannot be read or encoded, a token is outside the vocabulary, or the files cannot be written; `folder` is unchanged
/// then.
pub fn build_from(
    folder: &Path,
    source: &str,
    tokenizer: &Tokenizer,
    train: impl Iterator<Item = Result<String>>,
    held_out: impl Iterator<Item = Result<String>>,
    progress: &mut dyn Progress,
) -> Result<TokenSet> {
    build_in_files_of(FILE_TOKENS, folder, source, tokenizer, train, held_out, progress)
}

pub(super) fn build_in_files_of(
    file_tokens: u64,
    folder: &Path,
    source: &str,
    tokenizer: &Tokenizer,
    train: impl Iterator<Item = Result<String>>,
    held_out: impl Iterator<Item = Result<String>>,
    progress: &mut dyn Progress,
) -> Result<TokenSet> {
    danlu_files::write_folder_atomic(folder, |folder| {
        tokenizer.save(&folder.join(TOKENIZER))?;
        let mut done = 0;
        let mut split = |name: &str, documents: &mut dyn Iterator<Item = Result<String>>| {
            SplitWriter::new(folder, name, tokenizer, file_tokens)?.fill(documents, &mut done, progress)
        };
        let manifest = Manifest {
            layout: LAYOUT,
            source: source.to_owned(),
            tokenizer: tokenizer.hash().to_owned(),
            vocab_size: tokenizer.vocab_size(),
            end_of_text: tokenizer.end_of_text(),
            train: split("train", &mut { train })?,
            held_out: split("held_out", &mut { held_out })?,
        };
        danlu_files::write_atomic_bytes(&folder.join(MANIFEST), serde_json::to_string_pretty(&manifest)?.as_bytes())
    })?;
    TokenSet::open(folder)
}

struct SplitWriter<'a> {
    folder: &'a Path,
    name: &'a str,
    tokenizer: &'a Tokenizer,
    file_tokens: u64,
    tokens: EntryWriter,
    index: EntryWriter,
    /// What is finished.
    entry: SplitEntry,
}

impl<'a> SplitWriter<'a> {
    fn new(folder: &'a Path, name: &'a str, tokenizer: &'a Tokenizer, file_tokens: u64) -> Result<Self> {
        let tokens = tokens_file(folder, name, 0, 0, tokenizer)?;
        let index = EntryWriter::create(folder, format!("{name}.index"), Contents::Documents, 0, tokenizer)?;
        Ok(Self { folder, name, tokenizer, file_tokens, tokens, index, entry: SplitEntry::default() })
    }

    fn fill(
        mut self,
        documents: &mut dyn Iterator<Item = Result<String>>,
        done: &mut u64,
        progress: &mut dyn Progress,
    ) -> Result<SplitEntry> {
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        loop {
            let next = documents.next().transpose()?;
            let last = next.is_none();
            if let Some(text) = next {
                batch_bytes += text.len();
                batch.push(text);
            }
            if batch_bytes >= BATCH || last {
                for (text, ids) in batch.iter().zip(self.tokenizer.encode_batch(&batch)?) {
                    self.document(text, &ids)?;
                }
                *done += batch_bytes as u64;
                progress.at(*done);
                batch.clear();
                batch_bytes = 0;
            }
            if last {
                return self.finish();
            }
        }
    }

    fn document(&mut self, text: &str, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let vocab_size = self.tokenizer.vocab_size();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            bail!("the tokenizer gave the id {id}, outside its own vocabulary of {vocab_size}");
        }
        if self.tokens.header.count >= self.file_tokens {
            let number = self.entry.files.len() + 1;
            let file = tokens_file(self.folder, self.name, number, self.entry.tokens, self.tokenizer)?;
            self.entry.files.push(std::mem::replace(&mut self.tokens, file).finish(self.folder)?);
        }
        let document = Document { start: self.entry.tokens, bytes: text.len() as u64 };
        self.index.write(&document.to_bytes())?;
        self.index.header.count += 1;
        // The end-of-text token stands before the document: its first token is predicted too, and the last one predicts the next
        // document's end-of-text.
        let all = std::iter::once(self.tokenizer.end_of_text()).chain(ids.iter().copied());
        let bytes: Vec<u8> = match self.tokens.header.width {
            2 => all.flat_map(|id| (id as u16).to_le_bytes()).collect(),
            _ => all.flat_map(u32::to_le_bytes).collect(),
        };
        self.tokens.write(&bytes)?;
        let count = ids.len() as u64 + 1;
        self.tokens.header.count += count;
        self.entry.tokens += count;
        self.entry.documents += 1;
        self.entry.bytes += document.bytes;
        Ok(())
    }

    fn finish(mut self) -> Result<SplitEntry> {
        self.entry.files.push(self.tokens.finish(self.folder)?);
        self.entry.index = self.index.finish(self.folder)?;
        Ok(self.entry)
    }
}

fn tokens_file(folder: &Path, split: &str, number: usize, first: u64, tokenizer: &Tokenizer) -> Result<EntryWriter> {
    EntryWriter::create(folder, format!("{split}-{number:05}.tokens"), Contents::Tokens, first, tokenizer)
}

/// One file: its header is known only at the end, so room is left for it.
struct EntryWriter {
    name: String,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    header: Header,
}

impl EntryWriter {
    fn create(folder: &Path, name: String, contents: Contents, first: u64, tokenizer: &Tokenizer) -> Result<Self> {
        let path = folder.join(&name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER])?;
        let vocab_size = u32::try_from(tokenizer.vocab_size()).context("the vocabulary is too large")?;
        let width = match contents {
            Contents::Tokens => token_width(tokenizer.vocab_size()),
            Contents::Documents => DOCUMENT as u32,
        };
        let tokenizer = *blake3::Hash::from_hex(tokenizer.hash()).context("the tokenizer's hash")?.as_bytes();
        let header = Header { contents, width, vocab_size, first, count: 0, tokenizer, checksum: [0; 32] };
        Ok(Self { name, path, file, hasher: blake3::Hasher::new(), header })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn finish(mut self, folder: &Path) -> Result<FileEntry> {
        self.header.checksum = *self.hasher.finalize().as_bytes();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.header.to_bytes())?;
        self.file.flush().with_context(|| format!("cannot write {}", self.path.display()))?;
        let blake3 = danlu_files::hash_file(&folder.join(&self.name))?;
        Ok(FileEntry { file: self.name, entries: self.header.count, blake3 })
    }
}
