//! What deduplication and the split need to know of each document, in a file of equal records, so that memory holds none of them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::minhash::{Signature, Sketcher, VALUES};
use super::shingles::{Scratch, shingles};
use crate::source::Document;

const HASH: usize = 16;
/// Bytes of one record: content hash, text bytes, shingles, language, signature.
const RECORD: usize = HASH + 4 + 4 + 4 + 2 * VALUES;

/// What is known of one document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    /// The first 128 bits of the text's BLAKE3.
    pub hash: [u8; HASH],
    pub bytes: u32,
    /// 0 when the text has no letters or digits: it then has no near-duplicates.
    pub shingles: u32,
    /// ISO 639-3, zeros when not known.
    pub language: [u8; 4],
    pub signature: Signature,
}

/// Computes facts with buffers kept from text to text.
#[derive(Default)]
pub(crate) struct FactFinder {
    scratch: Scratch,
    shingles: Vec<u64>,
    sketcher: Sketcher,
}

impl FactFinder {
    /// Appends the record of a document to `out`.
    pub fn append(&mut self, document: &Document, out: &mut Vec<u8>) {
        self.shingles.clear();
        let found = &mut self.shingles;
        let count = shingles(&document.text, &mut self.scratch, |shingle| found.push(shingle));
        let mut language = [0; 4];
        if let Some(code) = &document.language {
            let length = code.len().min(language.len());
            language[..length].copy_from_slice(&code.as_bytes()[..length]);
        }
        let signature = self.sketcher.sketch(&self.shingles);
        out.extend_from_slice(&blake3::hash(document.text.as_bytes()).as_bytes()[..HASH]);
        out.extend_from_slice(&(document.text.len() as u32).to_le_bytes());
        out.extend_from_slice(&(count as u32).to_le_bytes());
        out.extend_from_slice(&language);
        out.extend(signature.iter().flat_map(|value| value.to_le_bytes()));
    }
}

impl Facts {
    fn parse(record: &[u8; RECORD]) -> Self {
        let word = |at: usize| [record[at], record[at + 1], record[at + 2], record[at + 3]];
        let mut hash = [0; HASH];
        hash.copy_from_slice(&record[..HASH]);
        let mut signature = [0; VALUES];
        for (value, bytes) in signature.iter_mut().zip(record[HASH + 12..].as_chunks::<2>().0) {
            *value = u16::from_le_bytes(*bytes);
        }
        Self {
            hash,
            bytes: u32::from_le_bytes(word(HASH)),
            shingles: u32::from_le_bytes(word(HASH + 4)),
            language: word(HASH + 8),
            signature,
        }
    }
}

/// The facts of all documents, by their number.
pub(crate) struct FactFile {
    file: File,
    documents: u32,
}

impl FactFile {
    /// # Errors
    /// When the file is not whole records, or has more documents than can be numbered.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let bytes = file.metadata()?.len();
        ensure!(bytes.is_multiple_of(RECORD as u64), "{} ends inside a record", path.display());
        let documents = u32::try_from(bytes / RECORD as u64).ok().filter(|count| *count < u32::MAX);
        Ok(Self { file, documents: documents.context("a corpus can have at most 4 billion documents; split it")? })
    }

    pub fn documents(&self) -> u32 {
        self.documents
    }

    pub fn get(&self, document: u32) -> Result<Facts> {
        let mut record = [0; RECORD];
        self.file
            .read_exact_at(&mut record, u64::from(document) * RECORD as u64)
            .context("cannot read back the facts of a document")?;
        Ok(Facts::parse(&record))
    }

    /// The bytes of a document's text.
    pub fn bytes(&self, document: u32) -> Result<u32> {
        let mut bytes = [0; 4];
        let at = u64::from(document) * RECORD as u64 + HASH as u64;
        self.file.read_exact_at(&mut bytes, at).context("cannot read back the facts of a document")?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// All facts in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Facts>> {
        let mut reader = BufReader::with_capacity(1 << 20, AtOffset { file: &self.file, offset: 0 });
        (0..self.documents).map(move |_| {
            let mut record = [0; RECORD];
            reader.read_exact(&mut record).context("cannot read back the facts of a document")?;
            Ok(Facts::parse(&record))
        })
    }
}

/// Reads a file from an offset of its own, so that several readers of one file do not disturb each other.
struct AtOffset<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for AtOffset<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    #[test]
    fn facts_come_back() {
        let document = |text: &str, language: Option<&str>| Document {
            text: text.to_owned(),
            origin: "a".to_owned(),
            kind: Kind::Prose,
            language: language.map(str::to_owned),
        };
        let mut bytes = Vec::new();
        let mut finder = FactFinder::default();
        finder.append(&document("one two three four", Some("eng")), &mut bytes);
        finder.append(&document("…", None), &mut bytes);
        finder.append(&document("ONE two, three four", None), &mut bytes);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("facts");
        std::fs::write(&path, &bytes).unwrap();
        let facts = FactFile::open(&path).unwrap();
        let all: Vec<_> = facts.iter().map(Result::unwrap).collect();
        assert_eq!((all.len(), facts.documents()), (3, 3));
        assert_eq!((all[0].bytes, all[0].shingles, all[0].language), (18, 2, *b"eng\0"));
        assert_eq!((all[1].shingles, all[1].language), (0, [0; 4]));
        assert_eq!(all[0].signature, all[2].signature);
        assert_ne!(all[0].hash, all[2].hash);
        assert_eq!(facts.get(2).unwrap(), all[2]);
        std::fs::write(&path, &bytes[1..]).unwrap();
        assert!(FactFile::open(&path).is_err());
    }
}
