//! Reading a token set.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use memmap2::Mmap;

use super::format::{Contents, DOCUMENT, Document, HEADER, Header, check_index};
use super::manifest::{FileEntry, LAYOUT, MANIFEST, MAX_MANIFEST, Manifest, SplitEntry, TOKENIZER};
use crate::tokenizer::Tokenizer;

/// Sets up to this size have their checksums verified whenever they are opened, which takes a few hundredths of a second.
const VERIFIED_AT_OPEN: u64 = 64 << 20;

/// A corpus as tokens, in two splits, mapped into memory.
#[derive(Clone)]
pub struct TokenSet {
    pub folder: PathBuf,
    pub manifest: Manifest,
    pub train: TokenSplit,
    pub held_out: TokenSplit,
}

impl TokenSet {
    /// Opens the token set in `folder`. Headers, sizes and document indexes are always checked, and checksums where the set is small;
    /// [`TokenSet::verify`] checks them for any size.
    ///
    /// # Errors
    /// Names the file that is missing, cut off, damaged or of another set, and what to do.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::read(folder).with_context(|| {
            format!("the token set {} cannot be used; remove that folder and it is built again", folder.display())
        })
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text = danlu_files::read_text_bounded(&path, MAX_MANIFEST)?;
        let manifest: Manifest = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if manifest.layout != LAYOUT {
            bail!("{} has layout {}; this program reads layout {LAYOUT}", path.display(), manifest.layout);
        }
        if manifest.end_of_text as usize >= manifest.vocab_size {
            bail!("{} has an end-of-text token outside its vocabulary", path.display());
        }
        let train = TokenSplit::open(folder, &manifest, &manifest.train).context("in the training split")?;
        let held_out = TokenSplit::open(folder, &manifest, &manifest.held_out).context("in the held-out split")?;
        let set = Self { folder: folder.to_path_buf(), manifest, train, held_out };
        let size = |split: &TokenSplit| {
            split.inner.files.iter().chain([&split.inner.index]).map(|file| file.map.len() as u64).sum::<u64>()
        };
        if size(&set.train) + size(&set.held_out) <= VERIFIED_AT_OPEN {
            set.verify()?;
        }
        Ok(set)
    }

    /// Checks the checksum of every file.
    pub fn verify(&self) -> Result<()> {
        for split in [&self.train, &self.held_out] {
            for file in split.inner.files.iter().chain([&split.inner.index]) {
                file.verify()?;
            }
        }
        Ok(())
    }

    /// The tokenizer the set was built with.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::load(&self.folder.join(TOKENIZER))?.ending_with(self.manifest.end_of_text)?;
        if tokenizer.hash() != self.manifest.tokenizer {
            bail!("{} is not the tokenizer this token set was built with", self.folder.join(TOKENIZER).display());
        }
        Ok(tokenizer)
    }
}

/// The tokens of one split: documents one after another, each begun by the end-of-text token. Cheap to clone.
#[derive(Clone)]
pub struct TokenSplit {
    inner: Arc<Inner>,
}

struct Inner {
    files: Vec<MappedFile>,
    index: MappedFile,
    tokens: u64,
    bytes: u64,
    vocab_size: u32,
    end_of_text: u32,
}

impl TokenSplit {
    fn open(folder: &Path, manifest: &Manifest, entry: &SplitEntry) -> Result<Self> {
        let mut files = Vec::new();
        let mut tokens = 0u64;
        for file in &entry.files {
            let mapped = MappedFile::open(folder, file, Contents::Tokens, manifest)?;
            if mapped.header.first != tokens {
                bail!("{} begins at token {} where {tokens} is expected", mapped.path.display(), mapped.header.first);
            }
            tokens = tokens.checked_add(mapped.header.count).context("the files hold an impossible number of tokens")?;
            files.push(mapped);
        }
        let index = MappedFile::open(folder, &entry.index, Contents::Documents, manifest)?;
        check_index(index.entries(), tokens).with_context(|| format!("{} is damaged", index.path.display()))?;
        if tokens != entry.tokens || index.header.count != entry.documents {
            bail!("{MANIFEST} counts {} tokens where the files have {tokens}", entry.tokens);
        }
        let (vocab_size, end_of_text) = (manifest.vocab_size as u32, manifest.end_of_text);
        Ok(Self { inner: Arc::new(Inner { files, index, tokens, bytes: entry.bytes, vocab_size, end_of_text }) })
    }

    /// The number of tokens, the end-of-text token before each document included.
    pub fn len(&self) -> u64 {
        self.inner.tokens
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.inner.index.header.count as usize
    }

    /// The bytes of text of all documents.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes
    }

    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size as usize
    }

    pub fn end_of_text(&self) -> u32 {
        self.inner.end_of_text
    }

    fn entry(&self, document: usize) -> Option<Document> {
        self.inner.index.entries().as_chunks::<DOCUMENT>().0.get(document).map(Document::from_bytes)
    }

    /// The bytes of a document's text; 0 for one that does not exist.
    pub fn document_bytes(&self, document: usize) -> u64 {
        self.entry(document).map_or(0, |entry| entry.bytes)
    }

    /// Where the tokens of a document stand: the end-of-text token that begins it, then its text.
    pub fn document_range(&self, document: usize) -> Range<u64> {
        let end = self.len();
        let start = |document| self.entry(document).map_or(end, |entry| entry.start);
        start(document)..start(document.saturating_add(1))
    }

    /// The tokens of a document: the end-of-text token, then its text.
    pub fn document(&self, document: usize) -> Result<Vec<u32>> {
        let range = self.document_range(document);
        let mut tokens = vec![0; (range.end - range.start) as usize];
        self.read(range.start, &mut tokens)?;
        Ok(tokens)
    }

    /// Copies the tokens from `start` on into `out`.
    ///
    /// # Errors
    /// When the range does not lie in the split, or a token is outside the vocabulary: the file was damaged after it was opened.
    pub fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let end = start.checked_add(out.len() as u64).filter(|&end| end <= self.len());
        if end.is_none() {
            bail!("tokens {start}..+{} do not lie in a split of {}", out.len(), self.len());
        }
        let mut file = self.inner.files.partition_point(|file| file.header.first + file.header.count <= start);
        let (mut start, mut out) = (start, out);
        while !out.is_empty() {
            let mapped = &self.inner.files[file];
            let at = (start - mapped.header.first) as usize;
            let count = out.len().min(mapped.header.count as usize - at);
            let (now, rest) = out.split_at_mut(count);
            mapped.copy_tokens(at, now);
            if let Some(id) = now.iter().find(|&&id| id >= self.inner.vocab_size) {
                let path = mapped.path.display();
                bail!(
                    "{path} holds the token {id}, outside the vocabulary of {}; remove the folder and build it again",
                    self.vocab_size()
                );
            }
            (out, start, file) = (rest, start + count as u64, file + 1);
        }
        Ok(())
    }

    /// How often each token of the vocabulary occurs.
    ///
    /// # Errors
    /// As [`TokenSplit::read`].
    pub fn counts(&self) -> Result<Vec<u64>> {
        let mut counts = vec![0; self.vocab_size()];
        let mut piece = vec![0; (self.len() as usize).min(1 << 16)];
        let mut at = 0;
        while at < self.len() {
            let tokens = piece.len().min((self.len() - at) as usize);
            self.read(at, &mut piece[..tokens])?;
            piece[..tokens].iter().for_each(|&id| counts[id as usize] += 1);
            at += tokens as u64;
        }
        Ok(counts)
    }

    /// The positions in `range` at which a document begins.
    pub fn starts_in(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let entries = self.inner.index.entries().as_chunks::<DOCUMENT>().0;
        let first = entries.partition_point(|entry| Document::from_bytes(entry).start < range.start);
        entries[first..].iter().map(|entry| Document::from_bytes(entry).start).take_while(move |&start| start < range.end)
    }
}

struct MappedFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl MappedFile {
    fn open(folder: &Path, entry: &FileEntry, contents: Contents, manifest: &Manifest) -> Result<Self> {
        let name = Path::new(&entry.file);
        // A manifest from elsewhere must not make us open files outside its folder.
        if name.components().count() != 1 || name.file_name().is_none() {
            bail!("{MANIFEST} names the file {:?}, which is not a plain name", entry.file);
        }
        let path = folder.join(name);
        let open = || -> Result<(Mmap, Header)> {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            if size < HEADER as u64 {
                bail!("it has {size} bytes, fewer than a header; it was cut off");
            }
            // SAFETY: the file is read only and no part of danlu writes to it in place: token sets are replaced as folders. Another
            // program that changes it can make us read other numbers, which every read checks against the vocabulary.
            let map = unsafe { Mmap::map(&file)? };
            let header = Header::parse(&map, size, contents)?;
            let tokenizer = blake3::Hash::from_bytes(header.tokenizer).to_hex();
            if tokenizer.as_str() != manifest.tokenizer || header.vocab_size as usize != manifest.vocab_size {
                bail!("it was made with another tokenizer than {MANIFEST} says");
            }
            if header.count != entry.entries {
                bail!("it has {} entries and {MANIFEST} says {}", header.count, entry.entries);
            }
            Ok((map, header))
        };
        let (map, header) = open().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(Self { path, map, header })
    }

    fn entries(&self) -> &[u8] {
        &self.map[HEADER..]
    }

    fn verify(&self) -> Result<()> {
        if *blake3::hash(self.entries()).as_bytes() != self.header.checksum {
            bail!("{} does not match its checksum; it was damaged", self.path.display());
        }
        Ok(())
    }

    fn copy_tokens(&self, at: usize, out: &mut [u32]) {
        match self.header.width {
            2 => {
                let tokens = self.entries().as_chunks::<2>().0;
                out.iter_mut().zip(&tokens[at..]).for_each(|(out, token)| *out = u32::from(u16::from_le_bytes(*token)));
            }
            _ => {
                let tokens = self.entries().as_chunks::<4>().0;
                out.iter_mut().zip(&tokens[at..]).for_each(|(out, token)| *out = u32::from_le_bytes(*token));
            }
        }
    }
}
